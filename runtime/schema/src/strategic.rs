//! Strategic merge patch: lists merge by the key the table names, directives (`$patch`, `$retainKeys`, `$setElementOrder/...`,
//! `$deleteFromPrimitiveList/...`) steer it. Behaviour and error texts are those of
//! staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go (with MergeParallelList and IgnoreUnmatchedNulls).
//!
//! The three-way merge is the client's. JSON patch and JSON merge patch live in `patch`.
use crate::Order as _;
use crate::{
    Kind, Status,
    table::{Field, Shape, Table, TypeId},
};
use crate::{Map, Name, Value};

type Members = Map;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

const BAD_ORDER: &str = "invalid patch format of setElementOrder list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_LIST: &str = "invalid patch format of primitive list";
const NO_NESTED_LISTS: &str = "lists of lists are not supported";
const NOT_JSON: &str = "invalid JSON document";
const UNSUPPORTED: &str = "strategic merge patch format is not supported";

/// Custom kinds have no strategic merge upstream.
pub fn apply(kind: &Kind, current: &mut Value, patch: &Value) -> Result<(), Status> {
    merge(kind, current, patch).map_err(|error| match error.as_str() {
        UNSUPPORTED | NOT_JSON | BAD_LIST | BAD_ORDER | BAD_RETAIN_KEYS => Status::bad_request(error),
        _ if error.starts_with("json: ") => Status::bad_request(error),
        // Upstream says no more of these.
        NO_NESTED_LISTS => {
            Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
        }
        _ => Status::new(500, "", error),
    })
}

fn merge(kind: &Kind, current: &mut Value, patch: &Value) -> Result<(), String> {
    if kind.is_custom() {
        return Err(UNSUPPORTED.into());
    }
    let patch = match patch {
        Value::Object(patch) => patch.clone(),
        Value::Null => Members::new(),
        other => {
            let found = crate::patch::go_type(other);
            return Err(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"));
        }
    };
    let Value::Object(original) = &mut *current else { return Err(NOT_JSON.into()) };
    let merger = Merger { table: kind.table() };
    let merged = merger.map(std::mem::take(original), patch, Some(kind.root))?;
    *current = Value::Object(merged);
    Ok(())
}

struct Merger<'t> {
    table: &'t Table,
}

impl<'t> Merger<'t> {
    fn field(&self, id: Option<TypeId>, name: &str) -> Option<&'t Field> {
        self.table.field(id?, name)
    }

    /// `id` is None inside what the table does not describe.
    fn map(&self, mut original: Members, mut patch: Members, id: Option<TypeId>) -> Result<Members, String> {
        if let Some(directive) = patch.remove(PATCH) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Members::new()),
                _ => {
                    patch.insert(PATCH.into(), directive.clone());
                    Err(bad_directive(&directive, &patch))
                }
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.set_orders(&mut original, &mut patch, id)?;
        for (key, value) in patch {
            let (name, is_delete_list) = match key.strip_prefix(DELETE_FROM) {
                Some(rest) => {
                    let name = rest.strip_prefix('/').ok_or(BAD_LIST)?;
                    (Name::from(name), true)
                }
                None => (key, false),
            };
            if value.is_null() {
                original.remove(&name);
                continue;
            }
            let field = self.field(id, &name);
            let merged = match (original.remove(&name), value) {
                (Some(Value::Object(old)), Value::Object(new)) => {
                    Some(Value::Object(if field.is_some_and(|f| f.patch_replace) {
                        new
                    } else {
                        self.map(old, new, inner(field))?
                    }))
                }
                (Some(Value::Array(old)), Value::Array(new)) => {
                    Some(Value::Array(if is_delete_list || field.is_some_and(|f| f.patch_merge) {
                        self.list(old.into(), new.into(), field, is_delete_list)?.0.into()
                    } else {
                        new
                    }))
                }
                (old, _) if is_delete_list => old,
                (_, mut new) => {
                    discard_nulls(&mut new);
                    without_directives(new)
                }
            };
            if let Some(merged) = merged {
                original.insert(name, merged);
            }
        }
        Ok(original)
    }

    /// The merged list and whether its elements are objects.
    fn list(
        &self,
        original: Vec<Value>,
        patch: Vec<Value>,
        field: Option<&Field>,
        is_delete_list: bool,
    ) -> Result<(Vec<Value>, bool), String> {
        let lists = || format!("list element types are not identical: [{} {}]", go_list(&original), go_list(&patch));
        let elements = original.iter().chain(&patch);
        let Some(is_map) = element_kind(elements).map_err(|error| error.unwrap_or_else(lists))? else {
            return Ok((original, false));
        };
        let key = field.map_or("", |f| self.table.merge_key(f));
        if !is_map {
            if is_delete_list {
                return Ok((original.into_iter().filter(|v| !patch.contains(v)).collect(), false));
            }
            let mut merged: Vec<Value> = Vec::new();
            for value in original.iter().chain(&patch) {
                if !merged.contains(value) {
                    merged.push(value.clone());
                }
            }
            return Ok((order(merged, &patch, &original, key), false));
        }
        if key.is_empty() {
            let name = inner(field).map_or("", |id| self.table.type_name(id));
            return Err(format!("cannot merge lists without merge key for {name}"));
        }
        let (original, patch) = special_elements(original, patch, key)?;
        let mut merged = original.clone();
        for element in &patch {
            let map = members(element)?;
            let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
            let found = merged.iter_mut().find(|m| m.get(key) == Some(value));
            match found {
                Some(Value::Object(old)) => {
                    let result = self.map(std::mem::take(old), map.clone(), inner(field))?;
                    *old = result;
                }
                _ => merged.push(element.clone()),
            }
        }
        for element in &merged {
            let map = members(element)?;
            if !map.contains_key(key) {
                return Err(no_merge_key(map, key));
            }
        }
        Ok((order(merged, &patch, &original, key), true))
    }

    /// `$setElementOrder/name`: the order of the patch, and what only the server has keeps its place between.
    fn set_orders(&self, original: &mut Members, patch: &mut Members, id: Option<TypeId>) -> Result<(), String> {
        let keys: Vec<Name> = patch.keys().filter(|k| k.starts_with(SET_ORDER)).cloned().collect();
        for key in keys {
            let wanted = match patch.remove(&key) {
                Some(Value::Array(list)) => list,
                other => return Err(bad_type("[]interface {}", other.as_ref())),
            };
            let name = key.strip_prefix(SET_ORDER).and_then(|k| k.strip_prefix('/')).ok_or(BAD_ORDER)?;
            let field = self.field(id, name);
            let key = field.map_or("", |f| self.table.merge_key(f));
            let old = take_list(original, name)?;
            let new = take_list(patch, name)?;
            if let Some(new) = &new {
                matches_order(new, &wanted, key)?;
            }
            let before = old.clone().unwrap_or_default();
            let merged = match (old, new) {
                (None, None) => continue,
                (Some(old), None) => old,
                (None, Some(new)) => match without_directives(Value::Array(new.into())) {
                    Some(Value::Array(list)) => list.into(),
                    _ => continue,
                },
                (Some(old), Some(new)) if field.is_some_and(|f| f.patch_merge) => self.list(old, new, field, false)?.0,
                (Some(_), Some(new)) => new,
            };
            if !key.is_empty() {
                for element in merged.iter().chain(&wanted) {
                    let map = members(element)?;
                    if !map.contains_key(key) {
                        return Err(no_merge_key(map, key));
                    }
                }
            }
            original.insert(name.into(), Value::Array(order(merged, &wanted, &before, key).into()));
        }
        Ok(())
    }
}

fn inner(field: Option<&Field>) -> Option<TypeId> {
    match field?.shape {
        Shape::Object(id) => Some(id),
        _ => None,
    }
}

/// All fields but those named go from the original.
fn retain_keys(original: &mut Members, patch: &mut Members) -> Result<(), String> {
    let keys = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(keys)) => keys,
        Some(_) => return Err(BAD_RETAIN_KEYS.into()),
    };
    let kept = |name: &str| keys.iter().any(|k| k.as_str() == Some(name));
    let plain = |k: &str| !k.starts_with(DELETE_FROM) && !k.starts_with(SET_ORDER);
    if patch.iter().any(|(k, v)| !v.is_null() && plain(k) && !kept(k)) {
        return Err(BAD_RETAIN_KEYS.into());
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

/// Deletes what `$patch: delete` elements name; with a `$patch: replace` element the rest of the patch is the list.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), String> {
    let (mut plain, mut replace) = (Vec::new(), false);
    for element in patch {
        let map = members(&element)?;
        match map.get(PATCH) {
            None => plain.push(element),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                    original.retain(|old| old.get(key) != Some(value));
                }
                Some("replace") => replace = true,
                Some("merge") => return Err("merging lists cannot yet be specified in the patch".into()),
                _ => return Err(bad_directive(directive, map)),
            },
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

/// What the patch names comes in its order; the rest keeps the server's, and where both are in the server's order, that decides.
fn order(merged: Vec<Value>, wanted: &[Value], server: &[Value], key: &str) -> Vec<Value> {
    let id = |v: &Value| if key.is_empty() { Some(v.clone()) } else { v.get(key).cloned() };
    let place = |list: &[Value], v: &Value| {
        let wanted = id(v);
        list.iter().position(|o| id(o) == wanted)
    };
    let (mut patch, mut rest): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|v| place(wanted, v).is_some());
    patch.order_by_key(|v| place(wanted, v));
    rest.order_by_key(|v| place(server, v).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(patch.len() + rest.len());
    let (mut rest, mut patch) = (rest.into_iter().peekable(), patch.into_iter().peekable());
    loop {
        let server_first = match (rest.peek(), patch.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => place(server, l).zip(place(server, r)).is_some_and(|(l, r)| l < r),
        };
        out.extend(if server_first { rest.next() } else { patch.next() });
    }
}

/// Elements of the patch that stay must come in the order the list of the directive gives.
fn matches_order(patch: &[Value], wanted: &[Value], key: &str) -> Result<(), String> {
    if wanted.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let id = |v: &Value| -> Result<Value, String> {
        if key.is_empty() {
            return Ok(v.clone());
        }
        let map = members(v)?;
        map.get(key).cloned().ok_or_else(|| no_merge_key(map, key))
    };
    let mut places = wanted.iter();
    for element in patch.iter().filter(|e| e.get(PATCH).is_none()) {
        let value = id(element)?;
        loop {
            match places.next() {
                Some(place) if id(place)? == value => break,
                Some(_) => {}
                None => {
                    let (patch, wanted) = (go_list(patch), go_list(wanted));
                    return Err(format!(
                        "The order in patch list:\n{patch}\n doesn't match {SET_ORDER} list:\n{wanted}\n"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn take_list(map: &mut Members, name: &str) -> Result<Option<Vec<Value>>, String> {
    match map.remove(name) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list.into())),
        Some(other) => Err(bad_type("[]interface {}", Some(&other))),
    }
}

/// Whether elements are objects; None for no elements. Lists of lists and mixed lists (no error of their own) are refused.
fn element_kind<'v>(elements: impl Iterator<Item = &'v Value>) -> Result<Option<bool>, Option<String>> {
    let mut kind = None;
    for element in elements {
        if element.is_array() {
            return Err(Some(NO_NESTED_LISTS.into()));
        }
        if *kind.get_or_insert(element.is_object()) != element.is_object() {
            return Err(None);
        }
    }
    Ok(kind)
}

fn members(value: &Value) -> Result<&Members, String> {
    value.as_object().ok_or_else(|| bad_type("map[string]interface {}", Some(value)))
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// What was to be merged into nothing: elements that carry a directive are not kept.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(PATCH) => return None,
        Value::Object(map) => {
            Value::Object(map.into_iter().filter_map(|(k, v)| Some((k, without_directives(v)?))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().filter_map(without_directives).collect()),
        other => other,
    })
}

fn no_merge_key(map: &Members, key: &str) -> String {
    format!("map: {} does not contain declared merge key: {key}", go_map(map))
}

fn bad_directive(directive: &Value, map: &Members) -> String {
    format!("unknown patch type: {} in map: {}", go(directive), go_map(map))
}

fn bad_type(wanted: &str, found: Option<&Value>) -> String {
    let found = match found {
        None | Some(Value::Null) => "%!s(<nil>)",
        Some(Value::Bool(_)) => "bool",
        Some(Value::Number(n)) if n.is_f64() => "float64",
        Some(Value::Number(_)) => "int64",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "[]interface {}",
        Some(Value::Object(_)) => "map[string]interface {}",
    };
    format!("expected a {wanted}, but received a {found}")
}

/// Whole numbers written as fractions, 1.0, which upstream's reader of trees takes for integers.
pub fn round(patch: &mut Value) {
    match patch {
        Value::Object(members) => members.values_mut().for_each(round),
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15);
            if let Some(float) = whole {
                *patch = Value::from(float as i64);
            }
        }
        _ => {}
    }
}

/// What upstream's reader of trees says where its reader of JSON says `error` (apimachinery/pkg/runtime/converter.go).
pub fn restored(error: &str) -> String {
    let told = error.strip_prefix("json: cannot unmarshal ").and_then(|rest| {
        let (found, wanted) = (rest.split_once(" into ")?.0, rest.rsplit_once(" of type ")?.1);
        Some((found, wanted))
    });
    let Some((found, wanted)) = told else {
        let prefix = if error.starts_with("illegal base64") { "error decoding from json: " } else { "" };
        return format!("{prefix}{error}");
    };
    let found = match found {
        "object" => "map",
        "array" => "slice",
        "string" | "bool" => found,
        number if number.contains('.') => "float64",
        _ => "int64",
    };
    match (found, wanted) {
        (_, list) if list.starts_with("[]") => format!("cannot restore slice from {found}"),
        (_, map) if map.starts_with("map[") => format!("cannot restore map from {found}"),
        (_, object) if object.contains('.') => format!("cannot restore struct from: {found}"),
        ("int64", "string") | ("float64", "int32" | "int64") => format!("cannot convert {found} to {wanted}"),
        _ => format!("unrecognized type: {wanted}"),
    }
}

/// As Go's %v prints a decoded JSON value.
pub fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.to_string(),
        Value::Array(list) => go_list(list),
        Value::Object(map) => go_map(map),
        plain => plain.to_string(),
    }
}

fn go_list(list: &[Value]) -> String {
    format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" "))
}

fn go_map(map: &Members) -> String {
    format!("map[{}]", map.iter().map(|(k, v)| format!("{k}:{}", go(v))).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;
    use crate::json;

    fn check(kind: &str, mut current: Value, patch: Value, want: Result<Value, &str>) {
        let catalog = Catalog::builtin();
        let kind = catalog.kinds.iter().find(|k| k.kind == kind).unwrap();
        let result = merge(kind, &mut current, &patch).map(|()| current);
        assert_eq!(result, want.map_err(String::from), "{patch}");
    }

    fn pod(containers: Value) -> Value {
        json!({"spec": {"containers": containers}})
    }

    #[test]
    fn lists_merge_by_key() {
        let old = pod(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]));
        check(
            "Pod",
            old.clone(),
            pod(json!([{"name": "b", "image": "2"}])),
            Ok(pod(
                json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "2"}]),
            )),
        );
        check(
            "Pod",
            old.clone(),
            pod(json!([{"name": "a", "env": [{"name": "Y"}]}])),
            Ok(pod(
                json!([{"name": "a", "image": "1", "env": [{"name": "Y"}, {"name": "X", "value": "1"}]}, {"name": "b"}]),
            )),
        );
        check(
            "Pod",
            old.clone(),
            pod(json!([{"name": "b", "$patch": "delete"}])),
            Ok(pod(json!([{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}]))),
        );
        check("Pod", old.clone(), pod(json!([{"$patch": "replace"}, {"name": "c"}])), Ok(pod(json!([{"name": "c"}]))));
        check(
            "Pod",
            old.clone(),
            pod(json!([{"image": "c"}])),
            Err("map: map[image:c] does not contain declared merge key: name"),
        );
        check(
            "Pod",
            old.clone(),
            pod(json!([{"name": "b", "$patch": "x"}])),
            Err("unknown patch type: x in map: map[$patch:x name:b]"),
        );
        check(
            "Pod",
            old,
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}],
            "containers": [{"name": "c"}, {"name": "b", "image": "2"}]}}),
            Ok(pod(json!([
            {"name": "c"}, {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "2"}]))),
        );
    }

    #[test]
    fn trees_are_refused_in_words_of_their_own() {
        for (error, want) in [
            (
                "json: cannot unmarshal number into Go struct field Scale.spec of type v1.ScaleSpec",
                "cannot restore struct from: int64",
            ),
            ("json: cannot unmarshal object into Go struct field A.b of type []v1.C", "cannot restore slice from map"),
            (
                "json: cannot unmarshal string into Go struct field A.b of type map[string]string",
                "cannot restore map from string",
            ),
            ("json: cannot unmarshal number into Go struct field A.b of type string", "cannot convert int64 to string"),
            (
                "json: cannot unmarshal number 1.5 into Go struct field A.b of type int32",
                "cannot convert float64 to int32",
            ),
            ("json: cannot unmarshal string into Go struct field A.b of type int32", "unrecognized type: int32"),
            ("parsing time \"x\"", "parsing time \"x\""),
            ("illegal base64 data at input byte 0", "error decoding from json: illegal base64 data at input byte 0"),
        ] {
            assert_eq!(restored(error), want);
        }
    }

    #[test]
    fn whole_numbers_are_integers() {
        let mut patch = json!({"spec": {"replicas": 2.0, "list": [1.5, -3.0, 1e300, 7]}});
        round(&mut patch);
        assert_eq!(patch, json!({"spec": {"replicas": 2, "list": [1.5, -3, 1e300, 7]}}));
    }

    #[test]
    fn atomic_lists_and_maps() {
        check(
            "Pod",
            pod(json!([{"name": "a", "command": ["x", "y"]}])),
            pod(json!([{"name": "a", "command": ["z"]}])),
            Ok(pod(json!([{"name": "a", "command": ["z"]}]))),
        );
        check(
            "Pod",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
            Ok(json!({"metadata": {"labels": {"b": "2", "c": "3"}}})),
        );
        check(
            "Pod",
            json!({}),
            json!({"spec": {"nodeName": null, "containers": [{"name": "a", "image": null}]}}),
            Ok(pod(json!([{"name": "a"}]))),
        );
    }

    #[test]
    fn primitive_lists() {
        let old = json!({"metadata": {"finalizers": ["a", "b"]}});
        check(
            "Pod",
            old.clone(),
            json!({"metadata": {"finalizers": ["c", "a"]}}),
            Ok(json!({"metadata": {"finalizers": ["c", "a", "b"]}})),
        );
        check(
            "Pod",
            old.clone(),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            Ok(json!({"metadata": {"finalizers": ["b"]}})),
        );
        check(
            "Pod",
            old.clone(),
            json!({"metadata": {"$setElementOrder/finalizers": ["b", "a"]}}),
            Ok(json!({"metadata": {"finalizers": ["b", "a"]}})),
        );
        check(
            "Pod",
            old,
            json!({"metadata": {"$setElementOrder/finalizers": "b"}}),
            Err("expected a []interface {}, but received a string"),
        );
    }

    #[test]
    fn retain_keys_drops_the_rest() {
        let old = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        check(
            "Deployment",
            old.clone(),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
            Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})),
        );
        check(
            "Deployment",
            old.clone(),
            json!({"spec": {"strategy": {"$retainKeys": ["x"], "type": "Recreate"}}}),
            Err("invalid patch format of retainKeys"),
        );
        check(
            "Deployment",
            old,
            json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}),
            Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})),
        );
    }
}
