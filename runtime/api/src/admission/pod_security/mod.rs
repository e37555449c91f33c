//! PodSecurity: what a namespace's labels demand of its pods (k8s.io/pod-security-admission). `enforce` refuses pods,
//! `warn` and `audit` also speak of workloads whose pods would be refused; the checks themselves are in `checks`.
mod checks;
mod policy;

use super::{Attributes, references::items};
use crate::{Object, feed};
use mote_schema::{Order as _, Status, Value};
use policy::{Demand, Level, Policy};
use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

const ANNOTATION: &str = "pod-security.kubernetes.io/";
/// A namespace's pods looked at when its labels change, and how long that may take.
const MAX_PODS: usize = 3000;
const MAX_TIME: Duration = Duration::from_secs(1);

/// Kinds with a pod template, and where it is.
const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("", "podtemplates", &["template"]),
    ("", "replicationcontrollers", &["spec", "template"]),
    ("apps", "replicasets", &["spec", "template"]),
    ("apps", "deployments", &["spec", "template"]),
    ("apps", "statefulsets", &["spec", "template"]),
    ("apps", "daemonsets", &["spec", "template"]),
    ("batch", "jobs", &["spec", "template"]),
    ("batch", "cronjobs", &["spec", "jobTemplate", "spec", "template"]),
];
/// Parts of a pod that say nothing of its spec.
const IGNORED: &[&str] = &["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    if !attributes.is_create() && !attributes.is_update() {
        return Ok(());
    }
    if attributes.is_main("", "namespaces") {
        return namespace(attributes, new);
    }
    if attributes.is("", "pods") {
        if IGNORED.contains(&attributes.subresource) || attributes.is_update() && !changes(attributes.old, new) {
            return Ok(());
        }
        let policy = policy_of(attributes);
        let privileged = policy.errors.is_empty() && policy.is_privileged();
        if privileged {
            attributes.annotate(format!("{ANNOTATION}enforce-policy"), "privileged:latest");
            return Ok(());
        }
        return evaluate(attributes, &policy, new, new, true);
    }
    let template = TEMPLATES.iter().find(|(group, plural, _)| attributes.is_main(group, plural));
    let Some((_, _, path)) = template else { return Ok(()) };
    let template = path.iter().fold(new, |value, field| &value[*field]);
    if !template.is_object() {
        return Ok(());
    }
    let policy = policy_of(attributes);
    let silent = policy.warn.level == Level::Privileged && policy.audit.level == Level::Privileged;
    if policy.errors.is_empty() && silent {
        return Ok(());
    }
    evaluate(attributes, &policy, template, new, false)
}

fn policy_of(attributes: &Attributes<'_, '_>) -> Policy {
    let namespace = attributes.api.lookup("", "v1", "namespaces", "", attributes.target.namespace);
    namespace.map_or_else(Policy::default, |namespace| Policy::of(&namespace.meta().get("labels").to_value()))
}

/// `pod` is a pod or a template of one, in the object `new`.
fn evaluate(
    attributes: &mut Attributes<'_, '_>,
    policy: &Policy,
    pod: &Value,
    new: &Value,
    enforce: bool,
) -> Result<(), Status> {
    if !policy.errors.is_empty() {
        let list: Vec<String> =
            policy.errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let text = if list.len() == 1 { list.join("") } else { format!("[{}]", list.join(", ")) };
        attributes.annotate(format!("{ANNOTATION}error"), format!("Failed to parse policy: {text}"));
    }
    let mut refused = None;
    if enforce {
        attributes.annotate(format!("{ANNOTATION}enforce-policy"), policy.enforce.to_string());
        if let Some(found) = checks::violations(policy.enforce, pod) {
            refused = Some(format!("violates PodSecurity \"{}\": {}", policy.enforce, found.detail()));
        }
    }
    if let Some(found) = checks::violations(policy.audit, pod) {
        let text = format!("would violate PodSecurity \"{}\": {}", policy.audit, found.detail());
        attributes.annotate(format!("{ANNOTATION}audit-violations"), text);
    }
    if let Some(detail) = refused {
        return Err(attributes.forbidden(new, &detail));
    }
    if let Some(found) = checks::violations(policy.warn, pod) {
        attributes.warn(format!("would violate PodSecurity \"{}\": {}", policy.warn, found.detail()));
    }
    Ok(())
}

/// Whether an update of a pod changes what may be judged: its images, or its containers.
fn changes(old: &Value, new: &Value) -> bool {
    let differ = |field: &str| {
        let (old, new) = (&old["spec"][field], &new["spec"][field]);
        items(old).count() != items(new).count() || items(old).zip(items(new)).any(|(a, b)| a["image"] != b["image"])
    };
    let ephemeral = |container: &Value| {
        let mut before = items(&old["spec"]["ephemeralContainers"]);
        before.find(|other| other["name"] == container["name"]).is_none_or(|other| other["image"] != container["image"])
    };
    differ("containers") || differ("initContainers") || items(&new["spec"]["ephemeralContainers"]).any(ephemeral)
}

fn namespace(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    let wanted = Policy::of(&new["metadata"]["labels"]);
    let name = new["metadata"]["name"].as_str().unwrap_or("");
    let before = Policy::of(&attributes.old["metadata"]["labels"]);
    if !wanted.errors.is_empty() && (attributes.is_create() || wanted.errors != before.errors) {
        return Err(Status::invalid("", "Namespace", name, wanted.errors));
    }
    let (old, enforce) = (before.enforce, wanted.enforce);
    let relaxed = enforce.version == old.version && enforce.level <= old.level;
    if attributes.is_create() || enforce == old || enforce.level == Level::Privileged || relaxed {
        return Ok(());
    }
    let warnings = existing(attributes, name, enforce);
    attributes.target.warnings.extend(warnings);
    Ok(())
}

/// What the pods that are there already violate of a new `enforce` level; pods with the same faults share a line.
fn existing(attributes: &Attributes<'_, '_>, namespace: &str, demand: Demand) -> Vec<String> {
    let api = attributes.api;
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("", "v1", "pods") else { return Vec::new() };
    let prefix = api.list_prefix(kind, namespace);
    let snapshot = api.store.snapshot();
    let pods = one_of_each_first(snapshot.range(&prefix, None).map(|entry| feed::object(kind, &entry)).collect());
    let (total, start) = (pods.len(), Instant::now());
    let mut checked = 0;
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(MAX_PODS) {
        checked += 1;
        if let Some(violations) = checks::violations(demand, &pod.to_value()) {
            let (first, count) = found.entry(violations.reason()).or_insert_with(|| (pod.name().to_owned(), 0));
            *count += 1;
            if pod.name() < first.as_str() {
                *first = pod.name().to_owned();
            }
        }
        if start.elapsed() > MAX_TIME {
            break;
        }
    }
    let mut warnings = Vec::new();
    if checked < total {
        let text = "new PodSecurity enforce level only checked against the first";
        warnings.push(format!("{text} {checked} of {total} existing pods"));
    }
    if !found.is_empty() {
        let text = "violate the new PodSecurity enforce level";
        warnings.push(format!("existing pods in namespace \"{namespace}\" {text} \"{demand}\""));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reason, (pod, count))| match count {
            1 => format!("{pod}: {reason}"),
            2 => format!("{pod} (and 1 other pod): {reason}"),
            _ => format!("{pod} (and {} other pods): {reason}", count - 1),
        })
        .collect();
    lines.order();
    warnings.extend(lines);
    warnings
}

/// One pod of each controller before their siblings, which are likely the same.
fn one_of_each_first(pods: Vec<Object>) -> Vec<Object> {
    let mut seen = HashSet::new();
    let controller = |pod: &Object| {
        let mut owners = pod.meta().get("ownerReferences").items();
        owners.find(|owner| owner.get("controller").is_true()).map(|owner| owner.get("uid").str().to_owned())
    };
    let (mut first, rest): (Vec<Object>, Vec<Object>) =
        pods.into_iter().partition(|pod| controller(pod).is_none_or(|uid| seen.insert(uid)));
    first.extend(rest);
    first
}
