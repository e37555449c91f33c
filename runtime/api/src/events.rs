//! Events as upstream's recorder writes them (client-go tools/record): equal ones within ten minutes are counted
//! up instead of written again, and the oldest go when there are too many or they are as old as they may become.
use crate::{Api, Client, Object, Patch, Sub};
use jiff::Timestamp;
use mote_schema::{Map, Order as _, Value, json};
use mote_store::{Class, Entry, Transaction, Write};
use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// client-go's EventCorrelator aggregates within this interval.
const SAME_WITHIN: Duration = Duration::from_secs(600);
/// Correlations remembered (the correlator's LRU holds 4,096; one node needs fewer).
const MAX_SERIES: usize = 512;

pub(crate) struct Recorder {
    limit: usize,
    ttl: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Store keys of all Events in the order they were created.
    born: VecDeque<(Instant, String)>,
    series: VecDeque<Series>,
    serial: u32,
}

struct Series {
    hash: u64,
    namespace: String,
    name: String,
    count: u64,
    last: Instant,
}

impl Recorder {
    pub(crate) fn new(limit: usize, ttl: Duration) -> Recorder {
        Recorder { limit: limit.max(1), ttl, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A new Event is about to be stored under `key`: which others must go with that commit.
    pub(crate) fn admit(&self, key: &str) -> Vec<String> {
        let now = Instant::now();
        let mut state = self.state();
        state.born.push_back((now, key.to_owned()));
        let mut gone = Vec::new();
        while let Some((at, _)) = state.born.front() {
            if state.born.len() <= self.limit && now.duration_since(*at) < self.ttl {
                break;
            }
            gone.extend(state.born.pop_front().map(|(_, key)| key));
        }
        gone
    }

    /// Counts an occurrence: the name and new count of an Event to raise, or a serial number for a new one's name.
    fn count(&self, hash: u64, namespace: &str) -> Result<(String, u64), u32> {
        let now = Instant::now();
        let mut state = self.state();
        state.series.retain(|series| now.duration_since(series.last) < SAME_WITHIN);
        if let Some(series) = state.series.iter_mut().find(|s| s.hash == hash && s.namespace == namespace) {
            series.count += 1;
            series.last = now;
            return Ok((series.name.clone(), series.count));
        }
        state.serial = state.serial.wrapping_add(1);
        Err(state.serial)
    }

    fn remember(&self, hash: u64, namespace: &str, name: &str) {
        let mut state = self.state();
        if state.series.len() >= MAX_SERIES {
            state.series.pop_front();
        }
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        state.series.push_back(Series { hash, namespace, name, count: 1, last: Instant::now() });
    }
}

/// Events that a start found on disk: those that are to be there age on, the others go. They are there when they are, or
/// once were, configured to persist. In a store that others share they are everybody's, and it lets them go itself.
pub(crate) async fn found(api: &Api) {
    if api.store.is_shared() {
        return;
    }
    let snapshot = api.store.snapshot();
    let mut found: Vec<Entry> = snapshot.range("events/", None).collect();
    if found.is_empty() {
        return;
    }
    found.order_by_key(|entry| entry.created);
    let (now, clock, ttl) = (Instant::now(), Timestamp::now(), api.events.ttl);
    let age = |entry: &Entry| {
        let doc = created(entry)?;
        u64::try_from(clock.as_second() - doc.as_second()).ok().map(Duration::from_secs)
    };
    let kept = found.len().saturating_sub(api.events.limit);
    let (mut gone, mut born) = (Vec::new(), VecDeque::new());
    for (place, entry) in found.into_iter().enumerate() {
        let age = age(&entry).unwrap_or_default();
        if api.settings.volatile.persist_events && age < ttl && place >= kept {
            born.push_back((now.checked_sub(age).unwrap_or(now), entry.key.to_string()));
        } else {
            gone.push(Write::Delete(entry.key));
        }
    }
    api.events.state().born = born;
    if !gone.is_empty() {
        let deleted =
            api.store.commit(Transaction { class: Class::Lazy, preconditions: Vec::new(), writes: gone }).await;
        deleted.map_or_else(|error| tracing::warn!(%error, "deleting old events"), drop);
    }
}

fn created(entry: &Entry) -> Option<Timestamp> {
    let doc = mote_schema::Doc::trusted(entry.value.clone());
    doc.root().get("metadata").get("creationTimestamp").str().parse().ok()
}

/// Component and host as upstream's components name themselves, told by the client's identity.
fn source(user: &str) -> (&str, &str) {
    if let Some(host) = user.strip_prefix("system:node:") {
        return ("kubelet", host);
    }
    match user {
        "system:kube-scheduler" => ("default-scheduler", ""),
        _ => (user.rsplit(':').next().unwrap_or(user), ""),
    }
}

pub(crate) fn record(
    client: &Client,
    about: &Object,
    field_path: &str,
    kind: &str,
    reason: &str,
    message: &str,
    annotations: Map,
) {
    let (component, host) = source(&client.user().name);
    let namespace = if about.namespace().is_empty() { "default" } else { about.namespace() };
    let mut hasher = DefaultHasher::new();
    (about.uid(), about.name(), field_path, kind, reason, message, component).hash(&mut hasher);
    let hash = hasher.finish();
    let now = Timestamp::now();
    let seconds = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let recorder = &client.api().events;
    let Some(event) = client.kind("", "v1", "events") else { return };
    // The recorder may always write, whoever it speaks for.
    let writer = client.api().client();
    match recorder.count(hash, namespace) {
        Ok((name, count)) => {
            let namespace = namespace.to_owned();
            let patch = Patch::Merge(json!({"count": count, "lastTimestamp": seconds}));
            client.spawn(async move {
                if let Err(status) = writer.patch(&event, &namespace, &name, Sub::Main, patch).await {
                    tracing::debug!(%status, name, "event not counted up");
                }
            });
        }
        Err(serial) => {
            let nanoseconds = now.as_nanosecond() as u64;
            let name = format!("{}.{:x}", about.name(), nanoseconds.wrapping_add(u64::from(serial)));
            recorder.remember(hash, namespace, &name);
            let mut involved = json!({
                "kind": about.kind.kind, "apiVersion": about.kind.api_version(), "name": about.name(),
                "uid": about.uid(), "resourceVersion": about.revision.to_string(),
            });
            let mut set = |field: &str, text: &str| {
                if !text.is_empty() {
                    involved[field] = Value::from(text);
                }
            };
            set("namespace", about.namespace());
            set("fieldPath", field_path);
            let mut origin = json!({"component": component});
            if !host.is_empty() {
                origin["host"] = Value::from(host);
            }
            let mut object = json!({
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved, "type": kind, "reason": reason, "message": message, "source": origin,
                "firstTimestamp": seconds, "lastTimestamp": seconds, "count": 1,
                "reportingComponent": component, "reportingInstance": host,
            });
            if !annotations.is_empty() {
                object["metadata"]["annotations"] = annotations.into();
            }
            let namespace = namespace.to_owned();
            client.spawn(async move {
                if let Err(status) = writer.create_value(&event, &namespace, object).await {
                    tracing::debug!(%status, "event not recorded");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_as_upstream_names_them() {
        for (user, expected) in [
            ("system:node:board", ("kubelet", "board")),
            ("system:kube-scheduler", ("default-scheduler", "")),
            ("system:serviceaccount:kube-system:deployment-controller", ("deployment-controller", "")),
        ] {
            assert_eq!(source(user), expected);
        }
    }

    #[test]
    fn the_oldest_events_make_room() {
        let recorder = Recorder::new(2, Duration::from_secs(3600));
        assert!(recorder.admit("a").is_empty() && recorder.admit("b").is_empty());
        assert_eq!(recorder.admit("c"), ["a"]);
    }
}
