//! Bytes as kubectl sends them.
use super::*;
use crate::Catalog;
use crate::{Value, json};

fn len(number: u8, inner: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, inner.len() as u8], inner].concat()
}
fn text(number: u8, text: &str) -> Vec<u8> {
    len(number, text.as_bytes())
}
fn int(number: u8, n: u8) -> Vec<u8> {
    vec![number << 3, n]
}
fn wrapped(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [text(1, api_version), text(2, kind)].concat();
    [MAGIC.to_vec(), len(1, &meta), len(2, raw), text(3, ""), text(4, "")].concat()
}

fn check(kind: &str, raw: &[u8], want: Value) {
    let catalog = Catalog::builtin();
    let bytes = wrapped("v1", kind, raw);
    let envelope = envelope(&bytes).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", kind));
    let kind = catalog.by_kind("", "v1", &envelope.kind).unwrap();
    let mut value = decode(kind, envelope.raw).unwrap();
    crate::prune::clean(kind, &mut value).unwrap();
    assert_eq!(value, want);
    for cut in 0..raw.len() {
        // Whatever comes, an error or another object, but no panic.
        let _ = decode(kind, &raw[..cut]);
    }
}

#[test]
fn what_kubectl_creates() {
    let meta = [text(1, "n"), text(2, ""), text(3, ""), len(8, &[])].concat();
    check(
        "Namespace",
        &[len(1, &meta), len(2, &[]), len(3, &text(1, ""))].concat(),
        json!({"metadata": {"name": "n"}, "spec": {}, "status": {}}),
    );
    let entry = |k, v| len(2, &[text(1, k), text(2, v)].concat());
    check(
        "ConfigMap",
        &[len(1, &meta), entry("a", "b"), entry("c", "")].concat(),
        json!({"metadata": {"name": "n"}, "data": {"a": "b", "c": ""}}),
    );
    check(
        "Secret",
        &[len(1, &meta), entry("a", "b"), text(3, "Opaque")].concat(),
        json!({"metadata": {"name": "n"}, "data": {"a": "Yg=="}, "type": "Opaque"}),
    );
}

#[test]
fn embedded_messages_and_special_types() {
    let limit = len(1, &[text(1, "memory"), len(2, &text(1, "1024Mi"))].concat());
    let port = [int(3, 80), text(4, "TCP")].concat();
    let get = [text(1, "/x"), len(2, &[int(1, 1), int(2, 0), text(3, "web")].concat())].concat();
    let probe = [len(1, &len(2, &get)), int(2, 5)].concat();
    let container = [text(1, "c"), text(2, "i"), len(6, &port), len(8, &limit), len(10, &probe)].concat();
    let volume = [text(1, "v"), len(2, &len(2, &text(1, "Memory")))].concat();
    let spec = [len(1, &volume), len(2, &container), int(4, 0)].concat();
    let meta = [text(1, "p"), len(8, &[0x08, 0x80, 0xe2, 0xcf, 0xaa, 0x06])].concat();
    check(
        "Pod",
        &[len(1, &meta), len(2, &spec)].concat(),
        json!({
        "metadata": {"name": "p", "creationTimestamp": "2023-11-14T22:13:20Z"}, "status": {},
        "spec": {"terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"memory": "1Gi"}},
                "livenessProbe": {"httpGet": {"path": "/x", "port": "web"}, "initialDelaySeconds": 5}}]}}),
    );
}

#[test]
fn rubbish_is_refused() {
    assert!(envelope(b"{}").unwrap_err().contains("expected prefix [107 56 115 0]"));
    assert!(envelope(b"k8s\0\x0a\xff").is_err());
    let catalog = Catalog::builtin();
    let kind = catalog.by_kind("", "v1", "Pod").unwrap();
    for bad in [&[0x0b][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 11], &[0x08, 0x01]] {
        assert!(decode(kind, bad).is_err(), "{bad:?}");
    }
}
