//! Bootstrap tokens go when they have expired (pkg/controller/bootstrap/tokencleaner.go).
use crate::{amounts::now, owner::gone_is_fine, session::Session};
use mote_api::{
    Change, Client, DeleteOptions, Kind,
    auth::bootstrap_token::{NAMESPACE, TYPE, end_seconds},
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use std::{sync::Arc, time::Duration};

struct Controller {
    session: Session,
    secrets: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "token-cleaner");
    session.clone().start(Controller { secrets: session.kind("", "v1", "secrets"), session });
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "secrets")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let token = change.new.as_ref().filter(|s| s.namespace() == NAMESPACE && s.root().get("type").str() == TYPE);
        if let Some(secret) = token {
            queue.add(Key::new(NAMESPACE, secret.name()));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(secret) = self.session.get(&self.secrets, &key.namespace, &key.name) else { return Ok(Next::Done) };
            let Some(end) = end_seconds(&secret) else { return Ok(Next::Done) };
            let left = u64::try_from(end.saturating_sub(now().as_second())).unwrap_or(0);
            if left > 0 {
                return Ok(Next::After(Duration::from_secs(left)));
            }
            gone_is_fine(self.session.delete(&secret, DeleteOptions::default()).await)?;
            Ok(Next::Done)
        })
    }
}
