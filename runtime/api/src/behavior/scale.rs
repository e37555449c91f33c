//! The scale subresource of every kind that has one, through the paths its table row names.
use crate::{
    admission::{self, ObjectKind, Operation},
    registry::Target,
    server::Api,
};
use mote_schema::Order as _;
use mote_schema::{Cause, Object, Ref, Status, selector::LabelSelector};
use serde_json::{Value, json};

/// autoscaling/v1 Scale of an object.
pub(crate) fn read(object: &Object) -> Result<Value, Status> {
    let missing = || Status::new(404, "NotFound", "the server could not find the requested resource");
    let scale = object.kind.scale.as_ref().ok_or_else(missing)?;
    let root = object.root();
    let meta = object.meta();
    if object.kind.is_custom() && !root.at(&scale.spec_replicas).exists() {
        return Err(Status::internal(format!("the spec replicas field \".{}\" does not exist", scale.spec_replicas)));
    }
    let selector = root.at(&scale.selector);
    let mut status = json!({"replicas": root.at(&scale.status_replicas).as_i64().unwrap_or(0)});
    let text = selector_text(selector);
    if !text.is_empty() {
        status["selector"] = Value::from(text);
    }
    let mut metadata = json!({
        "name": object.name(), "uid": object.uid(), "resourceVersion": object.revision.to_string(),
        "creationTimestamp": meta.get("creationTimestamp").to_value(),
    });
    if object.kind.namespaced {
        metadata["namespace"] = Value::from(object.namespace());
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": root.at(&scale.spec_replicas).as_i64().unwrap_or(0)}, "status": status,
    }))
}

/// A LabelSelector, a plain map of labels, or the text of either.
fn selector_text(selector: Ref<'_>) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    let structured = selector.get("matchLabels").exists() || selector.get("matchExpressions").exists();
    if structured {
        return LabelSelector::from_ref(selector).ok().flatten().map(|s| s.to_string()).unwrap_or_default();
    }
    let mut pairs: Vec<String> =
        selector.entries().filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    pairs.order();
    pairs.join(",")
}

/// What is on the way is an object, or becomes one.
fn set(object: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let mut place = object;
    for name in path.split('.') {
        if place.is_null() {
            *place = json!({});
        }
        let map =
            place.as_object_mut().ok_or_else(|| format!("value cannot be set because .{path} leads through no map"))?;
        place = map.entry(name).or_insert(Value::Null);
    }
    *place = value;
    Ok(())
}

/// Writes a Scale's replicas to its object; the answer is the new Scale.
pub(crate) async fn write(api: &Api, target: &mut Target<'_>, mut wanted: Value) -> Result<Value, Status> {
    let old = read(&api.current(target.kind, target.namespace, target.name).await?)?;
    let kind = ObjectKind { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() };
    admission::part(api, target, Operation::Update, "scale", kind, &old, &mut wanted).await?;
    target.is_admitted = true;
    let path = match &target.kind.scale {
        Some(scale) => scale.spec_replicas.clone(),
        None => return Err(Status::new(404, "NotFound", "the server could not find the requested resource")),
    };
    let replicas = match wanted["spec"].get("replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value
            .as_i64()
            .ok_or_else(|| Status::bad_request("Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal value into Go struct field ScaleSpec.spec.replicas of type int32"))?,
    };
    if replicas < 0 {
        let cause = Cause::invalid("spec.replicas", &Value::from(replicas), "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", target.name, vec![cause]));
    }
    let version = wanted["metadata"]["resourceVersion"].as_str().unwrap_or("").to_owned();
    let object = api
        .guaranteed_update(target, |old, target| {
            if old.is_null() {
                return Err(target.not_found());
            }
            let mut new = old.clone();
            set(&mut new, &path, Value::from(replicas)).map_err(Status::internal)?;
            match (new["metadata"].as_object_mut(), version.as_str()) {
                (Some(metadata), "") => drop(metadata.remove("resourceVersion")),
                (Some(metadata), version) => drop(metadata.insert("resourceVersion".into(), Value::from(version))),
                (None, _) => {}
            }
            Ok(new)
        })
        .await?;
    read(&object)
}
