//! Paths that are no resources and need nothing but this process: health, metrics, version, token issuer discovery.
use super::{
    accept::is_produced,
    front::Front,
    request::{Body, Request, Response},
};
use http::header;
use mote_schema::Status;
use mote_schema::json;

/// The Kubernetes release whose API is served.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
pub const KUBERNETES_VERSION: &str = "v1.36.0";
pub const GIT_VERSION: &str = concat!("v1.36.0+mote-", env!("CARGO_PKG_VERSION"));

/// None when the path belongs to the handler.
pub fn answer(front: &Front, request: &Request) -> Option<Response> {
    let path = request.path.as_str();
    let is_read = matches!(request.method, http::Method::GET | http::Method::HEAD);
    if let Some(answer) = front.health.answer(path, &request.query) {
        return Some(answer);
    }
    let response = match path.strip_suffix('/').unwrap_or(path) {
        "/metrics" => figures(front.metrics.text()),
        "/metrics/slis" => figures(front.health.indicators()),
        "/version" if !is_read => {
            let message = "the server does not allow this method on the requested resource";
            return Some(Status::unrouted(405, "MethodNotAllowed", message).into());
        }
        "/version" if !is_produced(request.header(header::ACCEPT)) => {
            return Some(Status::unrouted(406, "NotAcceptable", "406: Not Acceptable").into());
        }
        "/version" => Response::value(200, &version()),
        "/.well-known/openid-configuration" => {
            document("application/json", front.authenticator.discovery_document(request.header(header::HOST)))
        }
        "/openid/v1/jwks" => document("application/jwk-set+json", front.authenticator.key_set()),
        _ => return None,
    };
    Some(if is_read { response } else { method_not_allowed() })
}

fn figures(text: String) -> Response {
    Response::new(200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", Body::Full(text.into()))
}

fn document(content_type: &'static str, value: mote_schema::Value) -> Response {
    Response::new(200, content_type, Body::Full(value.to_string().into()))
        .with(header::CACHE_CONTROL, "public, max-age=3600")
}

fn method_not_allowed() -> Response {
    Response::text(405, "405 method not allowed\n")
}

/// `version.Info` of apimachinery.
pub fn version() -> mote_schema::Value {
    json!({
        "major": MAJOR,
        "minor": MINOR,
        "emulationMajor": MAJOR,
        "emulationMinor": MINOR,
        "minCompatibilityMajor": MAJOR,
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("MOTE_COMMIT").unwrap_or(""),
        "gitTreeState": "clean",
        "buildDate": option_env!("MOTE_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", go_arch()),
    })
}

/// Go's name of this architecture.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
