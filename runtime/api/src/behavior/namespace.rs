//! Namespaces stay until `spec.finalizers` is empty (the namespace controller empties it through /finalize).
use mote_schema::{Value, json};

pub(super) fn is_held(object: &Value) -> bool {
    object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

pub(super) fn begin_deletion(object: &mut Value) {
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    object["status"]["phase"] = Value::from("Terminating");
}
