//! Pods leave nodes whose NoExecute taints they do not tolerate, at once or when their tolerationSeconds are over
//! (pkg/controller/tainteviction). The seconds count from when the taint was seen here.
use crate::{pod, pod_control, session::Session, status::condition};
use mote_api::{
    Change, Client, Kind, Object, Ref,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::placement::tolerates;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

struct Controller {
    session: Session,
    pods: Arc<Kind>,
    nodes: Arc<Kind>,
    /// Since when each pod's toleration is running out.
    scheduled: Mutex<HashMap<Key, Instant>>,
}

pub fn start(client: &Client) {
    // Upstream has no role of its own for it.
    let session = Session::new(client, "node-controller");
    let controller = Controller {
        pods: session.kind("", "v1", "pods"),
        nodes: session.kind("", "v1", "nodes"),
        scheduled: Mutex::default(),
        session: session.clone(),
    };
    session.start(controller);
}

fn no_execute(node: &Object) -> impl Iterator<Item = Ref<'_>> + Clone {
    node.root().at("spec.taints").items().filter(|taint| taint.get("effect").str() == "NoExecute")
}

/// How long the pod may stay: None for ever, zero not at all.
fn tolerated_for<'a>(taints: impl Iterator<Item = Ref<'a>>, tolerations: Ref<'_>) -> Option<Duration> {
    let mut shortest = None;
    for taint in taints {
        let Some(toleration) = tolerations.items().find(|t| tolerates(*t, taint)) else { return Some(Duration::ZERO) };
        if let Some(seconds) = toleration.get("tolerationSeconds").as_i64() {
            let time = Duration::from_secs(seconds.max(0).unsigned_abs());
            shortest = Some(shortest.map_or(time, |s: Duration| s.min(time)));
        }
    }
    shortest
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "taint-eviction"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "pods"), ("", "v1", "nodes")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if change.kind.plural == "pods" {
            let key = Key::new(object.namespace(), object.name());
            let same = |path: &str| {
                change
                    .old
                    .as_ref()
                    .is_some_and(|old| old.root().at(path).to_value() == object.root().at(path).to_value())
            };
            if change.new.is_none() {
                self.scheduled().remove(&key);
            } else if !(pod::node_name(object).is_empty() || same("spec.nodeName") && same("spec.tolerations")) {
                queue.add(key);
            }
            return;
        }
        let taints = |o: &Option<Object>| -> Vec<mote_schema::Value> {
            o.iter().flat_map(no_execute).map(Ref::to_value).collect()
        };
        if taints(&change.old) == taints(&change.new) {
            return;
        }
        for pod in self.session.list(&self.pods, None).unwrap_or_default() {
            if pod::node_name(&pod) == object.name() {
                queue.add(Key::new(pod.namespace(), pod.name()));
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(pod) = self.session.get(&self.pods, &key.namespace, &key.name) else {
                self.scheduled().remove(key);
                return Ok(Next::Done);
            };
            let Ok(node) = self.session.get(&self.nodes, "", pod::node_name(&pod)) else { return Ok(Next::Done) };
            let tolerations = pod.root().at("spec.tolerations");
            let stay = tolerated_for(no_execute(&node), tolerations);
            if pod.is_deleting() {
                self.scheduled().remove(key);
                return Ok(Next::Done);
            }
            let Some(stay) = stay else {
                if self.scheduled().remove(key).is_some() {
                    self.session.event(
                        &pod,
                        "Normal",
                        "TaintManagerEviction",
                        &format!("Cancelling deletion of Pod {key}"),
                    );
                }
                return Ok(Next::Done);
            };
            if !stay.is_zero() {
                let since = *self.scheduled().entry(key.clone()).or_insert_with(Instant::now);
                if let Some(left) = stay.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
                    return Ok(Next::After(left));
                }
            }
            self.scheduled().remove(key);
            self.session.event(&pod, "Normal", "TaintManagerEviction", &format!("Marking for deletion Pod {key}"));
            let reason = condition(
                "DisruptionTarget",
                "True",
                "DeletionByTaintManager",
                "Taint manager: deleting due to NoExecute taint",
            );
            pod_control::disrupt(&self.session, &pod, Some(reason), false, None).await?;
            Ok(Next::Done)
        })
    }
}

impl Controller {
    fn scheduled(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.scheduled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::Doc;
    use mote_schema::{Value, json};

    #[test]
    fn shortest_toleration_counts() {
        let check = |tolerations: Value, want: Option<u64>| {
            let doc = Doc::encode(&json!({
                "taints": [{"key": "a", "effect": "NoExecute"}, {"key": "b", "effect": "NoExecute"}], "t": tolerations,
            }))
            .unwrap();
            let stay = tolerated_for(doc.root().get("taints").items(), doc.root().get("t"));
            assert_eq!(stay, want.map(Duration::from_secs));
        };
        check(json!([]), Some(0));
        check(json!([{"operator": "Exists"}]), None);
        check(json!([{"key": "a", "operator": "Exists"}]), Some(0));
        let both = |x: i64, y: i64| {
            json!([{"key": "a", "operator": "Exists", "tolerationSeconds": x},
                {"key": "b", "operator": "Exists", "tolerationSeconds": y}])
        };
        check(both(300, 60), Some(60));
        check(both(300, -1), Some(0));
        check(json!([{"key": "a", "operator": "Exists"}, {"operator": "Exists", "tolerationSeconds": 5}]), Some(5));
    }
}
