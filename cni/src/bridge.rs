//! The host's side of the pod network: the bridge, its address, and the kernel settings it needs.
//!
//! Pods get a /32 and a route to everything through the gateway, and bridge ports are isolated, so that all traffic
//! between pods is *routed* by the host and none is bridged past it. A pod's answer to a connection that came through
//! a Service therefore always meets connection tracking, which turns its address back; neither the br_netfilter
//! module nor masquerading (which would hide the client's address) is needed for two pods on one node.
use crate::Cidr;
use crate::error::{Error, Result};
use crate::netlink::address::{Address, Route};
use crate::netlink::link::Link;
use crate::netlink::{self, Socket};
use std::fs;
use std::net::IpAddr;

/// When no route says otherwise: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

/// What the node's pod network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub bridge: String,
    pub pod_cidr: Cidr,
    pub cluster_cidr: Cidr,
    /// 0: as the link of the default route.
    pub mtu: u32,
}

impl Network {
    pub fn gateway(&self) -> IpAddr {
        self.pod_cidr.nth(1).unwrap_or(self.pod_cidr.ip)
    }
}

/// A MAC that follows from the address, so that neither ever changes without the other.
pub fn mac_of(ip: IpAddr) -> [u8; 6] {
    let octets = netlink::address::octets(ip);
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    mac[2..].copy_from_slice(&octets[octets.len() - 4..]);
    mac
}

/// Makes the bridge exist, up and with its address. What is right already is left alone.
pub fn ensure(socket: &mut Socket, network: &Network) -> Result<Link> {
    let link = match socket.link(&network.bridge) {
        Ok(link) => link,
        Err(error) if error.is_absent() => create(socket, network)?,
        Err(error) => return Err(error.into()),
    };
    if link.kind != "bridge" {
        return Err(Error::io(&network.bridge, "there is a link of this name that is no bridge"));
    }
    if !link.up {
        socket.set_up(link.index)?;
    }
    let address = Address { link: link.index, ip: network.gateway(), prefix: network.pod_cidr.prefix };
    socket.add_address(&address)?;
    Ok(link)
}

fn create(socket: &mut Socket, network: &Network) -> Result<Link> {
    let mtu = if network.mtu == 0 { route_mtu(socket) } else { network.mtu };
    match socket.create_bridge(&network.bridge, mac_of(network.gateway()), mtu) {
        // Another pod's plugin was quicker.
        Err(error) if !error.is_exists() => return Err(error.into()),
        _ => {}
    }
    // Without redirects: the host would tell pods to speak to each other directly, which isolated ports cannot.
    // With route_localnet a host port answers on 127.0.0.1 too; `ports` drops what pods send there.
    for (key, value) in [("all/send_redirects", "0"), ("{}/send_redirects", "0"), ("{}/route_localnet", "1")] {
        set_sysctl(&format!("net/ipv4/conf/{}", key.replace("{}", &network.bridge)), value)?;
    }
    set_sysctl("net/ipv4/ip_forward", "1")?;
    Ok(socket.link(&network.bridge)?)
}

/// The MTU that packets leave with: of the default route, or of its link.
fn route_mtu(socket: &mut Socket) -> u32 {
    let routes = socket.routes().unwrap_or_default();
    let Some(route) = routes.iter().find(|r: &&Route| r.destination.is_none()) else { return DEFAULT_MTU };
    if route.mtu != 0 {
        return route.mtu;
    }
    let links = socket.links().unwrap_or_default();
    links.iter().find(|l| l.index == route.link).map_or(DEFAULT_MTU, |l| l.mtu)
}

/// Writes a kernel setting of the calling thread's network namespace, unless it is right already (it may be read-only).
pub fn set_sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|e| Error::io(format!("setting {key} to {value}"), e))
}
