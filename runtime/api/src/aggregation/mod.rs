//! Aggregation: groups that another API server serves under `/apis/<group>/<version>` (kube-aggregator). `local` keeps the
//! APIServices of what this server serves itself, `availability` says which remote ones answer, `discovery` puts theirs
//! beside ours, `proxy` passes requests on. While no APIService names a Service, a request pays for one atomic read.
mod availability;
mod discovery;
mod local;
mod proxy;

pub(crate) use discovery::merge;
pub(crate) use proxy::answer;

use crate::{Client, driver, metrics::Text, outbound, server::Api};
use mote_schema::{Object, Ref, Status, Value};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

const GROUP: &str = "apiregistration.k8s.io";

#[derive(Default)]
pub(crate) struct Aggregation {
    remote: Mutex<BTreeMap<String, Remote>>,
    /// How many there are.
    count: AtomicUsize,
    identity: OnceLock<outbound::Identity>,
}

/// An APIService that names a Service.
#[derive(Clone)]
struct Remote {
    group: String,
    version: String,
    group_priority: i64,
    version_priority: i64,
    /// An `apidiscovery.k8s.io/v2` version, as the other server gave it.
    found: Option<Arc<Value>>,
    is_stale: bool,
    fetched: Option<Instant>,
    /// Checks that failed in a row.
    failures: u32,
    /// Of its OpenAPI v3 document, as its index has it.
    openapi: Option<String>,
    /// Its part of OpenAPI v2, as JSON.
    swagger: Option<Arc<[u8]>>,
}

/// Where a remote APIService is served.
#[derive(Clone)]
pub(crate) struct Route {
    name: String,
    namespace: String,
    service: String,
    port: u16,
    trust: outbound::Trust,
}

impl Aggregation {
    fn remote(&self) -> MutexGuard<'_, BTreeMap<String, Remote>> {
        self.remote.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Remote>)) {
        let mut remote = self.remote();
        change(&mut remote);
        self.count.store(remote.len(), Ordering::Release);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Set once, before the first request.
    pub(crate) fn identify(&self, identity: outbound::Identity) {
        // A second one would be the same.
        let _ = self.identity.set(identity);
    }
}

impl Route {
    /// None: the group is served here, or the APIService cannot be followed.
    fn of(service: &Object) -> Option<Route> {
        let spec = service.root().get("spec");
        let to = spec.get("service");
        if to.get("name").is_empty() {
            return None;
        }
        let bundle = spec.get("caBundle").str();
        let trust = match (spec.get("insecureSkipTLSVerify").is_true(), bundle) {
            (true, _) => outbound::Trust::Anyone,
            (false, "") => outbound::Trust::System,
            (false, bundle) => outbound::Trust::bundle(bundle).unwrap_or(outbound::Trust::Bundle("".into())),
        };
        Some(Route {
            name: service.name().to_owned(),
            namespace: to.get("namespace").str().to_owned(),
            service: to.get("name").str().to_owned(),
            port: port(to),
            trust,
        })
    }

    /// One of the Service's pods, over TLS that shows who we are.
    fn endpoint(&self, api: &Api) -> Result<outbound::Endpoint, String> {
        let place = outbound::resolve(api, &self.namespace, &self.service, self.port)?;
        let identity = api.aggregation.identity.get().and_then(|make| make());
        let server_name = format!("{}.{}.svc", self.service, self.namespace);
        Ok(outbound::Endpoint { place, tls: Some(outbound::Tls { server_name, trust: self.trust.clone(), identity }) })
    }
}

fn port(service: Ref<'_>) -> u16 {
    service.get("port").as_i64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(443)
}

fn condition(service: &Object) -> Ref<'_> {
    let conditions = service.root().at("status.conditions");
    conditions
        .items()
        .find(|condition| condition.get("type").str() == "Available")
        .unwrap_or_else(|| conditions.get("none"))
}

/// For whoever reads the metrics (kube-aggregator/pkg/controllers/status/metrics).
pub(crate) fn figures(api: &Api, text: &mut Text) {
    text.family("aggregator_unavailable_apiservice", "gauge", "APIServices that are not available.");
    for service in api.list_all(GROUP, "v1", "apiservices") {
        let is_away = condition(&service).get("status").str() != "True";
        text.sample("", &format!("name={:?}", service.name()), f64::from(u8::from(is_away)));
    }
}

/// Registers what is served here and begins to look after what is not.
pub(crate) async fn start(client: &Client) -> Result<(), Status> {
    local::register(client).await?;
    driver::start(client, Arc::new(local::Registration::new(client.clone())));
    driver::start(client, Arc::new(availability::Availability::new(client.clone())));
    Ok(())
}
