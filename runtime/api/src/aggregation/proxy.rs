//! Requests for a remote group go to its server, with who asks in headers that its front-proxy trust believes
//! (kube-aggregator's handler_proxy.go).
use super::{GROUP, Route, condition};
use crate::{
    http::{Request, Response},
    rest::forward::{Forward, Forwarded, body, forward, headers_back},
    server::Api,
};
use async_io::Timer;
use futures_lite::FutureExt;
use http::{HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::{sync::Arc, time::Duration};

/// Discovery is asked by every client for every server: a slow one must not hold up the others.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// A key of `extra` as part of a header's name (client-go's transport headerKeyEscape, RFC 7230 tokens).
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// None: the path is served here.
pub(crate) async fn answer(api: &Api, request: &mut Request) -> Option<Response> {
    if api.aggregation.is_empty() {
        return None;
    }
    let name = name_of(&request.path)?;
    if !api.aggregation.remote().contains_key(&name) {
        return None;
    }
    let service = api.lookup(GROUP, "v1", "apiservices", "", &name)?;
    let route = Route::of(&service)?;
    let unavailable = || Response::text(503, "service unavailable\n");
    if condition(&service).get("status").str() != "True" {
        return Some(unavailable());
    }
    let Ok(endpoint) = route.endpoint(api) else { return Some(unavailable()) };
    let host = match &endpoint.place {
        crate::outbound::Place::Address(address) => address.to_string(),
        crate::outbound::Place::Name(name, port) => format!("{name}:{port}"),
    };
    let path = request.path.clone();
    let is_discovery = !request.info.is_resource && path.trim_matches('/').split('/').count() == 3;
    let headers = identity(&request.user);
    let to = Forward { endpoint: &endpoint, host: &host, path: &path, headers, drops: is_identity };
    let sent = forward(api, request, to);
    let sent = match is_discovery {
        false => sent.await,
        true => {
            let late = async {
                Timer::after(DISCOVERY_TIMEOUT).await;
                Err("context deadline exceeded".to_owned())
            };
            sent.or(late).await
        }
    };
    Some(match sent {
        Ok(Forwarded::Upgraded(response)) => response,
        Ok(Forwarded::Answered(response, kept)) => {
            let status = response.status().as_u16();
            if (300..400).contains(&status) && response.headers().contains_key(http::header::LOCATION) {
                return Some(Response::text(
                    502,
                    "the backend attempted to redirect this request, which is not permitted",
                ));
            }
            let headers = headers_back(response.headers(), false);
            Response { status, headers, body: body(Vec::new(), response.into_body(), Arc::new(kept)) }
        }
        Err(error) => Response::text(503, format!("error trying to reach service: {error}\n")),
    })
}

/// The APIService that a path belongs to: "v1.group".
fn name_of(path: &str) -> Option<String> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (group, version) = match parts.next()? {
        "apis" => (parts.next()?, parts.next()?),
        "api" => ("", parts.next()?),
        "openapi" => match (parts.next()?, parts.next()?) {
            ("v3", "apis") => (parts.next()?, parts.next()?),
            _ => return None,
        },
        _ => return None,
    };
    Some(format!("{version}.{group}")).filter(|_| !version.is_empty())
}

/// What only we may say to the other server.
fn is_identity(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "x-remote-user" | "x-remote-group" | "x-remote-uid") || name.starts_with("x-remote-extra-")
}

pub(super) fn identity(user: &crate::http::User) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let mut put = |name: HeaderName, value: &str| {
        headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    };
    put(HeaderName::from_static("x-remote-user"), &user.name);
    if !user.uid.is_empty() {
        put(HeaderName::from_static("x-remote-uid"), &user.uid);
    }
    for group in &user.groups {
        put(HeaderName::from_static("x-remote-group"), group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, TOKEN));
        let Ok(name) = HeaderName::try_from(name) else { continue };
        for value in values {
            put(name.clone(), value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_apiservice() {
        for (path, name) in [
            ("/apis/metrics.k8s.io/v1beta1", Some("v1beta1.metrics.k8s.io")),
            ("/apis/metrics.k8s.io/v1beta1/nodes/a", Some("v1beta1.metrics.k8s.io")),
            ("/openapi/v3/apis/metrics.k8s.io/v1beta1", Some("v1beta1.metrics.k8s.io")),
            ("/apis/metrics.k8s.io", None),
            ("/apis/metrics.k8s.io/", None),
            ("/apis", None),
            ("/api/v1/pods", Some("v1.")),
            ("/openapi/v3", None),
            ("/version", None),
        ] {
            assert_eq!(name_of(path).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn who_asks_is_told_in_headers() {
        let mut user = crate::http::User::new("eve", &["a", "b"]);
        user.extra.insert("example.org/scope".into(), vec!["x".into(), "y".into()]);
        let headers = identity(&user);
        let told: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
        assert_eq!(
            told,
            [
                "x-remote-user: eve",
                "x-remote-group: a",
                "x-remote-group: b",
                "x-remote-extra-example.org%2fscope: x",
                "x-remote-extra-example.org%2fscope: y"
            ]
        );
        assert!(headers.iter().all(|(name, _)| is_identity(name)));
    }
}
