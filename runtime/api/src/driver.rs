//! One driver under every controller, the scheduler, the kubelet and the service proxy: the change feed wakes
//! keyed queues, deadlines sit in one timer heap, and nothing ticks.
//!
//! Guarantees: every object that exists at start is offered to `wake` once as `Change { old: None, new: Some }`;
//! afterwards every change is offered in revision order (a feed that fell behind continues with the difference
//! of two roots, so nothing is missed, though steps may merge). One key is never reconciled twice at a time; a
//! key woken while it runs, runs again after. An error is retried with a back-off from 5 ms to 1000 s (upstream's
//! item exponential limiter); `Next::After` runs the key again then, unless woken before.
use crate::{Change, Client, client::Gate, deadline::Deadline, feed, metrics::Text};
use event_listener::{Event, listener};
use futures_lite::FutureExt as _;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a queue holds: an object's namespace ("" when cluster-scoped) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// When to run the key again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Done,
    After(Duration),
}

#[derive(Debug)]
pub enum Error {
    /// What the API answered. A conflict is retried quietly.
    Api(mote_schema::Status),
    Other(String),
}

impl From<mote_schema::Status> for Error {
    fn from(status: mote_schema::Status) -> Error {
        Error::Api(status)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Api(status) => write!(f, "{status}"),
            Error::Other(text) => f.write_str(text),
        }
    }
}

/// The first retry's delay and the longest, as client-go's DefaultControllerRateLimiter has them.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_LONGEST: Duration = Duration::from_secs(1000);

/// A keyed queue; cloning shares it. A key that waits is held once.
#[derive(Clone)]
pub struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Event,
}

#[derive(Default)]
struct State {
    /// Each since when.
    ready: VecDeque<(Key, Instant)>,
    /// Keys in `ready`, or to be put there when their running reconcile ends.
    wanted: HashSet<Key>,
    running: HashMap<Key, Instant>,
    deadlines: BTreeSet<(Instant, Key)>,
    due: HashMap<Key, Instant>,
    /// Failures in a row.
    failures: HashMap<Key, u32>,
    figures: Figures,
}

/// Upper bounds in seconds of a key's waiting and of its reconcile, client-go's (util/workqueue/metrics.go).
const BUCKETS: [f64; 12] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

#[derive(Clone, Default)]
struct Figures {
    adds: u64,
    retries: u64,
    waited: Times,
    worked: Times,
}

#[derive(Clone, Default)]
struct Times {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Times {
    fn note(&mut self, since: Instant) {
        let seconds = since.elapsed().as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        if let Some(count) =
            BUCKETS.iter().zip(&mut self.buckets).find_map(|(bound, count)| (seconds <= *bound).then_some(count))
        {
            *count += 1;
        }
    }
}

impl State {
    fn add(&mut self, key: Key) -> bool {
        if let Some(at) = self.due.remove(&key) {
            self.deadlines.remove(&(at, key.clone()));
        }
        if !self.wanted.insert(key.clone()) {
            return false;
        }
        self.figures.adds += 1;
        if self.running.contains_key(&key) {
            return false;
        }
        self.ready.push_back((key, Instant::now()));
        true
    }

    fn add_at(&mut self, key: Key, at: Instant) {
        if self.wanted.contains(&key) && !self.running.contains_key(&key) {
            return;
        }
        match self.due.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => drop(self.deadlines.remove(&(*later, key.clone()))),
            None => {}
        }
        self.due.insert(key.clone(), at);
        self.deadlines.insert((at, key));
    }

    /// Moves what is due to `ready`; returns the next deadline.
    fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((at, _)) = self.deadlines.first() {
            if *at > now {
                return Some(*at);
            }
            if let Some((_, key)) = self.deadlines.pop_first() {
                self.add(key);
            }
        }
        None
    }
}

impl Queue {
    fn new() -> Queue {
        Queue(Arc::new(Shared { state: Mutex::default(), changed: Event::new() }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn add(&self, key: Key) {
        if self.state().add(key) {
            self.0.changed.notify(1);
        }
    }

    /// The earliest of several deadlines for one key wins.
    pub fn add_after(&self, key: Key, delay: Duration) {
        let Some(at) = Instant::now().checked_add(delay) else { return };
        self.state().add_at(key, at);
        self.0.changed.notify(1);
    }

    async fn next(&self) -> Key {
        loop {
            listener!(self.0.changed => listener);
            let deadline = {
                let mut state = self.state();
                let deadline = state.expire(Instant::now());
                if let Some((key, since)) = state.ready.pop_front() {
                    state.figures.waited.note(since);
                    state.wanted.remove(&key);
                    state.running.insert(key.clone(), Instant::now());
                    // Another worker may sleep while more is ready.
                    if !state.ready.is_empty() {
                        self.0.changed.notify(1);
                    }
                    return key;
                }
                deadline
            };
            match deadline {
                None => listener.await,
                Some(at) => {
                    listener.or(Deadline::at(at)).await;
                }
            }
        }
    }

    fn done(&self, key: Key, result: &Result<Next, Error>) -> Option<Duration> {
        let mut state = self.state();
        if let Some(since) = state.running.remove(&key) {
            state.figures.worked.note(since);
        }
        let mut retry = None;
        match result {
            Ok(next) => {
                state.failures.remove(&key);
                if let Next::After(delay) = next
                    && let Some(at) = Instant::now().checked_add(*delay)
                {
                    state.add_at(key.clone(), at);
                }
            }
            Err(_) => {
                state.figures.retries += 1;
                let failures = state.failures.entry(key.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                let delay = RETRY_FIRST.saturating_mul(1u32 << (*failures - 1).min(20)).min(RETRY_LONGEST);
                retry = Some(delay);
                state.add_at(key.clone(), Instant::now() + delay);
            }
        }
        if state.wanted.contains(&key) {
            state.ready.push_back((key, Instant::now()));
        }
        drop(state);
        self.0.changed.notify(1);
        retry
    }
}

/// For whoever reads the metrics: what each queue has done and has still to do, by the names that client-go's have.
pub(crate) fn write_metrics<'a>(queues: impl Iterator<Item = (&'static str, &'a Queue)>, text: &mut Text) {
    let now = Instant::now();
    let all: Vec<(String, Figures, [f64; 3])> = queues
        .map(|(name, queue)| {
            let state = queue.state();
            let running = || state.running.values().map(|since| now.saturating_duration_since(*since).as_secs_f64());
            let moment = [state.ready.len() as f64, running().sum(), running().fold(0.0, f64::max)];
            (format!("name={name:?}"), state.figures.clone(), moment)
        })
        .collect();
    type Value = fn(&Figures, &[f64; 3]) -> f64;
    let values: [(&str, &str, &str, Value); 5] = [
        ("workqueue_adds_total", "counter", "Keys that came to the queue.", |figures, _| figures.adds as f64),
        ("workqueue_retries_total", "counter", "Reconciles that failed.", |figures, _| figures.retries as f64),
        ("workqueue_depth", "gauge", "Keys that wait.", |_, [waiting, ..]| *waiting),
        ("workqueue_unfinished_work_seconds", "gauge", "How long all that run have run.", |_, [_, all, _]| *all),
        ("workqueue_longest_running_processor_seconds", "gauge", "How long the longest has.", |_, [.., longest]| {
            *longest
        }),
    ];
    for (family, kind, help, value) in values {
        text.family(family, kind, help);
        for (labels, figures, moment) in &all {
            text.sample("", labels, value(figures, moment));
        }
    }
    type Which = fn(&Figures) -> &Times;
    let times: [(&str, &str, Which); 2] = [
        ("workqueue_queue_duration_seconds", "How long keys waited.", |figures| &figures.waited),
        ("workqueue_work_duration_seconds", "How long reconciles took.", |figures| &figures.worked),
    ];
    for (family, help, times) in times {
        text.family(family, "histogram", help);
        for (labels, figures, _) in all.iter().filter(|(_, figures, _)| times(figures).count > 0) {
            let times = times(figures);
            text.histogram(labels, &BUCKETS, &times.buckets, times.count, times.seconds);
        }
    }
}

pub trait Reconciler: Send + Sync + 'static {
    /// For logs and metrics: "deployment".
    fn name(&self) -> &'static str;
    /// (group, version, plural) of the kinds whose changes `wake` wants to see.
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)];
    /// Which keys a change concerns. Must not block.
    fn wake(&self, change: &Change, queue: &Queue);
    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>>;
    /// How many keys may be reconciled at once.
    fn workers(&self) -> usize {
        1
    }
}

/// Starts `reconciler` on the client's executor; returns its queue, so that its owner can wake keys from elsewhere
/// (a container event, a timer of its own).
pub fn start(client: &Client, reconciler: Arc<dyn Reconciler>) -> Queue {
    let queue = Queue::new();
    for _ in 0..reconciler.workers().max(1) {
        client.spawn(work(queue.clone(), reconciler.clone(), client.gate().cloned()));
    }
    feed::subscribe(client, reconciler, queue.clone());
    queue
}

async fn work(queue: Queue, reconciler: Arc<dyn Reconciler>, gate: Option<Arc<Gate>>) {
    loop {
        if let Some(gate) = &gate {
            gate.opened().await;
        }
        let key = queue.next().await;
        let result = reconciler.reconcile(&key).await;
        let retry = queue.done(key.clone(), &result);
        if let (Err(error), Some(delay)) = (&result, retry) {
            match error {
                Error::Api(status) if status.is_conflict() => {
                    tracing::debug!(controller = reconciler.name(), %key, "conflict, trying again");
                }
                _ => tracing::warn!(controller = reconciler.name(), %key, ?delay, %error, "reconcile failed"),
            }
        }
        // One busy queue must not keep the others from running.
        futures_lite::future::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_runs_again_when_woken_while_it_runs() {
        let queue = Queue::new();
        let key = Key::new("default", "web");
        queue.add(key.clone());
        queue.add(key.clone());
        let got = futures_lite::future::block_on(queue.next());
        assert_eq!(got, key);
        assert!(queue.state().ready.is_empty());
        queue.add(key.clone());
        assert!(queue.state().ready.is_empty(), "not twice at a time");
        queue.done(key.clone(), &Ok(Next::Done));
        let state = queue.state();
        assert_eq!(state.ready.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&key]);
        drop(state);
        let mut text = Text::default();
        write_metrics([("web", &queue)].into_iter(), &mut text);
        let text = text.finish();
        for line in [
            "workqueue_adds_total{name=\"web\"} 2",
            "workqueue_depth{name=\"web\"} 1",
            "workqueue_retries_total{name=\"web\"} 0",
            "workqueue_queue_duration_seconds_count{name=\"web\"} 1",
            "workqueue_work_duration_seconds_count{name=\"web\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn the_earliest_deadline_wins_and_an_add_cancels_it() {
        let queue = Queue::new();
        let key = Key::new("", "node");
        queue.add_after(key.clone(), Duration::from_secs(60));
        queue.add_after(key.clone(), Duration::from_secs(10));
        queue.add_after(key.clone(), Duration::from_secs(30));
        let first = queue.state().deadlines.first().cloned().map(|(at, _)| at - Instant::now());
        assert!(first.is_some_and(|left| left <= Duration::from_secs(10)));
        assert_eq!(queue.state().deadlines.len(), 1);
        queue.add(key);
        assert!(queue.state().deadlines.is_empty() && queue.state().due.is_empty());
    }

    #[test]
    fn errors_back_off_and_success_forgets_them() {
        let queue = Queue::new();
        let key = Key::new("a", "b");
        let fail = Err(Error::Other("no".into()));
        let delays: Vec<u128> = (0..4)
            .map(|_| {
                queue.state().running.insert(key.clone(), Instant::now());
                queue.done(key.clone(), &fail).map_or(0, |d| d.as_millis())
            })
            .collect();
        assert_eq!(delays, [5, 10, 20, 40]);
        queue.done(key.clone(), &Ok(Next::Done));
        assert!(queue.state().failures.is_empty());
    }
}
