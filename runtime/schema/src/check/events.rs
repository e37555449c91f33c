//! Events: the old face keeps almost anything, the new one does not (pkg/apis/core/validation/events.go).
use super::{
    at::{At, Errors},
    rules::rules,
};
use crate::Value;
use crate::validate as format;

/// `new_face` when the client came by events.k8s.io; the object has its stored form, core/v1, all the same.
pub(super) fn event(new: &At<'_>, old: Option<&At<'_>>, new_face: bool, errors: &mut Errors) {
    let get = |name: &str| new.get(name);
    let (time, object) = (get("eventTime"), get("involvedObject").get("namespace"));
    let namespace = new.at("metadata.namespace").str();
    let fits = if time.is_set() {
        !object.str().is_empty() || matches!(namespace, "default" | "kube-system")
    } else if object.str().is_empty() {
        namespace == "default"
    } else {
        object.str() == namespace
    };
    if !fits {
        errors.invalid(&object, "does not match event.namespace");
    }
    if time.is_set() {
        let controller = get("reportingComponent");
        let path = if new_face { "reportingController" } else { "reportingComponent" };
        let controller = controller.moved(path);
        if controller.str().is_empty() {
            errors.required(&controller, "");
        }
        errors.each(&controller, format::qualified_name(controller.str()));
        for (name, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128), ("message", 1024)] {
            let at = get(name);
            if at.str().is_empty() && name != "message" {
                errors.required(&at, "");
            }
            if at.str().len() > max {
                errors.invalid_value(name, &Value::Null, &format!("can have at most {max} characters"));
            }
        }
    }
    if !new_face {
        return;
    }
    let unset = |name: &str, errors: &mut Errors| {
        let at = get(name);
        if !at.is_empty() || at.int().unwrap_or(0) != 0 {
            errors.invalid_value(name, &Value::Null, "needs to be unset");
        }
    };
    let series = |errors: &mut Errors| {
        let series = get("series");
        if series.is_set() && series.get("count").int().unwrap_or(0) < 2 {
            errors.invalid_value("series.count", &Value::Null, "should be at least 2");
        }
        if series.is_set() {
            rules(&series, "lastObservedTime!", errors);
        }
    };
    let Some(old) = old else {
        series(errors);
        if !time.is_set() {
            errors.required(&time, "");
        }
        if !matches!(get("type").str(), "Normal" | "Warning") {
            let detail = format!("has invalid value: {}", get("type").str());
            errors.invalid_value("type", &Value::Null, &detail);
        }
        ["firstTimestamp", "lastTimestamp", "count", "source"].iter().for_each(|name| unset(name, errors));
        return;
    };
    let before = |name: &str| old.get(name);
    if get("series").value != before("series").value {
        series(errors);
    }
    for name in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ] {
        let path = if name == "reportingComponent" { "reportingController" } else { name };
        errors.immutable(&get(name).moved(path), &before(name));
    }
}
