//! Links: bridges, veth pairs, and what is set on them.
//!
//! Message layouts: rtnetlink(7), linux/if_link.h. Names are at most 15 bytes (IFNAMSIZ).
use super::message::{Attrs, Message, NLM_F_CREATE, NLM_F_EXCL, nest, put, put_string, put_u32, text, u32_at};
use super::{Result, Socket};
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const IFLA_BRPORT_ISOLATED: u16 = 33;

const IFF_UP: u32 = 1;
const AF_BRIDGE: u8 = 7;

/// What is known of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// "bridge", "veth"; "" for hardware and the loopback.
    pub kind: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    /// Index of the bridge this is a port of, or 0.
    pub master: u32,
    pub up: bool,
}

impl Link {
    /// "0a:58:0a:2a:00:05"
    pub fn mac_text(&self) -> String {
        self.mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
    }
}

/// struct ifinfomsg
fn header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = family;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn parse(payload: &[u8]) -> Option<Link> {
    let mut link = Link { index: u32_at(payload, 4)?, up: u32_at(payload, 8)? & IFF_UP != 0, ..Link::default() };
    for (kind, value) in Attrs::new(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => text(value).clone_into(&mut link.name),
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_MTU => link.mtu = u32_at(value, 0).unwrap_or(0),
            IFLA_MASTER => link.master = u32_at(value, 0).unwrap_or(0),
            IFLA_LINKINFO => {
                link.kind = Attrs::new(value).value(IFLA_INFO_KIND).map(text).unwrap_or("").to_owned();
            }
            _ => {}
        }
    }
    Some(link)
}

/// How a veth pair comes into being: the host's end here, the other end in the pod's namespace.
pub struct Veth<'a> {
    pub name: &'a str,
    pub peer: &'a str,
    pub peer_namespace: BorrowedFd<'a>,
    pub peer_mac: [u8; 6],
    pub master: u32,
    pub mtu: u32,
}

impl Socket {
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0, 0)).string(IFLA_IFNAME, name);
        let doing = format!("looking for link {name}");
        let mut found = None;
        self.get(message, &doing, &mut |_, payload| found = parse(payload))?;
        found.ok_or(super::Error::Answer { doing, what: "the kernel did not describe it" })
    }

    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        let message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0, 0));
        self.dump(message, "listing links", &mut |kind, payload| {
            if kind == RTM_NEWLINK {
                links.extend(parse(payload));
            }
        })?;
        Ok(links)
    }

    /// A bridge without spanning tree and multicast snooping: its ports forward at once and no timer runs for it.
    pub fn create_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(0, 0, IFF_UP, IFF_UP))
            .string(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac)
            .u32(IFLA_MTU, mtu)
            .nest(IFLA_LINKINFO, |info| {
                put_string(info, IFLA_INFO_KIND, "bridge");
                nest(info, IFLA_INFO_DATA, |data| {
                    put_u32(data, IFLA_BR_FORWARD_DELAY, 0);
                    put_u32(data, IFLA_BR_STP_STATE, 0);
                    put(data, IFLA_BR_MCAST_SNOOPING, &[0]);
                });
            });
        self.request(message, &format!("creating bridge {name}"))
    }

    /// Both ends, the peer already in its namespace under its final name, the host's end up and a bridge port.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(0, 0, IFF_UP, IFF_UP))
            .string(IFLA_IFNAME, veth.name)
            .u32(IFLA_MTU, veth.mtu)
            .u32(IFLA_MASTER, veth.master)
            .nest(IFLA_LINKINFO, |info| {
                put_string(info, IFLA_INFO_KIND, "veth");
                nest(info, IFLA_INFO_DATA, |data| {
                    nest(data, VETH_INFO_PEER, |peer| {
                        peer.extend_from_slice(&header(0, 0, 0, 0));
                        put_string(peer, IFLA_IFNAME, veth.peer);
                        put(peer, IFLA_ADDRESS, &veth.peer_mac);
                        put_u32(peer, IFLA_MTU, veth.mtu);
                        put_u32(peer, IFLA_NET_NS_FD, veth.peer_namespace.as_raw_fd() as u32);
                    });
                });
            });
        self.request(message, &format!("creating veth pair {} and {}", veth.name, veth.peer))
    }

    pub fn set_up(&mut self, index: u32) -> Result<()> {
        let message = Message::new(RTM_SETLINK, 0, &header(0, index, IFF_UP, IFF_UP));
        self.request(message, &format!("setting link {index} up"))
    }

    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        let message = Message::new(RTM_SETLINK, 0, &header(0, index, 0, 0)).u32(IFLA_MTU, mtu);
        self.request(message, &format!("setting the MTU of link {index} to {mtu}"))
    }

    /// Isolated bridge ports reach the bridge itself but not each other.
    pub fn set_isolated(&mut self, index: u32) -> Result<()> {
        let message = Message::new(RTM_SETLINK, 0, &header(AF_BRIDGE, index, 0, 0))
            .nest(IFLA_PROTINFO, |port| put(port, IFLA_BRPORT_ISOLATED, &[1]));
        self.request(message, &format!("isolating bridge port {index}"))
    }

    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let message = Message::new(RTM_DELLINK, 0, &header(0, 0, 0, 0)).string(IFLA_IFNAME, name);
        self.request(message, &format!("deleting link {name}"))
    }
}
