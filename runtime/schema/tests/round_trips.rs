//! What one encoding writes, another reads back: every built-in kind, as JSON and as protobuf, and protobuf that was tampered with.
mod trees;

use mote_schema::{
    Catalog, Doc, Kind, Object, protobuf, prune,
    table::{BUILTIN, Container, Shape, TypeId},
};
use mote_schema::{Value, json};
use std::sync::Arc;
use trees::Random;

fn kinds() -> Vec<Arc<Kind>> {
    let catalog = Catalog::builtin();
    catalog.kinds.iter().chain(&catalog.parts).cloned().collect()
}

/// A clean object of the kind.
fn tree(kind: &Kind, random: &mut Random) -> Value {
    let mut value = Value::Object(random.object(kind.root, 0));
    prune::clean(kind, &mut value).unwrap_or_else(|e| panic!("{}: {e}\n{value}", kind.kind));
    value
}

/// Drops what protobuf cannot say: apiVersion and kind of the object and of objects inside it, empty lists and maps.
fn fit(id: TypeId, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    for field in BUILTIN.fields(id) {
        let name = BUILTIN.name(field);
        let Some(value) = map.get_mut(name) else { continue };
        if let Shape::Object(inner) = field.shape {
            match field.container {
                Container::One => fit(inner, value),
                Container::List => value.as_array_mut().into_iter().flatten().for_each(|v| fit(inner, v)),
                _ => value.as_object_mut().into_iter().flat_map(|m| m.values_mut()).for_each(|v| fit(inner, v)),
            }
        }
        let is_empty = match value {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty() && field.container != Container::One,
            Value::Null => true,
            _ => false,
        };
        if field.number == 0 || is_empty {
            map.remove(name);
        }
    }
}

fn read(kind: &Kind, bytes: &[u8]) -> Value {
    let envelope = protobuf::envelope(bytes).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), (kind.api_version().as_str(), &*kind.kind));
    protobuf::decode(kind, envelope.raw).unwrap_or_else(|e| panic!("{}: {e}", kind.kind))
}

#[test]
fn every_kind_comes_back() {
    let mut random = Random::new(0x2545_f491_4f6c_dd1d, false);
    for kind in kinds() {
        for _ in 0..12 {
            let value = tree(&kind, &mut random);
            let doc = Doc::encode(&value).unwrap();
            let mut json = Vec::new();
            doc.write_json(&mut json);
            let again = Doc::from_json(&json).unwrap();
            assert_eq!(again, doc);
            assert_eq!(again.root().to_value(), value);

            let mut bytes = Vec::new();
            protobuf::write_value(&kind, &value, &mut bytes).unwrap();
            let mut back = read(&kind, &bytes);
            assert_eq!(prune::clean(&kind, &mut back), Ok(vec![]));
            let once = back.clone();
            assert_eq!(prune::clean(&kind, &mut back), Ok(vec![]));
            assert_eq!(back, once, "cleaning twice");
            let mut want = value;
            fit(kind.root, &mut want);
            fit(kind.root, &mut back);
            assert_eq!(back, want, "{}", kind.kind);
        }
    }
}

#[test]
fn metadata_carries_the_revision() {
    for kind in kinds().into_iter().filter(|kind| !kind.virtual_kind) {
        let doc = Doc::encode(&json!({"metadata": {"name": "a", "labels": {"z": "1", "b": "2"}}})).unwrap();
        let object = Object { kind: kind.clone(), doc, revision: 300 };
        let mut bytes = Vec::new();
        protobuf::write_object(&object, &mut bytes);
        let meta = json!({"name": "a", "labels": {"z": "1", "b": "2"}, "resourceVersion": "300"});
        assert_eq!(read(&kind, &bytes)["metadata"], meta);
        bytes.clear();
        protobuf::write_item(&object, true, &mut bytes);
        // An item of a PartialObjectMetadataList: field 2, its length, and ObjectMeta as field 1.
        assert_eq!((bytes[0], usize::from(bytes[1])), (0x12, bytes.len() - 2));
        assert_eq!(protobuf::decode(&kind, &bytes[2..]).unwrap(), json!({ "metadata": meta }));
    }
}

#[test]
fn tampered_bytes_make_no_panic() {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15, false);
    for kind in kinds() {
        for _ in 0..8 {
            let mut bytes = Vec::new();
            protobuf::write_value(&kind, &tree(&kind, &mut random), &mut bytes).unwrap();
            for _ in 0..40 {
                let mut bytes = bytes.clone();
                for _ in 0..=random.next(3) {
                    let at = random.next(bytes.len());
                    match random.next(3) {
                        0 => bytes[at] = random.next(256) as u8,
                        1 => bytes.truncate(at),
                        _ => bytes.insert(at, random.next(256) as u8),
                    }
                    if bytes.is_empty() {
                        break;
                    }
                }
                let Ok(envelope) = protobuf::envelope(&bytes) else { continue };
                let Ok(mut value) = protobuf::decode(&kind, envelope.raw) else { continue };
                if prune::clean(&kind, &mut value).is_ok() {
                    let mut out = Vec::new();
                    drop(protobuf::write_value(&kind, &value, &mut out));
                }
            }
        }
    }
}
