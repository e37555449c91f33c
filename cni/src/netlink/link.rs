//! Links: the gateway's, veth pairs, and what is set on them.
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
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFF_UP: u32 = 1;

/// What is known of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// "dummy", "veth"; "" for hardware and the loopback.
    pub kind: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    pub up: bool,
}

impl Link {
    /// "0a:58:0a:2a:00:05"
    pub fn mac_text(&self) -> String {
        self.mac.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
    }
}

/// struct ifinfomsg
fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

pub(super) fn parse(payload: &[u8]) -> Option<Link> {
    let mut link = Link { index: u32_at(payload, 4)?, up: u32_at(payload, 8)? & IFF_UP != 0, ..Link::default() };
    for (kind, value) in Attrs::new(payload.get(16..)?) {
        match kind {
            IFLA_IFNAME => text(value).clone_into(&mut link.name),
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_MTU => link.mtu = u32_at(value, 0).unwrap_or(0),
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
    pub mac: [u8; 6],
    pub peer_mac: [u8; 6],
    pub mtu: u32,
}

impl Socket {
    pub fn link(&mut self, name: &str) -> Result<Link> {
        let message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0)).string(IFLA_IFNAME, name);
        let doing = format!("looking for link {name}");
        let mut found = None;
        self.get(message, &doing, &mut |_, payload| found = parse(payload))?;
        found.ok_or(super::Error::Answer { doing, what: "the kernel did not describe it" })
    }

    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        let message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0));
        self.dump(message, "listing links", &mut |kind, payload| {
            if kind == RTM_NEWLINK {
                links.extend(parse(payload));
            }
        })?;
        Ok(links)
    }

    /// A link that is made by naming its kind: "dummy", "bridge". Up at once.
    pub fn create_plain(&mut self, name: &str, kind: &str, mac: [u8; 6], mtu: u32) -> Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(0, IFF_UP, IFF_UP))
            .string(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac)
            .u32(IFLA_MTU, mtu)
            .nest(IFLA_LINKINFO, |info| put_string(info, IFLA_INFO_KIND, kind));
        self.request(message, &format!("creating {kind} link {name}"))
    }

    /// Both ends, the peer already in its namespace under its final name, the host's end up.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> Result<()> {
        let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &header(0, IFF_UP, IFF_UP))
            .string(IFLA_IFNAME, veth.name)
            .u32(IFLA_MTU, veth.mtu)
            .attr(IFLA_ADDRESS, &veth.mac)
            .nest(IFLA_LINKINFO, |info| {
                put_string(info, IFLA_INFO_KIND, "veth");
                nest(info, IFLA_INFO_DATA, |data| {
                    nest(data, VETH_INFO_PEER, |peer| {
                        peer.extend_from_slice(&header(0, 0, 0));
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
        let message = Message::new(RTM_SETLINK, 0, &header(index, IFF_UP, IFF_UP));
        self.request(message, &format!("setting link {index} up"))
    }

    pub fn delete_link(&mut self, name: &str) -> Result<()> {
        let message = Message::new(RTM_DELLINK, 0, &header(0, 0, 0)).string(IFLA_IFNAME, name);
        self.request(message, &format!("deleting link {name}"))
    }
}
