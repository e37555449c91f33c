//! Questions about a pod, asked the same way by every controller. Pure: read from the stored bytes.
use crate::amounts::{parse_time, remaining};
use jiff::Timestamp;
use mote_api::{Object, Ref};
use std::{cmp::Ordering, time::Duration};

pub fn phase(pod: &Object) -> &str {
    pod.root().at("status.phase").str()
}

pub fn node_name(pod: &Object) -> &str {
    pod.root().at("spec.nodeName").str()
}

pub fn is_finished(pod: &Object) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor on its way out.
pub fn is_active(pod: &Object) -> bool {
    !is_finished(pod) && !pod.is_deleting()
}

pub fn is_terminating(pod: &Object) -> bool {
    !is_finished(pod) && pod.is_deleting()
}

pub fn condition<'a>(pod: &'a Object, type_: &str) -> Ref<'a> {
    let mut conditions = pod.root().at("status.conditions").items();
    conditions.find(|c| c.get("type").str() == type_).unwrap_or(Ref::absent())
}

pub fn is_ready(pod: &Object) -> bool {
    condition(pod, "Ready").get("status").str() == "True"
}

fn ready_since(pod: &Object) -> Option<Timestamp> {
    is_ready(pod).then(|| parse_time(condition(pod, "Ready").get("lastTransitionTime"))).flatten()
}

/// Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Object, min_ready_seconds: i64, now: Timestamp) -> bool {
    is_ready(pod) && (min_ready_seconds == 0 || available_in(pod, min_ready_seconds, now) == Some(Duration::ZERO))
}

/// How long a ready pod still has to stay ready; None when it is not ready.
pub fn available_in(pod: &Object, min_ready_seconds: i64, now: Timestamp) -> Option<Duration> {
    let since = ready_since(pod)?;
    Some(remaining(since, Duration::from_secs(min_ready_seconds.max(0).unsigned_abs()), now).unwrap_or_default())
}

/// The earliest moment at which one of `pods` becomes available by time alone.
pub fn next_available(pods: &[Object], min_ready_seconds: i64, now: Timestamp) -> Option<Duration> {
    let waits = pods.iter().filter_map(|p| available_in(p, min_ready_seconds, now));
    waits.filter(|wait| !wait.is_zero()).min()
}

pub fn created(object: &Object) -> &str {
    object.meta().get("creationTimestamp").str()
}

fn restarts(pod: &Object) -> (i64, i64) {
    let most = |list: Ref<'_>, sidecars: bool| {
        let counts = list.items().filter(|s| !sidecars || is_sidecar(pod, s.get("name").str()));
        counts.filter_map(|s| s.get("restartCount").as_i64()).max().unwrap_or(0)
    };
    let status = pod.root().get("status");
    (most(status.get("containerStatuses"), false), most(status.get("initContainerStatuses"), true))
}

fn is_sidecar(pod: &Object, name: &str) -> bool {
    let mut containers = pod.root().at("spec.initContainers").items();
    containers.any(|c| c.get("name").str() == name && c.get("restartPolicy").str() == "Always")
}

/// Which pod is deleted first when a workload shrinks: `Less` goes first. `rank` is how many related pods share the
/// pod's node. Order as controller.ActivePodsWithRanks: unassigned, pending, not ready, lower deletion cost,
/// crowded nodes, ready for a shorter time (by order of magnitude), more restarts, younger.
pub fn deletion_order(a: (&Object, usize), b: (&Object, usize), now: Timestamp) -> Ordering {
    let ((a, rank_a), (b, rank_b)) = (a, b);
    let assigned = |p: &Object| !node_name(p).is_empty();
    let by_phase = |p: &Object| match phase(p) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = |p: &Object| {
        let text = p.meta().get("annotations").get("controller.kubernetes.io/pod-deletion-cost").str();
        text.parse::<i32>().unwrap_or(0)
    };
    let magnitude = |time: Option<Timestamp>| match time {
        Some(t) => (now.as_second().saturating_sub(t.as_second()).max(0) as u64 + 1).ilog2(),
        None => 0,
    };
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| by_phase(a).cmp(&by_phase(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| magnitude(ready_since(a)).cmp(&magnitude(ready_since(b))))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| {
            let age = |p: &Object| magnitude(parse_time(p.meta().get("creationTimestamp")));
            age(a).cmp(&age(b))
        })
        .then_with(|| a.uid().cmp(b.uid()))
}

/// Two sides of a pod that a watcher of its readiness, place or labels cannot tell apart.
pub fn same_for_endpoints(a: &Object, b: &Object) -> bool {
    let same = |path: &str| a.root().at(path).to_value() == b.root().at(path).to_value();
    is_ready(a) == is_ready(b)
        && a.is_deleting() == b.is_deleting()
        && phase(a) == phase(b)
        && same("metadata.labels")
        && same("status.podIPs")
        && same("spec.nodeName")
        && same("spec.hostname")
        && same("spec.subdomain")
}

/// The names of the claims that a pod's volumes refer to.
pub fn claims(pod: &Object) -> impl Iterator<Item = String> {
    pod.root().at("spec.volumes").items().filter_map(|volume| {
        let named = volume.at("persistentVolumeClaim.claimName").as_str().map(str::to_owned);
        let ephemeral = volume.get("ephemeral").exists();
        named.or_else(|| ephemeral.then(|| format!("{}-{}", pod.name(), volume.get("name").str())))
    })
}
