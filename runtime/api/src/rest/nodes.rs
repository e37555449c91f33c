//! nodes/proxy: what a kubelet answers on its port, answered here without one (kubelet/pkg/server). This node's kubelet
//! is in this process; a request for another port of the node goes there, one for another kubelet to that.
use super::{kubelet, pods, proxy, unknown};
use crate::{
    Object,
    http::{Query, Request, Response},
    pods::PodBackend,
    server::Api,
};
use http::Method;
use mote_schema::{Kind, Status};
use mote_schema::{Value, json};
use std::{fmt::Write as _, sync::Arc};

/// The kubelet's own, whether somebody listens there or not.
const KUBELET_PORTS: [&str; 2] = ["", "10250"];

pub(crate) async fn answer(api: &Arc<Api>, kind: &Arc<Kind>, request: Request) -> Result<Response, Status> {
    super::connect::admit(api, kind, &request).await?;
    let id = &request.info.name;
    let (_, name, port) =
        proxy::split(id).ok_or_else(|| Status::bad_request(format!("invalid node request {id:?}")))?;
    let node = api.get(kind, "", name)?;
    let backend = api.kubelet_of(name).cloned();
    if backend.is_none() && (port.is_empty() || port.parse() == Ok(kubelet::port(&node))) {
        let path = request.info.rest.clone();
        return kubelet::pass(api, request, &node, &path).await;
    }
    let Some(backend) = backend.filter(|_| KUBELET_PORTS.contains(&port)) else {
        let addresses = node.root().at("status.addresses");
        let internal = addresses.items().find(|address| address.get("type").str() == "InternalIP");
        let ip = internal.map_or("", |address| address.get("address").str()).to_owned();
        return proxy::to_port(api, request, &ip).await;
    };
    if let Some(response) = proxy::slash(&request) {
        return Ok(response);
    }
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(Response::text(405, "405: Method Not Allowed"));
    }
    let path = request.info.rest.trim_end_matches('/').to_owned();
    let parts: Vec<&str> = path.split('/').collect();
    Ok(match parts.as_slice() {
        ["healthz"] | ["healthz", "ping" | "syncloop" | "log"] => Response::text(200, "ok"),
        ["pods"] => Response::value(200, &pods_of(api, name)),
        ["configz"] => Response::value(200, &json!({"kubeletconfig": backend.configuration()})),
        ["stats", "summary"] => Response::value(200, &backend.summary().await?),
        ["metrics"] | ["metrics", "resource"] => metrics(&*backend, parts.len() > 1).await?,
        ["containerLogs", namespace, pod, container] => {
            let catalog = api.catalog();
            let kind = catalog.by_resource("", "v1", "pods").ok_or_else(unknown)?;
            let found = api.get(kind, namespace, pod).ok();
            let Some(found) = found.filter(|pod| pod.root().at("spec.nodeName").str() == name) else {
                return Ok(Response::text(404, format!("pod {pod:?} does not exist\n")));
            };
            logs(api, request, found, container).await?
        }
        _ => Response::text(404, "404 page not found\n"),
    })
}

fn pods_of(api: &Api, node: &str) -> Value {
    let all = api.list_all("", "v1", "pods");
    let own = all.iter().filter(|pod| pod.root().at("spec.nodeName").str() == node);
    let items: Vec<Value> = own.map(Object::to_value).collect();
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
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

/// The figures metrics-server reads (kubelet/pkg/metrics/collectors/resource_metrics.go), or the kubelet's own few.
async fn metrics(backend: &dyn PodBackend, resources: bool) -> Result<Response, Status> {
    let summary = backend.summary().await?;
    let mut out = String::new();
    let pods = || summary["pods"].as_array().into_iter().flatten();
    if !resources {
        let containers: usize = pods().map(|pod| pod["containers"].as_array().map_or(0, Vec::len)).sum();
        let node = backend.node_name();
        for (name, labels, value) in [
            ("kubelet_node_name", format!("{{node={node:?}}}"), 1),
            ("kubelet_running_pods", String::new(), pods().count()),
            ("kubelet_running_containers", "{container_state=\"running\"}".to_owned(), containers),
        ] {
            write!(out, "# TYPE {name} gauge\n{name}{labels} {value}\n").unwrap_or(());
        }
        return Ok(Response::text(200, out));
    }
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let labels = |pod: &Value, container: Option<&Value>| {
        let of = &pod["podRef"];
        let container = container.map(|it| format!("container={:?},", text(&it["name"]))).unwrap_or_default();
        format!("{{{container}namespace={:?},pod={:?}}}", text(&of["namespace"]), text(&of["name"]))
    };
    let mut rows: Vec<(&str, String, &Value)> = vec![("node", String::new(), &summary["node"])];
    for pod in pods() {
        for container in pod["containers"].as_array().into_iter().flatten() {
            rows.push(("container", labels(pod, Some(container)), container));
        }
        rows.push(("pod", labels(pod, None), pod));
    }
    for (suffix, kind, part, field, unit) in [
        ("cpu_usage_seconds_total", "counter", "cpu", "usageCoreNanoSeconds", 1e9),
        ("memory_working_set_bytes", "gauge", "memory", "workingSetBytes", 1.0),
    ] {
        for scope in ["container", "node", "pod"] {
            writeln!(out, "# TYPE {scope}_{suffix} {kind}").unwrap_or(());
            for (_, labels, stats) in rows.iter().filter(|(of, _, _)| *of == scope) {
                let Some(value) = stats[part][field].as_f64() else { continue };
                writeln!(out, "{scope}_{suffix}{labels} {}", value / unit).unwrap_or(());
            }
        }
    }
    Ok(Response::new(200, "text/plain; version=0.0.4; charset=utf-8", crate::http::Body::Full(out.into())))
}
