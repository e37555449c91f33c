//! Pods that nobody else will remove: finished ones beyond a number, those of vanished or out-of-service nodes, and
//! those deleted before they had a node (pkg/controller/podgc).
use crate::{Config, pod, pod_control, session::Session, status::condition};
use mote_api::{
    Change, Client, Kind, Object,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Order as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A node may come back under its name: its pods wait this long.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Keys that are no pods; no namespace has a colon in its name.
const FINISHED: &str = ":finished";
const NODE: &str = ":node";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct Controller {
    session: Session,
    pods: Arc<Kind>,
    nodes: Arc<Kind>,
    threshold: usize,
    finished: AtomicUsize,
}

pub fn start(client: &Client, config: &Config) {
    let session = Session::new(client, "pod-garbage-collector");
    let controller = Controller {
        pods: session.kind("", "v1", "pods"),
        nodes: session.kind("", "v1", "nodes"),
        threshold: config.terminated_pod_threshold,
        finished: AtomicUsize::new(0),
        session: session.clone(),
    };
    session.start(controller);
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "pod-gc"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "pods"), ("", "v1", "nodes")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if change.kind.plural == "nodes" {
            let name = change.object().name();
            match &change.new {
                None => queue.add_after(Key::new(NODE, name), QUARANTINE),
                Some(node) if is_out_of_service(node) => queue.add(Key::new(NODE, name)),
                Some(_) => {}
            }
            return;
        }
        let was = change.old.as_ref().is_some_and(pod::is_finished);
        let is = change.new.as_ref().is_some_and(pod::is_finished);
        let count = match (was, is) {
            (false, true) => self.finished.fetch_add(1, Ordering::Relaxed) + 1,
            (true, false) => self.finished.fetch_sub(1, Ordering::Relaxed) - 1,
            _ => 0,
        };
        if self.threshold > 0 && count > self.threshold {
            queue.add(Key::new(FINISHED, ""));
        }
        let Some(pod) = &change.new else { return };
        let node = pod::node_name(pod);
        if node.is_empty() {
            if pod.is_deleting() {
                queue.add(Key::new(pod.namespace(), pod.name()));
            }
        } else if change
            .old
            .as_ref()
            .is_none_or(|old| old.is_deleting() != pod.is_deleting() || pod::node_name(old) != node)
        {
            match self.session.get(&self.nodes, "", node) {
                Ok(object) if pod.is_deleting() && is_out_of_service(&object) => queue.add(Key::new(NODE, node)),
                Ok(_) => {}
                Err(_) => queue.add_after(Key::new(NODE, node), QUARANTINE),
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            match &*key.namespace {
                FINISHED => self.collect_finished().await?,
                NODE => self.collect_node(&key.name).await?,
                _ => {
                    let pod = self.session.get(&self.pods, &key.namespace, &key.name).ok();
                    if let Some(pod) = pod.filter(|p| p.is_deleting() && pod::node_name(p).is_empty()) {
                        self.remove(&pod, None).await?;
                    }
                }
            }
            Ok(Next::Done)
        })
    }
}

fn is_out_of_service(node: &Object) -> bool {
    !pod::is_ready(node) && node.root().at("spec.taints").items().any(|t| t.get("key").str() == OUT_OF_SERVICE)
}

impl Controller {
    async fn remove(&self, pod: &Object, reason: Option<mote_schema::Value>) -> Result<(), Error> {
        Ok(pod_control::disrupt(&self.session, pod, reason, true, Some(0)).await?)
    }

    /// Evicted pods first, then the oldest.
    async fn collect_finished(&self) -> Result<(), Error> {
        let mut pods = self.session.list(&self.pods, None)?;
        pods.retain(pod::is_finished);
        let surplus = pods.len().saturating_sub(self.threshold);
        let evicted = |p: &Object| p.root().at("status.reason").str() == "Evicted";
        pods.order_by(|a, b| {
            evicted(b).cmp(&evicted(a)).then_with(|| (pod::created(a), a.name()).cmp(&(pod::created(b), b.name())))
        });
        for pod in pods.iter().take(surplus) {
            self.remove(pod, None).await?;
        }
        Ok(())
    }

    async fn collect_node(&self, name: &str) -> Result<(), Error> {
        let node = self.session.get(&self.nodes, "", name).ok();
        if node.as_ref().is_some_and(|node| !is_out_of_service(node)) {
            return Ok(());
        }
        let reason = node
            .is_none()
            .then(|| condition("DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists"));
        for pod in self.session.list(&self.pods, None)? {
            if pod::node_name(&pod) == name && (node.is_none() || pod.is_deleting()) {
                self.remove(&pod, reason.clone()).await?;
            }
        }
        Ok(())
    }
}
