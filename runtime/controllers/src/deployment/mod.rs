//! Deployment: one ReplicaSet per template, and the way from the old ones to the new one.
//!
//! Here: what wakes a Deployment and which path it takes. `revision` finds and makes ReplicaSets, `scale` resizes them,
//! `rollout` is the two strategies, `progress` is status and conditions. Behaviour of upstream's pkg/controller/deployment.
mod progress;
mod revision;
mod rollout;
mod scale;

use crate::{
    owner::{self, claim, controller_key, labels},
    pod, pod_control,
    session::Session,
};
use mote_api::{
    Change, Client, Kind, Object,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::selector::LabelSelector;
use std::sync::Arc;

struct Controller {
    session: Session,
    kind: Arc<Kind>,
    sets: Arc<Kind>,
    pods: Arc<Kind>,
}

/// A Deployment and its ReplicaSets while one reconcile works on them; each write replaces the object here.
struct Rollout {
    deployment: Object,
    new: Option<Object>,
    old: Vec<Object>,
}

impl Rollout {
    fn sets(&self) -> impl Iterator<Item = &Object> {
        self.old.iter().chain(&self.new)
    }
}

pub fn start(client: &Client) {
    let session = Session::new(client, "deployment-controller");
    let controller = Controller {
        kind: session.kind("apps", "v1", "deployments"),
        sets: session.kind("apps", "v1", "replicasets"),
        pods: session.kind("", "v1", "pods"),
        session: session.clone(),
    };
    session.start(controller);
}

fn int(object: &Object, path: &str) -> i64 {
    object.root().at(path).as_i64().unwrap_or(0)
}

/// `spec.replicas`, which defaulting has filled in.
fn replicas(object: &Object) -> i64 {
    object.root().at("spec.replicas").as_i64().unwrap_or(1)
}

fn annotation<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    object.meta().get("annotations").get(name).as_str()
}

fn selector(deployment: &Object) -> Option<LabelSelector> {
    LabelSelector::from_ref(deployment.root().at("spec.selector")).ok().flatten()
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("apps", "v1", "deployments"), ("apps", "v1", "replicasets"), ("", "v1", "pods")]
    }

    fn workers(&self) -> usize {
        4
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        match &*change.kind.plural {
            "deployments" => queue.add(Key::new(object.namespace(), object.name())),
            "replicasets" => owner::wake_controllers(&self.session, &self.kind, change, queue, |deployment, set| {
                selector(deployment).is_some_and(|s| s.matches(labels(set)))
            }),
            // Recreate waits for the last old pod to be gone, and no ReplicaSet changes when that happens.
            _ if change.new.is_none() => {
                let set = controller_key(object, &self.sets)
                    .and_then(|key| self.session.get(&self.sets, &key.namespace, &key.name).ok());
                if let Some(key) = set.as_ref().and_then(|set| controller_key(set, &self.kind)) {
                    queue.add(key);
                }
            }
            _ => {}
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let deployment = match self.session.get(&self.kind, &key.namespace, &key.name) {
                Ok(deployment) => deployment,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            match self.sync(deployment).await {
                Err(Error::Api(status)) if pod_control::namespace_terminating(&status) => Ok(Next::Done),
                result => result,
            }
        })
    }
}

impl Controller {
    async fn sync(&self, deployment: Object) -> Result<Next, Error> {
        let Some(selector) = selector(&deployment) else { return Ok(Next::Done) };
        if selector.requirements.is_empty() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.session.event(&deployment, "Warning", "SelectingAll", message);
            self.observe(&deployment).await?;
            return Ok(Next::Done);
        }
        let sets = claim(&self.session, &deployment, &self.sets, &selector, |_| true).await?;
        if deployment.is_deleting() {
            let rollout = self.find_revisions(deployment, sets).await?;
            self.write_status(&rollout).await?;
            return Ok(Next::Done);
        }
        let deployment = self.note_paused(deployment).await?;
        let paused = deployment.root().at("spec.paused").as_bool() == Some(true);
        let mut rollout = self.find_revisions(deployment, sets).await?;
        if paused || scale::is_scaling_event(&rollout) {
            self.scale(&mut rollout).await?;
            if paused {
                self.clean_up(&rollout).await?;
            }
            self.write_status(&rollout).await?;
            return Ok(Next::Done);
        }
        match rollout.deployment.root().at("spec.strategy.type").str() {
            "Recreate" => self.recreate(rollout).await,
            _ => self.roll(rollout).await,
        }
    }

    /// Pods of old ReplicaSets that are not finished, those being deleted included.
    fn old_pods_running(&self, rollout: &Rollout) -> Result<bool, Error> {
        if rollout.old.iter().any(|set| int(set, "status.replicas") > 0) {
            return Ok(true);
        }
        let pods = self.session.list(&self.pods, Some(rollout.deployment.namespace()))?;
        let of_old = |p: &Object| rollout.old.iter().any(|set| owner::is_controlled_by(p, set));
        Ok(pods.iter().any(|p| !pod::is_finished(p) && of_old(p)))
    }
}
