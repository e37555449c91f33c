//! ComponentStatuses: whether scheduler, controllers and store are well, found out when somebody asks (upstream:
//! registry/core/componentstatus). What runs in this process is well while the process is; in place of a part that does not,
//! upstream's own program is asked, where it listens on this machine.
use super::{
    items::{self, Items, List},
    media,
    options::ListOptions,
};
use crate::{
    Object,
    http::{Request, Response},
    outbound::{self, Endpoint, Place, Tls, Trust},
    server::Api,
};
use async_io::Timer;
use bytes::Bytes;
use futures_lite::FutureExt;
use http::header;
use http_body_util::Full;
use mote_schema::{Kind, Status, json, protobuf::ListMeta};
use std::{sync::Arc, time::Duration};

/// The ports of upstream's programs.
const PROGRAMS: [(&str, u16); 2] = [("scheduler", 10259), ("controller-manager", 10257)];
const STORE: &str = "etcd-0";
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Of a program's answer that is shown.
const MAX_SHOWN_BYTES: usize = 10 * 1024;

/// Status of the condition, message, error.
type Found = (&'static str, String, String);

pub(super) fn is_theirs(kind: &Kind) -> bool {
    kind.plural == "componentstatuses" && kind.group.is_empty()
}

pub(super) async fn answer(api: &Api, kind: &Arc<Kind>, request: &Request) -> Result<Response, Status> {
    if request.info.verb == "watch" {
        return Err(Status::method_not_supported("", &kind.plural, "watch"));
    }
    let form = media::negotiate(request, kind)?;
    if request.info.verb == "get" {
        let name = request.info.name.as_str();
        if name != STORE && !PROGRAMS.iter().any(|(known, _)| *known == name) {
            return Err(Status::not_found("", "componentstatus", name));
        }
        return media::respond(200, &status(api, kind, name).await?, form);
    }
    let options = ListOptions::parse(&request.query, kind, "")?;
    let mut items = Vec::new();
    for name in PROGRAMS.iter().map(|(name, _)| *name).chain([STORE]) {
        let object = status(api, kind, name).await?;
        if options.filter.matches(&object) {
            items.push(object);
        }
    }
    items::respond(api, List { kind: kind.clone(), items: Items::Read(items), meta: ListMeta::default() }, form).await
}

async fn status(api: &Api, kind: &Arc<Kind>, name: &str) -> Result<Object, Status> {
    let port = PROGRAMS.iter().find(|(known, _)| *known == name).map(|(_, port)| *port);
    let (status, message, error) = match (port, api.store.trouble()) {
        (Some(port), _) if !api.runs(name) => probe(api, port).await,
        (None, Some(trouble)) => ("False", String::new(), trouble.to_string()),
        _ => ("True", "ok".into(), String::new()),
    };
    let mut condition = json!({"type": "Healthy", "status": status});
    for (field, text) in [("message", message), ("error", error)].into_iter().filter(|(_, text)| !text.is_empty()) {
        condition[field] = text.into();
    }
    let doc = Api::encode(json!({"metadata": {"name": name}, "conditions": [condition]}))?;
    Ok(Object { kind: kind.clone(), doc, revision: 0 })
}

/// As upstream's probe of an HTTP endpoint has it (pkg/probe/http).
async fn probe(api: &Api, port: u16) -> Found {
    let tls = Tls { server_name: "localhost".into(), trust: Trust::Anyone, identity: None };
    let endpoint = Endpoint { place: Place::of("127.0.0.1", port), tls: Some(tls) };
    let url = format!("https://127.0.0.1:{port}/healthz");
    let failed = |why: String| ("False", format!("Get {url:?}: {why}"), String::new());
    let request = http::Request::get("/healthz").header(header::HOST, format!("127.0.0.1:{port}"));
    let Ok(request) = request.body(Full::new(Bytes::new())) else { return failed("no request".into()) };
    let asked = async {
        let (response, kept) = api.outbound.send(&endpoint, request).await.map_err(&failed)?;
        let code = response.status();
        let text =
            outbound::read(response.into_body(), MAX_SHOWN_BYTES).await.map_err(|error| failed(error.to_string()))?;
        drop(kept);
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    };
    let late = async {
        Timer::after(PROBE_TIMEOUT).await;
        Err(failed("context deadline exceeded".into()))
    };
    match asked.or(late).await {
        Err(found) => found,
        Ok((code, text)) if code.is_success() || code.is_redirection() => ("True", text, String::new()),
        Ok((code, _)) => ("False", format!("HTTP probe failed with statuscode: {}", code.as_u16()), String::new()),
    }
}
