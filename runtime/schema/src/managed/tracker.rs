//! What a write does to managedFields, from the request's side: which managers there are, what is never owned, when the time
//! moves (util/managedfields/internal: fieldmanager, skipnonapplied, capmanagers, managedfieldsupdater, stripmeta, lastapplied*).
use super::{
    compare::{compare, fields_of},
    entries::{Entries, Entry, id},
    reset::Filter,
    set::Set,
    types::TypeRef,
    update::{Conflict, Failure, Updater, conflict_status},
    validate::validate,
};
use crate::{Kind, Order as _, Status, prune};
use crate::{Map, Value};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

/// Managers by update that are kept apart; the oldest beyond become one.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
/// Who owns what was there before anybody applied.
const BEFORE_APPLY: &str = "before-first-apply";
/// What kubectl's client-side apply leaves, and its manager when it applies at the server.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const KUBECTL: &str = "kubectl";
/// All annotations of an object.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// Never in a set.
const STRIPPED: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "clusterName"],
    &["metadata", "creationTimestamp"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "resourceVersion"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
];

/// Other versions of an object.
pub trait Versions {
    /// `value`, an object of the kind `from`, at the API version `to`; None when that is not served.
    fn view(&self, value: &Value, from: &Kind, to: &str) -> Result<Option<(Arc<Kind>, Value)>, Status>;
}

/// One write.
pub struct Tracker<'a> {
    /// At the version of the request.
    pub kind: &'a Arc<Kind>,
    pub manager: &'a str,
    /// "" for the object itself.
    pub subresource: &'a str,
    pub filter: Filter,
    /// As metav1.Time.
    pub now: &'a str,
    pub versions: &'a dyn Versions,
}

/// An object before it was: for built-in kinds what Go writes of an empty struct.
fn empty(kind: &Kind) -> Value {
    let mut value = Value::Object(Map::new());
    if !kind.is_custom() && prune::clean(kind, &mut value).is_err() {
        return Value::Null;
    }
    value
}

impl<'a> Tracker<'a> {
    fn updater(&mut self) -> Updater<'a> {
        let filter = std::mem::replace(&mut self.filter, Filter::All);
        Updater { kind: self.kind, version: self.kind.api_version(), filter, versions: self.versions }
    }

    fn entry(&self, manager: &str, applied: bool, version: &str) -> Entry {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Entry::new(manager, applied, version, self.subresource, Set::default())
    }

    /// After a create, an update or a patch: writes the new managedFields into `new`. `live` is null for a create. Never fails:
    /// an object whose owners cannot be told has none.
    pub fn update(mut self, live: &Value, new: &mut Value) {
        let asked = take_managed(new);
        let old = managed(live);
        let mut entries = if !self.subresource.is_empty() {
            Entries::decode(old).unwrap_or_default()
        } else if asked.as_ref().is_some_and(is_reset) {
            Entries::default()
        } else {
            match Entries::decode(asked.as_ref()) {
                Ok(entries) if !entries.0.is_empty() => entries,
                _ => Entries::decode(old).unwrap_or_default(),
            }
        };
        // An object that exists and has no managers is not tracked.
        if entries.0.is_empty() && !live.is_null() {
            return;
        }
        let zero = live.is_null().then(|| empty(self.kind));
        let updater = self.updater();
        let entry = self.entry(self.manager, false, &updater.version);
        if self.track(&updater, zero.as_ref().unwrap_or(live), new, &mut entries, entry).is_ok() {
            cap(&mut entries);
            put_managed(new, &mut entries);
        }
    }

    fn track(
        &self,
        updater: &Updater<'_>,
        live: &Value,
        new: &Value,
        entries: &mut Entries,
        entry: Entry,
    ) -> Result<(), Failure> {
        let current = Entry { id: String::new(), ..entry.clone() };
        updater.update(live, new, entries, current)?;
        // Who changed nothing keeps the time of the last change.
        if let Some(current) = entries.take("") {
            let set = current.set.difference(stripped());
            if !set.is_empty() {
                let set = entries.get(&entry.id).map_or_else(|| set.clone(), |before| set.union(&before.set));
                entries.put(Entry { set, time: Some(self.now.to_owned()), ..entry });
            }
        }
        Ok(())
    }

    /// The object with `config` applied, managedFields and all. `live` is null when there is none yet.
    pub fn apply(mut self, live: &Value, config: &Value, force: bool) -> Result<Value, Status> {
        let updater = self.updater();
        let (group_version, kind) = (&updater.version, &self.kind.kind);
        let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or("");
        if text("apiVersion") != group_version || text("kind") != *kind {
            let version = match text("apiVersion") {
                "" => "/".into(),
                core if !core.contains('/') => format!("/{core}"),
                full => full.to_owned(),
            };
            return Err(Status::bad_request(format!("invalid object type: {version}, Kind={}", text("kind"))));
        }
        if config["metadata"].get("managedFields").is_some_and(Value::is_array) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let types = TypeRef::of(self.kind);
        validate(types, config, false).map_err(|error| {
            let text = |name: &str| config["metadata"][name].as_str().unwrap_or("");
            let (namespace, name) = (text("namespace"), text("name"));
            let gvk = if group_version.contains('/') { group_version.clone() } else { format!("/{group_version}") };
            Status::new(
                500,
                "",
                format!("failed to create typed patch object ({namespace}/{name}; {gvk}, Kind={kind}): {error}"),
            )
        })?;
        let mut entries = Entries::decode(managed(live))
            .map_err(|error| Status::new(500, "", format!("failed to decode managed fields: {error}")))?;
        let mut object = if live.is_null() { empty(self.kind) } else { live.clone() };
        take_managed(&mut object);
        let result = if entries.0.is_empty() && !live.is_null() {
            let entry = self.entry(BEFORE_APPLY, false, &updater.version);
            let zero = empty(self.kind);
            self.track(&updater, &zero, &object, &mut entries, entry)
                .and_then(|()| self.apply_tracked(&updater, &object, config, &mut entries, force))
        } else {
            self.apply_tracked(&updater, &object, config, &mut entries, force)
        };
        let changed = result.map_err(|failure| match failure {
            Failure::Conflicts(conflicts) => conflict_status(&conflicts),
            Failure::Status(status) => *status,
        })?;
        let mut new = changed.unwrap_or(object);
        if self.manager == KUBECTL {
            set_last_applied(&mut new, config);
        }
        put_managed(&mut new, &mut entries);
        Ok(new)
    }

    fn apply_tracked(
        &self,
        updater: &Updater<'_>,
        live: &Value,
        config: &Value,
        entries: &mut Entries,
        force: bool,
    ) -> Result<Option<Value>, Failure> {
        let entry = self.entry(self.manager, true, &updater.version);
        let id = entry.id.clone();
        let before = (self.manager == KUBECTL && !force).then(|| entries.clone());
        let mut result = updater.apply(live, config, entries, entry.clone(), force);
        // What kubectl's own client-side apply wrote is no conflict of its server-side apply.
        if let (Err(Failure::Conflicts(conflicts)), Some(before)) = (&mut result, before)
            && let Some(allowed) = allowed_by_last_applied(TypeRef::of(self.kind), &updater.version, live)
        {
            let rest = |conflict: &Conflict| !allowed.contains(&conflict.path);
            conflicts.retain(rest);
            if conflicts.is_empty() {
                *entries = before;
                result = updater.apply(live, config, entries, entry, true);
            }
        }
        let changed = result?;
        if let Some(mut mine) = entries.take(&id) {
            mine.set = mine.set.difference(stripped());
            if changed.is_some() {
                mine.time = Some(self.now.to_owned());
            }
            if !mine.set.is_empty() {
                entries.put(mine);
            }
        }
        Ok(changed)
    }
}

fn stripped() -> &'static Set {
    static SET: OnceLock<Set> = OnceLock::new();
    SET.get_or_init(|| Set::of(&STRIPPED))
}

fn managed(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

fn take_managed(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

fn put_managed(object: &mut Value, entries: &mut Entries) {
    let Some(value) = entries.encode() else { return };
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.insert("managedFields".into(), value);
    }
}

/// `[]` and `[{}]` ask for nobody to own anything.
fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The oldest updaters of each version become one manager.
fn cap(entries: &mut Entries) {
    let mut updaters: Vec<(String, String)> = { entries.0.iter() }
        .filter(|entry| !entry.applied)
        .map(|entry| (entry.time.clone().unwrap_or_default(), entry.id.clone()))
        .collect();
    let mut count = updaters.len();
    if count <= MAX_UPDATERS {
        return;
    }
    updaters.order();
    let mut first_of: BTreeMap<String, String> = BTreeMap::new();
    for (time, updater) in updaters {
        if count <= MAX_UPDATERS {
            return;
        }
        let Some(entry) = entries.get(&updater).cloned() else { continue };
        let Some(first) = first_of.get(&entry.api_version) else {
            first_of.insert(entry.api_version, updater);
            continue;
        };
        let bucket = id(ANCIENT, false, &entry.api_version, "");
        let into = match entries.take(&bucket) {
            Some(into) => Some(into),
            None => entries.take(first),
        };
        let set = into.map_or_else(Set::default, |into| into.set);
        entries.take(&updater);
        let mut merged = Entry::new(ANCIENT, false, &entry.api_version, "", entry.set.union(&set));
        merged.time = Some(time).filter(|time| !time.is_empty());
        entries.put(merged);
        count -= 1;
    }
}

fn last_applied(object: &Value) -> Option<&str> {
    let text = object.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    Some(text).filter(|text| !text.is_empty())
}

/// What the object still has as it was last applied from the client.
fn allowed_by_last_applied(types: TypeRef<'_>, version: &str, live: &Value) -> Option<Set> {
    let config: Value = serde_json::from_str(last_applied(live)?).ok()?;
    if config["apiVersion"] != *version || validate(types, &config, false).is_err() {
        return None;
    }
    let found = compare(types, &config, live).ok()?;
    let fields = fields_of(types, &config).ok()?;
    Some(fields.difference(&found.modified).difference(&found.added).difference(&found.removed))
}

/// Keeps the annotation of an object that client-side apply knew true to what is applied now.
fn set_last_applied(object: &mut Value, config: &Value) {
    if last_applied(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    let text = super::element::json(&config) + "\n";
    let others = annotations.iter().filter(|(name, _)| *name != LAST_APPLIED);
    let bytes: usize = others.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if bytes + LAST_APPLIED.len() + text.len() > MAX_ANNOTATIONS_BYTES {
        annotations.remove(LAST_APPLIED);
    } else {
        annotations.insert(LAST_APPLIED.into(), text.into());
    }
}
