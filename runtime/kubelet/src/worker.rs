//! One pod's reconcile: observe the runtime, decide (`plan`), act, report (`status`). Level-driven: it may be cut off
//! at any await and run again from what it finds; nothing it needs is only in memory but back-offs and probe results.
mod act;
mod probing;
mod resizing;
pub mod restarting;

use crate::spec::{Container, ContainerStatus};
use crate::{
    Kubelet, admit,
    backoff::{Backoff, CONTAINER_INITIAL, CONTAINER_MAX, go_duration},
    container, dns,
    events::Recorder,
    eviction::EVICTED,
    gc,
    images::{Failure, failure},
    kill,
    plan::{self, Actions, Probed, Standing},
    pod::{Pod, Role, is_sidecar},
    probes::{Job, RESULTS, Shared, Type, Verdict},
    resize::{Actuated, Allocation, Standing as Resizing},
    resources, sandbox, security,
    spec::{Field as _, PodStatus},
    state::{self, PodState, State, lock},
    status, userns,
    volumes::{self, Volumes},
};
use async_executor::Task;
use event_listener::Event;
use jiff::Timestamp;
use mote_api::{
    DeleteOptions, Object, Sub,
    driver::{Error, Key, Next},
};
use mote_cri::v1;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// After a failed step that no change will announce as repaired.
const RETRY_INITIAL: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What is remembered of one pod between reconciles.
#[derive(Default)]
pub struct Worker {
    /// Cuts off a reconcile whose reason is gone: the pod is to be deleted, or its grace got shorter.
    pub interrupt: Event,
    pub memory: Mutex<Memory>,
}

pub struct Memory {
    uid: String,
    /// Decoded last; for the feed's question whose volumes a change concerns.
    pub pod: Option<Arc<Pod>>,
    waiting: HashMap<String, Failure>,
    crashes: Backoff,
    retries: Backoff,
    probes: HashMap<(String, Type), Running>,
    volumes: Option<(Volumes, Instant)>,
    pub volumes_stale: bool,
    pub failed: Option<Failed>,
    cleaned: bool,
    /// When the pod was seen first; None once it ran.
    first_seen: Option<Instant>,
    /// None: the first time since the start.
    allocated: Option<Allocation>,
    actuated: Actuated,
    pub resize: Resizing,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            uid: String::new(),
            pod: None,
            waiting: HashMap::new(),
            crashes: Backoff::new(CONTAINER_INITIAL, CONTAINER_MAX),
            retries: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            probes: HashMap::new(),
            volumes: None,
            volumes_stale: false,
            failed: None,
            cleaned: false,
            first_seen: Some(Instant::now()),
            allocated: None,
            actuated: Actuated::default(),
            resize: Resizing::default(),
        }
    }
}

/// Why the node ends the pod, or never started it.
#[derive(Clone, Debug)]
pub struct Failed {
    pub reason: String,
    pub message: String,
    /// None: the pod's own.
    pub grace: Option<Duration>,
    /// It is no fault of the pod's.
    pub disrupts: bool,
}

impl Failed {
    pub(crate) fn new(reason: impl Into<String>, message: impl Into<String>) -> Failed {
        Failed { reason: reason.into(), message: message.into(), grace: None, disrupts: false }
    }
}

/// A probe's standing, and its task, which ends when this is dropped.
struct Running {
    container: String,
    standing: Shared,
    _task: Task<()>,
}

/// The earliest moment at which the key wants to run again.
#[derive(Default)]
struct Soonest(Option<Duration>);

impl Soonest {
    fn offer(&mut self, after: Option<Duration>) {
        if let Some(after) = after {
            self.0 = Some(self.0.map_or(after, |s| s.min(after)));
        }
    }
    fn next(&self) -> Next {
        self.0.map_or(Next::Done, Next::After)
    }
}

fn cri(e: mote_cri::Error) -> Error {
    Error::Other(format!("{}: {e}", e.doing()))
}

impl Kubelet {
    pub(crate) async fn sync(&self, key: &Key, worker: &Worker) -> Result<Next, Error> {
        if !self.health.is_up() {
            // Every key is woken when the runtime is back.
            return Ok(Next::Done);
        }
        let object = match self.client.get(&self.pods, &key.namespace, &key.name) {
            Ok(object) if object.root().at("spec.nodeName").str() == self.config.node_name => Some(object),
            Ok(_) => None,
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e.into()),
        };
        let found = self.observe(key).await?;
        let uid = object.as_ref().map_or("", |o| o.uid());
        for orphan in found.iter().filter(|s| s.uid != uid) {
            self.remove_orphan(key, orphan).await?;
        }
        let Some(object) = object else {
            lock(&self.workers).remove(key);
            return Ok(Next::Done);
        };
        let pod = Pod::decode(&object);
        {
            let mut memory = lock(&worker.memory);
            if memory.uid != pod.uid {
                *memory = Memory { uid: pod.uid.clone(), ..Memory::default() };
            }
        }
        let pod = Arc::new(self.allocate(worker, pod)?);
        lock(&worker.memory).pod = Some(pod.clone());
        let state = found.into_iter().find(|s| s.uid == pod.uid);
        let state = state.unwrap_or_else(|| PodState { uid: pod.uid.clone(), ..Default::default() });
        if pod.deletion.is_some() {
            self.terminate(key, worker, &pod, &state).await
        } else if pod.is_terminal() {
            self.finish(key, worker, &pod, &state).await
        } else {
            self.run(key, worker, &pod, state).await
        }
    }

    async fn observe(&self, key: &Key) -> Result<Vec<PodState>, Error> {
        state::observe(&self.runtime, &self.cache, &key.namespace, &key.name).await.map_err(cri)
    }

    async fn observe_own(&self, key: &Key, uid: &str) -> Result<PodState, Error> {
        let found = self.observe(key).await?.into_iter().find(|s| s.uid == uid);
        Ok(found.unwrap_or_else(|| PodState { uid: uid.into(), ..Default::default() }))
    }

    async fn remove_orphan(&self, key: &Key, state: &PodState) -> Result<(), Error> {
        if state.is_active() {
            tracing::info!(pod = %key, uid = state.uid, "stopping a pod that the API does not have");
            kill::orphan(self, state).await;
        }
        gc::remove_pod(self, key, state).await.map_err(cri)?;
        self.clean_up(&state.uid).await;
        gc::remove_logs(self, key, &state.uid).await;
        Ok(())
    }

    /// Volumes and cgroups. What stays is tried again with the next orphan scan.
    async fn clean_up(&self, uid: &str) {
        if let Err(errors) = volumes::tear_down(&self.pod_dir(uid)).await {
            tracing::warn!(uid, errors = errors.join("; "), "volumes are left behind");
        }
        let (cgroups, uid) = (self.cgroups(), uid.to_owned());
        mote_api::unblock(move || {
            for qos in ["Guaranteed", "Burstable", "BestEffort"] {
                cgroups.remove(&uid, qos);
            }
        })
        .await;
    }

    async fn terminate(&self, key: &Key, worker: &Worker, pod: &Arc<Pod>, state: &PodState) -> Result<Next, Error> {
        lock(&worker.memory).probes.retain(|(_, type_), _| *type_ == Type::Readiness);
        let mut state = state.clone();
        if state.is_active() {
            kill::pod(self, pod, &state, None).await;
            state = self.observe_own(key, &pod.uid).await?;
            if state.is_active() {
                return Ok(Next::After(self.retry(worker, "kill")));
            }
        }
        lock(&worker.memory).probes.clear();
        self.write_status(key, worker, &state, true).await?;
        self.clean_up(&pod.uid).await;
        let options = DeleteOptions { uid: Some(pod.uid.clone()), grace_period_seconds: Some(0), ..Default::default() };
        match self.client.delete(&self.pods, &key.namespace, &key.name, options).await {
            Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e.into()),
            _ => {}
        }
        let images = pod.containers().filter_map(|(_, c)| c.image.clone());
        self.images.forget(&pod.uid, images);
        Ok(Next::Done)
    }

    /// Succeeded or Failed: nothing may run any more; containers stay for their logs.
    async fn finish(&self, key: &Key, worker: &Worker, pod: &Arc<Pod>, state: &PodState) -> Result<Next, Error> {
        lock(&worker.memory).probes.clear();
        if state.is_active() {
            kill::pod(self, pod, state, None).await;
        }
        if !lock(&worker.memory).cleaned {
            let state = self.observe_own(key, &pod.uid).await?;
            self.write_status(key, worker, &state, true).await?;
            self.clean_up(&pod.uid).await;
            lock(&worker.memory).cleaned = true;
        }
        gc::dead_containers(self, key, pod, state).await;
        Ok(Next::Done)
    }

    /// The node ends the pod, for the reason in memory.
    async fn end(
        &self,
        key: &Key,
        worker: &Worker,
        pod: &Pod,
        state: &PodState,
        grace: Option<Duration>,
    ) -> Result<Next, Error> {
        kill::pod(self, pod, state, grace).await;
        let state = self.observe_own(key, &pod.uid).await?;
        self.write_status(key, worker, &state, true).await?;
        Ok(Next::Done)
    }

    async fn run(&self, key: &Key, worker: &Worker, pod: &Arc<Pod>, mut state: PodState) -> Result<Next, Error> {
        let grace = lock(&worker.memory).failed.as_ref().and_then(|failed| failed.grace);
        if grace.is_some() {
            return self.end(key, worker, pod, &state, grace).await;
        }
        let mut soonest = Soonest::default();
        if let Some(left) = deadline_left(pod, Timestamp::now()) {
            if left.is_zero() {
                let message = "Pod was active on the node longer than the specified deadline";
                let recorder = Recorder::of_pod(&self.client, &pod.object);
                recorder.normal("DeadlineExceeded", message);
                lock(&worker.memory).failed = Some(Failed::new("DeadlineExceeded", message));
                return self.end(key, worker, pod, &state, None).await;
            }
            soonest.offer(Some(left));
        }
        if pod.status.start_time.is_none() && state.sandboxes.is_empty() && self.is_refused(worker, pod)? {
            self.write_status(key, worker, &state, true).await?;
            return Ok(Next::Done);
        }
        self.keep_probes(key, worker, pod, &state);
        soonest.offer(self.note_progress(worker, pod, &state));
        self.write_status(key, worker, &state, false).await?;
        if restarting::is_due(pod, &state) && !restarting::is_cleared(pod, &state) {
            self.reset(key, pod, &state).await?;
            state = self.observe_own(key, &pod.uid).await?;
            self.keep_probes(key, worker, pod, &state);
            self.write_status(key, worker, &state, false).await?;
        }
        let actions = {
            let memory = lock(&worker.memory);
            plan::plan(pod, &state, &|found| memory.probed(pod, found))
        };
        if actions.kill_pod && state.is_active() {
            if actions.create_sandbox {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                Recorder::of_pod(&self.client, &pod.object).normal("SandboxChanged", message);
            }
            kill::pod(self, pod, &state, None).await;
            state = self.observe_own(key, &pod.uid).await?;
        }
        if actions.kill_pod && !actions.create_sandbox {
            self.write_status(key, worker, &state, false).await?;
            return Ok(soonest.next());
        }
        let acted = self.act(key, worker, pod, &state, &actions, &mut soonest).await?;
        if acted {
            self.stirred.notify(usize::MAX);
            state = self.observe_own(key, &pod.uid).await?;
            self.keep_probes(key, worker, pod, &state);
            self.note_progress(worker, pod, &state);
        }
        self.write_status(key, worker, &state, false).await?;
        gc::dead_containers(self, key, pod, &state).await;
        Ok(soonest.next())
    }

    /// A new pod cannot run here: its status will say why.
    fn is_refused(&self, worker: &Worker, pod: &Pod) -> Result<bool, Error> {
        let refusal = match self.pressure.refuses(pod) {
            Some(why) => Some((EVICTED.to_owned(), why)),
            None => self.refusal(pod)?,
        };
        let Some((reason, message)) = refusal else { return Ok(false) };
        Recorder::of_pod(&self.client, &pod.object).warning(&reason, &message);
        lock(&worker.memory).failed = Some(Failed::new(reason, format!("Pod was rejected: {message}")));
        Ok(true)
    }

    /// Why the pod has no place beside those that have one, each as it is allocated.
    fn refusal(&self, pod: &Pod) -> Result<Option<admit::Refusal>, Error> {
        let node = match self.client.get(&self.nodes, "", &self.config.node_name) {
            Ok(node) => node,
            Err(e) if e.is_not_found() => {
                return Ok(Some(("InvalidNodeInfo".into(), "Kubelet cannot get node info.".into())));
            }
            Err(e) => return Err(e.into()),
        };
        if security::needs_apparmor(pod) && !self.machine.has_apparmor {
            return Ok(Some((
                "AppArmor".into(),
                "Cannot enforce AppArmor: AppArmor is not enabled on the host".into(),
            )));
        }
        let objects = self.client.list(&self.pods, None)?;
        let here = |other: &&Object| other.uid() != pod.uid && self.is_own(other) && admit::holds_place(other);
        let workers = lock(&self.workers);
        let others = objects.iter().filter(here).map(|other| {
            let worker = workers.get(&Key::new(other.namespace(), other.name()));
            let known = worker.and_then(|worker| lock(&worker.memory).pod.clone());
            known.filter(|known| known.uid == other.uid()).unwrap_or_else(|| Arc::new(Pod::decode(other)))
        });
        let others: Vec<Arc<Pod>> = others.collect();
        Ok(admit::refusal(pod, node.root(), &others))
    }

    fn retry(&self, worker: &Worker, key: &str) -> Duration {
        lock(&worker.memory).retries.fail(key, Instant::now())
    }

    fn retry_left(&self, worker: &Worker, key: &str) -> Option<Duration> {
        lock(&worker.memory).retries.left(key, Instant::now())
    }

    /// Writes the status if it differs from the stored one.
    async fn write_status(&self, key: &Key, worker: &Worker, state: &PodState, ended: bool) -> Result<(), Error> {
        let object = match self.client.get(&self.pods, &key.namespace, &key.name) {
            Ok(object) if object.uid() == state.uid => object,
            // Gone meanwhile: nobody to report to.
            Ok(_) => return Ok(()),
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let mut pod = Pod::decode(&object);
        let status = {
            let memory = lock(&worker.memory);
            // Newer than what was reconciled: what of it was seen, and what of it is allocated, is the older one's.
            pod.generation = memory.pod.as_ref().map_or(pod.generation, |seen| seen.generation);
            if let Some(allocated) = &memory.allocated {
                allocated.apply(&mut pod);
            }
            let probed = |spec: &Container, found: &state::Container| memory.ready(spec, &found.id);
            let inputs = status::Inputs {
                state,
                waiting: &memory.waiting,
                probed: &probed,
                host_ip: &self.config.node_ip,
                runtime_name: &self.health.runtime_name(),
                actuated: &memory.actuated,
                resize: &memory.resize,
                ended,
                failed: memory.failed.as_ref(),
                now: Timestamp::now(),
            };
            status::build(&pod, &inputs)
        };
        if status == pod.status {
            return Ok(());
        }
        // A pod that ran before this process did has no start here.
        if status.phase.as_deref() == Some("Running")
            && let Some(since) = lock(&worker.memory).first_seen.take()
            && pod.status.phase.as_deref() == Some("Pending")
        {
            self.counts.started(since.elapsed());
        }
        let mut value = object.to_value();
        // What others say in the status stays.
        let mut written = object.root().get("status").to_value();
        for name in PodStatus::NAMES {
            drop(written.as_object_mut().map(|fields| fields.remove(name)));
        }
        match (written.as_object_mut(), status.write()) {
            (Some(fields), Some(mote_schema::Value::Object(new))) => fields.extend(new),
            (_, new) => written = new.unwrap_or_default(),
        }
        value["status"] = written;
        match self.client.update_value(&self.pods, Sub::Status, value).await {
            Err(e) if e.is_not_found() => Ok(()),
            outcome => outcome.map(|_| ()).map_err(Error::Api),
        }
    }
}

impl Memory {
    pub fn volume_dir(&self, name: &str) -> Option<&Path> {
        self.volumes.as_ref()?.0.paths.get(name).map(PathBuf::as_path)
    }

    /// Container, kind and counted results of the probes that run.
    pub fn probe_results(&self) -> impl Iterator<Item = (&str, Type, [u64; RESULTS.len()])> {
        self.probes.iter().map(|((_, type_), run)| (run.container.as_str(), *type_, run.standing.results()))
    }

    /// The pod has ended, and what it had of the node is given back.
    pub fn is_cleaned(&self) -> bool {
        self.cleaned
    }

    fn standing(&self, id: &str, type_: Type) -> Option<Option<Standing>> {
        self.probes.get(&(id.to_owned(), type_)).map(|r| r.standing.get())
    }

    fn probed(&self, pod: &Pod, found: &state::Container) -> Probed {
        Probed {
            startup: self.standing(&found.id, Type::Startup).flatten(),
            liveness: self.standing(&found.id, Type::Liveness).flatten(),
            resize: self.resizing(pod, found),
        }
    }

    /// (started, ready) of a running container.
    fn ready(&self, spec: &Container, id: &str) -> (bool, bool) {
        let passed = |type_: Type| match type_.of(spec) {
            None => true,
            Some(_) => self.standing(id, type_).flatten() == Some(Standing::Success),
        };
        (passed(Type::Startup), passed(Type::Readiness))
    }
}

/// Time left of activeDeadlineSeconds, counted from status.startTime.
fn deadline_left(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let limit = pod.spec.active_deadline_seconds?;
    let start = pod.status.start_time.as_ref()?.0;
    let left = limit.saturating_sub(now.duration_since(start).as_secs());
    Some(Duration::from_secs(left.max(0) as u64))
}
