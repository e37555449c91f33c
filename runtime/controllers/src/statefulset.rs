//! StatefulSet: numbered pods with a name and volumes of their own, started in order and updated in reverse
//! (pkg/controller/statefulset). One step at a time unless podManagementPolicy is Parallel.
//!
//! Claims live on when pods go; persistentVolumeClaimRetentionPolicy.whenDeleted=Delete makes the set their owner.
use crate::{
    amounts::{now, scaled},
    history::{self, HASH_LABEL, History, REVISION_HASH_LABEL},
    owner::{self, claim, controller_ref},
    pod, pod_control,
    session::Session,
    status::{omit_empty, write},
};
use mote_api::{
    Change, Client, DeleteOptions, Doc, Kind, Object, Status,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Gather as _;
use mote_schema::selector::LabelSelector;
use mote_schema::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// A set cannot ask for more pods than this in one pass.
const MAX_REPLICAS: i64 = 10_000;

struct Controller {
    session: Session,
    kind: Arc<Kind>,
    pods: Arc<Kind>,
    claims: Arc<Kind>,
    revisions: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "statefulset-controller");
    let controller = Controller {
        kind: session.kind("apps", "v1", "statefulsets"),
        pods: session.kind("", "v1", "pods"),
        claims: session.kind("", "v1", "persistentvolumeclaims"),
        revisions: session.kind("apps", "v1", "controllerrevisions"),
        session: session.clone(),
    };
    session.start(controller);
}

fn selector(set: &Object) -> Option<LabelSelector> {
    LabelSelector::from_ref(set.root().at("spec.selector")).ok().flatten()
}

/// The number at the end of the pod's name.
fn ordinal(pod: &Object) -> Option<i64> {
    let (_, number) = pod.name().rsplit_once('-')?;
    number.parse().ok().filter(|n| *n >= 0)
}

fn revision_of(pod: &Object) -> &str {
    pod.meta().get("labels").get(HASH_LABEL).str()
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "statefulset"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("apps", "v1", "statefulsets"), ("", "v1", "pods")]
    }

    fn workers(&self) -> usize {
        4
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if &*change.kind.plural == "statefulsets" {
            return queue.add(Key::new(object.namespace(), object.name()));
        }
        owner::wake_controllers(&self.session, &self.kind, change, queue, |set, pod| {
            selector(set).is_some_and(|s| s.matches(owner::labels(pod)))
        });
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let set = match self.session.get(&self.kind, &key.namespace, &key.name) {
                Ok(set) => set,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            let Some(selector) = selector(&set) else { return Ok(Next::Done) };
            match self.sync(set, &selector).await {
                Err(Error::Api(status)) if pod_control::namespace_terminating(&status) => Ok(Next::Done),
                result => result,
            }
        })
    }
}

/// One pass over a set.
struct Pass<'a> {
    set: &'a Object,
    /// The revision that pods below the partition keep.
    current: &'a Object,
    update: &'a Object,
    min_ready: i64,
    monotonic: bool,
    start: i64,
    replicas: i64,
}

impl Pass<'_> {
    fn is_available(&self, pod: &Object) -> bool {
        pod::phase(pod) == "Running" && !pod.is_deleting() && pod::is_available(pod, self.min_ready, now())
    }

    fn partition(&self) -> i64 {
        self.set.root().at("spec.updateStrategy.rollingUpdate.partition").as_i64().unwrap_or(0)
    }

    fn is_rolling(&self) -> bool {
        self.set.root().at("spec.updateStrategy.type").str() != "OnDelete"
    }
}

impl Controller {
    async fn sync(&self, set: Object, selector: &LabelSelector) -> Result<Next, Error> {
        let history = history::sync(&self.session, &self.revisions, &set, REVISION_HASH_LABEL).await?;
        let mut pods = claim(&self.session, &set, &self.pods, selector, |_| true).await?;
        // A pod of another name is somebody's orphan that happens to match.
        pods.retain(|p| ordinal(p).is_some_and(|n| p.name() == format!("{}-{n}", set.name())));
        let History { current: update, old } = &history;
        let current_name = set.root().at("status.currentRevision").str();
        let current = old.iter().chain([update]).find(|r| r.name() == current_name).unwrap_or(update);
        let spec = set.root().get("spec");
        let pass = Pass {
            set: &set,
            current,
            update,
            min_ready: spec.get("minReadySeconds").as_i64().unwrap_or(0),
            monotonic: spec.get("podManagementPolicy").str() != "Parallel",
            start: spec.at("ordinals.start").as_i64().unwrap_or(0).max(0),
            replicas: spec.get("replicas").as_i64().unwrap_or(1).clamp(0, MAX_REPLICAS),
        };
        let result = if set.is_deleting() { Ok(()) } else { self.step(&pass, &pods).await };
        // Counted after the step: what it made or removed shows at once.
        let pods: Vec<Object> = {
            let all = self.session.list(&self.pods, Some(set.namespace()))?;
            all.into_iter().filter(|p| owner::is_controlled_by(p, &set) && ordinal(p).is_some()).collect()
        };
        write(&self.session, &set, status(&pass, &pods)).await?;
        let live: Vec<&str> = pods.iter().map(revision_of).chain([current.name(), update.name()]).collect();
        history::clean_up(&self.session, &set, &history, &live).await?;
        result?;
        let wait = pod::next_available(&pods, pass.min_ready, now()).filter(|_| pass.min_ready > 0);
        Ok(wait.map_or(Next::Done, Next::After))
    }

    async fn step(&self, pass: &Pass<'_>, pods: &[Object]) -> Result<(), Error> {
        let range = pass.start..pass.start + pass.replicas;
        let by_ordinal: BTreeMap<i64, &Object> = pods.iter().filter_map(|p| Some((ordinal(p)?, p))).gather();
        for n in range.clone() {
            if self.keep(pass, n, by_ordinal.get(&n).copied()).await? && pass.monotonic {
                return Ok(());
            }
        }
        let condemned: Vec<&Object> =
            by_ordinal.iter().rev().filter(|(n, _)| !range.contains(n)).map(|(_, p)| *p).collect();
        let mut all = range.clone().filter_map(|n| by_ordinal.get(&n).copied()).chain(condemned.iter().rev().copied());
        let first_unavailable = all.find(|p| !pass.is_available(p)).map(Object::uid);
        for pod in condemned {
            if pod.is_deleting() {
                if pass.monotonic {
                    return Ok(());
                }
                continue;
            }
            // Scaling down waits for unhealthy pods, unless the unhealthy one is what goes.
            if pass.monotonic && !pass.is_available(pod) && first_unavailable != Some(pod.uid()) {
                return Ok(());
            }
            self.delete(pass.set, pod).await?;
            if pass.monotonic {
                return Ok(());
            }
        }
        if pass.is_rolling() { self.roll(pass, &by_ordinal).await } else { Ok(()) }
    }

    /// Sees to one ordinal; whether the next ones have to wait for it.
    async fn keep(&self, pass: &Pass<'_>, n: i64, pod: Option<&Object>) -> Result<bool, Error> {
        let Some(pod) = pod else {
            self.create(pass, n).await?;
            return Ok(true);
        };
        if pod::is_finished(pod) {
            if !pod.is_deleting() {
                self.delete(pass.set, pod).await?;
            }
            return Ok(true);
        }
        if pod::phase(pod) == "Pending" {
            self.ensure_claims(pass.set, n, pod.name()).await?;
        }
        Ok(!pass.is_available(pod))
    }

    /// Deletes pods of another revision, from the last down to the partition, as many as may be unavailable.
    async fn roll(&self, pass: &Pass<'_>, by_ordinal: &BTreeMap<i64, &Object>) -> Result<(), Error> {
        let limit = pass.set.root().at("spec.updateStrategy.rollingUpdate.maxUnavailable");
        let limit = scaled(limit, pass.replicas, true).unwrap_or(1).max(1);
        let targets = (pass.start + pass.partition()..pass.start + pass.replicas).rev();
        let mut unavailable = 0;
        let mut outdated = Vec::new();
        for pod in targets.filter_map(|n| by_ordinal.get(&n).copied()) {
            let available = pass.is_available(pod);
            unavailable += i64::from(!available);
            if revision_of(pod) != pass.update.name() && !pod.is_deleting() {
                outdated.push((pod, available));
            }
        }
        for (pod, available) in outdated {
            if available && unavailable >= limit {
                break;
            }
            self.delete(pass.set, pod).await?;
            unavailable += i64::from(available);
            if unavailable >= limit {
                break;
            }
        }
        Ok(())
    }

    async fn create(&self, pass: &Pass<'_>, n: i64) -> Result<(), Error> {
        let set = pass.set;
        // Below the partition a lost pod comes back as it was.
        let revision = if pass.is_rolling() && n < pass.start + pass.partition() { pass.current } else { pass.update };
        let body = pod_for(set, revision, n)?;
        let name = format!("{}-{n}", set.name());
        let made = async {
            self.ensure_claims(set, n, &name).await?;
            self.session.create(&self.pods, set.namespace(), body).await
        };
        match made.await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {} successful", set.name());
                self.session.event(set, "Normal", "SuccessfulCreate", &message);
                Ok(())
            }
            Err(status) if status.is_already_exists() => Err(status.into()),
            Err(status) => {
                if !pod_control::namespace_terminating(&status) {
                    let message =
                        format!("create Pod {name} in StatefulSet {} failed error: {}", set.name(), status.message);
                    self.session.event(set, "Warning", "FailedCreate", &message);
                }
                Err(status.into())
            }
        }
    }

    async fn delete(&self, set: &Object, pod: &Object) -> Result<(), Error> {
        let name = pod.name();
        match self.session.delete(pod, DeleteOptions::default()).await {
            Ok(()) => {
                let message = format!("delete Pod {name} in StatefulSet {} successful", set.name());
                self.session.event(set, "Normal", "SuccessfulDelete", &message);
                Ok(())
            }
            Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(status) => {
                let message =
                    format!("delete Pod {name} in StatefulSet {} failed error: {}", set.name(), status.message);
                self.session.event(set, "Warning", "FailedDelete", &message);
                Err(status.into())
            }
        }
    }

    async fn ensure_claims(&self, set: &Object, n: i64, pod: &str) -> Result<(), Status> {
        let kept = set.root().at("spec.persistentVolumeClaimRetentionPolicy.whenDeleted").str() != "Delete";
        for template in set.root().at("spec.volumeClaimTemplates").items() {
            let name = claim_name(template.at("metadata.name").str(), set, n);
            if self.session.get(&self.claims, set.namespace(), &name).is_ok() {
                continue;
            }
            let mut claim = template.to_value();
            claim["apiVersion"] = "v1".into();
            claim["kind"] = "PersistentVolumeClaim".into();
            let metadata = &mut claim["metadata"];
            metadata["name"] = name.clone().into();
            metadata["namespace"] = set.namespace().into();
            for (label, value) in set.root().at("spec.selector.matchLabels").entries() {
                metadata["labels"][label] = value.str().into();
            }
            if !kept {
                metadata["ownerReferences"] = json!([controller_ref(set)]);
            }
            self.session.create(&self.claims, set.namespace(), claim).await?;
            let message = format!("create Claim {name} Pod {pod} in StatefulSet {} success", set.name());
            self.session.event(set, "Normal", "SuccessfulCreate", &message);
        }
        Ok(())
    }
}

fn claim_name(template: &str, set: &Object, n: i64) -> String {
    format!("{template}-{}-{n}", set.name())
}

/// The pod of ordinal `n` as `revision` has it.
fn pod_for(set: &Object, revision: &Object, n: i64) -> Result<Value, Error> {
    let mut template = revision.root().at("data.spec.template").to_value();
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    let doc =
        Doc::encode(&template).map_err(|e| Error::Other(format!("reading revision {}: {e:?}", revision.name())))?;
    let mut pod = pod_control::from_template(doc.root(), set);
    let name = format!("{}-{n}", set.name());
    let metadata = &mut pod["metadata"];
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("generateName");
    }
    metadata["name"] = name.clone().into();
    metadata["labels"]["statefulset.kubernetes.io/pod-name"] = name.clone().into();
    metadata["labels"]["apps.kubernetes.io/pod-index"] = n.to_string().into();
    metadata["labels"][HASH_LABEL] = revision.name().into();
    let spec = &mut pod["spec"];
    spec["hostname"] = name.into();
    spec["subdomain"] = set.root().at("spec.serviceName").str().into();
    let claims: Vec<Value> = set
        .root()
        .at("spec.volumeClaimTemplates")
        .items()
        .map(|t| t.at("metadata.name").str())
        .map(|volume| json!({"name": volume, "persistentVolumeClaim": {"claimName": claim_name(volume, set, n)}}))
        .collect();
    if !claims.is_empty() {
        let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
        volumes.retain(|v| claims.iter().all(|c| c["name"] != v["name"]));
        volumes.extend(claims);
        spec["volumes"] = volumes.into();
    }
    Ok(pod)
}

fn status(pass: &Pass<'_>, pods: &[Object]) -> Value {
    let count = |f: &dyn Fn(&Object) -> bool| pods.iter().filter(|p| f(p)).count();
    let ready = |p: &Object| pod::phase(p) == "Running" && pod::is_ready(p);
    let of = |revision: &Object| count(&|p| !p.is_deleting() && revision_of(p) == revision.name());
    let (replicas, ready_count) = (pods.len(), count(&ready));
    let updated = of(pass.update);
    // A finished update makes the update revision the current one.
    let finished = pass.is_rolling() && updated == replicas && ready_count == replicas;
    let (current, current_count) = if finished { (pass.update, updated) } else { (pass.current, of(pass.current)) };
    let mut status = omit_empty(json!({
        "observedGeneration": pass.set.meta().get("generation").as_i64().unwrap_or(0),
        "readyReplicas": ready_count,
        "currentReplicas": current_count,
        "updatedReplicas": updated,
        "currentRevision": current.name(),
        "updateRevision": pass.update.name(),
    }));
    status["replicas"] = replicas.into();
    status["availableReplicas"] =
        count(&|p| pod::phase(p) == "Running" && pod::is_available(p, pass.min_ready, now())).into();
    status["collisionCount"] = pass.set.root().at("status.collisionCount").as_i64().unwrap_or(0).into();
    status
}
