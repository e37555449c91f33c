//! Priority: a pod's class becomes its priority and preemption policy, and one class at most is everybody's default
//! (plugin/pkg/admission/priority).
use super::{Attributes, Operation};
use crate::{Object, feed, server::Api};
use mote_schema::Status;
use mote_schema::Value;

const PREEMPT: &str = "PreemptLowerPriority";

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, pod: &mut Value) -> Result<(), Status> {
    if !attributes.is_main("", "pods") {
        return Ok(());
    }
    match attributes.operation {
        Operation::Create => resolve(attributes, pod),
        Operation::Update => {
            // Set on create; an update that leaves them out keeps them.
            for field in ["priority", "preemptionPolicy"] {
                let old = &attributes.old["spec"][field];
                if pod["spec"].is_object() && pod["spec"][field].is_null() && !old.is_null() {
                    pod["spec"][field] = old.clone();
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn resolve(attributes: &mut Attributes<'_, '_>, pod: &mut Value) -> Result<(), Status> {
    let named = pod["spec"]["priorityClassName"].as_str().unwrap_or("");
    let class = if named.is_empty() { default_class(attributes.api) } else { find(attributes.api, named) };
    if !named.is_empty() && class.is_none() {
        let detail = format!("no PriorityClass with name {named} was found");
        return Err(attributes.forbidden(pod, &detail));
    }
    let value = class.as_ref().and_then(|class| class.root().get("value").as_i64()).unwrap_or(0);
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != value) {
        let detail = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(pod, &detail));
    }
    let policy =
        class.as_ref().map_or(PREEMPT, |class| class.root().get("preemptionPolicy").as_str().unwrap_or(PREEMPT));
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
        let detail = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(pod, &detail));
    }
    let (priority, policy) = (Value::from(value), Value::from(policy));
    if let Some(class) = class.as_ref().filter(|_| named.is_empty()) {
        pod["spec"]["priorityClassName"] = Value::from(class.name());
    }
    pod["spec"]["priority"] = priority;
    pod["spec"]["preemptionPolicy"] = policy;
    Ok(())
}

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, class: &Value) -> Result<(), Status> {
    let asks = attributes.is_create() || attributes.is_update();
    if !asks || !attributes.is_main("scheduling.k8s.io", "priorityclasses") || class["globalDefault"] != true {
        return Ok(());
    }
    match default_class(attributes.api) {
        Some(default) if attributes.is_create() || class["metadata"]["name"] != default.name() => {
            let name = default.name();
            let detail = format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(attributes.forbidden(class, &detail))
        }
        _ => Ok(()),
    }
}

fn find(api: &Api, name: &str) -> Option<Object> {
    api.lookup("scheduling.k8s.io", "v1", "priorityclasses", "", name)
}

/// Of several defaults the one with the lowest value counts.
fn default_class(api: &Api) -> Option<Object> {
    let catalog = api.catalog();
    let kind = catalog.by_resource("scheduling.k8s.io", "v1", "priorityclasses")?;
    let snapshot = api.store.snapshot();
    let classes = snapshot.range(&kind.prefix, None).map(|entry| feed::object(kind, &entry));
    let defaults = classes.filter(|class| class.root().get("globalDefault").is_true());
    defaults.min_by_key(|class| class.root().get("value").as_i64())
}
