//! pods/eviction: a delete that asks the PodDisruptionBudgets first (registry/core/pod/storage/eviction.go).
use crate::{DeleteOptions, Object, Sub, feed, registry::Target, server::Api};
use mote_schema::{Cause, Status, selector::LabelSelector};
use serde_json::{Value, json};

pub(super) async fn evict(api: &Api, target: &mut Target<'_>, body: Value) -> Result<Value, Status> {
    let named = body["metadata"]["name"].as_str().unwrap_or("");
    if !named.is_empty() && named != target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = DeleteOptions::from_body(&body["deleteOptions"])?;
    let pod = api.get(target.kind, target.namespace, target.name)?;
    if !ignores_budgets(&pod) {
        let budgets = budgets_of(api, &pod)?;
        match budgets.as_slice() {
            [] => {}
            [budget] => take(api, target, budget, &pod).await?,
            _ => {
                return Err(Status::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        }
    }
    let options = DeleteOptions { uid: options.uid.or_else(|| Some(pod.uid().to_owned())), ..options };
    if !target.options.dry_run {
        mark(api, target, &pod).await?;
    }
    // Who would be asked about the DELETE was asked about the Eviction.
    target.is_admitted = true;
    api.delete(target, &options).await?;
    Ok(super::success())
}

/// The pod itself says why it goes: a Job's failure policy may forgive that.
async fn mark(api: &Api, target: &Target<'_>, pod: &Object) -> Result<(), Status> {
    let mut place = Target {
        options: target.options,
        ..Target::new(target.user, target.kind, target.namespace, target.name, Sub::Status)
    };
    let uid = pod.uid();
    let marked = api.system_update(&mut place, |pod| {
        if pod["metadata"]["uid"] != uid {
            return Ok(());
        }
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": crate::clock::timestamp(),
            "observedGeneration": pod["metadata"]["generation"]});
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "DisruptionTarget");
        conditions.push(condition);
        pod["status"]["conditions"] = conditions.into();
        Ok(())
    });
    match marked.await {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}

/// Pods that are done, on their way out, or were never started cost no availability.
fn ignores_budgets(pod: &Object) -> bool {
    pod.is_deleting() || matches!(pod.root().at("status.phase").str(), "Succeeded" | "Failed" | "Pending")
}

fn budgets_of(api: &Api, pod: &Object) -> Result<Vec<Object>, Status> {
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("policy", "v1", "poddisruptionbudgets") else { return Ok(Vec::new()) };
    let prefix = api.list_prefix(kind, pod.namespace());
    let snapshot = api.store.snapshot();
    let mut found = Vec::new();
    for entry in snapshot.range(&prefix, None) {
        let budget = feed::object(kind, &entry);
        let selector = LabelSelector::from_ref(budget.root().at("spec.selector")).map_err(Status::internal)?;
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
        let refuse = |message: String, seconds: u32| {
            let mut status = Status::new(
                429,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
            );
            status.causes = vec![Cause { reason: "DisruptionBudget", message, field: String::new() }];
            status.retry_after_seconds = (seconds > 0).then_some(seconds);
            Err(status)
        };
        let state = &budget["status"];
        let number = |field: &str| state[field].as_i64().unwrap_or(0);
        if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
            return refuse(format!("The disruption budget {name} is still being processed by the server."), 10);
        }
        if number("disruptionsAllowed") <= 0 {
            let (needs, has) = (number("desiredHealthy"), number("currentHealthy"));
            return refuse(
                format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently"),
                0,
            );
        }
        let left = number("disruptionsAllowed") - 1;
        budget["status"]["disruptionsAllowed"] = Value::from(left);
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
