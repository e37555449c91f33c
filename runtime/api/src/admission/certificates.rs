//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve and sign for which signer,
//! and that nobody asks for a master's certificate (plugin/pkg/admission/certificates).
use super::Attributes;
use crate::{certs::pem_der, rbac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_schema::{Cause, Status, Value};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

const GROUP: &str = "certificates.k8s.io";
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// What a request asks to be called.
pub(super) struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
}

pub(super) fn subject(request: &Value) -> Result<Subject, &'static str> {
    const NOT_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let text = request["spec"]["request"].as_str().unwrap_or("");
    let pem = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(NOT_PEM)?;
    if !pem.contains("-----BEGIN CERTIFICATE REQUEST-----") {
        return Err(NOT_PEM);
    }
    let der = pem_der(&pem).ok_or(NOT_PEM)?;
    let (_, parsed) =
        X509CertificationRequest::from_der(&der).map_err(|_| "asn1: structure error: the request cannot be read")?;
    let subject = &parsed.certification_request_info.subject;
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned).ok();
    Ok(Subject {
        // The last, as for Go: what is asked for must be what is authenticated later.
        common_name: subject.iter_common_name().last().and_then(text).unwrap_or_default(),
        organizations: subject.iter_organization().filter_map(text).collect(),
    })
}

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    if !attributes.is(GROUP, "certificatesigningrequests") || new.is_null() {
        return Ok(());
    }
    // Against the signer that is stored: nobody may change it on the way.
    let signer = attributes.old["spec"]["signerName"].as_str().unwrap_or("");
    match attributes.subresource {
        "approval" if !may(attributes, "approve", signer)? => {
            let detail = format!("user not permitted to approve requests with signerName {signer:?}");
            Err(attributes.forbidden(new, &detail))
        }
        "status" => {
            let (old, new_status) = (&attributes.old["status"], &new["status"]);
            let same = |field: &str| old[field] == new_status[field];
            if same("certificate") && same("conditions") || may(attributes, "sign", signer)? {
                return Ok(());
            }
            let detail = format!("user not permitted to sign requests with signerName {signer:?}");
            Err(attributes.forbidden(new, &detail))
        }
        "" if attributes.is_create() => {
            // Validation's business upstream; the table cannot say it.
            let request = &new["spec"]["request"];
            let cause = |error: &'static str| Cause::invalid("spec.request", request, error);
            let name = new["metadata"]["name"].as_str().unwrap_or("");
            let invalid = |error| Status::invalid(GROUP, "CertificateSigningRequest", name, vec![cause(error)]);
            let subject = subject(new).map_err(invalid)?;
            let master = subject.organizations.iter().any(|group| group == "system:masters");
            if master && new["spec"]["signerName"] == API_CLIENT {
                let detail = format!("use of {API_CLIENT} signer with system:masters group is not allowed");
                return Err(attributes.forbidden(new, &detail));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// For this signer, or for all of its domain (pkg/apis/certificates/authorization).
fn may(attributes: &Attributes<'_, '_>, verb: &str, signer: &str) -> Result<bool, Status> {
    let authorizer = &attributes.api.security()?.authorizer;
    let domain = format!("{}/*", signer.split('/').next().unwrap_or(""));
    Ok([signer, &domain].into_iter().any(|name| {
        let asked = rbac::Attributes {
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            is_resource: true,
            ..rbac::Attributes::default()
        };
        authorizer.allows(attributes.target.user, &asked)
    }))
}
