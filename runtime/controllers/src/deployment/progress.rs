//! Status: counts, and the conditions Available, Progressing and ReplicaFailure.
use super::{Controller, Rollout, int, replicas, scale};
use crate::{
    amounts::{now, remaining},
    status::{Conditions, condition, write},
};
use jiff::Timestamp;
use mote_api::{
    Object,
    driver::{Error, Next},
};
use mote_schema::{Value, json};
use std::time::Duration;

/// The counters of a DeploymentStatus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub observed_generation: i64,
    pub replicas: i64,
    pub updated: i64,
    pub ready: i64,
    pub available: i64,
    pub unavailable: i64,
    pub terminating: i64,
}

impl Counts {
    /// What the stored status says.
    pub fn stored(deployment: &Object) -> Counts {
        Counts {
            observed_generation: int(deployment, "status.observedGeneration"),
            replicas: int(deployment, "status.replicas"),
            updated: int(deployment, "status.updatedReplicas"),
            ready: int(deployment, "status.readyReplicas"),
            available: int(deployment, "status.availableReplicas"),
            unavailable: int(deployment, "status.unavailableReplicas"),
            terminating: int(deployment, "status.terminatingReplicas"),
        }
    }

    fn of(rollout: &Rollout) -> Counts {
        let sum = |path: &str| rollout.sets().map(|set| int(set, path)).sum::<i64>();
        let available = sum("status.availableReplicas");
        let wanted: i64 = rollout.sets().map(replicas).sum();
        Counts {
            observed_generation: int(&rollout.deployment, "metadata.generation"),
            replicas: sum("status.replicas"),
            updated: rollout.new.as_ref().map_or(0, |set| int(set, "status.replicas")),
            ready: sum("status.readyReplicas"),
            available,
            unavailable: (wanted - available).max(0),
            terminating: sum("status.terminatingReplicas"),
        }
    }
}

/// spec.progressDeadlineSeconds, when progress is judged at all.
pub fn deadline(deployment: &Object) -> Option<Duration> {
    let seconds = deployment.root().at("spec.progressDeadlineSeconds").as_i64()?;
    (seconds != i64::from(i32::MAX)).then(|| Duration::from_secs(seconds.max(0).unsigned_abs()))
}

pub fn is_complete(deployment: &Object, counts: &Counts) -> bool {
    let wanted = replicas(deployment);
    counts.updated == wanted
        && counts.replicas == wanted
        && counts.available == wanted
        && counts.observed_generation >= int(deployment, "metadata.generation")
}

fn has_progressed(old: &Counts, new: &Counts) -> bool {
    new.updated > old.updated
        || new.replicas - new.updated < old.replicas - old.updated
        || new.ready > old.ready
        || new.available > old.available
}

/// Adds lastUpdateTime, which only a Deployment's conditions have.
pub fn updated_now(mut condition: Value) -> Value {
    condition["lastUpdateTime"] = condition["lastTransitionTime"].clone();
    condition
}

fn availability(deployment: &Object, counts: &Counts) -> Value {
    let enough = counts.available >= replicas(deployment) - scale::max_unavailable(deployment);
    updated_now(if enough {
        condition("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        condition("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    })
}

/// The Progressing condition after `counts`, or the old one.
fn judge_progress(rollout: &Rollout, counts: &Counts, conditions: &mut Conditions, now: Timestamp) {
    let deployment = &rollout.deployment;
    let Some(deadline) = deadline(deployment) else {
        conditions.remove("Progressing");
        return;
    };
    let current = conditions.get("Progressing").cloned();
    let reason = current.as_ref().and_then(|c| c["reason"].as_str()).unwrap_or_default();
    if counts.replicas == counts.updated && reason == "NewReplicaSetAvailable" {
        return;
    }
    let subject = match &rollout.new {
        Some(set) => format!("ReplicaSet {:?}", set.name()),
        None => format!("Deployment {:?}", deployment.name()),
    };
    let new = |status, reason, what: &str| {
        updated_now(condition("Progressing", status, reason, &format!("{subject} {what}")))
    };
    if is_complete(deployment, counts) {
        conditions.set(new("True", "NewReplicaSetAvailable", "has successfully progressed."));
    } else if has_progressed(&Counts::stored(deployment), counts) {
        // The same reason again still moves lastUpdateTime: that is what the deadline counts from.
        let mut condition = new("True", "ReplicaSetUpdated", "is progressing.");
        if let Some(current) = current.filter(|c| c["status"] == "True") {
            condition["lastTransitionTime"] = current["lastTransitionTime"].clone();
        }
        conditions.remove("Progressing");
        conditions.set(condition);
    } else if reason != "NewReplicaSetAvailable" && current.as_ref().is_some_and(|c| is_late(c, deadline, now)) {
        conditions.set(new("False", "ProgressDeadlineExceeded", "has timed out progressing."));
    }
}

fn updated_at(condition: &Value) -> Option<Timestamp> {
    condition["lastUpdateTime"].as_str()?.parse().ok()
}

fn is_late(condition: &Value, deadline: Duration, now: Timestamp) -> bool {
    condition["reason"] == "ProgressDeadlineExceeded"
        || updated_at(condition).is_some_and(|since| remaining(since, deadline, now).is_none())
}

/// A ReplicaSet's ReplicaFailure, the new one's before the old ones'.
fn replica_failure(rollout: &Rollout) -> Option<Value> {
    let sets = rollout.new.iter().chain(&rollout.old);
    let found = sets.map(Conditions::of).find_map(|c| c.get("ReplicaFailure").cloned());
    found.map(updated_now)
}

fn to_value(deployment: &Object, counts: &Counts, conditions: Conditions) -> Value {
    let mut status = crate::status::omit_empty(json!({
        "observedGeneration": counts.observed_generation,
        "replicas": counts.replicas,
        "updatedReplicas": counts.updated,
        "readyReplicas": counts.ready,
        "availableReplicas": counts.available,
        "unavailableReplicas": counts.unavailable,
        "conditions": conditions.into_value(),
    }));
    status["terminatingReplicas"] = counts.terminating.into();
    if let Some(collisions) = deployment.root().at("status.collisionCount").as_i64() {
        status["collisionCount"] = collisions.into();
    }
    status
}

impl Controller {
    /// observedGeneration alone, for a Deployment that nothing else is done with.
    pub(super) async fn observe(&self, deployment: &Object) -> Result<(), Error> {
        let mut status = deployment.root().get("status").to_value();
        if !status.is_object() {
            status = json!({});
        }
        status["observedGeneration"] = int(deployment, "metadata.generation").into();
        write(&self.session, deployment, status).await?;
        Ok(())
    }

    /// Counts and availability, without judging progress: while scaling, paused or being deleted.
    pub(super) async fn write_status(&self, rollout: &Rollout) -> Result<(), Error> {
        let counts = Counts::of(rollout);
        let mut conditions = Conditions::of(&rollout.deployment);
        conditions.set(availability(&rollout.deployment, &counts));
        write(&self.session, &rollout.deployment, to_value(&rollout.deployment, &counts, conditions)).await?;
        Ok(())
    }

    /// The end of a rollout step: status with progress judged, and when to look again if nothing happens.
    pub(super) async fn finish(&self, rollout: &Rollout) -> Result<Next, Error> {
        let counts = Counts::of(rollout);
        let now = now();
        let mut conditions = Conditions::of(&rollout.deployment);
        conditions.set(availability(&rollout.deployment, &counts));
        judge_progress(rollout, &counts, &mut conditions, now);
        match replica_failure(rollout) {
            Some(failure) => conditions.set(failure),
            None => conditions.remove("ReplicaFailure"),
        }
        let next = next_check(&rollout.deployment, &counts, &conditions, now);
        write(&self.session, &rollout.deployment, to_value(&rollout.deployment, &counts, conditions)).await?;
        Ok(next)
    }

    /// Pausing and resuming are noted in Progressing, so that the time in between does not count as no progress.
    pub(super) async fn note_paused(&self, deployment: Object) -> Result<Object, Error> {
        if deadline(&deployment).is_none() {
            return Ok(deployment);
        }
        let conditions = Conditions::of(&deployment);
        let reason = conditions.get("Progressing").and_then(|c| c["reason"].as_str()).unwrap_or_default();
        let paused = deployment.root().at("spec.paused").as_bool() == Some(true);
        match (paused, reason) {
            (_, "ProgressDeadlineExceeded") | (true, "DeploymentPaused") => Ok(deployment),
            (true, _) => {
                self.note_progress(deployment, "Unknown", "DeploymentPaused", "Deployment is paused", true).await
            }
            (false, "DeploymentPaused") => {
                self.note_progress(deployment, "Unknown", "DeploymentResumed", "Deployment is resumed", true).await
            }
            (false, _) => Ok(deployment),
        }
    }
}

/// When the progress deadline passes; a second later, so that the comparison is certain.
fn next_check(deployment: &Object, counts: &Counts, conditions: &Conditions, now: Timestamp) -> Next {
    let (Some(deadline), Some(current)) = (deadline(deployment), conditions.get("Progressing")) else {
        return Next::Done;
    };
    // A finished rollout is not judged again, so nothing is to be waited for.
    let settled = current["reason"] == "ProgressDeadlineExceeded" || current["reason"] == "NewReplicaSetAvailable";
    if settled || is_complete(deployment, counts) {
        return Next::Done;
    }
    let left = updated_at(current).and_then(|since| remaining(since, deadline, now)).unwrap_or_default();
    Next::After(left + Duration::from_secs(1))
}
