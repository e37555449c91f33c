//! Which pods stand behind a Service and at which ports: what Endpoints and EndpointSlice are both made of.
use crate::{owner::labels_contain, pod, session::Session};
use mote_api::{
    Change, Kind, Object, Ref,
    driver::{Key, Queue},
};
use std::{net::IpAddr, sync::Arc};

pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The selector, when these controllers have anything to do with the Service.
pub fn selector(service: &Object) -> Option<Ref<'_>> {
    let spec = service.root().get("spec");
    let selector = spec.get("selector");
    (selector.entries().next().is_some() && spec.get("type").str() != "ExternalName").then_some(selector)
}

pub fn selects(service: &Object, pod: &Object) -> bool {
    selector(service).is_some_and(|s| labels_contain(pod.meta().get("labels"), s))
}

pub fn is_headless(service: &Object) -> bool {
    matches!(service.root().at("spec.clusterIP").str(), "" | "None")
}

pub fn publishes_not_ready(service: &Object) -> bool {
    service.root().at("spec.publishNotReadyAddresses").as_bool() == Some(true)
}

/// Wakes the Services whose endpoints a pod's change may alter.
pub fn wake(session: &Session, services: &Arc<Kind>, change: &Change, queue: &Queue) {
    if let (Some(old), Some(new)) = (&change.old, &change.new)
        && pod::same_for_endpoints(old, new)
    {
        return;
    }
    for service in session.list(services, Some(change.object().namespace())).unwrap_or_default() {
        if change.old.iter().chain(&change.new).any(|pod| selects(&service, pod)) {
            queue.add(Key::new(service.namespace(), service.name()));
        }
    }
}

/// Pods that `service` selects and that have an address, in order of name.
pub fn backing(session: &Session, pods: &Arc<Kind>, service: &Object, terminating_too: bool) -> Vec<Object> {
    let all = session.list(pods, Some(service.namespace())).unwrap_or_default();
    let usable = |p: &Object| {
        selects(service, p) && !pod::is_finished(p) && (terminating_too || !p.is_deleting()) && ips(p).next().is_some()
    };
    all.into_iter().filter(usable).collect()
}

pub fn ips(pod: &Object) -> impl Iterator<Item = IpAddr> {
    pod.root().at("status.podIPs").items().filter_map(|ip| ip.get("ip").str().parse().ok())
}

/// The number that a Service port's targetPort stands for in this pod. Names are looked for in containers, then in
/// sidecars.
pub fn find_port(pod: &Object, service_port: Ref<'_>) -> Option<i64> {
    let target = service_port.get("targetPort");
    if let Some(number) = target.as_i64() {
        return Some(number);
    }
    let name = target.as_str()?;
    let protocol = |port: Ref<'_>| port.get("protocol").as_str().unwrap_or("TCP").to_owned();
    let wanted = protocol(service_port);
    let spec = pod.root().get("spec");
    let sidecars = spec.get("initContainers").items().filter(|c| c.get("restartPolicy").str() == "Always");
    let containers = spec.get("containers").items().chain(sidecars);
    let mut ports = containers.flat_map(|c| c.get("ports").items());
    let found = ports.find(|p| p.get("name").str() == name && protocol(*p) == wanted)?;
    found.get("containerPort").as_i64()
}

/// The hostname that DNS shall know the pod by under this Service.
pub fn hostname<'a>(pod: &'a Object, service: &Object) -> Option<&'a str> {
    let spec = pod.root().get("spec");
    let hostname = spec.get("hostname").as_str().filter(|name| !name.is_empty())?;
    (spec.get("subdomain").str() == service.name()).then_some(hostname)
}
