//! DefaultStorageClass and StorageObjectInUseProtection (plugin/pkg/admission/storage).
use super::Attributes;
use crate::{Object, feed, server::Api};
use mote_schema::Status;
use mote_schema::{Value, json};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_DEFAULT_CLASS: &str = "storageclass.beta.kubernetes.io/is-default-class";
/// The older way to name a class.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

const FINALIZERS: &[(&str, &str, &str)] = &[
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

/// The newest class marked as default, for a claim that names none (not even "").
pub(super) fn default_class(attributes: &mut Attributes<'_, '_>, claim: &mut Value) -> Result<(), Status> {
    if !attributes.is_create() || !attributes.is_main("", "persistentvolumeclaims") {
        return Ok(());
    }
    let named = claim["spec"].get("storageClassName").is_some_and(|name| !name.is_null());
    if !claim["spec"].is_object() || named || claim["metadata"]["annotations"].get(BETA_CLASS).is_some() {
        return Ok(());
    }
    let marks = [DEFAULT_CLASS, BETA_DEFAULT_CLASS];
    if let Some(class) = newest(attributes.api, ("storage.k8s.io", "storageclasses"), &marks) {
        claim["spec"]["storageClassName"] = Value::from(class.name());
    }
    Ok(())
}

/// Of the classes of a kind that are marked as default, the one made last; by name, when made in the same second.
pub(super) fn newest(api: &Api, (group, plural): (&str, &str), marks: &[&str]) -> Option<Object> {
    let catalog = api.catalog();
    let kind = catalog.by_resource(group, "v1", plural)?;
    let snapshot = api.store.snapshot();
    let classes = snapshot.range(&kind.prefix, None).map(|entry| feed::object(kind, &entry));
    let is_default = |class: &Object| {
        let annotations = class.meta().get("annotations");
        marks.iter().any(|mark| annotations.get(mark).str() == "true")
    };
    classes.filter(is_default).max_by(|a, b| {
        let created = |class: &Object| class.meta().get("creationTimestamp").str().to_owned();
        created(a).cmp(&created(b)).then_with(|| b.name().cmp(a.name()))
    })
}

/// What is in use is not removed before its last user is gone.
pub(super) fn protect(attributes: &mut Attributes<'_, '_>, new: &mut Value) -> Result<(), Status> {
    if !attributes.is_create() {
        return Ok(());
    }
    let found = FINALIZERS.iter().find(|(group, plural, _)| attributes.is_main(group, plural));
    let Some((_, _, finalizer)) = found else { return Ok(()) };
    let finalizers = &mut new["metadata"]["finalizers"];
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|existing| existing == finalizer)
    {
        list.push(Value::from(*finalizer));
    }
    Ok(())
}
