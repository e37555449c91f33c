//! The ServiceAccount `default` in every namespace that is not on its way out (pkg/controller/serviceaccount).
use crate::{pod_control, session::Session};
use mote_api::{
    Change, Client, Kind,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::json;
use std::sync::Arc;

const NAME: &str = "default";

struct Controller {
    session: Session,
    namespaces: Arc<Kind>,
    accounts: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "service-account-controller");
    let namespaces = session.kind("", "v1", "namespaces");
    let accounts = session.kind("", "v1", "serviceaccounts");
    session.clone().start(Controller { session, namespaces, accounts });
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "namespaces"), ("", "v1", "serviceaccounts")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        match &*change.kind.plural {
            "namespaces" if change.new.is_some() => queue.add(Key::new("", object.name())),
            "serviceaccounts" if change.new.is_none() && object.name() == NAME => {
                queue.add(Key::new("", object.namespace()));
            }
            _ => {}
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let active = self.session.get(&self.namespaces, "", &key.name).is_ok_and(|n| !n.is_deleting());
            if !active || self.session.get(&self.accounts, &key.name, NAME).is_ok() {
                return Ok(Next::Done);
            }
            let account = json!({"metadata": {"name": NAME, "namespace": &*key.name}});
            match self.session.create(&self.accounts, &key.name, account).await {
                Err(status) if !status.is_already_exists() && !pod_control::namespace_terminating(&status) => {
                    Err(status.into())
                }
                _ => Ok(Next::Done),
            }
        })
    }
}
