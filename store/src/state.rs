//! What the store knows, under one lock: the newest applied root, the newest visible one, and the transactions
//! between the two. Pure bookkeeping: no I/O, no waiting; the writer thread brings the outcome of each flush.
//!
//! A transaction is checked and applied the moment it arrives, on top of everything before it. It then waits in
//! `queue` until all that must be flushed at or before it is, and becomes visible. When a flush fails, the queue is
//! taken back: those that the flush was for fail, the others are applied anew on the visible root.
use crate::{
    Class, Error, Event, Latency, Options, Revision, Snapshot, Transaction, Unreadable, change,
    disk::{Flush, Loaded, Sealed, Writes},
    meter::Meter,
    pace::Pace,
    ring::Ring,
    root::{Held, Root},
    storage::Part,
};
use async_channel::Sender;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    task::Waker,
    time::{Duration, Instant},
};

/// How many revisions each flush reserves: so many can be handed out before another write to disk is needed for the
/// numbers alone, and at most so many are skipped by a start.
pub(crate) const RESERVE_BLOCK: Revision = 10_000;

/// Roots that continued LISTs go on reading; older ones can still be rebuilt while their events are in the ring.
const KEPT_ROOTS: usize = 16;

/// So many moments of `history` are remembered.
const MOMENTS: u32 = 16;

/// So much more a transaction may need and still count as one that needs no space: a deletion that waits for its
/// finalizers begins with a timestamp.
const GROWTH_BYTES: usize = 512;

/// A failed flush of lazy writes is tried again after `lazy_delay` times two to the number of failures, up to this.
const RETRY_DOUBLINGS: u32 = 6;

/// Plain counters, since the store was opened unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    /// The newest visible revision.
    pub revision: Revision,
    /// Live entries, and the bytes of their keys and values.
    pub entries: usize,
    pub live_bytes: usize,
    /// Acknowledged commits by class.
    pub volatile_commits: u64,
    pub lazy_commits: u64,
    pub durable_commits: u64,
    /// Flushes that succeeded, and how long they took; and how long durable commits waited until they were flushed.
    pub flushes: u64,
    /// Of these, by who committed himself.
    pub led_flushes: u64,
    pub flush_latency: Latency,
    pub commit_latency: Latency,
    pub failed_flushes: u64,
    /// What went to the storage, whatever came of it.
    pub written_bytes: u64,
    pub syncs: u64,
    /// Of these, in the last 24 hours, and keys and values of commits that were to be on disk.
    pub last_day_bytes: u64,
    pub committed_bytes: u64,
    /// What a year like the time since the start comes to, and whether that is more than the budget.
    pub bytes_a_year: u64,
    pub over_budget: bool,
    /// Times that the database was brought up to date.
    pub rounds: u64,
    /// The longest that flushes had to wait for that.
    pub longest_slice: Duration,
    /// What journal and database take on disk.
    pub journal_bytes: u64,
    pub file_bytes: u64,
    /// Events in the watch ring, the bytes it keeps alive, and the watchers on it.
    pub ring_events: usize,
    pub ring_bytes: usize,
    pub watchers: usize,
    /// Keys with changes that are acknowledged and not yet on disk.
    pub lazy_keys: usize,
    /// Keys and places found damaged, at start or later, and not mended.
    pub damaged: usize,
}

pub(crate) struct State {
    /// With everything applied, visible or not.
    root: Root,
    /// The highest revision handed out. Never goes back, also when transactions are taken back.
    assigned: Revision,
    pub visible: Snapshot,
    queue: VecDeque<Pending>,
    /// Refused because of something in the queue, which was all there up to this revision.
    refused: VecDeque<(Revision, Error, Reply)>,
    /// Acknowledged lazy writes that are not on disk.
    dirty: Writes,
    dirty_since: Option<Instant>,
    /// Some are in the flush that is going on.
    lazy_in_flight: bool,
    failures: u32,
    /// Revisions up to this one may be acknowledged; None when there is no disk.
    reserved: Option<Revision>,
    pub ring: Ring,
    kept: VecDeque<(Instant, Snapshot)>,
    waiting: BTreeMap<(Revision, u64), Waker>,
    history: Duration,
    /// Which revision was visible at some moments of the last `history`, the newest of them last.
    moments: VecDeque<(Instant, Revision)>,
    lazy_delay: Duration,
    pub sealed: Sealed,
    pub closing: bool,
    /// There is more to do than anybody waits for.
    pub behind: bool,
    /// The slice that is written apart has been written.
    pub sliced: bool,
    /// The writer waits a moment for so many transactions; 0: it does not.
    pub gathering: usize,
    /// How quick the disk is.
    pub pace: Pace,
    /// What the last flush took, and how many transactions it was for.
    pub last: (Duration, usize),
    /// Found damaged on the disk; the writer has to see to it.
    pub rotten: Vec<Part>,
    /// What that was, until the writer has seen to it.
    pub rot: Vec<String>,
    /// What was found damaged at start and has not come back.
    pub lost: BTreeSet<String>,
    /// Why the last flush failed.
    pub trouble: Option<Error>,
    pub meter: Meter,
    pub stats: Stats,
}

struct Pending {
    transaction: Transaction,
    revision: Revision,
    events: Vec<Event>,
    /// It needs more space than it gives back.
    grows: bool,
    root: Root,
    since: Instant,
    reply: Reply,
}

pub(crate) type Reply = Sender<Result<Revision, Error>>;

/// Whom a change concerns. They are told when the state is no longer locked, those that watch before those that wrote: what is
/// acknowledged is on its way to all who watch it.
#[derive(Default)]
pub(crate) struct Told {
    wakers: Vec<Waker>,
    answers: Vec<(Reply, Result<Revision, Error>)>,
}

impl Told {
    fn answer(&mut self, reply: Reply, result: Result<Revision, Error>) {
        self.answers.push((reply, result));
    }

    pub fn tell(self) {
        self.wakers.into_iter().for_each(Waker::wake);
        for (reply, result) in self.answers {
            // Nobody listens when the caller gave up waiting: the transaction happened all the same.
            let _ = reply.try_send(result);
        }
    }
}

/// What a key holds from some revision on, as a shared store has it.
#[cfg(feature = "etcd")]
pub(crate) enum Arrived {
    Put { held: Held, stale: bool },
    Gone,
    Unreadable { held: Held, why: String },
}

/// What one flush has to do.
pub(crate) struct Batch {
    pub flush: Flush,
    /// How many at the front of the queue it is for.
    pub transactions: usize,
    /// The lazy writes in it, in case it fails.
    lazy: Writes,
}

/// When the writer has work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Now,
    At(Instant),
    None,
}

impl State {
    pub fn new(options: &Options, loaded: Loaded, disk: bool) -> State {
        let Loaded { root, reserved, damaged, sealed } = loaded;
        let visible = Snapshot { root: root.clone(), revision: reserved };
        let live_bytes = visible.range("", None).map(|entry| entry.key.len() + entry.value.len()).sum();
        State {
            root,
            assigned: reserved,
            visible,
            queue: VecDeque::new(),
            refused: VecDeque::new(),
            dirty: Writes::new(),
            dirty_since: None,
            lazy_in_flight: false,
            failures: 0,
            reserved: disk.then_some(reserved),
            ring: Ring::new(options.watch_events, options.watch_bytes, reserved),
            kept: VecDeque::new(),
            waiting: BTreeMap::new(),
            history: options.history,
            moments: VecDeque::new(),
            lazy_delay: options.lazy_delay,
            sealed,
            closing: false,
            behind: false,
            sliced: false,
            gathering: 0,
            pace: Pace::default(),
            last: (Duration::ZERO, 0),
            rotten: Vec::new(),
            rot: Vec::new(),
            lost: damaged.into_iter().collect(),
            trouble: None,
            meter: Meter::new(Instant::now()),
            stats: Stats { live_bytes, ..Stats::default() },
        }
    }

    /// Applies a transaction; `reply` gets its outcome as soon as that is known, which may be at once.
    pub fn submit(&mut self, transaction: Transaction, reply: Reply, told: &mut Told) {
        if self.closing {
            return told.answer(reply, Err(Error::Closed));
        }
        self.admit(transaction, reply, told);
        self.settle(told);
    }

    fn admit(&mut self, transaction: Transaction, reply: Reply, told: &mut Told) {
        if let Some(unreadable) = self.unreadable_among(&transaction) {
            return told.answer(reply, Err(Error::Unreadable(unreadable)));
        }
        if let Some((key, found)) = self.root.violated(&transaction) {
            // Who lost a race looks again and tries again: in vain, for as long as he cannot see what he lost to.
            return self.refused.push_back((self.assigned, Error::Precondition { key, found }, reply));
        }
        self.assigned += 1;
        let revision = self.assigned;
        let before = self.root.kept_bytes();
        let events = self.root.apply(&transaction, revision);
        let grows = self.root.kept_bytes() > before + GROWTH_BYTES;
        let (root, since) = (self.root.clone(), Instant::now());
        self.queue.push_back(Pending { transaction, revision, events, grows, root, since, reply });
    }

    pub fn unreadable_among(&self, transaction: &Transaction) -> Option<Unreadable> {
        let known = &self.sealed.unreadable;
        if known.is_empty() {
            return None;
        }
        transaction.writes.iter().find_map(|write| {
            let (key, (_, why)) = known.get_key_value(write.key())?;
            Some(Unreadable { key: key.clone(), why: why.clone() })
        })
    }

    /// The first entry whose key starts so, and cannot be read.
    pub fn unreadable(&self, prefix: &str) -> Option<Unreadable> {
        let (key, (_, why)) =
            self.sealed.unreadable.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).next()?;
        key.starts_with(prefix).then(|| Unreadable { key: key.clone(), why: why.clone() })
    }

    /// Whether a transaction cannot become visible without a flush: for its own sake or for its number's.
    fn needs_flush(&self, pending: &Pending) -> bool {
        // One that changes nothing may rest on what is not on disk: the deletion of what a lazy one has deleted.
        let rests = !pending.events.is_empty() || !self.dirty.is_empty() || self.lazy_in_flight;
        let durable = pending.transaction.class == Class::Durable && rests;
        self.reserved.is_some_and(|reserved| durable || pending.revision > reserved)
    }

    /// Publishes from the front of the queue what needs no flush, and tells who was refused because of what is no longer in it.
    fn settle(&mut self, told: &mut Told) {
        self.publish_all(told);
        let waits_from = self.queue.front().map_or(Revision::MAX, |pending| pending.revision);
        while let Some((_, error, reply)) = self.refused.pop_front_if(|(revision, ..)| *revision < waits_from) {
            told.answer(reply, Err(error));
        }
    }

    fn publish_all(&mut self, told: &mut Told) {
        while let Some(pending) = self.queue.pop_front() {
            if self.needs_flush(&pending) {
                self.queue.push_front(pending);
                return;
            }
            if self.reserved.is_some() && pending.transaction.class == Class::Lazy && !pending.events.is_empty() {
                self.dirty.extend(changes(&pending.events));
                self.dirty_since.get_or_insert_with(Instant::now);
            }
            self.publish(pending, told);
        }
    }

    fn publish(&mut self, pending: Pending, told: &mut Told) {
        let Pending { transaction, revision, events, root, reply, .. } = pending;
        self.count(transaction.class);
        if self.reserved.is_some() && transaction.class != Class::Volatile {
            let bytes = |event: &Event| event.new.as_ref().map_or(0, |new| new.key.len() + new.value.len()) as u64;
            self.stats.committed_bytes += events.iter().map(bytes).sum::<u64>();
        }
        self.show(revision, root, events, told);
        told.answer(reply, Ok(revision));
    }

    /// A commit that was acknowledged.
    pub fn count(&mut self, class: Class) {
        match class {
            Class::Volatile => self.stats.volatile_commits += 1,
            Class::Lazy => self.stats.lazy_commits += 1,
            Class::Durable => self.stats.durable_commits += 1,
        }
    }

    fn show(&mut self, revision: Revision, root: Root, events: Vec<Event>, told: &mut Told) {
        self.note_moment(self.visible.revision);
        self.visible = Snapshot { root, revision };
        let size = |key: &str, value: &[u8]| key.len() + value.len();
        for event in &events {
            if !self.sealed.stale.is_empty() {
                self.sealed.stale.remove(event.key());
            }
            if !self.lost.is_empty() {
                self.lost.remove(&**event.key());
            }
            self.stats.live_bytes += event.new.as_ref().map_or(0, |new| size(&new.key, &new.value));
            self.stats.live_bytes -= event.old.as_ref().map_or(0, |old| size(&old.key, &old.value));
        }
        self.ring.push(events, &mut told.wakers);
        let later = self.waiting.split_off(&(revision + 1, 0));
        told.wakers.extend(std::mem::replace(&mut self.waiting, later).into_values());
        self.forget_old_roots();
    }

    /// What all writers of a shared store did at one revision, which that store has numbered. One that is known already says
    /// nothing new.
    #[cfg(feature = "etcd")]
    pub fn follow(&mut self, revision: Revision, changes: Vec<(crate::Key, Arrived)>, told: &mut Told) {
        if revision <= self.visible.revision {
            return;
        }
        let mut events = Vec::new();
        for (key, arrived) in changes {
            let mut stays = false;
            let new = match arrived {
                Arrived::Put { held, stale } => {
                    stays = stale;
                    self.sealed.unreadable.remove(&key);
                    Some(held)
                }
                Arrived::Gone => {
                    self.sealed.unreadable.remove(&key);
                    None
                }
                Arrived::Unreadable { held, why } => {
                    self.sealed.unreadable.insert(key.clone(), (held, why));
                    None
                }
            };
            if stays {
                self.sealed.stale.insert(key.clone());
            } else if !self.sealed.stale.is_empty() {
                self.sealed.stale.remove(&key);
            }
            events.extend(self.root.set(&key, new, revision));
        }
        self.assigned = revision;
        self.show(revision, self.root.clone(), events, told);
    }

    /// All there is at a revision: the difference to what was seen so far counts as done by that one.
    #[cfg(feature = "etcd")]
    pub fn follow_all(&mut self, revision: Revision, mut all: BTreeMap<crate::Key, Arrived>, told: &mut Told) {
        let known = self.visible.clone();
        let mut changes = Vec::new();
        for entry in known.range("", None) {
            match all.get(&entry.key) {
                None => changes.push((entry.key, Arrived::Gone)),
                Some(Arrived::Put { held, .. }) if held.modified == entry.modified => drop(all.remove(&entry.key)),
                Some(_) => {}
            }
        }
        changes.extend(all);
        self.follow(revision, changes, told);
    }

    pub fn work(&self) -> Work {
        // What is in front of the queue needs a flush, or it would not be there.
        if !self.queue.is_empty() {
            return Work::Now;
        }
        match self.dirty_since {
            Some(since) => {
                let delay = self.meter.delay(self.lazy_delay, self.dirty.len(), Instant::now());
                Work::At(since + delay * 2u32.pow(self.failures.min(RETRY_DOUBLINGS)))
            }
            None => Work::None,
        }
    }

    /// Everything that is not on disk: the acknowledged lazy writes and the whole queue.
    pub fn take_batch(&mut self) -> Batch {
        let lazy = std::mem::take(&mut self.dirty);
        self.dirty_since = None;
        self.lazy_in_flight = !lazy.is_empty();
        let mut writes = lazy.clone();
        for pending in self.queue.iter().filter(|pending| pending.transaction.class != Class::Volatile) {
            writes.extend(changes(&pending.events));
        }
        let flush = Flush {
            writes,
            root: self.root.clone(),
            reserve: self.assigned + RESERVE_BLOCK,
            grows: self.queue.iter().any(|pending| pending.grows && pending.transaction.class == Class::Durable),
        };
        Batch { flush, transactions: self.queue.len(), lazy }
    }

    pub fn flushed(&mut self, batch: Batch, took: Duration, told: &mut Told) {
        self.stats.flushes += 1;
        self.trouble = None;
        self.lazy_in_flight = false;
        self.stats.flush_latency.note(took);
        self.last = (took, batch.transactions);
        self.failures = 0;
        self.reserved = self.reserved.map(|_| batch.flush.reserve);
        let now = Instant::now();
        for pending in self.queue.drain(..batch.transactions).collect::<Vec<_>>() {
            if pending.transaction.class == Class::Durable {
                self.stats.commit_latency.note(now.saturating_duration_since(pending.since));
            }
            self.publish(pending, told);
        }
        self.settle(told);
    }

    pub fn flush_failed(&mut self, batch: Batch, error: &Error, told: &mut Told) {
        self.stats.failed_flushes += 1;
        self.last = (Duration::ZERO, 0);
        self.trouble = Some(error.clone());
        self.lazy_in_flight = false;
        self.failures += 1;
        // A lazy write that came meanwhile is newer than the one that was not flushed.
        for (key, held) in batch.lazy {
            self.dirty.entry(key).or_insert(held);
        }
        if !self.dirty.is_empty() {
            self.dirty_since = Some(Instant::now());
        }
        self.root = self.visible.root.clone();
        // On a full disk what needs no more space goes on, into the places held back for it.
        let spare = matches!(error, Error::Full) && batch.flush.grows;
        for (place, pending) in std::mem::take(&mut self.queue).into_iter().enumerate() {
            let failed = pending.grows || !spare;
            if place < batch.transactions && failed && self.needs_flush(&pending) {
                told.answer(pending.reply, Err(error.clone()));
            } else {
                self.admit(pending.transaction, pending.reply, told);
            }
        }
        self.settle(told);
    }

    /// No commit succeeds after this; who waits is told.
    pub fn close(&mut self, told: &mut Told) {
        self.closing = true;
        self.queue.clear();
        self.refused.clear();
        self.ring.wake_all(&mut told.wakers);
    }

    pub fn has_unflushed(&self) -> bool {
        !self.queue.is_empty() || !self.dirty.is_empty()
    }

    /// Whether what is not on disk takes more there than so many bytes; looks at no more than it has to.
    pub fn unflushed_over(&self, limit_bytes: usize) -> bool {
        let size = |key: &str, held: Option<&[u8]>| change::size(key, held.unwrap_or_default());
        let dirty = self.dirty.iter().map(|(key, held)| size(key, held.as_ref().map(|held| &*held.value)));
        let events = self.queue.iter().flat_map(|pending| &pending.events);
        let queued = events.map(|event| size(event.key(), event.new.as_ref().map(|new| &*new.value)));
        let mut left = limit_bytes;
        !dirty.chain(queued).all(|bytes| left.checked_sub(bytes).inspect(|less| left = *less).is_some())
    }

    /// Transactions that wait for the next flush.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub fn snapshot_at(&mut self, revision: Revision) -> Result<Snapshot, Error> {
        if revision > self.visible.revision {
            return Err(Error::Future { asked: revision, current: self.visible.revision });
        }
        if revision == self.visible.revision {
            return Ok(self.visible.clone());
        }
        if let Some(oldest) = self.oldest_in_history(Instant::now()).filter(|oldest| revision < *oldest) {
            return Err(Error::Compacted { asked: revision, oldest });
        }
        self.forget_old_roots();
        let kept = self.kept.iter().position(|(_, snapshot)| snapshot.revision == revision);
        let snapshot = match kept.and_then(|place| self.kept.remove(place)) {
            Some((_, snapshot)) => snapshot,
            None if revision >= self.ring.floor() => self.rebuild(revision),
            None => return Err(Error::Compacted { asked: revision, oldest: self.ring.floor() }),
        };
        if self.kept.len() == KEPT_ROOTS {
            self.kept.pop_front();
        }
        self.kept.push_back((Instant::now(), snapshot.clone()));
        Ok(snapshot)
    }

    /// The visible root with later events taken back: keeping the events keeps every root since.
    fn rebuild(&self, revision: Revision) -> Snapshot {
        let mut root = self.visible.root.clone();
        for event in self.ring.back_to(revision) {
            root.undo(event);
        }
        Snapshot { root, revision }
    }

    /// The revision that a commit is about to replace.
    fn note_moment(&mut self, revision: Revision) {
        let now = Instant::now();
        let is_due = self.moments.back().is_none_or(|(then, _)| now.duration_since(*then) >= self.history / MOMENTS);
        if is_due {
            self.moments.push_back((now, revision));
            self.oldest_in_history(now);
        }
    }

    /// What was replaced before this one, was so longer than `history` ago. Who lists it page by page has to begin anew at
    /// some time, as etcd's compaction makes them, however often they ask.
    fn oldest_in_history(&mut self, now: Instant) -> Option<Revision> {
        let is_old = |moment: &(Instant, Revision)| now.duration_since(moment.0) >= self.history;
        while self.moments.get(1).is_some_and(is_old) {
            self.moments.pop_front();
        }
        self.moments.front().filter(|moment| is_old(moment)).map(|(_, revision)| *revision)
    }

    /// A root stays for `history` after it was last asked for; the least recently asked one is in front.
    fn forget_old_roots(&mut self) {
        if self.kept.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.kept.pop_front_if(|(asked, _)| now.duration_since(*asked) > self.history).is_some() {}
    }

    pub fn wait(&mut self, revision: Revision, id: u64, waker: &Waker) -> bool {
        let reached = self.visible.revision >= revision;
        if !reached {
            self.waiting.insert((revision, id), waker.clone());
        }
        reached
    }

    pub fn stop_waiting(&mut self, revision: Revision, id: u64) {
        self.waiting.remove(&(revision, id));
    }

    pub fn stats(&self) -> Stats {
        Stats {
            revision: self.visible.revision,
            entries: self.visible.root.len(),
            ring_events: self.ring.len(),
            ring_bytes: self.ring.bytes(),
            watchers: self.ring.watchers(),
            lazy_keys: self.dirty.len(),
            damaged: self.lost.len() + self.rot.len(),
            last_day_bytes: self.meter.last_day_bytes(Instant::now()),
            bytes_a_year: self.meter.bytes_a_year(Instant::now()) as u64,
            over_budget: self.meter.is_over(Instant::now()),
            ..self.stats
        }
    }
}

fn changes(events: &[Event]) -> impl Iterator<Item = (crate::Key, Option<Held>)> {
    events.iter().map(|event| (event.key().clone(), event.new.as_ref().map(Held::from)))
}
