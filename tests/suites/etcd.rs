//! Several API servers on one etcd, as people see it: what one writes the other shows, what must run once runs once, and etcd may
//! go, come back, forget and be read and written by its own tools.
use mote_tests::{Etcd, Server, eventually, server};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};
use std::{fs, net::Ipv4Addr, path::Path, process::Command};

const ALONE: &str = "components: {disabled: [kubelet, network]}\n";

fn plane(etcd: &Etcd, name: &str) -> Server {
    let names = format!("node: {{hostnameOverride: {name}}}\n");
    Server::start_with(&format!("{ALONE}{names}{}", etcd.config("/registry")))
}

/// Another one of the same cluster: with the same authorities and keys.
fn second(etcd: &Etcd, first: &Server, name: &str) -> Server {
    let dir = server::scratch();
    let copied =
        Command::new("cp").arg("-a").arg("--parents").arg("data/certs").arg(&dir).current_dir(&first.dir).status();
    assert!(copied.is_ok_and(|status| status.success()));
    for made_for_the_first in ["apiserver.crt", "apiserver.key"] {
        fs::remove_file(dir.join("data/certs").join(made_for_the_first)).expect("certificates were copied");
    }
    let names = format!("node: {{hostnameOverride: {name}}}\n");
    Server::start_at(dir, &format!("{ALONE}{names}{}", etcd.config("/registry")))
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": value}})
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn two_planes_are_one_cluster() {
    let etcd = Etcd::start();
    let one = plane(&etcd, "one");
    one.kubectl.wait_for_account();
    let a = one.client();
    let told = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "told"}, "type": "Normal", "reason": "Told",
        "involvedObject": {"kind": "Namespace", "name": "default", "namespace": "default"}});
    let events = "/api/v1/namespaces/default/events";
    assert_eq!(a.post(events, &told).code, 201);

    let two = second(&etcd, &one, "two");
    let b = two.client();
    // What is in the shared store is not the starting plane's to clean up.
    assert_eq!(b.get(&format!("{events}/told")).code, 200);

    // Each sees at once what the other has written, by every verb.
    let list = b.get(MAPS).json();
    let from = list["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    for round in 0..20 {
        let name = format!("map-{round}");
        assert_eq!(a.post(MAPS, &config_map(&name, "1")).code, 201);
        let path = format!("{MAPS}/{name}");
        let mut seen = b.get(&path).json();
        assert_eq!(seen["data"]["x"], "1");
        seen["data"]["x"] = "2".into();
        let put = |client: &mote_tests::http::Client, body: &Value| {
            client.request("PUT", &path, &[("content-type", "application/json")], body.to_string().as_bytes())
        };
        assert_eq!(put(&b, &seen).code, 200);
        // What the first one holds is old, and its writer is told.
        assert_eq!(put(&a, &seen).json()["reason"], "Conflict");
        assert_eq!(a.get(&path).json()["data"]["x"], "2");
        assert_eq!(b.post(MAPS, &config_map(&name, "1")).json()["reason"], "AlreadyExists");
        assert_eq!(a.request("DELETE", &path, &[], b"").code, 200);
        assert_eq!(b.get(&path).code, 404);
    }
    // And so does a watch, in order.
    let watch = format!("{MAPS}?watch=true&resourceVersion={from}&timeoutSeconds=1");
    let events = b.get(&watch).text();
    let kinds: Vec<String> =
        events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["type"].to_string()).collect();
    assert_eq!(kinds, ["\"ADDED\"", "\"MODIFIED\"", "\"DELETED\""].repeat(20));

    // Definitions and roles of one are those of the other.
    two.kubectl.apply(&definition().to_string());
    let widget =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"x": [1, null]}});
    eventually("the definition is established", 10, || {
        let made = a.post("/apis/example.com/v1/namespaces/default/widgets", &widget);
        if matches!(made.code, 201 | 409) { Ok(()) } else { Err(made.text()) }
    });
    assert_eq!(b.get("/apis/example.com/v1/namespaces/default/widgets/w").json()["spec"], widget["spec"]);
    let may = |server: &Server| server.kubectl.run("auth can-i list pods --as=somebody").success;
    assert!(!may(&one));
    two.kubectl.ok("create clusterrolebinding somebody --clusterrole=view --user=somebody");
    eventually("the role is known", 10, || if may(&one) { Ok(()) } else { Err("not yet".to_owned()) });

    // A token that one has signed is taken by the other.
    let token = one.kubectl.ok("create token default");
    let answer = b.with_token(token.trim()).get("/api/v1/namespaces/default/pods");
    assert_eq!(answer.json()["reason"], "Forbidden", "known, and not allowed");

    // Addresses and ports of Services are given once, whoever gives them.
    std::thread::scope(|scope| {
        for (server, side) in [(&one, "a"), (&two, "b")] {
            scope.spawn(move || {
                let client = server.client();
                for index in 0..10 {
                    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{side}-{index}")},
                        "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
                    eventually("a service is made", 10, || {
                        let made = client.post("/api/v1/namespaces/default/services", &service);
                        if matches!(made.code, 201) { Ok(()) } else { Err(made.text()) }
                    });
                }
            });
        }
    });
    let services = a.get("/api/v1/namespaces/default/services").json();
    let services = services["items"].as_array().expect("a list");
    for path in ["/spec/clusterIP", "/spec/ports/0/nodePort"] {
        let mut all: Vec<String> = services.iter().filter_map(|s| Some(s.pointer(path)?.to_string())).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), count >= 20), (count, true), "{path} is given twice");
    }
    assert!(
        one.kubectl.fails("create service nodeport same --tcp=80 --node-port=1").contains("not in the valid range")
    );
}

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
}

#[test]
fn etcds_own_tools_find_what_they_know() {
    let etcd = Etcd::start();
    let server = plane(&etcd, "one");
    let (client, kubectl) = (server.client(), &server.kubectl);
    kubectl.wait_for_account();
    let keys = etcd.ctl(&["get", "--prefix", "/registry/", "--keys-only"]);
    for key in [
        "/registry/namespaces/default",
        "/registry/services/specs/default/kubernetes",
        "/registry/clusterroles/cluster-admin",
        "/registry/serviceaccounts/default/default",
        "/registry/leases/kube-system/kube-controller-manager",
        "/registry/priorityclasses/system-node-critical",
        "/registry/apiregistration.k8s.io/apiservices/v1.apps",
    ] {
        assert!(keys.lines().any(|line| line == key), "{key} is not there:\n{keys}");
    }
    assert_eq!(client.post(MAPS, &config_map("m", "value")).code, 201);
    let stored = etcd.ctl(&["get", "--print-value-only", "/registry/configmaps/default/m"]);
    assert!(stored.starts_with("k8s\0") && stored.contains("ConfigMap") && stored.contains("value"), "{stored:?}");
    kubectl.apply(&definition().to_string());
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"x": 1}});
    eventually("the definition is established", 10, || {
        let made = client.post("/apis/example.com/v1/namespaces/default/widgets", &widget);
        if matches!(made.code, 201) { Ok(()) } else { Err(made.text()) }
    });
    let stored = etcd.ctl(&["get", "--print-value-only", "/registry/example.com/widgets/default/w"]);
    let stored: Value = serde_json::from_str(&stored).expect("JSON");
    assert_eq!((&stored["kind"], &stored["spec"]["x"]), (&json!("Widget"), &json!(1)));

    // What others write there is served, and what cannot be read harms nobody but itself.
    let by_hand = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-hand", "namespace": "default", "uid": "u"}, "data": {"x": "hand"}});
    etcd.ctl(&["put", "/registry/configmaps/default/by-hand", &by_hand.to_string()]);
    assert_eq!(client.get(&format!("{MAPS}/by-hand")).json()["data"]["x"], "hand");
    etcd.ctl(&["put", "/registry/configmaps/default/broken", "k8s\u{1}rubbish"]);
    assert_eq!(client.get(&format!("{MAPS}/broken")).code, 500);
    assert_eq!(client.get(&format!("{MAPS}/by-hand")).code, 200);
    etcd.ctl(&["del", "/registry/configmaps/default/broken"]);
    assert_eq!(client.get(MAPS).code, 200);

    // An Event goes with its lease.
    let event =
        json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default"}, "reason": "r"});
    assert_eq!(client.post("/api/v1/namespaces/default/events", &event).code, 201);
    let stored = etcd.ctl(&["get", "-w", "json", "/registry/events/default/e"]);
    let stored: Value = serde_json::from_str(&stored).expect("JSON");
    let lease = stored["kvs"][0]["lease"].as_i64().expect("a lease");
    let left = etcd.ctl(&["lease", "timetolive", &format!("{lease:x}")]);
    assert!(left.contains("granted with TTL(3660s)"), "{left}");
    etcd.ctl(&["lease", "revoke", &format!("{lease:x}")]);
    assert_eq!(client.get("/api/v1/namespaces/default/events/e").code, 404);

    let refused =
        Command::new(mote_tests::binary()).args(["backup", "-", "--data-dir"]).arg(server.dir.join("data")).output();
    let refused = String::from_utf8_lossy(&refused.expect("it runs").stderr).into_owned();
    assert!(refused.contains("etcdctl snapshot save"), "{refused}");
}

#[test]
fn what_must_run_once_moves_on_when_its_node_dies() {
    let etcd = Etcd::start();
    let mut one = plane(&etcd, "one");
    one.kubectl.wait_for_account();
    let two = second(&etcd, &one, "two");
    let holder = || two.kubectl.within("kube-system").field("lease/kube-controller-manager", ".spec.holderIdentity");
    assert!(holder().is_ok_and(|holder| holder.starts_with("one_")));
    one.stop(libc::SIGKILL);
    two.kubectl.ok("create deployment web --image=web");
    eventually("the other one's controllers have begun", 60, || {
        two.kubectl
            .field("deployment/web", ".status.observedGeneration")
            .and_then(|seen| if seen.is_empty() { Err("not yet".to_owned()) } else { Ok(()) })
    });
    assert!(holder().is_ok_and(|holder| holder.starts_with("two_")));
    one.start_again();
    assert_eq!(one.client().get("/apis/apps/v1/namespaces/default/deployments/web").code, 200);
    assert!(holder().is_ok_and(|holder| holder.starts_with("two_")));
}

#[test]
fn etcd_goes_and_comes_back() {
    let mut etcd = Etcd::start();
    let server = plane(&etcd, "one");
    server.kubectl.wait_for_account();
    let client = server.client();
    assert_eq!(client.post(MAPS, &config_map("before", "1")).code, 201);
    let is_told = || {
        eventually("its absence is told", 60, || {
            assert_eq!(client.get(&format!("{MAPS}/before")).json()["data"]["x"], "1", "reads go on");
            let ready = client.get("/readyz");
            if ready.code == 500 && ready.text().contains("[-]etcd failed") { Ok(()) } else { Err(ready.text()) }
        });
    };
    let is_back = || {
        eventually("it is used again", 60, || {
            let ready = client.get("/readyz");
            if ready.code == 200 { Ok(()) } else { Err(ready.text()) }
        });
    };
    // It says nothing for a while.
    etcd.signal(libc::SIGSTOP);
    is_told();
    etcd.signal(libc::SIGCONT);
    is_back();
    assert_eq!(client.post(MAPS, &config_map("between", "1")).code, 201);
    // It is gone.
    etcd.stop();
    is_told();
    let refused = client.post(MAPS, &config_map("meanwhile", "1"));
    assert_eq!((refused.code, &refused.json()["reason"]), (503, &json!("ServiceUnavailable")));
    assert!(refused.text().contains("connection refused"), "{}", refused.text());
    etcd.start_again();
    is_back();
    assert_eq!(client.post(MAPS, &config_map("after", "1")).code, 201);
    assert_eq!(client.get(&format!("{MAPS}/meanwhile")).code, 404);
}

#[test]
fn what_was_compacted_unseen_is_read_anew() {
    let mut etcd = Etcd::start();
    let one = plane(&etcd, "one");
    one.kubectl.wait_for_account();
    let a = one.client();
    let told = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "told"}, "type": "Normal", "reason": "Told",
        "involvedObject": {"kind": "Namespace", "name": "default", "namespace": "default"}});
    let events = "/api/v1/namespaces/default/events";
    assert_eq!(a.post(events, &told).code, 201);

    let two = second(&etcd, &one, "two");
    let b = two.client();
    // What is in the shared store is not the starting plane's to clean up.
    assert_eq!(b.get(&format!("{events}/told")).code, 200);
    assert_eq!(a.post(MAPS, &config_map("goes", "1")).code, 201);
    assert_eq!(a.post(MAPS, &config_map("stays", "1")).code, 201);
    assert_eq!(b.get(MAPS).code, 200);
    // Its watch is broken while it can see nothing.
    two.signal(libc::SIGSTOP);
    etcd.stop();
    etcd.start_again();
    eventually("the other one writes", 60, || {
        let made = a.post(MAPS, &config_map("comes", "1"));
        if matches!(made.code, 201 | 409) { Ok(()) } else { Err(made.text()) }
    });
    assert_eq!(a.request("DELETE", &format!("{MAPS}/goes"), &[], b"").code, 200);
    let status: Value = serde_json::from_str(&etcd.ctl(&["get", "-w", "json", "x"])).expect("JSON");
    etcd.ctl(&["compact", &status["header"]["revision"].to_string()]);
    two.signal(libc::SIGCONT);
    eventually("all is seen", 60, || {
        let code = |name: &str| b.get(&format!("{MAPS}/{name}")).code;
        let seen = (code("goes"), code("stays"), code("comes"));
        if seen == (404, 200, 200) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(b.post(MAPS, &config_map("more", "1")).code, 201);
    assert_eq!(a.get(&format!("{MAPS}/more")).code, 200);
}

/// An authority, a server's certificate and a client's, as PEM files.
fn certificates(dir: &Path) {
    let write = |name: &str, text: String| fs::write(dir.join(name), text).expect("writing");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.crt", params.self_signed(&key).expect("a certificate").pem());
    let issuer = Issuer::new(params, key);
    for (name, usage) in
        [("etcd", rcgen::ExtendedKeyUsagePurpose::ServerAuth), ("client", rcgen::ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.extended_key_usages = vec![usage, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
        write(&format!("{name}.crt"), params.signed_by(&key, &issuer).expect("a certificate").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

#[test]
fn over_tls_and_past_a_dead_endpoint() {
    let dir = server::scratch();
    certificates(&dir);
    let etcd = Etcd::start_tls(dir);
    let dead = format!("https://127.0.0.1:{}", server::free_port());
    let file = |name: &str| etcd.dir.join(name).display().to_string();
    let config = |files: &str| format!("{ALONE}store: {{etcd: {{endpoints: [{dead:?}, {:?}]{files}}}}}\n", etcd.url());
    let all =
        format!(", caFile: {}, certFile: {}, keyFile: {}", file("ca.crt"), file("client.crt"), file("client.key"));
    let server = Server::start_with(&config(&all));
    assert_eq!(server.client().post(MAPS, &config_map("m", "1")).code, 201);
    assert!(!etcd.ctl(&["get", "/registry/configmaps/default/m"]).is_empty());

    // A client that shows nothing is not let in, and says why it ends.
    let dir = server::scratch();
    let port = server::free_port();
    let text = format!("apiServer: {{port: {port}}}\n{}", config(&format!(", caFile: {}", file("ca.crt"))));
    fs::write(dir.join("config.yaml"), text).expect("writing");
    let ended = Command::new(mote_tests::binary())
        .args(["run", "--config"])
        .arg(dir.join("config.yaml"))
        .arg("--data-dir")
        .arg(dir.join("data"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let _ = fs::remove_dir_all(dir);
    assert!(!ended.status.success() && said.contains("mote: opening the store: "), "{said}");
}

/// One whose client is a user, with a password in a file: `mote:one`.
fn with_users() -> (Etcd, String) {
    let mut etcd = Etcd::start();
    let file = etcd.dir.join("password");
    fs::write(&file, "one\n").expect("writing");
    for command in [
        "user add root:root",
        "user grant-role root root",
        "user add mote:one",
        "role add mote",
        "role grant-permission mote read  --from-key",
        "role grant-permission mote readwrite /registry/ --prefix",
        "role grant-permission mote readwrite compact_rev_key",
        "user grant-role mote mote",
        "auth enable",
    ] {
        etcd.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    etcd.user = Some("root:root");
    let login = format!("username: mote, passwordFile: {}", file.display());
    let config = format!("store: {{etcd: {{endpoints: [{:?}], {login}}}}}\n", etcd.url());
    (etcd, config)
}

#[test]
fn as_a_user_whose_tokens_are_forgotten_and_whose_password_changes() {
    let (mut etcd, config) = with_users();
    let server = Server::start_with(&format!("{ALONE}{config}"));
    let client = server.client();
    assert_eq!(client.post(MAPS, &config_map("m-0", "1")).code, 201);
    // A token of before is not taken any more, whatever the reason; what is written goes through all the same, and so does the watch.
    let by_hand = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-hand", "namespace": "default", "uid": "u"}});
    for n in 1..4 {
        match n {
            // Its memory of tokens goes with it.
            1 => {
                etcd.stop();
                etcd.start_again();
            }
            // Every token was made before that.
            2 => drop(etcd.ctl(&["user", "add", "another:two"])),
            // And so it is when permissions change while nobody asks.
            _ => drop(etcd.ctl(&["role", "add", "another"])),
        }
        eventually("a write goes through", 60, || match client.post(MAPS, &config_map(&format!("m-{n}"), "1")) {
            answer if matches!(answer.code, 201 | 409) => Ok(()),
            answer => Err(answer.text()),
        });
        let key = format!("/registry/configmaps/default/by-hand-{n}");
        etcd.ctl(&["put", &key, &by_hand.to_string().replace("by-hand", &format!("by-hand-{n}"))]);
        eventually("it is seen", 60, || match client.get(&format!("{MAPS}/by-hand-{n}")) {
            answer if answer.code == 200 => Ok(()),
            answer => Err(answer.text()),
        });
        assert_eq!(client.get("/readyz").code, 200);
    }
    // Another password: told until the file has it too.
    etcd.ctl(&["user", "delete", "mote"]);
    etcd.ctl(&["user", "add", "mote:two"]);
    etcd.ctl(&["user", "grant-role", "mote", "mote"]);
    let refused = client.post(MAPS, &config_map("later", "1"));
    assert_eq!((refused.code, refused.text().contains("authentication failed")), (503, true), "{}", refused.text());
    assert_eq!(client.get(&format!("{MAPS}/m-0")).code, 200, "reads go on");
    fs::write(etcd.dir.join("password"), "two\n").expect("writing");
    eventually("a write goes through", 60, || match client.post(MAPS, &config_map("later", "1")) {
        answer if matches!(answer.code, 201 | 409) => Ok(()),
        answer => Err(answer.text()),
    });
}

/// A start that etcd does not let in ends with etcd's words.
#[test]
fn a_wrong_password_and_a_missing_one_are_told() {
    let (etcd, config) = with_users();
    let file = etcd.dir.join("password");
    for (text, expected) in
        [("wrong", "authentication failed, invalid user ID or password"), ("", "No such file or directory")]
    {
        let dir = server::scratch();
        match text {
            "" => fs::remove_file(&file).expect("it is there"),
            text => fs::write(&file, text).expect("writing"),
        }
        let port = server::free_port();
        fs::write(dir.join("config.yaml"), format!("apiServer: {{port: {port}}}\n{ALONE}{config}")).expect("writing");
        let mut command = Command::new(mote_tests::binary());
        command.args(["run", "--config"]).arg(dir.join("config.yaml")).arg("--data-dir").arg(dir.join("data"));
        let ended = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        let _ = fs::remove_dir_all(dir);
        assert!(!ended.status.success() && said.contains(expected) && !said.contains("wrong\""), "{said}");
    }
}

/// etcd's quota is used up: writes are refused with 507 until somebody has made room, deletions and reads go on.
#[test]
fn etcds_space_is_used_up() {
    let etcd = Etcd::start_with(&["--quota-backend-bytes", "8388608"]);
    let server = plane(&etcd, "one");
    server.kubectl.wait_for_account();
    let (client, text) = (server.client(), "x".repeat(400_000));
    let mut count = 0;
    let refused = loop {
        let answer = client.post(MAPS, &config_map(&format!("big-{count}"), &text));
        if answer.code != 201 {
            break answer;
        }
        count += 1;
        assert!(count < 100, "etcd takes all of it");
    };
    assert_eq!(
        (refused.code, refused.json()["reason"].as_str()),
        (507, Some("InsufficientStorage")),
        "{}",
        refused.text()
    );
    assert!(etcd.ctl(&["alarm", "list"]).contains("NOSPACE"));
    assert_eq!(client.get(&format!("{MAPS}/big-0")).code, 200, "reads go on");
    assert_eq!(client.post(MAPS, &config_map("small", "1")).code, 507);
    for n in 0..count {
        let answer = client.request("DELETE", &format!("{MAPS}/big-{n}"), &[], b"");
        assert_eq!(answer.code, 200, "{n}: {}", answer.text());
    }
    // As etcd's documentation has it (op-guide/maintenance).
    let status: Value = serde_json::from_str(&etcd.ctl(&["endpoint", "status", "-w", "json"])).expect("JSON");
    let revision = status[0]["Status"]["header"]["revision"].as_u64().expect("a revision");
    etcd.ctl(&["compact", "--physical", &revision.to_string()]);
    etcd.ctl(&["defrag"]);
    etcd.ctl(&["alarm", "disarm"]);
    eventually("writes go through again", 60, || match client.post(MAPS, &config_map("after", "1")) {
        answer if matches!(answer.code, 201 | 409) => Ok(()),
        answer => Err(answer.text()),
    });
}

/// Objects that etcd finds too large, and those that its gRPC does not even read.
#[test]
fn what_is_too_large_for_etcd() {
    let etcd = Etcd::start_with(&["--max-request-bytes", "100000"]);
    let server = plane(&etcd, "one");
    let client = server.client();
    assert_eq!(client.post(MAPS, &config_map("fits", &"x".repeat(50_000))).code, 201);
    for bytes in [150_000, 900_000] {
        let answer = client.post(MAPS, &config_map("large", &"x".repeat(bytes)));
        assert_eq!(
            (answer.code, answer.json()["reason"].as_str()),
            (413, Some("RequestEntityTooLarge")),
            "{}",
            answer.text()
        );
        assert_eq!(client.get(&format!("{MAPS}/large")).code, 404);
    }
    assert_eq!(client.get("/readyz").code, 200);
}
