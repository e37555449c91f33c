//! Targets of what reads from sockets: HTTP, tokens, certificates, configuration, DNS, netlink, gRPC; and CEL with its budget.
use bytes::BytesMut;
use mote_api::{audit, auth, certs, encryption, fuzzing, http::Query};
use mote_cel::{Budget, Environment, PER_CALL_LIMIT, RUNTIME_BUDGET, Type, Value};
use mote_cni::netlink;
use prost::Message;
use serde_json::Value as Json;
use std::sync::OnceLock;

/// An expression, a zero byte, and the data it is evaluated over. However it is written, what it spends is bounded, and what it
/// takes is no more than the fuzzer's own limits of time and memory.
pub fn cel(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let Ok(text) = std::str::from_utf8(&data[..at]) else { return };
    let object =
        data.get(at + 1..).and_then(|json| Some(mote_schema::prune::parse_json(json).ok()?.0)).unwrap_or_default();
    let environment = Environment::new().with("self", Type::Dyn).with("oldSelf", Type::Dyn);
    let Ok(program) = environment.compile(text) else { return };
    let _ = program.estimated_cost(&environment);
    let mut budget = Budget::new(RUNTIME_BUDGET);
    let Ok(value) = Value::from_json(&object, &Type::Dyn) else { return };
    if let Ok(result) = program.evaluate(&[("self", value.clone()), ("oldSelf", value)], &mut budget) {
        assert!(budget.spent() <= PER_CALL_LIMIT, "{text}: {} of {PER_CALL_LIMIT}", budget.spent());
        let _ = result.to_json();
    }
}

/// What Kubernetes' own environment was asked for the tests of `mote-cel`, over its second document.
pub fn recorded_expressions() -> Vec<Vec<u8>> {
    let text = include_str!("../../runtime/cel/tests/recorded.jsonl");
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let data = lines.next().map(|head| head["data"][1].to_string()).unwrap_or_default();
    lines.filter_map(|line| Some([line["expr"].as_str()?, "\0", &data].concat().into_bytes())).collect()
}

/// Method, target, an Accept header and the head of an upgraded answer, by lines.
pub fn http(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let (path, raw) = lines.next().unwrap_or("").split_once('?').unwrap_or_default();
    let query = Query::parse(raw);
    for method in [http::Method::GET, http::Method::POST, http::Method::PATCH, http::Method::DELETE] {
        let _ = mote_api::http::request_info(&method, path, &query);
    }
    for (name, value) in query.iter() {
        let _ = (query.get(name), query.bool(name), mote_api::http::parse_duration(value));
    }
    fuzzing::accept(lines.next().unwrap_or(""));
    fuzzing::continue_token(lines.next().unwrap_or(""));
    fuzzing::upgrade_answer(data);
    fuzzing::websocket(data);
}

pub fn token(data: &[u8]) {
    static KEYS: OnceLock<auth::jwt::Keys> = OnceLock::new();
    let keys = KEYS.get_or_init(|| fuzzing::token_keys().expect("a new key"));
    let text = String::from_utf8_lossy(data);
    assert!(keys.verify::<Json>(&text).is_err(), "nobody signed {text}");
    let claims: Json = serde_json::from_slice(data).unwrap_or_default();
    if claims.is_object() {
        let signed = keys.sign(&claims).expect("it can be signed");
        let _ = keys.verify::<auth::service_account::Claims>(&signed);
        assert!(keys.verify::<Json>(&signed).is_ok(), "our own");
    }
}

pub fn certificate(data: &[u8]) {
    let _ = auth::x509::user(data);
    let text = String::from_utf8_lossy(data);
    let _ = certs::certificate_end_seconds(&text);
    for pem in [text.to_string(), fuzzing::pem("CERTIFICATE REQUEST", data)] {
        let Ok(request) = certs::Request::parse(&pem) else { continue };
        for signer in ["kubernetes.io/kube-apiserver-client", "kubernetes.io/kubelet-serving", "a/b"] {
            let _ = request.check(signer, &["client auth", "digital signature"]);
        }
    }
}

/// Files the administrator writes: an audit policy, keys for encryption.
pub fn policy(data: &[u8]) {
    let _ = audit::Policy::parse(data);
    let _ = encryption::Keys::parse(data);
    let _ = mote_cni::config::Config::parse(data);
    let _ = mote_cni::config::version(data);
    let _ = mote_cni::config::plugin_type(data);
}

pub fn dns(data: &[u8]) {
    mote_network::fuzzing::dns(data);
}

pub fn netlink(data: &[u8]) {
    for answer in netlink::message::split(data) {
        netlink::fuzzing::answer(answer.payload);
    }
    netlink::fuzzing::answer(data);
}

/// gRPC frames and the container runtime's messages in them.
pub fn runtime(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(message)) = mote_grpc::frame::take(&mut buffer) {
        let _ = mote_cri::v1::ListContainersResponse::decode(message.clone());
        let _ = mote_cri::v1::PodSandboxStatusResponse::decode(message.clone());
        let _ = mote_cri::v1::ContainerStatusResponse::decode(message);
    }
    let _ = mote_cri::v1::ListContainersResponse::decode(data);
    let _ = mote_cri::v1::ContainerStatusResponse::decode(data);
}
