//! Storage of every kind in one path: get, list, create, update, patch, delete. What differs between kinds is in
//! the field table (defaults, validation, strategies), in `behavior` and in `admission`; nothing here names a kind.
//!
//! A write goes: decode (prune, complain) -> metadata -> defaults -> owners of fields -> mutate (admission, defaults) -> strategy ->
//! validate -> admission's last word -> one store transaction. Stored Docs hold neither apiVersion, kind nor resourceVersion.
mod create;
mod delete;
pub(crate) mod meta;
mod owners;
mod patch;
mod update;

use crate::{
    Sub,
    custom::convert::Encoded,
    feed,
    http::User,
    server::{self, Api},
};
use mote_schema::{Doc, Kind, Object, Status, Value, managed::Ordered};
use mote_store::{Class, Entry, Error, Key, Precondition, Transaction, Write};
use std::sync::Arc;

pub(crate) use delete::Deleted;
pub(crate) use meta::{format_time, new_uid, now, random};
pub(crate) use owners::{Owners, apply_part, track_part};
pub(crate) use patch::patched;
pub(crate) use update::{check_name, check_uid};

/// `fieldValidation`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub dry_run: bool,
    pub validation: FieldValidation,
    /// The target's manager is what the client called itself, not made from its program's name.
    pub names_manager: bool,
}

/// What one write is aimed at, and by whom.
pub struct Target<'a> {
    pub user: &'a User,
    pub kind: &'a Arc<Kind>,
    /// The version that the request named, where `kind` is what its objects are stored as.
    pub asked: &'a Arc<Kind>,
    pub namespace: &'a str,
    /// "" for a create.
    pub name: &'a str,
    pub sub: Sub,
    pub options: Options,
    /// Asked by a part of this process, which holds no more than it was built to do.
    pub internal: bool,
    /// Admission was asked already, about the part that brings this write about (a Scale, an Eviction).
    pub is_admitted: bool,
    /// Who owns the fields this writes.
    pub manager: &'a str,
    /// Set when the write made an object that was not there.
    pub created: bool,
    /// What is to be created names a revision: upstream's store refuses that, when all others have agreed.
    pub sets_revision: bool,
    /// Shown to the client as Warning headers.
    pub warnings: Vec<String>,
}

impl<'a> Target<'a> {
    /// The kind whose rules hold: both faces of an Event are one stored object, and the newer one is stricter.
    fn judged_as(&self) -> &'a Arc<Kind> {
        if self.asked.kind == "Event" { self.asked } else { self.kind }
    }

    pub(crate) fn new(user: &'a User, kind: &'a Arc<Kind>, namespace: &'a str, name: &'a str, sub: Sub) -> Target<'a> {
        let options = Options::default();
        let (manager, created, internal, is_admitted, warnings) = ("", false, false, false, Vec::new());
        Target {
            user,
            kind,
            asked: kind,
            namespace,
            name,
            sub,
            options,
            manager,
            created,
            internal,
            is_admitted,
            sets_revision: false,
            warnings,
        }
    }

    /// The same target at another kind or part; its warnings are its own.
    pub(crate) fn at(&self, kind: &'a Arc<Kind>, sub: Sub) -> Target<'a> {
        let target = Target::new(self.user, kind, self.namespace, self.name, sub);
        let Target { options, asked, manager, internal, is_admitted, sets_revision, .. } = *self;
        Target { options, asked, manager, internal, is_admitted, sets_revision, ..target }
    }
}

/// What goes with an object's own write in one transaction (quota it is charged to, addresses it takes, Events that make
/// room), and what is held until that is done.
#[derive(Default)]
pub(crate) struct Beside {
    pub preconditions: Vec<(Key, Precondition)>,
    pub writes: Vec<Write>,
    pub holds: Vec<Box<dyn Send + Sync>>,
}

impl Target<'_> {
    pub(crate) fn key(&self, name: &str) -> Key {
        self.kind.key(self.namespace, name).into()
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.kind.group, &self.kind.plural, self.name)
    }

    pub(crate) fn conflict(&self, detail: &str) -> Status {
        Status::conflict(&self.kind.group, &self.kind.plural, self.name, detail)
    }

    /// Decodes what a client sent: types checked, unknown fields dropped and complained about as asked.
    pub(crate) fn decode(&mut self, value: &mut Value, duplicates: Vec<String>) -> Result<(), Status> {
        self.decode_as(self.kind, value, duplicates)
    }

    /// The same for what is of another kind than the target: a Binding that is posted to a Pod.
    pub(crate) fn decode_as(&mut self, kind: &Kind, value: &mut Value, duplicates: Vec<String>) -> Result<(), Status> {
        crate::audit::request_object(value);
        self.fit(kind, value, Vec::new(), duplicates).map_err(|text| {
            let (name, version) = (&kind.kind, &kind.version);
            Status::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {text}"))
        })
    }

    /// The same for what a patch came to; the error is only what is wrong.
    fn fit(
        &mut self,
        kind: &Kind,
        value: &mut Value,
        mut complaints: Vec<String>,
        mut last: Vec<String>,
    ) -> Result<(), String> {
        // An empty list asks for no owners, where its absence asks for nothing.
        let resets = value["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty);
        complaints.append(&mut mote_schema::prune::clean(kind, value)?);
        if resets {
            value["metadata"]["managedFields"] = mote_schema::json!([]);
        }
        complaints.append(&mut last);
        match self.options.validation {
            FieldValidation::Strict if !complaints.is_empty() => {
                Err(format!("strict decoding error: {}", complaints.join(", ")))
            }
            FieldValidation::Warn => {
                self.warn(&complaints);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Complaints as warnings; those of a YAML reader one for each line (endpoints/handlers/rest.go, parseYAMLWarnings).
    pub(crate) fn warn(&mut self, complaints: &[String]) {
        for complaint in complaints {
            match complaint.strip_prefix(YAML_ERRORS) {
                Some(lines) => self.warnings.extend(lines.lines().map(|line| line.trim().to_owned())),
                None => self.warnings.push(complaint.clone()),
            }
        }
    }
}

/// What a YAML reader says of several lines.
const YAML_ERRORS: &str = "yaml: unmarshal errors:\n";

/// Why an optimistic write did not take.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Tries of an update without a resourceVersion before it is given up (upstream's GuaranteedUpdate goes on until
/// the deadline; a single writer cannot lose this often unless the others never stop).
pub(crate) const MAX_TRIES: usize = 64;

/// Why there is no such object: what cannot be part of a key is never stored (apimachinery/pkg/api/validation/path).
fn missing(kind: &Kind, name: &str) -> Status {
    let wrong = match name {
        "." | ".." => format!("may not be '{name}'"),
        _ if name.contains('%') => "may not contain '%'".to_owned(),
        _ => return Status::not_found(&kind.group, &kind.plural, name),
    };
    Status::bad_request(format!("Name parameter invalid: {name:?}: {wrong}"))
}

impl Api {
    pub(crate) fn get(&self, kind: &Arc<Kind>, namespace: &str, name: &str) -> Result<Object, Status> {
        let key = kind.key(namespace, name);
        if let Some(entry) = self.store.snapshot().get(&key) {
            return Ok(feed::object(kind, &entry));
        }
        match self.store.unreadable(&key).filter(|found| *found.key == *key) {
            Some(unreadable) => Err(Status::internal(unreadable)),
            None => Err(missing(kind, name)),
        }
    }

    /// A list that lacks what cannot be decrypted would be taken for all there is.
    pub(crate) fn check_readable(&self, prefix: &str) -> Result<(), Status> {
        self.store.unreadable(prefix).map_or(Ok(()), |unreadable| Err(Status::internal(unreadable)))
    }

    /// The key prefix of all objects of a kind, or of those in one namespace.
    pub(crate) fn list_prefix(&self, kind: &Kind, namespace: &str) -> String {
        if kind.namespaced && !namespace.is_empty() {
            format!("{}{namespace}/", kind.prefix)
        } else {
            kind.prefix.to_string()
        }
    }

    /// Encodes for storage.
    pub(crate) fn encode(mut value: Value) -> Result<Doc, Status> {
        if let Some(root) = value.as_object_mut() {
            root.remove("apiVersion");
            root.remove("kind");
            if let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("resourceVersion");
                metadata.remove("selfLink");
            }
        }
        Doc::encode(&Ordered(&value))
            .map_err(|error| Status::bad_request(format!("object cannot be stored: {error:?}")))
    }

    /// Commits one object's new bytes together with what must go with them.
    async fn put(
        &self,
        target: &Target<'_>,
        key: Key,
        condition: Precondition,
        encoded: Encoded,
        beside: Beside,
    ) -> Result<Object, Error> {
        let write = Write::Put(key.clone(), encoded.stored.bytes().clone());
        let mut class = server::write_class(&self.settings.volatile, target.kind, target.sub, target.namespace);
        let is_renewal = |before: Entry| server::is_renewal(Doc::trusted(before.value).root(), encoded.stored.root());
        if server::is_lease(target.kind) && self.store.snapshot().get(&key).is_some_and(is_renewal) {
            class = if self.settings.volatile.persist_leases { Class::Lazy } else { Class::Volatile };
        }
        let revision = self.commit(target.kind, class, (key, condition), write, beside).await?;
        Ok(Object { kind: target.kind.clone(), doc: encoded.shown, revision })
    }

    /// Takes an object away, and what it held.
    async fn remove(
        &self,
        target: &Target<'_>,
        key: Key,
        condition: Precondition,
        beside: Beside,
    ) -> Result<u64, Error> {
        let class = server::write_class(&self.settings.volatile, target.kind, Sub::Main, target.namespace);
        self.commit(target.kind, class, (key.clone(), condition), Write::Delete(key), beside).await
    }

    /// Every write of the API goes through here. Who may do what is decided anew as soon as a role has changed.
    async fn commit(
        &self,
        kind: &Kind,
        class: Class,
        condition: (Key, Precondition),
        write: Write,
        beside: Beside,
    ) -> Result<u64, Error> {
        let Beside { mut preconditions, mut writes, holds } = beside;
        preconditions.insert(0, condition);
        writes.insert(0, write);
        let bytes = crate::wear::bytes_of(&writes);
        let revision = self.store.commit(Transaction { class, preconditions, writes }).await?;
        drop(holds);
        self.wear.note(kind, class, bytes);
        if kind.group == crate::rbac::GROUP
            && let Ok(security) = self.security()
        {
            security.authorizer.invalidate();
        }
        if kind.group == crate::custom::GROUP {
            crate::custom::refresh(self);
        }
        Ok(revision)
    }
}

/// A store's refusal that is nobody's conflict.
pub(crate) fn storage_error(error: Error) -> Status {
    match error {
        // Not etcd's 500 ("mvcc: database space exceeded"), which looks like a fault of the server. Without Retry-After
        // client-go does not repeat a 507 by itself: kubectl says it at once, a controller comes back with its backoff.
        Error::Full => {
            Status::new(507, "InsufficientStorage", "the disk is full: nothing can be stored until space is freed")
        }
        Error::ReadOnly => Status::new(503, "ServiceUnavailable", "the data directory is read-only"),
        Error::Closed => {
            let mut status = Status::new(503, "ServiceUnavailable", "the server is shutting down");
            status.retry_after_seconds = Some(1);
            status
        }
        Error::Unreadable(entry) => Status::internal(entry),
        // endpoints/handlers/rest.go, isTooLargeError
        // etcd's own word, and its gRPC library's for what is larger still.
        Error::Remote { message, .. }
            if message.contains("request is too large") || message.contains("received message larger than max") =>
        {
            Status::new(413, "RequestEntityTooLarge", "request is too large")
        }
        // Nothing was done, so it can be asked again without a second thought.
        Error::Remote { message, undone: true } => {
            let mut status = Status::new(503, "ServiceUnavailable", message);
            status.retry_after_seconds = Some(1);
            status
        }
        // Upstream passes etcd's words on (responsewriters/status.go, ErrorToAPIStatus).
        Error::Remote { message, .. } => Status::new(500, "", message),
        Error::Damaged { doing, message } | Error::Storage { doing, message } => {
            Status::internal(format!("{doing}: {message}"))
        }
        // Something that goes with the object was changed by somebody else at the same moment.
        Error::Precondition { key, .. } => {
            Status::new(409, "Conflict", format!("the state behind {key} has been modified; please try again"))
        }
        other => Status::internal(format!("{other:?}")),
    }
}
