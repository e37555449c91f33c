//! Kinds of the cluster as a whole: Namespace, Node, LimitRange, ResourceQuota, Lease, PriorityClass, RuntimeClass.
use super::{
    at::{At, Errors, NEGATIVE},
    meta,
};
use crate::{quantity::Quantity, validate as format};
use serde_json::Value;
use std::collections::HashSet;

pub(super) fn namespace(new: &At<'_>, errors: &mut Errors) {
    for finalizer in new.at("spec.finalizers").items() {
        let at = finalizer.moved("spec.finalizers");
        errors.each(&at, format::qualified_name(at.str()));
        meta::known_finalizer(&at, errors);
    }
}

pub(super) fn node(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    taints(&new.at("spec.taints").moved("metadata.taints"), errors);
    for cidr in new.at("spec.podCIDRs").items() {
        errors.each(&cidr, format::cidr_legacy(cidr.str()));
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

pub(super) fn limit_range(new: &At<'_>, errors: &mut Errors) {
    let mut types = HashSet::new();
    for item in new.at("spec.limits").items() {
        let kind = item.get("type");
        if !types.insert(kind.str()) {
            errors.duplicate(&kind);
        }
        if kind.str() == "Pod" {
            for field in ["default", "defaultRequest"] {
                if !item.get(field).is_empty() {
                    errors.forbidden(&item.get(field), "may not be specified when `type` is 'Pod'");
                }
            }
        }
        let order = [
            ("min", "max"),
            ("min", "default"),
            ("min", "defaultRequest"),
            ("defaultRequest", "default"),
            ("defaultRequest", "max"),
            ("default", "max"),
        ];
        for (low, high) in order {
            let highs = item.get(high);
            for (name, value) in item.get(low).members() {
                let Some((a, b)) = quantity(value).zip(highs.value.get(name).and_then(quantity)) else { continue };
                if a > b {
                    let (low, high) = match (low, high) {
                        ("defaultRequest", _) => ("default request", high),
                        (_, "defaultRequest") => (low, "default request"),
                        other => other,
                    };
                    let detail = format!("{low} value {a} is greater than {high} value {b}");
                    // Upstream points at the larger one's name for a minimum, at the smaller one's otherwise.
                    let at = item.get(if low == "min" {
                        "min"
                    } else if low == "default request" {
                        "defaultRequest"
                    } else {
                        "default"
                    });
                    errors.invalid_value(&at.key(name).path, value, &detail);
                }
            }
        }
    }
}

pub(super) fn resource_quota(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let hard = new.at("spec.hard");
    for (name, value) in hard.members() {
        let at = hard.key(name);
        for message in format::qualified_name(name) {
            errors.invalid_value(&at.path, &Value::from(name), &message);
        }
        if quantity(value).is_some_and(|q| q.is_negative()) {
            errors.invalid(&at, NEGATIVE);
        }
        let counted = matches!(
            name,
            "pods"
                | "services"
                | "secrets"
                | "configmaps"
                | "replicationcontrollers"
                | "resourcequotas"
                | "persistentvolumeclaims"
                | "services.nodeports"
                | "services.loadbalancers"
        ) || name.starts_with("count/");
        if counted && quantity(value).is_some_and(|q| q.milli_value() % 1000 != 0) {
            errors.invalid(&at, "must be an integer");
        }
    }
    if let Some(old) = old {
        let scopes = |at: &At<'_>| at.at("spec.scopes").items().map(|s| s.str().to_owned()).collect::<HashSet<_>>();
        if scopes(new) != scopes(old) {
            errors.invalid(&new.at("spec.scopes"), "field is immutable");
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
    let holder = spec.get("preferredHolder");
    if !holder.str().is_empty() && spec.get("strategy").str().is_empty() {
        errors.forbidden(&holder, "may only be specified if `strategy` is defined");
    }
}

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

pub(super) fn priority_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let value = new.get("value");
    if !new.at("metadata.name").str().starts_with("system-") && value.int().unwrap_or(0) > HIGHEST_USER_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
        errors.forbidden(&value, &detail);
    }
    if let Some(old) = old {
        if value.int() != old.get("value").int() {
            errors.forbidden(&value, "may not be changed in an update.");
        }
        errors.immutable(&new.get("preemptionPolicy"), &old.get("preemptionPolicy"));
    }
}

pub(super) fn runtime_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let handler = new.get("handler");
    errors.each(&handler, format::dns1123_label(handler.str()));
    if let Some(old) = old {
        errors.immutable(&handler, &old.get("handler"));
    }
}
