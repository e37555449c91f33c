//! Bootstrap tokens: what a new machine shows before it has a certificate. Secrets of type `bootstrap.kubernetes.io/token`
//! in kube-system (kubernetes/plugin/pkg/auth/authenticator/token/bootstrap, cluster-bootstrap/token).
use super::Lookup;
use crate::{Object, clock, http::User};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use mote_schema::Order as _;
use ring::{digest, hmac};

pub const NAMESPACE: &str = "kube-system";
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";

/// `abcdef.0123456789abcdef`
pub fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// One value of a Secret, as text.
fn value(secret: &Object, key: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(secret.root().get("data").get(key).as_str()?).ok()?).ok()
}

/// When a bootstrap token ends, in seconds since 1970; what cannot be read has ended.
pub fn end_seconds(secret: &Object) -> Option<i64> {
    let text = value(secret, "expiration").filter(|text| !text.is_empty())?;
    Some(text.parse::<jiff::Timestamp>().map_or(0, |end| end.as_second()))
}

/// Id and secret of a token that may sign what new machines are told of the cluster.
pub fn signing(secret: &Object) -> Option<(String, String)> {
    let id = value(secret, "token-id").filter(|id| secret.name().strip_prefix("bootstrap-token-") == Some(id))?;
    let good = secret.root().get("type").str() == TYPE
        && end_seconds(secret).is_none_or(|end| end > clock::now_seconds())
        && value(secret, "usage-bootstrap-signing").is_some_and(|usage| usage == "true");
    Some((id, value(secret, "token-secret").filter(|secret| good && !secret.is_empty())?))
}

/// A JWS of `text` by the token, with the text left out (RFC 7515, appendix F).
pub fn sign(text: &str, id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!("{{\"alg\":\"HS256\",\"kid\":\"{id}\"}}"));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Whose token it is. The groups do not include system:authenticated.
pub fn user(token: &str, lookup: &Lookup) -> Option<User> {
    let (id, given) = parts(token)?;
    let secret = lookup("secrets", NAMESPACE, &format!("bootstrap-token-{id}"))?;
    let is = |key: &str, wanted: &str| value(&secret, key).is_some_and(|found| found == wanted);
    // Compared as hashes: how much of a guess is right does not show in the time.
    let hash = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    let same = value(&secret, "token-secret").is_some_and(|found| hash(&found).as_ref() == hash(given).as_ref());
    let good = same
        && secret.root().get("type").str() == TYPE
        && !secret.is_deleting()
        && is("token-id", id)
        && end_seconds(&secret).is_none_or(|end| end > clock::now_seconds())
        && is("usage-bootstrap-authentication", "true");
    if !good {
        return None;
    }
    let extra = value(&secret, "auth-extra-groups").unwrap_or_default();
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').filter(|group| !group.is_empty()) {
        let rest = group.strip_prefix("system:bootstrappers:")?;
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = rest.len() <= 256
            && rest.bytes().all(|byte| plain(byte) || matches!(byte, b':' | b'-'))
            && rest.bytes().last().is_some_and(plain);
        if !good {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.order();
    groups.dedup();
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doc;
    use mote_schema::Catalog;
    use mote_schema::{Value, json};
    use std::sync::Arc;

    #[track_caller]
    fn check(change: (&str, &str), token: &str, want: Option<&[&str]>) {
        let mut data = json!({});
        for (key, value) in [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2999-01-01T00:00:00Z"),
            ("auth-extra-groups", "system:bootstrappers:nodes"),
            change,
        ] {
            data[key] = Value::from(STANDARD.encode(value));
        }
        let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": TYPE, "data": data});
        let lookup: Lookup = Arc::new(move |plural, namespace, name| {
            let found = (plural, namespace, name) == ("secrets", "kube-system", "bootstrap-token-abcdef");
            let kind = Catalog::builtin().by_resource("", "v1", "secrets")?.clone();
            found.then(|| Object { kind, doc: Doc::encode(&secret).unwrap(), revision: 1 })
        });
        let got = user(token, &lookup);
        assert_eq!(
            got.as_ref().map(|user| user.groups.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
            want
        );
        assert!(got.is_none_or(|user| user.name == "system:bootstrap:abcdef"));
    }

    #[test]
    fn tokens() {
        const GOOD: &str = "abcdef.0123456789abcdef";
        let groups: &[&str] = &["system:bootstrappers", "system:bootstrappers:nodes"];
        check(("x", "y"), GOOD, Some(groups));
        check(("x", "y"), "abcdef.0123456789abcdee", None);
        check(("x", "y"), "abcdeg.0123456789abcdef", None);
        check(("x", "y"), "ABCDEF.0123456789abcdef", None);
        check(("expiration", "2020-01-01T00:00:00Z"), GOOD, None);
        check(("expiration", "tomorrow"), GOOD, None);
        check(("usage-bootstrap-authentication", "no"), GOOD, None);
        check(("token-id", "other0"), GOOD, None);
        check(("auth-extra-groups", ""), GOOD, Some(&groups[..1]));
        check(("auth-extra-groups", "system:masters"), GOOD, None);
    }

    #[test]
    fn signatures() {
        let signature = sign("apiVersion: v1", "abcdef", "0123456789abcdef");
        assert_eq!(signature, "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9.._JqomVYZNRdBX9ISkn1b-g4fbXMmdIzRDvSNbs-ccDE");
    }

    #[test]
    fn only_some_tokens_sign() {
        let token = |name: &str, usage: &str, expiration: &str| {
            let mut data = json!({});
            for (key, value) in [
                ("token-id", "abcdef"),
                ("token-secret", "0123456789abcdef"),
                ("usage-bootstrap-signing", usage),
                ("expiration", expiration),
            ] {
                data[key] = Value::from(STANDARD.encode(value));
            }
            let secret = json!({"metadata": {"name": name}, "type": TYPE, "data": data});
            let kind = Catalog::builtin().by_resource("", "v1", "secrets").unwrap().clone();
            signing(&Object { kind, doc: Doc::encode(&secret).unwrap(), revision: 1 })
        };
        let later = "2999-01-01T00:00:00Z";
        let good = Some(("abcdef".to_owned(), "0123456789abcdef".to_owned()));
        assert_eq!(token("bootstrap-token-abcdef", "true", later), good);
        assert_eq!(token("bootstrap-token-abcdef", "true", ""), good);
        assert_eq!(token("bootstrap-token-abcdef", "", later), None);
        assert_eq!(token("bootstrap-token-fedcba", "true", later), None);
        assert_eq!(token("bootstrap-token-abcdef", "true", "2020-01-01T00:00:00Z"), None);
    }
}
