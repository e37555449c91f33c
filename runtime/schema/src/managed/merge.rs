//! A configuration laid over an object: no field goes, the configuration's leaves win, lists merge by element and take the
//! configuration's order where it says something (typed/merge.go).
use super::{
    list::Index,
    types::{ListOf, MapType, TypeRef},
};
use crate::Gather as _;
use crate::{Map, Name, Value};
use std::collections::BTreeSet;

pub(super) fn merge(types: TypeRef<'_>, object: &Value, config: &Value) -> Result<Value, String> {
    Ok(any(types, Some(object), Some(config))?.unwrap_or(Value::Null))
}

static NULL: Value = Value::Null;

fn any(types: TypeRef<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<Option<Value>, String> {
    let atom = types.resolve().of(new.or(old));
    if let Some(map) = &atom.map {
        let (a, b) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
        if !(map.atomic || a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty)) {
            return members(map, a, b);
        }
    } else if atom.scalar.is_some() {
    } else if let Some(list) = &atom.list {
        let (a, b) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
        if !(list.is_atomic() || a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty)) {
            return items(list, a.map_or(&[], |list| list), b.map_or(&[], |list| list));
        }
    }
    Ok(new.or(old).cloned())
}

fn members(map: &MapType<'_>, old: Option<&Map>, new: Option<&Map>) -> Result<Option<Value>, String> {
    let mut out = Map::new();
    let names = old.into_iter().chain(new).flat_map(Map::keys);
    for name in names.gather::<BTreeSet<&Name>>() {
        let (old, new) = (old.and_then(|map| map.get(name)), new.and_then(|map| map.get(name)));
        let merged = match (old, new) {
            (Some(one), None) | (None, Some(one)) => Some(one.clone()),
            _ => any(map.member(name), old, new).map_err(|error| format!(".{name}{error}"))?,
        };
        if let Some(value) = merged {
            out.insert(name.clone(), value);
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

fn items(list: &ListOf<'_>, old: &[Value], new: &[Value]) -> Result<Option<Value>, String> {
    let theirs = Index::new(list, new).map_err(|error| format!(": {error}"))?;
    if let Some(twice) = theirs.groups().find(|group| group.len() > 1) {
        return Err(format!(": duplicate entries for key {}", theirs.elements[twice[0]]));
    }
    let ours = Index::new(list, old).map_err(|error| format!(": {error}"))?;
    // Several items of one element are not merged with, they are replaced.
    let before = |element| match ours.places(element) {
        [] => None,
        [one] => Some(&old[*one]),
        _ => Some(&NULL),
    };
    let mut shared = theirs.elements.iter().filter(|element| !ours.places(element).is_empty());
    let mut next_shared = shared.next();
    let mut merged = vec![false; new.len()];
    let (mut i, mut j, mut out) = (0, 0, Vec::with_capacity(old.len().max(new.len())));
    while i < old.len() || j < new.len() {
        if let (Some(left), Some(right)) = (ours.elements.get(i), theirs.elements.get(j)) {
            if left == right {
                merged[j] = true;
                out.extend(item(list, before(right), Some(&new[j]), right)?);
                (i, j) = (i + 1, j + 1);
                next_shared = shared.next();
                continue;
            }
            let is_shared = !theirs.places(left).is_empty();
            if is_shared && next_shared.is_some_and(|next| next != left) {
                // Shared, but its turn comes later.
                i += 1;
                continue;
            }
        }
        if let Some(left) = ours.elements.get(i) {
            match theirs.places(left) {
                [] => {
                    out.push(old[i].clone());
                    i += 1;
                    continue;
                }
                [at, ..] if merged[*at] => i += 1,
                _ => {}
            }
        }
        if let Some(right) = theirs.elements.get(j) {
            merged[j] = true;
            out.extend(item(list, before(right), Some(&new[j]), right)?);
            j += 1;
            if next_shared == Some(right) {
                next_shared = shared.next();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Value::Array(out.into())))
}

fn item(
    list: &ListOf<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    element: &super::Element,
) -> Result<Option<Value>, String> {
    any(list.element, old, new).map_err(|error| format!("{element}{error}"))
}
