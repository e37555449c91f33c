//! One state of the store as an immutable map. A root shares all but a few nodes with its neighbours, so keeping one
//! costs what changed since, and cloning one costs a reference.
use crate::{Class, Entry, Event, Key, Precondition, Revision, Transaction, Value, Write, change};
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

/// What the disk holds in place of what is seen.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    pub held: Held,
    /// Sealed by the cipher, which cannot open it.
    pub sealed: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Root {
    entries: OrdMap<Key, Held>,
    /// Where the disk is to hold something else: under the newest volatile write, and where nothing can be read.
    /// None: nothing.
    shadows: OrdMap<Key, Option<Shadow>>,
    /// What the disk is to hold, as bytes.
    kept_bytes: usize,
}

impl Root {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    pub fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get_key_value(key).map(|(key, held)| held.entry(key))
    }

    /// As it was read from the disk.
    pub fn insert(&mut self, key: Key, held: Held) {
        self.kept_bytes += change::size(&key, &held.value);
        self.entries.insert(key, held);
    }

    /// On disk, and not to be seen.
    pub fn set_aside(&mut self, key: Key, held: Held) {
        self.kept_bytes += change::size(&key, &held.value);
        self.shadows.insert(key, Some(Shadow { held, sealed: true }));
    }

    pub fn kept_at(&self, key: &str) -> Option<Kept<'_>> {
        match self.shadows.get(key) {
            Some(shadow) => {
                shadow.as_ref().map(|shadow| Kept { held: &shadow.held, sealed: shadow.sealed, second: true })
            }
            None => self.entries.get(key).map(|held| Kept { held, sealed: false, second: false }),
        }
    }

    /// What the disk is to hold, in two runs: entries that are seen as they are there, and the others. Begins behind
    /// `after` of the first run, or of the second.
    pub fn kept<'a>(&'a self, second: bool, after: Option<&'a str>) -> impl Iterator<Item = (&'a Key, Kept<'a>)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let seen = (!second).then(|| self.entries.range::<_, str>((start, Bound::Unbounded))).into_iter().flatten();
        let seen = seen.filter(|(key, _)| self.shadows.is_empty() || !self.shadows.contains_key(&***key));
        let start = if second { start } else { Bound::Unbounded };
        let others = self.shadows.range::<_, str>((start, Bound::Unbounded));
        let others = others.filter_map(|(key, shadow)| Some((key, shadow.as_ref()?)));
        seen.map(|(key, held)| (key, Kept { held, sealed: false, second: false }))
            .chain(others.map(|(key, shadow)| (key, Kept { held: &shadow.held, sealed: shadow.sealed, second: true })))
    }

    /// The first precondition that does not hold: its key and what is there instead.
    pub fn violated(&self, transaction: &Transaction) -> Option<(Key, Option<Entry>)> {
        let holds = |key: &Key, precondition: &Precondition| match (self.entries.get(key), precondition) {
            (None, Precondition::Absent) | (Some(_), Precondition::Present) => true,
            (Some(held), Precondition::Modified(revision)) => held.modified == *revision,
            _ => false,
        };
        let (key, _) = transaction.preconditions.iter().find(|(key, p)| !holds(key, p))?;
        Some((key.clone(), self.get(key)))
    }

    /// Applies the writes at `revision`; returns what changed, in the order written.
    pub fn apply(&mut self, transaction: &Transaction, revision: Revision) -> Vec<Event> {
        let (writes, mut seen) = (&transaction.writes, HashSet::new());
        let last = |write: &&Write| writes.len() == 1 || seen.insert(write.key().clone());
        let mut writes: Vec<&Write> = writes.iter().rev().filter(last).collect();
        writes.reverse();
        let volatile = transaction.class == Class::Volatile;
        let events = writes.into_iter().filter_map(|write| {
            let event = self.write(write, revision)?;
            self.keep(&event, volatile);
            Some(event)
        });
        events.collect()
    }

    fn write(&mut self, write: &Write, revision: Revision) -> Option<Event> {
        match write {
            Write::Put(key, value) => {
                let old = self.get(key);
                // One allocation serves all versions of a key.
                let key = old.as_ref().map_or(key, |old| &old.key).clone();
                let created = old.as_ref().map_or(revision, |old| old.created);
                let new = Entry { key, value: value.clone(), created, modified: revision };
                self.entries.insert(new.key.clone(), Held::from(&new));
                Some(Event { revision, old, new: Some(new) })
            }
            Write::Delete(key) => {
                let (key, held) = self.entries.remove_with_key(key)?;
                Some(Event { revision, old: Some(held.entry(&key)), new: None })
            }
        }
    }

    /// As another writer has left it; None: it is gone.
    #[cfg(feature = "etcd")]
    pub fn set(&mut self, key: &Key, new: Option<Held>, revision: Revision) -> Option<Event> {
        let old = self.get(key);
        let key = old.as_ref().map_or(key, |old| &old.key).clone();
        let new = match new {
            Some(held) => {
                let entry = held.entry(&key);
                self.entries.insert(key, held);
                Some(entry)
            }
            None => {
                self.entries.remove(&key);
                None
            }
        };
        (old.is_some() || new.is_some()).then_some(Event { revision, old, new })
    }

    /// Keeps account of what the disk is to hold.
    fn keep(&mut self, event: &Event, volatile: bool) {
        let key = event.key();
        let shadow = if self.shadows.is_empty() { None } else { self.shadows.get(key) };
        if volatile {
            let nothing = match shadow {
                Some(shadow) => shadow.is_none(),
                None => event.old.is_none(),
            };
            if nothing && event.new.is_none() {
                self.shadows.remove(key);
            } else if shadow.is_none() {
                let old = event.old.as_ref().map(|old| Shadow { held: Held::from(old), sealed: false });
                self.shadows.insert(key.clone(), old);
            }
            return;
        }
        let size = |value: &Value| change::size(key, value);
        let before = match shadow {
            Some(shadow) => shadow.as_ref().map(|shadow| size(&shadow.held.value)),
            None => event.old.as_ref().map(|old| size(&old.value)),
        };
        let after = event.new.as_ref().map_or(0, |new| size(&new.value));
        self.kept_bytes = (self.kept_bytes + after).saturating_sub(before.unwrap_or(0));
        if shadow.is_some() {
            self.shadows.remove(key);
        }
    }

    /// Takes an event back.
    pub fn undo(&mut self, event: &Event) {
        match &event.old {
            Some(old) => drop(self.entries.insert(old.key.clone(), Held::from(old))),
            None => drop(self.entries.remove(event.key())),
        }
    }
}

/// One entry as the disk is to hold it.
pub(crate) struct Kept<'a> {
    pub held: &'a Held,
    /// Already as it is on disk.
    pub sealed: bool,
    /// In the second run.
    pub second: bool,
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
        let entries = self.root.entries.range::<_, str>((start, Bound::Unbounded));
        entries.take_while(move |(key, _)| key.starts_with(prefix)).map(|(key, held)| held.entry(key))
    }

    /// What belongs on disk: not what only volatile transactions wrote, and under their newest value what was there
    /// before. In no order. With each whether it is sealed by a cipher that could not open it.
    pub fn persistent(&self) -> impl Iterator<Item = (Entry, bool)> + '_ {
        self.root.kept(false, None).map(|(key, kept)| (kept.held.entry(key), kept.sealed))
    }

    /// What changed from `self` to `newer`, in key order; skips shared parts of the tree. Each event carries the
    /// revision that wrote its new side; a deletion, whose revision is not known, carries `newer`'s.
    pub fn diff(&self, newer: &Snapshot) -> Vec<Event> {
        let event = |item| match item {
            DiffItem::Add(key, held) => (None, Some(Held::entry(held, key))),
            DiffItem::Update { old, new } => (Some(Held::entry(old.1, old.0)), Some(Held::entry(new.1, new.0))),
            DiffItem::Remove(key, held) => (Some(Held::entry(held, key)), None),
        };
        let sides = self.root.entries.diff(&newer.root.entries).map(event);
        let revision = |new: &Option<Entry>| new.as_ref().map_or(newer.revision, |new| new.modified);
        sides.map(|(old, new)| Event { revision: revision(&new), old, new }).collect()
    }
}
