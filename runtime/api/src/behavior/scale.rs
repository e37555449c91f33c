//! The scale subresource of every kind that has one, through the paths its table row names. What is written there is a Scale, with
//! owners of its one field; the object gets its replicas and their owner (registry/apps/deployment/storage, ScaleREST).
use crate::{
    Patch, Sub,
    admission::{self, ObjectKind, Operation},
    registry::{MAX_TRIES, MODIFIED, Target, apply_part, check_name, check_uid, meta, patched, track_part},
    server::Api,
};
use mote_schema::{Cause, Doc, Kind, Order as _, Ref, Status, managed::scale as owners, selector::LabelSelector};
use mote_schema::{Value, json};
use std::sync::Arc;

pub(crate) enum ScaleChange {
    Replace(Value),
    Patch(Patch),
}

/// Of a custom object that says no number, as one who changes it sees it (customresource/etcd.go).
const UNSET: i64 = i32::MIN as i64;

/// autoscaling/v1 Scale of an object.
pub(crate) fn read(kind: &Kind, object: &Value) -> Result<Value, Status> {
    let shown = before(kind, object)?;
    if shown["spec"]["replicas"].as_i64() == Some(UNSET) {
        let path = kind.scale.as_ref().map_or("", |scale| &scale.spec_replicas);
        return Err(Status::internal(format!("the spec replicas field \".{path}\" does not exist")));
    }
    Ok(shown)
}

/// What a change starts from.
fn before(kind: &Kind, object: &Value) -> Result<Value, Status> {
    let scale = kind.scale.as_ref().ok_or_else(missing)?;
    let replicas = |path: &str| at(object, path).as_i64().unwrap_or(0);
    let mut status = json!({"replicas": replicas(&scale.status_replicas)});
    let text = selector_text(at(object, &scale.selector));
    if !text.is_empty() {
        status["selector"] = Value::from(text);
    }
    let mut metadata = mote_schema::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        metadata.extend(object["metadata"].get(field).map(|value| (field.to_owned(), value.clone())));
    }
    let mut spec = json!({});
    let is_unset = kind.is_custom() && at(object, &scale.spec_replicas).is_null();
    let wanted = if is_unset { UNSET } else { replicas(&scale.spec_replicas) };
    // None is left out, as an int32 with omitempty is.
    if wanted != 0 {
        spec["replicas"] = wanted.into();
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status,
    }))
}

fn missing() -> Status {
    Status::new(404, "NotFound", "the server could not find the requested resource")
}

fn at<'v>(object: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(object, |value, name| &value[name])
}

/// A LabelSelector, a plain map of labels, or the text of either.
fn selector_text(selector: &Value) -> String {
    let Ok(doc) = Doc::encode(selector) else { return String::new() };
    let selector: Ref<'_> = doc.root();
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let structured = selector.get("matchLabels").exists() || selector.get("matchExpressions").exists();
    if structured {
        return LabelSelector::from_ref(selector).ok().flatten().map(|s| s.to_string()).unwrap_or_default();
    }
    let mut pairs: Vec<String> =
        selector.entries().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    pairs.order();
    pairs.join(",")
}

/// What is on the way is an object, or becomes one.
fn set(object: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let mut place = object;
    for name in path.split('.') {
        if place.is_null() {
            *place = json!({});
        }
        let map =
            place.as_object_mut().ok_or_else(|| format!("value cannot be set because .{path} leads through no map"))?;
        place = map.entry(name).or_insert(Value::Null);
    }
    *place = value;
    Ok(())
}

/// Writes a Scale's replicas to its object; the answer is the new Scale.
pub(crate) async fn write(
    api: &Api,
    target: &mut Target<'_>,
    change: &ScaleChange,
    complaints: Vec<String>,
) -> Result<Value, Status> {
    let catalog = api.catalog();
    let scale_kind = catalog.by_kind("autoscaling", "v1", "Scale").ok_or_else(missing)?;
    let said = target.warnings.len();
    for _ in 0..MAX_TRIES {
        target.warnings.truncate(said);
        let current = api.current(target.kind, target.namespace, target.name).await?.to_value();
        let (object, pinned) = scaled(api, target, scale_kind, &current, change, &complaints).await?;
        target.is_admitted = true;
        let replace = |old: &Value, target: &mut Target<'_>| match old {
            Value::Null => Err(target.not_found()),
            _ => Ok(object.clone()),
        };
        match api.guaranteed_update(target, replace).await {
            Err(status) if status.is_conflict() && !pinned => continue,
            result => return read(target.kind, &result?.to_value()),
        }
    }
    Err(target.conflict(MODIFIED))
}

/// The object as the change leaves it, and whether the client named the resourceVersion it must be.
async fn scaled(
    api: &Api,
    target: &mut Target<'_>,
    scale_kind: &Arc<Kind>,
    old: &Value,
    change: &ScaleChange,
    complaints: &[String],
) -> Result<(Value, bool), Status> {
    let parent = old["metadata"].get("managedFields");
    let kind = target.kind;
    let replicas = |version: &str| replicas_at(api, kind, version);
    let mut live = before(kind, old)?;
    if let Some(managed) = owners::to_scale(parent, &replicas) {
        live["metadata"]["managedFields"] = managed;
    }
    let mut part = Target { manager: target.manager, ..target.at(scale_kind, Sub::Main) };
    let mut new = change_scale(api, &mut part, scale_kind, &live, change, complaints)?;
    target.warnings.append(&mut part.warnings);
    if matches!(change, ScaleChange::Replace(_)) {
        check_uid(target, old, &new)?;
    }
    let shown = ObjectKind { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() };
    admission::part(api, target, Operation::Update, "scale", shown, &live, &mut new).await?;
    let wanted = new["spec"]["replicas"].as_i64().unwrap_or(0);
    let path = &kind.scale.as_ref().ok_or_else(missing)?.spec_replicas;
    if wanted == UNSET {
        return Err(Status::bad_request(format!("the spec replicas field \".{path}\" cannot be empty")));
    }
    // What a definition says may be scaled is checked as the object that it makes.
    if !target.kind.is_custom() {
        let mut causes = mote_schema::check::embedded_metadata(&new["metadata"], "metadata");
        if wanted < 0 {
            causes.push(Cause::invalid("spec.replicas", &Value::from(wanted), "must be greater than or equal to 0"));
        }
        if !causes.is_empty() {
            return Err(Status::invalid("autoscaling", "Scale", target.name, causes));
        }
    }
    let mut object = old.clone();
    set(&mut object, path, Value::from(wanted)).map_err(Status::internal)?;
    let managed = new["metadata"].get("managedFields");
    let managed = owners::to_parent(parent, managed, &kind.api_version(), &replicas);
    let given =
        |field: &str| new["metadata"].get(field).filter(|value| !matches!(value.as_str(), Some("" | "0"))).cloned();
    let pinned = given("resourceVersion");
    let is_pinned = pinned.is_some();
    let version = pinned.or_else(|| old["metadata"].get("resourceVersion").cloned());
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for (name, value) in [("uid", given("uid")), ("managedFields", managed), ("resourceVersion", version)] {
            match value {
                Some(value) => metadata.insert(name.into(), value),
                None => metadata.remove(name),
            };
        }
    }
    Ok((object, is_pinned))
}

/// The new Scale, owners and all.
fn change_scale(
    api: &Api,
    target: &mut Target<'_>,
    kind: &Arc<Kind>,
    live: &Value,
    change: &ScaleChange,
    complaints: &[String],
) -> Result<Value, Status> {
    let mut new = match change {
        ScaleChange::Replace(body) => {
            let mut new = body.clone();
            target.decode(&mut new, complaints.to_vec())?;
            new
        }
        ScaleChange::Patch(Patch::Apply { config, force }) => {
            let mut new = apply_part(api, target, kind, "scale", live, config, *force)?;
            unpin(&mut new, live);
            return Ok(new);
        }
        ScaleChange::Patch(patch) => {
            let mut new = patched(target, live, patch, complaints)?;
            unpin(&mut new, live);
            new
        }
    };
    let metadata = meta::metadata(&mut new)?;
    meta::settle_namespace(metadata, true, target.namespace)?;
    check_name(target, meta::text(metadata, "name"))?;
    track_part(api, target, kind, "scale", live, &mut new);
    Ok(new)
}

/// A patch that names no resourceVersion of its own is tried again when it loses a race.
fn unpin(new: &mut Value, live: &Value) {
    if new["metadata"].get("resourceVersion") == live["metadata"].get("resourceVersion")
        && let Some(metadata) = new["metadata"].as_object_mut()
    {
        metadata.remove("resourceVersion");
    }
}

/// The path of the replicas of a kind at a version, where that is served.
fn replicas_at(api: &Api, kind: &Kind, version: &str) -> Option<String> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let catalog = api.catalog();
    Some(catalog.by_kind(group, version, &kind.kind)?.scale.as_ref()?.spec_replicas.to_string())
}
