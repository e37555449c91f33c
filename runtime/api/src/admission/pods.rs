//! What every new Pod and Node gets: Priority, DefaultTolerationSeconds, TaintNodesByCondition
//! (plugin/pkg/admission/{priority,defaulttolerationseconds,nodetaint,podtolerationrestriction}).
use crate::{feed, server::Api};
use mote_schema::Status;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

/// spec.priority and preemptionPolicy from the class, the global default class, or 0.
pub(super) fn resolve_priority(api: &Api, pod: &mut Value) -> Result<(), Status> {
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("scheduling.k8s.io", "v1", "priorityclasses") else { return Ok(()) };
    let named = pod["spec"]["priorityClassName"].as_str().unwrap_or("").to_owned();
    let refuse =
        |detail: &str| Err(Status::forbidden("", "pods", pod["metadata"]["name"].as_str().unwrap_or(""), detail));
    let class = if named.is_empty() {
        let snapshot = api.store.snapshot();
        let classes = snapshot.range(&kind.prefix, None).map(|entry| feed::object(kind, &entry));
        // Of several defaults the one with the lowest value counts.
        classes
            .filter(|class| class.root().get("globalDefault").as_bool() == Some(true))
            .min_by_key(|class| class.root().get("value").as_i64())
    } else {
        match api.get(kind, "", &named) {
            Ok(class) => Some(class),
            Err(_) => return refuse(&format!("no PriorityClass with name {named} was found")),
        }
    };
    let value = class.as_ref().and_then(|class| class.root().get("value").as_i64()).unwrap_or(0);
    if pod["spec"].get("priority").and_then(Value::as_i64).is_some_and(|given| given != value) {
        return refuse(&format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
            pod["spec"]["priority"]
        ));
    }
    let policy = class.as_ref().and_then(|class| class.root().get("preemptionPolicy").as_str().map(str::to_owned));
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned());
    if pod["spec"].get("preemptionPolicy").and_then(Value::as_str).is_some_and(|given| given != policy) {
        return refuse(&format!(
            "the string value of PreemptionPolicy ({}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name",
            pod["spec"]["preemptionPolicy"].as_str().unwrap_or("")
        ));
    }
    if let (true, Some(class)) = (named.is_empty(), &class) {
        pod["spec"]["priorityClassName"] = Value::from(class.name());
    }
    pod["spec"]["priority"] = Value::from(value);
    pod["spec"]["preemptionPolicy"] = Value::from(policy);
    Ok(())
}

fn tolerations(pod: &mut Value) -> Option<&mut Vec<Value>> {
    let list = &mut pod["spec"]["tolerations"];
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut()
}

/// Five minutes before a pod leaves a node that is not ready or unreachable, unless the pod says otherwise.
pub(super) fn default_tolerations(pod: &mut Value) {
    let Some(list) = tolerations(pod) else { return };
    for key in [NOT_READY, UNREACHABLE] {
        let covered = list.iter().any(|toleration| {
            let matches_key = matches!(toleration["key"].as_str(), None | Some("")) || toleration["key"] == key;
            matches_key && matches!(toleration["effect"].as_str(), None | Some("" | "NoExecute"))
        });
        if !covered {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": DEFAULT_TOLERATION_SECONDS}));
        }
    }
}

/// Pods that are not BestEffort stay when memory runs short (podtolerationrestriction does it with this toleration).
pub(super) fn taint_by_condition(pod: &mut Value) {
    if matches!(pod["status"]["qosClass"].as_str(), None | Some("" | "BestEffort")) && best_effort(pod) {
        return;
    }
    let Some(list) = tolerations(pod) else { return };
    if !list.iter().any(|toleration| toleration["key"] == MEMORY_PRESSURE) {
        list.push(json!({"key": MEMORY_PRESSURE, "operator": "Exists", "effect": "NoSchedule"}));
    }
}

fn best_effort(pod: &Value) -> bool {
    let containers = ["containers", "initContainers"].into_iter();
    !containers.flat_map(|field| pod["spec"][field].as_array().into_iter().flatten()).any(|container| {
        ["requests", "limits"].iter().any(|side| {
            let side = &container["resources"][*side];
            side.get("cpu").is_some() || side.get("memory").is_some()
        })
    })
}

/// A new node takes no pods until it says that it is ready.
pub(super) fn taint_new_node(node: &mut Value) {
    let taints = &mut node["spec"]["taints"];
    if !taints.is_array() {
        *taints = json!([]);
    }
    if let Some(list) = taints.as_array_mut()
        && !list.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
    {
        list.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_are_added_once_and_only_where_none_covers_the_taint() {
        for (given, expected) in [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 1),
            (json!([{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute"}]), 2),
            (json!([{"key": NOT_READY, "effect": "NoSchedule"}]), 3),
        ] {
            let mut pod = json!({"spec": {"tolerations": given}});
            default_tolerations(&mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(expected), "{pod}");
        }
    }

    #[test]
    fn memory_pressure_is_tolerated_by_pods_with_requests() {
        let mut pod = json!({"spec": {"containers": [{"resources": {"requests": {"memory": "1Mi"}}}]}});
        taint_by_condition(&mut pod);
        assert_eq!(pod["spec"]["tolerations"][0]["key"], MEMORY_PRESSURE);
        let mut pod = json!({"spec": {"containers": [{}]}});
        taint_by_condition(&mut pod);
        assert!(pod["spec"].get("tolerations").is_none());
    }
}
