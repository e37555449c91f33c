//! POST, PUT, PATCH, DELETE: from HTTP to the registry and back, warnings included.
use super::{
    items::{self, Items, List},
    media, options,
    options::{Filter, delete_request, write_options},
    unknown,
};
use crate::{
    Patch, Sub, behavior,
    http::{Request, Response},
    registry::{Deleted, Target},
    server::Api,
};
use http::header::{CONTENT_TYPE, WARNING};
use mote_schema::{Kind, Status, protobuf::ListMeta};
use serde_json::{Value, json};
use std::sync::Arc;

/// Operations of one JSON patch at most, as upstream.
const MAX_PATCH_OPERATIONS: usize = 10_000;

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

fn target<'a>(request: &'a Request, kind: &'a Arc<Kind>, sub: Sub, what: &str) -> Result<Target<'a>, Status> {
    let info = &request.info;
    let options = write_options(&request.query, what)?;
    Ok(Target { options, ..Target::new(&request.user, kind, &info.namespace, &info.name, sub) })
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
fn check_kind(kind: &Kind, body: &Value) -> Result<(), Status> {
    let text = |field: &str| body[field].as_str().filter(|text| !text.is_empty());
    let expected = kind.api_version();
    let version = text("apiVersion").unwrap_or(&expected);
    if let Some(name) = text("kind").filter(|name| *name != kind.kind) {
        return Err(Status::bad_request(format!("no kind {name:?} is registered for version {version:?}")));
    }
    if version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    Ok(())
}

pub(crate) async fn create(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let mut target = target(&request, kind, Sub::Main, "CreateOptions")?;
    let (body, complaints) = media::parse(api, &request)?;
    check_kind(kind, &body)?;
    let object = api.create_decoded(&mut target, body, complaints).await?;
    Ok(warn(media::respond(201, &object, form)?, &target.warnings))
}

pub(crate) async fn update(api: &Api, kind: &Arc<Kind>, sub: Sub, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let mut target = target(&request, kind, sub, "UpdateOptions")?;
    let (body, complaints) = media::parse(api, &request)?;
    check_kind(kind, &body)?;
    let object = api.update_decoded(&mut target, body, complaints).await?;
    Ok(warn(media::respond(200, &object, form)?, &target.warnings))
}

fn parse_patch(request: &Request, kind: &Kind) -> Result<(Patch, Vec<String>), Status> {
    let media = request.header(CONTENT_TYPE).split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let wrap: fn(Value) -> Patch = match media.as_str() {
        "application/json-patch+json" => Patch::Json,
        "application/merge-patch+json" => Patch::Merge,
        "application/strategic-merge-patch+json" if !kind.is_custom() => Patch::Strategic,
        // Upstream's router knows what built-in kinds take; custom ones are asked themselves.
        _ if kind.is_custom() => {
            return Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
            ]));
        }
        _ => return Err(Status::unrouted(415, "UnsupportedMediaType", "415: Unsupported Media Type")),
    };
    let (value, complaints) = mote_schema::prune::parse_json(&request.body).map_err(Status::bad_request)?;
    if let Some(count) = value.as_array().map(Vec::len).filter(|count| *count > MAX_PATCH_OPERATIONS) {
        return Err(Status::new(
            413,
            "RequestEntityTooLarge",
            format!("The allowed maximum operations in a JSON patch is {MAX_PATCH_OPERATIONS}, got {count}"),
        ));
    }
    Ok((wrap(value), complaints))
}

pub(crate) async fn patch(api: &Api, kind: &Arc<Kind>, sub: Sub, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let mut target = target(&request, kind, sub, "PatchOptions")?;
    let (change, complaints) = parse_patch(&request, kind)?;
    let object = api.patch_decoded(&mut target, &change, complaints).await?;
    Ok(warn(media::respond(200, &object, form)?, &target.warnings))
}

pub(crate) async fn delete(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let (options, dry_run) = delete_request(api, &request)?;
    let mut target = target(&request, kind, Sub::Main, "DeleteOptions")?;
    target.options.dry_run = dry_run;
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
    let filter = Filter::parse(&request.query, kind, "")?;
    let (delete, dry_run) = delete_request(api, &request)?;
    let mut target = target(&request, kind, Sub::Main, "DeleteOptions")?;
    target.options.dry_run = dry_run;
    let deleted = api.delete_collection(&mut target, &delete, |object| filter.matches(object)).await?;
    let meta = ListMeta { revision: api.store.revision(), ..ListMeta::default() };
    let response = items::respond(List { kind: kind.clone(), items: Items::Read(deleted), meta }, form).await?;
    Ok(warn(response, &target.warnings))
}

/// scale: read, replaced or patched as the autoscaling/v1 Scale it is shown as.
pub(crate) async fn scale(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    if kind.scale.is_none() {
        return Err(unknown());
    }
    let mut target = target(&request, kind, Sub::Main, "UpdateOptions")?;
    let current = || api.get(kind, &request.info.namespace, &request.info.name);
    let scale = match request.info.verb.as_str() {
        "get" => behavior::read_scale(&current()?)?,
        "update" => {
            let (body, _) = media::parse(api, &request)?;
            behavior::write_scale(api, &mut target, body).await?
        }
        "patch" => {
            let mut scale = behavior::read_scale(&current()?)?;
            let before = scale["metadata"]["resourceVersion"].clone();
            match parse_patch(&request, kind)?.0 {
                Patch::Json(operations) => mote_schema::patch::json(&mut scale, &operations)?,
                Patch::Merge(change) | Patch::Strategic(change) => mote_schema::patch::merge(&mut scale, &change)?,
            }
            if scale["metadata"]["resourceVersion"] == before {
                scale["metadata"]["resourceVersion"] = Value::from("");
            }
            behavior::write_scale(api, &mut target, scale).await?
        }
        verb => return Err(Status::method_not_supported(&kind.group, &format!("{}/scale", kind.plural), verb)),
    };
    Ok(warn(media::document(api, 200, &scale, form)?, &target.warnings))
}

pub(crate) async fn create_sub(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    let mut target = target(&request, kind, Sub::Main, "CreateOptions")?;
    let (body, _) = media::parse(api, &request)?;
    options::check_dry_run(&body, &mut target.options);
    let answer = behavior::create_sub(api, &mut target, &request.info.subresource, body).await?;
    Ok(warn(media::document(api, 201, &answer, form)?, &target.warnings))
}
