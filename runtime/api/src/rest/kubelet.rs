//! Kubelets that are not part of this process: their pods' logs and streams, and what they answer themselves, are asked of
//! them on their port, as a client whose certificate the cluster's authority signed (pkg/kubelet/client,
//! registry/core/{pod,node}/strategy). Kubelets sign their own serving certificates, so these prove nothing here, as
//! with upstream's defaults.
use super::forward::{Forward, Forwarded, body, forward, headers_back};
use crate::{
    Object,
    http::{Query, Request, Response},
    outbound::{self, Endpoint, Place, Tls, Trust},
    pods::{LogOptions, StreamRequest},
    server::Api,
};
use mote_schema::{Status, status::go_quote};
use std::sync::Arc;

/// As whom; `rbac/bootstrap.txt` says what it may.
pub(crate) const CLIENT: &str = "kube-apiserver-kubelet-client";
const DEFAULT_PORT: u16 = 10250;
/// kubeadm's order: a board's name need not be known to any resolver.
const PREFERRED: &[&str] = &["InternalIP", "ExternalIP", "Hostname"];
/// Of a refusal (registry/generic/rest/response_checker.go).
const MAX_REFUSAL_BYTES: usize = 50_000;

/// The port where its kubelet says it listens.
pub(super) fn port(node: &Object) -> u16 {
    let said = node.root().at("status.daemonEndpoints.kubeletEndpoint").get("Port").as_i64();
    said.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(DEFAULT_PORT)
}

fn endpoint(api: &Api, node: &Object) -> Result<(Endpoint, String), Status> {
    let addresses = node.root().at("status.addresses");
    let of = |wanted: &&str| addresses.items().find(|address| address.get("type").str() == *wanted);
    let address = PREFERRED.iter().find_map(of).map(|address| address.get("address").str());
    let host = address.ok_or_else(|| Status::internal("no preferred addresses found; known addresses: []"))?;
    let identity = api.kubelet_client.get().and_then(|make| make());
    let tls = Some(Tls { server_name: host.to_owned(), trust: Trust::Anyone, identity });
    let port = port(node);
    Ok((Endpoint { place: Place::of(host, port), tls }, format!("{host}:{port}")))
}

fn node_of(api: &Api, pod: &Object) -> Result<Object, Status> {
    let catalog = api.catalog();
    api.get(
        catalog.by_resource("", "v1", "nodes").ok_or_else(super::unknown)?,
        "",
        pod.root().at("spec.nodeName").str(),
    )
}

/// The request as it is, to `path` there.
pub(super) async fn pass(api: &Api, request: Request, node: &Object, path: &str) -> Result<Response, Status> {
    let failed = |error| Status::unavailable(format!("error trying to reach service: {error}"));
    Ok(back(send(api, request, node, path).await?.map_err(failed)?))
}

fn back(answer: Forwarded) -> Response {
    match answer {
        Forwarded::Upgraded(response) => response,
        Forwarded::Answered(response, kept) => {
            let (status, headers) = (response.status().as_u16(), headers_back(response.headers(), false));
            Response { status, headers, body: body(Vec::new(), response.into_body(), Arc::new(kept)) }
        }
    }
}

async fn send(api: &Api, mut request: Request, node: &Object, path: &str) -> Result<Result<Forwarded, String>, Status> {
    let (endpoint, host) = endpoint(api, node)?;
    let to = Forward { endpoint: &endpoint, host: &host, path, headers: Vec::new(), drops: |_| false };
    Ok(forward(api, &mut request, to).await)
}

pub(super) async fn logs(
    api: &Api,
    mut request: Request,
    pod: &Object,
    options: &LogOptions,
) -> Result<Response, Status> {
    let node = node_of(api, pod)?;
    let path = format!("/containerLogs/{}/{}/{}", pod.namespace(), pod.name(), options.container);
    // The client's own words, checked, less what is not for the kubelet.
    request.query = query(|text| {
        let for_kubelet = |name: &str| !matches!(name, "container" | "insecureSkipTLSVerifyBackend" | "pretty");
        text.extend_pairs(request.query.iter().filter(|(name, _)| for_kubelet(name)));
    });
    let failed = |error| Status::internal(format!("Get \"https://{}:{}{path}\": {error}", node.name(), port(&node)));
    match send(api, request, &node, &path).await?.map_err(failed)? {
        Forwarded::Upgraded(response) => Ok(response),
        Forwarded::Answered(response, kept) if response.status().is_success() => {
            let bytes = body(Vec::new(), response.into_body(), Arc::new(kept));
            Ok(Response::new(200, "text/plain", bytes))
        }
        Forwarded::Answered(response, _) => {
            let code = response.status().as_u16();
            let text = outbound::read(response.into_body(), MAX_REFUSAL_BYTES).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            Err(match code {
                400 => Status::bad_request(text),
                500 => Status::internal(text),
                404 => {
                    Status::new(404, "NotFound", format!("the server could not find the requested resource ({text})"))
                }
                _ => Status::new(code, "", format!("the server responded with {code}: {}", go_quote(&text))),
            })
        }
    }
}

/// Exec, attach and port-forward.
pub(super) async fn stream(
    api: &Api,
    mut request: Request,
    pod: &Object,
    asked: &StreamRequest,
) -> Result<Response, Status> {
    let node = node_of(api, pod)?;
    let at = |verb: &str| format!("/{verb}/{}/{}", pod.namespace(), pod.name());
    let (path, (stdin, stdout, stderr, tty)) = match asked {
        StreamRequest::Exec { container, stdin, stdout, stderr, tty, .. } => {
            (format!("{}/{container}", at("exec")), (*stdin, *stdout, *stderr, *tty))
        }
        StreamRequest::Attach { container, stdin, stdout, stderr, tty } => {
            (format!("{}/{container}", at("attach")), (*stdin, *stdout, *stderr, *tty))
        }
        StreamRequest::PortForward { .. } => (at("portForward"), Default::default()),
    };
    request.query = query(|text| {
        for (name, _) in [("input", stdin), ("output", stdout), ("error", stderr), ("tty", tty)].iter().filter(|f| f.1)
        {
            text.append_pair(name, "1");
        }
        match asked {
            StreamRequest::Exec { command, .. } => {
                text.extend_pairs(command.iter().map(|word| ("command", word)));
            }
            StreamRequest::PortForward { ports } => {
                text.extend_pairs(ports.iter().map(|port| ("port", port.to_string())));
            }
            StreamRequest::Attach { .. } => {}
        }
    });
    let failed = |error| Status::internal(format!("error dialing backend: {error}"));
    Ok(back(send(api, request, &node, &path).await?.map_err(failed)?))
}

fn query(write: impl FnOnce(&mut form_urlencoded::Serializer<'_, String>)) -> Query {
    let mut text = form_urlencoded::Serializer::new(String::new());
    write(&mut text);
    Query::parse(&text.finish())
}
