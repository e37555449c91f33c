//! What containers ask for and may use (ValidateContainerResourceRequirements).
use super::at::{At, Errors, NEGATIVE};
use crate::{Value, quantity::Quantity, validate};

/// Standard names of what a container may ask for, without huge pages.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Standard names that mean something elsewhere: in quotas and volumes (pkg/apis/core/helper).
const OTHER_STANDARD: [&str; 18] = [
    "requests.hugepages-",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// validateResourceName
pub(super) fn resource_name(name: &str, path: &str, errors: &mut Errors) {
    let at = Value::from(name);
    let messages = validate::qualified_name(name);
    let known = || STANDARD.contains(&name) || OTHER_STANDARD.contains(&name) || name.starts_with("hugepages-");
    if messages.is_empty() && !name.contains('/') && !known() {
        errors.invalid_value(path, &at, "must be a standard resource type or fully qualified");
    }
    for message in messages {
        errors.invalid_value(path, &at, &message);
    }
}

/// ValidateContainerResourceName
pub(super) fn container_resource_name(name: &str, path: &str, errors: &mut Errors) {
    resource_name(name, path, errors);
    let at = Value::from(name);
    if !name.contains('/') {
        if !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
            errors.invalid_value(path, &at, "must be a standard resource for containers");
        }
    } else if name.starts_with("requests.")
        || !name.contains("kubernetes.io/")
            && validate::qualified_name(&format!("requests.{name}")) != Vec::<String>::new()
    {
        errors.invalid_value(path, &at, "doesn't follow extended resource name standard");
    }
}

/// ValidateContainerResourceRequirements
pub(super) fn requirements(at: &At<'_>, claims: &[&str], errors: &mut Errors) {
    let (limits, requests) = (at.get("limits"), at.get("requests"));
    let parse = |value: &Value| value.as_str().and_then(|v| Quantity::parse(v).ok());
    let quantity = |list: &At<'_>, name: &str, value: &Value, errors: &mut Errors| {
        let path = format!("{}[{name}]", list.path);
        let Some(quantity) = parse(value) else { return };
        if quantity.is_negative() {
            errors.invalid_value(&path, value, NEGATIVE);
        }
        let whole = name.contains('/') && !name.contains("kubernetes.io/");
        if whole && quantity.milli_value() % 1000 != 0 {
            errors.invalid_value(&path, value, "must be an integer");
        }
        if let Some(page) = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok()) {
            let (page, bytes) = (page.milli_value(), quantity.milli_value());
            if page <= 0 || bytes % page != 0 {
                let text = value.as_str().unwrap_or_default();
                errors.invalid_value(&path, value, &format!("{text} is not positive integer multiple of {name}"));
            }
        }
    };
    for (name, value) in limits.members() {
        // The name's own path carries the name as a key.
        container_resource_name(name, &format!("{}[{name}]", limits.path), errors);
        quantity(&limits, name, value, errors);
    }
    for (name, value) in requests.members() {
        container_resource_name(name, &format!("{}[{name}]", requests.path), errors);
        quantity(&requests, name, value, errors);
        let limit = limits.value.get(name);
        let overcommitted = name.contains('/') || name.starts_with("hugepages-");
        match (limit.and_then(parse), parse(value)) {
            (Some(limit), Some(request)) if overcommitted && request != limit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.invalid_value(&requests.path, value, &detail);
            }
            (Some(limit), Some(request)) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.invalid_value(&requests.path, value, &detail);
            }
            (None, Some(_)) if overcommitted => {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
    }
    let asks = |wanted: &dyn Fn(&str) -> bool| limits.members().chain(requests.members()).any(|(name, _)| wanted(name));
    if asks(&|n| n.starts_with("hugepages-")) && !asks(&|n| matches!(n, "cpu" | "memory")) {
        errors.forbidden(at, "HugePages require cpu or memory");
    }
    for claim in at.get("claims").items() {
        if !claims.contains(&claim.get("name").str()) {
            let known = match claims {
                [] => "which is empty".to_owned(),
                _ => claims.join(", "),
            };
            let mut cause = crate::Cause::not_found(&*claim.path, claim.get("name").value);
            cause.message += &format!(": must be one of the names in pod.spec.resourceClaims {known}");
            errors.0.push(cause);
        }
    }
}
