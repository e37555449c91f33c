//! HorizontalPodAutoscalers of both versions (pkg/apis/autoscaling/validation).
use super::{
    at::{At, Errors, NEGATIVE},
    rules::rules,
};
use crate::json;
use crate::quantity::Quantity;

const KINDS: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const MAX_WINDOW_SECONDS: i64 = 3600;
const MAX_PERIOD_SECONDS: i64 = 1800;
const ZERO: &str = "must be greater than zero";

pub(super) fn autoscaler(new: &At<'_>, version: &str, errors: &mut Errors) {
    let spec = new.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.int().is_some_and(|n| n < 1) {
        errors.invalid(&min, "must be greater than or equal to 1");
    }
    match max.int().unwrap_or(0) {
        0 => errors.required(&max, "must be set and greater than 0"),
        ..0 => errors.invalid(&max, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.int().is_some_and(|n| n > max.int().unwrap_or(0)) {
        errors.invalid(&max, "must be greater than or equal to `minReplicas`");
    }
    object_reference(&spec.get("scaleTargetRef"), true, errors);
    let percent = spec.get("targetCPUUtilizationPercentage");
    if version == "v1" {
        // v1's one number is a metric of the internal type.
        if percent.int().is_some_and(|n| n < 1) {
            let path = "spec.metrics[0].resource.target.averageUtilization";
            errors.invalid(&percent.moved(path), "must be greater than 0");
        }
        return;
    }
    let metrics = spec.get("metrics");
    metrics.items().for_each(|metric| metric_spec(&metric, errors));
    let scales_from_zero = |m: At<'_>| matches!(m.get("type").str(), "Object" | "External");
    if min.int() == Some(0) && !metrics.items().any(scales_from_zero) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&metrics, detail);
    }
    for direction in ["scaleUp", "scaleDown"] {
        scaling_rules(&spec.at("behavior").get(direction), errors);
    }
}

fn object_reference(at: &At<'_>, needs_group: bool, errors: &mut Errors) {
    rules(at, "kind!segment name!segment", errors);
    let version = at.get("apiVersion");
    let core = matches!(at.get("kind").str(), "ReplicationController");
    if version.str().split('/').count() > 2 {
        errors.invalid(&version, &format!("unexpected GroupVersion string: {}", version.str()));
    } else if needs_group && !version.str().contains('/') && !core {
        errors.invalid(&version, "apiVersion must specify API group");
    }
}

fn metric_spec(at: &At<'_>, errors: &mut Errors) {
    let kind = at.get("type");
    if kind.str().is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    if !KINDS.contains(&kind.str()) {
        errors.unsupported(&kind, &KINDS);
    }
    let sources = ["object", "external", "pods", "resource", "containerResource"];
    let present: Vec<&str> = sources.into_iter().filter(|s| at.get(s).is_set()).collect();
    if let Some(first) = present.first() {
        source(first, &at.get(first), errors);
    }
    let Some(wanted) = sources.into_iter().find(|s| s.eq_ignore_ascii_case(kind.str())) else {
        return errors.unsupported(&kind, &KINDS);
    };
    if !present.contains(&wanted) {
        errors.required(&at.get(wanted), "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for other in present.iter().filter(|s| **s != wanted) {
            errors.forbidden(&at.get(other), "must populate the given metric source only");
        }
    }
}

fn source(name: &str, at: &At<'_>, errors: &mut Errors) {
    let by_resource = matches!(name, "resource" | "containerResource");
    if name == "object" {
        object_reference(&at.get("describedObject"), false, errors);
    }
    if by_resource && at.get("name").str().is_empty() {
        errors.required(&at.get("name"), "must specify a resource name");
    }
    if name == "containerResource" {
        let resource = at.get("name");
        if !resource.str().is_empty() {
            super::resources::container_resource_name(resource.str(), &resource.path, errors);
        }
        match at.get("container").str() {
            "" => errors.required(&at.get("container"), "must specify a container"),
            _ => rules(at, "container~label", errors),
        }
    }
    if !by_resource {
        match at.at("metric.name").str() {
            "" => errors.required(&at.at("metric.name"), "must specify a metric name"),
            _ => rules(at, "metric.name~segment", errors),
        }
    }
    let target = at.get("target");
    metric_target(&target, errors);
    let (value, average, share) = (target.get("value"), target.get("averageValue"), target.get("averageUtilization"));
    match name {
        _ if by_resource => match (share.is_set(), average.is_set()) {
            (false, false) => errors.required(&share, "must set either a target raw value or a target utilization"),
            (true, true) => {
                errors.forbidden(&average, "may not set both a target raw value and a target utilization");
            }
            _ => {}
        },
        "pods" if !average.is_set() => errors.required(&average, "must specify a positive target averageValue"),
        "object" if !value.is_set() && !average.is_set() => {
            errors.required(&average, "must set either a target value or averageValue");
        }
        "external" if value.is_set() == average.is_set() => {
            if value.is_set() {
                let detail = "may not set both a target value for metric and a per-pod target";
                errors.forbidden(&value, detail);
            } else {
                errors.required(&average, "must set either a target value for metric or a per-pod target");
            }
        }
        _ => {}
    }
}

fn metric_target(at: &At<'_>, errors: &mut Errors) {
    let kind = at.get("type");
    if kind.str().is_empty() {
        errors.required(&kind, "must specify a metric target type");
    }
    if !matches!(kind.str(), "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&kind, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        let at = at.get(field);
        if Quantity::parse(at.str()).is_ok_and(|q| q.is_zero() || q.is_negative()) {
            errors.invalid(&at, "must be positive");
        }
    }
    rules(at, "averageUtilization>0", errors);
}

fn scaling_rules(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let window = at.get("stabilizationWindowSeconds");
    match window.int().unwrap_or(0) {
        ..0 => errors.invalid(&window, "must be greater than or equal to zero"),
        n if n > MAX_WINDOW_SECONDS => {
            errors.invalid(&window, &format!("must be less than or equal to {MAX_WINDOW_SECONDS}"));
        }
        _ => {}
    }
    rules(at, "selectPolicy?=Disabled|Max|Min", errors);
    let policies = at.get("policies");
    if policies.is_empty() {
        errors.required(&policies, "must specify at least one Policy");
    }
    for policy in policies.items() {
        rules(&policy, "type==Percent|Pods", errors);
        for field in ["value", "periodSeconds"] {
            let at = policy.get(field);
            if at.int().unwrap_or(0) <= 0 {
                errors.invalid_value(&at.path, &json!(at.int().unwrap_or(0)), ZERO);
            }
        }
        let period = policy.get("periodSeconds");
        if period.int().is_some_and(|n| n > MAX_PERIOD_SECONDS) {
            errors.invalid(&period, &format!("must be less than or equal to {MAX_PERIOD_SECONDS}"));
        }
    }
    non_negative_quantity(&at.get("tolerance"), errors);
}

/// ValidateNonnegativeQuantity
pub(super) fn non_negative_quantity(at: &At<'_>, errors: &mut Errors) {
    if Quantity::parse(at.str()).is_ok_and(|q| q.is_negative()) {
        errors.invalid(at, NEGATIVE);
    }
}

/// status
pub(super) fn autoscaler_status(new: &At<'_>, errors: &mut Errors) {
    rules(&new.get("status"), "currentReplicas>=0 desiredReplicas>=0", errors);
}
