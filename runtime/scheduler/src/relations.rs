//! Pods in relation to other pods: inter-pod affinity and anti-affinity, topology spread. Looked up once per pod over all
//! nodes, then asked per node (plugins interpodaffinity and podtopologyspread).
use crate::{
    cluster::{Node, Pod},
    filter::{Reason, cause},
};
use mote_api::Ref;
use mote_schema::{
    placement::{node_matches, untolerated},
    selector::LabelSelector,
};
use std::collections::{HashMap, HashSet};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
pub const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Labels of Namespaces, for terms with a namespaceSelector.
pub type NamespaceMatches<'a> = &'a dyn Fn(&str, &LabelSelector) -> bool;

/// A PodAffinityTerm of a pod in `namespace`.
pub struct Term<'a> {
    pub topology_key: &'a str,
    selector: Option<LabelSelector>,
    namespaces: Vec<&'a str>,
    namespace_selector: Option<LabelSelector>,
}

impl<'a> Term<'a> {
    pub fn new(term: Ref<'a>, namespace: &'a str) -> Term<'a> {
        let mut namespaces: Vec<&str> = term.get("namespaces").items().map(Ref::str).collect();
        let namespace_selector = LabelSelector::from_ref(term.get("namespaceSelector")).ok().flatten();
        if namespaces.is_empty() && namespace_selector.is_none() {
            namespaces.push(namespace);
        }
        Term {
            topology_key: term.get("topologyKey").str(),
            selector: LabelSelector::from_ref(term.get("labelSelector")).ok().flatten(),
            namespaces,
            namespace_selector,
        }
    }

    pub fn matches(&self, pod: &Pod, namespaces: NamespaceMatches<'_>) -> bool {
        let namespace = pod.object.namespace();
        let here = self.namespaces.contains(&namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.requirements.is_empty() || namespaces(namespace, selector));
        here && self.selector.as_ref().is_some_and(|selector| selector.matches(pod.labels()))
    }
}

fn required<'a>(pod: &'a Pod, kind: &str) -> Vec<Term<'a>> {
    let terms = pod.spec().get("affinity").get(kind).get(REQUIRED).items();
    terms.map(|term| Term::new(term, pod.object.namespace())).collect()
}

/// One DoNotSchedule constraint and how many matching pods each domain has.
struct Spread {
    topology_key: String,
    max_skew: i64,
    min_domains: i64,
    matches_self: bool,
    counts: HashMap<String, i64>,
}

impl Spread {
    /// The emptiest domain; zero while there are fewer domains than minDomains.
    fn least(&self) -> i64 {
        if i64::try_from(self.counts.len()).unwrap_or(i64::MAX) < self.min_domains {
            return 0;
        }
        self.counts.values().copied().min().unwrap_or(0)
    }
}

#[derive(Default)]
pub struct Relations {
    /// Domains (key, value) that pods already there keep this one out of.
    kept_out: HashSet<(String, String)>,
    /// Per required affinity term: its key, and the values with matching pods.
    near: Vec<(String, HashSet<String>)>,
    /// No pod matches yet and this one matches itself: it may be the first.
    may_be_first: bool,
    /// Per required anti-affinity term.
    far: Vec<(String, HashSet<String>)>,
    spread: Vec<Spread>,
}

impl Relations {
    /// `nodes` are all nodes, as they would be for this decision.
    pub fn new<'a>(
        pod: &Pod,
        nodes: impl Iterator<Item = &'a Node> + Clone,
        namespaces: NamespaceMatches<'_>,
    ) -> Relations {
        let affinity = required(pod, "podAffinity");
        let anti = required(pod, "podAntiAffinity");
        let sets = |terms: &[Term<'_>]| -> Vec<(String, HashSet<String>)> {
            terms.iter().map(|term| (term.topology_key.to_owned(), HashSet::new())).collect()
        };
        let mut relations = Relations { near: sets(&affinity), far: sets(&anti), ..Relations::default() };
        let mut matched = false;
        for node in nodes.clone() {
            for other in node.pods.values() {
                for term in required(other, "podAntiAffinity") {
                    if let Some(value) = node.label(term.topology_key)
                        && term.matches(pod, namespaces)
                    {
                        relations.kept_out.insert((term.topology_key.to_owned(), value.to_owned()));
                    }
                }
                // A pod counts for affinity when it matches every term.
                if !affinity.is_empty() && affinity.iter().all(|term| term.matches(other, namespaces)) {
                    for (key, values) in &mut relations.near {
                        if let Some(value) = node.label(key) {
                            matched = true;
                            values.insert(value.to_owned());
                        }
                    }
                }
                for (term, (key, values)) in anti.iter().zip(&mut relations.far) {
                    if let Some(value) = node.label(key)
                        && term.matches(other, namespaces)
                    {
                        values.insert(value.to_owned());
                    }
                }
            }
        }
        relations.may_be_first = !matched && affinity.iter().all(|term| term.matches(pod, namespaces));
        relations.spread = spread(pod, nodes);
        relations
    }

    pub fn filter(&self, node: &Node) -> Result<(), Reason> {
        self.filter_spread(node)?;
        let has =
            |(key, values): &(String, HashSet<String>)| node.label(key).is_some_and(|value| values.contains(value));
        let labelled = self.near.iter().all(|(key, _)| node.label(key).is_some());
        if !(self.near.iter().all(has) || labelled && self.may_be_first) {
            return Err(Reason::new("node(s) didn't match pod affinity rules", cause::RELATIONS, false));
        }
        if self.far.iter().any(has) {
            return Err(Reason::new("node(s) didn't match pod anti-affinity rules", cause::RELATIONS, true));
        }
        let kept_out = |(key, value): &(String, String)| node.label(key) == Some(value);
        if self.kept_out.iter().any(kept_out) {
            let text = "node(s) didn't satisfy existing pods anti-affinity rules";
            return Err(Reason::new(text, cause::RELATIONS, true));
        }
        Ok(())
    }

    fn filter_spread(&self, node: &Node) -> Result<(), Reason> {
        for constraint in &self.spread {
            let Some(value) = node.label(&constraint.topology_key) else {
                let text = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Reason::new(text, cause::RELATIONS | cause::NODE, false));
            };
            let there = constraint.counts.get(value).copied().unwrap_or(0);
            let skew = there + i64::from(constraint.matches_self) - constraint.least();
            if skew > constraint.max_skew {
                let text = "node(s) didn't match pod topology spread constraints";
                return Err(Reason::new(text, cause::RELATIONS | cause::NODE, true));
            }
        }
        Ok(())
    }
}

/// The selector of a TopologySpreadConstraint, with the values of its matchLabelKeys.
pub fn spread_selector(constraint: Ref<'_>, pod: &Pod) -> LabelSelector {
    let mut selector = LabelSelector::from_ref(constraint.get("labelSelector")).ok().flatten();
    for key in constraint.get("matchLabelKeys").items() {
        if let Some(value) = pod.labels().get(key.str()).as_str() {
            let requirement = mote_schema::selector::Requirement {
                key: key.str().into(),
                op: mote_schema::selector::Op::In,
                values: vec![value.into()],
            };
            selector.get_or_insert_default().requirements.push(requirement);
        }
    }
    // Without any selector a constraint counts nothing.
    selector.unwrap_or_else(|| LabelSelector::parse("a,!a").unwrap_or_default())
}

fn spread<'a>(pod: &Pod, nodes: impl Iterator<Item = &'a Node> + Clone) -> Vec<Spread> {
    let constraints: Vec<Ref<'_>> = pod
        .spec()
        .get("topologySpreadConstraints")
        .items()
        .filter(|c| c.get("whenUnsatisfiable").str() == "DoNotSchedule")
        .collect();
    let keys: Vec<&str> = constraints.iter().map(|c| c.get("topologyKey").str()).collect();
    let count = |constraint: &Ref<'_>| {
        let selector = spread_selector(*constraint, pod);
        let mut counts: HashMap<String, i64> = HashMap::new();
        for node in nodes.clone().filter(|node| keys.iter().all(|key| node.label(key).is_some())) {
            let honours_affinity = constraint.get("nodeAffinityPolicy").str() != "Ignore";
            if honours_affinity && !node_matches(pod.spec(), node.object.root()) {
                continue;
            }
            if constraint.get("nodeTaintsPolicy").str() == "Honor" {
                let taints = node.object.root().at("spec.taints");
                if untolerated(taints, pod.spec().get("tolerations"), &["NoSchedule", "NoExecute"]).is_some() {
                    continue;
                }
            }
            let value = node.label(constraint.get("topologyKey").str()).unwrap_or_default();
            let same = |p: &&std::sync::Arc<Pod>| {
                !p.object.is_deleting()
                    && p.object.namespace() == pod.object.namespace()
                    && selector.matches(p.labels())
            };
            *counts.entry(value.to_owned()).or_default() += node.pods.values().filter(same).count() as i64;
        }
        Spread {
            topology_key: constraint.get("topologyKey").str().to_owned(),
            max_skew: constraint.get("maxSkew").as_i64().unwrap_or(1),
            min_domains: constraint.get("minDomains").as_i64().unwrap_or(1),
            matches_self: selector.matches(pod.labels()),
            counts,
        }
    };
    constraints.iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test::*;
    use mote_schema::{Value, json};
    use std::sync::Arc;

    fn nodes(pods: &[(&str, Value)]) -> Vec<Node> {
        ["a", "b"]
            .into_iter()
            .map(|zone| {
                let mut node = node(json!({"metadata": {"name": zone, "labels": {"zone": zone}}}));
                for (n, (at, value)) in pods.iter().enumerate() {
                    if *at == zone {
                        let mut value = value.clone();
                        value["metadata"]["uid"] = n.to_string().into();
                        value["metadata"]["namespace"] = "ns".into();
                        node.insert(Arc::new(pod(value)));
                    }
                }
                node
            })
            .collect()
    }

    /// Which zones take the pod.
    fn check(value: Value, there: &[(&str, Value)], want: &[&str]) {
        let mut value = value;
        value["metadata"]["namespace"] = "ns".into();
        let pod = pod(value);
        let nodes = nodes(there);
        let relations = Relations::new(&pod, nodes.iter(), &|_, _| false);
        let found: Vec<&str> = nodes.iter().filter(|n| relations.filter(n).is_ok()).map(|n| n.name()).collect();
        assert_eq!(found, want);
    }

    fn web() -> Value {
        json!({"metadata": {"labels": {"app": "web"}}})
    }

    fn with(kind: &str, own: &str) -> Value {
        json!({
            "metadata": {"labels": {"app": own}},
            "spec": {"affinity": {kind: {REQUIRED: [{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}}},
        })
    }

    #[test]
    fn affinity() {
        check(json!({}), &[], &["a", "b"]);
        check(with("podAffinity", "x"), &[("a", web())], &["a"]);
        check(with("podAffinity", "x"), &[], &[]);
        check(with("podAffinity", "web"), &[], &["a", "b"]);
        check(with("podAntiAffinity", "x"), &[("a", web())], &["b"]);
        check(web(), &[("b", with("podAntiAffinity", "x"))], &["a"]);
    }

    #[test]
    fn spreading() {
        let spread = json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app": "web"}}}]},
        });
        check(spread.clone(), &[], &["a", "b"]);
        check(spread.clone(), &[("a", web())], &["b"]);
        check(spread, &[("a", web()), ("b", web())], &["a", "b"]);
    }
}
