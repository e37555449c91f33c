//! The table of printed kinds.
//!
//! Columns are words: `_` stands for a space, `~` in front for format "name", `#` for an integer, `?` for a boolean, `@` for a
//! date, `*` for priority 1 (shown with `-o wide`).
use super::{access, network, pod, policy, row::Row, storage, workload};
use mote_schema::{Kind, Object};

pub(super) struct Printer {
    group: &'static str,
    kind: &'static str,
    columns: &'static str,
    pub cells: fn(&mut Row<'_>),
    /// Reason and message of the condition Completed.
    pub completed: fn(&Object) -> Option<(&'static str, &'static str)>,
}

pub(super) struct Column {
    pub name: String,
    pub kind: &'static str,
    pub format: &'static str,
    pub wide: bool,
}

impl Printer {
    pub fn columns(&self) -> impl Iterator<Item = Column> {
        self.columns.split(' ').map(|word| {
            let wide = word.starts_with('*');
            let word = word.trim_start_matches('*');
            let (kind, format) = match word.as_bytes().first() {
                Some(b'~') => ("string", "name"),
                Some(b'#') => ("integer", ""),
                Some(b'?') => ("boolean", ""),
                Some(b'@') => ("date", ""),
                _ => ("string", ""),
            };
            Column { name: word.trim_start_matches(['~', '#', '?', '@']).replace('_', " "), kind, format, wide }
        })
    }
}

/// Of a kind without columns of its own: as k8s.io/apiserver/pkg/registry/rest/table.go.
static DEFAULT: Printer = of("", "", "~Name @Created_At", |row| {
    row.name();
    row.string("metadata.creationTimestamp");
});

pub(super) fn printer(kind: &Kind) -> &'static Printer {
    let own = !kind.is_custom();
    PRINTERS.iter().find(|p| own && p.kind == kind.kind && p.group == kind.group).unwrap_or(&DEFAULT)
}

const fn of(group: &'static str, kind: &'static str, columns: &'static str, cells: fn(&mut Row<'_>)) -> Printer {
    Printer { group, kind, columns, cells, completed: |_| None }
}

#[rustfmt::skip]
pub(super) static PRINTERS: &[Printer] = &[
    Printer {
        completed: pod::completed,
        ..of("", "Pod", "~Name Ready Status Restarts Age *IP *Node *Nominated_Node *Readiness_Gates", pod::pod)
    },
    of("", "PodTemplate", "~Name Containers Images Pod_Labels", pod::template),
    of("", "ReplicationController", "~Name #Desired #Current #Ready Age *Containers *Images *Selector", workload::replication_controller),
    of("", "Service", "~Name Type Cluster-IP External-IP Port(s) Age *Selector", network::service),
    of("", "Endpoints", "~Name Endpoints Age", network::endpoints),
    of("", "Node", "~Name Status Roles Age Version *Internal-IP *External-IP *OS-Image *Kernel-Version *Container-Runtime", policy::node),
    of("", "Event", EVENT, policy::event),
    of("events.k8s.io", "Event", EVENT, policy::event),
    of("", "Namespace", "~Name Status Age", policy::namespace),
    of("", "Secret", "~Name Type Data Age", policy::secret),
    of("", "ConfigMap", "~Name Data Age", policy::config_map),
    of("", "ServiceAccount", "~Name Age", name_and_age),
    of("", "PersistentVolume", "~Name Capacity Access_Modes Reclaim_Policy Status Claim StorageClass VolumeAttributesClass Reason Age *VolumeMode", storage::volume),
    of("", "PersistentVolumeClaim", "~Name Status Volume Capacity Access_Modes StorageClass VolumeAttributesClass Age *VolumeMode", storage::claim),
    of("", "ComponentStatus", "~Name Status Message Error", policy::component_status),
    of("", "ResourceQuota", "~Name Request Limit Age", policy::resource_quota),
    of("apps", "Deployment", "~Name Ready Up-to-date Available Age *Containers *Images *Selector", workload::deployment),
    of("apps", "ReplicaSet", "~Name #Desired #Current #Ready Age *Containers *Images *Selector", workload::replica_set),
    of("apps", "DaemonSet", "~Name #Desired #Current #Ready #Up-to-date #Available Node_Selector Age *Containers *Images *Selector", workload::daemon_set),
    of("apps", "StatefulSet", "~Name Ready Age *Containers *Images", workload::stateful_set),
    of("apps", "ControllerRevision", "~Name Controller Revision Age", workload::controller_revision),
    of("batch", "Job", "~Name Status Completions Duration Age *Containers *Images *Selector", workload::job),
    of("batch", "CronJob", "~Name Schedule Timezone ?Suspend #Active Last_Schedule Age *Containers *Images *Selector", workload::cron_job),
    of("autoscaling", "HorizontalPodAutoscaler", "~Name Reference Targets MinPods MaxPods Replicas Age", workload::autoscaler),
    of("autoscaling", "Scale", "Name #Desired #Available Age", workload::scale),
    of("policy", "PodDisruptionBudget", "~Name Min_Available Max_Unavailable #Allowed_Disruptions Age", policy::disruption_budget),
    of("networking.k8s.io", "Ingress", "~Name Class Hosts Address Ports Age", network::ingress),
    of("networking.k8s.io", "IngressClass", "~Name Controller Parameters Age", network::ingress_class),
    of("networking.k8s.io", "NetworkPolicy", "~Name Pod-Selector Age", network::policy),
    of("networking.k8s.io", "ServiceCIDR", "~Name CIDRs Age", network::service_cidr),
    of("networking.k8s.io", "IPAddress", "~Name ParentRef", network::ip_address),
    of("discovery.k8s.io", "EndpointSlice", "~Name AddressType Ports Endpoints Age", network::endpoint_slice),
    of("rbac.authorization.k8s.io", "RoleBinding", BINDING, access::binding),
    of("rbac.authorization.k8s.io", "ClusterRoleBinding", BINDING, access::binding),
    of("certificates.k8s.io", "CertificateSigningRequest", "~Name Age SignerName Requestor RequestedDuration Condition", access::signing_request),
    of("coordination.k8s.io", "Lease", "~Name Holder Age", policy::lease),
    of("storage.k8s.io", "StorageClass", "~Name Provisioner ReclaimPolicy VolumeBindingMode AllowVolumeExpansion Age", storage::class),
    of("storage.k8s.io", "VolumeAttributesClass", "~Name DriverName Age", storage::attributes_class),
    of("storage.k8s.io", "VolumeAttachment", "~Name ~Attacher PV Node ?Attached Age", storage::attachment),
    of("storage.k8s.io", "CSINode", "~Name #Drivers Age", storage::csi_node),
    of("storage.k8s.io", "CSIDriver", "~Name ?AttachRequired ?PodInfoOnMount ?StorageCapacity TokenRequests ?RequiresRepublish Modes Age", storage::csi_driver),
    of("scheduling.k8s.io", "PriorityClass", "~Name #Value ?Global-Default Age PreemptionPolicy", policy::priority_class),
    of("node.k8s.io", "RuntimeClass", "~Name Handler Age", policy::runtime_class),
    of("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "~Name #Webhooks Age", access::webhooks),
    of("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "~Name #Webhooks Age", access::webhooks),
    of("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "~Name #Validations ParamKind Age", access::validating_policy),
    of("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", "~Name PolicyName ParamRef Age", access::policy_binding),
    of("admissionregistration.k8s.io", "MutatingAdmissionPolicy", "~Name #Mutations ParamKind Age", access::mutating_policy),
    of("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding", "~Name PolicyName ParamRef Age", access::policy_binding),
    of("apiregistration.k8s.io", "APIService", "~Name Service Available Age", access::api_service),
    of("flowcontrol.apiserver.k8s.io", "FlowSchema", "~Name PriorityLevel MatchingPrecedence DistinguisherMethod Age MissingPL", policy::flow_schema),
    of("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", "~Name Type NominalConcurrencyShares Queues HandSize QueueLengthLimit Age", policy::priority_level),
    of("resource.k8s.io", "DeviceClass", "~Name Age", name_and_age),
    of("resource.k8s.io", "ResourceClaim", "~Name State Age", storage::resource_claim),
    of("resource.k8s.io", "ResourceClaimTemplate", "~Name Age", name_and_age),
    of("resource.k8s.io", "ResourceSlice", "~Name Node Driver Pool Age", storage::resource_slice),
];

const EVENT: &str = "Last_Seen Type Reason Object *Subobject *Source Message *First_Seen *Count *~Name";
const BINDING: &str = "~Name Role Age *Users *Groups *ServiceAccounts";

fn name_and_age(row: &mut Row<'_>) {
    row.name();
    row.age();
}
