//! PodDisruptionBudget status: how many of a budget's pods are healthy, should be, and may be evicted
//! (pkg/controller/disruption). Evictions themselves are the API server's.
use crate::{
    amounts::{now, parse_time, remaining, rfc3339, scaled},
    owner, pod,
    session::Session,
    status::{Conditions, write},
};
use mote_api::{
    Change, Client, Kind, Object,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::selector::LabelSelector;
use mote_schema::{Map, Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// An evicted pod that is still there after this was not deleted after all.
const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

struct Controller {
    session: Session,
    budgets: Arc<Kind>,
    pods: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "disruption-controller");
    let budgets = session.kind("policy", "v1", "poddisruptionbudgets");
    let pods = session.kind("", "v1", "pods");
    session.clone().start(Controller { session, budgets, pods });
}

/// None for a budget that covers nothing; an empty selector covers its namespace.
fn selector(budget: &Object) -> Option<LabelSelector> {
    LabelSelector::from_ref(budget.root().at("spec.selector")).ok().flatten()
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("policy", "v1", "poddisruptionbudgets"), ("", "v1", "pods")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if &*change.kind.plural == "poddisruptionbudgets" {
            return queue.add(Key::new(object.namespace(), object.name()));
        }
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && pod::same_for_endpoints(old, new)
        {
            return;
        }
        for budget in self.session.list(&self.budgets, Some(object.namespace())).unwrap_or_default() {
            let covers = |p: &Object| selector(&budget).is_some_and(|s| s.matches(owner::labels(p)));
            if change.old.iter().chain(&change.new).any(covers) {
                queue.add(Key::new(budget.namespace(), budget.name()));
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let budget = match self.session.get(&self.budgets, &key.namespace, &key.name) {
                Ok(budget) => budget,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            let mut pods = Vec::new();
            if let Some(selector) = selector(&budget) {
                pods = self.session.list(&self.pods, Some(budget.namespace()))?;
                pods.retain(|p| !pod::is_finished(p) && selector.matches(owner::labels(p)));
            }
            let expected = self.expected(&budget, &pods);
            let (disrupted, next) = disrupted(&budget, &pods);
            write(&self.session, &budget, status(&budget, &pods, &expected, &disrupted)).await?;
            Ok(next.map_or(Next::Done, Next::After))
        })
    }
}

impl Controller {
    /// How many pods there should be in all, or why that cannot be said. Percentages and maxUnavailable count
    /// against what the pods' controllers want.
    fn expected(&self, budget: &Object, pods: &[Object]) -> Result<i64, String> {
        let spec = budget.root().get("spec");
        let number = |value: mote_api::Ref<'_>| value.as_i64().is_some();
        if !spec.get("maxUnavailable").exists() && number(spec.get("minAvailable")) {
            return Ok(i64::try_from(pods.len()).unwrap_or(0));
        }
        let mut scales: HashMap<String, i64> = HashMap::new();
        for pod in pods {
            let Some(controller) = owner::controller_of(pod) else {
                // Pods without a controller have no scale; upstream counts none of them.
                continue;
            };
            let scale = self.scale(pod, &controller);
            let (uid, wanted) = scale.ok_or_else(|| {
                format!("no controller found with a scale for pod {:?}", format!("{}/{}", pod.namespace(), pod.name()))
            })?;
            scales.insert(uid, wanted);
        }
        Ok(scales.values().sum())
    }

    /// The topmost controller that says how many pods it wants.
    fn scale(&self, pod: &Object, controller: &owner::OwnerRef<'_>) -> Option<(String, i64)> {
        let get = |namespace: &str, reference: &owner::OwnerRef<'_>| {
            let version = reference.api_version.rsplit_once('/').map_or(reference.api_version, |(_, v)| v);
            let catalog = self.session.catalog();
            let kind = catalog.by_kind(owner::group_of(reference.api_version), version, reference.kind)?;
            let found = self.session.get(kind, namespace, reference.name).ok();
            found.filter(|o| o.uid() == reference.uid)
        };
        let direct = get(pod.namespace(), controller)?;
        let above = owner::controller_of(&direct).and_then(|r| get(pod.namespace(), &r));
        let scaled = |o: &Object| Some((o.uid().to_owned(), o.root().at("spec.replicas").as_i64()?));
        above.as_ref().and_then(scaled).or_else(|| scaled(&direct))
    }
}

/// Evictions the API server noted that are still under way, and when the first of them is given up.
fn disrupted(budget: &Object, pods: &[Object]) -> (Map, Option<Duration>) {
    let mut kept = Map::new();
    let mut next: Option<Duration> = None;
    for (name, time) in budget.root().at("status.disruptedPods").entries() {
        let waits = pods.iter().any(|p| p.name() == name && !p.is_deleting());
        let left = parse_time(time).and_then(|at| remaining(at, DELETION_TIMEOUT, now()));
        if let (true, Some(left)) = (waits, left) {
            kept.insert(name.to_owned().into(), time.to_value());
            next = Some(next.map_or(left, |n| n.min(left)));
        }
    }
    (kept, next)
}

fn status(budget: &Object, pods: &[Object], expected: &Result<i64, String>, disrupted: &Map) -> Value {
    let healthy = |p: &&Object| pod::is_ready(p) && !p.is_deleting() && !disrupted.contains_key(p.name());
    let current = i64::try_from(pods.iter().filter(healthy).count()).unwrap_or(0);
    let spec = budget.root().get("spec");
    let total = expected.as_ref().copied().unwrap_or(0);
    let desired = if spec.get("maxUnavailable").exists() {
        (total - scaled(spec.get("maxUnavailable"), total, true).unwrap_or(0)).max(0)
    } else {
        scaled(spec.get("minAvailable"), total, true).unwrap_or(1)
    };
    let allowed = if total > 0 && expected.is_ok() { (current - desired).max(0) } else { 0 };
    let mut conditions = Conditions::of(budget);
    let (value, reason, message) = match expected {
        Err(message) => ("False", "SyncFailed", message.as_str()),
        Ok(_) if allowed > 0 => ("True", "SufficientPods", ""),
        Ok(_) => ("False", "InsufficientPods", ""),
    };
    let generation = budget.meta().get("generation").as_i64().unwrap_or(0);
    conditions.set_in_place(json!({
        "type": "DisruptionAllowed", "status": value, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": rfc3339(now()),
    }));
    let mut status = json!({
        "observedGeneration": generation, "disruptionsAllowed": allowed, "currentHealthy": current,
        "desiredHealthy": desired, "expectedPods": total, "conditions": conditions.into_value(),
    });
    if !disrupted.is_empty() {
        status["disruptedPods"] = Value::Object(disrupted.clone());
    }
    status
}
