//! What things cost in memory, held: an object, a watcher, a connection, a large definition. Counts of the kernel's, with the API
//! server alone and a process of its own for each figure, so they are stable on a busy machine; each is printed.
use mote_tests::{
    Server,
    hostile::{Footprint, http2},
    http::{Client, Connection},
};
use serde_json::{Map, Value, json};
use std::{thread, time::Duration};

const OBJECTS: u64 = 10_000;
const OBJECT_BYTES: usize = 1_000;
/// Of one object, above the bytes that its user gave.
const OBJECT_OVERHEAD_BYTES: u64 = 2_048;
const WATCHERS: u64 = 1_000;
/// With its part of a connection that fifty share.
const WATCHER_BYTES: u64 = 18 << 10;
const CONNECTIONS: u64 = 300;
const CONNECTION_BYTES: u64 = 40 << 10;
/// Of a definition of a megabyte: its own bytes, and what the allocator keeps of reading it.
const DEFINITION_JSON_BYTES: usize = 1 << 20;
const DEFINITION_BYTES: u64 = (1 << 20) + (512 << 10);

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn server() -> Server {
    Server::start_with("components: {disabled: [kubelet, network, scheduler, controllers]}\n")
}

/// What `act` leaves behind, in bytes, once the server is done with it; what it returns is kept until then.
fn growth<T>(server: &Server, act: impl FnOnce(&Client) -> T) -> u64 {
    let client = server.client();
    // What the first request of a kind brings is nobody's cost.
    client.get(&format!("{CONFIG_MAPS}?limit=1"));
    thread::sleep(Duration::from_secs(2));
    let before = Footprint::of(server.pid()).pss_kb;
    let kept = act(&client);
    thread::sleep(Duration::from_secs(4));
    let after = Footprint::of(server.pid()).pss_kb;
    drop(kept);
    after.saturating_sub(before) * 1024
}

fn check(what: &str, count: u64, bytes: u64, budget: u64) {
    let each = bytes / count;
    println!("{what}: {each} bytes, budget {budget}");
    assert!(each <= budget, "{what}: {each} bytes, over {budget}");
}

#[test]
fn an_object_costs_little_more_than_its_bytes() {
    let server = server();
    let data = "x".repeat(OBJECT_BYTES);
    let bytes = growth(&server, |client| {
        thread::scope(|scope| {
            let writers = 8;
            for writer in 0..writers {
                let data = &data;
                scope.spawn(move || {
                    let mut connection = Connection::open(client).expect("a connection");
                    for number in (writer..OBJECTS).step_by(writers as usize) {
                        let name = format!("object-{number}");
                        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": data}});
                        let (code, _) = connection.request("POST", CONFIG_MAPS, &object.to_string()).expect("an answer");
                        assert_eq!(code, 201);
                    }
                });
            }
        });
    });
    check("an object of 1 kB", OBJECTS, bytes, OBJECT_BYTES as u64 + OBJECT_OVERHEAD_BYTES);
}

#[test]
fn a_watcher_costs_little() {
    let server = server();
    let streams = 50;
    let mut open = Vec::new();
    let bytes = growth(&server, |client| {
        for _ in 0..WATCHERS / streams {
            open.push(
                http2::ask(client, streams as u32, "/api/v1/configmaps?watch=true&resourceVersion=0").expect("watches"),
            );
        }
    });
    check("a watcher", WATCHERS, bytes, WATCHER_BYTES);
}

#[test]
fn a_connection_costs_little() {
    let server = server();
    let bytes = growth(&server, |client| {
        let open = || {
            let mut connection = Connection::open(client).expect("a connection");
            connection.request("GET", "/version", "").expect("an answer");
            connection
        };
        (0..CONNECTIONS).map(|_| open()).collect::<Vec<_>>()
    });
    check("a TLS connection", CONNECTIONS, bytes, CONNECTION_BYTES);
}

/// As large operators have them: schemas in schemas, each field with a word about it.
fn schema(depth: usize, number: &mut usize) -> Value {
    if depth == 0 {
        let words = "What this field is for, in the words of whoever wrote the operator, which are many. ".repeat(3);
        return json!({"type": "string", "description": words, "maxLength": 253});
    }
    let mut properties = Map::new();
    for _ in 0..8 {
        *number += 1;
        properties.insert(format!("field{number}"), schema(depth - 1, number));
    }
    json!({"type": "object", "description": "A part of it.", "properties": properties})
}

#[test]
fn a_large_definition_costs_its_bytes() {
    let server = server();
    let mut specs = Map::new();
    let mut number = 0;
    while Value::Object(specs.clone()).to_string().len() < DEFINITION_JSON_BYTES - 50_000 {
        specs.insert(format!("part{number}"), schema(3, &mut number));
    }
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "larges.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "larges", "kind": "Large"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object", "properties": specs}}}}}]}});
    println!("a definition of {} bytes", definition.to_string().len());
    let bytes = growth(&server, |client| {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let answer = client.post(path, &definition);
        assert_eq!(answer.code, 201, "{}", answer.text());
        let object = json!({"apiVersion": "example.com/v1", "kind": "Large", "metadata": {"name": "a"}, "spec": {}});
        mote_tests::eventually("the kind is served", 20, || {
            match client.post("/apis/example.com/v1/namespaces/default/larges", &object).code {
                201 => Ok(()),
                code => Err(code.to_string()),
            }
        });
    });
    check("a definition of 1 MB", 1, bytes, DEFINITION_BYTES);
}
