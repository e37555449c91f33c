//! From nothing to an API server that answers: certificates, identities, the listener, what a cluster starts with.
use crate::{
    Api, Client, Error, Object, Patch, Rest, Settings, Status, Sub, aggregation,
    audit::{self, Auditor},
    auth::{
        Authenticator,
        secret_token::{LAST_USED, today},
        trust,
    },
    bootstrap,
    certs::{self, Certificates},
    driver,
    encryption::{self, Keyring},
    health::{Health, Progress, Scope},
    http::{
        self, Door, Front, Server,
        flow::{self, Flow, Maintenance},
    },
    metrics::{Metrics, Text},
    pods::PodBackend,
    rbac::{self, Aggregation, Authorizer, Policy},
    rest::KubeletDoor,
    tls,
};
use async_executor::Executor;
use mote_schema::json;
use mote_store::Store;
use std::{collections::BTreeSet, sync::Arc};

/// What has to be done before this server is what a cluster expects, by the names of upstream's checks for it.
const STEPS: [&[&str]; 4] = [
    &[
        "poststarthook/rbac/bootstrap-roles",
        "poststarthook/scheduling/bootstrap-system-priority-classes",
        "poststarthook/start-system-namespaces-controller",
        "poststarthook/bootstrap-controller",
        "poststarthook/start-kubernetes-service-cidr-controller",
        "poststarthook/start-service-ip-repair-controllers",
        "poststarthook/start-legacy-token-tracking-controller",
        "poststarthook/start-apiserver-admission-initializer",
        "poststarthook/generic-apiserver-start-informers",
        "poststarthook/storage-readiness",
    ],
    &[
        "poststarthook/apiservice-registration-controller",
        "poststarthook/apiservice-status-local-available-controller",
        "poststarthook/apiservice-status-remote-available-controller",
        "poststarthook/kube-apiserver-autoregistration",
        "autoregister-completion",
        "poststarthook/start-kube-aggregator-informers",
        "poststarthook/apiservice-openapi-controller",
    ],
    &["poststarthook/start-cluster-authentication-info-controller"],
    &[
        "poststarthook/start-apiextensions-informers",
        "poststarthook/start-apiextensions-controllers",
        "poststarthook/crd-informer-synced",
        "poststarthook/priority-and-fairness-config-consumer",
        "poststarthook/priority-and-fairness-config-producer",
    ],
];

pub struct Config {
    pub certificates: certs::Options,
    pub http: http::Config,
    pub settings: Settings,
    /// None: no request is written down.
    pub audit: Option<audit::Config>,
    /// What the store was opened with, so that it follows its file; None: nothing is encrypted.
    pub keyring: Option<Arc<Keyring>>,
}

/// A running API server.
pub struct Running {
    pub api: Arc<Api>,
    pub server: Server,
    pub certificates: Arc<Certificates>,
    /// Other components add their checks and figures.
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
}

impl Running {
    pub fn client(&self) -> Client {
        self.api.client()
    }

    /// The kubelet of this process answers from now on, to the API server and at a port of its own (0: at none).
    pub fn set_kubelet(&self, backend: Arc<dyn PodBackend>, port: u16) -> Result<(), Error> {
        let (api, node) = (self.api.clone(), backend.node_name().to_owned());
        api.set_pods(backend.clone());
        match port {
            0 => Ok(()),
            port => self.server.open(port, Door { node, handler: Arc::new(KubeletDoor { api, backend }) }),
        }
    }
}

/// Listens as soon as it can; `/readyz` fails until the bootstrap objects are there, which is when this returns.
pub fn start(
    store: Arc<Store>,
    executor: Arc<Executor<'static>>,
    config: Config,
) -> driver::BoxFuture<'static, Result<Running, Error>> {
    Box::pin(run(store, executor, config))
}

async fn run(store: Arc<Store>, executor: Arc<Executor<'static>>, config: Config) -> Result<Running, Error> {
    let issuer = format!("https://kubernetes.default.svc.{}", config.certificates.cluster_domain);
    let options = config.certificates;
    let certificates = Arc::new(crate::unblock(move || Certificates::open(options)).await?);
    crate::background::spawn(&executor, certificates.clone().keep_fresh());

    if let Some(keyring) = config.keyring.clone() {
        crate::background::spawn(&executor, encryption::keep_fresh(keyring, store.clone()));
    }
    let api = Api::new(store, executor.clone(), config.settings);
    crate::custom::refresh(&api);
    // The server lives as long as the process: its parts may hold each other.
    let lookup = {
        let api = api.clone();
        Arc::new(move |plural: &str, namespace: &str, name: &str| api.lookup("", "v1", plural, namespace, name))
    };
    let authenticator = Arc::new(Authenticator::new(certificates.token_keys(), &issuer, lookup));
    let client = api.client();
    // A second one would be the same.
    let _ = authenticator.note_use.set(Box::new({
        let client = client.clone();
        move |secret| client.spawn(note_use(client.clone(), secret))
    }));
    let authorizer = Authorizer::new({
        let client = client.clone();
        move || Policy::load(&client)
    });
    let authorizer = Arc::new(authorizer.with_objects({
        let api = api.clone();
        move |group, plural, namespace| api.list_within(group, plural, namespace)
    }));
    api.secure(authenticator.clone(), authorizer.clone());

    let health = Arc::new(Health::new());
    let metrics = Arc::new(Metrics::new());
    metrics.source({
        let api = api.clone();
        move |text| {
            count_objects(&api, text);
            crate::feed::write_metrics(&api, text);
            count_store(&api, text);
            api.wear.figures(text);
            api.webhooks.figures(text);
            aggregation::figures(&api, text);
        }
    });
    for (name, scope, is_there) in
        [("etcd", Scope::Both, true), ("etcd-readiness", Scope::Ready, api.store.is_shared())]
    {
        let store = api.store.clone();
        if is_there {
            health.register(name, scope, move || match store.trouble() {
                // Reads go on, and starting anew gives no disk room: the node's condition tells.
                None | Some(mote_store::Error::Full | mote_store::Error::ReadOnly) => Ok(()),
                Some(error) => Err(error.to_string()),
            });
        }
    }
    if api.store.is_shared() {
        crate::background::spawn(&executor, follow_others(api.clone(), rbac::GROUP, forget_decisions));
        crate::background::spawn(&executor, follow_others(api.clone(), crate::custom::PREFIX, crate::custom::refresh));
    }
    let progress = Progress::new(&health, &STEPS);
    health.register("store-undamaged", Scope::Told, {
        let api = api.clone();
        move || match api.store.stats().damaged {
            0 => Ok(()),
            count => Err(format!("{count} keys or places are damaged: see `mote status`")),
        }
    });
    let handler = Arc::new(Rest::new(api.clone()));
    let mut front = Front::new(authenticator, authorizer.clone(), health.clone(), metrics.clone(), handler);
    if let Some(keyring) = config.keyring {
        metrics.source(move |text| keyring.write_metrics(text));
    }
    front.front_proxy_authority = Box::new({
        let certificates = certificates.clone();
        move || certificates.front_proxy_authority()
    });
    front.auditor = config.audit.and_then(|config| Auditor::new(config, executor.clone()));
    if let Some(auditor) = front.auditor.clone() {
        metrics.source(move |text| auditor.write_metrics(text));
    }
    front.flow = Arc::new(Flow::new({
        let api = api.clone();
        move || {
            let all = |plural| api.list_within(flow::GROUP, plural, "");
            (all("flowschemas"), all("prioritylevelconfigurations"))
        }
    }));
    let flow = front.flow.clone();
    metrics.source({
        let flow = flow.clone();
        move |text| flow.write_metrics(text)
    });
    let server = http::serve(config.http, tls::server_config(&certificates)?, front, executor.clone())?;
    let failed = |status: Status| Error::Bootstrap { message: status.to_string() };
    api.aggregation.identify({
        let certificates = certificates.clone();
        Box::new(move || certificates.front_proxy_client())
    });
    let kubelet_client = certificates.clone();
    // A second one would be the same.
    let _ = api.kubelet_client.set(Box::new(move || kubelet_client.kubelet_client()));
    crate::events::found(&api).await;
    bootstrap::ensure(&client).await.map_err(failed)?;
    progress.step();
    aggregation::start(&client).await.map_err(failed)?;
    progress.step();
    trust::publish(&client, &certificates).await.map_err(failed)?;
    progress.step();
    crate::background::spawn(&executor, trust::follow(client.clone(), certificates.clone()));
    let aggregator = "system:serviceaccount:kube-system:clusterrole-aggregation-controller";
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
    driver::start(&client, Arc::new(Aggregation::new(client.as_user(aggregator, &groups), authorizer)));
    crate::custom::start(&client);
    driver::start(&client, Arc::new(Maintenance::new(client.clone(), flow))).add(driver::Key::new("", "all"));
    progress.step();
    // Whoever reads reads the store, so there is nothing to wait for but the above.
    health.register("informer-sync", Scope::Ready, || Ok(()));
    Ok(Running { api, server, certificates, health, metrics })
}

fn forget_decisions(api: &Api) {
    if let Ok(security) = api.security() {
        security.authorizer.invalidate();
    }
}

/// What this server does after a write of its own to such keys, after those of others.
async fn follow_others(api: Arc<Api>, prefix: &'static str, act: fn(&Api)) {
    loop {
        let Ok(mut watcher) = api.store.watch(prefix, api.store.revision()) else { return };
        act(&api);
        while watcher.next().await.is_ok() {
            act(&api);
        }
    }
}

/// Labels a Secret whose token was used; the identity guards against another of the same name.
async fn note_use(client: Client, secret: Object) {
    let patch = json!({"metadata": {"uid": secret.uid(), "labels": {LAST_USED: today()}}});
    let patched = client.patch(&secret.kind, secret.namespace(), secret.name(), Sub::Main, Patch::Merge(patch)).await;
    if let Err(status) = patched {
        tracing::warn!(%status, namespace = secret.namespace(), name = secret.name(), "noting a token's use");
    }
}

/// What the store costs the disk.
fn count_store(api: &Api, text: &mut Text) {
    let stats = api.store.stats();
    for (name, kind, help, value) in [
        ("written_bytes_total", "counter", "Bytes that went to the disk.", stats.written_bytes),
        ("syncs_total", "counter", "Flushes of files, to the disk itself.", stats.syncs),
        ("commits_durable_total", "counter", "Commits flushed before they were acknowledged.", stats.durable_commits),
        ("commits_lazy_total", "counter", "Commits that wait for a flush.", stats.lazy_commits),
        ("commits_volatile_total", "counter", "Commits that no flush is for.", stats.volatile_commits),
        ("flushes_total", "counter", "Batches in the journal.", stats.flushes),
        ("failed_flushes_total", "counter", "Batches that could not be written.", stats.failed_flushes),
        ("rounds_total", "counter", "Times the database was brought up to date.", stats.rounds),
        ("journal_bytes", "gauge", "The journal's file.", stats.journal_bytes),
        ("database_bytes", "gauge", "The database's file.", stats.file_bytes),
        ("live_bytes", "gauge", "Keys and values there are.", stats.live_bytes as u64),
        ("lazy_keys", "gauge", "Keys whose newest value is not on disk yet.", stats.lazy_keys as u64),
        ("projected_bytes_a_year", "gauge", "What a year like the time since the start writes.", stats.bytes_a_year),
        (
            "damaged_keys",
            "gauge",
            "Keys, and places of the files, that were found damaged and are not mended.",
            stats.damaged as u64,
        ),
        (
            "over_budget",
            "gauge",
            "1 while more is written than the board's flash is to take.",
            stats.over_budget.into(),
        ),
    ] {
        text.family(&["mote_store_", name].concat(), kind, help);
        text.sample("", "", value as f64);
    }
    for (name, help, latency) in [
        (
            "mote_store_flush_duration_seconds",
            "What a batch of the journal took to be on the disk.",
            stats.flush_latency,
        ),
        ("mote_store_commit_duration_seconds", "What a durable commit waited to be on the disk.", stats.commit_latency),
    ] {
        text.family(name, "histogram", help);
        let (bounds, counts) = latency.buckets();
        text.histogram("", bounds, counts, latency.total, latency.sum_seconds);
    }
}

/// Counted when somebody reads the metrics.
fn count_objects(api: &Api, text: &mut Text) {
    let snapshot = api.store.snapshot();
    let mut counts = Vec::new();
    let mut seen = BTreeSet::new();
    for kind in api.catalog().kinds.iter().filter(|kind| !kind.virtual_kind) {
        // Versions of a kind share their objects.
        if seen.insert(kind.prefix.to_string()) {
            let count = snapshot.range(&kind.prefix, None).count();
            counts.push((kind.group.to_string(), kind.plural.to_string(), count as f64));
        }
    }
    text.family("apiserver_resource_objects", "gauge", "Objects there are, by kind.");
    for (group, resource, count) in &counts {
        text.sample("", &format!("group={group:?},resource={resource:?}"), *count);
    }
    // The older name of the same, which has both in one label.
    text.family("apiserver_storage_objects", "gauge", "Objects there are, by kind.");
    for (group, resource, count) in &counts {
        let dot = if group.is_empty() { "" } else { "." };
        text.sample("", &format!("resource=\"{resource}{dot}{group}\""), *count);
    }
    let stats = api.store.stats();
    text.family("apiserver_storage_size_bytes", "gauge", "What journal and database take on disk.");
    text.sample("", "storage_cluster_id=\"etcd-0\"", (stats.journal_bytes + stats.file_bytes) as f64);
}
