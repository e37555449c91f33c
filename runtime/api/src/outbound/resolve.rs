//! A Service's name to a pod's address, through its EndpointSlices: cluster addresses work only where this node's
//! service proxy runs. Texts and order of apiserver/pkg/util/proxy ResolveEndpoint.
use super::connect::Place;
use crate::{registry::random, server::Api};
use mote_schema::{Object, Ref, status::go_quote};
use std::net::{IpAddr, SocketAddr};

/// The error is what upstream's dialer says.
pub(crate) fn resolve(api: &Api, namespace: &str, name: &str, port: u16) -> Result<Place, String> {
    let quoted = go_quote(name);
    let service = api.lookup("", "v1", "services", namespace, name);
    let service = service.ok_or_else(|| format!("service {quoted} not found"))?;
    let spec = service.root().get("spec");
    match spec.get("type").str() {
        "ExternalName" => return Ok(Place::of(spec.get("externalName").str(), port)),
        "" | "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        other => return Err(format!("unsupported service type {}", go_quote(other))),
    }
    let wanted = spec.get("ports").items().find(|found| found.get("port").as_i64() == Some(port.into()));
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {quoted}"))?;
    let port_name = wanted.get("name").str();
    let none = || format!("no endpoints available for service {quoted}");
    let mut places = from_slices(api, namespace, name, port_name);
    if places.is_empty() {
        places = from_endpoints(api, namespace, name, port_name);
    }
    // The service's first family is preferred.
    let is_first = |address: &SocketAddr| address.is_ipv6() == (spec.at("ipFamilies").index(0).str() == "IPv6");
    if places.iter().any(is_first) {
        places.retain(is_first);
    }
    let at = u64::from_ne_bytes(random()) % (places.len().max(1) as u64);
    places.get(at as usize).copied().map(Place::Address).ok_or_else(none)
}

fn from_slices(api: &Api, namespace: &str, name: &str, port_name: &str) -> Vec<SocketAddr> {
    let mut places = Vec::new();
    for slice in slices_of(api, namespace, name) {
        let root = slice.root();
        let Some(port) = number(root.get("ports"), port_name) else { continue };
        for endpoint in root.get("endpoints").items() {
            let is_ready = endpoint.at("conditions.ready").as_bool().unwrap_or(true);
            let ip = endpoint.get("addresses").index(0).str().parse::<IpAddr>();
            places.extend(ip.ok().filter(|_| is_ready).map(|ip| SocketAddr::new(ip, port)));
        }
    }
    places
}

pub(crate) fn slices_of(api: &Api, namespace: &str, name: &str) -> Vec<Object> {
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("discovery.k8s.io", "v1", "endpointslices") else { return Vec::new() };
    let prefix = api.list_prefix(kind, namespace);
    let all = api.store.snapshot();
    let all = all.range(&prefix, None).map(|entry| crate::feed::object(kind, &entry));
    all.filter(|slice| slice.meta().get("labels").get("kubernetes.io/service-name").str() == name).collect()
}

/// Where slices are not made: a node without controllers.
fn from_endpoints(api: &Api, namespace: &str, name: &str, port_name: &str) -> Vec<SocketAddr> {
    let Some(endpoints) = api.lookup("", "v1", "endpoints", namespace, name) else { return Vec::new() };
    let mut places = Vec::new();
    for subset in endpoints.root().get("subsets").items() {
        let Some(port) = number(subset.get("ports"), port_name) else { continue };
        let ips = subset.get("addresses").items().filter_map(|address| address.get("ip").str().parse().ok());
        places.extend(ips.map(|ip: IpAddr| SocketAddr::new(ip, port)));
    }
    places
}

fn number(ports: Ref<'_>, name: &str) -> Option<u16> {
    let port = ports.items().find(|port| port.get("name").str() == name)?;
    u16::try_from(port.get("port").as_i64()?).ok()
}
