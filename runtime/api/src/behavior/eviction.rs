//! pods/eviction: a delete that asks the PodDisruptionBudgets first (registry/core/pod/storage/eviction.go).
use crate::{DeleteOptions, Object, Sub, feed, registry::Target, server::Api};
use mote_schema::{Cause, Status, selector::LabelSelector};
use mote_schema::{Value, json};

/// Tries against a state that moves; upstream's EvictionsRetry.
const TRIES: usize = 20;
/// Pods under eviction that a budget remembers; more are not confirmed by its controller.
const MAX_DISRUPTED_PODS: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(super) async fn evict(api: &Api, target: &mut Target<'_>, body: Value) -> Result<Value, Status> {
    if body["metadata"]["name"] != target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    crate::rest::check_dry_run(&body["deleteOptions"]["dryRun"], &mut target.options)?;
    let unsafe_option = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if body["deleteOptions"][unsafe_option] == true {
        let detail = "can not be set for pod eviction, try after removing the option";
        let cause = Cause::invalid(format!("deleteOptions.{unsafe_option}"), &true.into(), detail);
        return Err(Status::invalid("policy", "Eviction", target.name, vec![cause]));
    }
    let asked = DeleteOptions::from_body(&body["deleteOptions"])?;
    for attempt in 1.. {
        let pod = api.get(target.kind, target.namespace, target.name)?;
        let mut options = asked.clone();
        // A pod that no budget guards now must not have become one that is guarded meanwhile.
        let mut guarded_by = None;
        if ignores_budgets(&pod) {
            if !is_over(&pod) && options.resource_version.is_none() {
                options.resource_version = Some(pod.revision);
            }
        } else if let Some(budget) = budget_of(api, &pod)? {
            if spends_nothing(&pod, &budget) {
                options.resource_version = Some(pod.revision);
                guarded_by = Some(budget.name().to_owned());
            } else {
                take(api, target, &budget, &pod).await?;
            }
        }
        match remove(api, target, &options).await {
            Err(status) if status.is_conflict() && asked.resource_version.is_none() => match guarded_by {
                Some(name) => return Err(still_processed(&name)),
                None if attempt < TRIES && ignores_budgets(&pod) => continue,
                None => return Err(status),
            },
            result => return result.map(|()| super::success()),
        }
    }
    Err(Status::internal("no eviction was tried"))
}

/// Says why the pod goes, which a Job's failure policy may forgive, and deletes it.
async fn remove(api: &Api, target: &mut Target<'_>, options: &DeleteOptions) -> Result<(), Status> {
    let mut options = options.clone();
    if !target.options.dry_run {
        let mut place = target.at(target.kind, Sub::Status);
        let (uid, wanted) = (options.uid.clone(), options.resource_version.map(|revision| revision.to_string()));
        let name = target.name;
        let marked = api
            .system_update(&mut place, |pod| {
                let conflict = |detail: String| Err(Status::conflict("", "Pod", name, &detail));
                let text = |field: &str| pod["metadata"][field].as_str().unwrap_or("").to_owned();
                if let Some(uid) = uid.as_ref().filter(|uid| **uid != text("uid")) {
                    return conflict(format!("the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been deleted and then recreated", text("uid")));
                }
                if let Some(wanted) = wanted.as_ref().filter(|wanted| **wanted != text("resourceVersion")) {
                    return conflict(format!("the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({}). The object might have been modified", text("resourceVersion")));
                }
                let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting", "observedGeneration": pod["metadata"]["generation"]});
                set_condition(&mut pod["status"], condition);
                Ok(())
            })
            .await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(marked.revision);
        }
    }
    // Who would be asked about the DELETE was asked about the Eviction.
    target.is_admitted = true;
    api.delete(target, &options).await.map(drop)
}

/// Replaces the condition of this type; the time of its last transition stays while its status does.
fn set_condition(status: &mut Value, mut condition: Value) {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let old = conditions.iter().position(|old| old["type"] == condition["type"]);
    condition["lastTransitionTime"] = match old.map(|at| &conditions[at]) {
        Some(old) if old["status"] == condition["status"] => old["lastTransitionTime"].clone(),
        _ => crate::clock::timestamp().into(),
    };
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}

/// Done or on its way out.
fn is_over(pod: &Object) -> bool {
    pod.is_deleting() || matches!(pod.root().at("status.phase").str(), "Succeeded" | "Failed")
}

/// Pods that are over, or were never started, cost no availability.
fn ignores_budgets(pod: &Object) -> bool {
    is_over(pod) || pod.root().at("status.phase").str() == "Pending"
}

/// A pod that is not ready does not count as healthy: it may go while the application has enough others, or always
/// if the budget says so (KEP-3017).
fn spends_nothing(pod: &Object, budget: &Object) -> bool {
    let mut conditions = pod.root().at("status.conditions").items();
    let ready = conditions.any(|c| c.get("type").str() == "Ready" && c.get("status").str() == "True");
    if ready {
        return false;
    }
    let number = |field: &str| budget.root().get("status").get(field).as_i64().unwrap_or(0);
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    budget.root().at("spec.unhealthyPodEvictionPolicy").str() == "AlwaysAllow" || healthy >= desired && desired > 0
}

fn budget_of(api: &Api, pod: &Object) -> Result<Option<Object>, Status> {
    let mut budgets = budgets_of(api, pod)?;
    if budgets.len() > 1 {
        let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::new(500, "", text));
    }
    Ok(budgets.pop())
}

fn refuse(message: String, retry_after_seconds: u32) -> Status {
    let mut status = Status::too_many_requests(REFUSED, retry_after_seconds);
    status.causes = vec![Cause { reason: "DisruptionBudget", message, field: String::new() }];
    status
}

fn still_processed(budget: &str) -> Status {
    refuse(format!("The disruption budget {budget} is still being processed by the server."), 10)
}

fn budgets_of(api: &Api, pod: &Object) -> Result<Vec<Object>, Status> {
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("policy", "v1", "poddisruptionbudgets") else { return Ok(Vec::new()) };
    let prefix = api.list_prefix(kind, pod.namespace());
    let snapshot = api.store.snapshot();
    let mut found = Vec::new();
    for entry in snapshot.range(&prefix, None) {
        let budget = feed::object(kind, &entry);
        // One that cannot be read selects nothing.
        let selector = LabelSelector::from_ref(budget.root().at("spec.selector")).ok().flatten();
        if selector.is_some_and(|selector| selector.matches(pod.meta().get("labels"))) {
            found.push(budget);
        }
    }
    Ok(found)
}

/// Takes one disruption from the budget's status, or says why there is none.
async fn take(api: &Api, target: &Target<'_>, budget: &Object, pod: &Object) -> Result<(), Status> {
    let (name, kind) = (budget.name().to_owned(), budget.kind.clone());
    let mut place =
        Target { options: target.options, ..Target::new(target.user, &kind, target.namespace, &name, Sub::Status) };
    let pod_name = pod.name().to_owned();
    api.system_update(&mut place, |budget| {
        let state = &budget["status"];
        let number = |field: &str| state[field].as_i64().unwrap_or(0);
        let forbidden = |detail: &str| Err(Status::forbidden("policy", "poddisruptionbudget", &name, detail));
        if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
            return Err(still_processed(&name));
        }
        let allowed = number("disruptionsAllowed");
        if allowed < 0 {
            return forbidden("pdb disruptions allowed is negative");
        }
        if state["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
            return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
        }
        if allowed == 0 {
            return Err(refuse(why_none(&name, state), 0));
        }
        budget["status"]["disruptionsAllowed"] = Value::from(allowed - 1);
        if allowed == 1 {
            let condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
                "message": "", "observedGeneration": budget["status"]["observedGeneration"]});
            set_condition(&mut budget["status"], condition);
        }
        let now = crate::registry::format_time(crate::registry::now());
        if !budget["status"]["disruptedPods"].is_object() {
            budget["status"]["disruptedPods"] = json!({});
        }
        budget["status"]["disruptedPods"][&pod_name] = Value::from(now);
        Ok(())
    })
    .await
    .map(drop)
}

/// Why a budget has nothing left.
fn why_none(name: &str, state: &Value) -> String {
    let conditions = state["conditions"].as_array().into_iter().flatten();
    let mut denied = conditions.filter(|c| c["type"] == "DisruptionAllowed" && c["status"] == "False");
    let condition = denied.next().unwrap_or(&Value::Null);
    let text = |field: &str| condition[field].as_str().unwrap_or("");
    let (reason, message) = (text("reason"), text("message"));
    let number = |field: &str| state[field].as_i64().unwrap_or(0);
    let (needs, has) = (number("desiredHealthy"), number("currentHealthy"));
    if !message.is_empty() && reason == "SyncFailed" {
        format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}")
    } else if has <= needs {
        format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently")
    } else if !message.is_empty() {
        format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_budget_allows_nothing() {
        let denied = |reason: &str, message: &str| json!([{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": message}]);
        for (state, expected) in [
            (json!({"desiredHealthy": 2, "currentHealthy": 2}), "needs 2 healthy pods and has 2 currently"),
            (
                json!({"conditions": denied("SyncFailed", "no scale"), "currentHealthy": 3}),
                "does not allow evicting pods currently because it failed sync: no scale",
            ),
            (
                json!({"conditions": denied("InsufficientPods", "wait"), "currentHealthy": 3, "desiredHealthy": 1}),
                "does not allow evicting pods currently (InsufficientPods): wait",
            ),
            (json!({"currentHealthy": 3}), "does not allow evicting pods currently"),
        ] {
            assert_eq!(why_none("b", &state), format!("The disruption budget b {expected}"));
        }
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut status = json!({"conditions": [{"type": "A", "status": "True", "lastTransitionTime": "t"}]});
        set_condition(&mut status, json!({"type": "A", "status": "True", "reason": "New"}));
        assert_eq!(
            status["conditions"],
            json!([{"type": "A", "status": "True", "reason": "New", "lastTransitionTime": "t"}])
        );
        set_condition(&mut status, json!({"type": "A", "status": "False"}));
        assert_ne!(status["conditions"][0]["lastTransitionTime"], "t");
    }
}
