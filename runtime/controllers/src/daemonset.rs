//! DaemonSet: one pod on every node that would take it, replaced node by node when the template changes
//! (pkg/controller/daemon). The scheduler places the pods: each is tied to its node by an affinity term.
use crate::{
    amounts::{now, scaled},
    history::{self, HASH_LABEL, History},
    owner::{self, claim},
    pod, pod_control,
    session::Session,
    status::write,
};
use mote_api::{
    Change, Client, Kind, Object,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Order as _;
use mote_schema::{Value, json};
use mote_schema::{
    placement::{node_matches, tolerates},
    selector::LabelSelector,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failed pods on one node are replaced after 1 s, doubling to 15 min.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_LONGEST: Duration = Duration::from_secs(15 * 60);

/// Tolerations every daemon pod gets: (key, effect, only on the host's network).
const TOLERATIONS: [(&str, &str, bool); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute", false),
    ("node.kubernetes.io/unreachable", "NoExecute", false),
    ("node.kubernetes.io/disk-pressure", "NoSchedule", false),
    ("node.kubernetes.io/memory-pressure", "NoSchedule", false),
    ("node.kubernetes.io/pid-pressure", "NoSchedule", false),
    ("node.kubernetes.io/unschedulable", "NoSchedule", false),
    ("node.kubernetes.io/network-unavailable", "NoSchedule", true),
];

struct Controller {
    session: Session,
    kind: Arc<Kind>,
    pods: Arc<Kind>,
    nodes: Arc<Kind>,
    revisions: Arc<Kind>,
    /// When a failed pod was last replaced, per set and node, and how often in a row.
    failures: Mutex<HashMap<(Key, String), (Instant, u32)>>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "daemon-set-controller");
    let controller = Controller {
        kind: session.kind("apps", "v1", "daemonsets"),
        pods: session.kind("", "v1", "pods"),
        nodes: session.kind("", "v1", "nodes"),
        revisions: session.kind("apps", "v1", "controllerrevisions"),
        failures: Mutex::default(),
        session: session.clone(),
    };
    session.start(controller);
}

fn selector(set: &Object) -> Option<LabelSelector> {
    LabelSelector::from_ref(set.root().at("spec.selector")).ok().flatten()
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "daemonset"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("apps", "v1", "daemonsets"), ("", "v1", "pods"), ("", "v1", "nodes")]
    }

    fn workers(&self) -> usize {
        2
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        match &*change.kind.plural {
            "daemonsets" => queue.add(Key::new(object.namespace(), object.name())),
            "pods" => owner::wake_controllers(&self.session, &self.kind, change, queue, |set, pod| {
                selector(set).is_some_and(|s| s.matches(owner::labels(pod)))
            }),
            _ => {
                let same = |path: &str| {
                    let value = |o: &Option<Object>| o.as_ref().map(|o| o.root().at(path).to_value());
                    value(&change.old) == value(&change.new)
                };
                if same("metadata.labels") && same("spec") {
                    return;
                }
                for set in self.session.list(&self.kind, None).unwrap_or_default() {
                    queue.add(Key::new(set.namespace(), set.name()));
                }
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let set = match self.session.get(&self.kind, &key.namespace, &key.name) {
                Ok(set) => set,
                Err(status) if status.is_not_found() => {
                    self.failures.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != key);
                    return Ok(Next::Done);
                }
                Err(status) => return Err(status.into()),
            };
            let Some(selector) = selector(&set) else { return Ok(Next::Done) };
            if selector.requirements.is_empty() {
                let message = "This daemon set is selecting all pods. A non-empty selector is required.";
                self.session.event(&set, "Warning", "SelectingAll", message);
                return Ok(Next::Done);
            }
            if set.is_deleting() {
                return Ok(Next::Done);
            }
            match self.sync(key, set, &selector).await {
                Err(Error::Api(status)) if pod_control::namespace_terminating(&status) => Ok(Next::Done),
                result => result,
            }
        })
    }
}

/// Whether a pod of the set should be started on the node, and whether one there may stay.
fn should_run(set: &Object, node: &Object) -> (bool, bool) {
    let spec = set.root().at("spec.template.spec");
    let wanted = spec.get("nodeName").str();
    if !wanted.is_empty() && wanted != node.name() || !node_matches(spec, node.root()) {
        return (false, false);
    }
    let host_network = spec.get("hostNetwork").as_bool() == Some(true);
    let taints = node.root().at("spec.taints");
    let builtin = |key: &str, effect: &str| {
        TOLERATIONS.iter().any(|(k, e, host)| *k == key && *e == effect && (!host || host_network))
    };
    let bothers = |effect: &str| {
        let mut of_effect = taints.items().filter(|t| t.get("effect").str() == effect);
        let tolerations = spec.get("tolerations");
        of_effect
            .any(|taint| !builtin(taint.get("key").str(), effect) && !tolerations.items().any(|t| tolerates(t, taint)))
    };
    let stays = !bothers("NoExecute");
    (stays && !bothers("NoSchedule"), stays)
}

/// What one pass will do.
#[derive(Default)]
struct Work {
    create: Vec<String>,
    delete: Vec<Object>,
    again: Option<Duration>,
}

impl Controller {
    async fn sync(&self, key: &Key, set: Object, selector: &LabelSelector) -> Result<Next, Error> {
        let history = history::sync(&self.session, &self.revisions, &set, HASH_LABEL).await?;
        let hash = history::hash_of(&history.current).to_owned();
        let pods = claim(&self.session, &set, &self.pods, selector, |_| true).await?;
        let nodes = self.session.list(&self.nodes, None)?;
        let mut work = self.manage(key, &set, &pods, &nodes, &hash);
        if set.root().at("spec.updateStrategy.type").str() != "OnDelete"
            && work.create.is_empty()
            && work.delete.is_empty()
        {
            work.delete = roll(&set, &by_node(&pods), &nodes, &hash, &mut work.create);
        }
        let result = self.carry_out(&set, &work, &hash).await;
        let live: Vec<&str> = pods.iter().map(|p| p.meta().get("labels").get(HASH_LABEL).str()).collect();
        history::clean_up(&self.session, &set, &history, &live).await?;
        let next = self.write_status(&set, &pods, &nodes, &history).await?;
        result?;
        Ok(match (next, work.again) {
            (Some(a), Some(b)) => Next::After(a.min(b)),
            (Some(wait), None) | (None, Some(wait)) => Next::After(wait),
            (None, None) => Next::Done,
        })
    }

    /// Pods where there should be one and is none, and pods where there should be none, or fewer.
    fn manage(&self, key: &Key, set: &Object, pods: &[Object], nodes: &[Object], hash: &str) -> Work {
        let mut work = Work::default();
        let mut on_node = by_node(pods);
        for node in nodes {
            let here = on_node.remove(node.name()).unwrap_or_default();
            let (run, stay) = should_run(set, node);
            if !stay {
                work.delete.extend(here.iter().filter(|p| !p.is_deleting()).map(|p| (*p).clone()));
                continue;
            }
            if here.is_empty() {
                if run {
                    work.create.push(node.name().to_owned());
                }
                continue;
            }
            let mut running = Vec::new();
            for pod in here.into_iter().filter(|p| !p.is_deleting()) {
                match pod::phase(pod) {
                    "Failed" => match self.backing_off(key, node.name()) {
                        Some(wait) => work.again = Some(work.again.map_or(wait, |w| w.min(wait))),
                        None => {
                            let (ns, name) = (pod.namespace(), pod.name());
                            let message = format!(
                                "Found failed daemon pod {ns}/{name} on node {}, will try to kill it",
                                node.name()
                            );
                            self.session.event(set, "Warning", "FailedDaemonPod", &message);
                            work.delete.push(pod.clone());
                        }
                    },
                    "Succeeded" => {
                        let (ns, name) = (pod.namespace(), pod.name());
                        let message = format!(
                            "Found succeeded daemon pod {ns}/{name} on node {}, will try to delete it",
                            node.name()
                        );
                        self.session.event(set, "Normal", "SucceededDaemonPod", &message);
                        work.delete.push(pod.clone());
                    }
                    _ => running.push(pod),
                }
            }
            running.order_by_key(|p| (pod::created(p).to_owned(), p.name().to_owned()));
            if surge(set, nodes.len()) == 0 {
                work.delete.extend(running.iter().skip(1).map(|p| (*p).clone()));
            } else if running.is_empty() && run {
                work.create.push(node.name().to_owned());
            } else if running.len() > 1 {
                work.delete.extend(surplus(&running, hash, min_ready(set)));
            }
        }
        // Nodes that are gone: the pod garbage collector takes their pods.
        work
    }

    /// How long a failed pod on `node` is left alone yet; None starts the next wait.
    fn backing_off(&self, key: &Key, node: &str) -> Option<Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = failures.entry((key.clone(), node.to_owned())).or_insert((Instant::now(), 0));
        let wait = BACKOFF_FIRST.saturating_mul(1 << count.saturating_sub(1).min(20)).min(BACKOFF_LONGEST);
        // Quiet for twice the longest wait: start over.
        if last.elapsed() > BACKOFF_LONGEST * 2 {
            *count = 0;
        }
        if *count > 0
            && let Some(left) = wait.checked_sub(last.elapsed()).filter(|left| !left.is_zero())
        {
            return Some(left);
        }
        *last = Instant::now();
        *count += 1;
        None
    }

    async fn carry_out(&self, set: &Object, work: &Work, hash: &str) -> Result<(), Error> {
        let template = pod_control::from_template(set.root().at("spec.template"), set);
        let bodies: Vec<Value> = work.create.iter().map(|node| pod_for(template.clone(), node, hash)).collect();
        let make = |index: usize| -> BoxFuture<'static, Result<(), mote_api::Status>> {
            let (session, pods, set, body) =
                (self.session.clone(), self.pods.clone(), set.clone(), bodies[index].clone());
            Box::pin(async move { pod_control::create(&session, &pods, &set, body).await.map(drop) })
        };
        let (_, mut failure) = pod_control::slow_start(&self.session, bodies.len(), make).await;
        for pod in &work.delete {
            failure = failure.or(pod_control::delete(&self.session, set, pod).await.err());
        }
        failure.map_or(Ok(()), |status| Err(status.into()))
    }

    /// Writes the status; when a pod becomes available by time alone.
    async fn write_status(
        &self,
        set: &Object,
        pods: &[Object],
        nodes: &[Object],
        history: &History,
    ) -> Result<Option<Duration>, Error> {
        let hash = history::hash_of(&history.current);
        let on_node = by_node(pods);
        let (now, min_ready) = (now(), min_ready(set));
        let (mut desired, mut current, mut misscheduled, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
        for node in nodes {
            let here = on_node.get(node.name()).map(Vec::as_slice).unwrap_or_default();
            if !should_run(set, node).0 {
                misscheduled += usize::from(!here.is_empty());
                continue;
            }
            desired += 1;
            let mut sorted: Vec<&&Object> = here.iter().collect();
            sorted.order_by_key(|p| (!pod::is_ready(p), pod::created(p).to_owned()));
            let Some(pod) = sorted.first() else { continue };
            current += 1;
            if pod::is_ready(pod) {
                ready += 1;
                available += usize::from(pod::is_available(pod, min_ready, now));
            }
            updated += usize::from(here.iter().any(|p| is_of(p, hash)));
        }
        // These four are always there; the rest only when there is something to say.
        let mut status = json!({
            "currentNumberScheduled": current, "desiredNumberScheduled": desired,
            "numberMisscheduled": misscheduled, "numberReady": ready,
        });
        let generation = set.meta().get("generation").as_i64().unwrap_or(0);
        for (name, count) in [
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", desired - available),
            ("observedGeneration", usize::try_from(generation).unwrap_or(0)),
        ] {
            if count > 0 {
                status[name] = count.into();
            }
        }
        for name in ["collisionCount", "conditions"] {
            let kept = set.root().get("status").get(name);
            if kept.exists() {
                status[name] = kept.to_value();
            }
        }
        write(&self.session, set, status).await?;
        Ok(if min_ready > 0 { pod::next_available(pods, min_ready, now) } else { None })
    }
}

fn min_ready(set: &Object) -> i64 {
    set.root().at("spec.minReadySeconds").as_i64().unwrap_or(0)
}

fn is_of(pod: &Object, hash: &str) -> bool {
    pod.meta().get("labels").get(HASH_LABEL).str() == hash
}

fn surge(set: &Object, nodes: usize) -> i64 {
    let surge = set.root().at("spec.updateStrategy.rollingUpdate.maxSurge");
    scaled(surge, i64::try_from(nodes).unwrap_or(0), true).unwrap_or(0)
}

/// The node a daemon pod is on, or is meant for.
fn target_node(pod: &Object) -> &str {
    let placed = pod::node_name(pod);
    if !placed.is_empty() {
        return placed;
    }
    let required = pod.root().at("spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    let mut fields = required.get("nodeSelectorTerms").items().flat_map(|t| t.get("matchFields").items());
    let field = fields.find(|f| f.get("key").str() == "metadata.name");
    field.and_then(|f| f.get("values").items().next()).map_or("", |v| v.str())
}

fn by_node(pods: &[Object]) -> BTreeMap<&str, Vec<&Object>> {
    let mut nodes: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for pod in pods {
        nodes.entry(target_node(pod)).or_default().push(pod);
    }
    nodes
}

/// While surging a node may have one old and one new pod, until the old one is of no more use.
fn surplus(running: &[&Object], hash: &str, min_ready: i64) -> Vec<Object> {
    let mut new = running.iter().filter(|p| is_of(p, hash));
    let mut old = running.iter().filter(|p| !is_of(p, hash));
    let (first_new, first_old) = (new.next(), old.next());
    let mut delete: Vec<Object> = new.chain(old).map(|p| (*p).clone()).collect();
    if let (Some(new), Some(old)) = (first_new, first_old)
        && (!pod::is_ready(old) || pod::is_available(new, min_ready, now()))
    {
        delete.push((*old).clone());
    }
    delete
}

/// Old pods to delete now; with a surge, nodes to start new ones on beside the old.
fn roll(
    set: &Object,
    on_node: &BTreeMap<&str, Vec<&Object>>,
    nodes: &[Object],
    hash: &str,
    create: &mut Vec<String>,
) -> Vec<Object> {
    let now = now();
    let min_ready = min_ready(set);
    let desired = nodes.iter().filter(|node| should_run(set, node).0).count();
    let total = i64::try_from(desired).unwrap_or(i64::MAX);
    let max_unavailable = set.root().at("spec.updateStrategy.rollingUpdate.maxUnavailable");
    let surge = surge(set, desired);
    let max_unavailable = scaled(max_unavailable, total, true).unwrap_or(1);
    let max_unavailable = if surge == 0 { max_unavailable.max(1) } else { max_unavailable };
    let (mut unavailable, mut surging) = (0i64, 0i64);
    let (mut replace, mut candidates, mut beside) = (Vec::new(), Vec::new(), Vec::new());
    for (node, pods) in on_node {
        let alive: Vec<&&Object> = pods.iter().filter(|p| !p.is_deleting()).collect();
        let new = alive.iter().find(|p| is_of(p, hash));
        let old = alive.iter().find(|p| !is_of(p, hash));
        let available = |p: &Object| pod::is_available(p, min_ready, now);
        match (new, old) {
            (Some(new), Some(old)) if surge > 0 && available(new) => replace.push((**old).clone()),
            (Some(_), Some(_)) if surge > 0 => surging += 1,
            (Some(new), None) if available(new) => {}
            (None, Some(old)) if surge > 0 => {
                if !available(old) {
                    create.push((*node).to_owned());
                } else {
                    beside.push((*node).to_owned());
                }
            }
            (None, Some(old)) if !available(old) => {
                replace.push((**old).clone());
                unavailable += 1;
            }
            (None, Some(old)) => candidates.push((**old).clone()),
            _ => unavailable += 1,
        }
    }
    if surge > 0 {
        create.extend(beside.into_iter().take(usize::try_from(surge - surging).unwrap_or(0)));
    } else {
        replace.extend(candidates.into_iter().take(usize::try_from(max_unavailable - unavailable).unwrap_or(0)));
    }
    replace
}

/// `pod` for one node: its name required by affinity (in place of any of its own by name), the hash, the tolerations.
fn pod_for(mut pod: Value, node: &str, hash: &str) -> Value {
    pod["metadata"]["labels"][HASH_LABEL] = hash.into();
    let spec = &mut pod["spec"];
    let by_name = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required.get_mut("nodeSelectorTerms").and_then(Value::as_array_mut).filter(|terms| !terms.is_empty()) {
        Some(terms) => terms.iter_mut().for_each(|term| term["matchFields"] = by_name.clone()),
        None => *required = json!({"nodeSelectorTerms": [{"matchFields": by_name}]}),
    }
    let host_network = spec["hostNetwork"] == true;
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for (key, effect, only_host) in TOLERATIONS {
        let same = |t: &Value| t["key"] == key && t["effect"] == effect && t["operator"] == "Exists";
        if (!only_host || host_network) && !tolerations.iter().any(same) {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": effect}));
        }
    }
    spec["tolerations"] = tolerations.into();
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_tied_to_their_node() {
        let made = pod_for(json!({"metadata": {}, "spec": {}}), "n1", "h");
        let required = &made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
        let by_name = json!([{"key": "metadata.name", "operator": "In", "values": ["n1"]}]);
        assert_eq!(*required, json!({"nodeSelectorTerms": [{"matchFields": by_name}]}));
        assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 6);
        assert_eq!(made["metadata"]["labels"][HASH_LABEL], "h");
        let own = json!({"metadata": {}, "spec": {"hostNetwork": true, "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}}}});
        let made = pod_for(own, "n1", "h");
        let terms = &made["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        assert_eq!(terms[0]["matchFields"], by_name);
        assert_eq!(terms[0]["matchExpressions"][0]["key"], "a");
        assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 7);
    }
}
