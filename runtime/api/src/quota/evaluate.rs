//! The evaluators: pods, services, claims, device claims, and the count of anything.
use super::{
    Amounts,
    pod::{self, Counted, Side},
};
use jiff::{SignedDuration, Timestamp};
use mote_schema::{
    Kind, Ref,
    quantity::{Format, Quantity},
};
use std::collections::{BTreeMap, BTreeSet};

const POD_NAMES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// A quota on one of these makes every container say what it asks for; upstream keeps it for old users' sake.
const REQUIRED_NAMES: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const SERVICE_NAMES: &[&str] = &["services", "services.nodeports", "services.loadbalancers"];
const CLAIM_NAMES: &[&str] = &["persistentvolumeclaims", "requests.storage"];
const BY_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const BY_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
const IMPLICIT_DEVICES: &str = "requests.deviceclass.resource.kubernetes.io/";
/// Counted under their bare name too.
const BARE_COUNTS: &[&str] = &["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];
/// Devices of one claim at most: what "All" may come to.
const MAX_DEVICES: i64 = 32;

#[derive(PartialEq)]
enum Evaluator {
    Pods,
    Services,
    VolumeClaims,
    DeviceClaims,
    Count,
}

fn evaluator(kind: &Kind) -> Evaluator {
    match (&*kind.group, &*kind.plural) {
        ("", "pods") => Evaluator::Pods,
        ("", "services") => Evaluator::Services,
        ("", "persistentvolumeclaims") => Evaluator::VolumeClaims,
        ("resource.k8s.io", "resourceclaims") => Evaluator::DeviceClaims,
        _ => Evaluator::Count,
    }
}

fn one() -> Quantity {
    number(1)
}

fn number(count: i64) -> Quantity {
    Quantity::new(count, Format::DecimalSi)
}

fn count_name(kind: &Kind) -> String {
    format!("count/{}", kind.resource())
}

/// Whether quotas know this kind at all: not Events, nothing that is not stored, nothing outside namespaces.
pub fn counts(kind: &Kind) -> bool {
    kind.namespaced && !kind.virtual_kind && kind.plural != "events"
}

/// Which of a quota's names objects of this kind are counted under.
pub fn matching(kind: &Kind, name: &str) -> bool {
    if name.strip_prefix("count/").is_some_and(|resource| resource == kind.resource()) {
        return true;
    }
    match evaluator(kind) {
        Evaluator::Pods => {
            POD_NAMES.contains(&name)
                || name.starts_with("hugepages-")
                || name.starts_with("requests.hugepages-")
                || is_extended(name)
        }
        Evaluator::Services => SERVICE_NAMES.contains(&name),
        Evaluator::VolumeClaims => {
            let of_class = name.split_once(BY_STORAGE_CLASS).map_or(name, |(_, rest)| rest);
            CLAIM_NAMES.contains(&of_class)
        }
        Evaluator::DeviceClaims => name.ends_with(BY_DEVICE_CLASS),
        Evaluator::Count => kind.group.is_empty() && BARE_COUNTS.contains(&name) && name == kind.plural,
    }
}

/// A quota's name for an extended resource, which knows requests only.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    name.starts_with(IMPLICIT_DEVICES) || name.starts_with("requests.") && !native
}

/// How much an object uses, under every name its kind is counted under.
pub fn usage(kind: &Kind, object: Ref<'_>, now: Timestamp) -> Amounts {
    let mut used = Amounts::default();
    used.set(count_name(kind), one());
    match evaluator(kind) {
        Evaluator::Pods if life(object, now) != Life::Ended => {
            let counted = Counted { status: true, overhead: true };
            let requests = pod::totals(object, Side::Requests, counted);
            used.add(&compute(&requests, &pod::totals(object, Side::Limits, counted)));
        }
        Evaluator::Pods => {}
        Evaluator::Services => service(object, &mut used),
        Evaluator::VolumeClaims => volume_claim(object, &mut used),
        Evaluator::DeviceClaims => device_claim(object, &mut used),
        Evaluator::Count => {
            if kind.group.is_empty() && BARE_COUNTS.contains(&&*kind.plural) {
                used.set(&*kind.plural, one());
            }
        }
    }
    used
}

/// Whether a pod still takes what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Lasting,
    /// It is being deleted, and will not count when that is overdue.
    Until(Timestamp),
    Ended,
}

pub fn life(pod: Ref<'_>, now: Timestamp) -> Life {
    if matches!(pod.at("status.phase").str(), "Failed" | "Succeeded") {
        return Life::Ended;
    }
    let meta = pod.get("metadata");
    let deleted = meta.get("deletionTimestamp").as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(deleted), Some(grace)) = (deleted, meta.get("deletionGracePeriodSeconds").as_i64()) else {
        return Life::Lasting;
    };
    match deleted.checked_add(SignedDuration::from_secs(grace)) {
        Ok(overdue) if now > overdue => Life::Ended,
        Ok(overdue) => Life::Until(overdue),
        Err(_) => Life::Lasting,
    }
}

/// Requests and limits under the names that quotas give them.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::default();
    used.set("pods", one());
    for (name, amount) in &requests.0 {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                used.set(name.as_str(), *amount);
                used.set(format!("requests.{name}"), *amount);
            }
            _ if name.starts_with("hugepages-") => {
                used.set(name.as_str(), *amount);
                used.set(format!("requests.{name}"), *amount);
            }
            _ if name.contains('/') && is_extended(&format!("requests.{name}")) => {
                used.set(format!("requests.{name}"), *amount);
            }
            _ => {}
        }
    }
    for (name, amount) in limits.0.iter().filter(|(name, _)| POD_NAMES[..3].contains(&name.as_str())) {
        used.set(format!("limits.{name}"), *amount);
    }
    used
}

/// What a pod does not say, though a quota on `names` wants every container to.
pub fn lacks<'n>(kind: &Kind, pod: Ref<'_>, names: impl Iterator<Item = &'n str>) -> Option<String> {
    if evaluator(kind) != Evaluator::Pods || pod::has_pod_level(pod) {
        return None;
    }
    let required: Vec<&str> = names.filter(|name| REQUIRED_NAMES.contains(name)).collect();
    let spec = pod.get("spec");
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in spec.get("containers").items().chain(spec.get("initContainers").items()) {
        let resources = container.get("resources");
        let said = compute(&Amounts::of(resources.get("requests")), &Amounts::of(resources.get("limits")));
        for name in required.iter().filter(|name| said.get(name).is_none()) {
            missing.entry(name).or_default().insert(container.get("name").str());
        }
    }
    let texts: Vec<String> = missing
        .iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.iter().copied().collect::<Vec<_>>().join(",")))
        .collect();
    (!texts.is_empty()).then(|| format!("must specify {}", texts.join("; ")))
}

fn service(object: Ref<'_>, used: &mut Amounts) {
    let spec = object.get("spec");
    let (all, given) = (spec.get("ports").items(), |port: &Ref<'_>| port.get("nodePort").as_i64().unwrap_or(0) != 0);
    let (node_ports, balancers) = match spec.get("type").str() {
        "NodePort" => (all.count(), 0),
        "LoadBalancer" if spec.get("allocateLoadBalancerNodePorts").as_bool() == Some(false) => {
            (all.filter(given).count(), 1)
        }
        "LoadBalancer" => (all.count(), 1),
        _ => (0, 0),
    };
    used.set("services", one());
    used.set("services.nodeports", number(node_ports as i64));
    used.set("services.loadbalancers", number(balancers));
}

fn volume_claim(object: Ref<'_>, used: &mut Amounts) {
    used.set("persistentvolumeclaims", one());
    let old_name = object.at("metadata.annotations").get("volume.beta.kubernetes.io/storage-class").str();
    let class = if old_name.is_empty() { object.at("spec.storageClassName").str() } else { old_name };
    if !class.is_empty() {
        used.set(format!("{class}{BY_STORAGE_CLASS}persistentvolumeclaims"), one());
    }
    let storage = |list: &str| Amounts::of(object.at(list)).get("storage");
    let Some(requested) = storage("spec.resources.requests") else { return };
    let amount = storage("status.allocatedResources").map_or(requested, |allocated| allocated.max(requested));
    // Whole bytes, or the quota's status would not pass validation.
    let whole = Quantity::new(amount.value(), amount.format());
    let amount = if whole == amount { amount } else { whole };
    used.set("requests.storage", amount);
    if !class.is_empty() {
        used.set(format!("{class}{BY_STORAGE_CLASS}requests.storage"), amount);
    }
}

fn device_claim(object: Ref<'_>, used: &mut Amounts) {
    let devices = |request: Ref<'_>| match request.get("allocationMode").str() {
        "ExactCount" => request.get("count").as_i64().unwrap_or(0),
        "All" => MAX_DEVICES,
        _ => 0,
    };
    let of_class = |request: Ref<'_>| {
        let mut amounts = Amounts::default();
        amounts.set(format!("{}{BY_DEVICE_CLASS}", request.get("deviceClassName").str()), number(devices(request)));
        amounts
    };
    for request in object.at("spec.devices.requests").items() {
        let mut worst = Amounts::default();
        // Of alternatives the dearest counts, for each class.
        request.get("firstAvailable").items().for_each(|one| worst.raise(&of_class(one)));
        if request.get("exactly").exists() {
            worst = of_class(request.get("exactly"));
        }
        used.add(&worst);
    }
}

pub(super) fn matches_scope(kind: &Kind, object: Ref<'_>, scope: &str, operator: &str, values: Ref<'_>) -> bool {
    match evaluator(kind) {
        Evaluator::Pods => pod_scope(object, scope, operator, values),
        Evaluator::VolumeClaims if scope == "VolumeAttributesClass" => {
            let names = ["spec.volumeAttributesClassName", "status.currentVolumeAttributesClassName"];
            let target = object.at("status.modifyVolumeStatus").get("targetVolumeAttributesClassName").str();
            let mut names: Vec<&str> = names.iter().map(|path| object.at(path).str()).chain([target]).collect();
            names.retain(|name| !name.is_empty());
            match names.as_slice() {
                [] => selects(None, operator, values),
                names => names.iter().any(|name| selects(Some(name), operator, values)),
            }
        }
        _ => false,
    }
}

fn pod_scope(pod: Ref<'_>, scope: &str, operator: &str, values: Ref<'_>) -> bool {
    let spec = pod.get("spec");
    let terminating = spec.get("activeDeadlineSeconds").as_i64().is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = spec.get("priorityClassName").str();
            selects(Some(class).filter(|class| !class.is_empty()), operator, values)
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(spec.get("affinity")),
        _ => false,
    }
}

fn selects(value: Option<&str>, operator: &str, values: Ref<'_>) -> bool {
    let listed = || value.is_some_and(|value| values.items().any(|one| one.str() == value));
    match operator {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

fn is_best_effort(pod: Ref<'_>) -> bool {
    match pod.at("status.qosClass").str() {
        "" => {
            let spec = pod.get("spec");
            let all = spec.get("containers").items().chain(spec.get("initContainers").items()).chain([spec]);
            !all.into_iter().any(|holder| {
                ["requests", "limits"].iter().any(|side| {
                    let amounts = Amounts::of(holder.get("resources").get(side));
                    ["cpu", "memory"].iter().any(|name| amounts.get(name).is_some_and(|amount| !amount.is_zero()))
                })
            })
        }
        class => class == "BestEffort",
    }
}

fn crosses_namespaces(affinity: Ref<'_>) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let rules = affinity.get(kind);
        let required = rules.get("requiredDuringSchedulingIgnoredDuringExecution").items();
        let preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution").items();
        required
            .chain(preferred.map(|weighted| weighted.get("podAffinityTerm")))
            .any(|term| !term.get("namespaces").is_empty() || term.get("namespaceSelector").is_map())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, Doc};
    use mote_schema::{Value, json};
    use std::sync::Arc;

    fn kind(group: &str, plural: &str) -> Arc<Kind> {
        Catalog::builtin().by_resource(group, "v1", plural).unwrap().clone()
    }

    fn check(group: &str, plural: &str, object: Value, expected: &str) {
        let doc = Doc::encode(&object).unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(usage(&kind(group, plural), doc.root(), now).to_string(), expected, "{object}");
    }

    #[test]
    fn pods() {
        let container = |requests: Value, limits: Value| json!({"name": "c", "resources": {"requests": requests, "limits": limits}});
        check("", "pods", json!({"spec": {"containers": [{"name": "c"}]}}), "count/pods=1,pods=1");
        check(
            "",
            "pods",
            json!({"spec": {
                "containers": [container(json!({"cpu": "100m", "example.com/gpu": "2"}), json!({"memory": "1Gi"}))],
                "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                    container(json!({"cpu": "300m"}), json!({}))],
                "overhead": {"cpu": "10m", "memory": "1Mi"}}}),
            "count/pods=1,cpu=360m,limits.memory=1025Mi,memory=1Mi,pods=1,requests.cpu=360m,requests.example.com/gpu=2,requests.memory=1Mi",
        );
        check(
            "",
            "pods",
            json!({"spec": {"resources": {"requests": {"cpu": "2"}}, "containers": [container(json!({"cpu": "1"}), json!({}))]}}),
            "count/pods=1,cpu=2,pods=1,requests.cpu=2",
        );
        let ended = json!({"status": {"phase": "Succeeded"}, "spec": {"containers": [container(json!({"cpu": "1"}), json!({}))]}});
        check("", "pods", ended, "count/pods=1");
        let overdue =
            json!({"metadata": {"deletionTimestamp": "2025-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}});
        check("", "pods", overdue, "count/pods=1");
        // A resize under way counts with the larger of what is wanted and what is held.
        let shrinking = json!({
            "spec": {"containers": [container(json!({"cpu": "1"}), json!({}))]},
            "status": {"containerStatuses": [{"name": "c", "resources": {"requests": {"cpu": "3"}}, "allocatedResources": {"cpu": "2"}}]}});
        check("", "pods", shrinking, "count/pods=1,cpu=3,pods=1,requests.cpu=3");
    }

    #[test]
    fn others() {
        let service = |spec: Value| json!({"spec": spec});
        let ports = json!([{"port": 1, "nodePort": 30000}, {"port": 2}]);
        for (spec, node_ports, balancers) in [
            (json!({"type": "ClusterIP", "ports": ports}), 0, 0),
            (json!({"type": "NodePort", "ports": ports}), 2, 0),
            (json!({"type": "LoadBalancer", "ports": ports}), 2, 1),
            (json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}), 1, 1),
        ] {
            let counts = format!("services.loadbalancers={balancers},services.nodeports={node_ports}");
            check("", "services", service(spec), &format!("count/services=1,services=1,{counts}"));
        }
        check(
            "",
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}}),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/requests.storage=2,persistentvolumeclaims=1,requests.storage=2",
        );
        check("", "secrets", json!({}), "count/secrets=1,secrets=1");
        check("apps", "deployments", json!({}), "count/deployments.apps=1");
        check(
            "resource.k8s.io",
            "resourceclaims",
            json!({"spec": {"devices": {"requests": [
                {"exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
                {"firstAvailable": [
                    {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1},
                    {"deviceClassName": "tpu", "allocationMode": "All"}]}]}}}),
            "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=3,tpu.deviceclass.resource.k8s.io/devices=32",
        );
    }

    #[test]
    fn names_and_the_kinds_they_count() {
        for (group, plural, name, counted) in [
            ("", "pods", "limits.cpu", true),
            ("", "pods", "requests.example.com/gpu", true),
            ("", "pods", "requests.storage", false),
            ("", "pods", "hugepages-2Mi", true),
            ("", "pods", "count/pods", true),
            ("", "services", "services.nodeports", true),
            ("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true),
            ("", "persistentvolumeclaims", "gold.storageclass.storage.k8s.io/other", false),
            ("", "configmaps", "configmaps", true),
            ("", "configmaps", "secrets", false),
            ("apps", "deployments", "count/deployments.apps", true),
            ("apps", "deployments", "deployments", false),
        ] {
            assert_eq!(matching(&kind(group, plural), name), counted, "{name} of {plural}");
        }
    }

    #[test]
    fn scopes() {
        let in_scope = |spec: Value, pod: Value| {
            let (quota, pod) = (Doc::encode(&json!({"spec": spec})).unwrap(), Doc::encode(&pod).unwrap());
            super::super::in_scope(quota.root(), &kind("", "pods"), pod.root())
        };
        let selector = |scope: &str, operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}});
        let deadline = || json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high"}});
        let burstable = || json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        let affine = json!({"spec": {"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"podAffinityTerm": {"namespaceSelector": {}}}]}}}});
        assert!(in_scope(json!({}), deadline()));
        assert!(in_scope(json!({"scopes": ["Terminating", "BestEffort"]}), deadline()));
        assert!(!in_scope(json!({"scopes": ["NotTerminating"]}), deadline()));
        assert!(in_scope(json!({"scopes": ["NotBestEffort"]}), burstable()));
        assert!(in_scope(selector("PriorityClass", "In", json!(["high", "low"])), deadline()));
        assert!(!in_scope(selector("PriorityClass", "NotIn", json!(["high"])), deadline()));
        assert!(in_scope(selector("PriorityClass", "NotIn", json!(["high"])), burstable()));
        assert!(!in_scope(selector("PriorityClass", "Exists", Value::Null), burstable()));
        assert!(in_scope(selector("CrossNamespacePodAffinity", "Exists", Value::Null), affine));
        assert!(!in_scope(selector("CrossNamespacePodAffinity", "Exists", Value::Null), burstable()));
    }

    #[test]
    fn what_containers_have_to_say() {
        let pod = Doc::encode(&json!({"spec": {"initContainers": [{"name": "i"}], "containers": [
            {"name": "b"}, {"name": "a", "resources": {"limits": {"cpu": "1"}}}]}}))
        .unwrap();
        let lacks = |names: &[&str]| lacks(&kind("", "pods"), pod.root(), names.iter().copied());
        assert_eq!(
            lacks(&["limits.cpu", "memory", "pods"]).as_deref(),
            Some("must specify limits.cpu for: b,i; memory for: a,b,i")
        );
        assert_eq!(lacks(&["pods", "requests.ephemeral-storage"]), None);
    }
}
