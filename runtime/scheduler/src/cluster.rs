//! Nodes and the pods on them, kept up to date change by change. Pure: no clock, no I/O.
//!
//! Invariant: a node's `requested` is the sum over its `pods`. A pod bound but not yet seen as bound is here too (assumed), so
//! that two pods are not given the same room.
use crate::resources::{Resources, max_pods, requests};
use mote_api::{Object, Ref};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// A pod as the scheduler weighs it.
#[derive(Clone)]
pub struct Pod {
    pub object: Object,
    pub requests: Resources,
    /// (protocol, address, port) on the host.
    pub ports: Vec<(String, String, i64)>,
    pub priority: i64,
}

impl Pod {
    pub fn new(object: Object) -> Pod {
        let spec = object.root().get("spec");
        let requests = requests(spec);
        let ports = host_ports(spec);
        let priority = spec.get("priority").as_i64().unwrap_or(0);
        Pod { object, requests, ports, priority }
    }

    pub fn spec(&self) -> Ref<'_> {
        self.object.root().get("spec")
    }

    pub fn labels(&self) -> Ref<'_> {
        self.object.meta().get("labels")
    }

    /// Where it runs, or "".
    pub fn node(&self) -> &str {
        self.spec().get("nodeName").str()
    }
}

pub fn is_finished(pod: &Object) -> bool {
    matches!(pod.root().at("status.phase").str(), "Succeeded" | "Failed")
}

/// Host ports of containers and sidecars.
fn host_ports(spec: Ref<'_>) -> Vec<(String, String, i64)> {
    let sidecars = spec.get("initContainers").items().filter(|c| c.get("restartPolicy").str() == "Always");
    let containers = spec.get("containers").items().chain(sidecars);
    let ports = containers.flat_map(|c| c.get("ports").items());
    ports
        .filter_map(|port| {
            let number = port.get("hostPort").as_i64().filter(|number| *number > 0)?;
            let protocol = port.get("protocol").as_str().unwrap_or("TCP");
            let address = port.get("hostIP").as_str().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
            Some((protocol.to_owned(), address.to_owned(), number))
        })
        .collect()
}

#[derive(Clone)]
pub struct Node {
    pub object: Object,
    pub allocatable: Resources,
    pub max_pods: usize,
    pub requested: Resources,
    /// By UID.
    pub pods: HashMap<Arc<str>, Arc<Pod>>,
}

impl Node {
    pub fn new(object: Object) -> Node {
        let status = object.root().get("status");
        let list = status.get("allocatable");
        let list = if list.exists() { list } else { status.get("capacity") };
        let (allocatable, max_pods) = (Resources::of(list), max_pods(list));
        Node { object, allocatable, max_pods, requested: Resources::default(), pods: HashMap::new() }
    }

    pub fn name(&self) -> &str {
        self.object.name()
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.object.meta().get("labels").get(name).as_str()
    }

    pub fn insert(&mut self, pod: Arc<Pod>) {
        self.requested.add(&pod.requests);
        if let Some(old) = self.pods.insert(pod.object.uid().into(), pod) {
            self.requested.sub(&old.requests);
        }
    }

    pub fn remove(&mut self, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(uid)?;
        self.requested.sub(&pod.requests);
        Some(pod)
    }
}

/// All nodes by name, and the pods on nodes that are not (or not yet) known.
#[derive(Default)]
pub struct Cluster {
    pub nodes: BTreeMap<Arc<str>, Node>,
    homeless: HashMap<Arc<str>, (Arc<str>, Arc<Pod>)>,
    /// Node of each known pod, by UID.
    places: HashMap<Arc<str>, Arc<str>>,
    /// Pods that wait for their victims to leave: node and pod, by UID.
    pub nominated: HashMap<Arc<str>, (Arc<str>, Arc<Pod>)>,
}

impl Cluster {
    pub fn set_node(&mut self, object: Object) {
        let name: Arc<str> = object.name().into();
        let mut node = Node::new(object);
        if let Some(old) = self.nodes.remove(&name) {
            (node.requested, node.pods) = (old.requested, old.pods);
        }
        let (here, elsewhere) = std::mem::take(&mut self.homeless).into_iter().partition(|(_, (at, _))| *at == name);
        self.homeless = elsewhere;
        let here: HashMap<Arc<str>, (Arc<str>, Arc<Pod>)> = here;
        here.into_values().for_each(|(_, pod)| node.insert(pod));
        self.nodes.insert(name, node);
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some((name, node)) = self.nodes.remove_entry(name) else { return };
        for (uid, pod) in node.pods {
            self.homeless.insert(uid, (name.clone(), pod));
        }
    }

    /// A pod on `node`, assumed or seen.
    pub fn set_pod(&mut self, node: &str, pod: Arc<Pod>) {
        let uid: Arc<str> = pod.object.uid().into();
        if self.places.get(&uid).is_some_and(|place| &**place != node) {
            self.remove_pod(&uid);
        }
        self.nominated.remove(&uid);
        self.places.insert(uid.clone(), node.into());
        match self.nodes.get_mut(node) {
            Some(node) => node.insert(pod),
            None => drop(self.homeless.insert(uid, (node.into(), pod))),
        }
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.nominated.remove(uid);
        let Some(place) = self.places.remove(uid) else { return };
        match self.nodes.get_mut(&place) {
            Some(node) => drop(node.remove(uid)),
            None => drop(self.homeless.remove(uid)),
        }
    }

    /// `node` with the pods that are promised to it and at least as important as `pod`; None when there are none.
    pub fn with_nominated(&self, node: &Node, pod: &Pod) -> Option<Node> {
        let promised = |(at, other): &&(Arc<str>, Arc<Pod>)| {
            **at == *node.name() && other.priority >= pod.priority && other.object.uid() != pod.object.uid()
        };
        let mut promised = self.nominated.values().filter(promised).peekable();
        promised.peek()?;
        let mut node = node.clone();
        promised.for_each(|(_, other)| node.insert(other.clone()));
        Some(node)
    }
}

#[cfg(test)]
pub mod test {
    use super::*;
    use mote_api::Doc;
    use mote_schema::Catalog;
    use mote_schema::Value;

    pub fn object(plural: &str, value: Value) -> Object {
        let kind = Catalog::builtin().by_resource("", "v1", plural).unwrap().clone();
        Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }
    }

    pub fn pod(value: Value) -> Pod {
        Pod::new(object("pods", value))
    }

    pub fn node(value: Value) -> Node {
        Node::new(object("nodes", value))
    }
}

#[cfg(test)]
mod tests {
    use super::{test::*, *};
    use mote_schema::json;

    #[test]
    fn sums_follow_pods_and_nodes() {
        let mut cluster = Cluster::default();
        let make = |uid: &str, cpu: &str| {
            Arc::new(pod(
                json!({"metadata": {"uid": uid}, "spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}}),
            ))
        };
        let requested = |cluster: &Cluster| cluster.nodes["n"].requested.cpu_milli;
        cluster.set_pod("n", make("early", "1"));
        cluster.set_node(object("nodes", json!({"metadata": {"name": "n"}})));
        assert_eq!(requested(&cluster), 1000);
        cluster.set_pod("n", make("a", "100m"));
        cluster.set_pod("n", make("a", "200m"));
        assert_eq!(requested(&cluster), 1200);
        cluster.remove_node("n");
        cluster.set_node(object("nodes", json!({"metadata": {"name": "n"}})));
        assert_eq!(requested(&cluster), 1200);
        cluster.remove_pod("a");
        cluster.remove_pod("early");
        assert_eq!(requested(&cluster), 0);
        assert!(cluster.nodes["n"].pods.is_empty());
    }
}
