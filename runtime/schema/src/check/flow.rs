//! FlowSchemas and PriorityLevelConfigurations (pkg/apis/flowcontrol/validation).
use super::{
    at::{At, Errors},
    rules::rules,
};
use crate::Value;
use crate::validate as format;

const MAX_PRECEDENCE: i64 = 10_000;
const MAX_QUEUES: i64 = 10_000_000;
const MAX_HASH_BITS: u32 = 60;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub(super) fn schema(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    let (precedence, method, level) =
        (spec.get("matchingPrecedence"), spec.get("distinguisherMethod"), spec.at("priorityLevelConfiguration.name"));
    match precedence.int().unwrap_or(0) {
        ..=0 => errors.invalid(&precedence, "must be a positive value"),
        n if n > MAX_PRECEDENCE => errors.invalid(&precedence, &format!("must not be greater than {MAX_PRECEDENCE}")),
        1 if new.at("metadata.name").str() != "exempt" => {
            errors.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        _ => {}
    }
    if method.is_set() && !matches!(method.get("type").str(), "ByNamespace" | "ByUser") {
        errors.unsupported(&method.moved(method.get("type").path), &["ByNamespace", "ByUser"]);
    }
    match level.str() {
        "" => errors.required(&level, "must reference a priority level"),
        _ => rules(&spec, "priorityLevelConfiguration.name~subdomain", errors),
    }
    for rule in spec.get("rules").items() {
        let (subjects, resources, others) =
            (rule.get("subjects"), rule.get("resourceRules"), rule.get("nonResourceRules"));
        if subjects.is_empty() {
            errors.required(&subjects, "subjects must contain at least one value");
        }
        subjects.items().for_each(|at| subject(&at, errors));
        if resources.is_empty() && others.is_empty() {
            errors.required(&rule, "at least one of resourceRules and nonResourceRules has to be non-empty");
        }
        resources.items().for_each(|at| resource_rule(&at, errors));
        others.items().for_each(|at| non_resource_rule(&at, errors));
    }
}

fn subject(at: &At<'_>, errors: &mut Errors) {
    // In the order in which upstream refuses the others.
    const KINDS: [(&str, &str); 3] = [("serviceAccount", "ServiceAccount"), ("user", "User"), ("group", "Group")];
    let kind = at.get("kind");
    let Some((field, _)) = KINDS.iter().find(|(_, k)| *k == kind.str()) else {
        return errors.unsupported(&kind, &["Group", "ServiceAccount", "User"]);
    };
    let who = at.get(field);
    if who.is_set() {
        let name = who.get("name");
        match name.str() {
            "" => errors.required(&name, ""),
            "*" => {}
            _ if *field == "serviceAccount" => rules(&who, "name~subdomain", errors),
            _ => {}
        }
        if *field == "serviceAccount" && who.get("namespace").str().is_empty() {
            errors.required(&who.get("namespace"), "must specify namespace for service account");
        } else if *field == "serviceAccount" {
            rules(&who, "namespace~label", errors);
        }
    } else {
        errors.required(&who, &format!("{field} is required when subject kind is '{}'", kind.str()));
    }
    for (other, kind) in KINDS.iter().filter(|(other, _)| other != field && at.get(other).is_set()) {
        errors.forbidden(&at.get(other), &format!("{other} is forbidden when subject kind is not '{kind}'"));
    }
}

/// One of a list of words where "*" stands alone.
fn starred(list: &At<'_>, missing: &str, what: &str, errors: &mut Errors) -> bool {
    let star = list.items().any(|item| item.str() == "*");
    if list.is_empty() {
        errors.required(list, missing);
    } else if star && list.len() > 1 {
        errors.invalid(list, &format!("if '*' is present, must not specify other {what}"));
    }
    star
}

fn verbs(list: &At<'_>, errors: &mut Errors) {
    let star = starred(list, "verbs must contain at least one value", "verbs", errors);
    if !star && list.items().any(|verb| !VERBS.contains(&verb.str())) {
        errors.unsupported(list, &VERBS);
    }
}

fn resource_rule(at: &At<'_>, errors: &mut Errors) {
    verbs(&at.get("verbs"), errors);
    starred(&at.get("apiGroups"), "resource rules must supply at least one api group", "api groups", errors);
    starred(&at.get("resources"), "resource rules must supply at least one resource", "resources", errors);
    let namespaces = at.get("namespaces");
    if namespaces.is_empty() && !at.get("clusterScope").is_true() {
        errors.required(&namespaces, "resource rules that are not cluster scoped must supply at least one namespace");
    } else if !namespaces.is_empty() && !starred(&namespaces, "", "namespaces", errors) {
        for namespace in namespaces.items() {
            let messages = format::dns1123_label(namespace.str());
            if !messages.is_empty() {
                let detail =
                    format!("each member of this list must be '*' or a DNS-1123 label; {}", messages.join("; "));
                errors.invalid(&namespace, &detail);
            }
        }
    }
}

fn non_resource_rule(at: &At<'_>, errors: &mut Errors) {
    verbs(&at.get("verbs"), errors);
    let urls = at.get("nonResourceURLs");
    if starred(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", errors) {
        return;
    }
    for url in urls.items() {
        let text = url.str();
        let detail = match text {
            "" => "must not be empty",
            "/" => continue,
            _ if !text.starts_with('/') => "must start with slash",
            _ if text.contains(' ') => "must not contain white-space",
            _ if text.contains("//") => "must not contain double slash",
            _ if text.trim_end_matches("/*").contains('*') || text.matches('*').count() > 1 => {
                "wildcard can only do suffix matching"
            }
            _ => continue,
        };
        errors.invalid(&url, detail);
    }
}

pub(super) fn schema_status(new: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for condition in new.at("status.conditions").items() {
        let kind = condition.get("type");
        if seen.contains(&kind.str()) {
            errors.duplicate(&kind);
        }
        seen.push(kind.str());
        rules(&condition, "type!", errors);
    }
}

pub(super) fn level(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (new.at("metadata.name").str() == "exempt") != (kind.str() == "Exempt") {
        errors.invalid(&kind, "must be 'Exempt' if and only if `name` is 'exempt'");
        if kind.str() != "Exempt" {
            let detail = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
            errors.invalid(&spec, detail);
        }
    }
    match kind.str() {
        "Exempt" => {
            if limited.is_set() {
                errors.forbidden(&limited, "must be nil if the type is not Limited");
            }
            shares(&exempt, errors);
        }
        "Limited" => {
            if exempt.is_set() {
                errors.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if limited.is_set() {
                limited_level(&limited, errors);
            } else {
                errors.required(&limited, "must not be empty when type is Limited");
            }
        }
        _ => errors.unsupported(&kind, &["Exempt", "Limited"]),
    }
}

fn shares(at: &At<'_>, errors: &mut Errors) {
    let shares = at.get("nominalConcurrencyShares");
    if shares.int().is_some_and(|n| n < 0) {
        errors.invalid(&shares, "must be a non-negative integer");
    }
}

fn limited_level(at: &At<'_>, errors: &mut Errors) {
    shares(at, errors);
    let response = at.get("limitResponse");
    let queuing = response.get("queuing");
    match response.get("type").str() {
        "Reject" if queuing.is_set() => {
            errors.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if queuing.is_set() => queues(&queuing, errors),
        "Queue" => errors.required(&queuing, "must not be empty if limited.limitResponse.type is Limited"),
        _ => errors.unsupported(&response.get("type"), &["Queue", "Reject"]),
    }
    rules(at, "lendablePercent:0..100", errors);
    let borrowing = at.get("borrowingLimitPercent");
    if borrowing.int().is_some_and(|n| n < 0) {
        errors.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
}

fn queues(at: &At<'_>, errors: &mut Errors) {
    let number = |field: &str| at.get(field).int().unwrap_or(0);
    let (queues, hand) = (number("queues"), number("handSize"));
    let mut refuse = |field: &str, detail: &str| {
        errors.invalid_value(&at.get(field).path, &Value::from(number(field)), detail);
    };
    if number("queueLengthLimit") <= 0 {
        refuse("queueLengthLimit", "must be positive");
    }
    if queues <= 0 {
        refuse("queues", "must be positive");
    } else if queues > MAX_QUEUES {
        refuse("queues", &format!("must not be greater than {MAX_QUEUES}"));
    }
    // How many bits it takes to deal so many queues out of so many.
    let bits = |queues: i64, hand: i64| (0..hand).map(|i| ((queues - i) as f64).log2()).sum::<f64>().ceil() as u32;
    if hand <= 0 {
        refuse("handSize", "must be positive");
    } else if hand > queues {
        refuse("handSize", &format!("should not be greater than queues ({queues})"));
    } else if bits(queues, hand.min(64)) > MAX_HASH_BITS {
        refuse(
            "handSize",
            &format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
            ),
        );
    }
}
