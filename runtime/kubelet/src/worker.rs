//! One pod's reconcile: observe the runtime, decide (`plan`), act, report (`status`). Level-driven: it may be cut off
//! at any await and run again from what it finds; nothing it needs is only in memory but back-offs and probe results.
use crate::{
    Kubelet,
    backoff::{Backoff, CONTAINER_INITIAL, CONTAINER_MAX, go_duration},
    container, dns,
    events::Recorder,
    gc,
    images::{Failure, failure},
    kill,
    plan::{self, Actions, Probed, Standing},
    pod::{Pod, Role, is_sidecar},
    probes::{Job, Shared, Type, Verdict},
    resources, sandbox,
    state::{self, PodState, State, lock},
    status,
    volumes::{self, Volumes},
};
use async_executor::Task;
use event_listener::Event;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus};
use mote_api::{
    DeleteOptions, Sub,
    driver::{Error, Key, Next},
};
use mote_cri::v1;
use mote_schema::Status;
use std::{
    collections::HashMap,
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
    failed: Option<(String, String)>,
    cleaned: bool,
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
        }
    }
}

/// A probe's standing, and its task, which ends when this is dropped.
struct Running {
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
        let pod =
            Pod::decode(&object).map_err(|e| Error::Api(Status::internal(format!("decoding pod {key}: {e:?}"))))?;
        let pod = Arc::new(pod);
        {
            let mut memory = lock(&worker.memory);
            if memory.uid != pod.uid {
                *memory = Memory { uid: pod.uid.clone(), ..Memory::default() };
            }
            memory.pod = Some(pod.clone());
        }
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
        blocking::unblock(move || {
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

    async fn run(&self, key: &Key, worker: &Worker, pod: &Arc<Pod>, mut state: PodState) -> Result<Next, Error> {
        let mut soonest = Soonest::default();
        if let Some(left) = deadline_left(pod, Timestamp::now()) {
            if left.is_zero() {
                let message = "Pod was active on the node longer than the specified deadline";
                let recorder = Recorder::of_pod(&self.client, &pod.object);
                recorder.normal("DeadlineExceeded", message);
                lock(&worker.memory).failed = Some(("DeadlineExceeded".into(), message.into()));
                kill::pod(self, pod, &state, None).await;
                let state = self.observe_own(key, &pod.uid).await?;
                self.write_status(key, worker, &state, true).await?;
                return Ok(Next::Done);
            }
            soonest.offer(Some(left));
        }
        self.keep_probes(key, worker, pod, &state);
        self.write_status(key, worker, &state, false).await?;
        let actions = {
            let memory = lock(&worker.memory);
            plan::plan(pod, &state, &|found| memory.probed(&found.id))
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
        }
        self.write_status(key, worker, &state, false).await?;
        gc::dead_containers(self, key, pod, &state).await;
        Ok(soonest.next())
    }

    /// Volumes, sandbox, kills and starts; whether anything may have changed in the runtime.
    async fn act(
        &self,
        key: &Key,
        worker: &Worker,
        pod: &Arc<Pod>,
        state: &PodState,
        actions: &Actions,
        soonest: &mut Soonest,
    ) -> Result<bool, Error> {
        let recorder = Recorder::of_pod(&self.client, &pod.object);
        if let Some(left) = self.retry_left(worker, "volumes").filter(|_| !lock(&worker.memory).volumes_stale) {
            soonest.offer(Some(left));
            return Ok(false);
        }
        let volumes = match self.volumes(worker, pod, soonest).await {
            Ok(volumes) => volumes,
            Err(message) => {
                recorder.warning("FailedMount", &message);
                soonest.offer(Some(self.retry(worker, "volumes")));
                return Ok(false);
            }
        };
        if actions.kill.is_empty() && actions.start.is_empty() && !actions.create_sandbox {
            return Ok(false);
        }
        if actions.create_sandbox {
            if let Some(left) = self.retry_left(worker, "sandbox") {
                soonest.offer(Some(left));
                return Ok(false);
            }
            if let Some(why) = self.health.network_error().filter(|_| !pod.is_host_network()) {
                recorder.warning("NetworkNotReady", &format!("network is not ready: {why}"));
                soonest.offer(Some(self.retry(worker, "sandbox")));
                return Ok(false);
            }
        }
        let config = match self.sandbox_config(pod, actions.attempt).await {
            Ok(config) => config,
            Err(message) => {
                recorder.warning("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {message}"));
                soonest.offer(Some(self.retry(worker, "sandbox")));
                return Ok(false);
            }
        };
        let (sandbox_id, ips) = if actions.create_sandbox {
            let request =
                v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: self.runtime_handler(pod) };
            let made = self.runtime.run_pod_sandbox(request).await;
            let id = match made {
                Ok(answer) => answer.pod_sandbox_id,
                Err(e) => {
                    recorder.warning("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {e}"));
                    soonest.offer(Some(self.retry(worker, "sandbox")));
                    return Ok(true);
                }
            };
            lock(&worker.memory).retries.forget("sandbox");
            let ips = state::addresses(&self.runtime, &self.cache, &id).await.map_err(cri)?;
            (id, ips)
        } else {
            let Some(current) = state.sandboxes.first() else { return Ok(false) };
            (current.id.clone(), current.ips.clone())
        };
        let ips = if pod.is_host_network() { vec![self.config.node_ip.clone()] } else { ips };

        let ip = ips.first().map_or("", String::as_str);
        for doomed in &actions.kill {
            let Some((role, spec)) = pod.find(&doomed.name) else { continue };
            let target = kill::Target { id: &doomed.id, role, container: spec, reason: doomed.reason };
            kill::container(self, pod, &target, &doomed.message, None, ip).await;
        }
        for (role, name) in &actions.start {
            let Some((kind, spec)) = pod.find(name) else { continue };
            let target = pod.ephemeral.iter().find(|(c, _)| *role == Role::Ephemeral && c.name == *name);
            let target = target.and_then(|(_, t)| t.as_deref()).and_then(|t| state.latest(t)).map(|t| t.id.as_str());
            let start = container::Start {
                pod,
                role: kind,
                container: spec,
                target,
                sandbox_id: &sandbox_id,
                sandbox: &config,
                state,
                ips: &ips,
                volumes: &volumes,
            };
            // A start that failed for want of something waits its turn, whatever else wakes the pod.
            if let Some(left) = self.retry_left(worker, name) {
                soonest.offer(Some(left));
                if *role == Role::Init && !is_sidecar(spec) {
                    break;
                }
                continue;
            }
            let outcome = match self.crash_back_off(worker, pod, kind, spec, state) {
                Some(why) => Err(why),
                None => container::start(self, &start).await,
            };
            match outcome {
                Ok(()) => {
                    let mut memory = lock(&worker.memory);
                    memory.waiting.remove(name);
                    memory.retries.forget(name);
                }
                Err(why) => {
                    let again = why.again.unwrap_or_else(|| self.retry(worker, name));
                    soonest.offer(Some(again));
                    lock(&worker.memory).waiting.insert(name.clone(), why);
                    // Later init containers wait for this one; a sidecar that fails does not hold back the others.
                    if *role == Role::Init && !is_sidecar(spec) {
                        break;
                    }
                }
            }
            // What is reported must not wait for a slow pull of the next image.
            if actions.start.len() > 1 {
                let now = self.observe_own(key, &pod.uid).await?;
                self.write_status(key, worker, &now, false).await?;
            }
        }
        Ok(true)
    }

    fn retry(&self, worker: &Worker, key: &str) -> Duration {
        lock(&worker.memory).retries.fail(key, Instant::now())
    }

    fn retry_left(&self, worker: &Worker, key: &str) -> Option<Duration> {
        lock(&worker.memory).retries.left(key, Instant::now())
    }

    /// Sets volumes up when that was not done since the start, or a source of theirs has changed.
    async fn volumes(&self, worker: &Worker, pod: &Pod, soonest: &mut Soonest) -> Result<Volumes, String> {
        {
            let mut memory = lock(&worker.memory);
            let stale = std::mem::take(&mut memory.volumes_stale);
            if let Some((volumes, since)) = memory.volumes.as_ref().filter(|_| !stale) {
                let left = volumes.again.map(|again| again.saturating_sub(since.elapsed()));
                if left != Some(Duration::ZERO) {
                    soonest.offer(left);
                    return Ok(volumes.clone());
                }
            }
        }
        let facts = volumes::Facts {
            client: &self.client,
            node_name: &self.config.node_name,
            pod_dir: &self.pod_dir(&pod.uid),
        };
        let made = volumes::set_up(&facts, pod).await;
        let mut memory = lock(&worker.memory);
        match made {
            Ok(volumes) => {
                memory.retries.forget("volumes");
                memory.volumes = Some((volumes.clone(), Instant::now()));
                soonest.offer(volumes.again);
                Ok(volumes)
            }
            Err(message) => {
                memory.volumes = None;
                Err(message)
            }
        }
    }

    async fn sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<v1::PodSandboxConfig, String> {
        let resolv_conf = blocking::unblock(|| std::fs::read_to_string("/etc/resolv.conf")).await.unwrap_or_default();
        let (dns, told) = dns::config(pod, &self.config.cluster_dns, &self.config.cluster_domain, &resolv_conf);
        for message in told {
            Recorder::of_pod(&self.client, &pod.object).warning("DNSConfigForming", &message);
        }
        let (cgroups, qos, uid) = (self.cgroups(), resources::qos_class(pod), pod.uid.clone());
        let parts = sandbox::Parts {
            attempt,
            log_root: &self.config.pod_log_dir,
            cgroup_parent: cgroups.parent(&pod.uid, qos),
            cluster_domain: &self.config.cluster_domain,
            dns,
        };
        let config = sandbox::config(pod, parts)?;
        let (limits, log_dir, pod_dir) = (resources::of_pod(pod), config.log_directory.clone(), self.pod_dir(&pod.uid));
        let made = blocking::unblock(move || {
            cgroups.create(&uid, qos, &limits);
            std::fs::create_dir_all(pod_dir)?;
            std::fs::create_dir_all(log_dir)
        });
        made.await.map_err(|e| e.to_string())?;
        Ok(config)
    }

    /// The handler of the pod's RuntimeClass; "" is the runtime's default.
    fn runtime_handler(&self, pod: &Pod) -> String {
        let Some(name) = pod.spec.runtime_class_name.as_deref().filter(|n| !n.is_empty()) else { return String::new() };
        let Some(kind) = self.client.kind("node.k8s.io", "v1", "runtimeclasses") else { return String::new() };
        self.client.get(&kind, "", name).map_or(String::new(), |class| class.root().get("handler").str().to_owned())
    }

    fn crash_back_off(
        &self,
        worker: &Worker,
        pod: &Pod,
        role: Role,
        container: &Container,
        state: &PodState,
    ) -> Option<Failure> {
        let ended = state.containers.iter().find(|c| c.name == container.name && c.state == State::Exited)?;
        let since = Timestamp::now().duration_since(state::timestamp(ended.finished_at_ns));
        let since = Duration::try_from(since).unwrap_or_default();
        let mut memory = lock(&worker.memory);
        let now = Instant::now();
        // A restart of the kubelet is no amnesty: the restarts are counted in what was reported.
        let reported = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).flatten();
        let waited = |s: &&ContainerStatus| {
            let waiting = s.state.as_ref().and_then(|s| s.waiting.as_ref());
            s.name == container.name && waiting.is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff"))
        };
        if let Some(failures) = reported.into_iter().find(waited).map(|s| s.restart_count) {
            memory.crashes.resume(&container.name, u32::try_from(failures).unwrap_or(0), now);
        }
        let Some(delay) = memory.crashes.delay(&container.name, now).filter(|delay| since < *delay) else {
            memory.crashes.fail(&container.name, now);
            return None;
        };
        drop(memory);
        let (name, described) = (&container.name, pod.described());
        let recorder = Recorder::of_container(&self.client, &pod.object, role, name);
        recorder.warning("BackOff", &format!("Back-off restarting failed container {name} in pod {described}"));
        let message = format!("back-off {} restarting failed container={name} pod={described}", go_duration(delay));
        Some(Failure { again: Some(delay - since), ..failure("CrashLoopBackOff", message) })
    }

    /// Starts probes for running containers that have none yet and drops those of containers that run no more.
    fn keep_probes(&self, key: &Key, worker: &Worker, pod: &Arc<Pod>, state: &PodState) {
        let mut memory = lock(&worker.memory);
        let runs = |id: &str| state.containers.iter().any(|c| c.id == id && c.state == State::Running);
        memory.probes.retain(|(id, _), _| runs(id));
        let probed = pod.containers().filter(|(role, c)| *role == Role::Main || *role == Role::Init && is_sidecar(c));
        for (role, container) in probed {
            let Some(found) = state.latest(&container.name).filter(|f| f.state == State::Running) else { continue };
            // After a restart of the kubelet what was reported holds until a probe says otherwise.
            let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).flatten();
            let reported =
                statuses.into_iter().find(|s| s.container_id.as_ref().is_some_and(|id| id.ends_with(&found.id)));
            for type_ in [Type::Startup, Type::Liveness, Type::Readiness] {
                let slot = (found.id.clone(), type_);
                if type_.of(container).is_none() || memory.probes.contains_key(&slot) {
                    continue;
                }
                let initial = match type_ {
                    Type::Startup if reported.is_some_and(|s| s.started == Some(true)) => Some(Standing::Success),
                    Type::Startup => None,
                    Type::Liveness => Some(Standing::Success),
                    Type::Readiness if reported.is_some_and(|s| s.ready) => Some(Standing::Success),
                    Type::Readiness => Some(Standing::Failure),
                };
                let standing = Verdict::new(initial);
                let startup = (type_ != Type::Startup).then(|| memory.probes.get(&(found.id.clone(), Type::Startup)));
                let job = Job {
                    client: self.client.clone(),
                    runtime: self.runtime.clone(),
                    pod: pod.clone(),
                    role,
                    container: container.clone(),
                    id: found.id.clone(),
                    pod_ip: if pod.is_host_network() {
                        self.config.node_ip.clone()
                    } else {
                        state.ips().first().cloned().unwrap_or_default()
                    },
                    type_,
                    standing: standing.clone(),
                    startup: startup.flatten().map(|r| r.standing.clone()),
                    started_at: state::timestamp(found.started_at_ns),
                };
                let done = type_ == Type::Startup && initial.is_some();
                let (queue, key) = (self.queue(), key.clone());
                let task = self.client.executor().spawn(async move {
                    if !done {
                        job.run(move || queue.add(key.clone())).await;
                    }
                });
                memory.probes.insert(slot, Running { standing, _task: task });
            }
        }
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
        let pod =
            Pod::decode(&object).map_err(|e| Error::Api(Status::internal(format!("decoding pod {key}: {e:?}"))))?;
        let status = {
            let memory = lock(&worker.memory);
            let probed = |spec: &Container, found: &state::Container| memory.ready(spec, &found.id);
            let inputs = status::Inputs {
                state,
                waiting: &memory.waiting,
                probed: &probed,
                host_ip: &self.config.node_ip,
                runtime_name: &self.health.runtime_name(),
                ended,
                failed: memory.failed.as_ref(),
                now: Timestamp::now(),
            };
            status::build(&pod, &inputs)
        };
        if status == pod.status {
            return Ok(());
        }
        let mut value = object.to_value();
        value["status"] = serde_json::to_value(&status).map_err(|e| Error::Other(format!("encoding a status: {e}")))?;
        match self.client.update_value(&self.pods, Sub::Status, value).await {
            Err(e) if e.is_not_found() => Ok(()),
            outcome => outcome.map(|_| ()).map_err(Error::Api),
        }
    }
}

impl Memory {
    fn standing(&self, id: &str, type_: Type) -> Option<Option<Standing>> {
        self.probes.get(&(id.to_owned(), type_)).map(|r| r.standing.get())
    }

    fn probed(&self, id: &str) -> Probed {
        Probed {
            startup: self.standing(id, Type::Startup).flatten(),
            liveness: self.standing(id, Type::Liveness).flatten(),
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
