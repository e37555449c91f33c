//! What a write may touch: upstream's strategies (pkg/registry/*/*/strategy.go, PrepareForCreate and PrepareForUpdate). A create and
//! an update of the object itself leave the status alone, a subresource's update leaves all else alone, and
//! metadata.generation counts changes of what the user asks for.
//!
//! Both functions take cleaned and defaulted trees. uid, timestamps, resourceVersion and managedFields are the API
//! server's; a Job's selector needs the uid, so it is set before this runs.
mod pod;
mod service;

use crate::{
    Kind, defaults, prune,
    table::{Presence, Shape},
};
use crate::{Map, Value, json};
pub use pod::qos_class;

type Members = Map;

/// Parts of an object that raise metadata.generation when they change; "spec" for all others.
const GENERATION_PARTS: [(&str, &[&str]); 5] = [
    ("MutatingWebhookConfiguration", &["webhooks"]),
    ("ValidatingWebhookConfiguration", &["webhooks"]),
    ("PodTemplate", &["template"]),
    ("EndpointSlice", &["endpoints", "ports", "addressType"]),
    ("PriorityClass", &[]),
];

/// Kinds whose status updates keep the old object's whole metadata (metav1.ResetObjectMetaForStatus).
const STATUS_KEEPS_METADATA: [&str; 6] = [
    "ValidatingAdmissionPolicy",
    "ServiceCIDR",
    "ResourceClaim",
    "VolumeAttachment",
    "FlowSchema",
    "PriorityLevelConfiguration",
];

/// The part of metadata that ResetObjectMetaForStatus puts back.
const RESET_FOR_STATUS: [&str; 6] =
    ["deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "finalizers", "ownerReferences"];

pub fn create(kind: &Kind, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    // A CSIDriver has none until it is changed.
    if kind.has_generation && kind.kind != "CSIDriver" {
        set_generation(map, 1);
    }
    // A node registers itself, status and all; custom kinds drop theirs like the others.
    if kind.has_status && kind.kind != "Node" {
        reset_status(kind, map);
    }
    if kind.is_custom() {
        return;
    }
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::create(map),
        ("", "Namespace") => namespace(map),
        ("", "Service") => service::create(map),
        ("", "PersistentVolumeClaim") => data_sources(map),
        ("", "PersistentVolume") => {
            let now = map.get("metadata").and_then(|m| m.get("creationTimestamp")).cloned();
            set_in(map, "status", "lastPhaseTransitionTime", now);
        }
        ("coordination.k8s.io", "Lease") => without_election(map),
        ("apps", "DaemonSet") => set_template_generation(map, 1),
        ("apps", "StatefulSet") => without_max_unavailable(None, map),
        ("", "Node") => set_in(map, "spec", "configSource", None),
        ("discovery.k8s.io", "EndpointSlice") => without_topology(map),
        ("batch", "Job") => job(map),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => note_storage_version(map),
        _ => {}
    }
}

/// `sub` is "" for the object itself, else the subresource's name.
pub fn update(kind: &Kind, sub: &str, old: &Value, new: &mut Value) {
    let Some(map) = new.as_object_mut() else { return };
    match sub {
        "" => {
            if kind.has_status {
                keep(map, old, "status");
            }
            if !kind.is_custom() {
                update_main(kind, old, map);
            }
        }
        "status" => status(kind, old, map),
        "finalize" => {
            let finalizers = map.get("spec").and_then(|s| s.get("finalizers")).cloned();
            replace_all_but(map, old, &["metadata"]);
            set_in(map, "spec", "finalizers", finalizers);
        }
        "approval" => {
            let conditions = map.get("status").and_then(|s| s.get("conditions")).cloned();
            replace_all_but(map, old, &["metadata"]);
            set_in(map, "status", "conditions", conditions);
        }
        "ephemeralcontainers" => {
            let containers = map.get("spec").and_then(|s| s.get("ephemeralContainers")).cloned();
            replace_all_but(map, old, &["metadata"]);
            set_in(map, "spec", "ephemeralContainers", containers);
            reset_metadata(map, old, &RESET_FOR_STATUS);
        }
        "resize" => pod::resize(old, map),
        // What others read and write as another kind (scale) has been folded into the object by its caller.
        _ => keep(map, old, "status"),
    }
    if kind.has_generation {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0);
        let raised = sub != "status" && asks_for_more(kind, old, map);
        set_generation(map, generation + i64::from(raised));
    }
}

fn update_main(kind: &Kind, old: &Value, map: &mut Members) {
    match (&*kind.group, &*kind.kind) {
        // Only /finalize takes finalizers off a namespace.
        ("", "Namespace") => {
            let finalizers = old.get("spec").and_then(|s| s.get("finalizers")).cloned();
            set_in(map, "spec", "finalizers", finalizers);
        }
        ("", "Service") => service::update(old, map),
        ("", "PersistentVolumeClaim") => data_sources(map),
        ("coordination.k8s.io", "Lease") => without_election(map),
        ("apps", "DaemonSet") => {
            let before = old["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|n| n.parse().ok());
            let changed = map.get("spec").and_then(|s| s.get("template")) != Some(&old["spec"]["template"]);
            set_template_generation(map, before.unwrap_or(0) + i64::from(changed));
        }
        ("apps", "StatefulSet") => without_max_unavailable(Some(old), map),
        ("", "Node") if old["spec"].get("configSource").is_none() => set_in(map, "spec", "configSource", None),
        ("discovery.k8s.io", "EndpointSlice") if map.get("endpoints") != old.get("endpoints") => without_topology(map),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => note_storage_version(map),
        _ => {}
    }
}

/// What v1beta1 had is not taken any more (dropTopologyOnV1).
fn without_topology(map: &mut Members) {
    let endpoints = map.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten();
    for endpoint in endpoints.filter_map(Value::as_object_mut) {
        endpoint.remove("deprecatedTopology");
    }
}

/// Off by default, so its field is taken only where it is already.
fn without_max_unavailable(old: Option<&Value>, map: &mut Members) {
    let place = "/spec/updateStrategy/rollingUpdate";
    let is_used = old.and_then(|old| old.pointer(place)).is_some_and(|rolling| rolling.get("maxUnavailable").is_some());
    let strategy = map.get_mut("spec").and_then(|spec| spec.get_mut("updateStrategy"));
    let rolling = strategy.and_then(|strategy| strategy.get_mut("rollingUpdate")).and_then(Value::as_object_mut);
    if let Some(rolling) = rolling.filter(|_| !is_used) {
        rolling.remove("maxUnavailable");
    }
}

fn asks_for_more(kind: &Kind, old: &Value, new: &Members) -> bool {
    let changed = |part: &str| old.get(part) != new.get(part);
    let parts = GENERATION_PARTS.iter().find(|(k, _)| *k == kind.kind).map_or(&["spec"][..], |(_, parts)| parts);
    // A Deployment's annotations go into its replica sets.
    let differs = |field: &str| old["metadata"].get(field) != new.get("metadata").and_then(|m| m.get(field));
    // An EndpointSlice's labels say whose it is.
    let metadata =
        kind.kind == "Deployment" && differs("annotations") || kind.kind == "EndpointSlice" && differs("labels");
    metadata || parts.iter().any(|p| changed(p))
        // A custom kind counts every field but metadata and status.
        || kind.is_custom() && new.keys().any(|k| k != "metadata" && (k != "status" || !kind.has_status) && changed(k))
}

fn status(kind: &Kind, old: &Value, map: &mut Members) {
    replace_all_but(map, old, &["metadata", "status"]);
    let custom = kind.is_custom();
    if custom || STATUS_KEEPS_METADATA.contains(&&*kind.kind) {
        reset_metadata(map, old, &RESET_FOR_STATUS);
    }
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::status(old, map),
        ("apps", "Deployment") => set_in(map, "metadata", "labels", old["metadata"].get("labels").cloned()),
        // apiregistration/storage/apiservice_rest.go: the same, but for times.
        ("apiregistration.k8s.io", _) => reset_metadata(map, old, &RESET_FOR_STATUS[2..]),
        ("apps", "DaemonSet") => {
            let generation = old["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|n| n.parse().ok());
            set_template_generation(map, generation.unwrap_or(0));
        }
        _ => {}
    }
}

/// All but `except` is the old object's.
fn replace_all_but(map: &mut Members, old: &Value, except: &[&str]) {
    map.retain(|name, _| except.contains(&name.as_str()));
    for (name, value) in old.as_object().into_iter().flatten() {
        if !except.contains(&name.as_str()) {
            map.insert(name.clone(), value.clone());
        }
    }
}

fn reset_metadata(map: &mut Members, old: &Value, fields: &[&str]) {
    for field in fields {
        set_in(map, "metadata", field, old["metadata"].get(field).cloned());
    }
}

fn keep(map: &mut Members, old: &Value, part: &str) {
    match old.get(part) {
        Some(value) => map.insert(part.into(), value.clone()),
        None => map.remove(part),
    };
}

/// Sets or removes `part.field`.
fn set_in(map: &mut Members, part: &str, field: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            if let Some(inner) = map.entry(part).or_insert_with(|| json!({})).as_object_mut() {
                inner.insert(field.into(), value);
            }
        }
        None => {
            if let Some(inner) = map.get_mut(part).and_then(Value::as_object_mut) {
                inner.remove(field);
            }
        }
    }
}

fn set_generation(map: &mut Members, generation: i64) {
    set_in(map, "metadata", "generation", (generation != 0).then(|| generation.into()));
}

/// An empty status as Go writes one: with its zeros and its defaults.
fn reset_status(kind: &Kind, map: &mut Members) {
    map.remove("status");
    let table = kind.table();
    let Some(field) = table.field(kind.root, "status") else { return };
    if let (Shape::Object(id), Presence::Always) = (field.shape, field.presence) {
        let mut status = Members::new();
        // An empty tree has nothing to complain about.
        if prune::clean_type(table, id, &mut status).is_ok() {
            defaults::apply_type(table, id, &mut status);
            map.insert("status".into(), Value::Object(status));
        }
    }
}

/// Coordinated leader election is off by default, and its fields go with it.
fn without_election(map: &mut Members) {
    set_in(map, "spec", "strategy", None);
    set_in(map, "spec", "preferredHolder", None);
}

/// What older API versions had as a field of its own (pkg/apis/apps/v1/conversion.go); it counts changes of the template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// What upstream's way through its internal type leaves in an object, so that who creates it owns that too.
pub fn converted(kind: &Kind, value: &mut Value) {
    if let ("apps", "DaemonSet", Some(map)) = (&*kind.group, &*kind.kind, value.as_object_mut()) {
        set_template_generation(map, 0);
    }
}

fn set_template_generation(map: &mut Members, generation: i64) {
    let meta = map.entry("metadata").or_insert_with(|| json!({})).as_object_mut();
    if let Some(annotations) = meta.and_then(|m| defaults::object(m, "annotations")) {
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
    }
}

/// A definition remembers every version that objects were ever stored as (customresourcedefinition/strategy.go).
fn note_storage_version(map: &mut Members) {
    let versions = map.get("spec").and_then(|spec| spec.get("versions")).and_then(Value::as_array);
    let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
    let Some(name) = storage.map(|version| version["name"].clone()) else { return };
    let status = map.entry("status").or_insert_with(|| json!({})).as_object_mut();
    let Some(stored) = status.map(|status| status.entry("storedVersions").or_insert(Value::Null)) else { return };
    // A list that is always there is null while it is empty.
    if stored.is_null() {
        *stored = json!([]);
    }
    if let Value::Array(stored) = stored
        && !stored.contains(&name)
    {
        stored.push(name);
    }
}

/// Either field of a claim says where its first content comes from (NormalizeDataSources).
fn data_sources(map: &mut Members) {
    let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) else { return };
    // The older field takes only what it was made for; anything else is dropped without a word.
    let is_known = |source: &Value| {
        let group = source.get("apiGroup").and_then(Value::as_str).unwrap_or("");
        let kind = source.get("kind").and_then(Value::as_str).unwrap_or("");
        matches!((group, kind), ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    };
    if spec.get("dataSource").is_some_and(|source| !is_known(source)) {
        spec.remove("dataSource");
    }
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".into(), source);
        }
        (None, Some(mut reference)) if reference.get("namespace").is_none_or(|n| n == "") => {
            if let Some(reference) = reference.as_object_mut() {
                reference.remove("namespace");
            }
            spec.insert("dataSource".into(), reference);
        }
        _ => {}
    }
}

fn namespace(map: &mut Members) {
    let Some(spec) = map.entry("spec").or_insert_with(|| json!({})).as_object_mut() else { return };
    if let Some(list) = spec.entry("finalizers").or_insert_with(|| json!([])).as_array_mut()
        && !list.iter().any(|f| f == "kubernetes")
    {
        list.push("kubernetes".into());
    }
}

/// A Job selects its own pods by its uid, unless told otherwise.
fn job(map: &mut Members) {
    let field = |name: &str| map.get("metadata").and_then(|m| m.get(name)).cloned().unwrap_or_else(|| "".into());
    let (name, uid) = (field("name"), field("uid"));
    let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) else { return };
    if spec.get("manualSelector") == Some(&Value::Bool(true)) {
        return;
    }
    let label_path = |spec: &Members| spec.get("template").and_then(|t| t.get("metadata")?.get("labels")).cloned();
    let before = label_path(spec);
    let template = defaults::object(spec, "template").and_then(|t| defaults::object(t, "metadata"));
    if let Some(labels) = template.and_then(|m| defaults::object(m, "labels")) {
        for (label, value) in [
            ("job-name", &name),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("batch.kubernetes.io/controller-uid", &uid),
        ] {
            labels.entry(label).or_insert_with(|| value.clone());
        }
    }
    if let Some(labels) = defaults::object(spec, "selector").and_then(|s| defaults::object(s, "matchLabels")) {
        labels.entry("batch.kubernetes.io/controller-uid").or_insert(uid);
    }
    // A Job without labels of its own has its template's; where those were made just now, `defaults::read_back` says so.
    let labels = label_path(spec);
    let own = map.get("metadata").and_then(|m| m.get("labels"));
    if own.is_some() && own == before.as_ref() {
        set_in(map, "metadata", "labels", labels);
    }
}

#[cfg(test)]
mod tests;
