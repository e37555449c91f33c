//! The change feed: one task reads the store's events and offers each to every reconciler that asked for its kind.
//! A reconciler that joins is first offered all that exists at the revision the feed has reached, so it misses
//! nothing and sees nothing twice. When the ring has overrun the feed, it goes on with the difference of two roots.
use crate::{
    Change, Client, Object,
    driver::{self, Queue, Reconciler},
    metrics::Text,
    server::Api,
};
use mote_schema::Order as _;
use mote_schema::{Doc, Kind, convert};
use mote_store::{Entry, Event, Snapshot, Watcher};
use std::sync::{Arc, Mutex, MutexGuard};

pub struct Feed(Mutex<State>);

struct State {
    subscribers: Vec<Subscriber>,
    /// The state up to which every subscriber has been offered every change.
    reached: Option<Snapshot>,
    revision: u64,
}

struct Subscriber {
    reconciler: Arc<dyn Reconciler>,
    queue: Queue,
}

impl Subscriber {
    fn wants(&self, kind: &Kind) -> bool {
        let watches = self.reconciler.watches();
        watches.is_empty()
            || watches.iter().any(|(group, version, plural)| {
                kind.group == *group && kind.version == *version && kind.plural == *plural
            })
    }
}

impl Feed {
    pub(crate) fn new() -> Feed {
        Feed(Mutex::new(State { subscribers: Vec::new(), reached: None, revision: 0 }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Offers `reconciler` all that exists, then every change. The first subscriber starts the feed.
pub(crate) fn subscribe(client: &Client, reconciler: Arc<dyn Reconciler>, queue: Queue) {
    let api = client.api();
    let mut state = api.feed.state();
    if state.reached.is_none() {
        let snapshot = api.store.snapshot();
        state.revision = snapshot.revision();
        state.reached = Some(snapshot);
        client.spawn(run(api.clone()));
    }
    let subscriber = Subscriber { reconciler, queue };
    if let Some(snapshot) = &state.reached {
        for kind in api.catalog().kinds.iter().filter(|kind| !kind.virtual_kind && subscriber.wants(kind)) {
            for entry in snapshot.range(&kind.prefix, None) {
                let new = object(kind, &entry);
                let change = Change { revision: new.revision, kind: kind.clone(), old: None, new: Some(new) };
                subscriber.reconciler.wake(&change, &subscriber.queue);
            }
        }
    }
    state.subscribers.push(subscriber);
}

/// For whoever reads the metrics.
pub(crate) fn write_metrics(api: &Api, text: &mut Text) {
    let state = api.feed.state();
    driver::write_metrics(state.subscribers.iter().map(|one| (one.reconciler.name(), &one.queue)), text);
}

/// An entry as `kind` shows it.
pub(crate) fn object(kind: &Arc<Kind>, entry: &Entry) -> Object {
    view(kind, Object { kind: kind.clone(), doc: Doc::trusted(entry.value.clone()), revision: entry.modified })
}

/// A stored object as `kind` shows it: the same bytes, but for the few kinds that are stored as another version.
pub(crate) fn view(kind: &Arc<Kind>, stored: Object) -> Object {
    if kind.is_custom() {
        return crate::custom::convert::view(kind, stored);
    }
    if !convert::is_needed(kind) {
        return Object { kind: kind.clone(), ..stored };
    }
    let mut value = stored.root().to_value();
    convert::from_stored(kind, &mut value);
    let doc = Doc::encode(&value).unwrap_or(stored.doc);
    Object { kind: kind.clone(), doc, revision: stored.revision }
}

async fn run(api: Arc<Api>) {
    let mut from = api.feed.state().revision;
    let mut watcher: Option<Watcher> = None;
    loop {
        let events = match watcher.take() {
            Some(mut open) => match open.next().await {
                Ok(events) => {
                    watcher = Some(open);
                    events
                }
                Err(error) => {
                    tracing::debug!(?error, "change feed fell behind; continuing with the difference");
                    catch_up(&api)
                }
            },
            None => match api.store.watch("", from) {
                Ok(open) => {
                    watcher = Some(open);
                    continue;
                }
                Err(mote_store::Error::Closed) => return,
                Err(_) => catch_up(&api),
            },
        };
        from = offer_all(&api, &events);
        futures_lite::future::yield_now().await;
    }
}

/// Returns the revision reached.
fn offer_all(api: &Api, events: &[Event]) -> u64 {
    let mut state = api.feed.state();
    for event in events {
        offer(api, &state, event);
        state.revision = state.revision.max(event.revision);
    }
    // An older root only means that changes would be offered once more after an overrun.
    if let Ok(snapshot) = api.store.snapshot_at(state.revision) {
        state.reached = Some(snapshot);
    }
    state.revision
}

fn catch_up(api: &Api) -> Vec<Event> {
    let mut state = api.feed.state();
    let newer = api.store.snapshot();
    let mut events = state.reached.as_ref().map(|reached| reached.diff(&newer)).unwrap_or_default();
    events.order_by_key(|event| event.revision);
    state.revision = newer.revision();
    state.reached = Some(newer);
    events
}

fn offer(api: &Api, state: &State, event: &Event) {
    let Some(kind) = api.kind_of_key(event.key()) else { return };
    if !state.subscribers.iter().any(|subscriber| subscriber.wants(&kind)) {
        return;
    }
    let change = Change {
        revision: event.revision,
        old: event.old.as_ref().map(|entry| object(&kind, entry)),
        new: event.new.as_ref().map(|entry| object(&kind, entry)),
        kind,
    };
    for subscriber in state.subscribers.iter().filter(|subscriber| subscriber.wants(&change.kind)) {
        subscriber.reconciler.wake(&change, &subscriber.queue);
    }
}
