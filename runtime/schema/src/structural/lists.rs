//! Lists of type set and map hold no element and no key twice (apiextensions-apiserver/pkg/apiserver/schema/listtype).
use super::{MAX_DEPTH, Schema, join};
use crate::{Cause, table::ListType};
use crate::{Map, Value};
use std::collections::HashMap;

pub(super) fn check(schema: Schema<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    walk(schema, value, path, causes, 0);
}

fn walk(schema: Schema<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter().filter(|(_, value)| value.is_object() || value.is_array()) {
                if let Some(property) = schema.property(name) {
                    walk(property, value, &join(path, name), causes, depth + 1);
                } else if let Some(child) = schema.child(name) {
                    walk(child, value, &format!("{path}[{name}]"), causes, depth + 1);
                }
            }
        }
        Value::Array(list) => {
            match schema.list_type() {
                Some(ListType::Set) => duplicates(list.iter().cloned(), list, path, causes),
                Some(ListType::Map) => map(schema, list, path, causes),
                _ => {}
            }
            let Some(items) = schema.items() else { return };
            for (at, value) in list.iter().enumerate().filter(|(_, value)| value.is_object() || value.is_array()) {
                walk(items, value, &format!("{path}[{at}]"), causes, depth + 1);
            }
        }
        _ => {}
    }
}

fn map(schema: Schema<'_>, list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    if let Some(at) = list.iter().position(|value| !value.is_object() && !value.is_null()) {
        let detail = "must be an object for an array of list-type map";
        causes.push(Cause::invalid(format!("{path}[{at}]"), &list[at], detail));
        return;
    }
    let keys: Vec<Value> = list.iter().map(|value| key(schema, value)).collect();
    duplicates(keys.iter().cloned(), &keys, path, causes);
}

/// The members that tell an element of a map list from others.
pub(super) fn key(schema: Schema<'_>, element: &Value) -> Value {
    let members = schema.list_keys().filter_map(|name| Some((name.to_owned(), element.get(name)?.clone())));
    Value::Object(members.collect::<Map>())
}

/// Tells of the second appearance of each; `shown` is what the message shows.
fn duplicates(keys: impl Iterator<Item = Value>, shown: &[Value], path: &str, causes: &mut Vec<Cause>) {
    if shown.len() <= 1 {
        return;
    }
    let mut seen: HashMap<String, u32> = HashMap::with_capacity(shown.len());
    for (at, key) in keys.enumerate() {
        let times = seen.entry(key.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            causes.push(Cause::duplicate(format!("{path}[{at}]"), &shown[at]));
        }
    }
}
