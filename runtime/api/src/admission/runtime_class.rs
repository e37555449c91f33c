//! RuntimeClass: a pod's class must exist, and gives the pod its overhead and its place
//! (plugin/pkg/admission/runtimeclass).
use super::Attributes;
use mote_schema::{Status, quantity::Quantity};
use mote_schema::{Value, json};

const OVERHEAD_DIFFERS: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, pod: &mut Value) -> Result<(), Status> {
    let Some(class) = class_of(attributes, pod)? else { return Ok(()) };
    let overhead = &class["overhead"]["podFixed"];
    if class["overhead"].is_object() {
        if is_set(&pod["spec"]["overhead"]) && !same(&pod["spec"]["overhead"], overhead) {
            return Err(attributes.forbidden(pod, OVERHEAD_DIFFERS));
        }
        if is_set(overhead) {
            pod["spec"]["overhead"] = overhead.clone();
        }
    }
    for (key, wanted) in class["scheduling"]["nodeSelector"].as_object().into_iter().flatten() {
        if !pod["spec"]["nodeSelector"].is_object() {
            pod["spec"]["nodeSelector"] = json!({});
        }
        if let Some(given) = pod["spec"]["nodeSelector"].get(key).filter(|given| *given != wanted) {
            let detail = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                wanted.as_str().unwrap_or(""),
                given.as_str().unwrap_or("")
            );
            return Err(attributes.forbidden(pod, &detail));
        }
        pod["spec"]["nodeSelector"][key] = wanted.clone();
    }
    for toleration in class["scheduling"]["tolerations"].as_array().into_iter().flatten() {
        if !pod["spec"]["tolerations"].is_array() {
            pod["spec"]["tolerations"] = json!([]);
        }
        if let Some(list) = pod["spec"]["tolerations"].as_array_mut().filter(|list| !list.contains(toleration)) {
            list.push(toleration.clone());
        }
    }
    Ok(())
}

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, pod: &Value) -> Result<(), Status> {
    if !attributes.is_create() || !attributes.is_main("", "pods") {
        return Ok(());
    }
    let class = class_of(attributes, pod)?.unwrap_or_default();
    let overhead = &pod["spec"]["overhead"];
    if class["overhead"].is_object() {
        if !same(overhead, &class["overhead"]["podFixed"]) {
            return Err(attributes.forbidden(pod, OVERHEAD_DIFFERS));
        }
    } else if overhead.is_object() {
        let detail = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(attributes.forbidden(pod, detail));
    }
    Ok(())
}

/// The class a new pod names.
fn class_of(attributes: &Attributes<'_, '_>, pod: &Value) -> Result<Option<Value>, Status> {
    let name = match pod["spec"]["runtimeClassName"].as_str() {
        Some(name) if attributes.is_create() && attributes.is_main("", "pods") => name,
        _ => return Ok(None),
    };
    match attributes.api.lookup("node.k8s.io", "v1", "runtimeclasses", "", name) {
        Some(class) => Ok(Some(class.to_value())),
        None => Err(attributes.forbidden(pod, &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn is_set(map: &Value) -> bool {
    map.as_object().is_some_and(|map| !map.is_empty())
}

/// The same amounts, however they are written.
fn same(a: &Value, b: &Value) -> bool {
    let (none, amount) = (mote_schema::Map::new(), |value: &Value| Quantity::parse(value.as_str()?).ok());
    let (a, b) = (a.as_object().unwrap_or(&none), b.as_object().unwrap_or(&none));
    a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| amount(value) == amount(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads_are_compared_as_amounts() {
        assert!(same(&json!({"cpu": "1"}), &json!({"cpu": "1000m"})));
        assert!(same(&Value::Null, &json!({})));
        assert!(!same(&json!({"cpu": "1"}), &json!({"cpu": "2"})));
        assert!(!same(&json!({"cpu": "1"}), &json!({"memory": "1"})));
    }
}
