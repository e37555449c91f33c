//! The API server's own calls: to admission and conversion webhooks and to aggregated API servers. HTTP/1.1 over
//! verified TLS; a connection that ends in good order is kept for a while and used again. The texts of failures are
//! those of Go's client, since webhook authors look for them.
mod connect;
#[cfg(feature = "etcd")]
mod far;
mod pool;
mod resolve;
mod tls;
mod trust;

pub(crate) use connect::{Endpoint, Place, Tls, Trust};
#[cfg(feature = "etcd")]
pub use far::{Far, Files};
pub(crate) use pool::{Kept, Outbound};
pub(crate) use resolve::{resolve, slices_of};

use crate::{certs::Issued, server::Api};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::FutureExt;
use http::header;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use mote_schema::{Status, Value, status::go_quote};
use std::{fmt, sync::Arc, time::Duration};

/// Makes the client certificate that this server shows.
pub(crate) type Identity = Box<dyn Fn() -> Option<Arc<Issued>> + Send + Sync>;

/// Of an answer; a webhook's patch is smaller than an object, and a converted list is as large as a request may be.
pub(crate) const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Of a refusal's text that is shown (client-go's maxUnstructuredResponseTextBytes).
const MAX_SHOWN_BYTES: usize = 2048;

/// Why a call has no answer. `Display` is what upstream puts behind "failed to call webhook: ".
#[derive(Debug)]
pub enum Error {
    /// Nothing was tried: the configuration does not say where to.
    Config(String),
    /// `Post "https://...": dial tcp ...`
    Transport(String),
    /// An HTTP error.
    Refused(Box<Status>),
    /// An answer that is not what was asked for.
    Unreadable(String),
}

impl Error {
    /// For metrics: the answer's code, or 503 where there is none, as upstream counts it.
    pub fn code(&self) -> u16 {
        match self {
            Error::Refused(status) => status.code,
            Error::Config(_) => 500,
            Error::Transport(_) | Error::Unreadable(_) => 503,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(text) | Error::Transport(text) | Error::Unreadable(text) => f.write_str(text),
            Error::Refused(status) => f.write_str(&status.message),
        }
    }
}

/// Where a clientConfig leads.
struct Target {
    endpoint: Result<Endpoint, String>,
    /// "https://name.namespace.svc:443"
    origin: String,
    path: String,
}

/// POSTs `body` to a webhook and reads the JSON it answers. `config` is the `clientConfig` of an admission
/// registration or of a CustomResourceDefinition's conversion. `timeout` is for everything, and is told to the webhook.
pub async fn post_json(api: &Api, config: &Value, timeout: Duration, body: &Value) -> Result<Value, Error> {
    let bytes = serde_json::to_vec(body).map_err(|error| Error::Config(error.to_string()))?;
    post_bytes(api, config, timeout, bytes).await
}

/// `post_json` of what is JSON already.
pub async fn post_bytes(api: &Api, config: &Value, timeout: Duration, body: Vec<u8>) -> Result<Value, Error> {
    let target = target(api, config)?;
    // Told in whole seconds, rounded up (admission/plugin/webhook/mutating/dispatcher.go).
    let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
    let query = format!("{}?timeout={}", target.path, go_seconds(seconds));
    let failed =
        |why: String| Error::Transport(format!("Post {}: {why}", go_quote(&format!("{}{query}", target.origin))));
    let endpoint = target.endpoint.map_err(&failed)?;
    let request = http::Request::post(query.as_str())
        .header(header::HOST, target.origin.trim_start_matches("https://"))
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Error::Config(error.to_string()))?;
    let exchange = async {
        let (response, kept) = api.outbound.send(&endpoint, request).await.map_err(&failed)?;
        let (head, body) = response.into_parts();
        let bytes = read(body, MAX_ANSWER_BYTES).await.map_err(|why| {
            Error::Unreadable(format!(
                "unexpected error when reading response body. Please retry. Original error: {why}"
            ))
        })?;
        drop(kept);
        understand(&head, &bytes)
    };
    let late = async {
        Timer::after(timeout).await;
        Err(failed("context deadline exceeded".into()))
    };
    exchange.or(late).await
}

/// Go's Duration text of whole seconds: "10s", "1m30s".
fn go_seconds(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

fn target(api: &Api, config: &Value) -> Result<Target, Error> {
    // On the wire the bundle is base64 of PEM.
    let trust = match config["caBundle"].as_str().filter(|text| !text.is_empty()) {
        Some(text) => Trust::bundle(text).map_err(Error::Config)?,
        None => Trust::System,
    };
    let tls = |name: &str| Some(Tls { server_name: name.to_owned(), trust: trust.clone(), identity: None });
    if let Some(service) = config.get("service").filter(|service| service.is_object()) {
        let text = |field: &str| service[field].as_str().unwrap_or("");
        let (namespace, name) = (text("namespace"), text("name"));
        let port = service["port"].as_i64().filter(|port| *port != 0).unwrap_or(443);
        let port = u16::try_from(port).map_err(|_| Error::Config(format!("invalid port {port}")))?;
        let host = format!("{name}.{namespace}.svc");
        return Ok(Target {
            endpoint: resolve(api, namespace, name, port).map(|place| Endpoint { place, tls: tls(&host) }),
            origin: format!("https://{host}:{port}"),
            path: clean(text("path")),
        });
    }
    let url = config["url"].as_str().filter(|url| !url.is_empty());
    let url = url.ok_or_else(|| Error::Config("webhook configuration must have either service or URL".into()))?;
    let parsed: http::Uri = url.parse().map_err(|error| Error::Config(format!("Unparsable URL: {error}")))?;
    let authority = parsed.authority().filter(|_| parsed.scheme_str() == Some("https"));
    let authority = authority.ok_or_else(|| Error::Config(format!("Unparsable URL: {url}")))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    Ok(Target {
        endpoint: Ok(Endpoint { place: Place::of(host, authority.port_u16().unwrap_or(443)), tls: tls(host) }),
        origin: format!("https://{authority}"),
        path: clean(parsed.path()),
    })
}

/// As Go's path.Join does, but for "..": one slash between segments and none at the end.
fn clean(path: &str) -> String {
    let mut cleaned = String::with_capacity(path.len() + 1);
    for segment in path.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
        cleaned.push('/');
        cleaned.push_str(segment);
    }
    if cleaned.is_empty() { "/".into() } else { cleaned }
}

/// The whole body, if it is not larger than `limit`.
pub(crate) async fn read(mut body: Incoming, limit: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match connect::explain(&error) {
            why if why == "EOF" => "unexpected EOF".to_owned(),
            why => why,
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(format!("the answer is larger than {limit} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// What client-go's Result.Into makes of an answer.
fn understand(head: &http::response::Parts, bytes: &[u8]) -> Result<Value, Error> {
    let code = head.status.as_u16();
    let parsed = || mote_schema::prune::parse_json(bytes).map(|(value, _)| value);
    if !(200..=206).contains(&code) {
        let is_failure = |value: &Value| value["kind"] == "Status" && value["status"] != "Success";
        if let Some(value) = parsed().ok().filter(is_failure) {
            let message = value["message"].as_str().unwrap_or("").to_owned();
            return Err(Error::Refused(Box::new(Status::new(code, "", message))));
        }
        return Err(Error::Refused(Box::new(refusal(head, bytes))));
    }
    let media = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if bytes.is_empty() {
        let media = media.unwrap_or("application/json");
        return Err(Error::Unreadable(format!("0-length response with status code: {code} and content type: {media}")));
    }
    let unreadable = |why: String| Error::Unreadable(format!("couldn't get version/kind; json parse error: {why}"));
    let value = parsed().map_err(unreadable)?;
    let found = match &value {
        Value::Object(_) => return Ok(value),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    };
    // The type that upstream's decoder looks at first.
    let wanted =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    Err(unreadable(format!("json: cannot unmarshal {found} into Go value of type {wanted}")))
}

/// An HTTP error without a Status in it (apimachinery/pkg/api/errors NewGenericServerResponse).
fn refusal(head: &http::response::Parts, bytes: &[u8]) -> Status {
    let code = head.status.as_u16();
    let media = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let shown = bytes.get(..MAX_SHOWN_BYTES).unwrap_or(bytes);
    let said = match media.is_none_or(|media| media.starts_with("text/")) {
        true => String::from_utf8_lossy(shown).trim().to_owned(),
        false => "unknown".to_owned(),
    };
    let (reason, message) = match code {
        409 => ("AlreadyExists", "the server reported a conflict"),
        404 => ("NotFound", "the server could not find the requested resource"),
        400 => ("BadRequest", "the server rejected our request for an unknown reason"),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials"),
        403 => ("Forbidden", said.as_str()),
        406 if said.is_empty() || said == "unknown" => {
            ("NotAcceptable", "the server was unable to respond with a content type that the client supports")
        }
        406 => ("NotAcceptable", said.as_str()),
        415 => ("UnsupportedMediaType", said.as_str()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource"),
        422 => ("Invalid", "the server rejected our request due to an error in our request"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        500.. => {
            let said = go_quote(&said);
            let message = format!("an error on the server ({said}) has prevented the request from succeeding");
            return Status::new(code, "InternalError", message);
        }
        _ => {
            let message =
                format!("the server responded with the status code {code} but did not return more information");
            return Status::new(code, "", message);
        }
    };
    Status::new(code, reason, message)
}
