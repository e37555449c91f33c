//! What a resize of a pod may change: CPU and memory of its containers and its own, and nothing may be taken away
//! (ValidatePodResize).
use super::{
    at::{At, Errors},
    pod,
};
use crate::Gather as _;
use crate::{Map, Value, prepare};

const MIRROR: &str = "kubernetes.io/config.mirror";
const ONLY: &str = "only cpu and memory resources are mutable";

pub(super) fn update(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    let Some(old) = old else { return pod::pod_spec(&spec, true, &[], errors) };
    let before = old.get("spec");
    let refused = if old.at("metadata.annotations").key(MIRROR).is_set() {
        Some("static pods cannot be resized")
    } else if before.at("os.name").str() == "windows" {
        Some("windows pods cannot be resized")
    } else {
        None
    };
    if let Some(why) = refused {
        // Upstream says this and nothing else.
        errors.0.clear();
        return errors.forbidden(&new.moved(""), why);
    }
    pod::pod_spec(&spec, true, &[], errors);
    if prepare::qos_class(spec.value) != prepare::qos_class(before.value) {
        let class = new.at("status.qosClass");
        errors.invalid_value("spec", class.value, "Pod QOS Class may not change as a result of resizing");
    }
    let mut statuses = old.at("status.containerStatuses").items();
    let running = statuses.find(|status| status.at("state.running").is_set());
    if running.is_some_and(|status| !status.get("resources").is_set()) {
        errors.forbidden(&spec, "Pod running on node without support for resize");
    }
    own(&spec, &before, errors);
    let mut same = true;
    for list in ["containers", "initContainers"] {
        same &= ordered(&spec.get(list), &before.get(list), list, errors);
    }
    if !same {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (new, old) in spec.get(list).items().zip(before.get(list).items()) {
            for (list, what) in [("requests", "resource requests"), ("limits", "resource limits")] {
                let (new, old) = (new.get("resources").get(list), old.get("resources").get(list));
                if removed(&new, &old) {
                    errors.forbidden(&new, &format!("{what} cannot be removed"));
                }
            }
        }
    }
    for (new, old) in spec.get("containers").items().zip(before.get("containers").items()) {
        if is_otherwise_changed(&new, &old) {
            errors.forbidden(&spec, ONLY);
        }
    }
    for (new, old) in spec.get("initContainers").items().zip(before.get("initContainers").items()) {
        let (now, was) = (new.get("resources"), old.get("resources"));
        if is_otherwise_changed(&new, &old) {
            errors.forbidden(&new, "only cpu and memory resources for init or sidecar containers are mutable");
        }
        if now.value != was.value && new.get("restartPolicy").str() != "Always" {
            let restarts = |policy: &At<'_>| policy.get("restartPolicy").str() == "RestartContainer";
            for _ in new.get("resizePolicy").items().filter(restarts) {
                let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.forbidden(&new, why);
            }
        }
    }
}

/// What a resize may say of a container beside its CPU and memory, which must be as it was.
fn is_otherwise_changed(new: &At<'_>, old: &At<'_>) -> bool {
    fixed(&new.get("resources")) != fixed(&old.get("resources"))
        || new.get("resizePolicy").value != old.get("resizePolicy").value
}

/// The pod's own resources.
fn own(spec: &At<'_>, before: &At<'_>, errors: &mut Errors) {
    let (now, was) = (spec.get("resources"), before.get("resources"));
    if was.is_set() && !now.is_set() {
        return errors.forbidden(&now, "pod-level resources cannot be removed");
    }
    for (list, what) in [("requests", "pod-level resource requests"), ("limits", "pod-level resource limits")] {
        if removed(&now.get(list), &was.get(list)) {
            errors.forbidden(&now.get(list), &format!("{what} cannot be removed"));
        }
    }
    if fixed(&now) != fixed(&was) {
        errors.forbidden(spec, "only cpu and memory resources are mutable at pod-level");
    }
}

fn ordered(new: &At<'_>, old: &At<'_>, list: &str, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        errors.forbidden(new, &format!("{list} may not be added or removed on resize"));
        return false;
    }
    let mut same = true;
    for (new, old) in new.items().zip(old.items()) {
        if new.get("name").value != old.get("name").value {
            errors.forbidden(&new.get("name"), &format!("{list} may not be renamed or reordered on resize"));
            same = false;
        }
    }
    same
}

fn removed(new: &At<'_>, old: &At<'_>) -> bool {
    old.members().any(|(name, _)| !new.get(name).is_set())
}

/// Amounts by name.
type Amounts<'v> = Vec<(&'v str, &'v Value)>;

/// What of resources is not CPU or memory: claims, and lists without these two; an empty list is none.
fn fixed<'v>(resources: &At<'v>) -> Vec<(&'v str, Amounts<'v>, &'v Value)> {
    let list = |value: &'v Value| -> Amounts<'v> {
        let members = value.as_object().into_iter().flat_map(Map::iter);
        members
            .map(|(name, amount)| (name.as_str(), amount))
            .filter(|(name, _)| !matches!(*name, "cpu" | "memory"))
            .gather()
    };
    let each = resources.members().map(|(name, value)| match name {
        "claims" => (name, Vec::new(), value),
        _ => (name, list(value), &Value::Null),
    });
    each.filter(|(_, members, claims)| !members.is_empty() || !claims.is_null()).gather()
}
