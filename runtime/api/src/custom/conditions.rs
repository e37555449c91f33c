//! A definition's status: which of its names are its own, and what is told about it
//! (apiextensions-apiserver/pkg/controller/{status,establish,apiapproval}).
use crate::clock;
use mote_schema::{Doc, Ref, structural};
use mote_schema::{Value, json};
use std::collections::HashSet;

/// Names that the definitions of a group have been given.
#[derive(Default)]
pub(super) struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    pub fn add(&mut self, accepted: Ref<'_>) {
        let text = |name: &str| accepted.get(name).str().to_owned();
        self.resources.extend([text("plural"), text("singular")]);
        self.resources.extend(accepted.get("shortNames").items().map(|name| name.str().to_owned()));
        self.kinds.extend([text("kind"), text("listKind")]);
    }
}

fn conflict(wanted: &str, own: &str, taken: &HashSet<String>) -> Option<String> {
    (wanted != own && taken.contains(wanted)).then(|| format!("{wanted:?} is already in use"))
}

/// The accepted names, and reason and message of a conflict.
fn names(spec: Ref<'_>, status: Ref<'_>, taken: &Taken) -> (Value, Option<(&'static str, String)>) {
    let (wanted, own) = (spec.get("names"), status.get("acceptedNames"));
    let mut accepted = own.to_value();
    if !accepted.is_object() {
        accepted = json!({});
    }
    let mut problem = None;
    // The last conflict is the one that is told of.
    for (name, taken, reason) in [
        ("plural", &taken.resources, "PluralConflict"),
        ("singular", &taken.resources, "SingularConflict"),
        ("shortNames", &taken.resources, "ShortNamesConflict"),
        ("kind", &taken.kinds, "KindConflict"),
        ("listKind", &taken.kinds, "ListKindConflict"),
    ] {
        let errors: Vec<String> = match name {
            "shortNames" => {
                let is_own = |short: &str| own.get(name).items().any(|known| known.str() == short);
                let fresh = wanted.get(name).items().map(Ref::str).filter(|short| !is_own(short));
                fresh.filter_map(|short| conflict(short, "", taken)).collect()
            }
            _ => conflict(wanted.get(name).str(), own.get(name).str(), taken).into_iter().collect(),
        };
        match errors.as_slice() {
            [] if wanted.get(name).is_empty() => drop(accepted.as_object_mut().map(|map| map.remove(name))),
            [] => accepted[name] = wanted.get(name).to_value(),
            [one] => problem = Some((reason, one.clone())),
            several => problem = Some((reason, format!("[{}]", several.join(", ")))),
        }
    }
    match wanted.get("categories").is_empty() {
        true => drop(accepted.as_object_mut().map(|map| map.remove("categories"))),
        false => accepted["categories"] = wanted.get("categories").to_value(),
    }
    (accepted, problem)
}

pub(super) fn find<'v>(status: &'v Value, name: &str) -> Option<&'v Value> {
    status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == name)
}

/// SetCRDCondition: the time is that of the last change of `status`.
pub(crate) fn set(object: &mut Value, name: &str, is_true: bool, reason: &str, message: &str) {
    let value = if is_true { "True" } else { "False" };
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    let conditions = &mut object["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let new = json!({"type": name, "status": value, "reason": reason, "message": message,
        "lastTransitionTime": clock::timestamp()});
    match list.iter_mut().find(|condition| condition["type"] == name) {
        None => list.push(new),
        Some(known) => {
            if known["status"] != value {
                known["lastTransitionTime"] = new["lastTransitionTime"].clone();
            }
            for field in ["status", "reason", "message"] {
                known[field] = new[field].clone();
            }
        }
    }
}

/// Brings names and conditions up to date in `object`, the definition as a tree.
pub(super) fn settle(doc: &Doc, object: &mut Value, taken: &Taken) {
    let root = doc.root();
    let (accepted, problem) = names(root.get("spec"), root.get("status"), taken);
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    object["status"]["acceptedNames"] = accepted;
    match &problem {
        Some((reason, message)) => set(object, "NamesAccepted", false, reason, message),
        None => set(object, "NamesAccepted", true, "NoConflicts", "no conflicts found"),
    }
    if !structural::is_true(root, "Established") {
        let conversion = root.at("spec.conversion.webhook.clientConfig.caBundle").str();
        let bad_bundle = !conversion.is_empty() && structural::bundle_error(conversion).is_some();
        match (&problem, bad_bundle) {
            (Some(_), _) => set(object, "Established", false, "NotAccepted", "not all names are accepted"),
            (None, true) => {
                set(object, "Established", false, "InvalidCABundle", "The conversion webhook CABundle is invalid");
            }
            (None, false) => {
                set(object, "Established", true, "InitialNamesAccepted", "the initial names have been accepted");
            }
        }
    }
    if structural::is_protected(root.at("spec.group").str()) {
        let (reason, message) = structural::approval(root);
        let name = "KubernetesAPIApprovalPolicyConformant";
        set(object, name, reason == "ApprovedAnnotation", reason, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(names: Value, status: Value, others: &[Value]) -> Value {
        let mut object = json!({"spec": {"group": "example.com", "names": names}, "status": status});
        let doc = Doc::encode(&object).unwrap_or_else(|error| panic!("{error}"));
        let mut taken = Taken::default();
        for other in others.iter().chain([&object["status"]["acceptedNames"]]) {
            let other = Doc::encode(other).unwrap_or_else(|error| panic!("{error}"));
            taken.add(other.root());
        }
        settle(&doc, &mut object, &taken);
        object["status"].clone()
    }

    fn told(status: &Value, name: &str) -> String {
        let condition = find(status, name).cloned().unwrap_or_default();
        let text = |field: &str| condition[field].as_str().unwrap_or("").to_owned();
        format!("{} {} {}", text("status"), text("reason"), text("message"))
    }

    #[test]
    fn names_go_to_who_asks_first() {
        let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList", "shortNames": ["th"]});
        let alone = run(names.clone(), json!({}), &[]);
        assert_eq!(alone["acceptedNames"], names);
        assert_eq!(told(&alone, "NamesAccepted"), "True NoConflicts no conflicts found");
        assert_eq!(told(&alone, "Established"), "True InitialNamesAccepted the initial names have been accepted");
        let other = json!({"plural": "others", "singular": "other", "kind": "Thing", "listKind": "OtherList", "shortNames": ["th"]});
        let second = run(names.clone(), json!({}), std::slice::from_ref(&other));
        assert_eq!(told(&second, "NamesAccepted"), "False KindConflict \"Thing\" is already in use");
        assert_eq!(told(&second, "Established"), "False NotAccepted not all names are accepted");
        assert_eq!(second["acceptedNames"], json!({"plural": "things", "singular": "thing", "listKind": "ThingList"}));
        // Once established, a definition stays so, whatever it asks for later.
        let mut status = alone.clone();
        status["acceptedNames"]["shortNames"] = json!([]);
        let later = run(names, status, &[other]);
        assert_eq!(told(&later, "NamesAccepted"), "False ShortNamesConflict \"th\" is already in use");
        assert_eq!(told(&later, "Established"), "True InitialNamesAccepted the initial names have been accepted");
    }
}
