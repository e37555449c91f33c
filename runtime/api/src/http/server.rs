//! The listener and its connections: TLS, protocol choice, every limit on a connection, and an orderly stop.
//! What happens to one request is in `front`. Invariant: a connection holds a slot as long as its socket is open,
//! also when it was upgraded to a tunnel.
use super::{
    front::Front,
    kubelet::Door,
    listen,
    strangers::{Stranger, Strangers},
};
use crate::{
    auth::front_proxy::Peer,
    deadline::{Deadline, Timers},
    error::Error,
    health::Scope,
};
use async_executor::Executor;
use async_io::{Async, Timer};
use event_listener::{Event, EventListener};
use futures_lite::{FutureExt, future};
use futures_rustls::{TlsAcceptor, server::TlsStream};
use hyper::rt::ReadBufCursor;
use smol_hyper::rt::{FuturesIo, SmolExecutor};
use std::{
    future::Future,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Bounds of the server; they come from the board profile. The defaults fit a board with 2 GB.
#[derive(Clone, Debug)]
pub struct Config {
    /// None: all addresses, IPv6 and IPv4 on one socket where the kernel has IPv6.
    pub address: Option<IpAddr>,
    /// 0 lets the kernel choose.
    pub port: u16,
    /// For one more, the oldest of nobody known is closed; without such, the new one.
    pub max_connections: usize,
    /// Requests at a time on one HTTP/2 connection (upstream's default).
    pub max_streams: u32,
    /// Short requests at a time: with the next, the seats that priority levels share.
    pub max_requests_inflight: usize,
    pub max_mutating_requests_inflight: usize,
    /// Watches at a time; more are told to retry (429).
    pub max_watches: usize,
    /// Of answers made and not yet taken, on all connections: beyond it large ones are refused.
    pub max_unsent_bytes: usize,
    pub handshake_timeout: Duration,
    /// HTTP/1.1: from a connection's last answer, or its start, to the end of the next request's headers.
    pub header_timeout: Duration,
    /// HTTP/2: without a request.
    pub idle_timeout: Duration,
    pub request_timeout: Duration,
    /// Compress large answers for clients that ask for it (never on loopback).
    pub gzip: bool,
    /// Called a moment after much memory was used and freed: an allocator keeps what lies below something still in use.
    pub give_memory_back: fn(),
}

impl Default for Config {
    fn default() -> Config {
        Config {
            address: None,
            port: 6443,
            max_connections: 512,
            max_streams: 100,
            max_requests_inflight: 100,
            max_mutating_requests_inflight: 50,
            max_watches: 2000,
            max_unsent_bytes: 64 << 20,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            request_timeout: Duration::from_secs(60),
            gzip: true,
            give_memory_back: || {},
        }
    }
}

/// Request headers of one request, in bytes (Go's default is 1 MiB; tokens and cookies fit in far less).
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// HTTP/2 flow control: what one client may send ahead of its reader, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// HTTP/2: what waits in memory for a slow reader, per stream.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// HTTP/1.1: read buffer, which also bounds the headers.
const HTTP1_BUFFER_BYTES: usize = 64 * 1024;
/// Above `max_connections`: those that were told to make room and have not gone yet.
const MAX_LEAVING: usize = 16;
/// An answer of which nothing could be sent for this long ends its connection: HTTP/2 lets a client that reads none of it look alive.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Of answers made and not yet taken, on one connection, whose next requests wait.
const MAX_UNSENT_BYTES: usize = 1 << 20;
/// From the first of many large requests until memory is given back.
const BURST: Duration = Duration::from_secs(2);
/// From the call to stop until connections are cut.
const STOP_GRACE: Duration = Duration::from_millis(1500);

/// Tells every connection and stream that the server stops.
#[derive(Default)]
pub struct Stop {
    stopped: AtomicBool,
    event: Event,
}

impl Stop {
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
    /// Resolves when, or as soon as, the server stops.
    pub fn listen(&self) -> EventListener {
        let listener = self.event.listen();
        if self.is_stopped() {
            self.event.notify(usize::MAX);
        }
        listener
    }
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.event.notify(usize::MAX);
    }
}

pub(super) struct Shared {
    pub config: Config,
    pub front: Front,
    pub stop: Stop,
    executor: Arc<Executor<'static>>,
    tls: TlsAcceptor,
    open: AtomicUsize,
    strangers: Strangers,
    /// Bytes of answers that were made and not yet taken.
    unsent: Arc<AtomicUsize>,
    /// Memory will be given back.
    burst: AtomicBool,
    closed: Event,
}

impl Shared {
    /// Much memory is being used for a moment.
    pub fn burst(self: &Arc<Self>) {
        if self.burst.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.clone();
        let later = async move {
            Timer::after(BURST).await;
            shared.burst.store(false, Ordering::Release);
            (shared.config.give_memory_back)();
        };
        crate::background::spawn(&self.executor, later);
    }
}

/// A running server. Dropping it leaves it running; `stop` ends it.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

/// Binds and starts to accept; when this returns, clients can connect.
pub fn serve(
    config: Config,
    tls: Arc<rustls::ServerConfig>,
    front: Front,
    executor: Arc<Executor<'static>>,
) -> Result<Server, Error> {
    front.flow.set_total(config.max_requests_inflight + config.max_mutating_requests_inflight);
    let listeners = listen::listen(config.address, config.port)?;
    let addresses = listeners.iter().filter_map(|l| l.local_addr().ok()).collect();
    let shared = Arc::new(Shared {
        config,
        front,
        stop: Stop::default(),
        executor: executor.clone(),
        tls: TlsAcceptor::from(tls),
        open: AtomicUsize::new(0),
        strangers: Strangers::default(),
        unsent: Arc::default(),
        burst: AtomicBool::new(false),
        closed: Event::new(),
    });
    let weak = Arc::downgrade(&shared);
    shared.front.health.register("shutdown", Scope::Ready, move || {
        let stops = weak.upgrade().is_none_or(|shared| shared.stop.is_stopped());
        if stops { Err("process is shutting down".into()) } else { Ok(()) }
    });
    for listener in listeners {
        let listener = Async::new(listener)
            .map_err(|source| Error::Listen { address: format!("port {}", shared.config.port), source })?;
        crate::background::spawn(&executor, accept(shared.clone(), listener, None));
    }
    Ok(Server { shared, addresses })
}

impl Server {
    /// A second door, with the same certificate and the same bounds.
    pub(crate) fn open(&self, port: u16, door: Door) -> Result<(), Error> {
        let door = Arc::new(door);
        for listener in listen::listen(self.shared.config.address, port)? {
            let listener =
                Async::new(listener).map_err(|source| Error::Listen { address: format!("port {port}"), source })?;
            let accepting = accept(self.shared.clone(), listener, Some(door.clone()));
            crate::background::spawn(&self.shared.executor, accepting);
        }
        Ok(())
    }
    /// Where it listens (one address; two when IPv6 and IPv4 need a socket each).
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
    /// Sockets open now.
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
    /// Closes the listener, ends streams, lets running requests finish (HTTP/2 clients get GOAWAY) and resolves when
    /// all connections are closed, or cut after 1.5 s.
    pub async fn stop(&self) {
        self.shared.stop.stop();
        let all_closed = async {
            loop {
                let closed = self.shared.closed.listen();
                if self.connections() == 0 {
                    return;
                }
                closed.await;
            }
        };
        let deadline = async {
            Timer::after(STOP_GRACE + Duration::from_millis(100)).await;
        };
        all_closed.or(deadline).await;
        if let Some(auditor) = &self.shared.front.auditor {
            auditor.flush().await;
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: Async<TcpListener>, door: Option<Arc<Door>>) {
    let mut stopped = pin!(shared.stop.listen());
    let mut full = false;
    loop {
        let next = async { Some(listener.accept().await) };
        let stop = async {
            stopped.as_mut().await;
            None
        };
        match stop.or(next).await {
            None => return,
            Some(Ok((stream, peer))) => {
                let crowded = shared.open.load(Ordering::Acquire) >= shared.config.max_connections;
                if crowded && !full {
                    shared.burst();
                    tracing::warn!(limit = shared.config.max_connections, %peer, "too many connections: closing those of nobody known");
                }
                full = crowded;
                if let Some(slot) = Slot::take(&shared) {
                    let connection = connection(shared.clone(), stream, (peer, door.clone()), slot);
                    crate::background::spawn(&shared.executor, connection);
                }
                // Who connects without end shall not keep the others from being served.
                future::yield_now().await;
            }
            // One that a peer reset before it was accepted.
            Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of descriptors or memory: the backlog holds the others until some are closed.
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot accept connections");
                Timer::after(Duration::from_millis(250)).await;
            }
        }
    }
}

/// A place among `max_connections`, given back when the socket is closed.
struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Option<Slot> {
        let limit = shared.config.max_connections;
        let free = |open: usize| (open < limit).then_some(open + 1);
        if shared.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).is_err() {
            // Those that were told to go may need a moment; more than a few at a time are not waited for.
            if shared.open.load(Ordering::Acquire) >= limit + MAX_LEAVING || !shared.strangers.close_oldest() {
                return None;
            }
            shared.open.fetch_add(1, Ordering::AcqRel);
        }
        Some(Slot(shared.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.closed.notify(usize::MAX);
    }
}

/// What is known about a connection while its requests are answered.
pub(super) struct Connection {
    pub peer: SocketAddr,
    /// None: it came to the API server's.
    pub door: Option<Arc<Door>>,
    /// What the client certificate says.
    pub identity: Peer,
    pub is_http2: bool,
    busy: AtomicUsize,
    idle_since: Mutex<Instant>,
    /// Answers being sent that have an end, and when a piece of one was last taken.
    sending: AtomicUsize,
    sent: Mutex<Instant>,
    /// Bytes of theirs, and of those of all connections.
    unsent: AtomicUsize,
    unsent_in_all: Arc<AtomicUsize>,
    max_unsent_in_all: usize,
    stranger: Stranger,
    /// A request ended, or the connection shall take no more.
    changed: Event,
    close: AtomicBool,
}

/// Keeps its connection from being idle.
pub(super) struct Busy(Arc<Connection>);

impl Connection {
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }
    /// Takes no more requests (GOAWAY) once the running ones are answered.
    pub fn close_after_this(&self) {
        self.close.store(true, Ordering::Release);
        self.changed.notify(usize::MAX);
    }
    /// The client is who it says, by its certificate or a request.
    pub fn known(&self) {
        self.stranger.known();
    }
    /// Resolves when enough of the answers before was taken.
    pub async fn room(&self) {
        loop {
            let changed = self.changed.listen();
            if self.unsent.load(Ordering::Acquire) < MAX_UNSENT_BYTES {
                return;
            }
            changed.await;
        }
    }
    /// Whether so many bytes may wait to be sent.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        bytes < SEND_BUFFER_BYTES || self.unsent_in_all.load(Ordering::Acquire) + bytes <= self.max_unsent_in_all
    }
    /// An answer that has an end is on its way, until what is returned is dropped; so many bytes of it are there already.
    pub fn sending(self: &Arc<Self>, bytes: usize) -> Sending {
        self.progress();
        self.unsent.fetch_add(bytes, Ordering::AcqRel);
        self.unsent_in_all.fetch_add(bytes, Ordering::AcqRel);
        if self.sending.fetch_add(1, Ordering::AcqRel) == 0 {
            self.changed.notify(usize::MAX);
        }
        Sending { connection: self.clone(), bytes }
    }
    fn progress(&self) {
        if let Ok(mut sent) = self.sent.lock() {
            *sent = Instant::now();
        }
    }
    /// Resolves when an answer that has an end is not being read.
    async fn stuck(&self) {
        loop {
            let changed = self.changed.listen();
            if self.sending.load(Ordering::Acquire) == 0 {
                changed.await;
                continue;
            }
            let left = UNREAD_TIMEOUT.saturating_sub(elapsed(&self.sent));
            if left.is_zero() {
                return;
            }
            changed.or(Deadline::after(left)).await;
        }
    }
    /// Resolves when the connection was idle for too long, or shall be closed.
    async fn ended(&self, idle_timeout: Duration) {
        loop {
            let changed = self.changed.listen();
            if self.close.load(Ordering::Acquire) {
                return;
            }
            if self.busy.load(Ordering::Acquire) > 0 {
                changed.await;
                continue;
            }
            let left = idle_timeout.saturating_sub(elapsed(&self.idle_since));
            if left.is_zero() {
                return;
            }
            changed.or(Deadline::after(left)).await;
        }
    }
    /// Resolves when no request has been running for a while, or a while after the server stopped.
    async fn unused(&self, stop: &Stop) {
        loop {
            let changed = self.changed.listen();
            if stop.is_stopped() || self.busy.load(Ordering::Acquire) == 0 {
                Deadline::after(STOP_GRACE).await;
                if stop.is_stopped() || self.busy.load(Ordering::Acquire) == 0 {
                    return;
                }
                continue;
            }
            changed.or(stop.listen()).await;
        }
    }
}

fn elapsed(since: &Mutex<Instant>) -> Duration {
    since.lock().map_or_else(|e| *e.into_inner(), |t| *t).elapsed()
}

/// See `Connection::sending`.
pub(super) struct Sending {
    connection: Arc<Connection>,
    bytes: usize,
}

impl Sending {
    /// A piece was taken.
    pub fn progress(&self) {
        self.connection.progress();
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.connection.sending.fetch_sub(1, Ordering::AcqRel);
        self.connection.unsent_in_all.fetch_sub(self.bytes, Ordering::AcqRel);
        if self.connection.unsent.fetch_sub(self.bytes, Ordering::AcqRel) >= MAX_UNSENT_BYTES {
            self.connection.changed.notify(usize::MAX);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Ok(mut since) = self.0.idle_since.lock() {
                *since = Instant::now();
            }
            self.0.changed.notify(usize::MAX);
        }
    }
}

/// The client, and where it came in.
type Came = (SocketAddr, Option<Arc<Door>>);

async fn connection(shared: Arc<Shared>, stream: Async<TcpStream>, from: Came, slot: Slot) {
    let stranger = shared.strangers.add();
    let room = stranger.clone();
    let served = serve_one(shared, stream, from, slot, stranger);
    room.asked_to_go().or(served).await;
}

async fn serve_one(shared: Arc<Shared>, stream: Async<TcpStream>, from: Came, slot: Slot, stranger: Stranger) {
    let (peer, door) = from;
    listen::tune(stream.get_ref());
    let handshake = async { shared.tls.accept(stream).await.map_err(Some) };
    let deadline = async {
        Deadline::after(shared.config.handshake_timeout).await;
        Err(None)
    };
    let tls = match handshake.or(deadline).await {
        Ok(tls) => tls,
        Err(error) => {
            let error = error.map_or_else(|| "timed out".into(), |e: io::Error| e.to_string());
            tracing::debug!(%peer, error, "TLS handshake");
            return;
        }
    };
    let (_, session) = tls.get_ref();
    let identity = match session.peer_certificates() {
        Some(chain) => Peer::of(chain, &(shared.front.front_proxy_authority)()),
        None => Peer::Nobody,
    };
    // Only the API server believes what its proxy says of others.
    let identity = if door.is_some() && identity == Peer::FrontProxy { Peer::Stranger } else { identity };
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let state = Arc::new(Connection {
        peer,
        door,
        identity,
        is_http2,
        busy: AtomicUsize::new(0),
        idle_since: Mutex::new(Instant::now()),
        sending: AtomicUsize::new(0),
        sent: Mutex::new(Instant::now()),
        unsent: AtomicUsize::new(0),
        unsent_in_all: shared.unsent.clone(),
        max_unsent_in_all: shared.config.max_unsent_bytes,
        stranger,
        changed: Event::new(),
        close: AtomicBool::new(false),
    });
    let io = Io { inner: FuturesIo::new(tls), _slot: slot };
    let service = {
        let (shared, state) = (shared.clone(), state.clone());
        hyper::service::service_fn(move |request| super::front::answer(shared.clone(), state.clone(), request))
    };
    let result = if is_http2 {
        let connection = hyper::server::conn::http2::Builder::new(SmolExecutor::new(shared.executor.clone()))
            .timer(Timers)
            .max_concurrent_streams(shared.config.max_streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .serve_connection(io, service);
        drive(&shared, &state, connection).await
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(Timers)
            .header_read_timeout(shared.config.header_timeout)
            .max_buf_size(HTTP1_BUFFER_BYTES)
            .serve_connection(io, service)
            .with_upgrades();
        drive(&shared, &state, connection).await
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection");
    }
}

/// Both of hyper's connection types.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S, E> Graceful for hyper::server::conn::http2::Connection<I, S, E>
where
    Self: Future<Output = hyper::Result<()>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = super::body::Outgoing>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, super::body::Outgoing>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Graceful for hyper::server::conn::http1::UpgradeableConnection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = super::body::Outgoing>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs a connection until it ends by itself, is idle too long, or the server stops.
async fn drive(shared: &Shared, state: &Connection, connection: impl Graceful + Send) -> hyper::Result<()> {
    let mut connection: Pin<&mut (dyn Graceful + Send)> = pin!(connection);
    let stopped = async {
        shared.stop.listen().await;
        None
    };
    let ended = async {
        state.ended(shared.config.idle_timeout).await;
        None
    };
    let mut stuck = pin!(async {
        state.stuck().await;
        Some(Ok(()))
    });
    let first = async { Some(connection.as_mut().await) }.or(stopped).or(ended).or(stuck.as_mut()).await;
    if let Some(result) = first {
        return result;
    }
    connection.as_mut().finish();
    // A peer that is asked to leave may not listen.
    let cut = async {
        state.unused(&shared.stop).await;
        Some(Ok(()))
    };
    let last = async { Some(connection.await) }.or(cut).or(stuck).await;
    last.unwrap_or(Ok(()))
}

/// The encrypted socket; holds the connection's slot wherever it goes.
struct Io {
    inner: FuturesIo<TlsStream<Async<TcpStream>>>,
    _slot: Slot,
}

impl hyper::rt::Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    /// So that a body is not copied behind its head, and a frame not encrypted apart from its head.
    fn is_write_vectored(&self) -> bool {
        true
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
