//! The cluster as DNS sees it: read from the API server's memory at the moment of the question.
use super::answer::{Address, NamedPort, Service, View};
use crate::Error;
use crate::services::model::{self, cluster_ip};
use crate::slices::{Slices, owner};
use mote_api::driver::Key;
use mote_api::{Client, Kind, Object, Ref};
use mote_schema::Order as _;
use std::net::IpAddr;
use std::sync::Arc;

pub struct Cluster {
    client: Client,
    namespaces: Arc<Kind>,
    services: Arc<Kind>,
    endpoint_slices: Arc<Kind>,
    slices: Arc<Slices>,
}

impl Cluster {
    pub fn new(client: &Client, slices: Arc<Slices>) -> Result<Cluster, Error> {
        let kind = |group: &str, version: &str, plural: &'static str| {
            client.kind(group, version, plural).ok_or(Error::NoSuchKind(plural))
        };
        Ok(Cluster {
            namespaces: kind("", "v1", "namespaces")?,
            services: kind("", "v1", "services")?,
            endpoint_slices: kind("discovery.k8s.io", "v1", "endpointslices")?,
            client: client.clone(),
            slices,
        })
    }
}

fn named_ports(list: Ref<'_>) -> Vec<NamedPort> {
    let port = |p: Ref<'_>| NamedPort {
        name: p.get("name").str().to_owned(),
        protocol: p.get("protocol").as_str().unwrap_or("TCP").to_ascii_lowercase(),
        port: model::port(p.get("port")),
    };
    list.items().map(port).filter(|p| p.port != 0).collect()
}

fn read_service(object: &Object) -> Service {
    let spec = object.root().get("spec");
    if spec.get("type").str() == "ExternalName" {
        return Service::External(spec.get("externalName").str().to_owned());
    }
    if cluster_ip(spec).is_none() && spec.get("clusterIP").str().parse::<IpAddr>().is_err() {
        return Service::Headless;
    }
    let mut ips: Vec<IpAddr> = spec.get("clusterIPs").items().filter_map(|ip| ip.str().parse().ok()).collect();
    if ips.is_empty() {
        ips.extend(spec.get("clusterIP").str().parse::<IpAddr>());
    }
    Service::Cluster { ips, ports: named_ports(spec.get("ports")) }
}

/// The name under which an endpoint is known below its Service.
fn hostname(endpoint: Ref<'_>, ip: IpAddr) -> String {
    match endpoint.get("hostname").str() {
        "" => ip.to_string().replace(['.', ':'], "-"),
        hostname => hostname.to_owned(),
    }
}

/// Ready endpoints of a slice, with each of their addresses.
fn ready<'a>(slice: &'a Object) -> impl Iterator<Item = (Ref<'a>, IpAddr)> {
    let endpoints = slice.root().get("endpoints").items();
    let endpoints = endpoints.filter(|e| e.at("conditions.ready").as_bool().unwrap_or(true));
    endpoints.flat_map(|e| {
        let ips = e.get("addresses").items().filter_map(|ip| ip.str().parse().ok());
        ips.map(move |ip| (e, ip))
    })
}

impl View for Cluster {
    fn has_namespace(&self, namespace: &str) -> bool {
        self.client.get(&self.namespaces, "", namespace).is_ok()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        Some(read_service(&self.client.get(&self.services, namespace, name).ok()?))
    }

    fn addresses(&self, namespace: &str, service: &str) -> Vec<Address> {
        let mut addresses = Vec::new();
        for name in self.slices.of(&Key::new(namespace, service)) {
            let Ok(slice) = self.client.get(&self.endpoint_slices, namespace, &name) else { continue };
            let ports = named_ports(slice.root().get("ports"));
            addresses.extend(ready(&slice).map(|(endpoint, ip)| Address {
                ip,
                hostname: hostname(endpoint, ip),
                ports: ports.clone(),
            }));
        }
        addresses
    }

    fn service_at(&self, ip: IpAddr) -> Option<(String, String)> {
        let services = self.client.list(&self.services, None).ok()?;
        let has = |o: &&Object| matches!(read_service(o), Service::Cluster { ips, .. } if ips.contains(&ip));
        services.iter().find(has).map(|o| (o.namespace().to_owned(), o.name().to_owned()))
    }

    fn endpoints_at(&self, at: IpAddr) -> Vec<(String, String, String)> {
        let mut found = Vec::new();
        for slice in self.client.list(&self.endpoint_slices, None).unwrap_or_default() {
            let Some(service) = owner(&slice) else { continue };
            for (endpoint, ip) in ready(&slice).filter(|(_, ip)| *ip == at) {
                found.push((hostname(endpoint, ip), service.name.to_string(), service.namespace.to_string()));
            }
        }
        found.order();
        found.dedup();
        found
    }

    fn serial(&self) -> u32 {
        self.client.snapshot().revision() as u32
    }
}
