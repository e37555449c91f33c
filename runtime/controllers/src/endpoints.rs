//! Endpoints, the older form of EndpointSlice, for every Service with a selector: one object, addresses grouped into
//! subsets with the same ports. Behaviour of upstream's pkg/controller/endpoint.
use crate::{owner::gone_is_fine, pod, pod_control, service_pods, session::Session};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Ref, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Order as _;
use mote_schema::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Addresses in one Endpoints object; clients that need more read slices.
const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpoint-controller";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

struct Controller {
    session: Session,
    services: Arc<Kind>,
    pods: Arc<Kind>,
    endpoints: Arc<Kind>,
    /// Services just deleted: their Endpoints go, whoever made them. Endpoints made before their Service stay.
    gone: Mutex<HashSet<Key>>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "endpoint-controller");
    let controller = Controller {
        services: session.kind("", "v1", "services"),
        pods: session.kind("", "v1", "pods"),
        endpoints: session.kind("", "v1", "endpoints"),
        gone: Mutex::default(),
        session: session.clone(),
    };
    session.start(controller);
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "endpoint"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "services"), ("", "v1", "pods"), ("", "v1", "endpoints")]
    }

    fn workers(&self) -> usize {
        4
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        match &*change.kind.plural {
            "pods" => service_pods::wake(&self.session, &self.services, change, queue),
            plural => {
                let key = Key::new(object.namespace(), object.name());
                if plural == "services" && change.new.is_none() {
                    self.gone.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
                }
                queue.add(key);
            }
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

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Next, Error> {
        let current = self.session.get(&self.endpoints, &key.namespace, &key.name).ok();
        let deleted = self.gone.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let service = match self.session.get(&self.services, &key.namespace, &key.name) {
            Ok(service) => service,
            Err(status) if status.is_not_found() => {
                self.remove_stale(current, deleted).await?;
                return Ok(Next::Done);
            }
            Err(status) => return Err(status.into()),
        };
        if service_pods::selector(&service).is_none() || service.is_deleting() {
            return Ok(Next::Done);
        }
        let (subsets, truncated) = self.subsets(&service);
        let labels = labels(&service);
        let Some(current) = current else {
            let mut metadata = json!({"name": &*key.name, "namespace": &*key.namespace, "labels": labels});
            if truncated {
                metadata["annotations"] = json!({OVER_CAPACITY: "truncated"});
            }
            let value = json!({"metadata": metadata, "subsets": subsets});
            self.session.create(&self.endpoints, &key.namespace, value).await?;
            return Ok(Next::Done);
        };
        let said = current.root().get("subsets").items().map(Ref::to_value).collect::<Vec<_>>();
        let marked = current.meta().get("annotations").get(OVER_CAPACITY).exists();
        if said == subsets && current.meta().get("labels").to_value() == labels && marked == truncated {
            return Ok(Next::Done);
        }
        let mut value = current.to_value();
        value["subsets"] = subsets.into();
        value["metadata"]["labels"] = labels;
        if truncated {
            value["metadata"]["annotations"][OVER_CAPACITY] = "truncated".into();
        } else if let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(OVER_CAPACITY);
        }
        self.session.update(&self.endpoints, Sub::Main, value).await?;
        Ok(Next::Done)
    }

    /// Endpoints without a Service go, unless they hold a leader election.
    async fn remove_stale(&self, current: Option<Object>, deleted: bool) -> Result<(), Error> {
        let Some(stale) = current.filter(|e| !e.meta().get("annotations").get(LEADER).exists()) else { return Ok(()) };
        // Left over from before this start, and ours by its label; anything else may be waiting for its Service.
        if !deleted && stale.meta().get("labels").get(MANAGED_BY).str() != MANAGER {
            return Ok(());
        }
        gone_is_fine(self.session.delete(&stale, DeleteOptions::default()).await)?;
        Ok(())
    }

    fn subsets(&self, service: &Object) -> (Vec<Value>, bool) {
        let all = service_pods::publishes_not_ready(service);
        let mut addresses = Addresses::default();
        for pod in service_pods::backing(&self.session, &self.pods, service, all) {
            let Some(ip) = address_for(service, &pod) else { continue };
            let ready = all || pod::is_ready(&pod);
            let mut address = json!({
                "ip": ip.to_string(),
                "targetRef": {"kind": "Pod", "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid()},
            });
            if !pod::node_name(&pod).is_empty() {
                address["nodeName"] = pod::node_name(&pod).into();
            }
            if let Some(hostname) = service_pods::hostname(&pod, service) {
                address["hostname"] = hostname.into();
            }
            let ports = service.root().at("spec.ports").items();
            let found: Vec<Value> = ports
                .filter_map(|port| {
                    let mut entry = Map::new();
                    if let Some(name) = port.get("name").as_str().filter(|name| !name.is_empty()) {
                        entry.insert("name".into(), name.into());
                    }
                    entry.insert("port".into(), service_pods::find_port(&pod, port)?.into());
                    entry.insert("protocol".into(), port.get("protocol").as_str().unwrap_or("TCP").into());
                    if let Some(protocol) = port.get("appProtocol").as_str() {
                        entry.insert("appProtocol".into(), protocol.into());
                    }
                    Some(Value::Object(entry))
                })
                .collect();
            // Only a headless Service has endpoints without ports.
            if !found.is_empty()
                || service_pods::is_headless(service) && service.root().at("spec.ports").items().next().is_none()
            {
                addresses.add(address, found, ready);
            }
        }
        addresses.into_subsets()
    }
}

/// The address of the pod in the Service's first family.
fn address_for(service: &Object, pod: &Object) -> Option<IpAddr> {
    let family = service.root().at("spec.ipFamilies").items().next().map_or("IPv4", |f| f.str());
    service_pods::ips(pod).find(|ip| ip.is_ipv4() == (family != "IPv6"))
}

fn labels(service: &Object) -> Value {
    let mut labels = service.meta().get("labels").to_value();
    if !labels.is_object() {
        labels = json!({});
    }
    if service_pods::is_headless(service) {
        labels[service_pods::HEADLESS_LABEL] = "".into();
    } else if let Some(labels) = labels.as_object_mut() {
        labels.remove(service_pods::HEADLESS_LABEL);
    }
    labels[MANAGED_BY] = MANAGER.into();
    labels
}

/// Addresses by the ports they have.
#[derive(Default)]
struct Addresses(BTreeMap<String, Subset>);

#[derive(Default)]
struct Subset {
    ports: Vec<Value>,
    ready: Vec<Value>,
    not_ready: Vec<Value>,
}

impl Addresses {
    fn add(&mut self, address: Value, mut ports: Vec<Value>, ready: bool) {
        ports.order_by_key(ToString::to_string);
        let key = Value::from(ports.clone()).to_string();
        let subset = self.0.entry(key).or_insert_with(|| Subset { ports, ..Subset::default() });
        if ready { &mut subset.ready } else { &mut subset.not_ready }.push(address);
    }

    /// Subsets in a stable order, and whether some addresses did not fit; ready ones have precedence.
    fn into_subsets(self) -> (Vec<Value>, bool) {
        let total: usize = self.0.values().map(|s| s.ready.len() + s.not_ready.len()).sum();
        let ready: usize = self.0.values().map(|s| s.ready.len()).sum();
        let mut room_ready = MAX_ADDRESSES;
        let mut room_not_ready = MAX_ADDRESSES.saturating_sub(ready);
        let take = |list: &mut Vec<Value>, room: &mut usize| {
            list.order_by_key(|a| {
                (a["ip"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()), a["targetRef"]["uid"].to_string())
            });
            list.truncate(*room);
            *room -= list.len();
        };
        let mut subsets = Vec::new();
        for Subset { ports, mut ready, mut not_ready } in self.0.into_values() {
            take(&mut ready, &mut room_ready);
            take(&mut not_ready, &mut room_not_ready);
            let mut subset = Map::new();
            for (name, list) in [("addresses", ready), ("notReadyAddresses", not_ready), ("ports", ports)] {
                if !list.is_empty() {
                    subset.insert(name.into(), list.into());
                }
            }
            if subset.contains_key("addresses") || subset.contains_key("notReadyAddresses") {
                subsets.push(subset.into());
            }
        }
        (subsets, total > MAX_ADDRESSES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_by_ports() {
        let mut addresses = Addresses::default();
        let ports = || vec![json!({"port": 80, "protocol": "TCP"})];
        addresses.add(json!({"ip": "10.0.0.10"}), ports(), true);
        addresses.add(json!({"ip": "10.0.0.9"}), ports(), true);
        addresses.add(json!({"ip": "10.0.0.2"}), ports(), false);
        let (subsets, truncated) = addresses.into_subsets();
        assert!(!truncated);
        assert_eq!(
            subsets,
            [json!({
                "addresses": [{"ip": "10.0.0.9"}, {"ip": "10.0.0.10"}],
                "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 80, "protocol": "TCP"}],
            })]
        );
    }

    #[test]
    fn bounded() {
        let mut addresses = Addresses::default();
        for n in 0..1100 {
            addresses.add(json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)}), vec![], n % 2 == 0);
        }
        let (subsets, truncated) = addresses.into_subsets();
        assert!(truncated);
        assert_eq!(subsets[0]["addresses"].as_array().unwrap().len(), 550);
        assert_eq!(subsets[0]["notReadyAddresses"].as_array().unwrap().len(), 450);
    }
}
