//! What `status` makes of a pod's containers, in tables.
use super::*;
use crate::{fixture, images::failure, spec::Field as _, worker::Failed};
use mote_schema::{Value, json};

fn found(name: &str, state: State, exit_code: i32) -> state::Container {
    state::Container {
        id: format!("{name}-1"),
        sandbox: "s".into(),
        name: name.into(),
        state,
        created_at_ns: 1,
        started_at_ns: 2_000_000_000,
        finished_at_ns: 3_000_000_000,
        exit_code,
        reason: if exit_code == 0 { "Completed".into() } else { "Error".into() },
        message: String::new(),
        image: "x".into(),
        image_ref: "x@sha256:0".into(),
        ..state::Container::default()
    }
}

fn sandbox() -> state::Sandbox {
    state::Sandbox { id: "s".into(), attempt: 0, ready: true, created_at_ns: 1, ips: vec!["10.0.0.5".into()] }
}

struct Case {
    spec: Value,
    old: Value,
    found: Vec<state::Container>,
    sandbox: bool,
    waiting: HashMap<String, Failure>,
    ready: bool,
    ended: bool,
    failed: Option<Failed>,
}

fn case(spec: Value, found: Vec<state::Container>) -> Case {
    Case {
        spec,
        old: json!({}),
        found,
        sandbox: true,
        waiting: HashMap::new(),
        ready: true,
        ended: false,
        failed: None,
    }
}

fn run(case: &Case) -> PodStatus {
    let pod = fixture::pod_with(case.spec.clone(), case.old.clone());
    let state = PodState {
        uid: "uid-1".into(),
        sandboxes: if case.sandbox { vec![sandbox()] } else { Vec::new() },
        containers: case.found.clone(),
    };
    let inputs = Inputs {
        state: &state,
        waiting: &case.waiting,
        probed: &|_, _| (true, case.ready),
        host_ip: "192.0.2.1",
        runtime_name: "containerd",
        actuated: &Actuated::default(),
        resize: &Standing::default(),
        ended: case.ended,
        failed: case.failed.as_ref(),
        now: Timestamp::from_second(100).unwrap(),
    };
    build(&pod, &inputs)
}

/// phase, and the conditions as "Initialized Ready" with a minus where false.
fn summary(status: &PodStatus) -> (String, String) {
    let conditions = status.conditions.iter().flatten().map(|c| {
        let sign = if c.status == "True" { "" } else { "-" };
        let reason = c.reason.as_deref().map_or(String::new(), |r| format!("({r})"));
        format!("{sign}{}{reason}", c.type_)
    });
    (status.phase.clone().unwrap(), conditions.collect::<Vec<_>>().join(" "))
}

fn one(restart: &str) -> Value {
    json!({"restartPolicy": restart, "containers": [{"name": "a", "image": "x"}]})
}

#[test]
fn phases_and_conditions() {
    let check = |case: Case, phase: &str, conditions: &str| {
        let got = summary(&run(&case));
        assert_eq!((got.0.as_str(), got.1.as_str()), (phase, conditions), "{}", case.spec);
    };
    check(
        Case { sandbox: false, ..case(one("Always"), vec![]) },
        "Pending",
        "-PodReadyToStartContainers Initialized -Ready(ContainersNotReady) -ContainersReady(ContainersNotReady) PodScheduled",
    );
    let up = "PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled";
    check(case(one("Always"), vec![found("a", State::Running, 0)]), "Running", up);
    let unready = "PodReadyToStartContainers Initialized -Ready(ContainersNotReady) -ContainersReady(ContainersNotReady) PodScheduled";
    check(Case { ready: false, ..case(one("Always"), vec![found("a", State::Running, 0)]) }, "Running", unready);
    check(case(one("Always"), vec![found("a", State::Exited, 1)]), "Running", unready);
    check(case(one("OnFailure"), vec![found("a", State::Exited, 1)]), "Running", unready);
    check(
        case(one("Never"), vec![found("a", State::Exited, 1)]),
        "Failed",
        "PodReadyToStartContainers Initialized -Ready(PodFailed) -ContainersReady(PodFailed) PodScheduled",
    );
    check(
        case(one("Never"), vec![found("a", State::Exited, 0)]),
        "Succeeded",
        "PodReadyToStartContainers Initialized(PodCompleted) -Ready(PodCompleted) -ContainersReady(PodCompleted) PodScheduled",
    );
    check(
        Case { ended: true, ..case(one("Always"), vec![found("a", State::Exited, 0)]) },
        "Succeeded",
        "PodReadyToStartContainers Initialized(PodCompleted) -Ready(PodCompleted) -ContainersReady(PodCompleted) PodScheduled",
    );
    let init = json!({"initContainers": [{"name": "i", "image": "x"}], "containers": [{"name": "a", "image": "x"}]});
    check(
        case(init.clone(), vec![found("i", State::Running, 0)]),
        "Pending",
        "PodReadyToStartContainers -Initialized(ContainersNotInitialized) -Ready(ContainersNotReady) -ContainersReady(ContainersNotReady) PodScheduled",
    );
    check(case(init.clone(), vec![found("a", State::Running, 0), found("i", State::Exited, 0)]), "Running", up);
    let mut never = init;
    never["restartPolicy"] = json!("Never");
    check(
        case(never, vec![found("i", State::Exited, 3)]),
        "Failed",
        "PodReadyToStartContainers -Initialized(ContainersNotInitialized) -Ready(PodFailed) -ContainersReady(PodFailed) PodScheduled",
    );
}

#[test]
fn a_pod_that_was_never_taken_says_why_and_nothing_of_its_containers() {
    let failed = Failed::new("OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu");
    let mut refused = Case { sandbox: false, ended: true, failed: Some(failed), ..case(one("Always"), vec![]) };
    refused.old = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "True"}, {"type": "example.com/mine", "status": "True"}]});
    let status = run(&refused);
    let expected = |status: &PodStatus| {
        assert_eq!(summary(status), ("Failed".into(), "example.com/mine".into()));
        assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
        assert_eq!((&status.container_statuses, &status.host_ip), (&None, &None));
    };
    expected(&status);
    // And after the node has started anew, and does not remember.
    refused.failed = None;
    refused.old = json!({"phase": "Failed", "reason": "OutOfcpu", "conditions": [{"type": "example.com/mine", "status": "True"}]});
    expected(&run(&refused));
    // A pod that ran keeps what is known of its containers.
    refused.found = vec![found("a", State::Exited, 137)];
    assert!(run(&refused).container_statuses.is_some());
}

#[test]
fn crash_loop() {
    let mut c = case(one("Always"), vec![found("a", State::Exited, 7)]);
    c.waiting.insert("a".into(), failure("CrashLoopBackOff", "back-off 10s"));
    let status = run(&c);
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let state = container.state.clone().unwrap();
    assert_eq!(state.waiting.and_then(|w| w.reason).as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.clone().and_then(|s| s.terminated).unwrap();
    assert_eq!((last.exit_code, last.container_id.as_deref()), (7, Some("containerd://a-1")));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn restarted_container_remembers_its_last_end() {
    let mut new = found("a", State::Running, 0);
    new.id = "a-2".into();
    new.restart_count = 1;
    let status = run(&case(one("Always"), vec![new, found("a", State::Exited, 9)]));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.restart_count, 1);
    assert_eq!(container.last_state.clone().and_then(|s| s.terminated).map(|t| t.exit_code), Some(9));
}

#[test]
fn unchanged_input_gives_the_stored_status() {
    let mut c = case(one("Always"), vec![found("a", State::Running, 0)]);
    let first = run(&c);
    c.old = crate::spec::Field::write(&first).unwrap();
    assert_eq!(run(&c), first);
    assert_eq!(first.pod_ip.as_deref(), Some("10.0.0.5"));
    assert_eq!(first.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(first.observed_generation, Some(1));
}

#[test]
fn an_ended_pod_never_comes_back() {
    let mut c = case(one("Always"), vec![found("a", State::Running, 0)]);
    c.old = json!({"phase": "Failed", "reason": "Evicted"});
    let status = run(&c);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
}

#[test]
fn a_lost_container_is_shown_as_stopped() {
    let mut c = case(one("Always"), vec![]);
    c.old = json!({"phase": "Running", "containerStatuses": [{"name": "a", "image": "x", "imageID": "", "ready": true,
        "restartCount": 2, "state": {"running": {}}}]});
    let status = run(&c);
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.restart_count, 3);
    assert_eq!(container.last_state.clone().and_then(|s| s.terminated).map(|t| t.exit_code), Some(137));
    assert_eq!(status.phase.as_deref(), Some("Running"));
}

#[test]
fn all_containers_begin_again() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "x"}],
        "containers": [{"name": "a", "image": "x"},
            {"name": "b", "image": "x", "restartPolicy": "Never", "restartPolicyRules": rules}]});
    let condition = |status: &PodStatus| {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == "AllContainersRestarting");
        found.map(|c| (c.status.clone(), c.reason.clone().unwrap_or_default()))
    };
    let before = vec![
        found("i", State::Exited, 0),
        found("a", State::Running, 0),
        state::Container { exit_code: 42, ..found("b", State::Exited, 42) },
    ];
    let told = run(&case(spec.clone(), before));
    assert_eq!(condition(&told), Some(("True".into(), "RestartAllContainersStarted".into())));
    assert_eq!(told.phase.as_deref(), Some("Running"));
    // All are removed: they wait, and say why they ended.
    let old = told.write().unwrap();
    let removed = run(&Case { old, ..case(spec.clone(), vec![]) });
    assert_eq!(condition(&removed), Some(("False".into(), String::new())));
    let all = removed.init_container_statuses.iter().chain(&removed.container_statuses).flatten();
    for status in all {
        let waiting = status.state.as_ref().and_then(|s| s.waiting.as_ref()?.reason.clone());
        let ended = status.last_state.as_ref().and_then(|s| s.terminated.as_ref()?.reason.clone());
        assert_eq!((waiting.as_deref(), ended.as_deref()), (Some(RESTARTING), Some(RESTARTING)), "{}", status.name);
        assert_eq!(status.restart_count, 1);
    }
    assert_eq!(removed.phase.as_deref(), Some("Running"));
    let old = removed.write().unwrap();
    let again = run(&Case { old, ..case(spec, vec![found("i", State::Running, 0)]) });
    assert_eq!(again.init_container_statuses.as_ref().map(|l| l[0].restart_count), Some(1));
    assert_eq!(condition(&again), Some(("False".into(), String::new())));
}
