//! Pods' log, exec, attach and port-forward: resolved here, answered by the pod's kubelet, tunnelled to the runtime.
use super::kubelet;
use crate::{
    Object,
    http::{Query, Request, Response},
    pods::{LogOptions, PodBackend, StreamRequest},
    rbac::Attributes,
    server::Api,
    translate, websocket,
};
use mote_schema::{Cause, Kind, Status, Value};
use std::sync::Arc;

const STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];

pub(crate) async fn answer(api: &Api, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    let pod = api.get(kind, &request.info.namespace, &request.info.name)?;
    let node = pod.root().at("spec.nodeName").str();
    let sub = request.info.subresource.as_str();
    if !matches!(
        (sub, request.info.verb.as_str()),
        ("log", "get") | ("exec" | "attach" | "portforward", "get" | "create")
    ) {
        return Err(Status::method_not_supported("", &format!("pods/{sub}"), &request.info.verb));
    }
    super::connect::admit(api, kind, &request).await?;
    // What WebSocket clients GET is what others POST, so rules that name only `create` hold for them too
    // (registry/core/pod/rest/authorize.go).
    if sub != "log" && request.info.verb == "get" {
        let asked = Attributes { verb: "create", ..Attributes::from(&request.info) };
        let decision = api.security()?.authorizer.decide(&request.user, &asked);
        if !decision.allowed {
            return Err(Status::forbidden("", "pods", &request.info.name, &decision.reason));
        }
    }
    let query = &request.query;
    if node.is_empty() {
        // Upstream looks at these two first; no place for a log is no error.
        return match sub {
            "log" => log_options(&pod, query).map(|_| Response::empty(204)),
            _ => Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name()))),
        };
    }
    let stream = match sub {
        "log" => {
            let options = log_options(&pod, query)?;
            return logs(api, request, pod, options).await;
        }
        "exec" => {
            let command: Vec<String> = query.get_all("command").map(str::to_owned).collect();
            if command.is_empty() {
                return Err(Status::bad_request("you must specify at least one command for the container"));
            }
            let (stdin, stdout, stderr, tty) = streams(query, STREAMS)?;
            StreamRequest::Exec { container: container(&pod, query)?, command, stdin, stdout, stderr, tty }
        }
        "attach" => {
            let (stdin, stdout, stderr, tty) = streams(query, STREAMS)?;
            StreamRequest::Attach { container: container(&pod, query)?, stdin, stdout, stderr, tty }
        }
        _ => {
            let ports = query.get_all("ports").flat_map(|ports| ports.split(','));
            let ports = ports.map(|port| {
                port.trim()
                    .parse::<u16>()
                    .map_err(|_| Status::bad_request(format!("unable to parse {port:?} as a port")))
            });
            StreamRequest::PortForward { ports: ports.collect::<Result<_, _>>()? }
        }
    };
    let Some(backend) = api.kubelet_of(node) else {
        return match request.upgrade {
            None => Err(upgrade_required()),
            Some(_) => kubelet::stream(api, request, &pod, &stream).await,
        };
    };
    let backend = backend.clone();
    join(api, &*backend, request, pod, stream).await
}

fn upgrade_required() -> Status {
    Status::bad_request("Upgrade request required")
}

/// The client's connection and the runtime's, by way of this node's kubelet.
pub(super) async fn join(
    api: &Api,
    backend: &dyn PodBackend,
    request: Request,
    pod: Object,
    stream: StreamRequest,
) -> Result<Response, Status> {
    if request.upgrade.is_none() {
        return Err(upgrade_required());
    }
    let url = backend.stream_url(pod, stream.clone()).await?;
    Ok(match translate::asked(&request, &stream) {
        Some(protocol) => translate::answer(&api.executor, request, &url, protocol, &stream).await,
        None => crate::stream::tunnel(&api.executor, request, &url).await,
    })
}

/// The log of one container, as it comes.
pub(super) async fn logs(
    api: &Api,
    mut request: Request,
    pod: Object,
    options: LogOptions,
) -> Result<Response, Status> {
    let Some(backend) = api.kubelet_of(pod.root().at("spec.nodeName").str()) else {
        return kubelet::logs(api, request, &pod, &options).await;
    };
    let bytes = backend.logs(pod, options).await?;
    if websocket::is_asked(&request) {
        return websocket::answer_bytes(&api.executor, &mut request, bytes);
    }
    Ok(Response::stream(200, "text/plain", bytes))
}

/// `names` of the three streams: the API server's, or the kubelet's.
pub(super) fn streams(query: &Query, names: [&str; 3]) -> Result<(bool, bool, bool, bool), Status> {
    let [stdin, stdout, stderr] = names.map(|name| query.bool(name));
    let tty = query.bool("tty");
    // A terminal has one output.
    let stderr = stderr && !tty;
    if !(stdin || stdout || stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok((stdin, stdout, stderr, tty))
}

fn names(pod: &Object, field: &str) -> Vec<String> {
    pod.root().get("spec").get(field).items().map(|container| container.get("name").str().to_owned()).collect()
}

/// The container asked for, or the only one (podtemplate's registry/core/pod, `LogLocation` and friends).
fn container(pod: &Object, query: &Query) -> Result<String, Status> {
    let containers = names(pod, "containers");
    let init = names(pod, "initContainers");
    let ephemeral = names(pod, "ephemeralContainers");
    let name = query.get("container").unwrap_or("");
    if !name.is_empty() {
        let known = containers.iter().chain(&init).chain(&ephemeral).any(|other| other == name);
        let refused = || Status::bad_request(format!("container {name} is not valid for pod {}", pod.name()));
        return if known { Ok(name.to_owned()) } else { Err(refused()) };
    }
    if let [only] = containers.as_slice() {
        return Ok(only.clone());
    }
    let mut message =
        format!("a container name must be specified for pod {}, choose one of: [{}]", pod.name(), containers.join(" "));
    if !init.is_empty() {
        message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    if !ephemeral.is_empty() {
        message.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
    }
    Err(Status::bad_request(message))
}

/// PodLogOptions (pkg/apis/core/validation ValidatePodLogOptions).
pub(super) fn log_options(pod: &Object, query: &Query) -> Result<LogOptions, Status> {
    let mut causes = Vec::new();
    let mut number = |field: &str, least: i64| -> Result<Option<i64>, Status> {
        let Some(text) = query.get(field).filter(|text| !text.is_empty()) else { return Ok(None) };
        let value = text
            .parse::<i64>()
            .map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
        if value < least {
            let detail = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            causes.push(Cause::invalid(field, &Value::from(value), detail));
        }
        Ok(Some(value))
    };
    let tail_lines = number("tailLines", 0)?;
    let limit_bytes = number("limitBytes", 1)?;
    let since_seconds = number("sinceSeconds", 1)?;
    let since_time = query.get("sinceTime").filter(|text| !text.is_empty()).map(str::to_owned);
    if since_time.is_some() && since_seconds.is_some() {
        causes.push(Cause::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    let stream = query.get("stream").filter(|text| !text.is_empty()).map(str::to_owned);
    if let Some(name) = stream.as_deref().filter(|name| !matches!(*name, "All" | "Stdout" | "Stderr")) {
        causes.push(Cause::not_supported("stream", &Value::from(name), &["All", "Stderr", "Stdout"]));
    }
    if !causes.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod.name(), causes));
    }
    Ok(LogOptions {
        container: container(pod, query)?,
        follow: query.bool("follow"),
        previous: query.bool("previous"),
        since_seconds,
        since_time,
        timestamps: query.bool("timestamps"),
        tail_lines,
        limit_bytes,
        stream,
    })
}
