//! The small HTTP client of probes and hooks: a GET, redirects followed as long as they stay on the host, a bounded body.
use crate::spec::{Container, HTTPGetAction, HTTPHeader, IntOrString};
use async_io::{Async, Timer};
use bytes::Bytes;
use futures_lite::future;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use smol_hyper::rt::FuturesIo;
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

/// Upstream's limit for what a probe reads.
const MAX_BODY_BYTES: usize = 10 << 10;
/// Go's http.Client
const MAX_REDIRECTS: usize = 10;

pub struct Response {
    pub status: u16,
    pub location: Option<String>,
    pub body: String,
}

pub enum Failed {
    /// The request cannot be made: a fault of the spec.
    Request(String),
    /// No answer: in Go's words, since they are shown to users.
    Answer(String),
}

/// A port by number, or by the name of one of the container's.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match (named, name.parse()) {
                (Some(p), _) => p.container_port,
                (None, Ok(n)) => n,
                (None, Err(_)) => return Err(format!("couldn't find port: {name} in {}", container.name)),
            }
        }
    };
    u16::try_from(number).ok().filter(|n| *n > 0).ok_or(format!("invalid port number: {number}"))
}

pub async fn connect(host: &str, port: u16, timeout: Duration) -> Result<Async<TcpStream>, String> {
    let place = match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
        _ => format!("{host}:{port}"),
    };
    let dial = async {
        let address = match host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => {
                let ip = mote_api::names::lookup(host).await.into_iter().next();
                SocketAddr::new(ip.ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))?, port)
            }
        };
        Async::<TcpStream>::connect(address).await.map_err(|e| {
            let why = match e.kind() {
                std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
                std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
                _ => e.to_string(),
            };
            format!("dial tcp {place}: {why}")
        })
    };
    let late = async {
        Timer::after(timeout).await;
        Err(format!("dial tcp {place}: i/o timeout"))
    };
    future::or(dial, late).await
}

pub async fn get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    agent: &str,
    timeout: Duration,
) -> Result<Response, Failed> {
    let port = port(&action.port, container).map_err(Failed::Request)?;
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip).to_owned();
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let tls = action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https"));
    let headers = action.http_headers.as_deref().unwrap_or_default();
    let mut place = Place { tls, host, port, path };
    let first = place.url();
    let exchanges = async {
        for _ in 0..MAX_REDIRECTS {
            let answer = place.get(agent, headers, timeout).await?;
            let is_redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            match answer.location.as_deref().filter(|_| is_redirect).and_then(|to| place.redirected(to)) {
                Some(next) => place = next,
                None => return Ok(answer),
            }
        }
        Err(place.failed(format!("stopped after {MAX_REDIRECTS} redirects")))
    };
    let late = async {
        Timer::after(timeout).await;
        let why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        Err(Failed::Answer(format!("Get \"{first}\": {why}")))
    };
    future::or(exchanges, late).await
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Place {
    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }

    fn failed(&self, why: String) -> Failed {
        Failed::Answer(format!("Get \"{}\": {why}", self.url()))
    }

    async fn get(&self, agent: &str, headers: &[HTTPHeader], timeout: Duration) -> Result<Response, Failed> {
        let request = request(&self.path, &self.authority(), agent, headers).map_err(Failed::Request)?;
        let shown = |why: String| self.failed(why);
        let stream = connect(&self.host, self.port, timeout).await.map_err(&shown)?;
        if self.tls {
            let stream = mote_api::dial::insecure_tls(stream, &self.host).await.map_err(&shown)?;
            exchange(stream, request).await.map_err(&shown)
        } else {
            exchange(stream, request).await.map_err(&shown)
        }
    }

    /// None: it leads to another host, or nowhere (upstream's RedirectChecker, pkg/probe/http/http.go).
    fn redirected(&self, to: &str) -> Option<Place> {
        let to = to.split('#').next()?;
        let (tls, rest) = match to.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, Some(rest)),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, Some(rest)),
            _ => (self.tls, to.strip_prefix("//")),
        };
        let Some(rest) = rest else {
            let (path, _) = self.path.split_once('?').unwrap_or((&self.path, ""));
            let path = match to {
                _ if to.starts_with('/') => to.to_owned(),
                _ if to.is_empty() || to.starts_with('?') => format!("{path}{to}"),
                _ => format!("{}/{to}", path.rsplit_once('/')?.0),
            };
            return Some(Place { path, host: self.host.clone(), ..*self });
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let is_here = host.trim_matches(['[', ']']).eq_ignore_ascii_case(&self.host);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        is_here.then(|| Place { tls, host: self.host.clone(), port, path })
    }
}

fn request(path: &str, authority: &str, agent: &str, headers: &[HTTPHeader]) -> Result<Request<Empty<Bytes>>, String> {
    let given = |name: &str| headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value.as_str());
    let mut request = Request::get(path)
        .header("host", given("host").unwrap_or(authority))
        .header("user-agent", given("user-agent").unwrap_or(agent))
        .header("accept", given("accept").unwrap_or("*/*"))
        .header("connection", "close");
    const SET: [&str; 4] = ["host", "user-agent", "accept", "connection"];
    for header in headers.iter().filter(|h| !SET.contains(&h.name.to_ascii_lowercase().as_str())) {
        request = request.header(&header.name, &header.value);
    }
    request.body(Empty::new()).map_err(|e| e.to_string())
}

trait Stream: futures_lite::AsyncRead + futures_lite::AsyncWrite + Send + Unpin + 'static {}
impl<T: futures_lite::AsyncRead + futures_lite::AsyncWrite + Send + Unpin + 'static> Stream for T {}

async fn exchange(stream: impl Stream, request: Request<Empty<Bytes>>) -> Result<Response, String> {
    // One copy of hyper's machinery for both kinds of stream.
    let stream: Box<dyn Stream> = Box::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(FuturesIo::new(stream)).await.map_err(|e| e.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                bytes.extend_from_slice(&data[..data.len().min(MAX_BODY_BYTES - bytes.len())]);
            }
            if bytes.len() == MAX_BODY_BYTES {
                break;
            }
        }
        Ok(Response {
            status: head.status.as_u16(),
            location: head.headers.get("location").and_then(|l| l.to_str().ok()).map(str::to_owned),
            body: String::from_utf8_lossy(&bytes).into_owned(),
        })
    };
    // The connection moves only while it is polled beside the request.
    let drive = async {
        match connection.await {
            Ok(()) => future::pending().await,
            Err(e) => Err(e.to_string()),
        }
    };
    future::or(answer, drive).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_the_host() {
        let place = |tls, port, path: &str| Place { tls, host: "10.0.0.5".into(), port, path: path.into() };
        let check = |to: &str, expected: Option<Place>| {
            assert_eq!(place(false, 8080, "/a/b?x=1").redirected(to), expected, "{to}");
        };
        check("/healthz", Some(place(false, 8080, "/healthz")));
        check("c?y=2#z", Some(place(false, 8080, "/a/c?y=2")));
        check("?y=2", Some(place(false, 8080, "/a/b?y=2")));
        check("http://10.0.0.5/c", Some(place(false, 80, "/c")));
        check("HTTPS://10.0.0.5:8443?y", Some(place(true, 8443, "/?y")));
        check("//10.0.0.5:81/c", Some(place(false, 81, "/c")));
        check("http://0.0.0.0/", None);
        check("https://example.com:8080/", None);
        check("http://10.0.0.5:port/", None);
        let six = Place { tls: false, host: "fd00::5".into(), port: 80, path: "/".into() };
        assert_eq!(six.redirected("http://[FD00::5]/").map(|p| p.url()), Some("http://[fd00::5]:80/".into()));
        assert_eq!(six.redirected("http://[fd00::5]:81/").map(|p| p.port), Some(81));
    }
}
