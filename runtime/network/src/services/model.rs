//! Services and endpoints as the proxy and the DNS server see them: the few fields that matter, read out of stored
//! objects. Everything here is IPv4 until the node has two families; addresses of the other are passed over.
use mote_cni::Cidr;
use mote_schema::Order as _;
use mote_schema::{Object, Ref};
use std::net::{IpAddr, Ipv4Addr};

/// Beyond this a Service's further endpoints are not used; upstream's controller puts 100 in a slice.
pub const ENDPOINTS_LIMIT: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// TCP when absent, None for what no Service can have.
    pub fn parse(name: &str) -> Option<Protocol> {
        match name {
            "" | "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    /// 0: none.
    pub node_port: u16,
}

/// A Service that is to be proxied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub cluster_ip: Ipv4Addr,
    pub external_ips: Vec<Ipv4Addr>,
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// Who may use the load balancer's addresses; empty: everybody.
    pub source_ranges: Vec<Cidr>,
    pub ports: Vec<Port>,
    /// ClientIP affinity.
    pub affinity_seconds: Option<u32>,
    pub internal_local: bool,
    pub external_local: bool,
}

/// What an endpoint's hints say of where its clients should be: nothing, here, or somewhere else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    #[default]
    None,
    Here,
    Elsewhere,
}

impl Hint {
    fn read(places: Ref<'_>, here: &str) -> Hint {
        places.items().fold(Hint::None, |hint, place| match hint {
            Hint::Here => hint,
            _ if place.get("name").str() == here => Hint::Here,
            _ => Hint::Elsewhere,
        })
    }
}

/// Where this node is: its name, and its zone or nothing.
pub struct Place<'a> {
    pub node: &'a str,
    pub zone: &'a str,
}

/// One address and port behind a Service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: Ipv4Addr,
    pub port: u16,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    pub for_node: Hint,
    pub for_zone: Hint,
}

pub fn ipv4(value: Ref<'_>) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}

pub fn port(value: Ref<'_>) -> u16 {
    value.as_i64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0)
}

/// The Service's cluster address of our family; None for headless ones and ExternalName.
pub fn cluster_ip(spec: Ref<'_>) -> Option<Ipv4Addr> {
    if spec.get("type").str() == "ExternalName" {
        return None;
    }
    ipv4(spec.get("clusterIP")).or_else(|| spec.get("clusterIPs").items().find_map(ipv4))
}

impl Service {
    /// None when the proxy has nothing to do with it (upstream: pkg/proxy/serviceport.go, util ShouldSkipService).
    pub fn read(object: &Object) -> Option<Service> {
        let labels = object.meta().get("labels");
        let others = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
        if others.iter().any(|label| labels.get(label).exists()) {
            return None;
        }
        let spec = object.root().get("spec");
        let kind = spec.get("type").str();
        let external = |t: &str| t == "NodePort" || t == "LoadBalancer";
        let has_external_ips = spec.get("externalIPs").items().next().is_some();
        let source_ranges: Vec<Cidr> = spec
            .get("loadBalancerSourceRanges")
            .items()
            .filter_map(|range| range.str().trim().parse().ok())
            .filter(|range: &Cidr| range.ip.is_ipv4())
            .collect();
        let everybody = source_ranges.iter().any(|range| range.prefix == 0);
        Some(Service {
            cluster_ip: cluster_ip(spec)?,
            external_ips: spec.get("externalIPs").items().filter_map(ipv4).collect(),
            load_balancer_ips: object
                .root()
                .at("status.loadBalancer.ingress")
                .items()
                // A proxying load balancer sends to node ports; its address is not ours to take.
                .filter(|ingress| ingress.get("ipMode").str() != "Proxy")
                .filter_map(|ingress| ipv4(ingress.get("ip")))
                .collect(),
            source_ranges: if everybody { Vec::new() } else { source_ranges },
            ports: spec
                .get("ports")
                .items()
                .filter_map(|p| {
                    Some(Port {
                        name: p.get("name").str().to_owned(),
                        protocol: Protocol::parse(p.get("protocol").str())?,
                        port: port(p.get("port")),
                        node_port: port(p.get("nodePort")),
                    })
                })
                .filter(|p| p.port != 0)
                .collect(),
            affinity_seconds: (spec.get("sessionAffinity").str() == "ClientIP").then(|| {
                let seconds = spec.at("sessionAffinityConfig.clientIP.timeoutSeconds").as_i64();
                seconds.and_then(|s| u32::try_from(s).ok()).filter(|s| *s > 0).unwrap_or(10800)
            }),
            internal_local: spec.get("internalTrafficPolicy").str() == "Local",
            external_local: spec.get("externalTrafficPolicy").str() == "Local" && (external(kind) || has_external_ips),
        })
    }
}

/// The endpoints of one Service port in a slice, appended. Ports match by name and protocol.
pub fn read_endpoints(slice: &Object, wanted: &Port, here: &Place<'_>, out: &mut Vec<Endpoint>) {
    let root = slice.root();
    if root.get("addressType").str() != "IPv4" {
        return;
    }
    for slice_port in root.get("ports").items() {
        let number = port(slice_port.get("port"));
        let protocol = Protocol::parse(slice_port.get("protocol").str());
        if number == 0 || slice_port.get("name").str() != wanted.name || protocol != Some(wanted.protocol) {
            continue;
        }
        for endpoint in root.get("endpoints").items() {
            // Upstream too uses the first address only: the rest are fungible or of no defined meaning.
            let Some(ip) = endpoint.get("addresses").items().next().and_then(ipv4) else { continue };
            let conditions = endpoint.get("conditions");
            let ready = conditions.get("ready").as_bool().unwrap_or(true);
            out.push(Endpoint {
                ip,
                port: number,
                ready,
                serving: conditions.get("serving").as_bool().unwrap_or(ready),
                terminating: conditions.get("terminating").as_bool().unwrap_or(false),
                local: endpoint.get("nodeName").str() == here.node,
                for_node: Hint::read(endpoint.at("hints.forNodes"), here.node),
                for_zone: Hint::read(endpoint.at("hints.forZones"), here.zone),
            });
        }
    }
}

/// Sorted, each address and port once (the slice that says more of it wins), not more than the limit.
pub fn tidy(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let rank = |e: &Endpoint| (e.ip, e.port, !e.ready, !e.serving);
    endpoints.order_by_key(rank);
    endpoints.dedup_by_key(|e| (e.ip, e.port));
    endpoints.truncate(ENDPOINTS_LIMIT);
    endpoints
}

/// What a port's traffic policies allow (upstream: pkg/proxy/topology.go CategorizeEndpoints). Ready endpoints, or,
/// where there are none, those that serve while they terminate; independently for all and for this node's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usable {
    pub cluster: Vec<Endpoint>,
    pub local: Vec<Endpoint>,
    /// Reachable from somewhere: decides between refusing a connection and dropping it.
    pub any: bool,
}

/// Of ready endpoints those that are meant for this node, or else for its zone. Hints count when every one has some
/// of that sort and one is meant for here.
fn preferred(mut ready: Vec<Endpoint>) -> Vec<Endpoint> {
    let sorts: [fn(&Endpoint) -> Hint; 2] = [|e| e.for_node, |e| e.for_zone];
    let counts = |hint: &fn(&Endpoint) -> Hint| {
        ready.iter().all(|e| hint(e) != Hint::None) && ready.iter().any(|e| hint(e) == Hint::Here)
    };
    if let Some(hint) = sorts.into_iter().find(counts) {
        ready.retain(|e| hint(e) == Hint::Here);
    }
    ready
}

pub fn usable(endpoints: &[Endpoint], uses_cluster: bool, uses_local: bool) -> Usable {
    let pick = |local: bool| {
        let among = || endpoints.iter().filter(move |e| !local || e.local);
        let ready: Vec<Endpoint> = among().filter(|e| e.ready).cloned().collect();
        if !ready.is_empty() {
            return if local { ready } else { preferred(ready) };
        }
        among().filter(|e| e.serving && e.terminating).cloned().collect()
    };
    let all = pick(false);
    Usable {
        any: !all.is_empty(),
        local: if uses_local { pick(true) } else { Vec::new() },
        cluster: if uses_cluster { all } else { Vec::new() },
    }
}

pub fn as_ip(ip: Ipv4Addr) -> IpAddr {
    IpAddr::V4(ip)
}
