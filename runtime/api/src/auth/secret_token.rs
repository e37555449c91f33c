//! Service-account tokens that are kept in a Secret: they never expire, name no audience, and are good as long as the
//! Secret holds them and the account is there (kubernetes/pkg/serviceaccount/legacy.go).
use super::{
    Lookup,
    jwt::Keys,
    service_account::{groups, split_user_name, user_name},
};
use crate::{Object, clock, http::User};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use mote_schema::{Value, json};
use ring::digest;

pub const TYPE: &str = "kubernetes.io/service-account-token";
pub const NAME: &str = "kubernetes.io/service-account.name";
pub const UID: &str = "kubernetes.io/service-account.uid";
pub const ISSUER: &str = "kubernetes/serviceaccount";
/// The day of the last use, UTC: kube-controller-manager's cleaner goes by it.
pub const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

const CLAIM_NAMESPACE: &str = "kubernetes.io/serviceaccount/namespace";
const CLAIM_SECRET: &str = "kubernetes.io/serviceaccount/secret.name";
const CLAIM_NAME: &str = "kubernetes.io/serviceaccount/service-account.name";
const CLAIM_UID: &str = "kubernetes.io/serviceaccount/service-account.uid";

/// The token that `secret` is to hold.
pub fn issue(keys: &Keys, account: &Object, secret: &Object) -> Result<String, String> {
    keys.sign(&json!({
        "iss": ISSUER,
        CLAIM_NAMESPACE: account.namespace(),
        CLAIM_SECRET: secret.name(),
        CLAIM_NAME: account.name(),
        CLAIM_UID: account.uid(),
        "sub": user_name(account.namespace(), account.name()),
    }))
}

/// "2026-01-31"
pub fn today() -> String {
    clock::timestamp().split('T').next().unwrap_or_default().to_owned()
}

/// Whose token it is, and its Secret when that is not labelled as used today. Signature and issuer were checked; the
/// groups do not include system:authenticated.
pub fn user(token: &str, lookup: &Lookup) -> Result<(User, Option<Object>), String> {
    let invalid = || "invalid bearer token".to_owned();
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).ok_or_else(invalid)?;
    let claims: Value = serde_json::from_slice(&payload).map_err(|_| invalid())?;
    let text = |name: &str| claims[name].as_str().unwrap_or("");
    let (subject, namespace, secret_name) = (text("sub"), text(CLAIM_NAMESPACE), text(CLAIM_SECRET));
    let (name, uid) = (text(CLAIM_NAME), text(CLAIM_UID));
    let named = [
        ("sub", subject),
        ("namespace", namespace),
        ("secretName", secret_name),
        ("serviceAccountName", name),
        ("serviceAccountUID", uid),
    ];
    if let Some((missing, _)) = named.iter().find(|(_, text)| text.is_empty()) {
        return Err(format!("{missing} claim is missing"));
    }
    if split_user_name(subject) != Some((namespace, name)) {
        return Err("sub claim is invalid".into());
    }
    let secret = lookup("secrets", namespace, secret_name).filter(|secret| !secret.is_deleting());
    let secret = secret.ok_or("Token has been invalidated")?;
    let held = STANDARD.decode(secret.root().at("data.token").str()).unwrap_or_default();
    // Compared as hashes: how much of a guess is right does not show in the time.
    let hash = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
    if hash(&held).as_ref() != hash(token.as_bytes()).as_ref() {
        return Err("Token does not match server's copy".into());
    }
    let account = lookup("serviceaccounts", namespace, name);
    let account = account.ok_or_else(|| format!("serviceaccounts {name:?} not found"))?;
    if account.is_deleting() {
        return Err(format!("ServiceAccount {namespace}/{name} has been deleted"));
    }
    if account.uid() != uid {
        return Err(format!("ServiceAccount UID ({}) does not match claim ({uid})", account.uid()));
    }
    if !secret.meta().get("labels").get(INVALID_SINCE).str().is_empty() {
        return Err(format!(
            "the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked invalid. \
             Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' \
             label from the secret to temporarily allow use of this token"
        ));
    }
    let is_noted = secret.meta().get("labels").get(LAST_USED).str() == today();
    let user = User { name: user_name(namespace, name), uid: uid.into(), groups: groups(namespace), ..User::default() };
    Ok((user, (!is_noted).then_some(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Doc, auth::Authenticator, auth::jwt};
    use mote_schema::Catalog;
    use std::sync::{Arc, Mutex};

    fn object(plural: &str, value: &Value) -> Object {
        let kind = Catalog::builtin().by_resource("", "v1", plural).unwrap().clone();
        Object { kind, doc: Doc::encode(value).unwrap(), revision: 1 }
    }

    #[test]
    fn a_token_is_good_while_its_secret_holds_it() {
        let keys = Arc::new(jwt::tests::keys());
        let account = json!({"metadata": {"name": "ci", "namespace": "dev", "uid": "sa-1"}});
        let secret = json!({"metadata": {"name": "t", "namespace": "dev"}, "type": TYPE});
        let token = issue(&keys, &object("serviceaccounts", &account), &object("secrets", &secret)).unwrap();
        let world = Arc::new(Mutex::new((account, secret)));
        let seen = world.clone();
        let lookup: Lookup = Arc::new(move |plural, namespace, name| {
            let world = seen.lock().unwrap();
            match (plural, namespace, name) {
                ("serviceaccounts", "dev", "ci") => Some(object(plural, &world.0)),
                ("secrets", "dev", "t") => Some(object(plural, &world.1)),
                _ => None,
            }
        });
        let authenticator = Authenticator::new(keys, "https://issuer", lookup);
        let noted = Arc::new(Mutex::new(0));
        let _ = authenticator.note_use.set(Box::new({
            let noted = noted.clone();
            move |_| *noted.lock().unwrap() += 1
        }));
        let check = |want: Result<&str, &str>| {
            let found = authenticator.token(&token, &["https://issuer".into()]);
            let found = found.map(|verified| verified.user.name);
            assert_eq!(found, want.map(str::to_owned).map_err(str::to_owned));
        };
        check(Err("Token does not match server's copy"));
        world.lock().unwrap().1["data"] = json!({"token": STANDARD.encode(&token)});
        check(Ok("system:serviceaccount:dev:ci"));
        world.lock().unwrap().1["metadata"]["labels"] = json!({LAST_USED: today()});
        check(Ok("system:serviceaccount:dev:ci"));
        assert_eq!(*noted.lock().unwrap(), 1);
        world.lock().unwrap().0["metadata"]["uid"] = json!("sa-2");
        check(Err("ServiceAccount UID (sa-2) does not match claim (sa-1)"));
        world.lock().unwrap().1["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        check(Err("Token has been invalidated"));
    }
}
