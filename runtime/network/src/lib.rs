//! The node's network for Kubernetes: Services and cluster DNS. Pods' own links are the CNI plugin's (`mote-cni`).
//!
//! `start` sets the host up and follows the API server; `Handle::stop` leaves every rule in place, since containers
//! go on serving without us; `remove_all` takes everything away.

/// Names for Services and pods, and everybody else's by asking on.
mod dns;
/// For the fuzz targets.
#[cfg(fuzzing)]
pub mod fuzzing;
/// The host's addresses, routes and settings.
mod host;
/// Packet rules for Services.
pub mod services;
/// Which EndpointSlices a Service has.
mod slices;

use mote_api::{Client, driver};
use mote_cni::{Cidr, Network, gateway, ports};
use services::proxy::{Proxy, everything};
use services::rules;
use slices::Slices;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

/// The link that carries the gateway's and the DNS server's address.
pub const LINK: &str = "mote0";

#[derive(Clone, Debug)]
pub struct Config {
    /// As the Node object is named: endpoints with this nodeName are "local".
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// Every pod's address, on any node.
    pub cluster_cidr: Cidr,
    /// This node's pods' addresses; the first is their gateway.
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    /// "cluster.local"
    pub dns_domain: String,
    /// Where pods expect the cluster's DNS server.
    pub dns_ip: Ipv4Addr,
    /// Whether names are answered here; else by a Service at `dns_ip`, like any other.
    pub dns: bool,
    /// Whether Services are made to work here, or by somebody else's proxy.
    pub proxy: bool,
    /// The host's, read again whenever it changes.
    pub resolv_conf: PathBuf,
    /// Pods' links; 0: as the link of the default route.
    pub mtu: u32,
    /// For the answers of servers outside the cluster.
    pub dns_cache_limit_bytes: usize,
}

impl Config {
    /// What the CNI plugin is configured with.
    pub fn pod_network(&self) -> Network {
        Network { link: LINK.to_owned(), pod_cidr: self.pod_cidr, cluster_cidr: self.cluster_cidr, mtu: self.mtu }
    }

    fn rules(&self) -> rules::Network {
        let dns_ip = self.own_dns_ip();
        rules::Network { cluster_cidr: self.cluster_cidr, service_cidr: self.service_cidr, dns_ip }
    }

    /// None: the DNS server's address is a Service's as any other.
    fn own_dns_ip(&self) -> Option<Ipv4Addr> {
        self.dns.then_some(self.dns_ip)
    }
}

#[derive(Debug)]
pub enum Error {
    /// Links, addresses, routes or rules.
    Host(mote_cni::Error),
    /// The DNS server's sockets.
    Dns { address: IpAddr, error: std::io::Error },
    /// The API server does not serve a kind that the proxy lives on.
    NoSuchKind(&'static str),
}

impl From<mote_cni::Error> for Error {
    fn from(error: mote_cni::Error) -> Error {
        Error::Host(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Host(error) => write!(f, "setting up the host's network: {error}"),
            Error::Dns { address, error } => write!(f, "serving DNS at {address}: {error}"),
            Error::NoSuchKind(plural) => write!(f, "the API server does not serve {plural}"),
        }
    }
}

impl std::error::Error for Error {}

/// A running network.
pub struct Handle {
    proxy: Arc<Proxy>,
    dns: Option<dns::Server>,
}

impl Handle {
    /// Ends following the API server and answering names. Links, addresses and rules stay: containers keep serving.
    pub fn stop(&self) {
        self.proxy.stop();
        if let Some(dns) = &self.dns {
            dns.stop();
        }
    }

    /// Whether the rules of all Services have been written once.
    pub fn is_synced(&self) -> bool {
        self.proxy.is_synced()
    }
}

pub async fn start(client: Client, config: Config) -> Result<Handle, Error> {
    let prepared = config.clone();
    mote_api::unblock(move || host::prepare(&prepared)).await?;
    let slices = Arc::new(Slices::default());
    let proxy = Arc::new(Proxy::new(client.clone(), &config, slices.clone())?);
    let dns = config.dns.then(|| dns::Server::start(&client, &config, slices)).transpose()?;
    if config.proxy || config.dns {
        let queue = driver::start(&client, proxy.clone());
        // Also with no Service at all the table is to be written, and an old one to go.
        queue.add(everything());
    }
    Ok(Handle { proxy, dns })
}

/// Removes every link, address, route and rule that Mote made in this network namespace. Pods lose their network.
pub fn remove_all() -> Result<(), Error> {
    // Addresses and routes go with their links.
    let steps = [services::remove_rules(), ports::remove().map(drop), gateway::remove()];
    let errors = steps.into_iter().filter_map(Result::err).collect();
    mote_cni::Error::all(errors).map_or(Ok(()), |error| Err(error.into()))
}
