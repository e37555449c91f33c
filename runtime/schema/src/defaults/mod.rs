//! Defaults: what upstream's SetDefaults_* functions fill in. Those that hold wherever a type occurs are in the table; those that
//! depend on other fields are the hooks below, one function a type (pkg/apis/*/v1/defaults.go of Kubernetes 1.36).
//!
//! A value has been cleaned (`prune`) before it comes here, so zeros that Go would not tell from absence are absent.
//! Invariant: applying twice changes nothing.
mod core;
mod workloads;

use crate::{
    Kind, structural,
    table::{Container, Presence, Shape, Table, TypeId},
};
use crate::{Map, Value, json};

pub(crate) type Members = Map;

/// JSON schemas are the only types that contain themselves, and they have no defaults deep down.
const MAX_DEPTH: usize = 128;

pub fn apply(kind: &Kind, value: &mut Value) {
    if let Some(schema) = kind.schema() {
        structural::default(schema, value);
    } else if let Value::Object(map) = value {
        before(&kind.kind, map);
        walk(kind.table(), kind.root, map, 0);
    }
}

/// Defaults that hold only once an object has been stored: upstream's answer is what reading it back makes of it.
pub fn read_back(kind: &Kind, value: &mut Value) {
    match (&*kind.group, &*kind.kind, value) {
        ("batch", "Job", Value::Object(map)) => workloads::job_labels(map),
        ("", "Service", Value::Object(map)) => core::service_status(map),
        _ => {}
    }
}

/// The same for a part of an object whose type is known.
pub fn apply_type(table: &Table, id: TypeId, map: &mut Members) {
    walk(table, id, map, 0);
}

fn walk(table: &Table, id: TypeId, map: &mut Members, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    hook(table.package(id), table.type_name(id), map);
    for field in table.fields(id) {
        let name = table.name(field);
        let default = table.default(field);
        // A zero that is left out anyway needs no default.
        let is_left_out = field.presence == Presence::Omit && matches!(default, "0" | "false" | "\"\"");
        if !default.is_empty() && !is_left_out && is_unset(map.get(name), field.presence) {
            // The table's test reads every default.
            if let Ok(value) = serde_json::from_str(default) {
                map.insert(name.into(), value);
            }
        }
        let Shape::Object(inner) = field.shape else { continue };
        match (field.container, map.get_mut(name)) {
            (Container::One, Some(Value::Object(value))) => walk(table, inner, value, depth + 1),
            (Container::List, Some(Value::Array(list))) => {
                for value in list.iter_mut().filter_map(Value::as_object_mut) {
                    walk(table, inner, value, depth + 1);
                }
            }
            (Container::Map, Some(Value::Object(values))) => {
                for value in values.values_mut().filter_map(Value::as_object_mut) {
                    walk(table, inner, value, depth + 1);
                }
            }
            _ => {}
        }
    }
}

/// Absent; for what is no pointer in Go also the zero that is written.
fn is_unset(value: Option<&Value>, presence: Presence) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty() && presence != Presence::Pointer,
        Some(Value::Number(n)) => n.as_f64() == Some(0.0) && presence != Presence::Pointer,
        Some(_) => false,
    }
}

/// What upstream sets on the whole object before it goes into its parts.
fn before(kind: &str, map: &mut Members) {
    match kind {
        "Pod" => core::pod(map),
        "Namespace" => core::namespace(map),
        "Secret" => core::secret(map),
        "ReplicationController" => core::replication_controller(map),
        "Job" => workloads::job_labels(map),
        "CustomResourceDefinition" => custom_resource_definition(map),
        _ => {}
    }
}

/// Before the type's own table defaults and before its parts.
fn hook(package: &str, name: &str, map: &mut Members) {
    match (package, name) {
        ("io.k8s.api.core.v1", "Container" | "EphemeralContainer") => core::container(map),
        ("io.k8s.api.core.v1", "Volume") => core::volume(map),
        ("io.k8s.api.core.v1", "ServiceSpec") => core::service(map),
        ("io.k8s.api.core.v1", "PodSpec") => core::pod_spec(map),
        ("io.k8s.api.core.v1", "NodeSpec") => core::node_spec(map),
        ("io.k8s.api.core.v1", "LimitRangeItem") => core::limit_range_item(map),
        ("io.k8s.api.core.v1", "NodeStatus") => core::node_status(map),
        ("io.k8s.api.apps.v1", "DeploymentStrategy" | "DaemonSetUpdateStrategy" | "StatefulSetUpdateStrategy") => {
            workloads::strategy(name, map);
        }
        ("io.k8s.api.apps.v1", "StatefulSetSpec") => workloads::stateful_set(map),
        ("io.k8s.api.autoscaling.v2", "HorizontalPodAutoscalerSpec") => workloads::autoscaler(map),
        ("io.k8s.api.networking.v1", "NetworkPolicySpec") => network_policy(map),
        ("io.k8s.api.rbac.v1", "Subject") => subject(map),
        ("io.k8s.api.resource.v1", "ExactDeviceRequest" | "DeviceSubRequest") => device_request(map),
        _ => {}
    }
}

/// The string at `name`, or "".
pub(crate) fn text<'m>(map: &'m Members, name: &str) -> &'m str {
    map.get(name).and_then(Value::as_str).unwrap_or("")
}

/// Sets what is absent.
pub(crate) fn default(map: &mut Members, name: &str, value: Value) {
    map.entry(name).or_insert(value);
}

/// The object at `name`, made when absent; nothing when something else is there.
pub(crate) fn object<'m>(map: &'m mut Members, name: &str) -> Option<&'m mut Members> {
    map.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

fn is_empty_list(map: &Members, name: &str) -> bool {
    map.get(name).and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn network_policy(spec: &mut Members) {
    if is_empty_list(spec, "policyTypes") {
        let types = if is_empty_list(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".into(), types);
    }
}

fn subject(subject: &mut Members) {
    if text(subject, "apiGroup").is_empty() && matches!(text(subject, "kind"), "User" | "Group") {
        subject.insert("apiGroup".into(), "rbac.authorization.k8s.io".into());
    }
}

fn device_request(request: &mut Members) {
    if matches!(text(request, "allocationMode"), "" | "ExactCount") {
        default(request, "count", 1.into());
    }
}

/// staging/src/k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/defaults.go
fn custom_resource_definition(map: &mut Members) {
    let Some(names) = map.get_mut("spec").and_then(|s| s.get_mut("names")).and_then(Value::as_object_mut) else {
        return;
    };
    let kind = text(names, "kind").to_owned();
    if !kind.is_empty() {
        for (name, value) in [("singular", kind.to_lowercase()), ("listKind", kind + "List")] {
            if text(names, name).is_empty() {
                names.insert(name.into(), value.into());
            }
        }
    }
}

#[cfg(test)]
mod tests;
