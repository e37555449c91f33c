//! Which keywords a schema may use, and which of them together (ValidateCustomResourceDefinitionOpenAPISchema of
//! apiextensions-apiserver/pkg/apis/apiextensions/validation). Rules are only looked at, not compiled: that takes CEL.
use super::{Additional, MAX_DEPTH, Schema, path::follow, prune::is_meta};
use crate::Cause;
use crate::Value;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// What was stored before a rule existed stays valid: what of it the old definition already breaks.
#[derive(Clone, Copy, Default)]
pub(super) struct Tolerated {
    pub types: bool,
    pub sets: bool,
    pub map_keys: bool,
}

/// Where a schema stands.
#[derive(Clone, Copy)]
struct Place {
    is_root: bool,
    /// Inside apiVersion, kind or metadata of an object.
    in_meta: bool,
    /// Why there may be no default: "" when there may.
    no_default: &'static str,
    depth: usize,
}

pub(super) fn check(schema: Schema<'_>, path: &str, tolerated: Tolerated, causes: &mut Vec<Cause>) {
    let mut checker = Checker { tolerated, causes };
    checker.schema(schema, path, Place { is_root: true, in_meta: false, no_default: "", depth: 0 });
}

struct Checker<'c> {
    tolerated: Tolerated,
    causes: &'c mut Vec<Cause>,
}

impl Checker<'_> {
    fn forbidden(&mut self, path: &str, keyword: &str, detail: &str) {
        self.causes.push(Cause::forbidden(format!("{path}.{keyword}"), detail));
    }
    fn required(&mut self, path: &str, keyword: &str, detail: &str) {
        self.causes.push(Cause::required(format!("{path}.{keyword}"), detail));
    }
    fn invalid(&mut self, path: &str, keyword: &str, value: &Value, detail: &str) {
        self.causes.push(Cause::invalid(format!("{path}.{keyword}"), value, detail));
    }

    fn schema(&mut self, schema: Schema<'_>, path: &str, place: Place) {
        if place.depth > MAX_DEPTH {
            return;
        }
        self.standard(schema, path, place);
        if schema.place().get("uniqueItems").is_true() {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbidden(path, "uniqueItems", detail);
        }
        self.children(schema, path, place);
        if schema.place().get("x-kubernetes-preserve-unknown-fields").as_bool() == Some(false) {
            self.invalid(path, "x-kubernetes-preserve-unknown-fields", &false.into(), "must be true or undefined");
        }
        self.map_type(schema, path);
        self.list_type(schema, path);
        if !self.tolerated.map_keys {
            self.causes.extend(list_elements(schema, path));
        }
        for (at, rule) in schema.rules().enumerate() {
            self.rule(schema, rule, &format!("{path}.x-kubernetes-validations[{at}]"));
        }
    }

    /// specStandardValidatorV3
    fn standard(&mut self, schema: Schema<'_>, path: &str, place: Place) {
        let name = schema.type_name();
        if !self.tolerated.types && !name.is_empty() && !TYPES.contains(&name) {
            self.causes.push(Cause::not_supported(format!("{path}.type"), &name.into(), &TYPES));
        }
        if schema.default().exists() && !place.no_default.is_empty() {
            self.forbidden(path, "default", &format!("must not be set {}", place.no_default));
        }
        for keyword in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            let given = schema.place().get(keyword);
            if given.exists() && !given.is_null() && (given.is_map() || !given.is_empty()) {
                self.forbidden(path, keyword, &format!("{keyword} is not supported"));
            }
        }
        if name == "null" {
            self.forbidden(path, "type", "type cannot be set to null, use nullable as an alternative");
        }
        if schema.place().get("items").is_list() {
            self.forbidden(path, "items", "items must be a schema object and not an array");
        }
        if place.in_meta && schema.is_embedded() {
            self.forbidden(path, "x-kubernetes-embedded-resource", "must not be used inside of resource meta");
        }
    }

    fn children(&mut self, schema: Schema<'_>, path: &str, place: Place) {
        let below = Place { is_root: false, depth: place.depth + 1, ..place };
        let additional = schema.additional();
        if schema.has_properties() && matches!(additional, Additional::No | Additional::Of(_)) {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.forbidden(path, "additionalProperties", detail);
        }
        if let Additional::Of(of) = additional {
            let no_default = match place.in_meta {
                true => "inside additionalProperties applying to object metadata",
                false => place.no_default,
            };
            self.schema(of, &format!("{path}.additionalProperties"), Place { no_default, ..below });
        }
        for (name, property) in schema.properties() {
            let mut below = below;
            if (place.is_root || schema.is_embedded()) && is_meta(name) {
                below.in_meta = true;
                if place.is_root {
                    below.no_default = match name {
                        "metadata" => "in top-level metadata",
                        "kind" => "in top-level kind",
                        _ => "in top-level apiVersion",
                    };
                }
            }
            self.schema(property, &format!("{path}.properties[{name}]"), below);
        }
        if let Some(not) = schema.negated() {
            self.schema(not, &format!("{path}.not"), below);
        }
        for keyword in ["allOf", "oneOf", "anyOf"] {
            for (at, of) in schema.each(keyword).enumerate() {
                self.schema(of, &format!("{path}.{keyword}[{at}]"), below);
            }
        }
        if let Some(items) = schema.items() {
            self.schema(items, &format!("{path}.items"), below);
        }
    }

    fn map_type(&mut self, schema: Schema<'_>, path: &str) {
        let map_type = schema.place().get("x-kubernetes-map-type");
        let Some(text) = map_type.as_str() else { return };
        self.must_be(schema, path, "object", "must be object if x-kubernetes-map-type is specified");
        if !matches!(text, "atomic" | "granular") {
            let at = format!("{path}.x-kubernetes-map-type");
            self.causes.push(Cause::not_supported(at, &text.into(), &["atomic", "granular"]));
        }
    }

    fn must_be(&mut self, schema: Schema<'_>, path: &str, wanted: &str, detail: &str) -> bool {
        match schema.type_name() {
            name if name == wanted => return true,
            "" => self.required(path, "type", detail),
            other => self.invalid(path, "type", &other.into(), detail),
        }
        false
    }

    fn list_type(&mut self, schema: Schema<'_>, path: &str) {
        let list_type = schema.place().get("x-kubernetes-list-type").as_str();
        let (items, keys) = (schema.items(), schema.place().get("x-kubernetes-list-map-keys"));
        if let Some(list_type) = list_type {
            let is_array = self.must_be(schema, path, "array", "must be array if x-kubernetes-list-type is specified");
            if is_array && list_type == "set" && !self.tolerated.sets {
                let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
                let shown = |text: &str| Value::from(if text.is_empty() { "null" } else { text });
                let inner = items.map_or("", |items| items.place().get("x-kubernetes-list-type").str());
                match items.filter(|items| !is_atomic(*items)).map_or("", Schema::type_name) {
                    "array" => self.invalid(path, "items.x-kubernetes-list-type", &shown(inner), detail),
                    "object" => self.invalid(path, "items.x-kubernetes-map-type", &shown(inner), detail),
                    _ => {}
                }
            }
            if !matches!(list_type, "atomic" | "set" | "map") {
                let at = format!("{path}.x-kubernetes-list-type");
                self.causes.push(Cause::not_supported(at, &list_type.into(), &["atomic", "set", "map"]));
            }
        }
        if !keys.is_empty() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            match list_type {
                None => self.required(path, "x-kubernetes-list-type", detail),
                Some("map") => {}
                Some(other) => self.invalid(path, "x-kubernetes-list-type", &other.into(), detail),
            }
        }
        if list_type != Some("map") {
            return;
        }
        if keys.is_empty() {
            let detail = "must not be empty if x-kubernetes-list-type is map";
            self.required(path, "x-kubernetes-list-map-keys", detail);
        }
        let Some(items) = items else {
            return self.required(path, "items", "must have a schema if x-kubernetes-list-type is map");
        };
        if items.type_name() != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            return self.invalid(path, "items.type", &items.type_name().into(), detail);
        }
        let all = keys.to_value();
        for (at, name) in schema.list_keys().enumerate() {
            match items.property(name) {
                None => {
                    let detail = "entries must all be names of item properties";
                    self.invalid(path, "x-kubernetes-list-map-keys", &all, detail);
                }
                Some(key) if matches!(key.type_name(), "array" | "object") => {
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    let at = format!("items.properties[{name}].type");
                    self.invalid(path, &at, &items.type_name().into(), detail);
                }
                Some(_) => {}
            }
            if schema.list_keys().take(at).any(|earlier| earlier == name) {
                self.invalid(path, "x-kubernetes-list-map-keys", &all, "must not contain duplicate entries");
            }
        }
    }

    fn rule(&mut self, schema: Schema<'_>, rule: crate::Ref<'_>, path: &str) {
        let text = |name: &str| rule.get(name).str();
        let has_lines = |text: &str| text.contains(['\n', '\r']);
        let (code, message) = (text("rule").trim(), text("message").trim());
        if code.is_empty() {
            self.required(path, "rule", "rule is not specified");
        } else if !text("message").is_empty() && message.is_empty() {
            self.invalid(path, "message", &text("message").into(), "must be non-empty if specified");
        } else if has_lines(message) {
            self.invalid(path, "message", &text("message").into(), "must not contain line breaks");
        } else if has_lines(code) && message.is_empty() {
            self.required(path, "message", "message must be specified if rule contains line breaks");
        }
        if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
            self.required(path, "messageExpression", "messageExpression must be non-empty if specified");
        }
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if let Some(reason) = rule.get("reason").as_str().filter(|reason| !REASONS.contains(reason)) {
            self.causes.push(Cause::not_supported(format!("{path}.reason"), &reason.into(), &REASONS));
        }
        let field_path = text("fieldPath");
        if !field_path.is_empty() {
            if field_path.trim().is_empty() {
                self.invalid(path, "fieldPath", &field_path.into(), "must be non-empty if specified");
            }
            if has_lines(field_path) {
                self.invalid(path, "fieldPath", &field_path.into(), "must not contain line breaks");
            }
            if follow(field_path, schema, true).is_err() {
                self.invalid(path, "fieldPath", &field_path.into(), "must be a valid path");
            }
        }
    }
}

/// Whether elements of a set may be of this schema.
fn is_atomic(items: Schema<'_>) -> bool {
    match items.type_name() {
        "array" => matches!(items.place().get("x-kubernetes-list-type").str(), "" | "atomic"),
        "object" => items.is_atomic_map(),
        _ => true,
    }
}

/// Elements and keys of sets and maps are always there (validateMapListKeysMapSet).
fn list_elements(schema: Schema<'_>, path: &str) -> Vec<Cause> {
    let list_type = schema.place().get("x-kubernetes-list-type").str();
    let mut causes = Vec::new();
    let Some(items) = schema.items().filter(|_| matches!(list_type, "set" | "map")) else { return causes };
    if items.is_nullable() {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        causes.push(Cause::forbidden(format!("{path}.items.nullable"), &detail));
    }
    if list_type != "map" {
        return causes;
    }
    for name in schema.list_keys() {
        let Some(key) = items.property(name) else { continue };
        let at = format!("{path}.items.properties[{name}]");
        let is_required = items.place().get("required").items().any(|required| required.str() == name);
        if !is_required && !key.default().exists() {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            causes.push(Cause::required(format!("{at}.default"), detail));
        }
        if key.is_nullable() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            causes.push(Cause::forbidden(format!("{at}.nullable"), detail));
        }
    }
    causes
}

/// What an old definition's schemas already break.
pub(super) fn tolerated(schema: Schema<'_>) -> Tolerated {
    let mut found = Tolerated::default();
    visit(schema, 0, &mut |schema| {
        let name = schema.type_name();
        found.types |= !name.is_empty() && !TYPES.contains(&name);
        let is_set = schema.place().get("x-kubernetes-list-type").str() == "set";
        found.sets |= is_set && schema.items().is_some_and(|items| !is_atomic(items));
        found.map_keys |= !list_elements(schema, "").is_empty();
    });
    found
}

/// This schema and all inside it.
pub(super) fn visit<'a>(schema: Schema<'a>, depth: usize, see: &mut dyn FnMut(Schema<'a>)) {
    if depth > MAX_DEPTH {
        return;
    }
    see(schema);
    schema.properties().for_each(|(_, property)| visit(property, depth + 1, see));
    if let Additional::Of(of) = schema.additional() {
        visit(of, depth + 1, see);
    }
    schema.items().into_iter().chain(schema.negated()).for_each(|inner| visit(inner, depth + 1, see));
    for keyword in ["allOf", "anyOf", "oneOf"] {
        schema.each(keyword).for_each(|of| visit(of, depth + 1, see));
    }
}
