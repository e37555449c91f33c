//! Conversion webhooks: objects of some versions go out in a ConversionReview, objects of one version come back
//! (apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go). A webhook changes what it likes but an object's
//! identity: of its metadata only labels and annotations are taken.
use crate::{outbound, registry::new_uid, server::Api};
use mote_schema::{Kind, Status, status::go_quote};
use mote_schema::{Value, json};
use std::time::Duration;

/// Upstream's client for these has this timeout.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects of one review. Upstream sends a list as one; a board holds no list twice.
pub(crate) const MAX_OBJECTS: usize = 200;

/// Each of `objects` as `api_version`, in their order.
pub(super) async fn ask(api: &Api, kind: &Kind, api_version: &str, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
    let from = objects.first().map_or("", |object| object["apiVersion"].as_str().unwrap_or(""));
    let about = format!("conversion webhook for {from}, Kind={}", kind.kind);
    let fail = |what: String| Status::new(500, "", format!("{about} {what}"));
    let Some(custom) = &kind.custom else { return Ok(objects) };
    let conversion = custom.definition().root().at("spec.conversion.webhook");
    let known = ["v1", "v1beta1"];
    let mut versions = conversion.get("conversionReviewVersions").items().map(|version| version.str());
    let Some(version) = versions.find(|version| known.contains(version)) else {
        return Err(Status::new(500, "", "no supported conversion review versions"));
    };
    let uid = new_uid();
    let mut request = json!({"kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}});
    let config = conversion.get("clientConfig").to_value();
    let answer = outbound::post_json(api, &config, TIMEOUT, &request).await;
    let mut answer = answer.map_err(|error| fail(format!("failed: {error}")))?;
    let converted = read(&mut answer, &uid, version).map_err(|why| fail(format!("failed: {why}")))?;
    let originals = match request["request"]["objects"].take() {
        Value::Array(list) => list,
        _ => return Err(fail("failed".into())),
    };
    if converted.len() != originals.len() {
        let (found, wanted) = (converted.len(), originals.len());
        return Err(fail(format!("returned {found} objects, expected {wanted}")));
    }
    let is_list = originals.len() > 1;
    let mut done = Vec::with_capacity(converted.len());
    for (at, (original, converted)) in originals.into_iter().zip(converted).enumerate() {
        let which = if is_list { format!("converted object at index {at}") } else { "object".to_owned() };
        done.push(settle(original, converted, api_version).map_err(|(what, why)| {
            fail(match what {
                What::Metadata if is_list => format!("returned invalid metadata in object at index {at}: {why}"),
                What::Metadata => format!("returned invalid metadata: {why}"),
                What::Kind => format!("returned invalid {}: {why}", if is_list { &which } else { "object at index 0" }),
                What::Object => format!("returned invalid {which}: {why}"),
            })
        })?);
    }
    Ok(done)
}

/// The objects of an answer (getConvertedObjectsFromResponse).
fn read(answer: &mut Value, uid: &str, version: &str) -> Result<Vec<Value>, String> {
    if version == "v1" {
        let (found, kind) = (answer["apiVersion"].as_str().unwrap_or(""), answer["kind"].as_str().unwrap_or(""));
        let wanted = "apiextensions.k8s.io/v1, Kind=ConversionReview";
        if (found, kind) != ("apiextensions.k8s.io/v1", "ConversionReview") {
            return Err(format!("expected webhook response of {wanted}, got {found}, Kind={kind}"));
        }
    }
    let response = &mut answer["response"];
    if !response.is_object() {
        return Err("no response provided".into());
    }
    let found = response["uid"].as_str().unwrap_or("");
    if version == "v1" && found != uid {
        return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(found)));
    }
    let result = &response["result"];
    let status = result["status"].as_str().unwrap_or("");
    if status != "Success" {
        return Err(match result["message"].as_str().filter(|message| !message.is_empty()) {
            Some(message) => message.into(),
            None => format!("response.result.status was '{status}', not 'Success'"),
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(list) => Ok(list.into()),
        _ => Ok(Vec::new()),
    }
}

enum What {
    Kind,
    Object,
    Metadata,
}

/// The converted object with the original's metadata (validateConvertedObject, restoreObjectMeta).
fn settle(original: Value, mut converted: Value, api_version: &str) -> Result<Value, (What, String)> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or("").to_owned();
    let found = text(&converted, "apiVersion");
    if found != api_version {
        return Err((What::Kind, format!("invalid groupVersion (expected {api_version}, received {found})")));
    }
    let (wanted, found) = (text(&original, "kind"), text(&converted, "kind"));
    if wanted != found {
        return Err((What::Kind, format!("invalid kind (expected {wanted}, received {found})")));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (wanted, found) = (text(&original["metadata"], field), text(&converted["metadata"], field));
        if wanted != found {
            return Err((What::Object, format!("must have the same {name}: {wanted} != {found}")));
        }
    }
    let Value::Object(mut given) = converted["metadata"].take() else {
        return Err((What::Metadata, "missing metadata in converted object".into()));
    };
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let Some(map) = metadata.as_object_mut() else { break };
        match given.remove(field) {
            None | Some(Value::Null) => drop(map.remove(field)),
            Some(Value::Object(new)) => {
                if let Some((key, _)) = new.iter().find(|(_, value)| !value.is_string()) {
                    let why = format!("metadata.{field}[{key}] must be a string in converted object");
                    return Err((What::Metadata, why));
                }
                map.insert(field.into(), Value::Object(new));
            }
            Some(_) => return Err((What::Metadata, format!("invalid metadata.{field} in converted object"))),
        }
    }
    let changed: Vec<String> = mote_schema::structural::map_errors(&metadata, &original["metadata"]);
    if !changed.is_empty() {
        return Err((What::Metadata, changed.join(", ")));
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_stays_and_labels_come() {
        let object = |version: &str, metadata: Value| json!({"apiVersion": version, "kind": "Thing", "metadata": metadata, "spec": {}});
        let original =
            object("e.com/v1", json!({"name": "a", "uid": "u", "labels": {"a": "b"}, "finalizers": ["x/y"]}));
        let run = |converted: Value| {
            settle(original.clone(), converted, "e.com/v2")
                .map(|value| value["metadata"].clone())
                .map_err(|(_, why)| why)
        };
        let same = json!({"name": "a", "uid": "u", "labels": {"c": "d"}, "finalizers": []});
        assert_eq!(
            run(object("e.com/v2", same)),
            Ok(json!({"name": "a", "uid": "u", "labels": {"c": "d"}, "finalizers": ["x/y"]}))
        );
        for (converted, why) in [
            (object("e.com/v1", json!({})), "invalid groupVersion (expected e.com/v2, received e.com/v1)"),
            (object("e.com/v2", json!({"name": "b", "uid": "u"})), "must have the same name: a != b"),
            (object("e.com/v2", json!({"name": "a"})), "must have the same UID: u != "),
            (
                object("e.com/v2", json!({"name": "a", "uid": "u", "labels": {"c": 1}})),
                "metadata.labels[c] must be a string in converted object",
            ),
        ] {
            assert_eq!(run(converted), Err(why.to_owned()));
        }
    }

    #[test]
    fn answers_are_for_their_questions() {
        let answer = |uid: &str, result: Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": {"uid": uid, "result": result, "convertedObjects": [{}]}})
        };
        let run = |mut answer: Value| read(&mut answer, "1", "v1").map(|list| list.len());
        assert_eq!(run(answer("1", json!({"status": "Success"}))), Ok(1));
        assert_eq!(
            run(answer("2", json!({"status": "Success"}))),
            Err("expected response.uid=\"1\", got \"2\"".into())
        );
        assert_eq!(run(answer("1", json!({"status": "Failure", "message": "no"}))), Err("no".into()));
        assert_eq!(run(answer("1", json!({}))), Err("response.result.status was '', not 'Success'".into()));
        assert_eq!(
            run(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"})),
            Err("no response provided".into())
        );
    }
}
