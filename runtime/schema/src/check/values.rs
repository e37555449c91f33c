//! Closed sets of values (`+enum`), checked wherever the table has one in what the user asks for.
use super::at::{At, Errors};
use crate::{
    Kind,
    table::{Container, Shape, Table, TypeId},
};

/// Fields that upstream words in its own way; their checks are in the files of their kinds.
const WORDED_ELSEWHERE: &[(&str, &str)] = &[
    ("ResourceQuotaSpec", "scopes"),
    ("StorageClass", "reclaimPolicy"),
    ("MutatingWebhook", "sideEffects"),
    ("ValidatingWebhook", "sideEffects"),
    ("Lifecycle", "stopSignal"),
    ("HostPathVolumeSource", "type"),
    ("VolumeMount", "mountPropagation"),
    ("ImageVolumeSource", "pullPolicy"),
    ("AzureDiskVolumeSource", "*"),
    ("LabelSelectorRequirement", "operator"),
    ("NodeSelectorRequirement", "operator"),
    ("ScopedResourceSelectorRequirement", "*"),
    ("FieldSelectorRequirement", "operator"),
    ("Toleration", "*"),
    ("DeploymentStrategy", "type"),
    ("DaemonSetUpdateStrategy", "type"),
    ("StatefulSetUpdateStrategy", "type"),
    ("StatefulSetSpec", "podManagementPolicy"),
    ("HTTPIngressPath", "pathType"),
    ("PodSpec", "restartPolicy"),
    ("Secret", "type"),
    ("TopologySpreadConstraint", "nodeAffinityPolicy"),
    ("TopologySpreadConstraint", "nodeTaintsPolicy"),
    ("Taint", "effect"),
    ("DeviceTaint", "effect"),
    ("DeviceToleration", "effect"),
    ("DeviceToleration", "operator"),
    ("NetworkPolicyPort", "protocol"),
    ("JobSpec", "podReplacementPolicy"),
    ("HPAScalingRules", "*"),
    ("HPAScalingPolicy", "*"),
    ("Container", "restartPolicy"),
    ("PersistentVolumeClaimSpec", "accessModes"),
    ("PersistentVolumeSpec", "accessModes"),
];

/// Pointers, for which "" is not the same as nothing.
const POINTERS: &[(&str, &str)] = &[
    ("SecurityContext", "procMount"),
    ("JobSpec", "completionMode"),
    ("ServiceSpec", "ipFamilyPolicy"),
    ("ServiceSpec", "internalTrafficPolicy"),
    ("PersistentVolumeClaimSpec", "volumeMode"),
    ("PersistentVolumeSpec", "volumeMode"),
    ("StorageClass", "volumeBindingMode"),
    ("PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy"),
    ("EndpointPort", "protocol"),
    ("ValidatingWebhook", "failurePolicy"),
    ("ValidatingWebhook", "matchPolicy"),
    ("MutatingWebhook", "failurePolicy"),
    ("MutatingWebhook", "matchPolicy"),
    ("MutatingWebhook", "reinvocationPolicy"),
    ("RuleWithOperations", "scope"),
];

const MAX_DEPTH: usize = 64;

pub(super) fn closed_sets(kind: &Kind, root: &At<'_>, errors: &mut Errors) {
    // Policies are held to theirs where their expressions are.
    if kind.kind.contains("AdmissionPolicy") {
        return;
    }
    let table = kind.table();
    for field in table.fields(kind.root) {
        let name = table.name(field);
        if name != "metadata" && name != "status" {
            check(table, kind.root, name, root, errors, 0);
        }
    }
}

fn check(table: &Table, owner: TypeId, name: &str, at: &At<'_>, errors: &mut Errors, depth: usize) {
    let Some(field) = table.field(owner, name) else { return };
    let value = at.get(name);
    if !value.is_set() || depth > MAX_DEPTH {
        return;
    }
    if let Shape::Object(id) = field.shape {
        let mut inside = |at: &At<'_>| {
            for (name, _) in at.members() {
                check(table, id, name, at, errors, depth + 1);
            }
        };
        match field.container {
            Container::One => inside(&value),
            Container::List => value.items().for_each(|at| inside(&at)),
            Container::Map | Container::MapOfLists => {
                value.members().for_each(|(key, _)| inside(&value.key(key)));
            }
        }
        return;
    }
    let mut supported = table.values(field).peekable();
    let owner = table.type_name(owner);
    if supported.peek().is_none() || WORDED_ELSEWHERE.iter().any(|(o, n)| *o == owner && (*n == name || *n == "*")) {
        return;
    }
    let supported: Vec<&str> = supported.collect();
    let is_pointer = || POINTERS.contains(&(owner, name));
    let may_be_empty = field.container == Container::One && !is_pointer();
    let mut one = |at: &At<'_>| {
        let is_fine = supported.contains(&at.str()) || may_be_empty && at.str().is_empty();
        if !is_fine {
            errors.unsupported(at, &supported);
        }
    };
    match field.container {
        Container::One => one(&value),
        _ => value.items().for_each(|at| one(&at)),
    }
}
