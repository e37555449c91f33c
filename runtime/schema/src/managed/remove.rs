//! An object without the items of a set. What is left of a map or list stays, empty (typed/remove.go).
use super::{
    element::Element,
    list,
    set::{Node, Set},
    types::TypeRef,
};
use crate::{List, Map, Value};

pub(super) fn remove(types: TypeRef<'_>, value: &Value, set: &Set) -> Value {
    let atom = types.resolve().of(Some(value));
    if let Some(map) = &atom.map {
        match value {
            Value::Object(members) if !map.atomic => {
                let mut out = Map::new();
                let mut matched = false;
                for (name, member) in members {
                    let node = set.get(&Element::field(name));
                    let Some(kept) = keep(map.member(name), member, node, &mut matched) else { continue };
                    out.insert(name.clone(), kept);
                }
                if out.is_empty() && !matched { Value::Null } else { Value::Object(out) }
            }
            _ => Value::Null,
        }
    } else if atom.scalar.is_some() {
        value.clone()
    } else if let Some(list) = &atom.list {
        match value {
            Value::Array(items) if !list.is_atomic() => {
                let (keys, mut matched) = (list.keys(), false);
                let kept = items.iter().filter_map(|item| {
                    let element = list::element(list, &keys, item).ok();
                    keep(list.element, item, element.and_then(|element| set.get(&element)), &mut matched)
                });
                let kept: Vec<Value> = kept.collect();
                if kept.is_empty() && !matched { Value::Null } else { Value::Array(kept.into()) }
            }
            _ => Value::Null,
        }
    } else {
        Value::Null
    }
}

/// None: the item itself goes.
fn keep(types: TypeRef<'_>, value: &Value, node: Option<&Node>, matched: &mut bool) -> Option<Value> {
    let Some(node) = node else { return Some(value.clone()) };
    if node.member {
        return None;
    }
    *matched = true;
    Some(match (remove(types, value, &node.children), value) {
        (Value::Null, Value::Object(_)) => Value::Object(Map::new()),
        (Value::Null, Value::Array(_)) => Value::Array(List::default()),
        (left, _) => left,
    })
}
