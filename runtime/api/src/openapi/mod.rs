//! OpenAPI, version 3 (one document a group and version) and version 2 (one for all), written from the field table when
//! they are asked for. They carry facts (types, required fields, merge keys, list keys, enumerations, which paths take
//! which verbs) and no prose, but for what every object has: of custom kinds too, where all else is described by who wrote it. It is what `kubectl explain`, `apply`, `diff` and validation read: kubectl from 1.27 on
//! takes version 3 as JSON, and turns to version 2, as protobuf, only when that fails.
mod custom;
pub(crate) mod json;
mod paths;
mod protobuf;
mod schemas;

#[cfg(test)]
mod tests;

use crate::{discovery::api_path, http::Query};
use json::Json;
use mote_schema::{Catalog, Kind};
use schemas::Schemas;
use std::{
    hash::{DefaultHasher, Hasher},
    sync::Arc,
};

const JSON: &str = "application/json";
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "Kubernetes";

/// The two versions of OpenAPI, as far as they differ here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// The fields that every object and list has, and what `kubectl explain` says of them.
const IDENTITY: [(&str, &str); 2] = [
    ("apiVersion", "APIVersion defines the group and version in whose terms the object is written, as GROUP/VERSION."),
    ("kind", "Kind names the type of the object in its group; it never changes."),
];
const METADATA: &str =
    "Standard object's metadata: name, namespace, labels, annotations, and what the server keeps of it.";
const CREATED: &str = "CreationTimestamp is a timestamp of the server's clock when the object was made.";

/// What is said of a field that every object has; `is_root` of an object's own, not of a part's.
fn description(name: &str, is_root: bool) -> Option<&'static str> {
    match name {
        "creationTimestamp" => Some(CREATED),
        "metadata" if is_root => Some(METADATA),
        _ => IDENTITY.iter().find(|(known, _)| is_root && *known == name).map(|(_, text)| *text),
    }
}

/// Takes each member of an object: its name, and what writes its own members.
type Visit<'a> = &'a mut dyn FnMut(&str, &dyn Fn(&mut Json));

/// The document at a path, with its media type; None when there is none, or not in a form the client accepts. The query
/// carries a hash that only keeps caches apart: one that is no longer right gets what is.
pub fn document(catalog: &Catalog, path: &str, _query: &Query, accept: &str) -> Option<(&'static str, Vec<u8>)> {
    let path = path.strip_prefix("/openapi/")?.trim_end_matches('/');
    let media = accept.split(',').find_map(|clause| {
        match clause.split(';').next().unwrap_or("").trim() {
            "" | JSON | "application/*" | "*/*" => Some(JSON),
            // The second is the name that client-go asks for, which is no media type.
            PROTOBUF_V2 | "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" if path == "v2" => {
                Some(PROTOBUF_V2)
            }
            _ => None,
        }
    })?;
    let bytes = match path.split_once('/') {
        None if path == "v2" && media == PROTOBUF_V2 => all_as_protobuf(catalog),
        None if path == "v2" => all(catalog),
        None if path == "v3" => root(catalog),
        Some(("v3", version)) => one(catalog, version)?,
        _ => return None,
    };
    Some((media, bytes))
}

/// Where each document is. Its hash in the query lets clients keep it for as long as it does not change.
fn root(catalog: &Catalog) -> Vec<u8> {
    let mut json = Json::default();
    json.open(b'{').object("paths", |json| {
        for (group, versions) in catalog.groups() {
            for version in versions {
                let path = api_path(group, version);
                let mut hasher = DefaultHasher::new();
                if !hash_definitions(catalog, group, version, &mut hasher) {
                    hasher.write(&one(catalog, &path).unwrap_or_default());
                }
                let url = format!("/openapi/v3/{path}?hash={:016X}", hasher.finish());
                json.object(&path, |json| {
                    json.field("serverRelativeURL", &url);
                });
            }
        }
    });
    json.close(b'}');
    json.finish()
}

/// Definitions may be megabytes, and what is written of them changes when they do. False when not all kinds of the version
/// are custom.
fn hash_definitions(catalog: &Catalog, group: &str, version: &str, hasher: &mut DefaultHasher) -> bool {
    let mut kinds = catalog.kinds.iter().filter(|kind| kind.group == group && kind.version == version);
    kinds.all(|kind| {
        let custom = kind.custom.as_ref().map(|custom| hasher.write(custom.definition().bytes()));
        custom.is_some()
    })
}

/// "apis/apps/v1"
fn one(catalog: &Catalog, version: &str) -> Option<Vec<u8>> {
    let is_in = |kind: &Kind| api_path(&kind.group, &kind.version) == version;
    let kinds: Vec<Arc<Kind>> = catalog.kinds.iter().filter(|kind| is_in(kind)).cloned().collect();
    if kinds.is_empty() {
        return None;
    }
    let schemas = Schemas::new(Dialect::V3, catalog, &kinds);
    let mut json = Json::default();
    json.open(b'{').field("openapi", "3.0.0").object("info", info).object("paths", |json| {
        paths::each(Dialect::V3, &kinds, &mut |name, write| {
            json.object(name, write);
        });
    });
    json.object("components", |json| {
        json.object("schemas", |json| {
            schemas.each(&mut |name, write| {
                json.object(name, write);
            })
        });
    });
    json.close(b'}');
    Some(json.finish())
}

fn all(catalog: &Catalog) -> Vec<u8> {
    let schemas = Schemas::new(Dialect::V2, catalog, &catalog.kinds);
    let mut json = Json::default();
    json.open(b'{').field("swagger", "2.0").object("info", info).object("paths", |json| {
        paths::each(Dialect::V2, &catalog.kinds, &mut |name, write| {
            json.object(name, write);
        });
    });
    json.object("definitions", |json| {
        schemas.each(&mut |name, write| {
            json.object(name, write);
        })
    });
    json.close(b'}');
    json.finish()
}

fn all_as_protobuf(catalog: &Catalog) -> Vec<u8> {
    let mut writer = protobuf::Writer::new(TITLE, crate::KUBERNETES_VERSION);
    paths::each(Dialect::V2, &catalog.kinds, &mut |name, write| writer.path(name, write));
    let schemas = Schemas::new(Dialect::V2, catalog, &catalog.kinds);
    schemas.each(&mut |name, write| writer.definition(name, write));
    writer.finish()
}

fn info(json: &mut Json) {
    json.field("title", TITLE).field("version", crate::KUBERNETES_VERSION);
}
