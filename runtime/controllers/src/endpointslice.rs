//! EndpointSlices of every Service with a selector: per address family and set of ports, at most 100 endpoints each,
//! changed as little as possible. Behaviour of upstream's staging/src/k8s.io/endpointslice/reconciler.go.
use crate::{
    hash,
    owner::{controller_ref, gone_is_fine, owners},
    pod, pod_control, service_pods,
    session::Session,
};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Gather as _;
use mote_schema::Order as _;
use mote_schema::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub const MAX_ENDPOINTS: usize = 100;
const ZONE: &str = "topology.kubernetes.io/zone";
const TOPOLOGY_MODES: [&str; 2] = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"];

struct Controller {
    session: Session,
    services: Arc<Kind>,
    pods: Arc<Kind>,
    nodes: Arc<Kind>,
    slices: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "endpointslice-controller");
    let controller = Controller {
        services: session.kind("", "v1", "services"),
        pods: session.kind("", "v1", "pods"),
        nodes: session.kind("", "v1", "nodes"),
        slices: session.kind("discovery.k8s.io", "v1", "endpointslices"),
        session: session.clone(),
    };
    session.start(controller);
}

/// The Service a slice belongs to, when `manager` looks after it.
pub fn service_of(slice: &Object, manager: &str) -> Option<Key> {
    let labels = slice.meta().get("labels");
    let name = labels.get(SERVICE_NAME).as_str().filter(|name| !name.is_empty())?;
    (labels.get(MANAGED_BY).str() == manager).then(|| Key::new(slice.namespace(), name))
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "services"), ("", "v1", "pods"), ("discovery.k8s.io", "v1", "endpointslices"), ("", "v1", "nodes")]
    }

    fn workers(&self) -> usize {
        4
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        match &*change.kind.plural {
            "services" => queue.add(Key::new(object.namespace(), object.name())),
            "pods" => service_pods::wake(&self.session, &self.services, change, queue),
            "nodes" => self.wake_for_node(change, queue),
            _ => change.old.iter().chain(&change.new).filter_map(|s| service_of(s, MANAGER)).for_each(|k| queue.add(k)),
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            match self.sync(key).await {
                Err(Error::Api(status)) if pod_control::namespace_terminating(&status) => Ok(Next::Done),
                result => result,
            }
        })
    }
}

/// What is wanted for one set of ports.
struct Group {
    ports: Value,
    endpoints: Vec<Value>,
}

/// What is to be done to the slices of one address family.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// (ports, endpoints)
    create: Vec<(Value, Vec<Value>)>,
    /// Index into the existing slices, new endpoints.
    update: Vec<(usize, Vec<Value>)>,
    delete: Vec<usize>,
}

/// A slice there is: its ports and endpoints.
struct Existing {
    ports: Value,
    endpoints: Vec<Value>,
    owned: bool,
}

impl Controller {
    /// A node that appears, goes or changes zone concerns every Service with a pod there.
    fn wake_for_node(&self, change: &Change, queue: &Queue) {
        let zone = |o: &Option<Object>| o.as_ref().map(|o| o.meta().get("labels").get(ZONE).str().to_owned());
        if zone(&change.old) == zone(&change.new) {
            return;
        }
        for service in self.session.list(&self.services, None).unwrap_or_default() {
            if service_pods::selector(&service).is_some() {
                queue.add(Key::new(service.namespace(), service.name()));
            }
        }
    }

    async fn sync(&self, key: &Key) -> Result<Next, Error> {
        let mut slices = self.session.list(&self.slices, Some(&key.namespace))?;
        slices.retain(|s| service_of(s, MANAGER).as_ref() == Some(key) && !s.is_deleting());
        let service = match self.session.get(&self.services, &key.namespace, &key.name) {
            // Its slices have an owner, and are collected with it.
            Err(status) if status.is_not_found() => return Ok(Next::Done),
            result => result?,
        };
        if service_pods::selector(&service).is_none() || service.is_deleting() {
            return Ok(Next::Done);
        }
        let pods = service_pods::backing(&self.session, &self.pods, &service, true);
        let families: HashSet<&str> = service.root().at("spec.ipFamilies").items().map(|f| f.str()).collect();
        for slice in slices.iter().filter(|s| !families.contains(s.root().get("addressType").str())) {
            self.delete(slice).await?;
        }
        for family in ["IPv4", "IPv6"].into_iter().filter(|f| families.contains(f)) {
            let existing: Vec<&Object> =
                slices.iter().filter(|s| s.root().get("addressType").str() == family).collect();
            self.sync_family(&service, &pods, family, &existing).await?;
        }
        Ok(Next::Done)
    }

    async fn sync_family(
        &self,
        service: &Object,
        pods: &[Object],
        family: &str,
        slices: &[&Object],
    ) -> Result<(), Error> {
        let existing: Vec<Existing> = slices
            .iter()
            .map(|slice| Existing {
                ports: slice.root().get("ports").items().map(|p| p.to_value()).collect(),
                endpoints: slice.root().get("endpoints").items().map(|e| e.to_value()).collect(),
                owned: owners(slice).any(|r| r.uid == service.uid()),
            })
            .collect();
        let plan = plan(self.wanted(service, pods, family), &existing);
        let labels = labels(service);
        for (ports, endpoints) in plan.create {
            let slice = json!({
                "metadata": {
                    "generateName": format!("{}-", service.name()), "namespace": service.namespace(), "labels": labels,
                    "ownerReferences": [controller_ref(service)],
                },
                "addressType": family, "ports": ports, "endpoints": endpoints,
            });
            self.session.create(&self.slices, service.namespace(), slice).await?;
        }
        let mut updates: BTreeMap<usize, Option<Vec<Value>>> =
            plan.update.into_iter().map(|(index, endpoints)| (index, Some(endpoints))).gather();
        for (index, slice) in slices.iter().enumerate() {
            if !plan.delete.contains(&index) && slice.meta().get("labels").to_value() != labels {
                updates.entry(index).or_default();
            }
        }
        for (index, endpoints) in updates {
            let mut value = slices[index].to_value();
            value["metadata"]["labels"] = labels.clone();
            if let Some(endpoints) = endpoints {
                value["endpoints"] = endpoints.into();
            }
            self.session.update(&self.slices, Sub::Main, value).await?;
        }
        for index in plan.delete {
            self.delete(slices[index]).await?;
        }
        Ok(())
    }

    async fn delete(&self, slice: &Object) -> Result<(), Error> {
        gone_is_fine(self.session.delete(slice, DeleteOptions::default()).await)?;
        Ok(())
    }

    /// The endpoints there should be, grouped by the ports they have (named target ports differ from pod to pod).
    fn wanted(&self, service: &Object, pods: &[Object], family: &str) -> BTreeMap<String, Group> {
        let mut groups = BTreeMap::new();
        for pod in pods {
            let ports = ports(service, pod);
            let addresses: Vec<IpAddr> =
                service_pods::ips(pod).filter(|ip| ip.is_ipv4() == (family == "IPv4")).collect();
            if addresses.is_empty() {
                continue;
            }
            let node = self.session.get(&self.nodes, "", pod::node_name(pod)).ok();
            if node.is_none() && !service_pods::publishes_not_ready(service) {
                continue;
            }
            let zone = node.as_ref().and_then(|n| n.meta().get("labels").get(ZONE).as_str());
            let group = groups.entry(port_key(&ports)).or_insert_with(|| Group { ports, endpoints: Vec::new() });
            group.endpoints.push(endpoint(service, pod, &addresses, zone));
        }
        groups
    }
}

fn port_key(ports: &Value) -> String {
    let mut keys: Vec<String> =
        ports.as_array().into_iter().flatten().map(|port| format!("{:?}", hash::of(port, None))).collect();
    keys.order();
    keys.join(",")
}

fn ports(service: &Object, pod: &Object) -> Value {
    let ports = service.root().at("spec.ports").items();
    let found = ports.filter_map(|port| {
        let number = service_pods::find_port(pod, port)?;
        let mut entry = json!({
            "name": port.get("name").str(), "port": number, "protocol": port.get("protocol").as_str().unwrap_or("TCP"),
        });
        if let Some(protocol) = port.get("appProtocol").as_str() {
            entry["appProtocol"] = protocol.into();
        }
        Some(entry)
    });
    found.collect()
}

fn endpoint(service: &Object, pod: &Object, addresses: &[IpAddr], zone: Option<&str>) -> Value {
    let serving = pod::is_ready(pod);
    let terminating = pod.is_deleting();
    let ready = service_pods::publishes_not_ready(service) || serving && !terminating;
    let mut endpoint = json!({
        "addresses": addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>(),
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid()},
    });
    let node = pod::node_name(pod);
    let mut put = |name: &str, text: Option<&str>| {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            endpoint[name] = text.into();
        }
    };
    put("nodeName", Some(node));
    put("zone", zone);
    put("hostname", service_pods::hostname(pod, service));
    if ready && let Some(hints) = hints(service, node, zone) {
        endpoint["hints"] = hints;
    }
    endpoint
}

/// Where a ready endpoint's clients should be, by the Service's spec.trafficDistribution (upstream:
/// staging/src/k8s.io/endpointslice/trafficdist). The older annotation rules it out, and by itself gives no hints where
/// there are not two zones to spread endpoints over.
fn hints(service: &Object, node: &str, zone: Option<&str>) -> Option<Value> {
    let distribution = service.root().at("spec.trafficDistribution").str();
    let annotations = service.meta().get("annotations");
    let mode = TOPOLOGY_MODES.iter().find_map(|name| annotations.get(name).as_str());
    if !matches!(distribution, "PreferClose" | "PreferSameZone" | "PreferSameNode")
        || matches!(mode, Some("Auto" | "auto"))
    {
        return None;
    }
    let node = Some(node).filter(|node| distribution == "PreferSameNode" && !node.is_empty());
    let mut hints = Map::new();
    for (name, place) in [("forZones", zone.filter(|zone| !zone.is_empty())), ("forNodes", node)] {
        if let Some(place) = place {
            hints.insert(name.into(), json!([{"name": place}]));
        }
    }
    (!hints.is_empty()).then(|| hints.into())
}

/// The Service's labels under the reserved ones, which a Service cannot set itself.
fn labels(service: &Object) -> Value {
    let mut labels = Map::new();
    for (name, value) in service.meta().get("labels").entries() {
        if !matches!(name, SERVICE_NAME | MANAGED_BY | service_pods::HEADLESS_LABEL) {
            labels.insert(name.into(), value.str().into());
        }
    }
    if service_pods::is_headless(service) {
        labels.insert(service_pods::HEADLESS_LABEL.into(), "".into());
    }
    labels.insert(SERVICE_NAME.into(), service.name().into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels.into()
}

/// Same endpoint, whatever its conditions: the pod, or the address where there is none.
fn identity_of(endpoint: &Value) -> String {
    format!("{}|{}|{}", endpoint["addresses"], endpoint["targetRef"]["uid"], endpoint["hostname"])
}

/// The fewest changes that make `existing` say what is wanted: endpoints stay in their slice, changed slices take
/// new ones first, then the fullest slice with room, then new slices.
fn plan(mut wanted: BTreeMap<String, Group>, existing: &[Existing]) -> Plan {
    let mut plan = Plan::default();
    let mut by_ports: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, slice) in existing.iter().enumerate() {
        if slice.owned {
            by_ports.entry(port_key(&slice.ports)).or_default().push(index);
        } else {
            plan.delete.push(index);
        }
    }
    for (key, indices) in by_ports {
        match wanted.remove(&key) {
            Some(group) => fit(group, &indices, existing, &mut plan),
            None => plan.delete.extend(indices),
        }
    }
    for group in wanted.into_values() {
        fit(group, &[], existing, &mut plan);
    }
    // There is always one slice, so that a Service without endpoints can be told from one nobody looked at.
    if plan.create.is_empty() && plan.delete.len() == existing.len() {
        let placeholder =
            |i: &usize| existing[*i].owned && existing[*i].endpoints.is_empty() && existing[*i].ports == json!([]);
        match plan.delete.iter().position(placeholder) {
            Some(at) => drop(plan.delete.remove(at)),
            None => plan.create.push((json!([]), Vec::new())),
        }
    }
    plan
}

fn fit(group: Group, indices: &[usize], existing: &[Existing], plan: &mut Plan) {
    let mut missing: BTreeMap<String, Value> = group.endpoints.into_iter().map(|e| (identity_of(&e), e)).gather();
    // (index, endpoints that stay, changed)
    let mut slices: Vec<(usize, Vec<Value>, bool)> = indices
        .iter()
        .map(|index| {
            let old = &existing[*index].endpoints;
            let kept: Vec<Value> = old.iter().filter_map(|e| missing.remove(&identity_of(e))).collect();
            let changed = kept != *old;
            (*index, kept, changed)
        })
        .collect();
    let mut missing: Vec<Value> = missing.into_values().collect();
    for (_, endpoints, _) in slices.iter_mut().filter(|s| s.2 && !s.1.is_empty()) {
        let room = MAX_ENDPOINTS.saturating_sub(endpoints.len()).min(missing.len());
        endpoints.extend(missing.drain(..room));
    }
    while !missing.is_empty() {
        let count = missing.len().min(MAX_ENDPOINTS);
        let with_room = slices.iter_mut().filter(|s| s.1.len() + count <= MAX_ENDPOINTS);
        match with_room.max_by_key(|s| s.1.len()) {
            Some((_, endpoints, changed)) => {
                endpoints.extend(missing.drain(..count));
                *changed = true;
            }
            None => plan.create.push((group.ports.clone(), missing.drain(..count).collect())),
        }
    }
    // A slice that lost everything goes, but for the last of its ports.
    let mut kept = slices.iter().any(|s| !s.1.is_empty()) || !plan.create.is_empty();
    for (index, endpoints, changed) in slices {
        match (endpoints.is_empty(), changed) {
            (true, _) if kept => plan.delete.push(index),
            (_, true) => plan.update.push((index, endpoints)),
            _ => {}
        }
        kept = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ep(n: usize, ready: bool) -> Value {
        json!({"addresses": [format!("10.42.0.{n}")], "conditions": {"ready": ready}, "targetRef": {"uid": n.to_string()}})
    }

    fn ports() -> Value {
        json!([{"name": "", "port": 80, "protocol": "TCP"}])
    }

    fn wanted(endpoints: Vec<Value>) -> BTreeMap<String, Group> {
        BTreeMap::from([(port_key(&ports()), Group { ports: ports(), endpoints })])
    }

    fn slice(endpoints: Vec<Value>) -> Existing {
        Existing { ports: ports(), endpoints, owned: true }
    }

    #[test]
    fn smallest_change() {
        let check = |wanted: BTreeMap<String, Group>, existing: Vec<Existing>, want: Plan| {
            assert_eq!(plan(wanted, &existing), want);
        };
        let none = || BTreeMap::new();
        // Nothing there, nothing wanted: the placeholder.
        check(none(), vec![], Plan { create: vec![(json!([]), vec![])], ..Plan::default() });
        let placeholder = || Existing { ports: json!([]), endpoints: vec![], owned: true };
        check(none(), vec![placeholder()], Plan::default());
        // First endpoint replaces it.
        check(
            wanted(vec![ep(1, true)]),
            vec![placeholder()],
            Plan { create: vec![(ports(), vec![ep(1, true)])], delete: vec![0], ..Plan::default() },
        );
        // As it should be.
        check(wanted(vec![ep(1, true), ep(2, true)]), vec![slice(vec![ep(2, true), ep(1, true)])], Plan::default());
        // A condition changes in place.
        check(
            wanted(vec![ep(1, false), ep(2, true)]),
            vec![slice(vec![ep(2, true), ep(1, true)])],
            Plan { update: vec![(0, vec![ep(2, true), ep(1, false)])], ..Plan::default() },
        );
        // Another's slice goes.
        let foreign = Existing { ports: ports(), endpoints: vec![], owned: false };
        check(
            wanted(vec![ep(1, true)]),
            vec![foreign, slice(vec![ep(1, true)])],
            Plan { delete: vec![0], ..Plan::default() },
        );
    }

    #[test]
    fn slices_are_bounded() {
        let many: Vec<Value> = (0..250).map(|n| ep(n, true)).collect();
        let made = plan(wanted(many), &[slice((0..100).map(|n| ep(n, true)).collect())]);
        assert!(made.update.is_empty() && made.delete.is_empty());
        let mut sizes: Vec<usize> = made.create.iter().map(|(_, e)| e.len()).collect();
        sizes.order();
        assert_eq!(sizes, [50, 100]);
    }
}
