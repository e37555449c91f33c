//! One state of the store as an immutable map. A root shares all but a few nodes with its neighbours, so keeping one
//! costs what changed since, and cloning one costs a reference.
use crate::{Entry, Event, Key, Precondition, Revision, Transaction, Value, Write};
use imbl::{OrdMap, ordmap::DiffItem};
use std::{collections::HashSet, ops::Bound};

/// What the map holds besides the key.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub value: Value,
    pub created: Revision,
    pub modified: Revision,
}

/// Two versions of one key are the same version when the same revision wrote them: what `OrdMap::diff` compares by.
impl PartialEq for Held {
    fn eq(&self, other: &Held) -> bool {
        self.modified == other.modified
    }
}

impl Held {
    pub fn entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), created: self.created, modified: self.modified }
    }
}

impl From<&Entry> for Held {
    fn from(entry: &Entry) -> Held {
        Held { value: entry.value.clone(), created: entry.created, modified: entry.modified }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Root(OrdMap<Key, Held>);

impl Root {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.0.get_key_value(key).map(|(key, held)| held.entry(key))
    }

    pub fn insert(&mut self, key: Key, held: Held) {
        self.0.insert(key, held);
    }

    /// The first precondition that does not hold: its key and what is there instead.
    pub fn violated(&self, transaction: &Transaction) -> Option<(Key, Option<Entry>)> {
        let holds = |key: &Key, precondition: &Precondition| match (self.0.get(key), precondition) {
            (None, Precondition::Absent) | (Some(_), Precondition::Present) => true,
            (Some(held), Precondition::Modified(revision)) => held.modified == *revision,
            _ => false,
        };
        let (key, _) = transaction.preconditions.iter().find(|(key, p)| !holds(key, p))?;
        Some((key.clone(), self.get(key)))
    }

    /// Applies the writes at `revision`; returns what changed, in the order written.
    pub fn apply(&mut self, writes: &[Write], revision: Revision) -> Vec<Event> {
        let mut seen = HashSet::new();
        let last = |write: &&Write| writes.len() == 1 || seen.insert(write.key().clone());
        let mut writes: Vec<&Write> = writes.iter().rev().filter(last).collect();
        writes.reverse();
        writes.into_iter().filter_map(|write| self.write(write, revision)).collect()
    }

    fn write(&mut self, write: &Write, revision: Revision) -> Option<Event> {
        match write {
            Write::Put(key, value) => {
                let old = self.get(key);
                // One allocation serves all versions of a key.
                let key = old.as_ref().map_or(key, |old| &old.key).clone();
                let created = old.as_ref().map_or(revision, |old| old.created);
                let new = Entry { key, value: value.clone(), created, modified: revision };
                self.0.insert(new.key.clone(), Held::from(&new));
                Some(Event { revision, old, new: Some(new) })
            }
            Write::Delete(key) => {
                let (key, held) = self.0.remove_with_key(key)?;
                Some(Event { revision, old: Some(held.entry(&key)), new: None })
            }
        }
    }

    /// Takes an event back.
    pub fn undo(&mut self, event: &Event) {
        match &event.old {
            Some(old) => self.insert(old.key.clone(), Held::from(old)),
            None => {
                self.0.remove(event.key());
            }
        }
    }
}

/// The store exactly at one revision. Cheap to clone; keeps what it shows alive.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) root: Root,
    pub(crate) revision: Revision,
}

impl Snapshot {
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.root.get(key)
    }

    /// Entries whose key starts with `prefix` and is greater than `after` (when given), in key order.
    pub fn range<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = Entry> + 'a {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let entries = self.root.0.range::<_, str>((start, Bound::Unbounded));
        entries.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, held)| held.entry(key))
    }

    /// What changed from `self` to `newer`, in key order; skips shared parts of the tree. Each event carries the
    /// revision that wrote its new side; a deletion, whose revision is not known, carries `newer`'s.
    pub fn diff(&self, newer: &Snapshot) -> Vec<Event> {
        let event = |item| match item {
            DiffItem::Add(key, held) => (None, Some(Held::entry(held, key))),
            DiffItem::Update { old, new } => (Some(Held::entry(old.1, old.0)), Some(Held::entry(new.1, new.0))),
            DiffItem::Remove(key, held) => (Some(Held::entry(held, key)), None),
        };
        let sides = self.root.0.diff(&newer.root.0).map(event);
        let revision = |new: &Option<Entry>| new.as_ref().map_or(newer.revision, |new| new.modified);
        sides.map(|(old, new)| Event { revision: revision(&new), old, new }).collect()
    }
}
