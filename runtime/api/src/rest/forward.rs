//! A request that goes on to another server, and its answer: which headers pass, what the next hop is told of the client,
//! and what becomes of an upgrade (apimachinery/pkg/util/proxy/upgradeaware.go, Go's httputil.ReverseProxy).
use crate::{
    http::{Body, Request, Response},
    outbound::{Endpoint, Kept},
    server::Api,
    stream,
};
use bytes::Bytes;
use futures_lite::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::{BodyStream, Full};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::sync::Arc;

/// What a path segment cannot hold as it is (RFC 3986).
const PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');
/// Not for the next hop (RFC 9110, 7.6.1), or the API server's own business.
const DROPPED: &[&str] = &[
    "authorization",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "host",
    // A page that arrives compressed could not be rewritten.
    "accept-encoding",
];

/// Where a request goes.
pub(crate) struct Forward<'a> {
    pub endpoint: &'a Endpoint,
    /// Of the Host header.
    pub host: &'a str,
    /// Decoded.
    pub path: &'a str,
    /// Instead of what the client said under these names.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Only the other server may say these.
    pub drops: fn(&HeaderName) -> bool,
}

pub(crate) enum Forwarded {
    /// The two connections are joined; the answer is 101.
    Upgraded(Response),
    Answered(Box<http::Response<Incoming>>, Kept),
}

pub(crate) fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// "?a=b" or "".
pub(crate) fn encode_query(request: &Request) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(request.query.iter());
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// Errors are what Go's transport says.
pub(crate) async fn forward(api: &Api, request: &mut Request, to: Forward<'_>) -> Result<Forwarded, String> {
    let upgrade = request.upgrade.take();
    let outgoing = outgoing(request, &to, upgrade.is_some())?;
    let (response, kept) = api.outbound.send(to.endpoint, outgoing).await?;
    let Some(client) = upgrade else { return Ok(Forwarded::Answered(Box::new(response), kept)) };
    match response.status().as_u16() {
        101 => {
            let headers = headers_back(response.headers(), true);
            let server = hyper::upgrade::on(response);
            crate::background::spawn(&api.executor, stream::join_upgraded(client, server));
            Ok(Forwarded::Upgraded(Response { status: 101, headers, body: Body::Empty }))
        }
        code if code < 400 => Err(format!("invalid upgrade response: status code {code}")),
        _ => Ok(Forwarded::Answered(Box::new(response), kept)),
    }
}

fn outgoing(request: &Request, to: &Forward<'_>, upgrades: bool) -> Result<http::Request<Full<Bytes>>, String> {
    let slash = if to.path.starts_with('/') { "" } else { "/" };
    let target = format!("{slash}{}{}", encode_path(to.path), encode_query(request));
    let mut outgoing = http::Request::builder().method(request.method.clone()).uri(target);
    if let Some(headers) = outgoing.headers_mut() {
        for (name, value) in &request.headers {
            let keeps = upgrades && (*name == header::UPGRADE || *name == header::CONNECTION);
            if !(to.drops)(name) && (keeps || !DROPPED.contains(&name.as_str())) {
                headers.append(name, value.clone());
            }
        }
        let mut set = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        set(header::HOST, to.host);
        set(HeaderName::from_static("x-forwarded-uri"), &encode_path(&request.path));
        if let Some(peer) = request.peer {
            let before = request.header("x-forwarded-for");
            let comma = if before.is_empty() { "" } else { ", " };
            set(HeaderName::from_static("x-forwarded-for"), &format!("{before}{comma}{}", peer.ip().to_canonical()));
        }
        for (name, value) in &to.headers {
            headers.append(name, value.clone());
        }
    }
    outgoing.body(Full::new(request.body.clone())).map_err(|error| error.to_string())
}

pub(crate) fn headers_back(headers: &HeaderMap, upgraded: bool) -> Vec<(HeaderName, HeaderValue)> {
    let keeps = |name: &HeaderName| {
        upgraded && (*name == header::UPGRADE || *name == header::CONNECTION) || !DROPPED.contains(&name.as_str())
    };
    headers.iter().filter(|(name, _)| keeps(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// `early` and then the rest, as it comes; the connection is given back behind it.
pub(crate) fn body(early: Vec<u8>, rest: Incoming, kept: Arc<Kept>) -> Body {
    let rest = BodyStream::new(rest).filter_map(move |frame| {
        let _kept = &kept;
        match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(std::io::Error::other(error))),
        }
    });
    let early = (!early.is_empty()).then(|| Ok(Bytes::from(early)));
    Body::Stream(Box::pin(futures_lite::stream::iter(early).chain(rest)))
}
