//! One HTTP/2 connection to the socket, shared by all calls. A connection that broke is dialled again by the next
//! call; a call that was not sent yet is repeated once, one that was sent is not.
use crate::{
    error::{Code, Error},
    frame,
};
use async_executor::Executor;
use async_io::{Async, Timer};
use async_lock::Mutex;
use bytes::{Bytes, BytesMut};
use futures_lite::{AsyncRead, AsyncWrite, future};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use prost::Message;
use smol_hyper::rt::{FuturesIo, SmolExecutor};
use std::{
    marker::PhantomData,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

type Sender = SendRequest<Full<Bytes>>;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a server listens.
pub(crate) enum Target {
    /// The first of these sockets that exists.
    Unix(Vec<PathBuf>),
    Tcp(SocketAddr),
}

pub(crate) struct Channel {
    target: Target,
    executor: Arc<Executor<'static>>,
    sender: Mutex<Option<Sender>>,
}

/// One call's name, as the errors say it, and its path.
#[derive(Clone, Copy)]
pub(crate) struct Method {
    pub doing: &'static str,
    pub path: &'static str,
}

impl Channel {
    pub fn new(target: Target, executor: Arc<Executor<'static>>) -> Channel {
        Channel { target, executor, sender: Mutex::new(None) }
    }

    /// The first that exists, else the first: it is the one whose absence is reported.
    pub fn socket(&self) -> &Path {
        let Target::Unix(sockets) = &self.target else { return Path::new("") };
        let found = sockets.iter().find(|s| s.exists()).or(sockets.first());
        found.map_or(Path::new(""), PathBuf::as_path)
    }

    /// One kind of stream for both, so that hyper's machinery is compiled once.
    async fn stream_to(&self) -> Result<Box<dyn Io>, String> {
        match &self.target {
            Target::Unix(_) => {
                let socket = self.socket();
                let stream = Async::<UnixStream>::connect(socket).await;
                Ok(Box::new(stream.map_err(|e| format!("dial unix {}: {e}", socket.display()))?))
            }
            Target::Tcp(address) => {
                let stream = Async::<TcpStream>::connect(*address).await;
                Ok(Box::new(stream.map_err(|e| format!("dial tcp {address}: {e}"))?))
            }
        }
    }

    async fn dial(&self, doing: &'static str) -> Result<Sender, Error> {
        let failed = |what: String| Error::Unavailable { doing, message: format!("connection error: {what}") };
        let connect = async {
            let io = self.stream_to().await.map_err(failed)?;
            http2::Builder::new(SmolExecutor::new(self.executor.clone()))
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .handshake(FuturesIo::new(io))
                .await
                .map_err(|e| failed(e.to_string()))
        };
        let late = async {
            Timer::after(DIAL_TIMEOUT).await;
            Err(failed("dial timed out".into()))
        };
        let (sender, connection) = future::or(connect, late).await?;
        self.executor
            .spawn(async move {
                if let Err(e) = connection.await {
                    tracing::debug!(error = %e, "connection to the container runtime ended");
                }
            })
            .detach();
        Ok(sender)
    }

    /// A live connection: the one there is, or a new one.
    async fn sender(&self, doing: &'static str) -> Result<Sender, Error> {
        let mut slot = self.sender.lock().await;
        if let Some(sender) = slot.as_ref().filter(|s| !s.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.dial(doing).await?;
        *slot = Some(sender.clone());
        Ok(sender)
    }

    async fn send(
        &self,
        method: Method,
        message: Bytes,
        timeout: Option<Duration>,
    ) -> Result<http::Response<Incoming>, Error> {
        let doing = method.doing;
        let mut retried = false;
        loop {
            let mut sender = self.sender(doing).await?;
            let mut request = Request::post(format!("http://localhost{}", method.path))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("user-agent", concat!("mote/", env!("CARGO_PKG_VERSION")));
            if let Some(timeout) = timeout {
                request = request.header("grpc-timeout", frame::timeout_header(timeout));
            }
            let request = request
                .body(Full::new(message.clone()))
                .map_err(|e| Error::Protocol { doing, message: e.to_string() })?;
            let error = match sender.ready().await {
                Ok(()) => match sender.try_send_request(request).await {
                    Ok(response) => return Ok(response),
                    Err(mut failed) => match failed.take_message() {
                        Some(_unsent) => failed.into_error(),
                        None => return Err(broken(doing, failed.into_error())),
                    },
                },
                Err(e) => e,
            };
            // Nothing was sent: the connection had ended under us. Once more on a new one.
            *self.sender.lock().await = None;
            if retried {
                return Err(broken(doing, error));
            }
            retried = true;
        }
    }

    pub async fn unary(&self, method: Method, message: Bytes, timeout: Option<Duration>) -> Result<Bytes, Error> {
        let doing = method.doing;
        let call = async {
            let response = self.send(method, message, timeout).await?;
            check_head(doing, response.status(), response.headers())?;
            let mut body = response.into_body();
            let mut buffer = BytesMut::new();
            let mut answer = None;
            while let Some(part) = body.frame().await {
                match part.map_err(|e| broken(doing, e))?.into_data() {
                    Ok(data) => {
                        buffer.extend_from_slice(&data);
                        if let Some(message) = take(doing, &mut buffer)? {
                            answer = Some(message);
                        }
                    }
                    Err(other) => {
                        if let Ok(trailers) = other.into_trailers() {
                            check_status(doing, &trailers)?;
                        }
                    }
                }
            }
            answer.ok_or_else(|| broken_text(doing, "the answer ended early"))
        };
        let Some(after) = timeout else { return call.await };
        let late = async {
            Timer::after(after).await;
            Err(Error::Deadline { doing, after })
        };
        future::or(call, late).await
    }

    pub async fn stream<M: Message + Default>(&self, method: Method, message: Bytes) -> Result<Streaming<M>, Error> {
        let response = self.send(method, message, None).await?;
        check_head(method.doing, response.status(), response.headers())?;
        let raw = RawStream { doing: method.doing, body: response.into_body(), buffer: BytesMut::new() };
        Ok(Streaming { raw, shape: PhantomData })
    }
}

/// A server's stream of messages; dropping it ends the call.
pub struct Streaming<M> {
    raw: RawStream,
    shape: PhantomData<fn() -> M>,
}

struct RawStream {
    doing: &'static str,
    body: Incoming,
    buffer: BytesMut,
}

impl<M: Message + Default> Streaming<M> {
    /// None when the server ended the stream well.
    pub async fn next(&mut self) -> Result<Option<M>, Error> {
        let Some(bytes) = self.raw.next().await? else { return Ok(None) };
        M::decode(bytes).map(Some).map_err(|e| Error::Protocol { doing: self.raw.doing, message: e.to_string() })
    }
}

impl RawStream {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(message) = take(self.doing, &mut self.buffer)? {
                return Ok(Some(message));
            }
            let Some(part) = self.body.frame().await else { return Ok(None) };
            match part.map_err(|e| broken(self.doing, e))?.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(other) => {
                    if let Ok(trailers) = other.into_trailers() {
                        check_status(self.doing, &trailers)?;
                    }
                }
            }
        }
    }
}

fn take(doing: &'static str, buffer: &mut BytesMut) -> Result<Option<Bytes>, Error> {
    frame::take(buffer).map_err(|message| Error::Protocol { doing, message })
}

fn check_head(doing: &'static str, status: StatusCode, headers: &HeaderMap) -> Result<(), Error> {
    check_status(doing, headers)?;
    if status != StatusCode::OK {
        return Err(Error::Protocol { doing, message: format!("unexpected HTTP status {status}") });
    }
    Ok(())
}

fn check_status(doing: &'static str, headers: &HeaderMap) -> Result<(), Error> {
    match frame::status(headers) {
        None | Some((Code(0), _)) => Ok(()),
        Some((code, message)) => Err(Error::Grpc { doing, code, message }),
    }
}

fn broken(doing: &'static str, error: hyper::Error) -> Error {
    broken_text(doing, &format!("connection error: {error}"))
}

fn broken_text(doing: &'static str, what: &str) -> Error {
    Error::Unavailable { doing, message: what.into() }
}
