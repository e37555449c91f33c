//! What a client sent, fitted to the schema: fields nobody described are dropped and told of, nulls that mean nothing go,
//! metadata (the object's own and that of embedded objects) is checked like any other (apiextensions-apiserver,
//! pkg/apiserver/schema/{pruning,defaulting,objectmeta}, schemaCoercingDecoder of customresource_handler.go).
use super::{Additional, MAX_DEPTH, Schema, join, metadata};
use crate::Order as _;
use crate::Value;

/// Fields an object has whether its schema names them or not.
pub(super) fn is_meta(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// Ok: what a strict client wants to hear. Err: why the object cannot be decoded.
pub(super) fn clean(schema: Schema<'_>, value: &mut Value) -> Result<Vec<String>, String> {
    let mut unknown = Vec::new();
    if let Some(map) = value.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        metadata::clean(map, "", &mut unknown)?;
    }
    let mut pruned = Vec::new();
    prune(value, Some(schema), true, "", &mut pruned, 0);
    pruned.order();
    unknown.append(&mut pruned);
    drop_nulls(value, Some(schema), 0);
    metadata::coerce(value, schema, "", false, &mut pruned)
        .map_err(|cause| format!("{}: {}", cause.field, cause.message))?;
    pruned.order();
    unknown.append(&mut pruned);
    Ok(unknown.into_iter().map(|path| format!("unknown field {path:?}")).collect())
}

/// Drops what `schema` does not describe and adds its path to `unknown`. `is_root`: apiVersion, kind and metadata stay.
pub(super) fn prune(
    value: &mut Value,
    schema: Option<Schema<'_>>,
    is_root: bool,
    path: &str,
    unknown: &mut Vec<String>,
    depth: usize,
) {
    let preserves = schema.is_some_and(Schema::preserves_unknown);
    let mut pruner = Pruner { unknown };
    pruner.value(value, schema, is_root, preserves, path, depth);
}

struct Pruner<'u> {
    unknown: &'u mut Vec<String>,
}

impl Pruner<'_> {
    /// `preserves`: what is not described here stays. A list hands this on to its elements; described members decide anew.
    fn value(
        &mut self,
        value: &mut Value,
        schema: Option<Schema<'_>>,
        is_root: bool,
        preserves: bool,
        path: &str,
        depth: usize,
    ) {
        if depth > MAX_DEPTH {
            return;
        }
        match value {
            Value::Object(map) => {
                let keeps_meta = is_root || schema.is_some_and(Schema::is_embedded);
                map.retain(|name, value| {
                    if keeps_meta && is_meta(name) {
                        return true;
                    }
                    match schema.and_then(|schema| described(schema, name)) {
                        Some(child) => {
                            if is_container(value) {
                                let preserves = child.is_some_and(Schema::preserves_unknown);
                                self.value(value, child, false, preserves, &join(path, name), depth + 1);
                            }
                            true
                        }
                        None if preserves => true,
                        None => {
                            self.unknown.push(join(path, name));
                            false
                        }
                    }
                });
            }
            Value::Array(list) => {
                let items = schema.and_then(Schema::items);
                if preserves && items.is_none() {
                    return;
                }
                let preserves = preserves || items.is_some_and(Schema::preserves_unknown);
                for (at, value) in list.iter_mut().enumerate().filter(|(_, value)| is_container(value)) {
                    self.value(value, items, false, preserves, &format!("{path}[{at}]"), depth + 1);
                }
            }
            _ => {}
        }
    }
}

fn is_container(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Some when a member of this name is described; what describes it, when that is a schema.
fn described<'a>(schema: Schema<'a>, name: &str) -> Option<Option<Schema<'a>>> {
    match (schema.property(name), schema.additional()) {
        (Some(property), _) => Some(Some(property)),
        (None, Additional::Of(schema)) => Some(Some(schema)),
        (None, Additional::Any | Additional::No) => Some(None),
        (None, Additional::Unset) => None,
    }
}

/// A null that is neither allowed nor replaced by a default is no value at all.
fn drop_nulls(value: &mut Value, schema: Option<Schema<'_>>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let child = schema.and_then(|schema| schema.child(name));
            if value.is_null() && child.is_some_and(|child| !child.is_nullable() && !child.default().exists()) {
                return false;
            }
            drop_nulls(value, child, depth + 1);
            true
        }),
        Value::Array(list) => {
            let items = schema.and_then(Schema::items);
            list.iter_mut().for_each(|value| drop_nulls(value, items, depth + 1));
        }
        _ => {}
    }
}
