//! What a pod costs as a Doc: bytes and nanoseconds, beside serde_json and protobuf-like packing.
//!
//! `cargo run --release -p mote-schema --example bench [FILE]`, where FILE is one object as JSON.
use mote_schema::Doc;
use mote_schema::doc::Ref;
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

/// About what protobuf takes: a tag and, for what has a length, a length for each field; elements repeat the tag.
fn packed_len(value: Ref<'_>) -> usize {
    let sized = |len: usize| len + 2 + usize::from(len > 127);
    match value.type_name() {
        "object" => {
            let one = |(name, value): (&str, Ref<'_>)| {
                // Names with dots, slashes or dashes are keys of maps, which are messages of two fields.
                let is_map = name.contains(['.', '/', '-', ':']);
                let value = packed_len(value);
                if is_map { sized(name.len() + 2 + value + 2) } else { value }
            };
            sized(value.entries().map(one).sum())
        }
        "array" => value.items().map(packed_len).sum(),
        "string" => sized(value.str().len()),
        _ => 3,
    }
}

fn main() {
    let text = std::env::args().nth(1).map(|file| std::fs::read_to_string(file).expect("a readable file"));
    let value: serde_json::Value = serde_json::from_str(text.as_deref().unwrap_or(POD)).expect("JSON");
    let json = serde_json::to_vec(&value).expect("a tree that was read");
    let doc = Doc::from_json(&json).expect("a tree that was read");
    let typed: k8s_openapi::api::core::v1::Pod = doc.decode().expect("a pod");
    println!("JSON {} bytes, Doc {}, protobuf about {}", json.len(), doc.bytes().len(), packed_len(doc.root()));

    let len = json.len();
    let mut out = Vec::with_capacity(1 << 23);
    time("JSON to Doc", len, || drop(black_box(Doc::from_json(&json))));
    time("JSON to serde_json::Value", len, || {
        drop(black_box(serde_json::from_slice::<serde_json::Value>(&json)));
    });
    time("Doc to JSON", len, || {
        out.clear();
        doc.write_json(&mut out);
        black_box(&out);
    });
    time("serde_json::Value to JSON", len, || {
        out.clear();
        serde_json::to_writer(&mut out, &value).expect("memory");
        black_box(&out);
    });
    time("Doc to typed Pod", len, || drop(black_box(doc.decode::<k8s_openapi::api::core::v1::Pod>())));
    time("JSON to typed Pod (serde_json)", len, || {
        drop(black_box(serde_json::from_slice::<k8s_openapi::api::core::v1::Pod>(&json)));
    });
    time("typed Pod to Doc", len, || drop(black_box(Doc::encode(&typed))));
    time("serde_json::Value to Doc", len, || drop(black_box(Doc::encode(&value))));
    time("check bytes", len, || drop(black_box(Doc::from_bytes(doc.bytes().clone()))));
    time("at(\"status.containerStatuses\")", 0, || {
        black_box(black_box(doc.root()).at("status.containerStatuses").exists());
    });

    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        out.clear();
        for _ in 0..1000 {
            doc.write_json(&mut out);
            out.push(b',');
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("a LIST of 1,000 as JSON: {} bytes in {best:.2} ms", out.len());
}
