//! The REST surface: one router for every kind. It decides which of read, watch, write or subresource
//! answers a request that the front has authenticated and authorized; the rest is the registry's.
mod components;
mod connect;
mod documents;
pub(crate) mod forward;
mod frames;
mod items;
pub(crate) mod kubelet;
mod lengths;
mod links;
pub(crate) mod list;
mod media;
mod nodes;
mod options;
mod pods;
mod proxy;
mod reviews;
mod watch;
mod write;

pub(crate) use frames::Shared;
pub(crate) use lengths::Lengths;
pub(crate) use nodes::Door as KubeletDoor;
pub(crate) use options::{check_dry_run, precondition};
pub(crate) use write::unregistered;

use crate::{
    driver::BoxFuture,
    http::{Handler, Request, Response},
    server::Api,
};
use mote_schema::{Kind, Status};
use std::sync::Arc;

pub struct Rest {
    api: Arc<Api>,
}

impl Rest {
    pub fn new(api: Arc<Api>) -> Rest {
        Rest { api }
    }

    async fn answer(&self, mut request: Request) -> Result<Response, Status> {
        if let Some(response) = crate::aggregation::answer(&self.api, &mut request).await {
            return Ok(response);
        }
        if !request.info.is_resource {
            return Ok(self.api.document(&request));
        }
        if !takes_any(&request) {
            self.api.catch_up().await;
        }
        let info = &request.info;
        let catalog = self.api.catalog();
        let Some(kind) = catalog.by_resource(&info.group, &info.version, &info.resource).cloned() else {
            // Custom groups are answered by a handler that knows only what it serves.
            let is_served = catalog.kinds.iter().any(|kind| kind.group == info.group && !kind.is_custom());
            return if is_served { Err(unknown()) } else { Ok(Response::text(404, "404 page not found\n")) };
        };
        if kind.is_custom() && kind.namespaced && info.namespace.is_empty() && !info.name.is_empty() {
            return Ok(Response::text(404, "404 page not found\n"));
        }
        route(&kind, &request)?;
        if kind.virtual_kind {
            return reviews::answer(&self.api, &kind, request).await;
        }
        let warning = match &kind.custom {
            Some(custom) => custom.warning.clone(),
            None => crate::behavior::deprecation(&kind).map(Into::into),
        };
        let response = self.resource(kind, request).await;
        match warning {
            None => response,
            Some(warning) => {
                let response = response.unwrap_or_else(|status| Response::error(&status));
                Ok(write::warn(response, &[warning.into()]))
            }
        }
    }

    async fn resource(&self, kind: Arc<Kind>, request: Request) -> Result<Response, Status> {
        let info = &request.info;
        if components::is_theirs(&kind) {
            return components::answer(&self.api, &kind, &request).await;
        }
        match info.subresource.as_str() {
            "" | "status" | "finalize" | "approval" | "ephemeralcontainers" | "resize" => {
                self.plain(kind, request).await
            }
            "scale" if kind.is_custom() && kind.scale.is_none() => Err(no_subresource(&kind, &request)),
            "scale" => write::scale(&self.api, &kind, request).await,
            "log" | "exec" | "attach" | "portforward" if is_pods(&kind) => {
                pods::answer(&self.api, &kind, request).await
            }
            "proxy" if is_pods(&kind) || is_services(&kind) => proxy::answer(&self.api, &kind, request).await,
            "proxy" if kind.group.is_empty() && kind.plural == "nodes" => {
                nodes::answer(&self.api, &kind, request).await
            }
            "binding" | "eviction" | "token" if info.verb == "create" => {
                write::create_sub(&self.api, &kind, request).await
            }
            _ if kind.is_custom() => Err(no_subresource(&kind, &request)),
            _ => Err(unknown()),
        }
    }

    async fn plain(&self, kind: Arc<Kind>, request: Request) -> Result<Response, Status> {
        let sub = match write::sub_of(&kind, &request.info.subresource) {
            Err(_) if kind.is_custom() => return Err(no_subresource(&kind, &request)),
            sub => sub?,
        };
        let main = sub == crate::Sub::Main;
        let named = !request.info.name.is_empty();
        let unsupported = |verb: &str| Status::method_not_supported(&kind.group, &kind.plural, verb);
        match request.info.verb.as_str() {
            "get" => list::get(&self.api, &kind, &request).await,
            "list" if main => list::list(&self.api, &kind, &request).await,
            "watch" if main => watch::watch(&self.api, &kind, request),
            "update" | "patch" if !named => Err(unsupported("update")),
            "create" if named => Err(unsupported("create")),
            "create" if main => write::create(&self.api, &kind, request).await,
            "update" => write::update(&self.api, &kind, sub, request).await,
            "patch" => write::patch(&self.api, &kind, sub, request).await,
            "delete" if main => write::delete(&self.api, &kind, request).await,
            "deletecollection" if main => write::delete_collection(&self.api, &kind, request).await,
            verb => Err(unsupported(verb)),
        }
    }
}

/// The handler of custom kinds misses the object where there is no such part of it.
fn no_subresource(kind: &Kind, request: &Request) -> Status {
    Status::not_found(&kind.group, &kind.plural, &request.info.name)
}

fn is_pods(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

fn is_services(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "services"
}

pub(crate) fn unknown() -> Status {
    Status::no_such_path()
}

/// A list or a watch from revision 0 is content with what memory has; all others are to see what was written before they came,
/// wherever that was.
fn takes_any(request: &Request) -> bool {
    matches!(request.info.verb.as_str(), "list" | "watch") && request.query.get("resourceVersion") == Some("0")
}

/// Whether upstream has a route there. For custom kinds the handler itself says so.
fn route(kind: &Kind, request: &Request) -> Result<(), Status> {
    let info = &request.info;
    let no_method = |found: bool| {
        let message = "the server does not allow this method on the requested resource";
        if found { Ok(()) } else { Err(Status::unrouted(405, "MethodNotAllowed", message)) }
    };
    let cluster_path = info.namespace.is_empty() || kind.plural == "namespaces" && kind.group.is_empty();
    if !kind.namespaced && !cluster_path {
        return Err(unknown());
    }
    let verb = info.verb.as_str();
    let all_namespaces = kind.namespaced && info.namespace.is_empty();
    if kind.virtual_kind && !info.name.is_empty() {
        return Err(unknown());
    }
    if kind.custom.is_some() {
        let refused = all_namespaces && !matches!(verb, "list" | "watch");
        return if refused { Err(Status::method_not_supported(&kind.group, &kind.plural, verb)) } else { Ok(()) };
    }
    let verbs = match info.subresource.as_str() {
        "" => &kind.verbs,
        // Whatever the method, it goes on to the one behind.
        "proxy" if kind.subresource("proxy").is_some() => return Ok(()),
        name => &kind.subresource(name).ok_or_else(unknown)?.verbs,
    };
    let has = |verb: &str| verbs.iter().any(|known| known == verb);
    if all_namespaces && !has("list") {
        return Err(unknown());
    }
    let is_method = matches!(request.method.as_str(), "GET" | "POST" | "PUT" | "PATCH" | "DELETE");
    let is_place = match verb {
        "list" | "watch" => true,
        _ if all_namespaces => false,
        "create" => info.name.is_empty() || !info.subresource.is_empty(),
        "update" | "patch" => !info.name.is_empty(),
        _ => true,
    };
    // The list's own route, which says it in its own words.
    let is_list = verb == "watch" && components::is_theirs(kind);
    no_method((has(verb) || is_list) && is_method && is_place)
}

impl Handler for Rest {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move { self.answer(request).await.unwrap_or_else(|status| Response::error(&status)) })
    }
}
