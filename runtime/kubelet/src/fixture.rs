//! Pods for this crate's tests, from the JSON of their spec.
use crate::pod::Pod;
use crate::spec::{Field, PodSpec, PodStatus};
use mote_schema::{Catalog, Doc, Kind, Object};
use mote_schema::{Value, json};
use std::sync::{Arc, OnceLock};

/// A part of a pod from its JSON.
pub fn read<T: Field>(value: Value) -> T {
    T::read(Doc::encode(&value).unwrap().root()).unwrap()
}

pub fn pod(spec: Value) -> Pod {
    pod_with(spec, json!({}))
}

pub fn pod_with(spec: Value, status: Value) -> Pod {
    let (spec, status): (PodSpec, PodStatus) = (read(spec), read(status));
    static KIND: OnceLock<Arc<Kind>> = OnceLock::new();
    let kind = KIND.get_or_init(|| Catalog::builtin().of::<k8s_openapi::api::core::v1::Pod>().clone());
    Pod {
        object: Object { kind: kind.clone(), doc: Doc::encode(&json!({})).unwrap(), revision: 1 },
        namespace: "ns".into(),
        name: "p".into(),
        uid: "uid-1".into(),
        generation: Some(1),
        labels: Default::default(),
        annotations: Default::default(),
        deletion: None,
        deletion_grace_seconds: None,
        spec,
        status,
        ephemeral: Vec::new(),
    }
}
