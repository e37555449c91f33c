//! CertificateSigningRequests (pkg/apis/certificates/validation). Whether the request itself can be read, the API server sees,
//! which has a reader of certificates; here only its frame.
use super::{
    at::{At, Errors},
    rules::rules,
};
use crate::validate as format;
use base64::{Engine, prelude::BASE64_STANDARD};

const MIN_SECONDS: i64 = 600;

/// `sub` is what is written: the object, "status" or "approval".
pub(super) fn signing_request(new: &At<'_>, old: Option<&At<'_>>, sub: &str, errors: &mut Errors) {
    conditions(&new.at("status.conditions"), errors);
    if let Some(old) = old {
        return update(&new.get("status"), &old.get("status"), sub, errors);
    }
    let spec = new.get("spec");
    let (request, usages, signer) = (spec.get("request"), spec.get("usages"), spec.get("signerName"));
    let text = BASE64_STANDARD.decode(request.str()).unwrap_or_default();
    if !text.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----") {
        errors.invalid_null(&request, "PEM block type must be CERTIFICATE REQUEST");
    }
    rules(&spec, "usages!", errors);
    let mut seen: Vec<&str> = Vec::new();
    for usage in usages.items() {
        if seen.contains(&usage.str()) {
            errors.duplicate(&usage);
        }
        seen.push(usage.str());
    }
    if signer.str() == "kubernetes.io/legacy-unknown" {
        errors.invalid(&signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(&signer, errors);
    }
    let seconds = spec.get("expirationSeconds");
    if seconds.int().is_some_and(|n| n < MIN_SECONDS) {
        errors.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// validateConditions
fn conditions(list: &At<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for condition in list.items() {
        let (kind, status) = (condition.get("type"), condition.get("status"));
        if kind.str().is_empty() {
            errors.required(&kind, "");
        }
        let allowed: &[&str] = match kind.str() {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        match status.str() {
            "" => errors.required(&status, ""),
            text if !allowed.contains(&text) => errors.unsupported(&status, allowed),
            _ => {}
        }
        let other = match kind.str() {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "-",
        };
        if seen.contains(&other) {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.invalid_value(&list.path, kind.value, detail);
        }
        if seen.contains(&kind.str()) {
            errors.duplicate(&kind);
        }
        seen.push(kind.str());
    }
}

/// validateCertificateSigningRequestUpdate
fn update(new: &At<'_>, old: &At<'_>, sub: &str, errors: &mut Errors) {
    let (certificate, before) = (new.get("certificate"), old.get("certificate"));
    let changed = certificate.value != before.value;
    if changed && certificate.is_set() {
        let text = BASE64_STANDARD.decode(certificate.str()).unwrap_or_default();
        if !text.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----") {
            let detail = "must contain at least one CERTIFICATE PEM block";
            errors.invalid_value(&certificate.path, &"<certificate data>".into(), detail);
        }
    }
    let list = new.get("conditions");
    let of = |status: &At<'_>, name: &str| -> Vec<crate::Value> {
        let named = status.get("conditions").items().filter(|condition| condition.get("type").str() == name);
        named.map(|condition| condition.value.clone()).collect()
    };
    for name in ["Approved", "Denied", "Failed"] {
        if of(new, name).len() < of(old, name).len() {
            errors.forbidden(&list, &format!("updates may not remove a condition of type {name:?}"));
        }
    }
    for name in ["Approved", "Denied"].into_iter().filter(|_| sub != "approval") {
        let (now, then) = (of(new, name), of(old, name));
        if now.len() > then.len() {
            errors.forbidden(&list, &format!("updates may not add a condition of type {name:?}"));
        } else if now.len() == then.len() && now != then {
            errors.forbidden(&list, &format!("updates may not modify a condition of type {name:?}\n"));
        }
    }
    if changed && sub != "status" {
        errors.forbidden(&certificate, "updates may not set certificate content");
    } else if changed && before.is_set() {
        errors.forbidden(&certificate, "updates may not modify existing certificate content");
    }
}

/// ValidateSignerName
fn signer_name(at: &At<'_>, errors: &mut Errors) {
    if at.str().is_empty() {
        return errors.required(at, "");
    }
    let Some((domain, path)) = at.str().split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(at, detail);
    };
    let labels: Vec<&str> = domain.split('.').collect();
    for label in &labels {
        for message in format::dns1123_label(label) {
            errors.invalid_value(&at.path, &domain.into(), &format!("validating label {label:?}: {message}"));
        }
    }
    if labels.len() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.invalid_value(&at.path, &domain.into(), detail);
    }
    for message in format::dns1123_subdomain(path) {
        errors.invalid_value(&at.path, &path.into(), &format!("validating path {path:?}: {message}"));
    }
}
