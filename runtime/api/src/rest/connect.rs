//! What of a CONNECT (exec, attach, port-forward, proxy) admission is asked about: the options that the query spells,
//! as the kind upstream decodes them to.
use crate::{
    Sub,
    admission::{self, ObjectKind, Operation},
    http::Request,
    registry::Target,
    server::Api,
};
use mote_schema::{Kind, Status};
use mote_schema::{Map, Value, json};
use std::sync::Arc;

const FLAGS: &[&str] = &["stdin", "stdout", "stderr", "tty"];

/// Subresource, plural, the kind of its options.
const OPTIONS: &[(&str, &str, &str)] = &[
    ("exec", "pods", "PodExecOptions"),
    ("attach", "pods", "PodAttachOptions"),
    ("portforward", "pods", "PodPortForwardOptions"),
    ("proxy", "pods", "PodProxyOptions"),
    ("proxy", "services", "ServiceProxyOptions"),
    ("proxy", "nodes", "NodeProxyOptions"),
];

pub(super) async fn admit(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<(), Status> {
    let info = &request.info;
    let found = OPTIONS.iter().find(|(sub, plural, _)| info.subresource == *sub && kind.plural == *plural);
    let Some((_, _, options)) = found else { return Ok(()) };
    let mut new = json!({"kind": options, "apiVersion": "v1"});
    if let Some(fields) = new.as_object_mut() {
        spell(request, fields);
    }
    let mut target = Target::new(&request.user, kind, &info.namespace, &info.name, Sub::Main);
    let object = ObjectKind { group: "".into(), version: "v1".into(), kind: (*options).into() };
    admission::part(api, &mut target, Operation::Connect, &info.subresource, object, &Value::Null, &mut new).await
}

fn spell(request: &Request, fields: &mut Map) {
    let (query, info) = (&request.query, &request.info);
    match info.subresource.as_str() {
        "exec" | "attach" => {
            for flag in FLAGS.iter().filter(|flag| query.bool(flag)) {
                fields.insert((*flag).into(), true.into());
            }
            if let Some(container) = query.get("container") {
                fields.insert("container".into(), container.into());
            }
            let command: Vec<&str> = query.get_all("command").collect();
            if info.subresource == "exec" {
                fields.insert("command".into(), command.into());
            }
        }
        "portforward" => {
            let ports = query.get_all("ports").flat_map(|ports| ports.split(','));
            let ports: Vec<i64> = ports.filter_map(|port| port.trim().parse().ok()).collect();
            if !ports.is_empty() {
                fields.insert("ports".into(), ports.into());
            }
        }
        _ => drop(fields.insert("path".into(), info.rest.as_str().into())),
    }
}
