//! ResourceQuota: a write that would use more than its namespace's quotas allow is refused; one that fits is charged
//! to them in its own transaction, so that a charge and what it is for are never apart
//! (apiserver/pkg/admission/plugin/resourcequota).
//!
//! Charges of one namespace wait for each other, as do writes of its ResourceQuotas: two parallel creates can never
//! both take the last piece.
use super::Attributes;
use crate::{
    Object, feed,
    quota::{self, Amounts},
    server::Api,
};
use async_lock::Mutex;
use mote_schema::{Doc, Kind, Order as _, Ref, Status, Value};
use mote_store::{Precondition, Write};
use std::{
    array,
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    sync::Arc,
};

/// Namespaces share these locks by the hash of their names.
const LOCKS: usize = 8;

pub(crate) struct Locks([Arc<Mutex<()>>; LOCKS]);

impl Locks {
    pub(crate) fn new() -> Locks {
        Locks(array::from_fn(|_| Arc::default()))
    }

    fn of(&self, namespace: &str) -> Arc<Mutex<()>> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        self.0[(hasher.finish() % LOCKS as u64) as usize].clone()
    }
}

pub(super) async fn charge(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    let (api, namespace) = (attributes.api, attributes.target.namespace);
    if namespace.is_empty() || !(attributes.is_create() || attributes.is_update()) {
        return Ok(());
    }
    let quota_itself = attributes.is("", "resourcequotas");
    let handled = quota::counts(attributes.target.kind) && handles(attributes, new);
    if !(quota_itself || handled && has_quotas(api, namespace)) {
        return Ok(());
    }
    attributes.beside.holds.push(Box::new(api.quota_locks.of(namespace).lock_arc().await));
    if !handled {
        return Ok(());
    }
    let encode = |value: &Value| Doc::encode(value).map_err(|error| Status::bad_request(format!("{error:?}")));
    let new_doc = encode(new)?;
    let old_doc = if attributes.is_update() { Some(encode(attributes.old)?) } else { None };
    let (object, old) = (new_doc.root(), old_doc.as_ref().map(Doc::root));
    let now = crate::registry::now();
    let kind = attributes.target.kind.clone();
    let used = quota::usage(&kind, object, now);
    for quota in quotas(api, namespace) {
        let Some(total) = check(attributes, new, &quota, &kind, object, old, &used)? else { continue };
        let key: mote_store::Key = quota.kind.key(namespace, quota.name()).into();
        let mut value = quota.to_value();
        value["status"]["used"] = total.to_value();
        let doc = Api::encode(value)?;
        attributes.beside.preconditions.push((key.clone(), Precondition::Modified(quota.revision)));
        attributes.beside.writes.push(Write::Put(key, doc.bytes().clone()));
    }
    Ok(())
}

/// Whether this write of this kind can change what is used.
fn handles(attributes: &Attributes<'_, '_>, new: &Value) -> bool {
    let (kind, old) = (attributes.target.kind, attributes.old);
    match (&*kind.group, &*kind.plural, attributes.subresource) {
        ("", "pods", "") => attributes.is_create() || terminating(old) != terminating(new),
        ("", "pods", "resize") => attributes.is_update(),
        ("", "services" | "persistentvolumeclaims", "") | ("resource.k8s.io", "resourceclaims", "") => true,
        ("", "persistentvolumeclaims", "status") => {
            let changed = |field: &str| old["status"][field] != new["status"][field];
            changed("allocatedResources")
                || changed("currentVolumeAttributesClassName")
                || changed("modifyVolumeStatus")
        }
        (_, _, "") => attributes.is_create(),
        _ => false,
    }
}

fn terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

fn quota_kind(api: &Api) -> Option<Arc<Kind>> {
    api.catalog().by_resource("", "v1", "resourcequotas").cloned()
}

fn has_quotas(api: &Api, namespace: &str) -> bool {
    quota_kind(api).is_some_and(|kind| {
        let prefix = api.list_prefix(&kind, namespace);
        api.store.snapshot().range(&prefix, None).next().is_some()
    })
}

fn quotas(api: &Api, namespace: &str) -> Vec<Object> {
    let Some(kind) = quota_kind(api) else { return Vec::new() };
    let prefix = api.list_prefix(&kind, namespace);
    api.store.snapshot().range(&prefix, None).map(|entry| feed::object(&kind, &entry)).collect()
}

/// The quota's new `status.used`, or `None` when this write costs it nothing.
fn check(
    attributes: &Attributes<'_, '_>,
    new: &Value,
    quota: &Object,
    kind: &Kind,
    object: Ref<'_>,
    old: Option<Ref<'_>>,
    used: &Amounts,
) -> Result<Option<Amounts>, Status> {
    let status = quota.root().get("status");
    let hard = Amounts::of(status.get("hard"));
    let mut names: Vec<&str> = hard.0.keys().map(String::as_str).filter(|name| quota::matching(kind, name)).collect();
    names.order();
    if names.is_empty() || !quota::in_scope(quota.root(), kind, object) {
        return Ok(None);
    }
    let name = quota.name();
    if let Some(lacking) = quota::lacks(kind, object, names.iter().copied()) {
        return Err(attributes.forbidden(new, &format!("failed quota: {name}: {lacking}")));
    }
    let before = Amounts::of(status.get("used"));
    if names.iter().any(|name| before.get(name).is_none()) {
        let detail = format!("status unknown for quota: {name}, resources: {}", names.join(","));
        return Err(attributes.forbidden(new, &detail));
    }
    let negative: Vec<&str> =
        used.0.iter().filter(|(_, amount)| amount.is_negative()).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let detail = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(attributes.forbidden(new, &detail));
    }
    // What an update adds, if the object was in this quota before; all of it otherwise.
    let more = match old.filter(|old| quota::in_scope(quota.root(), kind, *old)) {
        Some(old) => used.above(&quota::usage(kind, old, crate::registry::now())),
        None => used.clone(),
    };
    let more = more.only(|name| hard.get(name).is_some()).without_zeros();
    if more.0.is_empty() {
        return Ok(None);
    }
    let mut total = before.clone();
    total.add(&more);
    let exceeded = |name: &str| {
        more.get(name).is_some() && matches!((total.get(name), hard.get(name)), (Some(all), Some(hard)) if all > hard)
    };
    let requested = more.only(exceeded);
    // What a status reports has happened already.
    if !requested.0.is_empty() && attributes.subresource != "status" {
        let detail = format!(
            "exceeded quota: {name}, requested: {requested}, used: {}, limited: {}",
            before.only(exceeded),
            hard.only(exceeded)
        );
        return Err(attributes.forbidden(new, &detail));
    }
    Ok(Some(total))
}
