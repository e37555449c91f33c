//! The pod conditions that a kubelet owns (upstream's pkg/kubelet/status/generate.go). Pure.
use crate::spec::{Container, ContainerStatus, PodCondition, PodStatus};
use crate::{
    pod::{Pod, is_sidecar},
    resize::Standing,
    status::time,
};
use jiff::Timestamp;

const OWNED: [&str; 8] = [
    "PodResizePending",
    "PodResizeInProgress",
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
];

const DISRUPTED: &str = "DisruptionTarget";

/// Init containers' statuses first.
pub fn all_statuses(status: &PodStatus) -> Vec<&ContainerStatus> {
    let init = status.init_container_statuses.iter().flatten();
    init.chain(status.container_statuses.iter().flatten()).collect()
}

pub fn is_of_others(condition: &PodCondition) -> bool {
    !OWNED.contains(&condition.type_.as_str())
}

struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

const TRUE: Verdict = Verdict { status: true, reason: "", message: String::new() };

fn no(reason: &'static str, message: String) -> Verdict {
    Verdict { status: false, reason, message }
}

/// What is happening to the pod beside its containers.
pub struct Facts<'a> {
    pub sandbox_ready: bool,
    pub resize: &'a Standing,
    /// Why it is evicted.
    pub evicted: Option<&'a str>,
    /// Whether all its containers begin again; None: nothing in it asks for that.
    pub restarting: Option<bool>,
}

/// Conditions of others are kept in place; the kubelet's follow in upstream's order.
pub fn build(
    pod: &Pod,
    statuses: &[&ContainerStatus],
    phase: &str,
    facts: &Facts<'_>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let Facts { sandbox_ready, resize, evicted, restarting } = *facts;
    let old = pod.status.conditions.as_deref().unwrap_or_default();
    let mut conditions: Vec<PodCondition> = old.iter().filter(|c| is_of_others(c)).cloned().collect();
    let containers_ready = containers_ready(pod, statuses, phase);
    let ready = ready(pod, &containers_ready, &conditions);
    let sandbox = Verdict { status: sandbox_ready, ..TRUE };
    if let Some(message) = evicted.filter(|_| !old.iter().any(|c| c.type_ == DISRUPTED && c.status == "True")) {
        conditions.retain(|c| c.type_ != DISRUPTED);
        conditions.push(PodCondition {
            type_: DISRUPTED.into(),
            status: "True".into(),
            reason: Some("TerminationByKubelet".into()),
            message: Some(message.into()),
            observed_generation: pod.generation,
            last_transition_time: Some(time(now)),
            last_probe_time: None,
        });
    }
    let ended = matches!(phase, "Succeeded" | "Failed");
    for (type_, reason, stands) in
        [(OWNED[0], "Deferred", resize.pending.as_ref()), (OWNED[1], "Error", resize.progress.as_ref())]
    {
        let Some((message, generation)) = stands.filter(|_| !ended) else { continue };
        let reason = Some(reason.to_owned()).filter(|_| !message.is_empty());
        let before = old.iter().find(|c| c.type_ == type_ && c.reason == reason);
        let since = before.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| time(now));
        conditions.push(PodCondition {
            type_: type_.into(),
            status: "True".into(),
            reason,
            message: Some(message.clone()).filter(|m| !m.is_empty()),
            observed_generation: *generation,
            last_probe_time: Some(since.clone()),
            last_transition_time: Some(since),
        });
    }
    // Who was initialized once stays so, also while all begins again.
    let initialized = match old.iter().find(|c| c.type_ == OWNED[3] && c.status == "True") {
        Some(_) if phase != "Succeeded" => TRUE,
        _ => initialized(pod, statuses, phase),
    };
    let restarting = restarting.map(|restarting| match (phase, restarting) {
        ("Succeeded", _) => no("PodCompleted", String::new()),
        ("Failed", _) => no("PodFailed", String::new()),
        (_, false) => no("", String::new()),
        (_, true) => Verdict {
            status: true,
            reason: "RestartAllContainersStarted",
            message: "container exited with restart policy rule".into(),
        },
    });
    let verdicts = [
        (2, Some(sandbox)),
        (3, Some(initialized)),
        (4, Some(ready)),
        (5, Some(containers_ready)),
        (6, Some(TRUE)),
        (7, restarting),
    ];
    for (index, verdict) in verdicts {
        let Some(verdict) = verdict else { continue };
        let type_ = OWNED[index];
        let status = if verdict.status { "True" } else { "False" };
        let before = old.iter().find(|c| c.type_ == type_);
        let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
        let text = |t: &str| Some(t.to_owned()).filter(|t| !t.is_empty());
        conditions.push(PodCondition {
            type_: type_.into(),
            status: status.into(),
            reason: text(verdict.reason),
            message: text(&verdict.message),
            observed_generation: pod.generation,
            last_transition_time: Some(since.unwrap_or_else(|| time(now))),
            last_probe_time: None,
        });
    }
    conditions
}

/// As Go prints a slice of strings: `[a b]`.
fn listed(what: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("containers with {what} status: [{}]", names.join(" ")))
}

fn sort<'a>(
    containers: impl Iterator<Item = &'a Container>,
    statuses: &[&ContainerStatus],
    good: impl Fn(&Container, &ContainerStatus) -> bool,
) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut unknown, mut bad) = (Vec::new(), Vec::new());
    for container in containers {
        match statuses.iter().find(|s| s.name == container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) if !good(container, status) => bad.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    (unknown, bad)
}

fn containers_ready(pod: &Pod, statuses: &[&ContainerStatus], phase: &str) -> Verdict {
    let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c));
    let (unknown, unready) = sort(sidecars.chain(&pod.spec.containers), statuses, |_, s| s.ready);
    match phase {
        "Succeeded" if unknown.is_empty() => return no("PodCompleted", String::new()),
        "Failed" => return no("PodFailed", String::new()),
        _ => {}
    }
    let parts: Vec<String> = [listed("unknown", &unknown), listed("unready", &unready)].into_iter().flatten().collect();
    if parts.is_empty() { TRUE } else { no("ContainersNotReady", parts.join(", ")) }
}

fn ready(pod: &Pod, containers_ready: &Verdict, others: &[PodCondition]) -> Verdict {
    if !containers_ready.status {
        return no(containers_ready.reason, containers_ready.message.clone());
    }
    let gates = pod.spec.readiness_gates.iter().flatten().filter_map(|gate| {
        let name = &gate.condition_type;
        match others.iter().find(|c| c.type_ == *name) {
            None => Some(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(c) if c.status != "True" => {
                Some(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status))
            }
            Some(_) => None,
        }
    });
    let parts: Vec<String> = gates.collect();
    if parts.is_empty() { TRUE } else { no("ReadinessGatesNotReady", parts.join(", ")) }
}

fn initialized(pod: &Pod, statuses: &[&ContainerStatus], phase: &str) -> Verdict {
    let good = |c: &Container, s: &ContainerStatus| if is_sidecar(c) { s.started == Some(true) } else { s.ready };
    let (unknown, incomplete) = sort(pod.init_containers().iter(), statuses, good);
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict { reason: "PodCompleted", ..TRUE };
    }
    // Once a regular container has started, initialization is behind, whatever a sidecar does now.
    let begun = pod.spec.containers.iter().any(|c| {
        let status = statuses.iter().find(|s| s.name == c.name);
        let ended = |s: &Option<crate::spec::ContainerState>| s.as_ref().is_some_and(|s| s.terminated.is_some());
        let running = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some());
        status.is_some_and(|s| ended(&s.last_state) || ended(&s.state) || running(s) || s.started == Some(true))
    });
    let parts: Vec<String> =
        [listed("unknown", &unknown), listed("incomplete", &incomplete)].into_iter().flatten().collect();
    if begun || parts.is_empty() { TRUE } else { no("ContainersNotInitialized", parts.join(", ")) }
}
