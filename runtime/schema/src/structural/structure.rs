//! Whether a schema is structural: every field it speaks of is described in one place, and what stands under allOf, anyOf, oneOf
//! and not only restricts values (apiextensions-apiserver/pkg/apiserver/schema/{validation,complete}.go).
use super::{Additional, MAX_DEPTH, Schema};
use crate::Cause;
use crate::Order as _;
use crate::regex::Regex;

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All violations, in the order of their texts.
pub fn violations(schema: Schema<'_>, path: &str) -> Vec<Cause> {
    let mut checker = Checker { causes: Vec::new(), depth: 0 };
    checker.invariants(schema, Level::Root, path);
    checker.complete(schema, Some(schema), path, path);
    let mut causes = checker.causes;
    causes.order_by_key(|cause| format!("{}: {}", cause.field, cause.message));
    causes
}

struct Checker {
    causes: Vec<Cause>,
    depth: usize,
}

impl Checker {
    fn required(&mut self, at: String, detail: &str) {
        self.causes.push(Cause::required(at, detail));
    }
    fn forbidden(&mut self, at: String, detail: &str) {
        self.causes.push(Cause::forbidden(at, detail));
    }
    fn invalid(&mut self, at: String, value: impl Into<crate::Value>, detail: &str) {
        self.causes.push(Cause::invalid(at, &value.into(), detail));
    }

    fn invariants(&mut self, schema: Schema<'_>, level: Level, path: &str) {
        if self.depth > MAX_DEPTH {
            return self.forbidden(path.into(), "must not be nested deeper");
        }
        self.depth += 1;
        let items = schema.items();
        if schema.type_name() == "array" && items.is_none() {
            self.required(format!("{path}.items"), "must be specified");
        }
        if let Some(items) = items {
            self.invariants(items, Level::Item, &format!("{path}.items"));
        }
        for (name, property) in schema.properties() {
            self.invariants(property, Level::Field, &format!("{path}.properties[{name}]"));
        }
        let additional = schema.additional();
        let has_additional = !matches!(additional, Additional::Unset);
        if has_additional && level == Level::Root {
            self.forbidden(format!("{path}.additionalProperties"), "must not be used at the root");
        }
        if let Additional::Of(of) = additional {
            self.invariants(of, Level::Field, &format!("{path}.additionalProperties"));
        }
        self.extensions(schema, path);
        let skip_any = is_int_or_string_any(schema);
        let skip_first = schema.each("allOf").next().is_some_and(is_int_or_string_any);
        self.values(schema, skip_any, skip_first, path);
        self.kind_of_value(schema, level, path);
        if schema.is_embedded() && has_additional {
            let at = format!("{path}.additionalProperties");
            self.forbidden(at, "must not be used if x-kubernetes-embedded-resource is set");
        }
        self.meta(schema, level, path);
        if schema.is_embedded() && !schema.preserves_unknown() && !schema.has_properties() {
            let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.required(format!("{path}.properties"), detail);
        }
        self.depth -= 1;
    }

    fn extensions(&mut self, schema: Schema<'_>, path: &str) {
        let detail = "must be false if x-kubernetes-int-or-string is true";
        for (set, keyword) in [
            (schema.preserves_unknown(), "x-kubernetes-preserve-unknown-fields"),
            (schema.is_embedded(), "x-kubernetes-embedded-resource"),
        ] {
            if set && schema.is_int_or_string() {
                self.invalid(format!("{path}.{keyword}"), true, detail);
            }
        }
    }

    fn kind_of_value(&mut self, schema: Schema<'_>, level: Level, path: &str) {
        let (at, name) = (format!("{path}.type"), schema.type_name());
        if schema.is_embedded() && name != "object" {
            let detail = "must be object if x-kubernetes-embedded-resource is true";
            match name {
                "" => self.required(at.clone(), detail),
                _ => self.invalid(at.clone(), name, detail),
            }
        } else if name.is_empty() && !schema.is_int_or_string() && !schema.preserves_unknown() {
            let detail = match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            };
            self.required(at.clone(), detail);
        }
        if level == Level::Root && !matches!(name, "" | "object") {
            self.invalid(at, name, "must be object at the root");
        }
    }

    /// kind, apiVersion and metadata of an object are what they are everywhere.
    fn meta(&mut self, schema: Schema<'_>, level: Level, path: &str) {
        let is_object = level == Level::Root || schema.is_embedded();
        for name in ["kind", "apiVersion"] {
            if let Some(property) = schema.property(name).filter(|p| is_object && p.type_name() != "string") {
                self.invalid(format!("{path}.properties[{name}].type"), property.type_name(), "must be string");
            }
        }
        let Some(metadata) = schema.property("metadata") else { return };
        let at = format!("{path}.properties[metadata]");
        if is_object && metadata.type_name() != "object" {
            self.invalid(format!("{at}.type"), metadata.type_name(), "must be object");
        }
        if level == Level::Root {
            let only_names = metadata.properties().all(|(name, _)| matches!(name, "name" | "generateName"));
            let only_those = metadata.place().entries().all(|(keyword, value)| match keyword {
                "type" | "default" => true,
                "properties" => only_names,
                _ => value.is_empty() || value.as_bool() == Some(false),
            });
            if !only_those {
                let detail =
                    "must not specify anything other than name and generateName, but metadata is implicitly specified";
                self.forbidden(at, detail);
            }
        }
    }

    /// What restricts values, here and in alternatives.
    fn values(&mut self, schema: Schema<'_>, skip_any: bool, skip_first_all: bool, path: &str) {
        if self.depth > MAX_DEPTH {
            return;
        }
        self.depth += 1;
        for keyword in ["anyOf", "allOf", "oneOf"] {
            if keyword == "anyOf" && skip_any {
                continue;
            }
            for (at, of) in schema.each(keyword).enumerate() {
                let skip_any = keyword == "allOf" && at == 0 && skip_first_all;
                self.nested(of, skip_any, &format!("{path}.{keyword}[{at}]"));
            }
        }
        if let Some(not) = schema.negated() {
            self.nested(not, false, &format!("{path}.not"));
        }
        let pattern = schema.place().get("pattern").str();
        if let Err(error) = Regex::new(pattern) {
            let detail = format!("must be a valid regular expression, but isn't: error parsing regexp: {error}");
            self.invalid(format!("{path}.pattern"), pattern, &detail);
        }
        self.depth -= 1;
    }

    fn nested(&mut self, schema: Schema<'_>, skip_any: bool, path: &str) {
        self.values(schema, skip_any, false, path);
        if let Some(items) = schema.items() {
            self.nested(items, false, &format!("{path}.items"));
        }
        for (name, property) in schema.properties() {
            self.nested(property, false, &format!("{path}.properties[{name}]"));
        }
        const NOT_HERE: [(&str, &str); 12] = [
            ("type", "must be empty to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("default", "must be undefined to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("nullable", "must be false to be structural"),
            ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
            ("x-kubernetes-embedded-resource", "must be false to be structural"),
            ("x-kubernetes-int-or-string", "must be false to be structural"),
            ("x-kubernetes-list-map-keys", "must be empty to be structural"),
            ("x-kubernetes-list-type", "must be undefined to be structural"),
            ("x-kubernetes-map-type", "must be undefined to be structural"),
        ];
        for (keyword, detail) in NOT_HERE {
            let place = schema.place().get(keyword);
            let set = match place.as_bool() {
                Some(value) => value,
                None => place.exists() && !place.is_null() && (place.is_map() || !place.is_empty()),
            };
            if set {
                self.forbidden(format!("{path}.{keyword}"), detail);
            }
        }
        if schema.has_rules() {
            self.forbidden(format!("{path}.x-kubernetes-validations"), "must be empty to be structural");
        }
        if schema.property("metadata").is_some() {
            let at = format!("{path}.properties[metadata]");
            self.forbidden(at, "must not be specified in a nested context");
        }
    }

    /// What alternatives at the root speak of is described outside of them; upstream looks no deeper.
    fn complete(&mut self, values: Schema<'_>, described: Option<Schema<'_>>, path: &str, nested_path: &str) {
        if self.depth > MAX_DEPTH {
            return;
        }
        self.depth += 1;
        if let Some(not) = values.negated() {
            self.complete_nested(not, described, path, &format!("{nested_path}.not"));
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            for (at, of) in values.each(keyword).enumerate() {
                self.complete_nested(of, described, path, &format!("{nested_path}.{keyword}[{at}]"));
            }
        }
        self.depth -= 1;
    }

    fn complete_nested(&mut self, values: Schema<'_>, described: Option<Schema<'_>>, path: &str, nested_path: &str) {
        let Some(schema) = described else {
            return self.required(path.into(), &format!("because it is defined in {nested_path}"));
        };
        self.complete(values, described, path, nested_path);
        if let Some(items) = values.items() {
            self.complete_nested(items, schema.items(), &format!("{path}.items"), &format!("{nested_path}.items"));
        }
        for (name, property) in values.properties() {
            let (at, nested) = (format!("{path}.properties[{name}]"), format!("{nested_path}.properties[{name}]"));
            self.complete_nested(property, schema.property(name), &at, &nested);
        }
    }
}

/// anyOf an integer and a string and nothing else: what an int-or-string may say.
fn is_int_or_string_any(schema: Schema<'_>) -> bool {
    let only = |schema: Option<Schema<'_>>, name: &str| {
        schema.is_some_and(|s| s.type_name() == name && s.place().entries().count() == 1)
    };
    let mut any = schema.each("anyOf");
    only(any.next(), "integer") && only(any.next(), "string") && any.next().is_none()
}
