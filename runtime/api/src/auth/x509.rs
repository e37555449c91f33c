//! The user in a verified client certificate: common name, organizations as groups, and its fingerprint as upstream's
//! CommonNameUserConversion (apiserver/pkg/authentication/request/x509/x509.go).
use super::{AUTHENTICATED, CREDENTIAL_ID};
use crate::http::User;
use ring::digest;
use std::fmt::Write as _;
use x509_parser::prelude::{FromDer, X509Certificate};

/// `der` was verified by TLS. None for a certificate without a common name, which is nobody.
pub fn user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(String::from).collect();
    if !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    let mut id = String::from("X509SHA256=");
    for byte in digest::digest(&digest::SHA256, der).as_ref() {
        write!(id, "{byte:02x}").ok()?;
    }
    Some(User { name: name.into(), groups, extra: [(CREDENTIAL_ID.into(), vec![id])].into(), ..User::default() })
}
