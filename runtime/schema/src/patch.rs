//! JSON patch (RFC 6902) and merge patch (RFC 7386) over a decoded object. Strategic merge needs the field table and is
//! not here.
//!
//! Codes and messages as the patch handler of kube-apiserver gives them (apiserver/pkg/endpoints/handlers/patch.go).
use crate::Status;
use crate::tree::{Map, Value};

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

/// What reading a JSON patch complains of: members that no operation has. Err when one is no operation at all.
pub fn operations(patch: &Value) -> Result<Vec<String>, Status> {
    let refuse = |found: &Value, into: &str| {
        let found = go_type(found);
        Err(Status::bad_request(format!("error decoding patch: json: cannot unmarshal {found} into Go {into}")))
    };
    let operations: &[Value] = match patch {
        Value::Null => &[],
        Value::Array(operations) => operations,
        other => return refuse(other, "value of type []handlers.jsonPatchOp"),
    };
    let mut complaints = Vec::new();
    for (at, operation) in operations.iter().enumerate().filter(|(_, operation)| !operation.is_null()) {
        let Value::Object(members) = operation else { return refuse(operation, "value of type handlers.jsonPatchOp") };
        for (name, member) in members {
            match name.as_str() {
                name @ ("op" | "path" | "from") if !member.is_string() && !member.is_null() => {
                    return refuse(member, &format!("struct field jsonPatchOp.{name} of type string"));
                }
                "op" | "path" | "from" | "value" => {}
                name => complaints.push(format!("unknown field \"[{at}].{name}\"")),
            }
        }
    }
    Ok(complaints)
}

/// RFC 6902 as gopkg.in/evanphx/json-patch.v4 has it. `target` is spoiled when this fails.
pub fn json(target: &mut Value, patch: &Value) -> Result<(), Status> {
    operations(patch)?;
    let operations = patch.as_array().map_or(&[][..], Vec::as_slice);
    if operations.len() > MAX_OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    // What does not read as an operation (unknown op, no path) fails when upstream gets to it, like one
    // that does not apply; so does Mote.
    let mut copied = 0;
    for operation in operations {
        operate(target, operation, &mut copied).ok_or_else(does_not_apply)?;
    }
    Ok(())
}

fn operate(target: &mut Value, operation: &Value, copied: &mut usize) -> Option<()> {
    let path = operation["path"].as_str();
    let from = || operation["from"].as_str();
    // No value is null.
    let value = || operation["value"].clone();
    match operation["op"].as_str()? {
        "add" => add(target, path?, value()),
        "remove" => remove(target, path?).map(drop),
        "replace" if path?.is_empty() => {
            *target = Some(value()).filter(|value| value.is_object() || value.is_array())?;
            Some(())
        }
        // What is not in an object is put there.
        "replace" => match around(target, path?)? {
            (Value::Array(list), step) => {
                let at = index(&step, list.len()).filter(|at| *at < list.len())?;
                list[at] = value();
                Some(())
            }
            _ => add(target, path?, value()),
        },
        "move" => {
            let moved = remove(target, from()?)?;
            add(target, path?, moved)
        }
        "copy" => {
            let value = peek(target, from()?)?;
            *copied += text_len(&value);
            if *copied > MAX_COPIED_BYTES {
                return None;
            }
            add(target, path?, value)
        }
        "test" => {
            let found = if path?.is_empty() { target.clone() } else { peek(target, path?)? };
            (found == value()).then_some(())
        }
        _ => None,
    }
}

/// The container around a place, and the place's own step. Whatever stands before the first slash of a path is passed
/// over; the whole is no place.
fn around<'v>(target: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let mut steps = path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).peekable();
    let mut at = target;
    loop {
        let step = steps.next()?;
        let last = steps.peek().is_none();
        at = match at {
            Value::Object(_) | Value::Array(_) if last => return Some((at, step)),
            Value::Object(map) => map.get_mut(&step)?,
            Value::Array(list) => {
                let at = index(&step, list.len())?;
                list.get_mut(at)?
            }
            _ => return None,
        }
    }
}

/// A negative one counts from the end.
fn index(step: &str, len: usize) -> Option<usize> {
    let at: isize = step.parse().ok()?;
    usize::try_from(at).ok().or_else(|| len.checked_sub(at.unsigned_abs()))
}

/// What an object does not have is null.
fn peek(target: &mut Value, path: &str) -> Option<Value> {
    match around(target, path)? {
        (Value::Array(list), step) => list.get(index(&step, list.len())?).cloned(),
        (map, step) => Some(map.get(step.as_str()).cloned().unwrap_or_default()),
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    match around(target, path)? {
        (Value::Object(map), step) => drop(map.insert(step.into(), value)),
        (Value::Array(list), step) if step == "-" => list.push(value),
        (Value::Array(list), step) => {
            let at = index(&step, list.len() + 1).filter(|at| *at <= list.len())?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    match around(target, path)? {
        (Value::Object(map), step) => map.remove(&step),
        (Value::Array(list), step) => {
            let at = index(&step, list.len()).filter(|at| *at < list.len())?;
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

/// As Go's decoder names what it found.
pub fn go_type(value: &Value) -> &'static str {
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
        check(json!([5]), Err(400));
        check(json!([{"op": "add", "path": 5}]), Err(400));
        check(json!([null]), Err(422));
    }

    #[test]
    fn what_is_not_there_is_null_and_the_whole_is_no_place() {
        let same = json!({"a": {"b": [1, 2], "c": "x"}});
        check(Value::Null, Ok(same.clone()));
        check(json!([{"op": "test", "path": "/x"}, {"op": "test", "path": "/a/d", "value": null}]), Ok(same));
        check(json!([{"op": "test", "path": "/x/y", "value": null}]), Err(422));
        check(
            json!([{"op": "copy", "from": "/x", "path": "/y"}]),
            Ok(json!({"a": {"b": [1, 2], "c": "x"}, "y": null})),
        );
        check(json!([{"op": "move", "from": "/x", "path": "/y"}]), Err(422));
        check(json!([{"op": "add", "path": "/a"}]), Ok(json!({"a": null})));
        for op in ["add", "remove", "copy", "move"] {
            check(json!([{"op": op, "path": "", "from": "", "value": {}}]), Err(422));
        }
        check(json!([{"op": "replace", "path": "", "value": 5}]), Err(422));
        check(json!([{"op": "replace", "path": "", "value": {"z": 1}}]), Ok(json!({"z": 1})));
        check(
            json!([{"op": "remove", "path": "/a/b/-1"}, {"op": "add", "path": "/a/b/-1", "value": 3},
                {"op": "replace", "path": "/a/b/00", "value": 4}]),
            Ok(json!({"a": {"b": [4, 3], "c": "x"}})),
        );
        check(json!([{"op": "remove", "path": "/a/b/-3"}]), Err(422));
        let complaints = operations(&json!([{"op": "remove", "path": "/a", "odd": 1}]));
        assert_eq!(complaints.ok(), Some(vec!["unknown field \"[0].odd\"".to_owned()]));
    }

    #[test]
    fn a_patch_has_an_end() {
        let many = vec![json!({"op": "test", "path": "/a/c", "value": "x"}); MAX_OPERATIONS + 1];
        check(Value::Array(many.into()), Err(413));
    }

    #[test]
    fn copies_cannot_double_without_end() {
        let patch: Vec<Value> =
            (0..64).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/a/k{i}")})).collect();
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
