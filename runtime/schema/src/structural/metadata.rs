//! apiVersion, kind and metadata: the object's own, and those of objects embedded in it
//! (apiextensions-apiserver/pkg/apiserver/schema/objectmeta).
use super::{MAX_DEPTH, Schema, join};
use crate::{
    Cause, check, prune,
    table::{BUILTIN, TypeId},
    validate,
};
use crate::{Map, Value};
use std::sync::OnceLock;

fn object_meta() -> TypeId {
    static ID: OnceLock<TypeId> = OnceLock::new();
    let find = || BUILTIN.type_by_definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap_or(TypeId::MAX);
    *ID.get_or_init(find)
}

/// Checks the types of `metadata` in `map` and drops what it does not know, whose paths go to `unknown`.
pub(super) fn clean(map: &mut Map, path: &str, unknown: &mut Vec<String>) -> Result<(), String> {
    let metadata = match map.get_mut("metadata") {
        None => return Ok(()),
        Some(Value::Null) => {
            map.remove("metadata");
            return Ok(());
        }
        Some(Value::Object(metadata)) => metadata,
        Some(other) => {
            let found = crate::patch::go_type(other);
            return Err(format!("json: cannot unmarshal {found} into Go value of type v1.ObjectMeta"));
        }
    };
    let prefix = join(path, "metadata");
    for complaint in prune::clean_type(BUILTIN, object_meta(), metadata)? {
        let name = complaint.trim_start_matches("unknown field ").trim_matches('"');
        unknown.push(join(&prefix, name));
    }
    Ok(())
}

/// The same for objects embedded in `value`. `drops`: what is malformed goes instead of failing.
pub(super) fn coerce(
    value: &mut Value,
    schema: Schema<'_>,
    path: &str,
    drops: bool,
    unknown: &mut Vec<String>,
) -> Result<(), Cause> {
    walk(value, schema, path, drops, unknown, 0)
}

fn walk(
    value: &mut Value,
    schema: Schema<'_>,
    path: &str,
    drops: bool,
    unknown: &mut Vec<String>,
    depth: usize,
) -> Result<(), Cause> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    match value {
        Value::Object(map) => {
            if schema.is_embedded() {
                for name in ["apiVersion", "kind"] {
                    match map.get(name) {
                        None | Some(Value::String(_)) => {}
                        Some(_) if drops => drop(map.remove(name)),
                        Some(value) => {
                            return Err(Cause::invalid(join(path, name), value, "must be a string"));
                        }
                    }
                }
                let before = map.get("metadata").cloned().unwrap_or_default();
                if let Err(error) = clean(map, path, unknown)
                    && !drops
                {
                    return Err(Cause::invalid(join(path, "metadata"), &before, &error));
                }
            }
            for (name, value) in map.iter_mut().filter(|(_, value)| value.is_object() || value.is_array()) {
                if let Some(property) = schema.property(name) {
                    walk(value, property, &join(path, name), drops, unknown, depth + 1)?;
                } else if let Some(child) = schema.child(name) {
                    walk(value, child, &format!("{path}[{name}]"), drops, unknown, depth + 1)?;
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else { return Ok(()) };
            for (at, value) in list.iter_mut().enumerate() {
                walk(value, items, &format!("{path}[{at}]"), drops, unknown, depth + 1)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Mistakes in embedded objects.
pub(super) fn check(schema: Schema<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    look(schema, value, path, causes, 0);
}

fn look(schema: Schema<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => {
            if schema.is_embedded() {
                embedded(map, path, causes);
            }
            for (name, value) in map.iter().filter(|(_, value)| value.is_object() || value.is_array()) {
                if let Some(property) = schema.property(name) {
                    look(property, value, &join(path, name), causes, depth + 1);
                } else if let Some(child) = schema.child(name) {
                    look(child, value, &format!("{path}[{name}]"), causes, depth + 1);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items() else { return };
            for (at, value) in list.iter().enumerate() {
                look(items, value, &format!("{path}[{at}]"), causes, depth + 1);
            }
        }
        _ => {}
    }
}

pub(super) fn embedded(map: &Map, path: &str, causes: &mut Vec<Cause>) {
    let (version, kind) = (join(path, "apiVersion"), join(path, "kind"));
    match map.get("apiVersion") {
        None => causes.push(Cause::required(version, "")),
        Some(Value::String(text)) if text.is_empty() => {
            causes.push(Cause::invalid(version, &"".into(), "must not be empty"));
        }
        Some(Value::String(text)) if text.matches('/').count() > 1 => {
            let detail = format!("unexpected GroupVersion string: {text}");
            causes.push(Cause::invalid(version, &text.as_str().into(), &detail));
        }
        Some(Value::String(_)) => {}
        Some(other) => causes.push(Cause::invalid(version, other, "must be a string")),
    }
    match map.get("kind") {
        None => causes.push(Cause::required(kind, "")),
        Some(Value::String(text)) if text.is_empty() => {
            causes.push(Cause::invalid(kind, &"".into(), "must not be empty"));
        }
        Some(Value::String(text)) => {
            let wrong = validate::dns1035_label(&text.to_lowercase());
            if !wrong.is_empty() {
                let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                causes.push(Cause::invalid(kind, &text.as_str().into(), &detail));
            }
        }
        Some(other) => causes.push(Cause::invalid(kind, other, "must be a string")),
    }
    if let Some(metadata) = map.get("metadata").filter(|metadata| metadata.is_object()) {
        causes.extend(check::embedded_metadata(metadata, &join(path, "metadata")));
    }
}
