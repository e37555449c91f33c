//! Who flushes. A thread sleeps until there is something to flush, takes everything that waits, and flushes
//! it at once: commits that arrive during a flush share the next one. Those who shared one often come back together, so a moment
//! is given to them, a part of what the flush takes. What goes from the journal to the database is written by a second
//! thread, slice by slice, which is there for that alone; a flush waits for it only when the journal is nearly full.
//!
//! Where the disk is so quick (`pace`) that waking that thread, and being woken by it, takes as long as the flush, who commits
//! *leads*: he lets all others have their turn that can have one now, and then flushes what waits on his own thread. He does no
//! more than that: whatever else there is to do is the thread's, and he waits for nobody.
use crate::{
    Error, Revision, Transaction,
    disk::{Disk, Slice, Sliced},
    state::{Batch, Reply, State, Told, Work},
    watch::Wait,
};
use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SendError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

/// redb descends by recursion over small trees.
pub(crate) const STACK_BYTES: usize = 1024 * 1024;

/// Nobody waits longer for others to share a flush.
const MAX_PATIENCE: Duration = Duration::from_millis(2);

/// Who leads writes no more than that: it fits in a segment of the journal.
const LED_BYTES: usize = 60 * 1024;

/// What the store's handles, its watchers and the writer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    waits: AtomicU64,
}

impl Shared {
    pub fn new(state: State) -> Shared {
        Shared { state: Mutex::new(state), work: Condvar::new(), waits: AtomicU64::new(0) }
    }

    /// Resolves when the visible revision is at least `revision`.
    pub async fn wait_for(&self, revision: Revision) {
        Wait { shared: self, revision, id: self.waits.fetch_add(1, Ordering::Relaxed) }.await;
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then tells whom that concerns, outside the lock.
    pub fn change<T>(&self, change: impl FnOnce(&mut State, &mut Told) -> T) -> T {
        self.change_led(|state, told| (change(state, told), false))
    }

    /// The same, and the thread is not woken if somebody else flushes.
    fn change_led<T>(&self, change: impl FnOnce(&mut State, &mut Told) -> (T, bool)) -> T {
        let mut told = Told::default();
        let (result, sooner) = {
            let mut state = self.lock();
            let before = state.work();
            let (result, led) = change(&mut state, &mut told);
            // A later deadline, or the same, is found when the earlier one is over.
            let sooner = match (before, state.work()) {
                (_, Work::None) | (Work::Now, _) => false,
                (Work::At(_), Work::At(_)) => false,
                (Work::None, _) | (Work::At(_), Work::Now) => true,
            };
            let gathered = state.gathering > 0 && state.queued() >= state.gathering;
            let more = state.closing || state.sliced || state.behind || !state.rotten.is_empty();
            (result, sooner && !led || gathered || more)
        };
        if sooner {
            self.work.notify_one();
        }
        told.tell();
        result
    }

    /// Whoever gets a turn has to take it, or to drop it.
    pub fn submit(&self, transaction: Transaction, reply: Reply) -> Option<Turn<'_>> {
        let leads = self.change_led(|state, told| {
            let was_idle = state.queued() == 0;
            state.submit(transaction, reply, told);
            let leads = was_idle && state.queued() > 0 && state.gathering == 0 && state.pace.is_short();
            (leads, leads)
        });
        leads.then_some(Turn(self))
    }

    /// Sleeps until there is something to do.
    fn wait(&self) {
        let mut state = self.lock();
        while !state.closing && !state.behind && !state.sliced && state.rotten.is_empty() {
            state = match state.work() {
                Work::Now => return self.gather(state),
                Work::None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Work::At(deadline) => {
                    let now = Instant::now();
                    if deadline <= now {
                        return;
                    }
                    let waited = self.work.wait_timeout(state, deadline - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Those who shared the last flush were told at once, and come back one after the other: the first of them does not go alone.
    fn gather(&self, mut state: MutexGuard<'_, State>) {
        let (took, expected) = state.last;
        if expected < 2 || state.queued() >= expected {
            return;
        }
        state.gathering = expected;
        let few = |state: &mut State| !state.closing && state.queued() < expected;
        let patience = (took / 2).min(MAX_PATIENCE);
        let waited = self.work.wait_timeout_while(state, patience, few);
        waited.unwrap_or_else(PoisonError::into_inner).0.gathering = 0;
    }
}

/// It is somebody's turn to flush, and no thread was woken for it. When it is dropped one is.
pub(crate) struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.work.notify_one();
    }
}

impl Turn<'_> {
    /// Flushes what waits, unless that would take longer than a flush does.
    pub fn take(self, writer: &Mutex<Writer>) {
        // Who has it flushes, or sees when he is done that there is more to do.
        if writer.try_lock().is_ok_and(|mut writer| writer.lead()) {
            std::mem::forget(self);
        }
    }
}

/// How the writer is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `Store::close`: all that was acknowledged goes to disk first.
    Flush,
    /// The store was dropped: what is lazy is lost, as in a crash.
    Abandon,
}

/// Where slices are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// Between flushes, by whoever flushes.
    Never,
    /// By a thread.
    Thread,
    /// Between flushes, but so many steps later than they were begun: what a thread may come to, without one.
    Later(u32),
}

/// A slice on its way.
enum Slicing {
    Helper,
    Later(Box<Slice>, u32),
}

/// The thread that writes slices; it ends when this is dropped.
struct Helper {
    slices: SyncSender<Slice>,
    written: Receiver<Sliced>,
}

impl Helper {
    fn start(shared: Arc<Shared>) -> io::Result<Helper> {
        let ((slices, from), (to, written)) = (sync_channel::<Slice>(1), sync_channel(1));
        let write = move || {
            for slice in from {
                let sliced = slice.write();
                // Before it is sent: who receives it takes that back.
                shared.change(|state, _| state.sliced = true);
                if to.send(sliced).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("mote-store-round".into()).stack_size(STACK_BYTES).spawn(write);
        thread.map(|_| Helper { slices, written })
    }
}

/// Who writes. `Store` gives it a thread; a test may hold it instead.
pub struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    slicing: Option<Slicing>,
    helper: Option<Helper>,
    pub apart: Apart,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, disk: Disk) -> Writer {
        shared.lock().behind = disk.is_damaged();
        Writer { shared, disk, slicing: None, helper: None, apart: Apart::Never }
    }

    /// What is not on disk, in one flush, however long it might still wait; then what the database needs, if it needs
    /// anything. False: there was nothing to do.
    pub fn step(&mut self) -> Result<bool, Error> {
        let start = Instant::now();
        let is_due = match &mut self.slicing {
            Some(Slicing::Helper) => self.shared.lock().sliced,
            Some(Slicing::Later(_, steps)) => {
                *steps = steps.saturating_sub(1);
                *steps == 0
            }
            None => false,
        };
        let ended = is_due || self.slicing.is_some() && self.disk.is_crowded();
        let mut sliced = if ended { self.end_slice() } else { Ok(()) };
        let mut took = start.elapsed();
        let mut state = self.shared.lock();
        let batch = state.has_unflushed().then(|| state.take_batch());
        let mut behind = std::mem::take(&mut state.behind);
        for part in std::mem::take(&mut state.rotten) {
            self.disk.heal(part);
            behind = true;
        }
        drop(state);
        if batch.is_none() && !behind && !ended {
            return Ok(false);
        }
        let flushed = batch.map_or(Ok(()), |batch| self.flush(batch));
        let start = Instant::now();
        if flushed.is_ok() && sliced.is_ok() && self.slicing.is_none() && self.disk.is_behind() {
            sliced = self.begin_slice();
        }
        took = took.max(start.elapsed());
        if let Err(error) = &sliced {
            tracing::warn!(%error, "the database is not up to date; what is new is in the journal");
        }
        let mut state = self.shared.lock();
        // A round that failed is tried again when there is something to flush.
        state.behind = flushed.is_ok() && sliced.is_ok() && self.slicing.is_none() && self.disk.is_behind();
        state.meter.written(self.disk.written_bytes(), Instant::now());
        state.stats.longest_slice = state.stats.longest_slice.max(took);
        if let Err(error) = sliced {
            state.trouble = Some(error);
        }
        if state.rotten.is_empty() && !self.disk.is_damaged() {
            state.rot.clear();
        }
        drop(state);
        flushed.map(|()| true)
    }

    fn begin_slice(&mut self) -> Result<(), Error> {
        let alone = self.apart == Apart::Never || self.disk.is_crowded() || !self.disk.has_room();
        let apart = if alone { Apart::Never } else { self.apart };
        if apart == Apart::Thread && self.helper.is_none() {
            // Without one it is slower.
            self.helper = Helper::start(self.shared.clone()).ok();
        }
        let slice = match self.disk.begin_slice(apart != Apart::Never) {
            Ok(slice) => slice,
            Err(error) => return self.disk.end_slice(Err(error)),
        };
        let slice = match (apart, &self.helper) {
            (Apart::Later(steps), _) => {
                self.slicing = Some(Slicing::Later(Box::new(slice), steps));
                return Ok(());
            }
            (Apart::Thread, Some(helper)) => match helper.slices.send(slice) {
                Ok(()) => {
                    self.slicing = Some(Slicing::Helper);
                    return Ok(());
                }
                Err(SendError(slice)) => slice,
            },
            _ => slice,
        };
        self.disk.end_slice(Ok(slice.write()))
    }

    /// Waits for it, where it is not done.
    fn end_slice(&mut self) -> Result<(), Error> {
        let sliced = match self.slicing.take() {
            Some(Slicing::Helper) => {
                let sliced = self.helper.as_ref().and_then(|helper| helper.written.recv().ok());
                self.shared.lock().sliced = false;
                // What was in it is in memory: all is written anew.
                sliced.ok_or(Error::Damaged { doing: "writing the database", message: "the thread has ended".into() })
            }
            Some(Slicing::Later(slice, _)) => Ok(slice.write()),
            None => return Ok(()),
        };
        let ended = self.disk.end_slice(sliced);
        if !self.disk.is_in_round() {
            self.helper = None;
        }
        ended
    }

    fn flush(&mut self, batch: Batch) -> Result<(), Error> {
        let start = Instant::now();
        let result = self.disk.flush(&batch.flush);
        let took = start.elapsed();
        self.shared.change(|state, told| {
            // What a flush takes beside the database's says nothing of one that is alone on the disk.
            if self.slicing.is_none() {
                state.pace.note(result.is_ok().then_some(took));
            }
            match &result {
                Ok(()) => state.flushed(batch, took, told),
                Err(error) => {
                    tracing::error!(%error, "flushing the store failed");
                    state.flush_failed(batch, error, told);
                }
            }
        });
        result
    }

    /// Flushes all there is, and leaves a database that needs no journal.
    pub fn close(&mut self) -> Result<(), Error> {
        self.apart = Apart::Never;
        if let Err(error) = self.end_slice() {
            tracing::warn!(%error, "the database is not up to date; it is brought up to date anew");
        }
        self.shared.lock().behind = false;
        while self.step()? {
            self.shared.lock().behind = false;
        }
        self.disk.close()
    }

    /// As much of a step as who commits may do himself: one flush, and only if it is one write and waits for nothing.
    /// False: there is more to do than that.
    pub fn lead(&mut self) -> bool {
        let mut state = self.shared.lock();
        if !state.has_unflushed() {
            return true;
        }
        if self.slicing.is_some()
            || !self.disk.is_ready()
            || state.closing
            || !state.pace.is_short()
            || state.unflushed_over(LED_BYTES)
        {
            return false;
        }
        let batch = state.take_batch();
        state.stats.led_flushes += 1;
        drop(state);
        let flushed = self.flush(batch);
        let mut state = self.shared.lock();
        state.meter.written(self.disk.written_bytes(), Instant::now());
        state.behind |= flushed.is_ok() && self.slicing.is_none() && self.disk.is_behind();
        // Others may have come meanwhile.
        !state.behind && state.queued() == 0
    }

    /// Until the state is closing; returns what became of the last flush.
    pub(crate) fn run(writer: &Mutex<Writer>, shared: &Shared, end: &Mutex<End>) -> Result<(), Error> {
        loop {
            shared.wait();
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.lock().closing {
                let abandon = *end.lock().unwrap_or_else(PoisonError::into_inner) == End::Abandon;
                // Nobody else may write here once this has ended.
                return if abandon { writer.end_slice() } else { writer.close() };
            }
            // Who waited was told, and the next flush tries again.
            let _ = writer.step();
        }
    }
}
