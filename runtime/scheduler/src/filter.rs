//! Can the pod run on this node: what is asked of one node at a time, with upstream's reasons
//! (pkg/scheduler/framework/plugins/*), in upstream's order. Relations between pods are in `relations`, claims in `volumes`.
use crate::{
    cluster::{Node, Pod},
    relations::Relations,
    volumes::Claims,
};
use mote_schema::json;
use mote_schema::placement::{node_matches, tolerates, untolerated};

/// Why a pod was rejected, as bits: which changes may help is decided by them.
pub mod cause {
    /// The node itself: its name, labels, taints, or that it is cordoned.
    pub const NODE: u8 = 1;
    pub const RESOURCES: u8 = 2;
    pub const PORTS: u8 = 4;
    /// Other pods' labels and places.
    pub const RELATIONS: u8 = 8;
    pub const VOLUMES: u8 = 16;
    /// Waits for its victims or for something only its own update brings.
    pub const OTHER: u8 = 32;
}

#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    pub texts: Vec<String>,
    pub cause: u8,
    /// Removing pods from the node may help.
    pub resolvable: bool,
}

impl Reason {
    pub fn new(text: impl Into<String>, cause: u8, resolvable: bool) -> Reason {
        Reason { texts: vec![text.into()], cause, resolvable }
    }
}

/// All of it for one node.
pub fn filter(pod: &Pod, node: &Node, claims: &Claims, relations: &Relations) -> Result<(), Reason> {
    unschedulable(pod, node)?;
    name(pod, node)?;
    taints(pod, node)?;
    affinity(pod, node)?;
    ports(pod, node)?;
    resources(pod, node)?;
    claims.filter(node)?;
    relations.filter(node)
}

fn unschedulable(pod: &Pod, node: &Node) -> Result<(), Reason> {
    if node.object.root().at("spec.unschedulable").as_bool() != Some(true) {
        return Ok(());
    }
    let taint = json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    let tolerated = mote_api::Doc::encode(&taint)
        .is_ok_and(|taint| pod.spec().get("tolerations").items().any(|t| tolerates(t, taint.root())));
    if tolerated { Ok(()) } else { Err(Reason::new("node(s) were unschedulable", cause::NODE, false)) }
}

fn name(pod: &Pod, node: &Node) -> Result<(), Reason> {
    if pod.node().is_empty() || pod.node() == node.name() {
        return Ok(());
    }
    Err(Reason::new("node(s) didn't match the requested node name", cause::NODE, false))
}

fn taints(pod: &Pod, node: &Node) -> Result<(), Reason> {
    let taints = node.object.root().at("spec.taints");
    match untolerated(taints, pod.spec().get("tolerations"), &["NoSchedule", "NoExecute"]) {
        None => Ok(()),
        Some(_) => Err(Reason::new("node(s) had untolerated taint(s)", cause::NODE, false)),
    }
}

fn affinity(pod: &Pod, node: &Node) -> Result<(), Reason> {
    if node_matches(pod.spec(), node.object.root()) {
        return Ok(());
    }
    Err(Reason::new("node(s) didn't match Pod's node affinity/selector", cause::NODE, false))
}

fn ports(pod: &Pod, node: &Node) -> Result<(), Reason> {
    let any = |address: &str| address == "0.0.0.0";
    let conflict = |a: &(String, String, i64), b: &(String, String, i64)| {
        a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || any(&a.1) || any(&b.1))
    };
    let mut taken = node.pods.values().flat_map(|p| &p.ports);
    if pod.ports.is_empty() || !taken.any(|t| pod.ports.iter().any(|p| conflict(p, t))) {
        return Ok(());
    }
    Err(Reason::new("node(s) didn't have free ports for the requested pod ports", cause::PORTS, true))
}

fn resources(pod: &Pod, node: &Node) -> Result<(), Reason> {
    let mut reason = Reason { texts: Vec::new(), cause: cause::RESOURCES, resolvable: true };
    if node.pods.len() + 1 > node.max_pods {
        reason.texts.push("Too many pods".into());
    }
    let wanted = &pod.requests;
    if !wanted.is_zero() {
        let (has, used) = (&node.allocatable, &node.requested);
        let mut check = |name: &str, wanted: i64, has: i64, used: i64| {
            if wanted > 0 && wanted > has - used {
                reason.texts.push(format!("Insufficient {name}"));
                // More than the whole node: no other pod is in the way.
                reason.resolvable &= wanted <= has;
            }
        };
        check("cpu", wanted.cpu_milli, has.cpu_milli, used.cpu_milli);
        check("memory", wanted.memory_bytes, has.memory_bytes, used.memory_bytes);
        check("ephemeral-storage", wanted.ephemeral_bytes, has.ephemeral_bytes, used.ephemeral_bytes);
        for (name, amount) in &wanted.scalar {
            let of = |list: &std::collections::BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
            check(name, *amount, of(&has.scalar), of(&used.scalar));
        }
    }
    if reason.texts.is_empty() { Ok(()) } else { Err(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test::*;
    use mote_schema::Value;
    use std::sync::Arc;

    fn check(pod_spec: Value, node_value: Value, there: Vec<Value>, want: &[&str], resolvable: bool) {
        let mut node = node(node_value);
        for (n, spec) in there.into_iter().enumerate() {
            node.insert(Arc::new(pod(json!({"metadata": {"uid": n.to_string()}, "spec": spec}))));
        }
        let pod = pod(json!({"metadata": {"uid": "new"}, "spec": pod_spec}));
        match filter(&pod, &node, &Claims::default(), &Relations::default()) {
            Ok(()) => assert!(want.is_empty()),
            Err(reason) => {
                assert_eq!(reason.texts, want);
                assert_eq!(reason.resolvable, resolvable);
            }
        }
    }

    fn cpu(amount: &str) -> Value {
        json!({"containers": [{"resources": {"requests": {"cpu": amount}}}]})
    }

    fn port(number: i64, address: &str) -> Value {
        json!({"containers": [{"ports": [{"hostPort": number, "hostIP": address}]}]})
    }

    fn small() -> Value {
        json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2"}}})
    }

    #[test]
    fn one_node() {
        check(cpu("1"), small(), vec![], &[], true);
        check(cpu("1500m"), small(), vec![cpu("1")], &["Insufficient cpu"], true);
        check(cpu("3"), small(), vec![], &["Insufficient cpu"], false);
        check(json!({}), small(), vec![json!({}), json!({})], &["Too many pods"], true);
        check(
            json!({"containers": [{"resources": {"requests": {"cpu": "5", "example.com/x": "1"}}}]}),
            small(),
            vec![],
            &["Insufficient cpu", "Insufficient example.com/x"],
            false,
        );
        let free = "node(s) didn't have free ports for the requested pod ports";
        check(port(80, ""), small(), vec![port(80, "127.0.0.1")], &[free], true);
        check(port(80, "10.0.0.1"), small(), vec![port(80, "127.0.0.1")], &[], true);
        check(port(81, ""), small(), vec![port(80, "")], &[], true);
        let cordoned = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}, "status": {"allocatable": {"pods": "2"}}});
        check(json!({}), cordoned.clone(), vec![], &["node(s) were unschedulable"], false);
        check(json!({"tolerations": [{"operator": "Exists"}]}), cordoned, vec![], &[], true);
        check(
            json!({"nodeSelector": {"a": "b"}}),
            small(),
            vec![],
            &["node(s) didn't match Pod's node affinity/selector"],
            false,
        );
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}, "status": {"allocatable": {"pods": "2"}}});
        check(json!({}), tainted, vec![], &["node(s) had untolerated taint(s)"], false);
    }
}
