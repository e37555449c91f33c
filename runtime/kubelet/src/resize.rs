//! Resizing a pod in place: what it has been allocated, what its containers run with, and what is to be done about the
//! difference. Pure. Who may have what is `admit`'s, the doing is `worker/resizing`'s.
//!
//! A pod's spec says what is wanted. What fits is *allocated*, and everything in this crate then works with a spec that
//! says what is allocated. What a container was started or last updated with is *actuated*, and what the status calls its
//! resources: from there both are found again after a restart (pkg/kubelet/allocation keeps a file for that).
use crate::{
    pod::Pod,
    resources,
    spec::{Container, ContainerStatus, Quantity, ResourceRequirements},
    state::{Container as Found, PodState, State},
};
use mote_schema::Gather as _;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    time::Instant,
};

/// The two resources that may change under a running container.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// A container's resources by its name; the pod's own under "".
#[derive(Clone, Debug, Default)]
pub struct Allocation(BTreeMap<String, Option<ResourceRequirements>>);

impl Allocation {
    pub fn of(pod: &Pod) -> Allocation {
        let each = resizable(pod).map(|c| (c.name.clone(), c.resources.clone()));
        Allocation(each.chain([(String::new(), pod.spec.resources.clone())]).gather())
    }

    /// What the pod's status shows that it had: of a kubelet before this one.
    pub fn reported(pod: &Pod) -> Allocation {
        let mut allocation = Allocation::of(pod);
        for status in statuses(pod) {
            if let (Some(own), Some(reported)) = (allocation.0.get_mut(&status.name), &status.resources) {
                *own = Some(reported.clone());
            }
        }
        if let (Some(own), Some(reported)) = (allocation.0.get_mut(""), &pod.status.resources) {
            *own = Some(reported.clone());
        }
        allocation
    }

    /// Makes the pod's spec say what is allocated.
    pub fn apply(&self, pod: &mut Pod) {
        let spec = &mut pod.spec;
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(own) = self.0.get(&container.name) {
                container.resources = own.clone();
            }
        }
        if let Some(own) = self.0.get("") {
            spec.resources = own.clone();
        }
    }

    /// The same amounts, however they are written.
    pub fn is(&self, other: &Allocation) -> bool {
        let amounts = |allocation: &Allocation| -> Vec<(String, Sizes)> {
            allocation.0.iter().map(|(name, own)| (name.clone(), Sizes::of(own))).gather()
        };
        amounts(self) == amounts(other)
    }
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.init_containers().iter().chain(&pod.spec.containers)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let init = pod.status.init_container_statuses.iter().flatten();
    init.chain(pod.status.container_statuses.iter().flatten())
}

/// Request and limit of each resizable resource: thousandths of a CPU, bytes; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes([(i64, i64); 2]);

impl Sizes {
    pub fn of(own: &Option<ResourceRequirements>) -> Sizes {
        Sizes(RESIZABLE.map(|name| resources::request_and_limit(own, name)))
    }
}

/// What each container of one pod runs with, by container id.
#[derive(Clone, Debug, Default)]
pub struct Actuated(HashMap<String, Option<ResourceRequirements>>);

impl Actuated {
    pub fn set(&mut self, id: &str, container: &Container) {
        self.0.insert(id.into(), container.resources.clone());
    }

    /// Knows the containers that run, and no others: one that an earlier kubelet started runs with what it reported.
    pub fn follow(&mut self, pod: &Pod, state: &PodState) {
        self.0.retain(|id, _| state.containers.iter().any(|found| found.id == *id));
        for found in state.containers.iter().filter(|found| found.state == State::Running) {
            let Some(container) = resizable(pod).find(|c| c.name == found.name) else { continue };
            self.0.entry(found.id.clone()).or_insert_with(|| {
                let suffix = format!("//{}", found.id);
                let own = |s: &&ContainerStatus| s.container_id.as_deref().is_some_and(|id| id.ends_with(&suffix));
                let reported = statuses(pod).find(own).and_then(|status| status.resources.clone());
                reported.or_else(|| container.resources.clone())
            });
        }
    }

    /// What the status calls a container's resources: CPU and memory as they are, the rest as allocated.
    pub fn reported(&self, id: &str, container: &Container) -> Option<ResourceRequirements> {
        let mut reported = container.resources.clone()?;
        let Some(Some(actual)) = self.0.get(id) else { return Some(reported) };
        for (list, actual) in
            [(&mut reported.limits, actual.limits.as_ref()), (&mut reported.requests, actual.requests.as_ref())]
        {
            for (name, amount) in list.iter_mut().flatten() {
                let found: Option<&Quantity> = actual.and_then(|a| a.get(name));
                if let Some(found) = found.filter(|_| RESIZABLE.contains(&name.as_str())) {
                    *amount = found.clone();
                }
            }
        }
        Some(reported)
    }
}

/// What has to happen to a running container so that it has what it is allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Nothing,
    Update,
    Restart,
}

pub fn action(container: &Container, found: &Found, actuated: &Actuated) -> Action {
    let Some(actual) = actuated.0.get(&found.id).filter(|_| found.state == State::Running) else {
        return Action::Nothing;
    };
    let (wanted, actual) = (Sizes::of(&container.resources), Sizes::of(actual));
    if wanted == actual {
        return Action::Nothing;
    }
    let restarts = RESIZABLE.iter().zip(wanted.0.iter().zip(&actual.0)).any(|(name, (wanted, actual))| {
        let mut policies = container.resize_policy.iter().flatten();
        wanted != actual && policies.any(|p| p.resource_name == *name && p.restart_policy == "RestartContainer")
    });
    if restarts { Action::Restart } else { Action::Update }
}

/// Some container runs with something else than it is allocated.
pub fn in_progress(pod: &Pod, state: &PodState, actuated: &Actuated) -> bool {
    resizable(pod).any(|container| {
        let found = state.latest(&container.name);
        found.is_some_and(|found| action(container, found, actuated) != Action::Nothing)
    })
}

/// How the resizing of a pod stands: what its two conditions say. Generations are of the spec that asked for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Why what is wanted is not allocated.
    pub pending: Option<(String, Option<i64>)>,
    pub pending_since: Option<Instant>,
    /// What is allocated is not actuated yet, with the error of the last attempt.
    pub progress: Option<(String, Option<i64>)>,
}

/// Whose resize that waits for room is tried first is least: of high priority, Guaranteed, long waiting (sortPendingResizes
/// of pkg/kubelet/allocation).
pub fn turn(pod: &Pod, standing: &Standing) -> (Reverse<i64>, bool, Option<Instant>) {
    let priority = pod.object.root().at("spec.priority").as_i64().unwrap_or(0);
    (Reverse(priority), resources::qos_class(pod) != "Guaranteed", standing.pending_since)
}

/// The resources and the generation behind an event, as upstream's events say it (pkg/kubelet/events/resize.go).
pub fn described(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    use crate::spec::Field as _;
    let quoted = |text: &str| mote_schema::Value::from(text).to_string();
    let list = |name: &str, containers: &[Container]| {
        let each = containers.iter().map(|c| {
            let own = c.resources.write().unwrap_or_else(|| mote_schema::json!({}));
            format!("{{\"name\":{},\"resources\":{own}}}", quoted(&c.name))
        });
        let each: Vec<String> = each.collect();
        if each.is_empty() { String::new() } else { format!("\"{name}\":[{}],", each.join(",")) }
    };
    let error = if error.is_empty() { String::new() } else { format!(",\"error\":{}", quoted(error)) };
    format!(
        "Pod resize {what}: {{{}{}\"generation\":{}{error}}}",
        list("initContainers", pod.init_containers()),
        list("containers", &pod.spec.containers),
        generation.unwrap_or(0)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use mote_schema::{Value, json};

    fn pod(resources: Value, policy: &str) -> Pod {
        let policy = json!([{"resourceName": "memory", "restartPolicy": policy}]);
        fixture::pod(
            json!({"containers": [{"name": "c", "image": "x", "resources": resources, "resizePolicy": policy}]}),
        )
    }

    fn running(id: &str) -> Found {
        Found { id: id.into(), name: "c".into(), state: State::Running, ..Found::default() }
    }

    fn sizes(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": memory}})
    }

    #[test]
    fn what_a_change_takes() {
        for (before, after, policy, want) in [
            (sizes("1", "1Gi"), sizes("1000m", "1024Mi"), "NotRequired", Action::Nothing),
            (sizes("1", "1Gi"), sizes("2", "1Gi"), "NotRequired", Action::Update),
            (sizes("1", "1Gi"), sizes("2", "1Gi"), "RestartContainer", Action::Update),
            (sizes("1", "1Gi"), sizes("1", "2Gi"), "RestartContainer", Action::Restart),
            (json!({}), json!({"limits": {"cpu": "1"}}), "NotRequired", Action::Update),
        ] {
            let mut actuated = Actuated::default();
            actuated.set("id", &pod(before, policy).spec.containers[0]);
            let pod = pod(after.clone(), policy);
            assert_eq!(action(&pod.spec.containers[0], &running("id"), &actuated), want, "{after}");
            let state = PodState { containers: vec![running("id")], ..PodState::default() };
            assert_eq!(in_progress(&pod, &state, &actuated), want != Action::Nothing);
        }
    }

    #[test]
    fn an_allocation_stays_until_another_is_made() {
        let before = Allocation::of(&pod(sizes("1", "1Gi"), "NotRequired"));
        let mut wanted = pod(sizes("9", "1Gi"), "NotRequired");
        assert!(!before.is(&Allocation::of(&wanted)));
        before.apply(&mut wanted);
        assert!(before.is(&Allocation::of(&wanted)));
    }

    #[test]
    fn a_restarted_kubelet_takes_the_status_for_what_is() {
        let spec = json!({"containers": [{"name": "c", "image": "x", "resources": sizes("2", "1Gi")}]});
        let status = json!({"containerStatuses": [{"name": "c", "containerID": "containerd://id",
            "resources": sizes("1", "1Gi")}]});
        let pod = fixture::pod_with(spec, status);
        let state = PodState { containers: vec![running("id"), running("new")], ..PodState::default() };
        let mut actuated = Actuated::default();
        actuated.follow(&pod, &state);
        let container = &pod.spec.containers[0];
        assert_eq!(action(container, &running("id"), &actuated), Action::Update);
        assert_eq!(action(container, &running("new"), &actuated), Action::Nothing);
        let shown = actuated.reported("id", container).and_then(|r| r.requests).unwrap_or_default();
        assert_eq!(shown.get("cpu").map(|q| q.0.as_str()), Some("1"));
        assert!(!Allocation::reported(&pod).is(&Allocation::of(&pod)));
    }

    #[test]
    fn who_is_tried_first() {
        let long_ago = Instant::now();
        let guaranteed = || pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "NotRequired");
        let turn = |pod: &Pod, since| turn(pod, &Standing { pending_since: Some(since), ..Standing::default() });
        let later = long_ago + std::time::Duration::from_secs(1);
        let burstable = pod(sizes("1", "1Gi"), "NotRequired");
        assert!(turn(&guaranteed(), later) < turn(&burstable, long_ago));
        assert!(turn(&burstable, long_ago) < turn(&burstable, later));
        let kind = burstable.object.kind.clone();
        let doc = mote_schema::Doc::encode(&json!({"spec": {"priority": 7}})).unwrap();
        let urgent = Pod { object: mote_schema::Object { kind, doc, revision: 1 }, ..burstable };
        assert!(turn(&urgent, later) < turn(&guaranteed(), long_ago));
    }

    #[test]
    fn events_name_the_resources() {
        let pod = pod(sizes("1", "1Gi"), "NotRequired");
        let said = described("error", &pod, Some(3), "no");
        let want = "Pod resize error: {\"containers\":[{\"name\":\"c\",\"resources\":{\"requests\":{\"cpu\":\"1\",\"memory\":\"1Gi\"}}}],\
            \"generation\":3,\"error\":\"no\"}";
        assert_eq!(said, want);
    }
}
