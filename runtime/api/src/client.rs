//! The in-process client: what controllers, scheduler, kubelet and network use instead of HTTP. It enters the
//! request path at *authorize* with an identity of its own and passes the same admission as everybody.
//! Reads come from the store's current root in memory: no I/O, no copy.
//!
//! Writes are boxed futures: an `async fn` is compiled once more in every crate that awaits it, with all that it awaits.
use crate::{driver::BoxFuture, feed, http::User, rbac::Attributes, registry::Target, server::Api};
use async_executor::Executor;
use event_listener::{Event, listener};
use mote_schema::{Cause, Kind, Map, Object, Status};
use mote_store::Snapshot;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub type Result<T> = std::result::Result<T, Status>;

/// Which part of an object a write goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    Main,
    Status,
    /// namespaces/finalize
    Finalize,
    /// certificatesigningrequests/approval
    Approval,
    /// pods/ephemeralcontainers
    EphemeralContainers,
    /// pods/resize
    Resize,
}

impl Sub {
    /// The path segment; "" for the object itself.
    pub fn name(self) -> &'static str {
        match self {
            Sub::Main => "",
            Sub::Status => "status",
            Sub::Finalize => "finalize",
            Sub::Approval => "approval",
            Sub::EphemeralContainers => "ephemeralcontainers",
            Sub::Resize => "resize",
        }
    }
}

#[derive(Clone, Debug)]
pub enum Patch {
    Json(mote_schema::Value),
    Merge(mote_schema::Value),
    Strategic(mote_schema::Value),
    /// Server-side apply: what the target's manager wants of the object, whole.
    Apply {
        config: mote_schema::Value,
        /// Takes fields that others own.
        force: bool,
    },
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub uid: Option<String>,
    pub resource_version: Option<u64>,
    pub grace_period_seconds: Option<i64>,
    /// "Background", "Foreground", "Orphan"; None is the kind's default.
    pub propagation: Option<String>,
}

impl DeleteOptions {
    /// From a `metav1.DeleteOptions` (or null).
    pub(crate) fn from_body(body: &mote_schema::Value) -> Result<DeleteOptions> {
        let preconditions = &body["preconditions"];
        let mut options = DeleteOptions {
            uid: preconditions["uid"].as_str().map(str::to_owned),
            resource_version: preconditions["resourceVersion"].as_str().map(crate::rest::precondition),
            grace_period_seconds: body["gracePeriodSeconds"].as_i64(),
            propagation: body["propagationPolicy"].as_str().map(str::to_owned),
        };
        if let Some(orphan) = body["orphanDependents"].as_bool() {
            options = options.orphaning(orphan)?;
        }
        options.checked()
    }

    /// The old word for it.
    pub(crate) fn orphaning(self, orphan: bool) -> Result<DeleteOptions> {
        if let Some(propagation) = self.propagation {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            return Err(invalid(Cause::invalid("propagationPolicy", &propagation.into(), detail)));
        }
        let propagation = Some(if orphan { "Orphan" } else { "Background" }.into());
        Ok(DeleteOptions { propagation, ..self })
    }

    pub(crate) fn checked(self) -> Result<DeleteOptions> {
        match self.propagation.as_deref() {
            None | Some("Orphan" | "Background" | "Foreground") => Ok(self),
            Some(other) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                Err(invalid(Cause::not_supported("propagationPolicy", &other.into(), &supported)))
            }
        }
    }
}

fn invalid(cause: Cause) -> Status {
    Status::invalid("meta.k8s.io", "DeleteOptions", "", vec![cause])
}

/// One object's change. Both sides are the stored bytes, shared.
#[derive(Clone)]
pub struct Change {
    pub revision: u64,
    pub kind: Arc<Kind>,
    pub old: Option<Object>,
    pub new: Option<Object>,
}

impl Change {
    /// The newer side there is.
    pub fn object(&self) -> &Object {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has a side")
    }
}

/// Whether a part may act: of several nodes on one store only the leader's parts do. What is closed waits, and writes of
/// what was under way are refused.
#[derive(Default)]
pub struct Gate {
    is_open: AtomicBool,
    changed: Event,
}

impl Gate {
    pub fn set(&self, open: bool) {
        self.is_open.store(open, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    pub async fn opened(&self) {
        loop {
            listener!(self.changed => changed);
            if self.is_open() {
                return;
            }
            changed.await;
        }
    }
}

/// Cheap to clone. `Client::as_user` gives each component its own identity.
#[derive(Clone)]
pub struct Client {
    api: Arc<Api>,
    user: Arc<User>,
    /// None: always open.
    gate: Option<Arc<Gate>>,
}

impl Client {
    pub(crate) fn new(api: Arc<Api>, user: Arc<User>) -> Client {
        Client { api, user, gate: None }
    }
    /// The same, and all made of it, behind a gate.
    pub fn behind(&self, gate: Arc<Gate>) -> Client {
        Client { gate: Some(gate), ..self.clone() }
    }
    /// Whether others write to the same store.
    pub fn is_shared(&self) -> bool {
        self.api.store.is_shared()
    }
    pub(crate) fn gate(&self) -> Option<&Arc<Gate>> {
        self.gate.as_ref()
    }
    pub(crate) fn api(&self) -> &Arc<Api> {
        &self.api
    }
    /// The same server under another identity, e.g. "system:kube-scheduler" or
    /// "system:serviceaccount:kube-system:deployment-controller"; groups as upstream gives that user.
    pub fn as_user(&self, name: &str, groups: &[&str]) -> Client {
        Client { user: Arc::new(User::new(name, groups)), ..self.clone() }
    }
    pub fn user(&self) -> &User {
        &self.user
    }
    pub fn executor(&self) -> &Arc<Executor<'static>> {
        &self.api.executor
    }
    /// Runs for the life of the process.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        crate::background::spawn(self.executor(), future);
    }
    /// The kind behind a k8s-openapi type.
    pub fn kind_of<K: k8s_openapi::Resource>(&self) -> Arc<Kind> {
        self.api.catalog().of::<K>().clone()
    }
    /// The kind behind group ("" for core), version and plural.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.api.catalog().by_resource(group, version, plural).cloned()
    }
    /// All kinds now served, at every version.
    pub fn catalog(&self) -> Arc<mote_schema::Catalog> {
        self.api.catalog()
    }
    /// Every stored kind now served, each once (at its preferred version).
    pub fn kinds(&self) -> Vec<Arc<Kind>> {
        let mut kinds: Vec<Arc<Kind>> = Vec::new();
        for kind in self.api.catalog().kinds.iter().filter(|kind| !kind.virtual_kind) {
            if !kinds.iter().any(|other| other.prefix == kind.prefix) {
                kinds.push(kind.clone());
            }
        }
        kinds
    }
    /// The store's newest visible state, for code that reads many objects at one revision.
    pub fn snapshot(&self) -> Snapshot {
        self.api.store.snapshot()
    }

    /// What is wrong with the disk behind the store: a reason for a condition, and a sentence. Reads go on all the same.
    pub fn store_trouble(&self) -> Option<(&'static str, String)> {
        use mote_store::Error;
        let why = match self.api.store.trouble() {
            Some(Error::Full) => ("DiskFull", "the disk is full: only what frees space is stored"),
            Some(Error::ReadOnly) => ("DiskReadOnly", "the data directory is read-only: nothing is stored"),
            Some(error @ Error::Remote { .. }) => return Some(("EtcdUnavailable", error.to_string())),
            Some(error) => return Some(("DiskFailing", error.to_string())),
            None if self.api.store.stats().over_budget => {
                let most = self.api.wear.most().unwrap_or_default();
                let why = "more is written than the board's flash is to take, most of it for";
                return Some(("FlashBudgetExceeded", format!("{why} {most}; status is stored less often")));
            }
            None => return None,
        };
        Some((why.0, why.1.to_owned()))
    }

    /// What of the store was damaged and is not mended, by key or place, and how much was found when it was opened.
    pub fn store_damage(&self) -> (Vec<String>, usize) {
        (self.api.store.damage(), self.api.store.damaged().len())
    }

    /// May somebody do something? For parts that decide in others' names.
    pub fn may(&self, user: &User, asked: &Attributes<'_>) -> bool {
        self.api.security().is_ok_and(|security| security.authorizer.allows(user, asked))
    }

    fn allow(&self, verb: &str, kind: &Kind, namespace: &str, name: &str, sub: &str) -> Result<()> {
        if self.gate.as_ref().is_some_and(|gate| !gate.is_open()) && !matches!(verb, "get" | "list") {
            return Err(Status::new(503, "ServiceUnavailable", "another node leads"));
        }
        self.api.authorize(&self.user, &Attributes::of(verb, kind, sub, namespace, name))
    }

    pub fn get(&self, kind: &Arc<Kind>, namespace: &str, name: &str) -> Result<Object> {
        self.allow("get", kind, namespace, name, "")?;
        self.api.get(kind, namespace, name)
    }
    /// All of a kind, in one namespace or (None) in all.
    pub fn list(&self, kind: &Arc<Kind>, namespace: Option<&str>) -> Result<Vec<Object>> {
        self.allow("list", kind, namespace.unwrap_or(""), "", "")?;
        let prefix = self.api.list_prefix(kind, namespace.unwrap_or(""));
        self.api.check_readable(&prefix)?;
        Ok(self.api.store.snapshot().range(&prefix, None).map(|entry| feed::object(kind, &entry)).collect())
    }
    /// `object` has apiVersion and kind or not; metadata.generateName works.
    pub fn create_value<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        namespace: &'a str,
        object: mote_schema::Value,
    ) -> BoxFuture<'a, Result<Object>> {
        Box::pin(async move {
            self.allow("create", kind, namespace, "", "")?;
            self.api.create(&mut self.target(kind, namespace, "", Sub::Main), object).await
        })
    }
    /// metadata.resourceVersion, when set, must match.
    pub fn update_value<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        sub: Sub,
        object: mote_schema::Value,
    ) -> BoxFuture<'a, Result<Object>> {
        Box::pin(async move {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or("").to_owned();
            let (namespace, name) = (text("namespace"), text("name"));
            self.allow("update", kind, &namespace, &name, sub.name())?;
            self.api.update(&mut self.target(kind, &namespace, &name, sub), object).await
        })
    }
    pub fn patch<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        namespace: &'a str,
        name: &'a str,
        sub: Sub,
        patch: Patch,
    ) -> BoxFuture<'a, Result<Object>> {
        Box::pin(async move {
            self.allow("patch", kind, namespace, name, sub.name())?;
            self.api.patch(&mut self.target(kind, namespace, name, sub), &patch).await
        })
    }
    pub fn delete<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        namespace: &'a str,
        name: &'a str,
        options: DeleteOptions,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.allow("delete", kind, namespace, name, "")?;
            self.api.delete(&mut self.target(kind, namespace, name, Sub::Main), &options).await.map(drop)
        })
    }
    /// POST to a subresource: "binding", "eviction", "token".
    pub fn create_sub<'a>(
        &'a self,
        kind: &'a Arc<Kind>,
        namespace: &'a str,
        name: &'a str,
        sub: &'a str,
        body: mote_schema::Value,
    ) -> BoxFuture<'a, Result<mote_schema::Value>> {
        Box::pin(async move {
            self.allow("create", kind, namespace, name, sub)?;
            crate::behavior::create_sub(&self.api, &mut self.target(kind, namespace, name, Sub::Main), sub, body).await
        })
    }

    fn target<'a>(&'a self, kind: &'a Arc<Kind>, namespace: &'a str, name: &'a str, sub: Sub) -> Target<'a> {
        let manager = manager_of(&self.user.name);
        Target { internal: true, manager, ..Target::new(&self.user, kind, namespace, name, sub) }
    }

    /// Records or counts up an Event (core/v1) as upstream's recorder does: the same (object, type, reason,
    /// message, component) within the last 10 minutes raises `count` and `lastTimestamp`. Never fails the caller.
    pub fn event(&self, about: &Object, type_: &str, reason: &str, message: &str) {
        self.event_at(about, "", type_, reason, message, Map::new());
    }
    /// `path` names a part of the object: `spec.containers{web}`.
    pub fn event_at(&self, about: &Object, path: &str, type_: &str, reason: &str, message: &str, annotations: Map) {
        crate::events::record(self, about, path, type_, reason, message, annotations);
    }
}

/// The name under which a component of this process owns fields: that of the upstream program which does its work.
fn manager_of(user: &str) -> &str {
    match user.strip_prefix("system:").unwrap_or(user) {
        "apiserver" => "kube-apiserver",
        name if name.starts_with("node:") => "kubelet",
        name if name.starts_with("serviceaccount:kube-system:") => "kube-controller-manager",
        name => name,
    }
}
