//! What a pod asks for in all: containers, init containers, sidecars, overhead, pod-level amounts and, for a pod that
//! is being resized, what it holds meanwhile (component-helpers/resource/helpers.go).
use super::Amounts;
use mote_schema::Ref;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Requests,
    Limits,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Requests => "requests",
            Side::Limits => "limits",
        }
    }
}

/// What of a pod is looked at besides its containers' spec.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// A resize under way counts with the larger of what is wanted, allocated and in effect.
    pub status: bool,
    pub overhead: bool,
}

pub fn totals(pod: Ref<'_>, side: Side, counted: Counted) -> Amounts {
    let spec = pod.get("spec");
    let mut total = Amounts::default();
    for container in spec.get("containers").items() {
        total.add(&effective(pod, container, side, counted.status));
    }
    let (mut sidecars, mut starting) = (Amounts::default(), Amounts::default());
    for container in spec.get("initContainers").items() {
        let sidecar = container.get("restartPolicy").str() == "Always";
        let own = effective(pod, container, side, counted.status && sidecar);
        if sidecar {
            total.add(&own);
            sidecars.add(&own);
            starting.raise(&sidecars);
        } else {
            let mut sum = own;
            sum.add(&sidecars);
            starting.raise(&sum);
        }
    }
    total.raise(&starting);
    for (name, amount) in whole_pod(pod, side, counted.status).0 {
        total.set(name, amount);
    }
    if counted.overhead {
        let overhead = Amounts::of(spec.get("overhead"));
        // A pod without a limit gets none by its overhead.
        let limited = |name: &str| side == Side::Requests || total.get(name).is_some_and(|limit| !limit.is_zero());
        let overhead = overhead.only(limited);
        total.add(&overhead);
    }
    total
}

/// Amounts set for the pod as a whole replace the containers' sums.
fn whole_pod(pod: Ref<'_>, side: Side, with_status: bool) -> Amounts {
    let own = Amounts::of(pod.at("spec.resources").get(side.name())).only(is_pod_level);
    let status = pod.at("status.resources");
    if own.0.is_empty() || !with_status || !status.exists() {
        return own;
    }
    let state = larger(pod, own.clone(), status.get(side.name()), pod.at("status.allocatedResources"), side);
    state.only(|name| own.get(name).is_some())
}

fn effective(pod: Ref<'_>, container: Ref<'_>, side: Side, with_status: bool) -> Amounts {
    let spec = Amounts::of(container.get("resources").get(side.name()));
    if !with_status {
        return spec;
    }
    let name = container.get("name").str();
    let lists = ["containerStatuses", "initContainerStatuses"].into_iter();
    let mut statuses = lists.flat_map(|list| pod.get("status").get(list).items());
    match statuses.find(|status| status.get("name").str() == name && status.get("resources").exists()) {
        Some(status) => {
            larger(pod, spec, status.get("resources").get(side.name()), status.get("allocatedResources"), side)
        }
        None => spec,
    }
}

fn larger(pod: Ref<'_>, spec: Amounts, actual: Ref<'_>, allocated: Ref<'_>, side: Side) -> Amounts {
    let mut conditions = pod.at("status.conditions").items();
    let pending = conditions.find(|condition| condition.get("type").str() == "PodResizePending");
    let infeasible = pending.is_some_and(|condition| condition.get("reason").str() == "Infeasible");
    let mut state = if infeasible { Amounts::default() } else { spec };
    state.raise(&Amounts::of(actual));
    if side == Side::Requests {
        state.raise(&Amounts::of(allocated));
    }
    state
}

pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Any amount is set for the pod as a whole.
pub fn has_pod_level(pod: Ref<'_>) -> bool {
    let resources = pod.at("spec.resources");
    ["requests", "limits"].iter().any(|side| resources.get(side).entries().any(|(name, _)| is_pod_level(name)))
}
