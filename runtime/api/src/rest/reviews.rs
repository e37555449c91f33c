//! Kinds that are asked, not stored: access and token reviews, and the old top-level Binding.
use super::{media, unknown, write::check_kind};
use crate::{
    Sub, auth, behavior,
    http::{Request, Response},
    registry::Target,
    server::Api,
};
use mote_schema::{Kind, Status};
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
    let (mut body, complaints) = media::parse(api, &request, &kind.kind)?;
    check_kind(api, kind, &body, &request.body)?;
    let mut target = Target::new(&request.user, kind, &request.info.namespace, "", Sub::Main);
    let namespace = target.namespace;
    if kind.group.is_empty() && kind.plural == "bindings" {
        let name = body["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let catalog = api.catalog();
        let pods = catalog.by_resource("", "v1", "pods").ok_or_else(unknown)?;
        let mut pod = Target::new(&request.user, pods, namespace, &name, Sub::Main);
        return media::document(api, 201, &behavior::create_sub(api, &mut pod, "binding", body).await?, form);
    }
    if let Some(metadata) = body["metadata"].as_object_mut() {
        let given = metadata.get("namespace").and_then(|name| name.as_str()).unwrap_or("").to_owned();
        if kind.namespaced && !given.is_empty() && given != namespace {
            let text = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Status::bad_request(text));
        }
        // One of no namespace has lost what it says.
        if !kind.namespaced {
            metadata.remove("namespace");
        }
    }
    if kind.namespaced {
        body["metadata"]["namespace"] = namespace.into();
    }
    target.decode(&mut body, complaints)?;
    let mut answer = auth::reviews::answer(api, &request.user, kind, namespace, body)?;
    answer["kind"] = kind.kind.to_string().into();
    answer["apiVersion"] = kind.api_version().into();
    media::document(api, 201, &answer, form)
}
