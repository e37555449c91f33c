//! JSON patch (RFC 6902) and merge patch (RFC 7386) over a decoded object. Strategic merge needs the field table and is
//! not here.
//!
//! Codes and messages as the patch handler of kube-apiserver gives them (apiserver/pkg/endpoints/handlers/patch.go).
use crate::Status;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::Value;

/// Operations in one JSON patch; upstream's figure.
pub const MAX_OPERATIONS: usize = 10_000;
/// What all `copy` operations of a patch may add, as JSON text; upstream's figure.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// RFC 7386: null removes, objects merge, all else replaces.
pub fn merge(target: &mut Value, patch: &Value) -> Result<(), Status> {
    if patch.is_null() {
        return Err(Status::bad_request("Invalid JSON Patch"));
    }
    if !patch.is_object() {
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_type(patch)
        )));
    }
    json_patch::merge(target, patch);
    Ok(())
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
    let mut patch = patch.clone();
    patch.as_array_mut().into_iter().flatten().for_each(as_upstream_reads_it);
    let patch: Patch = serde_json::from_value(patch).map_err(|_| does_not_apply())?;
    let mut copied = 0;
    for operation in &patch.0 {
        let set;
        let operation = match operation {
            // What is not there is put there.
            PatchOperation::Replace(replace) if is_missing_member(target, replace.path.as_str()) => {
                set = PatchOperation::Add(AddOperation { path: replace.path.clone(), value: replace.value.clone() });
                &set
            }
            other => other,
        };
        if let PatchOperation::Copy(copy) = operation {
            copied += copy.from.resolve(target).map_or(0, text_len);
            if copied > MAX_COPIED_BYTES {
                return Err(does_not_apply());
            }
        }
        json_patch::patch_unsafe(target, std::slice::from_ref(operation)).map_err(|_| does_not_apply())?;
    }
    Ok(())
}

/// Whatever stands before the first slash of a path is passed over (github.com/evanphx/json-patch).
fn as_upstream_reads_it(operation: &mut Value) {
    for field in ["path", "from"] {
        if let Some(Value::String(path)) = operation.get_mut(field)
            && let Some(at) = path.find('/')
        {
            path.drain(..at);
        }
    }
}

/// Whether the path leads to an object that has no member of that name.
fn is_missing_member(target: &Value, path: &str) -> bool {
    let parent = path.rsplit_once('/').and_then(|(parent, _)| target.pointer(parent));
    parent.is_some_and(Value::is_object) && target.pointer(path).is_none()
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
    use serde_json::json;

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
        check(Value::Array(many), Err(413));
    }

    #[test]
    fn copies_cannot_double_without_end() {
        let patch: Vec<Value> = (0..64).map(|i| json!({"op": "copy", "from": "", "path": format!("/k{i}")})).collect();
        check(Value::Array(patch), Err(422));
    }

    #[test]
    fn merge_removes_nulls_and_replaces_lists() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        merge(&mut target, &json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]})).unwrap();
        assert_eq!(target, json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]}));
        assert_eq!(merge(&mut target, &json!([])).unwrap_err().code, 400);
    }
}
