//! Listening sockets and their options.
use crate::error::Error;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen as start, socket_with, sockopt},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// Connections that wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 1024;
/// A peer whose power was pulled is found in about this time (Go's servers use 3 minutes too).
const KEEPALIVE: Duration = Duration::from_secs(180);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// One socket for IPv6 and IPv4 when no address is given and the kernel has IPv6.
pub fn listen(address: Option<IpAddr>, port: u16) -> Result<Vec<TcpListener>, Error> {
    let candidates = match address {
        Some(address) => vec![address],
        None => vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
    };
    let mut failed = None;
    for address in candidates {
        match open(SocketAddr::new(address, port)) {
            Ok(listener) => return Ok(vec![listener]),
            Err(Errno::ADDRINUSE) => return Err(Error::PortInUse { port }),
            Err(error) => failed = Some((address, error)),
        }
    }
    let (address, error) = failed.unwrap_or((IpAddr::V4(Ipv4Addr::UNSPECIFIED), Errno::INVAL));
    Err(Error::Listen { address: SocketAddr::new(address, port).to_string(), source: io::Error::from(error) })
}

fn open(address: SocketAddr) -> Result<TcpListener, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    bind(&socket, &address)?;
    start(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A peer that takes none of what was sent to it for this long is cut off: a watcher that stopped reading, a dead link.
const UNREAD_TIMEOUT_MS: u32 = 60_000;

/// Options of an accepted connection. A socket that refuses one still serves.
pub fn tune(stream: &TcpStream) {
    let tuned = sockopt::set_tcp_nodelay(stream, true)
        .and_then(|()| sockopt::set_socket_keepalive(stream, true))
        .and_then(|()| sockopt::set_tcp_keepidle(stream, KEEPALIVE))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL))
        .and_then(|()| sockopt::set_tcp_user_timeout(stream, UNREAD_TIMEOUT_MS));
    if let Err(error) = tuned {
        tracing::debug!(%error, "socket options");
    }
}
