//! A connection to somewhere: TCP, and TLS over it when asked for. Failures read as Go's net package says them.
use super::tls;
use crate::{certs::Issued, dial, driver::BoxFuture};
use async_io::{Async, Timer};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_lite::FutureExt;
use std::{
    net::{IpAddr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

/// Until a connection stands, as upstream's transports.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 4;

pub(crate) use mote_grpc::Socket as Stream;

/// Who answers, and how it is known to be them. Connections to equal endpoints are shared.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub place: Place,
    /// None is plain HTTP.
    pub tls: Option<Tls>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Address(SocketAddr),
    /// To be looked up.
    Name(String, u16),
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub server_name: String,
    pub trust: Trust,
    /// A client certificate.
    pub identity: Option<Arc<Issued>>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Whoever answers.
    Anyone,
    /// The authorities this machine trusts.
    System,
    /// PEM.
    Bundle(Arc<str>),
}

impl Trust {
    /// From a `caBundle` field.
    pub fn bundle(base64: &str) -> Result<Trust, String> {
        let pem = STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        pem.map(|pem| Trust::Bundle(pem.into())).ok_or_else(|| "unable to load root certificates: not PEM".into())
    }
}

impl Place {
    pub fn of(host: &str, port: u16) -> Place {
        match host.parse::<IpAddr>() {
            Ok(ip) => Place::Address(SocketAddr::new(ip, port)),
            Err(_) => Place::Name(host.to_owned(), port),
        }
    }
}

/// For HTTP/1.1.
pub(crate) fn connect(endpoint: &Endpoint) -> BoxFuture<'_, Result<Box<dyn Stream>, String>> {
    connect_for(endpoint, b"http/1.1")
}

/// `protocol` as ALPN names it. Boxed: it is deep in every write's future, and rare.
pub(crate) fn connect_for<'a>(
    endpoint: &'a Endpoint,
    protocol: &'static [u8],
) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
    Box::pin(async move {
        let dial = async {
            let stream: Box<dyn Stream> = Box::new(dial(&endpoint.place).await?);
            let Some(tls) = &endpoint.tls else { return Ok(stream) };
            if tls.trust == Trust::Anyone && tls.identity.is_none() {
                return Ok(Box::new(dial::insecure_tls(stream, &tls.server_name).await?) as Box<dyn Stream>);
            }
            Ok(Box::new(tls::connect(stream, tls, protocol).await?) as Box<dyn Stream>)
        };
        let late = async {
            Timer::after(DIAL_TIMEOUT).await;
            Err(match &endpoint.place {
                Place::Address(address) => format!("dial tcp {address}: i/o timeout"),
                Place::Name(name, port) => format!("dial tcp {name}:{port}: i/o timeout"),
            })
        };
        dial.or(late).await
    })
}

async fn dial(place: &Place) -> Result<Async<TcpStream>, String> {
    let (name, port) = match place {
        Place::Address(address) => return dial_address(*address).await,
        Place::Name(name, port) => (name, *port),
    };
    let mut failure = format!("dial tcp: lookup {name}: no such host");
    for ip in crate::names::lookup(name).await.into_iter().take(MAX_ADDRESSES) {
        match dial_address(SocketAddr::new(ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(why) => failure = why,
        }
    }
    Err(failure)
}

async fn dial_address(address: SocketAddr) -> Result<Async<TcpStream>, String> {
    let stream = Async::<TcpStream>::connect(address).await.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {address}: {why}")
    })?;
    // A slower exchange, not a broken one.
    stream.get_ref().set_nodelay(true).unwrap_or(());
    Ok(stream)
}

/// An exchange that broke off, in Go's words.
pub(crate) fn explain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if let Some(io) = cause.downcast_ref::<std::io::Error>() {
        match io.kind() {
            std::io::ErrorKind::ConnectionReset => return "read: connection reset by peer".into(),
            // Closed without TLS' farewell.
            std::io::ErrorKind::UnexpectedEof => return "EOF".into(),
            std::io::ErrorKind::BrokenPipe => return "write: broken pipe".into(),
            _ => {}
        }
    }
    cause.to_string()
}
