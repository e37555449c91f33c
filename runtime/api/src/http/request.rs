//! What passes between the HTTP front and the router behind it: an authenticated request, and a response that is
//! whole or a stream. No sockets here, so a handler is tested by calling it.
//!
//! SEAM: the front in `http` makes `Request`s; `rest` answers them.
use crate::driver::BoxFuture;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use mote_schema::Status;
use std::{collections::BTreeMap, io, net::SocketAddr, pin::Pin, sync::Arc};

pub type BoxStream<T> = Pin<Box<dyn futures_lite::Stream<Item = T> + Send>>;

/// One authenticated request; the body is read whole (bounded) unless the request is an upgrade.
pub struct Request {
    pub method: http::Method,
    /// Percent-decoded.
    pub path: String,
    pub query: Query,
    pub headers: http::HeaderMap,
    pub body: Bytes,
    pub user: Arc<User>,
    pub info: RequestInfo,
    pub peer: Option<SocketAddr>,
    /// Present when an HTTP/1.1 client asks for another protocol; resolves after the response with status 101 is sent.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
}

impl Request {
    /// A header's text; "" when absent or not text.
    pub fn header(&self, name: impl header::AsHeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn new(name: &str, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|g| (*g).into()).collect(), ..User::default() }
    }
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// What a request is about, as upstream's RequestInfo (apiserver/pkg/endpoints/request/requestinfo.go).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// False: only `path` and `verb` (the lower-case method) mean something.
    pub is_resource: bool,
    pub path: String,
    /// get, list, watch, create, update, patch, delete, deletecollection, proxy; "" for a method with no verb.
    pub verb: String,
    /// "api" or "apis"
    pub prefix: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// Of a list, watch or deletecollection, as it came.
    pub field_selector: String,
    /// What follows the subresource, without a leading slash (`pods/x/proxy/a/b`: "a/b").
    pub rest: String,
}

/// Decoded query pairs in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(raw: &str) -> Query {
        let pairs = raw.split('&').filter(|pair| is_pair(pair));
        Query(pairs.flat_map(|pair| form_urlencoded::parse(pair.as_bytes()).into_owned()).collect())
    }
    /// The first value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
    /// As upstream converts a query value: absent, "0" and "false" are false, anything else (also "") is true.
    pub fn bool(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// What Go's net/url takes of a query; it leaves out the rest without a word.
fn is_pair(pair: &str) -> bool {
    let is_escape =
        |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    !pair.contains(';') && pair.split('%').skip(1).all(is_escape)
}

pub enum Body {
    Empty,
    Full(Bytes),
    /// An answer of known end that is made while it is sent: lists.
    Chunks(Box<dyn Iterator<Item = Bytes> + Send>),
    /// One chunk per item, sent at once: watches, logs. An error cuts the connection.
    Stream(BoxStream<io::Result<Bytes>>),
    /// A refusal; the front writes it in the encoding that the client asked for.
    Status(Box<Status>),
}

pub struct Response {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Body,
}

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: Body) -> Response {
        Response { status, headers: vec![(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], body }
    }
    pub fn empty(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Body::Full(Bytes::new()) }
    }
    /// JSON text that is already written.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Response {
        Response::new(status, "application/json", Body::Full(body.into()))
    }
    pub fn value(status: u16, value: &mote_schema::Value) -> Response {
        Response::json(status, value.to_string())
    }
    /// As Go's `http.Error` and plain documents are sent.
    pub fn text(status: u16, text: impl Into<Bytes>) -> Response {
        Response::new(status, "text/plain; charset=utf-8", Body::Full(text.into()))
            .with(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }
    pub fn stream(status: u16, content_type: &'static str, stream: BoxStream<io::Result<Bytes>>) -> Response {
        Response::new(status, content_type, Body::Stream(stream))
    }
    /// A refusal, in whatever encoding the client takes.
    pub fn error(status: &Status) -> Response {
        crate::audit::failed(status);
        let body = Body::Status(Box::new(status.clone()));
        let response = Response { status: status.code, headers: Vec::new(), body };
        match status.retry_after_seconds {
            Some(seconds) => response.with(header::RETRY_AFTER, &seconds.to_string()),
            None => response,
        }
    }
    /// Adds a header; a value that no header can hold is left out.
    pub fn with(mut self, name: HeaderName, value: &str) -> Response {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Response {
        Response::error(&status)
    }
}

pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response>;
}
