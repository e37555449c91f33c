//! Documents from somebody who may write: nested without end, doubling themselves, of lengths that lie; selectors and limits no
//! list has a use for. The answer may be a refusal or none; it is never a failure of the server's.
use super::{Attack, MARK, Random, Target};
use serde_json::json;
use std::io;

pub const ATTACKS: &[(&str, Attack)] = &[
    ("deep and broken JSON", documents),
    ("YAML bombs", yaml),
    ("protobuf lies", protobuf),
    ("patches", patches),
    ("definitions", definitions),
    ("expressions without end", expressions),
    ("selectors and limits", lists),
    ("Secrets and tokens", secrets),
];

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Something to list, watch and patch: 200 objects of 4 kB.
pub fn prepare(target: &Target) {
    for number in 0..200 {
        let name = format!("stock-{number}");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "x".repeat(4_000)}});
        let code = target.admin.post(CONFIG_MAPS, &object).code;
        assert!(code == 201 || code == 409, "{code}");
    }
}

fn documents(target: &Target, random: &mut Random) -> io::Result<()> {
    let deep = 10usize.pow(1 + random.next(6) as u32);
    let body = match random.next(9) {
        0 => "[".repeat(deep),
        1 => r#"{"a":"#.repeat(deep),
        2 => format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"d"}},"data":{}{}}}"#,
            r#"{"a":"#.repeat(deep.min(100_000)),
            "}".repeat(deep.min(100_000))
        ),
        3 => format!("[{}0]", "0,".repeat(1_500_000)),
        4 => format!(r#"{{"a":1{}}}"#, r#","a":1"#.repeat(400_000)),
        5 => format!("{{\"a\": {}}}", "9".repeat(1_000_000)),
        6 => format!("\"{}", "\\u".repeat(1_000_000)),
        7 => "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"\u{0}\"}}".into(),
        _ => "x".repeat(4 << 20),
    };
    let headers = [("Content-Type", random.pick(&["application/json", "application/cbor", "text/plain", ""]))];
    target.refuse("POST", CONFIG_MAPS, &headers, body.as_bytes())?;
    // A body that claims to be packed.
    let packed = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    target.refuse("POST", CONFIG_MAPS, &packed, &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0, 0xff, 0xff])
}

fn yaml(target: &Target, random: &mut Random) -> io::Result<()> {
    let body = match random.next(5) {
        0 => {
            let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
            for level in 1..40 {
                bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(","));
            }
            bomb
        }
        1 => "- ".repeat(500_000),
        2 => "&a [*a]".into(),
        3 => format!("a: !!binary {}\n<<: [*b]", "=".repeat(1_000_000)),
        _ => "? ".repeat(200_000) + "a",
    };
    target.refuse("POST", CONFIG_MAPS, &[("Content-Type", "application/yaml")], body.as_bytes())
}

fn protobuf(target: &Target, random: &mut Random) -> io::Result<()> {
    let mut body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12".to_vec();
    match random.next(4) {
        // More than there is.
        0 => body.extend([0xff, 0xff, 0xff, 0xff, 0x0f]),
        1 => body.extend([0xff; 20]),
        2 => {
            let mut raw = vec![0x0a, 0];
            raw.extend([0x12, 4, 0x0a, 0, 0x12, 0].repeat(300_000));
            let len = raw.len() as u32;
            body.extend([0x80 | (len & 0x7f) as u8, 0x80 | (len >> 7 & 0x7f) as u8, (len >> 14) as u8]);
            body.extend(raw);
        }
        _ => {
            let len = random.next(5_000);
            body.push(0x7f);
            body.extend(random.bytes(len));
        }
    }
    target.refuse("POST", CONFIG_MAPS, &[("Content-Type", "application/vnd.kubernetes.protobuf")], &body)
}

fn patches(target: &Target, random: &mut Random) -> io::Result<()> {
    let path = format!("{CONFIG_MAPS}/stock-{}", random.next(200));
    let (kind, body) = match random.next(6) {
        // Each doubles what the last has made.
        0 => {
            let copies: Vec<_> =
                (0..64).map(|n| json!({"op": "copy", "from": "", "path": format!("/data/k{n}")})).collect();
            ("application/json-patch+json", json!(copies).to_string())
        }
        1 => {
            let test = json!({"op": "test", "path": "/data/a", "value": "y"});
            ("application/json-patch+json", json!(vec![test; 20_000]).to_string())
        }
        2 => ("application/merge-patch+json", r#"{"data":"#.repeat(100_000)),
        3 => {
            let orders: Vec<_> = (0..100_000).map(|n| json!({"type": n})).collect();
            let patch = json!({"metadata": {"$setElementOrder/ownerReferences": orders, "$patch": "replace"}});
            ("application/strategic-merge-patch+json", patch.to_string())
        }
        4 => {
            let fields: serde_json::Map<_, _> = (0..50_000).map(|n| (format!("k{n}"), json!("v"))).collect();
            let object =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": fields});
            ("application/apply-patch+yaml", object.to_string())
        }
        _ => ("application/apply-patch+yaml", "a: &a [*a]".into()),
    };
    target.refuse("PATCH", &format!("{path}?fieldManager=m"), &[("Content-Type", kind)], body.as_bytes())
}

fn definition(schema: serde_json::Value) -> String {
    let names = json!({"plural": "hostiles", "singular": "hostile", "kind": "Hostile", "listKind": "HostileList"});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hostiles.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}})
    .to_string()
}

fn definitions(target: &Target, random: &mut Random) -> io::Result<()> {
    let mut schema = json!({"type": "string", "pattern": "(a*)*b"});
    for _ in 0..random.next(60) {
        schema = match random.next(4) {
            0 => json!({"type": "object", "properties": {"a": schema}}),
            1 => json!({"type": "array", "items": schema}),
            2 => json!({"type": "object", "allOf": [schema.clone(), {"not": schema}]}),
            _ => json!({"type": "object", "additionalProperties": schema}),
        };
        if schema.to_string().len() > 1_000_000 {
            break;
        }
    }
    let headers = [("Content-Type", "application/json")];
    let body = definition(json!({"type": "object", "properties": {"spec": schema}}));
    target.refuse("POST", DEFINITIONS, &headers, body.as_bytes())?;
    target.refuse("DELETE", &format!("{DEFINITIONS}/hostiles.example.com"), &[], b"")
}

/// A rule that costs more than there is, when it is made or when it is met.
fn expressions(target: &Target, random: &mut Random) -> io::Result<()> {
    let rule = match random.next(5) {
        0 => "(".repeat(5_000),
        1 => "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, true))))".into(),
        2 => "self.s.matches('(x+x+)+y')".into(),
        3 => format!("[1]{}.size() > 0", ".map(a, a + a)".repeat(100)),
        _ => format!("self.s{} == ''", ".replace('', self.s)".repeat(6)),
    };
    let bound = random.next(2) == 0;
    let list = if bound {
        json!({"type": "array", "maxItems": 10, "items": {"type": "integer"}})
    } else {
        json!({"type": "array", "items": {"type": "integer"}})
    };
    let spec = json!({"type": "object", "properties": {"l": list, "s": {"type": "string", "maxLength": 100_000}},
        "x-kubernetes-validations": [{"rule": rule}]});
    let headers = [("Content-Type", "application/json")];
    let body = definition(json!({"type": "object", "properties": {"spec": spec}}));
    target.refuse("POST", DEFINITIONS, &headers, body.as_bytes())?;
    let object = json!({"apiVersion": "example.com/v1", "kind": "Hostile", "metadata": {"name": "a"},
        "spec": {"l": vec![1; 2_000], "s": "x".repeat(50_000)}});
    let path = "/apis/example.com/v1/namespaces/default/hostiles";
    target.refuse("POST", path, &headers, object.to_string().as_bytes())?;
    target.refuse("DELETE", &format!("{DEFINITIONS}/hostiles.example.com"), &[], b"")
}

fn lists(target: &Target, random: &mut Random) -> io::Result<()> {
    let many = "a,".repeat(5_000);
    for _ in 0..20 {
        let query = match random.next(10) {
            0 => "limit=1".to_owned(),
            1 => "limit=-1".into(),
            2 => "limit=9223372036854775807".into(),
            3 => format!("continue={many}"),
            4 => format!("labelSelector={many}a"),
            5 => format!("labelSelector=a%20in%20({many}a)"),
            6 => format!("fieldSelector=metadata.name={}", "x".repeat(15_000)),
            7 => "resourceVersion=18446744073709551615".into(),
            8 => "limit=1&resourceVersion=1&resourceVersionMatch=Exact".into(),
            _ => "watch=true&timeoutSeconds=0&resourceVersion=99999999999".into(),
        };
        target.refuse("GET", &format!("/api/v1/configmaps?{query}"), &[], b"")?;
        target.refuse("DELETE", &format!("/api/v1/namespaces/none/configmaps?{query}"), &[], b"")?;
    }
    Ok(())
}

/// What must stay out of every log, right or wrong.
fn secrets(target: &Target, random: &mut Random) -> io::Result<()> {
    let headers = [("Content-Type", "application/json")];
    let data = random.pick(&["stringData", "data", "dat"]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hostile"}, data: {"a": MARK}});
    target.refuse("POST", "/api/v1/namespaces/default/secrets", &headers, secret.to_string().as_bytes())?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": MARK}});
    target.refuse("POST", "/apis/authentication.k8s.io/v1/tokenreviews", &headers, review.to_string().as_bytes())?;
    target.refuse("DELETE", "/api/v1/namespaces/default/secrets/hostile", &[], b"")?;
    target.admin.with_token(MARK).try_request("GET", "/api", &[], b"").map(drop)
}
