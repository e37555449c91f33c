//! The host's side of the pod network: one link that carries the gateway's address, and the kernel settings needed.
//!
//! There is no bridge. A pod's veth pair ends in the host, which has a /32 route to the pod over it; the pod has a
//! /32 address and a default route through the gateway. So all traffic between pods is *routed* by the host, and a
//! pod's answer to a connection that came through a Service always meets connection tracking, which turns its
//! address back. Over a bridge that holds only with the br_netfilter module, or when every connection is masqueraded
//! (hiding the client's address); and a bridge behaves differently once some other program loads that module.
use crate::Cidr;
use crate::error::{Error, Result};
use crate::netlink::address::{self, Address, Route};
use crate::netlink::link::Link;
use crate::netlink::{Protocol, Socket};
use rustix::io::Errno;
use std::fs;
use std::net::IpAddr;

/// When no route says otherwise: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// What the names of all links of ours begin with; packet rules tell pods by it.
pub const LINK_PREFIX: &str = "mote";
/// Kinds of link that swallow what is sent over them, the first that this kernel has.
const KINDS: [&str; 2] = ["dummy", "bridge"];

/// What the node's pod network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The link that carries the gateway's address: "mote0".
    pub link: String,
    pub pod_cidr: Cidr,
    pub cluster_cidr: Cidr,
    /// 0: as the link of the default route.
    pub mtu: u32,
}

impl Network {
    /// The first address of the pods' range.
    pub fn gateway(&self) -> IpAddr {
        self.pod_cidr.nth(1).unwrap_or(self.pod_cidr.ip)
    }
}

/// A MAC that follows from the address, so that neither ever changes without the other.
pub fn mac_of(ip: IpAddr) -> [u8; 6] {
    let octets = address::octets(ip);
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    mac[2..].copy_from_slice(&octets[octets.len() - 4..]);
    mac
}

/// Makes the link exist, up and with its address. What is right already is left alone.
pub fn ensure(socket: &mut Socket, network: &Network) -> Result<Link> {
    let link = match socket.link(&network.link) {
        Ok(link) => link,
        Err(error) if error.is_absent() => create(socket, network)?,
        Err(error) => return Err(error.into()),
    };
    if !KINDS.contains(&link.kind.as_str()) {
        return Err(Error::io(&network.link, "there is a link of this name that is not Mote's"));
    }
    if !link.up {
        socket.set_up(link.index)?;
    }
    let gateway = Cidr::host(network.gateway());
    socket.add_address(&Address { link: link.index, ip: gateway.ip, prefix: gateway.prefix })?;
    Ok(link)
}

fn create(socket: &mut Socket, network: &Network) -> Result<Link> {
    let mtu = if network.mtu == 0 { route_mtu(socket) } else { network.mtu };
    for kind in KINDS {
        match socket.create_plain(&network.link, kind, mac_of(network.gateway()), mtu) {
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => continue,
            // Another pod's plugin was quicker.
            Err(error) if !error.is_exists() => return Err(error.into()),
            _ => break,
        }
    }
    set_sysctl("net/ipv4/ip_forward", "1")?;
    Ok(socket.link(&network.link)?)
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

/// Removes every link of ours from this network namespace: pods lose their network. All is tried; all errors are told.
pub fn remove() -> Result<()> {
    let mut socket = Socket::open(Protocol::Route)?;
    let mut errors = Vec::new();
    for link in socket.links()? {
        let ours = link.name.starts_with(LINK_PREFIX) && (KINDS.contains(&link.kind.as_str()) || link.kind == "veth");
        if ours && let Err(error) = socket.delete_link(&link.name) {
            errors.extend((!error.is_absent()).then(|| error.into()));
        }
    }
    Error::all(errors).map_or(Ok(()), Err)
}

/// Writes a kernel setting of the calling thread's network namespace, unless it is right already (it may be read-only).
pub fn set_sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{key}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|e| Error::io(format!("setting {key} to {value}"), e))
}
