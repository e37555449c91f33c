//! What every new Pod and Node gets: DefaultTolerationSeconds, TaintNodesByCondition
//! (plugin/pkg/admission/{defaulttolerationseconds,nodetaint}).
use super::Attributes;
use mote_schema::Status;
use mote_schema::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

fn tolerations(pod: &mut Value) -> Option<&mut Vec<Value>> {
    let list = &mut pod["spec"]["tolerations"];
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut()
}

/// Five minutes before a pod leaves a node that is not ready or unreachable, unless the pod says otherwise. An update
/// that replaces the list gets them again, and so takes none away.
pub(super) fn default_tolerations(attributes: &mut Attributes<'_, '_>, pod: &mut Value) -> Result<(), Status> {
    if attributes.is_main("", "pods") && pod.is_object() {
        tolerate(pod);
    }
    Ok(())
}

fn tolerate(pod: &mut Value) {
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

/// A new node takes no pods until it says that it is ready.
pub(super) fn taint_new_node(attributes: &mut Attributes<'_, '_>, node: &mut Value) -> Result<(), Status> {
    if !attributes.is_create() || !attributes.is_main("", "nodes") {
        return Ok(());
    }
    let taints = &mut node["spec"]["taints"];
    if !taints.is_array() {
        *taints = json!([]);
    }
    if let Some(list) = taints.as_array_mut()
        && !list.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule")
    {
        list.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
    Ok(())
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
            tolerate(&mut pod);
            assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(expected), "{pod}");
        }
    }
}
