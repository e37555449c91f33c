//! What a pod costs as a Doc: bytes and nanoseconds, into and out of JSON, protobuf and types, beside serde_json.
//!
//! `cargo run --release -p mote-schema --example bench [FILE]`, where FILE is one object as JSON.
use mote_schema::{Catalog, Doc, Object, protobuf};
use std::hint::black_box;
use std::time::Instant;

const POD: &str = include_str!("pod.json");

fn time(what: &str, bytes: usize, mut run: impl FnMut()) {
    let mut best = f64::MAX;
    // Short rounds and the best of many, since other programs take their turns.
    for _ in 0..400 {
        let start = Instant::now();
        for _ in 0..10 {
            run();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / 10.0);
    }
    println!("{what:<42} {best:>9.0} ns {:>8.0} MB/s", bytes as f64 * 1000.0 / best);
}

fn main() {
    let text = std::env::args().nth(1).map(|file| std::fs::read_to_string(file).expect("a readable file"));
    let value: mote_schema::Value = serde_json::from_str(text.as_deref().unwrap_or(POD)).expect("JSON");
    let json = serde_json::to_vec(&value).expect("a tree that was read");
    let doc = Doc::from_json(&json).expect("a tree that was read");
    let typed: k8s_openapi::api::core::v1::Pod = doc.decode().expect("a pod");
    println!("JSON {} bytes, Doc {}", json.len(), doc.bytes().len());

    let len = json.len();
    let mut out = Vec::with_capacity(1 << 23);
    time("JSON to Doc", len, || drop(black_box(Doc::from_json(&json))));
    time("JSON to mote_schema::Value", len, || {
        drop(black_box(serde_json::from_slice::<mote_schema::Value>(&json)));
    });
    time("Doc to JSON", len, || {
        out.clear();
        doc.write_json(&mut out);
        black_box(&out);
    });
    time("mote_schema::Value to JSON", len, || {
        out.clear();
        serde_json::to_writer(&mut out, &value).expect("memory");
        black_box(&out);
    });
    let kind = Catalog::builtin().of::<k8s_openapi::api::core::v1::Pod>().clone();
    let object = Object { kind: kind.clone(), doc: doc.clone(), revision: 123_456 };
    let mut packed = Vec::new();
    protobuf::write_object(&object, &mut packed);
    println!("protobuf {} bytes", packed.len());
    time("Doc to protobuf", len, || {
        out.clear();
        protobuf::write_object(&object, &mut out);
        black_box(&out);
    });
    time("protobuf to a tree", len, || {
        let raw = protobuf::envelope(&packed).expect("own bytes").raw;
        drop(black_box(protobuf::decode(&kind, raw)));
    });
    time("Doc to typed Pod", len, || drop(black_box(doc.decode::<k8s_openapi::api::core::v1::Pod>())));
    time("JSON to typed Pod (serde_json)", len, || {
        drop(black_box(serde_json::from_slice::<k8s_openapi::api::core::v1::Pod>(&json)));
    });
    time("typed Pod to Doc", len, || drop(black_box(Doc::encode(&typed))));
    time("mote_schema::Value to Doc", len, || drop(black_box(Doc::encode(&value))));
    time("check bytes", len, || drop(black_box(Doc::from_bytes(doc.bytes().clone()))));
    time("at(\"status.containerStatuses\")", 0, || {
        black_box(black_box(doc.root()).at("status.containerStatuses").exists());
    });

    type Write<'a> = &'a dyn Fn(&mut Vec<u8>);
    let items: [(&str, Write<'_>); 2] = [
        ("JSON", &|out| object.write_json(false, out)),
        ("protobuf", &|out| protobuf::write_item(&object, false, out)),
    ];
    for (encoding, write) in items {
        let mut best = f64::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            out.clear();
            for _ in 0..1000 {
                write(&mut out);
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
        println!("a LIST of 1,000 as {encoding}: {} bytes in {best:.2} ms", out.len());
    }
}
