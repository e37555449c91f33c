//! Dynamic resource allocation (pkg/apis/resource/validation). Expressions of selectors are CEL, which this crate does not know.
use super::{
    at::{At, Errors},
    rules::{rules, short},
    scheduling,
};
use crate::Value;
use crate::validate as format;

const REQUEST_NAME: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

pub(super) fn class(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    selectors(&spec, errors);
    configs(&spec, None, errors);
    let name = spec.get("extendedResourceName");
    if name.is_set() && (!name.str().contains('/') || !format::qualified_name(name.str()).is_empty()) {
        errors.invalid(&name, "must be a valid extended resource name");
    }
}

pub(super) fn claim(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    claim_spec(&new.get("spec"), errors);
    immutable_spec(new, old, errors);
}

pub(super) fn claim_template(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    super::meta::labels(&new.at("spec.metadata.labels"), errors);
    super::meta::annotations(&new.at("spec.metadata.annotations"), errors);
    claim_spec(&new.at("spec.spec"), errors);
    immutable_spec(new, old, errors);
}

fn immutable_spec(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    if let Some(old) = old {
        errors.immutable(&new.get("spec"), &old.get("spec"));
    }
}

/// Elements by a key that none may share.
fn unique<'v>(list: impl Iterator<Item = At<'v>>, key: impl Fn(&At<'v>) -> &'v Value, errors: &mut Errors) {
    let mut seen: Vec<&Value> = Vec::new();
    for item in list {
        let key = key(&item);
        if seen.contains(&key) {
            errors.0.push(crate::Cause::duplicate(&*item.path, key));
        }
        seen.push(key);
    }
}

/// Names that results and constraints may refer to: "request", "request/alternative".
fn request_names(devices: &At<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for request in devices.get("requests").items() {
        let name = request.get("name").str();
        names.push(name.to_owned());
        names.extend(request.get("firstAvailable").items().map(|sub| format!("{name}/{}", sub.get("name").str())));
    }
    names
}

fn request_reference(at: &At<'_>, names: &[String], errors: &mut Errors) {
    if at.str().split('/').count() > 2 {
        return errors.invalid(at, REQUEST_NAME);
    }
    at.str().split('/').for_each(|part| errors.each(at, format::dns1123_label(part)));
    if !names.iter().any(|name| name == at.str()) {
        errors.invalid(at, REQUEST_NAME);
    }
}

fn claim_spec(spec: &At<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    let requests = devices.get("requests");
    let names = request_names(&devices);
    errors.too_many(&requests, 32);
    requests.items().for_each(|at| request(&at, errors));
    unique(requests.items(), |at| at.peek("name"), errors);
    for constraint in devices.get("constraints").items() {
        let (list, same, other) =
            (constraint.get("requests"), constraint.get("matchAttribute"), constraint.get("distinctAttribute"));
        list.items().for_each(|at| request_reference(&at, &names, errors));
        unique(list.items(), |at| at.value, errors);
        match (same.is_set(), other.is_set()) {
            (true, _) => full_name(&same, errors),
            (false, true) => full_name(&other, errors),
            (false, false) => errors.required(
                &constraint,
                r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#,
            ),
        }
    }
    configs(&devices, Some(&names), errors);
}

fn request(at: &At<'_>, errors: &mut Errors) {
    errors.each(&at.get("name"), format::dns1123_label(at.get("name").str()));
    let (exactly, first) = (at.get("exactly"), at.get("firstAvailable"));
    match (exactly.is_set(), !first.is_empty()) {
        (false, false) => errors.required(at, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, true) => errors.invalid_null(
            &at.with(&Value::Null),
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (true, false) => device_request(&exactly, errors),
        (false, true) => {
            for sub in first.items() {
                errors.each(&sub.get("name"), format::dns1123_label(sub.get("name").str()));
                device_request(&sub, errors);
            }
            unique(first.items(), |at| at.peek("name"), errors);
        }
    }
}

fn device_request(at: &At<'_>, errors: &mut Errors) {
    rules(at, "deviceClassName!subdomain", errors);
    selectors(at, errors);
    let (mode, count) = (at.get("allocationMode"), at.get("count"));
    match mode.str() {
        "All" if count.int().unwrap_or(0) != 0 => {
            errors.invalid(&count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count.int().unwrap_or(0) <= 0 => errors.invalid(&count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        _ => errors.unsupported(&mode, &["All", "ExactCount"]),
    }
    for toleration in at.get("tolerations").items() {
        rules(&toleration, "key~qualified", errors);
        let value = toleration.get("value");
        match toleration.get("operator").str() {
            "Exists" if !value.str().is_empty() => errors.invalid(&value, "must be empty for operator `Exists`"),
            "Equal" => rules(&toleration, "value~value", errors),
            _ => {}
        }
        rules(&toleration, "operator!=Equal|Exists effect=NoExecute|NoSchedule|None", errors);
    }
}

fn selectors(at: &At<'_>, errors: &mut Errors) {
    errors.too_many(&at.get("selectors"), 32);
    for selector in at.get("selectors").items() {
        let cel = selector.get("cel");
        if !cel.is_set() {
            errors.required(&cel, "");
        }
    }
}

fn configs(at: &At<'_>, names: Option<&[String]>, errors: &mut Errors) {
    for config in at.get("config").items() {
        if let Some(names) = names {
            config.get("requests").items().for_each(|at| request_reference(&at, names, errors));
            unique(config.get("requests").items(), |at| at.value, errors);
        }
        let opaque = config.get("opaque");
        if !opaque.is_set() {
            errors.required(&opaque, "");
            continue;
        }
        rules(&opaque, "driver!driver", errors);
        let parameters = opaque.get("parameters");
        if parameters.value.is_null() {
            errors.required(&parameters, "");
        } else if parameters.value.as_object().is_none() {
            errors.invalid_value(&parameters.path, &"<value omitted>".into(), "must be a valid JSON object");
        }
    }
}

/// "domain/name" or "name"
fn qualified(text: &str, at: &At<'_>, errors: &mut Errors) {
    let (domain, name) = text.split_once('/').map_or((None, text), |(domain, name)| (Some(domain), name));
    if let Some(domain) = domain {
        for message in format::dns1123_subdomain(&domain.to_lowercase()) {
            errors.invalid_value(&at.path, &domain.into(), &message);
        }
    }
    let edge = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(edge) || !name.chars().all(|c| edge(c) || c.is_ascii_digit()) {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
            alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
            '[A-Za-z_][A-Za-z0-9_]*')";
        errors.invalid_value(&at.path, &name.into(), detail);
    }
}

fn full_name(at: &At<'_>, errors: &mut Errors) {
    qualified(at.str(), at, errors);
    if !at.str().contains('/') {
        errors.invalid(at, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

pub(super) fn claim_status(new: &At<'_>, errors: &mut Errors) {
    let (status, names) = (new.get("status"), request_names(&new.at("spec.devices")));
    let (allocation, consumers) = (status.get("allocation"), status.get("reservedFor"));
    for consumer in consumers.items() {
        rules(&consumer, "resource! name! uid!", errors);
    }
    unique(consumers.items(), |at| at.peek("uid"), errors);
    for result in allocation.at("devices.results").items() {
        request_reference(&result.get("request"), &names, errors);
        rules(&result, "driver!driver", errors);
        errors.each(&result.get("pool"), pool_name(result.get("pool").str()));
        errors.each(&result.get("device"), format::dns1123_label(result.get("device").str()));
    }
    if !consumers.is_empty() && !allocation.is_set() {
        errors.forbidden(&consumers, "may not be specified when `allocated` is not set");
    }
}

fn pool_name(text: &str) -> Vec<String> {
    text.split('/').flat_map(format::dns1123_subdomain).collect()
}

const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

pub(super) fn slice(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    rules(&spec, "driver!driver pool.name!", errors);
    let (pool, devices) = (spec.get("pool"), spec.get("devices"));
    if !pool.get("name").str().is_empty() {
        errors.each(&pool.get("name"), pool_name(pool.get("name").str()));
    }
    if pool.get("resourceSliceCount").int().unwrap_or(0) <= 0 {
        errors.invalid(&pool.get("resourceSliceCount"), "must be greater than zero");
    }
    if pool.get("generation").int().unwrap_or(0) < 0 {
        errors.invalid(&pool.get("generation"), "must be greater than or equal to zero");
    }
    if let Some(old) = old.map(|old| old.get("spec")) {
        for field in ["pool.name", "driver", "nodeName"] {
            errors.immutable(&spec.at(field), &old.at(field));
        }
    }
    let mut set: Vec<String> = Vec::new();
    for field in PLACES {
        let at = spec.get(field);
        match at.value {
            Value::Null => continue,
            Value::String(name) if name.is_empty() => {
                errors.invalid(&at, "must be either unset or set to a non-empty string");
                continue;
            }
            Value::Bool(false) => {
                errors.invalid(&at, "must be either unset or set to true");
                continue;
            }
            Value::String(name) => errors.each(&at, format::dns1123_subdomain(name)),
            Value::Object(_) => {
                scheduling::node_selector(&at, errors);
                if at.get("nodeSelectorTerms").len() != 1 {
                    let terms = at.get("nodeSelectorTerms");
                    let shown = if terms.is_set() { terms.value.clone() } else { Value::Array(Vec::new().into()) };
                    errors.invalid_value(&terms.path, &shown, "must have exactly one node selector term");
                }
            }
            _ => {}
        }
        set.push(format!("`{field}`"));
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => errors.required(&spec, one),
        1 => {}
        _ => errors.invalid_value(
            &spec.path,
            &Value::from(format!("{{{}}}", set.join(", "))),
            &format!("{one}, but multiple fields are set"),
        ),
    }
    if spec.get("sharedCounters").is_set() && devices.is_set() {
        errors.invalid_value(&spec.path, &Value::Null, "only one of `sharedCounters` or `devices` is allowed");
    }
    errors.too_many(&devices, 128);
    devices.items().for_each(|at| device(&at, errors));
    unique(devices.items(), |at| at.peek("name"), errors);
}

fn device(at: &At<'_>, errors: &mut Errors) {
    errors.each(&at.get("name"), format::dns1123_label(at.get("name").str()));
    for list in ["attributes", "capacity"] {
        let map = at.get(list);
        for (key, _) in map.members() {
            qualified(key, &map, errors);
            if list == "attributes" {
                attribute(&map.key(key), errors);
            }
        }
    }
    for taint in at.get("taints").items() {
        rules(&taint, "key!qualified value~value effect!=NoExecute|NoSchedule|None", errors);
    }
}

fn attribute(at: &At<'_>, errors: &mut Errors) {
    let version = at.get("version");
    if version.is_set() && !is_semantic_version(version.str()) {
        errors.invalid(&version, "must be a string compatible with semver.org spec 2.0.0");
    }
    for text in [&version, &at.get("string")] {
        short(text, 64, errors);
    }
    match at.len() {
        1 => {}
        0 => errors.invalid_value(&at.path, &Value::Null, "exactly one value must be specified"),
        _ => errors.invalid(at, "exactly one value must be specified"),
    }
}

/// Three numbers without zeros in front, and what may follow them.
fn is_semantic_version(text: &str) -> bool {
    let core = text.split(['-', '+']).next().unwrap_or("");
    let number = |part: &str| {
        part.parse::<u64>().is_ok_and(|n| n.to_string() == part) && part.bytes().all(|b| b.is_ascii_digit())
    };
    core.split('.').count() == 3 && core.split('.').all(number)
}
