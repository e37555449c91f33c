//! The user in a verified client certificate: common name, organizations as groups, and its fingerprint as upstream's
//! CommonNameUserConversion (apiserver/pkg/authentication/request/x509/x509.go).
use super::{AUTHENTICATED, CREDENTIAL_ID};
use crate::http::User;
use ring::digest;
use std::fmt::Write as _;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Kubernetes' own attribute for a user's UID, 1.3.6.1.4.1.57683.2, as DER (apimachinery/pkg/apis/asn1).
const UID: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xc2, 0x53, 0x02];

/// `der` was verified by TLS. None for a certificate without a common name, which is nobody; an error for one whose UID is
/// not one. Of several common names the last counts, as for Go: signing and authentication must mean the same.
pub fn user(der: &[u8]) -> Result<Option<User>, &'static str> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "the certificate cannot be read")?;
    let subject = certificate.subject();
    let Some(name) = subject.iter_common_name().last().and_then(|name| name.as_str().ok()).filter(|n| !n.is_empty())
    else {
        return Ok(None);
    };
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(String::from).collect();
    if !groups.iter().any(|g| g == AUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    let mut uids = subject.iter_attributes().filter(|attribute| attribute.attr_type().as_bytes() == UID);
    let uid = match (uids.next(), uids.next()) {
        (None, _) => "",
        (Some(_), Some(_)) => return Err("expected 1 UID, but found multiple"),
        (Some(uid), None) => uid.as_str().ok().filter(|uid| !uid.is_empty()).ok_or("UID cannot be an empty string")?,
    };
    let mut id = String::from("X509SHA256=");
    for byte in digest::digest(&digest::SHA256, der).as_ref() {
        write!(id, "{byte:02x}").unwrap_or(());
    }
    let extra = [(CREDENTIAL_ID.into(), vec![id])].into();
    Ok(Some(User { name: name.into(), uid: uid.into(), groups, extra }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    /// "name uid groups", "" for nobody.
    #[track_caller]
    fn check(parts: &[(DnType, &str)], want: Result<&str, ()>) {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let got = user(certificate.der());
        let shown = |user: User| format!("{} {} {}", user.name, user.uid, user.groups.join(","));
        assert_eq!(got.map(|user| user.map_or(String::new(), shown)).map_err(drop), want.map(str::to_owned));
    }

    #[test]
    fn subjects() {
        let (name, group) = (DnType::CommonName, DnType::OrganizationName);
        let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
        check(&[(name.clone(), "ann")], Ok("ann  system:authenticated"));
        check(&[(group.clone(), "devs"), (name.clone(), "ann")], Ok("ann  devs,system:authenticated"));
        check(&[(name.clone(), "ann"), (uid.clone(), "7")], Ok("ann 7 system:authenticated"));
        check(&[(name, "ann"), (uid, "")], Err(()));
        check(&[(group, "devs")], Ok(""));
    }
}
