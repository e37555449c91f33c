//! Questions and what a cluster of a few Services answers to them.
use super::super::wire::{Query, read_answer};
use super::*;

struct Cluster;

fn port(name: &str, protocol: &str, port: u16) -> NamedPort {
    NamedPort { name: name.to_owned(), protocol: protocol.to_owned(), port }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl View for Cluster {
    fn has_namespace(&self, namespace: &str) -> bool {
        matches!(namespace, "default" | "kube-system")
    }
    fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        Some(match (namespace, name) {
            ("default", "web") => Service::Cluster {
                ips: vec![ip("10.43.0.7")],
                ports: vec![port("http", "tcp", 80), port("dns", "udp", 53)],
            },
            ("default", "db" | "empty" | "portless") => Service::Headless,
            ("default", "out") => Service::External("www.example.org".to_owned()),
            ("default", "in") => Service::External("web.default.svc.cluster.local".to_owned()),
            _ => return None,
        })
    }
    fn addresses(&self, namespace: &str, service: &str) -> Vec<Address> {
        let address = |text: &str, hostname: &str, ports: Vec<NamedPort>| Address {
            ip: ip(text),
            hostname: hostname.to_owned(),
            ports,
        };
        match (namespace, service) {
            ("default", "db") => vec![
                address("10.42.0.5", "db-0", vec![port("sql", "tcp", 5432)]),
                address("10.42.0.6", "10-42-0-6", vec![port("sql", "tcp", 5432)]),
            ],
            ("default", "web") => vec![address("10.42.0.9", "front", vec![port("http", "tcp", 8080)])],
            ("default", "portless") => vec![address("10.42.0.8", "10-42-0-8", Vec::new())],
            _ => Vec::new(),
        }
    }
    fn service_at(&self, at: IpAddr) -> Option<(String, String)> {
        (at == ip("10.43.0.7")).then(|| ("default".to_owned(), "web".to_owned()))
    }
    fn endpoints_at(&self, at: IpAddr) -> Vec<(String, String, String)> {
        let found = (at == ip("10.42.0.5")).then(|| ["db-0", "db", "default"].map(str::to_owned));
        found.into_iter().map(|[h, s, n]| (h, s, n)).collect()
    }
    fn serial(&self) -> u32 {
        1
    }
}

fn zone() -> Zone {
    Zone {
        domain: "cluster.local".to_owned(),
        dns_ip: "10.43.0.10".parse().unwrap(),
        own: vec!["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()],
    }
}

/// "CODE", then the answers as text, sorted.
fn ask(name: &str, kind: u16) -> String {
    let query = Query::new(0, Name::from_text(name).unwrap(), kind);
    match answer(&query, &zone(), &Cluster, 1232) {
        Outcome::Forward => "forward".to_owned(),
        Outcome::Follow(target) => format!("follow {target}"),
        Outcome::Reply(bytes) => {
            let known = read_answer(&bytes, 0, &query).unwrap();
            let mut records = super::super::tests::texts(&bytes);
            records.sort();
            let code = ["ok", "format", "failure", "nxdomain", "unknown", "refused"][usize::from(known.code)];
            [vec![code.to_owned()], records].concat().join(" ")
        }
    }
}

#[test]
fn names() {
    use kind::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
    let cases = [
        ("web.default.svc.cluster.local", A, "ok 10.43.0.7"),
        ("WEB.Default.svc.CLUSTER.local", A, "ok 10.43.0.7"),
        ("web.default.svc.cluster.local", AAAA, "ok"),
        ("web.default.svc.cluster.local", 65, "ok"),
        ("_http._tcp.web.default.svc.cluster.local", SRV, "ok 0 100 80 web.default.svc.cluster.local."),
        ("_http._tcp.web.default.svc.cluster.local", A, "ok 10.43.0.7"),
        ("_http._udp.web.default.svc.cluster.local", SRV, "nxdomain"),
        (
            "web.default.svc.cluster.local",
            SRV,
            "ok 0 50 53 web.default.svc.cluster.local. 0 50 80 web.default.svc.cluster.local.",
        ),
        ("front.web.default.svc.cluster.local", A, "ok 10.42.0.9"),
        ("db.default.svc.cluster.local", A, "ok 10.42.0.5 10.42.0.6"),
        ("db-0.db.default.svc.cluster.local", A, "ok 10.42.0.5"),
        ("10-42-0-6.db.default.svc.cluster.local", A, "ok 10.42.0.6"),
        ("db-1.db.default.svc.cluster.local", A, "nxdomain"),
        (
            "_sql._tcp.db.default.svc.cluster.local",
            SRV,
            "ok 0 50 5432 10-42-0-6.db.default.svc.cluster.local. 0 50 5432 db-0.db.default.svc.cluster.local.",
        ),
        ("portless.default.svc.cluster.local", A, "ok 10.42.0.8"),
        ("portless.default.svc.cluster.local", SRV, "ok"),
        ("empty.default.svc.cluster.local", A, "nxdomain"),
        ("nobody.default.svc.cluster.local", A, "nxdomain"),
        ("web.nowhere.svc.cluster.local", A, "nxdomain"),
        ("a.b.c.web.default.svc.cluster.local", A, "nxdomain"),
        ("x._tcp.web.default.svc.cluster.local", A, "nxdomain"),
        ("default.svc.cluster.local", A, "ok"),
        ("nowhere.svc.cluster.local", A, "nxdomain"),
        ("svc.cluster.local", A, "ok"),
        ("cluster.local", A, "ok"),
        ("cluster.local", NS, "ok ns.dns.cluster.local."),
        ("cluster.local", SOA, "ok soa ns.dns.cluster.local. 5"),
        ("ns.dns.cluster.local", A, "ok 10.43.0.10"),
        ("other.cluster.local", A, "nxdomain"),
        ("dns-version.cluster.local", TXT, "ok 1.1.0"),
        ("10-42-0-5.default.pod.cluster.local", A, "ok 10.42.0.5"),
        ("fd00--5.default.pod.cluster.local", AAAA, "ok fd00::5"),
        ("10-42-0-5.nowhere.pod.cluster.local", A, "nxdomain"),
        ("pod-x.default.pod.cluster.local", A, "nxdomain"),
        ("out.default.svc.cluster.local", A, "follow www.example.org."),
        ("out.default.svc.cluster.local", CNAME, "ok www.example.org."),
        ("in.default.svc.cluster.local", A, "ok 10.43.0.7 web.default.svc.cluster.local."),
        ("7.0.43.10.in-addr.arpa", PTR, "ok web.default.svc.cluster.local."),
        ("5.0.42.10.in-addr.arpa", PTR, "ok db-0.db.default.svc.cluster.local."),
        ("99.0.42.10.in-addr.arpa", PTR, "nxdomain"),
        ("1.1.1.1.in-addr.arpa", PTR, "forward"),
        ("example.org", A, "forward"),
        ("web.default.svc", A, "forward"),
        ("notcluster.local", A, "forward"),
        ("cluster.local", kind::AXFR, "refused"),
    ];
    for (name, kind, expected) in cases {
        assert_eq!(ask(name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn what_is_not_there_says_how_long_that_holds() {
    let query = Query::new(3, Name::from_text("nobody.default.svc.cluster.local").unwrap(), kind::A);
    let Outcome::Reply(bytes) = answer(&query, &zone(), &Cluster, 1232) else { panic!() };
    assert_eq!(read_answer(&bytes, 3, &query).unwrap().ttl, TTL);
}

#[test]
fn askers_take_turns() {
    let first = |id: u16| {
        let query = Query::new(id, Name::from_text("db.default.svc.cluster.local").unwrap(), kind::A);
        let Outcome::Reply(bytes) = answer(&query, &zone(), &Cluster, 1232) else { panic!() };
        super::super::tests::texts(&bytes).remove(0)
    };
    assert_ne!(first(0), first(1));
}
