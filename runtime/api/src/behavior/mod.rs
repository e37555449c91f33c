//! What is behaviour and not data: the few things kinds do that the field table cannot say. One small file per
//! kind, reached through the functions here; the registry knows only these.
pub mod addresses;
mod eviction;
mod namespace;
mod pod;
mod reservations;
mod scale;
mod service;
mod signing_request;

pub(crate) use reservations::Reservations;
pub(crate) use scale::{ScaleChange, read as read_scale, write as write_scale};

use crate::{
    admission::{self, ObjectKind, Operation},
    custom,
    registry::{Beside, Target},
    server::Api,
};
use mote_schema::{Cause, Kind, Status, Value};

/// Kinds whose PUT creates what is not there (`AllowCreateOnUpdate` upstream).
const CREATE_ON_UPDATE: &[(&str, &str)] = &[
    ("", "endpoints"),
    ("", "events"),
    ("", "limitranges"),
    ("", "services"),
    ("coordination.k8s.io", "leases"),
    ("events.k8s.io", "events"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
];

/// Kinds whose DELETE answers with the object instead of a Status (`ReturnDeletedObject` upstream).
const RETURN_DELETED: &[(&str, &str)] = &[
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
];

/// Kinds of which a PUT must say which revision it replaces (`AllowUnconditionalUpdate` false upstream), besides custom ones.
const PINNED_UPDATE: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("coordination.k8s.io", "leases"),
    ("node.k8s.io", "runtimeclasses"),
    ("policy", "poddisruptionbudgets"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "volumeattachments"),
];

/// Field selectors a kind answers besides metadata.name and metadata.namespace.
const FIELD_LABELS: &[(&str, &str, &[&str])] = &[
    (
        "",
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    ("", "nodes", &["spec.unschedulable"]),
    ("", "namespaces", &["status.phase", "name"]),
    ("", "secrets", &["type"]),
    ("", "services", &["spec.clusterIP", "spec.type"]),
    ("", "replicationcontrollers", &["status.replicas"]),
    (
        "",
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    (
        "events.k8s.io",
        "events",
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
    ),
    ("batch", "jobs", &["status.successful"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["spec.signerName"]),
    ("resource.k8s.io", "resourceslices", &["spec.nodeName", "spec.driver"]),
];

fn is(kind: &Kind, group: &str, plural: &str) -> bool {
    kind.group == group && kind.plural == plural
}

fn listed(kind: &Kind, list: &[(&str, &str)]) -> bool {
    list.iter().any(|(group, plural)| is(kind, group, plural))
}

pub(crate) fn creates_on_update(kind: &Kind) -> bool {
    listed(kind, CREATE_ON_UPDATE)
}

pub(crate) fn pins_update(kind: &Kind) -> bool {
    kind.custom.is_some() || listed(kind, PINNED_UPDATE)
}

pub(crate) fn returns_deleted(kind: &Kind) -> bool {
    listed(kind, RETURN_DELETED)
}

pub(crate) fn supports_field(kind: &Kind, path: &str) -> bool {
    path == "metadata.name"
        || path == "metadata.namespace" && kind.namespaced
        || kind.custom.as_ref().is_some_and(|custom| custom.selectable.iter().any(|known| **known == *path))
        || FIELD_LABELS.iter().any(|(group, plural, paths)| is(kind, group, plural) && paths.contains(&path))
}

/// What is said of another field: kinds that answer some have words of their own (AddFieldLabelConversionFunc upstream).
pub(crate) fn unsupported_field(kind: &Kind, path: &str) -> String {
    if is(kind, "batch", "jobs") {
        format!("field label {path:?} not supported for Job")
    } else if is(kind, "resource.k8s.io", "resourceslices") {
        format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {path}")
    } else if kind.is_custom() || FIELD_LABELS.iter().any(|(group, plural, _)| is(kind, group, plural)) {
        format!("field label not supported: {path}")
    } else {
        format!("{path:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    }
}

/// Takes what has to be unique across objects (addresses, ports). What is left in `beside` is held until the commit.
pub(crate) fn allocate(
    api: &Api,
    target: &Target<'_>,
    old: Option<&Value>,
    new: &mut Value,
    beside: &mut Beside,
) -> Result<(), Status> {
    if is(target.kind, "", "services") && target.sub == crate::Sub::Main {
        service::allocate(api, target, old, new, beside)?;
    }
    if let Some(old) = old.filter(|_| is(target.kind, "", "persistentvolumes") && target.sub == crate::Sub::Status) {
        volume_phase(old, new);
    }
    if is(target.kind, "certificates.k8s.io", "certificatesigningrequests") {
        match old {
            None => signing_request::create(target.user, new),
            Some(old) => signing_request::update(target.sub.name(), old, new),
        }
    }
    Ok(())
}

/// When a volume came into its phase, unless the writer says so (core/persistentvolume/strategy.go).
fn volume_phase(old: &Value, new: &mut Value) {
    const TIME: &str = "lastPhaseTransitionTime";
    let changed = old["status"]["phase"] != new["status"]["phase"];
    let said =
        new["status"].get(TIME).filter(|time| !time.is_null() && Some(*time) != old["status"].get(TIME)).is_some();
    if let Some(status) = new["status"].as_object_mut().filter(|_| !said) {
        let now = Value::from(crate::registry::format_time(crate::registry::now()));
        match old["status"].get(TIME).filter(|_| !changed) {
            Some(kept) => status.insert(TIME.into(), kept.clone()),
            None => status.insert(TIME.into(), now),
        };
    }
}

/// Mistakes that only the system under this process tells apart: whether there is a time zone of that name. Where none are
/// installed nobody knows, and the controller will say so.
pub(crate) fn causes(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    const ZONES: &str = "/usr/share/zoneinfo";
    let zone = new["spec"]["timeZone"].as_str().unwrap_or("");
    let is_same = old.is_some_and(|old| old["spec"]["timeZone"] == zone);
    let is_part = |b: u8| b.is_ascii_alphanumeric() || b"._+-/".contains(&b);
    // What cannot be a name is refused as such.
    let is_name =
        zone.starts_with(|c: char| c.is_ascii_alphanumeric()) && !zone.contains("..") && zone.bytes().all(is_part);
    let is_known = is_same || !is_name || zone.eq_ignore_ascii_case("local") || matches!(zone, "UTC" | "Etc/UTC");
    if !is(kind, "batch", "cronjobs") || is_known {
        return Vec::new();
    }
    let zones = std::path::Path::new(ZONES);
    if !zones.is_dir() || zones.join(zone).is_file() {
        return Vec::new();
    }
    vec![Cause::invalid("spec.timeZone", &zone.into(), &format!("unknown time zone {zone}"))]
}

/// Gives back with an object's last write what `allocate` took.
pub(crate) fn release(api: &Api, target: &Target<'_>, old: &Value, beside: &mut Beside) {
    if is(target.kind, "", "services") {
        service::release(api, target, old, beside);
    }
}

/// The grace period a delete gives this object; `None` when its kind has none.
pub(crate) fn grace_period(kind: &Kind, object: &Value, asked: Option<i64>) -> Option<i64> {
    is(kind, "", "pods").then(|| pod::grace_period(object, asked))
}

/// Kinds that leave their dependents when a delete does not say (`DefaultGarbageCollectionPolicy` upstream).
pub(crate) fn orphans(kind: &Kind) -> bool {
    is(kind, "", "replicationcontrollers") || is(kind, "batch", "jobs")
}

/// What a delete without a propagation policy is told (registry/batch/job/storage).
pub(crate) fn delete_warning(kind: &Kind, propagation: Option<&str>) -> Option<&'static str> {
    let text = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
    (is(kind, "batch", "jobs") && propagation.is_none()).then_some(text)
}

/// What everybody who uses the kind is told (the lifecycle comments of its Go type).
pub(crate) fn deprecation(kind: &Kind) -> Option<&'static str> {
    if is(kind, "", "endpoints") {
        return Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice");
    }
    is(kind, "", "componentstatuses").then_some("v1 ComponentStatus is deprecated in v1.19+")
}

/// Where upstream keeps a kind in etcd, which some of its messages name.
pub(crate) fn storage_place(kind: &Kind) -> String {
    match (&*kind.group, &*kind.plural) {
        ("", "nodes") => "minions".into(),
        ("", "services") => "services/specs".into(),
        ("", "endpoints") => "services/endpoints".into(),
        ("", "replicationcontrollers") => "controllers".into(),
        ("networking.k8s.io", "ingresses") => "ingress".into(),
        (group, plural) if kind.is_custom() || group.starts_with("api") => format!("{group}/{plural}"),
        (_, plural) => plural.into(),
    }
}

/// Something besides metadata.finalizers keeps the object (a Namespace's spec.finalizers).
pub(crate) fn is_held(kind: &Kind, object: &Value) -> bool {
    is(kind, "", "namespaces") && namespace::is_held(object)
}

/// What hold others are emptied first: their own storage marks them, without a grace period (core/namespace/storage,
/// customresourcedefinition/etcd.go).
pub(crate) fn is_emptied(kind: &Kind) -> bool {
    is(kind, "", "namespaces") || is(kind, custom::GROUP, custom::PLURAL)
}

/// What the first DELETE of an object adds to its finalizers.
pub(crate) fn cleanup_finalizer(kind: &Kind) -> Option<&'static str> {
    is(kind, custom::GROUP, custom::PLURAL).then_some(custom::FINALIZER)
}

pub(crate) fn begin_deletion(kind: &Kind, object: &mut Value) {
    if is(kind, custom::GROUP, custom::PLURAL) {
        custom::begin_deletion(object);
    }
    if is(kind, "", "namespaces") {
        namespace::begin_deletion(object);
    }
}

/// The update just made took the last thing that kept a deleted object (ShouldDeleteDuringUpdate).
pub(crate) fn ends_with_update(kind: &Kind, new: &Value) -> bool {
    let metadata = &new["metadata"];
    let finalizers = metadata["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    metadata.get("deletionTimestamp").is_some()
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && !finalizers
        && !is_held(kind, new)
}

/// What is posted to a subresource: its group, version and kind.
const POSTED: &[(&str, &str, [&str; 3])] = &[
    ("pods", "binding", ["", "v1", "Binding"]),
    ("pods", "eviction", ["policy", "v1", "Eviction"]),
    ("serviceaccounts", "token", ["authentication.k8s.io", "v1", "TokenRequest"]),
];

/// Group, version and kind of what is posted to a subresource.
pub(crate) fn posted(kind: &Kind, sub: &str) -> Option<[&'static str; 3]> {
    POSTED.iter().find(|(plural, name, _)| is(kind, "", plural) && *name == sub).map(|(_, _, posted)| *posted)
}

/// POST to a subresource.
pub(crate) async fn create_sub(
    api: &Api,
    target: &mut Target<'_>,
    sub: &str,
    mut body: Value,
) -> Result<Value, Status> {
    if let Some([group, version, kind]) = posted(target.kind, sub) {
        let object = ObjectKind { group: group.into(), version: version.into(), kind: kind.into() };
        admission::part(api, target, Operation::Create, sub, object, &Value::Null, &mut body).await?;
    }
    match (target.kind.group.as_ref(), target.kind.plural.as_ref(), sub) {
        ("", "pods", "binding") => pod::bind(api, target, body).await,
        ("", "pods", "eviction") => eviction::evict(api, target, body).await,
        ("", "serviceaccounts", "token") => crate::tokens::create(api, target, body),
        _ => Err(Status::new(404, "NotFound", "the server could not find the requested resource")),
    }
}

pub(crate) fn success() -> Value {
    mote_schema::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
