//! Nodes that fall silent, and the taints that tell the scheduler and the taint-eviction controller about it.
//!
//! The kubelet of this process needs no watching: it lives as long as this does. For other kubelets the Lease and the
//! heartbeat in their status are what counts, by when they were seen here, so no clock but ours matters.
//! Behaviour of upstream's pkg/controller/nodelifecycle, without its zones: one board has none.
use crate::{
    Config,
    amounts::{now, rfc3339},
    owner::gone_is_fine,
    pod,
    session::Session,
    status::{Conditions, write},
};
use mote_api::{
    Change, Client, Kind, Object, Ref, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// (condition, status, taint)
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// What is set to Unknown when a kubelet falls silent.
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// The older names of two labels, kept equal to the newer.
const LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];
const LEASES: &str = "kube-node-lease";

struct Controller {
    session: Session,
    nodes: Arc<Kind>,
    pods: Arc<Kind>,
    local_node: String,
    grace: Duration,
    /// When each node was last heard of, and the heartbeat that said so.
    seen: Mutex<HashMap<String, (Instant, String)>>,
}

pub fn start(client: &Client, config: &Config) {
    let session = Session::new(client, "node-controller");
    let controller = Controller {
        nodes: session.kind("", "v1", "nodes"),
        pods: session.kind("", "v1", "pods"),
        local_node: config.local_node.clone(),
        grace: config.node_monitor_grace_period,
        seen: Mutex::default(),
        session: session.clone(),
    };
    session.start(controller);
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "node-lifecycle"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "nodes"), ("coordination.k8s.io", "v1", "leases")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        let mut seen = self.seen();
        if change.kind.plural == "leases" {
            if object.namespace() == LEASES
                && let Some((at, _)) = seen.get_mut(object.name())
            {
                *at = Instant::now();
            }
            return;
        }
        let Some(node) = &change.new else {
            seen.remove(object.name());
            return;
        };
        let heartbeat = condition(node, "Ready").get("lastHeartbeatTime").str();
        let known = seen.get(node.name());
        if known.is_none() && change.old.is_none() {
            self.session.event(
                node,
                "Normal",
                "RegisteredNode",
                &format!("Registered Node {} in Controller", node.name()),
            );
        }
        if known.is_none_or(|(_, last)| last != heartbeat) {
            seen.insert(node.name().into(), (Instant::now(), heartbeat.into()));
        }
        queue.add(Key::new("", node.name()));
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let node = match self.session.get(&self.nodes, "", &key.name) {
                Ok(node) => node,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            let (node, next) = self.check_health(node).await?;
            self.sync_spec(&node).await?;
            Ok(next)
        })
    }
}

fn condition<'a>(node: &'a Object, type_: &str) -> Ref<'a> {
    pod::condition(node, type_)
}

impl Controller {
    fn seen(&self) -> MutexGuard<'_, HashMap<String, (Instant, String)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check_health(&self, node: Object) -> Result<(Object, Next), Error> {
        if node.name() == self.local_node {
            return Ok((node, Next::Done));
        }
        let last = self.seen().get(node.name()).map_or_else(Instant::now, |(at, _)| *at);
        let silent = last.elapsed();
        if silent < self.grace {
            return Ok((node, Next::After(self.grace - silent)));
        }
        let was_ready = condition(&node, "Ready").get("status").str() == "True";
        let mut status = node.root().get("status").to_value();
        if !status.is_object() {
            status = json!({});
        }
        status["conditions"] = silenced(&node).into_value();
        let node = write(&self.session, &node, status).await?;
        if was_ready {
            let message = format!("Node {} status is now: NodeNotReady", node.name());
            self.session.event(&node, "Normal", "NodeNotReady", &message);
            self.mark_pods(&node).await?;
        }
        // Its next heartbeat or Lease changes the Node, and that wakes this.
        Ok((node, Next::Done))
    }

    /// Pods of a silent node are not ready: nobody can say that they are.
    async fn mark_pods(&self, node: &Object) -> Result<(), Error> {
        for pod in self.session.list(&self.pods, None)? {
            if pod::node_name(&pod) != node.name() || !pod::is_ready(&pod) {
                continue;
            }
            let mut conditions = Conditions::of(&pod);
            if let Some(ready) = conditions.0.iter_mut().find(|c| c["type"] == "Ready") {
                ready["status"] = "False".into();
                ready["lastTransitionTime"] = rfc3339(now()).into();
            }
            let mut status = pod.root().get("status").to_value();
            status["conditions"] = conditions.into_value();
            gone_is_fine(write(&self.session, &pod, status).await)?;
            self.session.event(&pod, "Warning", "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    /// Taints and labels that follow from the conditions and from spec.unschedulable.
    async fn sync_spec(&self, node: &Object) -> Result<(), Error> {
        let mut metadata = Map::new();
        let labels = node.meta().get("labels");
        let missing: Map = LABELS
            .iter()
            .filter_map(|(stable, beta)| Some((*beta, labels.get(stable).as_str()?)))
            .filter(|(beta, value)| labels.get(beta).as_str() != Some(*value))
            .map(|(beta, value)| (beta.to_owned(), value.into()))
            .collect();
        let old: Vec<Value> = node.root().at("spec.taints").items().map(Ref::to_value).collect();
        let taints = taints(node, &old);
        if missing.is_empty() && taints == old {
            return Ok(());
        }
        if !missing.is_empty() {
            metadata.insert("labels".into(), missing.into());
        }
        metadata.insert("resourceVersion".into(), node.revision.to_string().into());
        let taints = if taints.is_empty() { Value::Null } else { taints.into() };
        let patch = json!({"metadata": metadata, "spec": {"taints": taints}});
        gone_is_fine(self.session.patch(node, Sub::Main, patch).await)?;
        Ok(())
    }
}

fn silenced(node: &Object) -> Conditions {
    let mut conditions = Conditions::of(node);
    for type_ in KUBELET_CONDITIONS {
        let at = rfc3339(now());
        match conditions.0.iter_mut().find(|c| c["type"] == type_) {
            None => conditions.0.push(json!({
                "type": type_, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": pod::created(node), "lastTransitionTime": at,
            })),
            Some(condition) if condition["status"] != "Unknown" => {
                condition["status"] = "Unknown".into();
                condition["reason"] = "NodeStatusUnknown".into();
                condition["message"] = "Kubelet stopped posting node status.".into();
                condition["lastTransitionTime"] = at.into();
            }
            Some(_) => {}
        }
    }
    conditions
}

/// The taints `node` should have: others' stay as they are, ours are added and removed.
fn taints(node: &Object, old: &[Value]) -> Vec<Value> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (type_, status, taint) in CONDITION_TAINTS {
        if condition(node, type_).get("status").str() == status {
            wanted.push((taint, "NoSchedule"));
            if type_ == "Ready" {
                wanted.push((taint, "NoExecute"));
            }
        }
    }
    if node.root().at("spec.unschedulable").as_bool() == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |t: &Value| {
        let key = t["key"].as_str().unwrap_or_default();
        match t["effect"].as_str().unwrap_or_default() {
            "NoSchedule" => key == UNSCHEDULABLE || CONDITION_TAINTS.iter().any(|(_, _, taint)| *taint == key),
            "NoExecute" => key == NOT_READY || key == UNREACHABLE,
            _ => false,
        }
    };
    let is = |t: &Value, (key, effect): (&str, &str)| t["key"] == key && t["effect"] == effect;
    let mut taints: Vec<Value> = old.iter().filter(|t| !ours(t) || wanted.iter().any(|w| is(t, *w))).cloned().collect();
    for want in wanted {
        if !taints.iter().any(|t| is(t, want)) {
            taints.push(json!({"key": want.0, "effect": want.1, "timeAdded": rfc3339(now())}));
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, Doc};

    fn node(value: Value) -> Object {
        let kind = Catalog::builtin().by_resource("", "v1", "nodes").unwrap().clone();
        Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }
    }

    #[test]
    fn taints_follow_conditions() {
        let check = |ready: &str, unschedulable: bool, old: Value, want: &[(&str, &str)]| {
            let node = node(json!({
                "spec": {"unschedulable": unschedulable},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }));
            let made = taints(&node, old.as_array().unwrap());
            let made: Vec<(&str, &str)> =
                made.iter().map(|t| (t["key"].as_str().unwrap(), t["effect"].as_str().unwrap())).collect();
            assert_eq!(made, want);
        };
        check("True", false, json!([]), &[]);
        check("False", false, json!([]), &[(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]);
        let own = json!([{"key": "mine", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoExecute"}]);
        check("True", true, own.clone(), &[("mine", "NoSchedule"), (UNSCHEDULABLE, "NoSchedule")]);
        check(
            "Unknown",
            false,
            own,
            &[("mine", "NoSchedule"), (UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        );
    }

    #[test]
    fn silence_makes_conditions_unknown() {
        let node = node(json!({
            "metadata": {"creationTimestamp": "2030-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]},
        }));
        let conditions = silenced(&node);
        assert_eq!(conditions.get("Ready").unwrap()["reason"], "NodeStatusUnknown");
        assert_eq!(conditions.get("DiskPressure").unwrap()["reason"], "NodeStatusNeverUpdated");
        assert!(conditions.is("NetworkUnavailable", "False"));
    }
}
