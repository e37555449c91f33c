//! The audit log: who asked what and how it ended, as `audit.k8s.io/v1` Events, one JSON line each, by a policy
//! (apiserver/pkg/audit, endpoints/filters/audit.go). `policy` says what is written of which request, `record` holds one
//! request's Event while it runs, `log` is the file. The front opens and closes records.
//!
//! Only requests over HTTP are audited: what the parts of this process ask of each other never is, so an idle node writes
//! nothing. Deeper code adds to the record of the request that is being polled, and need not know whether there is one:
//! `annotate` from anywhere, which does nothing without a record (a controller's write, a request the policy leaves out).
mod log;
mod policy;
mod record;

pub use log::Rotation;
pub(crate) use policy::Stage;
pub use policy::{Level, Policy, Profile};
pub(crate) use record::{Completes, Facts, Record};

use crate::{
    Object,
    http::{RequestInfo, User},
    metrics::Text,
};
use mote_schema::Status;
use mote_schema::Value;
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the configuration decides.
#[derive(Clone, Debug)]
pub struct Config {
    pub policy: Policy,
    /// The file that is written now; rotated ones lie beside it.
    pub file: PathBuf,
    pub rotation: Rotation,
}

/// Decides and writes; shared by all requests.
pub(crate) struct Auditor {
    policy: Policy,
    log: Arc<log::Log>,
    levels: [AtomicU64; 4],
}

impl Auditor {
    /// None when the policy writes nothing at all.
    pub fn new(config: Config, executor: Arc<async_executor::Executor<'static>>) -> Option<Arc<Auditor>> {
        if config.policy.is_silent() {
            return None;
        }
        let log = Arc::new(log::Log::new(config.file, config.rotation, executor));
        Some(Arc::new(Auditor { policy: config.policy, log, levels: Default::default() }))
    }

    /// The record of a request that the policy wants to see. `user` is who authenticated, if anybody did.
    pub fn begin(
        self: &Arc<Self>,
        user: Option<&Arc<User>>,
        info: &RequestInfo,
        facts: Facts<'_>,
    ) -> Option<Arc<Record>> {
        let verdict = self.policy.verdict(user.map(|user| &**user), info);
        if let Some(count) = self.levels.get(verdict.level as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        (verdict.level > Level::None)
            .then(|| Arc::new(Record::new(self.log.clone(), verdict, user.cloned(), info, facts)))
    }

    /// Resolves when all that was logged is with the kernel.
    pub async fn flush(&self) {
        self.log.flush().await;
    }

    pub fn write_metrics(&self, text: &mut Text) {
        let (written, failed) = self.log.counts();
        text.family("apiserver_audit_event_total", "counter", "Audit events written.");
        text.sample("", "", written as f64);
        text.family("apiserver_audit_error_total", "counter", "Audit events lost, by the back end that lost them.");
        text.sample("", "plugin=\"log\"", failed as f64);
        text.family("apiserver_audit_level_total", "counter", "Requests by the level the audit policy gave them.");
        for (count, level) in self.levels.iter().zip(Level::NAMES) {
            text.sample("", &format!("level={level:?}"), count.load(Ordering::Relaxed) as f64);
        }
    }
}

thread_local! {
    /// The record of the request whose future is being polled on this thread.
    static CURRENT: RefCell<Option<Arc<Record>>> = const { RefCell::new(None) };
}

/// Runs a request's work with its record in reach of `annotate` and the others here.
pub(crate) async fn within<F: Future>(record: Option<Arc<Record>>, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if record.is_none() {
            return work.as_mut().poll(cx);
        }
        let before = CURRENT.replace(record.clone());
        let polled = work.as_mut().poll(cx);
        CURRENT.set(before);
        polled
    })
    .await
}

fn with(add: impl FnOnce(&Record)) {
    CURRENT.with_borrow(|current| {
        if let Some(record) = current {
            add(record);
        }
    });
}

/// Adds an annotation to the audit event of the running request: `pod-security.kubernetes.io/enforce-policy` and the like.
/// The first value of a key stays, as upstream. Works from any code that runs in the request's own future; what was
/// spawned or unblocked is out of reach.
pub fn annotate(key: &str, value: &str) {
    with(|record| record.annotate(key, value));
}

/// As `annotate`, of what belongs to a request's body: only where the policy writes bodies.
pub(crate) fn annotate_body(key: &str, value: impl FnOnce() -> String) {
    with(|record| {
        if record.writes_bodies() {
            record.annotate(key, &value());
        }
    });
}

/// The object a client sent, as it was decoded.
pub(crate) fn request_object(object: &Value) {
    with(|record| record.request_object(object));
}

/// The object a client gets, where the answer's bytes are no JSON.
pub(crate) fn response_object(object: &Object) {
    with(|record| record.response_object(object));
}

/// The error a client gets.
pub(crate) fn failed(status: &Status) {
    with(|record| record.failed(status));
}
