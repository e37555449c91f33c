//! ReplicaSet and ReplicationController: keep `spec.replicas` pods of one template. One controller over a table of
//! two kinds, as upstream adapts one to the other (pkg/controller/replicaset).
use crate::{
    amounts::now,
    owner,
    pod::{self, deletion_order},
    pod_control,
    session::Session,
    status::{Conditions, condition, write},
};
use jiff::Timestamp;
use mote_api::{
    Change, Client, Kind, Object,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Order as _;
use mote_schema::{Status, json, selector::LabelSelector};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Pods made or removed in one go (upstream's BurstReplicas).
const BURST: usize = 500;

struct Flavor {
    name: &'static str,
    user: &'static str,
    watches: &'static [(&'static str, &'static str, &'static str)],
}

const FLAVORS: [Flavor; 2] = [
    Flavor {
        name: "replicaset",
        user: "replicaset-controller",
        watches: &[("apps", "v1", "replicasets"), ("", "v1", "pods")],
    },
    Flavor {
        name: "replicationcontroller",
        user: "replication-controller",
        watches: &[("", "v1", "replicationcontrollers"), ("", "v1", "pods")],
    },
];

struct Controller {
    flavor: &'static Flavor,
    session: Session,
    kind: Arc<Kind>,
    pods: Arc<Kind>,
}

pub fn start(client: &Client) {
    for flavor in &FLAVORS {
        let session = Session::new(client, flavor.user);
        let (group, version, plural) = flavor.watches[0];
        let kind = session.kind(group, version, plural);
        let pods = session.kind("", "v1", "pods");
        session.clone().start(Controller { flavor, session, kind, pods });
    }
}

/// A ReplicationController selects by a plain map, and by its template's labels when it has none.
fn selector(object: &Object) -> Result<Option<LabelSelector>, String> {
    let spec = object.root().get("spec");
    if object.kind.group.is_empty() {
        return Ok(Some(owner::map_selector(spec.get("selector"))));
    }
    LabelSelector::from_ref(spec.get("selector"))
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        self.flavor.name
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        self.flavor.watches
    }

    fn workers(&self) -> usize {
        4
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if change.kind.plural != "pods" {
            let object = change.object();
            queue.add(Key::new(object.namespace(), object.name()));
            return;
        }
        owner::wake_controllers(&self.session, &self.kind, change, queue, |owner, pod| {
            selector(owner).ok().flatten().is_some_and(|s| s.matches(owner::labels(pod)))
        });
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let set = match self.session.get(&self.kind, &key.namespace, &key.name) {
                Ok(set) => set,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            // Validation keeps invalid selectors out; one that slipped in selects nothing.
            let Ok(Some(selector)) = selector(&set) else { return Ok(Next::Done) };
            self.sync(set, &selector).await
        })
    }
}

impl Controller {
    async fn sync(&self, set: Object, selector: &LabelSelector) -> Result<Next, Error> {
        let claimed = owner::claim(&self.session, &set, &self.pods, selector, pod::is_active).await?;
        let (active, rest): (Vec<Object>, Vec<Object>) = claimed.into_iter().partition(pod::is_active);
        let failure = if set.is_deleting() { None } else { self.manage(&set, &active).await };
        // What was just made or removed wakes this key again; the status below is of what was there before, as upstream's.
        let terminating = rest.iter().filter(|p| pod::is_terminating(p)).count();
        let now = now();
        let status = status_of(&set, &active, terminating, failure.as_ref(), now);
        let set = write(&self.session, &set, status).await?;
        if let Some(status) = failure {
            return if pod_control::namespace_terminating(&status) { Ok(Next::Done) } else { Err(status.into()) };
        }
        let min_ready = set.root().at("spec.minReadySeconds").as_i64().unwrap_or(0);
        Ok(match pod::next_available(&active, min_ready, now) {
            Some(wait) if min_ready > 0 => Next::After(wait + Duration::from_millis(50)),
            _ => Next::Done,
        })
    }

    /// Makes or removes pods. The failure that stopped it, if any.
    async fn manage(&self, set: &Object, active: &[Object]) -> Option<Status> {
        let wanted = usize::try_from(set.root().at("spec.replicas").as_i64().unwrap_or(1)).unwrap_or(0);
        if active.len() < wanted {
            let count = (wanted - active.len()).min(BURST);
            let pod = pod_control::from_template(set.root().at("spec.template"), set);
            let make = |_| -> BoxFuture<'static, Result<(), Status>> {
                let (session, pods, set, pod) = (self.session.clone(), self.pods.clone(), set.clone(), pod.clone());
                Box::pin(async move { pod_control::create(&session, &pods, &set, pod).await.map(drop) })
            };
            return pod_control::slow_start(&self.session, count, make).await.1;
        }
        let surplus = (active.len() - wanted).min(BURST);
        let mut failure = None;
        for pod in to_delete(active, &self.related(set), surplus, now()) {
            failure = failure.or(pod_control::delete(&self.session, set, &pod).await.err());
        }
        failure
    }

    /// Active pods of all sets with the same controller: the other revisions of a Deployment, which share its nodes.
    fn related(&self, set: &Object) -> Vec<Object> {
        let namespace = Some(set.namespace());
        let Some(controller) = owner::controller_of(set) else {
            return Vec::new();
        };
        let sets = self.session.list(&self.kind, namespace).unwrap_or_default();
        let uids: Vec<&str> = sets
            .iter()
            .filter(|s| owner::controller_of(s).is_some_and(|c| c.uid == controller.uid))
            .map(Object::uid)
            .collect();
        let pods = self.session.list(&self.pods, namespace).unwrap_or_default();
        let related = |p: &Object| pod::is_active(p) && owner::controller_of(p).is_some_and(|c| uids.contains(&c.uid));
        pods.into_iter().filter(related).collect()
    }
}

/// The first `count` of `active` in deletion order.
fn to_delete(active: &[Object], related: &[Object], count: usize, now: Timestamp) -> Vec<Object> {
    if count == 0 {
        return Vec::new();
    }
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *on_node.entry(pod::node_name(pod)).or_default() += 1;
    }
    let rank = |p: &Object| on_node.get(pod::node_name(p)).copied().unwrap_or(0);
    let mut ranked: Vec<(&Object, usize)> = active.iter().map(|p| (p, rank(p))).collect();
    ranked.order_by(|a, b| deletion_order(*a, *b, now));
    ranked.into_iter().take(count).map(|(p, _)| p.clone()).collect()
}

fn status_of(
    set: &Object,
    active: &[Object],
    terminating: usize,
    failure: Option<&Status>,
    now: Timestamp,
) -> mote_schema::Value {
    let spec = set.root().get("spec");
    let min_ready = spec.get("minReadySeconds").as_i64().unwrap_or(0);
    let template_labels = spec.at("template.metadata.labels");
    let count = |f: &dyn Fn(&Object) -> bool| active.iter().filter(|p| f(p)).count();
    let mut conditions = Conditions::of(set);
    match failure {
        Some(status) if conditions.get("ReplicaFailure").is_none() => {
            let wanted = spec.get("replicas").as_i64().unwrap_or(1);
            let short = i64::try_from(active.len()).unwrap_or(i64::MAX) < wanted;
            let reason = if short { "FailedCreate" } else { "FailedDelete" };
            conditions.set(condition("ReplicaFailure", "True", reason, &status.message));
        }
        None => conditions.remove("ReplicaFailure"),
        Some(_) => {}
    }
    let mut status = json!({"replicas": active.len()});
    let mut put = |name: &str, count: i64| {
        if count > 0 {
            status[name] = count.into();
        }
    };
    let as_i64 = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    put("fullyLabeledReplicas", as_i64(count(&|p| owner::labels_contain(owner::labels(p), template_labels))));
    put("readyReplicas", as_i64(count(&pod::is_ready)));
    put("availableReplicas", as_i64(count(&|p| pod::is_available(p, min_ready, now))));
    put("observedGeneration", set.meta().get("generation").as_i64().unwrap_or(0));
    if !set.kind.group.is_empty() {
        status["terminatingReplicas"] = terminating.into();
    }
    if !conditions.0.is_empty() {
        status["conditions"] = conditions.into_value();
    }
    status
}
