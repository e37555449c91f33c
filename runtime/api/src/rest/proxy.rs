//! pods/proxy and services/proxy: the request goes on to a pod's port over plain HTTP or unverified TLS, the answer
//! comes back as it is, but for links of HTML pages and redirects, which are led through the proxy again
//! (apimachinery/pkg/util/proxy, registry/core/{pod/strategy,service/storage}). Nodes have no proxy: this kubelet
//! listens on no port.
use super::links;
use crate::{
    dial,
    http::{Body, Request, Response},
    server::Api,
    stream,
};
use async_io::{Async, Timer};
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::{body::Incoming, client::conn::http1};
use mote_schema::{Kind, Object, Status};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use smol_hyper::rt::FuturesIo;
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Until a connection stands, as upstream's transport.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Larger pages pass with their links as they are.
const MAX_PAGE_BYTES: usize = 4 << 20;
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

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

struct Place {
    address: SocketAddr,
    tls: bool,
}

pub(crate) async fn answer(api: &Arc<Api>, kind: &Arc<Kind>, mut request: Request) -> Result<Response, Status> {
    super::connect::admit(api, kind, &request).await?;
    let info = &request.info;
    let place = if kind.plural == "pods" { pod(api, kind, &request)? } else { service(api, kind, &request)? };
    let upgrade = request.upgrade.take();
    if upgrade.is_none() && info.rest.is_empty() && !request.path.ends_with('/') && is_read(&request.method) {
        // Relative links of the page would lead nowhere otherwise.
        let query = encode(&request);
        let location = format!("{}/{query}", utf8_percent_encode(&request.path, PATH));
        let response = Response { status: 301, headers: Vec::new(), body: Body::Empty };
        return Ok(response.with(header::LOCATION, &location));
    }
    let prefix = request.path.strip_suffix(&info.rest).unwrap_or(&request.path).trim_end_matches('/').to_owned();
    let unavailable =
        |error: String| Status::new(503, "ServiceUnavailable", format!("error trying to reach service: {error}"));
    let connection = connect(&place).await.map_err(unavailable)?;
    let (mut sender, driver) =
        http1::handshake(FuturesIo::new(connection)).await.map_err(|error| unavailable(error.to_string()))?;
    api.executor
        .spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                tracing::debug!(%error, "a proxied connection");
            }
        })
        .detach();
    let outgoing = outgoing(&request, &place, upgrade.is_some())?;
    let response = sender.send_request(outgoing).await.map_err(|error| unavailable(error.to_string()))?;
    if let (101, Some(client)) = (response.status().as_u16(), upgrade) {
        let headers = headers_back(response.headers(), true);
        let pod = hyper::upgrade::on(response);
        api.executor.spawn(stream::join_upgraded(client, pod)).detach();
        return Ok(Response { status: 101, headers, body: Body::Empty });
    }
    let authority = place.address.to_string();
    back(response, &links::Through { prefix: &prefix, authority: &authority }).await
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn encode(request: &Request) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(request.query.iter());
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// `name`, `name:port` or `scheme:name:port` (apimachinery/pkg/util/net/port_split.go).
fn split(id: &str) -> Option<(bool, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => return None,
    };
    (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some((scheme == "https", name, port))
}

fn pod(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<Place, Status> {
    let id = &request.info.name;
    let (tls, name, port) = split(id).ok_or_else(|| Status::bad_request(format!("invalid pod request {id:?}")))?;
    let pod = api.get(kind, &request.info.namespace, name)?;
    let first = || {
        let containers = pod.root().at("spec.containers");
        containers.items().find_map(|container| container.get("ports").items().next()?.get("containerPort").as_i64())
    };
    let port = match port {
        "" => first().and_then(|port| u16::try_from(port).ok()).unwrap_or(if tls { 443 } else { 80 }),
        text => text.parse().map_err(|_| {
            Status::new(
                503,
                "ServiceUnavailable",
                format!("error trying to reach service: dial tcp: lookup tcp/{text}: unknown port"),
            )
        })?,
    };
    let ip: Option<IpAddr> = pod.root().at("status.podIP").as_str().and_then(|ip| ip.parse().ok());
    let ip = ip.filter(is_global_unicast).ok_or_else(|| Status::bad_request("address not allowed"))?;
    Ok(Place { address: SocketAddr::new(ip, port), tls })
}

/// The API server must not be led to its own neighbours on the loopback or the link.
fn is_global_unicast(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local)
}

/// A ready endpoint that is a pod's, any of them.
fn service(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<Place, Status> {
    let (id, namespace) = (&request.info.name, request.info.namespace.as_str());
    let (tls, name, port) = split(id).ok_or_else(|| Status::bad_request(format!("invalid service request {id:?}")))?;
    let unavailable = |text: String| Status::new(503, "ServiceUnavailable", text);
    let service: Object = api.get(kind, namespace, name)?;
    let mut port = port.to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let ports = service.root().at("spec.ports");
        let found = ports.items().find(|port| port.get("port").as_i64() == Some(number));
        let found = found.ok_or_else(|| unavailable(format!("no service port {number} found for service {name:?}")))?;
        port = found.get("name").str().to_owned();
    }
    let none = |shown: &str| unavailable(format!("no endpoints available for service {shown:?}"));
    let catalog = api.catalog();
    let endpoints = catalog.by_resource("", "v1", "endpoints").ok_or_else(super::unknown)?;
    let endpoints = api.get(endpoints, namespace, name)?;
    let subsets = endpoints.root().get("subsets");
    if subsets.is_empty() {
        return Err(none(name));
    }
    let mut places = Vec::new();
    for subset in subsets.items() {
        let number = subset.get("ports").items().find(|p| p.get("name").str() == port);
        let Some(number) = number.and_then(|p| u16::try_from(p.get("port").as_i64()?).ok()) else { continue };
        for address in subset.get("addresses").items() {
            let is_pod = address.at("targetRef.kind").str() == "Pod";
            if let Some(ip) = address.get("ip").str().parse().ok().filter(|ip| is_pod && is_global_unicast(ip)) {
                places.push(SocketAddr::new(ip, number));
            }
        }
    }
    let mut seed = [0; 8];
    // Without randomness the first address serves all: slower, not wrong.
    let _ = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::NONBLOCK);
    let at = (u64::from_ne_bytes(seed) % (places.len().max(1) as u64)) as usize;
    places.get(at).map(|&address| Place { address, tls }).ok_or_else(|| none(id))
}

async fn connect(place: &Place) -> Result<Box<dyn Stream>, String> {
    let address = place.address;
    let dial = async {
        let stream = Async::<TcpStream>::connect(address).await.map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
                std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
                _ => error.to_string(),
            };
            format!("dial tcp {address}: {why}")
        })?;
        let boxed: Box<dyn Stream> = Box::new(stream);
        if !place.tls {
            return Ok(boxed);
        }
        let secured: Box<dyn Stream> = Box::new(dial::insecure_tls(boxed, &address.ip().to_string()).await?);
        Ok(secured)
    };
    let late = async {
        Timer::after(DIAL_TIMEOUT).await;
        Err(format!("dial tcp {address}: i/o timeout"))
    };
    dial.or(late).await
}

fn outgoing(request: &Request, place: &Place, upgrades: bool) -> Result<http::Request<Full<Bytes>>, Status> {
    let slash = if request.info.rest.starts_with('/') { "" } else { "/" };
    let target = format!("{slash}{}{}", utf8_percent_encode(&request.info.rest, PATH), encode(request));
    let mut outgoing = http::Request::builder().method(request.method.clone()).uri(target);
    if let Some(headers) = outgoing.headers_mut() {
        for (name, value) in &request.headers {
            let keeps = upgrades && (*name == header::UPGRADE || *name == header::CONNECTION);
            if keeps || !DROPPED.contains(&name.as_str()) {
                headers.append(name, value.clone());
            }
        }
        let mut set = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        set(header::HOST, &place.address.to_string());
        set(HeaderName::from_static("x-forwarded-uri"), &utf8_percent_encode(&request.path, PATH).to_string());
        if let Some(peer) = request.peer {
            let before = request.header("x-forwarded-for");
            let comma = if before.is_empty() { "" } else { ", " };
            set(HeaderName::from_static("x-forwarded-for"), &format!("{before}{comma}{}", peer.ip()));
        }
    }
    outgoing.body(Full::new(request.body.clone())).map_err(|error| Status::bad_request(error.to_string()))
}

fn headers_back(headers: &HeaderMap, upgraded: bool) -> Vec<(HeaderName, HeaderValue)> {
    let keeps = |name: &HeaderName| {
        upgraded && (*name == header::UPGRADE || *name == header::CONNECTION) || !DROPPED.contains(&name.as_str())
    };
    headers.iter().filter(|(name, _)| keeps(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn back(response: http::Response<Incoming>, through: &links::Through<'_>) -> Result<Response, Status> {
    let status = response.status().as_u16();
    let mut headers = headers_back(response.headers(), false);
    let is_redirect = response.headers().contains_key(header::LOCATION);
    for (_, value) in headers.iter_mut().filter(|(name, _)| *name == header::LOCATION) {
        let led = value.to_str().ok().and_then(|text| HeaderValue::from_str(&through.lead(text)).ok());
        *value = led.unwrap_or_else(|| value.clone());
    }
    let media = response.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let is_page = media.split(';').next().is_some_and(|media| media.trim() == "text/html");
    let is_plain = !response.headers().contains_key(header::CONTENT_ENCODING);
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let mut body = response.into_body();
    let mut read = Vec::new();
    if is_page && is_plain && !is_redirect && length.is_none_or(|length| length <= MAX_PAGE_BYTES) {
        while read.len() <= MAX_PAGE_BYTES {
            let Some(frame) = body.frame().await else {
                return Ok(Response { status, headers, body: Body::Full(links::rewrite(&read, through).into()) });
            };
            let frame = frame.map_err(|error| Status::internal(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
        }
    }
    let rest = BodyStream::new(body).filter_map(|frame| match frame {
        Ok(frame) => frame.into_data().ok().map(Ok),
        Err(error) => Some(Err(std::io::Error::other(error))),
    });
    let early = (!read.is_empty()).then(|| Ok(Bytes::from(read)));
    Ok(Response { status, headers, body: Body::Stream(Box::pin(futures_lite::stream::iter(early).chain(rest))) })
}
