//! nodes/proxy: what a kubelet answers on its port, answered here without one (kubelet/pkg/server). This node's kubelet
//! is in this process; a request for another port of the node goes there, one for another kubelet to that. The
//! kubelet's own port, where there is one, leads here too.
use super::{forward, kubelet, pods, proxy, unknown};
use crate::{
    Object,
    driver::BoxFuture,
    http::{Body, Handler, Query, Request, Response},
    pods::{Figures, HostLog, PodBackend, StreamRequest},
    server::Api,
};
use http::Method;
use mote_schema::{Kind, Status};
use mote_schema::{Value, json};
use std::sync::Arc;

/// The kubelet's names of the streams of a command.
const STREAMS: [&str; 3] = ["input", "output", "error"];

pub(crate) async fn answer(api: &Arc<Api>, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    super::connect::admit(api, kind, &request).await?;
    let id = &request.info.name;
    let (_, name, port) =
        proxy::split(id).ok_or_else(|| Status::bad_request(format!("invalid node request {id:?}")))?;
    let node = api.get(kind, "", name)?;
    // The kubelet's own, whether somebody listens there or not.
    let is_kubelets = port.is_empty() || port.parse() == Ok(kubelet::port(&node));
    let Some(backend) = api.kubelet_of(name).filter(|_| is_kubelets).cloned() else {
        if is_kubelets {
            let path = request.info.rest.clone();
            return kubelet::pass(api, request, &node, &path).await;
        }
        let addresses = node.root().at("status.addresses");
        let internal = addresses.items().find(|address| address.get("type").str() == "InternalIP");
        let ip = internal.map_or("", |address| address.get("address").str()).to_owned();
        return proxy::to_port(api, request, &ip).await;
    };
    match proxy::slash(&request) {
        Some(response) => Ok(response),
        None => local(api, &*backend, request).await,
    }
}

/// Who answers at the kubelet's port, in plain words as it does.
pub(crate) struct Door {
    pub api: Arc<Api>,
    pub backend: Arc<dyn PodBackend>,
}

impl Handler for Door {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let answer = local(&self.api, &*self.backend, request).await;
            answer.unwrap_or_else(|status| Response::text(status.code, status.message))
        })
    }
}

/// The kubelet of this process.
async fn local(api: &Api, backend: &dyn PodBackend, request: Request) -> Result<Response, Status> {
    let path = request.info.rest.trim_end_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    let (method, query) = (&request.method, &request.query);
    let of_pod = match parts.as_slice() {
        [verb @ ("exec" | "attach" | "portForward" | "run" | "containerLogs"), namespace, pod, rest @ ..] => {
            Some((*verb, *namespace, *pod, rest))
        }
        _ => None,
    };
    let allowed: &[Method] = match of_pod {
        Some(("run", ..)) => &[Method::POST],
        Some(("exec" | "attach" | "portForward", ..)) => &[Method::GET, Method::POST],
        _ => &[Method::GET, Method::HEAD],
    };
    if !allowed.contains(method) {
        return Ok(Response::text(405, "405: Method Not Allowed"));
    }
    let none = || Ok(Response::text(404, "404 page not found\n"));
    let Some((verb, namespace, name, rest)) = of_pod else {
        return Ok(match parts.as_slice() {
            ["healthz"] | ["healthz", "ping" | "syncloop" | "log"] => Response::text(200, "ok"),
            ["pods"] => list(pods_of(api, backend.node_name())),
            ["runningpods"] => list(backend.running().await?),
            ["configz"] => Response::value(200, &json!({"kubeletconfig": backend.configuration()})),
            ["stats", "summary"] => Response::value(200, &backend.summary(!query.bool("only_cpu_and_memory")).await?),
            ["metrics"] => figures(backend, Figures::Kubelet).await?,
            ["metrics", "resource"] => figures(backend, Figures::Resources).await?,
            ["metrics", "cadvisor"] => figures(backend, Figures::Containers).await?,
            ["metrics", "probes"] => figures(backend, Figures::Probes).await?,
            ["logs", below @ ..] => match backend.host_log(below.join("/")).await {
                Some(found) => host_log(found, &request.info.rest),
                None => return none(),
            },
            _ => return none(),
        });
    };
    // Between pod and container there may be the pod's uid.
    let (uid, container) = match (verb, rest) {
        ("portForward", []) => ("", ""),
        ("portForward", [uid]) => (*uid, ""),
        ("portForward", _) | (_, []) => return none(),
        (_, [container]) => ("", *container),
        ("exec" | "attach" | "run", [uid, container]) => (*uid, *container),
        _ => return none(),
    };
    let catalog = api.catalog();
    let kind = catalog.by_resource("", "v1", "pods").ok_or_else(unknown)?;
    let is_meant = |pod: &Object| {
        pod.root().at("spec.nodeName").str() == backend.node_name() && (uid.is_empty() || pod.uid() == uid)
    };
    let Some(pod) = api.get(kind, namespace, name).ok().filter(is_meant) else {
        let said = if verb == "containerLogs" {
            format!("pod {name:?} does not exist\n")
        } else {
            "pod does not exist".into()
        };
        return Ok(Response::text(404, said));
    };
    let container = container.to_owned();
    let stream = match verb {
        "containerLogs" => return logs(api, request, pod, &container).await,
        "run" => {
            // Not a shell's words, and so since the beginning (server.go, getRun).
            let command = query.get("cmd").unwrap_or("").split(' ').map(str::to_owned).collect();
            return Ok(Response::json(200, backend.run(pod, container, command).await?));
        }
        "portForward" => {
            let ports = query.get_all("port").map(|port| {
                port.parse().map_err(|_| Status::bad_request(format!("unable to parse {port:?} as a port")))
            });
            StreamRequest::PortForward { ports: ports.collect::<Result<_, _>>()? }
        }
        verb => {
            let (stdin, stdout, stderr, tty) = pods::streams(query, STREAMS)?;
            if verb == "attach" {
                StreamRequest::Attach { container, stdin, stdout, stderr, tty }
            } else {
                let command = query.get_all("command").map(str::to_owned).collect();
                StreamRequest::Exec { container, command, stdin, stdout, stderr, tty }
            }
        }
    };
    pods::join(api, backend, request, pod, stream).await
}

fn pods_of(api: &Api, node: &str) -> Vec<Value> {
    let all = api.list_all("", "v1", "pods");
    let own = all.iter().filter(|pod| pod.root().at("spec.nodeName").str() == node);
    own.map(Object::to_value).collect()
}

fn list(items: Vec<Value>) -> Response {
    Response::value(200, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// As Go's file server shows files.
fn host_log(found: HostLog, path: &str) -> Response {
    let names = match found {
        HostLog::File(bytes) => return Response::stream(200, "text/plain; charset=utf-8", bytes),
        HostLog::Directory(names) => names,
    };
    if !path.ends_with('/') {
        // Names are relative to it.
        let last = path.rsplit('/').next().unwrap_or("");
        return Response::text(301, "").with(http::header::LOCATION, &(forward::encode_path(last) + "/"));
    }
    let mut page = "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n".to_owned();
    for name in names {
        let shown = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let href = forward::encode_path(&name).replace('&', "&amp;");
        page += &format!("<a href=\"./{href}\">{shown}</a>\n");
    }
    page += "</pre>\n";
    Response::new(200, "text/html; charset=utf-8", Body::Full(page.into()))
}

async fn figures(backend: &dyn PodBackend, of: Figures) -> Result<Response, Status> {
    let text = backend.figures(of).await?;
    Ok(Response::new(200, "text/plain; version=0.0.4; charset=utf-8", Body::Full(text.into())))
}

/// The container is a path segment here, not a parameter.
async fn logs(api: &Api, request: Request, pod: Object, container: &str) -> Result<Response, Status> {
    let asked = {
        let mut text = form_urlencoded::Serializer::new(String::new());
        text.append_pair("container", container);
        text.extend_pairs(request.query.iter().filter(|(name, _)| *name != "container"));
        Query::parse(&text.finish())
    };
    let options = pods::log_options(&pod, &asked)?;
    pods::logs(api, request, pod, options).await
}
