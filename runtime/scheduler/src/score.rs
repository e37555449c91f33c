//! Among nodes that can take the pod, which is best: upstream's default scores and weights, 0 to 100 each.
use crate::{
    cluster::{Node, Pod},
    relations::{NamespaceMatches, PREFERRED, Term, spread_selector},
    resources::Resources,
};
use mote_schema::placement::{node_selector_term_matches, tolerates};

const MAX: i64 = 100;
/// What a pod without requests is taken to use, so that many of them do not pile up on one node.
const DEFAULT_CPU_MILLI: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;
/// ImageLocality counts between these.
const IMAGE_MIN_BYTES: i64 = 23 << 20;
const IMAGE_MAX_BYTES: i64 = 1000 << 20;

/// The index of the best of `nodes`; ties go to the first.
pub fn best(pod: &Pod, nodes: &[&Node], namespaces: NamespaceMatches<'_>) -> Option<usize> {
    let mut totals = vec![0i64; nodes.len()];
    let mut add = |scores: Vec<i64>, weight: i64| {
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += score * weight);
    };
    add(nodes.iter().map(|n| least_allocated(pod, n)).collect(), 1);
    add(nodes.iter().map(|n| balanced(pod, n)).collect(), 1);
    add(nodes.iter().map(|n| images(pod, n, nodes)).collect(), 1);
    add(inverted(nodes.iter().map(|n| untolerated_soft(pod, n)).collect()), 3);
    add(normalized(nodes.iter().map(|n| preferred_node(pod, n)).collect()), 2);
    add(normalized(preferred_pods(pod, nodes, namespaces)), 2);
    add(inverted(soft_spread(pod, nodes)), 2);
    let best = totals.iter().copied().max()?;
    totals.iter().position(|total| *total == best)
}

/// The largest becomes 100; negative ones are first shifted to start at 0.
fn normalized(scores: Vec<i64>) -> Vec<i64> {
    let least = scores.iter().copied().min().unwrap_or(0).min(0);
    let most = scores.iter().copied().max().unwrap_or(0) - least;
    scores.into_iter().map(|score| if most == 0 { 0 } else { (score - least) * MAX / most }).collect()
}

/// The fewer the better.
fn inverted(counts: Vec<i64>) -> Vec<i64> {
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.into_iter().map(|count| if most == 0 { MAX } else { MAX - count * MAX / most }).collect()
}

/// (used, has) for cpu and memory with the pod added.
fn usage(pod: &Pod, node: &Node) -> [(i64, i64); 2] {
    let weigh = |r: &Resources| {
        let or = |amount: i64, default: i64| if amount == 0 { default } else { amount };
        (or(r.cpu_milli, DEFAULT_CPU_MILLI), or(r.memory_bytes, DEFAULT_MEMORY_BYTES))
    };
    let (mut cpu, mut memory) = weigh(&pod.requests);
    for other in node.pods.values() {
        let (c, m) = weigh(&other.requests);
        cpu += c;
        memory += m;
    }
    [(cpu, node.allocatable.cpu_milli), (memory, node.allocatable.memory_bytes)]
}

fn least_allocated(pod: &Pod, node: &Node) -> i64 {
    let score = |(used, has): &(i64, i64)| if *has <= 0 || used > has { 0 } else { (has - used) * MAX / has };
    usage(pod, node).iter().map(score).sum::<i64>() / 2
}

fn balanced(pod: &Pod, node: &Node) -> i64 {
    let fraction = |(used, has): (i64, i64)| if has <= 0 { 1.0 } else { (used as f64 / has as f64).min(1.0) };
    let [cpu, memory] = usage(pod, node).map(fraction);
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64
}

/// Bytes of the pod's images that the node has, counted less for images that few nodes have.
fn images(pod: &Pod, node: &Node, nodes: &[&Node]) -> i64 {
    let size_on = |node: &Node, image: &str| {
        let mut images = node.object.root().at("status.images").items();
        let found = images.find(|i| i.get("names").items().any(|n| n.str() == image))?;
        found.get("sizeBytes").as_i64()
    };
    let containers: Vec<&str> = pod.spec().get("containers").items().map(|c| c.get("image").str()).collect();
    let bytes: i64 = containers
        .iter()
        .filter_map(|image| {
            let size = size_on(node, image)?;
            let holders = nodes.iter().filter(|n| size_on(n, image).is_some()).count() as i64;
            Some(size.saturating_mul(holders) / nodes.len() as i64)
        })
        .sum();
    let most = IMAGE_MAX_BYTES * containers.len().max(1) as i64;
    (bytes.clamp(IMAGE_MIN_BYTES, most) - IMAGE_MIN_BYTES) * MAX / (most - IMAGE_MIN_BYTES)
}

fn untolerated_soft(pod: &Pod, node: &Node) -> i64 {
    let taints = node.object.root().at("spec.taints").items();
    let soft = taints.filter(|t| t.get("effect").str() == "PreferNoSchedule");
    soft.filter(|taint| !pod.spec().get("tolerations").items().any(|t| tolerates(t, *taint))).count() as i64
}

fn preferred_node(pod: &Pod, node: &Node) -> i64 {
    let terms = pod.spec().at("affinity.nodeAffinity").get(PREFERRED).items();
    let matching = terms.filter(|t| node_selector_term_matches(t.get("preference"), node.object.root()));
    matching.filter_map(|t| t.get("weight").as_i64()).sum()
}

/// Weights of preferred inter-pod terms, this pod's toward others and others' toward it.
fn preferred_pods(pod: &Pod, nodes: &[&Node], namespaces: NamespaceMatches<'_>) -> Vec<i64> {
    let terms = |pod: &Pod, kind: &str| -> Vec<(i64, mote_api::Doc)> {
        let list = pod.spec().get("affinity").get(kind).get(PREFERRED).items();
        list.filter_map(|t| {
            Some((t.get("weight").as_i64()?, mote_api::Doc::encode(&t.get("podAffinityTerm").to_value()).ok()?))
        })
        .collect()
    };
    let both = |pod: &Pod| {
        let mut all = terms(pod, "podAffinity");
        all.extend(terms(pod, "podAntiAffinity").into_iter().map(|(weight, term)| (-weight, term)));
        all
    };
    let own = both(pod);
    let mut scores = vec![0; nodes.len()];
    let mut credit = |key: &str, value: &str, weight: i64| {
        for (score, node) in scores.iter_mut().zip(nodes) {
            if node.label(key) == Some(value) {
                *score += weight;
            }
        }
    };
    for node in nodes {
        for other in node.pods.values() {
            let theirs = both(other);
            let own = own.iter().map(|(weight, doc)| (weight, Term::new(doc.root(), pod.object.namespace()), &**other));
            let theirs =
                theirs.iter().map(|(weight, doc)| (weight, Term::new(doc.root(), other.object.namespace()), pod));
            for (weight, term, target) in own.chain(theirs) {
                if let Some(value) = node.label(term.topology_key)
                    && term.matches(target, namespaces)
                {
                    credit(term.topology_key, value, *weight);
                }
            }
        }
    }
    scores
}

/// Matching pods in each node's domain, over all ScheduleAnyway constraints.
fn soft_spread(pod: &Pod, nodes: &[&Node]) -> Vec<i64> {
    let mut counts = vec![0; nodes.len()];
    let constraints = pod.spec().get("topologySpreadConstraints").items();
    for constraint in constraints.filter(|c| c.get("whenUnsatisfiable").str() == "ScheduleAnyway") {
        let key = constraint.get("topologyKey").str();
        let selector = spread_selector(constraint, pod);
        let in_domain = |value: Option<&str>| -> i64 {
            let domain = nodes.iter().filter(|n| value.is_some() && n.label(key) == value);
            let same = |p: &&std::sync::Arc<Pod>| {
                p.object.namespace() == pod.object.namespace() && selector.matches(p.labels())
            };
            domain.map(|n| n.pods.values().filter(same).count() as i64).sum()
        };
        for (count, node) in counts.iter_mut().zip(nodes) {
            *count += in_domain(node.label(key));
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test::*;
    use mote_schema::{Value, json};
    use std::sync::Arc;

    fn check(spec: Value, nodes: &[Value], busy: usize, want: usize) {
        let mut nodes: Vec<Node> = nodes.iter().cloned().map(node).collect();
        nodes[busy].insert(Arc::new(pod(json!({
            "metadata": {"uid": "x", "labels": {"app": "x"}},
            "spec": {"containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]},
        }))));
        let pod = pod(json!({"metadata": {"uid": "new"}, "spec": spec}));
        let nodes: Vec<&Node> = nodes.iter().collect();
        assert_eq!(best(&pod, &nodes, &|_, _| false), Some(want), "{spec}");
    }

    #[test]
    fn prefers() {
        let node = |zone: &str, taints: Value| {
            json!({"metadata": {"name": zone, "labels": {"zone": zone}}, "spec": {"taints": taints},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}})
        };
        let plain = [node("a", json!([])), node("b", json!([]))];
        // The emptier one.
        check(json!({}), &plain, 0, 1);
        check(json!({}), &plain, 1, 0);
        let soft = json!([{"key": "k", "effect": "PreferNoSchedule"}]);
        check(json!({}), &[node("a", json!([])), node("b", soft)], 0, 0);
        let affinity = json!({"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 100, "preference": {
            "matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}}]}}});
        check(affinity, &plain, 0, 0);
        let near = json!({"affinity": {"podAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": {
            "topologyKey": "zone", "namespaces": [""], "labelSelector": {"matchLabels": {"app": "x"}}}}]}}});
        check(near, &plain, 0, 0);
    }
}
