//! What one Service wants in the table: a pure function of the Service and its endpoints.
use super::model::{Endpoint, Port, Protocol, Service, usable};
use super::rules::{By, Chain, Map, Pick, REJECT, Range};
use mote_cni::netlink::expr::{Data, Verdict};
use mote_schema::Gather as _;
use mote_schema::Order as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// A UDP address and port, and who may answer for it: flows to others are to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpFront {
    /// None: any address of the host (a node port).
    pub ip: Option<Ipv4Addr>,
    pub port: u16,
    pub serving: BTreeSet<(Ipv4Addr, u16)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub elements: BTreeMap<(Map, Vec<u8>), Option<Data>>,
    pub chains: BTreeSet<Chain>,
    pub udp: Vec<UdpFront>,
    /// The fronts with affinity: what is in each slot (address and port as bytes).
    pub sticky: BTreeMap<Vec<u8>, BTreeMap<u32, Vec<u8>>>,
}

/// address . protocol . port
pub fn front_key(ip: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    let mut key = ip.octets().to_vec();
    key.extend([protocol as u8, 0, 0, 0]);
    key.extend(port.to_be_bytes());
    key.extend([0, 0]);
    key
}

/// address . port
pub fn back(endpoint: &Endpoint) -> Vec<u8> {
    let mut data = endpoint.ip.octets().to_vec();
    data.extend(endpoint.port.to_be_bytes());
    data.extend([0, 0]);
    data
}

/// `endpoints` are a port's, tidy. With affinity, an endpoint keeps the slot that it has in the `previous` plan.
pub fn plan(
    service: &Service,
    node_ip: IpAddr,
    endpoints: &dyn Fn(&Port) -> Vec<Endpoint>,
    previous: Option<&Plan>,
) -> Plan {
    let mut plan = Builder { plan: Plan::default(), previous };
    plan.plan.elements.insert((Map::ClusterIps, service.cluster_ip.octets().to_vec()), None);
    for port in &service.ports {
        plan.port(service, node_ip, port, &endpoints(port));
    }
    plan.plan
}

struct Builder<'a> {
    plan: Plan,
    previous: Option<&'a Plan>,
}

impl Builder<'_> {
    fn port(&mut self, service: &Service, node_ip: IpAddr, port: &Port, endpoints: &[Endpoint]) {
        let external = port.node_port != 0 || !service.load_balancer_ips.is_empty() || !service.external_ips.is_empty();
        let uses_cluster = !service.internal_local || external;
        let uses_local = service.internal_local || (service.external_local && external);
        let usable = usable(endpoints, uses_cluster, uses_local);

        // On a single node the two pools are usually one.
        let own_pool = usable.local != usable.cluster;
        let pools = Pools { cluster: &usable.cluster, local: own_pool.then_some(&usable.local) };
        for endpoint in usable.cluster.iter().chain(&usable.local).filter(|e| e.local) {
            let itself = [endpoint.ip.octets(), endpoint.ip.octets()].concat();
            self.plan.elements.insert((Map::Hairpin, itself), None);
        }
        let all = |by| pick(by, false, &usable.cluster, service);
        let here = |by| pick(by, own_pool, &usable.local, service);

        let nothing = if usable.any { Verdict::Drop } else { Verdict::Goto(REJECT.to_owned()) };
        let inside = if service.internal_local { here(By::Address) } else { all(By::Address) };
        let front = front_key(service.cluster_ip, port.protocol, port.port);
        match inside {
            Some(pick) => self.serve(front, Chain::Pick(pick), &pools),
            None => self.refuse(front, nothing.clone()),
        }

        let addresses = service.external_ips.iter().chain(&service.load_balancer_ips);
        let mut fronts: Vec<(By, Vec<u8>)> =
            addresses.map(|ip| (By::Address, front_key(*ip, port.protocol, port.port))).collect();
        if port.node_port != 0 {
            fronts.push((By::NodePort, front_key(Ipv4Addr::UNSPECIFIED, port.protocol, port.node_port)));
        }
        for (by, front) in fronts {
            let (all, here) = (all(by), here(by));
            let reachable = if service.external_local { here.is_some() } else { all.is_some() };
            match all {
                Some(all) if service.external_local => {
                    self.serve(front.clone(), Chain::ExternalLocal(all, here), &pools);
                }
                Some(all) => self.serve(front.clone(), Chain::Masquerade(all), &pools),
                None => {}
            }
            if !reachable {
                self.refuse(front, nothing.clone());
            }
        }
        self.firewall(service, node_ip, port);

        let serving: BTreeSet<_> = endpoints.iter().filter(|e| e.serving).map(|e| (e.ip, e.port)).gather();
        if port.protocol == Protocol::Udp && !serving.is_empty() {
            let ips = [service.cluster_ip];
            let ips = ips.iter().chain(&service.external_ips).chain(&service.load_balancer_ips);
            let serving = || serving.clone();
            self.plan.udp.extend(ips.map(|ip| UdpFront { ip: Some(*ip), port: port.port, serving: serving() }));
            if port.node_port != 0 {
                self.plan.udp.push(UdpFront { ip: None, port: port.node_port, serving: serving() });
            }
        }
    }

    /// A front, the chain it goes to, and the endpoints that this chain picks from.
    fn serve(&mut self, front: Vec<u8>, chain: Chain, pools: &Pools<'_>) {
        let verdict = Verdict::Goto(chain.name());
        self.plan.elements.insert((Map::Services, front.clone()), Some(Data::Verdict(verdict)));
        for pick in chain.picks() {
            let pool = pools.local.filter(|_| pick.local).map_or(pools.cluster, Vec::as_slice);
            let mut backs: Vec<Vec<u8>> = pool.iter().map(back).collect();
            if pick.affinity_seconds.is_some() {
                let before = self.previous.and_then(|plan| plan.sticky.get(&front));
                backs = in_place(backs, &|slot| before?.get(&(pick.slots().start + slot)));
                let slots = pick.slots().zip(backs.iter().cloned());
                self.plan.sticky.entry(front.clone()).or_default().extend(slots);
            }
            for (slot, back) in pick.slots().zip(backs) {
                let key = [front.as_slice(), &slot.to_ne_bytes()].concat();
                self.plan.elements.insert((Map::Endpoints, key), Some(Data::Value(back)));
            }
            self.plan.chains.extend(pick.ties());
            self.plan.chains.insert(Chain::Pick(pick));
        }
        self.plan.chains.insert(chain);
    }

    fn refuse(&mut self, front: Vec<u8>, verdict: Verdict) {
        self.plan.elements.insert((Map::NoEndpoints, front), Some(Data::Verdict(verdict)));
    }

    /// loadBalancerSourceRanges. The node's own connections arrive with the load balancer's address as their source,
    /// so that is allowed where the node is.
    fn firewall(&mut self, service: &Service, node_ip: IpAddr, port: &Port) {
        if service.source_ranges.is_empty() || service.load_balancer_ips.is_empty() {
            return;
        }
        let mut ranges: Vec<Range> = service
            .source_ranges
            .iter()
            .filter_map(|range| match range.ip {
                IpAddr::V4(ip) => Some(Range { ip, prefix: range.prefix }),
                IpAddr::V6(_) => None,
            })
            .collect();
        if service.source_ranges.iter().any(|range| range.contains(node_ip)) {
            ranges.extend(service.load_balancer_ips.iter().map(|ip| Range { ip: *ip, prefix: 32 }));
        }
        ranges.order();
        ranges.dedup();
        let chain = Chain::Sources(ranges);
        for ip in &service.load_balancer_ips {
            let verdict = Verdict::Goto(chain.name());
            let front = front_key(*ip, port.protocol, port.port);
            self.plan.elements.insert((Map::Firewall, front), Some(Data::Verdict(verdict)));
        }
        self.plan.chains.insert(chain);
    }
}

/// What slots stand for. `local` is apart only where it differs from `cluster`.
struct Pools<'a> {
    cluster: &'a [Endpoint],
    local: Option<&'a Vec<Endpoint>>,
}

/// The same, with those that were in one of the first slots where they were, and the others in the gaps.
fn in_place<'a>(backs: Vec<Vec<u8>>, before: &dyn Fn(u32) -> Option<&'a Vec<u8>>) -> Vec<Vec<u8>> {
    let kept: Vec<Option<Vec<u8>>> =
        (0..).take(backs.len()).map(|slot| before(slot).filter(|back| backs.contains(back)).cloned()).collect();
    let mut others: Vec<Vec<u8>> = backs.into_iter().filter(|back| !kept.contains(&Some(back.clone()))).collect();
    others.reverse();
    kept.into_iter().filter_map(|kept| kept.or_else(|| others.pop())).collect()
}

fn pick(by: By, local: bool, pool: &[Endpoint], service: &Service) -> Option<Pick> {
    let count = u32::try_from(pool.len()).ok().filter(|count| *count > 0)?;
    Some(Pick { by, local, count, affinity_seconds: service.affinity_seconds })
}

/// What the tests of this folder make plans from.
#[cfg(test)]
pub mod tests_support {
    use super::super::model::Hint;
    use super::*;

    /// "zone=here" or "zone=there".
    fn hint(state: &str, sort: &str) -> Hint {
        match state.split(' ').find_map(|word| word.strip_prefix(sort)) {
            None => Hint::None,
            Some("=here") => Hint::Here,
            Some(_) => Hint::Elsewhere,
        }
    }

    pub fn endpoint(ip: &str, state: &str) -> Endpoint {
        Endpoint {
            ip: ip.parse().unwrap(),
            port: 80,
            ready: state.contains("ready"),
            serving: state.contains("ready") || state.contains("serving"),
            terminating: state.contains("terminating"),
            local: state.contains("local"),
            for_node: hint(state, "node"),
            for_zone: hint(state, "zone"),
        }
    }

    pub fn endpoints(ips: &[&str]) -> Vec<Endpoint> {
        ips.iter().map(|ip| endpoint(ip, "ready local")).collect()
    }

    pub fn service(cluster_ip: &str) -> Service {
        Service {
            cluster_ip: cluster_ip.parse().unwrap(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            ports: vec![Port { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
            affinity_seconds: None,
            internal_local: false,
            external_local: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tests_support::endpoint;
    use super::*;

    fn service(change: impl FnOnce(&mut Service)) -> Service {
        let mut service = tests_support::service("10.43.0.7");
        change(&mut service);
        service
    }

    /// One line per element, as `MAP KEY -> DATA`, without the cluster address that every Service has.
    fn lines(service: &Service, endpoints: &[Endpoint]) -> Vec<String> {
        let node_ip = "192.0.2.1".parse().unwrap();
        let plan = plan(service, node_ip, &|_| endpoints.to_vec(), None);
        let address = |bytes: &[u8]| Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).to_string();
        let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().unwrap());
        for pick in plan.chains.iter().flat_map(Chain::picks) {
            assert!(plan.chains.contains(&Chain::Pick(pick)), "a chain must exist before it is gone to");
        }
        let line = |((map, key), data): (&(Map, Vec<u8>), &Option<Data>)| {
            assert_eq!(key.len(), map.set().key_len());
            let key = match map {
                Map::ClusterIps => return None,
                Map::Endpoints => format!("{}:{}/{:#x}", address(key), port(&key[8..]), number(&key[12..])),
                Map::Hairpin => address(key),
                _ => format!("{}:{}", address(key), port(&key[8..])),
            };
            let data = match data {
                None => String::new(),
                Some(Data::Value(v)) => format!(" -> {}:{}", address(v), port(&v[4..])),
                Some(Data::Verdict(Verdict::Goto(chain))) => format!(" -> {chain}"),
                Some(Data::Verdict(verdict)) => format!(" -> {verdict:?}"),
            };
            Some(format!("{} {key}{data}", map.set().name))
        };
        plan.elements.iter().filter_map(line).collect()
    }

    #[test]
    fn plans() {
        let check = |name: &str, service: &Service, endpoints: &[Endpoint], expected: &[&str]| {
            assert_eq!(lines(service, endpoints), expected, "{name}");
        };
        let (a, b) = (endpoint("10.42.0.2", "ready local"), endpoint("10.42.0.3", "ready local"));
        let far = endpoint("10.42.9.9", "ready");
        let plain = service(|_| ());
        let backs = ["endpoints 10.43.0.7:80/0x0 -> 10.42.0.2:80", "endpoints 10.43.0.7:80/0x1 -> 10.42.0.3:80"];
        let hairpins = ["hairpin 10.42.0.2", "hairpin 10.42.0.3"];

        check(
            "two endpoints",
            &plain,
            &[a.clone(), b.clone()],
            &["services 10.43.0.7:80 -> pick-2", backs[0], backs[1], hairpins[0], hairpins[1]],
        );
        for (name, first, second, expected) in [
            ("here", "ready local node=here", "ready local node=there", Some(backs[0])),
            (
                "this zone",
                "ready local zone=there",
                "ready local zone=here",
                Some("endpoints 10.43.0.7:80/0x0 -> 10.42.0.3:80"),
            ),
            (
                "the node goes before the zone",
                "ready local node=here zone=there",
                "ready local node=there zone=here",
                Some(backs[0]),
            ),
            ("one says nothing", "ready local zone=here", "ready local", None),
            ("nobody is meant for here", "ready local zone=there", "ready local zone=there", None),
            ("who is not ready says nothing", "ready local node=there", "local node=here", Some(backs[0])),
        ] {
            let picked = lines(&plain, &[endpoint("10.42.0.2", first), endpoint("10.42.0.3", second)]);
            let picked: Vec<&str> =
                picked.iter().map(String::as_str).filter(|line| line.starts_with("endpoints")).collect();
            assert_eq!(picked, expected.map_or_else(|| backs.to_vec(), |one| vec![one]), "{name}");
        }
        check("no endpoints", &plain, &[], &["no-endpoints 10.43.0.7:80 -> reject"]);
        check("none is ready", &plain, &[endpoint("10.42.0.2", "local")], &["no-endpoints 10.43.0.7:80 -> reject"]);
        check(
            "those that end serve while there is nothing better",
            &plain,
            &[endpoint("10.42.0.2", "serving terminating local")],
            &["services 10.43.0.7:80 -> pick-1", backs[0], hairpins[0]],
        );
        check(
            "and not when there is",
            &plain,
            &[a.clone(), endpoint("10.42.0.3", "serving terminating local")],
            &["services 10.43.0.7:80 -> pick-1", backs[0], hairpins[0]],
        );
        let sticky = service(|s| s.affinity_seconds = Some(60));
        check(
            "affinity",
            &sticky,
            std::slice::from_ref(&a),
            &["services 10.43.0.7:80 -> pick-1-affinity-60", backs[0], hairpins[0]],
        );
        let inner = service(|s| s.internal_local = true);
        check(
            "internal Local with a far endpoint only",
            &inner,
            std::slice::from_ref(&far),
            &["no-endpoints 10.43.0.7:80 -> Drop"],
        );
        check(
            "internal Local with one here",
            &inner,
            &[a.clone(), far.clone()],
            &["services 10.43.0.7:80 -> local-pick-1", "endpoints 10.43.0.7:80/0x10000 -> 10.42.0.2:80", hairpins[0]],
        );
        let node_port = service(|s| s.ports[0].node_port = 30080);
        check(
            "node port",
            &node_port,
            std::slice::from_ref(&a),
            &[
                "services 0.0.0.0:30080 -> masquerade-node-port-pick-1",
                "services 10.43.0.7:80 -> pick-1",
                "endpoints 0.0.0.0:30080/0x0 -> 10.42.0.2:80",
                backs[0],
                hairpins[0],
            ],
        );
        check(
            "node port, no endpoints",
            &node_port,
            &[],
            &["no-endpoints 0.0.0.0:30080 -> reject", "no-endpoints 10.43.0.7:80 -> reject"],
        );
        let outer = service(|s| {
            s.external_ips = vec!["198.51.100.1".parse().unwrap()];
            s.external_local = true;
        });
        check(
            "external Local, all endpoints here",
            &outer,
            std::slice::from_ref(&a),
            &[
                "services 10.43.0.7:80 -> pick-1",
                "services 198.51.100.1:80 -> external-pick-1-local-1",
                backs[0],
                "endpoints 198.51.100.1:80/0x0 -> 10.42.0.2:80",
                hairpins[0],
            ],
        );
        check(
            "external Local, none here: pods and host reach it, others are dropped",
            &outer,
            std::slice::from_ref(&far),
            &[
                "services 10.43.0.7:80 -> pick-1",
                "services 198.51.100.1:80 -> external-pick-1-local-0",
                "endpoints 10.43.0.7:80/0x0 -> 10.42.9.9:80",
                "endpoints 198.51.100.1:80/0x0 -> 10.42.9.9:80",
                "no-endpoints 198.51.100.1:80 -> Drop",
            ],
        );
        let balanced = service(|s| {
            s.load_balancer_ips = vec!["198.51.100.2".parse().unwrap()];
            s.source_ranges = vec!["203.0.113.0/24".parse().unwrap()];
        });
        let got = lines(&balanced, std::slice::from_ref(&a));
        assert!(got.contains(&"services 198.51.100.2:80 -> masquerade-pick-1".to_owned()), "{got:?}");
        assert!(got.iter().any(|line| line.starts_with("firewall 198.51.100.2:80 -> sources-")), "{got:?}");
    }

    #[test]
    fn an_endpoint_keeps_its_slot_while_it_lives() {
        let sticky = service(|s| s.affinity_seconds = Some(60));
        let check = |steps: &[(&[&str], &[&str])]| {
            let mut last: Option<Plan> = None;
            for (ips, expected) in steps {
                let endpoints = tests_support::endpoints(ips);
                let node_ip = "192.0.2.1".parse().unwrap();
                let plan = plan(&sticky, node_ip, &|_| endpoints.clone(), last.as_ref());
                let slots = plan.sticky.values().next().unwrap();
                let slots: Vec<String> = slots.values().map(|b| format!("10.42.0.{}", b[3])).collect();
                assert_eq!(slots, *expected, "{steps:?}");
                last = Some(plan);
            }
        };
        let (a, b, c, d) = ("10.42.0.1", "10.42.0.2", "10.42.0.3", "10.42.0.4");
        check(&[(&[a, b, c], &[a, b, c]), (&[b, c], &[c, b]), (&[a, b, c], &[c, b, a])]);
        check(&[(&[b, c], &[b, c]), (&[a, b, c, d], &[b, c, a, d])]);
    }

    #[test]
    fn udp_ports_name_who_may_answer() {
        let service = service(|s| {
            s.ports[0].protocol = Protocol::Udp;
            s.ports[0].node_port = 30053;
        });
        let endpoints = [endpoint("10.42.0.2", "ready local"), endpoint("10.42.0.3", "local")];
        let plan = plan(&service, "192.0.2.1".parse().unwrap(), &|_| endpoints.to_vec(), None);
        let serving = BTreeSet::from([("10.42.0.2".parse().unwrap(), 80)]);
        assert_eq!(
            plan.udp,
            [
                UdpFront { ip: Some(service.cluster_ip), port: 80, serving: serving.clone() },
                UdpFront { ip: None, port: 30053, serving },
            ]
        );
    }
}
