//! One stored object under two faces: events.k8s.io/v1 Events are stored as core/v1 Events, autoscaling/v1
//! HorizontalPodAutoscalers as autoscaling/v2 (pkg/apis/{events,autoscaling}/v1/conversion.go).
//!
//! Order for a write: `prune::clean` and `defaults::apply` with the kind the client named, then `to_stored`, then all else with
//! the stored kind (its defaults too: applying them again changes nothing). For a read: `from_stored` last. Kinds that are
//! stored as they are pass through untouched.
use crate::Kind;
use crate::{Map, Value, json};

/// Whether the kind's stored form is another kind's.
pub fn is_needed(kind: &Kind) -> bool {
    matches!((&*kind.group, &*kind.version, &*kind.kind), EVENT | AUTOSCALER)
}

/// Group and version of the stored form, for the catalog.
pub fn stored_as(kind: &Kind) -> (&str, &str) {
    match (&*kind.group, &*kind.version, &*kind.kind) {
        EVENT => ("", "v1"),
        AUTOSCALER => ("autoscaling", "v2"),
        _ => (&kind.group, &kind.version),
    }
}

const EVENT: (&str, &str, &str) = ("events.k8s.io", "v1", "Event");
const AUTOSCALER: (&str, &str, &str) = ("autoscaling", "v1", "HorizontalPodAutoscaler");

pub fn to_stored(kind: &Kind, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    match (&*kind.group, &*kind.version, &*kind.kind) {
        EVENT => EVENT_FIELDS.iter().for_each(|(new, core)| rename(map, new, core)),
        AUTOSCALER => autoscaler_to_stored(map),
        _ => {}
    }
}

pub fn from_stored(kind: &Kind, value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    match (&*kind.group, &*kind.version, &*kind.kind) {
        EVENT => EVENT_FIELDS.iter().for_each(|(new, core)| rename(map, core, new)),
        AUTOSCALER => autoscaler_from_stored(map),
        _ => return,
    }
    // Zeros are written and left out as this version does; what is stored has nothing to complain about.
    let _ = crate::prune::clean(kind, value);
}

/// events.k8s.io/v1 and core/v1.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(map: &mut Map, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.into(), value);
    }
}

/// Where v1 keeps what it has no field for. (Upstream writes its own older shapes there; these are v2's, which only have to
/// survive the way through v1 and back.)
const SPEC_METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const STATUS_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// (part, field in v2, annotation in v1)
const ANNOTATED: [(&str, &str, &str); 4] = [
    ("spec", "metrics", SPEC_METRICS),
    ("spec", "behavior", BEHAVIOR),
    ("status", "conditions", CONDITIONS),
    ("status", "currentMetrics", STATUS_METRICS),
];

/// (part, list in v2, number in v1, object that holds it in v2)
const UTILIZATION: [(&str, &str, &str, &str); 2] = [
    ("spec", "metrics", "targetCPUUtilizationPercentage", "target"),
    ("status", "currentMetrics", "currentCPUUtilizationPercentage", "current"),
];

fn autoscaler_to_stored(map: &mut Map) {
    for (part, field, annotation) in ANNOTATED {
        let text = annotations(map).and_then(|a| a.remove(annotation));
        let value = text.and_then(|t| serde_json::from_str::<Value>(t.as_str()?).ok());
        if let (Some(value), Some(Value::Object(part))) = (value, map.get_mut(part)) {
            part.insert(field.into(), value);
        }
    }
    if let Some(Value::Object(meta)) = map.get_mut("metadata")
        && meta.get("annotations").is_some_and(|a| a.as_object().is_some_and(Map::is_empty))
    {
        meta.remove("annotations");
    }
    for (part, list, number, holder) in UTILIZATION {
        let Some(Value::Object(part)) = map.get_mut(part) else { continue };
        let Some(percent) = part.remove(number) else { continue };
        let mut amount = json!({ "averageUtilization": percent });
        if holder == "target" {
            amount["type"] = "Utilization".into();
        }
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", holder: amount}});
        match part.get_mut(list).and_then(Value::as_array_mut) {
            // Its place is the first: v1 shows the first it finds.
            Some(metrics) => metrics.insert(0, metric),
            None => {
                part.insert(list.into(), json!([metric]));
            }
        }
    }
}

fn autoscaler_from_stored(map: &mut Map) {
    for (part, list, number, holder) in UTILIZATION {
        let Some(Value::Object(part)) = map.get_mut(part) else { continue };
        let Some(Value::Array(metrics)) = part.get_mut(list) else { continue };
        let percent = |m: &Value| {
            let resource = m.get("resource").filter(|r| r["name"] == "cpu")?;
            resource.get(holder)?.get("averageUtilization").cloned()
        };
        if let Some(at) = metrics.iter().position(|m| percent(m).is_some()) {
            let metric = metrics.remove(at);
            if let Some(percent) = percent(&metric) {
                part.insert(number.into(), percent);
            }
        }
    }
    for (part, field, annotation) in ANNOTATED {
        let value = map.get_mut(part).and_then(Value::as_object_mut).and_then(|p| p.remove(field));
        let Some(value) = value.filter(|v| !v.is_null() && v.as_array().is_none_or(|l| !l.is_empty())) else {
            continue;
        };
        if let Some(annotations) = annotations(map) {
            annotations.insert(annotation.into(), value.to_string().into());
        }
    }
}

fn annotations(map: &mut Map) -> Option<&mut Map> {
    let meta = map.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    meta.entry("annotations").or_insert_with(|| json!({})).as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;

    fn check(group: &str, kind: &str, face: Value, stored: Value) {
        let catalog = Catalog::builtin();
        let kind = catalog.by_kind(group, "v1", kind).unwrap();
        assert!(is_needed(kind) && catalog.by_resource(stored_as(kind).0, stored_as(kind).1, &kind.plural).is_some());
        let mut value = face;
        assert_eq!(crate::prune::clean(kind, &mut value), Ok(Vec::new()));
        let face = value.clone();
        to_stored(kind, &mut value);
        for (name, wanted) in stored.as_object().unwrap() {
            assert_eq!(value.get(name), Some(wanted), "{name}");
        }
        from_stored(kind, &mut value);
        assert_eq!(value, face);
    }

    #[test]
    fn there_and_back() {
        check(
            "events.k8s.io",
            "Event",
            json!({"metadata": {"name": "e"}, "note": "n", "regarding": {"kind": "Pod"}, "reportingController": "c",
                "deprecatedCount": 2, "eventTime": "2024-01-01T00:00:00.000000Z", "reason": "r", "type": "Normal"}),
            json!({"metadata": {"name": "e"}, "message": "n", "involvedObject": {"kind": "Pod"}, "reportingComponent": "c",
                "count": 2, "eventTime": "2024-01-01T00:00:00.000000Z", "reason": "r", "type": "Normal"}),
        );
        check(
            "autoscaling",
            "HorizontalPodAutoscaler",
            json!({"metadata": {"name": "h", "annotations": {BEHAVIOR: "{\"scaleUp\":{}}"}},
                "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "k", "name": "n"}, "targetCPUUtilizationPercentage": 50}, "status": {"currentReplicas": 1, "desiredReplicas": 1}}),
            json!({"metadata": {"name": "h"}, "status": {"currentReplicas": 1, "desiredReplicas": 1}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "k", "name": "n"}, "behavior": {"scaleUp": {}},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}}),
        );
    }
}
