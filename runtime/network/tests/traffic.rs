//! Services and cluster DNS over a real kernel: an API server with its store in memory, the plugin, pods in network
//! namespaces, and packets between them.
#[path = "../../../cni/tests/world/mod.rs"]
mod world;

use async_executor::Executor;
use futures_lite::future;
use mote_api::auth::Authenticator;
use mote_api::rbac::{Authorizer, Policy};
use mote_api::{Api, Client, DeleteOptions, Patch, Settings, Sub, bootstrap, certs};
use mote_network::{Config, Handle};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use world::{PATIENCE, Place, ask_tcp};

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return mote_cni::plugin_main();
    }
    if !world::enter() {
        return ExitCode::SUCCESS;
    }
    let dir = std::env::temp_dir().join(format!("mote-traffic-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    run(&Cluster::new(&dir));
    std::fs::remove_dir_all(&dir).unwrap();
    println!("traffic: ok");
    ExitCode::SUCCESS
}

struct Cluster {
    client: Client,
    dir: PathBuf,
}

impl Cluster {
    fn new(dir: &Path) -> Cluster {
        let store = mote_store::Store::open(mote_store::Options {
            dir: None,
            cache_bytes: 1 << 20,
            watch_events: 4096,
            watch_bytes: 4 << 20,
            history: Duration::from_secs(60),
            lazy_delay: Duration::from_millis(5),
        });
        let executor = Arc::new(Executor::new());
        let settings = Settings {
            service_cidr: (Ipv4Addr::new(10, 43, 0, 0), 16),
            node_port_range: 30000..=32767,
            advertise_address: Ipv4Addr::new(192, 0, 2, 1),
            port: 6443,
            serves_dns: true,
            max_events: 1000,
            volatile: Default::default(),
        };
        let api = Api::new(Arc::new(store.unwrap()), executor.clone(), settings);
        let client = api.client();
        let certificates = certs::Certificates::open(certs::Options {
            dir: dir.to_owned(),
            cluster_domain: "cluster.local".into(),
            names: vec![],
            addresses: vec![],
            server: "https://127.0.0.1:6443".into(),
        });
        let lookup = {
            let api = api.clone();
            Arc::new(move |plural: &str, namespace: &str, name: &str| api.lookup("", "v1", plural, namespace, name))
        };
        let authenticator = Authenticator::new(certificates.unwrap().token_keys(), "https://test", lookup);
        let policy = client.clone();
        api.secure(Arc::new(authenticator), Arc::new(Authorizer::new(move || Policy::load(&policy))));
        std::thread::spawn(move || future::block_on(executor.run(future::pending::<()>())));
        future::block_on(bootstrap::ensure(&client)).unwrap();
        Cluster { client, dir: dir.to_owned() }
    }

    fn start(&self) -> Handle {
        let config = Config {
            node_name: "node".to_owned(),
            node_ip: Ipv4Addr::new(192, 0, 2, 1),
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            pod_cidr: "10.42.0.0/24".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            dns_domain: "cluster.local".to_owned(),
            dns_ip: Ipv4Addr::new(10, 43, 0, 10),
            dns: true,
            proxy: true,
            resolv_conf: self.dir.join("resolv.conf"),
            mtu: 0,
            dns_cache_limit_bytes: 64 << 10,
        };
        let handle = future::block_on(mote_network::start(self.client.clone(), config)).unwrap();
        eventually("rules are written", || handle.is_synced().then_some(()));
        handle
    }

    /// A pod that serves under its name on port 80; its address.
    fn pod(&self, name: &str) -> (Place, String) {
        let place = Place::new();
        let config = json!({
            "cniVersion": "1.0.0", "name": "mote", "type": "mote-cni", "link": "mote0", "dataDir": self.dir.join("cni"),
            "podCIDR": "10.42.0.0/24", "clusterCIDR": "10.42.0.0/16",
        });
        let result = world::call("ADD", name, &place.path, &config).unwrap();
        place.serve(name, 80);
        (place, result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned())
    }

    fn kind(&self, plural: &str) -> Arc<mote_api::Kind> {
        let group = if plural == "endpointslices" { "discovery.k8s.io" } else { "" };
        self.client.kind(group, "v1", plural).unwrap()
    }

    fn create(&self, plural: &str, value: Value) {
        future::block_on(self.client.create_value(&self.kind(plural), "default", value.into())).unwrap();
    }

    /// A Service and its EndpointSlice; `spec` is laid over the usual one.
    fn service(&self, name: &str, spec: Value, backs: &[&str]) {
        let protocol = spec["ports"][0]["protocol"].as_str().unwrap_or("TCP").to_owned();
        let mut whole = json!({"ports": [{"name": "p", "port": 80}]});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        self.create("services", json!({"metadata": {"name": name}, "spec": whole}));
        self.create(
            "endpointslices",
            json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "ports": [{"name": "p", "port": 80, "protocol": protocol}],
                "endpoints": endpoints(backs),
            }),
        );
    }

    fn set_backs(&self, name: &str, backs: &[&str]) {
        let patch = Patch::Merge(json!({"endpoints": endpoints(backs)}).into());
        let kind = self.kind("endpointslices");
        future::block_on(self.client.patch(&kind, "default", name, Sub::Main, patch)).unwrap();
    }
}

fn endpoints(backs: &[&str]) -> Value {
    backs.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "node"})).collect()
}

/// Tries until there is something, for as long as only a failure lasts.
#[track_caller]
fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(got) = attempt() {
            return got;
        }
        assert!(start.elapsed() < 4 * PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

type Said = Result<String, String>;

#[track_caller]
fn check(got: impl FnMut() -> Said, expected: Result<&str, &str>) {
    let mut got = got;
    let mut last = None;
    let start = Instant::now();
    while start.elapsed() < 4 * PATIENCE {
        let said = got();
        if said.as_deref().map_err(String::as_str) == expected {
            return;
        }
        last = Some(said);
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("expected {expected:?}, last {last:?}");
}

const REFUSED: Result<&str, &str> = Err("connection refused");

fn run(cluster: &Cluster) {
    // With nothing but the loopback up; the uplink comes later.
    let network = cluster.start();
    let outside = world::outside(Some(("10.43.0.0".parse().unwrap(), 16)));
    let asked = name_server(&outside);
    std::fs::write(cluster.dir.join("resolv.conf"), "nameserver 192.0.2.2\n").unwrap();
    let ((a, a_ip), (b, b_ip), (c, c_ip)) = (cluster.pod("a"), cluster.pod("b"), cluster.pod("c"));

    cluster_ip(cluster, &outside, &a, &c, [&a_ip, &b_ip, &c_ip]);
    node_port(cluster, &outside, &a, &b, [&a_ip, &b_ip]);
    load_balancer(cluster, &b, &c, [&a_ip, &c_ip]);
    affinity(cluster, &c, [&a_ip, &b_ip]);
    udp(cluster, &c, [&a_ip, &b_ip]);
    names(cluster, &c, &asked, [&a_ip, &b_ip]);
    restart(cluster, network, &a, &c, &a_ip);

    // What leaves the cluster network leaves as the host.
    outside.serve("outside", 7000);
    check(|| c.ask_tcp("192.0.2.2:7000"), Ok("outside saw 192.0.2.1"));

    mote_network::remove_all().unwrap();
    mote_network::remove_all().unwrap();
    use mote_cni::netlink::{Protocol, Socket, nft::FAMILY_IPV4};
    let links = Socket::open(Protocol::Route).unwrap().links().unwrap();
    assert!(links.iter().all(|link| !link.name.starts_with("mote")), "{links:?}");
    let mut netfilter = Socket::open(Protocol::Netfilter).unwrap();
    for table in ["mote-services", "mote-pods"] {
        assert!(!netfilter.has_table(FAMILY_IPV4, table).unwrap());
    }
}

fn cluster_ip(cluster: &Cluster, outside: &Place, a: &Place, c: &Place, ips: [&str; 3]) {
    let [a_ip, b_ip, c_ip] = ips;
    cluster.service("web", json!({"clusterIP": "10.43.0.100"}), &[a_ip, b_ip]);
    let (from_a, from_b) = (format!("a saw {c_ip}"), format!("b saw {c_ip}"));
    check(|| c.ask_tcp("10.43.0.100:80"), Ok(&from_a));
    check(|| c.ask_tcp("10.43.0.100:80"), Ok(&from_b));
    check(|| ask_tcp("10.43.0.100:80"), Ok("a saw 10.42.0.1"));
    // By a static route: masqueraded, so that the answer comes back this way.
    check(|| outside.ask_tcp("10.43.0.100:80"), Ok("b saw 10.42.0.1"));

    // To itself.
    cluster.service("self", json!({"clusterIP": "10.43.0.101"}), &[a_ip]);
    check(|| a.ask_tcp("10.43.0.101:80"), Ok("a saw 10.42.0.1"));

    // Nothing behind it, or not at that port: refused at once, from a pod and from the host.
    cluster.service("none", json!({"clusterIP": "10.43.0.102"}), &[]);
    for address in ["10.43.0.102:80", "10.43.0.100:81"] {
        check(|| c.ask_tcp(address), REFUSED);
        check(|| ask_tcp(address), REFUSED);
    }
    cluster.set_backs("none", &[b_ip]);
    check(|| c.ask_tcp("10.43.0.102:80"), Ok(&from_b));
    cluster.set_backs("none", &[]);
    check(|| c.ask_tcp("10.43.0.102:80"), REFUSED);

    // Gone entirely: the address is nobody's.
    let options = DeleteOptions::default();
    future::block_on(cluster.client.delete(&cluster.kind("services"), "default", "none", options)).unwrap();
    eventually("the Service's elements go", || {
        use mote_cni::netlink::{Protocol, Socket, nft::FAMILY_IPV4};
        let elements = Socket::open(Protocol::Netfilter).unwrap().elements(FAMILY_IPV4, "mote-services", "cluster-ips");
        let has = elements.unwrap().iter().any(|element| element.key == [10, 43, 0, 102]);
        (!has).then_some(())
    });
}

fn node_port(cluster: &Cluster, outside: &Place, a: &Place, b: &Place, ips: [&str; 2]) {
    let [a_ip, b_ip] = ips;
    let spec = json!({"clusterIP": "10.43.0.110", "type": "NodePort", "ports": [{"name": "p", "port": 80, "nodePort": 30080}]});
    cluster.service("np", spec, &[b_ip]);
    check(|| outside.ask_tcp("192.0.2.1:30080"), Ok("b saw 10.42.0.1"));
    check(|| a.ask_tcp("192.0.2.1:30080"), Ok("b saw 10.42.0.1"));
    check(|| b.ask_tcp("192.0.2.1:30080"), Ok("b saw 10.42.0.1"));
    check(|| ask_tcp("192.0.2.1:30080"), Ok("b saw 10.42.0.1"));
    check(|| ask_tcp("127.0.0.1:30080"), REFUSED);
    cluster.set_backs("np", &[]);
    check(|| outside.ask_tcp("192.0.2.1:30080"), REFUSED);

    // Local: outside clients keep their address.
    let spec = json!({
        "clusterIP": "10.43.0.111", "type": "NodePort", "externalTrafficPolicy": "Local",
        "externalIPs": ["192.0.2.1"], "ports": [{"name": "p", "port": 8080, "nodePort": 30081}],
    });
    cluster.service("local", spec, &[a_ip]);
    check(|| outside.ask_tcp("192.0.2.1:30081"), Ok("a saw 192.0.2.2"));
    check(|| outside.ask_tcp("192.0.2.1:8080"), Ok("a saw 192.0.2.2"));
    check(|| b.ask_tcp("192.0.2.1:8080"), Ok(&format!("a saw {b_ip}")));
}

/// The address that a load balancer gave, for those who may use it.
fn load_balancer(cluster: &Cluster, b: &Place, c: &Place, ips: [&str; 2]) {
    let [a_ip, c_ip] = ips;
    let spec =
        json!({"clusterIP": "10.43.0.115", "type": "LoadBalancer", "loadBalancerSourceRanges": [format!("{c_ip}/32")]});
    cluster.service("balanced", spec, &[a_ip]);
    let status = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}}).into());
    let kind = cluster.kind("services");
    future::block_on(cluster.client.patch(&kind, "default", "balanced", Sub::Status, status)).unwrap();
    check(|| c.ask_tcp("198.51.100.9:80"), Ok("a saw 10.42.0.1"));
    let knock = || TcpStream::connect_timeout(&"198.51.100.9:80".parse().unwrap(), Duration::from_millis(300)).is_ok();
    assert!(!b.run(knock), "dropped");
}

fn affinity(cluster: &Cluster, c: &Place, ips: [&str; 2]) {
    let [a_ip, b_ip] = ips;
    let spec = json!({"clusterIP": "10.43.0.120", "sessionAffinity": "ClientIP"});
    cluster.service("sticky", spec, &[a_ip, b_ip]);
    let ask = || c.ask_tcp("10.43.0.120:80");
    let first = eventually("an answer", || ask().ok());
    for _ in 0..20 {
        assert_eq!(ask().as_ref(), Ok(&first));
    }
    // Its endpoint goes: the tie ends at once, and the new one holds when the old one is back.
    let (gone, left) = if first.starts_with('a') { (a_ip, b_ip) } else { (b_ip, a_ip) };
    cluster.set_backs("sticky", &[left]);
    let second = eventually("another endpoint", || ask().ok().filter(|answer| *answer != first));
    cluster.set_backs("sticky", &[left, gone]);
    for _ in 0..20 {
        assert_eq!(ask().as_ref(), Ok(&second));
    }
}

fn udp(cluster: &Cluster, c: &Place, ips: [&str; 2]) {
    let [a_ip, b_ip] = ips;
    let spec = json!({"clusterIP": "10.43.0.130", "ports": [{"name": "p", "port": 80, "protocol": "UDP"}]});
    cluster.service("dgram", spec, &[a_ip]);
    // One socket all the time, so one tracked flow: it must follow when its endpoint changes.
    let socket = c.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let ask = || {
        let _ = socket.send_to(b"hello", "10.43.0.130:80");
        let mut buffer = [0; 64];
        let answer = socket.recv(&mut buffer).map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned());
        answer.map_err(|e| e.kind().to_string())
    };
    let c_ip = "10.42.0.4";
    check(ask, Ok(&format!("a saw {c_ip}")));
    cluster.set_backs("dgram", &[b_ip]);
    check(ask, Ok(&format!("b saw {c_ip}")));
    cluster.set_backs("dgram", &[]);
    check(|| c.ask_udp("10.43.0.130:80"), REFUSED);
}

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// (response code, number of answers, the last four bytes of the answer: an A record's address)
fn answer(bytes: &[u8]) -> (u8, u8, Ipv4Addr) {
    assert_eq!(bytes[..2], [0x12, 0x34]);
    (bytes[3] & 0xf, bytes[7], Ipv4Addr::from(*bytes.last_chunk::<4>().unwrap()))
}

/// Says 203.0.113.7 to everything, for a minute, and counts how often it was asked.
fn name_server(place: &Place) -> Arc<AtomicUsize> {
    let (asked, socket) = (Arc::new(AtomicUsize::new(0)), place.run(|| UdpSocket::bind("0.0.0.0:53").unwrap()));
    let counter = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, peer)) = socket.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut reply = buffer[..len].to_vec();
            (reply[2], reply[3], reply[7]) = (0x81, 0x80, 1);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7]);
            let _ = socket.send_to(&reply, peer);
        }
    });
    asked
}

fn names(cluster: &Cluster, c: &Place, asked: &AtomicUsize, ips: [&str; 2]) {
    let [a_ip, b_ip] = ips;
    let udp = |name: &str, kind: u16| {
        let bytes = question(name, kind);
        c.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(&bytes, "10.43.0.10:53").unwrap();
            let mut buffer = [0; 2048];
            let len = socket.recv(&mut buffer).unwrap();
            answer(&buffer[..len])
        })
    };
    assert_eq!(udp("web.default.svc.cluster.local", 1), (0, 1, "10.43.0.100".parse().unwrap()));
    assert_eq!((udp("nobody.default.svc.cluster.local", 1).0, udp("web.default.svc.cluster.local", 28).0), (3, 0));
    cluster.service("headless", json!({"clusterIP": "None"}), &[a_ip, b_ip]);
    eventually("both addresses", || (udp("headless.default.svc.cluster.local", 1).1 == 2).then_some(()));

    // Others' names are asked for once and then known.
    for _ in 0..3 {
        assert_eq!(udp("www.example.org", 1), (0, 1, "203.0.113.7".parse().unwrap()));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    cluster.create(
        "services",
        json!({"metadata": {"name": "out"}, "spec": {"type": "ExternalName", "externalName": "www.example.net"}}),
    );
    assert_eq!(udp("out.default.svc.cluster.local", 1), (0, 2, "203.0.113.7".parse().unwrap()));

    // No uplink at all: said at once, and names of the cluster still known. Afterwards the new server is asked.
    std::fs::write(cluster.dir.join("resolv.conf"), "").unwrap();
    assert_eq!(udp("other.example.org", 1).0, 2);
    assert_eq!(udp("web.default.svc.cluster.local", 1).0, 0);

    // TCP, several questions on one connection, from the host too.
    for host in [false, true] {
        let talk = || {
            let mut stream = TcpStream::connect("10.43.0.10:53").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut ask = |name: &str| {
                let bytes = question(name, 1);
                stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat()).unwrap();
                let mut len = [0; 2];
                stream.read_exact(&mut len).unwrap();
                let mut reply = vec![0; u16::from_be_bytes(len).into()];
                stream.read_exact(&mut reply).unwrap();
                answer(&reply)
            };
            let web = ask("web.default.svc.cluster.local");
            assert_eq!(web, (0, 1, "10.43.0.100".parse().unwrap()));
            assert_eq!(ask("www.example.org").2, Ipv4Addr::new(203, 0, 113, 7));
        };
        if host { talk() } else { c.run(talk) }
    }
}

/// A connection through a Service outlives the process that wrote the rules, and a new one takes over.
fn restart(cluster: &Cluster, network: Handle, a: &Place, c: &Place, a_ip: &str) {
    let listener = a.run(|| TcpListener::bind("0.0.0.0:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines() {
            writeln!(writer, "{}", line.unwrap()).unwrap();
        }
    });
    cluster.create(
        "services",
        json!({"metadata": {"name": "echo"}, "spec": {"clusterIP": "10.43.0.140", "ports": [{"name": "p", "port": 7}]}}),
    );
    cluster.create(
        "endpointslices",
        json!({
            "metadata": {"name": "echo", "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4",
            "ports": [{"name": "p", "port": port}],
            "endpoints": endpoints(&[a_ip]),
        }),
    );
    let stream = eventually("a connection", || c.run(|| TcpStream::connect("10.43.0.140:7").ok()));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut writer, mut lines) = (stream.try_clone().unwrap(), BufReader::new(stream).lines());
    let mut echo = |text: &str| {
        writeln!(writer, "{text}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), text);
    };
    echo("before");
    network.stop();
    drop(network);
    echo("between");
    check(|| c.ask_tcp("10.43.0.101:80"), Ok("a saw 10.42.0.4"));
    let _again = cluster.start();
    echo("after");
    check(|| c.ask_tcp("10.43.0.101:80"), Ok("a saw 10.42.0.4"));
}
