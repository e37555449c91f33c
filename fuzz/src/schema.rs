//! Targets of `mote-schema`: decoders, and what is done with their trees.
use mote_schema::{
    Catalog, Doc, Kind, Value, check, convert, defaults, json as value,
    managed::{Filter, Tracker, Versions},
    patch as patches, prepare, protobuf as proto, prune,
    quantity::Quantity,
    selector::{FieldSelector, LabelSelector},
    strategic, structural,
};
use std::sync::{Arc, OnceLock};

fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(Catalog::builtin)
}

/// The first byte chooses a kind.
fn kind(data: &[u8]) -> Option<(&'static Arc<Kind>, &[u8])> {
    let (first, rest) = data.split_first()?;
    let kinds = &catalog().kinds;
    Some((kinds.get(usize::from(*first) % kinds.len())?, rest))
}

fn tree(text: &[u8]) -> Option<Value> {
    Some(prune::parse_json(text).ok()?.0)
}

pub fn json(data: &[u8]) {
    let mut duplicates = Vec::new();
    let Ok(doc) = Doc::from_json_strict(data, &mut duplicates) else { return };
    let mut text = Vec::new();
    doc.write_json(&mut text);
    // A float without a fraction is written as an integer, as Go does, and then is one: 9E9.
    let mut same = Vec::new();
    Doc::from_json(&text).expect("what was written reads").write_json(&mut same);
    assert_eq!(String::from_utf8_lossy(&same), String::from_utf8_lossy(&text));
    assert_eq!(Doc::from_bytes(doc.bytes().clone()).as_ref(), Ok(&doc));
    // Go reads "-0" as the integer 0.
    if duplicates.is_empty()
        && !data.windows(2).any(|two| two == b"-0")
        && let Ok(other) = serde_json::from_slice::<serde_json::Value>(data)
    {
        assert_eq!(serde_json::to_value(doc.root().to_value()).ok(), Some(other));
    }
}

pub fn yaml(data: &[u8]) {
    let Ok((tree, _)) = prune::parse_yaml(data) else { return };
    // What is too large for an object is no object.
    let Ok(doc) = Doc::encode(&tree) else { return };
    assert_eq!(doc.root().to_value(), tree);
    let text = prune::to_yaml(&tree).expect("it prints");
    assert_eq!(prune::parse_yaml(text.as_bytes()).map(|(tree, _)| tree), Ok(tree), "{text}");
}

pub fn doc(data: &[u8]) {
    let Ok(doc) = Doc::from_bytes(data.into()) else { return };
    let mut text = Vec::new();
    doc.write_json(&mut text);
    let mut duplicates = Vec::new();
    let again = Doc::from_json_strict(&text, &mut duplicates).expect("what was written reads");
    if !duplicates.is_empty() {
        // Nothing writes such bytes, and what their sums vouch for is not searched for them.
        return;
    }
    let mut same = Vec::new();
    again.write_json(&mut same);
    assert_eq!(String::from_utf8_lossy(&same), String::from_utf8_lossy(&text));
    assert_eq!(Doc::encode(&doc.root().to_value()).map(|doc| doc.root().to_value()), Ok(doc.root().to_value()));
    for (name, member) in doc.root().entries() {
        assert!(member.exists() && doc.root().get(name).exists());
        let _ = (member.as_i64(), member.as_f64(), member.as_bool(), member.str(), member.is_empty());
    }
}

pub fn protobuf(data: &[u8]) {
    let _ = proto::envelope(data);
    let Some((kind, raw)) = kind(data) else { return };
    let Ok(mut tree) = proto::decode(kind, raw) else { return };
    if prune::clean(kind, &mut tree).is_err() {
        return;
    }
    let mut bytes = Vec::new();
    if proto::write_value(kind, &tree, &mut bytes).is_ok() {
        let envelope = proto::envelope(&bytes).expect("what was written reads");
        proto::decode(kind, envelope.raw).expect("what was written reads");
    }
}

/// What real servers answered with, each object behind the byte that chooses its kind.
pub fn recorded_objects() -> Vec<Vec<u8>> {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/differential/answers");
    let mut seeds = Vec::new();
    for file in std::fs::read_dir(files).expect("the answers are there").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("it is text");
        for line in text.lines() {
            let Ok(Value::Object(answer)) = serde_json::from_str(line) else { continue };
            let Some(body) = answer.get("body") else { continue };
            let is_of = |kind: &Arc<Kind>| {
                body["apiVersion"] == Value::from(kind.api_version()) && body["kind"] == Value::from(&*kind.kind)
            };
            if let Some(at) = catalog().kinds.iter().position(is_of).and_then(|at| u8::try_from(at).ok()) {
                seeds.push([&[at], body.to_string().as_bytes()].concat());
            }
        }
    }
    seeds
}

/// The way of a write, but for the store.
pub fn object(data: &[u8]) {
    let Some((kind, text)) = kind(data) else { return };
    let Some(mut tree) = tree(text) else { return };
    if prune::clean(kind, &mut tree).is_err() {
        return;
    }
    let once = tree.clone();
    assert_eq!(prune::clean(kind, &mut tree), Ok(vec![]));
    assert_eq!(tree, once, "cleaning twice");
    defaults::apply(kind, &mut tree);
    let old = tree.clone();
    prepare::create(kind, &mut tree);
    check::validate(kind, &tree, None, "");
    for sub in ["", "status"] {
        let mut new = tree.clone();
        prepare::update(kind, sub, &old, &mut new);
        check::validate(kind, &new, Some(&old), sub);
    }
    convert::to_stored(kind, &mut tree);
    convert::from_stored(kind, &mut tree);
}

/// Two documents with a zero byte between them.
fn two(text: &[u8]) -> Option<(Value, Value)> {
    let at = text.iter().position(|byte| *byte == 0)?;
    Some((tree(&text[..at])?, tree(text.get(at + 1..)?)?))
}

pub fn patch(data: &[u8]) {
    let Some((kind, text)) = kind(data) else { return };
    let Some((target, patch)) = two(text) else { return };
    let _ = strategic::apply(kind, &mut target.clone(), &patch);
    let _ = patches::json(&mut target.clone(), &patch);
    let mut once = target.clone();
    if patches::merge(&mut once, &patch).is_ok() {
        let mut twice = once.clone();
        patches::merge(&mut twice, &patch).expect("as before");
        assert_eq!(twice, once);
    }
}

struct NoOther;

impl Versions for NoOther {
    fn view(&self, _: &Value, _: &Kind, _: &str) -> Result<Option<(Arc<Kind>, Value)>, mote_schema::Status> {
        Ok(None)
    }
}

pub fn apply(data: &[u8]) {
    let Some((kind, text)) = kind(data) else { return };
    let Some((mut live, mut config)) = two(text) else { return };
    if prune::clean(kind, &mut live).is_err() || !config.is_object() {
        return;
    }
    for object in [&mut live, &mut config] {
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.to_string().into();
    }
    let tracker = || Tracker {
        kind,
        manager: "m",
        subresource: "",
        filter: Filter::of(kind, ""),
        now: "2026-01-01T00:00:00Z",
        versions: &NoOther,
    };
    let mut updated = live.clone();
    tracker().update(&Value::Null, &mut updated);
    for live in [&Value::Null, &live, &updated] {
        let Ok(once) = tracker().apply(live, &config, true) else { continue };
        let twice = tracker().apply(&once, &config, false).expect("what was applied can be applied again");
        assert_eq!(once, twice);
    }
}

/// A CustomResourceDefinition, and an object of the kind it makes.
pub fn definition(data: &[u8]) {
    let definitions = catalog().by_kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition").expect("it is there");
    let Some((schema, mut object)) = two(data) else { return };
    let mut tree = value!({"metadata": {"name": "as.b.c"}, "spec": {"group": "b.c", "scope": "Namespaced",
        "names": {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        "status": {"storedVersions": ["v1"], "acceptedNames": {"plural": "as", "kind": "A", "listKind": "AList", "singular": "a"},
            "conditions": [{"type": "Established", "status": "True"}, {"type": "NamesAccepted", "status": "True"}]}});
    if prune::clean(definitions, &mut tree).is_err() {
        return;
    }
    defaults::apply(definitions, &mut tree);
    let accepted = check::validate(definitions, &tree, None, "").is_empty();
    let Ok(doc) = Doc::encode(&tree) else { return };
    if !accepted {
        return;
    }
    for kind in structural::kinds(&doc, 0, &[]) {
        if prune::clean(&kind, &mut object).is_err() {
            return;
        }
        if let Some(schema) = kind.schema() {
            structural::default(schema, &mut object);
            let once = object.clone();
            structural::default(schema, &mut object);
            assert_eq!(object, once, "defaulting twice");
        }
        check::validate(&kind, &object, None, "");
        let _ = strategic::apply(&kind, &mut object.clone(), &object);
    }
}

pub fn label_selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = LabelSelector::parse(text) else { return };
    let printed = selector.to_string();
    let again = LabelSelector::parse(&printed).expect("what was printed reads");
    assert_eq!(again.to_string(), printed);
    let labels = Doc::encode(&value!({"a": "b", "x/y": "", "n": "5"})).expect("it is small");
    assert_eq!(selector.matches(labels.root()), again.matches(labels.root()), "{printed}");
}

pub fn field_selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(selector) = FieldSelector::parse(text) else { return };
    let object = Doc::encode(&value!({"metadata": {"name": "a"}, "spec": {"on": true, "n": 1}})).expect("it is small");
    selector.matches(object.root());
}

pub fn quantity(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(amount) = Quantity::parse(text) else { return };
    let printed = amount.to_string();
    let again = Quantity::parse(&printed).expect("what was printed reads");
    let _ = (amount.value(), amount.milli_value(), amount.approximate(), amount + again, amount - again, -amount);
    let _ = Quantity::canonical(text).expect("what parses has a canonical form");
}
