//! Deadlines that mostly never come: of requests, of idle connections, of watches, of queued work. They lie in one heap behind a
//! single timer of the reactor. The reactor is woken for each timer that is made, which costs several system calls and another
//! thread's time slice; here it is woken only when a deadline is earlier than the one that is waited for.
use async_io::Timer;
use hyper::rt;
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

/// Resolves when its time has come.
pub struct Deadline {
    at: Instant,
    /// In the heap under this number.
    number: Option<u64>,
}

impl Deadline {
    pub fn at(at: Instant) -> Deadline {
        Deadline { at, number: None }
    }

    /// Never, where the clock does not reach so far.
    pub async fn after(duration: Duration) {
        match Instant::now().checked_add(duration) {
            Some(at) => Deadline::at(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        let mut heap = lock();
        let number = *self.number.get_or_insert_with(|| {
            heap.last += 1;
            heap.last
        });
        let waker = heap.waiting.entry((self.at, number)).or_insert_with(|| cx.waker().clone());
        waker.clone_from(cx.waker());
        let due = heap.settle();
        drop(heap);
        due.into_iter().for_each(Waker::wake);
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // The timer stays: whoever comes next has most likely a later deadline.
            lock().waiting.remove(&(self.at, number));
        }
    }
}

/// The same for hyper.
pub struct Timers;

impl rt::Sleep for Deadline {}

impl rt::Timer for Timers {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }
    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn rt::Sleep>> {
        Box::pin(Deadline::at(at))
    }
}

struct Heap {
    waiting: BTreeMap<(Instant, u64), Waker>,
    /// The number given last.
    last: u64,
    timer: Option<(Instant, Timer)>,
}

static HEAP: Mutex<Heap> = Mutex::new(Heap { waiting: BTreeMap::new(), last: 0, timer: None });

fn lock() -> MutexGuard<'static, Heap> {
    HEAP.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heap {
    /// Takes out what is due, and sees to it that the timer comes no later than the next.
    fn settle(&mut self) -> Vec<Waker> {
        let mut due = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            let at = first.key().0;
            if self.timer.as_ref().is_some_and(|(armed, _)| *armed <= at) {
                break;
            }
            let mut timer = Timer::at(at);
            let waker = Waker::from(Arc::new(Rung));
            if Pin::new(&mut timer).poll(&mut Context::from_waker(&waker)).is_pending() {
                self.timer = Some((at, timer));
                break;
            }
            due.push(first.remove());
        }
        due
    }
}

/// The timer's waker.
struct Rung;

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        let mut heap = lock();
        heap.timer = None;
        let due = heap.settle();
        drop(heap);
        due.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{FutureExt as _, future::block_on};

    #[test]
    fn deadlines_come_in_their_order_and_leave_nothing() {
        let start = Instant::now();
        let order = Mutex::new(Vec::new());
        let wait = async |milliseconds: u64| {
            Deadline::at(start + Duration::from_millis(milliseconds)).await;
            order.lock().unwrap().push(milliseconds);
        };
        let far = Deadline::at(start + Duration::from_secs(3600));
        block_on(async {
            let three = futures_lite::future::zip(wait(40), futures_lite::future::zip(wait(5), wait(20)));
            // One that is dropped, and one that was due before it was made.
            far.or(async { _ = three.await }).await;
            wait(0).await;
        });
        assert_eq!(*order.lock().unwrap(), [5, 20, 40, 0]);
        assert!(start.elapsed() >= Duration::from_millis(40));
        assert!(lock().waiting.keys().all(|(at, _)| *at < start + Duration::from_secs(3000)));
    }
}
