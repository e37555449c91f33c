//! One HTTP/2 connection, shared by all calls. A connection that broke is dialled again by the next call; a call that
//! was not sent yet is repeated once, one that was sent is not.
use crate::{
    error::{Code, Error},
    frame,
};
use async_executor::Executor;
use async_io::Timer;
use async_lock::Mutex;
use bytes::{Bytes, BytesMut};
use futures_lite::{AsyncRead, AsyncWrite, future};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use prost::Message;
use smol_hyper::rt::{FuturesIo, SmolExecutor, SmolTimer};
use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// As upstream's etcd client (apiserver storagebackend/factory/etcd3.go).
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// One kind of stream for all, so that hyper's machinery is compiled once.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection being made; the error says what was dialled and why it failed.
pub type Dialled<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Socket>, String>> + Send + 'a>>;

/// The way to a server.
pub trait Dial: Send + Sync {
    fn dial(&self) -> Dialled<'_>;
}

pub struct Channel {
    dial: Box<dyn Dial>,
    executor: Arc<Executor<'static>>,
    /// Sent with every call.
    headers: std::sync::Mutex<HeaderMap>,
    /// How often a silent connection is asked whether it still stands; None: a socket of this machine does.
    keep_alive: Option<Duration>,
    sender: Mutex<Option<Sender>>,
}

/// One call's name, as the errors say it, and its path.
#[derive(Clone, Copy)]
pub struct Method {
    pub doing: &'static str,
    pub path: &'static str,
}

impl Channel {
    pub fn new(dial: Box<dyn Dial>, executor: Arc<Executor<'static>>) -> Channel {
        Channel { dial, executor, headers: Default::default(), keep_alive: None, sender: Mutex::new(None) }
    }

    /// To another machine, which may vanish without a word.
    pub fn far(dial: Box<dyn Dial>, executor: Arc<Executor<'static>>, headers: HeaderMap) -> Channel {
        Channel { headers: headers.into(), keep_alive: Some(KEEP_ALIVE), ..Channel::new(dial, executor) }
    }

    /// Sent with every call from now on, in place of what the header was before; None: no longer.
    pub fn set_header(&self, name: &'static str, value: Option<HeaderValue>) {
        match value {
            Some(value) => drop(self.headers().insert(name, value)),
            None => drop(self.headers().remove(name)),
        }
    }

    fn headers(&self) -> MutexGuard<'_, HeaderMap> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn dial(&self, doing: &'static str) -> Result<Sender, Error> {
        let failed = |what: String| Error::Unavailable { doing, message: format!("connection error: {what}") };
        let connect = async {
            let io = self.dial.dial().await.map_err(failed)?;
            let mut builder = http2::Builder::new(SmolExecutor::new(self.executor.clone()));
            builder
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
            if let Some(interval) = self.keep_alive {
                builder.timer(SmolTimer::new()).keep_alive_interval(interval).keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
            }
            builder.handshake(FuturesIo::new(io)).await.map_err(|e| failed(e.to_string()))
        };
        let late = async {
            Timer::after(DIAL_TIMEOUT).await;
            Err(failed("dial timed out".into()))
        };
        let (sender, connection) = future::or(connect, late).await?;
        self.executor
            .spawn(async move {
                if let Err(e) = connection.await {
                    tracing::debug!(error = %e, "connection ended");
                }
            })
            .detach();
        Ok(sender)
    }

    /// Makes sure of a live connection. After an error nothing was asked of anybody.
    pub async fn connect(&self, doing: &'static str) -> Result<(), Error> {
        self.sender(doing).await.map(drop)
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
            for (name, value) in self.headers().iter() {
                request = request.header(name, value);
            }
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

    async fn unary(&self, method: Method, message: Bytes, timeout: Option<Duration>) -> Result<Bytes, Error> {
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

    /// One question and its answer.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        method: Method,
        timeout: Option<Duration>,
        request: &Q,
    ) -> Result<A, Error> {
        let answer = self.unary(method, encoded(method, request)?, timeout).await?;
        A::decode(answer).map_err(|e| Error::Protocol { doing: method.doing, message: e.to_string() })
    }

    /// One question and a stream of answers.
    pub async fn stream<Q: Message, M: Message + Default>(
        &self,
        method: Method,
        request: &Q,
    ) -> Result<Streaming<M>, Error> {
        let response = self.send(method, encoded(method, request)?, None).await?;
        check_head(method.doing, response.status(), response.headers())?;
        let raw = RawStream { doing: method.doing, body: response.into_body(), buffer: BytesMut::new() };
        Ok(Streaming { raw, shape: PhantomData })
    }
}

fn encoded(method: Method, request: &impl Message) -> Result<Bytes, Error> {
    let size = request.encoded_len();
    if size > frame::LIMIT_BYTES {
        let message = format!("a request of {size} bytes is over the limit");
        return Err(Error::Protocol { doing: method.doing, message });
    }
    // The buffer grows as needed, so encoding cannot fail.
    Ok(frame::encode(size, |out| request.encode_raw(out)))
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
