//! Bad input, each case answered as kube-apiserver answers it: status code, reason, and the field or text that names
//! what is wrong. Nothing in here may end the server, which the last look of every test checks.
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use mote_tests::{
    Kubectl, Server, eventually,
    http::{Client, Connection, read_response},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A bound that a test can reach: connections from the board's profile.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::shared("board: rpi4-2gb\n"))
}

fn client() -> Client {
    server().client()
}

fn namespace(purpose: &str) -> Kubectl {
    server().kubectl.namespace(purpose)
}

struct Case<'a> {
    what: &'a str,
    request: (&'a str, &'a str),
    content_type: &'a str,
    body: Vec<u8>,
    code: u16,
    reason: &'a str,
    /// Somewhere in the status: its message, a cause's field or text.
    says: &'a str,
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const MERGE: &str = "application/merge-patch+json";

#[track_caller]
fn check(client: &Client, cases: &[Case<'_>]) {
    let mut wrong = Vec::new();
    for case in cases {
        let (method, path) = case.request;
        let answer = match client.try_request(method, path, &[("Content-Type", case.content_type)], &case.body) {
            Ok(answer) => answer,
            Err(error) => {
                wrong.push(format!("{}: no answer: {error}", case.what));
                continue;
            }
        };
        let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let reason = status["reason"].as_str().unwrap_or_default();
        if (answer.code, reason) != (case.code, case.reason) || !status.to_string().contains(case.says) {
            wrong.push(format!(
                "{}: wanted {} {} with {:?}, got {} {}",
                case.what,
                case.code,
                case.reason,
                case.says,
                answer.code,
                answer.text()
            ));
        }
    }
    assert_eq!(client.get("/livez").code, 200);
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn body(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn containers() -> Value {
    json!([{"name": "c", "image": "i"}])
}

#[test]
fn bodies_that_cannot_be_read() {
    let pods = "/api/v1/namespaces/default/pods";
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deep = |open: &str, close: &str, depth| [open.repeat(depth), close.repeat(depth)].concat().into_bytes();
    let large =
        format!("{{\"metadata\":{{\"name\":\"x\"}},\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(3 * 1024 * 1024 + 10));
    let bomb = format!(
        "a: &a [x,x,x,x,x,x,x,x,x]\n{}",
        (0..9)
            .map(|n| format!(
                "{}: &{0} [{}]\n",
                (b'b' + n) as char,
                vec![format!("*{}", (b'a' + n) as char); 9].join(",")
            ))
            .collect::<String>()
    );
    let case = |what, path, content_type, body, code, reason, says| Case {
        what,
        request: ("POST", path),
        content_type,
        body,
        code,
        reason,
        says,
    };
    check(
        &client(),
        &[
            case("half a document", pods, JSON, b"{\"metadata\":".to_vec(), 400, "BadRequest", ""),
            case("no document", pods, JSON, Vec::new(), 400, "BadRequest", ""),
            case("not JSON", pods, JSON, b"hello".to_vec(), 400, "BadRequest", ""),
            case("not an object", pods, JSON, b"[1,2]".to_vec(), 400, "BadRequest", ""),
            case(
                "a stray byte in a name, which reads as U+FFFD",
                pods,
                JSON,
                b"{\"metadata\":{\"name\":\"\xff\"}}".to_vec(),
                422,
                "Invalid",
                "metadata.name",
            ),
            case("half a YAML document", pods, YAML, b"metadata: {name: x\nspec: [".to_vec(), 400, "BadRequest", ""),
            case("deep JSON", pods, JSON, deep("[", "]", 100_000), 400, "BadRequest", ""),
            case(
                "deep JSON in a field",
                pods,
                JSON,
                [&b"{\"spec\":"[..], &deep("{\"a\":", "}", 20_000)[..]].concat(),
                400,
                "BadRequest",
                "",
            ),
            case("deep YAML", pods, YAML, deep("[", "]", 50_000), 400, "BadRequest", ""),
            case("YAML aliases that multiply", pods, YAML, bomb.into_bytes(), 400, "BadRequest", ""),
            case(
                "more than 3 MB",
                "/api/v1/namespaces/default/configmaps",
                JSON,
                large.into_bytes(),
                413,
                "RequestEntityTooLarge",
                "limit is 3145728",
            ),
            case("a type we do not speak", pods, "text/csv", b"a,b".to_vec(), 415, "UnsupportedMediaType", ""),
            case(
                "a string for a number",
                deployments,
                JSON,
                body(json!({"metadata": {"name": "x"}, "spec": {"replicas": "two"}})),
                400,
                "BadRequest",
                "replicas",
            ),
            case(
                "a map for a list",
                pods,
                JSON,
                body(pod("x", json!({"containers": {"name": "c"}}))),
                400,
                "BadRequest",
                "containers",
            ),
            case(
                "a list for a map",
                pods,
                JSON,
                body(json!({"metadata": [], "spec": {"containers": containers()}})),
                400,
                "BadRequest",
                "metadata",
            ),
            case(
                "a number beyond its type",
                deployments,
                JSON,
                body(json!({"metadata": {"name": "x"}, "spec": {"replicas": 3_000_000_000_i64}})),
                400,
                "BadRequest",
                "replicas",
            ),
            case(
                "another kind than the path's",
                deployments,
                JSON,
                body(pod("x", json!({"containers": containers()}))),
                400,
                "BadRequest",
                "",
            ),
            case(
                "a namespace that is not the path's",
                pods,
                JSON,
                body(json!({"metadata": {"name": "x", "namespace": "other"}, "spec": {"containers": containers()}})),
                400,
                "BadRequest",
                "the namespace of the provided object does not match the namespace sent on the request",
            ),
        ],
    );
}

#[test]
fn objects_that_are_not_valid() {
    let pods = "/api/v1/namespaces/default/pods";
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let services = "/api/v1/namespaces/default/services";
    let case = |what, path, value: Value, says| Case {
        what,
        request: ("POST", path),
        content_type: JSON,
        body: body(value),
        code: 422,
        reason: "Invalid",
        says,
    };
    let deployment = |spec: Value| json!({"metadata": {"name": "x"}, "spec": spec});
    check(
        &client(),
        &[
            case("no containers", pods, pod("x", json!({})), "spec.containers"),
            case(
                "a container without a name",
                pods,
                pod("x", json!({"containers": [{"image": "i"}]})),
                "spec.containers[0].name",
            ),
            case(
                "a container without an image",
                pods,
                pod("x", json!({"containers": [{"name": "c"}]})),
                "spec.containers[0].image",
            ),
            case(
                "two containers of a name",
                pods,
                pod("x", json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]})),
                "spec.containers[1].name",
            ),
            case("a name in capitals", pods, pod("Web", json!({"containers": containers()})), "metadata.name"),
            case("a name with a slash", pods, pod("a/b", json!({"containers": containers()})), "metadata.name"),
            case(
                "a name of 254 letters",
                pods,
                pod(&"a".repeat(254), json!({"containers": containers()})),
                "metadata.name",
            ),
            case(
                "no name at all",
                pods,
                json!({"spec": {"containers": containers()}}),
                "name or generateName is required",
            ),
            case(
                "a label that is none",
                pods,
                json!({"metadata": {"name": "x", "labels": {"a": "b c"}}, "spec": {"containers": containers()}}),
                "metadata.labels",
            ),
            case(
                "an unknown restart policy",
                pods,
                pod("x", json!({"containers": containers(), "restartPolicy": "Sometimes"})),
                "spec.restartPolicy",
            ),
            case(
                "a mount of no volume",
                pods,
                pod(
                    "x",
                    json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}),
                ),
                "spec.containers[0].volumeMounts[0].name",
            ),
            case(
                "a port too high",
                pods,
                pod("x", json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 70000}]}]})),
                "spec.containers[0].ports[0].containerPort",
            ),
            case(
                "a request above its limit",
                pods,
                pod(
                    "x",
                    json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}),
                ),
                "spec.containers[0].resources.requests",
            ),
            case(
                "no selector",
                deployments,
                deployment(
                    json!({"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers()}}}),
                ),
                "spec.selector",
            ),
            case(
                "a selector that misses its template",
                deployments,
                deployment(
                    json!({"selector": {"matchLabels": {"a": "c"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers()}}}),
                ),
                "spec.template.metadata.labels",
            ),
            case(
                "fewer than no replicas",
                deployments,
                deployment(
                    json!({"replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers()}}}),
                ),
                "spec.replicas",
            ),
            case(
                "a service without ports",
                services,
                json!({"metadata": {"name": "x"}, "spec": {"selector": {"a": "b"}}}),
                "spec.ports",
            ),
            case(
                "a node port out of range",
                services,
                json!({"metadata": {"name": "x"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}}),
                "spec.ports[0].nodePort",
            ),
            case(
                "a cluster address out of range",
                services,
                json!({"metadata": {"name": "x"}, "spec": {"clusterIP": "10.9.9.9", "ports": [{"port": 80}]}}),
                "spec.clusterIP",
            ),
            case(
                "a key that no file can have",
                "/api/v1/namespaces/default/configmaps",
                json!({"metadata": {"name": "x"}, "data": {"a/b": "c"}}),
                "data[a/b]",
            ),
        ],
    );
}

#[test]
fn requests_that_lead_nowhere() {
    let kubectl = namespace("nowhere");
    kubectl.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: here}}");
    let maps = format!("/api/v1/namespaces/{}/configmaps", kubectl.name());
    let here = format!("{maps}/here");
    let mut old = client().get(&here).json();
    kubectl.ok("label configmap here a=b");
    let stale = body(old.take());
    let watch_rubbish = format!("{maps}?watch=true&resourceVersion=soon");
    let missing = format!("{maps}/missing");
    let selector = format!("{maps}?labelSelector=a%20in%20b");
    let field = format!("{maps}?fieldSelector=data.a%3Db");
    let token = format!("{maps}?limit=1&continue=rubbish");
    let matching = format!("{maps}?resourceVersionMatch=Exact");
    let log = format!("/api/v1/namespaces/{}/pods/none/log", kubectl.name());
    let sub = format!("{here}/status");
    let elsewhere = format!("/api/v1/namespaces/{}-none/configmaps", kubectl.name());
    let case = |what, request, content_type, body: &[u8], code, reason, says| Case {
        what,
        request,
        content_type,
        body: body.to_vec(),
        code,
        reason,
        says,
    };
    check(
        &client(),
        &[
            case(
                "an unknown path",
                ("GET", "/apis/nothing.example/v1/things"),
                JSON,
                b"",
                404,
                // Upstream's router answers in plain text here.
                "",
                "",
            ),
            case(
                "an unknown kind",
                ("POST", "/apis/apps/v1/namespaces/default/deploymints"),
                JSON,
                b"{}",
                404,
                "NotFound",
                "the server could not find the requested resource",
            ),
            case(
                "an unknown subresource",
                ("GET", &sub),
                JSON,
                b"",
                404,
                "NotFound",
                "the server could not find the requested resource",
            ),
            case(
                "an object that is not there",
                ("GET", &missing),
                JSON,
                b"",
                404,
                "NotFound",
                "configmaps \\\"missing\\\" not found",
            ),
            case(
                "deleting what is not there",
                ("DELETE", &missing),
                JSON,
                b"",
                404,
                "NotFound",
                "configmaps \\\"missing\\\" not found",
            ),
            case(
                "patching what is not there",
                ("PATCH", &missing),
                MERGE,
                b"{}",
                404,
                "NotFound",
                "configmaps \\\"missing\\\" not found",
            ),
            case("logs of no pod", ("GET", &log), JSON, b"", 404, "NotFound", "pods \\\"none\\\" not found"),
            case(
                "creating in no namespace",
                ("POST", &elsewhere),
                JSON,
                b"{\"metadata\":{\"name\":\"x\"}}",
                404,
                "NotFound",
                "namespaces ",
            ),
            case(
                "creating twice",
                ("POST", &maps),
                JSON,
                b"{\"metadata\":{\"name\":\"here\"}}",
                409,
                "AlreadyExists",
                "configmaps \\\"here\\\" already exists",
            ),
            case(
                "an update of what has changed since",
                ("PUT", &here),
                JSON,
                &stale,
                409,
                "Conflict",
                "the object has been modified; please apply your changes to the latest version and try again",
            ),
            case(
                "a name that is not the path's",
                ("PUT", &here),
                JSON,
                b"{\"metadata\":{\"name\":\"there\"}}",
                400,
                "BadRequest",
                "the name of the object (there) does not match the name on the URL (here)",
            ),
            case("a patch of an unknown sort", ("PATCH", &here), JSON, b"{}", 415, "UnsupportedMediaType", ""),
            case(
                "a patch that is none",
                ("PATCH", &here),
                "application/json-patch+json",
                b"{\"a\":1}",
                400,
                "BadRequest",
                "",
            ),
            case(
                "a patch of a path that is not there",
                ("PATCH", &here),
                "application/json-patch+json",
                b"[{\"op\":\"remove\",\"path\":\"/data/none\"}]",
                422,
                "Invalid",
                "",
            ),
            case("a watch from rubbish", ("GET", &watch_rubbish), JSON, b"", 500, "", "resourceVersion"),
            case("a selector that is none", ("GET", &selector), JSON, b"", 400, "BadRequest", ""),
            case("a field that cannot be selected", ("GET", &field), JSON, b"", 400, "BadRequest", "data.a"),
            case("a page of no list", ("GET", &token), JSON, b"", 400, "BadRequest", "continue"),
            case("a match without a version", ("GET", &matching), JSON, b"", 422, "Invalid", "resourceVersionMatch"),
            case("a verb the path does not know", ("PUT", &maps), JSON, b"{}", 405, "MethodNotAllowed", ""),
        ],
    );
}

/// More changes than the board's profile keeps: who asks for the first of them has to list again.
#[test]
fn a_watch_from_before_what_is_kept_is_gone() {
    let kept = mote_boards::named("rpi4-2gb").unwrap().limits.watch_events;
    let kubectl = namespace("gone");
    let path = format!("/api/v1/namespaces/{}/configmaps", kubectl.name());
    let start = client().get(&path).json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut connection = Connection::open(&client()).unwrap();
    let (code, _) = connection.request("POST", &path, "{\"metadata\":{\"name\":\"busy\"}}").unwrap();
    assert_eq!(code, 201);
    for n in 0..kept + 100 {
        let body = json!({"metadata": {"name": "busy"}, "data": {"n": n.to_string()}}).to_string();
        assert_eq!(connection.request("PUT", &format!("{path}/busy"), &body).unwrap().0, 200);
    }
    // An event, since the answer may have begun with 200, or a status.
    let answer = client().get(&format!("{path}?watch=true&resourceVersion={start}&timeoutSeconds=5"));
    assert!(answer.code == 410 || answer.text().contains("\"code\":410"), "{} {:.300}", answer.code, answer.text());
}

#[test]
fn people_who_may_not() {
    let kubectl = namespace("people");
    kubectl.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody}}");
    let token = client().post(
        &format!("/api/v1/namespaces/{}/serviceaccounts/nobody/token", kubectl.name()),
        &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}),
    );
    let token = token.json()["status"]["token"].as_str().unwrap().to_owned();
    let user = format!("system:serviceaccount:{}:nobody", kubectl.name());
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let case = |what, request, code, reason, says| Case {
        what,
        request,
        content_type: JSON,
        body: Vec::new(),
        code,
        reason,
        says,
    };
    let forbidden = format!(
        "secrets is forbidden: User \\\"{user}\\\" cannot list resource \\\"secrets\\\" in API group \\\"\\\" in the namespace \\\"kube-system\\\""
    );
    check(
        &client().with_token(&token),
        &[
            case("a secret of others", ("GET", secrets), 403, "Forbidden", &forbidden),
            case("a path of others", ("GET", "/metrics"), 403, "Forbidden", "cannot get path \\\"/metrics\\\""),
        ],
    );
    check(
        &client().anonymous(),
        &[case("nobody in particular", ("GET", secrets), 403, "Forbidden", "User \\\"system:anonymous\\\"")],
    );
    let hour_ago = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 3600;
    let expired = signed_again(&token, |claims| claims["exp"] = json!(hour_ago));
    assert_eq!(
        client().with_token(&signed_again(&token, |_| ())).get(secrets).code,
        403,
        "the key is the server's own"
    );
    let mut broken = token.clone();
    broken.replace_range(token.len() - 4.., "AAAA");
    for (what, token) in [
        ("an expired token", expired.as_str()),
        ("a forged token", broken.as_str()),
        ("rubbish for a token", "abc"),
        ("half a token", &token[..token.len() / 2]),
    ] {
        let answer = client().with_token(token).get(secrets);
        assert_eq!(
            (answer.code, answer.json()["reason"].as_str()),
            (401, Some("Unauthorized")),
            "{what}: {}",
            answer.text()
        );
    }
}

/// The token with other claims, signed by the key of the server.
fn signed_again(token: &str, change: impl FnOnce(&mut Value)) -> String {
    let parts: Vec<_> = token.split('.').collect();
    let mut claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    change(&mut claims);
    let signed = format!("{}.{}", parts[0], BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = PrivatePkcs8KeyDer::from_pem_file(server().dir.join("data/certs/sa.key")).unwrap();
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der(), &random).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(key.sign(&random, signed.as_bytes()).unwrap()))
}

/// A client that dribbles its request in is cut off, and others do not wait for it.
#[test]
fn a_slow_client_holds_nobody_up() {
    let mut slow = client().connect().unwrap();
    slow.write_all(b"POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
        .unwrap();
    let mut silent = TcpStream::connect(client().address).unwrap();
    let start = Instant::now();
    for _ in 0..20 {
        assert_eq!(client().get("/livez").code, 200);
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    // Never a TLS hello: closed by the server's deadline.
    silent.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    assert_eq!(silent.read(&mut [0; 1]).unwrap_or(0), 0);
    // Never the end of its headers: answered or closed.
    slow.sock.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let end = read_response(&mut slow);
    assert!(end.as_ref().map_or(true, |answer| answer.code == 408 || answer.code == 400), "{end:?}");
}

/// Ten thousand connections: those beyond the bound are refused, and afterwards all is as before.
#[test]
fn connections_beyond_the_bound_are_refused() {
    let bound = mote_boards::named("rpi4-2gb").unwrap().limits.connections as usize;
    let mut server = Server::start("board: rpi4-2gb\n");
    let client = server.client();
    let before = memory_kb(server.pid());
    let mut held = Vec::new();
    for _ in 0..10_000 {
        if let Ok(socket) = TcpStream::connect(client.address) {
            held.push(socket);
        }
        // The bound is what is tested, not this process' descriptors.
        if held.len() > bound * 2 {
            held.drain(..bound / 2);
        }
    }
    let grown = memory_kb(server.pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} kB for connections that say nothing");
    assert!(held.len() > bound);
    eventually("those beyond the bound are closed", 10, || {
        let open = held.iter().filter(|socket| is_open(socket)).count();
        if open <= bound { Ok(()) } else { Err(format!("{open} of {} are open", held.len())) }
    });
    assert!(server.log().contains("too many connections"), "{}", server.log());
    drop(held);
    server.wait_ready();
    assert_eq!(client.get("/readyz").code, 200, "{}", server.log());
}

/// Nobody has said anything, so there is nothing to read but the end.
fn is_open(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let mut socket = socket;
    matches!(socket.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
