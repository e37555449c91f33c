//! How long stored objects are as items of a protobuf list. Such a list says how long it is before its first item, and all that
//! clients written in Go ask for comes that way: whoever knows the lengths need not make the items to count them, and sends the
//! first while the last is not made yet.
use mote_schema::{Order as _, table::TypeId};
use mote_store::Entry;
use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

/// Lists whose lengths are kept, and most of their items (24 bytes each).
const LISTS: usize = 4;
const MAX_ITEMS: usize = 4096;

/// What an item is made of: a type of the built-in table, or its metadata alone.
pub(super) type Form = (TypeId, bool);

#[derive(Default)]
pub(crate) struct Lengths(Mutex<VecDeque<(Form, Vec<Known>)>>);

/// The revision that wrote an object, the key it has in memory as long as it exists, and the length of that version. Both tell it from every
/// other: what was written by one revision has different keys.
type Known = (u64, usize, usize);

fn known(entry: &Entry, len: usize) -> Known {
    (entry.modified, Arc::as_ptr(&entry.key).addr(), len)
}

impl Lengths {
    /// Of those that are known.
    pub fn of(&self, form: Form, entries: &[Entry]) -> Vec<Option<usize>> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, list)) = lists.iter().find(|(other, _)| *other == form) else { return vec![None; entries.len()] };
        let find = |entry: &Entry| {
            let (revision, key, _) = known(entry, 0);
            let at = list.binary_search_by(|other| (other.0, other.1).cmp(&(revision, key))).ok()?;
            Some(list[at].2)
        };
        entries.iter().map(find).collect()
    }

    /// Of a whole list, for the next time.
    pub fn keep(&self, form: Form, entries: &[Entry], lengths: &[usize]) {
        if entries.len() > MAX_ITEMS {
            return;
        }
        let mut list: Vec<Known> = entries.iter().zip(lengths).map(|(entry, len)| known(entry, *len)).collect();
        list.order_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, old)) = lists.iter_mut().find(|(other, _)| *other == form) {
            drop(mem::replace(old, list));
            return;
        }
        if lists.len() == LISTS {
            lists.pop_front();
        }
        lists.push_back((form, list));
    }
}
