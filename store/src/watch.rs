//! What a caller waits on: a watcher's next events, or a revision. Both wait in the shared state and leave it when
//! they are dropped.
use crate::{Error, Event, Revision, ring::Due, writer::Shared};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Events for keys with one prefix, each once, in revision order.
pub struct Watcher {
    shared: Arc<Shared>,
    cursor: u64,
}

impl Watcher {
    pub(crate) fn new(shared: Arc<Shared>, cursor: u64) -> Watcher {
        Watcher { shared, cursor }
    }

    /// The next batch in revision order (never empty). `Compacted` when this watcher fell behind the ring, `Closed`
    /// when nothing more can come. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Vec<Event>, Error> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            let visible = state.visible.revision;
            match state.ring.next(self.cursor, visible, cx.waker()) {
                Due::Events(events) => Poll::Ready(Ok(events)),
                Due::Lost(error) => Poll::Ready(Err(error)),
                Due::Nothing if state.closing => Poll::Ready(Err(Error::Closed)),
                Due::Nothing => Poll::Pending,
            }
        })
        .await
    }

    /// Every event up to this revision has been delivered (for bookmarks).
    pub fn progress(&self) -> Revision {
        let state = self.shared.lock();
        state.ring.progress(self.cursor, state.visible.revision)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.lock().ring.unsubscribe(self.cursor);
    }
}

/// Resolves when the visible revision is at least this one.
pub(crate) struct Wait<'a> {
    pub shared: &'a Shared,
    pub revision: Revision,
    pub id: u64,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.shared.lock().wait(self.revision, self.id, cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.shared.lock().stop_waiting(self.revision, self.id);
    }
}
