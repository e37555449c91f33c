//! Pods: quality of service, scheduling gates, and what each subresource may change (pkg/registry/core/pod/strategy.go).
use super::{Members, RESET_FOR_STATUS, replace_all_but, reset_metadata, set_in};
use crate::quantity::Quantity;
use crate::{Value, json};
use std::collections::BTreeMap;

pub(super) fn create(map: &mut Members) {
    let Some(spec) = map.get("spec") else { return };
    let gated = spec.get("schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty());
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(spec)});
    if gated {
        let now = map.get("metadata").and_then(|metadata| metadata.get("creationTimestamp"));
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates", "lastProbeTime": null,
            "lastTransitionTime": now}]);
    }
    map.insert("status".into(), status);
    label_keys(map);
}

/// matchLabelKeys and mismatchLabelKeys become requirements on the pod's own labels (applyMatchLabelKeysAndMismatchLabelKeys,
/// mutateTopologySpreadConstraints).
fn label_keys(map: &mut Members) {
    let labels = map.get("metadata").and_then(|m| m.get("labels")).and_then(Value::as_object).cloned();
    let Some(labels) = labels else { return };
    let Some(spec) = map.get_mut("spec") else { return };
    for affinity in ["podAffinity", "podAntiAffinity"] {
        for (list, inner) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", ""),
            ("preferredDuringSchedulingIgnoredDuringExecution", "podAffinityTerm"),
        ] {
            let terms = spec.get_mut("affinity").and_then(|a| a.get_mut(affinity)?.get_mut(list)?.as_array_mut());
            for term in terms.into_iter().flatten() {
                let term = if inner.is_empty() { Some(term) } else { term.get_mut(inner) };
                if let Some(Value::Object(term)) = term {
                    require(term, &labels, "matchLabelKeys", "In");
                    require(term, &labels, "mismatchLabelKeys", "NotIn");
                }
            }
        }
    }
    let constraints = spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten().filter_map(Value::as_object_mut) {
        require(constraint, &labels, "matchLabelKeys", "In");
    }
}

/// Adds one requirement per key that the pod has a label for; without a selector there is nothing to narrow.
fn require(term: &mut Members, labels: &Members, keys: &str, operator: &str) {
    let keys: Vec<String> = term
        .get(keys)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect();
    let Some(Value::Object(selector)) = term.get_mut("labelSelector") else { return };
    for key in keys {
        if let (Some(value), Some(list)) =
            (labels.get(&key), selector.entry("matchExpressions").or_insert_with(|| json!([])).as_array_mut())
        {
            list.push(json!({"key": key, "operator": operator, "values": [value]}));
        }
    }
}

pub(super) fn status(old: &Value, map: &mut Members) {
    for field in ["ownerReferences", "deletionTimestamp"] {
        set_in(map, "metadata", field, old["metadata"].get(field).cloned());
    }
    let Some(Value::Object(status)) = map.get_mut("status") else { return };
    let old = &old["status"];
    for field in ["qosClass", "observedGeneration"] {
        if !status.contains_key(field)
            && let Some(value) = old.get(field)
        {
            status.insert(field.into(), value.clone());
        }
    }
    // A list and its first element are one thing twice (pkg/apis/core/v1/conversion.go).
    for (one, many, inner) in [("podIP", "podIPs", "ip"), ("hostIP", "hostIPs", "ip")] {
        match (status.get(one).cloned(), status.get(many).and_then(|l| l.get(0)?.get(inner)).cloned()) {
            (Some(address), None) if address != "" => {
                status.insert(many.into(), json!([{inner: address}]));
            }
            (None, Some(address)) => {
                status.insert(one.into(), address);
            }
            _ => {}
        }
    }
}

/// Only resources and resize policies of containers that are still the same ones.
pub(super) fn resize(old: &Value, map: &mut Members) {
    let new_spec = map.get("spec").cloned().unwrap_or_default();
    let same = |list: &str| {
        let names = |spec: &Value| -> Vec<Value> {
            spec.get(list).and_then(Value::as_array).into_iter().flatten().map(|c| c["name"].clone()).collect()
        };
        names(&new_spec) == names(&old["spec"])
    };
    if !same("containers") || !same("initContainers") {
        // Validation refuses this update; it shows what was asked for.
        return;
    }
    replace_all_but(map, old, &["metadata"]);
    reset_metadata(map, old, &RESET_FOR_STATUS);
    set_in(map, "spec", "resources", new_spec.get("resources").cloned());
    let Some(spec) = map.get_mut("spec") else { return };
    for list in ["containers", "initContainers"] {
        let new = new_spec.get(list).and_then(Value::as_array).into_iter().flatten();
        let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, new) in containers.filter_map(Value::as_object_mut).zip(new) {
            for field in ["resources", "resizePolicy"] {
                match new.get(field) {
                    Some(value) => container.insert(field.into(), value.clone()),
                    None => container.remove(field),
                };
            }
        }
    }
}

/// "Guaranteed", "Burstable" or "BestEffort" (pkg/apis/core/v1/helper/qos/qos.go): cpu and memory count, zeros do not.
pub fn qos_class(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    if let Some(resources) = spec.get("resources").filter(|r| r.get("requests").is_some() || r.get("limits").is_some())
    {
        add(resources, "requests", &mut requests);
        guaranteed = add(resources, "limits", &mut limits) == 2;
    } else {
        for list in ["containers", "initContainers"] {
            for container in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
                let Some(resources) = container.get("resources") else {
                    guaranteed = false;
                    continue;
                };
                add(resources, "requests", &mut requests);
                guaranteed &= add(resources, "limits", &mut limits) == 2;
            }
        }
    }
    match () {
        () if requests.is_empty() && limits.is_empty() => "BestEffort",
        () if guaranteed && requests == limits => "Guaranteed",
        () => "Burstable",
    }
}

/// Adds what is more than zero; how many kinds of resource that were.
fn add(resources: &Value, list: &str, sums: &mut BTreeMap<&'static str, Quantity>) -> usize {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let text = resources.get(list).and_then(|l| l.get(name)).and_then(Value::as_str);
        if let Some(quantity) = text.and_then(|t| Quantity::parse(t).ok()).filter(|q| !q.is_zero() && !q.is_negative())
        {
            found += 1;
            let sum = sums.entry(name).or_insert_with(|| Quantity::new(0, quantity.format()));
            *sum = *sum + quantity;
        }
    }
    found
}
