//! spec.podFailurePolicy: which failed pods end the Job at once and which do not count (pkg/controller/job/pod_failure_policy.go).
//! Pure.
use mote_api::{Object, Ref};

#[derive(Debug, PartialEq)]
pub enum Action {
    /// Toward backoffLimit, as without a policy.
    Count,
    Ignore,
    /// The pod's index gets no further try.
    FailIndex,
    /// With the message that says why.
    FailJob(String),
}

/// What the first matching rule says about a failed pod.
pub fn action(job: &Object, pod: &Object) -> Action {
    let rules = job.root().at("spec.podFailurePolicy.rules");
    for (index, rule) in rules.items().enumerate() {
        let Some(what) =
            by_exit_code(rule.get("onExitCodes"), pod).or_else(|| by_condition(rule.get("onPodConditions"), pod))
        else {
            continue;
        };
        return match rule.get("action").str() {
            "Ignore" => Action::Ignore,
            "FailIndex" if job.root().at("spec.backoffLimitPerIndex").exists() => Action::FailIndex,
            "FailJob" => Action::FailJob(format!("{what} matching FailJob rule at index {index}")),
            _ => Action::Count,
        };
    }
    Action::Count
}

fn by_exit_code(requirement: Ref<'_>, pod: &Object) -> Option<String> {
    if !requirement.exists() || requirement.is_null() {
        return None;
    }
    let only = requirement.get("containerName").as_str();
    let status = pod.root().get("status");
    let containers = status.get("containerStatuses").items().chain(status.get("initContainerStatuses").items());
    for container in containers.filter(|c| only.is_none_or(|name| name == c.get("name").str())) {
        let Some(code) = container.at("state.terminated.exitCode").as_i64().filter(|code| *code != 0) else { continue };
        let listed = requirement.get("values").items().any(|value| value.as_i64() == Some(code));
        if listed == (requirement.get("operator").str() == "In") {
            let (namespace, pod, name) = (pod.namespace(), pod.name(), container.get("name").str());
            return Some(format!("Container {name} for pod {namespace}/{pod} failed with exit code {code}"));
        }
    }
    None
}

fn by_condition(patterns: Ref<'_>, pod: &Object) -> Option<String> {
    let matches = |condition: Ref<'_>| {
        patterns.items().any(|pattern| {
            pattern.get("type").str() == condition.get("type").str()
                && pattern.get("status").as_str().unwrap_or("True") == condition.get("status").str()
        })
    };
    let condition = pod.root().at("status.conditions").items().find(|condition| matches(*condition))?;
    Some(format!("Pod {}/{} has condition {}", pod.namespace(), pod.name(), condition.get("type").str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, Doc};
    use mote_schema::{Value, json};

    fn object(plural: &str, group: &str, value: Value) -> Object {
        let kind = Catalog::builtin().by_resource(group, "v1", plural).unwrap().clone();
        Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }
    }

    #[test]
    fn first_match_decides() {
        let job = object(
            "jobs",
            "batch",
            json!({"spec": {"podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
                {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [7]}},
                {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [7]}},
            ]}}}),
        );
        let check = |container: &str, code: i64, condition: &str, want: Action| {
            let pod = object(
                "pods",
                "",
                json!({
                    "metadata": {"name": "p", "namespace": "n"},
                    "status": {
                        "conditions": [{"type": condition, "status": "True"}],
                        "containerStatuses": [{"name": container, "state": {"terminated": {"exitCode": code}}}],
                    },
                }),
            );
            assert_eq!(action(&job, &pod), want);
        };
        let failed = |container: &str, code: i64, index: usize| {
            Action::FailJob(format!(
                "Container {container} for pod n/p failed with exit code {code} matching FailJob rule at index {index}"
            ))
        };
        check("main", 42, "Ready", failed("main", 42, 1));
        check("side", 42, "Ready", Action::Count);
        check("side", 7, "Ready", failed("side", 7, 3));
        check("main", 42, "DisruptionTarget", Action::Ignore);
        check("main", 0, "Ready", Action::Count);
    }
}
