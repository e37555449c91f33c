//! A schema's meaning in CEL: which type a value of it has and how large it may be (apiserver/pkg/cel/common/schemas.go).
//! Custom resources' schemas implement `Schema`; whoever has another form of schema may as well.
use crate::{
    budget::MAX_REQUEST_SIZE_BYTES,
    escape::escape,
    types::{Field, Fields, ListKind, ListType, Slot, Type},
};
use mote_schema::Value as Json;
use std::sync::Arc;

/// Of a structural schema, the parts that matter here.
pub trait Schema {
    /// "object", "array", "string", "integer", "number", "boolean" or "".
    fn kind(&self) -> &str;
    fn format(&self) -> &str;
    fn items(&self) -> Option<&dyn Schema>;
    /// The schema of `additionalProperties`; None when there is none or it is only `true`.
    fn additional_properties(&self) -> Option<&dyn Schema>;
    fn properties(&self) -> Vec<(&str, &dyn Schema)>;
    fn is_required(&self, property: &str) -> bool;
    fn has_default(&self) -> bool;
    /// The values of `enum`.
    fn values(&self) -> &[Json];
    fn max_items(&self) -> Option<i64>;
    fn max_properties(&self) -> Option<i64>;
    fn max_length(&self) -> Option<i64>;
    fn is_int_or_string(&self) -> bool;
    fn is_embedded_resource(&self) -> bool;
    fn list_kind(&self) -> ListKind;
}

/// The least that values take as JSON.
const MIN_STRING: u64 = 2;
const MIN_BOOL: u64 = 4;
const MIN_NUMBER: u64 = 1;
const MIN_DURATION: u64 = 3;
const MIN_DATE_TIME: u64 = 21;
const DATE: u64 = 12;
/// The most that these formats take.
const MAX_DURATION: u64 = 32;
const MAX_DATE_TIME: u64 = 32;
const MAX_STRING: u64 = MAX_REQUEST_SIZE_BYTES - 2;

/// How deep schemas are followed; an API server bounds their nesting before.
const MAX_DEPTH: usize = 100;

/// The type, and how often values of it fit into a request at most (its cardinality, for the cost of rules). None: values of
/// this schema cannot be seen by expressions. `is_resource`: apiVersion, kind and metadata's names are there in any case.
pub fn declare(schema: &dyn Schema, name: &str, is_resource: bool) -> Option<(Slot, u64)> {
    let (slot, smallest) = slot(schema, name, is_resource, 0)?;
    Some((slot, MAX_REQUEST_SIZE_BYTES / (smallest + 1)))
}

fn bound(limit: Option<i64>) -> Option<u64> {
    limit.map(|limit| u64::try_from(limit).unwrap_or(0))
}

/// With the size of the smallest value.
fn slot(schema: &dyn Schema, name: &str, is_resource: bool, depth: usize) -> Option<(Slot, u64)> {
    if depth > MAX_DEPTH {
        return None;
    }
    // Lengths are in characters, requests in bytes.
    let characters = || bound(schema.max_length()).map(|length| length.saturating_mul(4));
    if schema.is_int_or_string() {
        return Some((Slot::new(Type::Dyn, characters().unwrap_or(MAX_STRING)), 1));
    }
    let inner = |schema: &dyn Schema, step: &str| {
        slot(schema, &format!("{name}.{step}"), schema.is_embedded_resource(), depth + 1)
    };
    Some(match schema.kind() {
        "array" => {
            let (item, smallest) = inner(schema.items()?, "@idx")?;
            let most = bound(schema.max_items()).unwrap_or(MAX_STRING / (smallest + 1));
            (Slot::new(Type::List(Arc::new(ListType { item, kind: schema.list_kind() })), most), MIN_STRING)
        }
        "object" => match schema.additional_properties() {
            Some(values) if !is_resource => {
                let (value, smallest) = inner(values, "@elem")?;
                let most = bound(schema.max_properties()).unwrap_or(MAX_STRING / (smallest + 6));
                (Slot::new(Type::map(Slot::new(Type::String, 0), value), most), MIN_STRING)
            }
            _ => {
                let mut smallest = 2;
                let mut fields: Vec<(String, Slot)> = Vec::new();
                for (property, part) in schema.properties() {
                    let Some((slot, size)) = inner(part, property) else { continue };
                    if schema.is_required(property) && !part.has_default() {
                        smallest += property.len() as u64 + size + 4;
                    }
                    if escape(property).is_some() {
                        fields.push((property.to_owned(), slot));
                    }
                }
                if is_resource {
                    add_object_meta(name, &mut fields);
                }
                (Slot::new(Type::object(Fields::new(name, fields)), 0), smallest)
            }
        },
        "string" => match schema.format() {
            "byte" => {
                let most = bound(schema.max_length()).unwrap_or(MAX_STRING);
                (Slot::new(Type::Bytes, most), MIN_STRING)
            }
            "duration" => (Slot::new(Type::Duration, MAX_DURATION), MIN_DURATION),
            "date" => (Slot::new(Type::Timestamp, DATE), DATE),
            "date-time" => (Slot::new(Type::Timestamp, MAX_DATE_TIME), MIN_DATE_TIME),
            _ => {
                let longest = |values: &[Json]| values.iter().filter_map(|v| v.as_str()).map(|v| v.len() as u64).max();
                let listed = || (!schema.values().is_empty()).then(|| longest(schema.values()).unwrap_or(0));
                (Slot::new(Type::String, characters().or_else(listed).unwrap_or(MAX_STRING)), MIN_STRING)
            }
        },
        "boolean" => (Slot::new(Type::Bool, 0), MIN_BOOL),
        "number" => (Slot::new(Type::Double, 0), MIN_NUMBER),
        "integer" => (Slot::new(Type::Int, 0), MIN_NUMBER),
        _ => return None,
    })
}

/// What every resource has, whatever its schema says of metadata.
fn add_object_meta(name: &str, fields: &mut Vec<(String, Slot)>) {
    let text = || Slot::new(Type::String, MAX_STRING);
    for known in ["apiVersion", "kind"] {
        fields.retain(|(field, _)| field != known);
        fields.push((known.into(), text()));
    }
    let mut meta: Vec<(String, Slot)> = vec![("name".into(), text()), ("generateName".into(), text())];
    if let Some(at) = fields.iter().position(|(field, _)| field == "metadata") {
        let (_, declared) = fields.swap_remove(at);
        if let Type::Object(object) = &declared.ty {
            for (property, slot) in &mut meta {
                if let Some(Field { slot: own, .. }) = object.property(property) {
                    *slot = own;
                }
            }
        }
    }
    let meta = Fields::new(&format!("{name}.metadata"), meta);
    fields.push(("metadata".into(), Slot::new(Type::object(meta), 0)));
}
