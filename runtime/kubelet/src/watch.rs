//! How container changes are learned: the runtime's events where it has them, else a list that is compared with the
//! last one, often while things move and seldom when they rest. Also: the runtime going away and coming back.
use crate::{
    Kubelet,
    cgroups::{Cgroups, Driver},
    eviction, exits, gc, labels, sandbox,
    state::lock,
};
use async_io::Timer;
use futures_lite::future;
use mote_api::driver::Key;
use mote_cri::{Error, v1};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const DIAL_FIRST: Duration = Duration::from_millis(50);
const DIAL_MAX: Duration = Duration::from_secs(2);
/// While something moves, and at rest.
const RELIST_BUSY: Duration = Duration::from_secs(1);
const RELIST_REST: Duration = Duration::from_secs(10);
/// Beside events a list only repairs what an event lost.
const RELIST_WITH_EVENTS: Duration = Duration::from_secs(60);
const STATUS_EVERY: Duration = Duration::from_secs(30);
/// While its network is not ready a runtime is asked more often: the node waits for it.
const STATUS_UNREADY: Duration = Duration::from_millis(250);
/// Runtimes without events refuse at once; those with events say nothing until the first.
const EVENTS_REFUSED_WITHIN: Duration = Duration::from_secs(1);

/// Runs for the life of the process.
pub async fn watch(kubelet: Arc<Kubelet>) {
    let mut delay = DIAL_FIRST;
    loop {
        match connect(&kubelet).await {
            Ok(version) => {
                delay = DIAL_FIRST;
                tracing::info!(
                    runtime = kubelet.health.runtime_version(),
                    socket = %kubelet.runtime.socket().display(),
                    "container runtime is up"
                );
                let error = follow(&kubelet, &version).await;
                kubelet.health.set_down();
                tracing::warn!(error = %error, "container runtime is down");
            }
            Err(error) => tracing::debug!(error = %error, "container runtime does not answer"),
        }
        Timer::after(delay).await;
        delay = (delay * 2).min(DIAL_MAX);
    }
}

async fn connect(kubelet: &Arc<Kubelet>) -> Result<v1::VersionResponse, Error> {
    let version = kubelet.runtime.version(v1::VersionRequest { version: "0.1.0".into() }).await?;
    let status = kubelet.runtime.status(v1::StatusRequest { verbose: false }).await?;
    if kubelet.cgroups.get().is_none() {
        let driver = cgroup_driver(kubelet).await;
        let _ = kubelet.cgroups.set(Arc::new(Cgroups::detect(driver)));
    }
    if kubelet.image_dir.get().is_none()
        && let Some(dir) = eviction::image_dir(kubelet).await
    {
        let _ = kubelet.image_dir.set(dir);
    }
    if !kubelet.config.pod_cidr.is_empty() {
        let network_config = Some(v1::NetworkConfig { pod_cidr: kubelet.config.pod_cidr.clone() });
        let request = v1::UpdateRuntimeConfigRequest { runtime_config: Some(v1::RuntimeConfig { network_config }) };
        if let Err(error) = kubelet.runtime.update_runtime_config(request).await {
            tracing::debug!(%error, "the runtime does not take the pod CIDR");
        }
    }
    kubelet.health.set_up(&version, status);
    Ok(version)
}

/// CRI-O and containerd 2 say which driver they use; containerd 1 shows its configuration to who asks for all of it.
async fn cgroup_driver(kubelet: &Kubelet) -> Driver {
    let is_systemd = match kubelet.runtime.runtime_config(v1::Empty {}).await {
        Ok(answer) => answer.linux.is_some_and(|linux| linux.cgroup_driver == v1::cgroup_driver::SYSTEMD),
        Err(_) => {
            let status = kubelet.runtime.status(v1::StatusRequest { verbose: true }).await.unwrap_or_default();
            status.info.get("config").is_some_and(|config| asks_for_systemd(config))
        }
    };
    if is_systemd { Driver::Systemd } else { Driver::Cgroupfs }
}

/// `config` is containerd 1's, as JSON: its default runtime puts containers where systemd says.
fn asks_for_systemd(config: &str) -> bool {
    let config: mote_schema::Value = serde_json::from_str(config).unwrap_or_default();
    let containerd = &config["containerd"];
    let name = containerd["defaultRuntimeName"].as_str().unwrap_or("runc");
    containerd["runtimes"][name]["options"]["SystemdCgroup"] == true
}

/// Until the runtime does not answer any more.
async fn follow(kubelet: &Arc<Kubelet>, version: &v1::VersionResponse) -> Error {
    let mut seen = Seen::default();
    if let Err(error) = seen.relist(kubelet, false).await {
        return error;
    }
    for key in kubelet.own_keys() {
        kubelet.queue().add(key);
    }
    gc::orphan_directories(kubelet, seen.uids.clone()).await;
    let has_events = AtomicBool::new(false);
    let lists = async {
        let mut interval = RELIST_BUSY;
        let mut asked = Instant::now();
        loop {
            let unready = kubelet.health.not_ready().is_some();
            let rest = if has_events.load(Ordering::Relaxed) { RELIST_WITH_EVENTS } else { RELIST_REST };
            let wait = if unready { STATUS_UNREADY } else { interval.min(STATUS_EVERY) };
            let stirred = kubelet.stirred.listen();
            let woken = async {
                stirred.await;
                true
            };
            let slept = async {
                Timer::after(wait).await;
                false
            };
            if future::or(woken, slept).await {
                interval = RELIST_BUSY;
                continue;
            }
            if unready || asked.elapsed() + RELIST_BUSY >= STATUS_EVERY {
                asked = Instant::now();
                match kubelet.runtime.status(v1::StatusRequest { verbose: false }).await {
                    Ok(answer) => {
                        let was_waiting = kubelet.health.network_error().is_some();
                        kubelet.health.set_up(version, answer);
                        if was_waiting && kubelet.health.network_error().is_none() {
                            kubelet.own_keys().into_iter().for_each(|key| kubelet.queue().add(key));
                        }
                    }
                    Err(e) => return e,
                }
            }
            match seen.relist(kubelet, has_events.load(Ordering::Relaxed)).await {
                Ok(true) => interval = RELIST_BUSY,
                Ok(false) => interval = (interval * 3 / 2).min(rest),
                Err(e) if e.is_unavailable() => return e,
                Err(e) => tracing::warn!(error = %e, "the runtime's containers cannot be listed"),
            }
        }
    };
    future::or(events(kubelet, &has_events), lists).await
}

/// Ends with the connection; on a runtime without events it never does.
async fn events(kubelet: &Kubelet, has_events: &AtomicBool) -> Error {
    let call = async {
        let mut stream = kubelet.runtime.get_container_events().await?;
        has_events.store(true, Ordering::Relaxed);
        loop {
            let Some(event) = stream.next().await? else {
                return Ok(());
            };
            let metadata = event.pod_sandbox_status.and_then(|s| s.metadata);
            if let Some(metadata) = metadata {
                kubelet.queue().add(Key::new(&metadata.namespace, &metadata.name));
                kubelet.changed.notify(usize::MAX);
            }
        }
    };
    let settle = async {
        Timer::after(EVENTS_REFUSED_WITHIN).await;
        has_events.store(true, Ordering::Relaxed);
        future::pending().await
    };
    let ended: Result<(), Error> = future::or(call, settle).await;
    has_events.store(false, Ordering::Relaxed);
    match ended {
        Err(e) if e.is_unavailable() => e,
        Err(e) => {
            tracing::debug!(error = %e, "the runtime has no container events; listing instead");
            future::pending().await
        }
        Ok(()) => future::pending().await,
    }
}

/// What the last list said, by container or sandbox id.
#[derive(Default)]
struct Seen {
    states: HashMap<String, (Key, i32)>,
    uids: HashSet<String>,
}

impl Seen {
    /// Wakes the pods of everything that came, went or changed; true if anything did.
    async fn relist(&mut self, kubelet: &Arc<Kubelet>, has_events: bool) -> Result<bool, Error> {
        let sandboxes = kubelet.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default());
        let containers = kubelet.runtime.list_containers(v1::ListContainersRequest::default());
        let (sandboxes, containers) = future::try_zip(sandboxes, containers).await?;
        let (sandboxes, containers) = (sandboxes.items, containers.containers);
        let mut logs = HashMap::new();
        for c in containers.iter().filter(|c| c.state == v1::container_state::RUNNING) {
            let label = |name| c.labels.get(name).map_or("", String::as_str);
            let (namespace, pod) = (label(labels::POD_NAMESPACE), label(labels::POD_NAME));
            let dir = sandbox::log_dir(&kubelet.config.pod_log_dir, namespace, pod, label(labels::POD_UID));
            let attempt = c.metadata.as_ref().map_or(0, |m| m.attempt);
            let log = dir.join(label(labels::CONTAINER_NAME)).join(format!("{attempt}.log"));
            if !has_events && !lock(&kubelet.running_logs).contains_key(&c.id) {
                exits::follow(kubelet, c.id.clone(), Key::new(namespace, pod));
            }
            logs.insert(c.id.clone(), log);
        }
        *lock(&kubelet.running_logs) = logs;
        let all = sandboxes.into_iter().map(|s| (s.id, s.labels, s.state));
        let all = all.chain(containers.into_iter().map(|c| (c.id, c.labels, c.state)));
        let mut now = HashMap::new();
        let mut woken = HashSet::new();
        self.uids.clear();
        for (id, labels, state) in all {
            let label = |name| labels.get(name).map_or("", String::as_str);
            let key = Key::new(label(labels::POD_NAMESPACE), label(labels::POD_NAME));
            // Not a pod's, or not one of ours to judge.
            if key.name.is_empty() {
                continue;
            }
            self.uids.insert(label(labels::POD_UID).to_owned());
            match self.states.remove(&id) {
                Some((key, before)) if before == state => {
                    now.insert(id, (key, state));
                }
                _ => {
                    woken.insert(key.clone());
                    now.insert(id, (key, state));
                }
            }
        }
        woken.extend(self.states.drain().map(|(_, (key, _))| key));
        self.states = now;
        kubelet.cache.forget(|id| self.states.contains_key(id));
        let changed = !woken.is_empty();
        woken.into_iter().for_each(|key| kubelet.queue().add(key));
        if changed {
            kubelet.changed.notify(usize::MAX);
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_driver_of_an_older_containerd() {
        for (config, want) in [
            (
                r#"{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}"#,
                true,
            ),
            (
                r#"{"containerd":{"defaultRuntimeName":"crun","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}"#,
                false,
            ),
            (r#"{"containerd":{"runtimes":{"runc":{"options":null}}}}"#, false),
            ("not JSON", false),
        ] {
            assert_eq!(asks_for_systemd(config), want, "{config}");
        }
    }
}
