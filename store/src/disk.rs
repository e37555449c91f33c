//! The durable side: the journal, which every flush is appended to, and the database behind it, which gets what the
//! journal holds from time to time. What the bytes mean is in `FORMAT.md`.
//!
//! A *round* brings the database up to date: the newest value of each key that has changed, from memory, slice by slice
//! between flushes. When the last slice is there with the number of the batch that it began behind, the journal up to
//! that batch is free. Until then the journal holds all that has happened since the round before, so what a cut leaves
//! of a round does not matter: the journal is applied on top. So a slice may be written while flushes go on: what is in it was
//! flushed when it was begun, and only its end concerns the journal.
//!
//! When the file has grown far beyond what is live, a round writes a new one instead, from all that is live.
use crate::{
    Cipher, Entry, Error, Key, Opened, Revision, Storage, Value, change,
    database::{self, Contents, Meta, Place},
    frame::SEGMENT_BYTES,
    guard::{Summed, Sums},
    journal::{Batch, HELD_BACK, Journal},
    record,
    recover::{Recovered, recover},
    root::{Held, Root},
    storage::{Blocks, Part},
};
use redb::Database;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// What the files may take. A test takes less.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The journal's file, which is written over and over. When half of it is in use a round begins.
    pub journal_bytes: usize,
    /// However little is live, a database is not written anew before it has so much.
    pub least_file_bytes: u64,
}

impl Default for Sizes {
    /// Room for 180 lone commits.
    fn default() -> Sizes {
        Sizes { journal_bytes: 768 * 1024, least_file_bytes: 2_500_000 }
    }
}

impl Sizes {
    fn places(&self) -> usize {
        self.journal_bytes.div_ceil(SEGMENT_BYTES)
    }
}

/// When the database cannot be written, the journal grows to so many times its size.
const MAX_JOURNAL_TIMES: usize = 16;

/// While the database cannot keep up, to so many times, rather than to have a flush wait.
const CROWDED_TIMES: usize = 4;

/// What a slice writes at most: so much that a commit that waits behind it does not notice on a slow card.
const SLICE_BYTES: usize = 64 * 1024;
/// And so many keys, for each may be in a page of its own.
const SLICE_KEYS: usize = 64;
/// A slice that nobody waits for may be so many times as large, and has fewer flushes of its own for that; but no more than a
/// part of what is live, for the database keeps what a slice replaces until the next one is there.
const APART_TIMES: usize = 4;
const LIVE_PARTS: usize = 16;

/// A round that finds the database's file larger than so many times what is live writes it anew.
const FILE_TIMES: u64 = 3;

/// Less than this on the disk is little: nothing is written there apart, for what a slice that fails leaves is not given back.
const ROOM_BYTES: u64 = 16 << 20;

/// Held back on the disk for the day it is full: what goes then still needs a place for its traces.
const RESERVE_BYTES: u64 = 1 << 20;

/// The revision of a store that has never been written.
const FIRST_REVISION: Revision = 1;

/// What one flush writes: the newest version of each key, None for a deletion.
pub(crate) type Writes = BTreeMap<Key, Option<Held>>;

pub(crate) struct Flush {
    pub writes: Writes,
    /// What is live when it is done.
    pub root: Root,
    /// No revision above this one will be handed out before the next flush.
    pub reserve: Revision,
    /// It is of no use when the disk is full.
    pub grows: bool,
}

pub(crate) struct Disk {
    storage: Arc<dyn Storage>,
    cache_bytes: usize,
    sizes: Sizes,
    counters: Arc<Counters>,
    cipher: Option<Arc<dyn Cipher>>,
    journal: Journal,
    /// There is no journal before the first flush.
    missing: bool,
    /// The journal, open for writing.
    blocks: Option<Box<dyn Blocks>>,
    /// Keys that the journal says more of than the database.
    changed: BTreeSet<Key>,
    round: Option<Round>,
    /// A slice of the round is being written by somebody, who has the round.
    is_slicing: bool,
    /// All that was flushed.
    flushed: Root,
    reserved: Revision,
    /// Whether space is held back; None: not yet tried.
    held_back: Option<bool>,
    /// Of the blocks of the journal and the database.
    sums: Known,
    /// The database's file is damaged: the next round writes a new one, and the old one is kept.
    damaged: bool,
    /// The journal has rotted: what it holds goes to the database at once.
    leave_journal: bool,
}

/// What is known of the blocks of both parts, from the last time that they were read or written.
#[derive(Clone, Default)]
pub(crate) struct Known {
    pub journal: Sums,
    pub database: Sums,
}

/// A round that is not complete.
struct Round {
    /// None: closed.
    database: Option<Database>,
    /// What it still has to write.
    keys: BTreeSet<Key>,
    meta: Meta,
    /// The segment of the journal that was written when it began.
    segment: u64,
    /// How far it is in `Root::kept`, if it writes a new file.
    anew: Option<(bool, Option<Key>)>,
    /// All keys it began with.
    began_with: BTreeSet<Key>,
    /// Something of it could not be written, whatever redb made of that.
    failed: Arc<AtomicBool>,
    /// Of the blocks of the file it writes.
    sums: Sums,
}

/// Keys and their records; None: deleted.
type Changes = Vec<(Key, Option<Vec<u8>>)>;

/// A part of a round, which anybody may write.
pub(crate) struct Slice {
    round: Round,
    changes: Changes,
    is_last: bool,
}

/// What became of it.
pub(crate) struct Sliced {
    round: Round,
    is_last: bool,
    result: Result<(), Error>,
}

impl Slice {
    /// Blocks. The last one leaves the database closed.
    pub fn write(self) -> Sliced {
        let Slice { mut round, changes, is_last } = self;
        let mut write = || {
            let database = round.database.as_ref().ok_or(Error::Closed)?;
            database::write(database, &changes, is_last.then_some(round.meta))?;
            if is_last { round.database.take().map_or(Ok(()), database::close) } else { Ok(()) }
        };
        let result = write();
        Sliced { round, is_last, result }
    }
}

/// What the disk held when it was opened.
pub(crate) struct Loaded {
    pub root: Root,
    pub reserved: Revision,
    /// Keys whose newest value is not what was written, and places where not even keys can be read.
    pub damaged: Vec<String>,
    pub sealed: Sealed,
}

/// What the cipher had to say about entries.
#[derive(Default)]
pub(crate) struct Sealed {
    /// Cannot be opened: as they are on disk, and why. They are not in the root.
    pub unreadable: BTreeMap<Key, (Held, String)>,
    /// Sealed otherwise than they would be today.
    pub stale: HashSet<Key>,
}

/// What went to the storage, and what it takes there.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub bytes: AtomicU64,
    pub syncs: AtomicU64,
    pub rounds: AtomicU64,
    pub journal: AtomicU64,
    pub file: AtomicU64,
}

impl Disk {
    pub fn open(
        storage: Arc<dyn Storage>,
        cache_bytes: usize,
        sizes: Sizes,
        counters: Arc<Counters>,
        cipher: Option<Arc<dyn Cipher>>,
        sums: Known,
    ) -> Result<(Disk, Loaded), Error> {
        let (counting, places) = (counting(&counters), sizes.places());
        let counted = |blocks| counting.wrap(blocks);
        let place = Place { storage: &*storage, cache_bytes, sums: &sums.database, counted: &counted };
        if let Err(error) = storage.open(Part::Database, false)
            && error.kind() == io::ErrorKind::NotFound
        {
            database::close(place.create()?)?;
            storage.publish(Part::Database).map_err(|e| Error::io("creating the database", &e))?;
        }
        let Contents { entries, meta, mut damaged, salvaged } = place.read()?;
        let blocks = match storage.open(Part::Journal, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            blocks => Some(blocks.map_err(|e| Error::reading("opening the journal", &e))?),
        };
        let exists = blocks.is_some();
        let recovered = blocks.map(|blocks| recover(&*blocks, meta.batch, &sums.journal)).transpose()?.flatten();
        let missing = recovered.is_none();
        let mut leave_journal = false;
        let (journal, changes, reserved) = match recovered {
            Some(Recovered { mut journal, changes, reserved, damaged: also, mended }) => {
                leave_journal = mended || !also.is_empty();
                journal.unsure |= leave_journal;
                damaged.retain(|key| !changes.contains_key(&**key));
                damaged.extend(also);
                (journal, changes, reserved)
            }
            None => {
                if exists {
                    // Whatever it held; it stays for who can read more of it.
                    storage.set_aside(Part::Journal).map_err(|e| Error::io("setting the journal aside", &e))?;
                    damaged.push("the journal".into());
                }
                (Journal::new(meta.batch + 1, places), BTreeMap::new(), 0)
            }
        };
        let changed: BTreeSet<Key> = changes.keys().cloned().collect();
        let mut entries = entries;
        for (key, held) in changes {
            match held {
                Some(held) => drop(entries.insert(key, held)),
                None => drop(entries.remove(&key)),
            }
        }
        let (mut root, mut sealed) = (Root::default(), Sealed::default());
        for (key, held) in entries {
            match opened(cipher.as_deref(), &key, held.clone(), &mut sealed) {
                Some(held) => root.insert(key, held),
                None => root.set_aside(key, held),
            }
        }
        let reserved = reserved.max(meta.reserved).max(FIRST_REVISION);
        let flushed = root.clone();
        let (blocks, round, held_back) = (None, None, None);
        let disk = Disk {
            storage,
            cache_bytes,
            sizes,
            counters,
            cipher,
            journal,
            missing,
            blocks,
            changed,
            round,
            is_slicing: false,
            flushed,
            reserved,
            held_back,
            sums,
            damaged: salvaged,
            leave_journal,
        };
        disk.measure();
        Ok((disk, Loaded { root, reserved, damaged, sealed }))
    }

    /// A new database with these entries, as they are on disk.
    pub fn create_from(
        storage: &dyn Storage,
        reserved: Revision,
        entries: &mut dyn Iterator<Item = Result<Entry, Error>>,
    ) -> Result<(), Error> {
        let counted = |blocks| blocks;
        let place = Place { storage, cache_bytes: RESERVE_BYTES as usize, sums: &Sums::default(), counted: &counted };
        let database = place.create()?;
        let (mut slice, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            let entry = entry?;
            let record = record::encode(&entry.key, &Held::from(&entry));
            bytes += record.len();
            slice.push((entry.key, Some(record)));
            if bytes > SLICE_BYTES * 16 {
                database::write(&database, &slice, None)?;
                (slice, bytes) = (Vec::new(), 0);
            }
        }
        database::write(&database, &slice, Some(Meta { reserved, batch: 0 }))?;
        database::close(database)?;
        storage.publish(Part::Database).map_err(|e| Error::io("creating the database", &e))
    }

    /// All of it in one batch of the journal. On an error nothing of it counts as written.
    pub fn flush(&mut self, flush: &Flush) -> Result<(), Error> {
        let result = self.append(flush);
        if result.is_err() {
            // A disk that was taken away and given back is another one to whoever has the file open.
            self.blocks = None;
        }
        result
    }

    fn append(&mut self, flush: &Flush) -> Result<(), Error> {
        if self.missing {
            self.sums.journal.forget();
            let mut create = || {
                let blocks = counting(&self.counters).wrap(self.storage.create(Part::Journal)?);
                let blocks = Summed { blocks, sums: self.sums.journal.clone() };
                self.journal = Journal::new(self.journal.next_batch, self.sizes.places());
                self.journal.format(&blocks, self.reserved)?;
                self.storage.publish(Part::Journal)
            };
            create().map_err(|e| Error::io("creating the journal", &e))?;
            self.missing = false;
        }
        if self.blocks.is_none() {
            let blocks = self.storage.open(Part::Journal, true);
            let blocks = blocks.map_err(|e| Error::io("opening the journal for writing", &e))?;
            let blocks = counting(&self.counters).wrap(blocks);
            self.blocks = Some(Box::new(Summed { blocks, sums: self.sums.journal.clone() }));
        }
        let Some(blocks) = &self.blocks else { return Err(Error::Closed) };
        let mut batch = Batch::default();
        for (key, held) in &flush.writes {
            batch.starts.push(batch.bytes.len());
            let sealed = held.as_ref().map(|held| seal(self.cipher.as_deref(), key, held)).transpose()?;
            let held = sealed.as_ref().zip(held.as_ref());
            let held = held.map(|(value, held)| (value.as_deref().unwrap_or(&held.value), held.created, held.modified));
            let too_large = || Error::Storage { doing: "writing the journal", message: format!("{key}: too large") };
            change::encode(&mut batch.bytes, key, held).ok_or_else(too_large)?;
        }
        if flush.grows && self.held_back != Some(true) {
            // What was given back proves nothing: there must be more than that.
            let (storage, times) = (&*self.storage, if self.held_back.is_some() { 2 } else { 1 });
            let held = storage.hold_back(RESERVE_BYTES * times).and_then(|()| storage.hold_back(RESERVE_BYTES));
            self.held_back = Some(held.is_ok());
            if let Err(error) = held {
                // Half of it may be there, and is for what frees space.
                let _ = storage.hold_back(0);
                // What was deleted has left room in the file.
                if self.counters.file.load(Ordering::Relaxed) < 2 * flush.root.kept_bytes() as u64 {
                    return Err(Error::io("holding space back", &error));
                }
            }
        }
        let needed = self.journal.needs(batch.bytes.len());
        let spare = if flush.grows { HELD_BACK } else { 0 };
        while self.journal.free.len() < needed + spare {
            // What is on its way out is not in use: else a journal that was full once would have no place for the batch
            // that frees it.
            let places = self.journal.places - self.journal.leaving.len();
            if places >= self.sizes.places() * MAX_JOURNAL_TIMES + needed {
                return Err(Error::Full);
            }
            self.journal.extend(&**blocks).map_err(|e| Error::io("making room in the journal", &e))?;
        }
        self.journal.may_grow = self.journal.places < self.sizes.places() * MAX_JOURNAL_TIMES;
        self.journal.append(&**blocks, &batch, flush.reserve).map_err(|e| Error::io("writing the journal", &e))?;
        self.changed.extend(flush.writes.keys().cloned());
        self.flushed = flush.root.clone();
        self.reserved = flush.reserve;
        if self.journal.places > self.sizes.places() && !self.is_in_round() {
            // What is not given back today is given back tomorrow.
            let _ = self.journal.shrink(&**blocks, self.sizes.places());
        }
        Ok(())
    }

    pub fn written_bytes(&self) -> u64 {
        self.counters.bytes.load(Ordering::Relaxed)
    }

    pub fn is_in_round(&self) -> bool {
        self.round.is_some() || self.is_slicing
    }

    /// The journal has little room left and is as long as it may become: who flushes waits for the slice that is being written.
    pub fn is_crowded(&self) -> bool {
        let most = self.sizes.places() * if self.has_room() { CROWDED_TIMES } else { 1 };
        self.is_full() && self.journal.places >= most
    }

    fn is_full(&self) -> bool {
        self.journal.free.len() < HELD_BACK + 2
    }

    /// A flush of less than a segment is one write, or two, and waits for nothing.
    pub fn is_ready(&self) -> bool {
        let open = !self.missing && self.blocks.is_some() && self.held_back == Some(true);
        open && !self.is_full() && self.journal.places <= self.sizes.places()
    }

    pub fn has_room(&self) -> bool {
        self.held_back != Some(false) && self.storage.free_bytes().is_ok_and(|free| free >= ROOM_BYTES)
    }

    /// More should be written although nobody waits for it.
    pub fn is_behind(&self) -> bool {
        self.is_in_round() || self.is_damaged() || self.journal.bytes() > self.sizes.journal_bytes / 2
    }

    pub fn is_damaged(&self) -> bool {
        self.damaged || self.leave_journal
    }

    /// A part was found damaged: the database is to be written anew, and what the journal holds is to be in it.
    pub fn heal(&mut self, part: Part) {
        match part {
            Part::Database => self.damaged = true,
            Part::Journal => {
                self.leave_journal = true;
                self.journal.unsure = true;
            }
        }
    }

    /// One slice of a round; begins one when none is going on.
    fn slice(&mut self) -> Result<(), Error> {
        let slice = self.begin_slice(false);
        self.end_slice(slice.map(Slice::write))
    }

    /// The next part of the round, or of a new one. Whatever comes of it, `end_slice` is to be told before the next one begins.
    pub fn begin_slice(&mut self, is_apart: bool) -> Result<Slice, Error> {
        let mut round = match self.round.take() {
            Some(round) => round,
            None => self.begin()?,
        };
        let most = if is_apart { APART_TIMES } else { 1 };
        let times = (self.flushed.kept_bytes() / LIVE_PARTS / SLICE_BYTES).clamp(1, most);
        match self.fill(&mut round, times) {
            Ok((changes, is_last)) => {
                self.is_slicing = true;
                Ok(Slice { round, changes, is_last })
            }
            Err(error) => {
                self.changed.append(&mut round.began_with);
                Err(error)
            }
        }
    }

    pub fn end_slice(&mut self, sliced: Result<Sliced, Error>) -> Result<(), Error> {
        self.is_slicing &= sliced.is_ok();
        let mut result = sliced.and_then(|sliced| self.take_back(sliced));
        if result.is_err() {
            self.storage.forget(Part::Database);
        }
        if matches!(result, Err(Error::Full)) && self.held_back.is_none_or(|held| held) {
            self.held_back = Some(false);
            result = self.storage.hold_back(0).map_err(|e| Error::io("giving space back", &e));
            result = result.and_then(|()| self.begin_slice(false)).and_then(|slice| self.take_back(slice.write()));
            if result.is_err() {
                self.storage.forget(Part::Database);
            }
        }
        if let Err(error) = &result {
            self.doubt(error);
        }
        self.measure();
        result
    }

    fn take_back(&mut self, sliced: Sliced) -> Result<(), Error> {
        let Sliced { mut round, is_last, result } = sliced;
        self.is_slicing = false;
        match result {
            Ok(()) if is_last => return self.complete(round),
            Ok(()) => self.round = Some(round),
            Err(_) => self.changed.append(&mut round.began_with),
        }
        result
    }

    /// What a failed round left is verified whole by the next one; what is damaged is written anew.
    fn doubt(&mut self, error: &Error) {
        self.sums.database.forget();
        self.damaged |= matches!(error, Error::Damaged { .. });
    }

    fn begin(&mut self) -> Result<Round, Error> {
        let counting = counting(&self.counters);
        let counted = |blocks| counting.wrap(blocks);
        let sums = self.sums.database.clone();
        let place = Place { storage: &*self.storage, cache_bytes: self.cache_bytes, sums: &sums, counted: &counted };
        let taken = self.storage.taken_bytes(Part::Database);
        let taken = taken.map_err(|e| Error::reading("measuring the database", &e))?;
        // A full disk has no room for two.
        let anew = self.damaged || taken > self.file_limit() && self.held_back != Some(false);
        let found = if anew { None } else { Some(place.open()) };
        let (database, sums, anew) = match found {
            Some(Err(Error::Damaged { message, .. })) => {
                tracing::error!(message, "the database has rotted on the disk; it is written anew from memory");
                self.damaged = true;
                let sums = Sums::default();
                (Place { sums: &sums, ..place }.create()?, sums, Some((false, None)))
            }
            Some(database) => (database?, self.sums.database.clone(), None),
            None => {
                let sums = Sums::default();
                (Place { sums: &sums, ..place }.create()?, sums, Some((false, None)))
            }
        };
        let began_with = std::mem::take(&mut self.changed);
        let keys = if anew.is_some() { BTreeSet::new() } else { began_with.clone() };
        let meta = Meta { reserved: self.reserved, batch: self.journal.last_batch() };
        Ok(Round {
            database: Some(database),
            keys,
            meta,
            segment: self.journal.head.segment.number,
            anew,
            began_with,
            failed: counting.failed,
            sums,
        })
    }

    fn file_limit(&self) -> u64 {
        (self.flushed.kept_bytes() as u64 * FILE_TIMES).max(self.sizes.least_file_bytes)
    }

    /// What comes next in a round, and whether that is the rest of it.
    fn fill(&self, round: &mut Round, times: usize) -> Result<(Changes, bool), Error> {
        let (mut slice, mut bytes, mut all) = (Vec::new(), 0, true);
        let is_full = |slice: &Vec<_>, bytes| slice.len() >= SLICE_KEYS * times || bytes > SLICE_BYTES * times;
        if let Some((second, after)) = &mut round.anew {
            let mut place = (*second, after.clone());
            for (key, kept) in self.flushed.kept(*second, after.as_deref()) {
                if is_full(&slice, bytes) {
                    all = false;
                    break;
                }
                let record = self.record(key, kept.held, kept.sealed)?;
                bytes += record.len();
                slice.push((key.clone(), Some(record)));
                place = (kept.second, Some(key.clone()));
            }
            (*second, *after) = place;
        } else {
            while let Some(key) = round.keys.pop_first() {
                let kept = self.flushed.kept_at(&key);
                let record = kept.map(|kept| self.record(&key, kept.held, kept.sealed)).transpose()?;
                bytes += record.as_ref().map_or(0, Vec::len);
                slice.push((key, record));
                if is_full(&slice, bytes) {
                    break;
                }
            }
            all = round.keys.is_empty();
        }
        Ok((slice, all))
    }

    fn complete(&mut self, round: Round) -> Result<(), Error> {
        let Round { segment, anew, began_with, failed, sums, .. } = round;
        let written = match failed.load(Ordering::Relaxed) {
            true => Err(Error::Storage { doing: "writing the database", message: "a write failed".into() }),
            false => Ok(()),
        };
        let published = written.and_then(|()| match anew {
            Some(_) => {
                let kept = if self.damaged { self.storage.keep(Part::Database) } else { Ok(()) };
                let published = kept.and_then(|()| self.storage.publish(Part::Database));
                published.map_err(|e| Error::io("replacing the database", &e))
            }
            None => Ok(()),
        });
        if let Err(error) = published {
            self.changed.extend(began_with);
            self.doubt(&error);
            return Err(error);
        }
        self.sums.database.replace(&sums);
        self.damaged &= anew.is_none();
        self.leave_journal = false;
        self.journal.begin_at(segment);
        if anew.is_some() {
            self.measure();
            let size = self.counters.file.load(Ordering::Relaxed);
            if size > self.file_limit() {
                // It cannot be smaller: no reason to try again and again.
                self.sizes.least_file_bytes = size + size / 2;
            }
        }
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Brings all into the database, so that the next start has nothing to apply.
    pub fn close(&mut self) -> Result<(), Error> {
        while self.is_in_round() || self.is_damaged() || !self.changed.is_empty() {
            self.slice()?;
        }
        Ok(())
    }

    fn record(&self, key: &Key, held: &Held, sealed: bool) -> Result<Vec<u8>, Error> {
        let cipher = self.cipher.as_deref().filter(|_| !sealed);
        let value = seal(cipher, key, held)?;
        Ok(match value {
            Some(value) => record::encode(key, &Held { value: value.into(), ..held.clone() }),
            None => record::encode(key, held),
        })
    }

    fn measure(&self) {
        self.counters.journal.store((self.journal.places * SEGMENT_BYTES) as u64, Ordering::Relaxed);
        if let Ok(taken) = self.storage.taken_bytes(Part::Database) {
            self.counters.file.store(taken, Ordering::Relaxed);
        }
    }
}

/// What stands on disk for the value; None: the value itself.
fn seal(cipher: Option<&dyn Cipher>, key: &Key, held: &Held) -> Result<Option<Vec<u8>>, Error> {
    let error = |message| Error::Storage { doing: "encrypting", message: format!("{key}: {message}") };
    Ok(cipher.map(|cipher| cipher.seal(key, &held.value)).transpose().map_err(error)?.flatten())
}

/// The entry with the value its user wrote.
fn opened(cipher: Option<&dyn Cipher>, key: &Key, mut held: Held, sealed: &mut Sealed) -> Option<Held> {
    let Some(cipher) = cipher else { return Some(held) };
    match cipher.open(key, &held.value) {
        Ok(Opened { value, stale }) => {
            if stale {
                sealed.stale.insert(key.clone());
            }
            if let Some(value) = value {
                held.value = Value::from(value);
            }
            Some(held)
        }
        Err(why) => {
            sealed.unreadable.insert(key.clone(), (held, why));
            None
        }
    }
}

fn counting(counters: &Arc<Counters>) -> Counting {
    Counting { counters: counters.clone(), failed: Arc::default() }
}

/// Puts blocks behind a count, and remembers whether one of them failed to write: a flush that failed once tells the
/// kernel's side of it only once, and what it was for may never be on disk, whatever later ones say.
struct Counting {
    counters: Arc<Counters>,
    failed: Arc<AtomicBool>,
}

impl Counting {
    fn wrap(&self, blocks: Box<dyn Blocks>) -> Box<dyn Blocks> {
        Box::new(Counted { blocks, counters: self.counters.clone(), failed: self.failed.clone() })
    }
}

/// Blocks that count what passes.
struct Counted {
    blocks: Box<dyn Blocks>,
    counters: Arc<Counters>,
    failed: Arc<AtomicBool>,
}

impl Counted {
    fn note(&self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl Blocks for Counted {
    fn size(&self) -> io::Result<u64> {
        self.blocks.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.blocks.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counters.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.note(self.blocks.write(offset, data))
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.note(self.blocks.truncate(size))
    }
    fn sync(&self) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.note(self.blocks.sync())
    }
}
