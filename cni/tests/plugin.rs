//! The plugin as a runtime calls it: a process, variables, stdin and stdout, real namespaces and real traffic.
mod world;

use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use world::{Place, ask_tcp, call};

fn main() -> ExitCode {
    // This very binary is the plugin when it is called like one.
    if std::env::var_os("CNI_COMMAND").is_some() {
        return mote_cni::plugin_main();
    }
    if !world::enter() {
        return ExitCode::SUCCESS;
    }
    let dir = std::env::temp_dir().join(format!("mote-cni-test-{}", std::process::id()));
    run(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
    println!("plugin: ok");
    ExitCode::SUCCESS
}

fn config(dir: &Path, version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "mote", "type": "mote-cni", "link": "mote0", "dataDir": dir,
        "podCIDR": "10.42.0.0/24", "clusterCIDR": "10.42.0.0/16",
    })
}

fn address(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned()
}

fn run(dir: &Path) {
    let outside = world::outside(None);
    outside.serve("outside", 7000);
    let (a, b) = (Place::new(), Place::new());

    // What containerd runs first, with nothing but this.
    let loopback = json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"});
    let added = call("ADD", "a", &a.path, &loopback).unwrap();
    assert_eq!(added["ips"][0], json!({"interface": 0, "address": "127.0.0.1/8", "version": "4"}));
    assert_eq!(call("CHECK", "a", &a.path, &loopback), Ok(Value::Null));
    assert_eq!(call("CHECK", "b", &b.path, &loopback).unwrap_err()["code"], 103);
    assert_eq!(call("DEL", "a", "", &loopback), Ok(Value::Null));

    let plain = config(dir, "1.0.0");
    assert_eq!(call("STATUS", "", "", &plain), Ok(Value::Null));
    let added = call("ADD", "a", &a.path, &plain).unwrap();
    assert_eq!(address(&added), "10.42.0.2");
    assert_eq!(added["ips"][0]["gateway"], "10.42.0.1");
    assert_eq!(added["interfaces"][1], json!({"name": "eth0", "mac": "0a:58:0a:2a:00:02", "sandbox": a.path}));
    assert_eq!(added["interfaces"][0]["name"], mote_cni::host_link_name("mote", "a", "eth0"));
    assert_eq!(call("ADD", "a", &a.path, &plain).unwrap_err()["code"], 102);

    // An older caller, and host ports of three sorts.
    let mut ported = config(dir, "0.4.0");
    ported["runtimeConfig"] = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
    ]});
    let second = call("ADD", "b", &b.path, &ported).unwrap();
    assert_eq!((&second["ips"][0]["version"], address(&second).as_str()), (&"4".into(), "10.42.0.3"));
    a.serve("a", 80);
    b.serve("b", 80);

    // Pods, host and outside; the source address tells who was masqueraded.
    let check = |got: Result<String, String>, expected: &str| assert_eq!(got.as_deref(), Ok(expected));
    check(a.ask_tcp("10.42.0.3:80"), "b saw 10.42.0.2");
    check(b.ask_udp("10.42.0.2:80"), "a saw 10.42.0.3");
    check(a.ask_tcp("127.0.0.1:80"), "a saw 127.0.0.1");
    check(ask_tcp("10.42.0.2:80"), "a saw 10.42.0.1");
    check(a.ask_tcp("192.0.2.2:7000"), "outside saw 192.0.2.1");
    check(outside.ask_tcp("192.0.2.1:8080"), "b saw 192.0.2.2");
    check(outside.ask_udp("192.0.2.1:8080"), "b saw 192.0.2.2");
    check(a.ask_tcp("192.0.2.1:8080"), "b saw 10.42.0.2");
    check(b.ask_tcp("192.0.2.1:8080"), "b saw 10.42.0.1");
    check(ask_tcp("127.0.0.1:8080"), "b saw 10.42.0.1");
    check(ask_tcp("127.0.0.1:8081"), "b saw 10.42.0.1");
    check(ask_tcp("192.0.2.1:8080"), "b saw 192.0.2.1");
    assert!(outside.ask_tcp("192.0.2.1:8081").is_err(), "that port is 127.0.0.1's alone");

    // A port twice.
    let c = Place::new();
    let taken = call("ADD", "c", &c.path, &ported).unwrap_err();
    assert!(taken["msg"].as_str().unwrap().contains("opening host ports of 10.42.0.4"), "{taken}");
    assert!(!std::fs::exists(dir.join("mote/10.42.0.4")).unwrap());
    assert!(!our_links().contains(&mote_cni::host_link_name("mote", "c", "eth0")));

    // CHECK believes only what it sees.
    let mut checked = plain.clone();
    checked["prevResult"] = added.clone();
    assert_eq!(call("CHECK", "a", &a.path, &checked), Ok(Value::Null));
    assert_eq!(call("CHECK", "a", &a.path, &plain).unwrap_err()["code"], 7);
    assert_eq!(call("CHECK", "b", &b.path, &checked).unwrap_err()["code"], 103);

    // GC keeps what is named and nothing else.
    let mut valid = config(dir, "1.1.0");
    valid["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
    assert_eq!(call("GC", "", "", &valid), Ok(Value::Null));
    assert!(!std::fs::exists(dir.join("mote/10.42.0.3")).unwrap());
    assert!(outside.ask_tcp("192.0.2.1:8080").is_err(), "its host port went too");
    assert!(a.ask_tcp("192.0.2.2:7000").is_ok());

    // DEL with the namespace gone, and again, and without its netns; then the address's file is gone.
    for netns in ["/run/netns/gone", ""] {
        assert_eq!(call("DEL", "a", netns, &plain), Ok(Value::Null));
        assert!(!std::fs::exists(dir.join("mote/10.42.0.2")).unwrap());
    }
    let latest = call("ADD", "c", &c.path, &config(dir, "1.1.0")).unwrap();
    assert_eq!(latest["interfaces"][1]["mtu"], 1500);
    assert_eq!(call("DEL", "c", &c.path, &plain), Ok(Value::Null));
    assert_eq!(our_links(), ["mote0"]);

    // And nothing is left when the node is taken down.
    mote_cni::gateway::remove().unwrap();
    assert_eq!((mote_cni::ports::remove(), mote_cni::ports::remove()), (Ok(true), Ok(false)));
    assert_eq!(our_links(), [""; 0]);
}

fn our_links() -> Vec<String> {
    use mote_cni::netlink::{Protocol, Socket};
    let links = Socket::open(Protocol::Route).unwrap().links().unwrap();
    links.into_iter().map(|l| l.name).filter(|n| n.starts_with("mote")).collect()
}
