//! Validation: whether an object may be what a client wants it to be. One driver (metadata, closed sets of values from the
//! table), and one small file for each family of kinds that has rules of its own. Paths, reasons and texts are those of
//! pkg/apis/*/validation of Kubernetes 1.36; where a function below has one of upstream's behind it, it has its name.
//!
//! Everything here reads a cleaned and defaulted tree; it changes nothing and never panics on what it finds. A kind without a
//! file of its own gets metadata and the table's rules.
mod at;
mod autoscaling;
mod batch;
mod cluster;
mod config;
mod container;
mod csi;
mod devices;
mod env;
mod events;
mod flow;
mod meta;
mod network;
mod pod;
mod pod_warnings;
mod ranges;
mod rbac;
mod requests;
mod resize;
mod resources;
mod rules;
mod scheduling;
mod service;
mod storage;
mod values;
mod volume;
mod warnings;
mod webhooks;
mod workloads;

use crate::{Cause, Kind, Value, prune::is_definition, structural};
use at::{At, Errors};

pub use warnings::warnings;

/// All mistakes of `new`. `old` is what it replaces; `sub` the subresource that is written, "" for the object itself.
///
/// Most objects have none, so paths are spelled only when there is something to say: then all is looked at once more.
pub fn validate(kind: &Kind, new: &Value, old: Option<&Value>, sub: &str) -> Vec<Cause> {
    match mistakes(kind, At::unplaced(new), old.map(At::unplaced), sub) {
        none if none.is_empty() => none,
        _ => mistakes(kind, At::root(new), old.map(At::root), sub),
    }
}

/// What is wrong with a label selector that stands there.
pub fn selector_causes(selector: &Value, path: &str) -> Vec<Cause> {
    let mut errors = Errors::default();
    meta::label_selector(&At::root(selector).moved(path), &mut errors);
    errors.0
}

fn mistakes(kind: &Kind, new: At<'_>, old: Option<At<'_>>, sub: &str) -> Vec<Cause> {
    let mut errors = Errors::default();
    let (value, old_value) = (new.value, old.as_ref().map(|old| old.value));
    match &old {
        None => meta::create(kind, &new.get("metadata"), &mut errors),
        Some(old) => {
            meta::replaced(kind, sub, &new.get("metadata"), &old.get("metadata"), &mut errors);
        }
    }
    if kind.is_custom() {
        errors.0.extend(structural::validate(kind, value, old_value, sub));
        return errors.0;
    }
    if old.is_none() && !is_definition(kind) {
        new.at("metadata.finalizers").items().for_each(|finalizer| meta::known_finalizer(&finalizer, &mut errors));
    }
    match sub {
        "" | "status" if is_definition(kind) => {
            errors.0.extend(structural::check_definition(value, old_value, sub));
        }
        "status" => status(kind, &new, old.as_ref(), &mut errors),
        "" => {
            let mut known = Errors::default();
            values::closed_sets(kind, &new, &mut known);
            let mut own = Errors::default();
            spec(kind, &new, old.as_ref(), &mut own);
            // What a kind's own rules say too has its place there.
            known.0.retain(|cause| !own.0.contains(cause));
            errors.0.append(&mut known.0);
            errors.0.append(&mut own.0);
        }
        "approval" => requests::signing_request(&new, old.as_ref(), sub, &mut errors),
        "finalize" => cluster::finalizers(&new.at("spec.finalizers"), &mut errors),
        "ephemeralcontainers" => pod::ephemeral_update(&new, old.as_ref(), &mut errors),
        "resize" => resize::update(&new, old.as_ref(), &mut errors),
        _ => {}
    }
    errors.0
}

/// Metadata of an object inside another one.
pub fn embedded_metadata(metadata: &Value, path: &str) -> Vec<Cause> {
    let mut errors = Errors::default();
    meta::embedded(&At::root(metadata).moved(path), &mut errors);
    errors.0
}

fn spec(kind: &Kind, new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => pod::validate(new, old, errors),
        ("", "PodTemplate") => pod::template(&new.get("template"), errors),
        ("", "ReplicationController") => workloads::replication_controller(new, errors),
        ("", "Service") => service::validate(new, old, errors),
        ("", "ConfigMap") => config::config_map(new, old, errors),
        ("", "Secret") => config::secret(new, old, errors),
        ("", "ServiceAccount") => {}
        ("", "Namespace") => cluster::namespace(new, errors),
        ("", "Node") => cluster::node(new, old, errors),
        ("", "Endpoints") => network::endpoints(new, errors),
        ("", "PersistentVolume") => storage::persistent_volume(new, old, errors),
        ("", "PersistentVolumeClaim") => storage::persistent_volume_claim(new, old, errors),
        ("", "LimitRange") => cluster::limit_range(new, errors),
        ("", "ResourceQuota") => cluster::resource_quota(new, old, errors),
        ("apps", "Deployment") => workloads::deployment(new, old, errors),
        ("apps", "ReplicaSet") => workloads::replica_set(new, old, errors),
        ("apps", "DaemonSet") => workloads::daemon_set(new, old, errors),
        ("apps", "StatefulSet") => workloads::stateful_set(new, old, errors),
        ("apps", "ControllerRevision") => workloads::controller_revision(new, old, errors),
        ("batch", "Job") => batch::job(new, old, errors),
        ("batch", "CronJob") => batch::cron_job(new, errors),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaling::autoscaler(new, &kind.version, errors),
        ("", "Event") => events::event(new, old, false, errors),
        ("events.k8s.io", "Event") => events::event(new, old, true, errors),
        ("policy", "PodDisruptionBudget") => workloads::disruption_budget(new, errors),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::role(new, kind.namespaced, errors),
        ("rbac.authorization.k8s.io", _) => rbac::binding(new, old, kind.namespaced, errors),
        ("networking.k8s.io", "Ingress") => network::ingress(new, old, errors),
        ("networking.k8s.io", "NetworkPolicy") => network::network_policy(new, errors),
        ("networking.k8s.io", "IngressClass") => network::ingress_class(new, old, errors),
        ("networking.k8s.io", "ServiceCIDR") => ranges::service_cidr(new, old, errors),
        ("networking.k8s.io", "IPAddress") => ranges::ip_address(new, old, errors),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(new, old, errors),
        ("coordination.k8s.io", "Lease") => cluster::lease(new, errors),
        ("scheduling.k8s.io", "PriorityClass") => cluster::priority_class(new, old, errors),
        ("node.k8s.io", "RuntimeClass") => cluster::runtime_class(new, old, errors),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            webhooks::configuration(new, old, errors)
        }
        ("apiregistration.k8s.io", "APIService") => webhooks::api_service(new, errors),
        ("storage.k8s.io", "CSIDriver") => csi::driver(new, old, errors),
        ("storage.k8s.io", "CSINode") => csi::node(new, old, errors),
        ("storage.k8s.io", "CSIStorageCapacity") => csi::capacity(new, old, errors),
        ("storage.k8s.io", "VolumeAttachment") => csi::attachment(new, old, errors),
        ("storage.k8s.io", "VolumeAttributesClass") => csi::attributes_class(new, old, errors),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow::schema(new, errors),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flow::level(new, errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => requests::signing_request(new, old, "", errors),
        ("resource.k8s.io", "DeviceClass") => devices::class(new, errors),
        ("resource.k8s.io", "ResourceClaim") => devices::claim(new, old, errors),
        ("resource.k8s.io", "ResourceClaimTemplate") => devices::claim_template(new, old, errors),
        ("resource.k8s.io", "ResourceSlice") => devices::slice(new, old, errors),
        ("storage.k8s.io", "StorageClass") => storage::storage_class(new, old, errors),
        _ => {}
    }
}

fn status(kind: &Kind, new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    match (&*kind.group, &*kind.kind) {
        ("apps", "Deployment") => workloads::deployment_status(&new.get("status"), errors),
        ("apps", "ReplicaSet") => workloads::replica_set_status(&new.get("status"), errors),
        ("apps", "StatefulSet") => workloads::stateful_set_status(&new.get("status"), old, errors),
        ("", "ReplicationController") => workloads::replication_controller_status(&new.get("status"), errors),
        ("networking.k8s.io", "Ingress") => network::ingress_status(&new.at("status.loadBalancer"), errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => requests::signing_request(new, old, "status", errors),
        ("", "Pod") => pod::status(new, old, errors),
        ("batch", "Job") => batch::job_status(new, old, errors),
        ("", "Namespace") => cluster::namespace_status(new, errors),
        ("", "Node") => cluster::node_status(new, errors),
        ("", "ResourceQuota") => cluster::resource_quota_status(new, errors),
        ("", "PersistentVolumeClaim") => storage::claim_status(new, errors),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow::schema_status(new, errors),
        ("resource.k8s.io", "ResourceClaim") => devices::claim_status(new, errors),
        ("apps", "DaemonSet") => rules::rules(
            &new.get("status"),
            "currentNumberScheduled>=0 numberMisscheduled>=0 desiredNumberScheduled>=0 numberReady>=0 \
             observedGeneration>=0 updatedNumberScheduled>=0 numberAvailable>=0 numberUnavailable>=0",
            errors,
        ),
        ("", "Service") => service::status(new, errors),
        ("policy", "PodDisruptionBudget") => rules::rules(
            &new.get("status"),
            "disruptionsAllowed>=0 currentHealthy>=0 desiredHealthy>=0 expectedPods>=0",
            errors,
        ),
        ("autoscaling", _) => autoscaling::autoscaler_status(new, errors),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
