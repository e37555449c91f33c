//! Admission: what is asked of a write besides being well-formed. One table holds the in-tree plugins in upstream's
//! order (pkg/kubeapiserver/options/plugins.go, AllOrderedPlugins; those that are on by default, NodeRestriction and
//! OwnerReferencesPermissionEnforcement); mutating ones run
//! before validation, validating ones after it, just before the commit. What people add (`dynamic`) comes after them,
//! and ResourceQuota is last, since what it charges must not be refused by anybody else.
//!
//! In-tree plugins read the store's newest root and never wait, so they are plain functions.
mod attributes;
mod certificates;
mod devices;
mod dynamic;
pub(crate) mod hooks;
mod ingress_class;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod owners;
mod pod_security;
mod pods;
pub(crate) mod policy;
mod priority;
mod quota;
mod rbac;
mod references;
mod resize;
mod runtime_class;
mod service_account;
mod storage;
mod topology;

pub(crate) use attributes::{Attributes, ObjectKind, Operation};
pub(crate) use quota::Locks as QuotaLocks;

use crate::{
    DeleteOptions,
    registry::{Beside, Target},
    server::Api,
};
use mote_schema::{Kind, Status, Value};
use std::time::Instant;

type Mutate = fn(&mut Attributes<'_, '_>, &mut Value) -> Result<(), Status>;
type Validate = fn(&mut Attributes<'_, '_>, &Value) -> Result<(), Status>;

/// The in-tree plugins that change what is written. Each looks first whether the request is its business.
const MUTATING: &[(&str, Mutate)] = &[
    ("NamespaceLifecycle", namespace_lifecycle::mutate),
    ("LimitRanger", limit_ranger::mutate),
    ("ServiceAccount", service_account::mutate),
    ("NodeRestriction", node_restriction::mutate),
    ("TaintNodesByCondition", pods::taint_new_node),
    ("Priority", priority::mutate),
    ("DefaultTolerationSeconds", pods::default_tolerations),
    ("DefaultStorageClass", storage::default_class),
    ("StorageObjectInUseProtection", storage::protect),
    ("RuntimeClass", runtime_class::mutate),
    ("DefaultIngressClass", ingress_class::mutate),
    ("PodTopologyLabels", topology::mutate),
];

/// The in-tree plugins that have a last word.
const VALIDATING: &[(&str, Validate)] = &[
    ("LimitRanger", limit_ranger::validate),
    ("ServiceAccount", service_account::validate),
    ("PodSecurity", pod_security::validate),
    ("Priority", priority::validate),
    ("OwnerReferencesPermissionEnforcement", owners::validate),
    ("PersistentVolumeClaimResize", resize::claim),
    ("RuntimeClass", runtime_class::validate),
    ("Certificates", certificates::validate),
    ("ResourceClaim", devices::validate),
    ("NodeDeclaredFeatureValidator", resize::declared_features),
    ("PodResizeValidator", resize::pod),
    ("RBAC", rbac::validate),
];

/// A request about the target itself, not about something posted to a part of it.
fn whole<'a, 't>(
    api: &'a Api,
    target: &'a mut Target<'t>,
    operation: Operation,
    old: &'a Value,
    beside: &'a mut Beside,
) -> Attributes<'a, 't> {
    let (subresource, object) = (target.sub.name(), object_kind(target.kind));
    Attributes { api, operation, subresource, object, old, delete: None, beside, target }
}

/// Runs before defaults and validation. `old` is absent for a create.
pub(crate) async fn mutate(
    api: &Api,
    target: &mut Target<'_>,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), Status> {
    if target.is_admitted {
        return Ok(());
    }
    let mut beside = Beside::default();
    let mut attributes = whole(api, target, operation(old), old.unwrap_or(&Value::Null), &mut beside);
    change(&mut attributes, new).await
}

/// The last word before the commit; what must be committed with the object is left in `beside`.
pub(crate) async fn validate(
    api: &Api,
    target: &mut Target<'_>,
    old: Option<&Value>,
    new: &Value,
    beside: &mut Beside,
) -> Result<(), Status> {
    if target.is_admitted {
        return Ok(());
    }
    let mut attributes = whole(api, target, operation(old), old.unwrap_or(&Value::Null), beside);
    decide(&mut attributes, new).await
}

/// A DELETE has no new object: both halves run over the old one.
pub(crate) async fn delete(
    api: &Api,
    target: &mut Target<'_>,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), Status> {
    if target.is_admitted {
        return Ok(());
    }
    let mut beside = Beside::default();
    let mut attributes = whole(api, target, Operation::Delete, old, &mut beside);
    attributes.delete = Some(options);
    change(&mut attributes, &mut Value::Null).await?;
    decide(&mut attributes, &Value::Null).await
}

/// What is posted to a subresource (binding, eviction, token), sent with a CONNECT (PodExecOptions and the like) or put in
/// a part's place (Scale, the only one with an `old`): both are of `object`'s kind, the target is what it is about.
pub(crate) async fn part(
    api: &Api,
    target: &mut Target<'_>,
    operation: Operation,
    subresource: &str,
    object: ObjectKind<'_>,
    old: &Value,
    new: &mut Value,
) -> Result<(), Status> {
    let mut attributes =
        Attributes { api, operation, subresource, object, old, delete: None, beside: &mut Beside::default(), target };
    change(&mut attributes, new).await?;
    decide(&mut attributes, new).await
}

async fn change(attributes: &mut Attributes<'_, '_>, new: &mut Value) -> Result<(), Status> {
    service_account::settle(attributes, new).await;
    let mut round = dynamic::Round::default();
    loop {
        let mut clock = Instant::now();
        for (name, plugin) in MUTATING {
            let result = plugin(attributes, new);
            attributes.api.webhooks.plugin((name, "admit", attributes.operation.name()), result.is_err(), &mut clock);
            result?;
        }
        dynamic::mutate(attributes, new, &mut round).await?;
        // A webhook changed the object: everybody has one more look at it (reinvocation.go).
        if !round.next() {
            return Ok(());
        }
    }
}

async fn decide(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    let mut clock = Instant::now();
    for (name, plugin) in VALIDATING {
        let result = plugin(attributes, new);
        attributes.api.webhooks.plugin((name, "validate", attributes.operation.name()), result.is_err(), &mut clock);
        result?;
    }
    dynamic::validate(attributes, new).await?;
    quota::charge(attributes, new).await
}

fn operation(old: Option<&Value>) -> Operation {
    if old.is_none() { Operation::Create } else { Operation::Update }
}

fn object_kind(kind: &Kind) -> ObjectKind<'_> {
    ObjectKind { group: (*kind.group).into(), version: (*kind.version).into(), kind: (*kind.kind).into() }
}
