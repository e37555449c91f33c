//! The one thread that writes. It sleeps until there is something to flush, takes everything that waits, and flushes
//! it at once: commits that arrive during a flush share the next one.
use crate::{
    Error,
    disk::Disk,
    state::{State, Work},
};
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Instant,
};

/// What the store's handles, its watchers and the writer share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
}

impl Shared {
    pub fn new(state: State) -> Shared {
        Shared { state: Mutex::new(state), work: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes whom that concerns, outside the lock.
    pub fn change<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Waker>) -> T) -> T {
        let mut wake = Vec::new();
        let (result, sooner) = {
            let mut state = self.lock();
            let before = state.work();
            let result = change(&mut state, &mut wake);
            // A later deadline, or the same, is found when the earlier one is over.
            let sooner = match (before, state.work()) {
                (_, Work::None) | (Work::Now, _) => false,
                (Work::At(_), Work::At(_)) => false,
                (Work::None, _) | (Work::At(_), Work::Now) => true,
            };
            (result, sooner || state.closing)
        };
        if sooner {
            self.work.notify_one();
        }
        wake.into_iter().for_each(Waker::wake);
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

/// Runs until the state is closing; returns what became of the last flush.
pub(crate) fn run(shared: &Shared, mut disk: Disk, end: &Mutex<End>) -> Result<(), Error> {
    loop {
        let mut state = shared.lock();
        while !state.closing {
            state = match state.work() {
                Work::Now => break,
                Work::None => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Work::At(deadline) => {
                    let now = Instant::now();
                    if deadline <= now {
                        break;
                    }
                    let waited = shared.work.wait_timeout(state, deadline - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        if state.closing {
            let abandon = *end.lock().unwrap_or_else(PoisonError::into_inner) == End::Abandon;
            if abandon || !state.has_unflushed() {
                drop(state);
                return disk.close();
            }
        }
        let closing = state.closing;
        let batch = state.take_batch();
        drop(state);
        let start = Instant::now();
        let result = disk.flush(&batch.writes, batch.reserve);
        let took = start.elapsed();
        shared.change(|state, wake| match &result {
            Ok(()) => state.flushed(batch, took, wake),
            Err(error) => {
                tracing::error!(%error, "flushing the store failed");
                state.flush_failed(batch, error, wake);
            }
        });
        if closing && result.is_err() {
            let _ = disk.close();
            return result;
        }
    }
}
