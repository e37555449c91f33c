//! The API server without its sockets: the state every request shares. HTTP handlers and in-process clients are
//! two doors to the same rooms.
use crate::{
    Client, Object,
    auth::Authenticator,
    feed::{self, Feed},
    http::User,
    pods::PodBackend,
    rbac::{Attributes, Authorizer},
};
use async_executor::Executor;
use mote_schema::{Catalog, Kind, Ref, Status, convert};
use mote_store::{Class, Store};
use std::{
    net::Ipv4Addr,
    ops::RangeInclusive,
    sync::{Arc, OnceLock, RwLock},
    time::Duration,
};

/// What the configuration and the board profile decide.
#[derive(Clone, Debug)]
pub struct Settings {
    pub service_cidr: (Ipv4Addr, u8),
    pub node_port_range: RangeInclusive<u16>,
    pub advertise_address: Ipv4Addr,
    pub port: u16,
    /// Whether this process answers names at the tenth address of `service_cidr`.
    pub serves_dns: bool,
    /// Events kept in memory at most; the oldest go first.
    pub max_events: usize,
    pub volatile: Volatile,
}

/// What may be lost with the power, and which of it is written to flash all the same, as status is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volatile {
    /// kube-apiserver's --event-ttl.
    pub event_ttl: Duration,
    pub persist_events: bool,
    /// Of nodes; others are durable but for their renewals.
    pub persist_leases: bool,
    /// The status of nodes.
    pub persist_heartbeats: bool,
}

impl Default for Volatile {
    fn default() -> Volatile {
        let event_ttl = Duration::from_secs(3600);
        Volatile { event_ttl, persist_events: false, persist_leases: false, persist_heartbeats: false }
    }
}

pub struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) executor: Arc<Executor<'static>>,
    pub(crate) settings: Settings,
    pub(crate) feed: Feed,
    pub(crate) events: crate::events::Recorder,
    pub(crate) wear: crate::wear::Wear,
    pub(crate) aggregation: crate::aggregation::Aggregation,
    pub(crate) outbound: Arc<crate::outbound::Outbound>,
    pub(crate) webhooks: crate::admission::hooks::Configurations,
    pub(crate) policies: crate::admission::policy::Policies,
    /// Cluster addresses and node ports of Services that are being written.
    pub(crate) reservations: crate::behavior::Reservations,
    pub(crate) quota_locks: crate::admission::QuotaLocks,
    /// What watches wrote last.
    pub(crate) frames: crate::rest::Shared,
    pub(crate) lengths: crate::rest::Lengths,
    pub(crate) definitions: crate::custom::Definitions,
    catalog: RwLock<Arc<Catalog>>,
    pods: OnceLock<Arc<dyn PodBackend>>,
    /// What kubelets outside of this process are shown; set once, before the first request.
    pub(crate) kubelet_client: OnceLock<crate::outbound::Identity>,
    security: OnceLock<Security>,
    /// Parts that run in this process, as ComponentStatuses are named.
    components: OnceLock<Vec<&'static str>>,
}

/// Who a caller is, and what they may do.
pub(crate) struct Security {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
}

impl Api {
    pub fn new(store: Arc<Store>, executor: Arc<Executor<'static>>, settings: Settings) -> Arc<Api> {
        Arc::new(Api {
            events: crate::events::Recorder::new(settings.max_events, settings.volatile.event_ttl),
            wear: Default::default(),
            aggregation: Default::default(),
            outbound: crate::outbound::Outbound::new(executor.clone()),
            webhooks: Default::default(),
            policies: Default::default(),
            store,
            executor,
            settings,
            feed: Feed::new(),
            reservations: crate::behavior::Reservations::default(),
            quota_locks: crate::admission::QuotaLocks::new(),
            frames: Default::default(),
            lengths: Default::default(),
            definitions: Default::default(),
            catalog: RwLock::new(Arc::new(Catalog::builtin())),
            pods: OnceLock::new(),
            kubelet_client: OnceLock::new(),
            security: OnceLock::new(),
            components: OnceLock::new(),
        })
    }

    /// The server's own identity, as upstream's loopback client.
    pub fn client(self: &Arc<Self>) -> Client {
        Client::new(self.clone(), Arc::new(User::new("system:apiserver", &["system:masters", "system:authenticated"])))
    }

    /// Set once, before the first request.
    pub fn secure(&self, authenticator: Arc<Authenticator>, authorizer: Arc<Authorizer>) {
        if self.security.set(Security { authenticator, authorizer }).is_err() {
            tracing::warn!("authentication is already set up; the second set is ignored");
        }
    }

    pub(crate) fn security(&self) -> Result<&Security, Status> {
        self.security.get().ok_or_else(|| Status::internal("authentication is not set up yet"))
    }

    /// May a part of this process do that?
    pub(crate) fn authorize(&self, user: &User, asked: &Attributes<'_>) -> Result<(), Status> {
        self.security()?.authorizer.authorize_part(user, asked)
    }

    /// One object, for the server's own checks.
    pub fn lookup(&self, group: &str, version: &str, plural: &str, namespace: &str, name: &str) -> Option<Object> {
        let catalog = self.catalog();
        self.get(catalog.by_resource(group, version, plural)?, namespace, name).ok()
    }

    /// Every object of a kind, for the server's own indexes.
    pub fn list_all(&self, group: &str, version: &str, plural: &str) -> Vec<Object> {
        let catalog = self.catalog();
        let Some(kind) = catalog.by_resource(group, version, plural) else { return Vec::new() };
        self.store.snapshot().range(&kind.prefix, None).map(|entry| feed::object(kind, &entry)).collect()
    }

    /// Every object of a kind in a namespace ("": all of it), at the version the kind is stored as.
    pub(crate) fn list_within(&self, group: &str, plural: &str, namespace: &str) -> Vec<Object> {
        let catalog = self.catalog();
        let kind = catalog.kinds.iter().find(|kind| kind.group == group && kind.plural == plural);
        let Some(kind) = kind.map(|kind| self.stored_kind(kind)) else { return Vec::new() };
        let prefix = self.list_prefix(&kind, namespace);
        self.store.snapshot().range(&prefix, None).map(|entry| feed::object(&kind, &entry)).collect()
    }

    /// What others have written to the same store before now is seen, and served, from here on.
    pub(crate) async fn catch_up(&self) {
        if self.store.is_shared() {
            self.store.catch_up().await;
            crate::custom::refresh(self);
        }
    }

    /// The kubelet of this process answers for pods from now on.
    pub fn set_pods(&self, backend: Arc<dyn PodBackend>) {
        if self.pods.set(backend).is_err() {
            tracing::warn!("a pod back end is already set; the second one is ignored");
        }
    }

    /// Which of "scheduler" and "controller-manager" this process is; told once.
    pub fn set_components(&self, components: Vec<&'static str>) {
        if self.components.set(components).is_err() {
            tracing::warn!("the parts of this process are already known");
        }
    }

    pub(crate) fn runs(&self, component: &str) -> bool {
        self.components.get().is_some_and(|known| known.contains(&component))
    }

    /// The kubelet of this process, if it is that node's.
    pub(crate) fn kubelet_of(&self, node: &str) -> Option<&Arc<dyn PodBackend>> {
        self.pods.get().filter(|backend| backend.node_name() == node)
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn set_catalog(&self, catalog: Arc<Catalog>) {
        *self.catalog.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = catalog;
    }

    /// The kind as whose version this one's objects are stored: itself, but for a few.
    pub(crate) fn stored_kind(&self, kind: &Arc<Kind>) -> Arc<Kind> {
        let (group, version) = convert::stored_as(kind);
        let catalog = self.catalog();
        catalog.by_kind(group, version, &kind.kind).unwrap_or(kind).clone()
    }

    /// Which kind a store key belongs to: "pods/ns/name" or "apps/deployments/ns/name". Where several versions of
    /// one kind share a prefix, the stored one answers.
    pub(crate) fn kind_of_key(&self, key: &str) -> Option<Arc<Kind>> {
        let first = key.find('/')? + 1;
        let second = key[first..].find('/').map(|at| first + at + 1);
        let catalog = self.catalog();
        let stored = |k: &Arc<Kind>, prefix: &str| k.prefix == prefix && !k.virtual_kind && !convert::is_needed(k);
        let by_prefix = |prefix: &str| catalog.kinds.iter().find(|k| stored(k, prefix)).cloned();
        by_prefix(&key[..first]).or_else(|| by_prefix(&key[..second?]))
    }
}

/// The write class of every kind and part, in one place. What a client creates is durable; status can be made
/// again by whoever reported it; heartbeats and Events are worth no flash at all, unless the configuration says so. See
/// also `is_renewal`.
pub(crate) fn write_class(volatile: &Volatile, kind: &Kind, sub: crate::Sub, namespace: &str) -> Class {
    let unless = |persist: bool| if persist { Class::Lazy } else { Class::Volatile };
    match (kind.group.as_ref(), kind.plural.as_ref(), sub) {
        _ if namespace == "kube-node-lease" && is_lease(kind) => unless(volatile.persist_leases),
        ("" | "events.k8s.io", "events", _) => unless(volatile.persist_events),
        ("", "nodes", crate::Sub::Status) => unless(volatile.persist_heartbeats),
        (_, _, crate::Sub::Status) => Class::Lazy,
        _ => Class::Durable,
    }
}

/// Whether a Lease is as it was but for the time of its renewal, which is worth no flash. A restart then shows an older
/// time, which candidates wait out; a Lease that was gone, two of them would hold at once (client-go's leaderelection.go).
pub(crate) fn is_renewal(old: Ref<'_>, new: Ref<'_>) -> bool {
    const RENEWED: [&str; 2] = ["renewTime", "managedFields"];
    let differs =
        |(name, value): (&str, Ref<'_>), other: Ref<'_>| !RENEWED.contains(&name) && !value.is_same(other.get(name));
    ["metadata", "spec"].iter().all(|part| {
        let (old, new) = (old.get(part), new.get(part));
        !old.entries().any(|entry| differs(entry, new)) && !new.entries().any(|entry| differs(entry, old))
    })
}

pub(crate) fn is_lease(kind: &Kind) -> bool {
    kind.plural == "leases" && kind.group == "coordination.k8s.io"
}
