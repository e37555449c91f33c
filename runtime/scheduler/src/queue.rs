//! Pods that wait for a node: those to try now in order of priority, those backing off, and those that wait for a change that
//! may help them. Pure: time comes in.
//!
//! Backing off is 1 s, doubling to 10 s; a pod nothing helped for five minutes is tried anyway, in case a change
//! was misjudged (pkg/scheduler/backend/queue).
use mote_api::driver::Key;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(10);
const LEFTOVER: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Active,
    /// Tried again at this time, whatever happens.
    Backoff(Instant),
    /// Waits for a change with one of these causes.
    Waiting {
        causes: u8,
        until: Instant,
    },
}

#[derive(Debug)]
struct Entry {
    priority: i64,
    order: u64,
    attempts: u32,
    tried: Option<Instant>,
    place: Place,
}

#[derive(Default)]
pub struct Pending {
    entries: HashMap<Key, Entry>,
    active: BTreeSet<(Reverse<i64>, u64, Key)>,
    next_order: u64,
    /// The pod being tried, and the causes of changes that came meanwhile.
    trying: Option<(Key, u8)>,
}

fn backoff(attempts: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(BACKOFF_LONGEST)
}

impl Pending {
    /// A pod that is new, or was changed in a way that may let it in.
    pub fn add(&mut self, key: Key, priority: i64, now: Instant) {
        if let Some((trying, causes)) = &mut self.trying
            && *trying == key
        {
            *causes = u8::MAX;
        }
        self.next_order += 1;
        let order = self.next_order;
        let entry = self.entries.entry(key.clone()).or_insert(Entry {
            priority,
            order,
            attempts: 0,
            tried: None,
            place: Place::Waiting { causes: 0, until: now },
        });
        entry.priority = priority;
        self.release(&key, now);
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.active.remove(&(Reverse(entry.priority), entry.order, key.clone()));
        }
    }

    /// The most important pod that may be tried now.
    pub fn pop(&mut self, now: Instant) -> Option<Key> {
        let due = |e: &Entry| match e.place {
            Place::Active => false,
            Place::Backoff(at) | Place::Waiting { until: at, .. } => at <= now,
        };
        let keys: Vec<Key> = self.entries.iter().filter(|(_, e)| due(e)).map(|(key, _)| key.clone()).collect();
        keys.into_iter().for_each(|key| self.activate(&key));
        let (_, _, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.attempts += 1;
        entry.tried = Some(now);
        entry.place = Place::Waiting { causes: 0, until: now + LEFTOVER };
        self.trying = Some((key.clone(), 0));
        Some(key)
    }

    /// The pod just tried did not find a place, for these causes.
    pub fn rejected(&mut self, key: &Key, causes: u8, now: Instant) {
        let meanwhile = self.trying.take().map_or(0, |(_, causes)| causes);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Waiting { causes, until: now + LEFTOVER };
            if meanwhile & causes != 0 {
                self.release(key, now);
            }
        }
    }

    /// The pod just tried failed for a reason outside; again after its back-off.
    pub fn failed(&mut self, key: &Key, now: Instant) {
        self.trying = None;
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Backoff(now + backoff(entry.attempts));
        }
    }

    /// Something changed that may help pods rejected for one of `causes`. Whether one is to be tried now or later.
    pub fn changed(&mut self, causes: u8, now: Instant) -> bool {
        if let Some((_, meanwhile)) = &mut self.trying {
            *meanwhile |= causes;
        }
        let concerned = |e: &Entry| matches!(e.place, Place::Waiting { causes: own, .. } if own & causes != 0);
        let keys: Vec<Key> = self.entries.iter().filter(|(_, e)| concerned(e)).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.release(key, now));
        !keys.is_empty()
    }

    /// The next moment at which a pod is to be tried; zero for now.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        if !self.active.is_empty() {
            return Some(Duration::ZERO);
        }
        let at = self.entries.values().filter_map(|e| match e.place {
            Place::Active => None,
            Place::Backoff(at) | Place::Waiting { until: at, .. } => Some(at),
        });
        Some(at.min()?.saturating_duration_since(now))
    }

    /// From waiting to active, or to backing off while its last try is too recent.
    fn release(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.place == Place::Active {
            return;
        }
        let until = entry.tried.map(|tried| tried + backoff(entry.attempts)).filter(|until| *until > now);
        match until {
            Some(until) => entry.place = Place::Backoff(until),
            None => self.activate(key),
        }
    }

    fn activate(&mut self, key: &Key) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Active;
            self.active.insert((Reverse(entry.priority), entry.order, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[test]
    fn priority_then_order() {
        let now = Instant::now();
        let mut pending = Pending::default();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0)] {
            pending.add(key(name), priority, now);
        }
        let order: Vec<Key> = std::iter::from_fn(|| pending.pop(now)).collect();
        assert_eq!(order, [key("b"), key("a"), key("c")]);
    }

    #[test]
    fn waits_for_what_helps() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut pending = Pending::default();
        pending.add(key("a"), 0, start);
        assert_eq!(pending.pop(start), Some(key("a")));
        pending.rejected(&key("a"), 2, start);
        assert_eq!(pending.pop(at(5000)), None);
        assert!(!pending.changed(1, at(5000)));
        assert!(pending.changed(2, at(5000)));
        assert_eq!(pending.next(at(5000)), Some(Duration::ZERO));
        assert_eq!(pending.pop(at(5000)), Some(key("a")));
        pending.rejected(&key("a"), 2, at(5000));
        // The second try was just now: two seconds of back-off.
        assert!(pending.changed(2, at(5100)));
        assert_eq!(pending.pop(at(5100)), None);
        assert_eq!(pending.next(at(5100)), Some(Duration::from_millis(1900)));
        assert_eq!(pending.pop(at(7000)), Some(key("a")));
        pending.remove(&key("a"));
        assert_eq!(pending.next(at(7000)), None);
    }

    #[test]
    fn change_during_a_try_is_not_lost() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.add(key("a"), 0, start);
        pending.pop(start);
        pending.changed(2, start);
        pending.rejected(&key("a"), 2, start);
        assert_eq!(pending.next(start), Some(Duration::from_secs(1)));
    }

    #[test]
    fn forgotten_pods_are_tried_again() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.add(key("a"), 0, start);
        pending.pop(start);
        pending.rejected(&key("a"), 2, start);
        assert_eq!(pending.next(start), Some(LEFTOVER));
        assert_eq!(pending.pop(start + LEFTOVER), Some(key("a")));
    }
}
