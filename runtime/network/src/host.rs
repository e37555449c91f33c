//! What the host itself needs: the pod network's link with the cluster DNS server's address, a way to Service
//! addresses (the route only decides the source address; the destination is translated before anything is sent),
//! and kernel settings. What an earlier process left of a part that is now somebody else's goes. Works with nothing but
//! the loopback up.
use crate::{Config, services};
use mote_cni::gateway::{self, set_sysctl};
use mote_cni::netlink::address::{Address, Route};
use mote_cni::netlink::{Protocol, Socket};
use mote_cni::{Cidr, ports};

/// Kernel settings that Services need; the pod network's own are the plugin's.
const SETTINGS: [(&str, &str); 1] = [("net/ipv4/ip_forward", "1")];

pub fn prepare(config: &Config) -> Result<(), mote_cni::Error> {
    for (key, value) in SETTINGS {
        // It may be read-only and set by somebody else; pods without it merely do not reach far.
        if let Err(error) = set_sysctl(key, value) {
            tracing::warn!(%error, "a kernel setting that Services need cannot be made");
        }
    }
    let network = config.pod_network();
    let mut socket = Socket::open(Protocol::Route)?;
    let link = gateway::ensure(&mut socket, &network)?.index;
    let dns = Cidr::host(config.dns_ip.into());
    let dns = Address { link, ip: dns.ip, prefix: dns.prefix };
    if config.dns {
        socket.add_address(&dns)?;
    } else {
        socket.delete_address(&dns).or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })?;
    }
    if !config.proxy {
        services::remove_rules()?;
    }
    socket.add_route(&Route {
        destination: config.service_cidr.nth(0).map(|ip| (ip, config.service_cidr.prefix)),
        gateway: None,
        link,
        source: Some(network.gateway()),
        mtu: 0,
    })?;
    ports::ensure(&network, true)
}
