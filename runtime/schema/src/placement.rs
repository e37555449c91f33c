//! May this pod be on that node: taints and tolerations, node selectors and required node affinity. Pure; the scheduler,
//! the DaemonSet and taint-eviction controllers and the kubelet's own admission all ask here.
//!
//! What depends on other pods (resources, ports, spreading, inter-pod affinity) is the scheduler's.
use crate::Ref;

/// Whether one toleration covers one taint (core/v1 Toleration.ToleratesTaint).
pub fn tolerates(toleration: Ref<'_>, taint: Ref<'_>) -> bool {
    let effect = toleration.get("effect").str();
    let key = toleration.get("key").str();
    if !effect.is_empty() && effect != taint.get("effect").str() || !key.is_empty() && key != taint.get("key").str() {
        return false;
    }
    match toleration.get("operator").str() {
        "" | "Equal" => toleration.get("value").str() == taint.get("value").str(),
        "Exists" => true,
        _ => false,
    }
}

/// The first of `taints` with one of `effects` that no toleration covers.
pub fn untolerated<'a>(taints: Ref<'a>, tolerations: Ref<'_>, effects: &[&str]) -> Option<Ref<'a>> {
    let mut relevant = taints.items().filter(|taint| effects.contains(&taint.get("effect").str()));
    relevant.find(|taint| !tolerations.items().any(|toleration| tolerates(toleration, *taint)))
}

/// spec.nodeSelector and spec.affinity.nodeAffinity's required part against a Node (its root).
pub fn node_matches(pod_spec: Ref<'_>, node: Ref<'_>) -> bool {
    let labels = node.at("metadata.labels");
    if !pod_spec.get("nodeSelector").entries().all(|(name, value)| labels.get(name).as_str() == Some(value.str())) {
        return false;
    }
    let required = pod_spec.at("affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    !required.exists() || node_selector_matches(required, node)
}

/// A NodeSelector: any of its terms. None at all match nothing.
pub fn node_selector_matches(selector: Ref<'_>, node: Ref<'_>) -> bool {
    selector.get("nodeSelectorTerms").items().any(|term| node_selector_term_matches(term, node))
}

/// All expressions of a term; an empty term matches nothing.
pub fn node_selector_term_matches(term: Ref<'_>, node: Ref<'_>) -> bool {
    let labels = node.at("metadata.labels");
    let name = node.at("metadata.name").as_str();
    let mut expressions = term.get("matchExpressions").items().map(|e| (e, labels.get(e.get("key").str()).as_str()));
    let mut fields =
        term.get("matchFields").items().map(|e| (e, name.filter(|_| e.get("key").str() == "metadata.name")));
    let mut some = term.get("matchExpressions").items().chain(term.get("matchFields").items());
    some.next().is_some()
        && expressions.all(|(e, value)| requirement_matches(e, value))
        && fields.all(|(e, value)| requirement_matches(e, value))
}

/// One NodeSelectorRequirement against the value there is.
fn requirement_matches(requirement: Ref<'_>, value: Option<&str>) -> bool {
    let listed = |value: &str| requirement.get("values").items().any(|v| v.str() == value);
    let number = || {
        let bound: i64 = requirement.get("values").items().next()?.str().parse().ok()?;
        Some((value?.parse::<i64>().ok()?, bound))
    };
    match requirement.get("operator").str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(value, bound)| value > bound),
        "Lt" => number().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doc;
    use crate::{Value, json};

    fn doc(value: Value) -> Doc {
        Doc::encode(&value).unwrap()
    }

    #[test]
    fn taints() {
        let check = |tolerations: Value, want: bool| {
            let taints = doc(
                json!({"taints": [{"key": "a", "value": "1", "effect": "NoSchedule"}, {"key": "b", "effect": "PreferNoSchedule"}]}),
            );
            let tolerations = doc(json!({"t": tolerations}));
            let found =
                untolerated(taints.root().get("taints"), tolerations.root().get("t"), &["NoSchedule", "NoExecute"]);
            assert_eq!(found.is_none(), want);
        };
        check(json!([]), false);
        check(json!([{"operator": "Exists"}]), true);
        check(json!([{"key": "a", "value": "1"}]), true);
        check(json!([{"key": "a", "value": "2"}]), false);
        check(json!([{"key": "a", "operator": "Exists", "effect": "NoExecute"}]), false);
        check(json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]), true);
    }

    #[test]
    fn affinity() {
        let node = doc(json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "4"}}}));
        let check =
            |spec: Value, want: bool| assert_eq!(node_matches(doc(spec.clone()).root(), node.root()), want, "{spec}");
        let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
        check(json!({}), true);
        check(json!({"nodeSelector": {"disk": "ssd"}}), true);
        check(json!({"nodeSelector": {"disk": "hdd"}}), false);
        check(required(json!([{}])), false);
        check(required(json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["3"]}]}])), true);
        check(required(json!([{"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["3"]}]}])), false);
        check(
            required(
                json!([{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
            ),
            true,
        );
        check(required(json!([{"matchExpressions": [{"key": "gpu", "operator": "NotIn", "values": ["x"]}]}])), true);
        check(
            required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}])),
            false,
        );
    }
}
