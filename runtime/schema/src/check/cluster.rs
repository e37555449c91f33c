//! Kinds of the cluster as a whole: Namespace, Node, LimitRange, ResourceQuota, Lease, PriorityClass, RuntimeClass.
use super::{
    at::{At, Errors, NEGATIVE},
    autoscaling, meta, resources,
    rules::rules,
    scheduling,
};
use crate::{Value, quantity::Quantity, validate as format};
use std::collections::HashSet;

pub(super) fn namespace(new: &At<'_>, errors: &mut Errors) {
    for finalizer in new.at("spec.finalizers").items() {
        let at = finalizer.moved("spec.finalizers");
        errors.each(&at, format::qualified_name(at.str()));
        meta::known_finalizer(&at, errors);
    }
}

/// ValidateNamespaceFinalizeUpdate
pub(super) fn finalizers(list: &At<'_>, errors: &mut Errors) {
    for at in list.items() {
        errors.each(&at, format::qualified_name(at.str()));
        meta::known_finalizer(&at, errors);
    }
}

pub(super) fn node(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    avoided_pods(&new.at("metadata.annotations").key(AVOID_PODS), errors);
    taints(&new.at("spec.taints").moved("metadata.taints"), errors);
    node_resources(&new.get("status"), errors);
    if let Some(old) = old
        && old.at("spec.externalID").value != new.at("spec.externalID").value
    {
        errors.forbidden(&new.at("spec.externalID"), "may not be updated");
    }
    let cidrs = new.at("spec.podCIDRs");
    let mut families = [0, 0];
    for cidr in cidrs.items() {
        errors.each(&cidr, format::cidr_legacy(cidr.str()));
        families[usize::from(cidr.str().contains(':'))] += 1;
    }
    if families.iter().any(|count| *count > 1) {
        errors.invalid(&cidrs, "may specify no more than one CIDR for each IP family");
    }
    let Some(old) = old else { return };
    let (cidrs, before) = (new.at("spec.podCIDRs"), old.at("spec.podCIDRs"));
    if !before.is_empty() && before.value != cidrs.value {
        errors.forbidden(&cidrs, "node updates may not change podCIDR except from \"\" to valid");
    }
    let (provider, before) = (new.at("spec.providerID"), old.at("spec.providerID"));
    if !before.str().is_empty() && before.str() != provider.str() {
        errors.forbidden(&provider, "node updates may not change providerID except from \"\" to valid");
    }
}

const AVOID_PODS: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";

/// ValidateAvoidPodsInNodeAnnotations, as far as whether it can be read.
fn avoided_pods(at: &At<'_>, errors: &mut Errors) {
    if at.str().is_empty() {
        return;
    }
    if let Err(error) = crate::prune::parse_json(at.str().as_bytes()) {
        errors.invalid_value("metadata.annotations.AvoidPods", &AVOID_PODS.into(), &error);
    }
}

/// validateNodeTaints
fn taints(list: &At<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for taint in list.items() {
        let (key, value, effect) = (taint.get("key"), taint.get("value"), taint.get("effect"));
        errors.each(&key, format::qualified_name(key.str()));
        let messages = format::label_value(value.str());
        if !messages.is_empty() {
            errors.invalid(&value, &messages.join(";"));
        }
        match effect.str() {
            "" => errors.required(&effect, ""),
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            _ => errors.unsupported(&effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        }
        if !seen.insert((key.str(), effect.str())) {
            let mut cause = crate::Cause::duplicate(&*taint.path, taint.value);
            cause.message += ": taints must be unique by key and effect pair";
            errors.0.push(cause);
        }
    }
}

fn quantity(value: &Value) -> Option<Quantity> {
    Quantity::parse(value.as_str()?).ok()
}

/// ValidateLimitRange
pub(super) fn limit_range(new: &At<'_>, errors: &mut Errors) {
    let mut types = HashSet::new();
    for item in new.at("spec.limits").items() {
        limit_type(&item.get("type"), errors);
        if !types.insert(item.get("type").str()) {
            errors.duplicate(&item.get("type"));
        }
        limit_item(&item, errors);
    }
}

/// validateLimitRangeTypeName
fn limit_type(at: &At<'_>, errors: &mut Errors) {
    let messages = format::qualified_name(at.str());
    if messages.is_empty()
        && !at.str().contains('/')
        && !matches!(at.str(), "Pod" | "Container" | "PersistentVolumeClaim")
    {
        errors.invalid(at, "must be a standard limit type or fully qualified");
    }
    errors.each(at, messages);
}

fn limit_item(item: &At<'_>, errors: &mut Errors) {
    let kind = item.get("type").str();
    let mut names: Vec<&str> = Vec::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let list = item.get(field);
        if kind == "Pod" && field.starts_with("default") {
            if !list.is_empty() {
                errors.forbidden(&list, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, _) in list.members() {
            let path = list.key(name).path;
            match kind {
                "Pod" | "Container" => resources::container_resource_name(name, &path, errors),
                _ => resources::resource_name(name, &path, errors),
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let storage = |field: &str| item.get(field).peek("storage").is_null();
        if field == "defaultRequest" && kind == "PersistentVolumeClaim" && storage("min") && storage("max") {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.required(&item.get("limits"), detail);
        }
    }
    for name in names {
        limit_bounds(item, name, errors);
    }
}

/// Which must not be greater than which; where the mistake is said to be, and whose value is shown.
const BOUNDS: [(&str, &str, &str, &str, &str); 6] = [
    ("min", "max", "min", "min", "max value"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", "default request value"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", "max value"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest", "default limit value"),
    ("min", "default", "default", "min", "default value"),
    ("default", "max", "default", "max", "max value"),
];

fn limit_bounds(item: &At<'_>, name: &str, errors: &mut Errors) {
    let of = |field: &str| quantity(item.get(field).peek(name));
    let path = |field: &str| item.get(field).key(name).path;
    for (low, high, at, shown, high_name) in BOUNDS {
        let Some((a, b)) = of(low).zip(of(high)).filter(|(a, b)| a > b) else { continue };
        let low_name = if low == "defaultRequest" { "default request" } else { low };
        let detail = format!("{low_name} value {a} is greater than {high_name} {b}");
        errors.invalid_value(&path(at), item.get(shown).peek(name), &detail);
    }
    let ratio_at = item.get("maxLimitRequestRatio").key(name);
    let Some(ratio) = quantity(ratio_at.value) else { return };
    if ratio.milli_value() < 1000 {
        errors.invalid(&ratio_at, &format!("ratio {ratio} is less than 1"));
    }
    if let Some((min, max)) = of("min").zip(of("max")) {
        let limit = max.milli_value() as f64 / min.milli_value() as f64;
        if ratio.milli_value() as f64 / 1000.0 > limit {
            errors.invalid(&ratio_at, &format!("ratio {ratio} is greater than max/min = {limit:.6}"));
        }
    }
}

/// What a quota may count without a domain in its name.
fn is_standard_quota(name: &str) -> bool {
    const OBJECTS: [&str; 10] = [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
        "requests.storage",
    ];
    let amount = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    OBJECTS.contains(&name)
        || matches!(amount, "cpu" | "memory" | "ephemeral-storage")
        || name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-")
}

/// ValidateResourceQuotaResourceName, ValidateResourceQuantityValue
fn quota_amounts(list: &At<'_>, errors: &mut Errors) {
    for (name, value) in list.members() {
        let at = list.key(name);
        resources::resource_name(name, &at.path, errors);
        if !name.contains('/') && !is_standard_quota(name) {
            errors.invalid_value(&at.path, &Value::from(name), "must be a standard resource for quota");
        }
        let Some(amount) = quantity(value) else { continue };
        if amount.is_negative() {
            errors.invalid(&at, NEGATIVE);
        }
        let amounts = ["cpu", "memory", "storage", "hugepages-"];
        let counted = name.starts_with("count/") || !amounts.iter().any(|part| name.contains(part));
        if counted && amount.milli_value() % 1000 != 0 {
            errors.invalid(&at, "must be an integer");
        }
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "NotBestEffort",
    "Terminating",
    "NotTerminating",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// IsResourceQuotaScopeValidForResource
fn scope_counts(scope: &str, resource: &str) -> bool {
    let amount = resource.strip_prefix("requests.").or_else(|| resource.strip_prefix("limits.")).unwrap_or(resource);
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            resource == "persistentvolumeclaims" || matches!(resource, "requests.storage" | "storage")
        }
        _ if SCOPES.contains(&scope) => resource == "pods" || matches!(amount, "cpu" | "memory"),
        _ => true,
    }
}

pub(super) fn resource_quota(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    let hard = spec.get("hard");
    quota_amounts(&hard, errors);
    let standard = || hard.members().filter(|(name, _)| is_standard_quota(name));
    let conflicts = |scopes: &[&str]| {
        let pairs = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
        pairs.iter().filter(|(a, b)| scopes.contains(a) && scopes.contains(b)).count()
    };
    let scopes = spec.get("scopes");
    let mut seen: Vec<&str> = Vec::new();
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.str()) {
            errors.invalid(&scopes, "unsupported scope");
        }
        for _ in standard().filter(|(name, _)| !scope_counts(scope.str(), name)) {
            errors.invalid(&scopes, "unsupported scope applied to resource");
        }
        seen.push(scope.str());
    }
    (0..conflicts(&seen)).for_each(|_| errors.invalid(&scopes, "conflicting scopes"));
    let list = spec.at("scopeSelector.matchExpressions");
    seen.clear();
    for requirement in list.items() {
        // Upstream leaves the index out of these paths.
        let at = |name: &str| requirement.get(name).moved(format!("{}.{name}", list.path));
        let (scope, operator, values) = (at("scopeName"), at("operator"), at("values"));
        if !SCOPES.contains(&scope.str()) {
            errors.invalid(&scope, "unsupported scope");
        }
        for _ in standard().filter(|(name, _)| !scope_counts(scope.str(), name)) {
            errors.invalid(&spec.get("scopeSelector").moved(&*list.path), "unsupported scope applied to resource");
        }
        let only_exists = !matches!(scope.str(), "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope.str()) && only_exists && operator.str() != "Exists" {
            errors.invalid(
                &operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => errors
                .required(&values, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors
                .invalid(&values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        seen.push(scope.str());
    }
    (0..conflicts(&seen)).for_each(|_| errors.invalid(&list, "conflicting scopes"));
    if let Some(old) = old {
        let scopes = |at: &At<'_>| at.at("spec.scopes").items().map(|s| s.str().to_owned()).collect::<HashSet<_>>();
        if scopes(new) != scopes(old) {
            errors.invalid_null(&new.at("spec.scopes"), "field is immutable");
        }
    }
}

pub(super) fn resource_quota_status(new: &At<'_>, errors: &mut Errors) {
    quota_amounts(&new.at("status.hard"), errors);
    quota_amounts(&new.at("status.used"), errors);
}

/// ValidateNamespaceStatusUpdate
pub(super) fn namespace_status(new: &At<'_>, errors: &mut Errors) {
    // The path has Go's name of the field.
    let phase = new.at("status.phase").moved("status.Phase");
    match new.at("metadata.deletionTimestamp").is_set() {
        false if phase.str() != "Active" => {
            errors.invalid(&phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
        true if phase.str() != "Terminating" => {
            errors.invalid(&phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
        _ => {}
    }
}

/// ValidateNodeUpdate, as far as it is about what the node says of itself
pub(super) fn node_status(new: &At<'_>, errors: &mut Errors) {
    let status = new.get("status");
    let mut seen: Vec<&Value> = Vec::new();
    for address in status.get("addresses").items() {
        if seen.contains(&address.value) {
            errors.duplicate(&address);
        }
        seen.push(address.value);
    }
    node_resources(&status, errors);
}

fn node_resources(status: &At<'_>, errors: &mut Errors) {
    for list in ["capacity", "allocatable"] {
        for (name, _) in status.get(list).members() {
            autoscaling::non_negative_quantity(&status.get(list).get(name), errors);
        }
    }
}

pub(super) fn lease(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    let duration = spec.get("leaseDurationSeconds");
    if duration.int().is_some_and(|n| n <= 0) {
        errors.invalid(&duration, "must be greater than 0");
    }
    errors.non_negative(&spec.get("leaseTransitions"));
}

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

pub(super) fn priority_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let value = new.get("value");
    let policy = new.get("preemptionPolicy");
    match policy.str() {
        // It stays as it is.
        _ if old.is_some() => {}
        "" if policy.is_set() => errors.required(&policy, ""),
        _ => rules(new, "preemptionPolicy=PreemptLowerPriority|Never", errors),
    }
    if !new.at("metadata.name").str().starts_with("system-") && value.int().unwrap_or(0) > HIGHEST_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        errors.forbidden(&value, &detail);
    }
    if let Some(old) = old {
        if value.int() != old.get("value").int() {
            errors.forbidden(&value, "may not be changed in an update.");
        }
        errors.immutable(&policy, &old.get("preemptionPolicy"));
    }
}

pub(super) fn runtime_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let handler = new.get("handler");
    rules(new, "handler!label", errors);
    // Upstream checks what a pod costs as the limits of a container.
    let overhead = new.at("overhead.podFixed");
    for (name, value) in overhead.members() {
        let path = format!("overhead.limits[{name}]");
        resources::container_resource_name(name, &path, errors);
        if quantity(value).is_some_and(|q| q.is_negative()) {
            errors.invalid_value(&path, value, NEGATIVE);
        }
    }
    meta::labels(&new.at("scheduling.nodeSelector"), errors);
    let tolerations = new.at("scheduling.tolerations");
    scheduling::tolerations(&tolerations, errors);
    let mut seen: Vec<&Value> = Vec::new();
    for toleration in tolerations.items() {
        if seen.contains(&toleration.value) {
            errors.duplicate(&toleration);
        }
        seen.push(toleration.value);
    }
    if let Some(old) = old {
        errors.immutable(&handler, &old.get("handler"));
    }
}
