//! Custom kinds: what a CustomResourceDefinition's schema says, and what follows from it for objects.
//!
//! A schema is never taken apart into structures of its own. `Schema` is a place inside the definition's stored Doc, read
//! in place, so the megabytes of schema that large operators install cost the bytes they are stored in and nothing
//! beside them. What has to be compiled (regular expressions here, rules in the API server) is compiled when a version
//! is first written to, and kept with its `Custom`.
//!
//! The way of an object: `prune`, `defaults`, `values` (with `lists`, `metadata`). The way of a definition: `definition`,
//! which asks `structure` and `keywords` about each schema. `columns` and `path` read paths into objects.
pub mod columns; // printer columns
mod correlate; // which old value a new one comes from
mod defaults; // filling in
mod definition; // checks of a CustomResourceDefinition
mod formats; // string formats
mod keywords; // checks of a schema, keyword by keyword
mod lists; // sets and maps have no duplicates
mod metadata; // apiVersion, kind and metadata inside objects
pub mod path; // simple JSON paths
mod prune; // unknown fields
mod served; // a definition as kinds
mod structure; // whether a schema is structural
mod values; // values against schemas

pub use correlate::old_element;
pub use definition::{approval, bundle_error, format_warnings, is_protected, is_true, schemas};
pub use path::follow;
pub use served::{kinds, storage_version, stored_kind, version_order};
pub use structure::violations;

pub use defaults::apply as default;
pub(crate) use definition::check as check_definition;
pub(crate) use definition::normalize;

use crate::{Cause, Doc, Kind, Ref, Value, regex::Regex, table::ListType};
use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// Schemas inside schemas that are followed; upstream's own limit is the stack.
const MAX_DEPTH: usize = 128;

/// One version of a CustomResourceDefinition, as its kind needs it.
pub struct Custom {
    /// The whole definition: the bytes the store holds.
    doc: Doc,
    /// Position in spec.versions.
    version: usize,
    /// Version that objects are stored as.
    pub storage_version: Box<str>,
    /// Objects last written at or after this revision have been through this very schema.
    pub since: u64,
    /// Further versions are made by a webhook.
    pub has_webhook: bool,
    /// No new objects: the definition is being deleted.
    pub is_terminating: bool,
    /// Field selectors besides name and namespace: "spec.color".
    pub selectable: Vec<Box<str>>,
    /// Told to everybody who uses this version.
    pub warning: Option<Box<str>>,
    pub compiled: Arc<Compiled>,
}

/// What was compiled of a schema, when it was needed. Shared by all definitions in which the schema is the same.
#[derive(Default)]
pub struct Compiled {
    patterns: Patterns,
    /// The API server's, of the rules.
    pub rules: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Custom").field("version", &self.version).field("since", &self.since).finish_non_exhaustive()
    }
}

impl Custom {
    pub fn definition(&self) -> &Doc {
        &self.doc
    }
    /// The member of spec.versions.
    pub fn version(&self) -> Ref<'_> {
        self.doc.root().at("spec.versions").index(self.version)
    }
    pub fn schema(&self) -> Schema<'_> {
        Schema(self.version().at("schema.openAPIV3Schema"))
    }
    /// The schema of any of the definition's versions.
    pub fn schema_of(&self, version: &str) -> Option<Schema<'_>> {
        let mut versions = self.doc.root().at("spec.versions").items();
        let found = versions.find(|found| found.get("name").str() == version)?;
        Schema::of(found.at("schema.openAPIV3Schema"))
    }
    /// "example.com/v1": what a stored object says it is.
    pub fn storage_api_version(&self, kind: &Kind) -> String {
        format!("{}/{}", kind.group, self.storage_version)
    }
}

/// Regular expressions, compiled when they are first needed. A schema holds only so many.
#[derive(Default)]
pub(crate) struct Patterns(Mutex<HashMap<Box<str>, Option<Arc<Regex>>>>);

impl Patterns {
    /// None for one that cannot be compiled.
    fn get(&self, text: &str) -> Option<Arc<Regex>> {
        let mut patterns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = patterns.get(text) {
            return known.clone();
        }
        let compiled = Regex::new(text).ok().map(Arc::new);
        patterns.insert(text.into(), compiled.clone());
        compiled
    }
}

impl Kind {
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }
    pub fn schema(&self) -> Option<Schema<'_>> {
        self.custom.as_ref().map(|custom| custom.schema())
    }
}

/// A JSONSchemaProps inside a definition.
#[derive(Clone, Copy, Debug)]
pub struct Schema<'a>(Ref<'a>);

/// What a schema says about members it does not name.
#[derive(Clone, Copy, Debug)]
pub enum Additional<'a> {
    /// Nothing.
    Unset,
    No,
    Any,
    Of(Schema<'a>),
}

impl<'a> Schema<'a> {
    pub fn new(place: Ref<'a>) -> Schema<'a> {
        Schema(place)
    }
    pub fn place(self) -> Ref<'a> {
        self.0
    }
    fn of(place: Ref<'a>) -> Option<Schema<'a>> {
        place.is_map().then_some(Schema(place))
    }
    fn is(self, keyword: &str) -> bool {
        self.0.get(keyword).is_true()
    }
    fn str(self, keyword: &str) -> &'a str {
        self.0.get(keyword).str()
    }

    /// "object", "array", "string", "integer", "number", "boolean" or "".
    pub fn type_name(self) -> &'a str {
        self.str("type")
    }
    pub fn properties(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> + Clone {
        self.0.get("properties").entries().map(|(name, place)| (name, Schema(place)))
    }
    pub fn property(self, name: &str) -> Option<Schema<'a>> {
        Schema::of(self.0.get("properties").get(name))
    }
    pub fn has_properties(self) -> bool {
        !self.0.get("properties").is_empty()
    }
    pub fn additional(self) -> Additional<'a> {
        let place = self.0.get("additionalProperties");
        match place.as_bool() {
            Some(true) => Additional::Any,
            Some(false) => Additional::No,
            None if place.is_map() => Additional::Of(Schema(place)),
            None => Additional::Unset,
        }
    }
    /// The schema of a member: the property's, else that of additional properties.
    pub fn child(self, name: &str) -> Option<Schema<'a>> {
        self.property(name).or_else(|| match self.additional() {
            Additional::Of(schema) => Some(schema),
            _ => None,
        })
    }
    pub fn items(self) -> Option<Schema<'a>> {
        Schema::of(self.0.get("items"))
    }
    /// allOf, anyOf, oneOf.
    pub fn each(self, keyword: &str) -> impl Iterator<Item = Schema<'a>> + Clone {
        self.0.get(keyword).items().map(Schema)
    }
    pub fn negated(self) -> Option<Schema<'a>> {
        Schema::of(self.0.get("not"))
    }
    pub fn list_type(self) -> Option<ListType> {
        match self.str("x-kubernetes-list-type") {
            "map" => Some(ListType::Map),
            "set" => Some(ListType::Set),
            "atomic" => Some(ListType::Atomic),
            _ => None,
        }
    }
    pub fn list_keys(self) -> impl Iterator<Item = &'a str> + Clone {
        self.0.get("x-kubernetes-list-map-keys").items().map(Ref::str)
    }
    pub fn is_atomic_map(self) -> bool {
        self.str("x-kubernetes-map-type") == "atomic"
    }
    /// Absent when there is none.
    pub fn default(self) -> Ref<'a> {
        let place = self.0.get("default");
        if place.is_null() { Ref::absent() } else { place }
    }
    pub fn preserves_unknown(self) -> bool {
        self.is("x-kubernetes-preserve-unknown-fields")
    }
    pub fn is_embedded(self) -> bool {
        self.is("x-kubernetes-embedded-resource")
    }
    pub fn is_int_or_string(self) -> bool {
        self.is("x-kubernetes-int-or-string")
    }
    pub fn is_nullable(self) -> bool {
        self.is("nullable")
    }
    /// x-kubernetes-validations
    pub fn rules(self) -> impl Iterator<Item = Ref<'a>> + Clone {
        self.0.get("x-kubernetes-validations").items()
    }
    pub fn has_rules(self) -> bool {
        !self.0.get("x-kubernetes-validations").is_empty()
    }
}

/// Types and unknown fields: Ok is what a strict client wants to hear, Err why the object cannot be decoded.
pub(crate) fn clean(kind: &Kind, value: &mut Value) -> Result<Vec<String>, String> {
    let Some(schema) = kind.schema() else { return Ok(Vec::new()) };
    let complaints = prune::clean(schema, value)?;
    // Rules and schemas may speak of these, so they stay, as what they are.
    if let Some(map) = value.as_object_mut() {
        map.insert("apiVersion".into(), kind.api_version().into());
        map.insert("kind".into(), kind.kind.as_ref().into());
    }
    Ok(complaints)
}

/// Makes a stored object one of this kind's version: what the version does not know goes, what it has defaults for comes.
pub fn fit(kind: &Kind, value: &mut Value) {
    prune(kind, value);
    if let Some(schema) = kind.schema() {
        defaults::apply(schema, value);
    }
}

/// Drops what this kind's version does not know.
pub fn prune(kind: &Kind, value: &mut Value) {
    prune::prune(value, kind.schema(), true, "", &mut Vec::new(), 0);
}

/// The same by a schema alone.
pub fn prune_by(schema: Schema<'_>, value: &mut Value) {
    prune::prune(value, Some(schema), true, "", &mut Vec::new(), 0);
}

/// `fit` by a schema alone.
pub fn fit_by(schema: Schema<'_>, value: &mut Value) {
    prune_by(schema, value);
    defaults::apply(schema, value);
}

/// Mistakes in labels and annotations that differ from the old ones.
pub fn map_errors(metadata: &Value, old: &Value) -> Vec<String> {
    let changed: crate::Map = ["labels", "annotations"]
        .into_iter()
        .filter(|field| metadata.get(field) != old.get(field))
        .filter_map(|field| Some((field.to_owned(), metadata.get(field)?.clone())))
        .collect();
    let causes = crate::check::embedded_metadata(&Value::Object(changed), "metadata");
    causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

/// All mistakes in an object of a custom kind, but for its metadata and the rules (customresource/validator.go and strategy.go).
pub(crate) fn validate(kind: &Kind, new: &Value, old: Option<&Value>, sub: &str) -> Vec<Cause> {
    let Some(custom) = &kind.custom else { return Vec::new() };
    let schema = custom.schema();
    let mut causes = Vec::new();
    if sub == "status" {
        if let (Some(schema), Some(status)) = (schema.property("status"), new.get("status")) {
            values::check(
                &custom.compiled.patterns,
                schema,
                status,
                old.and_then(|old| old.get("status")),
                "status",
                &mut causes,
            );
        }
    } else {
        values::check(&custom.compiled.patterns, schema, new, old, "", &mut causes);
    }
    if let Some(scale) = &kind.scale {
        path::check_scale(scale, new, sub != "status", &mut causes);
    }
    if sub != "status" {
        metadata::check(schema, new, "", &mut causes);
    }
    // An object that was not right before need not be right after.
    let duplicates = |value: &Value| {
        let mut causes = Vec::new();
        lists::check(schema, value, "", &mut causes);
        causes
    };
    let found = duplicates(new);
    if !found.is_empty() && old.is_none_or(|old| duplicates(old).is_empty()) {
        causes.extend(found);
    }
    causes
}

/// Warnings about the names of finalizers that are new (customresource/strategy.go).
pub fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let list = |value: &Value| value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let known = old.map(list).unwrap_or_default();
    let mut warnings = Vec::new();
    for name in list(new).iter().filter(|name| !known.contains(name)).filter_map(Value::as_str) {
        let at = format!("metadata.finalizers: {name:?}: ");
        warnings.extend(crate::validate::qualified_name(name).into_iter().map(|message| format!("{at}{message}")));
        if !name.contains('/') && !matches!(name, "orphan" | "foregroundDeletion" | "kubernetes") {
            let path = if name.contains('.') { " including a path (/)" } else { "" };
            warnings.push(format!(
                "{at}prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
    warnings
}

/// "a.b", or "b" at the root.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.into() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests;
