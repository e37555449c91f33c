//! Addresses, routes and neighbours, of IPv4 and IPv6 alike.
//!
//! Message layouts: rtnetlink(7). "Add" means "make it so": what is there already is no error.
use super::message::{Attrs, Message, NLM_F_CREATE, NLM_F_REPLACE, u32_at};
use super::{Result, Socket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTAX_MTU: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const RT_TABLE_MAIN: u8 = 254;
/// "boot": put there by an administrator's tool, not by a routing daemon or the kernel.
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub fn from_octets(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|b| IpAddr::V4(Ipv4Addr::from(*b))),
        16 => bytes.first_chunk::<16>().map(|b| IpAddr::V6(Ipv6Addr::from(*b))),
        _ => None,
    }
}

/// Where a route leads. `destination` None is the default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: Option<(IpAddr, u8)>,
    pub gateway: Option<IpAddr>,
    pub link: u32,
    /// The source address that the host's own connections get.
    pub source: Option<IpAddr>,
    /// 0 when the route does not say.
    pub mtu: u32,
}

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub ip: IpAddr,
    pub prefix: u8,
}

fn address_message(kind: u16, flags: u16, address: &Address) -> Message {
    let mut header = [family(address.ip), address.prefix, 0, RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&address.link.to_ne_bytes());
    let bytes = octets(address.ip);
    Message::new(kind, flags, &header).attr(IFA_LOCAL, &bytes).attr(IFA_ADDRESS, &bytes)
}

impl Socket {
    pub fn add_address(&mut self, address: &Address) -> Result<()> {
        let message = address_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, address);
        self.request(message, &format!("adding address {}/{} to link {}", address.ip, address.prefix, address.link))
    }

    pub fn delete_address(&mut self, address: &Address) -> Result<()> {
        let message = address_message(RTM_DELADDR, 0, address);
        self.request(message, &format!("removing address {}/{} from link {}", address.ip, address.prefix, address.link))
    }

    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        self.dump(Message::new(RTM_GETADDR, 0, &[0; 8]), "listing addresses", &mut |kind, payload| {
            let Some(link) = u32_at(payload, 4).filter(|_| kind == RTM_NEWADDR) else { return };
            let attrs = Attrs::new(payload.get(8..).unwrap_or(&[]));
            if let Some(ip) = attrs.value(IFA_LOCAL).or(attrs.value(IFA_ADDRESS)).and_then(from_octets) {
                addresses.push(Address { link, ip, prefix: payload[1] });
            }
        })?;
        Ok(addresses)
    }

    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        self.request(route_message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, route), &format!("adding {route}"))
    }

    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.request(route_message(RTM_DELROUTE, 0, route), &format!("removing {route}"))
    }

    /// Routes of the main table.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        self.dump(Message::new(RTM_GETROUTE, 0, &[0; 12]), "listing routes", &mut |kind, payload| {
            if kind == RTM_NEWROUTE {
                routes.extend(parse_route(payload));
            }
        })?;
        Ok(routes)
    }

    /// A neighbour that is never asked for.
    pub fn add_neighbour(&mut self, link: u32, ip: IpAddr, mac: &[u8]) -> Result<()> {
        let mut header = [0; 12];
        header[0] = family(ip);
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &header)
            .attr(NDA_DST, &octets(ip))
            .attr(NDA_LLADDR, mac);
        self.request(message, &format!("adding neighbour {ip} on link {link}"))
    }
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    let any = route.gateway.or(route.source).or(route.destination.map(|d| d.0)).unwrap_or(IpAddr::V4(0.into()));
    let prefix = route.destination.map_or(0, |d| d.1);
    let scope = if route.gateway.is_some() || any.is_ipv6() { RT_SCOPE_UNIVERSE } else { RT_SCOPE_LINK };
    let header = [family(any), prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
    let mut message = Message::new(kind, flags, &header).u32(RTA_OIF, route.link);
    if let Some((ip, _)) = route.destination {
        message = message.attr(RTA_DST, &octets(ip));
    }
    if let Some(ip) = route.gateway {
        message = message.attr(RTA_GATEWAY, &octets(ip));
    }
    if let Some(ip) = route.source {
        message = message.attr(RTA_PREFSRC, &octets(ip));
    }
    message
}

pub(super) fn parse_route(payload: &[u8]) -> Option<Route> {
    let (prefix, table, kind) = (*payload.get(1)?, *payload.get(4)?, *payload.get(7)?);
    if table != RT_TABLE_MAIN || kind != RTN_UNICAST {
        return None;
    }
    let mut route = Route { destination: None, gateway: None, link: 0, source: None, mtu: 0 };
    for (kind, value) in Attrs::new(payload.get(12..)?) {
        match kind {
            RTA_DST => route.destination = from_octets(value).map(|ip| (ip, prefix)),
            RTA_GATEWAY => route.gateway = from_octets(value),
            RTA_OIF => route.link = u32_at(value, 0).unwrap_or(0),
            RTA_PREFSRC => route.source = from_octets(value),
            RTA_METRICS => route.mtu = Attrs::new(value).value(RTAX_MTU).and_then(|v| u32_at(v, 0)).unwrap_or(0),
            _ => {}
        }
    }
    Some(route)
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.destination {
            Some((ip, prefix)) => write!(f, "route {ip}/{prefix}")?,
            None => f.write_str("default route")?,
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        write!(f, " on link {}", self.link)
    }
}
