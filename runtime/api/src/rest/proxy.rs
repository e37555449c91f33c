//! pods/proxy and services/proxy: the request goes on to a pod's port over plain HTTP or unverified TLS, the answer
//! comes back as it is, but for links of HTML pages and redirects, which are led through the proxy again
//! (apimachinery/pkg/util/proxy, registry/core/{pod/strategy,service/storage}). What a kubelet answers is in `nodes`.
use super::{
    forward::{Forward, Forwarded, body, encode_path, encode_query, forward, headers_back},
    links,
};
use crate::{
    http::{Body, Request, Response},
    outbound::{Endpoint, Kept, Place, Tls, Trust},
    registry::random,
    server::Api,
};
use http::{HeaderValue, Method, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mote_schema::{Kind, Object, Status};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Larger pages pass with their links as they are.
const MAX_PAGE_BYTES: usize = 4 << 20;

pub(crate) async fn answer(api: &Arc<Api>, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    super::connect::admit(api, kind, &request).await?;
    let (address, tls) = if kind.plural == "pods" { pod(api, kind, &request)? } else { service(api, kind, &request)? };
    pass(api, request, address, tls).await
}

/// `nodes/scheme:name:port/proxy`, where the node is at `ip`.
pub(super) async fn to_port(api: &Api, request: Request, ip: &str) -> Result<Response, Status> {
    let id = &request.info.name;
    let address = split(id).and_then(|(tls, _, port)| Some((tls, port.parse::<u16>().ok()?)));
    let (tls, port) = address.ok_or_else(|| Status::bad_request(format!("invalid node request {id:?}")))?;
    let ip = ip.parse().ok().filter(is_global_unicast).ok_or_else(|| Status::bad_request("address not allowed"))?;
    pass(api, request, SocketAddr::new(ip, port), tls).await
}

/// Relative links of a page would lead nowhere without a slash at the end of the proxy's own path.
pub(super) fn slash(request: &Request) -> Option<Response> {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    if request.upgrade.is_some() || !request.info.rest.is_empty() || request.path.ends_with('/') || !reads {
        return None;
    }
    let location = format!("{}/{}", encode_path(&request.path), encode_query(request));
    let response = Response { status: 301, headers: Vec::new(), body: Body::Empty };
    Some(response.with(header::LOCATION, &location))
}

async fn pass(api: &Api, mut request: Request, address: SocketAddr, tls: bool) -> Result<Response, Status> {
    if let Some(response) = slash(&request) {
        return Ok(response);
    }
    let rest = request.info.rest.clone();
    let prefix = request.path.strip_suffix(&rest).unwrap_or(&request.path).trim_end_matches('/').to_owned();
    let authority = address.to_string();
    let tls = tls.then(|| Tls { server_name: address.ip().to_string(), trust: Trust::Anyone, identity: None });
    let endpoint = Endpoint { place: Place::Address(address), tls };
    let to = Forward { endpoint: &endpoint, host: &authority, path: &rest, headers: Vec::new(), drops: |_| false };
    match forward(api, &mut request, to).await {
        Ok(Forwarded::Upgraded(response)) => Ok(response),
        Ok(Forwarded::Answered(response, kept)) => {
            back(*response, kept, &links::Through { prefix: &prefix, authority: &authority }).await
        }
        Err(error) => Err(Status::unavailable(format!("error trying to reach service: {error}"))),
    }
}

/// `name`, `name:port` or `scheme:name:port` (apimachinery/pkg/util/net/port_split.go).
pub(super) fn split(id: &str) -> Option<(bool, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts[..] {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => return None,
    };
    (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some((scheme == "https", name, port))
}

fn pod(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<(SocketAddr, bool), Status> {
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
    Ok((SocketAddr::new(ip, port), tls))
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
fn service(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<(SocketAddr, bool), Status> {
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
    let at = u64::from_ne_bytes(random()) % (places.len().max(1) as u64);
    places.get(at as usize).map(|&address| (address, tls)).ok_or_else(|| none(id))
}

async fn back(
    response: http::Response<Incoming>,
    kept: Kept,
    through: &links::Through<'_>,
) -> Result<Response, Status> {
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
    let mut page = response.into_body();
    let mut read = Vec::new();
    if is_page && is_plain && !is_redirect && length.is_none_or(|length| length <= MAX_PAGE_BYTES) {
        while read.len() <= MAX_PAGE_BYTES {
            let Some(frame) = page.frame().await else {
                return Ok(Response { status, headers, body: Body::Full(links::rewrite(&read, through).into()) });
            };
            let frame = frame.map_err(|error| Status::internal(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                read.extend_from_slice(&data);
            }
        }
    }
    Ok(Response { status, headers, body: body(read, page, Arc::new(kept)) })
}
