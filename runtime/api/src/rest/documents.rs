//! Discovery and OpenAPI: documents made from the catalog when they are asked for. They carry an ETag, so a client
//! that has one already (kubectl keeps them for hours) gets 304 and no bytes.
use crate::{
    aggregation, discovery,
    http::{Body, Request, Response},
    openapi,
    server::Api,
};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use std::hash::{DefaultHasher, Hasher as _};

impl Api {
    pub(crate) fn document(&self, request: &Request) -> Response {
        let catalog = self.catalog();
        let accept = request.header(ACCEPT);
        let path = request.path.as_str();
        let found = discovery::document(&catalog, path, accept)
            .or_else(|| openapi::document(&catalog, path, &request.query, accept));
        let found = if self.aggregation.is_empty() { found } else { aggregation::merge(self, path, found) };
        let Some((media, bytes)) = found else {
            return Response::text(404, "404 page not found\n");
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
