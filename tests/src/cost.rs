//! What things cost the API server, measured: memory of an object, a watcher, a connection, a large definition; allocations of a
//! request. Each has a server of its own, alone, so counts are stable on a busy machine. The words of `COSTS` are those of the
//! table of costs in size-report/SPECIFICATION.md, whose figures `suites/{memory,allocations}.rs` hold and `./dev figures` prints.
use crate::{
    Server, eventually,
    hostile::http2,
    http::{Client, Connection},
    trace,
    usage::Memory,
};
use serde_json::{Map, Value, json};
use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

/// The words of a cost, and how it is measured.
pub type Cost = (&'static str, fn() -> u64);

pub const MEMORY: [Cost; 4] = [
    ("an object of 1 kB, above its bytes", object),
    ("a watcher, with its part of a connection that fifty share", watcher),
    ("a TLS connection", connection),
    ("a definition of 1 MB", definition),
];

pub const ALLOCATIONS: [Cost; 4] = [
    ("allocations of a GET of one object", || allocations(Request::Get)),
    ("allocations of a LIST of 100 objects", || allocations(Request::List)),
    ("allocations of a create", || allocations(Request::Create)),
    ("allocations of a PUT that one watcher hears of", || allocations(Request::Replace)),
];

const OBJECTS: u64 = 10_000;
const OBJECT_BYTES: usize = 1_000;
const WATCHERS: u64 = 1_000;
const STREAMS: u64 = 50;
const CONNECTIONS: u64 = 300;
const DEFINITION_JSON_BYTES: usize = 1 << 20;
/// Requests that are counted together, after as many that are not.
const REQUESTS: u64 = 20;

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An API server and nothing that acts by itself.
pub fn server() -> Server {
    Server::start_with("components: {disabled: [kubelet, network, scheduler, controllers]}\n")
}

/// What `act` leaves behind, in bytes, once the server is done with it; what it returns is kept until then.
fn growth<T>(server: &Server, act: impl FnOnce(&Client) -> T) -> u64 {
    let client = server.client();
    // What the first request of a kind brings is nobody's cost.
    client.get(&format!("{CONFIG_MAPS}?limit=1"));
    thread::sleep(Duration::from_secs(2));
    let before = Memory::of_process(server.pid()).proportional_kb;
    let kept = act(&client);
    thread::sleep(Duration::from_secs(4));
    let after = Memory::of_process(server.pid()).proportional_kb;
    drop(kept);
    after.saturating_sub(before) * 1024
}

/// ConfigMaps of a kilobyte, by eight clients at once.
pub fn create_objects(client: &Client, count: u64) {
    let data = "x".repeat(OBJECT_BYTES);
    thread::scope(|scope| {
        let writers = 8;
        for writer in 0..writers {
            let data = &data;
            scope.spawn(move || {
                let mut connection = Connection::open(client).expect("a connection");
                for number in (writer..count).step_by(writers as usize) {
                    let name = format!("object-{number}");
                    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": data}});
                    let (code, _) = connection.request("POST", CONFIG_MAPS, &object.to_string()).expect("an answer");
                    assert_eq!(code, 201);
                }
            });
        }
    });
}

fn object() -> u64 {
    let bytes = growth(&server(), |client| create_objects(client, OBJECTS));
    (bytes / OBJECTS).saturating_sub(OBJECT_BYTES as u64)
}

fn watcher() -> u64 {
    let path = "/api/v1/configmaps?watch=true&resourceVersion=0";
    let open = |client: &Client| -> Vec<_> {
        (0..WATCHERS / STREAMS).map(|_| http2::ask(client, STREAMS as u32, path).expect("watches")).collect()
    };
    growth(&server(), open) / WATCHERS
}

/// So many, each of which has asked for something.
pub fn connections(client: &Client, count: u64) -> Vec<Connection> {
    let open = |_| {
        let mut connection = Connection::open(client).expect("a connection");
        connection.request("GET", "/version", "").expect("an answer");
        connection
    };
    (0..count).map(open).collect()
}

fn connection() -> u64 {
    growth(&server(), |client| connections(client, CONNECTIONS)) / CONNECTIONS
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

/// Its own bytes, and what the allocator keeps of reading it.
fn definition() -> u64 {
    let mut specs = Map::new();
    let mut number = 0;
    while Value::Object(specs.clone()).to_string().len() < DEFINITION_JSON_BYTES - 50_000 {
        specs.insert(format!("part{number}"), schema(3, &mut number));
    }
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "larges.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "larges", "kind": "Large"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object", "properties": specs}}}}}]}});
    growth(&server(), |client| {
        let answer = client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition);
        assert_eq!(answer.code, 201, "{}", answer.text());
        let object = json!({"apiVersion": "example.com/v1", "kind": "Large", "metadata": {"name": "a"}, "spec": {}});
        eventually("the kind is served", 20, || {
            match client.post("/apis/example.com/v1/namespaces/default/larges", &object).code {
                201 => Ok(()),
                code => Err(code.to_string()),
            }
        });
    })
}

#[derive(Clone, Copy)]
enum Request {
    Get,
    List,
    Create,
    Replace,
}

/// Of one request on an open connection, when all is warm.
fn allocations(request: Request) -> u64 {
    let server = server();
    let client = server.client();
    let listed = if matches!(request, Request::List) { 100 } else { 1 };
    create_objects(&client, listed);
    let mut connection = Connection::open(&client).expect("a connection");
    let mut watch = matches!(request, Request::Replace).then(|| watch(&client));
    let mut number = 0;
    let mut send = || {
        number += 1;
        let of =
            |name: String| json!({"metadata": {"name": name}, "data": {"a": "b", "n": number.to_string()}}).to_string();
        let (method, path, body, expected) = match request {
            Request::Get => ("GET", format!("{CONFIG_MAPS}/object-0"), String::new(), 200),
            Request::List => ("GET", format!("{CONFIG_MAPS}?labelSelector=!none"), String::new(), 200),
            Request::Create => ("POST", CONFIG_MAPS.to_owned(), of(format!("made-{number}")), 201),
            Request::Replace => ("PUT", format!("{CONFIG_MAPS}/object-0"), of("object-0".to_owned()), 200),
        };
        let (code, answer) = connection.request(method, &path, &body).expect("an answer");
        assert_eq!(code, expected, "{}", String::from_utf8_lossy(&answer));
        if let Some(stream) = &mut watch {
            assert!(stream.read(&mut [0; 16_384]).expect("an event") > 0, "the watch has ended");
        }
    };
    (0..REQUESTS).for_each(|_| send());
    let (calls, ()) = trace::calls(server.pid(), &trace::allocators(), || (0..REQUESTS).for_each(|_| send()));
    assert!(calls > 0, "nothing was counted");
    calls.div_ceil(REQUESTS)
}

/// Events come one a read, or a few.
fn watch(client: &Client) -> crate::http::Stream {
    let mut stream = client.connect().expect("a connection");
    let line = format!(
        "GET {CONFIG_MAPS}?watch=true&resourceVersion=0 HTTP/1.1\r\nHost: mote\r\nAccept: application/json\r\n\r\n"
    );
    stream.write_all(line.as_bytes()).and_then(|()| stream.flush()).expect("it takes the request");
    let mut heard = Vec::new();
    let mut buffer = [0; 16_384];
    // The answer's head, and the object there is.
    while !heard.windows(5).any(|bytes| bytes == b"ADDED") {
        let count = stream.read(&mut buffer).expect("an event");
        assert!(count > 0, "{}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..count]);
    }
    stream
}
