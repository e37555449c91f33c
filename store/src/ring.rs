//! The one bounded ring of events and the cursors into it. A watcher costs a slot here, not a copy of events, and is
//! woken for its own events only; one that waits for nothing never falls behind, however far the ring moves on.
//!
//! Events leave in whole revisions, oldest first, so a revision is either wholly here or wholly gone.
use crate::{Error, Event, Revision};
use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
};

/// After this many events a batch ends with the revision it is in.
const BATCH_EVENTS: usize = 256;

/// What an event costs besides the values it keeps alive.
const EVENT_BYTES: usize = size_of::<Event>() + 64;

pub(crate) struct Ring {
    events: VecDeque<Event>,
    /// How many events left before the first one here: an event's sequence is its place plus this.
    gone: u64,
    /// Everything after this revision is here.
    floor: Revision,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
    cursors: BTreeMap<u64, Cursor>,
    next_cursor: u64,
}

struct Cursor {
    prefix: Box<str>,
    /// Sequence of the first event that matches and is not delivered.
    due: Option<u64>,
    /// Everything up to here was delivered when the cursor was last asked.
    delivered: Revision,
    waker: Option<Waker>,
}

/// What a cursor has for its watcher.
pub(crate) enum Due {
    Nothing,
    Events(Vec<Event>),
    Lost(Error),
}

impl Ring {
    pub fn new(max_events: usize, max_bytes: usize, floor: Revision) -> Ring {
        let (events, cursors) = (VecDeque::new(), BTreeMap::new());
        Ring { events, gone: 0, floor, bytes: 0, max_events, max_bytes, cursors, next_cursor: 0 }
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    pub fn watchers(&self) -> usize {
        self.cursors.len()
    }
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Newest first, down to the one after `revision`.
    pub fn back_to(&self, revision: Revision) -> impl Iterator<Item = &Event> {
        self.events.iter().rev().take_while(move |event| event.revision > revision)
    }

    /// One revision's events; `wake` gets the wakers of those that waited for one of them.
    pub fn push(&mut self, events: Vec<Event>, wake: &mut Vec<Waker>) {
        for event in events {
            let sequence = self.gone + self.events.len() as u64;
            for cursor in self.cursors.values_mut() {
                if cursor.due.is_none() && event.key().starts_with(&*cursor.prefix) {
                    cursor.due = Some(sequence);
                    wake.extend(cursor.waker.take());
                }
            }
            self.bytes += cost(&event);
            self.events.push_back(event);
        }
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            self.drop_oldest_revision();
        }
    }

    fn drop_oldest_revision(&mut self) {
        let Some(revision) = self.events.front().map(|event| event.revision) else { return };
        while let Some(event) = self.events.pop_front_if(|event| event.revision == revision) {
            self.bytes -= cost(&event);
            self.gone += 1;
        }
        self.floor = revision;
    }

    /// A cursor behind `from`, which is at or above the floor.
    pub fn subscribe(&mut self, prefix: &str, from: Revision) -> u64 {
        let start = self.events.partition_point(|event| event.revision <= from);
        let due = self.find(prefix, self.gone + start as u64);
        let id = self.next_cursor;
        self.next_cursor += 1;
        self.cursors.insert(id, Cursor { prefix: prefix.into(), due, delivered: from, waker: None });
        id
    }

    pub fn unsubscribe(&mut self, id: u64) {
        self.cursors.remove(&id);
    }

    fn find(&self, prefix: &str, sequence: u64) -> Option<u64> {
        let start = sequence.checked_sub(self.gone)? as usize;
        let place = self.events.iter().skip(start).position(|event| event.key().starts_with(prefix))?;
        Some(sequence + place as u64)
    }

    /// The cursor's next batch; moves the cursor behind it. `waker` is kept when there is nothing.
    pub fn next(&mut self, id: u64, visible: Revision, waker: &Waker) -> Due {
        let Some(cursor) = self.cursors.get_mut(&id) else { return Due::Nothing };
        let Some(due) = cursor.due else {
            cursor.delivered = visible;
            cursor.waker = Some(waker.clone());
            return Due::Nothing;
        };
        let Some(start) = due.checked_sub(self.gone) else {
            return Due::Lost(Error::Compacted { asked: cursor.delivered, oldest: self.floor });
        };
        let mut batch: Vec<Event> = Vec::new();
        let mut end = due;
        for event in self.events.iter().skip(start as usize) {
            if batch.len() >= BATCH_EVENTS && batch.last().is_some_and(|last| last.revision != event.revision) {
                break;
            }
            end += 1;
            if event.key().starts_with(&*cursor.prefix) {
                batch.push(event.clone());
            }
        }
        let prefix = cursor.prefix.clone();
        let due = self.find(&prefix, end);
        let delivered = self.before(due, visible);
        if let Some(cursor) = self.cursors.get_mut(&id) {
            cursor.due = due;
            cursor.delivered = delivered.unwrap_or(cursor.delivered);
        }
        Due::Events(batch)
    }

    /// Up to where the cursor has missed nothing.
    pub fn progress(&self, id: u64, visible: Revision) -> Revision {
        let Some(cursor) = self.cursors.get(&id) else { return visible };
        self.before(cursor.due, visible).unwrap_or(cursor.delivered)
    }

    fn before(&self, due: Option<u64>, visible: Revision) -> Option<Revision> {
        let Some(due) = due else { return Some(visible) };
        let event = self.events.get(due.checked_sub(self.gone)? as usize)?;
        Some(event.revision - 1)
    }

    /// Nothing more will come: everybody looks again.
    pub fn wake_all(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(self.cursors.values_mut().filter_map(|cursor| cursor.waker.take()));
    }
}

/// An event keeps its old value alive; the new one is still live, or some later event's old one.
fn cost(event: &Event) -> usize {
    EVENT_BYTES + event.old.as_ref().map_or(0, |old| old.value.len() + old.key.len())
}
