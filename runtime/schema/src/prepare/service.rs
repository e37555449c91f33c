//! Services: an update keeps what was allocated unless it asks for something else, and loses what its type no longer needs
//! (patchAllocatedValues and dropTypeDependentFields of pkg/registry/core/service). Allocation itself is the API server's.
use super::{Members, set_in};
use crate::{Map, Value};

pub(super) fn create(map: &mut Members) {
    pair_cluster_ips(None, map);
    drop_internal_policy(map);
}

pub(super) fn update(old: &Value, map: &mut Members) {
    pair_cluster_ips(Some(old), map);
    drop_internal_policy(map);
    let (before, balanced) = (&old["spec"], is(map.get("spec"), &["LoadBalancer"]));
    let Some(Value::Object(spec)) = map.get_mut("spec") else { return };
    keep_allocated(before, spec);
    drop_unneeded(before, spec);
    if !balanced {
        set_in(map, "status", "loadBalancer", Some(Value::Object(Map::new())));
    }
}

/// What upstream does not show where there is nothing to balance (defaultOnReadInternalTrafficPolicy).
fn drop_internal_policy(map: &mut Members) {
    let Some(Value::Object(spec)) = map.get_mut("spec") else { return };
    let is_valid = spec.get("internalTrafficPolicy").is_some_and(|policy| *policy == "Cluster" || *policy == "Local");
    if is_valid && has_type(spec, &["ExternalName"]) {
        spec.remove("internalTrafficPolicy");
    }
}

/// clusterIP is the first of clusterIPs; who sets or clears one means both (normalizeClusterIPs).
fn pair_cluster_ips(old: Option<&Value>, map: &mut Members) {
    let Some(Value::Object(spec)) = map.get_mut("spec") else { return };
    let old_ip = old.map_or("", |o| o["spec"]["clusterIP"].as_str().unwrap_or(""));
    let old_list = old.map(|o| &o["spec"]["clusterIPs"]);
    let ip = spec.get("clusterIP").and_then(Value::as_str).unwrap_or("").to_owned();
    let list_same = old.is_some() && spec.get("clusterIPs") == old_list.filter(|l| !l.is_null());
    let list_empty = spec.get("clusterIPs").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if old.is_none() {
        if !ip.is_empty() && list_empty {
            spec.insert("clusterIPs".into(), Value::from(vec![ip]));
        }
        return;
    }
    if ip != old_ip {
        if ip.is_empty() && list_same {
            spec.remove("clusterIPs");
        } else if !ip.is_empty() && list_same {
            // A single-family client changed the one it knows.
            spec.insert("clusterIPs".into(), Value::from(vec![ip]));
        } else if !ip.is_empty() && list_empty {
            spec.insert("clusterIPs".into(), Value::from(vec![ip]));
        }
    }
}

fn is(spec: Option<&Value>, types: &[&str]) -> bool {
    spec.and_then(|s| s.get("type")).and_then(Value::as_str).is_some_and(|t| types.contains(&t))
}

fn has_type(spec: &Members, types: &[&str]) -> bool {
    spec.get("type").and_then(Value::as_str).is_some_and(|t| types.contains(&t))
}

const WITH_CLUSTER_IP: [&str; 3] = ["ClusterIP", "NodePort", "LoadBalancer"];
const WITH_NODE_PORT: [&str; 2] = ["NodePort", "LoadBalancer"];

fn wants_health_check_port(spec: &Members) -> bool {
    has_type(spec, &["LoadBalancer"]) && spec.get("externalTrafficPolicy").is_some_and(|p| p == "Local")
}

fn node_port(port: &Value) -> i64 {
    port.get("nodePort").and_then(Value::as_i64).unwrap_or(0)
}

fn ports(spec: &Value) -> impl Iterator<Item = &Value> {
    spec.get("ports").and_then(Value::as_array).into_iter().flatten()
}

fn copy(before: &Value, spec: &mut Members, field: &str) {
    if let Some(value) = before.get(field) {
        spec.insert(field.into(), value.clone());
    }
}

fn keep_allocated(before: &Value, spec: &mut Members) {
    if is(Some(before), &WITH_CLUSTER_IP) && has_type(spec, &WITH_CLUSTER_IP) {
        if spec.get("clusterIP").and_then(Value::as_str).unwrap_or("").is_empty() {
            copy(before, spec, "clusterIP");
        }
        if !spec.contains_key("clusterIPs") && spec.get("clusterIP") == before.get("clusterIP") {
            copy(before, spec, "clusterIPs");
        }
    }
    if is(Some(before), &WITH_NODE_PORT) && has_type(spec, &WITH_NODE_PORT) {
        let new_ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        if let Some(list) = new_ports {
            let mut used: Vec<i64> = list.iter().map(node_port).filter(|p| *p != 0).collect();
            for port in list.iter_mut().filter(|p| node_port(p) == 0) {
                let name = port.get("name").cloned();
                // The last of equal names, as upstream's map keeps it.
                let old = ports(before).filter(|p| p.get("name") == name.as_ref()).last().map_or(0, node_port);
                if old != 0 && !used.contains(&old) {
                    used.push(old);
                    if let Some(port) = port.as_object_mut() {
                        port.insert("nodePort".into(), old.into());
                    }
                }
            }
        }
    }
    let had = before.as_object().is_some_and(wants_health_check_port);
    if had && wants_health_check_port(spec) && !spec.contains_key("healthCheckNodePort") {
        copy(before, spec, "healthCheckNodePort");
    }
}

/// Only what the client did not also change.
fn drop_unneeded(before: &Value, spec: &mut Members) {
    let Some(old) = before.as_object() else { return };
    let same = |spec: &Members, field: &str| spec.get(field) == before.get(field);
    if has_type(old, &WITH_CLUSTER_IP) && !has_type(spec, &WITH_CLUSTER_IP) {
        if same(spec, "clusterIP") && same(spec, "clusterIPs") {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if same(spec, field) {
                spec.remove(field);
            }
        }
    }
    if has_type(old, &WITH_NODE_PORT) && !has_type(spec, &WITH_NODE_PORT) {
        let before_ports: Vec<i64> = ports(before).map(node_port).filter(|p| *p != 0).collect();
        if let Some(list) = spec.get_mut("ports").and_then(Value::as_array_mut)
            && list.iter().map(node_port).all(|p| p == 0 || before_ports.contains(&p))
        {
            for port in list.iter_mut().filter_map(Value::as_object_mut) {
                port.remove("nodePort");
            }
        }
    }
    let balanced = |spec: &Members| has_type(spec, &["LoadBalancer"]);
    let external = |spec: &Members| {
        has_type(spec, &WITH_NODE_PORT)
            || has_type(spec, &["ClusterIP"])
                && spec.get("externalIPs").and_then(Value::as_array).is_some_and(|l| !l.is_empty())
    };
    for (field, needed_before, needed_now) in [
        ("healthCheckNodePort", wants_health_check_port(old), wants_health_check_port(spec)),
        ("allocateLoadBalancerNodePorts", balanced(old), balanced(spec)),
        ("loadBalancerClass", balanced(old), balanced(spec)),
        ("externalTrafficPolicy", external(old), external(spec)),
    ] {
        if needed_before && !needed_now && same(spec, field) {
            spec.remove(field);
        }
    }
}
