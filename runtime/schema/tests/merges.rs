//! Laws of merging by the table, for every built-in kind with random objects: strategic merge patches, server-side apply and who
//! owns what. The seed of a failure is printed; every run uses the same ones.
mod trees;

use mote_schema::{
    Catalog, Kind, Status, defaults,
    managed::{Filter, Tracker, Versions},
    prune, strategic,
    table::{BUILTIN, Container, Field, Shape, TypeId},
};
use mote_schema::{Value, json};
use std::{collections::HashSet, sync::Arc};
use trees::Random;

/// Runs `law` for every kind, some times each, with a generator of its own, so that one seed repeats one failure.
fn each(times: u64, law: impl Fn(&Arc<Kind>, &mut Random)) {
    let catalog = Catalog::builtin();
    for (number, kind) in (0u64..).zip(catalog.kinds.iter().chain(&catalog.parts)) {
        for seed in (1 + number * times)..=(number * times + times) {
            let run = || law(kind, &mut Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), false));
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                panic!("seed {seed}: {} {}", kind.api_version(), kind.kind);
            }
        }
    }
}

/// A clean object whose lists have no two elements with the same key.
fn tree(kind: &Kind, random: &mut Random) -> Value {
    let mut value = Value::Object(random.object(kind.root, 0));
    prune::clean(kind, &mut value).unwrap_or_else(|e| panic!("{e}: {value}"));
    distinct(kind.root, &mut value);
    value
}

fn distinct(id: TypeId, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    for field in BUILTIN.fields(id) {
        let Some(value) = map.get_mut(BUILTIN.name(field)) else { continue };
        if let Value::Array(list) = value {
            keep_one_of_each(field, list);
        }
        let Shape::Object(inner) = field.shape else { continue };
        match field.container {
            Container::One => distinct(inner, value),
            Container::List => value.as_array_mut().into_iter().flatten().for_each(|v| distinct(inner, v)),
            _ => value.as_object_mut().into_iter().flat_map(|m| m.values_mut()).for_each(|v| distinct(inner, v)),
        }
    }
}

fn keep_one_of_each(field: &Field, list: &mut Vec<Value>) {
    let merge_key = Some(BUILTIN.merge_key(field)).filter(|key| !key.is_empty());
    let list_keys: Vec<&str> = BUILTIN.list_keys(field).collect();
    // Both ways to tell elements apart, where a list has them.
    for keys in [merge_key.into_iter().collect(), list_keys] {
        let mut seen = HashSet::new();
        list.retain(|element| {
            let key = match &keys[..] {
                [] if field.list_type.is_some() || field.patch_merge => element.to_string(),
                [] => return true,
                keys => keys.iter().map(|key| format!("{:?} ", element.get(key))).collect(),
            };
            (keys.iter().all(|key| element.get(key).is_some())) && seen.insert(key)
        });
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let members = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(members.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(list) => list.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// A strategic patch without directives says how things shall be: saying it again changes nothing, and on nothing it makes itself.
#[test]
fn a_strategic_patch_is_idempotent() {
    each(6, |kind, random| {
        let (start, patch) = (tree(kind, random), without_nulls(&tree(kind, random)));
        let patched = |start: &Value, patch: &Value| {
            let mut value = start.clone();
            strategic::apply(kind, &mut value, patch).unwrap_or_else(|e| panic!("{patch} on {start}: {e:?}"));
            value
        };
        assert_eq!(patched(&json!({}), &patch), patch, "on nothing");
        let once = patched(&start, &patch);
        assert_eq!(patched(&once, &patch), once, "twice: {patch} on {start}");
        assert_eq!(patched(&start, &json!({})), start, "an empty patch");
        assert_eq!(without_nulls(&patched(&start, &start)), without_nulls(&start), "itself");
    });
}

/// One version only.
struct NoOther;

impl Versions for NoOther {
    fn view(&self, _: &Value, _: &Kind, _: &str) -> Result<Option<(Arc<Kind>, Value)>, Status> {
        Ok(None)
    }
}

/// An object and the moment of its last write.
struct Object<'k> {
    kind: &'k Arc<Kind>,
    live: Value,
    writes: u32,
}

impl Object<'_> {
    fn apply(&mut self, manager: &str, config: &Value, force: bool) -> Result<(), Status> {
        self.writes += 1;
        let now = format!("2026-01-01T00:00:{:02}Z", self.writes);
        let filter = Filter::of(self.kind, "");
        let tracker = Tracker { kind: self.kind, manager, subresource: "", filter, now: &now, versions: &NoOther };
        let mut new = tracker.apply(&self.live, config, force)?;
        prune::clean(self.kind, &mut new).unwrap_or_else(|e| panic!("{e}: {new}"));
        defaults::apply(self.kind, &mut new);
        new["apiVersion"] = self.kind.api_version().into();
        new["kind"] = self.kind.kind.to_string().into();
        self.live = new;
        Ok(())
    }

    fn owners(&self) -> Vec<String> {
        let entries = self.live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{} {}", entry["manager"], entry["fieldsV1"])).collect()
    }

    /// Without the times of writes: the caller puts those back when nothing else changed.
    fn timeless(&self) -> Value {
        let mut value = self.live.clone();
        for entry in value["metadata"]["managedFields"].as_array_mut().into_iter().flatten() {
            entry["time"] = Value::Null;
        }
        value
    }

    /// All but who wrote it when.
    fn content(&self) -> Value {
        let mut value = self.live.clone();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        value
    }
}

/// What somebody may apply: nothing that is the server's.
fn config(kind: &Kind, random: &mut Random) -> Value {
    let mut value = tree(kind, random);
    let label = ["x", "y"][random.next(2)];
    value["metadata"] = json!({"name": "n", "labels": {"a": label}});
    value["apiVersion"] = kind.api_version().into();
    value["kind"] = kind.kind.to_string().into();
    // What is defaulted inside an atomic list is a change of it, upstream too: here nothing is left to default.
    defaults::apply(kind, &mut value);
    value
}

#[test]
fn applying_obeys_its_laws() {
    each(5, |kind, random| {
        // A Status has metadata of another type, reviews may have none.
        if BUILTIN.at(kind.root, "metadata.labels").is_none() {
            return;
        }
        let (a, b) = (config(kind, random), config(kind, random));
        let mut object = Object { kind, live: Value::Null, writes: 0 };
        object.apply("a", &a, false).unwrap_or_else(|e| panic!("{}: {a}", e.message));
        let first = object.timeless();
        object.apply("a", &a, false).unwrap();
        assert_eq!(object.timeless(), first, "twice: {a}");
        // Somebody else with the same: shared, without a conflict, and nothing of the object changes.
        let content = object.content();
        object.apply("b", &a, false).unwrap_or_else(|e| panic!("{}: {a}", e.message));
        assert_eq!(object.content(), content, "shared: {a}");
        // Either may leave, and what the other owns stays.
        let nothing = json!({"apiVersion": kind.api_version(), "kind": &*kind.kind, "metadata": {"name": "n"}});
        object.apply("a", &nothing, false).unwrap();
        assert_eq!(object.content(), content, "left: {a}");
        assert!(!object.owners().iter().any(|owner| owner.starts_with("\"a\"")), "{:?}", object.owners());
        // Other values conflict, unless forced; a refusal changes nothing.
        let before = object.live.clone();
        match object.apply("c", &b, false) {
            Ok(()) => {}
            Err(refused) => {
                assert_eq!((refused.code, refused.reason), (409, "Conflict"), "{}", refused.message);
                assert_eq!(object.live, before);
                object.apply("c", &b, true).unwrap_or_else(|e| panic!("{}: {b}", e.message));
            }
        }
        let forced = object.timeless();
        object.apply("c", &b, false).unwrap_or_else(|e| panic!("what was forced conflicts: {}", e.message));
        assert_eq!(object.timeless(), forced, "after force: {b}");
        // When all have left, what they brought is gone.
        object.apply("b", &nothing, true).unwrap();
        object.apply("c", &nothing, true).unwrap();
        assert_eq!(object.owners(), Vec::<String>::new());
        let mut bare = nothing.clone();
        prune::clean(kind, &mut bare).unwrap();
        defaults::apply(kind, &mut bare);
        let rest = object.content();
        assert_eq!(rest["metadata"], bare["metadata"], "{a} and {b}");
    });
}
