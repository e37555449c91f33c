//! What the runtime holds under one pod's namespace and name, read afresh for each reconcile. Containers that have
//! exited do not change any more: their status is asked for once and kept.
use crate::labels;
use futures_lite::future;
use jiff::Timestamp;
use mote_cri::{
    Error, Runtime,
    v1::{self, container_state, sandbox_state},
};
use mote_schema::Order as _;
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// Upstream's MaxContainerTerminationMessageLength.
const MAX_MESSAGE_BYTES: u64 = 4096;

#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub ready: bool,
    pub created_at_ns: i64,
    /// Known only when ready and not on the host's network.
    pub ips: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    Created,
    Running,
    Exited,
    #[default]
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    pub state: State,
    pub created_at_ns: i64,
    pub started_at_ns: i64,
    pub finished_at_ns: i64,
    pub exit_code: i32,
    pub reason: String,
    pub message: String,
    pub image: String,
    /// What the API calls imageID: the digested reference.
    pub image_ref: String,
    pub restart_count: i32,
    pub hash: Option<u32>,
    /// Absolute.
    pub log_path: String,
    pub user: Option<v1::LinuxContainerUser>,
}

/// One pod incarnation (uid) in the runtime. Newest first in both lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    pub uid: String,
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

impl PodState {
    /// The newest container of that name.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }
    pub fn is_active(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.state, State::Running | State::Unknown))
            || self.sandboxes.iter().any(|s| s.ready)
    }
    /// Whether a new sandbox is needed, and the attempt of the one in use or to be made (util.PodSandboxChanged
    /// upstream). A number once used may still be reserved in the runtime, so a new one is above them all.
    pub fn sandbox_changed(&self, host_network: bool) -> (bool, u32) {
        let Some(newest) = self.sandboxes.first() else { return (true, 0) };
        let lost_address = !host_network && newest.ips.is_empty();
        if self.sandboxes.iter().filter(|s| s.ready).count() > 1 || !newest.ready || lost_address {
            (true, self.sandboxes.iter().map(|s| s.attempt).max().unwrap_or(0).saturating_add(1))
        } else {
            (false, newest.attempt)
        }
    }
    pub fn ips(&self) -> &[String] {
        self.sandboxes.first().map_or(&[], |s| &s.ips)
    }
}

pub fn timestamp(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(ns.into()).unwrap_or_default()
}

/// Statuses of exited containers and addresses of sandboxes, by id. Bounded by what the runtime holds: `forget`
/// drops what it no longer lists.
#[derive(Default)]
pub struct Cache {
    exited: Mutex<HashMap<String, Arc<v1::ContainerStatus>>>,
    addresses: Mutex<HashMap<String, Vec<String>>>,
}

impl Cache {
    /// A sandbox on the host's network: it has no addresses of its own, so nobody need ask for them.
    pub fn has_no_addresses(&self, id: &str) {
        lock(&self.addresses).insert(id.into(), Vec::new());
    }
    pub fn forget(&self, live: impl Fn(&str) -> bool) {
        lock(&self.exited).retain(|id, _| live(id));
        lock(&self.addresses).retain(|id, _| live(id));
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// All incarnations under `namespace`/`name`, whatever their uid.
pub async fn observe(runtime: &Runtime, cache: &Cache, namespace: &str, name: &str) -> Result<Vec<PodState>, Error> {
    let selector: v1::Map = [(labels::POD_NAMESPACE, namespace), (labels::POD_NAME, name)]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let filter = v1::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
    let sandboxes = runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) });
    let filter = v1::ContainerFilter { label_selector: selector, ..Default::default() };
    let containers = runtime.list_containers(v1::ListContainersRequest { filter: Some(filter) });
    let (sandboxes, containers) = future::try_zip(sandboxes, containers).await?;
    let (sandboxes, containers) = (sandboxes.items, containers.containers);

    let mut pods: BTreeMap<String, PodState> = BTreeMap::new();
    for sandbox in sandboxes {
        let uid = sandbox.labels.get(labels::POD_UID).cloned().unwrap_or_default();
        let ready = sandbox.state == sandbox_state::READY;
        let ips = if ready { addresses(runtime, cache, &sandbox.id).await? } else { Vec::new() };
        let pod = pods.entry(uid.clone()).or_insert_with(|| PodState { uid, ..Default::default() });
        pod.sandboxes.push(Sandbox {
            attempt: sandbox.metadata.map_or(0, |m| m.attempt),
            created_at_ns: sandbox.created_at,
            id: sandbox.id,
            ready,
            ips,
        });
    }
    for container in containers {
        let uid = container.labels.get(labels::POD_UID).cloned().unwrap_or_default();
        let Some(status) = status(runtime, cache, &container).await? else { continue };
        let pod = pods.entry(uid.clone()).or_insert_with(|| PodState { uid, ..Default::default() });
        pod.containers.push(convert(&status, container.pod_sandbox_id));
    }
    let mut pods: Vec<PodState> = pods.into_values().collect();
    for pod in &mut pods {
        pod.sandboxes.order_by_key(|s| std::cmp::Reverse(s.created_at_ns));
        pod.containers.order_by_key(|c| std::cmp::Reverse(c.created_at_ns));
    }
    Ok(pods)
}

pub async fn addresses(runtime: &Runtime, cache: &Cache, id: &str) -> Result<Vec<String>, Error> {
    if let Some(known) = lock(&cache.addresses).get(id) {
        return Ok(known.clone());
    }
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: false };
    let network = match runtime.pod_sandbox_status(request).await {
        Ok(answer) => answer.status.and_then(|s| s.network).unwrap_or_default(),
        Err(e) if e.is_not_found() => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let others = network.additional_ips.into_iter().map(|i| i.ip);
    let ips: Vec<String> = std::iter::once(network.ip).chain(others).filter(|ip| !ip.is_empty()).collect();
    if !ips.is_empty() {
        lock(&cache.addresses).insert(id.into(), ips.clone());
    }
    Ok(ips)
}

async fn status(
    runtime: &Runtime,
    cache: &Cache,
    container: &v1::Container,
) -> Result<Option<Arc<v1::ContainerStatus>>, Error> {
    if let Some(known) = lock(&cache.exited).get(&container.id) {
        return Ok(Some(known.clone()));
    }
    let request = v1::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
    let status = match runtime.container_status(request).await {
        Ok(answer) => answer.status,
        // Removed between the two calls.
        Err(e) if e.is_not_found() => None,
        Err(e) => return Err(e),
    };
    let Some(mut status) = status else { return Ok(None) };
    if status.state == container_state::EXITED {
        add_termination_message(&mut status).await;
    }
    let status = Arc::new(status);
    if status.state == container_state::EXITED {
        lock(&cache.exited).insert(container.id.clone(), status.clone());
    }
    Ok(Some(status))
}

/// What the container left in its termination message file, or in its log when it failed and asks for that.
async fn add_termination_message(status: &mut v1::ContainerStatus) {
    let path = status.annotations.get(labels::TERMINATION_PATH).filter(|p| !p.is_empty());
    let path = path.map(|p| if p.starts_with('/') { p.clone() } else { format!("/{p}") });
    let mount = status.mounts.iter().find(|m| Some(&m.container_path) == path.as_ref());
    let file = mount.map(|m| m.host_path.clone());
    let policy = status.annotations.get(labels::TERMINATION_POLICY).map(String::as_str);
    let fall_back =
        policy == Some("FallbackToLogsOnError") && status.exit_code != 0 && status.reason != "ContainerCannotRun";
    let log = PathBuf::from(&status.log_path);
    let text = mote_api::unblock(move || {
        let text = file.map_or(String::new(), |file| match read_end(&file, MAX_MESSAGE_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => format!("Error on reading termination log {file}: {e}"),
        });
        if text.is_empty() && fall_back { crate::logs::tail(&log) } else { text }
    });
    let text = text.await;
    if !text.is_empty() {
        let separator = if status.message.is_empty() { "" } else { ": " };
        status.message = format!("{}{separator}{text}", status.message);
    }
}

fn read_end(path: &str, limit: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn convert(status: &v1::ContainerStatus, sandbox: String) -> Container {
    let annotation = |key| status.annotations.get(key).map(String::as_str);
    let exited = status.state == container_state::EXITED;
    Container {
        id: status.id.clone(),
        sandbox,
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default(),
        state: match status.state {
            container_state::CREATED => State::Created,
            container_state::RUNNING => State::Running,
            container_state::EXITED => State::Exited,
            _ => State::Unknown,
        },
        created_at_ns: status.created_at,
        started_at_ns: status.started_at,
        finished_at_ns: if exited { status.finished_at } else { 0 },
        exit_code: if exited { status.exit_code } else { 0 },
        reason: if exited { status.reason.clone() } else { String::new() },
        message: if exited { status.message.clone() } else { String::new() },
        image: status.image.as_ref().map_or(String::new(), |i| {
            if i.user_specified_image.is_empty() { i.image.clone() } else { i.user_specified_image.clone() }
        }),
        image_ref: status.image_ref.clone(),
        restart_count: annotation(labels::RESTART_COUNT).and_then(|v| v.parse().ok()).unwrap_or(0),
        hash: annotation(labels::HASH).and_then(|v| u32::from_str_radix(v, 16).ok()),
        log_path: status.log_path.clone(),
        user: status.user.clone().and_then(|u| u.linux),
    }
}
