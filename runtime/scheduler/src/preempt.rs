//! Making room: which less important pods would have to go so that a pod fits, sparing as many as possible and
//! disruption budgets where that can be (plugin defaultpreemption). Pure.
use crate::{
    cluster::{Cluster, Node, Pod},
    filter::{Reason, cause, filter},
    relations::{NamespaceMatches, Relations},
    volumes::Claims,
};
use mote_api::Object;
use mote_schema::Order as _;
use mote_schema::selector::LabelSelector;
use std::{cmp::Reverse, sync::Arc};

/// What a decision about one pod is made from.
pub struct Question<'a> {
    pub pod: &'a Pod,
    pub cluster: &'a Cluster,
    pub claims: &'a Claims,
    pub namespaces: NamespaceMatches<'a>,
}

impl Question<'_> {
    /// How the pod relates to others if `node` looked like this.
    pub fn relations(&self, node: &Node) -> Relations {
        let nodes = self.cluster.nodes.values().map(|n| if n.name() == node.name() { node } else { n });
        Relations::new(self.pod, nodes, self.namespaces)
    }

    /// Fits both with the pods promised to the node and without them, since they may go elsewhere after all.
    pub fn fits(&self, node: &Node, relations: &Relations) -> Result<(), Reason> {
        if let Some(fuller) = self.cluster.with_nominated(node, self.pod) {
            filter(self.pod, &fuller, self.claims, &self.relations(&fuller))?;
        }
        filter(self.pod, node, self.claims, relations)
    }
}

#[derive(Clone)]
pub struct Candidate {
    pub node: Arc<str>,
    /// Most important first.
    pub victims: Vec<Arc<Pod>>,
    violations: usize,
}

/// What is left of a PodDisruptionBudget.
pub struct Budget {
    namespace: String,
    selector: Option<LabelSelector>,
    allowed: i64,
    disrupted: Vec<String>,
}

impl Budget {
    pub fn new(object: &Object) -> Budget {
        let root = object.root();
        Budget {
            namespace: object.namespace().into(),
            selector: LabelSelector::from_ref(root.at("spec.selector")).ok().flatten(),
            allowed: root.at("status.disruptionsAllowed").as_i64().unwrap_or(0),
            disrupted: root.at("status.disruptedPods").entries().map(|(name, _)| name.to_owned()).collect(),
        }
    }

    fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.object.namespace()
            && self.selector.as_ref().is_some_and(|s| !s.requirements.is_empty() && s.matches(pod.labels()))
            && !self.disrupted.iter().any(|name| name == pod.object.name())
    }
}

/// Higher priority first, then longer running.
fn importance(pod: &Pod) -> (Reverse<i64>, &str) {
    (Reverse(pod.priority), start_time(pod))
}

fn start_time(pod: &Pod) -> &str {
    pod.object.root().at("status.startTime").as_str().unwrap_or("9999")
}

/// The fewest pods of `node` whose removal lets the pod in.
pub fn victims(question: &Question<'_>, node: &Node, budgets: &[Budget]) -> Result<Candidate, Reason> {
    let mut node = node.clone();
    let mut potential: Vec<Arc<Pod>> =
        node.pods.values().filter(|other| other.priority < question.pod.priority).cloned().collect();
    if potential.is_empty() {
        return Err(Reason::new("No preemption victims found for incoming pod", cause::OTHER, false));
    }
    for pod in &potential {
        node.remove(pod.object.uid());
    }
    question.fits(&node, &question.relations(&node))?;
    potential.order_by(|a, b| importance(a).cmp(&importance(b)));
    let (violating, harmless) = by_budget(potential, budgets);
    let mut victims = Vec::new();
    let mut violations = 0;
    for (pod, violates) in violating.into_iter().map(|p| (p, true)).chain(harmless.into_iter().map(|p| (p, false))) {
        node.insert(pod.clone());
        if question.fits(&node, &question.relations(&node)).is_err() {
            node.remove(pod.object.uid());
            violations += usize::from(violates);
            victims.push(pod);
        }
    }
    victims.order_by(|a, b| importance(a).cmp(&importance(b)));
    Ok(Candidate { node: node.name().into(), victims, violations })
}

/// Pods whose removal would break a budget, and the others; both in the order they came.
fn by_budget(pods: Vec<Arc<Pod>>, budgets: &[Budget]) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut left: Vec<i64> = budgets.iter().map(|b| b.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.covers(pod) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// Fewest broken budgets, least important highest victim, smallest sum of priorities, fewest victims, and the most
/// recently started.
pub fn pick(candidates: Vec<Candidate>) -> Option<Candidate> {
    let cost = |c: &Candidate| {
        let highest = c.victims.first().map_or(i64::MIN, |v| v.priority);
        // Shifted, so that a few pods of negative priority do not look cheaper than one.
        let sum: i64 = c.victims.iter().map(|v| v.priority + i64::from(i32::MAX) + 1).sum();
        let of_highest = c.victims.iter().filter(|v| v.priority == highest);
        let earliest = of_highest.map(|v| start_time(v)).min().unwrap_or_default().to_owned();
        (c.violations, highest, sum, c.victims.len(), Reverse(earliest))
    };
    candidates.into_iter().min_by_key(cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::test::*;
    use mote_schema::{Value, json};

    fn with(name: &str, priority: i64, cpu: &str) -> Value {
        json!({
            "metadata": {"uid": name, "name": name, "namespace": "ns", "labels": {"app": name}},
            "spec": {"priority": priority, "containers": [{"resources": {"requests": {"cpu": cpu}}}]},
        })
    }

    fn check(new: Value, there: &[Value], budgets: &[Value], want: Result<&[&str], &str>) {
        let mut cluster = Cluster::default();
        cluster.set_node(object(
            "nodes",
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "pods": "9"}}}),
        ));
        for value in there {
            cluster.set_pod("n", Arc::new(pod(value.clone())));
        }
        let pod = pod(new);
        let claims = Claims::default();
        let question = Question { pod: &pod, cluster: &cluster, claims: &claims, namespaces: &|_, _| false };
        let budgets: Vec<Budget> = budgets.iter().map(|b| Budget::new(&object("pods", b.clone()))).collect();
        let found = victims(&question, &cluster.nodes["n"], &budgets);
        let found = found.map(|c| c.victims.iter().map(|v| v.object.name().to_owned()).collect::<Vec<_>>());
        match (found, want) {
            (Ok(found), Ok(want)) => assert_eq!(found, want),
            (Err(reason), Err(want)) => assert_eq!(reason.texts, [want]),
            (found, want) => panic!("{found:?} is not {want:?}"),
        }
    }

    #[test]
    fn fewest_and_least_important() {
        let there = [with("low", 1, "1"), with("lower", 0, "1")];
        check(with("new", 10, "1"), &there, &[], Ok(&["lower"]));
        check(with("new", 10, "2"), &there, &[], Ok(&["low", "lower"]));
        check(with("new", 0, "1"), &there, &[], Err("No preemption victims found for incoming pod"));
        check(with("new", 1, "2"), &there, &[], Err("Insufficient cpu"));
        let budget = json!({"metadata": {"namespace": "ns"}, "spec": {"selector": {"matchLabels": {"app": "lower"}}}, "status": {"disruptionsAllowed": 0}});
        check(with("new", 10, "1"), &there, &[budget], Ok(&["low"]));
    }
}
