//! The types behind the kinds as JSON schemas: the roots and everything they lead to.
use super::{Dialect, IDENTITY, Visit, custom, description, json::Json};
use mote_schema::{
    Catalog, Kind, managed,
    table::{BUILTIN, Container, Field, ListType, Shape, Table, TypeId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// Types that the table knows as shapes: their definition in version 2 and in version 3.
const TIME: (&str, &str, &str) = ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", DATE_TIME, DATE_TIME);
const MICRO_TIME: (&str, &str, &str) = ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", DATE_TIME, DATE_TIME);
const DATE_TIME: &str = r#""type":"string","format":"date-time""#;
const DURATION: (&str, &str, &str) =
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Duration", r#""type":"string""#, r#""type":"string""#);
const QUANTITY: (&str, &str, &str) = (
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    r#""type":"string""#,
    r#""oneOf":[{"type":"string"},{"type":"number"}]"#,
);
const INT_OR_STRING: (&str, &str, &str) = (
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
    r#""type":"string","format":"int-or-string""#,
    r#""format":"int-or-string","oneOf":[{"type":"integer"},{"type":"string"}]"#,
);
const SCALARS: [(&str, &str, &str); 5] = [TIME, MICRO_TIME, DURATION, QUANTITY, INT_OR_STRING];

/// The name of a kind's definition.
pub(super) fn definition(kind: &Kind) -> String {
    if kind.is_custom() {
        return custom::definition(kind, &kind.kind);
    }
    kind.table().definition(kind.root)
}

/// The name of its list's definition; None when it has no list.
pub(super) fn list_definition(kind: &Kind) -> Option<String> {
    if kind.is_custom() {
        return Some(custom::definition(kind, &kind.list_kind));
    }
    let package = kind.table().package(kind.root);
    Some(format!("{package}.{}", kind.list_kind)).filter(|_| !kind.list_kind.is_empty())
}

pub(super) fn reference(dialect: Dialect, definition: &str) -> String {
    match dialect {
        Dialect::V2 => format!("#/definitions/{definition}"),
        Dialect::V3 => format!("#/components/schemas/{definition}"),
    }
}

/// (group, version, kind)
type Identity<'a> = (&'a str, &'a str, &'a str);

/// What one document defines.
pub(super) struct Schemas<'a> {
    dialect: Dialect,
    types: BTreeMap<String, (&'a Table, TypeId)>,
    custom: BTreeMap<String, &'a Kind>,
    lists: BTreeMap<String, &'a Kind>,
    /// Definition to the kinds it is the root of.
    kinds: BTreeMap<String, BTreeSet<Identity<'a>>>,
}

impl<'a> Schemas<'a> {
    pub fn new(dialect: Dialect, catalog: &'a Catalog, kinds: &'a [Arc<Kind>]) -> Schemas<'a> {
        let mut schemas = Schemas {
            dialect,
            types: BTreeMap::new(),
            custom: BTreeMap::new(),
            lists: BTreeMap::new(),
            kinds: BTreeMap::new(),
        };
        // Every document's paths speak of these two, and of what subresources carry.
        let carried = |part: &Kind| {
            let sub =
                |kind: &Arc<Kind>| kind.subresources.iter().any(|sub| sub.kind == part.kind && sub.group == part.group);
            matches!(&*part.kind, "DeleteOptions" | "Status" | "ListMeta") || kinds.iter().any(sub)
        };
        let parts = catalog.parts.iter().filter(|part| carried(part));
        for kind in kinds.iter().chain(parts) {
            let name = definition(kind);
            if kind.is_custom() {
                schemas.custom.insert(name, kind);
                if let Some(metadata) = BUILTIN.type_by_definition(&format!("{META}.ObjectMeta")) {
                    schemas.reach(BUILTIN, metadata);
                }
            } else {
                schemas.kinds.entry(name).or_default().insert((&kind.group, &kind.version, &kind.kind));
                schemas.reach(kind.table(), kind.root);
            }
            if let Some(list) = list_definition(kind) {
                schemas.lists.insert(list, kind);
            }
        }
        schemas
    }

    fn reach(&mut self, table: &'a Table, root: TypeId) {
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            if self.types.insert(table.definition(id), (table, id)).is_some() {
                continue;
            }
            open.extend(table.fields(id).iter().filter_map(|field| match field.shape {
                Shape::Object(inner) => Some(inner),
                _ => None,
            }));
        }
    }

    pub fn each(&self, visit: Visit<'_>) {
        for (name, (table, id)) in &self.types {
            visit(name, &|json| self.write_type(table, *id, self.kinds.get(name), json));
        }
        for (name, kind) in &self.custom {
            visit(name, &|json| {
                custom::write(self.dialect, kind, json);
                write_identities([(&*kind.group, &*kind.version, &*kind.kind)], json);
                custom::write_selectable(kind, json);
            });
        }
        for (name, kind) in &self.lists {
            visit(name, &|json| self.write_list(kind, json));
        }
        for (name, v2, v3) in SCALARS {
            visit(name, &|json| {
                json.raw(if self.dialect == Dialect::V2 { v2 } else { v3 });
            });
        }
        visit(PATCH, &|json| {
            json.field("type", "object");
        });
    }

    fn write_type(&self, table: &Table, id: TypeId, kinds: Option<&BTreeSet<Identity<'_>>>, json: &mut Json) {
        let fields = table.fields(id);
        json.field("type", "object");
        if managed::is_atomic(table, id) {
            json.field("x-kubernetes-map-type", "atomic");
        }
        // The name of a ConfigMap or Secret is always written, and may be left out (`+default=""`).
        let names_nothing = table.field(id, "optional").is_some() || table.type_name(id) == "LocalObjectReference";
        let required = fields.iter().filter(|field| field.required).map(|field| table.name(field));
        let mut required = required.filter(|name| *name != "name" || !names_nothing).peekable();
        if required.peek().is_some() {
            json.list("required", required);
        }
        // Upstream's documents come back the same when they are read and written; an object of nothing does not.
        if fields.is_empty() && kinds.is_none() {
            return;
        }
        json.object("properties", |json| {
            // A kind says what it is; the table leaves that to who reads it.
            for (name, description) in IDENTITY {
                if kinds.is_some() && table.field(id, name).is_none() {
                    json.object(name, |json| {
                        json.field("type", "string").field("description", description);
                    });
                }
            }
            for field in fields {
                let name = table.name(field);
                json.object(name, |json| {
                    self.write_field(table, field, json);
                    if let Some(description) = description(name, kinds.is_some()) {
                        json.field("description", description);
                    }
                });
            }
        });
        if let Some(kinds) = kinds {
            write_identities(kinds.iter().copied(), json);
        }
    }

    fn write_list(&self, kind: &Kind, json: &mut Json) {
        json.field("type", "object").list("required", ["items"]).object("properties", |json| {
            for (name, description) in IDENTITY {
                json.object(name, |json| {
                    json.field("type", "string").field("description", description);
                });
            }
            json.object("items", |json| {
                json.field("type", "array").object("items", |json| self.refer(&definition(kind), json));
            });
            json.object("metadata", |json| self.refer(&format!("{META}.ListMeta"), json));
        });
        write_identities([(&*kind.group, &*kind.version, &*kind.list_kind)], json);
        custom::write_selectable(kind, json);
    }

    fn write_field(&self, table: &Table, field: &Field, json: &mut Json) {
        match field.container {
            Container::One => self.write_element(table, field, json),
            Container::List => {
                json.field("type", "array").object("items", |json| self.write_element(table, field, json));
            }
            Container::Map => {
                json.field("type", "object")
                    .object("additionalProperties", |json| self.write_element(table, field, json));
            }
            Container::MapOfLists => {
                json.field("type", "object").object("additionalProperties", |json| {
                    json.field("type", "array").object("items", |json| self.write_element(table, field, json));
                });
            }
        }
        let default = table.default(field);
        if !default.is_empty() {
            json.key("default").raw(default);
        }
        if let Some(list_type) = field.list_type {
            let name = match list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            json.field("x-kubernetes-list-type", name);
        }
        let mut keys = table.list_keys(field).peekable();
        if keys.peek().is_some() {
            json.list("x-kubernetes-list-map-keys", keys);
        }
        if field.atomic {
            json.field("x-kubernetes-map-type", "atomic");
        }
        let merge_key = table.merge_key(field);
        if !merge_key.is_empty() {
            json.field("x-kubernetes-patch-merge-key", merge_key);
        }
        let strategies =
            [(field.patch_merge, "merge"), (field.patch_retain_keys, "retainKeys"), (field.patch_replace, "replace")];
        let strategies: Vec<&str> = strategies.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
        if !strategies.is_empty() {
            json.field("x-kubernetes-patch-strategy", &strategies.join(","));
        }
    }

    fn write_element(&self, table: &Table, field: &Field, json: &mut Json) {
        match field.shape {
            Shape::Bool => json.raw(r#""type":"boolean""#),
            Shape::Int32 => json.raw(r#""type":"integer","format":"int32""#),
            Shape::Int64 => json.raw(r#""type":"integer","format":"int64""#),
            Shape::Double => json.raw(r#""type":"number","format":"double""#),
            Shape::String => json.raw(r#""type":"string""#),
            Shape::Bytes => json.raw(r#""type":"string","format":"byte""#),
            Shape::Time => return self.refer(TIME.0, json),
            Shape::MicroTime => return self.refer(MICRO_TIME.0, json),
            Shape::Duration => return self.refer(DURATION.0, json),
            Shape::Quantity => return self.refer(QUANTITY.0, json),
            Shape::IntOrString => return self.refer(INT_OR_STRING.0, json),
            Shape::Object(id) => return self.refer(&table.definition(id), json),
            // Anything at all, and a schema with something in it: kubectl explain takes an empty one for none.
            Shape::Any => json.raw(r#""x-kubernetes-preserve-unknown-fields":true"#),
        };
        let mut values = table.values(field).peekable();
        if values.peek().is_some() {
            json.list("enum", values);
        }
    }

    /// Version 3 allows nothing beside a `$ref`, so it stands in an `allOf` of its own.
    fn refer(&self, definition: &str, json: &mut Json) {
        let reference = reference(self.dialect, definition);
        match self.dialect {
            Dialect::V2 => {
                json.field("$ref", &reference);
            }
            Dialect::V3 => json.objects("allOf", [reference], |json, reference| {
                json.field("$ref", &reference);
            }),
        }
    }
}

fn write_identities<'a>(kinds: impl IntoIterator<Item = Identity<'a>>, json: &mut Json) {
    json.objects("x-kubernetes-group-version-kind", kinds, |json, (group, version, kind)| {
        json.field("group", group).field("kind", kind).field("version", version);
    });
}
