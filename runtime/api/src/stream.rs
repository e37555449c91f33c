//! exec, attach and port-forward: the client's upgraded connection is joined to the container runtime's streaming
//! server, which speaks SPDY and WebSocket itself. Only the heads of the two HTTP messages are looked at here.
//!
//! A refusal by the runtime goes to the client as it is. WebSocket with the newest subprotocols, which not every runtime
//! knows, is `translate`'s.
use crate::{
    driver::BoxFuture,
    http::{Body, Request, Response},
};
use async_executor::Executor;
use async_io::{Async, Timer};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, io};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::{
    rt::{Read as _, ReadBuf, Write as _},
    upgrade::{OnUpgrade, Upgraded},
};
use mote_schema::Status;
use std::{
    net::{SocketAddr, TcpStream},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// Of the runtime's answer.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Of a refusal's text.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// Bytes on their way, per direction.
const BUFFER_BYTES: usize = 32 * 1024;
/// Until the runtime answered the upgrade.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks the runtime at `url` for what `request` asks of us; when it agrees, the answer is 101 and the two connections
/// are joined until one of them ends.
pub async fn tunnel(executor: &Arc<Executor<'static>>, mut request: Request, url: &str) -> Response {
    let Some(upgrade) = request.upgrade.take() else {
        return Status::bad_request("Upgrade request required").into();
    };
    let answer = match dial(&request, url).await {
        Ok(answer) => answer,
        Err(refused) => return *refused,
    };
    let headers = answer.headers;
    let (early, mut runtime) = (answer.rest, answer.stream);
    crate::background::spawn(executor, async move {
        let Ok(client) = upgrade.await else { return };
        let mut client = Client(client);
        let ended = async {
            client.write_all(&early).await?;
            client.flush().await?;
            join(&mut client, &mut runtime).await
        };
        if let Err(error) = ended.await {
            tracing::debug!(%error, "stream");
        }
    });
    Response { status: 101, headers, body: Body::Empty }
}

/// The runtime's agreement to what `request` asks of it, or what the client is told instead.
pub(crate) async fn dial(request: &Request, url: &str) -> Result<Answer, Box<Response>> {
    let late = async {
        Timer::after(ANSWER_TIMEOUT).await;
        Err("no answer in time".into())
    };
    let answer = ask(request, url).or(late).await.map_err(|error| {
        Response::from(Status::internal(format!("error dialing the container runtime's streaming server: {error}")))
    })?;
    match answer.status {
        StatusCode::SWITCHING_PROTOCOLS => Ok(answer),
        _ => Err(Box::new(refusal(answer).await)),
    }
}

pub(crate) struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What came behind the head.
    pub rest: Vec<u8>,
    pub stream: Async<TcpStream>,
}

/// Sends the head of the request to the runtime and reads the head of its answer.
async fn ask(request: &Request, url: &str) -> Result<Answer, String> {
    let (address, target) = url
        .strip_prefix("http://")
        .map(|rest| rest.find('/').map_or((rest, "/"), |at| rest.split_at(at)))
        .ok_or_else(|| format!("not an http URL: {url}"))?;
    let socket: SocketAddr = address.parse().map_err(|e| format!("{address}: {e}"))?;
    let mut stream = Async::<TcpStream>::connect(socket).await.map_err(|e| format!("{address}: {e}"))?;
    // Keystrokes are small.
    stream.get_ref().set_nodelay(true).map_err(|e| e.to_string())?;
    stream.write_all(&head(request, address, target)).await.map_err(|e| e.to_string())?;
    let mut read = Vec::with_capacity(1024);
    loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = read.split_off(at + 4);
            let (status, headers) = parse(&read)?;
            return Ok(Answer { status, headers, rest, stream });
        }
        if read.len() > MAX_HEAD_BYTES {
            return Err("the answer's head is too long".into());
        }
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).await.map_err(|e| e.to_string())?;
        if count == 0 {
            return Err("the connection was closed".into());
        }
        read.extend_from_slice(&chunk[..count]);
    }
}

/// The client's request again, with this hop's host and nobody's credentials.
fn head(request: &Request, host: &str, target: &str) -> Vec<u8> {
    let mut head = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", request.method).into_bytes();
    for (name, value) in &request.headers {
        let is_ours = name == header::HOST
            || name == header::AUTHORIZATION
            || name == header::COOKIE
            || name == header::CONTENT_LENGTH
            || name == header::TRANSFER_ENCODING;
        if !is_ours {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    if request.method != http::Method::GET {
        head.extend_from_slice(b"Content-Length: 0\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

pub(crate) type Head = (StatusCode, Vec<(HeaderName, HeaderValue)>);

pub(crate) fn parse(head: &[u8]) -> Result<Head, String> {
    let text = str::from_utf8(head).map_err(|_| "the answer's head is not text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let status = status.ok_or("the answer is not HTTP")?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    Ok((status, headers.collect()))
}

/// Status, type and text of an answer that is no upgrade.
async fn refusal(answer: Answer) -> Response {
    let length = answer.headers.iter().find(|(name, _)| name == header::CONTENT_LENGTH);
    let length = length.and_then(|(_, v)| v.to_str().ok()?.parse().ok()).unwrap_or(MAX_REFUSAL_BYTES);
    let mut text = answer.rest;
    let missing = length.min(MAX_REFUSAL_BYTES).saturating_sub(text.len());
    let mut rest = answer.stream.take(missing as u64);
    let read = async { rest.read_to_end(&mut text).await };
    let late = async {
        Timer::after(Duration::from_secs(2)).await;
        Ok(0)
    };
    // An incomplete text still has its status.
    if let Err(error) = read.or(late).await {
        tracing::debug!(%error, "the runtime's refusal was cut short");
    }
    let kind = answer.headers.into_iter().find(|(name, _)| name == header::CONTENT_TYPE);
    let kind = kind.unwrap_or((header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")));
    Response { status: answer.status.as_u16(), headers: vec![kind], body: Body::Full(text.into()) }
}

/// Two connections that both have changed protocol.
pub async fn join_upgraded(client: OnUpgrade, server: OnUpgrade) {
    let (Ok(client), Ok(server)) = (client.await, server.await) else { return };
    let (client_read, client_write) = io::split(Client(client));
    let (server_read, server_write) = io::split(Client(server));
    let up: BoxFuture<'_, io::Result<()>> = Box::pin(copy(client_read, server_write));
    let down: BoxFuture<'_, io::Result<()>> = Box::pin(copy(server_read, client_write));
    if let Err(error) = up.or(down).await {
        tracing::debug!(%error, "stream");
    }
}

/// Copies both ways until one side ends; then both are closed.
async fn join(client: &mut Client, runtime: &mut Async<TcpStream>) -> io::Result<()> {
    let (client_read, client_write) = io::split(client);
    let runtime: &Async<TcpStream> = runtime;
    let up: BoxFuture<'_, io::Result<()>> = Box::pin(copy(client_read, runtime));
    let down: BoxFuture<'_, io::Result<()>> = Box::pin(copy(runtime, client_write));
    up.or(down).await
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.close().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}

/// hyper's upgraded connection with the traits of the rest of this file.
pub(crate) struct Client(Upgraded);

impl Client {
    pub fn new(upgraded: Upgraded) -> Client {
        Client(upgraded)
    }
}

impl AsyncRead for Client {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        match Pin::new(&mut self.0).poll_read(cx, buf.unfilled()) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
