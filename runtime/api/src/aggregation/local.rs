//! The APIServices of what this server serves itself: one for each built-in version, made at every start and never
//! written to flash, and one for each version that a CustomResourceDefinition brings, kept as these come and go
//! (pkg/controlplane/apiserver/aggregator.go, controller/crdregistration, kube-aggregator's autoregister).
use super::GROUP;
use crate::{
    Change, Client, DeleteOptions,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
    registry::{format_time, new_uid, now},
    server::Api,
};
use mote_schema::{Doc, Kind, Object, Status};
use mote_schema::{Value, json};
use mote_store::{Class, Precondition, Transaction, Write};
use std::sync::Arc;

const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
const CRDS: (&str, &str, &str) = ("apiextensions.k8s.io", "v1", "customresourcedefinitions");
/// Of what comes from CustomResourceDefinitions.
pub(super) const CUSTOM_PRIORITIES: (i64, i64) = (1000, 100);

/// Group, and the priority that upstream gives it; then its versions with theirs (DefaultGenericAPIServicePriorities).
const PRIORITIES: &[(&str, i64)] = &[
    ("", 18000),
    ("apps", 17800),
    ("events.k8s.io", 17750),
    ("authentication.k8s.io", 17700),
    ("authorization.k8s.io", 17600),
    ("autoscaling", 17500),
    ("batch", 17400),
    ("certificates.k8s.io", 17300),
    ("networking.k8s.io", 17200),
    ("policy", 17100),
    ("rbac.authorization.k8s.io", 17000),
    ("storage.k8s.io", 16800),
    ("apiextensions.k8s.io", 16700),
    ("admissionregistration.k8s.io", 16700),
    ("scheduling.k8s.io", 16600),
    ("coordination.k8s.io", 16500),
    ("node.k8s.io", 16300),
    ("discovery.k8s.io", 16200),
    ("resource.k8s.io", 16200),
    ("flowcontrol.apiserver.k8s.io", 16100),
    ("storagemigration.k8s.io", 15800),
];

/// Versions whose priority is not that of a stable one.
const VERSIONS: &[(&str, &str, i64)] = &[
    ("", "v1", 1),
    ("autoscaling", "v2", 30),
    ("flowcontrol.apiserver.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1", 21),
    ("resource.k8s.io", "v1beta2", 15),
];
const STABLE: i64 = 15;
const BETA: i64 = 9;

/// Of a built-in group.
pub(super) fn group_priority(group: &str) -> Option<i64> {
    PRIORITIES.iter().find(|(name, _)| *name == group).map(|(_, priority)| *priority)
}

fn priorities(group: &str, version: &str) -> Option<(i64, i64)> {
    let own = VERSIONS.iter().find(|(g, v, _)| *g == group && *v == version).map(|(_, _, priority)| *priority);
    let usual = if version.contains("beta") || version.contains("alpha") { BETA } else { STABLE };
    Some((group_priority(group)?, own.unwrap_or(usual)))
}

fn name(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

fn service(group: &str, version: &str, (group_priority, version_priority): (i64, i64), managed: &str) -> Value {
    let mut spec =
        json!({"version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({
        "metadata": {"name": name(group, version), "labels": {LABEL: managed}},
        "spec": spec,
        "status": {"conditions": [available(&format_time(now()))]},
    })
}

/// Of every local one.
pub(super) fn available(since: &str) -> Value {
    json!({"type": "Available", "status": "True", "lastTransitionTime": since, "reason": "Local",
        "message": "Local APIServices are always available"})
}

fn kind(api: &Api) -> Option<Arc<Kind>> {
    api.catalog().by_resource(GROUP, "v1", "apiservices").cloned()
}

/// For the built-in versions.
pub(super) async fn register(client: &Client) -> Result<(), Status> {
    let api = client.api();
    let Some(kind) = kind(api) else { return Ok(()) };
    let catalog = api.catalog();
    let mut services = Vec::new();
    for (group, versions) in catalog.groups() {
        let known = versions.iter().filter_map(|version| Some((version, priorities(group, version)?)));
        services.extend(known.map(|(version, priorities)| service(group, version, priorities, "onstart")));
    }
    put(api, &kind, services).await
}

/// What can be made again at the next start is not written to flash; what is there already stays as it is.
async fn put(api: &Api, kind: &Arc<Kind>, services: Vec<Value>) -> Result<(), Status> {
    let (mut preconditions, mut writes) = (Vec::new(), Vec::new());
    let snapshot = api.store.snapshot();
    for mut value in services {
        let key = kind.key("", value["metadata"]["name"].as_str().unwrap_or(""));
        if snapshot.get(&key).is_some() {
            continue;
        }
        value["metadata"]["uid"] = new_uid().into();
        value["metadata"]["creationTimestamp"] = format_time(now()).into();
        let doc = Doc::encode(&value).map_err(Status::internal)?;
        preconditions.push((key.as_str().into(), Precondition::Absent));
        writes.push(Write::Put(key.as_str().into(), doc.bytes().clone()));
    }
    if writes.is_empty() {
        return Ok(());
    }
    match api.store.commit(Transaction { class: Class::Volatile, preconditions, writes }).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Status::internal(format!("registering APIServices: {error:?}"))),
    }
}

/// Keeps an APIService for each served version of CustomResourceDefinitions. Keys are APIServices' names.
pub(super) struct Registration {
    client: Client,
}

impl Registration {
    pub fn new(client: Client) -> Registration {
        Registration { client }
    }

    fn is_wanted(&self, wanted: &str) -> bool {
        let all = self.client.api().list_all(CRDS.0, CRDS.1, CRDS.2);
        all.iter().any(|crd| versions(crd).any(|(group, version)| name(group, version) == wanted))
    }
}

fn versions(crd: &Object) -> impl Iterator<Item = (&str, &str)> {
    let spec = crd.root().get("spec");
    let group = spec.get("group").str();
    let served = spec.get("versions").items().filter(|version| version.get("served").is_true());
    served.map(move |version| (group, version.get("name").str()))
}

impl Reconciler for Registration {
    fn name(&self) -> &'static str {
        "apiservice-registration"
    }
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[CRDS, (GROUP, "v1", "apiservices")]
    }
    fn wake(&self, change: &Change, queue: &Queue) {
        if change.kind.group == GROUP {
            let object = change.object();
            if object.meta().get("labels").get(LABEL).str() == "true" {
                queue.add(Key::new("", object.name()));
            }
            return;
        }
        for crd in [&change.old, &change.new].into_iter().flatten() {
            for (group, version) in versions(crd) {
                queue.add(Key::new("", &name(group, version)));
            }
        }
    }
    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let api = self.client.api();
            let Some(kind) = kind(api) else { return Ok(Next::Done) };
            let current = api.get(&kind, "", &key.name).ok();
            let is_ours = |object: &Object| object.meta().get("labels").get(LABEL).str() == "true";
            match (self.is_wanted(&key.name), current) {
                (true, None) => {
                    let (version, group) = key.name.split_once('.').unwrap_or((&key.name, ""));
                    put(api, &kind, vec![service(group, version, CUSTOM_PRIORITIES, "true")]).await?;
                }
                (false, Some(object)) if is_ours(&object) => {
                    let options = DeleteOptions { uid: Some(object.uid().to_owned()), ..DeleteOptions::default() };
                    match self.client.delete(&kind, "", &key.name, options).await {
                        Err(status) if !status.is_not_found() && !status.is_conflict() => return Err(status.into()),
                        _ => {}
                    }
                }
                _ => {}
            }
            Ok(Next::Done)
        })
    }
}
