//! The Available condition of APIServices that name a Service: the Service, its port, its endpoints, and whether one of
//! them answers the group's discovery (kube-aggregator's remote_available_controller). Changes wake it; a probe twice a
//! minute runs only while there are such APIServices.
use super::{GROUP, Remote, Route, condition, discovery};
use crate::{
    Change, Client, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
    outbound::slices_of,
    registry::{format_time, now},
};
use mote_schema::{Kind, Object};
use mote_schema::{Value, json};
use std::{sync::Arc, time::Duration};

/// Upstream's resync of this controller.
const PROBE_EVERY: Duration = Duration::from_secs(30);
/// What it serves is asked for again after this long.
const REFRESH_EVERY: Duration = Duration::from_secs(60);
/// Probes of one check; one that succeeds is enough.
const ATTEMPTS: usize = 3;

pub(super) struct Availability {
    client: Client,
}

/// What was found: reason and message of a condition that is not true.
type Found = Result<(), (&'static str, String)>;

impl Availability {
    pub fn new(client: Client) -> Availability {
        Availability { client }
    }

    fn kind(&self) -> Option<Arc<Kind>> {
        self.client.kind(GROUP, "v1", "apiservices")
    }

    /// Everything but asking it.
    fn check(&self, route: &Route) -> Found {
        let api = self.client.api();
        let (name, namespace) = (&route.service, &route.namespace);
        let service = api.lookup("", "v1", "services", namespace, name);
        let service =
            service.ok_or_else(|| ("ServiceNotFound", format!("service/{name} in {namespace:?} is not present")))?;
        let spec = service.root().get("spec");
        if !matches!(spec.get("type").str(), "" | "ClusterIP") {
            return Ok(());
        }
        let port = spec.get("ports").items().find(|port| port.get("port").as_i64() == Some(route.port.into()));
        let Some(port) = port else {
            let text = format!("service/{name} in {namespace:?} is not listening on port {}", route.port);
            return Err(("ServicePortError", text));
        };
        let slices = slices_of(api, namespace, name);
        if slices.is_empty() {
            return Err((
                "EndpointsNotFound",
                format!("cannot find endpointslices for service/{name} in {namespace:?}"),
            ));
        }
        let port = port.get("name").str();
        let serves = |slice: &Object| {
            let root = slice.root();
            let ready = |endpoint: mote_schema::Ref<'_>| endpoint.at("conditions.ready").as_bool().unwrap_or(true);
            root.get("endpoints").items().any(ready) && root.get("ports").items().any(|p| p.get("name").str() == port)
        };
        if !slices.iter().any(serves) {
            let text =
                format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}");
            return Err(("MissingEndpoints", text));
        }
        Ok(())
    }

    async fn probe(&self, route: &Route, path: &str) -> Found {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match discovery::fetch(self.client.api(), route, path, "application/json").await {
                Ok(answer) if (200..300).contains(&answer.status) => return Ok(()),
                Ok(answer) => {
                    let url = format!("{}{path}", answer.origin);
                    last = format!("failing or missing response from {url}: bad status from {url}: {}", answer.status);
                }
                Err(error) => last = error,
            }
        }
        Err(("FailedDiscoveryCheck", last))
    }

    /// Writes what has changed of the condition.
    async fn report(&self, kind: &Arc<Kind>, service: &Object, found: &Found) -> Result<(), Error> {
        let (status, reason, message) = match found {
            Ok(()) => ("True", "Passed", "all checks passed"),
            Err((reason, message)) => ("False", *reason, message.as_str()),
        };
        let known = condition(service);
        if (known.get("status").str(), known.get("reason").str(), known.get("message").str())
            == (status, reason, message)
        {
            return Ok(());
        }
        let since = match known.get("status").str() == status {
            true => known.get("lastTransitionTime").to_value(),
            false => Value::from(format_time(now())),
        };
        let mut value = service.to_value();
        let mut conditions = value["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "Available");
        conditions.push(json!({"type": "Available", "status": status, "lastTransitionTime": since, "reason": reason,
            "message": message}));
        value["status"] = json!({"conditions": conditions});
        self.client.update_value(kind, Sub::Status, value).await?;
        Ok(())
    }

    async fn look_after(&self, key: &Key) -> Result<Next, Error> {
        let api = self.client.api();
        let Some(kind) = self.kind() else { return Ok(Next::Done) };
        let service = api.get(&kind, "", &key.name).ok();
        let Some((service, route)) = service.and_then(|service| Route::of(&service).map(|route| (service, route)))
        else {
            api.aggregation.change(|remote| drop(remote.remove(&*key.name)));
            return Ok(Next::Done);
        };
        let spec = service.root().get("spec");
        let (group, version) = (spec.get("group").str().to_owned(), spec.get("version").str().to_owned());
        // It is known from here on, so that requests for it are answered here and not as unknown.
        api.aggregation.change(|remote| {
            let entry = remote.entry(key.name.to_string()).or_insert_with(|| Remote {
                group: group.clone(),
                version: version.clone(),
                group_priority: 0,
                version_priority: 0,
                found: None,
                is_stale: true,
                fetched: None,
                failures: 0,
                openapi: None,
                swagger: None,
            });
            entry.group_priority = spec.get("groupPriorityMinimum").as_i64().unwrap_or(0);
            entry.version_priority = spec.get("versionPriority").as_i64().unwrap_or(0);
        });
        let mut found = self.check(&route);
        if found.is_ok() {
            let path = match group.as_str() {
                "" => format!("/api/{version}"),
                group => format!("/apis/{group}/{version}"),
            };
            found = self.probe(&route, &path).await;
        }
        let (mut failures, mut is_due) = (0, true);
        api.aggregation.change(|remote| {
            if let Some(entry) = remote.get_mut(&*key.name) {
                entry.failures = if found.is_ok() { 0 } else { entry.failures.saturating_add(1) };
                entry.is_stale |= found.is_err();
                failures = entry.failures;
                is_due = entry.is_stale || entry.fetched.is_none_or(|at| at.elapsed() >= REFRESH_EVERY);
            }
        });
        self.report(&kind, &service, &found).await?;
        if found.is_err() {
            // 1, 2, 4, ... seconds.
            let seconds = 1u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
            return Ok(Next::After(Duration::from_secs(seconds).min(PROBE_EVERY)));
        }
        if is_due {
            discovery::refresh(api, &route).await;
        }
        Ok(Next::After(PROBE_EVERY))
    }
}

impl Reconciler for Availability {
    fn name(&self) -> &'static str {
        "apiservice-availability"
    }
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[(GROUP, "v1", "apiservices"), ("", "v1", "services"), ("discovery.k8s.io", "v1", "endpointslices")]
    }
    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if change.kind.group == GROUP {
            let names_service = |object: &Object| !object.root().at("spec.service").is_empty();
            // A change of nothing but the condition is our own.
            let same_spec = matches!((&change.old, &change.new), (Some(old), Some(new))
                if old.meta().get("generation").to_value() == new.meta().get("generation").to_value()
                    && old.root().get("spec").to_value() == new.root().get("spec").to_value());
            if !same_spec && [&change.old, &change.new].into_iter().flatten().any(names_service) {
                queue.add(Key::new("", object.name()));
            }
            return;
        }
        let api = self.client.api();
        if api.aggregation.is_empty() {
            return;
        }
        let name = match &*change.kind.plural {
            "services" => object.name(),
            _ => object.meta().get("labels").get("kubernetes.io/service-name").str(),
        };
        for service in api.list_all(GROUP, "v1", "apiservices") {
            let to = service.root().at("spec.service");
            if to.get("name").str() == name && to.get("namespace").str() == object.namespace() {
                queue.add(Key::new("", service.name()));
            }
        }
    }
    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(self.look_after(key))
    }
}
