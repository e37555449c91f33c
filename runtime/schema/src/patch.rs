//! JSON patch (RFC 6902) and merge patch (RFC 7386) over a decoded object. Strategic merge needs the field table and is
//! not here.
//!
//! Codes and messages as the patch handler of kube-apiserver gives them (apiserver/pkg/endpoints/handlers/patch.go).
use crate::Status;
use crate::tree::{Map, Value, index, steps};

/// Operations in one JSON patch; upstream's figure.
pub const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of a patch may add, as JSON text; upstream's figure.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// RFC 7386: null removes, objects merge, all else replaces.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), Status> {
    if patch.is_null() {
        return Err(Status::bad_request("Invalid JSON Patch"));
    }
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_type(patch)
        )));
    };
    merge_members(target, patch);
    Ok(())
}

/// The recursion is as deep as the patch, which was read under a bound.
fn merge_members(target: &mut Value, patch: &Map) {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, change) in patch {
        match change {
            Value::Null => drop(members.remove(key)),
            Value::Object(change) => merge_members(members.entry(key).or_insert(Value::Null), change),
            other => drop(members.insert(key.clone(), other.clone())),
        }
    }
}

/// RFC 6902. `target` is spoiled when this fails.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), Status> {
    let Value::Array(operations) = patch else {
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
            go_type(patch)
        )));
    };
    if operations.len() > MAX_OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    // What does not read as an operation (unknown op, no path, no value) fails when upstream gets to it, like one
    // that does not apply; so does Mote.
    let mut copied = 0;
    for operation in operations {
        operate(target, operation, &mut copied).ok_or_else(does_not_apply)?;
    }
    Ok(())
}

fn operate(target: &mut Value, operation: &Value, copied: &mut usize) -> Option<()> {
    let path = place(operation, "path")?;
    let value = || operation.get("value").cloned();
    match operation["op"].as_str()? {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => match target.pointer_mut(path) {
            Some(place) => {
                *place = value()?;
                Some(())
            }
            // What is not there is put there.
            None => match around(target, path)? {
                (Value::Object(map), step) => {
                    map.insert(step.into(), value()?);
                    Some(())
                }
                _ => None,
            },
        },
        "move" => {
            let from = place(operation, "from")?;
            // Nothing moves into itself.
            if path.strip_prefix(from).is_some_and(|below| below.starts_with('/')) {
                return None;
            }
            let moved = remove(target, from)?;
            add(target, path, moved)
        }
        "copy" => {
            let value = target.pointer(place(operation, "from")?)?.clone();
            *copied += text_len(&value);
            if *copied > MAX_COPIED_BYTES {
                return None;
            }
            add(target, path, value)
        }
        "test" => (*target.pointer(path)? == value()?).then_some(()),
        _ => None,
    }
}

/// Whatever stands before the first slash of a path is passed over (github.com/evanphx/json-patch).
fn place<'o>(operation: &'o Value, field: &str) -> Option<&'o str> {
    let path = operation[field].as_str()?;
    Some(path.find('/').map_or(path, |at| &path[at..]))
}

/// The container around a place, and the place's own step.
fn around<'v>(target: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let (parent, _) = path.rsplit_once('/')?;
    let step = steps(path)?.last()?;
    Some((target.pointer_mut(parent)?, step))
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *target = value;
        return Some(());
    }
    match around(target, path)? {
        (Value::Object(map), step) => drop(map.insert(step.into(), value)),
        (Value::Array(list), step) if step == "-" => list.push(value),
        (Value::Array(list), step) => {
            let at = index(&step).filter(|at| *at <= list.len())?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    if path.is_empty() {
        return Some(target.take());
    }
    match around(target, path)? {
        (Value::Object(map), step) => map.remove(&step),
        (Value::Array(list), step) => {
            let at = index(&step).filter(|at| *at < list.len())?;
            Some(list.remove(at))
        }
        _ => None,
    }
}

/// Upstream says no more than this, whatever the operation was.
fn does_not_apply() -> Status {
    let message = "the server rejected our request due to an error in our request";
    Status { with_details: true, ..Status::new(422, "Invalid", message) }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// About as many bytes as its JSON takes.
fn text_len(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| text_len(item) + 1).sum::<usize>() + 2,
        Value::Object(members) => members.iter().map(|(name, item)| name.len() + text_len(item) + 4).sum::<usize>() + 2,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn check(patch: Value, expected: Result<Value, u16>) {
        let mut target = json!({"a": {"b": [1, 2], "c": "x"}});
        let result = super::json(&mut target, &patch).map(|()| target).map_err(|status| status.code);
        assert_eq!(result, expected, "{patch}");
    }

    #[test]
    fn operations_apply_in_order_or_not_at_all() {
        check(
            json!([{"op": "test", "path": "/a/c", "value": "x"}, {"op": "add", "path": "/a/b/-", "value": 3},
                {"op": "remove", "path": "/a/b/0"}, {"op": "move", "from": "/a/c", "path": "/d~1e"},
                {"op": "copy", "from": "/a/b", "path": "/f"}, {"op": "replace", "path": "/f/0", "value": null}]),
            Ok(json!({"a": {"b": [2, 3]}, "d/e": "x", "f": [null, 3]})),
        );
        check(json!([{"op": "test", "path": "/a/c", "value": "y"}]), Err(422));
        check(json!([{"op": "remove", "path": "/x"}]), Err(422));
        check(json!([{"op": "replace", "path": "/x/y", "value": 1}]), Err(422));
        check(json!([{"op": "replace", "path": "/a/b/7", "value": 1}]), Err(422));
        check(
            json!([{"op": "replace", "path": "/x", "value": 1}, {"op": "replace", "path": "odd/a", "value": 2}]),
            Ok(json!({"a": 2, "x": 1})),
        );
        check(json!([{"op": "add", "path": "/x/y", "value": 1}]), Err(422));
        check(json!([{"op": "jump", "path": "/x"}]), Err(422));
        check(json!({"op": "add"}), Err(400));
        let many = vec![json!({"op": "test", "path": "/a/c", "value": "x"}); MAX_OPERATIONS + 1];
        check(Value::Array(many.into()), Err(413));
    }

    #[test]
    fn copies_cannot_double_without_end() {
        let patch: Vec<Value> = (0..64).map(|i| json!({"op": "copy", "from": "", "path": format!("/k{i}")})).collect();
        check(Value::Array(patch.into()), Err(422));
    }

    #[test]
    fn merge_removes_nulls_and_replaces_lists() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut target, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]})).unwrap();
        assert_eq!(target, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
        assert_eq!(merge(&mut target, &json!([])).unwrap_err().code, 400);
    }
}
