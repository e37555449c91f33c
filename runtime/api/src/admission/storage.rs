//! DefaultStorageClass and StorageObjectInUseProtection.
use crate::{feed, server::Api};
use serde_json::{Value, json};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The newest class marked as default, for a claim that names none (not even "").
pub(super) fn default_class(api: &Api, claim: &mut Value) {
    if !claim["spec"].is_object() || claim["spec"].get("storageClassName").is_some_and(|name| !name.is_null()) {
        return;
    }
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("storage.k8s.io", "v1", "storageclasses") else { return };
    let snapshot = api.store.snapshot();
    let classes = snapshot.range(&kind.prefix, None).map(|entry| feed::object(kind, &entry));
    let defaults = classes.filter(|class| class.meta().get("annotations").get(DEFAULT_CLASS).str() == "true");
    let newest = defaults.max_by(|a, b| {
        let created = |class: &crate::Object| class.meta().get("creationTimestamp").str().to_owned();
        created(a).cmp(&created(b)).then_with(|| b.name().cmp(a.name()))
    });
    if let Some(class) = newest {
        claim["spec"]["storageClassName"] = Value::from(class.name());
    }
}

pub(super) fn protect(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|existing| existing == finalizer)
    {
        list.push(Value::from(finalizer));
    }
}
