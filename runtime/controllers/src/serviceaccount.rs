//! The ServiceAccount `default` in every namespace that is not on its way out (pkg/controller/serviceaccount).
use crate::{identity, kind, pod_control};
use mote_api::{
    Change, Client, Kind,
    driver::{self, BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use serde_json::json;
use std::sync::Arc;

const NAME: &str = "default";

struct Controller {
    client: Client,
    namespaces: Arc<Kind>,
    accounts: Arc<Kind>,
}

pub fn start(client: &Client) {
    let client = identity(client, "service-account-controller");
    let namespaces = kind(&client, "", "v1", "namespaces");
    let accounts = kind(&client, "", "v1", "serviceaccounts");
    driver::start(&client.clone(), Arc::new(Controller { client, namespaces, accounts }));
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
            let active = self.client.get(&self.namespaces, "", &key.name).is_ok_and(|n| !n.is_deleting());
            if !active || self.client.get(&self.accounts, &key.name, NAME).is_ok() {
                return Ok(Next::Done);
            }
            let account = json!({"metadata": {"name": NAME, "namespace": &*key.name}});
            match self.client.create_value(&self.accounts, &key.name, account).await {
                Err(status) if !status.is_already_exists() && !pod_control::namespace_terminating(&status) => {
                    Err(status.into())
                }
                _ => Ok(Next::Done),
            }
        })
    }
}
