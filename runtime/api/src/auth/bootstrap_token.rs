//! Bootstrap tokens: what a new machine shows before it has a certificate. Secrets of type `bootstrap.kubernetes.io/token`
//! in kube-system (kubernetes/plugin/pkg/auth/authenticator/token/bootstrap, cluster-bootstrap/token).
use super::Lookup;
use crate::{Object, clock, http::User};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_schema::Order as _;
use ring::digest;

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
}
