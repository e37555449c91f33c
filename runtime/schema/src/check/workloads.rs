//! What runs and scales pods: pkg/apis/apps/validation, autoscaling, policy, and the ReplicationController.
use super::{
    at::{At, Errors},
    meta, pod,
    rules::rules,
};
use crate::Value;
use crate::validate as format;

const SELECTOR: &str = "`selector` does not match template `labels`";

fn has_requirements(selector: &At<'_>) -> bool {
    !selector.get("matchLabels").is_empty() || !selector.get("matchExpressions").is_empty()
}

/// Required, valid, and not the one that selects everything.
fn selector(spec: &At<'_>, what: &str, errors: &mut Errors) {
    let at = spec.get("selector");
    if !at.is_set() {
        return errors.required(&at, "");
    }
    meta::label_selector(&at, errors);
    if !has_requirements(&at) {
        errors.invalid(&at, &format!("empty selector is invalid for {what}"));
    }
}

/// The template's labels must be among what the selector selects, or the owner never sees its own pods.
fn selects_template(spec: &At<'_>, errors: &mut Errors) {
    let labels = spec.at("template.metadata.labels");
    let selector = spec.get("selector");
    if is_valid(&selector) && !meta::selects(&selector, &labels) {
        errors.invalid_null(&labels, SELECTOR);
    }
}

fn is_valid(selector: &At<'_>) -> bool {
    let mut found = Errors::default();
    meta::label_selector(selector, &mut found);
    found.0.is_empty()
}

/// Pods of these owners always run again.
fn always_restarts(spec: &At<'_>, what: &str, errors: &mut Errors) {
    let policy = spec.at("template.spec.restartPolicy");
    if policy.str() != "Always" {
        errors.unsupported(&policy, &["Always"]);
    }
    let deadline = spec.at("template.spec.activeDeadlineSeconds");
    if deadline.is_set() {
        errors.forbidden(&deadline, &format!("activeDeadlineSeconds in {what} is not Supported"));
    }
}

fn non_negative(spec: &At<'_>, fields: &[&str], errors: &mut Errors) {
    for field in fields {
        errors.non_negative(&spec.get(field));
    }
}

/// ValidatePodTemplateSpecForReplicaSet
fn replica_template(spec: &At<'_>, errors: &mut Errors) {
    let selector = spec.get("selector");
    if !is_valid(&selector) {
        return errors.invalid(&selector, "invalid label selector");
    }
    // An empty selector has been refused already.
    if !selector.is_set() || has_requirements(&selector) {
        selects_template(spec, errors);
    }
    pod::template(&spec.get("template"), errors);
    always_restarts(spec, "ReplicaSet", errors);
}

pub(super) fn deployment(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    non_negative(&spec, &["replicas"], errors);
    selector(&spec, "deployment", errors);
    replica_template(&spec, errors);
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "Recreate" if rolling.is_set() => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.is_set() => errors.required(&rolling, "this should be defaulted and never be nil"),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            int_or_percent(&unavailable, errors);
            int_or_percent(&surge, errors);
            if number_of(&unavailable) == 0 && number_of(&surge) == 0 {
                errors.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(&unavailable, errors);
        }
        _ => errors.unsupported(&strategy, &["Recreate", "RollingUpdate"]),
    }
    non_negative(&spec, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], errors);
    let deadline = spec.get("progressDeadlineSeconds");
    if deadline.int().is_some_and(|n| n <= spec.get("minReadySeconds").int().unwrap_or(0)) {
        errors.invalid(&deadline, "must be greater than minReadySeconds");
    }
    same_selector(&spec, old, errors);
}

fn same_selector(spec: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    if let Some(old) = old {
        errors.immutable(&spec.get("selector"), &old.at("spec.selector"));
    }
}

pub(super) fn replica_set(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    non_negative(&spec, &["replicas", "minReadySeconds"], errors);
    selector(&spec, "deployment", errors);
    replica_template(&spec, errors);
    same_selector(&spec, old, errors);
}

pub(super) fn replication_controller(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    errors.non_negative(&spec.get("minReadySeconds"));
    let selector = spec.get("selector");
    if selector.is_empty() {
        errors.required(&selector, "");
    }
    errors.non_negative(&spec.get("replicas"));
    let template = spec.get("template");
    if !template.is_set() {
        return errors.required(&template, "");
    }
    let labels = template.at("metadata.labels");
    if selector.members().any(|(k, v)| labels.peek(k) != v) {
        errors.invalid_null(&labels, SELECTOR);
    }
    pod::template(&template, errors);
    always_restarts(&spec, "ReplicationController", errors);
}

pub(super) fn daemon_set(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    same_selector(&spec, old, errors);
    meta::label_selector(&spec.get("selector"), errors);
    selects_template(&spec, errors);
    let at = spec.get("selector");
    if at.is_set() && !has_requirements(&at) {
        errors.invalid(&at, "empty selector is invalid for daemonset");
    }
    pod::template(&spec.get("template"), errors);
    always_restarts(&spec, "DaemonSet", errors);
    non_negative(&spec, &["minReadySeconds", "revisionHistoryLimit"], errors);
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.is_set() => errors.required(&rolling, ""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            int_or_percent(&unavailable, errors);
            int_or_percent(&surge, errors);
            at_most_all(&unavailable, errors);
            at_most_all(&surge, errors);
            match (number_of(&unavailable) != 0, number_of(&surge) != 0) {
                (true, true) => errors.invalid(&surge, "may not be set when maxUnavailable is non-zero"),
                (false, false) => errors.required(&unavailable, "cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => errors.unsupported(&strategy, &["RollingUpdate", "OnDelete"]),
    }
}

/// What may change in a StatefulSet that exists.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn stateful_set(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    let policy = spec.get("podManagementPolicy");
    match policy.str() {
        "" => errors.required(&policy, ""),
        "OrderedReady" | "Parallel" => {}
        _ => errors.invalid(&policy, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").str() {
        "" => errors.required(&strategy, ""),
        "OnDelete" if rolling.is_set() => errors.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            errors.non_negative(&rolling.get("partition"));
        }
        _ => errors.invalid(&strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    if old.is_none() {
        for claim in spec.get("volumeClaimTemplates").items() {
            super::storage::claim_spec(&claim.get("spec"), errors);
        }
        let service = spec.get("serviceName");
        if !service.str().is_empty() {
            errors.each(&service, format::dns1123_label(service.str()));
        }
    }
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    if retention.is_set() {
        rules(&retention, "whenDeleted!=Retain|Delete whenScaled!=Retain|Delete", errors);
    }
    non_negative(&spec, &["replicas", "minReadySeconds"], errors);
    let start = spec.at("ordinals.start");
    errors.non_negative(&start.moved(format!("{}.ordinals.start", spec.path)));
    selector(&spec, "statefulset", errors);
    if !spec.get("selector").is_set() || has_requirements(&spec.get("selector")) {
        selects_template(&spec, errors);
    }
    let claims: Vec<&str> = spec.get("volumeClaimTemplates").items().map(|c| c.at("metadata.name").str()).collect();
    let template = spec.get("template");
    // Upstream looks at these twice, by the same path.
    meta::labels(&template.at("metadata.labels").moved("spec.template.labels"), errors);
    meta::annotations(&template.at("metadata.annotations").moved("spec.template.annotations"), errors);
    let volumes = template.at("spec.volumes");
    let own = volumes.items().filter(|volume| !claims.contains(&volume.get("name").str())).count();
    for (place, claim) in spec.get("volumeClaimTemplates").items().enumerate() {
        let volume = volumes.moved(format!("{}[{}]", volumes.path, own + place)).with(&Value::Null);
        let name = claim.at("metadata.name").moved(volume.get("name").path);
        if name.str().is_empty() {
            errors.required(&volume.at("persistentVolumeClaim.claimName"), "");
            errors.required(&name, "");
        } else {
            errors.each(&name, format::dns1123_label(name.str()));
        }
    }
    pod::template_with(&template, &claims, errors);
    always_restarts(&spec, "StatefulSet", errors);
    if let Some(old) = old {
        let frozen = |at: &At<'_>| {
            let mut map = at.value.as_object().cloned().unwrap_or_default();
            map.retain(|k, _| !MUTABLE.contains(&k.as_str()));
            map
        };
        if frozen(&spec) != frozen(&old.get("spec")) {
            errors.forbidden(
                &spec,
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }
}

pub(super) fn controller_revision(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    errors.non_negative(&new.get("revision"));
    let data = new.get("data");
    match old {
        Some(old) => errors.immutable(&data, &old.get("data")),
        None if !data.is_set() => errors.required(&data, "data is mandatory"),
        None if !data.value.is_object() => errors.required(&data, "data must be a valid JSON object"),
        None => {}
    }
}

pub(super) fn deployment_status(status: &At<'_>, errors: &mut Errors) {
    let fields = [
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "collisionCount",
    ];
    non_negative(status, &fields, errors);
    counts(status, &["updatedReplicas", "readyReplicas", "availableReplicas"], "readyReplicas", errors);
}

pub(super) fn stateful_set_status(status: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let fields = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    errors.non_negative(&status.get("replicas"));
    non_negative(status, &fields, errors);
    non_negative(status, &["observedGeneration", "collisionCount"], errors);
    counts(status, &fields, "status.readyReplicas", errors);
    let (count, before) = (status.get("collisionCount"), old.and_then(|old| old.at("status.collisionCount").int()));
    if count.int().unwrap_or(0) < before.unwrap_or(0) {
        errors.invalid_value(&count.path, &count.int().unwrap_or(0).into(), "cannot be decremented");
    }
}

pub(super) fn replication_controller_status(status: &At<'_>, errors: &mut Errors) {
    let fields = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    errors.non_negative(&status.get("replicas"));
    non_negative(status, &fields, errors);
    errors.non_negative(&status.get("observedGeneration"));
    counts(status, &fields, "readyReplicas", errors);
}

pub(super) fn replica_set_status(status: &At<'_>, errors: &mut Errors) {
    let fields = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "terminatingReplicas",
        "observedGeneration",
    ];
    non_negative(status, &fields, errors);
    counts(status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], "readyReplicas", errors);
}

/// `ready` is what upstream calls the ready ones there.
fn counts(status: &At<'_>, fields: &[&str], ready: &str, errors: &mut Errors) {
    let count = |field: &str| status.get(field).int().unwrap_or(0);
    for field in fields {
        if count(field) > count("replicas") {
            let at = status.get(field);
            errors.invalid_value(&at.path, &count(field).into(), "cannot be greater than status.replicas");
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let (at, available) = (status.get("availableReplicas"), count("availableReplicas"));
        errors.invalid_value(&at.path, &available.into(), &format!("cannot be greater than {ready}"));
    }
}

pub(super) fn disruption_budget(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    let (min, max) = (spec.get("minAvailable"), spec.get("maxUnavailable"));
    if min.is_set() && max.is_set() {
        errors.invalid_value(&spec.path, spec.value, "minAvailable and maxUnavailable cannot be both set");
    }
    for at in [min, max] {
        if at.is_set() {
            int_or_percent(&at, errors);
            at_most_all(&at, errors);
        }
    }
    meta::label_selector(&spec.get("selector"), errors);
}

/// ValidatePositiveIntOrPercent
fn int_or_percent(at: &At<'_>, errors: &mut Errors) {
    match at.value {
        Value::String(text) => errors.each(at, format::percent(text)),
        _ => errors.non_negative(at),
    }
}

fn percent_of(at: &At<'_>) -> Option<i64> {
    at.value.as_str()?.strip_suffix('%')?.parse().ok()
}

fn number_of(at: &At<'_>) -> i64 {
    percent_of(at).or(at.int()).unwrap_or(0)
}

/// IsNotMoreThan100Percent
fn at_most_all(at: &At<'_>, errors: &mut Errors) {
    if percent_of(at).is_some_and(|n| n > 100) {
        errors.invalid(at, "must not be greater than 100%");
    }
}
