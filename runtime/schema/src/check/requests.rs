//! CertificateSigningRequests (pkg/apis/certificates/validation). Whether the request itself can be read, the API server sees,
//! which has a reader of certificates; here only its frame.
use super::{
    at::{At, Errors},
    rules::rules,
};
use crate::validate as format;
use base64::{Engine, prelude::BASE64_STANDARD};

const MIN_SECONDS: i64 = 600;

pub(super) fn signing_request(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    if old.is_some() {
        return;
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
