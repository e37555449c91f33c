//! The status of ValidatingAdmissionPolicies: what the types say of their expressions
//! (pkg/controller/validatingadmissionpolicystatus). Once for each generation.
use crate::{owner::gone_is_fine, session::Session};
use mote_api::{
    Change, Client, Kind, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
    policy_warnings,
};
use mote_schema::{Value, json};
use std::sync::Arc;

const POLICIES: (&str, &str, &str) = ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");

struct Controller {
    session: Session,
    policies: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "validatingadmissionpolicy-status-controller");
    let policies = session.kind(POLICIES.0, POLICIES.1, POLICIES.2);
    session.clone().start(Controller { session, policies });
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "validatingadmissionpolicy-status"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[POLICIES]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if change.new.is_some() {
            queue.add(Key::new("", change.object().name()));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(policy) = self.session.get(&self.policies, "", &key.name) else { return Ok(Next::Done) };
            let generation = policy.meta().get("generation").as_i64().unwrap_or(0);
            let status = policy.root().get("status");
            if status.get("typeChecking").is_map() && status.get("observedGeneration").as_i64() == Some(generation) {
                return Ok(Next::Done);
            }
            let warnings = policy_warnings(&self.session.catalog(), &policy);
            let mut checking = json!({});
            if !warnings.is_empty() {
                let entry = |(place, text): (String, String)| json!({"fieldRef": place, "warning": text});
                checking["expressionWarnings"] = Value::Array(warnings.into_iter().map(entry).collect());
            }
            let patch = json!({"metadata": {"resourceVersion": policy.revision.to_string()},
                "status": {"observedGeneration": generation, "typeChecking": checking}});
            gone_is_fine(self.session.patch(&policy, Sub::Status, patch).await)?;
            Ok(Next::Done)
        })
    }
}
