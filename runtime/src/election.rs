//! Who of several nodes on one store runs what must run once: controllers and scheduler. A Lease each in kube-system, named and
//! timed as upstream's (client-go tools/leaderelection); only where the store is shared, so a lone node elects nobody.
use async_io::Timer;
use futures_lite::FutureExt as _;
use jiff::Timestamp;
use mote_api::{Client, Gate, Status, Sub};
use mote_schema::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const LEASE: Duration = Duration::from_secs(15);
/// Who could not renew for so long stops, before another may begin.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
const NAMESPACE: &str = "kube-system";

/// Opens `gate` while this node has the Lease. Runs for the life of the process.
pub async fn run(client: Client, name: &'static str, identity: String, gate: Arc<Gate>) {
    let client = client.as_user(&format!("system:{name}"), &["system:authenticated"]);
    let mut candidate = Candidate { client, name, identity, seen: None };
    let mut renewed: Option<Instant> = None;
    loop {
        let late = async {
            Timer::after(RENEW_DEADLINE).await;
            Err(Status::internal("no answer in time"))
        };
        let begun = Instant::now();
        match candidate.acquire().or(late).await {
            Ok(true) => renewed = Some(begun),
            Ok(false) => renewed = None,
            Err(status) => tracing::debug!(%status, lease = name, "not acquired"),
        }
        let leads = renewed.is_some_and(|renewed| renewed.elapsed() < RENEW_DEADLINE);
        if leads != gate.is_open() {
            tracing::info!(lease = name, identity = candidate.identity, leads, "leader election");
            gate.set(leads);
        }
        // What was renewed last runs out while an answer is waited for.
        Timer::after(RETRY).await;
    }
}

struct Candidate {
    client: Client,
    name: &'static str,
    identity: String,
    /// The Lease's revision, and when it was first seen: clocks of other nodes are not trusted.
    seen: Option<(u64, Instant)>,
}

impl Candidate {
    /// Takes or renews; false: another has it.
    async fn acquire(&mut self) -> Result<bool, Status> {
        let Some(kind) = self.client.kind("coordination.k8s.io", "v1", "leases") else { return Ok(false) };
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let lease = match self.client.get(&kind, NAMESPACE, self.name) {
            Ok(lease) => lease,
            Err(status) if status.code == 404 => {
                let lease =
                    json!({"metadata": {"name": self.name, "namespace": NAMESPACE}, "spec": self.spec(&now, &now, 0)});
                self.client.create_value(&kind, NAMESPACE, lease).await?;
                return Ok(true);
            }
            Err(status) => return Err(status),
        };
        if self.seen.is_none_or(|(revision, _)| revision != lease.revision) {
            self.seen = Some((lease.revision, Instant::now()));
        }
        let mut value = lease.to_value();
        let spec = &value["spec"];
        let holder = spec["holderIdentity"].as_str().unwrap_or("");
        let is_own = holder == self.identity;
        let is_fresh = self.seen.is_some_and(|(_, since)| since.elapsed() < LEASE);
        if !is_own && !holder.is_empty() && is_fresh {
            return Ok(false);
        }
        let transitions = spec["leaseTransitions"].as_i64().unwrap_or(0);
        let acquired = spec["acquireTime"].as_str().filter(|_| is_own).unwrap_or(&now).to_owned();
        value["spec"] = self.spec(&acquired, &now, transitions + i64::from(!is_own));
        self.client.update_value(&kind, Sub::Main, value).await.map(|_| true)
    }

    fn spec(&self, acquired: &str, renewed: &str, transitions: i64) -> Value {
        json!({"holderIdentity": self.identity, "leaseDurationSeconds": LEASE.as_secs(), "acquireTime": acquired,
            "renewTime": renewed, "leaseTransitions": transitions})
    }
}
