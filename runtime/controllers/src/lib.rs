//! Kubernetes' controllers, one file each over the shared driver in `mote_api::driver`.
//!
//! Every controller reads the store's current root through its client, so it sees its own writes as soon as they
//! are acknowledged: the expectations and consistency stores that upstream needs over its caches have no place here.
//! What they share is in `session`, `owner`, `pod`, `pod_control`, `status`, `history`, `hash`, `amounts` and `service_pods`;
//! the rest is one behaviour a file. Absent: cloud, attaching and provisioning of volumes.

mod amounts;
mod hash;
mod history;
mod owner;
mod pod;
mod pod_control;
mod service_pods;
mod session;
mod status;

mod bootstrap_signer;
mod certificates;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod ephemeral_volume;
mod garbage_collector;
mod job;
mod namespace;
mod node_lifecycle;
mod pod_gc;
mod policy_status;
mod protection;
mod replicaset;
mod resource_quota;
mod root_ca;
mod service_cidr;
mod serviceaccount;
mod statefulset;
mod taint_eviction;
mod token_cleaner;
mod tokens;
mod ttl_after_finished;
mod volume_binding;

use mote_api::{Client, certs::Certificates};
use std::{sync::Arc, time::Duration};

#[derive(Clone, Debug)]
pub struct Config {
    /// What the kube-root-ca.crt ConfigMap of every namespace holds: PEM, the CA that signed the API server's certificate.
    pub root_ca_pem: String,
    /// Follows the authority's renewals in place of `root_ca_pem`, and signs requests; None: nothing is signed here.
    pub certificates: Option<Arc<Certificates>>,
    /// The Node of the kubelet in this process; "" when it has none.
    pub local_node: String,
    /// Finished pods kept before the oldest go (kube-controller-manager's --terminated-pod-gc-threshold).
    pub terminated_pod_threshold: usize,
    /// A node whose Lease and status are older than this is not Ready (--node-monitor-grace-period).
    pub node_monitor_grace_period: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            root_ca_pem: String::new(),
            certificates: None,
            local_node: String::new(),
            terminated_pod_threshold: 12_500,
            node_monitor_grace_period: Duration::from_secs(50),
        }
    }
}

/// Starts every controller on the client's executor.
pub fn start_all(client: &Client, config: &Config) {
    namespace::start(client);
    serviceaccount::start(client);
    root_ca::start(client, config);
    if let Some(certificates) = &config.certificates {
        certificates::start(client, certificates.clone());
        tokens::start(client, certificates.clone());
    }
    garbage_collector::start(client);
    deployment::start(client);
    replicaset::start(client);
    resource_quota::start(client);
    daemonset::start(client);
    statefulset::start(client);
    job::start(client);
    cronjob::start(client);
    endpointslice::start(client);
    endpoints::start(client);
    endpointslice_mirroring::start(client);
    node_lifecycle::start(client, config);
    taint_eviction::start(client);
    pod_gc::start(client, config);
    disruption::start(client);
    ttl_after_finished::start(client);
    protection::start(client);
    policy_status::start(client);
    service_cidr::start(client);
    token_cleaner::start(client);
    bootstrap_signer::start(client);
    volume_binding::start(client);
    ephemeral_volume::start(client);
}
