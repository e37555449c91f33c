//! The configuration of a MutatingAdmissionPolicy laid over an object: merged as server-side apply merges, but owned by
//! nobody (apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go).
use super::{merge::merge, types::TypeRef, validate::validate};
use crate::Value;

/// The errors are upstream's, behind "error applying patch: ".
pub fn lay_over(types: TypeRef<'_>, object: &Value, config: &Value) -> Result<Value, String> {
    validate(types, config, false)
        .map_err(|error| format!("failed to convert patch object to typed object: {error}"))?;
    let mut atomic = Vec::new();
    find_atomics(types, config, &mut String::new(), &mut atomic);
    if !atomic.is_empty() {
        let paths = atomic.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"));
    }
    validate(types, object, true)
        .map_err(|error| format!("failed to convert original object to typed object: {error}"))?;
    merge(types, object, config).map_err(|error| format!("failed to merge patch: {error}"))
}

/// What would be replaced whole; somebody who sets a part of it would lose the rest.
fn find_atomics(types: TypeRef<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let atom = types.resolve();
    let length = path.len();
    match (value, &atom.map, &atom.list) {
        (Value::Object(members), Some(map), _) => {
            if map.atomic {
                found.push(path.clone());
            }
            for (name, member) in members {
                if let Some(types) = map.field(name) {
                    path.push('.');
                    path.push_str(name);
                    find_atomics(types, member, path, found);
                    path.truncate(length);
                }
            }
        }
        (Value::Array(items), _, Some(list)) => {
            if list.is_atomic() {
                found.push(path.clone());
            }
            for (at, item) in items.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                find_atomics(list.element, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
