//! LimitRanger: what a container asks for when it does not say, and how little or much a container, pod or claim may
//! ask for in this namespace (plugin/pkg/admission/limitranger).
use super::Attributes;
use crate::{
    Object, feed,
    quota::{
        Amounts,
        pod::{Counted, Side, totals},
    },
};
use mote_schema::{Doc, Order as _, Ref, Status, quantity::Quantity};
use mote_schema::{Map, Value};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Amounts above this are compared as whole numbers, as upstream's int64 of thousandths would overflow.
const MAX_MILLI_VALUE: i64 = i64::MAX / 1000;

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, new: &mut Value) -> Result<(), Status> {
    if !attributes.is("", "pods") || !supports(attributes) {
        return Ok(());
    }
    for range in ranges(attributes) {
        set_defaults(range.root(), new);
    }
    Ok(())
}

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    if !supports(attributes) {
        return Ok(());
    }
    let ranges = ranges(attributes);
    if ranges.is_empty() {
        return Ok(());
    }
    let doc = Doc::encode(new).map_err(|error| Status::bad_request(format!("{error:?}")))?;
    for range in ranges {
        let problems =
            if attributes.is("", "pods") { pod(range.root(), doc.root()) } else { claim(range.root(), doc.root()) };
        match problems.as_slice() {
            [] => {}
            [one] => return Err(attributes.forbidden(new, one)),
            many => return Err(attributes.forbidden(new, &format!("[{}]", many.join(", ")))),
        }
    }
    Ok(())
}

/// New pods and claims, resized pods, and changed claims. What is going is left alone.
fn supports(attributes: &Attributes<'_, '_>) -> bool {
    let deleting = attributes.old["metadata"].get("deletionTimestamp").is_some();
    let (create, update) = (attributes.is_create(), attributes.is_update() && !deleting);
    attributes.is_main("", "pods") && create
        || attributes.is("", "pods") && attributes.subresource == "resize" && update
        || attributes.is_main("", "persistentvolumeclaims") && (create || update)
}

fn ranges(attributes: &Attributes<'_, '_>) -> Vec<Object> {
    let api = attributes.api;
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("", "v1", "limitranges") else { return Vec::new() };
    let prefix = api.list_prefix(kind, attributes.target.namespace);
    api.store.snapshot().range(&prefix, None).map(|entry| feed::object(kind, &entry)).collect()
}

fn limits<'a>(range: Ref<'a>, wanted: &'a str) -> impl Iterator<Item = Ref<'a>> {
    range.at("spec.limits").items().filter(move |limit| limit.get("type").str() == wanted)
}

fn set_defaults(range: Ref<'_>, pod: &mut Value) {
    let (mut requests, mut limits_) = (Map::new(), Map::new());
    for limit in limits(range, "Container") {
        for (list, field) in [(&mut requests, "defaultRequest"), (&mut limits_, "default")] {
            list.extend(limit.get(field).entries().map(|(name, amount)| (name.to_owned(), amount.to_value())));
        }
    }
    let mut said = Vec::new();
    for (what, field) in [("container", "containers"), ("init container", "initContainers")] {
        for container in pod["spec"].get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            if !container.is_object() {
                continue;
            }
            let name = container["name"].as_str().unwrap_or("").to_owned();
            for (side, defaults) in [("requests", &requests), ("limits", &limits_)] {
                let set = fill(&mut container["resources"], side, defaults);
                if !set.is_empty() {
                    said.push(format!("{} {} for {what} {name}", set.join(", "), side.trim_end_matches('s')));
                }
            }
        }
    }
    if !said.is_empty() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = Value::Object(Map::new());
        }
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", said.join("; ")).into();
    }
}

/// Adds what is missing; returns its names.
fn fill(resources: &mut Value, side: &str, defaults: &Map) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if resources[side].get(name).is_some() {
            continue;
        }
        if !resources.is_object() {
            *resources = Value::Object(Map::new());
        }
        if !resources[side].is_object() {
            resources[side] = Value::Object(Map::new());
        }
        resources[side][name] = amount.clone();
        set.push(name.to_string());
    }
    set.order();
    set
}

fn pod(range: Ref<'_>, pod: Ref<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = pod.get("spec");
    for limit in range.at("spec.limits").items() {
        match limit.get("type").str() {
            "Container" => {
                for container in spec.get("containers").items().chain(spec.get("initContainers").items()) {
                    let resources = container.get("resources");
                    let (requests, limits) =
                        (Amounts::of(resources.get("requests")), Amounts::of(resources.get("limits")));
                    hold("Container", limit, &requests, &limits, &mut problems);
                }
            }
            "Pod" => {
                let of = |side| totals(pod, side, Counted::default());
                hold("Pod", limit, &of(Side::Requests), &of(Side::Limits), &mut problems);
            }
            _ => {}
        }
    }
    problems
}

fn claim(range: Ref<'_>, claim: Ref<'_>) -> Vec<String> {
    let (what, requests) = ("PersistentVolumeClaim", Amounts::of(claim.at("spec.resources.requests")));
    let mut problems = Vec::new();
    for limit in limits(range, what) {
        for (name, bound) in Amounts::of(limit.get("min")).0 {
            problems.extend(at_least(what, &name, bound, &requests, &Amounts::default()));
        }
        for (name, bound) in Amounts::of(limit.get("max")).0 {
            match requests.get(&name) {
                None => problems.push(format!("maximum {name} usage per {what} is {bound}.  No request is specified")),
                Some(request) if more(request, bound, Quantity::default()) => {
                    problems.push(format!("maximum {name} usage per {what} is {bound}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    problems
}

fn hold(what: &str, limit: Ref<'_>, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    for (name, bound) in Amounts::of(limit.get("min")).0 {
        problems.extend(at_least(what, &name, bound, requests, limits));
    }
    for (name, bound) in Amounts::of(limit.get("max")).0 {
        problems.extend(at_most(what, &name, bound, requests, limits));
    }
    for (name, bound) in Amounts::of(limit.get("maxLimitRequestRatio")).0 {
        problems.extend(ratio(what, &name, bound, requests, limits));
    }
}

/// `a` above `b` at the precision that all three of upstream's numbers allow.
fn more(a: Quantity, b: Quantity, third: Quantity) -> bool {
    if [a, b, third].iter().all(|amount| amount.value() <= MAX_MILLI_VALUE) {
        a.milli_value() > b.milli_value()
    } else {
        a.value() > b.value()
    }
}

fn at_least(what: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let text = format!("minimum {name} usage per {what} is {bound}");
    let (request, limit) = (requests.get(name), limits.get(name));
    match request {
        None => Some(format!("{text}.  No request is specified")),
        Some(request) if more(bound, request, limit.unwrap_or_default()) => {
            Some(format!("{text}, but request is {request}"))
        }
        Some(request) => {
            limit.filter(|limit| more(bound, *limit, request)).map(|limit| format!("{text}, but limit is {limit}"))
        }
    }
}

fn at_most(what: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let text = format!("maximum {name} usage per {what} is {bound}");
    let (request, limit) = (requests.get(name), limits.get(name));
    match limit {
        None => Some(format!("{text}.  No limit is specified")),
        Some(limit) if more(limit, bound, request.unwrap_or_default()) => Some(format!("{text}, but limit is {limit}")),
        Some(limit) => request
            .filter(|request| more(*request, bound, limit))
            .map(|request| format!("{text}, but request is {request}")),
    }
}

fn ratio(what: &str, name: &str, bound: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let text = format!("{name} max limit to request ratio per {what} is {bound}");
    let set = |list: &Amounts| list.get(name).filter(|amount| !amount.is_zero());
    let Some(request) = set(requests) else {
        return Some(format!("{text}, but no request is specified or request is 0"));
    };
    let Some(limit) = set(limits) else { return Some(format!("{text}, but no limit is specified or limit is 0")) };
    let fine = [request, limit, bound].iter().all(|amount| amount.value() <= MAX_MILLI_VALUE);
    let number = |amount: Quantity| if fine { amount.milli_value() } else { amount.value() } as f64;
    let observed = number(limit) / number(request);
    let (scaled, most) = match bound.value() <= MAX_MILLI_VALUE {
        true => (observed * 1000.0, bound.milli_value() as f64),
        false => (observed, bound.value() as f64),
    };
    (scaled > most).then(|| format!("{text}, but provided ratio is {observed:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    fn doc(value: Value) -> Doc {
        Doc::encode(&value).unwrap()
    }

    #[test]
    fn defaults_are_set_and_said() {
        let range = doc(json!({"spec": {"limits": [
            {"type": "Pod", "default": {"cpu": "9"}},
            {"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}]}}));
        let mut pod = json!({"metadata": {}, "spec": {
            "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "1", "memory": "2Gi"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "1"}}}]}});
        set_defaults(range.root(), &mut pod);
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; cpu request for container b"
        );
        let resources = &pod["spec"]["containers"][0]["resources"];
        assert_eq!(*resources, json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}}));
        assert_eq!(pod["spec"]["containers"][1]["resources"]["limits"]["cpu"], "1");
    }

    #[test]
    fn pods_outside_the_limits_are_refused() {
        let check = |limit: Value, containers: Value, expected: &[&str]| {
            let range = doc(json!({"spec": {"limits": [limit]}}));
            assert_eq!(pod(range.root(), doc(json!({"spec": {"containers": containers}})).root()), expected);
        };
        let asks = |requests: Value, limits: Value| json!([{"name": "c", "resources": {"requests": requests, "limits": limits}}]);
        let none = || json!({});
        let container = |field: &str, bound: &str| json!({"type": "Container", field: {"cpu": bound}});
        check(
            container("min", "100m"),
            asks(none(), none()),
            &["minimum cpu usage per Container is 100m.  No request is specified"],
        );
        check(
            container("min", "100m"),
            asks(json!({"cpu": "50m"}), none()),
            &["minimum cpu usage per Container is 100m, but request is 50m"],
        );
        check(
            container("min", "100m"),
            asks(json!({"cpu": "0.1"}), json!({"cpu": "90m"})),
            &["minimum cpu usage per Container is 100m, but limit is 90m"],
        );
        check(
            container("max", "2"),
            asks(none(), none()),
            &["maximum cpu usage per Container is 2.  No limit is specified"],
        );
        check(
            container("max", "2"),
            asks(none(), json!({"cpu": "2500m"})),
            &["maximum cpu usage per Container is 2, but limit is 2500m"],
        );
        check(container("max", "2"), asks(json!({"cpu": "2"}), json!({"cpu": "2"})), &[]);
        check(
            container("maxLimitRequestRatio", "1500m"),
            asks(json!({"cpu": "1"}), json!({"cpu": "2"})),
            &["cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000"],
        );
        check(
            json!({"type": "Pod", "max": {"memory": "1Gi"}}),
            json!([{"name": "a", "resources": {"limits": {"memory": "600Mi"}}}, {"name": "b", "resources": {"limits": {"memory": "600Mi"}}}]),
            &["maximum memory usage per Pod is 1Gi, but limit is 1200Mi"],
        );
    }

    #[test]
    fn claims_outside_the_limits_are_refused() {
        let range = doc(json!({"spec": {"limits": [
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]}}));
        for (size, expected) in [
            ("1Gi", None),
            ("1Mi", Some("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi")),
            ("3Gi", Some("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")),
        ] {
            let asked = doc(json!({"spec": {"resources": {"requests": {"storage": size}}}}));
            assert_eq!(claim(range.root(), asked.root()).first().map(String::as_str), expected);
        }
    }
}
