//! The front from outside: a client on loopback, over real TLS. Nothing here depends on how fast the machine is.
use super::*;
use crate::{
    auth::{self, Authenticator, Lookup},
    certs::{Certificates, Options},
    driver::BoxFuture,
    health::Health,
    metrics::Metrics,
    rbac::{Authorizer, Policy, object_for_tests as object},
    stream, tls,
};
use async_executor::Executor;
use async_io::Async;
use bytes::Bytes;
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt, future, stream as streams};
use futures_rustls::{TlsConnector, client::TlsStream};
use http_body_util::{BodyExt, Full};
use mote_schema::{Value, json};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use smol_hyper::rt::{FuturesIo, SmolExecutor};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Says what arrived; some paths behave in a way of their own.
struct Echo {
    executor: Arc<Executor<'static>>,
    running: Arc<AtomicUsize>,
    runtime: String,
}

impl Handler for Echo {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            match request.info.resource.as_str() {
                "slow" => {
                    self.running.fetch_add(1, Ordering::AcqRel);
                    future::pending().await
                }
                "events" => {
                    let first = streams::once(Ok(Bytes::from_static(b"first\n")));
                    let body = first.chain(streams::pending());
                    Response::stream(200, "application/json", Box::pin(body))
                }
                "pods" if request.info.subresource == "exec" => {
                    stream::tunnel(&self.executor, request, &self.runtime).await
                }
                _ => Response::value(
                    200,
                    &json!({"user": request.user.name, "groups": request.user.groups, "verb": request.info.verb,
                        "path": request.path, "bytes": request.body.len()}),
                ),
            }
        })
    }
}

struct World {
    dir: PathBuf,
    executor: Arc<Executor<'static>>,
    certificates: Certificates,
    server: Server,
    running: Arc<AtomicUsize>,
}

impl Drop for World {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

fn policy() -> Policy {
    let role = json!({"metadata": {"name": "public"}, "rules": [
        {"verbs": ["get"], "nonResourceURLs": ["/livez", "/version"]}]});
    let dev = json!({"metadata": {"name": "dev"}, "rules": [
        {"verbs": ["get", "list", "watch", "create"], "apiGroups": [""], "resources": ["*"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"]}]});
    let bind = |name: &str, group: &str| {
        json!({"metadata": {"name": name}, "roleRef": {"apiGroup": crate::rbac::GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "Group", "name": group}]})
    };
    Policy {
        cluster_roles: vec![object("clusterroles", &role), object("clusterroles", &dev)],
        cluster_role_bindings: vec![
            object("clusterrolebindings", &bind("public", auth::UNAUTHENTICATED)),
            object("clusterrolebindings", &bind("dev", "devs")),
        ],
        ..Policy::default()
    }
}

/// Runs a test against a server with this configuration (address and port are set here).
fn check<F: Future<Output = ()>>(config: Config, runtime: &str, test: impl FnOnce(Arc<World>) -> F) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("mote-http-{}-{number}", std::process::id()));
    let certificates = Certificates::open(Options {
        dir: dir.clone(),
        cluster_domain: "cluster.local".into(),
        names: vec!["board".into()],
        addresses: vec![],
        server: "https://127.0.0.1:6443".into(),
    })
    .unwrap();
    let executor = Arc::new(Executor::new());
    let running = Arc::new(AtomicUsize::new(0));
    let lookup: Lookup = Arc::new(|_, _, _| None);
    let echo = Echo { executor: executor.clone(), running: running.clone(), runtime: runtime.into() };
    let front = Front::new(
        Arc::new(Authenticator::new(certificates.token_keys(), "https://issuer", lookup)),
        Arc::new(Authorizer::new(policy)),
        Arc::new(Health::new()),
        Arc::new(Metrics::new()),
        Arc::new(echo),
    );
    let config = Config { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: 0, ..config };
    let server = serve(config, tls::server_config(&certificates).unwrap(), front, executor.clone()).unwrap();
    let world = Arc::new(World { dir, executor: executor.clone(), certificates, server, running });
    future::block_on(executor.run(async {
        test(world.clone()).await;
        world.server.stop().await;
    }));
}

type Io = TlsStream<Async<TcpStream>>;
type Answer = (u16, http::HeaderMap, String);

impl World {
    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    /// A TLS connection as `user` of a group, or as nobody.
    async fn connect(&self, protocol: &str, user: Option<(&str, &str)>) -> std::io::Result<Io> {
        let mut roots = RootCertStore::empty();
        let der = |pem: &str| crate::certs::pem_der(pem).unwrap();
        roots.add(CertificateDer::from(der(&self.certificates.authority()))).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match user {
            None => builder.with_no_client_auth(),
            Some((name, group)) => {
                let issued = self.certificates.issue_client(name, &[group]).unwrap();
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(&issued.key)));
                builder.with_client_auth_cert(vec![CertificateDer::from(der(&issued.certificate))], key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = Async::<TcpStream>::connect(self.address()).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn send(&self, protocol: &str, user: Option<(&str, &str)>, request: hyper::Request<Full<Bytes>>) -> Answer {
        let io = FuturesIo::new(self.connect(protocol, user).await.unwrap());
        let response = if protocol == "h2" {
            let executor = SmolExecutor::new(self.executor.clone());
            let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
            self.executor.spawn(async { drop(connection.await) }).detach();
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            self.executor.spawn(async { drop(connection.await) }).detach();
            sender.send_request(request).await.unwrap()
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
    }

    async fn get(&self, user: Option<(&str, &str)>, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        self.send("http/1.1", user, request("GET", path, headers, "")).await
    }
}

fn request(method: &str, path: &str, headers: &[(&'static str, &str)], body: &str) -> hyper::Request<Full<Bytes>> {
    let mut request = hyper::Request::builder().method(method).uri(format!("https://localhost{path}"));
    request = request.header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.2).unwrap()
}

const ADMIN: Option<(&str, &str)> = Some(("admin", "system:masters"));
const DEV: Option<(&str, &str)> = Some(("bob", "devs"));

#[test]
fn who_and_what() {
    check(Config::default(), "", |world| async move {
        for protocol in ["h2", "http/1.1"] {
            let answer = world.send(protocol, ADMIN, request("GET", "/api/v1/pods?watch=0", &[], "")).await;
            let seen = json_of(&answer);
            assert_eq!((&seen["user"], &seen["verb"]), (&json!("admin"), &json!("list")));
            assert_eq!(seen["groups"], json!(["system:masters", "system:authenticated"]));
            assert_eq!(answer.1["cache-control"], "no-cache, private");
        }
        let (code, _, body) = world.get(None, "/livez", &[]).await;
        assert_eq!((code, body.as_str()), (200, "ok"));
        let version = json_of(&world.get(None, "/version", &[]).await);
        assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
        let forbidden = world.get(None, "/api/v1/namespaces/x/pods", &[]).await;
        assert_eq!(
            json_of(&forbidden)["message"],
            r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "x""#
        );
        let forbidden = world.get(None, "/metrics", &[]).await;
        assert_eq!((forbidden.0, json_of(&forbidden)["reason"].clone()), (403, json!("Forbidden")));
        let metrics = world.get(ADMIN, "/metrics", &[]).await;
        assert!(metrics.2.contains("apiserver_request_total{code=\"403\""), "{}", metrics.2);
        let refused = world.get(None, "/livez", &[("authorization", "Bearer rubbish")]).await;
        assert_eq!((refused.0, json_of(&refused)["message"].clone()), (401, json!("Unauthorized")));
        let timeout = world.get(ADMIN, "/api/v1/pods?timeout=soon", &[]).await;
        assert_eq!(
            json_of(&timeout)["message"],
            "invalid timeout specified in the request URL - time: invalid duration \"soon\""
        );
    });
}

#[test]
fn impersonation() {
    check(Config::default(), "", |world| async move {
        let as_ann = world.get(DEV, "/api/v1/pods", &[("impersonate-user", "ann")]).await;
        assert_eq!(
            json_of(&as_ann)["message"],
            "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        );
        let headers = [("impersonate-user", "ann"), ("impersonate-group", "devs")];
        let as_group = world.get(DEV, "/api/v1/pods", &headers).await;
        assert_eq!(
            json_of(&as_group)["message"],
            "pods is forbidden: User \"bob\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at the cluster scope"
        );
        let as_group = json_of(&world.get(ADMIN, "/api/v1/pods", &headers).await);
        assert_eq!((&as_group["user"], &as_group["groups"]), (&json!("ann"), &json!(["devs", "system:authenticated"])));
        let nobody = world.get(ADMIN, "/api/v1/pods", &[("impersonate-group", "devs")]).await;
        assert_eq!(nobody.0, 400);
    });
}

#[test]
fn bodies_are_bounded() {
    check(Config::default(), "", |world| async move {
        let whole = "x".repeat(MAX_BODY_BYTES);
        for protocol in ["h2", "http/1.1"] {
            let fits = world.send(protocol, DEV, request("POST", "/api/v1/pods", &[], &whole)).await;
            assert_eq!(json_of(&fits)["bytes"], MAX_BODY_BYTES);
        }
        let larger = "x".repeat(MAX_BODY_BYTES + 1);
        for protocol in ["h2", "http/1.1"] {
            let refused = world.send(protocol, DEV, request("POST", "/api/v1/pods", &[], &larger)).await;
            assert_eq!(json_of(&refused)["message"], "Request entity too large: limit is 3145728");
            let forbidden = world.send(protocol, None, request("POST", "/api/v1/pods", &[], &larger)).await;
            assert_eq!(forbidden.0, 403);
        }
        // Somebody who asks before sending gets the answer at once.
        let mut io = world.connect("http/1.1", DEV).await.unwrap();
        let expect = "expect: 100-continue\r\ncontent-length: 9999999\r\n\r\n";
        io.write_all(format!("POST /api/v1/pods HTTP/1.1\r\nhost: x\r\n{expect}").as_bytes()).await.unwrap();
        let answer = read_until(&mut io, "3145728").await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        // Not announced: refused when it is too much.
        let mut io = world.connect("http/1.1", DEV).await.unwrap();
        io.write_all(b"POST /api/v1/pods HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let piece = format!("10000\r\n{}\r\n", "y".repeat(0x10000));
        for _ in 0..=MAX_BODY_BYTES / 0x10000 {
            if io.write_all(piece.as_bytes()).await.is_err() {
                break;
            }
        }
        assert!(read_until(&mut io, "3145728").await.starts_with("HTTP/1.1 413"));
    });
}

async fn read_until(io: &mut (impl futures_lite::AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&text).contains(end) {
        match io.read(&mut chunk).await {
            Ok(count) if count > 0 => text.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn too_many_at_once() {
    let config = Config { max_requests_inflight: 1, max_mutating_requests_inflight: 0, ..Config::default() };
    check(config, "", |world| async move {
        let first = world.executor.spawn({
            let world = world.clone();
            async move { world.get(DEV, "/api/v1/slow", &[]).await }
        });
        while world.running.load(Ordering::Acquire) == 0 {
            future::yield_now().await;
        }
        let (code, headers, body) = world.get(DEV, "/api/v1/pods", &[]).await;
        assert_eq!((code, body.as_str()), (429, "Too many requests, please try again later.\n"));
        assert_eq!(headers["retry-after"], "1");
        assert_eq!(world.get(ADMIN, "/api/v1/pods", &[]).await.0, 200);
        // A watch needs a seat until it starts; what runs long otherwise needs none.
        assert_eq!(world.get(DEV, "/api/v1/events?watch=1", &[]).await.0, 429);
        assert_eq!(world.get(DEV, "/api/v1/namespaces/x/pods/p/log", &[]).await.0, 200);
        drop(first);
        // The place is free when the server has seen that the client is gone.
        while world.get(DEV, "/api/v1/pods", &[]).await.0 == 429 {
            future::yield_now().await;
        }
    });
}

#[test]
fn slow_requests_time_out() {
    check(Config::default(), "", |world| async move {
        let answer = world.get(DEV, "/api/v1/slow?timeout=20ms", &[]).await;
        let status = json_of(&answer);
        assert_eq!((answer.0, &status["reason"]), (504, &json!("Timeout")));
        assert_eq!(status["message"], "Timeout: request did not complete within the allotted timeout");
    });
}

#[test]
fn slow_clients_are_cut_off() {
    let short = Duration::from_millis(30);
    let config = Config { header_timeout: short, handshake_timeout: short, idle_timeout: short, ..Config::default() };
    check(config, "", |world| async move {
        // Says nothing at all; says half of a request; sits there after HTTP/2's greeting.
        let mut silent = Async::<TcpStream>::connect(world.address()).await.unwrap();
        let mut half = world.connect("http/1.1", DEV).await.unwrap();
        half.write_all(b"GET /api/v1/pods HTTP/1.1\r\nhost:").await.unwrap();
        let mut idle = world.connect("h2", DEV).await.unwrap();
        idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut rest = Vec::new();
        drop(silent.read_to_end(&mut rest).await);
        drop(half.read_to_end(&mut rest).await);
        drop(idle.read_to_end(&mut rest).await);
        while world.server.connections() > 0 {
            future::yield_now().await;
        }
    });
}

#[test]
fn connections_beyond_the_bound_are_refused() {
    let config = Config { max_connections: 4, ..Config::default() };
    check(config, "", |world| async move {
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut stream = world.connect("http/1.1", DEV).await.unwrap();
            stream.write_all(b"GET /api/v1/pods HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
            held.push(stream);
        }
        let mut refused = Vec::new();
        for _ in 0..400 {
            refused.push(Async::<TcpStream>::connect(world.address()).await.unwrap());
        }
        for mut stream in refused {
            assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        }
        assert_eq!(world.server.connections(), 4);
        held.pop();
        while world.connect("h2", DEV).await.is_err() {}
    });
}

#[test]
fn who_says_nothing_makes_room_for_who_has_something_to_say() {
    let config = Config { max_connections: 4, ..Config::default() };
    check(config, "", |world| async move {
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(Async::<TcpStream>::connect(world.address()).await.unwrap());
        }
        let mut stream = world.connect("http/1.1", DEV).await.unwrap();
        stream.write_all(b"GET /api/v1/pods HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        for _ in 0..100 {
            silent.push(Async::<TcpStream>::connect(world.address()).await.unwrap());
        }
        // Those who came last are still there, and who is known stays.
        stream.write_all(b"GET /api/v1/pods HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert_ne!(stream.read(&mut [0; 64]).await.unwrap(), 0);
        assert!(world.server.connections() <= 4 + 16);
    });
}

#[test]
fn streams_flow_and_end_with_the_server() {
    check(Config::default(), "", |world| async move {
        for protocol in ["h2", "http/1.1"] {
            let io = FuturesIo::new(world.connect(protocol, DEV).await.unwrap());
            let watch = request("GET", "/api/v1/events?watch=1", &[], "");
            let response = if protocol == "h2" {
                let executor = SmolExecutor::new(world.executor.clone());
                let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
                world.executor.spawn(async { drop(connection.await) }).detach();
                sender.send_request(watch).await.unwrap()
            } else {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                world.executor.spawn(async { drop(connection.await) }).detach();
                sender.send_request(watch).await.unwrap()
            };
            let mut body = response.into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(first, "first\n");
            world.executor.spawn(async move { assert!(body.frame().await.is_none_or(|frame| frame.is_ok())) }).detach();
        }
        world.server.stop().await;
        assert_eq!(world.server.connections(), 0);
        assert!(world.connect("h2", DEV).await.is_err());
    });
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = listen::listen(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port).unwrap_err();
    assert!(matches!(error, crate::Error::PortInUse { port: p } if p == port));
    assert!(error.to_string().contains(&port.to_string()));
}

/// A runtime that agrees to SPDY, tells what it was asked and says everything twice, and refuses WebSocket.
async fn runtime(listener: Async<TcpListener>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let asked = read_until(&mut stream, "\r\n\r\n").await;
        if asked.contains("upgrade: websocket") {
            let refusal =
                b"HTTP/1.1 403 Forbidden\r\nSec-WebSocket-Version: 13\r\n\r\nrequested protocol(s) are not supported";
            stream.write_all(refusal).await.unwrap();
            continue;
        }
        let line = asked.lines().next().unwrap_or("").to_owned();
        let secret = asked.contains("authorization");
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        stream.write_all(format!("{head}{line} {secret}\n").as_bytes()).await.unwrap();
        let mut chunk = [0; 1024];
        while let Ok(count) = stream.read(&mut chunk).await {
            if count == 0 || chunk[..count].ends_with(b"bye\n") {
                break;
            }
            for _ in 0..2 {
                stream.write_all(&chunk[..count]).await.unwrap();
            }
        }
    }
}

#[test]
fn upgrades_reach_the_runtime() {
    let listener = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
    let url = format!("http://{}/exec/token", listener.get_ref().local_addr().unwrap());
    check(Config::default(), &url, |world| async move {
        world.executor.spawn(runtime(listener)).detach();
        let path = "/api/v1/namespaces/d/pods/p/exec?command=sh";
        let mut io = world.connect("http/1.1", DEV).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n");
        io.write_all(head.as_bytes()).await.unwrap();
        let answer = read_until(&mut io, "false\n").await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{answer}");
        assert!(answer.ends_with("POST /exec/token HTTP/1.1 false\n"), "{answer}");
        io.write_all(b"hello\n").await.unwrap();
        assert_eq!(read_until(&mut io, "hello\nhello\n").await, "hello\nhello\n");
        io.write_all(b"bye\n").await.unwrap();
        assert_eq!(read_until(&mut io, "never").await, "");

        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "x"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ];
        let (code, _, body) = world.get(DEV, path, &headers).await;
        assert_eq!((code, body.as_str()), (403, "requested protocol(s) are not supported"));
        let plain = world.get(DEV, path, &[]).await;
        assert_eq!((plain.0, json_of(&plain)["message"].clone()), (400, json!("Upgrade request required")));
    });
}
