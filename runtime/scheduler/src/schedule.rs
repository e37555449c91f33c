//! Runs the decisions: changes into the cluster and the queue, pods out of the queue into bindings, conditions and
//! events, with the words of upstream's pkg/scheduler/schedule_one.go.
use crate::{
    cluster::{Cluster, Node, Pod, is_finished},
    filter::{Reason, cause},
    preempt::{Budget, Candidate, Question, pick, victims},
    queue::Pending,
    relations::Relations,
    score,
    volumes::{self, Choice, SELECTED_NODE},
};
use jiff::Timestamp;
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Patch, Status, Sub,
    driver::{self, BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Order as _;
use mote_schema::claims::BOUND_BY_CONTROLLER;
use mote_schema::selector::LabelSelector;
use mote_schema::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const NAME: &str = "default-scheduler";

struct Scheduler {
    client: Client,
    pods: Arc<Kind>,
    namespaces: Arc<Kind>,
    budgets: Arc<Kind>,
    volumes: volumes::Kinds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cluster: Cluster,
    pending: Pending,
}

/// Starts scheduling pods whose spec.schedulerName is "default-scheduler".
pub fn start(client: &Client) {
    let client = client.as_user("system:kube-scheduler", &["system:authenticated"]);
    let kind = |group: &str, version: &str, plural: &str| {
        client.kind(group, version, plural).unwrap_or_else(|| panic!("no built-in kind {group}/{version} {plural}"))
    };
    let scheduler = Scheduler {
        pods: kind("", "v1", "pods"),
        namespaces: kind("", "v1", "namespaces"),
        budgets: kind("policy", "v1", "poddisruptionbudgets"),
        volumes: volumes::Kinds {
            claims: kind("", "v1", "persistentvolumeclaims"),
            volumes: kind("", "v1", "persistentvolumes"),
            classes: kind("storage.k8s.io", "v1", "storageclasses"),
        },
        state: Mutex::default(),
        client: client.clone(),
    };
    driver::start(&client, Arc::new(scheduler));
}

/// What one look at a pod came to.
enum Outcome {
    Bind(Arc<str>, Vec<Choice>),
    /// Message, causes, and pods to remove from a node first.
    Reject {
        message: String,
        causes: u8,
        preempt: Option<Candidate>,
        clear_nomination: bool,
    },
}

impl Reconciler for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[
            ("", "v1", "pods"),
            ("", "v1", "nodes"),
            ("", "v1", "persistentvolumeclaims"),
            ("", "v1", "persistentvolumes"),
            ("storage.k8s.io", "v1", "storageclasses"),
        ]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let now = Instant::now();
        let mut state = self.state();
        let causes = match &*change.kind.plural {
            "pods" => note_pod(&mut state, change, now),
            "nodes" => note_node(&mut state.cluster, change),
            _ => cause::VOLUMES,
        };
        if causes != 0 {
            state.pending.changed(causes, now);
        }
        // One key stands for the whole queue: which pod is next is decided when there is time for it.
        match state.pending.next(now) {
            Some(Duration::ZERO) => queue.add(Key::new("", "")),
            Some(wait) => queue.add_after(Key::new("", ""), wait),
            None => {}
        }
    }

    fn reconcile<'a>(&'a self, _key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            loop {
                let next = self.state().pending.pop(Instant::now());
                let Some(key) = next else { break };
                self.schedule(&key).await;
            }
            Ok(self.state().pending.next(Instant::now()).map_or(Next::Done, Next::After))
        })
    }
}

fn is_ours(pod: &Object) -> bool {
    let spec = pod.root().get("spec");
    spec.get("nodeName").str().is_empty()
        && spec.get("schedulerName").as_str().unwrap_or(NAME) == NAME
        && !pod.is_deleting()
        && !is_finished(pod)
}

/// Brings cluster and queue up to date; the causes of rejection that this may have removed.
fn note_pod(state: &mut State, change: &Change, now: Instant) -> u8 {
    let object = change.object();
    let key = Key::new(object.namespace(), object.name());
    let placed = |o: &&Object| !o.root().at("spec.nodeName").str().is_empty() && !is_finished(o);
    let (old, new) = (change.old.as_ref(), change.new.as_ref());
    // A pod deleted and made again under its name between two looks at it.
    if let (Some(old), Some(new)) = (old, new)
        && old.uid() != new.uid()
    {
        state.cluster.remove_pod(old.uid());
    }
    let Some(new) = new else {
        state.pending.remove(&key);
        state.cluster.remove_pod(object.uid());
        return if old.filter(placed).is_some() { freed() } else { 0 };
    };
    if is_ours(new) {
        let same = |path: &str| old.is_some_and(|old| old.root().at(path).to_value() == new.root().at(path).to_value());
        if !(same("spec") && same("metadata.labels")) {
            state.pending.add(key, new.root().at("spec.priority").as_i64().unwrap_or(0), now);
        }
        let nominated = new.root().at("status.nominatedNodeName").str();
        if nominated.is_empty() {
            state.cluster.nominated.remove(new.uid());
        } else {
            state.cluster.nominated.insert(new.uid().into(), (nominated.into(), Arc::new(Pod::new(new.clone()))));
        }
        return 0;
    }
    state.pending.remove(&key);
    if !placed(&new) {
        state.cluster.remove_pod(new.uid());
        return if old.filter(placed).is_some() { freed() } else { 0 };
    }
    let pod = Pod::new(new.clone());
    let node = pod.node().to_owned();
    let smaller = old.filter(placed).is_some_and(|old| Pod::new(old.clone()).requests != pod.requests);
    state.cluster.set_pod(&node, Arc::new(pod));
    if smaller { freed() } else { cause::RELATIONS }
}

fn freed() -> u8 {
    cause::RESOURCES | cause::PORTS | cause::RELATIONS | cause::OTHER
}

fn note_node(cluster: &mut Cluster, change: &Change) -> u8 {
    let Some(node) = &change.new else {
        cluster.remove_node(change.object().name());
        return cause::RELATIONS;
    };
    cluster.set_node(node.clone());
    let differs = |path: &str| {
        change.old.as_ref().is_none_or(|old| old.root().at(path).to_value() != node.root().at(path).to_value())
    };
    let mut causes = 0;
    if differs("metadata.labels") || differs("spec") {
        causes |= cause::NODE | cause::RELATIONS | cause::VOLUMES;
    }
    if differs("status.allocatable") {
        causes |= cause::RESOURCES;
    }
    if change.old.is_none() { u8::MAX } else { causes }
}

impl Scheduler {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn schedule(&self, key: &Key) {
        let pod = match self.client.get(&self.pods, &key.namespace, &key.name) {
            Ok(pod) if is_ours(&pod) => Pod::new(pod),
            _ => return self.state().pending.remove(key),
        };
        if pod.spec().get("schedulingGates").items().next().is_some() {
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            let written = self.write_condition(&pod.object, "SchedulingGated", message, None).await;
            return self.settle(key, written.map(|()| cause::OTHER));
        }
        match self.decide(&pod) {
            Outcome::Bind(node, choices) if choices.is_empty() => self.bind(key, pod, &node).await,
            Outcome::Bind(node, choices) => {
                let told = self.select_node(choices, &node).await;
                self.settle(key, told.map(|()| cause::VOLUMES));
            }
            Outcome::Reject { message, causes, preempt, clear_nomination } => {
                self.client.event(&pod.object, "Warning", "FailedScheduling", &message);
                let nominated = match &preempt {
                    Some(candidate) => Some(candidate.node.to_string()),
                    None if clear_nomination => Some(String::new()),
                    None => None,
                };
                let mut written = self.write_condition(&pod.object, "Unschedulable", &message, nominated).await;
                if let Some(candidate) = preempt {
                    let removed = self.preempt(&pod, candidate).await;
                    written = written.and(removed);
                }
                self.settle(key, written.map(|()| causes));
            }
        }
    }

    fn settle(&self, key: &Key, result: Result<u8, Status>) {
        let now = Instant::now();
        match result {
            Ok(causes) => self.state().pending.rejected(key, causes, now),
            Err(status) => {
                tracing::debug!(pod = %key, %status, "scheduling is tried again");
                self.state().pending.failed(key, now);
            }
        }
    }

    fn decide(&self, pod: &Pod) -> Outcome {
        let namespaces = |name: &str, selector: &LabelSelector| {
            let namespace = self.client.get(&self.namespaces, "", name);
            namespace.is_ok_and(|n| selector.matches(n.meta().get("labels")))
        };
        let claims = volumes::claims(&self.client, &self.volumes, pod);
        let state = self.state();
        let cluster = &state.cluster;
        let total = cluster.nodes.len();
        if total == 0 {
            let message = "no nodes available to schedule pods".into();
            return Outcome::Reject { message, causes: cause::NODE, preempt: None, clear_nomination: false };
        }
        let claims = match claims {
            Ok(claims) => claims,
            Err(reason) => {
                let helpless = unhelpful(total, BTreeMap::new());
                let message =
                    format!("0/{total} nodes are available: {}. preemption: {helpless}", reason.texts.join(", "));
                return Outcome::Reject { message, causes: reason.cause, preempt: None, clear_nomination: true };
            }
        };
        let question = Question { pod, cluster, claims: &claims, namespaces: &namespaces };
        let relations = Relations::new(pod, cluster.nodes.values(), &namespaces);
        let mut feasible: Vec<&Node> = Vec::new();
        let mut rejected: Vec<(&Node, Reason)> = Vec::new();
        for node in cluster.nodes.values() {
            match question.fits(node, &relations) {
                Ok(()) => feasible.push(node),
                Err(reason) => rejected.push((node, reason)),
            }
        }
        // A pod that made room for itself goes there if it can.
        let nominated = pod.object.root().at("status.nominatedNodeName").str();
        let chosen = feasible.iter().find(|n| !nominated.is_empty() && n.name() == nominated).copied();
        let chosen = chosen.or_else(|| match feasible.as_slice() {
            [only] => Some(*only),
            many => score::best(pod, many, &namespaces).map(|index| many[index]),
        });
        if let Some(node) = chosen {
            return Outcome::Bind(node.name().into(), claims.choices(node).unwrap_or_default());
        }
        let causes = rejected.iter().fold(0, |all, (_, reason)| all | reason.cause);
        let counted = histogram(rejected.iter().map(|(_, reason)| reason));
        let (preempt, said, clear_nomination) = self.find_room(&question, &rejected);
        let message = format!("0/{total} nodes are available: {counted}.{said}");
        Outcome::Reject { message, causes: causes | cause::OTHER, preempt, clear_nomination }
    }

    /// The preemption that would let the pod in, or what to say when there is none.
    fn find_room(&self, question: &Question<'_>, rejected: &[(&Node, Reason)]) -> (Option<Candidate>, String, bool) {
        let pod = question.pod;
        if pod.spec().get("preemptionPolicy").str() == "Never" {
            return (None, " preemption: not eligible due to preemptionPolicy=Never.".into(), false);
        }
        let nominated = pod.object.root().at("status.nominatedNodeName").str();
        let leaving = |node: &Node| node.pods.values().any(|p| p.priority < pod.priority && is_preempted(&p.object));
        let resolvable = |name: &str| rejected.iter().any(|(node, reason)| node.name() == name && reason.resolvable);
        if resolvable(nominated) && question.cluster.nodes.get(nominated).is_some_and(leaving) {
            let text = " preemption: not eligible due to a terminating pod on the nominated node.";
            return (None, text.into(), false);
        }
        let budgets: Vec<Budget> =
            self.client.list(&self.budgets, None).unwrap_or_default().iter().map(Budget::new).collect();
        let mut candidates = Vec::new();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for (node, _) in rejected.iter().filter(|(_, reason)| reason.resolvable) {
            match victims(question, node, &budgets) {
                Ok(candidate) => candidates.push(candidate),
                Err(reason) => reason.texts.into_iter().for_each(|text| *reasons.entry(text).or_default() += 1),
            }
        }
        match pick(candidates) {
            Some(candidate) => (Some(candidate), String::new(), false),
            None => {
                let helpless = rejected.iter().filter(|(_, reason)| !reason.resolvable).count();
                if helpless > 0 {
                    *reasons.entry("Preemption is not helpful for scheduling".into()).or_default() += helpless;
                }
                (None, format!(" preemption: {}", unavailable(rejected.len(), reasons)), true)
            }
        }
    }

    async fn bind(&self, key: &Key, pod: Pod, node: &str) {
        let uid = pod.object.uid().to_owned();
        let object = pod.object.clone();
        // Assumed at once: the next pod must not be given the same room.
        self.state().cluster.set_pod(node, Arc::new(pod));
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": object.name(), "namespace": object.namespace(), "uid": uid},
            "target": {"kind": "Node", "name": node},
        });
        let bound = self.client.create_sub(&self.pods, object.namespace(), object.name(), "binding", binding).await;
        match bound {
            Ok(_) => {
                self.state().pending.remove(key);
                let message = format!("Successfully assigned {key} to {node}");
                self.client.event(&object, "Normal", "Scheduled", &message);
            }
            Err(status) => {
                {
                    let mut state = self.state();
                    state.cluster.remove_pod(&uid);
                    state.pending.changed(freed(), Instant::now());
                }
                // Somebody else changed or removed the pod: the feed says what it is now.
                if status.is_not_found() || status.is_conflict() {
                    return self.state().pending.failed(key, Instant::now());
                }
                let message = format!("binding rejected: {}", status.message);
                self.client.event(&object, "Warning", "FailedScheduling", &message);
                let written = self.write_condition(&object, "SchedulerError", &message, None).await;
                self.settle(key, written.and(Err(status)));
            }
        }
    }

    /// Gives claims that wait for their first consumer a volume of its node, or tells them where one is to be made; the pod
    /// goes on when they are bound.
    async fn select_node(&self, choices: Vec<Choice>, node: &str) -> Result<(), Status> {
        for (claim, volume) in choices {
            let (object, metadata, spec) = match volume {
                Some(volume) if volume.root().at("spec.claimRef.uid").str() == claim.uid() => continue,
                Some(volume) => {
                    let promised = volume.root().at("spec.claimRef").exists();
                    let mark = json!({BOUND_BY_CONTROLLER: if promised { Value::Null } else { "yes".into() }});
                    let reference = json!({
                        "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.namespace(),
                        "name": claim.name(), "uid": claim.uid(), "resourceVersion": claim.revision.to_string(),
                    });
                    (volume, mark, json!({"claimRef": reference}))
                }
                None if claim.meta().get("annotations").get(SELECTED_NODE).str() == node => continue,
                None => (claim, json!({SELECTED_NODE: node}), json!({})),
            };
            let patch = Patch::Merge(json!({
                "metadata": {"resourceVersion": object.revision.to_string(), "annotations": metadata}, "spec": spec,
            }));
            self.client.patch(&object.kind, object.namespace(), object.name(), Sub::Main, patch).await?;
        }
        Ok(())
    }

    async fn preempt(&self, pod: &Pod, candidate: Candidate) -> Result<(), Status> {
        let uid: Arc<str> = pod.object.uid().into();
        // The written nomination says the same once it is seen; other pods are kept out from now on.
        let promised = (candidate.node.clone(), Arc::new(pod.clone()));
        self.state().cluster.nominated.insert(uid.clone(), promised);
        for victim in &candidate.victims {
            let victim = &victim.object;
            if victim.is_deleting() {
                continue;
            }
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                "message": format!("{NAME}: preempting to accommodate a higher priority pod"),
                "lastTransitionTime": now(),
            });
            let status = json!({"conditions": conditions_with(victim, condition)});
            match self.put_status(victim, status).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
            let options = DeleteOptions { uid: Some(victim.uid().into()), ..DeleteOptions::default() };
            match self.client.delete(&self.pods, victim.namespace(), victim.name(), options).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
            let message = format!("Preempted by pod {uid} on node {}", candidate.node);
            self.client.event(victim, "Normal", "Preempted", &message);
        }
        Ok(())
    }

    /// PodScheduled=False, and the nominated node when that is to change ("" clears it).
    async fn write_condition(
        &self,
        pod: &Object,
        reason: &str,
        message: &str,
        nominated: Option<String>,
    ) -> Result<(), Status> {
        let old = pod.root().at("status.conditions").items().find(|c| c.get("type").str() == "PodScheduled");
        let said = |name: &str| old.map_or("", |c| c.get(name).str());
        let nominated = nominated.filter(|name| pod.root().at("status.nominatedNodeName").str() != name);
        if nominated.is_none() && said("status") == "False" && said("reason") == reason && said("message") == message {
            return Ok(());
        }
        let kept = Some(said("lastTransitionTime")).filter(|time| said("status") == "False" && !time.is_empty());
        let since = kept.map_or_else(now, str::to_owned);
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastTransitionTime": since,
        });
        let mut status = json!({"conditions": conditions_with(pod, condition)});
        if let Some(name) = nominated {
            status["nominatedNodeName"] = if name.is_empty() { Value::Null } else { name.into() };
        }
        match self.put_status(pod, status).await {
            Err(status) if status.is_not_found() => Ok(()),
            result => result,
        }
    }

    async fn put_status(&self, pod: &Object, status: Value) -> Result<(), Status> {
        let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid()}, "status": status}));
        self.client.patch(&self.pods, pod.namespace(), pod.name(), Sub::Status, patch).await.map(drop)
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn conditions_with(pod: &Object, condition: Value) -> Vec<Value> {
    let mut conditions: Vec<Value> = pod.root().at("status.conditions").items().map(|c| c.to_value()).collect();
    match conditions.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
    conditions
}

/// Leaves because of a preemption.
fn is_preempted(pod: &Object) -> bool {
    let mut conditions = pod.root().at("status.conditions").items();
    pod.is_deleting()
        && conditions
            .any(|c| c.get("type").str() == "DisruptionTarget" && c.get("reason").str() == "PreemptionByScheduler")
}

/// "1 Insufficient cpu, 2 node(s) had untolerated taint(s)", as FitError sorts it.
fn histogram<'a>(reasons: impl Iterator<Item = &'a Reason>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for text in reasons.flat_map(|reason| &reason.texts) {
        *counts.entry(text.clone()).or_default() += 1;
    }
    joined(counts)
}

fn joined(counts: BTreeMap<String, usize>) -> String {
    let mut parts: Vec<String> = counts.into_iter().map(|(text, count)| format!("{count} {text}")).collect();
    parts.order();
    parts.join(", ")
}

fn unavailable(total: usize, reasons: BTreeMap<String, usize>) -> String {
    format!("0/{total} nodes are available: {}.", joined(reasons))
}

/// Preemption was not even tried on any node.
fn unhelpful(total: usize, mut reasons: BTreeMap<String, usize>) -> String {
    reasons.insert("Preemption is not helpful for scheduling".into(), total);
    unavailable(total, reasons)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_rejection() {
        let reasons = [
            Reason::new("node(s) had untolerated taint(s)", cause::NODE, false),
            Reason {
                texts: vec!["Insufficient cpu".into(), "Too many pods".into()],
                cause: cause::RESOURCES,
                resolvable: true,
            },
            Reason::new("Insufficient cpu", cause::RESOURCES, true),
        ];
        assert_eq!(
            histogram(reasons.iter()),
            "1 Too many pods, 1 node(s) had untolerated taint(s), 2 Insufficient cpu"
        );
        assert_eq!(
            unhelpful(2, BTreeMap::new()),
            "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        );
    }
}
