//! The one thread that writes. It sleeps until there is something to flush, takes everything that waits, and flushes
//! it at once: commits that arrive during a flush share the next one.
use crate::{
    Error, Revision,
    disk::Disk,
    state::{Batch, State, Told, Work},
    watch::Wait,
};
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

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
        let mut told = Told::default();
        let (result, sooner) = {
            let mut state = self.lock();
            let before = state.work();
            let result = change(&mut state, &mut told);
            // A later deadline, or the same, is found when the earlier one is over.
            let sooner = match (before, state.work()) {
                (_, Work::None) | (Work::Now, _) => false,
                (Work::At(_), Work::At(_)) => false,
                (Work::None, _) | (Work::At(_), Work::Now) => true,
            };
            (result, sooner || state.closing || !state.rotten.is_empty())
        };
        if sooner {
            self.work.notify_one();
        }
        told.tell();
        result
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

/// Who writes. `Store` gives it a thread; a test may hold it instead.
pub struct Writer {
    shared: Arc<Shared>,
    disk: Disk,
    /// There is more to do than anybody waits for.
    behind: bool,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, disk: Disk) -> Writer {
        let behind = disk.is_damaged();
        Writer { shared, disk, behind }
    }

    /// What is not on disk, in one flush, however long it might still wait; then what the database needs, if it needs
    /// anything. False: there was nothing to do.
    pub fn step(&mut self) -> Result<bool, Error> {
        let mut state = self.shared.lock();
        let batch = state.has_unflushed().then(|| state.take_batch());
        for part in std::mem::take(&mut state.rotten) {
            self.disk.heal(part);
            self.behind = true;
        }
        drop(state);
        if batch.is_none() && !self.behind {
            return Ok(false);
        }
        let flushed = batch.map_or(Ok(()), |batch| self.flush(batch));
        let start = Instant::now();
        let sliced = if flushed.is_ok() && self.disk.is_behind() { self.disk.slice() } else { Ok(()) };
        let took = start.elapsed();
        if let Err(error) = &sliced {
            tracing::warn!(%error, "the database is not up to date; what is new is in the journal");
        }
        // A round that failed is tried again when there is something to flush.
        self.behind = flushed.is_ok() && sliced.is_ok() && self.disk.is_behind();
        let mut state = self.shared.lock();
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

    fn flush(&mut self, batch: Batch) -> Result<(), Error> {
        let start = Instant::now();
        let result = self.disk.flush(&batch.flush);
        let took = start.elapsed();
        self.shared.change(|state, told| match &result {
            Ok(()) => state.flushed(batch, took, told),
            Err(error) => {
                tracing::error!(%error, "flushing the store failed");
                state.flush_failed(batch, error, told);
            }
        });
        result
    }

    /// Flushes all there is, and leaves a database that needs no journal.
    pub fn close(&mut self) -> Result<(), Error> {
        self.behind = false;
        while self.step()? {
            self.behind = false;
        }
        self.disk.close()
    }

    fn wait(&self) {
        let mut state = self.shared.lock();
        while !state.closing && !self.behind && state.rotten.is_empty() {
            state = match state.work() {
                Work::Now => return,
                Work::None => self.shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Work::At(deadline) => {
                    let now = Instant::now();
                    if deadline <= now {
                        return;
                    }
                    let waited = self.shared.work.wait_timeout(state, deadline - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Until the state is closing; returns what became of the last flush.
    pub(crate) fn run(mut self, end: &Mutex<End>) -> Result<(), Error> {
        loop {
            self.wait();
            if self.shared.lock().closing {
                let abandon = *end.lock().unwrap_or_else(PoisonError::into_inner) == End::Abandon;
                return if abandon { Ok(()) } else { self.close() };
            }
            // Who waited was told, and the next flush tries again.
            let _ = self.step();
        }
    }
}
