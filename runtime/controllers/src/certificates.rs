//! CertificateSigningRequests: kubelets' client certificates are approved for those who may have them, approved requests
//! are signed for the built-in signers, and old requests go (pkg/controller/certificates: approver, signer, cleaner).
use crate::{
    amounts::{now, parse_time, remaining, rfc3339},
    owner::gone_is_fine,
    session::Session,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Sub,
    certs::{Certificates, Request, certificate_end_seconds, request::KUBELET_CLIENT},
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
    http::User,
    rbac::Attributes,
};
use mote_schema::{Value, json};
use std::{sync::Arc, time::Duration};

const GROUP: &str = "certificates.k8s.io";
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Controller {
    client: Client,
    session: Session,
    certificates: Arc<Certificates>,
    requests: Arc<Kind>,
}

pub fn start(client: &Client, certificates: Arc<Certificates>) {
    let session = Session::new(client, "certificate-controller");
    let requests = session.kind(GROUP, "v1", "certificatesigningrequests");
    session.clone().start(Controller { client: client.clone(), session, certificates, requests });
}

fn condition<'a>(request: &'a Object, type_: &str) -> Option<mote_api::Ref<'a>> {
    let mut conditions = request.root().at("status.conditions").items();
    conditions.find(|condition| condition.get("type").str() == type_)
}

fn decoded(field: mote_api::Ref<'_>) -> Option<String> {
    String::from_utf8(STANDARD.decode(field.as_str()?).ok()?).ok()
}

impl Controller {
    async fn handle(&self, request: &Object) -> Result<(), Error> {
        let spec = request.root().get("spec");
        if !request.root().at("status.certificate").str().is_empty() || condition(request, "Denied").is_some() {
            return Ok(());
        }
        let parsed =
            decoded(spec.get("request")).ok_or_else(|| "not base64".to_owned()).and_then(|pem| Request::parse(&pem));
        let parsed = match parsed {
            Ok(parsed) => parsed,
            // It was checked when it came; what cannot be read now will never be.
            Err(_) => return Ok(()),
        };
        let usages: Vec<&str> = spec.get("usages").items().filter_map(|usage| usage.as_str()).collect();
        if condition(request, "Approved").is_none() {
            return self.approve(request, &parsed, &usages).await;
        }
        if condition(request, "Failed").is_some_and(|failed| failed.get("status").str() == "True") {
            return Ok(());
        }
        match parsed.check(spec.get("signerName").str(), &usages) {
            None => Ok(()),
            Some(Err(error)) => self.fail(request, &error).await,
            Some(Ok(())) => {
                let asked = spec.get("expirationSeconds").as_i64();
                let signed = self.certificates.sign(&parsed, &usages, asked).map_err(Error::Other)?;
                let mut new = request.to_value();
                new["status"]["certificate"] = STANDARD.encode(signed).into();
                self.session.update(&self.requests, Sub::Status, new).await?;
                Ok(())
            }
        }
    }

    async fn fail(&self, request: &Object, error: &str) -> Result<(), Error> {
        let condition = json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": error,
            "lastUpdateTime": rfc3339(now())});
        self.add(request, Sub::Status, condition).await
    }

    async fn add(&self, request: &Object, sub: Sub, condition: Value) -> Result<(), Error> {
        let mut new = request.to_value();
        let mut conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.push(condition);
        new["status"]["conditions"] = Value::Array(conditions.into());
        self.session.update(&self.requests, sub, new).await?;
        Ok(())
    }

    /// A node may renew its own client certificate; a bootstrap token's group may ask for a first one.
    async fn approve(&self, request: &Object, parsed: &Request, usages: &[&str]) -> Result<(), Error> {
        let spec = request.root().get("spec");
        if spec.get("signerName").str() != KUBELET_CLIENT || parsed.check_kubelet_client(usages).is_err() {
            return Ok(());
        }
        let strings =
            |list: mote_api::Ref<'_>| list.items().filter_map(|item| item.as_str().map(str::to_owned)).collect();
        let user = User {
            name: spec.get("username").str().to_owned(),
            uid: spec.get("uid").str().to_owned(),
            groups: strings(spec.get("groups")),
            extra: spec.get("extra").entries().map(|(key, values)| (key.to_owned(), strings(values))).collect(),
        };
        let own = user.name == parsed.common_name;
        for (applies, subresource, message) in [
            (own, "selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
            (true, "nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
        ] {
            let asked = Attributes {
                verb: "create",
                group: GROUP,
                version: "*",
                resource: "certificatesigningrequests",
                subresource,
                is_resource: true,
                ..Attributes::default()
            };
            if applies && self.client.may(&user, &asked) {
                let condition =
                    json!({"type": "Approved", "status": "True", "reason": "AutoApproved", "message": message});
                return self.add(request, Sub::Approval, condition).await;
            }
        }
        Ok(())
    }

    /// When the request goes: an hour after it was answered, a day after nothing happened, and with its certificate.
    fn ends_in(&self, request: &Object) -> Option<Duration> {
        let mut left: Vec<Duration> = Vec::new();
        let mut after = |since: mote_api::Ref<'_>, limit: Duration| {
            let Some(since) = parse_time(since) else { return };
            left.push(remaining(since, limit, now()).unwrap_or(Duration::ZERO));
        };
        let conditions = request.root().at("status.conditions");
        let certificate = decoded(request.root().at("status.certificate")).filter(|pem| !pem.is_empty());
        if conditions.is_empty() {
            after(request.meta().get("creationTimestamp"), DAY);
        }
        for condition in conditions.items() {
            let limit = match (condition.get("type").str(), &certificate) {
                ("Approved", None) => DAY,
                ("Approved" | "Denied" | "Failed", _) => HOUR,
                _ => continue,
            };
            after(condition.get("lastUpdateTime"), limit);
        }
        if let Some(end) = certificate.as_deref().and_then(certificate_end_seconds) {
            let seconds = end.saturating_sub(now().as_second());
            left.push(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
        }
        left.into_iter().min()
    }
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "certificates"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[(GROUP, "v1", "certificatesigningrequests")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if let Some(request) = &change.new {
            queue.add(Key::new("", request.name()));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(request) = self.session.get(&self.requests, "", &key.name) else { return Ok(Next::Done) };
            match self.ends_in(&request) {
                Some(left) if left.is_zero() => {
                    gone_is_fine(self.session.delete(&request, DeleteOptions::default()).await)?;
                    Ok(Next::Done)
                }
                left => {
                    self.handle(&request).await?;
                    Ok(left.map_or(Next::Done, Next::After))
                }
            }
        })
    }
}
