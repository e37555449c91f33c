//! Who may do what: bindings, certificate requests, admission and aggregated APIs.
use super::duration;
use super::row::{NONE, Row, UNSET, condition, join};
use mote_schema::{Ref, selector::LabelSelector};

pub(super) fn binding(row: &mut Row<'_>) {
    let role = row.at("roleRef");
    row.name();
    row.text(&format!("{}/{}", role.get("kind").str(), role.get("name").str()));
    row.age();
    let subjects = row.at("subjects");
    for kind in ["User", "Group", "ServiceAccount"] {
        let of_kind = subjects.items().filter(|subject| subject.get("kind").str() == kind);
        let names: Vec<String> = of_kind
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", subject.get("namespace").str(), subject.get("name").str()),
                _ => subject.get("name").str().to_owned(),
            })
            .collect();
        row.text(&names.join(", "));
    }
}

pub(super) fn signing_request(row: &mut Row<'_>) {
    let conditions = row.at("status.conditions");
    let has = |kind| condition(conditions, kind).exists();
    let mut status = match () {
        _ if has("Denied") => "Denied",
        _ if has("Approved") => "Approved",
        _ => "Pending",
    }
    .to_owned();
    if has("Failed") {
        status += ",Failed";
    }
    if !row.at("status.certificate").is_empty() {
        status += ",Issued";
    }
    row.name();
    row.age();
    row.string_or("spec.signerName", NONE);
    row.string("spec.username");
    row.text(&row.at("spec.expirationSeconds").as_i64().map_or(NONE.into(), duration::human));
    row.text(&status);
}

pub(super) fn webhooks(row: &mut Row<'_>) {
    row.name();
    row.count("webhooks");
    row.age();
}

pub(super) fn validating_policy(row: &mut Row<'_>) {
    policy(row, "spec.validations");
}

pub(super) fn mutating_policy(row: &mut Row<'_>) {
    policy(row, "spec.mutations");
}

fn policy(row: &mut Row<'_>, rules: &str) {
    let kind = row.at("spec.paramKind");
    row.name();
    row.count(rules);
    row.text(&match kind.exists() {
        true => format!("{}/{}", kind.get("apiVersion").str(), kind.get("kind").str()),
        false => UNSET.into(),
    });
    row.age();
}

pub(super) fn policy_binding(row: &mut Row<'_>) {
    row.name();
    row.string("spec.policyName");
    row.text(&parameters(row.at("spec.paramRef")));
    row.age();
}

/// Parameters by name, whatever their scope, or by selector.
fn parameters(reference: Ref<'_>) -> String {
    let (name, namespace) = (reference.get("name").str(), reference.get("namespace").str());
    match (name, namespace) {
        ("", _) if reference.get("selector").exists() => match LabelSelector::from_ref(reference.get("selector")) {
            Ok(Some(selector)) => selector.to_string(),
            _ => UNSET.into(),
        },
        ("", _) => UNSET.into(),
        (name, "") => format!("*/{name}"),
        (name, namespace) => format!("{namespace}/{name}"),
    }
}

pub(super) fn api_service(row: &mut Row<'_>) {
    let (service, available) = (row.at("spec.service"), condition(row.at("status.conditions"), "Available"));
    let (status, reason) = (available.get("status").str(), available.get("reason").str());
    row.name();
    row.text(&match service.exists() {
        true => format!("{}/{}", service.get("namespace").str(), service.get("name").str()),
        false => "Local".into(),
    });
    row.text(&match (status, reason) {
        ("", _) => "Unknown".into(),
        ("True", _) | (_, "") => status.into(),
        _ => join([status, &format!("({reason})")].into_iter(), " "),
    });
    row.age();
}
