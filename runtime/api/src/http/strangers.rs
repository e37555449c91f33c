//! Connections of nobody known: no certificate, and no request yet that proved who sends it. When there are too many connections
//! the oldest of these makes room for a new one, so that whoever merely connects cannot keep out those who have something to say.
use event_listener::Event;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// By age.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    next: u64,
    waiting: BTreeMap<u64, Arc<Go>>,
}

#[derive(Default)]
struct Go {
    asked: AtomicBool,
    event: Event,
}

/// One of them, until its client is known or all of these are dropped.
#[derive(Clone)]
pub(super) struct Stranger(Arc<Entry>);

struct Entry {
    number: u64,
    go: Arc<Go>,
    list: Strangers,
}

impl Strangers {
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self) -> Stranger {
        let go = Arc::new(Go::default());
        let mut list = self.list();
        list.next += 1;
        let number = list.next;
        list.waiting.insert(number, go.clone());
        Stranger(Arc::new(Entry { number, go, list: self.clone() }))
    }

    /// False: there is none.
    pub fn close_oldest(&self) -> bool {
        let oldest = self.list().waiting.pop_first();
        let Some((_, go)) = oldest else { return false };
        go.asked.store(true, Ordering::Release);
        go.event.notify(usize::MAX);
        true
    }
}

impl Stranger {
    pub fn known(&self) {
        self.0.list.list().waiting.remove(&self.0.number);
    }

    pub async fn asked_to_go(&self) {
        let asked = self.0.go.event.listen();
        if !self.0.go.asked.load(Ordering::Acquire) {
            asked.await;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.list.list().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn the_oldest_of_nobody_known_goes() {
        let strangers = Strangers::default();
        let is_asked = |stranger: &Stranger| block_on(poll_once(stranger.asked_to_go())).is_some();
        let (known, gone, first, second) = (strangers.add(), strangers.add(), strangers.add(), strangers.add());
        known.known();
        drop(gone);
        assert!(strangers.close_oldest());
        assert_eq!([&known, &first, &second].map(is_asked), [false, true, false]);
        assert!(strangers.close_oldest());
        assert!(is_asked(&second) && !strangers.close_oldest() && !is_asked(&known));
    }
}
