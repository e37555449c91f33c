//! Kinds that are asked, not stored: access and token reviews, and the old top-level Binding.
use super::{
    media,
    options::write_options,
    unknown,
    write::{posted, target, warn},
};
use crate::{
    Sub, auth, behavior,
    http::{Request, Response},
    registry::Target,
    server::Api,
};
use mote_schema::{Kind, Status, Value};
use std::sync::Arc;

pub(crate) async fn answer(api: &Arc<Api>, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let form = media::negotiate(&request, kind)?;
    if request.info.verb != "create" {
        return Err(Status::method_not_supported(&kind.group, &kind.plural, &request.info.verb));
    }
    if form.shape == media::Shape::Table {
        let text = format!("the resource {} does not support being converted to a Table", kind.resource());
        return Err(Status::new(406, "NotAcceptable", text));
    }
    let mut target = target(&request, kind, Sub::Main, write_options(&request.query, "CreateOptions")?);
    let body = posted(api, &mut target, kind, &request)?;
    let response = respond(api, &mut target, body).await.and_then(|answer| media::document(api, 201, &answer, form));
    Ok(warn(response.unwrap_or_else(|status| Response::error(&status)), &target.warnings))
}

async fn respond(api: &Arc<Api>, target: &mut Target<'_>, body: Value) -> Result<Value, Status> {
    let kind = target.kind;
    if kind.group.is_empty() && kind.plural == "bindings" {
        let name = body["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let catalog = api.catalog();
        let pods = catalog.by_resource("", "v1", "pods").ok_or_else(unknown)?;
        let mut pod = Target { name: &name, ..target.at(pods, Sub::Main) };
        return behavior::create_sub(api, &mut pod, "binding", body).await;
    }
    let mut answer = auth::reviews::answer(api, target.user, kind, target.namespace, body)?;
    answer["kind"] = kind.kind.to_string().into();
    answer["apiVersion"] = kind.api_version().into();
    Ok(answer)
}
