//! Defaults of a schema (apiextensions-apiserver, pkg/apiserver/schema/defaulting/algorithm.go).
use super::{Additional, MAX_DEPTH, Schema};
use crate::Value;

/// Fills in what is absent.
pub fn apply(schema: Schema<'_>, value: &mut Value) {
    walk(schema, value, 0);
}

fn walk(schema: Schema<'_>, value: &mut Value, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in schema.properties() {
                let default = property.default();
                if default.exists() && map.get(name).is_none_or(|value| value.is_null() && !property.is_nullable()) {
                    map.insert(name.into(), default.to_value());
                }
            }
            let additional = schema.additional();
            for (name, value) in map.iter_mut() {
                if let Some(property) = schema.property(name) {
                    walk(property, value, depth + 1);
                } else if let Additional::Of(of) = additional {
                    element(of, value, depth);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.items() {
                list.iter_mut().for_each(|value| element(items, value, depth));
            }
        }
        _ => {}
    }
}

fn element(schema: Schema<'_>, value: &mut Value, depth: usize) {
    if value.is_null() && !schema.is_nullable() {
        *value = schema.default().to_value();
    }
    walk(schema, value, depth + 1);
}
