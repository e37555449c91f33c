//! What to do with a pod that should run, given what the runtime holds and what the probes found: the rules of
//! upstream's computePodActions (pkg/kubelet/kuberuntime/kuberuntime_manager.go). Pure.
use crate::spec::Container;
use crate::{
    labels,
    pod::{Pod, Role, is_sidecar, restarts_after},
    resize::Action,
    state::{Container as Found, PodState, State},
};

/// What is known of a running container: its probes' standing (None: no such probe, or no result yet) and what it takes to
/// give it the resources that it is allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    pub startup: Option<Standing>,
    pub liveness: Option<Standing>,
    pub resize: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Success,
    Failure,
}

/// Why a running container is killed: it decides which grace period counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    Other,
    Startup,
    Liveness,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
    pub reason: KillReason,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Stop everything, the sandbox too.
    pub kill_pod: bool,
    pub create_sandbox: bool,
    pub attempt: u32,
    pub kill: Vec<Kill>,
    /// Names, in the order in which they start.
    pub start: Vec<(Role, String)>,
    /// Names of those that get other resources while they run; the pod's group has to follow.
    pub resize: Vec<String>,
    pub resize_pod: bool,
}

/// Whether the newest container of that name has to be started (again).
pub fn should_start(container: &Container, pod: &Pod, found: Option<&Found>) -> bool {
    if pod.deletion.is_some() {
        return false;
    }
    match found {
        None => true,
        Some(f) => match f.state {
            State::Running => false,
            State::Created | State::Unknown => true,
            State::Exited => restarts_after(container, pod, f.exit_code),
        },
    }
}

pub fn plan(pod: &Pod, state: &PodState, probed: &dyn Fn(&Found) -> Probed) -> Actions {
    let (new_sandbox, attempt) = state.sandbox_changed(pod.is_host_network());
    let mut actions = Actions { kill_pod: new_sandbox, create_sandbox: new_sandbox, attempt, ..Default::default() };
    if new_sandbox {
        fresh(pod, state, &mut actions);
        return actions;
    }
    for (container, _) in &pod.ephemeral {
        if state.latest(&container.name).is_none() {
            actions.start.push((Role::Ephemeral, container.name.clone()));
        }
    }
    if !init(pod, state, probed, &mut actions) || actions.kill_pod {
        return actions;
    }
    let mut kept = 0;
    let mut started = 0;
    for container in &pod.spec.containers {
        let found = state.latest(&container.name);
        let Some(running) = found.filter(|f| f.state == State::Running) else {
            if should_start(container, pod, found) {
                started += 1;
                actions.start.push((Role::Main, container.name.clone()));
                if let Some(unknown) = found.filter(|f| f.state == State::Unknown) {
                    actions.kill.push(kill_unknown("Container", unknown));
                }
            }
            continue;
        };
        let policy = container.restart_policy.as_deref().unwrap_or(pod.restart_policy());
        let known = probed(running);
        let Some((message, reason)) = unfit("Container", container, running, known) else {
            kept += 1;
            if resized(container, running, known, &mut actions) {
                actions.start.push((Role::Main, container.name.clone()));
            }
            continue;
        };
        let restart = policy != "Never" || reason == KillReason::Other;
        let message = if restart { format!("{message}, will be restarted") } else { message };
        if restart {
            started += 1;
            actions.start.push((Role::Main, container.name.clone()));
        }
        actions.kill.push(Kill { id: running.id.clone(), name: container.name.clone(), message, reason });
    }
    if kept == 0 && started == 0 {
        actions.kill_pod = true;
        // Sidecars must not keep a pod alive whose work is done.
        actions.start.retain(|(role, _)| *role != Role::Init);
    }
    actions
}

/// A pod without a usable sandbox: everything starts from the beginning, unless its work is done.
fn fresh(pod: &Pod, state: &PodState, actions: &mut Actions) {
    let never = pod.restart_policy() == "Never";
    if never && actions.attempt != 0 && !state.containers.is_empty() {
        actions.create_sandbox = false;
        return;
    }
    let succeeded = |c: &Container| state.latest(&c.name).is_some_and(|f| f.state == State::Exited && f.exit_code == 0);
    let start = pod.spec.containers.iter().filter(|c| {
        let policy = c.restart_policy.as_deref().unwrap_or(pod.restart_policy());
        policy != "OnFailure" || !succeeded(c)
    });
    let start: Vec<_> = start.map(|c| (Role::Main, c.name.clone())).collect();
    let initialized = pod.spec.containers.iter().any(|c| state.latest(&c.name).is_some());
    if start.is_empty() && initialized {
        actions.create_sandbox = false;
        return;
    }
    actions.start = match pod.init_containers().first() {
        Some(first) => vec![(Role::Init, first.name.clone())],
        None => start,
    };
}

/// Fills in what init containers need; true once the pod is initialized.
fn init(pod: &Pod, state: &PodState, probed: &dyn Fn(&Found) -> Probed, actions: &mut Actions) -> bool {
    let containers = pod.init_containers();
    let Some(last) = containers.len().checked_sub(1) else { return true };
    let mut initialized = pod
        .spec
        .containers
        .iter()
        .any(|c| state.latest(&c.name).is_some_and(|f| matches!(f.state, State::Created | State::Running)));
    let mut before = initialized;
    // From the last to the first, collected backwards and turned round at the end.
    let mut start: Vec<usize> = Vec::new();
    for (i, container) in containers.iter().enumerate().rev() {
        let sidecar = is_sidecar(container);
        let Some(found) = state.latest(&container.name) else {
            if before && sidecar {
                start.push(i);
            }
            continue;
        };
        if before && !sidecar {
            continue;
        }
        match found.state {
            State::Created => start.push(i),
            State::Running if !sidecar => {}
            State::Running => {
                let results = probed(found);
                let startup_open = container.startup_probe.is_some() && results.startup != Some(Standing::Success);
                if startup_open {
                    if results.startup == Some(Standing::Failure) {
                        let message = format!("Init container {} failed startup probe", container.name);
                        actions.kill.push(kill(found, message, KillReason::Startup));
                        start.push(i);
                    }
                } else {
                    if i == last {
                        initialized = true;
                    } else if !before {
                        start.push(i + 1);
                    }
                    if let Some((message, reason)) = unfit("Init container", container, found, results) {
                        actions.kill.push(kill(found, message, reason));
                        start.push(i);
                    } else if resized(container, found, results, actions) {
                        start.push(i);
                    }
                }
            }
            State::Exited if sidecar => start.push(i),
            State::Exited if found.exit_code == 0 => {
                if i == last {
                    initialized = true;
                } else {
                    start.push(i + 1);
                }
            }
            State::Exited | State::Unknown => {
                if !sidecar && !should_start(container, pod, Some(found)) {
                    actions.kill_pod = true;
                    actions.start.clear();
                    return false;
                }
                if found.state == State::Unknown {
                    actions.kill.push(kill_unknown("Init container", found));
                }
                start.push(i);
            }
        }
        before = true;
    }
    if !before {
        start.push(0);
    }
    let names = start.into_iter().rev().map(|i| (Role::Init, containers[i].name.clone()));
    actions.start.extend(names);
    initialized
}

/// Notes what a running container's new resources take; true if that is another start.
fn resized(container: &Container, found: &Found, known: Probed, actions: &mut Actions) -> bool {
    match known.resize {
        Action::Nothing => return false,
        Action::Update => actions.resize.push(container.name.clone()),
        Action::Restart => {
            let message = format!("Container {} resize requires restart", container.name);
            actions.kill.push(kill(found, message, KillReason::Other));
        }
    }
    actions.resize_pod = true;
    known.resize == Action::Restart
}

/// Why a running container may not go on, if so.
fn unfit(what: &str, container: &Container, found: &Found, probed: Probed) -> Option<(String, KillReason)> {
    let name = &container.name;
    if found.hash.is_some_and(|h| h != labels::hash(container)) {
        return Some((format!("{what} {name} definition changed"), KillReason::Other));
    }
    if probed.liveness == Some(Standing::Failure) {
        return Some((format!("{what} {name} failed liveness probe"), KillReason::Liveness));
    }
    if probed.startup == Some(Standing::Failure) {
        return Some((format!("{what} {name} failed startup probe"), KillReason::Startup));
    }
    None
}

fn kill(found: &Found, message: String, reason: KillReason) -> Kill {
    Kill { id: found.id.clone(), name: found.name.clone(), message, reason }
}

fn kill_unknown(what: &str, found: &Found) -> Kill {
    kill(found, format!("{what} is in \"unknown\" state, try killing it before restart"), KillReason::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, state::Sandbox};
    use mote_schema::{Value, json};

    fn found(name: &str, state: State, exit_code: i32) -> Found {
        Found {
            id: format!("{name}-id"),
            sandbox: "s".into(),
            name: name.into(),
            state,
            created_at_ns: 1,
            started_at_ns: 2,
            finished_at_ns: 3,
            exit_code,
            ..Found::default()
        }
    }

    /// What is done, in one line: "kill-pod sandbox#1 kill:a start:b".
    fn summary(spec: &Value, sandbox: Option<bool>, containers: Vec<Found>, probed: Probed) -> String {
        let pod = fixture::pod(spec.clone());
        let sandboxes = sandbox.map(|ready| Sandbox {
            id: "s".into(),
            attempt: 0,
            ready,
            created_at_ns: 1,
            ips: if ready { vec!["10.0.0.1".into()] } else { Vec::new() },
        });
        let state = PodState { uid: "uid-1".into(), sandboxes: sandboxes.into_iter().collect(), containers };
        let actions = plan(&pod, &state, &|_| probed);
        let mut parts = Vec::new();
        if actions.kill_pod {
            parts.push("kill-pod".to_owned());
        }
        if actions.create_sandbox {
            parts.push(format!("sandbox#{}", actions.attempt));
        }
        parts.extend(actions.kill.iter().map(|k| format!("kill:{}({})", k.name, k.message)));
        parts.extend(actions.resize.iter().map(|n| format!("resize:{n}")));
        parts.extend(actions.start.iter().map(|(_, n)| format!("start:{n}")));
        parts.join(" ")
    }

    #[test]
    fn one_container() {
        let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "x"}]});
        let check = |policy: &str, sandbox, containers: Vec<Found>, want: &str| {
            assert_eq!(summary(&spec(policy), sandbox, containers, Probed::default()), want, "{policy}");
        };
        check("Always", None, vec![], "kill-pod sandbox#0 start:a");
        check("Always", Some(true), vec![], "start:a");
        check("Always", Some(true), vec![found("a", State::Running, 0)], "");
        check("Always", Some(true), vec![found("a", State::Exited, 0)], "start:a");
        check("Always", Some(true), vec![found("a", State::Created, 0)], "start:a");
        check("OnFailure", Some(true), vec![found("a", State::Exited, 1)], "start:a");
        check("OnFailure", Some(true), vec![found("a", State::Exited, 0)], "kill-pod");
        check("Never", Some(true), vec![found("a", State::Exited, 1)], "kill-pod");
        check("Always", Some(false), vec![found("a", State::Exited, 1)], "kill-pod sandbox#1 start:a");
        check("Never", Some(false), vec![found("a", State::Exited, 1)], "kill-pod");
        check("OnFailure", Some(false), vec![found("a", State::Exited, 0)], "kill-pod");
    }

    #[test]
    fn probes_and_changes() {
        let spec = json!({"containers": [{"name": "a", "image": "x"}]});
        let check =
            |found: Found, probed, want: &str| assert_eq!(summary(&spec, Some(true), vec![found], probed), want);
        let failed = Some(Standing::Failure);
        check(
            found("a", State::Running, 0),
            Probed { liveness: failed, ..Probed::default() },
            "kill:a(Container a failed liveness probe, will be restarted) start:a",
        );
        check(
            found("a", State::Running, 0),
            Probed { startup: failed, ..Probed::default() },
            "kill:a(Container a failed startup probe, will be restarted) start:a",
        );
        check(
            Found { hash: Some(1), ..found("a", State::Running, 0) },
            Probed::default(),
            "kill:a(Container a definition changed, will be restarted) start:a",
        );
    }

    #[test]
    fn resizing() {
        let spec = json!({"containers": [{"name": "a", "image": "x"}]});
        for (resize, want) in [
            (Action::Nothing, ""),
            (Action::Update, "resize:a"),
            (Action::Restart, "kill:a(Container a resize requires restart) start:a"),
        ] {
            let probed = Probed { resize, ..Probed::default() };
            assert_eq!(summary(&spec, Some(true), vec![found("a", State::Running, 0)], probed), want);
        }
    }

    #[test]
    fn init_containers() {
        let spec = json!({"initContainers": [{"name": "i", "image": "x"}, {"name": "j", "image": "x"}],
            "containers": [{"name": "a", "image": "x"}]});
        let check = |containers: Vec<Found>, want: &str| {
            assert_eq!(summary(&spec, Some(true), containers, Probed::default()), want);
        };
        check(vec![], "start:i");
        check(vec![found("i", State::Running, 0)], "");
        check(vec![found("i", State::Exited, 0)], "start:j");
        check(vec![found("i", State::Exited, 1)], "start:i");
        check(vec![found("j", State::Exited, 0), found("i", State::Exited, 0)], "start:a");
        check(vec![found("a", State::Running, 0), found("j", State::Exited, 0)], "");
        let mut never = spec.clone();
        never["restartPolicy"] = json!("Never");
        assert_eq!(summary(&never, Some(true), vec![found("i", State::Exited, 1)], Probed::default()), "kill-pod");
    }

    #[test]
    fn sidecars() {
        let spec = json!({"initContainers": [
                {"name": "s", "image": "x", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}},
                {"name": "i", "image": "x"}],
            "containers": [{"name": "a", "image": "x"}]});
        let check = |containers: Vec<Found>, startup, want: &str| {
            assert_eq!(summary(&spec, Some(true), containers, Probed { startup, ..Probed::default() }), want);
        };
        check(vec![found("s", State::Running, 0)], None, "");
        check(vec![found("s", State::Running, 0)], Some(Standing::Success), "start:i");
        check(vec![found("i", State::Exited, 0), found("s", State::Running, 0)], Some(Standing::Success), "start:a");
        check(
            vec![found("a", State::Running, 0), found("i", State::Exited, 0), found("s", State::Exited, 1)],
            None,
            "start:s",
        );
    }
}
