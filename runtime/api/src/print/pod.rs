//! Pods: how many containers are ready, and one word for what the pod is doing.
use super::row::{NONE, Row, condition, labels, number};
use mote_schema::{Object, Ref};

/// A pod that is over: kubectl greys it out.
pub(super) fn completed(object: &Object) -> Option<(&'static str, &'static str)> {
    match object.root().at("status.phase").str() {
        "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
        "Failed" => Some(("Failed", "The pod failed.")),
        _ => None,
    }
}

pub(super) fn pod(row: &mut Row<'_>) {
    let state = State::of(row.object);
    let restarts = match state.last_restart {
        Some(last) if state.restarts != 0 => format!("{} ({} ago)", state.restarts, row.since(last)),
        _ => state.restarts.to_string(),
    };
    row.name();
    row.text(&format!("{}/{}", state.ready, state.total));
    row.text(&state.reason);
    row.text(&restarts);
    row.age();
    let ip = row.at("status.podIPs").index(0).get("ip").str();
    row.text(if ip.is_empty() { NONE } else { ip });
    row.string_or("spec.nodeName", NONE);
    row.string_or("status.nominatedNodeName", NONE);
    let (gates, conditions) = (row.at("spec.readinessGates"), row.at("status.conditions"));
    let open = |gate: &Ref<'_>| is_true(conditions, gate.get("conditionType").str());
    let gates = match gates.items().count() {
        0 => NONE.into(),
        count => format!("{}/{count}", gates.items().filter(open).count()),
    };
    row.text(&gates);
}

pub(super) fn template(row: &mut Row<'_>) {
    row.name();
    row.containers("template");
    row.text(&labels(row.at("template.metadata.labels")));
}

fn is_true(conditions: Ref<'_>, kind: &str) -> bool {
    condition(conditions, kind).get("status").str() == "True"
}

struct State<'a> {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Ref<'a>>,
}

/// Restarts and when the last of them was; RFC 3339 in UTC compares as text.
#[derive(Clone, Copy, Default)]
struct Restarts<'a> {
    count: i64,
    last: Option<Ref<'a>>,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: Ref<'a>) {
        self.count += number(status.get("restartCount"));
        let finished = status.at("lastState.terminated.finishedAt");
        if finished.str() > self.last.map_or("", Ref::str) {
            self.last = Some(finished);
        }
    }
}

/// Why a terminated container is, or its signal, or its exit code.
fn ended(terminated: Ref<'_>) -> String {
    let (reason, signal) = (terminated.get("reason").str(), number(terminated.get("signal")));
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", number(terminated.get("exitCode"))),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

impl<'a> State<'a> {
    fn of(object: &'a Object) -> State<'a> {
        let root = object.root();
        let (spec, status) = (root.get("spec"), root.get("status"));
        let conditions = status.get("conditions");
        let init = spec.get("initContainers");
        let is_sidecar = |container: Ref<'_>| container.get("restartPolicy").str() == "Always";
        let phase = status.get("phase").str();
        let mut reason = status.get("reason").str().to_owned();
        if reason.is_empty() {
            reason = phase.into();
        }
        let gated = |condition: Ref<'_>| {
            condition.get("type").str() == "PodScheduled" && condition.get("reason").str() == "SchedulingGated"
        };
        if conditions.items().any(gated) {
            reason = "SchedulingGated".into();
        }
        let total =
            spec.get("containers").items().count() + init.items().filter(|container| is_sidecar(*container)).count();
        let mut state = State { reason, ready: 0, total, restarts: 0, last_restart: None };

        let (mut all, mut sidecars, mut initializing) = (Restarts::default(), Restarts::default(), false);
        for (place, container) in status.get("initContainerStatuses").items().enumerate() {
            let name = container.get("name").str();
            let sidecar = init.items().any(|spec| spec.get("name").str() == name && is_sidecar(spec));
            all.add(container);
            if sidecar {
                sidecars.add(container);
            }
            let terminated = container.at("state.terminated");
            let waiting = container.at("state.waiting.reason").str();
            if terminated.exists() && number(terminated.get("exitCode")) == 0 {
                continue;
            }
            if sidecar && container.get("started").is_true() {
                state.ready += usize::from(container.get("ready").is_true());
                continue;
            }
            state.reason = if terminated.exists() {
                format!("Init:{}", ended(terminated))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{place}/{}", init.items().count())
            };
            initializing = true;
            break;
        }
        let mut restarts = all;
        if !initializing || is_true(conditions, "Initialized") {
            restarts = sidecars;
            state.main_containers(status, &mut restarts);
        }
        let deleting = object.is_deleting();
        if deleting && status.get("reason").str() == "NodeLost" {
            state.reason = "Unknown".into();
        } else if deleting && !matches!(phase, "Succeeded" | "Failed") {
            state.reason = "Terminating".into();
        }
        State { restarts: restarts.count, last_restart: restarts.last, ..state }
    }

    fn main_containers(&mut self, status: Ref<'a>, restarts: &mut Restarts<'a>) {
        let (mut running, mut error) = (false, String::new());
        let containers: Vec<_> = status.get("containerStatuses").items().collect();
        for container in containers.into_iter().rev() {
            restarts.add(container);
            let (waiting, terminated) = (container.at("state.waiting.reason").str(), container.at("state.terminated"));
            if !waiting.is_empty() {
                self.reason = waiting.into();
            } else if terminated.exists() {
                self.reason = ended(terminated);
                if number(terminated.get("exitCode")) != 0 {
                    error = self.reason.clone();
                }
            } else if container.get("ready").is_true() && container.at("state.running").exists() {
                running = true;
                self.ready += 1;
            }
        }
        // One container that is over does not make a pod with another one running "Completed".
        if self.reason == "Completed" {
            if running && is_true(status.get("conditions"), "Ready") {
                self.reason = "Running".into();
            } else if !error.is_empty() {
                self.reason = error;
            } else if running {
                self.reason = "NotReady".into();
            }
        }
    }
}
