//! What keeps pods running: replicas wanted and there, jobs, autoscalers.
use super::row::{NONE, Row, UNKNOWN, UNSET, condition, join, labels, number, quantity, selector};
use mote_schema::{Ref, selector::LabelSelector};

pub(super) fn deployment(row: &mut Row<'_>) {
    row.name();
    row.text(&format!("{}/{}", row.number("status.readyReplicas"), row.number("spec.replicas")));
    row.integer("status.updatedReplicas");
    row.integer("status.availableReplicas");
    row.age();
    row.containers("spec.template");
    // Not as the others: an empty selector is empty here.
    let selector = match LabelSelector::from_ref(row.at("spec.selector")) {
        Ok(found) => found.map_or(String::new(), |found| found.to_string()),
        Err(_) => "<invalid>".into(),
    };
    row.text(&selector);
}

fn replicas(row: &mut Row<'_>) {
    row.name();
    row.integer("spec.replicas");
    row.integer("status.replicas");
    row.integer("status.readyReplicas");
    row.age();
    row.containers("spec.template");
}

pub(super) fn replica_set(row: &mut Row<'_>) {
    replicas(row);
    row.text(&selector(row.at("spec.selector")));
}

pub(super) fn replication_controller(row: &mut Row<'_>) {
    replicas(row);
    row.text(&labels(row.at("spec.selector")));
}

pub(super) fn daemon_set(row: &mut Row<'_>) {
    row.name();
    for count in ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled"] {
        row.int(number(row.at("status").get(count)));
    }
    row.integer("status.numberAvailable");
    row.text(&labels(row.at("spec.template.spec.nodeSelector")));
    row.age();
    row.containers("spec.template");
    row.text(&selector(row.at("spec.selector")));
}

pub(super) fn stateful_set(row: &mut Row<'_>) {
    row.name();
    row.text(&format!("{}/{}", row.number("status.readyReplicas"), row.number("spec.replicas")));
    row.age();
    row.containers("spec.template");
}

pub(super) fn controller_revision(row: &mut Row<'_>) {
    row.name();
    let owner = row.object.meta().get("ownerReferences").items().find(|owner| owner.get("controller").is_true());
    let owner = owner.map_or(NONE.into(), |owner| {
        let kind = owner.get("kind").str().to_lowercase();
        let group =
            owner.get("apiVersion").str().rsplit_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        format!("{kind}{group}/{}", owner.get("name").str())
    });
    row.text(&owner);
    row.integer("revision");
    row.age();
}

pub(super) fn job(row: &mut Row<'_>) {
    let conditions = row.at("status.conditions");
    let is = |kind| condition(conditions, kind).get("status").str() == "True";
    let status = match () {
        _ if is("Complete") => "Complete",
        _ if is("Failed") => "Failed",
        _ if row.object.is_deleting() => "Terminating",
        _ if is("Suspended") => "Suspended",
        _ if is("FailureTarget") => "FailureTarget",
        _ if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        _ => "Running",
    };
    let succeeded = row.number("status.succeeded");
    let completions = match (row.at("spec.completions").as_i64(), row.number("spec.parallelism")) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    };
    row.name();
    row.text(status);
    row.text(&completions);
    let took = row.between(row.at("status.startTime"), row.at("status.completionTime"));
    row.text(&took.unwrap_or_default());
    row.age();
    row.containers("spec.template");
    row.text(&selector(row.at("spec.selector")));
}

pub(super) fn cron_job(row: &mut Row<'_>) {
    row.name();
    row.string("spec.schedule");
    row.text(row.at("spec.timeZone").as_str().unwrap_or(NONE));
    row.text(match row.at("spec.suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    });
    row.count("status.active");
    let last = row.at("status.lastScheduleTime");
    let last = if last.exists() { row.since(last) } else { NONE.into() };
    row.text(&last);
    row.age();
    row.containers("spec.jobTemplate.spec.template");
    row.text(&selector(row.at("spec.jobTemplate.spec.selector")));
}

pub(super) fn scale(row: &mut Row<'_>) {
    row.name();
    row.integer("spec.replicas");
    row.integer("status.replicas");
    row.age();
}

pub(super) fn autoscaler(row: &mut Row<'_>) {
    let target = row.at("spec.scaleTargetRef");
    row.name();
    row.text(&format!("{}/{}", target.get("kind").str(), target.get("name").str()));
    row.text(&metrics(row));
    row.text(&row.at("spec.minReplicas").as_i64().map_or(UNSET.into(), |min| min.to_string()));
    row.integer("spec.maxReplicas");
    row.integer("status.currentReplicas");
    row.age();
}

/// autoscaling/v1 shows one metric, CPU, in fields of its own.
fn metrics(row: &Row<'_>) -> String {
    let percent = |place: Ref<'_>, or: &str| place.as_i64().map_or(or.into(), |n| format!("{n}%"));
    let target = row.at("spec.targetCPUUtilizationPercentage");
    if target.exists() {
        let current = percent(row.at("status.currentCPUUtilizationPercentage"), UNKNOWN);
        return format!("cpu: {current}/{}", percent(target, "<auto>"));
    }
    let current = row.at("status.currentMetrics");
    let list: Vec<String> =
        row.at("spec.metrics").items().enumerate().map(|(place, spec)| metric(spec, current.index(place))).collect();
    match list.len() {
        0 => NONE.into(),
        count if count > 2 => format!("{} + {} more...", list[..2].join(", "), count - 2),
        _ => join(list.iter().map(String::as_str), ", "),
    }
}

/// `current/target` of one metric: the value, the average, or the part of what pods requested.
fn metric(spec: Ref<'_>, status: Ref<'_>) -> String {
    let (source, named) = match spec.get("type").str() {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".into(),
    };
    let (spec, current) = (spec.get(source), status.get(source).get("current"));
    let target = spec.get("target");
    let name = if named { format!("{}: ", spec.get("name").str()) } else { String::new() };
    let shown = |field| if current.get(field).exists() { quantity(current.get(field)) } else { UNKNOWN.into() };
    if target.get("averageValue").exists() || source == "pods" {
        let average = if matches!(source, "external" | "object") { " (avg)" } else { "" };
        return format!("{name}{}/{}{average}", shown("averageValue"), quantity(target.get("averageValue")));
    }
    if !named {
        return format!("{}/{}", shown("value"), quantity(target.get("value")));
    }
    let percent = |place: Ref<'_>, or: &str| place.as_i64().map_or(or.into(), |n| format!("{n}%"));
    let (current, target) = (current.get("averageUtilization"), target.get("averageUtilization"));
    format!("{name}{}/{}", percent(current, UNKNOWN), percent(target, "<auto>"))
}
