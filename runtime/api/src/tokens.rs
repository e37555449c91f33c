//! Service-account tokens on request: `serviceaccounts/token` (kubernetes/pkg/registry/core/serviceaccount/storage/
//! token.go) and TokenReview (kubernetes/pkg/registry/authentication/tokenreview). Nothing is stored.
use crate::{
    Object,
    auth::{
        self, Authenticator, Verified,
        service_account::{Bound, Claims, Kubernetes, user_name},
    },
    clock, rbac,
    registry::Target,
    server::Api,
};
use mote_schema::{Cause, Status};
use mote_schema::{Value, json};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write as _;

const AUTHENTICATION: &str = "authentication.k8s.io";
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;
const MIN_EXPIRATION_SECONDS: i64 = 600;
const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;
/// What the admission plugin asks for the token in a pod's projected volume. Such a token lives a year, and says in
/// `warnafter` when it should have been renewed (upstream's --service-account-extend-token-expiration, on by default).
const POD_EXPIRATION_SECONDS: i64 = 3607;
const EXTENDED_EXPIRATION_SECONDS: i64 = 365 * 24 * 3600;

/// Answers a create of `serviceaccounts/NAME/token`.
pub(crate) fn create(api: &Api, target: &mut Target<'_>, body: Value) -> Result<Value, Status> {
    let mut answer = request(&api.security()?.authenticator, target.namespace, target.name, body)?;
    answer["kind"] = "TokenRequest".into();
    answer["apiVersion"] = "authentication.k8s.io/v1".into();
    Ok(answer)
}

/// `object` is a TokenRequest; it comes back with its status.
pub fn request(authenticator: &Authenticator, namespace: &str, name: &str, mut object: Value) -> Result<Value, Status> {
    let invalid = |name: &str, causes| Err(Status::invalid(AUTHENTICATION, "TokenRequest", name, causes));
    let lookup = authenticator.lookup();
    let text = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned();
    for (field, path, own, must) in [
        ("metadata.name", "/metadata/name", name, "must match the service account name if specified"),
        (
            "metadata.namespace",
            "/metadata/namespace",
            namespace,
            "must match the service account namespace if specified",
        ),
    ] {
        let given = text(&object, path);
        if !given.is_empty() && given != own {
            return invalid(name, vec![Cause::invalid(field, &Value::String(given.into()), must)]);
        }
    }
    let account =
        lookup("serviceaccounts", namespace, name).ok_or_else(|| Status::not_found("", "serviceaccounts", name))?;
    let uid = text(&object, "/metadata/uid");
    if !uid.is_empty() && uid != account.uid() {
        let detail = format!(
            "the UID in the token request ({uid}) does not match the UID of the service account ({})",
            account.uid()
        );
        return Err(Status::conflict(AUTHENTICATION, "TokenRequest", name, &detail));
    }
    let given = object.pointer("/spec/expirationSeconds").unwrap_or(&Value::Null);
    let seconds = given.as_i64().unwrap_or(DEFAULT_EXPIRATION_SECONDS);
    let bounds = if seconds < MIN_EXPIRATION_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_EXPIRATION_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        ""
    };
    if !bounds.is_empty() {
        return invalid("", vec![Cause::invalid("spec.expirationSeconds", &json!(seconds), bounds)]);
    }
    let given = object.pointer("/spec/audiences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or(&[]);
    let mut audiences: Vec<String> = given.iter().filter_map(Value::as_str).map(String::from).collect();
    if audiences.is_empty() {
        audiences = authenticator.audiences().to_vec();
    }
    let reference = object.pointer("/spec/boundObjectRef").cloned().unwrap_or(Value::Null);
    let mut kubernetes = bind(authenticator, namespace, name, &reference)?;
    kubernetes.namespace = namespace.into();
    kubernetes.serviceaccount = bound(&account);

    let now = clock::now_seconds();
    let mut lifetime = seconds;
    let own_audience = audiences.iter().all(|a| authenticator.audiences().contains(a));
    if kubernetes.pod.is_some() && seconds == POD_EXPIRATION_SECONDS && own_audience {
        kubernetes.warnafter = Some(now + seconds);
        lifetime = EXTENDED_EXPIRATION_SECONDS;
    }
    let claims = Claims {
        aud: audiences.clone(),
        exp: Some(now + lifetime),
        iat: Some(now),
        iss: authenticator.issuer().into(),
        jti: uuid()?,
        kubernetes,
        nbf: Some(now),
        sub: user_name(namespace, name),
    };
    crate::audit::annotate("authentication.kubernetes.io/issued-credential-id", &format!("JTI={}", claims.jti));
    let token =
        authenticator.keys().sign(&claims).map_err(|e| Status::internal(format!("failed to generate token: {e}")))?;

    object["metadata"] = json!({
        "name": name,
        "namespace": namespace,
        "uid": account.uid(),
        "creationTimestamp": clock::format_seconds(now),
    });
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    object["spec"]["audiences"] = json!(audiences);
    object["spec"]["expirationSeconds"] = json!(seconds);
    object["spec"]["boundObjectRef"] = reference;
    object["status"] = json!({"token": token, "expirationTimestamp": clock::format_seconds(now + seconds)});
    Ok(object)
}

fn bound(object: &Object) -> Bound {
    Bound { name: object.name().into(), uid: object.uid().into() }
}

/// The claims about the object whose life ends the token's.
fn bind(
    authenticator: &Authenticator,
    namespace: &str,
    account: &str,
    reference: &Value,
) -> Result<Kubernetes, Status> {
    let mut claims = Kubernetes::default();
    if reference.is_null() {
        return Ok(claims);
    }
    let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or("");
    let (version, kind, name, uid) = (text("apiVersion"), text("kind"), text("name"), text("uid"));
    let find = |plural: &str, namespace: &str| {
        if name.is_empty() {
            return Err(Status::bad_request("Name parameter required."));
        }
        authenticator.lookup()(plural, namespace, name).ok_or_else(|| Status::not_found("", plural, name))
    };
    let is_core = !version.contains('/');
    let object = match kind {
        "Pod" if is_core => {
            let pod = find("pods", namespace)?;
            let spec = pod.root().get("spec");
            if spec.get("serviceAccountName").str() != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            claims.pod = Some(bound(&pod));
            let node = spec.get("nodeName").str();
            if !node.is_empty() {
                let live = authenticator.lookup()("nodes", "", node);
                let uid = live.as_ref().map_or("", |node| node.uid());
                claims.node = Some(Bound { name: node.into(), uid: uid.into() });
            }
            pod
        }
        "Node" if is_core => {
            let node = find("nodes", "")?;
            claims.node = Some(bound(&node));
            node
        }
        "Secret" if is_core => {
            let secret = find("secrets", namespace)?;
            claims.secret = Some(bound(&secret));
            secret
        }
        _ => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let what = format!("{group}/{version}, Kind={kind}");
            return Err(Status::bad_request(format!("cannot bind token to object of type {what}")));
        }
    };
    if !uid.is_empty() && uid != object.uid() {
        let detail = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(Status::conflict("", kind, name, &detail));
    }
    Ok(claims)
}

/// A random (version 4) UUID.
fn uuid() -> Result<String, Status> {
    let mut bytes = [0u8; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Status::internal("no random numbers"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&at) {
            text.push('-');
        }
        write!(text, "{byte:02x}").map_err(Status::internal)?;
    }
    Ok(text)
}

/// Answers a create of kind TokenReview.
pub fn review(authenticator: &Authenticator, mut object: Value) -> Result<Value, Status> {
    let token = object.pointer("/spec/token").and_then(Value::as_str).unwrap_or("").to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let given = object.pointer("/spec/audiences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or(&[]);
    let mut audiences: Vec<String> = given.iter().filter_map(Value::as_str).map(String::from).collect();
    if audiences.is_empty() {
        audiences = authenticator.audiences().to_vec();
    }
    object["status"] = match authenticator.token(token.trim(), &audiences) {
        Ok(Verified { mut user, audiences }) => {
            user.groups.push(auth::AUTHENTICATED.into());
            json!({"authenticated": true, "user": rbac::user_info(&user), "audiences": audiences})
        }
        Err(error) => json!({"user": {}, "error": error}),
    };
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Doc, auth::Lookup};
    use mote_schema::Catalog;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// One service account, one pod of it, one node; the pod can go away.
    struct World {
        authenticator: Authenticator,
        pod_is_there: Arc<AtomicBool>,
    }

    fn world() -> World {
        let pod_is_there = Arc::new(AtomicBool::new(true));
        let catalog = Catalog::builtin();
        let there = pod_is_there.clone();
        let lookup: Lookup = Arc::new(move |plural, namespace, name| {
            let value = match (plural, namespace, name) {
                ("serviceaccounts", "dev", "ci") => {
                    json!({"metadata": {"name": "ci", "namespace": "dev", "uid": "sa-1"}})
                }
                ("pods", "dev", "web") if there.load(Ordering::Relaxed) => json!({
                    "metadata": {"name": "web", "namespace": "dev", "uid": "pod-1"},
                    "spec": {"serviceAccountName": "ci", "nodeName": "n1"}}),
                ("pods", "dev", "other") => json!({"metadata": {"name": "other", "uid": "pod-2"},
                    "spec": {"serviceAccountName": "default"}}),
                ("nodes", "", "n1") => json!({"metadata": {"name": "n1", "uid": "node-1"}}),
                _ => return None,
            };
            let kind = catalog.by_resource("", "v1", plural)?.clone();
            Some(Object { kind, doc: Doc::encode(&value).ok()?, revision: 1 })
        });
        let keys = Arc::new(auth::jwt::tests::keys());
        World { authenticator: Authenticator::new(keys, ISSUER, lookup), pod_is_there }
    }

    fn token(world: &World, spec: Value) -> Result<Value, String> {
        request(&world.authenticator, "dev", "ci", json!({"spec": spec}))
            .map_err(|s| format!("{} {}", s.code, s.message))
    }

    #[test]
    fn a_pods_token() {
        let world = world();
        let spec = json!({"expirationSeconds": 3607, "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "pod-1"}});
        let answer = token(&world, spec).unwrap();
        assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
        let token = answer["status"]["token"].as_str().unwrap();
        let claims: Claims = world.authenticator.keys().verify(token).unwrap();
        assert_eq!(claims.sub, "system:serviceaccount:dev:ci");
        assert_eq!(claims.exp.unwrap() - claims.iat.unwrap(), EXTENDED_EXPIRATION_SECONDS);
        assert_eq!(claims.kubernetes.warnafter.unwrap() - claims.iat.unwrap(), 3607);
        assert_eq!(claims.kubernetes.node, Some(Bound { name: "n1".into(), uid: "node-1".into() }));
        assert_eq!(claims.jti.len(), 36);

        let user = world.authenticator.token(token, &[ISSUER.into()]).unwrap().user;
        assert_eq!(user.name, "system:serviceaccount:dev:ci");
        assert_eq!(user.uid, "sa-1");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:dev"]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["node-1"]);
        assert_eq!(user.extra[auth::CREDENTIAL_ID], [format!("JTI={}", claims.jti)]);

        world.pod_is_there.store(false, Ordering::Relaxed);
        let error = world.authenticator.token(token, &[ISSUER.into()]).unwrap_err();
        assert_eq!(error, "service account token has been invalidated");
    }

    #[test]
    fn refused_requests() {
        let world = world();
        let pod = |name: &str, uid: &str| json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}});
        for (spec, want) in [
            (
                json!({"expirationSeconds": 599}),
                "422 TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not \
                 specify a duration less than 10 minutes",
            ),
            (
                json!({"expirationSeconds": 1i64 << 33}),
                "422 TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 8589934592: \
                 may not specify a duration larger than 2^32 seconds",
            ),
            (pod("gone", ""), "404 pods \"gone\" not found"),
            (
                pod("other", ""),
                "400 cannot bind token for serviceaccount \"ci\" to pod running with different serviceaccount name.",
            ),
            (
                pod("web", "old"),
                "409 Operation cannot be fulfilled on Pod \"web\": the UID in the bound object reference (old) does not match \
                 the UID in record. The object might have been deleted and then recreated",
            ),
            (
                json!({"boundObjectRef": {"kind": "Job", "apiVersion": "batch/v1", "name": "x"}}),
                "400 cannot bind token to object of type batch/v1, Kind=Job",
            ),
        ] {
            assert_eq!(token(&world, spec).unwrap_err(), want);
        }
        let status = request(&world.authenticator, "dev", "nobody", json!({})).unwrap_err();
        assert_eq!(status.message, "serviceaccounts \"nobody\" not found");
    }

    #[test]
    fn reviews() {
        let world = world();
        let issued = token(&world, json!({"audiences": ["vault"]})).unwrap();
        let text = issued["status"]["token"].clone();
        let review = |audiences: Value| {
            let asked = json!({"spec": {"token": text, "audiences": audiences}});
            super::review(&world.authenticator, asked).unwrap()["status"].clone()
        };
        let status = review(json!(["vault", "other"]));
        assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
        assert_eq!(status["user"]["groups"][2], "system:authenticated");
        let status = review(Value::Null);
        assert_eq!(status["authenticated"], Value::Null);
        assert_eq!(
            status["error"],
            format!("token audiences [\"vault\"] is invalid for the target audiences [{ISSUER:?}]")
        );
        let status = super::review(&world.authenticator, json!({"spec": {}})).unwrap_err();
        assert_eq!(status.code, 400);
    }

    #[test]
    fn times() {
        let world = world();
        let now = clock::now_seconds();
        let check = |exp: i64, nbf: i64, want: &str| {
            let claims = Claims {
                aud: vec![ISSUER.into()],
                iss: ISSUER.into(),
                exp: Some(exp),
                nbf: Some(nbf),
                kubernetes: Kubernetes {
                    namespace: "dev".into(),
                    serviceaccount: Bound { name: "ci".into(), uid: "sa-1".into() },
                    ..Kubernetes::default()
                },
                ..Claims::default()
            };
            let token = world.authenticator.keys().sign(&claims).unwrap();
            let got = world.authenticator.token(&token, &[ISSUER.into()]);
            assert_eq!(
                got.map(|v| v.user.name),
                if want.is_empty() { Ok("system:serviceaccount:dev:ci".into()) } else { Err(want.into()) }
            );
        };
        check(now + 600, now, "");
        check(now - 30, now - 600, "");
        check(now - 90, now - 600, "service account token has expired");
        check(now + 600, now + 300, "service account token is not valid yet");
    }
}
