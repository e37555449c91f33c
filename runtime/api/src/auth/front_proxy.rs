//! Users named by a trusted proxy in front of this server: `X-Remote-User` and its like, from a client whose certificate
//! the front-proxy authority signed (apiserver/pkg/authentication/request/headerrequest).
use super::x509;
use crate::{certs::pem_der, http::User};
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The one name that such a client may have; it is also what we call ourselves before extension API servers.
pub const ALLOWED_NAME: &str = "front-proxy-client";

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// What a client's verified certificate makes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Peer {
    /// No certificate, or one without a name.
    #[default]
    Nobody,
    /// And when its certificate ends, in seconds since 1970.
    User(std::sync::Arc<User>, i64),
    /// Names users by headers.
    FrontProxy,
    /// Signed by the front-proxy authority for somebody else, or for nobody who can be told.
    Stranger,
}

impl Peer {
    /// `chain` was verified by TLS against the cluster's authority or the front proxy's (`front_proxy_pem`).
    pub fn of(chain: &[impl AsRef<[u8]>], front_proxy_pem: &str) -> Peer {
        let Some(leaf) = chain.first() else { return Peer::Nobody };
        let user = match x509::user(leaf.as_ref()) {
            Ok(Some(user)) => user,
            Ok(None) => return Peer::Nobody,
            Err(error) => {
                tracing::debug!(error, "a client's certificate");
                return Peer::Stranger;
            }
        };
        if !chain.iter().any(|certificate| is_signed_by(certificate.as_ref(), front_proxy_pem)) {
            let (_, certificate) = X509Certificate::from_der(leaf.as_ref()).ok().unzip();
            let ends = certificate.map_or(0, |certificate| certificate.validity().not_after.timestamp());
            return Peer::User(user.into(), ends);
        }
        if user.name == ALLOWED_NAME { Peer::FrontProxy } else { Peer::Stranger }
    }
}

fn is_signed_by(der: &[u8], authority_pem: &str) -> bool {
    let Some(authority) = pem_der(authority_pem) else { return false };
    let (Ok((_, certificate)), Ok((_, authority))) =
        (X509Certificate::from_der(der), X509Certificate::from_der(&authority))
    else {
        return false;
    };
    certificate.issuer() == authority.subject() && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// Whom the headers name.
pub fn user(headers: &HeaderMap) -> Option<User> {
    let all = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
    };
    let name = all(USER).into_iter().next()?;
    let mut user =
        User { name, uid: all(UID).into_iter().next().unwrap_or_default(), groups: all(GROUP), ..User::default() };
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            user.extra.entry(key).or_default().extend(all(header.as_str()));
        }
    }
    Some(user)
}

/// Nobody behind the front sees these headers, whoever sent them.
pub fn clear(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| name.as_str().starts_with("x-remote-")) {
        return;
    }
    let ours = |name: &&HeaderName| matches!(name.as_str(), USER | UID | GROUP) || name.as_str().starts_with(EXTRA);
    let names: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_a_user() {
        let mut headers = HeaderMap::new();
        assert_eq!(user(&headers), None);
        for (name, value) in [
            (USER, "ann"),
            (GROUP, "a"),
            (GROUP, ""),
            (GROUP, "b"),
            (UID, "7"),
            ("x-remote-extra-acme.com%2fscope", "x"),
            ("x-remote-other", "kept"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let extra = [("acme.com/scope".to_owned(), vec!["x".to_owned()])].into();
        let want = User { uid: "7".into(), extra, ..User::new("ann", &["a", "b"]) };
        assert_eq!(user(&headers), Some(want));
        clear(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
