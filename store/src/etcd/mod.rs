//! The store on etcd v3: for those who outgrow one board. Memory is as ever, and reads never wait for it; etcd numbers the
//! commits and keeps them, and what all writers of it do arrives by one watch and is applied in the order of revisions.
//!
//! The watch is of all keys, also those of others: so every revision of etcd's arrives, and who waits for one needs no
//! more than that (progress requests are answered too early by etcd before 3.4.25 and 3.5.8). Keys that are not ours are passed over.
mod client;
mod compact;
mod messages;

use crate::{
    Cipher, Error, Key, Opened, Precondition, Revision, Transaction, Value, Write,
    disk::{Loaded, Sealed},
    root::{Held, Root},
    state::Arrived,
    writer::Shared,
};
use async_executor::{Executor, Task};
use async_io::Timer;
use client::Client;
use futures_lite::FutureExt as _;
use messages::*;
use mote_grpc::Dial;
use std::{
    collections::{BTreeMap, HashSet},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// Keys and values as others find them in etcd.
pub trait Layout: Send + Sync {
    /// Below the prefix; `pods/a/b` is `pods/a/b`, `services/a/b` is `services/specs/a/b`.
    fn outer_key(&self, key: &str) -> String;
    /// None: not one of ours.
    fn inner_key(&self, outer: &str) -> Option<String>;
    fn encode(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, String>;
    fn decode(&self, key: &str, stored: &[u8]) -> Result<Vec<u8>, String>;
    /// How long it stays when nobody writes it anew; None: for ever.
    fn lifetime(&self, key: &str) -> Option<Duration>;
}

/// Where the data is.
pub struct Etcd {
    /// The ways to its servers; one is asked until it fails.
    pub servers: Vec<Box<dyn Dial>>,
    /// None: who Mote is, nobody asks, or its certificate says.
    pub login: Option<Login>,
    /// In front of every key: `/registry/`.
    pub prefix: String,
    pub layout: Arc<dyn Layout>,
    /// Follows what others write.
    pub executor: Arc<Executor<'static>>,
}

/// A user of etcd's.
pub struct Login {
    pub name: String,
    /// Read anew whenever etcd has to be shown it; or why that cannot be.
    pub password: Box<dyn Fn() -> Password + Send + Sync>,
}

pub type Password = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// Entries of one answer at start; fewer when they are large.
const PAGE: i64 = 500;
/// Between two tries to follow again, from the first to the longest.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(5);
/// How long a written revision may take until it is seen.
const SEEN: Duration = Duration::from_secs(10);
/// How long a reader waits for the newest state before it takes what there is.
const FRESH: Duration = Duration::from_secs(3);
/// A transaction is tried so often when what stood against it is gone again each time.
const TRIES: usize = 16;
/// A lease serves entries for so long, and so many of them (apiserver/pkg/storage/etcd3/lease_manager.go).
const LEASE_REUSE: Duration = Duration::from_secs(60);
const LEASE_ENTRIES: usize = 1000;

/// The store's handle on it. Dropped, it follows no more.
pub(crate) struct Remote {
    inner: Arc<Inner>,
    _tasks: [Task<()>; 2],
}

pub(crate) struct Inner {
    client: Client,
    prefix: String,
    layout: Arc<dyn Layout>,
    cipher: Option<Arc<dyn Cipher>>,
    executor: Arc<Executor<'static>>,
    lease: async_lock::Mutex<Option<Lease>>,
}

struct Lease {
    id: i64,
    since: Instant,
    seconds: u64,
    entries: usize,
}

/// All there is at one revision.
pub(crate) struct Found {
    pub inner: Inner,
    pub loaded: Loaded,
}

/// Reads everything. Tries for as long as one call may take.
pub(crate) async fn load(etcd: Etcd, cipher: Option<Arc<dyn Cipher>>) -> Result<Found, Error> {
    let Etcd { servers, login, prefix, layout, executor } = etcd;
    let client = Client::new(servers, login, &executor);
    let inner = Inner { client, prefix, layout, cipher, executor, lease: async_lock::Mutex::new(None) };
    let (revision, entries) = inner.read_all().await?;
    let (mut root, mut sealed) = (Root::default(), Sealed::default());
    for (key, arrived) in entries {
        match arrived {
            Arrived::Put { held, stale } => {
                if stale {
                    sealed.stale.insert(key.clone());
                }
                root.insert(key, held);
            }
            Arrived::Unreadable { held, why } => drop(sealed.unreadable.insert(key, (held, why))),
            Arrived::Gone => {}
        }
    }
    Ok(Found { inner, loaded: Loaded { root, reserved: revision, damaged: Vec::new(), sealed } })
}

impl Remote {
    pub fn start(inner: Inner, shared: Arc<Shared>) -> Remote {
        let inner = Arc::new(inner);
        let follow = inner.executor.spawn(follow(inner.clone(), shared.clone()));
        let compact = inner.executor.spawn(compact::run(inner.clone(), shared));
        Remote { inner, _tasks: [follow, compact] }
    }

    /// In a task of its own: what was begun is done, whoever gave up waiting for it.
    pub async fn commit(&self, transaction: Transaction, shared: &Arc<Shared>) -> Result<Revision, Error> {
        let (reply, outcome) = async_channel::bounded(1);
        let (inner, shared) = (self.inner.clone(), shared.clone());
        let doing = async move {
            let _ = reply.try_send(inner.commit(transaction, &shared).await);
        };
        self.inner.executor.spawn(doing).detach();
        outcome.recv().await.unwrap_or(Err(Error::Closed))
    }

    /// Until what is seen is no older than what etcd has now. Where etcd does not answer, memory is all there is.
    pub async fn catch_up(&self, shared: &Arc<Shared>) {
        if shared.lock().trouble.is_some() {
            return;
        }
        let late = async {
            Timer::after(FRESH).await;
            false
        };
        let is_seen = self.inner.reach(shared).or(late).await;
        let silent = || Error::Remote { message: "etcdserver: request timed out".into(), undone: true };
        if !is_seen && shared.change(|state, _| state.trouble.replace(silent())).is_none() {
            self.inner.executor.spawn(probe(self.inner.clone(), shared.clone())).detach();
        }
    }
}

/// A server that is silent breaks no watch until the connection is found dead: asks until there is an answer.
async fn probe(inner: Arc<Inner>, shared: Arc<Shared>) {
    inner.client.found_away(true);
    while !inner.reach(&shared).await {
        if shared.lock().closing {
            return;
        }
        Timer::after(RETRY).await;
    }
    inner.client.found_away(false);
    shared.change(|state, _| state.trouble = None);
}

impl Inner {
    /// Until what is seen is what etcd has now; false: it did not answer.
    async fn reach(&self, shared: &Shared) -> bool {
        let request = RangeRequest { key: ALL.to_vec(), count_only: true, ..RangeRequest::default() };
        let answer: Result<RangeResponse, Error> = self.client.read(RANGE, &request).await;
        let Ok(answer) = answer else { return false };
        shared.wait_for(revision(&answer.header)).await;
        true
    }
}

impl Inner {
    fn outer_key(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_str(), &self.layout.outer_key(key)].concat().into_bytes()
    }

    /// None: of others.
    fn inner_key(&self, key: &[u8]) -> Option<Key> {
        let outer = str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        self.layout.inner_key(outer).map(Key::from)
    }

    fn arrived(&self, key: &Key, kv: &KeyValue) -> Arrived {
        let held = |value: &[u8]| Held {
            value: Value::from(value),
            created: kv.create_revision.max(0) as u64,
            modified: kv.mod_revision.max(0) as u64,
        };
        let opened = match &self.cipher {
            Some(cipher) => cipher.open(key, &kv.value),
            None => Ok(Opened { value: None, stale: false }),
        };
        let decoded = opened.and_then(|Opened { value, stale }| {
            let stored = value.as_deref().unwrap_or(&kv.value);
            Ok((self.layout.decode(key, stored)?, stale))
        });
        match decoded {
            Ok((value, stale)) => Arrived::Put { held: held(&value), stale },
            Err(why) => {
                tracing::error!(%key, why, "cannot be read and is left as it is");
                Arrived::Unreadable { held: held(&kv.value), why }
            }
        }
    }

    async fn read_all(&self) -> Result<(Revision, BTreeMap<Key, Arrived>), Error> {
        let mut end = self.prefix.clone().into_bytes();
        // The first key behind all that start so.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let (mut key, mut at, mut limit) = (self.prefix.clone().into_bytes(), 0, PAGE);
        let mut entries = BTreeMap::new();
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: end.clone(),
                limit,
                revision: at as i64,
                count_only: false,
            };
            let page: RangeResponse = match self.client.read(RANGE, &request).await {
                // Larger than what is taken in one answer.
                Err(Error::Remote { message, .. }) if limit > 1 && message.contains("over the limit") => {
                    limit /= 8;
                    continue;
                }
                page => page?,
            };
            if at == 0 {
                at = revision(&page.header);
            }
            for kv in &page.kvs {
                if let Some(key) = self.inner_key(&kv.key) {
                    let arrived = self.arrived(&key, kv);
                    entries.insert(key, arrived);
                }
            }
            match page.kvs.last() {
                Some(last) if page.more => key = [&*last.key, b"\0"].concat(),
                _ => return Ok((at, entries)),
            }
        }
    }

    async fn commit(&self, transaction: Transaction, shared: &Shared) -> Result<Revision, Error> {
        {
            let state = shared.lock();
            if state.closing {
                return Err(Error::Closed);
            }
            if let Some(unreadable) = state.unreadable_among(&transaction) {
                return Err(Error::Unreadable(unreadable));
            }
        }
        let request = self.request(&transaction).await?;
        for _ in 0..TRIES {
            let answer: TxnResponse = self.client.once(TXN, &request).await?;
            let revision = revision(&answer.header);
            let seen = async {
                shared.wait_for(revision).await;
                Ok(())
            };
            let late = async {
                Timer::after(SEEN).await;
                let message = format!("revision {revision} was written, but has not been seen in time");
                Err(Error::Remote { message, undone: !answer.succeeded })
            };
            seen.or(late).await?;
            if answer.succeeded {
                shared.lock().count(transaction.class);
                return Ok(revision);
            }
            let violated = shared.lock().visible.root.violated(&transaction);
            if let Some((key, found)) = violated {
                return Err(Error::Precondition { key, found });
            }
        }
        Err(Error::Remote { message: "what stood against the transaction was gone each time".into(), undone: true })
    }

    async fn request(&self, transaction: &Transaction) -> Result<TxnRequest, Error> {
        let compare = transaction.preconditions.iter().map(|(key, precondition)| {
            let key = self.outer_key(key);
            match precondition {
                Precondition::Absent => {
                    Compare { result: EQUAL, target: CREATE, key, create_revision: Some(0), ..Compare::default() }
                }
                Precondition::Present => {
                    Compare { result: GREATER, target: CREATE, key, create_revision: Some(0), ..Compare::default() }
                }
                Precondition::Modified(revision) => {
                    let mod_revision = Some(*revision as i64);
                    Compare { result: EQUAL, target: MOD, key, mod_revision, ..Compare::default() }
                }
            }
        });
        let mut request = TxnRequest { compare: compare.collect(), ..TxnRequest::default() };
        // etcd refuses two writes to one key; the last one counts.
        let mut seen = HashSet::new();
        for write in transaction.writes.iter().rev().filter(|write| seen.insert(write.key())) {
            let key = self.outer_key(write.key());
            let operation = match write {
                Write::Delete(_) => Operation { delete: Some(DeleteRequest { key }), ..Operation::default() },
                Write::Put(inner, value) => {
                    let failed =
                        |message| Error::Storage { doing: "encoding for etcd", message: format!("{inner}: {message}") };
                    let mut value = self.layout.encode(inner, value).map_err(failed)?;
                    if let Some(cipher) = &self.cipher {
                        value = cipher.seal(inner, &value).map_err(failed)?.unwrap_or(value);
                    }
                    let lease = match self.layout.lifetime(inner) {
                        Some(lifetime) => self.lease(lifetime).await?,
                        None => 0,
                    };
                    Operation { put: Some(PutRequest { key, value, lease }), ..Operation::default() }
                }
            };
            request.success.push(operation);
        }
        Ok(request)
    }

    /// One lease is for many entries: they go together, no sooner than asked for.
    async fn lease(&self, lifetime: Duration) -> Result<i64, Error> {
        let mut lease = self.lease.lock().await;
        let seconds = lifetime.as_secs();
        if let Some(lease) = lease.as_mut()
            && lease.seconds == seconds
            && lease.entries < LEASE_ENTRIES
            && lease.since.elapsed() < LEASE_REUSE
        {
            lease.entries += 1;
            return Ok(lease.id);
        }
        let ttl = (seconds + LEASE_REUSE.as_secs()) as i64;
        let granted: LeaseGrantResponse = self.client.once(LEASE_GRANT, &LeaseGrantRequest { ttl }).await?;
        if !granted.error.is_empty() {
            return Err(Error::Remote { message: granted.error, undone: true });
        }
        *lease = Some(Lease { id: granted.id, since: Instant::now(), seconds, entries: 1 });
        Ok(granted.id)
    }
}

/// Why following ended.
enum End {
    /// What comes next is no longer there.
    Compacted,
    Broken(Error),
}

/// For as long as the store lives.
async fn follow(inner: Arc<Inner>, shared: Arc<Shared>) {
    let mut pause = RETRY;
    loop {
        let mut begun = false;
        let end = watch(&inner, &shared, &mut begun).await;
        if begun {
            pause = RETRY;
        }
        let error = match end {
            End::Compacted => match inner.read_all().await {
                Ok((revision, entries)) => {
                    tracing::warn!(revision, "etcd has compacted what was not seen yet; all is read anew");
                    shared.change(|state, told| state.follow_all(revision, entries, told));
                    continue;
                }
                Err(error) => error,
            },
            End::Broken(error) => error,
        };
        inner.client.found_away(true);
        let again = shared.change(|state, _| state.trouble.replace(error.clone()).is_some());
        if !again {
            tracing::error!(%error, "etcd does not answer; what is in memory is read on");
        }
        Timer::after(pause).await;
        pause = (pause * 2).min(RETRY_LONGEST);
    }
}

async fn watch(inner: &Inner, shared: &Shared, begun: &mut bool) -> End {
    let reached = shared.lock().visible.revision;
    let create =
        WatchCreate { key: ALL.to_vec(), range_end: ALL.to_vec(), start_revision: reached as i64 + 1, fragment: true };
    let request = WatchRequest { create: Some(create) };
    let (mut stream, mut answer) = match inner.client.stream::<_, WatchResponse>(WATCH, &request).await {
        Ok(stream) => stream,
        Err(error) => return End::Broken(error),
    };
    let now = revision(&answer.header);
    if now < reached && !answer.canceled {
        let message = format!(
            "etcd is at revision {now}, and {reached} was seen of it: it was put back, or is another one; restart Mote to go on \
             with what it has"
        );
        return End::Broken(Error::Remote { message, undone: true });
    }
    let mut events = Vec::new();
    loop {
        if answer.canceled {
            let message = std::mem::take(&mut answer.cancel_reason);
            let compacted = answer.compact_revision > 0;
            return if compacted { End::Compacted } else { End::Broken(Error::Remote { message, undone: true }) };
        }
        if !*begun {
            *begun = true;
            inner.client.found_away(false);
            if shared.change(|state, _| state.trouble.take()).is_some() {
                tracing::info!("etcd answers again");
            }
        }
        events.append(&mut answer.events);
        if !answer.fragment && !events.is_empty() {
            inner.apply(shared, std::mem::take(&mut events));
        }
        answer = match stream.next().await {
            Ok(answer) => answer,
            Err(error) => return End::Broken(error),
        };
    }
}

impl Inner {
    /// They come in the order of revisions, and a revision's all in one piece.
    fn apply(&self, shared: &Shared, events: Vec<Event>) {
        let mut revisions: BTreeMap<Revision, Vec<(Key, Arrived)>> = BTreeMap::new();
        for event in events {
            let Some(kv) = event.kv else { continue };
            let changes = revisions.entry(kv.mod_revision.max(0) as u64).or_default();
            let Some(key) = self.inner_key(&kv.key) else { continue };
            let arrived = if event.kind == DELETE { Arrived::Gone } else { self.arrived(&key, &kv) };
            changes.push((key, arrived));
        }
        shared.change(|state, told| {
            for (revision, changes) in revisions {
                state.follow(revision, changes, told);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Options,
        state::{State, Told},
    };

    fn put(value: &str, created: Revision, modified: Revision) -> Arrived {
        Arrived::Put { held: Held { value: value.as_bytes().into(), created, modified }, stale: false }
    }

    #[test]
    fn what_others_write_is_seen_once_in_order_and_a_new_reading_comes_to_the_difference() {
        let options = Options {
            dir: None,
            cache_bytes: 0,
            watch_events: 100,
            watch_bytes: 1 << 20,
            history: Duration::from_secs(60),
            lazy_delay: Duration::from_secs(1),
        };
        let (root, damaged, sealed) = (Root::default(), Vec::new(), Sealed::default());
        let mut state = State::new(&options, Loaded { root, reserved: 5, damaged, sealed }, false);
        let mut told = Told::default();
        state.follow(6, vec![("a".into(), put("1", 6, 6)), ("b".into(), put("1", 6, 6))], &mut told);
        // Another's key, at a revision of its own.
        state.follow(7, Vec::new(), &mut told);
        state.follow(8, vec![("a".into(), put("2", 6, 8))], &mut told);
        // Said again.
        state.follow(8, vec![("a".into(), put("3", 6, 8))], &mut told);
        assert_eq!(state.visible.revision, 8);
        let text = |state: &State, key: &str| {
            state.visible.get(key).map(|entry| (String::from_utf8_lossy(&entry.value).into_owned(), entry.modified))
        };
        assert_eq!(text(&state, "a"), Some(("2".into(), 8)));
        let before = state.snapshot_at(7).expect("kept");
        assert_eq!(before.get("a").map(|entry| entry.modified), Some(6));

        let unreadable = Arrived::Unreadable {
            held: Held { value: [1].as_slice().into(), created: 9, modified: 9 },
            why: "x".into(),
        };
        let all = [("a".into(), put("2", 6, 8)), ("c".into(), put("1", 10, 10)), ("d".into(), unreadable)];
        state.follow_all(12, BTreeMap::from(all), &mut told);
        assert_eq!((text(&state, "a"), text(&state, "b")), (Some(("2".into(), 8)), None));
        assert_eq!(text(&state, "c"), Some(("1".into(), 10)));
        assert_eq!(state.unreadable("d").map(|found| found.why), Some("x".into()));
        let events: Vec<_> = state.ring.back_to(8).map(|event| (event.revision, event.key().to_string())).collect();
        assert_eq!(events, [(12, "c".to_owned()), (12, "b".to_owned())]);
        state.follow(13, vec![("d".into(), Arrived::Gone)], &mut told);
        assert!(state.unreadable("").is_none());
    }
}
