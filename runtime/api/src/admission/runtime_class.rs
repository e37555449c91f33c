//! RuntimeClass: a pod's class must exist, and gives the pod its overhead and its place
//! (plugin/pkg/admission/runtimeclass).
use crate::server::Api;
use mote_schema::Status;
use serde_json::{Value, json};

pub(super) fn mutate(api: &Api, pod: &mut Value) -> Result<(), Status> {
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let refuse = |detail: &str| Err(Status::forbidden("", "pods", &pod_name, detail));
    let spec = &mut pod["spec"];
    let name = spec["runtimeClassName"].as_str().unwrap_or("").to_owned();
    let is_set = |value: &Value| value.as_object().is_some_and(|map| !map.is_empty());
    let mut class = Value::Null;
    if !name.is_empty() {
        let catalog = api.catalog();
        let Some(kind) = catalog.by_resource("node.k8s.io", "v1", "runtimeclasses") else { return Ok(()) };
        let Ok(found) = api.get(kind, "", &name) else {
            return refuse(&format!("pod rejected: RuntimeClass {name:?} not found"));
        };
        class = found.to_value();
    }
    let overhead = &class["overhead"]["podFixed"];
    if is_set(&spec["overhead"]) && !is_set(overhead) {
        return refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead");
    }
    if is_set(overhead) {
        if is_set(&spec["overhead"]) && spec["overhead"] != *overhead {
            return refuse("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead");
        }
        spec["overhead"] = overhead.clone();
    }
    for (key, wanted) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        if !spec["nodeSelector"].is_object() {
            spec["nodeSelector"] = json!({});
        }
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        if let Some(given) = spec["nodeSelector"].get(key).filter(|given| *given != wanted) {
            return refuse(&format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(wanted),
                text(given)
            ));
        }
        spec["nodeSelector"][key] = wanted.clone();
    }
    for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
        if !spec["tolerations"].is_array() {
            spec["tolerations"] = json!([]);
        }
        if let Some(list) = spec["tolerations"].as_array_mut().filter(|list| !list.contains(toleration)) {
            list.push(toleration.clone());
        }
    }
    Ok(())
}
