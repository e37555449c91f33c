//! Who is asked before a write and who serves a group: webhook configurations
//! (pkg/apis/admissionregistration/validation, apiserver/pkg/util/webhook/validation.go) and APIServices
//! (kube-aggregator/pkg/apis/apiregistration/validation). CEL conditions are compiled elsewhere.
use super::{
    at::{At, Errors},
    meta,
};
use crate::Order as _;
use crate::Value;
use crate::validate as format;

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What an old configuration may keep although a new one may not have it.
struct Kept {
    side_effects: bool,
    review_versions: bool,
    names: bool,
}

pub(super) fn configuration(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let kept = Kept::of(old);
    let mut names: Vec<&str> = Vec::new();
    for hook in new.get("webhooks").items() {
        webhook(&hook, &kept, errors);
        let name = hook.get("name");
        if !kept.names && names.contains(&name.str()) {
            errors.duplicate(&name);
        } else if !name.str().is_empty() {
            names.push(name.str());
        }
    }
}

impl Kept {
    fn of(old: Option<&At<'_>>) -> Kept {
        let hooks: Vec<At<'_>> = old.into_iter().flat_map(|old| old.get("webhooks").items()).collect();
        let unknown = |hook: &At<'_>| {
            let versions = hook.get("admissionReviewVersions");
            !versions.is_empty() && !versions.items().any(|version| REVIEW_VERSIONS.contains(&version.str()))
        };
        let mut names: Vec<&str> = hooks.iter().map(|hook| hook.peek("name").as_str().unwrap_or("")).collect();
        names.order();
        Kept {
            side_effects: hooks.iter().any(|hook| !matches!(hook.get("sideEffects").str(), "None" | "NoneOnDryRun")),
            review_versions: hooks.iter().any(unknown),
            names: names.windows(2).any(|pair| pair.first() == pair.last()),
        }
    }
}

fn webhook(hook: &At<'_>, kept: &Kept, errors: &mut Errors) {
    qualified(&hook.get("name"), errors);
    for rule in hook.get("rules").items() {
        rule_with_operations(&rule, errors);
    }
    let allowed: &[&str] =
        if kept.side_effects { &["None", "NoneOnDryRun", "Some", "Unknown"] } else { &["None", "NoneOnDryRun"] };
    let effects = hook.get("sideEffects");
    if !effects.is_set() {
        errors.required(&effects, &format!("must specify one of {}", allowed.join(", ")));
    } else if !allowed.contains(&effects.str()) {
        errors.unsupported(&effects, allowed);
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    meta::label_selector(&hook.get("namespaceSelector"), errors);
    meta::label_selector(&hook.get("objectSelector"), errors);
    client_config(&hook.get("clientConfig"), errors);
    review_versions(&hook.get("admissionReviewVersions"), kept, errors);
}

/// IsFullyQualifiedName
fn qualified(name: &At<'_>, errors: &mut Errors) {
    let wrong = format::dns1123_subdomain(name.str());
    if name.str().is_empty() {
        errors.required(name, "");
    } else if !wrong.is_empty() {
        errors.invalid(name, &wrong.join(","));
    } else if name.str().split('.').count() < 3 {
        errors.invalid(name, "should be a domain with at least three segments separated by dots");
    }
}

/// A list that must be there, and holds nothing else when it holds "*".
fn any_alone<'v>(rule: &At<'v>, field: &str, what: &str, errors: &mut Errors) -> At<'v> {
    let list = rule.get(field);
    if list.is_empty() {
        errors.required(&list, "");
    } else if list.len() > 1 && list.items().any(|item| item.str() == "*") {
        errors.invalid(&list, &format!("if '*' is present, must not specify other {what}"));
    }
    list
}

fn rule_with_operations(rule: &At<'_>, errors: &mut Errors) {
    for operation in any_alone(rule, "operations", "operations", errors).items() {
        let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !known.contains(&operation.str()) {
            errors.unsupported(&operation, &known);
        }
    }
    let mut wildcard = |field: &str, what: &str| any_alone(rule, field, what, errors);
    wildcard("apiGroups", "API groups");
    let versions = wildcard("apiVersions", "API versions");
    for version in versions.items().filter(|version| version.str().is_empty()) {
        errors.required(&version, "");
    }
    resources(&rule.get("resources"), errors);
}

/// validateResources
fn resources(list: &At<'_>, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(list, "");
    }
    let (mut whole, mut of_any): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut has_any, mut has_bare) = (false, false);
    for item in list.items() {
        let text = item.str();
        if text.is_empty() {
            errors.required(&item, "");
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            has_any |= text == "*";
            // As upstream: the last one decides.
            has_bare = text != "*";
            continue;
        };
        if whole.contains(&resource) {
            errors.invalid(&item, &format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if of_any.contains(&sub) {
            errors.invalid(&item, &format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            whole.push(resource);
        }
        if resource == "*" {
            of_any.push(sub);
        }
    }
    if list.len() > 1 && list.items().any(|item| item.str() == "*/*") {
        errors.invalid(list, "if '*/*' is present, must not specify other resources");
    }
    if has_any && has_bare {
        errors.invalid(list, "if '*' is present, must not specify other resources without subresources");
    }
}

fn client_config(config: &At<'_>, errors: &mut Errors) {
    let (url, service) = (config.get("url"), config.get("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => webhook_url(&url, errors),
        (false, true) => webhook_service(&service, errors),
        _ => errors.required(config, "exactly one of url or service is required"),
    }
}

/// ValidateWebhookURL
fn webhook_url(at: &At<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = at.str();
    if text.contains(|c: char| c.is_control()) {
        let why = format!("parse {text:?}: net/url: invalid control character in URL");
        return errors.required(at, &format!("url must be a valid URL: {why}{FORM}"));
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let (scheme, rest) = rest.split_once(':').filter(|(scheme, _)| is_scheme(scheme)).unwrap_or(("", rest));
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or(""));
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let mut wrong = |value: &str, detail: &str| errors.invalid_value(&at.path, &Value::from(value), detail);
    if scheme != "https" {
        wrong(scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        wrong(host, &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        wrong(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        wrong(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        wrong(query, "query parameters are not permitted in the URL");
    }
}

/// ValidateWebhookService, which upstream calls with name and namespace swapped: a missing one is reported as the other.
fn webhook_service(service: &At<'_>, errors: &mut Errors) {
    for (missing, reported) in [("namespace", "name"), ("name", "namespace")] {
        if service.get(missing).str().is_empty() {
            errors.required(&service.get(reported), "");
        }
    }
    let port = service.get("port");
    let wrong = port.int().map(format::port_number).unwrap_or_default();
    if !wrong.is_empty() {
        errors.invalid(&port, &format!("port is not valid: {}", wrong.join(", ")));
    }
    let path = service.get("path");
    match path.str() {
        "" | "/" => return,
        "//" => return errors.invalid(&path, "segment[0] may not be empty"),
        text if !text.starts_with('/') => errors.invalid(&path, "must start with a '/'"),
        _ => {}
    }
    // As upstream, the first character is passed over whatever it is.
    let mut inner = path.str().chars();
    inner.next();
    let inner = inner.as_str();
    for (i, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&path, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for failure in format::dns1123_subdomain(step) {
            errors.invalid(&path, &format!("segment[{i}]: {failure}"));
        }
    }
}

fn review_versions(versions: &At<'_>, kept: &Kept, errors: &mut Errors) {
    let known = REVIEW_VERSIONS.join(", ");
    if versions.is_empty() {
        return errors.required(versions, &format!("must specify one of {known}"));
    }
    let mut seen: Vec<&str> = Vec::new();
    for version in versions.items() {
        if seen.contains(&version.str()) {
            errors.invalid(&version, "duplicate version");
            continue;
        }
        seen.push(version.str());
        errors.each(&version, format::dns1035_label(version.str()));
    }
    if !kept.review_versions && !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        errors.invalid(versions, &format!("must include at least one of {known}"));
    }
}

pub(super) fn api_service(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    let (name, group, version) = (new.at("metadata.name"), spec.get("group"), spec.get("version"));
    let wanted = format!("{}.{}", version.str(), group.str());
    if name.str() != wanted {
        errors.invalid(&name, &format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    if group.str().is_empty() && version.str() != "v1" {
        errors.required(&group, "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.str().is_empty() {
        errors.each(&group, format::dns1123_subdomain(group.str()));
    }
    errors.each(&version, format::dns1035_label(version.str()));
    for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = spec.get(field);
        let value = priority.int().unwrap_or(0);
        if !(1..=max).contains(&value) {
            let detail = format!("must be positive and less than {max}");
            errors.invalid_value(&priority.path, &Value::from(value), &detail);
        }
    }
    let (service, bundle, insecure) = (spec.get("service"), spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !service.is_set() {
        if !bundle.is_empty() {
            // Of what the base64 stands for.
            let text = bundle.str();
            let bytes = text.trim_end_matches('=').len() * 3 / 4;
            let shown = Value::from(format!("{bytes} bytes"));
            errors.invalid_value(&bundle.path, &shown, "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            errors.invalid(&insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    for field in ["namespace", "name"] {
        if service.get(field).str().is_empty() {
            errors.required(&service.get(field), "");
        }
    }
    let port = service.get("port");
    let wrong = port.int().map(format::port_number).unwrap_or_default();
    if !wrong.is_empty() {
        errors.invalid(&port, &format!("port is not valid: {}", wrong.join(", ")));
    }
    if insecure.is_true() && !bundle.is_empty() {
        errors.invalid(&insecure, "may not be true if caBundle is present");
    }
}
