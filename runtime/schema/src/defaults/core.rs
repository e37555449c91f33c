//! Conditional defaults of the core group, and the aliases its conversion fills (pkg/apis/core/v1/{defaults,conversion}.go).
use super::{Members, default, object, text};
use crate::quantity::Quantity;
use crate::{Name, Value, json};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::collections::BTreeMap;

/// The tag decides: none or `latest` is always pulled. A digest without a tag is not (pkg/util/parsers).
pub(super) fn container(container: &mut Members) {
    if text(container, "imagePullPolicy").is_empty() {
        let policy = pull_policy(text(container, "image"));
        container.insert("imagePullPolicy".into(), policy.into());
    }
}

fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(n, d)| (n, d));
    let last = name.rsplit('/').next().unwrap_or(name);
    let tag = last.rsplit_once(':').map_or("", |(_, tag)| tag);
    // What is no reference parses as an error upstream, hence without a tag.
    let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._/:".contains(&b);
    let path = name.strip_suffix(tag).unwrap_or(name);
    let is_reference = !image.is_empty()
        && path.len() <= 256
        && path.split_once('/').map_or(path, |(_, rest)| rest).bytes().all(is_name);
    let latest = is_reference && (tag == "latest" || tag.is_empty() && digest.is_empty());
    if latest { "Always" } else { "IfNotPresent" }
}

pub(super) fn volume(volume: &mut Members) {
    if volume.keys().all(|k| k == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    if let Some(Value::Object(image)) = volume.get_mut("image")
        && text(image, "pullPolicy").is_empty()
    {
        let policy = pull_policy(text(image, "reference"));
        image.insert("pullPolicy".into(), policy.into());
    }
}

/// An address of a load balancer is the balancer's own.
pub(super) fn service_status(map: &mut Members) {
    let balances = map.get("spec").is_some_and(|spec| spec["type"] == "LoadBalancer");
    let balancer = map.get_mut("status").and_then(|status| status.get_mut("loadBalancer"));
    let entries = balancer.and_then(|balancer| balancer.get_mut("ingress")).and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten().filter_map(Value::as_object_mut).filter(|_| balances) {
        if !text(entry, "ip").is_empty() {
            default(entry, "ipMode", "VIP".into());
        }
    }
}

pub(super) fn service(spec: &mut Members) {
    if text(spec, "sessionAffinity") == "ClientIP" {
        let set = spec.get("sessionAffinityConfig").and_then(|c| c.get("clientIP")?.get("timeoutSeconds"));
        if set.is_none() {
            spec.insert("sessionAffinityConfig".into(), json!({"clientIP": {"timeoutSeconds": 10800}}));
        }
    } else if matches!(text(spec, "sessionAffinity"), "" | "None") {
        spec.remove("sessionAffinityConfig");
    }
    if let Some(Value::Array(ports)) = spec.get_mut("ports") {
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            let target = port.get("targetPort");
            if target.is_none_or(|t| *t == json!(0) || *t == json!(""))
                && let Some(number) = port.get("port").cloned()
            {
                port.insert("targetPort".into(), number);
            }
        }
    }
    let kind = match text(spec, "type") {
        "" => "ClusterIP",
        other => other,
    }
    .to_owned();
    let external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    let balanced = kind == "LoadBalancer";
    if balanced || kind == "NodePort" || kind == "ClusterIP" && external_ips {
        default(spec, "externalTrafficPolicy", "Cluster".into());
    }
    if balanced || matches!(kind.as_str(), "NodePort" | "ClusterIP") {
        default(spec, "internalTrafficPolicy", "Cluster".into());
    }
    if balanced {
        default(spec, "allocateLoadBalancerNodePorts", true.into());
    }
}

pub(super) fn limit_range_item(item: &mut Members) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        copy_missing(item, from, to);
    }
}

pub(super) fn node_status(status: &mut Members) {
    if let (Some(capacity), None) = (status.get("capacity").cloned(), status.get("allocatable")) {
        status.insert("allocatable".into(), capacity);
    }
}

/// What the map at `from` has and the one at `to` lacks.
fn copy_missing(map: &mut Members, from: &str, to: &str) {
    let Some(source) = map.get(from).and_then(Value::as_object).filter(|m| !m.is_empty()).cloned() else { return };
    if let Some(target) = object(map, to) {
        for (key, value) in source {
            target.entry(key).or_insert(value);
        }
    }
}

/// What is written as text joins the data and is not kept (Convert_v1_Secret_To_core_Secret).
pub(super) fn secret(map: &mut Members) {
    let Some(Value::Object(texts)) = map.remove("stringData") else { return };
    if let Some(data) = object(map, "data").filter(|_| !texts.is_empty()) {
        for (key, value) in texts {
            let text = value.as_str().unwrap_or("");
            data.insert(key, BASE64_STANDARD.encode(text).into());
        }
    }
}

/// One name twice; the newer field wins (Convert_v1_PodSpec_To_core_PodSpec and back).
pub(super) fn pod_spec(spec: &mut Members) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    }
    .to_owned();
    for field in ["serviceAccountName", "serviceAccount"] {
        if name.is_empty() {
            spec.remove(field);
        } else {
            spec.insert(field.into(), name.clone().into());
        }
    }
}

/// The first of several and the one of old (Convert_v1_NodeSpec_To_core_NodeSpec and back).
pub(super) fn node_spec(spec: &mut Members) {
    let first = spec.get("podCIDRs").and_then(|l| l.get(0)).cloned();
    match (text(spec, "podCIDR").to_owned(), first) {
        (one, None) if !one.is_empty() => {
            spec.insert("podCIDRs".into(), json!([one]));
        }
        (one, Some(first)) if first != one => {
            // Who sets the old field alone means it.
            if one.is_empty() {
                spec.insert("podCIDR".into(), first);
            } else {
                spec.insert("podCIDRs".into(), json!([one]));
            }
        }
        _ => {}
    }
}

/// The label that selects a namespace by its name is always right.
pub(super) fn namespace(map: &mut Members) {
    let Some(Value::Object(meta)) = map.get_mut("metadata") else { return };
    let name = text(meta, "name").to_owned();
    if !name.is_empty()
        && let Some(labels) = object(meta, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

pub(super) fn replication_controller(map: &mut Members) {
    let template = map.get("spec").and_then(|s| s.get("template")?.get("metadata")?.get("labels")).cloned();
    let Some(labels) = template else { return };
    for (at, field) in [("spec", "selector"), ("metadata", "labels")] {
        if let Some(part) = object(map, at) {
            default(part, field, labels.clone());
        }
    }
}

/// Only a Pod's own containers: templates keep what was written.
pub(super) fn pod(map: &mut Members) {
    let Some(Value::Object(spec)) = map.get_mut("spec") else { return };
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|n| n < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else { continue };
        for container in containers.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(Value::Object(resources)) = container.get_mut("resources") {
                copy_missing(resources, "limits", "requests");
            }
            if host_network && let Some(Value::Array(ports)) = container.get_mut("ports") {
                for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                    if let Some(number) = port.get("containerPort").cloned() {
                        default(port, "hostPort", number);
                    }
                }
            }
        }
    }
    pod_level_requests(spec);
    default(spec, "enableServiceLinks", true.into());
}

/// What a pod-level resource may be; huge pages cannot be overcommitted, so containers' requests of them do not add up.
fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// With pod-level limits, missing pod-level requests are the containers' together, else the limits.
fn pod_level_requests(spec: &mut Members) {
    let limits = spec.get("resources").and_then(|r| r.get("limits")).and_then(Value::as_object).cloned();
    let Some(limits) = limits.filter(|l| !l.is_empty()) else { return };
    let mut sums: BTreeMap<Name, Quantity> = BTreeMap::new();
    for container in spec.get("containers").and_then(Value::as_array).into_iter().flatten() {
        let requests = container.get("resources").and_then(|r| r.get("requests")).and_then(Value::as_object);
        for (name, value) in requests.into_iter().flatten().filter(|(n, _)| matches!(n.as_str(), "cpu" | "memory")) {
            if let Some(quantity) = value.as_str().and_then(|v| Quantity::parse(v).ok()) {
                let sum = sums.entry(name.clone()).or_insert_with(|| Quantity::new(0, quantity.format()));
                *sum = *sum + quantity;
            }
        }
    }
    let Some(requests) = object(spec, "resources").and_then(|r| object(r, "requests")) else { return };
    for (name, sum) in sums {
        default(requests, &name, sum.to_string().into());
    }
    for (name, limit) in limits.into_iter().filter(|(n, _)| is_pod_level(n)) {
        default(requests, &name, limit);
    }
}
