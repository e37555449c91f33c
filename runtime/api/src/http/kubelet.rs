//! The kubelet's own port: another door to what `nodes/NAME/proxy` answers, with a kubelet's rules. Nobody unknown comes in,
//! nobody speaks for another, and who may ask for what is in the same roles, by the subresources that upstream's kubelet
//! asks about (pkg/kubelet/server/{auth,server}.go with KubeletFineGrainedAuthz).
use super::{
    front::read,
    request::{Handler, Query, Request, RequestInfo, Response, User},
    server::{Connection, Shared},
};
use crate::{
    auth,
    rbac::{Attributes, Authorizer},
};
use hyper::body::Incoming;
use std::sync::Arc;

/// Which node's kubelet it is, and who answers.
pub(crate) struct Door {
    pub node: String,
    pub handler: Arc<dyn Handler>,
}

impl Door {
    /// The same as of `nodes/NAME/proxy/PATH` at the API server.
    fn info(&self, method: &http::Method, path: &str) -> RequestInfo {
        let verb = match method.as_str() {
            "POST" => "create",
            "GET" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        };
        RequestInfo {
            is_resource: true,
            path: path.into(),
            verb: verb.into(),
            prefix: "api".into(),
            version: "v1".into(),
            resource: "nodes".into(),
            subresource: "proxy".into(),
            name: self.node.clone(),
            rest: path.strip_prefix('/').unwrap_or(path).into(),
            ..RequestInfo::default()
        }
    }
}

/// One of these is enough.
fn subresources(path: &str) -> &'static [&'static str] {
    match path.split('/').next().unwrap_or("") {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "flagz" => &["configz"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

/// Whom the kubelet does not let in, and what it says to them.
fn refuse(authorizer: &Authorizer, user: &User, info: &RequestInfo) -> Option<Response> {
    let needed = subresources(&info.rest);
    let may = |subresource| authorizer.authorize(user, &Attributes { subresource, ..Attributes::from(info) }).is_ok();
    if needed.iter().any(|subresource| may(subresource)) {
        return None;
    }
    let (name, verb, needed) = (&user.name, &info.verb, needed.join(" "));
    let said = format!("Forbidden (user={name}, verb={verb}, resource=nodes, subresource(s)=[{needed}])\n");
    Some(Response::text(403, said))
}

/// From the headers to the answer; None for those whom nobody knows.
pub(super) async fn take(
    shared: &Shared,
    connection: &Connection,
    door: &Door,
    asked: (http::request::Parts, String, Query),
    upgrade: Option<hyper::upgrade::OnUpgrade>,
    body: &mut Option<Incoming>,
) -> Option<Response> {
    let (parts, path, query) = asked;
    let (method, mut headers) = (parts.method, parts.headers);
    let user = match shared.front.authenticator.authenticate(&connection.identity, &mut headers) {
        Ok(user) if user.name != auth::ANONYMOUS => user,
        _ => return None,
    };
    connection.known();
    let info = door.info(&method, &path);
    if let Some(refused) = refuse(&shared.front.authorizer, &user, &info) {
        return Some(refused);
    }
    let body = match read(shared, body).await {
        Ok(body) => body,
        Err(response) => return Some(response),
    };
    let peer = Some(connection.peer);
    Some(door.handler.handle(Request { method, path, query, headers, body, user, info, peer, upgrade }).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_needs() {
        for (path, want) in [
            ("stats/summary", "stats"),
            ("metrics/resource", "metrics"),
            ("metrics", "metrics"),
            ("metricsx", "proxy"),
            ("pods", "pods proxy"),
            ("runningpods/", "pods proxy"),
            ("configz/", "configz proxy"),
            ("exec/n/p/c", "proxy"),
            ("/stats", "proxy"),
            ("", "proxy"),
        ] {
            assert_eq!(subresources(path).join(" "), want, "{path}");
        }
    }
}
