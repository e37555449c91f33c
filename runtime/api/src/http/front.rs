//! One request from the wire to its handler and back: who asks (authentication, impersonation), may it be taken
//! (in-flight limits, deadline), may they (authorization), read the body, hand over, count. The order is upstream's
//! handler chain (apiserver/pkg/server/config.go). Every refusal is the Status or text kube-apiserver gives.
use super::{
    body::{Outgoing, accepts_gzip, compress},
    info, paths,
    request::{Handler, Query, Request, Response, User},
    server::{Connection, Shared},
};
use crate::{
    auth::{self, Authenticator},
    health::Health,
    metrics::{self, Metrics},
    rbac::{Attributes, Authorizer},
};
use async_io::Timer;
use async_lock::Semaphore;
use bytes::{Bytes, BytesMut};
use futures_lite::FutureExt;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use mote_schema::Status;
use percent_encoding::percent_decode_str;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Upstream's limit of a request body.
pub const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// Bodies above this wait for one of `LARGE_BODIES` places, so that many large writes at once do not add up in memory.
const LARGE_BODY_BYTES: usize = 128 * 1024;
const LARGE_BODIES: usize = 8;
/// Longer request targets are refused before they are decoded.
const MAX_TARGET_BYTES: usize = 16 * 1024;
/// What is read and dropped of a body nobody wants, so that the client comes to read the answer: a socket closed with
/// unread bytes is reset, and the answer lost.
const MAX_DROPPED_BYTES: usize = 16 * 1024 * 1024;
const DROP_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server does with a request; shared by all connections.
pub struct Front {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub handler: Arc<dyn Handler>,
    reading: Arc<AtomicUsize>,
    mutating: Arc<AtomicUsize>,
    large_bodies: Semaphore,
}

impl Front {
    pub fn new(
        authenticator: Arc<Authenticator>,
        authorizer: Arc<Authorizer>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        handler: Arc<dyn Handler>,
    ) -> Front {
        Front {
            authenticator,
            authorizer,
            health,
            metrics,
            handler,
            reading: Arc::default(),
            mutating: Arc::default(),
            large_bodies: Semaphore::new(LARGE_BODIES),
        }
    }
}

/// A place among the requests in flight.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// None when `limit` are running; members of system:masters always get in, as upstream.
    fn take(running: &Arc<AtomicUsize>, limit: usize, user: &User) -> Option<InFlight> {
        let before = running.fetch_add(1, Ordering::AcqRel);
        let place = InFlight(running.clone());
        (before < limit || user.in_group(auth::MASTERS)).then_some(place)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) async fn answer(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    incoming: hyper::Request<Incoming>,
) -> Result<hyper::Response<Outgoing>, Infallible> {
    let busy = connection.busy();
    let started = Instant::now();
    let gzip = shared.config.gzip
        && !connection.peer.ip().to_canonical().is_loopback()
        && accepts_gzip(text(incoming.headers(), header::ACCEPT_ENCODING));
    let mut label = metrics::Request::default();
    let mut place = None;
    let (head, body) = incoming.into_parts();
    let waits = head.headers.contains_key(header::EXPECT);
    let mut body = Some(body);
    let response = take(&shared, &connection, head, &mut body, &mut label, &mut place).await;
    if let Some(body) = body.filter(|body| !waits && !body.is_end_stream()) {
        drain(body).await;
    }
    let response = if gzip { compress(response).await } else { response };
    label.code = response.status;
    label.seconds = started.elapsed().as_secs_f64();
    shared.front.metrics.request(&label);
    if label.anonymous && connection.is_http2 {
        // HTTP/2 lets one connection ask for too much work: not for strangers (upstream: UnauthenticatedHTTP2DOSMitigation).
        connection.close_after_this();
    }
    let mut wire = hyper::Response::new(Outgoing::new(response.body, &shared.stop, (busy, place)));
    *wire.status_mut() = http::StatusCode::from_u16(response.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = wire.headers_mut();
    for (name, value) in response.headers {
        headers.append(name, value);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    Ok(wire)
}

/// Everything up to the answer. Errors leave early as the response they are.
async fn take(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut parts: http::request::Parts,
    body: &mut Option<Incoming>,
    label: &mut metrics::Request,
    place: &mut Option<InFlight>,
) -> Response {
    // What upgrades has no body of its own; its bytes are the tunnel's.
    let upgrade = wants_upgrade(&parts).then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>()).flatten();
    if upgrade.is_some() {
        *body = None;
    }
    if parts.uri.path().len() + parts.uri.query().map_or(0, str::len) > MAX_TARGET_BYTES {
        return Response::text(414, "URI Too Long");
    }
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    let info = match info::parse(&parts.method, &path, &query) {
        Ok(info) => info,
        Err(error) => {
            let url = parts.uri.to_string();
            return Response::text(
                500,
                format!("Internal Server Error: {url:?}: failed to create RequestInfo: {error}\n"),
            );
        }
    };
    label.of(&info);
    let (method, mut headers) = (parts.method, parts.headers);
    // HTTP/2 has it in the target.
    if let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        headers.entry(header::HOST).or_insert(host);
    }
    let user = match shared.front.authenticator.authenticate(connection.user.as_ref(), &mut headers) {
        Ok(user) => user,
        Err(error) => {
            tracing::debug!(peer = %connection.peer, error, "unable to authenticate the request");
            label.anonymous = true;
            return Status::unauthorized().into();
        }
    };
    label.anonymous = user.name == auth::ANONYMOUS;
    let long_running = info.is_long_running() || upgrade.is_some();
    let timeout = match deadline(&query, long_running, shared.config.request_timeout) {
        Ok(timeout) => timeout,
        Err(status) => return status.into(),
    };
    let authorizer = &shared.front.authorizer;
    let user = match auth::impersonate::apply(user, &mut headers, authorizer) {
        Ok(user) => user,
        Err(status) => return status.into(),
    };
    if !long_running {
        let (running, limit) = if info.is_mutating() {
            (&shared.front.mutating, shared.config.max_mutating_requests_inflight)
        } else {
            (&shared.front.reading, shared.config.max_requests_inflight)
        };
        *place = InFlight::take(running, limit, &user);
        shared
            .front
            .metrics
            .inflight(shared.front.mutating.load(Ordering::Relaxed), shared.front.reading.load(Ordering::Relaxed));
        if place.is_none() {
            return Response::text(429, "Too many requests, please try again later.\n").with(header::RETRY_AFTER, "1");
        }
    }
    if let Err(status) = authorizer.authorize(&user, &Attributes::from(&info)) {
        return status.into();
    }
    let peer = Some(connection.peer);
    let work = async {
        let body = match read(shared, body).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        let request = Request { method, path, query, headers, body, user, info, peer, upgrade };
        match paths::answer(&shared.front, &request) {
            Some(response) => response,
            None => shared.front.handler.handle(request).await,
        }
    };
    match timeout {
        None => work.await,
        Some(timeout) => {
            let late = async {
                Timer::after(timeout).await;
                Status::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout").into()
            };
            work.or(late).await
        }
    }
}

/// `?timeout=` shortens the server's own limit; long-running requests have none.
fn deadline(query: &Query, long_running: bool, limit: Duration) -> Result<Option<Duration>, Status> {
    if long_running {
        return Ok(None);
    }
    let asked = query.get("timeout").filter(|text| !text.is_empty()).map(info::parse_duration).transpose();
    let asked = asked
        .map_err(|error| Status::bad_request(format!("invalid timeout specified in the request URL - {error}")))?;
    Ok(Some(asked.filter(|t| !t.is_zero()).map_or(limit, |t| t.min(limit))))
}

fn wants_upgrade(request: &http::request::Parts) -> bool {
    request.version < http::Version::HTTP_2
        && request.headers.contains_key(header::UPGRADE)
        && text(&request.headers, header::CONNECTION).to_ascii_lowercase().contains("upgrade")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

async fn drain(mut body: Incoming) {
    let mut dropped = 0;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            dropped += frame.data_ref().map_or(0, Bytes::len);
            if dropped > MAX_DROPPED_BYTES {
                break;
            }
        }
    };
    let late = async {
        Timer::after(DROP_TIMEOUT).await;
    };
    all.or(late).await;
}

/// The whole body, at most `MAX_BODY_BYTES`; one that is too large is left where it is.
async fn read(shared: &Shared, place: &mut Option<Incoming>) -> Result<Bytes, Response> {
    let Some(body) = place.as_mut() else { return Ok(Bytes::new()) };
    let too_large = || {
        let message = format!("Request entity too large: limit is {MAX_BODY_BYTES}");
        Response::from(Status::new(413, "RequestEntityTooLarge", message))
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_BODY_BYTES {
        return Err(too_large());
    }
    let mut large = None;
    if announced > LARGE_BODY_BYTES {
        large = Some(shared.front.large_bodies.acquire().await);
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Response::from(Status::bad_request(format!("the request body could not be read: {error}")))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.is_empty() {
            // Most bodies are one frame and are not copied.
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(announced.max(first.len() + data.len()));
            whole.extend_from_slice(&first);
        }
        if whole.len() + data.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
        if whole.len() > LARGE_BODY_BYTES && large.is_none() {
            large = Some(shared.front.large_bodies.acquire().await);
        }
    }
    *place = None;
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}
