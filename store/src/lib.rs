//! A revisioned key-value store: an immutable ordered map in memory, redb behind it.
//!
//! SEAM: these names and signatures are fixed; bodies are being written.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// One number for the whole store; every committed transaction takes the next one.
pub type Revision = u64;
pub type Key = Arc<str>;
pub type Value = Arc<[u8]>;

/// How much a write is worth to the flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Never written to disk.
    Volatile,
    /// Acknowledged at once; flushed with the next durable commit or after `Options::lazy_delay`.
    Lazy,
    /// Flushed before it is acknowledged.
    Durable,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Key,
    pub value: Value,
    pub created: Revision,
    pub modified: Revision,
}

#[derive(Clone, Debug)]
pub enum Precondition {
    Absent,
    Present,
    /// The entry's `modified` revision is exactly this.
    Modified(Revision),
}

#[derive(Clone, Debug)]
pub enum Write {
    Put(Key, Value),
    Delete(Key),
}

#[derive(Clone, Debug)]
pub struct Transaction {
    pub class: Class,
    pub preconditions: Vec<(Key, Precondition)>,
    pub writes: Vec<Write>,
}

/// One key's change, as watchers see it.
#[derive(Clone, Debug)]
pub struct Event {
    pub revision: Revision,
    pub old: Option<Entry>,
    pub new: Option<Entry>,
}

impl Event {
    pub fn key(&self) -> &Key {
        match (&self.new, &self.old) {
            (Some(e), _) | (None, Some(e)) => &e.key,
            (None, None) => unreachable!("an event has a side"),
        }
    }
}

#[derive(Debug)]
pub enum Error {
    /// A precondition did not hold; `found` is what the key holds now.
    Precondition {
        key: Key,
        found: Option<Entry>,
    },
    /// The revision asked for is older than what is kept.
    Compacted {
        asked: Revision,
        oldest: Revision,
    },
    /// The revision asked for has not been reached.
    Future {
        asked: Revision,
        current: Revision,
    },
    /// The disk is full; reads go on.
    Full,
    ReadOnly,
    Closed,
    Storage {
        doing: &'static str,
        message: String,
    },
}

#[derive(Clone, Debug)]
pub struct Options {
    /// Directory of the database file; `None` keeps everything in memory.
    pub dir: Option<PathBuf>,
    pub cache_bytes: usize,
    pub watch_events: usize,
    pub watch_bytes: usize,
    /// How long an old root stays readable (continued LISTs).
    pub history: Duration,
    pub lazy_delay: Duration,
}

pub struct Store;
#[derive(Clone)]
pub struct Snapshot;
pub struct Watcher;

impl Store {
    pub fn open(_options: Options) -> Result<Store, Error> {
        unimplemented!()
    }
    /// Newest visible revision.
    pub fn revision(&self) -> Revision {
        unimplemented!()
    }
    /// The newest visible state; cheap.
    pub fn snapshot(&self) -> Snapshot {
        unimplemented!()
    }
    /// The state exactly at `revision`, if still kept.
    pub fn snapshot_at(&self, _revision: Revision) -> Result<Snapshot, Error> {
        unimplemented!()
    }
    /// All preconditions hold and all writes happen at one new revision, or nothing does. Returns that revision.
    /// Resolves once the class' promise holds and the revision is visible.
    pub async fn commit(&self, _transaction: Transaction) -> Result<Revision, Error> {
        unimplemented!()
    }
    /// Events after `from` for keys that start with `prefix`.
    pub fn watch(&self, _prefix: &str, _from: Revision) -> Result<Watcher, Error> {
        unimplemented!()
    }
    /// Resolves when the visible revision is at least `revision`.
    pub async fn wait_for(&self, _revision: Revision) {
        unimplemented!()
    }
    /// Flushes what is lazy; later commits fail with `Closed`.
    pub fn close(&self) -> Result<(), Error> {
        unimplemented!()
    }
}

impl Snapshot {
    pub fn revision(&self) -> Revision {
        unimplemented!()
    }
    pub fn get(&self, _key: &str) -> Option<Entry> {
        unimplemented!()
    }
    /// Entries whose key starts with `prefix` and is greater than `after` (when given), in key order.
    pub fn range<'a>(&'a self, _prefix: &'a str, _after: Option<&'a str>) -> impl Iterator<Item = Entry> + 'a {
        std::iter::empty()
    }
    /// What changed from `self` to `newer`, in key order; skips shared parts of the tree.
    pub fn diff(&self, _newer: &Snapshot) -> Vec<Event> {
        unimplemented!()
    }
}

impl Watcher {
    /// The next batch in revision order (never empty). `Compacted` when this watcher fell behind the ring.
    pub async fn next(&mut self) -> Result<Vec<Event>, Error> {
        unimplemented!()
    }
    /// Every event up to this revision has been delivered (for bookmarks).
    pub fn progress(&self) -> Revision {
        unimplemented!()
    }
}
