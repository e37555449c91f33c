//! Who owns the fields of what is written (metadata.managedFields): the registry's side of `mote_schema::managed`.
use super::{Target, format_time, now};
use crate::server::Api;
use mote_schema::{
    Kind, Status, convert,
    managed::{Filter, Tracker, Versions},
};
use mote_schema::{Name, Value};
use std::sync::Arc;

/// How a write's managedFields come about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// From what changes, for the target's manager.
    Tracked,
    /// The change left them as they shall be.
    Kept,
}

/// Versions of one kind that this server shows.
struct Served<'a>(&'a Api);

impl Versions for Served<'_> {
    fn view(&self, value: &Value, from: &Kind, to: &str) -> Result<Option<(Arc<Kind>, Value)>, Status> {
        let (group, version) = to.split_once('/').unwrap_or(("", to));
        let catalog = self.0.catalog();
        let Some(kind) = catalog.by_kind(group, version, &from.kind).filter(|kind| kind.prefix == from.prefix) else {
            return Ok(None);
        };
        let mut value = value.clone();
        convert::to_stored(from, &mut value);
        convert::from_stored(kind, &mut value);
        value["apiVersion"] = Value::from(to);
        Ok(Some((kind.clone(), value)))
    }
}

/// The managedFields of `new`. `live` is null for a create; both objects are of the target's own kind.
pub(crate) fn track(api: &Api, target: &Target<'_>, live: &Value, new: &mut Value) {
    track_part(api, target, target.kind, target.sub.name(), live, new);
}

/// The object with a configuration applied.
pub(crate) fn apply(
    api: &Api,
    target: &Target<'_>,
    live: &Value,
    config: &Value,
    force: bool,
) -> Result<Value, Status> {
    apply_part(api, target, target.kind, target.sub.name(), live, config, force)
}

/// The same for what a subresource shows as an object of another kind.
pub(crate) fn track_part(api: &Api, target: &Target<'_>, kind: &Arc<Kind>, sub: &str, live: &Value, new: &mut Value) {
    let (now, versions) = (format_time(now()), Served(api));
    tracker(kind, target.manager, sub, &now, &versions).update(live, new);
}

pub(crate) fn apply_part(
    api: &Api,
    target: &Target<'_>,
    kind: &Arc<Kind>,
    sub: &str,
    live: &Value,
    config: &Value,
    force: bool,
) -> Result<Value, Status> {
    let (now, versions) = (format_time(now()), Served(api));
    tracker(kind, target.manager, sub, &now, &versions).apply(live, config, force)
}

fn tracker<'t>(
    kind: &'t Arc<Kind>,
    manager: &'t str,
    subresource: &'t str,
    now: &'t str,
    versions: &'t Served<'_>,
) -> Tracker<'t> {
    Tracker { kind, manager, subresource, filter: Filter::of(kind, subresource), now, versions }
}

/// Both objects are one but for the times of their managers: then the old times stay, and nothing is written
/// (endpoints/handlers/fieldmanager/equality.go).
pub(crate) fn keep_times(old: &Value, new: &mut Value) {
    let times = |object: &Value| -> Vec<Value> {
        let entries = object["metadata"]["managedFields"].as_array();
        entries.into_iter().flatten().map(|entry| entry["time"].clone()).collect()
    };
    let (before, after) = (times(old), times(new));
    if before.is_empty() || before.len() != after.len() || before == after {
        return;
    }
    set_times(new, &before);
    if !same(old, new) {
        set_times(new, &after);
    }
}

fn set_times(object: &mut Value, times: &[Value]) {
    let entries = object["metadata"]["managedFields"].as_array_mut();
    for (entry, time) in entries.into_iter().flatten().zip(times) {
        match (entry.as_object_mut(), time) {
            (Some(entry), Value::Null) => drop(entry.remove("time")),
            (Some(entry), time) => drop(entry.insert("time".into(), time.clone())),
            (None, _) => {}
        }
    }
}

/// But for what is not stored.
fn same(old: &Value, new: &Value) -> bool {
    let metadata = |object: &Value, other: &Value| members(object, other, &["resourceVersion", "selfLink"]);
    members(old, new, &["apiVersion", "kind", "metadata"]) && metadata(&old["metadata"], &new["metadata"])
}

fn members(old: &Value, new: &Value, except: &[&str]) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return false };
    let kept = |(name, _): &(&Name, &Value)| !except.contains(&name.as_str());
    old.iter().filter(kept).eq(new.iter().filter(kept))
}
