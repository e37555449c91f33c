//! One request from the wire to its handler and back: who asks (authentication), is it written down (audit), in whose
//! name (impersonation), may it be taken (limits, deadline), may they (authorization), read the body, hand over, count.
//! The order is upstream's handler chain (apiserver/pkg/server/config.go). Every refusal is the Status or text kube-apiserver gives.
use super::{
    accept,
    body::{Outgoing, accepts_gzip, compress},
    flow::{Class, Flow, Refused, Ticket},
    info, kubelet, paths,
    request::{Body, Handler, Query, Request, RequestInfo, Response, User},
    server::{Connection, Shared},
};
use crate::{
    audit::{self, Auditor, Completes, Facts, Record},
    auth::{self, Authenticator, front_proxy::Peer},
    deadline::Deadline,
    health::Health,
    metrics::{self, Metrics},
    rbac::{Attributes, Authorizer, forbidden},
    registry::new_uid,
};
use async_lock::Semaphore;
use bytes::{Bytes, BytesMut};
use futures_lite::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use mote_schema::Status;
use percent_encoding::percent_decode_str;
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
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
/// Longer request targets are refused before they are decoded; a command to run in a container is part of one.
const MAX_TARGET_BYTES: usize = 60 * 1024;
/// What is read and dropped of a body nobody wants, so that the client comes to read the answer: a socket closed with
/// unread bytes is reset, and the answer lost.
const MAX_DROPPED_BYTES: usize = 16 * 1024 * 1024;
const DROP_TIMEOUT: Duration = Duration::from_secs(2);
/// Names a request in the audit log and in its answer; a client may choose it.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// How a request was classified.
const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const MAX_AUDIT_ID_BYTES: usize = 64;

/// What the server does with a request; shared by all connections.
pub struct Front {
    pub authenticator: Arc<Authenticator>,
    pub authorizer: Arc<Authorizer>,
    pub health: Arc<Health>,
    pub metrics: Arc<Metrics>,
    pub handler: Arc<dyn Handler>,
    /// With the mandatory levels alone, until it is told of others.
    pub flow: Arc<Flow>,
    /// PEM of the authority whose clients may name users by headers; none is believed without it.
    pub(crate) front_proxy_authority: Box<dyn Fn() -> String + Send + Sync>,
    /// None: nothing is written.
    pub(crate) auditor: Option<Arc<Auditor>>,
    reading: Arc<AtomicUsize>,
    watching: Arc<AtomicUsize>,
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
            flow: Arc::new(Flow::new(Default::default)),
            front_proxy_authority: Box::new(String::new),
            auditor: None,
            reading: Arc::default(),
            watching: Arc::default(),
            mutating: Arc::default(),
            large_bodies: Semaphore::new(LARGE_BODIES),
        }
    }
}

/// Counted among the requests in flight until it is answered.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn count(running: &Arc<AtomicUsize>) -> InFlight {
        running.fetch_add(1, Ordering::AcqRel);
        InFlight(running.clone())
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
    connection.room().await;
    let started = Instant::now();
    let gzip = shared.config.gzip
        && !connection.peer.ip().to_canonical().is_loopback()
        && accepts_gzip(text(incoming.headers(), header::ACCEPT_ENCODING));
    let mut seen = Seen::default();
    let (head, body) = incoming.into_parts();
    let accept = text(&head.headers, header::ACCEPT).to_owned();
    let pretty = accept::is_pretty(&head.headers, &Query::parse(head.uri.query().unwrap_or("")));
    let is_head = head.method == http::Method::HEAD;
    let waits = head.headers.contains_key(header::EXPECT);
    seen.audit_id = match head.headers.get(AUDIT_ID) {
        Some(id) if !id.is_empty() && id.len() <= MAX_AUDIT_ID_BYTES => id.clone(),
        _ => HeaderValue::try_from(new_uid()).unwrap_or(HeaderValue::from_static("")),
    };
    let mut body = Some(body);
    let response = take(&shared, &connection, head, &mut body, &mut seen).await;
    let Seen { mut label, place, seat, class, record, audit_id } = seen;
    // What a watch sends after its answer began, what a slow client still reads, and a body nobody wants, take no seat.
    drop(seat);
    if let Some(body) = body.filter(|body| !waits && !body.is_end_stream()) {
        drain(body).await;
    }
    let mut response = accept::settle(response, &accept, pretty);
    let completes = record.and_then(|record| audited(record, &response, label.long_running));
    if matches!(&response.body, Body::Full(bytes) if !connection.has_room_for(bytes.len())) {
        response = too_many();
    }
    let mut response = if gzip { compress(response).await } else { response };
    label.code = response.status;
    label.seconds = started.elapsed().as_secs_f64();
    if connection.door.is_none() {
        shared.front.metrics.request(&label);
    }
    let long_running = shared.front.metrics.long_running(&label).filter(|_| connection.door.is_none());
    if label.anonymous && connection.is_http2 {
        // HTTP/2 lets one connection ask for too much work: not for strangers (upstream: UnauthenticatedHTTP2DOSMitigation).
        connection.close_after_this();
    }
    if is_head {
        response = without_body(response);
    }
    let len = if let Body::Full(bytes) = &response.body { bytes.len() } else { 0 };
    if len > LARGE_BODY_BYTES {
        shared.burst();
    }
    let sending = (!label.long_running).then(|| connection.sending(len));
    let outgoing = Outgoing::new(response.body, &shared.stop, sending, (busy, place, completes, long_running));
    let mut wire = hyper::Response::new(outgoing);
    *wire.status_mut() = http::StatusCode::from_u16(response.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = wire.headers_mut();
    for (name, value) in response.headers {
        headers.append(name, value);
    }
    headers.insert(AUDIT_ID, audit_id);
    if let Some(class) = class {
        headers.insert(FLOW_SCHEMA_UID, class.schema_uid);
        headers.insert(PRIORITY_LEVEL_UID, class.level_uid);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    }
    Ok(wire)
}

/// What is learnt of a request on its way, for whoever counts and writes it down.
struct Seen {
    label: metrics::Request,
    place: Option<InFlight>,
    seat: Option<Ticket>,
    class: Option<Class>,
    record: Option<Arc<Record>>,
    audit_id: HeaderValue,
}

impl Default for Seen {
    fn default() -> Seen {
        let audit_id = HeaderValue::from_static("");
        Seen { label: Default::default(), place: None, seat: None, class: None, record: None, audit_id }
    }
}

/// Writes down how a request ended; one that goes on, when it does (by what is returned, which is dropped then).
fn audited(record: Arc<Record>, response: &Response, long_running: bool) -> Option<Completes> {
    record.code(response.status);
    if let Body::Full(body) = &response.body {
        record.response_body(body);
    }
    if !long_running {
        record.complete();
        return None;
    }
    record.write(audit::Stage::ResponseStarted);
    Some(Completes(record))
}

/// The way a request came: X-Forwarded-For, X-Real-Ip, the peer (apimachinery/pkg/util/net SourceIPs).
fn source_ips(headers: &HeaderMap, peer: IpAddr) -> Vec<IpAddr> {
    let forwarded = text(headers, HeaderName::from_static("x-forwarded-for"));
    let mut ips: Vec<IpAddr> = forwarded.split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    if let Ok(real) = text(headers, HeaderName::from_static("x-real-ip")).trim().parse()
        && !ips.contains(&real)
    {
        ips.push(real);
    }
    let peer = peer.to_canonical();
    if ips.last() != Some(&peer) {
        ips.push(peer);
    }
    ips
}

/// The answer to HEAD: what GET would be answered, but for the bytes.
fn without_body(response: Response) -> Response {
    let len = if let Body::Full(bytes) = &response.body { Some(bytes.len()) } else { None };
    let response = Response { body: Body::Empty, ..response };
    match len {
        Some(len) => response.with(header::CONTENT_LENGTH, &len.to_string()),
        None => response,
    }
}

/// Everything up to the answer. Errors leave early as the response they are.
async fn take(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut parts: http::request::Parts,
    body: &mut Option<Incoming>,
    seen: &mut Seen,
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
    if let Some(door) = &connection.door {
        seen.label.long_running = true;
        let answer = kubelet::take(shared, connection, door, (parts, path, query), upgrade, body).await;
        return answer.unwrap_or_else(|| {
            seen.label.anonymous = true;
            Response::text(401, "Unauthorized")
        });
    }
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
    seen.label.of(&info);
    let (method, mut headers) = (parts.method, parts.headers);
    // HTTP/2 has it in the target.
    if let Some(host) = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
        headers.entry(header::HOST).or_insert(host);
    }
    let tried = tried(&headers, connection);
    let user = shared.front.authenticator.authenticate(&connection.identity, &mut headers);
    shared.front.metrics.authenticated(user.is_ok());
    if let Peer::User(_, ends) = connection.identity {
        shared.front.metrics.certificate(ends - crate::clock::now_seconds());
    }
    if let Some(auditor) = &shared.front.auditor {
        let facts = Facts {
            id: seen.audit_id.to_str().unwrap_or(""),
            uri: parts.uri.path_and_query().map(|uri| uri.as_str().to_owned()).unwrap_or_default(),
            user_agent: text(&headers, header::USER_AGENT),
            source_ips: source_ips(&headers, connection.peer.ip()),
        };
        seen.record = auditor.begin(user.as_ref().ok(), &info, facts);
    }
    let user = match user {
        Ok(user) => user,
        Err(error) => {
            tracing::debug!(peer = %connection.peer, error, "unable to authenticate the request");
            seen.label.anonymous = true;
            if let Some(record) = seen.record.take() {
                record.unauthenticated(&tried);
            }
            return Status::unauthorized().into();
        }
    };
    if let Some(record) = &seen.record {
        record.write(audit::Stage::RequestReceived);
    }
    seen.label.anonymous = user.name == auth::ANONYMOUS;
    if !seen.label.anonymous {
        connection.known();
    }
    seen.label.long_running |= upgrade.is_some();
    let record = seen.record.clone();
    let taken = Taken { method, path, query, headers, info, user, peer: connection.peer, upgrade };
    audit::within(record, admit(shared, taken, body, seen)).await
}

/// A request whose sender is known.
struct Taken {
    method: http::Method,
    path: String,
    query: Query,
    headers: HeaderMap,
    info: RequestInfo,
    user: Arc<User>,
    peer: SocketAddr,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
}

/// From a known sender to the answer.
async fn admit(shared: &Arc<Shared>, taken: Taken, body: &mut Option<Incoming>, seen: &mut Seen) -> Response {
    let Taken { method, path, query, mut headers, info, user, peer, upgrade } = taken;
    let long_running = seen.label.long_running;
    let timeout = match deadline(&query, long_running, shared.config.request_timeout) {
        Ok(timeout) => timeout,
        Err(status) => return status.into(),
    };
    let authorizer = &shared.front.authorizer;
    let user = match auth::impersonate::apply(&user, &mut headers, authorizer, &Attributes::from(&info)) {
        Ok(None) => user,
        Ok(Some(impersonated)) => {
            if let Some(record) = &seen.record {
                record.impersonates(&impersonated.user, impersonated.constraint);
            }
            impersonated.user
        }
        Err(status) => return status.into(),
    };
    if !long_running || info.verb == "watch" {
        // A quarter of the request's time may go by in a queue, as upstream.
        let wait = timeout.unwrap_or(shared.config.request_timeout) / 4;
        let (class, seat) = shared.front.flow.admit(&user, &info, wait).await;
        seen.class = class;
        match seat {
            Ok(seat) => seen.seat = seat,
            Err(Refused) => {
                return too_many();
            }
        }
    }
    if info.verb == "watch" {
        if shared.front.watching.load(Ordering::Acquire) >= shared.config.max_watches {
            return too_many();
        }
        seen.place = Some(InFlight::count(&shared.front.watching));
    }
    if !long_running {
        let running = if info.is_mutating() { &shared.front.mutating } else { &shared.front.reading };
        seen.place = Some(InFlight::count(running));
        let now = |running: &AtomicUsize| running.load(Ordering::Relaxed);
        shared.front.metrics.inflight(now(&shared.front.mutating), now(&shared.front.reading));
    }
    let record = &seen.record;
    let allowed = allow(authorizer, &user, &info, record.as_deref());
    shared.front.metrics.authorized(allowed.is_ok());
    if let Err(status) = allowed {
        return status.into();
    }
    let work = async {
        let body = match read(shared, body).await {
            Ok(body) => body,
            Err(response) => return response,
        };
        if body.len() > LARGE_BODY_BYTES {
            shared.burst();
        }
        if let Some(record) = record {
            // What has an object tells it when it is decoded, and comes first.
            if matches!(info.verb.as_str(), "patch" | "delete" | "deletecollection") {
                record.request_body(&body);
            }
        }
        let request = Request { method, path, query, headers, body, user, info, peer: Some(peer), upgrade };
        match paths::answer(&shared.front, &request) {
            Some(response) => response,
            None => shared.front.handler.handle(request).await,
        }
    };
    match timeout {
        None => work.await,
        Some(timeout) => {
            let late = async {
                Deadline::after(timeout).await;
                Status::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout").into()
            };
            work.or(late).await
        }
    }
}

fn too_many() -> Response {
    Response::text(429, "Too many requests, please try again later.\n").with(header::RETRY_AFTER, "1")
}

/// May they? Why is only found out for those who write it down.
fn allow(authorizer: &Authorizer, user: &User, info: &RequestInfo, record: Option<&Record>) -> Result<(), Status> {
    let asked = Attributes::from(info);
    let Some(record) = record else { return authorizer.authorize(user, &asked) };
    let decision = authorizer.decide(user, &asked);
    record.annotate("authorization.k8s.io/decision", if decision.allowed { "allow" } else { "forbid" });
    record.annotate("authorization.k8s.io/reason", &decision.reason);
    if decision.allowed { Ok(()) } else { Err(forbidden(user, &asked, &decision.reason)) }
}

/// The credentials a client showed, by upstream's names for the audit log.
fn tried(headers: &HeaderMap, connection: &Connection) -> Vec<&'static str> {
    let scheme = text(headers, header::AUTHORIZATION).split(' ').next().unwrap_or("").to_ascii_lowercase();
    let from_header = ["basic", "bearer"].into_iter().find(|known| *known == scheme);
    from_header.into_iter().chain((connection.identity != Peer::Nobody).then_some("x509")).collect()
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
        Deadline::after(DROP_TIMEOUT).await;
    };
    all.or(late).await;
}

/// The whole body, at most `MAX_BODY_BYTES`; one that is too large is left where it is.
pub(super) async fn read(shared: &Shared, place: &mut Option<Incoming>) -> Result<Bytes, Response> {
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
