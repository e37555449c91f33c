//! The store's handle: what its users call.
#[cfg(feature = "etcd")]
use crate::etcd::{self, Etcd, Found, Remote};
use crate::{
    Cipher, Class, Directory, Error, Key, Opened, Precondition, Revision, Snapshot, Stats, Storage, Transaction,
    Unreadable, Value, Watcher, Write,
    disk::{Counters, Disk, Known, Loaded, Sealed, Sizes},
    guard::BLOCK_BYTES,
    page,
    root::Root,
    state::State,
    storage::Part,
    writer::{self, Apart, End, Shared, Writer},
};
use futures_lite::future::yield_now;
use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the journal and the database; `None` keeps everything in memory.
    pub dir: Option<PathBuf>,
    /// redb's page cache while it is open. The store itself holds everything in memory, so a few hundred kilobytes do.
    pub cache_bytes: usize,
    pub watch_events: usize,
    pub watch_bytes: usize,
    /// How long an old root stays readable (continued LISTs).
    pub history: Duration,
    /// How long a lazy write may wait; six times as long in a storm of them, and while the flash budget is exceeded.
    pub lazy_delay: Duration,
}

/// Dropping it without `close` is a crash as far as lazy writes go; what is durable stays.
pub struct Store {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    end: Arc<Mutex<End>>,
    writer: Mutex<Option<JoinHandle<Result<(), Error>>>>,
    /// What that thread writes with, for as long as it runs.
    hand: Weak<Mutex<Writer>>,
    damaged: Vec<String>,
    cipher: Option<Arc<dyn Cipher>>,
    /// None: nothing is on disk.
    scrubbed: Option<Scrubbed>,
    /// Who numbers the commits and keeps them; None: this store does.
    #[cfg(feature = "etcd")]
    remote: Option<Remote>,
}

struct Scrubbed {
    storage: Arc<dyn Storage>,
    sums: Known,
    /// The block of the database to go on from.
    next: Mutex<usize>,
}

impl Store {
    /// Reads the database whole. It writes only to create one or to repair one that was not closed.
    pub fn open(options: Options) -> Result<Store, Error> {
        Store::open_sealed(options, None)
    }

    /// The same with values encrypted on disk.
    pub fn open_sealed(options: Options, cipher: Option<Arc<dyn Cipher>>) -> Result<Store, Error> {
        let storage = match &options.dir {
            Some(dir) => Some(Directory::new(dir).map_err(|e| Error::reading("opening the data directory", &e))?),
            None => None,
        };
        Store::start(&options, storage.map(|directory| Arc::new(directory) as Arc<dyn Storage>), cipher)
    }

    /// The store on etcd, which others write to as well; `options.dir` is not looked at. Reads all there is.
    #[cfg(feature = "etcd")]
    pub async fn open_etcd(options: Options, etcd: Etcd, cipher: Option<Arc<dyn Cipher>>) -> Result<Store, Error> {
        let Found { inner, loaded } = etcd::load(etcd, cipher.clone()).await?;
        let shared = Arc::new(Shared::new(State::new(&options, loaded, false)));
        let remote = Some(Remote::start(inner, shared.clone()));
        Ok(Store {
            shared,
            counters: Arc::default(),
            end: Arc::new(Mutex::new(End::Abandon)),
            writer: Mutex::new(None),
            hand: Weak::new(),
            damaged: Vec::new(),
            cipher,
            scrubbed: None,
            remote,
        })
    }

    /// Whether others write here too.
    pub fn is_shared(&self) -> bool {
        #[cfg(feature = "etcd")]
        return self.remote.is_some();
        #[cfg(not(feature = "etcd"))]
        false
    }

    /// What others have written so far is seen when this resolves; where nobody else writes, that is at once.
    pub async fn catch_up(&self) {
        #[cfg(feature = "etcd")]
        if let Some(remote) = &self.remote {
            remote.catch_up(&self.shared).await;
        }
    }

    /// The same over another place for the bytes; `options.dir` is not looked at.
    pub fn open_in(options: Options, storage: Arc<dyn Storage>) -> Result<Store, Error> {
        Store::start(&options, Some(storage), None)
    }

    /// The same without a thread: nothing is flushed unless the writer is told to.
    pub fn open_by_hand(options: Options, sizes: Sizes, storage: Arc<dyn Storage>) -> Result<(Store, Writer), Error> {
        let (store, disk) = Store::prepare(&options, sizes, Some(storage), None)?;
        let writer = Writer::new(store.shared.clone(), disk.ok_or(Error::Closed)?);
        Ok((store, writer))
    }

    fn start(
        options: &Options,
        storage: Option<Arc<dyn Storage>>,
        cipher: Option<Arc<dyn Cipher>>,
    ) -> Result<Store, Error> {
        let (mut store, disk) = Store::prepare(options, Sizes::default(), storage, cipher)?;
        if let Some(disk) = disk {
            let (shared, end) = (store.shared.clone(), store.end.clone());
            let mut writer = Writer::new(shared.clone(), disk);
            writer.apart = Apart::Thread;
            let writer = Arc::new(Mutex::new(writer));
            store.hand = Arc::downgrade(&writer);
            let thread = std::thread::Builder::new().name("mote-store".into()).stack_size(writer::STACK_BYTES);
            let thread = thread.spawn(move || Writer::run(&writer, &shared, &end));
            store.writer = Mutex::new(Some(thread.map_err(|e| Error::io("starting the writer", &e))?));
        }
        Ok(store)
    }

    fn prepare(
        options: &Options,
        sizes: Sizes,
        storage: Option<Arc<dyn Storage>>,
        cipher: Option<Arc<dyn Cipher>>,
    ) -> Result<(Store, Option<Disk>), Error> {
        let (counters, sums) = (Arc::new(Counters::default()), Known::default());
        let scrubbed = storage.clone().map(|storage| Scrubbed { storage, sums: sums.clone(), next: Mutex::new(0) });
        let (disk, loaded) = match storage {
            Some(storage) => {
                let (disk, loaded) =
                    Disk::open(storage, options.cache_bytes, sizes, counters.clone(), cipher.clone(), sums.clone())?;
                (Some(disk), loaded)
            }
            None => {
                let (root, damaged, sealed) = (Root::default(), Vec::new(), Sealed::default());
                (None, Loaded { root, reserved: 1, damaged, sealed })
            }
        };
        for key in &loaded.damaged {
            tracing::error!(key, "damaged on disk and left out");
        }
        for (key, (_, why)) in &loaded.sealed.unreadable {
            tracing::error!(%key, why, "cannot be read and is left as it is");
        }
        let damaged = loaded.damaged.clone();
        let shared = Arc::new(Shared::new(State::new(options, loaded, disk.is_some())));
        let end = Arc::new(Mutex::new(End::Abandon));
        let store = Store {
            shared,
            counters,
            end,
            writer: Mutex::new(None),
            hand: Weak::new(),
            damaged,
            cipher,
            scrubbed,
            #[cfg(feature = "etcd")]
            remote: None,
        };
        Ok((store, disk))
    }

    /// Newest visible revision.
    pub fn revision(&self) -> Revision {
        self.shared.lock().visible.revision
    }

    /// The newest visible state; cheap.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().visible.clone()
    }

    /// The state exactly at `revision`, if still kept: as long as its later events are in the watch ring, and for
    /// `Options::history` after it was last asked for; but never when it was replaced longer than that ago.
    pub fn snapshot_at(&self, revision: Revision) -> Result<Snapshot, Error> {
        self.shared.lock().snapshot_at(revision)
    }

    /// All preconditions hold and all writes happen at one new revision, or nothing does. Returns that revision.
    /// Resolves once the class' promise holds and the revision is visible. Preconditions are checked against the
    /// newest state, visible or not; a refusal is told when what it is for can be seen. Dropping the future does not take the
    /// transaction back.
    ///
    /// After an error of the storage the transaction is not visible and never will be, unless a crash follows before
    /// the next flush: then it may be found done.
    pub async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        #[cfg(feature = "etcd")]
        if let Some(remote) = &self.remote {
            return remote.commit(transaction, &self.shared).await;
        }
        let (reply, outcome) = async_channel::bounded(1);
        if let Some(turn) = self.shared.submit(transaction, reply) {
            // Whoever else can commit now does so first.
            yield_now().await;
            if let Some(writer) = self.hand.upgrade() {
                turn.take(&writer);
            }
        }
        outcome.recv().await.unwrap_or(Err(Error::Closed))
    }

    /// Events after `from` for keys that start with `prefix`.
    pub fn watch(&self, prefix: &str, from: Revision) -> Result<Watcher, Error> {
        let mut state = self.shared.lock();
        let (oldest, current) = (state.ring.floor(), state.visible.revision);
        if from > current {
            return Err(Error::Future { asked: from, current });
        }
        if from < oldest {
            return Err(Error::Compacted { asked: from, oldest });
        }
        Ok(Watcher::new(self.shared.clone(), state.ring.subscribe(prefix, from)))
    }

    /// Resolves when the visible revision is at least `revision`.
    pub async fn wait_for(&self, revision: Revision) {
        self.shared.wait_for(revision).await;
    }

    pub fn stats(&self) -> Stats {
        let mut stats = self.shared.lock().stats();
        stats.written_bytes = self.counters.bytes.load(Ordering::Relaxed);
        stats.syncs = self.counters.syncs.load(Ordering::Relaxed);
        stats.rounds = self.counters.rounds.load(Ordering::Relaxed);
        stats.journal_bytes = self.counters.journal.load(Ordering::Relaxed);
        stats.file_bytes = self.counters.file.load(Ordering::Relaxed);
        stats
    }

    /// Keys whose records were damaged when the store was opened, and places where no key could be read.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Of these, what has not been written again since; and what a scrub has found that is not yet written anew.
    pub fn damage(&self) -> Vec<String> {
        let state = self.shared.lock();
        state.lost.iter().chain(&state.rot).cloned().collect()
    }

    /// What was damaged at start is again what somebody has decided that it is.
    pub fn forget_damage(&self) {
        self.shared.lock().lost.clear();
    }

    /// Reads the journal and up to so many bytes of the database from the disk, where the last call ended, and compares them
    /// with what was verified or written. What has rotted is named (keys, and blocks where no key can be read) and written
    /// anew from memory: nothing is lost. Blocks.
    pub fn scrub(&self, limit_bytes: u64) -> Result<Vec<String>, Error> {
        let doing = "checking what is on the disk";
        let Some(Scrubbed { storage, sums, next }) = &self.scrubbed else { return Ok(Vec::new()) };
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named = Vec::new();
        for (part, sums, from) in [(Part::Journal, &sums.journal, 0), (Part::Database, &sums.database, *next)] {
            let blocks = match storage.open_fresh(part) {
                // There is none before the first write.
                Err(error) if part == Part::Journal && error.kind() == io::ErrorKind::NotFound => continue,
                blocks => blocks.map_err(|e| Error::reading(doing, &e))?,
            };
            // The journal is small, and all that is not in the database.
            let limit_bytes = if part == Part::Journal { u64::MAX } else { limit_bytes };
            let (end, rotten) = sums.scrub(&*blocks, from, limit_bytes).map_err(|e| Error::reading(doing, &e))?;
            if part == Part::Database {
                *next = end;
            }
            for block in &rotten {
                let mut bytes = vec![0; BLOCK_BYTES];
                let read = blocks.read((block * BLOCK_BYTES) as u64, &mut bytes);
                let keys = read.ok().filter(|()| part == Part::Database).map(|()| page::keys(&bytes));
                let keys = keys.filter(|keys| !keys.is_empty());
                let place = if part == Part::Journal { "of the journal" } else { "of the database" };
                named.extend(keys.unwrap_or_else(|| vec![format!("block {block} {place}")]));
            }
            if !rotten.is_empty() {
                let found = named.clone();
                if part == Part::Journal {
                    // Nobody reads it before the next start, and its place stays for a while: it is told once.
                    sums.forget_blocks(&rotten);
                }
                self.shared.change(|state, _| {
                    state.rotten.push(part);
                    state.rot = found;
                });
            }
        }
        Ok(named)
    }

    /// The first entry that is on disk under a key that starts so, and cannot be decrypted.
    pub fn unreadable(&self, prefix: &str) -> Option<Unreadable> {
        self.shared.lock().unreadable(prefix)
    }

    /// On disk this entry is not sealed as it would be today: writing it anew, even unchanged, makes a difference.
    pub fn is_stale(&self, key: &str) -> bool {
        self.shared.lock().sealed.stale.contains(key)
    }

    /// The cipher has changed: entries for which `is_stale` holds are sealed otherwise from now on, and what could not be
    /// read is tried again. Returns how many entries became readable; they are written anew on the way.
    pub async fn resealed(&self, is_stale: impl Fn(&str) -> bool) -> Result<usize, Error> {
        let Some(cipher) = &self.cipher else { return Ok(0) };
        let unreadable: Vec<(Key, Value)> = {
            let mut state = self.shared.lock();
            let keys: Vec<Key> =
                state.visible.range("", None).map(|entry| entry.key).filter(|key| is_stale(key)).collect();
            state.sealed.stale.extend(keys);
            state.sealed.unreadable.iter().map(|(key, (held, _))| (key.clone(), held.value.clone())).collect()
        };
        let mut read = 0;
        for (key, stored) in unreadable {
            let value = match cipher.open(&key, &stored) {
                Ok(Opened { value, .. }) => value.map_or(stored, Value::from),
                Err(why) => {
                    if let Some(entry) = self.shared.lock().sealed.unreadable.get_mut(&key) {
                        entry.1 = why;
                    }
                    continue;
                }
            };
            let Some(aside) = self.shared.lock().sealed.unreadable.remove(&key) else { continue };
            // Others see it as it is.
            let before = if self.is_shared() { Precondition::Modified(aside.0.modified) } else { Precondition::Absent };
            let preconditions = vec![(key.clone(), before)];
            let writes = vec![Write::Put(key.clone(), value)];
            let done = self.commit(Transaction { class: Class::Durable, preconditions, writes }).await;
            if let Err(error) = done {
                self.shared.lock().sealed.unreadable.insert(key, aside);
                return Err(error);
            }
            read += 1;
        }
        Ok(read)
    }

    /// Flushes what is lazy; later commits fail with `Closed`. Reads go on. Blocks until the disk is done.
    pub fn close(&self) -> Result<(), Error> {
        self.stop(End::Flush)
    }

    pub(crate) fn cipher(&self) -> Option<Arc<dyn Cipher>> {
        self.cipher.clone()
    }

    /// What the disk is to take a day; 0: as much as there is. While more is written, lazy writes wait longer.
    pub fn set_budget(&self, bytes_a_day: u64) {
        self.shared.lock().meter.set_budget(bytes_a_day);
    }

    /// Why what was written last is not on disk, or the database not up to date.
    pub fn trouble(&self) -> Option<Error> {
        self.shared.lock().trouble.clone()
    }

    fn stop(&self, end: End) -> Result<(), Error> {
        let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            self.shared.change(|state, told| state.close(told));
            return Ok(());
        };
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
        self.shared.change(|state, told| match end {
            End::Flush => state.closing = true,
            End::Abandon => state.close(told),
        });
        let result = writer.join().unwrap_or(Err(Error::Closed));
        self.shared.change(|state, told| state.close(told));
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.stop(End::Abandon);
    }
}
