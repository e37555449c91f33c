//! Work beside what asked for it: tasks of the executor, and calls that block. Each is made a trait object here, since the
//! executor and the pool of threads are built anew (600 bytes a piece) for every type they are given.
use async_executor::Executor;
use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

/// Runs for the life of the process.
pub fn spawn(executor: &Executor<'static>, future: impl Future<Output = ()> + Send + 'static) {
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
    executor.spawn(future).detach();
}

/// What `work` gives, which is done on another thread: files, and what else may wait for a disk.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let result = Arc::new(Mutex::new(None));
    let kept = result.clone();
    let work: Box<dyn FnOnce() + Send> = Box::new(move || *lock(&kept) = Some(work()));
    blocking::unblock(work).await;
    let done = lock(&result).take();
    // A panic ends the process, so that whoever comes here finds the result.
    done.expect("the work is done")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future;

    #[test]
    fn work_gives_its_result_and_tasks_run() {
        let executor = Executor::new();
        let (done, wait) = async_channel::bounded(1);
        spawn(&executor, async move {
            let sum = unblock(|| 40 + 2).await;
            done.send(sum).await.ok();
        });
        assert_eq!(future::block_on(executor.run(wait.recv())), Ok(42));
    }
}
