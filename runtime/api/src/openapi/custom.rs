//! Schemas of custom kinds, written from their definitions (apiextensions-apiserver/pkg/controller/openapi/builder and v2). Version
//! 3 shows a schema as it is; version 2 leaves out what its readers do not understand: alternatives, nulls, and what is
//! inside a place that takes anything.
use super::{
    Dialect, IDENTITY, METADATA,
    json::Json,
    schemas::{META, reference},
};
use mote_schema::{
    Kind, Ref,
    structural::{Additional, Schema},
};

/// Schemas inside schemas that are written.
const MAX_DEPTH: usize = 128;

/// "com.example.stable.v1.CronTab": the group's words turned around.
pub(super) fn definition(kind: &Kind, name: &str) -> String {
    let mut words: Vec<&str> = kind.group.split('.').collect();
    words.reverse();
    format!("{}.{}.{name}", words.join("."), kind.version)
}

/// All members of a kind's definition but what it is a definition of.
pub(super) fn write(dialect: Dialect, kind: &Kind, json: &mut Json) {
    let Some(schema) = kind.schema().filter(|schema| schema.place().is_map()) else {
        json.field("type", "object");
        return;
    };
    if dialect == Dialect::V2 && schema.preserves_unknown() {
        // A description of a part would make clients refuse the rest.
        json.field("type", "object");
        return;
    }
    Writer { dialect, json }.schema(schema, true, 0);
}

pub(super) fn write_selectable(kind: &Kind, json: &mut Json) {
    let Some(custom) = kind.custom.as_ref().filter(|custom| !custom.selectable.is_empty()) else { return };
    json.objects("x-kubernetes-selectable-fields", &custom.selectable, |json, path| {
        json.field("fieldPath", path);
    });
}

struct Writer<'j> {
    dialect: Dialect,
    json: &'j mut Json,
}

fn raw(place: Ref<'_>) -> String {
    let mut out = Vec::new();
    place.write_json(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

impl Writer<'_> {
    fn schema(&mut self, schema: Schema<'_>, is_root: bool, depth: usize) {
        if depth > MAX_DEPTH {
            return;
        }
        let v2 = self.dialect == Dialect::V2;
        let anything = v2 && (schema.is_nullable() || schema.preserves_unknown());
        let has_items = schema.items().is_some() && !anything;
        let is_object = is_root || schema.is_embedded() && !(v2 && schema.preserves_unknown());
        for (keyword, place) in schema.place().entries() {
            match keyword {
                "type" => {
                    let untyped = v2
                        && (schema.is_nullable()
                            || place.str() == "array" && !has_items
                            || place.str() == "object" && schema.preserves_unknown());
                    if !untyped {
                        self.json.field("type", place.str());
                    }
                }
                "properties" if anything || is_object => {}
                "properties" => self.properties(schema, false, depth),
                "items" if anything => {}
                "not" if v2 => {}
                "items" | "not" => self.inner(keyword, Schema::new(place), depth),
                "additionalProperties" => match schema.additional() {
                    Additional::Of(of) => self.inner(keyword, of, depth),
                    _ => drop(self.json.key(keyword).raw(&raw(place))),
                },
                "allOf" | "anyOf" | "oneOf" => self.alternatives(keyword, schema, depth),
                "nullable" | "default" if v2 => {}
                "required" => self.required(schema, place, is_object && !is_root),
                _ => drop(self.json.key(keyword).raw(&raw(place))),
            }
        }
        if schema.is_int_or_string() && !v2 && schema.place().get("anyOf").is_empty() && !has_first_any(schema) {
            self.json.key("anyOf").raw(INT_OR_STRING);
        }
        if is_object && !anything {
            self.properties(schema, true, depth);
            if !is_root && !schema.place().get("required").exists() {
                self.json.list("required", ["kind", "apiVersion"]);
            }
        }
    }

    fn inner(&mut self, keyword: &str, schema: Schema<'_>, depth: usize) {
        self.json.key(keyword).open(b'{');
        self.schema(schema, false, depth + 1);
        self.json.close(b'}');
    }

    /// `is_object`: apiVersion, kind and metadata are what they are everywhere.
    fn properties(&mut self, schema: Schema<'_>, is_object: bool, depth: usize) {
        let is_known = |name: &str| is_object && matches!(name, "apiVersion" | "kind" | "metadata");
        self.json.key("properties").open(b'{');
        if is_object {
            for (name, description) in IDENTITY {
                self.json.object(name, |json| {
                    json.field("type", "string").field("description", description);
                });
            }
            let reference = reference(self.dialect, &format!("{META}.ObjectMeta"));
            let dialect = self.dialect;
            self.json.object("metadata", |json| {
                json.field("description", METADATA);
                match dialect {
                    Dialect::V2 => drop(json.field("$ref", &reference)),
                    Dialect::V3 => json.objects("allOf", [reference], |json, reference| {
                        json.field("$ref", &reference);
                    }),
                }
            });
        }
        for (name, property) in schema.properties().filter(|(name, _)| !is_known(name)) {
            self.inner(name, property, depth);
        }
        self.json.close(b'}');
    }

    fn alternatives(&mut self, keyword: &str, schema: Schema<'_>, depth: usize) {
        if self.dialect == Dialect::V2 {
            return;
        }
        let unfolds = keyword == "allOf" && schema.is_int_or_string() && says_more(schema);
        self.json.key(keyword).open(b'[');
        if unfolds {
            self.json.raw(&format!("{{\"anyOf\":{INT_OR_STRING}}}"));
        }
        for of in schema.each(keyword) {
            self.json.open(b'{');
            self.schema(of, false, depth + 1);
            self.json.close(b'}');
        }
        self.json.close(b']');
    }

    /// Version 2 cannot say that a property is there and null.
    fn required(&mut self, schema: Schema<'_>, place: Ref<'_>, is_embedded: bool) {
        let v2 = self.dialect == Dialect::V2;
        let is_nullable = |name: &str| schema.property(name).is_some_and(Schema::is_nullable);
        let mut names: Vec<&str> = place.items().map(Ref::str).filter(|name| !(v2 && is_nullable(name))).collect();
        if matches!(schema.additional(), Additional::Of(of) if v2 && of.is_nullable()) {
            names.clear();
        }
        for name in ["kind", "apiVersion"] {
            if is_embedded && !names.contains(&name) {
                names.push(name);
            }
        }
        if !names.is_empty() {
            self.json.list("required", names);
        }
    }
}

const INT_OR_STRING: &str = r#"[{"type":"integer"},{"type":"string"}]"#;

/// Whether the first of allOf says already that this is an integer or a string.
fn has_first_any(schema: Schema<'_>) -> bool {
    schema.each("allOf").next().is_some_and(|first| raw(first.place().get("anyOf")) == INT_OR_STRING)
}

/// An int-or-string with alternatives of its own.
fn says_more(schema: Schema<'_>) -> bool {
    let any = schema.place().get("anyOf");
    !any.is_empty() && raw(any) != INT_OR_STRING && !has_first_any(schema)
}
