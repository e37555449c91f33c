//! One exchange with one webhook: the AdmissionReview that is sent and what comes back of it
//! (plugin/webhook/request/admissionreview.go, errors/statuserror.go).
use super::{
    super::{Attributes, ObjectKind, Operation},
    configurations::{Configuration, Hook, Side},
    figures::End,
    matching::Matched,
    versions,
};
use crate::{
    outbound,
    registry::{FieldValidation, new_uid},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use mote_schema::{Map, Value, json};
use mote_schema::{Status, status::go_quote};
use std::time::Instant;

/// Of one answer; upstream knows no bound but that of the answer itself.
const MAX_WARNINGS: usize = 100;
const MAX_ANNOTATIONS: usize = 100;
const GROUP: &str = "admission.k8s.io";

/// Why a request is not allowed, or not known to be.
pub(super) enum Refused {
    /// The webhook said no.
    Denied(Status),
    /// There is no usable answer; failurePolicy decides. `why` goes behind `failed calling webhook "name": `.
    Failed { why: String, code: u16 },
    /// What failed is not the webhook's to forgive.
    Internal(Status),
}

/// What an answer says beside yes or no.
#[derive(Default)]
pub(super) struct Notes {
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

/// Asks; what is to be told to client and audit log is left in `notes` also when the answer is no.
pub(super) async fn ask(
    attributes: &Attributes<'_, '_>,
    side: Side,
    (configuration, hook): (&Configuration, &Hook),
    matched: &Matched,
    new: &Value,
    notes: &mut Notes,
) -> Result<Option<Value>, Refused> {
    let began = Instant::now();
    let result = exchange(attributes, side, (configuration, hook), matched, new, notes).await;
    let (end, code) = match &result {
        Ok(_) => (End::Passed, 200),
        Err(Refused::Denied(status)) => (End::Denied, status.code),
        Err(Refused::Failed { code, .. }) if hook.ignores_failures => (End::Passed, *code),
        Err(Refused::Failed { code, .. }) => (End::Failed, *code),
        Err(Refused::Internal(_)) => (End::Internal, 0),
    };
    let figures = &attributes.api.webhooks.figures;
    figures.called((&hook.name, side, attributes.operation), code, end, began.elapsed());
    result
}

async fn exchange(
    attributes: &Attributes<'_, '_>,
    side: Side,
    (configuration, hook): (&Configuration, &Hook),
    matched: &Matched,
    new: &Value,
    notes: &mut Notes,
) -> Result<Option<Value>, Refused> {
    if attributes.target.options.dry_run && hook.has_side_effects {
        let text = format!("admission webhook {} does not support dry run", go_quote(&hook.name));
        return Err(Refused::Internal(Status::bad_request(text)));
    }
    let version = configuration.review_versions(hook).items().map(|version| version.str());
    let Some(version) = version.into_iter().find(|version| matches!(*version, "v1" | "v1beta1")) else {
        let why =
            "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        return Err(Refused::Failed { why: why.into(), code: 400 });
    };
    let uid = new_uid();
    let body = request(attributes, matched, new, version, &uid).await.map_err(Refused::Internal)?;
    let config = configuration.client_config(hook).to_value();
    let answer = outbound::post_bytes(attributes.api, &config, hook.timeout, body).await.map_err(|error| {
        let doing = match error {
            outbound::Error::Config(_) => "could not get REST client",
            _ => "failed to call webhook",
        };
        Refused::Failed { why: format!("{doing}: {error}"), code: error.code() }
    })?;
    let invalid = |why: String| Refused::Failed { why: format!("received invalid webhook response: {why}"), code: 503 };
    let response = verify(&answer, version, &uid, side).map_err(invalid)?;
    for (key, value) in response["auditAnnotations"].as_object().into_iter().flatten().take(MAX_ANNOTATIONS) {
        notes.annotations.push((format!("{}/{key}", hook.name), value.as_str().unwrap_or("").to_owned()));
    }
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    notes.warnings.extend(warnings.take(MAX_WARNINGS).map(str::to_owned));
    if response["allowed"] != true {
        return Err(Refused::Denied(denial(&hook.name, &response["status"])));
    }
    if side == Side::Validating {
        return Ok(None);
    }
    patch(response, version)
}

/// The patch of a mutating webhook's answer, when it has one that does something.
fn patch(response: &Value, version: &str) -> Result<Option<Value>, Refused> {
    let undecodable = |why: String| Refused::Failed {
        why: format!("received undecodable patch in webhook response: {why}"),
        code: 503,
    };
    let text = response["patch"].as_str().unwrap_or("");
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = STANDARD.decode(text).map_err(|error| undecodable(error.to_string()))?;
    let (patch, _) = mote_schema::prune::parse_json(&bytes).map_err(undecodable)?;
    let Some(operations) = patch.as_array() else {
        return Err(undecodable("json: cannot unmarshal object into Go value of type jsonpatch.Patch".into()));
    };
    if operations.is_empty() {
        return Ok(None);
    }
    let kind = response["patchType"].as_str().unwrap_or("");
    if version == "v1" && kind != "JSONPatch" {
        return Err(Refused::Failed { why: format!("unsupported patch type {}", go_quote(kind)), code: 400 });
    }
    Ok(Some(patch))
}

/// The answer's `response`, if it answers this request.
fn verify<'v>(answer: &'v Value, version: &str, uid: &str, side: Side) -> Result<&'v Value, String> {
    let response = answer.get("response").filter(|response| response.is_object());
    let response = response.ok_or("webhook response was absent")?;
    if version != "v1" {
        return Ok(response);
    }
    let answered = response["uid"].as_str().unwrap_or("");
    if answered != uid {
        return Err(format!("expected response.uid={}, got {}", go_quote(uid), go_quote(answered)));
    }
    let (api_version, kind) = (answer["apiVersion"].as_str().unwrap_or(""), answer["kind"].as_str().unwrap_or(""));
    if (api_version, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}/{version}, Kind={kind}"
        ));
    }
    let has_patch = response["patch"].as_str().is_some_and(|patch| !patch.is_empty());
    let patch_type = response.get("patchType").filter(|value| !value.is_null());
    match (side, has_patch, patch_type) {
        (Side::Mutating, true, None) => Err("webhook returned response.patch but not response.patchType".into()),
        (Side::Mutating, false, Some(_)) => Err("webhook returned response.patchType but not response.patch".into()),
        (Side::Mutating, true, Some(kind)) if kind == "" => {
            Err("webhook returned invalid response.patchType of \"\"".into())
        }
        (Side::Validating, true, _) => Err("validating webhook may not return response.patch".into()),
        (Side::Validating, _, Some(_)) => Err("validating webhook may not return response.patchType".into()),
        _ => Ok(response),
    }
}

/// The client gets the webhook's own Status, with who said no before its message.
fn denial(name: &str, result: &Value) -> Status {
    let said = |field: &str| result[field].as_str().filter(|text| !text.is_empty());
    let by = format!("admission webhook {} denied the request", go_quote(name));
    let message = match said("message").or_else(|| said("reason")) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    };
    let code =
        result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (400..1000).contains(code));
    let code = code.unwrap_or(400);
    let mut shown = Map::new();
    shown.insert("kind".into(), "Status".into());
    shown.insert("apiVersion".into(), "v1".into());
    shown.insert("metadata".into(), json!({}));
    let status = said("status").filter(|status| *status != "Success").unwrap_or("Failure");
    shown.insert("status".into(), status.into());
    shown.insert("message".into(), message.as_str().into());
    if let Some(reason) = said("reason") {
        shown.insert("reason".into(), reason.into());
    }
    if let Some(details) = result.get("details").filter(|details| details.is_object()) {
        shown.insert("details".into(), details.clone());
    }
    shown.insert("code".into(), code.into());
    let retry = result["details"]["retryAfterSeconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    let mut status = Status::new(code, known_reason(said("reason").unwrap_or("")), message);
    status.retry_after_seconds = retry.filter(|seconds| *seconds > 0);
    status.verbatim = Some(Box::new(shown.into()));
    status
}

/// Reasons that our own parts act on; others only pass through.
fn known_reason(reason: &str) -> &'static str {
    const KNOWN: [&str; 6] = ["NotFound", "Conflict", "AlreadyExists", "Forbidden", "Invalid", "TooManyRequests"];
    KNOWN.into_iter().find(|known| *known == reason).unwrap_or("")
}

/// The AdmissionReview as JSON. Objects are written as they are, never copied.
async fn request(
    attributes: &Attributes<'_, '_>,
    matched: &Matched,
    new: &Value,
    version: &str,
    uid: &str,
) -> Result<Vec<u8>, Status> {
    let object = versions::view(attributes, matched, new).await?;
    let old = versions::view(attributes, matched, attributes.old).await?;
    let head = Value::Object(head(attributes, matched, &object, uid));
    let mut out =
        format!("{{\"kind\":\"AdmissionReview\",\"apiVersion\":\"{GROUP}/{version}\",\"request\":").into_bytes();
    write(&mut out, &head);
    // Behind the head's last member.
    out.pop();
    out.extend_from_slice(b",\"object\":");
    write_object(&mut out, &matched.object, &object);
    out.extend_from_slice(b",\"oldObject\":");
    // The old side of a request for a part is the object itself.
    write_object(&mut out, &matched.object, &old);
    out.extend_from_slice(b"}}");
    Ok(out)
}

/// An AdmissionRequest but for its objects.
pub(in crate::admission) fn head(attributes: &Attributes<'_, '_>, matched: &Matched, object: &Value, uid: &str) -> Map {
    let target = &*attributes.target;
    let asked = target.asked;
    let kind = |of: &ObjectKind<'_>| json!({"group": of.group, "version": of.version, "kind": of.kind});
    let resource =
        |kind: &mote_schema::Kind| json!({"group": *kind.group, "version": *kind.version, "resource": *kind.plural});
    let mut head = Map::new();
    let mut put = |name: &str, value: Value| {
        if value != "" {
            head.insert(name.into(), value);
        }
    };
    put("uid", uid.into());
    put("kind", kind(&matched.object));
    put("resource", resource(&matched.kind));
    put("subResource", attributes.subresource.into());
    put("requestKind", kind(&matching_own(attributes)));
    put("requestResource", resource(asked));
    put("requestSubResource", attributes.subresource.into());
    // A generated name is known to validating webhooks only.
    let name = match target.name {
        "" => object["metadata"]["name"].as_str().unwrap_or(""),
        name => name,
    };
    put("name", name.into());
    let is_namespace = attributes.is("", "namespaces");
    put("namespace", if is_namespace { name } else { target.namespace }.into());
    put("operation", attributes.operation.name().into());
    put("userInfo", user(target.user));
    put("dryRun", target.options.dry_run.into());
    put("options", options(attributes));
    head
}

/// The request's own kind, whatever matched.
fn matching_own(attributes: &Attributes<'_, '_>) -> ObjectKind<'static> {
    Matched::own(attributes).object
}

fn user(user: &crate::http::User) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    info.into()
}

/// CreateOptions and its like, as the request has them; null for a CONNECT.
fn options(attributes: &Attributes<'_, '_>) -> Value {
    let kind = match attributes.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    let asked = &attributes.target.options;
    if asked.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if let Some(delete) = attributes.delete {
        if let Some(seconds) = delete.grace_period_seconds {
            options["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = &delete.propagation {
            options["propagationPolicy"] = policy.as_str().into();
        }
        let mut conditions = Map::new();
        if let Some(uid) = &delete.uid {
            conditions.insert("uid".into(), uid.as_str().into());
        }
        if let Some(revision) = delete.resource_version {
            conditions.insert("resourceVersion".into(), revision.to_string().into());
        }
        if !conditions.is_empty() {
            options["preconditions"] = conditions.into();
        }
        return options;
    }
    if asked.names_manager {
        options["fieldManager"] = attributes.target.manager.into();
    }
    match asked.validation {
        FieldValidation::Strict => options["fieldValidation"] = "Strict".into(),
        FieldValidation::Ignore => options["fieldValidation"] = "Ignore".into(),
        FieldValidation::Warn => {}
    }
    options
}

fn write(out: &mut Vec<u8>, value: &Value) {
    // Into memory, and a Value has no key that is not text.
    serde_json::to_writer(out, value).unwrap_or(());
}

/// With apiVersion and kind, whether the tree has them or not.
fn write_object(out: &mut Vec<u8>, kind: &ObjectKind<'_>, object: &Value) {
    let Some(members) = object.as_object() else { return out.extend_from_slice(b"null") };
    let named = |field: &str| members.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let slash = if kind.group.is_empty() { "" } else { "/" };
    let api_version = format!("{}{slash}{}", kind.group, kind.version);
    out.extend_from_slice(b"{\"kind\":");
    write(out, &named("kind").unwrap_or(&kind.kind).into());
    out.extend_from_slice(b",\"apiVersion\":");
    write(out, &named("apiVersion").unwrap_or(&api_version).into());
    for (name, value) in members.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "apiVersion")) {
        out.push(b',');
        write(out, &name.as_str().into());
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}
