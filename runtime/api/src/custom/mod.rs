//! CustomResourceDefinitions: from what is stored to kinds that are served. A custom kind is a `Kind` in the catalog like any
//! other; what is here is the way into the catalog (`Definitions`), the controller that accepts names and empties what is
//! deleted (`controller`), and the forms between versions (`convert`). Schemas and their checks are `mote_schema::structural`.
mod conditions; // a definition's status
mod controller; // names accepted, instances deleted
pub(crate) mod convert; // one stored object in several versions
mod review; // conversion webhooks
mod rule_costs; // rules when a definition is made
mod rules; // rules asked about objects

pub(crate) use controller::{FINALIZER, begin_deletion, start};

use crate::{Sub, registry::Target, server::Api};
use event_listener::{Event, listener};
use mote_schema::{Catalog, Cause, Doc, Kind, Order as _, Status, Value, structural};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) const GROUP: &str = "apiextensions.k8s.io";
pub(crate) const PLURAL: &str = "customresourcedefinitions";
pub(crate) const PREFIX: &str = "apiextensions.k8s.io/customresourcedefinitions/";

/// What expressions see of a custom kind's objects; None: nothing.
pub(crate) fn type_of(kind: &Kind) -> Option<mote_cel::Type> {
    rules::declared(kind.schema()?, true).map(|(slot, _)| slot.ty)
}

/// The definitions as they are served.
#[derive(Default)]
pub(crate) struct Definitions {
    known: Mutex<BTreeMap<Box<str>, Definition>>,
    /// The catalog was replaced.
    changed: Event,
}

struct Definition {
    doc: Doc,
    /// Revision from which on objects were written under these schemas.
    since: u64,
    kinds: Vec<Arc<Kind>>,
}

impl Definitions {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Definition>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether objects of one definition are objects of the other, unread.
fn is_same(old: &Doc, new: &Doc) -> bool {
    let (old, new) = (old.root(), new.root());
    old.get("spec").is_same(new.get("spec"))
        && old.at("status.acceptedNames").is_same(new.at("status.acceptedNames"))
        && old.at("metadata.uid").is_same(new.at("metadata.uid"))
}

/// Brings the catalog to what is stored. Called at start and after every write of a definition.
pub(crate) fn refresh(api: &Api) {
    let mut known = api.definitions.known();
    let mut old = std::mem::take(&mut *known);
    let mut changed = false;
    for entry in api.store.snapshot().range(PREFIX, None) {
        let name: Box<str> = entry.key.strip_prefix(PREFIX).unwrap_or("").into();
        let before = old.remove(&name);
        let definition = match before {
            Some(before) if Arc::ptr_eq(before.doc.bytes(), &entry.value) => before,
            before => {
                changed = true;
                let doc = Doc::trusted(entry.value.clone());
                let same = before.filter(|before| is_same(&before.doc, &doc));
                let since = same.as_ref().map_or(entry.modified, |same| same.since);
                let previous = same.map(|same| same.kinds).unwrap_or_default();
                Definition { kinds: structural::kinds(&doc, since, &previous), since, doc }
            }
        };
        known.insert(name, definition);
    }
    if changed || !old.is_empty() {
        publish(api, &known);
    }
}

/// Serves a definition before it says that it is established.
fn install(api: &Api, name: &str, doc: Doc) {
    let mut known = api.definitions.known();
    let since = api.store.revision();
    let kinds = structural::kinds(&doc, since, &[]);
    known.insert(name.into(), Definition { doc, since, kinds });
    publish(api, &known);
}

/// Built-in kinds first, then groups by name, their versions by preference. A definition in a version that is built in is not
/// served, as upstream's requests never get to it.
fn publish(api: &Api, known: &BTreeMap<Box<str>, Definition>) {
    let catalog = api.catalog();
    let mut kinds: Vec<Arc<Kind>> = catalog.kinds.iter().filter(|kind| !kind.is_custom()).cloned().collect();
    let is_free = |custom: &Kind| {
        !kinds
            .iter()
            .any(|kind| kind.group == custom.group && (kind.version == custom.version || kind.plural == custom.plural))
    };
    let all = known.values().flat_map(|definition| &definition.kinds);
    let mut custom: Vec<Arc<Kind>> = all.filter(|kind| is_free(kind)).cloned().collect();
    custom.order_by(|a, b| {
        let version = structural::version_order(&a.version, &b.version);
        a.group.cmp(&b.group).then(version).then_with(|| a.plural.cmp(&b.plural))
    });
    kinds.append(&mut custom);
    api.set_catalog(Arc::new(Catalog::new(kinds, catalog.parts.clone())));
    api.definitions.changed.notify(usize::MAX);
}

/// What else is wrong with an object besides what its schema says: its rules; a definition's rules.
pub(crate) fn check(target: &mut Target<'_>, new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let kind = target.kind;
    if kind.is_custom() {
        rules::check(kind, new, old, causes, &mut target.warnings);
    } else if causes.is_empty() && target.sub == Sub::Main && is_definition(kind) {
        causes.extend(rule_costs::check(new, old));
    }
}

fn is_definition(kind: &Kind) -> bool {
    kind.group == GROUP && kind.plural == PLURAL
}

/// Nothing new comes to what is being emptied (forbidCreateAdmission).
pub(crate) fn before_create(target: &Target<'_>, object: &Value) -> Result<(), Status> {
    let kind = target.kind;
    if kind.custom.as_ref().is_none_or(|custom| !custom.is_terminating) {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or("");
    let why = "create not allowed while custom resource definition is terminating";
    Err(Status::forbidden(&kind.group, &kind.plural, name, why))
}

/// What is worth a warning in a write that is none the less taken.
pub(crate) fn warnings(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<String> {
    if kind.is_custom() {
        structural::finalizer_warnings(new, old)
    } else if is_definition(kind) {
        structural::format_warnings(new, old)
    } else {
        Vec::new()
    }
}

/// Returns when a custom kind is no longer served as it was; a built-in one is for ever.
pub(crate) async fn gone(api: &Api, kind: &Kind) {
    let Some(custom) = &kind.custom else { return std::future::pending().await };
    loop {
        listener!(api.definitions.changed => changed);
        let catalog = api.catalog();
        let now = catalog.by_resource(&kind.group, &kind.version, &kind.plural).and_then(|kind| kind.custom.as_ref());
        if now.is_none_or(|now| now.since != custom.since) {
            return;
        }
        changed.await;
    }
}

#[cfg(test)]
mod tests;
