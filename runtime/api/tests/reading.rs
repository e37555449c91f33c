//! Reading in every form: what protobuf, YAML, Tables and metadata say is what JSON says, pages are of one state, and what is
//! refused is refused as upstream's router and store refuse it.
mod fixture;

use fixture::Server;
use mote_api::http::{Body, Response};
use mote_schema::{Value, json};
use mote_schema::{protobuf, prune};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn make(server: &Server, name: &str, data: Value) {
    server.ok("POST", MAPS, json!({"metadata": {"name": name, "labels": {"app": "x"}}, "data": data}));
}

fn media(response: &Response) -> String {
    let found = response.headers.iter().find(|(name, _)| name == http::header::CONTENT_TYPE);
    found.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// Number and bytes of each field of a message that holds nothing but strings, messages and numbers.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let varint = |bytes: &mut &[u8]| {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let len = varint(&mut bytes);
        if tag & 7 == 0 {
            found.push((tag >> 3, len.to_le_bytes().to_vec()));
            continue;
        }
        let (value, rest) = bytes.split_at(len as usize);
        found.push((tag >> 3, value.to_vec()));
        bytes = rest;
    }
    found
}

/// A list's kind and its items as JSON has them.
fn unpack(server: &Server, bytes: &[u8]) -> (String, Vec<Value>) {
    let envelope = protobuf::envelope(bytes).expect("an envelope");
    let catalog = server.api.catalog();
    let kind = catalog.by_resource("", "v1", "configmaps").expect("config maps");
    let items = fields(envelope.raw).into_iter().filter(|(number, _)| *number == 2).map(|(_, item)| {
        let mut item = protobuf::decode(kind, &item).expect("an item");
        prune::clean(kind, &mut item).expect("clean");
        item
    });
    (envelope.kind, items.collect())
}

/// The same, of a list in JSON.
fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_list_in_protobuf_says_what_json_says() {
    let server = Server::new();
    make(&server, "a", json!({"k": "ü", "empty": ""}));
    make(&server, "b", json!({}));
    let want = server.ok("GET", MAPS, Value::Null);
    let response = server.send("GET", MAPS, "", b"", "application/vnd.kubernetes.protobuf,application/json");
    assert_eq!((response.status, media(&response).as_str()), (200, PROTOBUF));
    let bytes = server.bytes(response);
    assert_eq!(unpack(&server, &bytes), ("ConfigMapList".to_owned(), items(&want)));
    let meta = fields(&fields(protobuf::envelope(&bytes).expect("an envelope").raw)[0].1);
    let revision = server.api.catalog().by_resource("", "v1", "configmaps").map(|_| meta[0].1.clone());
    assert_eq!(
        revision.map(|text| json!(String::from_utf8_lossy(&text))),
        Some(want["metadata"]["resourceVersion"].clone())
    );

    let accept = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (kind, found) = unpack(&server, &server.bytes(server.send("GET", MAPS, "", b"", accept)));
    let names: Vec<&Value> = found.iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!((kind.as_str(), names), ("PartialObjectMetadataList", vec![&json!("a"), &json!("b")]));
    assert!(found.iter().all(|item| item.get("data").is_none()));
}

#[test]
fn a_long_list_is_whole_in_pieces() {
    let server = Server::new();
    for n in 0..450 {
        make(&server, &format!("m{n:03}"), json!({"k": "x".repeat(6000)}));
    }
    let response = server.send("GET", MAPS, "", b"", "");
    assert!(matches!(response.body, Body::Chunks(_)));
    let want: Value = serde_json::from_slice(&server.bytes(response)).expect("JSON");
    assert_eq!(items(&want).len(), 450);
    let packed = |want: &Value| {
        let response = server.send("GET", MAPS, "", b"", PROTOBUF);
        assert!(matches!(response.body, Body::Chunks(_)));
        assert_eq!(unpack(&server, &server.bytes(response)).1, items(want));
    };
    packed(&want);
    let pretty = server.bytes(server.send("GET", &format!("{MAPS}?pretty=1"), "", b"", ""));
    assert!(pretty.starts_with(b"{\n  \"kind\": \"ConfigMapList\",\n") && pretty.ends_with(b"\n  ]\n}"));
    assert_eq!(items(&serde_json::from_slice(&pretty).expect("JSON")), items(&want));
    let yaml = server.bytes(server.send("GET", MAPS, "", b"", "application/yaml"));
    let (yaml, _) = prune::parse_yaml(&yaml).expect("YAML");
    assert_eq!(items(&yaml), items(&want));
    // Lengths that are known by now, of another form, and of what was made, changed and deleted since.
    packed(&want);
    let accept = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    for _ in 0..2 {
        assert_eq!(unpack(&server, &server.bytes(server.send("GET", MAPS, "", b"", &accept))).1.len(), 450);
    }
    make(&server, "m100-b", json!({"k": "x"}));
    make(&server, "z", json!({"k": "x".repeat(9000)}));
    server.ok("DELETE", &format!("{MAPS}/m300"), Value::Null);
    let mut changed = server.ok("GET", &format!("{MAPS}/m200"), Value::Null);
    changed["data"] = json!({"other": "y".repeat(300)});
    server.ok("PUT", &format!("{MAPS}/m200"), changed);
    packed(&server.ok("GET", MAPS, Value::Null));
}

#[test]
fn pages_are_of_one_state() {
    let server = Server::new();
    for n in 0..7 {
        make(&server, &format!("m{n}"), json!({}));
    }
    let first = server.ok("GET", &format!("{MAPS}?limit=3"), Value::Null);
    assert_eq!((items(&first).len(), &first["metadata"]["remainingItemCount"]), (3, &json!(4)));
    make(&server, "m9", json!({}));
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second = server.ok("GET", &format!("{MAPS}?limit=3&continue={token}"), Value::Null);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let third = server.ok("GET", &format!("{MAPS}?limit=3&continue={token}"), Value::Null);
    assert_eq!((items(&third).len(), third["metadata"].get("continue")), (1, None));
    // With a selector nobody counts what is left; whoever takes any state gets all of it.
    let some = server.ok("GET", &format!("{MAPS}?limit=3&labelSelector=app%3Dx"), Value::Null);
    assert_eq!(some["metadata"].get("remainingItemCount"), None);
    assert_eq!(items(&server.ok("GET", &format!("{MAPS}?limit=3&resourceVersion=0"), Value::Null)).len(), 8);
    let exact = first["metadata"]["resourceVersion"].as_str().expect("a revision");
    let exact = server.ok("GET", &format!("{MAPS}?resourceVersion={exact}&resourceVersionMatch=Exact"), Value::Null);
    assert_eq!(
        (items(&exact).len(), &exact["metadata"]),
        (7, &json!({"resourceVersion": first["metadata"]["resourceVersion"]}))
    );
}

#[test]
fn a_watch_in_protobuf_has_frames_with_a_length() {
    let server = Server::new();
    make(&server, "a", json!({"k": "v"}));
    let target = format!("{MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=1");
    let response = server.send("GET", &target, "", b"", PROTOBUF);
    assert_eq!(media(&response), "application/vnd.kubernetes.protobuf;stream=watch");
    let bytes = server.bytes(response);
    let mut rest = &bytes[..];
    let mut seen = Vec::new();
    while let Some((head, body)) = rest.split_first_chunk::<4>() {
        let (frame, next) = body.split_at(u32::from_be_bytes(*head) as usize);
        rest = next;
        let event = fields(frame);
        let object = fields(&event[1].1).remove(0).1;
        let envelope = protobuf::envelope(&object).expect("an envelope");
        let catalog = server.api.catalog();
        let kind = catalog.by_kind("", "v1", &envelope.kind).expect("a kind");
        let object = protobuf::decode(kind, envelope.raw).expect("an object");
        seen.push((String::from_utf8_lossy(&event[0].1).into_owned(), object));
    }
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].0.as_str(), &seen[0].1["data"]), ("ADDED", &json!({"k": "v"})));
    assert_eq!(seen[1].0, "BOOKMARK");
    assert_eq!(seen[1].1["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
}

#[test]
fn forms_and_refusals() {
    let server = Server::new();
    make(&server, "a", json!({}));
    let one = &format!("{MAPS}/a");
    let watch = &format!("{MAPS}?watch=1");
    let meta = ";g=meta.k8s.io;v=v1";
    for (method, target, accept, code, message) in [
        (
            "GET",
            one.as_str(),
            format!("application/json;as=PartialObjectMetadataList{meta}"),
            406,
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)",
        ),
        (
            "GET",
            MAPS,
            format!("application/json;as=PartialObjectMetadata{meta}"),
            406,
            "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)",
        ),
        (
            "GET",
            one,
            "text/html".to_owned(),
            406,
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        ),
        (
            "GET",
            watch,
            "application/yaml".to_owned(),
            406,
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ),
        ("HEAD", one, String::new(), 405, "the server does not allow this method on the requested resource"),
        ("POST", one, String::new(), 405, "the server does not allow this method on the requested resource"),
        (
            "GET",
            "/api/v1/namespaces/default/pods/x/binding",
            String::new(),
            405,
            "the server does not allow this method on the requested resource",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/pods/x/none",
            String::new(),
            404,
            "the server could not find the requested resource",
        ),
        (
            "GET",
            "/apis/apps/v1/namespaces/default/nones",
            String::new(),
            404,
            "the server could not find the requested resource",
        ),
        (
            "GET",
            &format!("{MAPS}/a?resourceVersion=99999999"),
            String::new(),
            504,
            "Timeout: Too large resource version: 99999999, current: ",
        ),
        (
            "GET",
            &format!("{MAPS}?watch=1&resourceVersionMatch=Exact&resourceVersion=1"),
            String::new(),
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
        ),
        (
            "GET",
            &format!("{MAPS}?continue=abc"),
            String::new(),
            400,
            "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value",
        ),
    ] {
        let (got, status) = server.answer(server.send(method, target, "", b"", &accept));
        let text = status["message"].as_str().unwrap_or("");
        assert!(got == code && text.starts_with(message), "{method} {target} {accept}: {got} {text}");
    }
    server.refused("GET", &format!("{MAPS}/b"), Value::Null, "404 NotFound: configmaps \"b\" not found");
    let none = server.send("GET", "/apis/none.example.com/v1/things", "", b"", "");
    assert_eq!((none.status, media(&none).as_str()), (404, "text/plain; charset=utf-8"));
    let yaml = server.send("GET", one, "", b"", "application/yaml");
    assert_eq!(media(&yaml), "application/yaml");
    assert!(String::from_utf8_lossy(&server.bytes(yaml)).contains("kind: ConfigMap\n"));
    let table = format!("application/json;as=Table{meta}");
    let table = server.answer(server.send("GET", one, "", b"", &table)).1;
    let read = server.ok("GET", one, Value::Null);
    assert_eq!(table["metadata"], json!({"resourceVersion": read["metadata"]["resourceVersion"]}));
    assert_eq!(table["rows"][0]["object"]["metadata"], read["metadata"]);
}
