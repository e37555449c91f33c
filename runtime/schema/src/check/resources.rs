//! What containers ask for and may use (ValidateContainerResourceRequirements).
use super::at::{At, Errors, NEGATIVE};
use crate::{quantity::Quantity, validate};
use serde_json::Value;

/// Standard names of what a container may ask for, without huge pages.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

fn resource_name(name: &str, path: &str, errors: &mut Errors) {
    let at = Value::from(name);
    for message in validate::qualified_name(name) {
        errors.invalid_value(path, &at, &message);
    }
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
    };
    for (name, value) in limits.members() {
        // The name's own path carries the name as a key.
        resource_name(name, &format!("{}[{name}]", limits.path), errors);
        quantity(&limits, name, value, errors);
    }
    for (name, value) in requests.members() {
        resource_name(name, &format!("{}[{name}]", requests.path), errors);
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
            errors.not_found(&claim);
        }
    }
}
