//! Which ReplicaSet is the Deployment's present template, which are history, and their revision numbers.
use super::{Controller, Rollout, annotation, int, progress, replicas, scale};
use crate::{
    hash,
    owner::{controller_ref, gone_is_fine},
    pod::created,
    pod_control::namespace_terminating,
    status::condition,
};
use mote_api::{DeleteOptions, Object, Ref, Sub, driver::Error};
use mote_schema::Order as _;
use mote_schema::{Map, Value, json};

pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
/// About a hundred revisions.
const HISTORY_LIMIT_BYTES: usize = 2000;
const NAME_LIMIT_BYTES: usize = 253;

/// Annotations that belong to one object and are not handed down.
fn stays(name: &str) -> bool {
    matches!(name, LAST_APPLIED | REVISION | HISTORY | DESIRED | MAX | ROLLBACK_TO)
}

/// A template without the hash label that its ReplicaSet added.
fn template_without_hash(template: Ref<'_>) -> Value {
    let mut value = template.to_value();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    value
}

pub fn revision(set: &Object) -> i64 {
    annotation(set, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Older first, then by name.
pub fn by_creation(a: &Object, b: &Object) -> std::cmp::Ordering {
    (created(a), a.name()).cmp(&(created(b), b.name()))
}

impl Controller {
    /// Sorts `sets` into new and old, and brings the new one's annotations and the Deployment's revision up to date.
    pub(super) async fn find_revisions(&self, deployment: Object, mut sets: Vec<Object>) -> Result<Rollout, Error> {
        let template = template_without_hash(deployment.root().at("spec.template"));
        sets.order_by(by_creation);
        let found = sets.iter().position(|set| template_without_hash(set.root().at("spec.template")) == template);
        let new = found.map(|index| sets.remove(index));
        let mut rollout = Rollout { deployment, new, old: sets };
        if let Some(set) = rollout.new.take() {
            rollout.new = Some(self.refresh_new(&mut rollout, set).await?);
        }
        Ok(rollout)
    }

    async fn refresh_new(&self, rollout: &mut Rollout, set: Object) -> Result<Object, Error> {
        let deployment = &rollout.deployment;
        let mut annotations = inherited(deployment, &set);
        annotations.extend(renumbered(&set, next_revision(&rollout.old)));
        let min_ready = int(deployment, "spec.minReadySeconds");
        if !annotations.is_empty() || int(&set, "spec.minReadySeconds") != min_ready {
            let mut value = set.to_value();
            for (name, text) in annotations {
                value["metadata"]["annotations"][name] = text;
            }
            value["spec"]["minReadySeconds"] = min_ready.into();
            // The write wakes this Deployment again, and then its own revision is brought along.
            return Ok(self.session.update(&self.sets, Sub::Main, value).await?);
        }
        let text = annotation(&set, REVISION).unwrap_or_default().to_owned();
        rollout.deployment = self.set_revision(rollout.deployment.clone(), &text).await?;
        if progress::deadline(&rollout.deployment).is_some() {
            let message = format!("Found new replica set {:?}", set.name());
            rollout.deployment =
                self.note_progress(rollout.deployment.clone(), "True", "FoundNewReplicaSet", &message, false).await?;
        }
        Ok(set)
    }

    async fn set_revision(&self, deployment: Object, revision: &str) -> Result<Object, Error> {
        if annotation(&deployment, REVISION) == Some(revision) {
            return Ok(deployment);
        }
        let mut value = deployment.to_value();
        value["metadata"]["annotations"][REVISION] = revision.into();
        // As a status: what changes annotations otherwise counts as a new generation (registry/apps/deployment/strategy.go).
        Ok(self.session.update(&self.kind, Sub::Status, value).await?)
    }

    /// Makes the ReplicaSet of the present template when there is none yet.
    pub(super) async fn ensure_new(&self, rollout: &mut Rollout) -> Result<(), Error> {
        if rollout.new.is_some() {
            return Ok(());
        }
        let revision = next_revision(&rollout.old);
        let value = new_set(rollout, revision);
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let count = value["spec"]["replicas"].as_i64().unwrap_or(0);
        let deployment = rollout.deployment.clone();
        let namespace = deployment.namespace();
        let mut made = true;
        let set = match self.session.create(&self.sets, namespace, value).await {
            Ok(set) => set,
            Err(status) if status.is_already_exists() => {
                let set = self.session.get(&self.sets, namespace, &name)?;
                let template = |o: &Object| template_without_hash(o.root().at("spec.template"));
                if !crate::owner::is_controlled_by(&set, &deployment) || template(&set) != template(&deployment) {
                    // Two templates, one hash: count up, and hash differently next time.
                    let collisions = int(&deployment, "status.collisionCount") + 1;
                    let mut value = deployment.to_value();
                    value["status"]["collisionCount"] = collisions.into();
                    self.session.update(&self.kind, Sub::Status, value).await?;
                    return Err(status.into());
                }
                made = false;
                set
            }
            Err(status) => {
                if !namespace_terminating(&status) {
                    let message = format!("Failed to create new replica set {name:?}: {}", status.message);
                    if progress::deadline(&deployment).is_some() {
                        self.note_progress(deployment.clone(), "False", "ReplicaSetCreateError", &message, true)
                            .await?;
                    }
                    self.session.event(&deployment, "Warning", "ReplicaSetCreateError", &message);
                }
                return Err(status.into());
            }
        };
        if made && count > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {count}");
            self.session.event(&deployment, "Normal", "ScalingReplicaSet", &message);
        }
        rollout.deployment = self.set_revision(deployment, &revision.to_string()).await?;
        if made && progress::deadline(&rollout.deployment).is_some() {
            let message = format!("Created new replica set {name:?}");
            rollout.deployment =
                self.note_progress(rollout.deployment.clone(), "True", "NewReplicaSetCreated", &message, true).await?;
        }
        rollout.new = Some(set);
        Ok(())
    }

    /// Writes a Progressing condition; `replace` false only when there is none yet.
    pub(super) async fn note_progress(
        &self,
        deployment: Object,
        status: &str,
        reason: &str,
        message: &str,
        replace: bool,
    ) -> Result<Object, Error> {
        let mut conditions = crate::status::Conditions::of(&deployment);
        if !replace && conditions.get("Progressing").is_some() {
            return Ok(deployment);
        }
        conditions.set(progress::updated_now(condition("Progressing", status, reason, message)));
        let mut value = deployment.root().get("status").to_value();
        if !value.is_object() {
            value = json!({});
        }
        value["conditions"] = conditions.into_value();
        Ok(crate::status::write(&self.session, &deployment, value).await?)
    }

    /// Deletes the oldest empty ReplicaSets beyond spec.revisionHistoryLimit.
    pub(super) async fn clean_up(&self, rollout: &Rollout) -> Result<(), Error> {
        let limit = rollout.deployment.root().at("spec.revisionHistoryLimit").as_i64();
        let Some(limit) = limit.filter(|limit| *limit != i64::from(i32::MAX)) else { return Ok(()) };
        let mut old: Vec<&Object> = rollout.old.iter().filter(|set| !set.is_deleting()).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.order_by(|a, b| revision(a).cmp(&revision(b)).then_with(|| by_creation(a, b)));
        for set in old.into_iter().take(surplus) {
            let seen = int(set, "metadata.generation") <= int(set, "status.observedGeneration");
            if int(set, "status.replicas") == 0 && replicas(set) == 0 && seen {
                gone_is_fine(self.session.delete(set, DeleteOptions::default()).await)?;
            }
        }
        Ok(())
    }
}

fn next_revision(old: &[Object]) -> i64 {
    old.iter().map(revision).max().unwrap_or(0) + 1
}

/// What the Deployment's annotations would change on its ReplicaSet.
fn inherited(deployment: &Object, set: &Object) -> Map {
    let entries = deployment.meta().get("annotations").entries();
    entries
        .filter(|(name, value)| !stays(name) && annotation(set, name) != Some(value.str()))
        .map(|(name, value)| (name.to_owned(), value.str().into()))
        .collect()
}

/// A ReplicaSet whose template is current again takes the newest number and remembers the one it had.
fn renumbered(set: &Object, next: i64) -> Map {
    let mut changes = Map::new();
    let text = annotation(set, REVISION);
    let had = match text.unwrap_or("").parse::<i64>() {
        Ok(number) => number,
        Err(_) if text.unwrap_or("").is_empty() => 0,
        Err(_) => return changes,
    };
    if had >= next {
        return changes;
    }
    changes.insert(REVISION.into(), next.to_string().into());
    if let Some(old) = text {
        let mut history: Vec<&str> =
            annotation(set, HISTORY).unwrap_or("").split(',').filter(|s| !s.is_empty()).collect();
        history.push(old);
        let length = |parts: &[&str]| parts.iter().map(|p| p.len() + 1).sum::<usize>().saturating_sub(1);
        while history.len() > 1 && length(&history) > HISTORY_LIMIT_BYTES {
            history.remove(0);
        }
        changes.insert(HISTORY.into(), history.join(",").into());
    }
    changes
}

fn new_set(rollout: &Rollout, revision: i64) -> Value {
    let deployment = &rollout.deployment;
    let spec = deployment.root().get("spec");
    let mut template = spec.get("template").to_value();
    let collisions = deployment.root().at("status.collisionCount").as_i64();
    let hash = hash::of(&template, collisions);
    template["metadata"]["labels"][HASH_LABEL] = hash.clone().into();
    let mut selector = spec.get("selector").to_value();
    selector["matchLabels"][HASH_LABEL] = hash.clone().into();
    let mut annotations = Map::new();
    for (name, value) in deployment.meta().get("annotations").entries().filter(|(name, _)| !stays(name)) {
        annotations.insert(name.into(), value.str().into());
    }
    let wanted = replicas(deployment);
    annotations.insert(REVISION.into(), revision.to_string().into());
    annotations.insert(DESIRED.into(), wanted.to_string().into());
    annotations.insert(MAX.into(), (wanted + scale::max_surge(deployment)).to_string().into());
    let room = NAME_LIMIT_BYTES - 1 - hash.len();
    let stem = deployment.name();
    let name = format!("{}-{hash}", stem.get(..room).unwrap_or(stem));
    json!({
        "metadata": {
            "name": name, "namespace": deployment.namespace(), "labels": template["metadata"]["labels"],
            "annotations": annotations, "ownerReferences": [controller_ref(deployment)],
        },
        "spec": {
            "replicas": scale::size_of_new(rollout), "minReadySeconds": int(deployment, "spec.minReadySeconds"),
            "selector": selector, "template": template,
        },
    })
}
