//! Requests and limits as numbers: quantities, QoS class, and what the kernel is told (CPU shares and quota, memory
//! limit, OOM score). Pure. Rules and constants: upstream's pkg/kubelet/cm/helpers_linux.go and pkg/kubelet/qos.
use crate::node::Swap;
use crate::pod::{Pod, is_sidecar};
use crate::spec::{Container, Quantity, ResourceRequirements};
use mote_cri::v1::{HugepageLimit, LinuxContainerResources};
use mote_schema::Gather as _;
use std::collections::{BTreeMap, BTreeSet};

pub const MIN_SHARES: i64 = 2;
pub const MAX_SHARES: i64 = 262_144;
const QUOTA_PERIOD_US: i64 = 100_000;
const MIN_QUOTA_US: i64 = 1000;
const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;

pub type List = BTreeMap<String, Quantity>;

/// A quantity in thousandths, rounded up; None when it is none.
pub fn milli(text: &str) -> Option<i64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (mul, div): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs().min(18))?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    let negative = number.starts_with('-');
    let number = number.trim_start_matches(['+', '-']);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 20 || fraction.len() > 12 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10i128.pow(fraction.len() as u32) * div;
    let scaled = digits.checked_mul(mul)?.checked_mul(1000)?;
    let value = (scaled + scale - 1) / scale;
    i64::try_from(if negative { -value } else { value }).ok().or(Some(i64::MAX))
}

/// A quantity in units, rounded up.
pub fn value(text: &str) -> Option<i64> {
    milli(text).map(|m| if m == i64::MAX { m } else { m.div_euclid(1000) + i64::from(m.rem_euclid(1000) != 0) })
}

fn find<'a>(list: &'a Option<List>, name: &str) -> Option<&'a str> {
    list.as_ref()?.get(name).map(|q| q.0.as_str())
}

fn request<'a>(r: &'a Option<ResourceRequirements>, name: &str) -> Option<&'a str> {
    r.as_ref().and_then(|r| find(&r.requests, name))
}

fn limit<'a>(r: &'a Option<ResourceRequirements>, name: &str) -> Option<&'a str> {
    r.as_ref().and_then(|r| find(&r.limits, name))
}

/// As the scheduler counts: CPU in thousandths, memory in bytes, all else in units; absent is 0.
pub fn number(name: &str, text: Option<&str>) -> i64 {
    let parse = if name == "cpu" { milli } else { value };
    text.and_then(parse).unwrap_or(0)
}

/// Of a container's or a pod's own resources; absent is 0.
pub fn request_and_limit(own: &Option<ResourceRequirements>, name: &str) -> (i64, i64) {
    (number(name, request(own, name)), number(name, limit(own, name)))
}

/// In bytes; 0 is none.
pub fn memory_limit(container: &Container) -> i64 {
    number("memory", limit(&container.resources, "memory"))
}

/// "Guaranteed", "Burstable" or "BestEffort" (pkg/apis/core/v1/helper/qos/qos.go).
pub fn qos_class(pod: &Pod) -> &'static str {
    const NAMES: [&str; 2] = ["cpu", "memory"];
    let mut any = false;
    let mut guaranteed = true;
    let pod_level = pod.spec.resources.is_some();
    let all: Vec<&Option<ResourceRequirements>> = if pod_level {
        vec![&pod.spec.resources]
    } else {
        pod.init_containers().iter().chain(&pod.spec.containers).map(|c| &c.resources).collect()
    };
    for resources in all {
        for name in NAMES {
            let requested = number(name, request(resources, name));
            let limited = number(name, limit(resources, name));
            any |= requested > 0 || limited > 0;
            // A request that is not given is its limit.
            guaranteed &= limited > 0 && (requested == limited || request(resources, name).is_none());
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

pub fn cpu_shares(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn cpu_quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu.saturating_mul(QUOTA_PERIOD_US) / 1000).max(MIN_QUOTA_US) }
}

/// `page_sizes` are the node's hugepage sizes as cgroups name them ("2MB").
pub fn of_container(pod: &Pod, container: &Container, memory_capacity: i64) -> LinuxContainerResources {
    let limit_of = |name| match number(name, limit(&container.resources, name)) {
        0 => number(name, limit(&pod.spec.resources, name)),
        set => set,
    };
    let cpu_limit = limit_of("cpu");
    let cpu_request = match request(&container.resources, "cpu") {
        Some(text) => number("cpu", Some(text)),
        None => cpu_limit,
    };
    LinuxContainerResources {
        cpu_period: QUOTA_PERIOD_US,
        cpu_quota: cpu_quota(cpu_limit),
        cpu_shares: cpu_shares(cpu_request),
        memory_limit_in_bytes: limit_of("memory"),
        oom_score_adj: oom_score_adj(pod, container, memory_capacity),
        hugepage_limits: hugepages(container),
        ..Default::default()
    }
}

/// Upstream's NoSwap, its default (kuberuntime_container_linux.go): v1 counts memory and swap together.
pub fn without_swap(mut resources: LinuxContainerResources, swap: Swap) -> LinuxContainerResources {
    match swap {
        Swap::Unbounded => {}
        Swap::V1 => resources.memory_swap_limit_in_bytes = resources.memory_limit_in_bytes,
        Swap::V2 => drop(resources.unified.insert("memory.swap.max".into(), "0".into())),
    }
    resources
}

fn hugepages(container: &Container) -> Vec<HugepageLimit> {
    let limits = container.resources.iter().filter_map(|r| r.limits.as_ref()).flatten();
    let sized = limits.filter_map(|(name, quantity)| {
        let bytes = value(name.strip_prefix("hugepages-")?)?;
        Some(HugepageLimit { page_size: hugepage_name(bytes), limit: value(&quantity.0)?.max(0) as u64 })
    });
    sized.gather()
}

/// "2MB", "1GB": how the hugetlb cgroup names a size.
pub fn hugepage_name(bytes: i64) -> String {
    let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let found = units.iter().find(|(size, _)| bytes >= *size && bytes % size == 0);
    found.map_or_else(|| format!("{bytes}B"), |(size, unit)| format!("{}{unit}", bytes / size))
}

fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    const NODE_CRITICAL: &str = "system-node-critical";
    if pod.spec.priority_class_name.as_deref() == Some(NODE_CRITICAL) {
        return GUARANTEED_OOM_SCORE;
    }
    match qos_class(pod) {
        "Guaranteed" => return GUARANTEED_OOM_SCORE,
        "BestEffort" => return BEST_EFFORT_OOM_SCORE,
        _ => {}
    }
    // What the pod asks for beyond its containers is shared by them.
    let of_pod = number("memory", request(&pod.spec.resources, "memory"));
    let count = pod.init_containers().len() + pod.spec.containers.len();
    let rest = of_pod.saturating_sub(aggregate(pod, "memory", requested)).max(0);
    let share = rest / i64::try_from(count.max(1)).unwrap_or(1);
    let by_request = |c: &Container| {
        let bytes = i128::from(number("memory", request(&c.resources, "memory"))) + i128::from(share);
        1000 - (1000 * bytes / i128::from(memory_capacity.max(1))) as i64
    };
    let mut score = by_request(container);
    if is_sidecar(container) && pod.init_containers().iter().any(|c| c.name == container.name) {
        // A sidecar outlives the containers it serves: never the first to go.
        score = pod.spec.containers.iter().map(by_request).max().map_or(score, |least| score.min(least));
    }
    if score < 1000 + GUARANTEED_OOM_SCORE {
        return 1000 + GUARANTEED_OOM_SCORE;
    }
    score.min(BEST_EFFORT_OOM_SCORE - 1)
}

/// What the pod's own cgroup is given; None: not limited.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodCgroup {
    pub cpu_shares: i64,
    pub cpu_quota_us: Option<i64>,
    pub memory_limit_bytes: Option<i64>,
}

impl PodCgroup {
    /// What holds both of them: no limit of one is no limit.
    pub fn or_more(&self, other: &PodCgroup) -> PodCgroup {
        let larger = |one: Option<i64>, other: Option<i64>| one.zip(other).map(|(one, other)| one.max(other));
        PodCgroup {
            cpu_shares: self.cpu_shares,
            cpu_quota_us: larger(self.cpu_quota_us, other.cpu_quota_us),
            memory_limit_bytes: larger(self.memory_limit_bytes, other.memory_limit_bytes),
        }
    }
}

pub const CPU_PERIOD_US: i64 = QUOTA_PERIOD_US;

fn total(pod: &Pod, name: &str, of: fn(&Option<ResourceRequirements>, &str) -> i64) -> i64 {
    if let Some(pod_level) = Some(of(&pod.spec.resources, name)).filter(|n| *n > 0) {
        return pod_level;
    }
    let overhead = number(name, pod.spec.overhead.as_ref().and_then(|o| o.get(name)).map(|q| q.0.as_str()));
    aggregate(pod, name, of).saturating_add(overhead)
}

/// The larger of what runs together in the end and what each init container needs beside the sidecars before it.
fn aggregate(pod: &Pod, name: &str, of: fn(&Option<ResourceRequirements>, &str) -> i64) -> i64 {
    let mut sidecars: i64 = 0;
    let mut peak: i64 = 0;
    for container in pod.init_containers() {
        let own = of(&container.resources, name);
        if is_sidecar(container) {
            sidecars = sidecars.saturating_add(own);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars.saturating_add(own));
        }
    }
    let main = pod.spec.containers.iter().map(|c| of(&c.resources, name));
    peak.max(main.fold(sidecars, i64::saturating_add))
}

fn requested(own: &Option<ResourceRequirements>, name: &str) -> i64 {
    number(name, request(own, name).or_else(|| limit(own, name)))
}

fn limited(own: &Option<ResourceRequirements>, name: &str) -> i64 {
    number(name, limit(own, name))
}

/// What the node must have left of a resource for the pod.
pub fn pod_request(pod: &Pod, name: &str) -> i64 {
    total(pod, name, requested)
}

/// What all containers of the pod may have; 0 is no limit.
pub fn pod_limit(pod: &Pod, name: &str) -> i64 {
    total(pod, name, limited)
}

/// Names of everything that a container of the pod requests.
pub fn requested_names(pod: &Pod) -> BTreeSet<&str> {
    let each = pod.init_containers().iter().chain(&pod.spec.containers).map(|c| &c.resources);
    let lists = each.chain([&pod.spec.resources]).flatten().filter_map(|r| r.requests.as_ref());
    lists.flat_map(|list| list.keys().map(String::as_str)).gather()
}

pub fn of_pod(pod: &Pod) -> PodCgroup {
    let qos = qos_class(pod);
    if qos == "BestEffort" {
        return PodCgroup { cpu_shares: MIN_SHARES, ..Default::default() };
    }
    let declared = |name: &str| {
        let each = pod.init_containers().iter().chain(&pod.spec.containers);
        limited(&pod.spec.resources, name) > 0 || each.into_iter().all(|c| limited(&c.resources, name) > 0)
    };
    PodCgroup {
        cpu_shares: cpu_shares(total(pod, "cpu", requested)),
        cpu_quota_us: declared("cpu").then(|| cpu_quota(total(pod, "cpu", limited))),
        memory_limit_bytes: declared("memory").then(|| total(pod, "memory", limited)),
    }
}

/// The pod's sum, for runtimes that size a sandbox (a VM) by it.
pub fn of_sandbox(pod: &Pod) -> LinuxContainerResources {
    let sum = of_pod(pod);
    LinuxContainerResources {
        cpu_period: QUOTA_PERIOD_US,
        cpu_quota: sum.cpu_quota_us.unwrap_or(0),
        cpu_shares: sum.cpu_shares,
        memory_limit_in_bytes: sum.memory_limit_bytes.unwrap_or(0),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pod;
    use mote_schema::json;

    #[test]
    fn quantities() {
        for (text, want) in [
            ("0", Some(0)),
            ("100m", Some(100)),
            ("1", Some(1000)),
            ("1.5", Some(1500)),
            ("0.0001", Some(1)),
            ("1Ki", Some(1_024_000)),
            ("1e3", Some(1_000_000)),
            ("5E-1", Some(500)),
            ("100n", Some(1)),
            ("-2", Some(-2000)),
            ("", None),
            ("x", None),
            ("1X", None),
            ("9999999Ei", Some(i64::MAX)),
        ] {
            assert_eq!(milli(text), want, "{text}");
        }
        assert_eq!(value("64Mi"), Some(64 << 20));
        assert_eq!(value("100m"), Some(1));
    }

    #[test]
    fn classes() {
        let check = |resources: mote_schema::Value, want: &str| {
            let pod = pod(json!({"containers": [{"name": "a", "image": "x", "resources": resources}]}));
            assert_eq!(qos_class(&pod), want, "{resources}");
        };
        check(json!({}), "BestEffort");
        check(json!({"requests": {"cpu": "0"}}), "BestEffort");
        check(json!({"requests": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": {"cpu": "1"}}), "Burstable");
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed");
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}),
            "Guaranteed",
        );
        check(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}}), "Burstable");
    }

    #[test]
    fn kernel_numbers() {
        let check = |resources: mote_schema::Value, want: (i64, i64, i64, i64)| {
            let pod = pod(json!({"containers": [{"name": "a", "image": "x", "resources": resources}]}));
            let got = of_container(&pod, &pod.spec.containers[0], 1 << 30);
            let got = (got.cpu_shares, got.cpu_quota, got.memory_limit_in_bytes, got.oom_score_adj);
            assert_eq!(got, want, "{resources}");
        };
        check(json!({}), (2, 0, 0, 1000));
        check(json!({"requests": {"cpu": "100m"}}), (102, 0, 0, 999));
        check(json!({"limits": {"cpu": "500m"}}), (512, 50_000, 0, 999));
        check(json!({"requests": {"memory": "512Mi"}}), (2, 0, 0, 500));
        check(json!({"requests": {"memory": "1Gi"}}), (2, 0, 0, 3));
        check(json!({"limits": {"cpu": "5m", "memory": "1Gi"}}), (5, 1000, 1 << 30, -997));
    }

    #[test]
    fn a_pods_own_request_is_shared() {
        let pod = pod(json!({"resources": {"requests": {"memory": "512Mi"}}, "containers": [
            {"name": "a", "image": "x", "resources": {"requests": {"memory": "256Mi"}}}, {"name": "b", "image": "x"}]}));
        let scores = [0, 1].map(|at| of_container(&pod, &pod.spec.containers[at], 1 << 30).oom_score_adj);
        assert_eq!(scores, [625, 875]);
    }

    #[test]
    fn containers_do_not_swap() {
        let check = |swap, limit: i64, max: Option<&str>| {
            let made = LinuxContainerResources { memory_limit_in_bytes: 7, ..Default::default() };
            let made = without_swap(made, swap);
            assert_eq!(made.memory_swap_limit_in_bytes, limit);
            assert_eq!(made.unified.get("memory.swap.max").map(String::as_str), max);
        };
        check(Swap::Unbounded, 0, None);
        check(Swap::V1, 7, None);
        check(Swap::V2, 0, Some("0"));
    }

    #[test]
    fn pod_sums() {
        let pod = pod(json!({
            "initContainers": [
                {"name": "i", "image": "x", "resources": {"limits": {"cpu": "2", "memory": "1Mi"}}},
                {"name": "s", "image": "x", "restartPolicy": "Always", "resources": {"limits": {"cpu": "1", "memory": "2Mi"}}}],
            "containers": [{"name": "a", "image": "x", "resources": {"limits": {"cpu": "500m", "memory": "4Mi"}}}]}));
        assert_eq!(
            of_pod(&pod),
            PodCgroup { cpu_shares: 2048, cpu_quota_us: Some(200_000), memory_limit_bytes: Some(6 << 20) }
        );
    }

    #[test]
    fn hugepage_names() {
        for (bytes, want) in [(2 << 20, "2MB"), (1 << 30, "1GB"), (64 << 10, "64KB")] {
            assert_eq!(hugepage_name(bytes), want);
        }
    }
}
