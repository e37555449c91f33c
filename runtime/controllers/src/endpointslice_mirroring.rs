//! EndpointSlices for Endpoints that somebody writes by hand, for Services without a selector, so that readers need
//! look at slices only (pkg/controller/endpointslicemirroring).
use crate::{
    endpointslice::{MANAGED_BY, MAX_ENDPOINTS, SERVICE_NAME, service_of},
    owner::{controller_ref, gone_is_fine},
    pod_control,
    session::Session,
};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Ref, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::{Value, json};
use std::{net::IpAddr, sync::Arc};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses taken from one subset.
const MAX_PER_SUBSET: usize = 1000;

struct Controller {
    session: Session,
    services: Arc<Kind>,
    endpoints: Arc<Kind>,
    slices: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "endpointslicemirroring-controller");
    let controller = Controller {
        services: session.kind("", "v1", "services"),
        endpoints: session.kind("", "v1", "endpoints"),
        slices: session.kind("discovery.k8s.io", "v1", "endpointslices"),
        session: session.clone(),
    };
    session.start(controller);
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "services"), ("", "v1", "endpoints"), ("discovery.k8s.io", "v1", "endpointslices")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if &*change.kind.plural == "endpointslices" {
            change.old.iter().chain(&change.new).filter_map(|s| service_of(s, MANAGER)).for_each(|k| queue.add(k));
        } else {
            queue.add(Key::new(object.namespace(), object.name()));
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

/// Endpoints that are anybody's business: not a controller's own, not marked, not a leader election.
fn is_mirrored(endpoints: &Object) -> bool {
    let meta = endpoints.meta();
    meta.get("labels").get(SKIP).str() != "true"
        && !meta.get("annotations").get(LEADER).exists()
        && meta.get("labels").get(crate::endpoints::MANAGED_BY).str() != crate::endpoints::MANAGER
}

/// (family, ports, endpoints) of each slice wanted.
fn wanted(endpoints: &Object) -> Vec<(&'static str, Value, Vec<Value>)> {
    let mut slices: Vec<(&'static str, Value, Vec<Value>)> = Vec::new();
    for subset in endpoints.root().get("subsets").items() {
        let ports: Value = subset.get("ports").items().map(port).collect();
        let all = subset.get("addresses").items().map(|a| (a, true));
        let all = all.chain(subset.get("notReadyAddresses").items().map(|a| (a, false)));
        for (address, ready) in all.take(MAX_PER_SUBSET) {
            let Ok(ip) = address.get("ip").str().parse::<IpAddr>() else { continue };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let endpoint = endpoint(address, ip, ready);
            let room =
                |s: &&mut (&'static str, Value, Vec<Value>)| s.0 == family && s.1 == ports && s.2.len() < MAX_ENDPOINTS;
            match slices.iter_mut().find(room) {
                Some((_, _, list)) => list.push(endpoint),
                None => slices.push((family, ports.clone(), vec![endpoint])),
            }
        }
    }
    slices
}

fn port(port: Ref<'_>) -> Value {
    let mut value = port.to_value();
    if !port.get("name").exists() {
        value["name"] = "".into();
    }
    value
}

fn endpoint(address: Ref<'_>, ip: IpAddr, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [ip.to_string()], "conditions": {"ready": ready}});
    for name in ["targetRef", "nodeName", "hostname"] {
        let value = address.get(name);
        if value.exists() && !value.is_null() {
            endpoint[name] = value.to_value();
        }
    }
    endpoint
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Next, Error> {
        let mut existing = self.session.list(&self.slices, Some(&key.namespace))?;
        existing.retain(|s| service_of(s, MANAGER).as_ref() == Some(key) && !s.is_deleting());
        let service = self.session.get(&self.services, &key.namespace, &key.name).ok();
        let endpoints = self.session.get(&self.endpoints, &key.namespace, &key.name).ok();
        let mirrored = service
            .zip(endpoints)
            .filter(|(s, e)| s.root().at("spec.selector").entries().next().is_none() && is_mirrored(e));
        let mut wanted = mirrored.as_ref().map(|(_, e)| wanted(e)).unwrap_or_default();
        let mut spare = Vec::new();
        for slice in existing {
            let root = slice.root();
            let ports: Value = root.get("ports").items().map(Ref::to_value).collect();
            let same = |w: &(&'static str, Value, Vec<Value>)| w.0 == root.get("addressType").str() && w.1 == ports;
            match wanted.iter().position(same) {
                Some(index) => {
                    let (_, _, endpoints) = wanted.remove(index);
                    if root.get("endpoints").items().map(Ref::to_value).collect::<Vec<_>>() != endpoints {
                        let mut value = slice.to_value();
                        value["endpoints"] = endpoints.into();
                        self.session.update(&self.slices, Sub::Main, value).await?;
                    }
                }
                None => spare.push(slice),
            }
        }
        if let Some((_, endpoints)) = &mirrored {
            for (family, ports, list) in wanted {
                let mut labels = endpoints.meta().get("labels").to_value();
                if !labels.is_object() {
                    labels = json!({});
                }
                labels[SERVICE_NAME] = (*key.name).into();
                labels[MANAGED_BY] = MANAGER.into();
                let slice = json!({
                    "metadata": {
                        "generateName": format!("{}-", key.name), "namespace": &*key.namespace, "labels": labels,
                        "ownerReferences": [controller_ref(endpoints)],
                    },
                    "addressType": family, "ports": ports, "endpoints": list,
                });
                self.session.create(&self.slices, &key.namespace, slice).await?;
            }
        }
        for slice in spare {
            gone_is_fine(self.session.delete(&slice, DeleteOptions::default()).await)?;
        }
        Ok(Next::Done)
    }
}
