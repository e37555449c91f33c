//! What programs made for Kubernetes do to an API server, without those programs: leader election, an installer's releases,
//! upstream's own kubelet and token Secrets; and that parts make room for upstream's one by one.
use base64::{Engine as _, prelude::BASE64_STANDARD};
use mote_tests::{
    Machine, Node, Server, eventually,
    webhook::{Reply, Webhook},
};
use serde_json::{Value, json};

/// client-go's leaderelection.go: a candidate that finds no Lease leads at once, one that finds somebody's waits.
#[test]
fn a_leader_keeps_its_lease_over_a_restart() {
    let mut server = Server::start("");
    let lease = |name: &str, renewed: &str| {
        let time = format!("2026-01-01T00:00:{renewed}.000000Z");
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "acquireTime": "2026-01-01T00:00:00.000000Z",
                "renewTime": time, "leaseTransitions": 0},
        })
    };
    let of = |namespace: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    for (namespace, name) in [("default", "leader"), ("kube-node-lease", "a-node")] {
        let created = server.client().post(&of(namespace), &lease(name, "00"));
        assert_eq!(created.code, 201, "{}", created.text());
        for renewed in ["02", "04"] {
            let mut body = lease(name, renewed);
            let path = format!("{}/{name}", of(namespace));
            body["metadata"]["resourceVersion"] =
                server.client().get(&path).json()["metadata"]["resourceVersion"].clone();
            let media = [("Content-Type", "application/json")];
            let answer = server.client().request("PUT", &path, &media, body.to_string().as_bytes());
            assert_eq!(answer.code, 200, "{}", answer.text());
        }
    }
    server.stop(libc::SIGKILL);
    server.start_again();
    let found = server.client().get(&format!("{}/leader", of("default"))).json();
    assert_eq!(found["spec"]["holderIdentity"], "a", "{found}");
    // Renewals cost no flash: what is left is the Lease as it was taken.
    assert_eq!(found["spec"]["renewTime"], "2026-01-01T00:00:00.000000Z");
    assert_eq!(server.client().get(&format!("{}/a-node", of("kube-node-lease"))).code, 404);
}

#[test]
fn an_installer_keeps_its_releases_in_secrets() {
    let server = Server::start("");
    let client = server.client();
    let secrets = "/api/v1/namespaces/default/secrets";
    // As large as a release may be.
    let chart = BASE64_STANDARD.encode("x".repeat(700_000));
    for (version, status) in [(1, "superseded"), (2, "deployed")] {
        let release = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
            "metadata": {"name": format!("sh.helm.release.v1.web.v{version}"), "labels": {
                "name": "web", "owner": "helm", "status": status, "version": version.to_string()}},
            "data": {"release": chart},
        });
        assert_eq!(client.post(secrets, &release).code, 201);
    }
    let names = |selector: &str| -> Vec<String> {
        let answer = client.get(&format!("{secrets}?labelSelector={selector}")).json();
        let items = answer["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
    };
    let (first, second) = ("sh.helm.release.v1.web.v1", "sh.helm.release.v1.web.v2");
    assert_eq!(names("owner%3Dhelm,name%3Dweb"), [first, second]);
    assert_eq!(names("owner%3Dhelm,name%3Dweb,status%3Ddeployed"), [second]);
    assert_eq!(names("owner%3Dhelm,status%20in%20(deployed,failed)"), [second]);
    // What was rolled back is labelled by a whole update, which must not clash with one's own reading.
    let mut release = client.get(&format!("{secrets}/{second}")).json();
    release["metadata"]["labels"]["status"] = json!("superseded");
    let media = [("Content-Type", "application/json")];
    let path = format!("{secrets}/{second}");
    assert_eq!(client.request("PUT", &path, &media, release.to_string().as_bytes()).code, 200);
    assert_eq!(client.request("PUT", &path, &media, release.to_string().as_bytes()).code, 409);
    assert!(names("owner%3Dhelm,status%3Ddeployed").is_empty());
    let again = client.post(secrets, &json!({"metadata": {"name": first}, "type": "helm.sh/release.v1"}));
    assert_eq!((again.code, again.json()["reason"].clone()), (409, json!("AlreadyExists")));
}

/// Pods of a node whose kubelet is not Mote's: logs and the rest are asked of its port.
#[test]
fn another_kubelet_is_asked_on_its_port() {
    let server = Server::start("");
    let client = server.client();
    let kubelet = Webhook::start(&[], |call| match call.target.split('?').next() {
        Some("/containerLogs/default/web/c") => Reply::Text(200, "hello\n"),
        Some("/healthz") => Reply::Text(200, "ok"),
        _ => Reply::Text(404, "nothing here"),
    });
    server.kubectl.wait_for_account();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "far"}});
    assert_eq!(client.post("/api/v1/nodes", &node).code, 201);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {
        "nodeName": "far", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(client.post("/api/v1/namespaces/default/pods", &pod).code, 201);
    let log = "/api/v1/namespaces/default/pods/web/log?tailLines=3&follow=true";
    assert_eq!(client.get(log).code, 500, "it has said no address yet");
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}}}});
    let media = [("Content-Type", "application/merge-patch+json")];
    let patched = client.request("PATCH", "/api/v1/nodes/far/status", &media, status.to_string().as_bytes());
    assert_eq!(patched.code, 200, "{}", patched.text());

    let answer = client.get(log);
    assert_eq!((answer.code, answer.text().as_str()), (200, "hello\n"));
    let call = kubelet.calls().pop().expect("the kubelet was asked");
    let mut query: Vec<&str> = call.target.split_once('?').map_or("", |(_, query)| query).split('&').collect();
    query.sort_unstable();
    assert_eq!(query, ["follow=true", "tailLines=3"]);
    assert_eq!(call.header("authorization"), None, "what the client showed is for this server alone");
    assert_eq!(client.get("/api/v1/namespaces/default/pods/web/log?container=x").code, 400);

    assert_eq!(client.get("/api/v1/nodes/far/proxy/healthz").text(), "ok");
    assert_eq!(client.get(&format!("/api/v1/nodes/far:{}/proxy/healthz", kubelet.port)).text(), "ok");
    let exec = client.request("POST", "/api/v1/namespaces/default/pods/web/exec?command=ls&stdout=true", &[], b"");
    assert_eq!(exec.code, 400, "{}", exec.text());
}

#[test]
fn the_use_of_a_token_secret_is_noted_on_it() {
    let server = Server::start("");
    let client = server.client();
    server.kubectl.wait_for_account();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "ci", "annotations": {"kubernetes.io/service-account.name": "default"}}});
    assert_eq!(client.post("/api/v1/namespaces/default/secrets", &secret).code, 201);
    let path = "/api/v1/namespaces/default/secrets/ci";
    let token = eventually("the token", 5, || {
        let secret: Value = client.get(path).json();
        let text = secret["data"]["token"].as_str().ok_or("no token yet")?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    });
    assert_eq!(client.with_token(&token).get("/api/v1/namespaces/default/secrets").code, 403, "known, and may not");
    let tracking = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    let since = client.get(tracking).json()["data"]["since"].clone();
    assert_eq!(since.as_str().map(str::len), Some("2026-01-31".len()));
    eventually("the label", 5, || {
        let used = client.get(path).json()["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].clone();
        if used == since { Ok(()) } else { Err(format!("{used} is not {since}")) }
    });
}

/// Upstream's kube-proxy, or another DNS server, takes over what is switched off: nothing of the own one is in its way.
#[test]
fn the_proxy_and_the_dns_server_are_switched_off_alone() {
    let machine = Machine::up("parts");
    let mut node = Node::on(machine, "");
    let address = "ip -o addr show dev mote0";
    let slice = "get endpointslice -n kube-system kube-dns -o jsonpath={.endpoints[0].addresses[0]}";
    assert!(node.machine.sh(address).contains("10.43.0.10/32"));
    assert_eq!(node.kubectl.ok(slice), "10.43.0.10", "a proxy of somebody else's finds an endpoint");
    let services = "nft list tables 2>/dev/null | grep -c 'mote-services$' || true";
    assert_eq!(node.machine.sh(services).trim(), "1");

    for (disabled, rules, dns) in [("proxy", "0", true), ("dns", "1", false), ("proxy, dns", "0", false)] {
        node.stop("TERM");
        let config = format!("components: {{disabled: [{disabled}]}}\n");
        node.machine.sh(&format!("printf '%s' '{config}' >/etc/mote/config.yaml"));
        node.start();
        node.wait_ready();
        assert_eq!(node.machine.sh(services).trim(), rules, "{disabled}");
        assert_eq!(node.machine.sh(address).contains("10.43.0.10/32"), dns, "{disabled}");
        assert_eq!(node.kubectl.run(slice).success, dns, "{disabled}");
    }
}
