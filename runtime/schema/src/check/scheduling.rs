//! Where a pod may run: tolerations, affinity, spread, gates.
use super::{
    at::{At, Errors},
    meta,
    rules::rules,
    warnings,
};
use crate::Value;
use crate::validate as format;
use std::collections::HashSet;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn validate(spec: &At<'_>, errors: &mut Errors) {
    affinity(&spec.get("affinity"), errors);
    let mut seen = HashSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name").moved(&*gate.path);
        errors.each(&name, format::qualified_name(name.str()));
        if !seen.insert(name.str()) {
            errors.duplicate(&name);
        }
    }
    spread(&spec.get("topologySpreadConstraints"), errors);
    tolerations(&spec.get("tolerations"), errors);
}

/// ValidateTolerations
pub(super) fn tolerations(list: &At<'_>, errors: &mut Errors) {
    for toleration in list.items() {
        let field = |name: &str| toleration.get(name);
        let (key, operator, value, effect) = (field("key"), field("operator"), field("value"), field("effect"));
        if !key.str().is_empty() {
            errors.each(&key, format::qualified_name(key.str()));
        } else if operator.str() != "Exists" {
            errors.invalid(
                &operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if field("tolerationSeconds").is_set() && effect.str() != "NoExecute" {
            errors.invalid(&effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator.str() {
            "" | "Equal" => {
                let messages = format::label_value(value.str());
                if !messages.is_empty() {
                    errors.invalid_value(&operator.path, value.value, &messages.join(";"));
                }
            }
            "Exists" if !value.str().is_empty() => {
                errors.invalid_value(&operator.path, value.value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            "Lt" | "Gt" => errors.unsupported(&operator, &["Equal", "Exists", "Lt", "Gt"]),
            _ => errors.unsupported(&operator, &["Equal", "Exists"]),
        }
        rules(&toleration, "effect=NoSchedule|PreferNoSchedule|NoExecute", errors);
    }
}

fn affinity(at: &At<'_>, errors: &mut Errors) {
    let node = at.get("nodeAffinity");
    if node.get(REQUIRED).is_set() {
        node_selector(&node.get(REQUIRED), errors);
    }
    for term in node.get(PREFERRED).items() {
        weight(&term, errors);
        node_selector_term(&term.get("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = at.get(kind);
        for term in affinity.get(REQUIRED).items() {
            pod_affinity_term(&term, errors);
        }
        for term in affinity.get(PREFERRED).items() {
            weight(&term, errors);
            pod_affinity_term(&term.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &At<'_>, errors: &mut Errors) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        errors.invalid_value(&weight.path, &Value::from(weight.int().unwrap_or(0)), "must be in the range 1-100");
    }
}

/// A pod that waits at a gate may still say better where it belongs: nothing is taken back (validateNodeSelectorMutation,
/// validateNodeAffinityMutation).
pub(super) fn only_narrower(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (labels, before) = (new.get("nodeSelector"), old.get("nodeSelector"));
    if before.members().any(|(key, value)| labels.peek(key) != value) {
        errors.invalid_null(&labels, "only additions to spec.nodeSelector are allowed (no mutations or deletions)");
    }
    let [terms, before] =
        [new, old].map(|spec| spec.at("affinity.nodeAffinity").get(REQUIRED).get("nodeSelectorTerms"));
    if before.is_empty() {
        return;
    }
    if before.len() != terms.len() {
        return errors.invalid_null(&terms, "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
    }
    for (term, before) in terms.items().zip(before.items()) {
        let lists = ["matchExpressions", "matchFields"].map(|name| (term.get(name), before.get(name)));
        let was_empty = lists.iter().all(|(_, before)| before.is_empty());
        let begins = |(list, before): &(At<'_>, At<'_>)| {
            list.len() >= before.len() && before.items().zip(list.items()).all(|(b, l)| b.value == l.value)
        };
        if was_empty && lists.iter().any(|(list, _)| !list.is_empty()) || !lists.iter().all(begins) {
            errors.invalid(&term, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// The same nodes, by labels' new names where they have one.
pub(super) fn is_volume_affinity_kept(new: &At<'_>, old: &At<'_>) -> bool {
    match (new.value, old.value) {
        (Value::Array(n), Value::Array(o)) => {
            n.len() == o.len() && new.items().zip(old.items()).all(|(new, old)| is_volume_affinity_kept(&new, &old))
        }
        (Value::Object(n), Value::Object(_)) => {
            let key = (new.get("key"), old.get("key"));
            let renamed = warnings::successor(key.1.str()).is_some_and(|name| name == key.0.str());
            let keys = n.keys().map(|name| name.as_str()).chain(old.members().map(|(name, _)| name));
            keys.into_iter()
                .all(|name| name == "key" && renamed || is_volume_affinity_kept(&new.get(name), &old.get(name)))
        }
        // An empty list or map is none.
        _ => new.value == old.value || new.value.is_null() && old.is_empty() || old.value.is_null() && new.is_empty(),
    }
}

/// ValidateNodeSelector
pub(super) fn node_selector(at: &At<'_>, errors: &mut Errors) {
    let terms = at.get("nodeSelectorTerms");
    if terms.is_empty() {
        return errors.required(&terms, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, true, errors);
    }
}

/// What is only preferred may name values that no label has; who does is warned.
fn node_selector_term(term: &At<'_>, required: bool, errors: &mut Errors) {
    for requirement in term.get("matchExpressions").items() {
        let (operator, values, key) = (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
        match operator.str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.len() != 1 => {
                errors.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        errors.each(&key, format::qualified_name(key.str()));
        for value in values.items().filter(|_| required) {
            errors.each(&value, format::label_value(value.str()));
        }
    }
    for requirement in term.get("matchFields").items() {
        let (operator, values, key) = (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
        match operator.str() {
            "In" | "NotIn" if values.len() != 1 => {
                errors.required(
                    &values,
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
                );
            }
            "In" | "NotIn" => {}
            _ => errors.invalid(&operator, "not a valid selector operator"),
        }
        if key.str() != "metadata.name" {
            errors.invalid(&key, "not a valid field selector key");
        } else {
            for value in values.items() {
                errors.each(&value, format::dns1123_subdomain(value.str()));
            }
        }
    }
}

/// validatePodAffinityTerm
fn pod_affinity_term(term: &At<'_>, errors: &mut Errors) {
    meta::label_selector(&term.get("labelSelector"), errors);
    meta::label_selector(&term.get("namespaceSelector"), errors);
    for namespace in term.get("namespaces").items() {
        errors.each(&namespace.moved(format!("{}.namespace", term.path)), format::dns1123_label(namespace.str()));
    }
    label_keys(term, errors);
    let key = term.get("topologyKey");
    if key.str().is_empty() {
        errors.required(&key, "can not be empty");
    }
    errors.each(&key, format::qualified_name(key.str()));
}

/// ValidateMatchLabelKeysAndMismatchLabelKeys
fn label_keys(at: &At<'_>, errors: &mut Errors) {
    let (keys, others, selector) = (at.get("matchLabelKeys"), at.get("mismatchLabelKeys"), at.get("labelSelector"));
    for list in [&keys, &others] {
        if !list.is_empty() && !selector.is_set() {
            errors.forbidden(list, "must not be specified when labelSelector is not set");
        } else {
            list.items().for_each(|key| errors.each(&key, format::qualified_name(key.str())));
        }
    }
    let mut selected: Vec<&str> = selector.get("matchLabels").members().map(|(key, _)| key).collect();
    for key in selector.get("matchExpressions").items().map(|e| e.get("key").str()) {
        if let Some(place) = keys.items().position(|k| k.str() == key).filter(|_| selected.contains(&key)) {
            let path = format!("{}[{place}]", at.path);
            errors.invalid_value(&path, &Value::from(key), "exists in both matchLabelKeys and labelSelector");
        }
        selected.push(key);
    }
    for key in keys.items().filter(|key| others.items().any(|other| other.str() == key.str())) {
        errors.invalid(&key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

const ZERO: &str = "must be greater than zero";

fn spread(list: &At<'_>, errors: &mut Errors) {
    for (place, constraint) in list.items().enumerate() {
        let (skew, key, action) =
            (constraint.get("maxSkew"), constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
        if skew.int().unwrap_or(0) <= 0 {
            errors.invalid_value(&skew.path, &Value::from(skew.int().unwrap_or(0)), ZERO);
        }
        let domains = constraint.get("minDomains");
        if domains.is_set() && domains.int().unwrap_or(0) <= 0 {
            errors.invalid(&domains, ZERO);
        }
        if key.str().is_empty() {
            errors.required(&key, "can not be empty");
        }
        if action.str().is_empty() {
            errors.unsupported(&action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let pair = |at: &At<'_>| (at.get("topologyKey").value.clone(), at.get("whenUnsatisfiable").value.clone());
        // The first of two equal ones is to blame.
        for _ in list.items().skip(place + 1).filter(|later| pair(later) == pair(&constraint)) {
            let both = format!("{{{}, {}}}", key.str(), action.str());
            let path = format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path);
            errors.0.push(crate::Cause::duplicate(path, &Value::from(both)));
        }
        if domains.is_set() && action.str() != "DoNotSchedule" {
            let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.str());
            errors.invalid(&domains, &detail);
        }
        rules(&constraint, "nodeAffinityPolicy=Honor|Ignore nodeTaintsPolicy=Honor|Ignore", errors);
        label_keys(&constraint, errors);
        meta::label_selector(&constraint.get("labelSelector"), errors);
    }
}
