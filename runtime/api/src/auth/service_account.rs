//! What a service-account token says and when it is good: claims as upstream's bound tokens, checked against the
//! live objects they are bound to (kubernetes/pkg/serviceaccount/claims.go).
use super::CREDENTIAL_ID;
use crate::{Object, http::User};
use serde::{Deserialize, Serialize};

/// Clocks may differ by this much (go-jose's default leeway); a deleted object's tokens live as long.
const LEEWAY_SECONDS: i64 = 60;

/// Registered claims (RFC 7519) and Kubernetes' own, in the order upstream writes them.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    #[serde(default)]
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    #[serde(default)]
    pub sub: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Kubernetes {
    #[serde(default)]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Bound>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Bound>,
    #[serde(default)]
    pub serviceaccount: Bound,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Bound {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// `aud` may be one string.
fn one_or_more<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        More(Vec<String>),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::One(one) => vec![one],
        Either::More(more) => more,
    })
}

pub fn user_name(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Namespace and name of a service account's user name, when both are names that such objects can have.
pub fn split_user_name(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphanumeric()) && s.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    let good = ends(namespace)
        && namespace.len() <= 63
        && namespace.chars().all(label)
        && name.len() <= 253
        && name.split('.').all(|part| ends(part) && part.chars().all(label));
    good.then_some((namespace, name))
}

/// The groups of every service account of a namespace.
pub fn groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

/// Signature and issuer were checked. The errors are upstream's; a client sees them in a TokenReview only.
pub fn validate(
    claims: &Claims,
    now_seconds: i64,
    lookup: &(dyn Fn(&str, &str, &str) -> Option<Object> + Send + Sync),
) -> Result<User, String> {
    if claims.exp.is_some_and(|exp| now_seconds > exp.saturating_add(LEEWAY_SECONDS)) {
        return Err("service account token has expired".into());
    }
    if claims.nbf.is_some_and(|nbf| now_seconds.saturating_add(LEEWAY_SECONDS) < nbf) {
        return Err("service account token is not valid yet".into());
    }
    if claims.iat.is_some_and(|iat| now_seconds.saturating_add(LEEWAY_SECONDS) < iat) {
        return Err("service account token is issued in the future".into());
    }
    let bound = &claims.kubernetes;
    let (namespace, account) = (bound.namespace.as_str(), &bound.serviceaccount);
    let found = lookup("serviceaccounts", namespace, &account.name)
        .ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
    if found.uid() != account.uid {
        return Err(format!("service account UID ({}) does not match claim ({})", found.uid(), account.uid));
    }
    if is_gone(&found, now_seconds) {
        return Err(format!("service account {namespace}/{} has been deleted", account.name));
    }
    let mut user = User {
        name: user_name(namespace, &account.name),
        uid: account.uid.clone(),
        groups: groups(namespace),
        ..User::default()
    };
    let mut extra = |key: &str, value: &str| {
        user.extra.insert(key.into(), vec![value.into()]);
    };
    let must_live = |resource: &str, what: &str, refers: &str, namespace: &str, bound: &Bound| {
        let object = lookup(resource, namespace, &bound.name).ok_or("service account token has been invalidated")?;
        if object.uid() != bound.uid {
            let (live, claim) = (object.uid(), &bound.uid);
            return Err(format!("{what} UID ({live}) does not match service account {refers} ref claim ({claim})"));
        }
        if is_gone(&object, now_seconds) {
            return Err("service account token has been invalidated".into());
        }
        Ok(())
    };
    if let Some(secret) = &bound.secret {
        must_live("secrets", "secret", "secret", namespace, secret)?;
    }
    if let Some(pod) = &bound.pod {
        must_live("pods", "pod", "pod", namespace, pod)?;
        extra("authentication.kubernetes.io/pod-name", &pod.name);
        extra("authentication.kubernetes.io/pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        // A pod's token names its node for information only.
        if bound.pod.is_none() {
            must_live("nodes", "node", "node", "", node)?;
        }
        extra("authentication.kubernetes.io/node-name", &node.name);
        if !node.uid.is_empty() {
            extra("authentication.kubernetes.io/node-uid", &node.uid);
        }
    }
    if !claims.jti.is_empty() {
        extra(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    Ok(user)
}

/// Deleted for longer than the leeway.
fn is_gone(object: &Object, now_seconds: i64) -> bool {
    let deleted = object.meta().get("deletionTimestamp").as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok());
    deleted.is_some_and(|at| at.as_second() < now_seconds - LEEWAY_SECONDS)
}
