//! Making and removing pods on behalf of an owner, with upstream's events (pkg/controller/controller_utils.go).
use crate::owner::{controller_ref, gone_is_fine};
use crate::session::Session;
use mote_api::{DeleteOptions, Kind, Object, Ref, Status, Sub, driver::BoxFuture};
use mote_schema::{Map, Value, json};
use std::sync::Arc;

/// First batch of creations; a batch that succeeds doubles the next.
const SLOW_START_INITIAL: usize = 1;

/// A pod as `template` (a PodTemplateSpec) describes it, controlled by `owner` and named after it.
pub fn from_template(template: Ref<'_>, owner: &Object) -> Value {
    let mut metadata = Map::new();
    for part in ["labels", "annotations", "finalizers"] {
        let value = template.get("metadata").get(part);
        if value.exists() {
            metadata.insert(part.into(), value.to_value());
        }
    }
    metadata.insert("generateName".into(), format!("{}-", owner.name()).into());
    metadata.insert("ownerReferences".into(), json!([controller_ref(owner)]));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec").to_value()})
}

/// Creates `pod` in the owner's namespace.
pub async fn create(session: &Session, pods: &Arc<Kind>, owner: &Object, pod: Value) -> Result<Object, Status> {
    match session.create(pods, owner.namespace(), pod).await {
        Ok(pod) => {
            session.event(owner, "Normal", "SuccessfulCreate", &format!("Created pod: {}", pod.name()));
            Ok(pod)
        }
        Err(status) => {
            if !namespace_terminating(&status) {
                session.event(owner, "Warning", "FailedCreate", &format!("Error creating: {}", status.message));
            }
            Err(status)
        }
    }
}

pub async fn delete(session: &Session, owner: &Object, pod: &Object) -> Result<(), Status> {
    match session.delete(pod, DeleteOptions::default()).await {
        Ok(()) => {
            session.event(owner, "Normal", "SuccessfulDelete", &format!("Deleted pod: {}", pod.name()));
            Ok(())
        }
        // Somebody else was quicker, or another pod has taken the name: this one is gone either way.
        Err(status) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(status) => {
            session.event(owner, "Warning", "FailedDelete", &format!("Error deleting: {}", status.message));
            Err(status)
        }
    }
}

/// A creation in a namespace that is being deleted: nothing to report, nothing to retry.
pub fn namespace_terminating(status: &Status) -> bool {
    status.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Runs `make(0..count)` in batches of 1, 2, 4...: a quota or a webhook that refuses is asked once, not a hundred times.
/// How many succeeded, and the first failure, after which no further batch starts.
pub async fn slow_start(
    session: &Session,
    count: usize,
    make: impl Fn(usize) -> BoxFuture<'static, Result<(), Status>>,
) -> (usize, Option<Status>) {
    let (mut done, mut successes) = (0, 0);
    let mut batch = SLOW_START_INITIAL.min(count);
    while batch > 0 {
        let tasks: Vec<_> = (done..done + batch).map(|index| session.spawn(make(index))).collect();
        let mut failure = None;
        for task in tasks {
            match task.await {
                Ok(()) => successes += 1,
                Err(status) => failure = failure.or(Some(status)),
            }
        }
        if failure.is_some() {
            return (successes, failure);
        }
        done += batch;
        batch = (2 * batch).min(count - done);
    }
    (successes, None)
}

/// A pod that something other than its owner takes away: says so in its conditions (and fails it, when nobody is left
/// to finish it), then deletes it. `grace` None is the pod's own.
pub async fn disrupt(
    session: &Session,
    pod: &Object,
    condition: Option<Value>,
    fail: bool,
    grace: Option<i64>,
) -> Result<(), Status> {
    let fail = fail && !crate::pod::is_finished(pod);
    let mut status = Map::new();
    if fail {
        status.insert("phase".into(), "Failed".into());
    }
    if let Some(condition) = condition.filter(|_| fail || !crate::pod::is_finished(pod)) {
        let mut conditions = crate::status::Conditions::of(pod);
        conditions.set_in_place(condition);
        status.insert("conditions".into(), conditions.into_value());
    }
    if !status.is_empty() {
        let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
        gone_is_fine(session.patch(pod, Sub::Status, patch).await)?;
    }
    let options = DeleteOptions { grace_period_seconds: grace, ..DeleteOptions::default() };
    gone_is_fine(session.delete(pod, options).await)
}
