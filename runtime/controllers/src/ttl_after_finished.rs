//! Jobs with ttlSecondsAfterFinished go when that time is over (pkg/controller/ttlafterfinished).
use crate::{
    amounts::{now, parse_time, remaining},
    job,
    owner::gone_is_fine,
    session::Session,
};
use mote_api::{
    Change, Client, DeleteOptions, Kind,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use std::{sync::Arc, time::Duration};

struct Controller {
    session: Session,
    jobs: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "ttl-after-finished-controller");
    session.clone().start(Controller { jobs: session.kind("batch", "v1", "jobs"), session });
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "ttl-after-finished"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("batch", "v1", "jobs")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if let Some(job) = change.new.as_ref().filter(|j| job::is_finished(j) && !j.is_deleting()) {
            queue.add(Key::new(job.namespace(), job.name()));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(job) = self.session.get(&self.jobs, &key.namespace, &key.name) else { return Ok(Next::Done) };
            let ttl = job.root().at("spec.ttlSecondsAfterFinished").as_i64();
            let ended = job::finished(&job).and_then(|c| parse_time(c.get("lastTransitionTime")));
            let (Some(ttl), Some(ended), false) = (ttl, ended, job.is_deleting()) else { return Ok(Next::Done) };
            if let Some(left) = remaining(ended, Duration::from_secs(ttl.max(0).unsigned_abs()), now()) {
                return Ok(Next::After(left));
            }
            let options = DeleteOptions {
                propagation: Some("Foreground".into()),
                resource_version: Some(job.revision),
                ..DeleteOptions::default()
            };
            gone_is_fine(self.session.delete(&job, options).await)?;
            Ok(Next::Done)
        })
    }
}
