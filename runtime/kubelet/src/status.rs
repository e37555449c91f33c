//! A pod's status from its spec, what the runtime holds, why containers wait, and what probes found. Pure: the same
//! input gives the same status, so that an unchanged pod writes nothing. Conditions are in `conditions`.
//! Upstream: generateAPIPodStatus and what it calls (pkg/kubelet/kubelet_pods.go).
use crate::spec::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodIP, PodStatus, Time, VolumeMountStatus,
};
use crate::worker::{Failed, restarting};
use crate::{
    conditions,
    images::Failure,
    plan::should_start,
    pod::{Pod, Role, is_sidecar, restarts_after},
    resize::{Actuated, Standing},
    resources,
    state::{self, PodState, State},
};
use jiff::Timestamp;
use mote_schema::Gather as _;
use mote_schema::Order as _;
use std::collections::{BTreeMap, HashMap};

pub struct Inputs<'a> {
    pub state: &'a PodState,
    /// Why a container could not be started, by its name.
    pub waiting: &'a HashMap<String, Failure>,
    /// (started, ready) of a running container.
    pub probed: &'a dyn Fn(&Container, &state::Container) -> (bool, bool),
    pub host_ip: &'a str,
    /// "containerd", "cri-o": the scheme of container ids.
    pub runtime_name: &'a str,
    pub actuated: &'a Actuated,
    pub resize: &'a Standing,
    /// Nothing of the pod runs any more and nothing will be started.
    pub ended: bool,
    /// The node ended the pod, or never took it: reason and message of its failure.
    pub failed: Option<&'a Failed>,
    pub now: Timestamp,
}

/// Why a container waits, or how it ended, when all of its pod begin again.
const RESTARTING: &str = "RestartingAllContainers";

/// API times have whole seconds: more digits would differ from what is read back.
pub fn time(t: Timestamp) -> Time {
    Time(Timestamp::from_second(t.as_second()).unwrap_or(t))
}

pub fn build(pod: &Pod, inputs: &Inputs<'_>) -> PodStatus {
    let old = &pod.status;
    // What others own in a status stays as it is.
    let mut status = old.clone();
    status.observed_generation = pod.generation.or(old.observed_generation);
    status.qos_class = Some(resources::qos_class(pod).into());
    status.start_time = old.start_time.clone().or_else(|| Some(time(inputs.now)));
    if was_refused(old, inputs) {
        refuse(&mut status, inputs.failed);
        return status;
    }
    status.host_ip = Some(inputs.host_ip.into());
    status.host_ips = Some(vec![HostIP { ip: inputs.host_ip.into() }]);
    let host = [inputs.host_ip.to_owned()];
    let ips = if pod.is_host_network() { &host } else { inputs.state.ips() };
    // A pod without a live sandbox keeps the address it had.
    if !ips.is_empty() || inputs.state.sandboxes.iter().any(|s| s.ready) {
        status.pod_ip = ips.first().cloned();
        status.pod_ips =
            Some(ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect::<Vec<_>>()).filter(|l| !l.is_empty());
    }

    let has_init = !pod.init_containers().is_empty();
    let main: Vec<&Container> = pod.spec.containers.iter().collect();
    let init: Vec<&Container> = pod.init_containers().iter().collect();
    let ephemeral: Vec<&Container> = pod.ephemeral.iter().map(|(c, _)| c).collect();
    let list = |role, specs: &[&Container], old: &Option<Vec<ContainerStatus>>| {
        let old = old.as_deref().unwrap_or_default();
        let built: Vec<_> = specs.iter().map(|c| container(pod, c, role, old, has_init, inputs)).collect();
        Some(built).filter(|l: &Vec<_>| !l.is_empty())
    };
    status.container_statuses = list(Role::Main, &main, &old.container_statuses).map(|mut statuses| {
        statuses.order_by(|a, b| a.name.cmp(&b.name));
        statuses
    });
    status.init_container_statuses = list(Role::Init, &init, &old.init_container_statuses);
    status.ephemeral_container_statuses = list(Role::Ephemeral, &ephemeral, &old.ephemeral_container_statuses);

    let sandbox_ready = !inputs.state.sandbox_changed(pod.is_host_network()).0;
    let all = conditions::all_statuses(&status);
    let old_phase = old.phase.as_deref().unwrap_or("Pending");
    let final_phase = if matches!(old_phase, "Succeeded" | "Failed") {
        // A pod that has ended never comes back.
        old_phase
    } else if inputs.failed.is_some() && inputs.ended {
        "Failed"
    } else {
        phase(pod, &all, inputs)
    };
    let runs = !matches!(old_phase, "Succeeded" | "Failed");
    let evicted = inputs.failed.filter(|failed| runs && failed.disrupts).map(|failed| failed.message.as_str());
    let restarting = pod
        .may_restart_all()
        .then(|| restarting::is_due(pod, inputs.state) && !restarting::is_cleared(pod, inputs.state));
    let conditions = conditions::build(
        pod,
        &all,
        final_phase,
        &conditions::Facts { sandbox_ready, resize: inputs.resize, evicted, restarting },
        inputs.now,
    );
    status.conditions = Some(conditions);
    if let Some(Failed { reason, message, .. }) = inputs.failed.filter(|_| final_phase == "Failed") {
        status.reason = Some(reason.clone());
        status.message = Some(message.clone());
    } else if final_phase != old_phase {
        status.reason = None;
        status.message = None;
    }
    status.phase = Some(final_phase.into());
    status
}

/// The node never took the pod: nothing was ever said of its containers, and nothing will be.
fn was_refused(old: &PodStatus, inputs: &Inputs<'_>) -> bool {
    let is_over = inputs.failed.is_some() && inputs.ended || old.phase.as_deref() == Some("Failed");
    is_over && old.container_statuses.is_none() && inputs.state.containers.is_empty()
}

/// Upstream's rejectPod (pkg/kubelet/kubelet.go). A container that waits would be what kubectl shows in place of the reason.
fn refuse(status: &mut PodStatus, failed: Option<&Failed>) {
    status.phase = Some("Failed".into());
    if let Some(Failed { reason, message, .. }) = failed {
        (status.reason, status.message) = (Some(reason.clone()), Some(message.clone()));
    }
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(conditions::is_of_others);
    }
}

fn container(
    pod: &Pod,
    spec: &Container,
    role: Role,
    old: &[ContainerStatus],
    has_init: bool,
    inputs: &Inputs<'_>,
) -> ContainerStatus {
    let old = old.iter().find(|s| s.name == spec.name);
    let found: Vec<&state::Container> = inputs.state.containers.iter().filter(|c| c.name == spec.name).collect();
    let mut status = match found.first() {
        Some(newest) => of_found(newest, old, inputs),
        None if old.is_some() && restarting::is_due(pod, inputs.state) => of_removed(spec, old),
        None => of_absent(pod, spec, old, has_init),
    };
    if status.last_state.as_ref().is_none_or(is_empty)
        && let Some(previous) = found.get(1).filter(|c| c.state == State::Exited)
    {
        status.last_state =
            Some(ContainerState { terminated: Some(terminated(previous, inputs)), ..Default::default() });
    }
    status.volume_mounts = volume_mounts(spec);
    let runs = found.first().filter(|c| c.state == State::Running);
    status.resources = match runs {
        Some(running) => inputs.actuated.reported(&running.id, spec),
        None => spec.resources.clone(),
    };
    status.allocated_resources = spec.resources.as_ref().and_then(|r| r.requests.clone());

    // A container that should be started but could not be is waiting, and says why.
    let done_init = role == Role::Init
        && !is_sidecar(spec)
        && found.first().is_some_and(|c| c.state == State::Exited && c.exit_code == 0);
    let to_start = role != Role::Ephemeral || found.is_empty();
    if !done_init
        && to_start
        && should_start(spec, pod, found.first().copied())
        && let Some(why) = inputs.waiting.get(&spec.name)
    {
        if let Some(ended) = status.state.take().and_then(|s| s.terminated) {
            status.last_state = Some(ContainerState { terminated: Some(ended), ..Default::default() });
        }
        status.state = Some(waiting(why.reason, &why.message));
    }
    let state = status.state.clone().unwrap_or_default();
    let running = found.first().filter(|_| state.running.is_some());
    let (started, ready) = running.map_or((false, false), |c| (inputs.probed)(spec, c));
    if role != Role::Ephemeral {
        status.started = Some(started);
        status.ready = if role == Role::Init && !is_sidecar(spec) {
            state.terminated.is_some_and(|t| t.exit_code == 0)
        } else {
            started && ready
        };
    }
    status
}

fn is_empty(state: &ContainerState) -> bool {
    *state == ContainerState::default()
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
    let waiting = ContainerStateWaiting { reason: text(reason), message: text(message) };
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn id(found: &state::Container, inputs: &Inputs<'_>) -> String {
    format!("{}://{}", inputs.runtime_name, found.id)
}

fn terminated(found: &state::Container, inputs: &Inputs<'_>) -> ContainerStateTerminated {
    let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
    ContainerStateTerminated {
        exit_code: found.exit_code,
        reason: text(&found.reason),
        message: text(&found.message),
        started_at: Some(time(state::timestamp(found.started_at_ns))),
        finished_at: Some(time(state::timestamp(found.finished_at_ns))),
        container_id: Some(id(found, inputs)),
        signal: None,
    }
}

fn of_found(found: &state::Container, old: Option<&ContainerStatus>, inputs: &Inputs<'_>) -> ContainerStatus {
    let id = id(found, inputs);
    let old_state = old.and_then(|o| o.state.clone()).unwrap_or_default();
    let mut status = ContainerStatus {
        name: found.name.clone(),
        restart_count: found.restart_count.max(old.map_or(0, |o| o.restart_count)),
        image: found.image.clone(),
        image_id: found.image_ref.clone(),
        container_id: Some(id.clone()),
        user: found.user.as_ref().map(|u| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: u.uid,
                gid: u.gid,
                supplemental_groups: Some(u.supplemental_groups.clone()).filter(|g| !g.is_empty()),
            }),
        }),
        ..Default::default()
    };
    // Another container than last time: how that one ended is this one's last state.
    let before = match old {
        Some(o) if o.container_id.as_deref() != Some(id.as_str()) && old_state.terminated.is_some() => {
            old_state.terminated.clone()
        }
        Some(o) => o.last_state.clone().and_then(|s| s.terminated),
        None => None,
    };
    // Its own end, shown as last state while it waited for its restart, is not its past.
    let before = before.filter(|t| t.container_id.as_deref() != Some(id.as_str()));
    status.last_state = before.map(|t| ContainerState { terminated: Some(t), ..Default::default() });
    status.state = Some(match found.state {
        State::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(time(state::timestamp(found.started_at_ns))) }),
            ..Default::default()
        },
        State::Created => waiting("", ""),
        State::Exited => ContainerState { terminated: Some(terminated(found, inputs)), ..Default::default() },
        State::Unknown if old_state.running.is_some() => {
            status.restart_count = old.map_or(0, |o| o.restart_count) + 1;
            ContainerState {
                terminated: Some(lost("The container could not be located when the pod was terminated")),
                ..Default::default()
            }
        }
        State::Unknown => waiting("", ""),
    });
    status
}

fn lost(message: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".into()),
        message: Some(message.into()),
        ..Default::default()
    }
}

/// Removed so that all containers of the pod begin again.
fn of_removed(spec: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    const MESSAGE: &str = "The container is removed because RestartAllContainers in place";
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        state: Some(waiting(RESTARTING, MESSAGE)),
        ..Default::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    if old.state.as_ref().is_some_and(|state| state.waiting.is_none()) {
        let ended = ContainerStateTerminated { reason: Some(RESTARTING.into()), ..lost(MESSAGE) };
        status.last_state = Some(ContainerState { terminated: Some(ended), ..Default::default() });
        status.restart_count += 1;
    }
    status
}

/// No container in the runtime: not made yet, or removed since.
fn of_absent(pod: &Pod, spec: &Container, old: Option<&ContainerStatus>, has_init: bool) -> ContainerStatus {
    let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, "")),
        ..Default::default()
    };
    let Some(old) = old else { return status };
    let old_state = old.state.clone().unwrap_or_default();
    if old_state.terminated.is_some() {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state = old.last_state.clone();
    let known_end = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
    if old_state.running.is_some() && !known_end {
        // It ran and is gone: shown as stopped, or the pod would fall back to Pending.
        let message = "The container could not be located when the pod was deleted.  The container used to be Running";
        status.last_state = Some(ContainerState { terminated: Some(lost(message)), ..Default::default() });
        status.restart_count += i32::from(pod.deletion.is_none());
    }
    status
}

fn volume_mounts(spec: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec.volume_mounts.as_ref()?;
    let statuses = mounts.iter().map(|m| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only.filter(|r| *r),
        recursive_read_only: (m.read_only == Some(true)).then(|| "Disabled".to_owned()),
    });
    Some(statuses.collect())
}

/// getPhase upstream.
fn phase(pod: &Pod, statuses: &[&ContainerStatus], inputs: &Inputs<'_>) -> &'static str {
    let by_name: BTreeMap<&str, &ContainerStatus> = statuses.iter().map(|s| (s.name.as_str(), *s)).gather();
    let state = |c: &Container| by_name.get(c.name.as_str()).map(|s| (*s, s.state.clone().unwrap_or_default()));
    let last = |s: &ContainerStatus| s.last_state.as_ref().and_then(|l| l.terminated.clone());
    let is_over = |container: &Container, t: &ContainerStateTerminated| {
        t.reason.as_deref() != Some(RESTARTING) && !restarts_after(container, pod, t.exit_code)
    };
    let (mut pending_init, mut pending_sidecars, mut init_failed) = (0, 0, false);
    let (mut unknown, mut running, mut waiting, mut stopped, mut final_stops, mut succeeded) = (0, 0, 0, 0, 0, 0);
    for container in pod.init_containers() {
        let Some((status, state)) = state(container) else {
            if is_sidecar(container) {
                unknown += 1;
            } else {
                pending_init += 1;
            }
            continue;
        };
        if is_sidecar(container) {
            if state.running.is_some() {
                pending_sidecars += i32::from(status.started != Some(true));
                running += 1;
            } else if state.terminated.is_none() && last(status).is_none() {
                pending_sidecars += 1;
                waiting += i32::from(state.waiting.is_some());
                unknown += i32::from(state.waiting.is_none());
            }
            continue;
        }
        let ended = match &state.terminated {
            Some(t) => Some(t.clone()),
            None if state.waiting.is_some() => last(status),
            None => None,
        };
        match ended {
            Some(t) if t.exit_code == 0 => {}
            Some(t) => init_failed |= is_over(container, &t),
            None => pending_init += 1,
        }
    }
    for container in &pod.spec.containers {
        let Some((status, state)) = state(container) else {
            unknown += 1;
            continue;
        };
        if state.running.is_some() {
            running += 1;
        } else if let Some(t) = &state.terminated {
            stopped += 1;
            final_stops += i32::from(is_over(container, t));
            succeeded += i32::from(t.exit_code == 0);
        } else if state.waiting.is_some() {
            match last(status) {
                Some(t) => {
                    stopped += 1;
                    final_stops += i32::from(is_over(container, &t));
                }
                None => waiting += 1,
            }
        } else {
            unknown += 1;
        }
    }
    if init_failed {
        return "Failed";
    }
    let initialized = pod
        .spec
        .containers
        .iter()
        .any(|c| inputs.state.latest(&c.name).is_some_and(|f| matches!(f.state, State::Created | State::Running)));
    if pending_init > 0 || (pending_sidecars > 0 && !initialized) || waiting > 0 {
        return "Pending";
    }
    let outcome = if stopped == succeeded { "Succeeded" } else { "Failed" };
    match (running, stopped, unknown) {
        (1.., _, 0) => "Running",
        (0, 1.., 0) if inputs.ended => outcome,
        (0, 1.., 0) if stopped != final_stops => "Running",
        (0, 1.., 0) => outcome,
        _ => "Pending",
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
