//! Whether a pod that has just come to this node, or wants more of it, can run beside those that are here: the scheduler
//! has asked the same, but a pod whose author named the node never met it (pkg/kubelet/lifecycle/predicate.go). Pure.
use crate::{pod::Pod, resources};
use mote_api::{Object, Ref};
use mote_schema::placement;
use std::sync::Arc;

/// Status reason, and the words that follow "Pod was rejected: ".
pub type Refusal = (String, String);

/// What a node always knows of; of all else, what it does not list is not its to give.
const NATIVE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// `others` are the pods of the node that have started and not finished, as they are allocated.
pub fn refusal(pod: &Pod, node: Ref<'_>, others: &[Arc<Pod>]) -> Option<Refusal> {
    if let Some(os) = pod.spec.os.as_ref().filter(|os| os.name != "linux" && !os.name.is_empty()) {
        tracing::debug!(os = os.name, "a pod for another operating system");
        return Some(("PodOSNotSupported".into(), "Failed to admit pod as the OS field doesn't match node OS".into()));
    }
    let policy = pod.spec.security_context.as_ref().and_then(|context| context.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !node.at("status.features").get("supplementalGroupsPolicy").is_true() {
        let why = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return Some(("SupplementalGroupsPolicyNotSupported".into(), why.into()));
    }
    let failed = |name: &str, why: &str| Some((name.to_owned(), format!("Predicate {name} failed: {why}")));
    let spec = pod.object.root().get("spec");
    if let Some(short) = shortage(pod, node.at("status.allocatable"), others) {
        return Some(short);
    }
    if !placement::node_matches(spec, node) {
        return failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector");
    }
    let wanted = ports(&pod.object);
    if !wanted.is_empty() && others.iter().any(|other| ports(&other.object).iter().any(|port| meets(port, &wanted))) {
        return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    if placement::untolerated(node.at("spec.taints"), spec.get("tolerations"), &["NoExecute"]).is_some() {
        return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    None
}

/// The first resource that the node has not enough of.
fn shortage(pod: &Pod, allocatable: Ref<'_>, others: &[Arc<Pod>]) -> Option<Refusal> {
    let amount = |name: &str| resources::number(name, allocatable.get(name).as_str());
    let refuse = |name: &str, requested: i64, used: i64, capacity: i64| {
        let numbers = format!("requested: {requested}, used: {used}, capacity: {capacity}");
        Some((format!("OutOf{name}"), format!("Node didn't have enough resource: {name}, {numbers}")))
    };
    let (pods, running) = (amount("pods"), others.len() as i64);
    if allocatable.get("pods").exists() && running >= pods {
        return refuse("pods", 1, running, pods);
    }
    let named = resources::requested_names(pod);
    let extended = named.iter().filter(|name| !NATIVE.contains(name));
    for name in NATIVE.iter().chain(extended) {
        let requested = resources::pod_request(pod, name);
        let is_own = NATIVE.contains(name) || name.starts_with("hugepages-") || allocatable.get(name).exists();
        if requested == 0 || !is_own {
            continue;
        }
        let used = others.iter().map(|other| resources::pod_request(other, name)).fold(0, i64::saturating_add);
        if requested > amount(name).saturating_sub(used) {
            return refuse(name, requested, used, amount(name));
        }
    }
    None
}

/// On this node since an earlier reconcile, and still there.
pub fn holds_place(pod: &Object) -> bool {
    let status = pod.root().get("status");
    status.get("startTime").exists() && !matches!(status.get("phase").str(), "Succeeded" | "Failed")
}

struct Port<'a> {
    protocol: &'a str,
    /// "" for all.
    address: &'a str,
    number: i64,
}

/// Of containers and sidecars.
fn ports(pod: &Object) -> Vec<Port<'_>> {
    let spec: Ref<'_> = pod.root().get("spec");
    let sidecars = spec.get("initContainers").items().filter(|c| c.get("restartPolicy").str() == "Always");
    let ports = spec.get("containers").items().chain(sidecars).flat_map(|c| c.get("ports").items());
    ports
        .filter_map(|port| {
            let number = port.get("hostPort").as_i64().filter(|number| *number > 0)?;
            let address = port.get("hostIP").as_str().filter(|ip| *ip != "0.0.0.0").unwrap_or("");
            Some(Port { protocol: port.get("protocol").as_str().unwrap_or("TCP"), address, number })
        })
        .collect()
}

fn meets(port: &Port<'_>, wanted: &[Port<'_>]) -> bool {
    wanted.iter().any(|other| {
        let apart = !port.address.is_empty() && !other.address.is_empty() && port.address != other.address;
        port.number == other.number && port.protocol == other.protocol && !apart
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, Doc};
    use mote_schema::{Value, json};

    fn object(spec: Value, status: Value) -> Object {
        let kind = Catalog::builtin().by_resource("", "v1", "pods").unwrap().clone();
        let value = json!({"spec": spec, "status": status});
        Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }
    }

    fn pod(spec: Value) -> Arc<Pod> {
        Arc::new(Pod::decode(&object(spec, json!({}))))
    }

    fn check(spec: Value, other: Value, want: &str) {
        let allocatable = json!({"cpu": "2", "memory": "1Gi", "pods": "2", "example.com/gpu": "1"});
        let node = json!({"metadata": {"labels": {"disk": "ssd"}}, "status": {"allocatable": allocatable},
            "spec": {"taints": [{"key": "gone", "effect": "NoExecute"}]}});
        let node = Doc::encode(&node).unwrap();
        let mut spec = spec;
        if spec["tolerations"].is_null() {
            spec["tolerations"] = json!([{"operator": "Exists"}]);
        }
        let found = refusal(&pod(spec.clone()), node.root(), &[pod(other)]);
        let text = found.map(|(reason, message)| format!("{reason}: {message}")).unwrap_or_default();
        assert_eq!(text, want, "{spec}");
    }

    fn requests(list: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": list}}]})
    }

    #[test]
    fn resources_run_out() {
        let there = || requests(json!({"cpu": "500m", "memory": "512Mi"}));
        let short = "Node didn't have enough resource:";
        check(requests(json!({"cpu": "1500m", "memory": "512Mi"})), there(), "");
        let want = format!("OutOfcpu: {short} cpu, requested: 1501, used: 500, capacity: 2000");
        check(requests(json!({"cpu": "1501m"})), there(), &want);
        let want = format!("OutOfmemory: {short} memory, requested: 536870913, used: 536870912, capacity: 1073741824");
        check(requests(json!({"memory": "536870913"})), there(), &want);
        let want = format!("OutOfexample.com/gpu: {short} example.com/gpu, requested: 2, used: 0, capacity: 1");
        check(requests(json!({"example.com/gpu": "2"})), there(), &want);
        check(requests(json!({"example.com/elsewhere": "2"})), there(), "");
        let full = format!("OutOfpods: {short} pods, requested: 1, used: 2, capacity: 2");
        let node = Doc::encode(&json!({"status": {"allocatable": {"pods": "2"}}})).unwrap();
        let found = refusal(&pod(json!({})), node.root(), &[pod(there()), pod(there())]);
        assert_eq!(found.map(|(reason, message)| format!("{reason}: {message}")), Some(full));
    }

    #[test]
    fn places_that_do_not_suit() {
        let there = || json!({});
        check(json!({"nodeSelector": {"disk": "ssd"}}), there(), "");
        let want = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(json!({"nodeSelector": {"disk": "hdd"}}), there(), want);
        let want = "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        check(json!({"tolerations": []}), there(), want);
        let want = "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS";
        check(json!({"os": {"name": "windows"}}), there(), want);
        check(json!({"securityContext": {"supplementalGroupsPolicy": "Merge"}}), there(), "");
        let want =
            "SupplementalGroupsPolicyNotSupported: SupplementalGroupsPolicy=Strict is not supported in this node";
        check(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}), there(), want);
    }

    #[test]
    fn host_ports_meet() {
        let with = |port: Value| json!({"containers": [{"name": "c", "ports": [port]}]});
        let taken = "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        for (port, meets) in [
            (json!({"hostPort": 80}), true),
            (json!({"hostPort": 80, "hostIP": "0.0.0.0"}), true),
            (json!({"hostPort": 80, "hostIP": "10.0.0.1"}), true),
            (json!({"hostPort": 80, "hostIP": "10.0.0.2"}), false),
            (json!({"hostPort": 80, "protocol": "UDP"}), false),
            (json!({"hostPort": 81}), false),
            (json!({"containerPort": 80}), false),
        ] {
            let there = with(json!({"hostPort": 80, "protocol": "TCP", "hostIP": "10.0.0.1"}));
            check(with(port), there, if meets { taken } else { "" });
        }
    }

    #[test]
    fn only_pods_that_run_hold_a_place() {
        for (status, holds) in [
            (json!({"phase": "Pending"}), false),
            (json!({"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"}), true),
            (json!({"phase": "Failed", "startTime": "2026-01-01T00:00:00Z"}), false),
        ] {
            assert_eq!(holds_place(&object(json!({}), status.clone())), holds, "{status}");
        }
    }
}
