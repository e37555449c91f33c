//! Discovery and OpenAPI: documents made from the catalog when they are asked for. They carry an ETag, so a client
//! that has one already (kubectl keeps them for hours) gets 304 and no bytes.
use crate::{
    aggregation, discovery,
    http::{
        Body, Request, Response,
        accept::{Indent, JSON, PROTOBUF, YAML, clauses, is_pretty, is_produced},
    },
    openapi,
    server::Api,
};
use http::Method;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, VARY};
use mote_schema::{Kind, Status};
use std::hash::{DefaultHasher, Hasher as _};

impl Api {
    pub(crate) fn document(&self, request: &Request) -> Response {
        let catalog = self.catalog();
        let accept = request.header(ACCEPT);
        let path = request.path.as_str();
        let found = discovery::document(&catalog, path, accept, request.header(HOST))
            .or_else(|| openapi::document(&catalog, path, &request.query, accept));
        let found = if self.aggregation.is_empty() { found } else { aggregation::merge(self, path, found) };
        let Some((media, bytes)) = found else {
            let mut parts = path.split('/').skip(1);
            let group = match (parts.next(), parts.next()) {
                (Some("api"), Some(_)) => Some(""),
                (Some("apis"), group) => group.filter(|group| !group.is_empty()),
                _ => None,
            };
            // Custom groups are answered by a handler of their own, which knows only what it serves.
            let is_served = |kind: &Kind| kind.custom.is_none() && group.is_some_and(|group| kind.group == group);
            return match path.strip_prefix("/openapi/") {
                _ if catalog.kinds.iter().any(|kind| is_served(kind)) => Status::no_such_path().into(),
                Some("v2" | "v3") => Response { status: 406, headers: Vec::new(), body: Body::Empty },
                Some(rest) if rest.starts_with("v3/") => {
                    Response { status: 404, headers: Vec::new(), body: Body::Empty }
                }
                _ => Response::text(404, "404 page not found\n"),
            };
        };
        let (media, bytes) = match shown(request, media, bytes) {
            Ok(shown) => shown,
            Err(status) => return Response::error(&status),
        };
        // The same bytes in another build give the same tag: the hasher is unkeyed.
        let mut hasher = DefaultHasher::new();
        hasher.write(media.as_bytes());
        hasher.write(&bytes);
        let tag = format!("\"{:016X}\"", hasher.finish());
        let known = request.header(IF_NONE_MATCH).split(',').any(|given| given.trim() == tag);
        let response = if known {
            Response { status: 304, headers: Vec::new(), body: Body::Empty }
        } else {
            Response { status: 200, headers: Vec::new(), body: Body::Full(bytes.into()) }.with(CONTENT_TYPE, media)
        };
        let response = response.with(ETAG, &tag).with(VARY, "Accept");
        // A place that names its content by hash holds the same for ever (upstream: kube-openapi's handler3).
        match path.starts_with("/openapi/v3/") && request.query.has("hash") {
            true => response.with(CACHE_CONTROL, "public, max-age=31536000, immutable"),
            false => response,
        }
    }
}

/// Discovery's documents are negotiated as objects are, but that protobuf, which upstream has for them too, is JSON here.
fn shown(request: &Request, media: &'static str, bytes: Vec<u8>) -> Result<(&'static str, Vec<u8>), Status> {
    if !matches!(request.path.split('/').nth(1), Some("api" | "apis")) {
        return Ok((media, bytes));
    }
    // The list of groups is the aggregator's, which does not ask.
    if !matches!(request.method, Method::GET | Method::HEAD) && request.path != "/apis" {
        let message = "the server does not allow this method on the requested resource";
        return Err(Status::unrouted(405, "MethodNotAllowed", message));
    }
    let accept = request.header(ACCEPT);
    if !is_produced(accept) {
        return Err(Status::unrouted(406, "NotAcceptable", "406: Not Acceptable"));
    }
    if !discovery::is_acceptable(&request.path, accept) {
        return Err(Status::not_acceptable(&[JSON, YAML, PROTOBUF]));
    }
    let first =
        clauses(accept).into_iter().find_map(|clause| [JSON, YAML].into_iter().find(|media| clause.takes(media)));
    if media == JSON && first == Some(YAML) {
        let value = serde_json::from_slice(&bytes).map_err(Status::internal)?;
        return Ok((YAML, mote_schema::prune::to_yaml(&value).map_err(Status::internal)?.into_bytes()));
    }
    if is_pretty(&request.headers, &request.query) {
        let mut out = Vec::new();
        Indent::default().write(&bytes, &mut out);
        return Ok((media, out));
    }
    Ok((media, bytes))
}
