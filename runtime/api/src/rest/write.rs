//! POST, PUT, PATCH, DELETE: from HTTP to the registry and back, warnings included.
use super::{
    items::{self, Items, List},
    list, media,
    options::{ListOptions, delete_request, manager, patch_options, write_options},
    unknown,
};
use crate::{
    Patch, Sub, behavior,
    http::{Request, Response},
    registry::{Deleted, Options, Target, meta},
    server::Api,
};
use http::header::{CONTENT_TYPE, WARNING};
use mote_schema::{Catalog, Cause, Kind, Status, Value, json};
use std::sync::Arc;

pub(crate) fn sub_of(kind: &Kind, name: &str) -> Result<Sub, Status> {
    let sub = match name {
        "" => Sub::Main,
        "status" if kind.has_status => Sub::Status,
        "finalize" => Sub::Finalize,
        "approval" => Sub::Approval,
        "ephemeralcontainers" => Sub::EphemeralContainers,
        "resize" => Sub::Resize,
        _ => return Err(unknown()),
    };
    let owner = match sub {
        Sub::Main | Sub::Status => return Ok(sub),
        Sub::Finalize => "namespaces",
        Sub::Approval => "certificatesigningrequests",
        Sub::EphemeralContainers | Sub::Resize => "pods",
    };
    if kind.plural == owner { Ok(sub) } else { Err(unknown()) }
}

pub(super) fn target<'a>(request: &'a Request, kind: &'a Arc<Kind>, sub: Sub, options: Options) -> Target<'a> {
    let target = Target::new(&request.user, kind, &request.info.namespace, &request.info.name, sub);
    Target { options, manager: manager(request), ..target }
}

/// `299 - "text"`, one header each (RFC 7234, 5.5; apimachinery/pkg/util/net NewWarningHeader).
pub(super) fn warn(mut response: Response, warnings: &[String]) -> Response {
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| [Some('\\').filter(|_| c == '"' || c == '\\'), Some(c)])
            .flatten()
            .collect();
        response = response.with(WARNING, &format!("299 - \"{quoted}\""));
    }
    response
}

/// The body's apiVersion and kind, where it has them, are the request's.
pub(super) fn check_kind(api: &Api, kind: &Kind, body: &Value, raw: &[u8]) -> Result<(), Status> {
    let text = |field: &str| body[field].as_str().filter(|text| !text.is_empty());
    let expected = kind.api_version();
    // Only built-in kinds are known by the request alone.
    let (assumed, named) = match (kind.is_custom(), text("kind")) {
        (true, None) => {
            let error = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(raw));
            return Err(media::unrecognized(&kind.kind, &error, raw));
        }
        (true, named) => ("", named),
        (false, named) => (&*expected, named),
    };
    let (version, name) = (text("apiVersion").unwrap_or(assumed), named.unwrap_or(&kind.kind));
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    if number.contains('/') {
        return Err(media::unrecognized(&kind.kind, &format!("unexpected GroupVersion string: {version}"), raw));
    }
    if kind.is_custom() {
        if name != kind.kind {
            let cause = Cause::invalid("kind", &name.into(), &format!("must be {}", kind.kind));
            let object = body["metadata"]["name"].as_str().unwrap_or("");
            return Err(Status::invalid(&kind.group, name, object, vec![cause]));
        }
    } else if let Some(error) = unregistered(&api.catalog(), kind, group, number, name) {
        let wanted = &kind.kind;
        return Err(Status::bad_request(format!(
            "{name} in version {number:?} cannot be handled as a {wanted}: {error}"
        )));
    }
    if version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    Ok(())
}

/// Why something of that kind cannot be taken for one of ours, as the scheme says it.
pub(crate) fn unregistered(catalog: &Catalog, kind: &Kind, group: &str, version: &str, name: &str) -> Option<String> {
    let found = catalog.by_kind(group, version, name).cloned();
    let Some(found) = found.filter(|found| !found.is_custom()) else {
        let shown = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        return Some(format!(
            "no kind {name:?} is registered for version {shown:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        ));
    };
    if name == kind.kind && group == kind.group {
        return None;
    }
    let package = kind.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    let from = found.table().go_name(found.root);
    Some(format!("converting ({from}) to ({package}.{}): unknown conversion", kind.kind))
}

pub(crate) async fn create(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let mut target = target(&request, kind, Sub::Main, write_options(&request.query, "CreateOptions")?);
    let (body, complaints) = media::parse(api, &request, &kind.kind)?;
    check_kind(api, kind, &body, &request.body)?;
    let object = match api.create_decoded(&mut target, body, complaints).await {
        Ok(object) => object,
        Err(status) => return Ok(warn(Response::error(&status), &target.warnings)),
    };
    Ok(warn(media::respond(201, &object, form)?, &target.warnings))
}

pub(crate) async fn update(api: &Api, kind: &Arc<Kind>, sub: Sub, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let mut target = target(&request, kind, sub, write_options(&request.query, "UpdateOptions")?);
    let (body, complaints) = media::parse(api, &request, &kind.kind)?;
    check_kind(api, kind, &body, &request.body)?;
    let object = match api.update_decoded(&mut target, body, complaints).await {
        Ok(object) => object,
        Err(status) => return Ok(warn(Response::error(&status), &target.warnings)),
    };
    Ok(warn(media::respond(status_of(&target), &object, form)?, &target.warnings))
}

/// A patch's media types. What is no built-in kind has no strategic merge.
const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// The patch, what parsing complained of, and the other options.
async fn parse_patch(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<(Patch, Vec<String>, Options), Status> {
    let media = request.header(CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let custom = kind.is_custom();
    let supported = || PATCHES.iter().filter(|patch| !(custom && patch.contains("strategic")));
    let Some(media) = supported().find(|patch| **patch == media).copied() else {
        let accepted: Vec<&str> = supported().copied().collect();
        // The router of built-in kinds refuses before the handler does.
        return Err(match custom {
            true => Status::unsupported_media_type(&accepted),
            false => Status::unrouted(415, "UnsupportedMediaType", "415: Unsupported Media Type"),
        });
    };
    let applies = media == PATCHES[3];
    let (options, force) = patch_options(&request.query, applies)?;
    if applies {
        let (config, complaints) = parse_config(&request.body)?;
        return Ok((Patch::Apply { config, force }, complaints, options));
    }
    let (mut value, complaints) = match mote_schema::prune::parse_json(&request.body) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Nobody reads a patch of what is not there.
            api.current(kind, &request.info.namespace, &request.info.name).await?;
            let prefix = if media == PATCHES[2] { "" } else { "error decoding patch: " };
            return Err(Status::bad_request(format!("{prefix}{error}")));
        }
    };
    let wrap = match media {
        "application/json-patch+json" => Patch::Json,
        "application/merge-patch+json" => Patch::Merge,
        _ => {
            mote_schema::strategic::round(&mut value);
            Patch::Strategic
        }
    };
    Ok((wrap(value), complaints, options))
}

/// YAML, of which JSON is a part: clients mostly send that, and it reads faster.
fn parse_config(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let parsed = match json.then(|| mote_schema::prune::parse_json(body)) {
        // A duplicate is worded by the YAML reader.
        Some(Ok((config, complaints))) if complaints.is_empty() => return Ok((config, complaints)),
        _ => mote_schema::prune::parse_yaml(body),
    };
    let (config, complaints) = parsed.map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    let found = match config {
        Value::Object(_) | Value::Null => return Ok((config, complaints)),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    Err(Status::bad_request(format!(
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    )))
}

pub(crate) async fn patch(api: &Api, kind: &Arc<Kind>, sub: Sub, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let (change, complaints, options) = parse_patch(api, kind, &request).await?;
    let mut target = target(&request, kind, sub, options);
    let object = match api.patch_decoded(&mut target, &change, complaints).await {
        Ok(object) => object,
        Err(status) => return Ok(warn(Response::error(&status), &target.warnings)),
    };
    Ok(warn(media::respond(status_of(&target), &object, form)?, &target.warnings))
}

/// 201 when there was no such object before.
fn status_of(target: &Target<'_>) -> u16 {
    if target.created { 201 } else { 200 }
}

pub(crate) async fn delete(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let (options, write) = delete_request(api, &request)?;
    let mut target = target(&request, kind, Sub::Main, write);
    let deleted = api.delete(&mut target, &options).await?;
    let response = match deleted {
        Deleted::Pending(object) => media::respond(200, &object, form),
        Deleted::Gone(object) if behavior::returns_deleted(kind) => media::respond(200, &object, form),
        Deleted::Gone(object) => {
            let mut details = json!({"name": object.name(), "kind": kind.plural, "uid": object.uid()});
            if !kind.group.is_empty() {
                details["group"] = Value::from(kind.group.to_string());
            }
            let status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            media::document(api, 200, &status, form)
        }
    }?;
    Ok(warn(response, &target.warnings))
}

pub(crate) async fn delete_collection(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let chosen = ListOptions::parse(&request.query, kind, "")?;
    let (delete, write) = delete_request(api, &request)?;
    let mut target = target(&request, kind, Sub::Main, write);
    let (listed, meta) = list::listed(api, kind, target.namespace, &chosen).await?;
    let deleted = api.delete_collection(&mut target, &delete, &listed).await?;
    let list = List { kind: kind.clone(), items: Items::Read(deleted), meta };
    Ok(warn(items::respond(api, list, form).await?, &target.warnings))
}

/// scale: read, replaced or patched as the autoscaling/v1 Scale it is shown as.
pub(crate) async fn scale(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    if kind.scale.is_none() {
        return Err(unknown());
    }
    let (change, complaints, options) = match request.info.verb.as_str() {
        "get" => {
            let object = api.current(kind, &request.info.namespace, &request.info.name).await?;
            return media::document(api, 200, &behavior::read_scale(kind, &object.to_value())?, form);
        }
        "update" => {
            let options = write_options(&request.query, "UpdateOptions")?;
            let (body, complaints) = media::parse(api, &request, "Scale")?;
            let catalog = api.catalog();
            let scale = catalog.by_kind("autoscaling", "v1", "Scale").ok_or_else(unknown)?;
            check_kind(api, scale, &body, &request.body)?;
            (behavior::ScaleChange::Replace(body), complaints, options)
        }
        "patch" => {
            let (patch, complaints, options) = parse_patch(api, kind, &request).await?;
            (behavior::ScaleChange::Patch(patch), complaints, options)
        }
        verb => return Err(Status::method_not_supported(&kind.group, &format!("{}/scale", kind.plural), verb)),
    };
    let mut target = target(&request, kind, Sub::Main, options);
    let scale = behavior::write_scale(api, &mut target, &change, complaints).await?;
    Ok(warn(media::document(api, 200, &scale, form)?, &target.warnings))
}

/// What is posted to be answered, not stored: of the right kind, its types checked, in the request's namespace.
pub(super) fn posted(api: &Api, target: &mut Target<'_>, kind: &Kind, request: &Request) -> Result<Value, Status> {
    let (mut body, complaints) = media::parse(api, request, &kind.kind)?;
    // What older clients evict with means the same (EvictionREST.AcceptsGroupVersion).
    if !(kind.kind == "Eviction" && body["apiVersion"] == "policy/v1beta1" && body["kind"] == "Eviction") {
        check_kind(api, kind, &body, &request.body)?;
    }
    target.decode_as(kind, &mut body, complaints)?;
    meta::settle_namespace(meta::metadata(&mut body)?, target.kind.namespaced, target.namespace)?;
    body["kind"] = kind.kind.to_string().into();
    body["apiVersion"] = kind.api_version().into();
    Ok(body)
}

pub(crate) async fn create_sub(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let mut target = target(&request, kind, Sub::Main, write_options(&request.query, "CreateOptions")?);
    let sub = request.info.subresource.as_str();
    let catalog = api.catalog();
    let posted_kind = behavior::posted(kind, sub);
    let posted_kind = posted_kind.and_then(|[group, version, name]| catalog.by_kind(group, version, name));
    let body = posted(api, &mut target, posted_kind.ok_or_else(unknown)?, &request)?;
    let answer = behavior::create_sub(api, &mut target, sub, body).await;
    let response = answer.and_then(|answer| media::document(api, 201, &answer, form));
    Ok(warn(response.unwrap_or_else(|status| Response::error(&status)), &target.warnings))
}
