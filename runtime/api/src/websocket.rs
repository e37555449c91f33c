//! WebSocket (RFC 6455), the server's side of connections that only send: watches and logs for browsers and clients that cannot
//! read a stream (apiserver/pkg/endpoints/handlers/watch.go, apimachinery's wsstream.Reader). What the client sends is read for
//! its control frames and dropped.
use crate::{
    driver::BoxFuture,
    http::{Body, BoxStream, Request, Response},
    stream::Client,
};
use async_executor::Executor;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, StreamExt as _, io, stream};
use http::{HeaderName, HeaderValue, header};
use hyper::upgrade::OnUpgrade;
use mote_schema::Status;
use std::sync::Arc;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
pub(crate) const FINAL: u8 = 0x80;

/// Of one frame that the client sends; nothing but control frames is expected.
const MAX_FRAME_BYTES: u64 = 64 * 1024;
/// Payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL_BYTES: u64 = 125;

pub(crate) fn is_asked(request: &Request) -> bool {
    request.upgrade.is_some() && request.header(header::UPGRADE).eq_ignore_ascii_case("websocket")
}

/// Sends what `frames` brings, which is in frames already, over the connection that `request` asks for. `protocols` are the
/// subprotocols there are; a client may name none, and then any answers it.
pub(crate) fn answer(
    executor: &Arc<Executor<'static>>,
    request: &mut Request,
    protocols: &[&str],
    frames: BoxStream<io::Result<Bytes>>,
) -> Result<Response, Status> {
    let asked = asked_protocols(request);
    let protocol = match (asked.as_slice(), protocols) {
        ([], _) => None,
        // Without a list there is nothing to choose from, and one name is as good as another (x/net/websocket).
        ([only], []) => Some(*only),
        (asked, known) => match asked.iter().find(|name| known.contains(name)) {
            Some(name) => Some(*name),
            None => return Err(Status::new(403, "Forbidden", "no WebSocket subprotocol of the request is supported")),
        },
    };
    let protocol = protocol.map(str::to_owned);
    let (response, upgrade) = handshake(request, protocol.as_deref())?;
    crate::background::spawn(executor, async move {
        let Ok(client) = upgrade.await else { return };
        if let Err(error) = send(Client::new(client), frames).await {
            tracing::debug!(%error, "WebSocket");
        }
    });
    Ok(response)
}

/// The answer to a client that is spoken to by `protocol`, and what becomes of its connection.
pub(crate) fn handshake(request: &mut Request, protocol: Option<&str>) -> Result<(Response, OnUpgrade), Status> {
    let key = request.header("sec-websocket-key");
    if request.header("sec-websocket-version") != "13" || key.is_empty() {
        return Err(Status::bad_request("not a WebSocket handshake of version 13"));
    }
    let mut response = Response { status: 101, headers: Vec::new(), body: Body::Empty }
        .with(header::UPGRADE, "websocket")
        .with(header::CONNECTION, "Upgrade")
        .with(header::SEC_WEBSOCKET_ACCEPT, &accept(key));
    if let Some(protocol) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
        response.headers.push((HeaderName::from_static("sec-websocket-protocol"), protocol));
    }
    let Some(upgrade) = request.upgrade.take() else { return Err(Status::bad_request("Upgrade request required")) };
    Ok((response, upgrade))
}

/// Of a stream of bytes, as wsstream.NewDefaultReaderProtocols has them; without a name it is the first.
const READER_PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64];
const BASE64: &str = "base64.binary.k8s.io";

/// Sends bytes as messages: binary, or base64 as text. The first is empty, so that the client sees that it is connected.
pub(crate) fn answer_bytes(
    executor: &Arc<Executor<'static>>,
    request: &mut Request,
    bytes: BoxStream<io::Result<Bytes>>,
) -> Result<Response, Status> {
    let chosen = asked_protocols(request).into_iter().find(|name| READER_PROTOCOLS.contains(name));
    let as_text = chosen == Some(BASE64);
    let frame = move |bytes: &[u8]| {
        let mut out = if as_text { STANDARD.encode(bytes).into_bytes() } else { bytes.to_vec() };
        enclose(if as_text { TEXT } else { BINARY }, 0, &mut out);
        Bytes::from(out)
    };
    let frames = stream::once(Ok(frame(&[]))).chain(bytes.map(move |chunk| chunk.map(|bytes| frame(&bytes))));
    answer(executor, request, &READER_PROTOCOLS, Box::pin(frames))
}

/// Names in Sec-WebSocket-Protocol.
pub(crate) fn asked_protocols(request: &Request) -> Vec<&str> {
    let names = request.header(header::SEC_WEBSOCKET_PROTOCOL).split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).take(16).collect()
}

fn accept(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// Makes what `out` holds from `start` on one message.
pub(crate) fn enclose(opcode: u8, start: usize, out: &mut Vec<u8>) {
    let len = out.len() - start;
    let mut head = [0; 10];
    head[0] = FINAL | opcode;
    let width = match len {
        0..126 => {
            head[1] = len as u8;
            2
        }
        126..0x1_0000 => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    out.splice(start..start, head[..width].iter().copied());
}

async fn send(client: Client, mut frames: BoxStream<io::Result<Bytes>>) -> io::Result<()> {
    enum Next {
        Send(Option<io::Result<Bytes>>),
        Answer(io::Result<Vec<u8>>),
    }
    let (read, mut write) = io::split(client);
    // A frame may come in pieces while others are sent, so the reader keeps its place.
    let mut control: BoxFuture<'_, (_, io::Result<Vec<u8>>)> = Box::pin(next_control(read));
    loop {
        let next = {
            let frame = async { Next::Send(frames.next().await) };
            let answer = async {
                let (read, answer) = (&mut control).await;
                control = Box::pin(next_control(read));
                Next::Answer(answer)
            };
            answer.or(frame).await
        };
        match next {
            Next::Send(Some(chunk)) => write.write_all(&chunk?).await?,
            Next::Send(None) => {
                // 1000: normal closure.
                write.write_all(&[FINAL | CLOSE, 2, 0x03, 0xe8]).await?;
                return write.close().await;
            }
            Next::Answer(answer) => {
                let answer = answer?;
                write.write_all(&answer).await?;
                if answer.first() == Some(&(FINAL | CLOSE)) {
                    return write.close().await;
                }
            }
        }
        write.flush().await?;
    }
}

/// Reads until a frame wants an answer: the answer. Data is dropped.
async fn next_control<R: AsyncRead + Unpin>(mut read: R) -> (R, io::Result<Vec<u8>>) {
    let answer = loop {
        match read_frame(&mut read, MAX_FRAME_BYTES).await {
            Ok((PING, payload)) => break Ok([&[FINAL | PONG, payload.len() as u8][..], &payload].concat()),
            Ok((CLOSE, payload)) => break Ok([&[FINAL | CLOSE, payload.len() as u8][..], &payload].concat()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    (read, answer)
}

/// Opcode and payload.
pub(crate) async fn read_frame(read: &mut (impl AsyncRead + Unpin), limit_bytes: u64) -> io::Result<(u8, Vec<u8>)> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; 2];
    read.read_exact(&mut head).await?;
    let (opcode, masked) = (head[0] & 15, head[1] & 0x80 != 0);
    let mut wide = [0; 8];
    let len = match head[1] & 0x7f {
        126 => {
            read.read_exact(&mut wide[6..]).await?;
            u64::from_be_bytes(wide)
        }
        127 => {
            read.read_exact(&mut wide).await?;
            u64::from_be_bytes(wide)
        }
        short => short.into(),
    };
    let is_control = opcode & 8 != 0;
    if !masked || len > if is_control { MAX_CONTROL_BYTES } else { limit_bytes } {
        return Err(bad("a frame is not masked or too long"));
    }
    let mut mask = [0; 4];
    read.read_exact(&mut mask).await?;
    let mut payload = vec![0; len as usize];
    read.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Ok((opcode, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{future::block_on, io::Cursor};

    #[test]
    fn the_handshake_of_the_standard() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn messages_of_every_length() {
        for (len, head) in [
            (0usize, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (70_000, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]),
        ] {
            let mut out = b"before".to_vec();
            out.resize(6 + len, b'x');
            enclose(TEXT, 6, &mut out);
            assert_eq!(out[..6 + head.len()], [b"before", &head[..]].concat());
            assert_eq!(out.len(), 6 + head.len() + len);
        }
    }

    #[test]
    fn control_frames_are_answered() {
        let masked = |opcode: u8, payload: &[u8]| {
            let mut frame = vec![FINAL | opcode, 0x80 | payload.len() as u8, 1, 2, 3, 4];
            frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
            frame
        };
        let bytes = [masked(TEXT, b"dropped"), masked(PING, b"hello"), masked(CLOSE, &[3, 232])].concat();
        let (read, answer) = block_on(next_control(Cursor::new(bytes)));
        assert_eq!(answer.expect("a pong"), [&[0x8a, 5][..], b"hello"].concat());
        let (_, answer) = block_on(next_control(read));
        assert_eq!(answer.expect("a close"), [0x88, 2, 3, 232]);
        for bad in [&[0x89, 5, 1, 2][..], &[0x89, 0xfe, 1, 0, 0, 0, 0, 0], &[0x81, 0xff, 255, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(block_on(next_control(Cursor::new(bad.to_vec()))).1.is_err());
        }
    }
}
