//! What goes in and what comes out: transactions, entries and events. Plain data, no behaviour.
use std::sync::Arc;

/// One number for the whole store; every committed transaction takes the next one.
pub type Revision = u64;
pub type Key = Arc<str>;
pub type Value = Arc<[u8]>;

/// How much a write is worth to the flash.
///
/// What a key holds after a crash is the outcome of its durable and lazy transactions alone: a volatile write over a
/// durable entry leaves the older entry on disk, and a volatile delete brings it back at the next start. A kind of
/// object whose entries must not come back is therefore deleted in the class it was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Never written to disk.
    Volatile,
    /// Acknowledged at once; flushed with the next durable commit or after `Options::lazy_delay`.
    Lazy,
    /// Flushed before it is acknowledged.
    Durable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Of an absent key: nothing, and no event.
    Delete(Key),
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Write::Put(key, _) | Write::Delete(key) => key,
        }
    }
}

/// All of it happens at one revision, or nothing does. Of several writes to one key the last one counts.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub class: Class,
    pub preconditions: Vec<(Key, Precondition)>,
    pub writes: Vec<Write>,
}

/// One key's change, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
