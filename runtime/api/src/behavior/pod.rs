//! Pods: how long a delete waits, and the binding to a node.
use crate::{registry::Target, server::Api};
use mote_schema::{Cause, Status};
use mote_schema::{Value, json};

const DEFAULT_GRACE_SECONDS: i64 = 30;

/// registry/core/pod/strategy.go, CheckGracefulDelete
pub(super) fn grace_period(pod: &Value, asked: Option<i64>) -> i64 {
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(DEFAULT_GRACE_SECONDS);
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or("").is_empty();
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    match asked.unwrap_or(own) {
        _ if unscheduled || ended => 0,
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

/// registry/core/pod/storage, BindingREST
pub(super) async fn bind(api: &Api, target: &mut Target<'_>, body: Value) -> Result<Value, Status> {
    if body["metadata"]["name"] != target.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let node = body["target"]["name"].as_str().unwrap_or("").to_owned();
    let kind = body["target"]["kind"].as_str().unwrap_or("");
    let mut causes = Vec::new();
    if !matches!(kind, "" | "Node") {
        causes.push(Cause::not_supported("target.kind", &Value::from(kind), &["Node", "<empty>"]));
    }
    if node.is_empty() {
        causes.push(Cause::required("target.name", ""));
    }
    if !causes.is_empty() {
        // As an error of no kind that upstream's API knows.
        let texts: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let text = if let [one] = texts.as_slice() { one.clone() } else { format!("[{}]", texts.join(", ")) };
        return Err(Status::new(500, "", text));
    }
    let of_body = |field: &str| body["metadata"][field].as_object().cloned().unwrap_or_default();
    let added = [("annotations", of_body("annotations")), ("labels", of_body("labels"))];
    let uid = body["metadata"]["uid"].as_str().unwrap_or("").to_owned();
    let (namespace, name) = (target.namespace, target.name);
    api.system_update(target, |pod| {
        let conflict = |detail: String| Err(Status::conflict("", "pods/binding", name, &detail));
        if !uid.is_empty() && pod["metadata"]["uid"] != uid.as_str() {
            let found = pod["metadata"]["uid"].as_str().unwrap_or("");
            // As the storage says it.
            let detail = format!("StorageError: invalid object, Code: 4, Key: /registry/pods/{namespace}/{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
            return Err(Status::conflict("", "pods", name, &detail));
        }
        if pod["metadata"].get("deletionTimestamp").is_some() {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        match pod["spec"]["nodeName"].as_str().unwrap_or("") {
            "" => {}
            taken => return conflict(format!("pod {name} is already assigned to node {taken:?}")),
        }
        if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        pod["spec"]["nodeName"] = Value::from(node.as_str());
        for (field, pairs) in &added {
            for (key, value) in pairs {
                pod["metadata"][*field][key] = value.clone();
            }
        }
        set_condition(pod, "PodScheduled", "True");
        Ok(())
    })
    .await?;
    Ok(super::success())
}

fn set_condition(pod: &mut Value, type_: &str, status: &str) {
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    let now = crate::registry::format_time(crate::registry::now());
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let new = json!({"type": type_, "status": status, "lastProbeTime": null, "lastTransitionTime": now});
    if let Some(list) = conditions.as_array_mut() {
        list.retain(|condition| condition["type"] != type_);
        list.push(new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_periods() {
        let running =
            json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}, "status": {"phase": "Running"}});
        let pending = json!({"spec": {"terminationGracePeriodSeconds": 5}});
        let ended = json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}});
        let plain = json!({"spec": {"nodeName": "n"}});
        for (pod, asked, expected) in [
            (&running, None, 5),
            (&running, Some(0), 0),
            (&running, Some(90), 90),
            (&running, Some(-1), 1),
            (&pending, Some(90), 0),
            (&ended, None, 0),
            (&plain, None, 30),
        ] {
            assert_eq!(grace_period(pod, asked), expected, "{pod} {asked:?}");
        }
    }
}
