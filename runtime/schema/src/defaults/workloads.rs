//! Conditional defaults of what runs pods (pkg/apis/{apps,batch,autoscaling}/*/defaults.go).
use super::{Members, default, is_empty_list, object, text};
use crate::{Value, json};

/// A rolling update gets its numbers from the table; here only whether there is one.
pub(super) fn strategy(name: &str, strategy: &mut Members) {
    match (name, text(strategy, "type")) {
        ("StatefulSetUpdateStrategy", "") => {
            strategy.insert("type".into(), "RollingUpdate".into());
            default(strategy, "rollingUpdate", json!({}));
        }
        ("DeploymentStrategy" | "DaemonSetUpdateStrategy", "" | "RollingUpdate") => {
            default(strategy, "rollingUpdate", json!({}));
        }
        _ => {}
    }
}

/// The claims inside show their own kind (pkg/apis/apps/v1/conversion.go).
pub(super) fn stateful_set(spec: &mut Members) {
    if let Some(Value::Array(claims)) = spec.get_mut("volumeClaimTemplates") {
        for claim in claims.iter_mut().filter_map(Value::as_object_mut) {
            default(claim, "apiVersion", "v1".into());
            default(claim, "kind", "PersistentVolumeClaim".into());
        }
    }
}

/// A Job's own: a CronJob's template is completed when a Job is made of it.
fn job(spec: &mut Members) {
    default(spec, "completionMode", "NonIndexed".into());
    default(spec, "suspend", false.into());
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions".into(), 1.into());
    }
    default(spec, "parallelism", 1.into());
    let backoff = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
    default(spec, "backoffLimit", backoff.into());
    let replacement = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default(spec, "podReplacementPolicy", replacement.into());
}

/// A Job says whether its selector is its own.
pub(super) fn job_labels(map: &mut Members) {
    let template = map.get("spec").and_then(|s| s.get("template")?.get("metadata")?.get("labels")).cloned();
    if let (Some(labels), Some(meta)) = (template, object(map, "metadata")) {
        default(meta, "labels", labels);
    }
    if let Some(spec) = object(map, "spec") {
        default(spec, "manualSelector", false.into());
        job(spec);
    }
}

pub(super) fn autoscaler(spec: &mut Members) {
    if is_empty_list(spec, "metrics") {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert("metrics".into(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    let Some(Value::Object(behavior)) = spec.get_mut("behavior") else { return };
    if let Some(up) = object(behavior, "scaleUp") {
        let policies = json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]);
        default(up, "stabilizationWindowSeconds", 0.into());
        default(up, "selectPolicy", "Max".into());
        default(up, "policies", policies);
    }
    if let Some(down) = object(behavior, "scaleDown") {
        default(down, "selectPolicy", "Max".into());
        default(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}
