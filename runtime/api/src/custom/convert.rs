//! One stored object in several versions. Without a webhook the versions differ in name and schema only: what is stored is read
//! as what is asked for, and fitted to its schema. With one, another program makes one version from another, so reads that
//! need it wait (`current`, `entries`, `events`), and `view`, which cannot wait, shows the object as it is stored: its metadata
//! is right, which is all that this process itself looks at.
//!
//! A Doc of a custom kind holds the apiVersion it is stored as.
use super::review;
pub(crate) use super::review::MAX_OBJECTS;
use crate::{Object, feed, server::Api};
use mote_schema::{Doc, Kind, Status, Value, managed::Ordered, structural};
use mote_store::{Entry, Event};
use std::sync::Arc;

/// Whether the bytes are of another version, which only the webhook can make this one from.
fn needs_webhook(kind: &Kind, doc: &Doc) -> bool {
    let is_this = |stored: &str| stored.is_empty() || version_of(stored) == kind.version;
    waits(kind) && !is_this(doc.root().get("apiVersion").str())
}

/// Whether some of its objects may have to be made by a webhook before they are looked at.
pub(crate) fn waits(kind: &Kind) -> bool {
    kind.custom.as_ref().is_some_and(|custom| custom.has_webhook)
}

/// "v1" of "example.com/v1".
fn version_of(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or(api_version, |(_, version)| version)
}

/// A stored object of a custom kind as this version shows it.
pub(crate) fn view(kind: &Arc<Kind>, stored: Object) -> Object {
    let object = Object { kind: kind.clone(), ..stored };
    let Some(custom) = &kind.custom else { return object };
    let stored_as = object.root().get("apiVersion").str();
    let is_this = version_of(stored_as) == kind.version;
    if is_this && object.revision >= custom.since || !is_this && custom.has_webhook {
        return object;
    }
    let mut value = object.root().to_value();
    let api_version = value["apiVersion"].take();
    structural::fit(kind, &mut value);
    value["apiVersion"] = api_version;
    match Doc::encode(&value) {
        // What is the same need not be held twice.
        Ok(doc) if doc != object.doc => Object { doc, ..object },
        _ => object,
    }
}

/// An object in the two forms it has while it is written.
pub(crate) struct Encoded {
    /// As its writer sees it.
    pub shown: Doc,
    pub stored: Doc,
}

impl Api {
    /// Encodes for storage, as the version that is stored.
    pub(crate) async fn encoded(&self, kind: &Arc<Kind>, value: Value) -> Result<Encoded, Status> {
        let Some(custom) = &kind.custom else {
            let shown = Api::encode(value)?;
            return Ok(Encoded { stored: shown.clone(), shown });
        };
        let stored_as = custom.storage_api_version(kind);
        let mark = |mut value: Value| {
            if let Some(root) = value.as_object_mut() {
                root.remove("kind");
                root.insert("apiVersion".into(), stored_as.as_str().into());
                if let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("resourceVersion");
                    metadata.remove("selfLink");
                }
            }
            Doc::encode(&Ordered(&value))
                .map_err(|error| Status::bad_request(format!("object cannot be stored: {error:?}")))
        };
        let converted = match custom.has_webhook && *custom.storage_version != *kind.version {
            false => None,
            true => {
                let mut converted = review::ask(self, kind, &stored_as, vec![value.clone()]).await?;
                let mut stored = converted.pop().unwrap_or_default();
                if let Some(schema) = custom.schema_of(&custom.storage_version) {
                    structural::prune_by(schema, &mut stored);
                }
                Some(mark(stored)?)
            }
        };
        // Without a webhook another version's object is stored as far as the stored version knows it, and shown as it
        // comes back from there.
        let mut value = value;
        let converted = match converted {
            None if *custom.storage_version != *kind.version => {
                if let Some(schema) = custom.schema_of(&custom.storage_version) {
                    structural::fit_by(schema, &mut value);
                }
                let stored = mark(value.clone())?;
                structural::fit(kind, &mut value);
                Some(stored)
            }
            converted => converted,
        };
        let shown = mark(value)?;
        Ok(Encoded { stored: converted.unwrap_or_else(|| shown.clone()), shown })
    }

    /// The newest state of an object, in this kind's version.
    pub(crate) async fn current(&self, kind: &Arc<Kind>, namespace: &str, name: &str) -> Result<Object, Status> {
        let object = self.get(kind, namespace, name)?;
        if !needs_webhook(kind, &object.doc) {
            return Ok(object);
        }
        let mut values = convert(self, kind, vec![&object]).await?;
        let mut value = values.pop().unwrap_or_default();
        // The mark says how it is stored, so that an update which changes only that is one.
        value["apiVersion"] = object.root().get("apiVersion").to_value();
        Ok(Object { doc: encode(&value)?, ..object })
    }
}

fn encode(value: &Value) -> Result<Doc, Status> {
    Doc::encode(value).map_err(|error| Status::internal(format!("converted object: {error:?}")))
}

/// Objects, all of other versions, as trees of this kind's version; they keep their order.
async fn convert(api: &Api, kind: &Arc<Kind>, objects: Vec<&Object>) -> Result<Vec<Value>, Status> {
    let Some(custom) = &kind.custom else { return Ok(Vec::new()) };
    let mut values = Vec::with_capacity(objects.len());
    for object in objects {
        let stored_as = object.root().get("apiVersion").str().to_owned();
        let mut value = object.to_value();
        if let Some(schema) = custom.schema_of(version_of(&stored_as)) {
            structural::default(schema, &mut value);
        }
        value["apiVersion"] = stored_as.into();
        values.push(value);
    }
    let mut converted = review::ask(api, kind, &kind.api_version(), values).await?;
    for value in &mut converted {
        structural::prune(kind, value);
        if let Some(root) = value.as_object_mut() {
            root.remove("kind");
            if let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("resourceVersion");
            }
        }
    }
    Ok(converted)
}

/// An object, which says itself what version it is of, in another version of its kind: what `matchPolicy: Equivalent` asks for.
pub(crate) async fn between(api: &Api, kind: &Arc<Kind>, value: Value) -> Result<Value, Status> {
    let mut value = match waits(kind) {
        true => review::ask(api, kind, &kind.api_version(), vec![value]).await?.pop().unwrap_or_default(),
        false => value,
    };
    structural::fit(kind, &mut value);
    value["apiVersion"] = kind.api_version().into();
    Ok(value)
}

/// Entries of a list, in this kind's version. Those of kinds without a webhook stay as they are.
pub(crate) async fn entries(api: &Api, kind: &Arc<Kind>, mut entries: Vec<Entry>) -> Result<Vec<Entry>, Status> {
    if !waits(kind) {
        return Ok(entries);
    }
    let others: Vec<(usize, Object)> = entries
        .iter()
        .enumerate()
        .map(|(at, entry)| (at, feed::object(kind, entry)))
        .filter(|(_, object)| needs_webhook(kind, &object.doc))
        .collect();
    for batch in others.chunks(MAX_OBJECTS) {
        let converted = convert(api, kind, batch.iter().map(|(_, object)| object).collect()).await?;
        for ((at, _), value) in batch.iter().zip(converted) {
            if let Some(entry) = entries.get_mut(*at) {
                entry.value = encode(&value)?.bytes().clone();
            }
        }
    }
    Ok(entries)
}

/// The same for both sides of events.
pub(crate) async fn events(api: &Api, kind: &Arc<Kind>, mut events: Vec<Event>) -> Result<Vec<Event>, Status> {
    if !waits(kind) {
        return Ok(events);
    }
    let sides: Vec<Entry> = events.iter().flat_map(|event| event.old.iter().chain(&event.new)).cloned().collect();
    let mut converted = entries(api, kind, sides).await?.into_iter();
    for event in &mut events {
        for side in event.old.iter_mut().chain(&mut event.new) {
            if let Some(entry) = converted.next() {
                *side = entry;
            }
        }
    }
    Ok(events)
}
