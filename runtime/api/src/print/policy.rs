//! The node and the cluster: nodes, namespaces, events, configuration, limits and priorities.
use super::row::{NONE, Row, UNKNOWN, condition, quantity};
use mote_schema::Gather as _;
use mote_schema::Order as _;
use mote_schema::Ref;
use std::collections::BTreeSet;

pub(super) fn node(row: &mut Row<'_>) {
    let ready = condition(row.at("status.conditions"), "Ready");
    let mut status = match (ready.exists(), ready.get("status").str()) {
        (false, _) => "Unknown",
        (true, "True") => "Ready",
        (true, _) => "NotReady",
    }
    .to_owned();
    if row.at("spec.unschedulable").is_true() {
        status += ",SchedulingDisabled";
    }
    row.name();
    row.text(&status);
    row.text(&roles(row.object.meta().get("labels")));
    row.age();
    let info = row.at("status.nodeInfo");
    row.string("status.nodeInfo.kubeletVersion");
    let addresses = row.at("status.addresses");
    for kind in ["InternalIP", "ExternalIP"] {
        row.text(condition(addresses, kind).get("address").as_str().unwrap_or(NONE));
    }
    row.string_or("status.nodeInfo.osImage", UNKNOWN);
    let (kernel, architecture) = (info.get("kernelVersion"), info.get("architecture").str());
    let kernel = if kernel.is_empty() { UNKNOWN } else { kernel.str() };
    row.text(&if architecture.is_empty() { kernel.to_owned() } else { format!("{kernel} ({architecture})") });
    row.string_or("status.nodeInfo.containerRuntimeVersion", UNKNOWN);
}

fn roles(labels: Ref<'_>) -> String {
    let role = |(key, value): (&'_ str, Ref<'_>)| {
        let role = match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => role.to_owned(),
            None if key == "kubernetes.io/role" => value.str().to_owned(),
            None => String::new(),
        };
        Some(role).filter(|role| !role.is_empty())
    };
    let roles: BTreeSet<String> = labels.entries().filter_map(role).gather();
    super::row::or_none(roles.into_iter().collect::<Vec<_>>().join(","))
}

pub(super) fn namespace(row: &mut Row<'_>) {
    row.name();
    row.string("status.phase");
    row.age();
}

pub(super) fn secret(row: &mut Row<'_>) {
    row.name();
    row.string("type");
    row.count("data");
    row.age();
}

pub(super) fn config_map(row: &mut Row<'_>) {
    row.name();
    row.int((row.at("data").entries().count() + row.at("binaryData").entries().count()) as i64);
    row.age();
}

/// An event through either of its APIs: the fields of events.k8s.io have other names.
pub(super) fn event(row: &mut Row<'_>) {
    let either = |names: [&str; 2]| {
        let [core, events] = names.map(|name| row.object.root().get(name));
        if core.exists() { core } else { events }
    };
    let time = |place: Ref<'_>, or: String| if place.is_empty() { or } else { row.since(place) };
    let first = time(either(["firstTimestamp", "deprecatedFirstTimestamp"]), row.since(row.at("eventTime")));
    let mut last = time(either(["lastTimestamp", "deprecatedLastTimestamp"]), first.clone());
    let mut count = either(["count", "deprecatedCount"]).as_i64().unwrap_or(0).max(1);
    let series = row.at("series");
    if series.exists() {
        last = row.since(series.get("lastObservedTime"));
        count = series.get("count").as_i64().unwrap_or(0);
    }
    let about = either(["involvedObject", "regarding"]);
    let mut target = about.get("kind").str().to_lowercase();
    if !about.get("name").is_empty() {
        target += &format!("/{}", about.get("name").str());
    }
    let source = either(["source", "deprecatedSource"]);
    let first_of = |a: Ref<'_>, b: Ref<'_>| if a.is_empty() { b.str().to_owned() } else { a.str().to_owned() };
    let component = first_of(source.get("component"), either(["reportingComponent", "reportingController"]));
    let instance = first_of(source.get("host"), row.at("reportingInstance"));
    let message = either(["message", "note"]).str().trim();
    row.text(&last);
    row.string("type");
    row.string("reason");
    row.text(&target);
    row.text(about.get("fieldPath").str());
    row.text(&if instance.is_empty() { component } else { format!("{component}, {instance}") });
    row.text(message);
    row.text(&first);
    row.int(count);
    row.name();
}

pub(super) fn component_status(row: &mut Row<'_>) {
    let healthy = condition(row.at("conditions"), "Healthy");
    row.name();
    row.text(match (healthy.exists(), healthy.get("status").str()) {
        (false, _) => "Unknown",
        (true, "True") => "Healthy",
        (true, _) => "Unhealthy",
    });
    row.text(healthy.get("message").str());
    row.text(healthy.get("error").str());
}

/// `resource: used/hard` by resource; limits in a column of their own.
pub(super) fn resource_quota(row: &mut Row<'_>) {
    let (hard, used) = (row.at("status.hard"), row.at("status.used"));
    let mut resources: Vec<_> = hard.entries().collect();
    resources.order_by_key(|(resource, _)| *resource);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in resources {
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {}/{}", quantity(used.get(resource)), quantity(hard)));
    }
    row.name();
    row.text(&requests.join(", "));
    row.text(&limits.join(", "));
    row.age();
}

pub(super) fn disruption_budget(row: &mut Row<'_>) {
    let number_or_percent = |place: Ref<'_>| match (place.as_i64(), place.as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(percent)) => percent.to_owned(),
        (None, None) => "N/A".into(),
    };
    row.name();
    row.text(&number_or_percent(row.at("spec.minAvailable")));
    row.text(&number_or_percent(row.at("spec.maxUnavailable")));
    row.integer("status.disruptionsAllowed");
    row.age();
}

pub(super) fn lease(row: &mut Row<'_>) {
    row.name();
    row.string("spec.holderIdentity");
    row.age();
}

pub(super) fn priority_class(row: &mut Row<'_>) {
    row.name();
    row.integer("value");
    row.bool(row.at("globalDefault").is_true());
    row.age();
    row.string("preemptionPolicy");
}

pub(super) fn runtime_class(row: &mut Row<'_>) {
    row.name();
    row.string("handler");
    row.age();
}

pub(super) fn flow_schema(row: &mut Row<'_>) {
    row.name();
    row.string("spec.priorityLevelConfiguration.name");
    row.integer("spec.matchingPrecedence");
    row.text(row.at("spec.distinguisherMethod.type").as_str().unwrap_or(NONE));
    row.age();
    row.text(condition(row.at("status.conditions"), "Dangling").get("status").as_str().unwrap_or("?"));
}

pub(super) fn priority_level(row: &mut Row<'_>) {
    let limited = row.at("spec.limited");
    let queuing = limited.at("limitResponse.queuing");
    row.name();
    row.string("spec.type");
    let cells = [
        (limited, "nominalConcurrencyShares"),
        (queuing, "queues"),
        (queuing, "handSize"),
        (queuing, "queueLengthLimit"),
    ];
    for (place, field) in cells {
        match place.exists() {
            true => row.int(place.get(field).as_i64().unwrap_or(0)),
            false => row.text(NONE),
        }
    }
    row.age();
}
