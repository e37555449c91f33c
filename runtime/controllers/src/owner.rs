//! Who controls what: controller references read and written, and claiming by selector.
//!
//! Invariant: an object has at most one controller reference, and only its controller's claim adds or removes it.
use crate::session::Session;
use mote_api::{Kind, Object, Ref, Status, Sub, driver::Key};
use mote_schema::selector::{LabelSelector, Op, Requirement};
use mote_schema::{Value, json};
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
pub struct OwnerRef<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub block_owner_deletion: bool,
}

/// Every ownerReference of `object`.
pub fn owners(object: &Object) -> impl Iterator<Item = OwnerRef<'_>> {
    object.meta().get("ownerReferences").items().map(owner_ref)
}

fn owner_ref(reference: Ref<'_>) -> OwnerRef<'_> {
    OwnerRef {
        api_version: reference.get("apiVersion").str(),
        kind: reference.get("kind").str(),
        name: reference.get("name").str(),
        uid: reference.get("uid").str(),
        block_owner_deletion: reference.get("blockOwnerDeletion").as_bool().unwrap_or(false),
    }
}

/// The reference with `controller: true`.
pub fn controller_of(object: &Object) -> Option<OwnerRef<'_>> {
    let mut references = object.meta().get("ownerReferences").items();
    references.find(|r| r.get("controller").as_bool() == Some(true)).map(owner_ref)
}

/// The key of `object`'s controller, when that is a `kind`.
pub fn controller_key(object: &Object, kind: &Kind) -> Option<Key> {
    let owner = controller_of(object)?;
    (owner.kind == kind.kind && group_of(owner.api_version) == kind.group)
        .then(|| Key::new(object.namespace(), owner.name))
}

pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

pub fn is_controlled_by(object: &Object, owner: &Object) -> bool {
    controller_of(object).is_some_and(|r| r.uid == owner.uid())
}

/// The controller reference that `owner` puts on what it creates.
pub fn controller_ref(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.kind.api_version(), "kind": owner.kind.kind, "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// A plain map of labels as a selector (Service and ReplicationController have no `matchLabels`).
pub fn map_selector(map: Ref<'_>) -> LabelSelector {
    let requirements = map
        .entries()
        .map(|(key, value)| Requirement { key: key.into(), op: Op::In, values: vec![value.str().into()] })
        .collect();
    LabelSelector { requirements }
}

pub fn labels(object: &Object) -> Ref<'_> {
    object.meta().get("labels")
}

/// Every member of `wanted` is in `labels` with the same value.
pub fn labels_contain(labels: Ref<'_>, wanted: Ref<'_>) -> bool {
    wanted.entries().all(|(key, value)| labels.get(key).as_str() == Some(value.str()))
}

/// The objects of `kind` in `owner`'s namespace that `owner` controls, after adopting matching orphans and letting
/// go of its own that no longer match (pkg/controller/controller_ref_manager.go). An owner that is being deleted
/// takes nothing in, but may still let go of nothing: it only lists.
pub async fn claim(
    session: &Session,
    owner: &Object,
    kind: &Arc<Kind>,
    selector: &LabelSelector,
    may_adopt: fn(&Object) -> bool,
) -> Result<Vec<Object>, Status> {
    let mut claimed = Vec::new();
    for object in session.list(kind, Some(owner.namespace()))? {
        let matches = selector.matches(labels(&object));
        match controller_of(&object) {
            Some(reference) if reference.uid != owner.uid() => {}
            Some(_) if matches || owner.is_deleting() => claimed.push(object),
            Some(_) => gone_is_fine(set_owners(session, &object, release(&object, owner.uid())).await)?,
            None if !matches || owner.is_deleting() || object.is_deleting() || !may_adopt(&object) => {}
            None => {
                let mut references: Vec<Value> =
                    object.meta().get("ownerReferences").items().map(Ref::to_value).collect();
                references.push(controller_ref(owner));
                match set_owners(session, &object, references).await {
                    Ok(adopted) => claimed.push(adopted),
                    Err(status) if status.is_not_found() => {}
                    Err(status) => return Err(status),
                }
            }
        }
    }
    Ok(claimed)
}

/// The references of `object` without those to `uid`.
pub fn release(object: &Object, uid: &str) -> Vec<Value> {
    let references = object.meta().get("ownerReferences").items();
    references.filter(|r| r.get("uid").str() != uid).map(Ref::to_value).collect()
}

/// Replaces the ownerReferences, provided nobody wrote the object since it was read.
pub async fn set_owners(session: &Session, object: &Object, references: Vec<Value>) -> Result<Object, Status> {
    let references = if references.is_empty() { Value::Null } else { Value::Array(references.into()) };
    let patch = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": object.revision.to_string(), "ownerReferences": references,
    }});
    session.patch(object, Sub::Main, patch).await
}

/// What was to be changed or deleted is gone already.
pub fn gone_is_fine<T>(result: Result<T, Status>) -> Result<(), Status> {
    match result {
        Err(status) if !status.is_not_found() => Err(status),
        _ => Ok(()),
    }
}

/// Wakes whoever a dependent's change concerns: its controller before and after, or, for an orphan whose labels or
/// references changed, everything of `kind` in its namespace that would take it in.
pub fn wake_controllers(
    session: &Session,
    kind: &Arc<Kind>,
    change: &mote_api::Change,
    queue: &mote_api::driver::Queue,
    selects: impl Fn(&Object, &Object) -> bool,
) {
    let before = change.old.as_ref().and_then(|o| controller_key(o, kind));
    let after = change.new.as_ref().and_then(|o| controller_key(o, kind));
    if let Some(key) = before.clone().filter(|key| after.as_ref() != Some(key)) {
        queue.add(key);
    }
    if let Some(key) = after {
        queue.add(key);
        return;
    }
    let Some(orphan) = change.new.as_ref().filter(|o| controller_of(o).is_none() && !o.is_deleting()) else { return };
    if let Some(old) = &change.old
        && before.is_none()
        && labels(old).to_value() == labels(orphan).to_value()
    {
        return;
    }
    for candidate in session.list(kind, Some(orphan.namespace())).unwrap_or_default() {
        if selects(&candidate, orphan) {
            queue.add(Key::new(candidate.namespace(), candidate.name()));
        }
    }
}
