//! Job: pods until enough of them succeeded (pkg/controller/job).
//!
//! Every pod carries a finalizer until it is counted, so that none is counted twice and none is lost: what finished is
//! first noted by UID in status.uncountedTerminatedPods, then let go, then added to the counters.
mod failure_policy;
mod indexed;

use crate::{
    amounts::{now, parse_time, remaining, rfc3339},
    owner::{self, claim, gone_is_fine},
    pod, pod_control,
    session::Session,
    status::{Conditions, condition, omit_empty, write},
};
use failure_policy::Action;
use indexed::Tries;
use jiff::Timestamp;
use mote_api::{
    Change, Client, Kind, Object, Ref, Status, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Gather as _;
use mote_schema::Order as _;
use mote_schema::selector::LabelSelector;
use mote_schema::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What spec.managedBy says of Jobs that are this controller's; as does its absence.
const NAME: &str = "kubernetes.io/job-controller";
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// A failed pod is replaced after 10 s, doubling to 10 min.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(600);
/// Pods of one pass.
const BURST: usize = 500;
/// completedIndexes and the like are bounded by what one Job may have.
const MAX_INDEX: i64 = 100_000;

struct Controller {
    session: Session,
    kind: Arc<Kind>,
    pods: Arc<Kind>,
    /// Failures in a row per Job, and when the last was seen.
    failures: Mutex<HashMap<Key, (u32, Instant)>>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "job-controller");
    let controller = Controller {
        kind: session.kind("batch", "v1", "jobs"),
        pods: session.kind("", "v1", "pods"),
        failures: Mutex::default(),
        session: session.clone(),
    };
    session.start(controller);
}

pub fn is_finished(job: &Object) -> bool {
    finished(job).is_some()
}

/// The condition that ended the Job.
pub fn finished(job: &Object) -> Option<Ref<'_>> {
    let mut conditions = job.root().at("status.conditions").items();
    conditions.find(|c| matches!(c.get("type").str(), "Complete" | "Failed") && c.get("status").str() == "True")
}

fn selector(job: &Object) -> Option<LabelSelector> {
    LabelSelector::from_ref(job.root().at("spec.selector")).ok().flatten()
}

fn int(job: &Object, path: &str) -> Option<i64> {
    job.root().at(path).as_i64()
}

fn is_tracked(pod: &Object) -> bool {
    pod.meta().get("finalizers").items().any(|f| f.str() == FINALIZER)
}

fn index_of(pod: &Object) -> Option<i64> {
    let text = pod.meta().get("annotations").get(INDEX).as_str()?;
    text.parse().ok().filter(|index| (0..MAX_INDEX).contains(index))
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "job"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("batch", "v1", "jobs"), ("", "v1", "pods")]
    }

    fn workers(&self) -> usize {
        4
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if &*change.kind.plural == "jobs" {
            return queue.add(Key::new(object.namespace(), object.name()));
        }
        owner::wake_controllers(&self.session, &self.kind, change, queue, |job, pod| {
            selector(job).is_some_and(|s| s.matches(owner::labels(pod)))
        });
        // A pod whose Job is gone has nobody to count it.
        if let Some(pod) = change.new.as_ref().filter(|p| is_tracked(p) && owner::controller_of(p).is_none()) {
            queue.add(Key::new(&format!(":orphan/{}", pod.namespace()), pod.name()));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            if let Some(namespace) = key.namespace.strip_prefix(":orphan/") {
                let orphan = self.session.get(&self.pods, namespace, &key.name).ok();
                if let Some(pod) = orphan.filter(|p| is_tracked(p) && owner::controller_of(p).is_none()) {
                    self.release(&pod).await?;
                }
                return Ok(Next::Done);
            }
            let job = match self.session.get(&self.kind, &key.namespace, &key.name) {
                Ok(job) => job,
                Err(status) if status.is_not_found() => {
                    self.failures().remove(key);
                    // Its pods are collected; they must not be held by a count nobody keeps.
                    for pod in self.session.list(&self.pods, Some(&key.namespace))? {
                        let ours = owner::controller_key(&pod, &self.kind).as_ref() == Some(key);
                        if ours && is_tracked(&pod) {
                            self.release(&pod).await?;
                        }
                    }
                    return Ok(Next::Done);
                }
                Err(status) => return Err(status.into()),
            };
            // Somebody else's (managedByExternalController, pkg/controller/job/job_controller.go).
            if !matches!(job.root().at("spec.managedBy").str(), "" | NAME) {
                return Ok(Next::Done);
            }
            match self.sync(key, job).await {
                Err(Error::Api(status)) if pod_control::namespace_terminating(&status) => Ok(Next::Done),
                result => result,
            }
        })
    }
}

/// What a Job's pods come to.
struct Tally {
    active: Vec<Object>,
    ready: usize,
    terminating: usize,
    succeeded: i64,
    failed: i64,
    completed: BTreeSet<i64>,
    /// With spec.backoffLimitPerIndex: the indexes that are given up, and what the others have behind them.
    failed_indexes: Option<BTreeSet<i64>>,
    tries: BTreeMap<i64, Tries>,
    /// What spec.podFailurePolicy ends the Job for.
    ended_by_policy: Option<String>,
}

/// Why a Job ends: (reason, message).
type Verdict = (&'static str, String);

impl Controller {
    fn failures(&self) -> MutexGuard<'_, HashMap<Key, (u32, Instant)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn release(&self, pod: &Object) -> Result<(), Status> {
        let left: Vec<Value> =
            pod.meta().get("finalizers").items().filter(|f| f.str() != FINALIZER).map(Ref::to_value).collect();
        let left = if left.is_empty() { Value::Null } else { left.into() };
        let patch = json!({"metadata": {"resourceVersion": pod.revision.to_string(), "finalizers": left}});
        gone_is_fine(self.session.patch(pod, Sub::Main, patch).await)
    }

    async fn sync(&self, key: &Key, job: Object) -> Result<Next, Error> {
        let Some(selector) = selector(&job) else { return Ok(Next::Done) };
        let pods = claim(&self.session, &job, &self.pods, &selector, |_| true).await?;
        if is_finished(&job) || job.is_deleting() {
            for pod in pods.iter().filter(|p| is_tracked(p)) {
                self.release(pod).await?;
            }
            return Ok(Next::Done);
        }
        let (job, tally) = self.count(key, job, pods).await?;
        let now = now();
        let suspended = job.root().at("spec.suspend").as_bool() == Some(true);
        let start = parse_time(job.root().at("status.startTime")).filter(|_| !suspended);
        let start = start.or((!suspended).then_some(now));
        let mut conditions = Conditions::of(&job);
        let failure = target(&conditions, "FailureTarget").or_else(|| failure(&job, &tally, start, now));
        let success = target(&conditions, "SuccessCriteriaMet").or_else(|| success(&job, &tally));
        let mut status = json!({});
        let mut next = Next::Done;
        let result;
        let mut counts = (tally.active.len(), tally.terminating);
        if let Some((ended, reason, message)) = match (success, failure) {
            (Some((reason, message)), _) => Some(("Complete", reason, message)),
            (None, Some((reason, message))) => Some(("Failed", reason, message)),
            (None, None) => None,
        } {
            let target = if ended == "Complete" { "SuccessCriteriaMet" } else { "FailureTarget" };
            conditions.set(probed(condition(target, "True", reason, &message)));
            result = self.delete_all(&job, &tally.active).await;
            // Ended only when the last pod is gone, so that nothing still writes what the Job left.
            if counts == (0, 0) {
                conditions.set(probed(condition(ended, "True", reason, &message)));
                if ended == "Complete" {
                    status["completionTime"] = rfc3339(now).into();
                    self.session.event(&job, "Normal", "Completed", "Job completed");
                } else {
                    self.session.event(&job, "Warning", reason, &message);
                }
                self.failures().remove(key);
            }
        } else if suspended {
            result = self.delete_all(&job, &tally.active).await;
            if !conditions.is("Suspended", "True") {
                conditions.set(probed(condition("Suspended", "True", "JobSuspended", "Job suspended")));
                self.session.event(&job, "Normal", "Suspended", "Job suspended");
            }
        } else {
            if conditions.is("Suspended", "True") {
                conditions.set(probed(condition("Suspended", "False", "JobResumed", "Job resumed")));
                self.session.event(&job, "Normal", "Resumed", "Job resumed");
            }
            let (changed, wait, outcome) = self.manage(key, &job, &tally).await;
            counts.0 = counts.0.saturating_add_signed(changed);
            result = outcome;
            let deadline = int(&job, "spec.activeDeadlineSeconds")
                .zip(start)
                .and_then(|(seconds, start)| remaining(start, Duration::from_secs(seconds.max(0).unsigned_abs()), now));
            if let Some(wait) = [wait, deadline].into_iter().flatten().min() {
                next = Next::After(wait + Duration::from_millis(50));
            }
        }
        fill(&mut status, &job, &tally, counts, start, conditions);
        write(&self.session, &job, status).await?;
        result.map(|()| next)
    }

    /// Adds what finished to the counters, by way of status.uncountedTerminatedPods.
    async fn count(&self, key: &Key, mut job: Object, pods: Vec<Object>) -> Result<(Object, Tally), Error> {
        let indexed = job.root().at("spec.completionMode").str() == "Indexed";
        let completions = int(&job, "spec.completions").unwrap_or(0);
        let mut completed = indexed::parse(job.root().at("status.completedIndexes").str(), completions);
        let uncounted = job.root().at("status.uncountedTerminatedPods");
        let noted =
            |name: &str| -> BTreeSet<String> { uncounted.get(name).items().map(|uid| uid.str().to_owned()).gather() };
        let (mut succeeded, mut failed) = (noted("succeeded"), noted("failed"));
        let mut ended_by_policy = None;
        let per_index = job.root().at("spec.backoffLimitPerIndex").as_i64().is_some();
        let mut failed_indexes =
            per_index.then(|| indexed::parse(job.root().at("status.failedIndexes").str(), completions));
        let mut tries = BTreeMap::new();
        for pod in pods.iter().filter(|p| per_index && has_failed(&job, p)) {
            indexed::add_try(&mut tries, pod, &failure_policy::action(&job, pod));
        }
        let (old_succeeded, old_failed) = (succeeded.len(), failed.len());
        for pod in pods.iter().filter(|p| is_tracked(p)) {
            if pod::phase(pod) == "Succeeded" {
                match index_of(pod).filter(|_| indexed) {
                    Some(index) => drop(completed.insert(index)),
                    None => drop(succeeded.insert(pod.uid().to_owned())),
                }
            } else if has_failed(&job, pod) {
                let action = failure_policy::action(&job, pod);
                if let (Some(list), Some(index)) = (&mut failed_indexes, index_of(pod).filter(|i| *i < completions))
                    && indexed::fails_index(&job, pod, &action)
                {
                    list.insert(index);
                }
                match action {
                    Action::Ignore => continue,
                    Action::Count | Action::FailIndex => {}
                    Action::FailJob(message) => drop(ended_by_policy.get_or_insert(message)),
                }
                failed.insert(pod.uid().to_owned());
            }
        }
        if failed.len() > old_failed {
            let mut failures = self.failures();
            let entry = failures.entry(key.clone()).or_insert((0, Instant::now()));
            *entry = (entry.0 + u32::try_from(failed.len() - old_failed).unwrap_or(u32::MAX), Instant::now());
        } else if succeeded.len() > old_succeeded {
            self.failures().remove(key);
        }
        let mut succeeded_count = int(&job, "status.succeeded").unwrap_or(0);
        let mut failed_count = int(&job, "status.failed").unwrap_or(0);
        let done = |pod: &Object| pod::phase(pod) == "Succeeded" || has_failed(&job, pod);
        if !succeeded.is_empty() || !failed.is_empty() || pods.iter().any(|p| is_tracked(p) && done(p)) {
            let mut status = job.root().get("status").to_value();
            if !status.is_object() {
                status = json!({});
            }
            status["uncountedTerminatedPods"] = omit_empty(json!({"succeeded": succeeded, "failed": failed}));
            if indexed {
                status["completedIndexes"] = indexed::format(&completed).into();
            }
            if let Some(list) = &failed_indexes {
                status["failedIndexes"] = indexed::format(list).into();
            }
            if let Some(message) = &ended_by_policy {
                // Kept before the pod that says so is let go.
                let mut conditions = Conditions::of(&job);
                conditions.set(probed(condition("FailureTarget", "True", "PodFailurePolicy", message)));
                status["conditions"] = conditions.into_value();
            }
            let to_release: Vec<&Object> = pods.iter().filter(|p| is_tracked(p) && done(p)).collect();
            let noted = write(&self.session, &job, status).await?;
            for pod in to_release {
                self.release(pod).await?;
            }
            succeeded_count += i64::try_from(succeeded.len()).unwrap_or(0);
            failed_count += i64::try_from(failed.len()).unwrap_or(0);
            job = noted;
        }
        if indexed {
            succeeded_count = i64::try_from(completed.len()).unwrap_or(0);
        }
        let active: Vec<Object> = pods.iter().filter(|p| pod::is_active(p)).cloned().collect();
        let tally = Tally {
            ready: active.iter().filter(|p| pod::is_ready(p)).count(),
            terminating: pods.iter().filter(|p| pod::is_terminating(p)).count(),
            active,
            succeeded: succeeded_count,
            failed: failed_count,
            completed,
            failed_indexes,
            tries,
            ended_by_policy,
        };
        Ok((job, tally))
    }

    async fn delete_all(&self, job: &Object, pods: &[Object]) -> Result<(), Error> {
        let mut failure = None;
        for pod in pods {
            failure = failure.or(pod_control::delete(&self.session, job, pod).await.err());
        }
        failure.map_or(Ok(()), |status| Err(status.into()))
    }

    /// Starts or removes pods; by how many the active ones changed, and when to look again.
    async fn manage(&self, key: &Key, job: &Object, tally: &Tally) -> (isize, Option<Duration>, Result<(), Error>) {
        let wanted = wanted(job, tally);
        let active = tally.active.len();
        if active > wanted {
            let mut order: Vec<&Object> = tally.active.iter().collect();
            order.order_by(|a, b| pod::deletion_order((a, 0), (b, 0), now()));
            let surplus: Vec<Object> = order.into_iter().take(active - wanted).cloned().collect();
            let result = self.delete_all(job, &surplus).await;
            return (-isize::try_from(surplus.len()).unwrap_or(0), None, result);
        }
        // Terminating pods are waited for when only failed ones are to be replaced.
        let held = if job.root().at("spec.podReplacementPolicy").str() == "Failed" { tally.terminating } else { 0 };
        let count = (wanted - active).saturating_sub(held).min(BURST);
        if count == 0 {
            return (0, None, Ok(()));
        }
        let per_index = tally.failed_indexes.as_ref();
        if let Some((failures, last)) = self.failures().get(key).copied().filter(|_| per_index.is_none()) {
            let wait = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACKOFF_LONGEST);
            if let Some(left) = wait.checked_sub(last.elapsed()).filter(|left| !left.is_zero()) {
                return (0, Some(left), Ok(()));
            }
        }
        let mut soonest = None;
        let indexes: Vec<Option<i64>> = if job.root().at("spec.completionMode").str() == "Indexed" {
            let taken: BTreeSet<i64> = tally.active.iter().filter_map(index_of).gather();
            let all = 0..int(job, "spec.completions").unwrap_or(0).min(MAX_INDEX);
            let open = all.filter(|i| !tally.completed.contains(i) && !taken.contains(i));
            let open = open.filter(|i| per_index.is_none_or(|failed| !failed.contains(i)));
            let now = now();
            let due = |index: &i64| {
                let wait = tally.tries.get(index).and_then(|tries| tries.wait(now));
                soonest = [soonest, wait].into_iter().flatten().min();
                wait.is_none()
            };
            open.filter(due).take(count).map(Some).collect()
        } else {
            vec![None; count]
        };
        let template = pod_control::from_template(job.root().at("spec.template"), job);
        let bodies: Vec<Value> = indexes.iter().map(|index| pod_for(template.clone(), job, tally, *index)).collect();
        let make = |n: usize| -> BoxFuture<'static, Result<(), Status>> {
            let (session, pods, job, body) = (self.session.clone(), self.pods.clone(), job.clone(), bodies[n].clone());
            Box::pin(async move { pod_control::create(&session, &pods, &job, body).await.map(drop) })
        };
        let (made, failure) = pod_control::slow_start(&self.session, bodies.len(), make).await;
        (isize::try_from(made).unwrap_or(0), soonest, failure.map_or(Ok(()), |status| Err(status.into())))
    }
}

/// How many pods should be active now.
fn wanted(job: &Object, tally: &Tally) -> usize {
    let parallelism = int(job, "spec.parallelism").unwrap_or(1);
    let wanted = match int(job, "spec.completions") {
        // A work queue: once one pod succeeded no new ones start.
        None if tally.succeeded > 0 => return tally.active.len(),
        None => parallelism,
        Some(completions) => {
            let failed = tally.failed_indexes.as_ref().map_or(0, BTreeSet::len);
            parallelism.min(completions - tally.succeeded - i64::try_from(failed).unwrap_or(i64::MAX))
        }
    };
    usize::try_from(wanted).unwrap_or(0)
}

/// Failed, or on its way out without having succeeded (unless the Job waits for that).
fn has_failed(job: &Object, pod: &Object) -> bool {
    pod::phase(pod) == "Failed"
        || pod.is_deleting()
            && pod::phase(pod) != "Succeeded"
            && job.root().at("spec.podReplacementPolicy").str() != "Failed"
}

fn target(conditions: &Conditions, type_: &str) -> Option<Verdict> {
    let found = conditions.get(type_).filter(|c| c["status"] == "True")?;
    let reason = match found["reason"].as_str()? {
        "CompletionsReached" => "CompletionsReached",
        "DeadlineExceeded" => "DeadlineExceeded",
        "FailedIndexes" => "FailedIndexes",
        "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
        "PodFailurePolicy" => "PodFailurePolicy",
        "SuccessPolicy" => "SuccessPolicy",
        _ => "BackoffLimitExceeded",
    };
    Some((reason, found["message"].as_str().unwrap_or_default().to_owned()))
}

fn restart_counts(pod: &Object) -> impl Iterator<Item = i64> {
    let status = pod.root().get("status");
    let all = status.get("initContainerStatuses").items().chain(status.get("containerStatuses").items());
    all.filter_map(|container| container.get("restartCount").as_i64())
}

fn failure(job: &Object, tally: &Tally, start: Option<Timestamp>, now: Timestamp) -> Option<Verdict> {
    if let Some(message) = &tally.ended_by_policy {
        return Some(("PodFailurePolicy", message.clone()));
    }
    let limit = int(job, "spec.backoffLimit").unwrap_or(6);
    // Containers that start again in their pods count as pods that failed would (pastBackoffLimitOnFailure upstream).
    let restarts = match job.root().at("spec.template.spec.restartPolicy").str() {
        "OnFailure" => tally.active.iter().flat_map(restart_counts).sum(),
        _ => 0,
    };
    if tally.failed > limit || restarts >= limit.max(1) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".into()));
    }
    let deadline = int(job, "spec.activeDeadlineSeconds").zip(start);
    let over = |(seconds, start): (i64, Timestamp)| {
        remaining(start, Duration::from_secs(seconds.max(0).unsigned_abs()), now).is_none()
    };
    if deadline.is_some_and(over) {
        return Some(("DeadlineExceeded", "Job was active longer than specified deadline".into()));
    }
    let failed = tally.failed_indexes.as_ref()?.len();
    indexed::failure(job, failed, tally.completed.len()).map(|(reason, message)| (reason, message.into()))
}

fn success(job: &Object, tally: &Tally) -> Option<Verdict> {
    if let Some(message) = indexed::success(job, &tally.completed) {
        return Some(("SuccessPolicy", message));
    }
    let reached = match int(job, "spec.completions") {
        None => tally.succeeded > 0 && tally.active.is_empty(),
        Some(completions) => tally.succeeded >= completions,
    };
    reached.then(|| ("CompletionsReached", "Reached expected number of succeeded pods".into()))
}

/// A Job's conditions have a probe time too.
fn probed(mut condition: Value) -> Value {
    condition["lastProbeTime"] = condition["lastTransitionTime"].clone();
    condition
}

fn fill(
    status: &mut Value,
    job: &Object,
    tally: &Tally,
    (active, terminating): (usize, usize),
    start: Option<Timestamp>,
    conditions: Conditions,
) {
    let counts = omit_empty(json!({
        "active": active, "succeeded": tally.succeeded, "failed": tally.failed,
        "completedIndexes": indexed::format(&tally.completed),
    }));
    if let (Some(status), Value::Object(counts)) = (status.as_object_mut(), counts) {
        status.extend(counts);
    }
    if let Some(list) = &tally.failed_indexes {
        status["failedIndexes"] = indexed::format(list).into();
    }
    status["ready"] = tally.ready.into();
    status["terminating"] = terminating.into();
    status["uncountedTerminatedPods"] = json!({});
    if let Some(start) = start {
        let kept = job.root().at("status.startTime").as_str().map(str::to_owned);
        status["startTime"] = kept.unwrap_or_else(|| rfc3339(start)).into();
    }
    if !conditions.0.is_empty() {
        status["conditions"] = conditions.into_value();
    }
}

fn pod_for(mut pod: Value, job: &Object, tally: &Tally, index: Option<i64>) -> Value {
    let metadata = &mut pod["metadata"];
    let mut finalizers = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(FINALIZER.into());
    metadata["finalizers"] = finalizers.into();
    for (name, value) in [
        ("batch.kubernetes.io/controller-uid", job.uid()),
        ("batch.kubernetes.io/job-name", job.name()),
        ("controller-uid", job.uid()),
        ("job-name", job.name()),
    ] {
        metadata["labels"][name] = value.into();
    }
    // Restarts are the Job's to count.
    if let Some(index) = index {
        let text = index.to_string();
        metadata["generateName"] = format!("{}-{text}-", job.name()).into();
        metadata["annotations"][INDEX] = text.clone().into();
        metadata["labels"][INDEX] = text.clone().into();
        if tally.failed_indexes.is_some() {
            let tries = tally.tries.get(&index).copied().unwrap_or_default();
            metadata["annotations"][indexed::FAILURES] = tries.failures.to_string().into();
            if tries.ignored > 0 {
                metadata["annotations"][indexed::IGNORED] = tries.ignored.to_string().into();
            }
        }
        let spec = &mut pod["spec"];
        spec["hostname"] = format!("{}-{text}", job.name()).into();
        let from = json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {
            "apiVersion": "v1", "fieldPath": format!("metadata.labels['{INDEX}']")}}});
        for list in ["initContainers", "containers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                let mut env = container["env"].as_array().cloned().unwrap_or_default();
                if !env.iter().any(|e| e["name"] == from["name"]) {
                    env.push(from.clone());
                    container["env"] = env.into();
                }
            }
        }
        if spec["initContainers"].is_null()
            && let Some(spec) = spec.as_object_mut()
        {
            spec.remove("initContainers");
        }
    }
    pod
}
