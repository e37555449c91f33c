//! What cluster DNS answers: a pure function of the question and of what is in the cluster.
//!
//! Names follow the Kubernetes DNS specification, schema 1.1.0; where it leaves freedom, CoreDNS' kubernetes plugin
//! is followed (a headless Service without a ready address does not exist; `pods insecure`; SRV weights share 100).
use super::wire::{CLASS_IN, Code, Data, Name, Query, Reply, Section, kind};
use mote_cni::Cidr;
use mote_schema::Order as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Seconds, of answers and of "there is none" (CoreDNS' default).
const TTL: u32 = 5;
const SCHEMA_VERSION: &str = "1.1.0";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    /// "tcp"
    pub protocol: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Its cluster addresses.
    Cluster {
        ips: Vec<IpAddr>,
        ports: Vec<NamedPort>,
    },
    Headless,
    External(String),
}

/// A ready address behind a Service. (What a Service publishes unready is ready in its EndpointSlice.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    /// The pod's hostname when its subdomain is this Service, else the address with dashes.
    pub hostname: String,
    /// Empty: the Service has no ports.
    pub ports: Vec<NamedPort>,
}

/// What the cluster looks like at this moment.
pub trait View {
    fn has_namespace(&self, namespace: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Service>;
    fn addresses(&self, namespace: &str, service: &str) -> Vec<Address>;
    /// Namespace and name of the Service with this cluster address.
    fn service_at(&self, ip: IpAddr) -> Option<(String, String)>;
    /// Hostname, Service and namespace of every endpoint with this address.
    fn endpoints_at(&self, ip: IpAddr) -> Vec<(String, String, String)>;
    /// Grows with the cluster's changes.
    fn serial(&self) -> u32;
}

/// What the server answers for.
#[derive(Clone, Debug)]
pub struct Zone {
    /// "cluster.local", lower case, without a closing dot
    pub domain: String,
    pub dns_ip: Ipv4Addr,
    /// Reverse names in these that nobody has do not exist; nobody else is asked.
    pub own: Vec<Cidr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Reply(Vec<u8>),
    /// Not ours: ask others.
    Forward,
    /// An alias of ours for a name that is not: ask others for that, and answer with the alias and what they say.
    Follow(Name),
}

/// What a name of ours is.
enum Found {
    Records(Vec<(Name, Data)>, Vec<(Name, Data)>),
    /// The name exists, but not with this type.
    Nothing,
    /// No such name.
    NoName,
}

pub fn answer(query: &Query, zone: &Zone, view: &dyn View, limit: usize) -> Outcome {
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return refuse(query, Code::BadVersion, limit);
    }
    if query.class != CLASS_IN {
        return refuse(query, Code::Refused, limit);
    }
    let lower = query.name.lower().to_string();
    let name = lower.trim_end_matches('.');
    let (found, apex) = match inside(name, zone) {
        Some(_) if matches!(query.kind, kind::AXFR | kind::IXFR) => {
            return refuse(query, Code::Refused, limit);
        }
        Some(labels) => match alias(&labels, view) {
            Some(target) => return follow(query, &target, zone, view, limit),
            None => (look_up(query, &labels, zone, view), zone.domain.as_str()),
        },
        None => match name.strip_suffix(".in-addr.arpa") {
            Some(rest) => match reverse(query, rest, zone, view) {
                Some(found) => (found, "in-addr.arpa"),
                None => return Outcome::Forward,
            },
            None => return Outcome::Forward,
        },
    };
    Outcome::Reply(write(query, found, apex, view, limit))
}

/// The labels before the cluster's domain; None for a name outside it.
fn inside<'a>(name: &'a str, zone: &Zone) -> Option<Vec<&'a str>> {
    let rest = name.strip_suffix(zone.domain.as_str())?;
    let rest = if rest.is_empty() { rest } else { rest.strip_suffix('.')? };
    Some(rest.split('.').filter(|label| !label.is_empty()).collect())
}

/// An error without records.
pub fn refuse(query: &Query, code: Code, limit: usize) -> Outcome {
    Outcome::Reply(Reply::new(query, code, false, limit).finish())
}

/// The external name, if these labels are a Service that is one.
fn alias(labels: &[&str], view: &dyn View) -> Option<Name> {
    let [service, namespace, "svc"] = labels else { return None };
    match view.service(namespace, service)? {
        Service::External(target) => Name::from_text(&target),
        _ => None,
    }
}

fn follow(query: &Query, target: &Name, zone: &Zone, view: &dyn View, limit: usize) -> Outcome {
    let own = vec![(query.name.clone(), Data::Cname(target.clone()))];
    if matches!(query.kind, kind::CNAME) {
        return Outcome::Reply(write(query, Found::Records(own, Vec::new()), &zone.domain, view, limit));
    }
    let lower = target.lower().to_string();
    let Some(labels) = inside(lower.trim_end_matches('.'), zone) else {
        return Outcome::Follow(target.clone());
    };
    // One step within the cluster; an alias of an alias is answered as it stands, for the asker to go on.
    let asked = query.about(target);
    let mut records = own;
    if alias(&labels, view).is_none()
        && let Found::Records(more, _) = look_up(&asked, &labels, zone, view)
    {
        records.extend(more);
    }
    Outcome::Reply(write(query, Found::Records(records, Vec::new()), &zone.domain, view, limit))
}

/// The whole answer for an alias, from what others said of its target.
pub fn write_followed(query: &Query, target: &Name, others: &[(Name, u32, Data)], limit: usize) -> Vec<u8> {
    let mut reply = Reply::new(query, Code::NoError, true, limit);
    reply.push(Section::Answer, &query.name, TTL, &Data::Cname(target.clone()));
    for (name, ttl, data) in others {
        reply.push(Section::Answer, name, (*ttl).min(TTL), data);
    }
    reply.finish()
}

fn write(query: &Query, found: Found, apex: &str, view: &dyn View, limit: usize) -> Vec<u8> {
    let code = if matches!(found, Found::NoName) { Code::NameError } else { Code::NoError };
    let mut reply = Reply::new(query, code, true, limit);
    match found {
        Found::Records(mut answers, additional) => {
            // Askers take the first: let each have its turn.
            let len = answers.len();
            if len > 1 && answers.iter().all(|(_, data)| data.kind() != kind::CNAME) {
                answers.rotate_left(usize::from(query.id) % len);
            }
            for (name, data) in &answers {
                reply.push(Section::Answer, name, TTL, data);
            }
            for (name, data) in &additional {
                reply.push(Section::Additional, name, TTL, data);
            }
        }
        Found::Nothing | Found::NoName => {
            if let (Some(name), Some(soa)) = (Name::from_text(apex), soa(apex, view)) {
                reply.push(Section::Authority, &name, TTL, &soa);
            }
        }
    }
    reply.finish()
}

fn soa(apex: &str, view: &dyn View) -> Option<Data> {
    Some(Data::Soa {
        server: Name::from_text(&format!("ns.dns.{apex}"))?,
        mailbox: Name::from_text(&format!("hostmaster.{apex}"))?,
        serial: view.serial(),
        refresh: 7200,
        retry: 1800,
        expire: 86400,
        minimum: TTL,
    })
}

/// Records of the asked type out of all that a name has.
fn of_kind(query: &Query, records: Vec<(Name, Data)>) -> Found {
    let fits = |data: &Data| data.kind() == query.kind || query.kind == kind::ANY;
    let records: Vec<_> = records.into_iter().filter(|(_, data)| fits(data)).collect();
    if records.is_empty() { Found::Nothing } else { Found::Records(records, Vec::new()) }
}

fn one(query: &Query, data: Data) -> Found {
    of_kind(query, vec![(query.name.clone(), data)])
}

fn look_up(query: &Query, labels: &[&str], zone: &Zone, view: &dyn View) -> Found {
    match labels {
        [] => match query.kind {
            kind::NS => {
                let Some(server) = Name::from_text(&format!("ns.dns.{}", zone.domain)) else { return Found::Nothing };
                let glue = vec![(server.clone(), Data::A(zone.dns_ip))];
                Found::Records(vec![(query.name.clone(), Data::Ns(server))], glue)
            }
            _ => soa(&zone.domain, view).map_or(Found::Nothing, |soa| one(query, soa)),
        },
        ["dns-version"] => one(query, Data::Txt(SCHEMA_VERSION)),
        ["dns"] | ["svc"] | ["pod"] => Found::Nothing,
        ["ns", "dns"] => one(query, Data::A(zone.dns_ip)),
        [.., namespace, "svc" | "pod"] if !view.has_namespace(namespace) => Found::NoName,
        [_, "svc" | "pod"] => Found::Nothing,
        [pod, _, "pod"] => match dashed(pod) {
            Some(ip) => one(query, Data::address(ip)),
            None => Found::NoName,
        },
        [prefix @ .., service, namespace, "svc"] => {
            let wanted = match prefix {
                [] => Wanted::All,
                [hostname] => Wanted::Hostname(hostname),
                [port, protocol] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                    (Some(port), Some(protocol)) => Wanted::Port(port, protocol),
                    _ => return Found::NoName,
                },
                _ => return Found::NoName,
            };
            find_service(query, service, namespace, &wanted, zone, view)
        }
        _ => Found::NoName,
    }
}

enum Wanted<'a> {
    All,
    Hostname(&'a str),
    Port(&'a str, &'a str),
}

impl Wanted<'_> {
    fn has(&self, port: &NamedPort) -> bool {
        match self {
            Wanted::Port(name, protocol) => {
                port.name.eq_ignore_ascii_case(name) && port.protocol.eq_ignore_ascii_case(protocol)
            }
            _ => true,
        }
    }
}

fn find_service(
    query: &Query,
    name: &str,
    namespace: &str,
    wanted: &Wanted<'_>,
    zone: &Zone,
    view: &dyn View,
) -> Found {
    let Some(service) = view.service(namespace, name) else { return Found::NoName };
    let base = format!("{name}.{namespace}.svc.{}", zone.domain);
    // (what SRV records point to, its address, a port if the Service has any)
    let mut hosts: Vec<(String, IpAddr, Option<u16>)> = Vec::new();
    match (service, wanted) {
        (Service::External(_), _) => return Found::NoName,
        (Service::Cluster { ips, ports }, Wanted::All | Wanted::Port(..)) => {
            for ip in ips {
                hosts.extend(ports.iter().filter(|p| wanted.has(p)).map(|p| (base.clone(), ip, Some(p.port))));
            }
        }
        (Service::Headless, _) | (Service::Cluster { .. }, Wanted::Hostname(_)) => {
            for address in view.addresses(namespace, name) {
                if let Wanted::Hostname(hostname) = wanted
                    && !address.hostname.eq_ignore_ascii_case(hostname)
                {
                    continue;
                }
                let target = format!("{}.{base}", address.hostname);
                if address.ports.is_empty() && !matches!(wanted, Wanted::Port(..)) {
                    hosts.push((target.clone(), address.ip, None));
                }
                let ports = address.ports.iter().filter(|p| wanted.has(p));
                hosts.extend(ports.map(|p| (target.clone(), address.ip, Some(p.port))));
            }
        }
    }
    if hosts.is_empty() {
        return Found::NoName;
    }
    if query.kind == kind::SRV {
        return services(query, &hosts);
    }
    let mut addresses: Vec<IpAddr> = hosts.into_iter().map(|(_, ip, _)| ip).collect();
    addresses.order();
    addresses.dedup();
    of_kind(query, addresses.into_iter().map(|ip| (query.name.clone(), Data::address(ip))).collect())
}

fn services(query: &Query, hosts: &[(String, IpAddr, Option<u16>)]) -> Found {
    let mut targets: Vec<(&String, u16)> = hosts.iter().filter_map(|(t, _, p)| Some((t, (*p)?))).collect();
    targets.order();
    targets.dedup();
    let weight = 100 / u16::try_from(targets.len().clamp(1, 100)).unwrap_or(100);
    let record = |(target, port): &(&String, u16)| {
        let data = Data::Srv { priority: 0, weight, port: *port, target: Name::from_text(target)? };
        Some((query.name.clone(), data))
    };
    let answers: Vec<_> = targets.iter().filter_map(record).collect();
    let mut glue: Vec<(&String, IpAddr)> = hosts.iter().map(|(target, ip, _)| (target, *ip)).collect();
    glue.order();
    glue.dedup();
    let glue = glue.into_iter().filter_map(|(t, ip)| Some((Name::from_text(t)?, Data::address(ip)))).collect();
    if answers.is_empty() { Found::Nothing } else { Found::Records(answers, glue) }
}

/// "10-42-0-5", "fd00--5"
fn dashed(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| text.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// `labels` are what stands before ".in-addr.arpa". None: not ours.
fn reverse(query: &Query, labels: &str, zone: &Zone, view: &dyn View) -> Option<Found> {
    let octets: Vec<&str> = labels.split('.').rev().collect();
    let ip: Ipv4Addr = octets.join(".").parse().ok()?;
    let ip = IpAddr::V4(ip);
    let named = |name: String| Some((query.name.clone(), Data::Ptr(Name::from_text(&name)?)));
    let mut records = Vec::new();
    if let Some((namespace, service)) = view.service_at(ip) {
        records.extend(named(format!("{service}.{namespace}.svc.{}", zone.domain)));
    } else {
        let endpoints = view.endpoints_at(ip).into_iter();
        records.extend(endpoints.filter_map(|(h, s, n)| named(format!("{h}.{s}.{n}.svc.{}", zone.domain))));
    }
    if !records.is_empty() {
        return Some(of_kind(query, records));
    }
    zone.own.iter().any(|cidr| cidr.contains(ip)).then_some(Found::NoName)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
