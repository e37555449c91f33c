//! The proxy's table: its sets and maps, the chains that never change, and the chains made on demand.
//!
//! # Design
//! A Service is *elements of maps only*; it has no chain and no rule of its own. A packet's way:
//!
//! 1. `services` maps (address . protocol . port) to a chain. Node ports stand there under address 0.0.0.0.
//! 2. That chain is shared by every Service port of the same *shape*: how many endpoints, affinity or not, which
//!    policy. `pick-3` draws a slot below 3, looks up (address . protocol . port . slot) in `endpoints` and translates
//!    the destination to the address and port found.
//! 3. Session affinity is a set per slot, `affinity-0` and on, shared by all: which (client . address . protocol .
//!    port) is tied to that slot. The packets themselves fill and renew them, in `tie-0` and on. (A map to the
//!    endpoint would do with fewer, but nft 1.0.6 aborts when it lists rules that remember what a map yields.)
//!
//! So an endpoint that changes costs one element, a new Service a handful, whatever else there is; and upstream's
//! chain per Service port and set per endpoint (pkg/proxy/nftables) need not exist. What clients see is upstream's:
//! refuse when nothing serves (`no-endpoints`), drop when a Local policy has nothing here, masquerade what comes from
//! outside or goes to itself, leave 127.0.0.1 without node ports.
use mote_cni::Cidr;
use mote_cni::netlink::expr::{
    CT_STATE_NEW, CT_STATUS_DNAT, Compare, FIB_LOCAL, FibOf, Header, Meta, Register, Rule, Track, Verdict,
};
use mote_cni::netlink::nft::{
    BaseChain, Batch, FAMILY_IPV4, Field, Holds, Hook, PRIORITY_DNAT, PRIORITY_FILTER, PRIORITY_SNAT, Set,
};
use std::borrow::Cow;
use std::net::Ipv4Addr;

pub const TABLE: &str = "mote-services";
/// Kubernetes' own masquerade bit, so that rules others wrote for it keep their meaning.
const MASQUERADE_MARK: u32 = 0x4000;
/// How many clients a slot remembers; further ones are spread anew each time.
const AFFINITY_LIMIT: u32 = 65536;
/// The slots of this node's endpoints begin here when a Service has a pool of them.
pub const LOCAL_SLOT: u32 = 1 << 16;

const FRONT: &[Field] = &[Field::Ipv4Address, Field::Protocol, Field::Port];
const BACK: &[Field] = &[Field::Ipv4Address, Field::Port];

/// The sets and maps, in the order in which the table lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    ClusterIps,
    Services,
    Endpoints,
    NoEndpoints,
    Firewall,
    Hairpin,
}

impl Map {
    pub const ALL: [Map; 6] =
        [Map::ClusterIps, Map::Services, Map::Endpoints, Map::NoEndpoints, Map::Firewall, Map::Hairpin];

    pub const fn set(self) -> Set {
        let (name, key, holds): (_, &'static [Field], _) = match self {
            Map::ClusterIps => ("cluster-ips", &[Field::Ipv4Address], Holds::Keys),
            Map::Services => ("services", FRONT, Holds::Verdicts),
            Map::Endpoints => {
                ("endpoints", &[Field::Ipv4Address, Field::Protocol, Field::Port, Field::Number], Holds::Values(BACK))
            }
            Map::NoEndpoints => ("no-endpoints", FRONT, Holds::Verdicts),
            Map::Firewall => ("firewall", FRONT, Holds::Verdicts),
            Map::Hairpin => ("hairpin", &[Field::Ipv4Address, Field::Ipv4Address], Holds::Keys),
        };
        Set { name: Cow::Borrowed(name), key, holds, remembered_limit: None }
    }
}

/// client . address . protocol . port
const AFFINITY_KEY: &[Field] = &[Field::Ipv4Address, Field::Ipv4Address, Field::Protocol, Field::Port];

/// The name of the set of what is tied to a slot.
pub fn affinity_set(slot: u32) -> String {
    format!("affinity-{slot}")
}

pub fn add_affinity_set(batch: &mut Batch, slot: u32) {
    batch.add_set(&Set {
        name: affinity_set(slot).into(),
        key: AFFINITY_KEY,
        holds: Holds::Keys,
        remembered_limit: Some(AFFINITY_LIMIT),
    });
}

const fn filter(name: &'static str, hook: Hook, priority: i32) -> BaseChain {
    BaseChain { name, kind: "filter", hook, priority }
}
const fn nat(name: &'static str, hook: Hook, priority: i32) -> BaseChain {
    BaseChain { name, kind: "nat", hook, priority }
}

/// Before translation: who may use a load balancer's address.
const FIREWALL_PREROUTING: BaseChain = filter("firewall-prerouting", Hook::Prerouting, PRIORITY_DNAT - 10);
const FIREWALL_OUTPUT: BaseChain = filter("firewall-output", Hook::Output, PRIORITY_DNAT - 10);
const FILTER_INPUT: BaseChain = filter("filter-input", Hook::Input, PRIORITY_FILTER);
const FILTER_FORWARD: BaseChain = filter("filter-forward", Hook::Forward, PRIORITY_FILTER);
const FILTER_OUTPUT: BaseChain = filter("filter-output", Hook::Output, PRIORITY_FILTER);
const NAT_PREROUTING: BaseChain = nat("nat-prerouting", Hook::Prerouting, PRIORITY_DNAT);
const NAT_OUTPUT: BaseChain = nat("nat-output", Hook::Output, PRIORITY_DNAT);
const NAT_POSTROUTING: BaseChain = nat("nat-postrouting", Hook::Postrouting, PRIORITY_SNAT);

const DISPATCH: &str = "dispatch";
/// Refuses; what `no-endpoints` sends packets to.
pub const REJECT: &str = "reject";

/// What is compared and then forgotten.
const R0: Register = Register(8);
const R1: Register = Register(9);
/// The client's address; with the front after it, the key of `affinity`.
const CLIENT: Register = Register(10);
/// Destination address, protocol and port; with the slot after them, the key of `endpoints`.
const FRONT_IP: Register = Register(11);
const FRONT_PROTOCOL: Register = Register(12);
const FRONT_PORT: Register = Register(13);
const SLOT: Register = Register(14);
const BACK_IP: Register = Register(15);
const BACK_PORT: Register = Register(16);

const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;

/// By which key a packet finds its Service port: its destination, or, for a node port, 0.0.0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    Address,
    NodePort,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    pub by: By,
    /// Of this node's endpoints only.
    pub local: bool,
    pub count: u32,
    pub affinity_seconds: Option<u32>,
}

/// A chain made on demand and shared by all Service ports that need one like it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    Pick(Pick),
    /// Masquerades, then picks: traffic from outside under the Cluster policy.
    Masquerade(Pick),
    /// Traffic to an external address under the Local policy: pods and the host reach every endpoint, others only
    /// this node's (`None`: there is none).
    ExternalLocal(Pick, Option<Pick>),
    /// Ties the client to a slot, and goes there.
    Tie {
        by: By,
        slot: u32,
        seconds: u32,
    },
    /// Drops what does not come from these.
    Sources(Vec<Range>),
}

/// A range in a form that sorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    pub ip: Ipv4Addr,
    pub prefix: u8,
}

impl Pick {
    fn name(&self) -> String {
        let by = if self.by == By::NodePort { "node-port-" } else { "" };
        let local = if self.local { "local-" } else { "" };
        let affinity = self.affinity_seconds.map_or(String::new(), |s| format!("-affinity-{s}"));
        format!("{by}{local}pick-{}{affinity}", self.count)
    }
}

impl Chain {
    pub fn name(&self) -> String {
        match self {
            Chain::Pick(pick) => pick.name(),
            Chain::Masquerade(pick) => format!("masquerade-{}", pick.name()),
            Chain::ExternalLocal(cluster, local) => {
                format!("external-{}-local-{}", cluster.name(), local.map_or(0, |pick| pick.count))
            }
            Chain::Tie { by, slot, seconds } => tie_name(*by, *slot, *seconds),
            Chain::Sources(ranges) => {
                let hash = ranges.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, range| {
                    let bytes = range.ip.octets().into_iter().chain([range.prefix]);
                    bytes.fold(hash, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
                });
                format!("sources-{hash:016x}")
            }
        }
    }

    /// How this chain, or those it goes on to, choose endpoints. The latter must exist before it.
    pub fn picks(&self) -> Vec<Pick> {
        match self {
            Chain::Sources(_) | Chain::Tie { .. } => Vec::new(),
            Chain::Pick(pick) | Chain::Masquerade(pick) => vec![*pick],
            Chain::ExternalLocal(cluster, local) => [Some(*cluster), *local].into_iter().flatten().collect(),
        }
    }

    pub fn rules(&self, network: &Network) -> Vec<Rule> {
        let goto = |rule: Rule, pick: &Pick| rule.verdict(Verdict::Goto(pick.name()));
        match self {
            Chain::Pick(pick) => pick.rules(),
            Chain::Tie { by, slot, seconds } => {
                let set = affinity_set(*slot);
                vec![
                    // Ends here when the set is full, which only means that the client is not remembered.
                    client(by.key()).remember(&set, CLIENT, u64::from(*seconds) * 1000),
                    translate(by.key().load(SLOT, &slot.to_ne_bytes())),
                ]
            }
            Chain::Masquerade(pick) => vec![mark(Rule::new()), goto(Rule::new(), pick)],
            Chain::ExternalLocal(cluster, local) => {
                let from_host =
                    || Rule::new().fib_type(FibOf::Source, R0).compare(Compare::Equal, R0, &FIB_LOCAL.to_ne_bytes());
                let from_pod = within(Rule::new(), SOURCE_OFFSET, Compare::Equal, &network.cluster_cidr);
                let mut rules = vec![goto(from_pod, cluster), mark(from_host()), goto(from_host(), cluster)];
                rules.extend(local.as_ref().map(|pick| goto(Rule::new(), pick)));
                rules
            }
            Chain::Sources(ranges) => {
                let allow = |range: &Range| {
                    let cidr = Cidr { ip: range.ip.into(), prefix: range.prefix };
                    within(Rule::new(), SOURCE_OFFSET, Compare::Equal, &cidr).verdict(Verdict::Return)
                };
                ranges.iter().map(allow).chain([Rule::new().verdict(Verdict::Drop)]).collect()
            }
        }
    }
}

impl By {
    fn key(self) -> Rule {
        match self {
            By::Address => front(Rule::new()),
            By::NodePort => node_port_front(Rule::new()),
        }
    }
}

fn tie_name(by: By, slot: u32, seconds: u32) -> String {
    let by = if by == By::NodePort { "node-port-" } else { "" };
    format!("{by}tie-{slot}-affinity-{seconds}")
}

fn client(rule: Rule) -> Rule {
    rule.payload(Header::Network, SOURCE_OFFSET, 4, CLIENT)
}

/// To the endpoint at the front and slot that are loaded.
fn translate(rule: Rule) -> Rule {
    rule.map(&Map::Endpoints.set().name, FRONT_IP, BACK_IP).dnat(FAMILY_IPV4, BACK_IP, BACK_PORT)
}

impl Pick {
    /// The slots to choose from.
    pub fn slots(&self) -> std::ops::Range<u32> {
        let first = if self.local { LOCAL_SLOT } else { 0 };
        first..first + self.count
    }

    /// The chains this one goes on to, which must exist before it.
    pub fn ties(&self) -> Vec<Chain> {
        let seconds = self.affinity_seconds.into_iter();
        seconds.flat_map(|seconds| self.slots().map(move |slot| Chain::Tie { by: self.by, slot, seconds })).collect()
    }

    fn rules(&self) -> Vec<Rule> {
        let Some(seconds) = self.affinity_seconds else {
            return vec![translate(self.by.key().random(self.count, self.slots().start, SLOT))];
        };
        let goto = |rule: Rule, slot| rule.verdict(Verdict::Goto(tie_name(self.by, slot, seconds)));
        let tied = |slot| goto(client(self.by.key()).is_in(&affinity_set(slot), CLIENT), slot);
        // One in so many as are left goes to the next; the last takes the rest.
        let drawn = |slot| {
            let left = self.slots().end - slot;
            goto(Rule::new().random(left, 0, R0).compare(Compare::Equal, R0, &0u32.to_ne_bytes()), slot)
        };
        self.slots().map(tied).chain(self.slots().map(drawn)).collect()
    }
}

/// What the fixed rules need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    /// Answers by itself, through no rule.
    pub dns_ip: Option<Ipv4Addr>,
}

fn within(rule: Rule, offset: u32, compare: Compare, cidr: &Cidr) -> Rule {
    rule.payload(Header::Network, offset, 4, R0).bitwise(R0, &cidr.mask_octets(), &[0; 4]).compare(
        compare,
        R0,
        &cidr.network_octets(),
    )
}

/// destination address . protocol . destination port
fn front(rule: Rule) -> Rule {
    protocol_and_port(rule.payload(Header::Network, DESTINATION_OFFSET, 4, FRONT_IP))
}

fn node_port_front(rule: Rule) -> Rule {
    protocol_and_port(rule.load(FRONT_IP, &[0; 4]))
}

fn protocol_and_port(rule: Rule) -> Rule {
    rule.meta(Meta::L4Proto, FRONT_PROTOCOL).payload(Header::Transport, 2, 2, FRONT_PORT)
}

fn not_localhost(rule: Rule) -> Rule {
    let localhost = Cidr { ip: Ipv4Addr::LOCALHOST.into(), prefix: 8 };
    within(rule, DESTINATION_OFFSET, Compare::NotEqual, &localhost)
}

fn new_connection() -> Rule {
    Rule::new().track(Track::State, R0).bitwise(R0, &CT_STATE_NEW.to_ne_bytes(), &[0; 4]).compare(
        Compare::NotEqual,
        R0,
        &[0; 4],
    )
}

fn mark(rule: Rule) -> Rule {
    let bit = MASQUERADE_MARK.to_ne_bytes();
    rule.meta(Meta::Mark, R0).bitwise(R0, &(!MASQUERADE_MARK).to_ne_bytes(), &bit).set_mark(R0)
}

/// The table as it is with no Service at all, replacing whatever there was under its name.
pub fn write_base(batch: &mut Batch, network: &Network) {
    batch.replace_table();
    for map in Map::ALL {
        batch.add_set(&map.set());
    }
    for chain in [DISPATCH, REJECT] {
        batch.add_chain(chain);
    }
    let bases = [
        &FIREWALL_PREROUTING,
        &FIREWALL_OUTPUT,
        &FILTER_INPUT,
        &FILTER_FORWARD,
        &FILTER_OUTPUT,
        &NAT_PREROUTING,
        &NAT_OUTPUT,
        &NAT_POSTROUTING,
    ];
    for chain in bases {
        batch.add_base_chain(chain);
    }
    for (chain, rule) in base_rules(network) {
        batch.add_rule(chain, rule);
    }
}

fn base_rules(network: &Network) -> Vec<(&'static str, Rule)> {
    let (services, nowhere) = (&Map::Services.set().name, &Map::NoEndpoints.set().name);
    let mut rules = vec![(REJECT, Rule::new().reject())];

    for chain in [FIREWALL_PREROUTING.name, FIREWALL_OUTPUT.name] {
        rules.push((chain, front(new_connection()).verdict_map(&Map::Firewall.set().name, FRONT_IP)));
    }

    rules.push((FILTER_INPUT.name, node_port_front(not_localhost(new_connection())).verdict_map(nowhere, FRONT_IP)));
    for chain in [FILTER_INPUT.name, FILTER_FORWARD.name, FILTER_OUTPUT.name] {
        rules.push((chain, front(new_connection()).verdict_map(nowhere, FRONT_IP)));
    }
    for chain in [FILTER_FORWARD.name, FILTER_OUTPUT.name] {
        let to = |rule: Rule| rule.payload(Header::Network, DESTINATION_OFFSET, 4, R0);
        rules.extend(
            network
                .dns_ip
                .map(|ip| (chain, to(Rule::new()).compare(Compare::Equal, R0, &ip.octets()).verdict(Verdict::Return))),
        );
        rules.extend([
            // A cluster address, but none of its ports.
            (chain, to(new_connection()).is_in(&Map::ClusterIps.set().name, R0).reject()),
            // Nobody's cluster address.
            (
                chain,
                within(new_connection(), DESTINATION_OFFSET, Compare::Equal, &network.service_cidr)
                    .verdict(Verdict::Drop),
            ),
        ]);
    }

    for chain in [NAT_PREROUTING.name, NAT_OUTPUT.name] {
        rules.push((chain, Rule::new().verdict(Verdict::Jump(DISPATCH.to_owned()))));
    }
    let to_cluster_ip =
        Rule::new().payload(Header::Network, DESTINATION_OFFSET, 4, R0).is_in(&Map::ClusterIps.set().name, R0);
    let local = Rule::new().fib_type(FibOf::Destination, R0).compare(Compare::Equal, R0, &FIB_LOCAL.to_ne_bytes());
    rules.extend([
        // From outside the cluster, by a static route to this node: the answer must come back here.
        (DISPATCH, mark(within(to_cluster_ip, SOURCE_OFFSET, Compare::NotEqual, &network.cluster_cidr))),
        (DISPATCH, front(Rule::new()).verdict_map(services, FRONT_IP)),
        (DISPATCH, node_port_front(not_localhost(local)).verdict_map(services, FRONT_IP)),
    ]);

    let marked = Rule::new()
        .meta(Meta::Mark, R0)
        .bitwise(R0, &MASQUERADE_MARK.to_ne_bytes(), &[0; 4])
        .compare(Compare::NotEqual, R0, &[0; 4])
        .meta(Meta::Mark, R0)
        .bitwise(R0, &(!MASQUERADE_MARK).to_ne_bytes(), &[0; 4])
        .set_mark(R0)
        .masquerade();
    let to_itself = Rule::new()
        .track(Track::Status, R0)
        .bitwise(R0, &CT_STATUS_DNAT.to_ne_bytes(), &[0; 4])
        .compare(Compare::NotEqual, R0, &[0; 4])
        .payload(Header::Network, SOURCE_OFFSET, 4, R0)
        .payload(Header::Network, DESTINATION_OFFSET, 4, R1)
        .is_in(&Map::Hairpin.set().name, R0)
        .masquerade();
    rules.extend([(NAT_POSTROUTING.name, marked), (NAT_POSTROUTING.name, to_itself)]);
    rules
}
