//! The pod network's packet rules, in a table of their own: masquerading of what leaves the cluster network, and host
//! ports. The rules never change; host ports are elements of two maps, so a pod costs one transaction of a few
//! messages however many pods there are.
use crate::config::{PortMapping, host_ip, protocol_number};
use crate::error::Result;
use crate::gateway::{LINK_PREFIX, Network};
use crate::netlink::address::octets;
use crate::netlink::expr::{
    CT_STATUS_DNAT, Compare, Data, FIB_LOCAL, FibOf, Header, Meta, R0, R1, R2, R4, R5, Rule, Track, Verdict,
};
use crate::netlink::nft::{
    BaseChain, Batch, FAMILY_IPV4, Field, Holds, Hook, PRIORITY_DNAT, PRIORITY_RAW, PRIORITY_SNAT, Set,
};
use crate::netlink::{Protocol, Socket};
use std::borrow::Cow;
use std::net::IpAddr;

pub const TABLE: &str = "mote-pods";

const ANY_NAME: &str = "host-ports";
const ONE_NAME: &str = "host-ip-ports";
const HAIRPIN_NAME: &str = "hairpin";
const ENDPOINT: &[Field] = &[Field::Ipv4Address, Field::Port];
/// protocol . host port -> pod . port, on every address of the host
const ANY: Set = Set {
    name: Cow::Borrowed(ANY_NAME),
    key: &[Field::Protocol, Field::Port],
    holds: Holds::Values(ENDPOINT),
    remembered_limit: None,
};
/// host address . protocol . host port -> pod . port
const ONE: Set = Set {
    name: Cow::Borrowed(ONE_NAME),
    key: &[Field::Ipv4Address, Field::Protocol, Field::Port],
    holds: Holds::Values(ENDPOINT),
    remembered_limit: None,
};
/// pod . pod, for a pod that speaks to itself through its host port
const HAIRPIN: Set = Set {
    name: Cow::Borrowed(HAIRPIN_NAME),
    key: &[Field::Ipv4Address, Field::Ipv4Address],
    holds: Holds::Keys,
    remembered_limit: None,
};

const RAW: BaseChain =
    BaseChain { name: "raw-prerouting", kind: "filter", hook: Hook::Prerouting, priority: PRIORITY_RAW };
const PREROUTING: BaseChain =
    BaseChain { name: "nat-prerouting", kind: "nat", hook: Hook::Prerouting, priority: PRIORITY_DNAT };
const OUTPUT: BaseChain = BaseChain { name: "nat-output", kind: "nat", hook: Hook::Output, priority: PRIORITY_DNAT };
const POSTROUTING: BaseChain =
    BaseChain { name: "nat-postrouting", kind: "nat", hook: Hook::Postrouting, priority: PRIORITY_SNAT };

const UDP: u8 = 17;
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
/// A pod rarely has more; the rest of the flows end by their own timeout.
const FLOWS_LIMIT: usize = 4096;

fn address_at(rule: Rule, offset: u32, compare: Compare, network: &[u8], mask: &[u8]) -> Rule {
    rule.payload(Header::Network, offset, 4, R0).bitwise(R0, mask, &[0; 4]).compare(compare, R0, network)
}

fn rules(network: &Network) -> Vec<(&'static str, Rule)> {
    // Comparing fewer bytes than a name has compares its beginning.
    let ours = LINK_PREFIX.as_bytes();
    let cidr = |rule, offset, compare, cidr: &crate::Cidr| {
        address_at(rule, offset, compare, &cidr.network_octets(), &cidr.mask_octets())
    };
    let local = || Rule::new().fib_type(FibOf::Destination, R0).compare(Compare::Equal, R0, &FIB_LOCAL.to_ne_bytes());
    let mut rules = vec![(
        RAW.name,
        // What route_localnet would otherwise open to pods.
        address_at(
            Rule::new().meta(Meta::InputName, R0).compare(Compare::Equal, R0, ours),
            DESTINATION_OFFSET,
            Compare::Equal,
            &[127, 0, 0, 0],
            &[255, 0, 0, 0],
        )
        .verdict(Verdict::Drop),
    )];
    for chain in [PREROUTING.name, OUTPUT.name] {
        let one = local()
            .payload(Header::Network, DESTINATION_OFFSET, 4, R0)
            .meta(Meta::L4Proto, R1)
            .payload(Header::Transport, 2, 2, R2)
            .map(ONE_NAME, R0, R4)
            .dnat(FAMILY_IPV4, R4, R5);
        let any = local().meta(Meta::L4Proto, R0).payload(Header::Transport, 2, 2, R1).map(ANY_NAME, R0, R4).dnat(
            FAMILY_IPV4,
            R4,
            R5,
        );
        rules.extend([(chain, one), (chain, any)]);
    }
    let hairpin = Rule::new()
        .track(Track::Status, R0)
        .bitwise(R0, &CT_STATUS_DNAT.to_ne_bytes(), &[0; 4])
        .compare(Compare::NotEqual, R0, &[0; 4])
        .payload(Header::Network, SOURCE_OFFSET, 4, R0)
        .payload(Header::Network, DESTINATION_OFFSET, 4, R1)
        .is_in(HAIRPIN_NAME, R0)
        .masquerade();
    let from_localhost = address_at(
        Rule::new().meta(Meta::OutputName, R0).compare(Compare::Equal, R0, ours),
        SOURCE_OFFSET,
        Compare::Equal,
        &[127, 0, 0, 0],
        &[255, 0, 0, 0],
    )
    .masquerade();
    let leaving = cidr(Rule::new(), SOURCE_OFFSET, Compare::Equal, &network.pod_cidr);
    let leaving = cidr(leaving, DESTINATION_OFFSET, Compare::NotEqual, &network.cluster_cidr);
    // Multicast keeps its sender.
    let leaving = address_at(leaving, DESTINATION_OFFSET, Compare::NotEqual, &[224, 0, 0, 0], &[240, 0, 0, 0]);
    rules.extend([
        (POSTROUTING.name, hairpin),
        (POSTROUTING.name, from_localhost),
        (POSTROUTING.name, leaving.masquerade()),
    ]);
    rules
}

/// Writes the rules. Host ports that are in use stay. Without `force` an existing table is believed to be right.
pub fn ensure(network: &Network, force: bool) -> Result<()> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    if !force && socket.has_table(FAMILY_IPV4, TABLE)? {
        return Ok(());
    }
    let mut batch = Batch::new(FAMILY_IPV4, TABLE);
    batch.add_table();
    for set in [&ANY, &ONE, &HAIRPIN] {
        batch.add_set(set);
    }
    for chain in [&RAW, &PREROUTING, &OUTPUT, &POSTROUTING] {
        batch.add_base_chain(chain);
        batch.flush_chain(chain.name);
    }
    for (chain, rule) in rules(network) {
        batch.add_rule(chain, rule);
    }
    Ok(batch.commit(&mut socket, "writing the pod network's rules")?)
}

/// Takes the rules away; containers' host ports go with them.
pub fn remove() -> Result<bool> {
    Ok(Socket::open(Protocol::Netfilter)?.remove_table(FAMILY_IPV4, TABLE)?)
}

struct Entry {
    set: &'static str,
    key: Vec<u8>,
    data: Data,
}

fn entries(pod: IpAddr, ports: &[PortMapping]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for mapping in ports.iter().filter(|m| m.host_port != 0) {
        let mut key = Vec::new();
        let host = host_ip(mapping)?;
        if host.is_some_and(|ip| ip.is_ipv4() != pod.is_ipv4()) {
            continue;
        }
        key.extend(host.map(octets).unwrap_or_default());
        key.extend([protocol_number(&mapping.protocol)?, 0, 0, 0]);
        key.extend(mapping.host_port.to_be_bytes());
        key.extend([0, 0]);
        let mut data = octets(pod);
        data.extend(mapping.container_port.to_be_bytes());
        data.extend([0, 0]);
        let set = if host.is_some() { ONE_NAME } else { ANY_NAME };
        entries.push(Entry { set, key, data: Data::Value(data) });
    }
    Ok(entries)
}

fn hairpin_key(pod: IpAddr) -> Vec<u8> {
    [octets(pod), octets(pod)].concat()
}

/// Opens a pod's host ports. One that another pod has fails the whole: nothing is opened then.
pub fn open(pod: IpAddr, ports: &[PortMapping]) -> Result<()> {
    let entries = entries(pod, ports)?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut batch = Batch::new(FAMILY_IPV4, TABLE);
    for entry in &entries {
        batch.add_elements(entry.set, [(entry.key.as_slice(), Some(&entry.data))]);
    }
    let hairpin = hairpin_key(pod);
    batch.add_elements(HAIRPIN_NAME, [(hairpin.as_slice(), None)]);
    batch.commit(&mut socket, &format!("opening host ports of {pod}"))?;
    forget(&mut socket, pod, ports)
}

/// Closes them; what is closed already is no error. Another pod's use of the same port is left alone.
pub fn close(pod: IpAddr, ports: &[PortMapping]) -> Result<()> {
    let entries = entries(pod, ports)?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut batch = Batch::new(FAMILY_IPV4, TABLE);
    for set in [ANY_NAME, ONE_NAME] {
        let here = match socket.elements(FAMILY_IPV4, TABLE, set) {
            Ok(here) => here,
            Err(error) if error.is_absent() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let ours = entries.iter().filter(|e| e.set == set);
        let ours = ours.filter(|e| here.iter().any(|h| h.key == e.key && h.data.as_ref() == Some(&e.data)));
        batch.delete_elements(set, ours.map(|e| e.key.as_slice()));
    }
    let hairpin = hairpin_key(pod);
    if socket.elements(FAMILY_IPV4, TABLE, HAIRPIN_NAME)?.iter().any(|h| h.key == hairpin) {
        batch.delete_elements(HAIRPIN_NAME, [hairpin.as_slice()]);
    }
    batch.commit(&mut socket, &format!("closing host ports of {pod}"))?;
    forget(&mut socket, pod, ports)
}

/// UDP has no end of a connection: flows to these ports that were set up under other rules would go on for ever.
fn forget(socket: &mut Socket, pod: IpAddr, ports: &[PortMapping]) -> Result<()> {
    let udp: Vec<u16> = ports.iter().filter(|m| protocol_number(&m.protocol) == Ok(UDP)).map(|m| m.host_port).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let stale = |flow: &crate::netlink::conntrack::Flow| {
        flow.protocol == UDP && udp.contains(&flow.destination_port) && flow.destination != pod
    };
    for flow in socket.flows(FAMILY_IPV4, FLOWS_LIMIT, &stale)? {
        socket.forget(FAMILY_IPV4, &flow)?;
    }
    Ok(())
}
