//! Secrets of type kubernetes.io/service-account-token get a token of the account that they name, the authority and the
//! namespace; they go with the account (pkg/controller/serviceaccount/tokens_controller.go).
use crate::{owner::gone_is_fine, session::Session};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Sub,
    auth::secret_token::{self, NAME, TYPE, UID},
    certs::Certificates,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::{Value, json};
use std::sync::Arc;

struct Controller {
    session: Session,
    certificates: Arc<Certificates>,
    accounts: Arc<Kind>,
    secrets: Arc<Kind>,
}

pub fn start(client: &Client, certificates: Arc<Certificates>) {
    let session = Session::of_the_manager(client);
    let accounts = session.kind("", "v1", "serviceaccounts");
    let secrets = session.kind("", "v1", "secrets");
    session.clone().start(Controller { session, certificates, accounts, secrets });
}

fn is_token(secret: &Object) -> bool {
    secret.root().get("type").str() == TYPE
}

impl Controller {
    /// The Secret as it should be, if it is not.
    fn filled(&self, secret: &Object, account: &Object) -> Result<Option<Value>, String> {
        let data = secret.root().get("data");
        let has = |key: &str, text: &str| data.get(key).str() == STANDARD.encode(text);
        let (authority, namespace) = (self.certificates.authority(), secret.namespace());
        let has_token = !data.get("token").str().is_empty();
        if has_token && has("ca.crt", &authority) && !data.get("namespace").str().is_empty() {
            return Ok(None);
        }
        let mut value = secret.to_value();
        for part in ["data", "metadata"] {
            if !value[part].is_object() {
                value[part] = json!({});
            }
        }
        value["data"]["ca.crt"] = STANDARD.encode(&authority).into();
        if data.get("namespace").str().is_empty() {
            value["data"]["namespace"] = STANDARD.encode(namespace).into();
        }
        if !has_token {
            let token = secret_token::issue(&self.certificates.token_keys(), account, secret)?;
            value["data"]["token"] = STANDARD.encode(token).into();
        }
        if !value["metadata"]["annotations"].is_object() {
            value["metadata"]["annotations"] = json!({});
        }
        value["metadata"]["annotations"][NAME] = account.name().into();
        value["metadata"]["annotations"][UID] = account.uid().into();
        Ok(Some(value))
    }
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "serviceaccount-token"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "secrets"), ("", "v1", "serviceaccounts")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if &*change.kind.plural == "secrets" {
            if change.new.as_ref().is_some_and(is_token) {
                queue.add(Key::new(object.namespace(), object.name()));
            }
            return;
        }
        if change.old.is_some() && change.new.is_some() {
            return;
        }
        let names = |secret: &&Object| secret.meta().get("annotations").get(NAME).str() == object.name();
        let secrets = self.session.list(&self.secrets, Some(object.namespace())).unwrap_or_default();
        for secret in secrets.iter().filter(|secret| is_token(secret)).filter(names) {
            queue.add(Key::new(secret.namespace(), secret.name()));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(secret) = self.session.get(&self.secrets, &key.namespace, &key.name) else { return Ok(Next::Done) };
            let annotations = secret.meta().get("annotations");
            let (name, uid) = (annotations.get(NAME).str(), annotations.get(UID).str());
            if !is_token(&secret) || secret.is_deleting() || name.is_empty() {
                return Ok(Next::Done);
            }
            let account = self.session.get(&self.accounts, &key.namespace, name);
            let account = account.ok().filter(|account| uid.is_empty() || account.uid() == uid);
            let Some(account) = account else {
                gone_is_fine(self.session.delete(&secret, DeleteOptions::default()).await)?;
                return Ok(Next::Done);
            };
            let Some(value) = self.filled(&secret, &account).map_err(Error::Other)? else { return Ok(Next::Done) };
            match self.session.update(&self.secrets, Sub::Main, value).await {
                Err(status) if !status.is_conflict() && !status.is_not_found() => Err(status.into()),
                _ => Ok(Next::Done),
            }
        })
    }
}
