//! WebSocket clients of exec, attach and port-forward, for runtimes whose streaming server speaks to such clients only as older
//! Kubernetes did: without `v5.channel.k8s.io`, whose clients can end their input, and without SPDY in WebSocket messages. The
//! runtime is spoken to in SPDY/3.1, which all of them know (apiserver/pkg/util/proxy/stream{translator,tunnel}.go).
//!
//! Of SPDY only what a client that opens some streams needs is here: headers are sent in stored blocks, so nothing is
//! compressed, and those that come back are not read.
use crate::{
    driver::BoxFuture,
    http::{Request, Response},
    pods::StreamRequest,
    stream::{self, Client},
    websocket::{self, BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT},
};
use async_executor::Executor;
use async_lock::Mutex;
use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, FutureExt as _, io};
use http::{HeaderName, HeaderValue, Method, header};
use std::sync::Arc;

const COMMANDS: &str = "v5.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Of a client's frame; kubectl's have 32 KiB.
const MAX_FRAME_BYTES: u64 = 1 << 20;
/// Of a control frame of the runtime.
const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Of what the runtime sends, in one message.
const CHUNK_BYTES: usize = 32 * 1024;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SPDY_PING: u16 = 6;
/// The client ends the stream whose number follows.
const END: u8 = 255;
const FIN: u8 = 1;

/// A channel of `COMMANDS`, and what its stream is called.
type Channel = (u8, &'static str);

const INPUT: Channel = (0, "stdin");
const OUTPUT: Channel = (1, "stdout");
const ERRORS: Channel = (2, "stderr");
const STATUS: Channel = (3, "error");
const RESIZE: Channel = (4, "resize");

/// The subprotocol of `request` that is translated for it, if it asks for one. Clients name all they know, whatever they ask for.
pub(crate) fn asked(request: &Request, stream: &StreamRequest) -> Option<&'static str> {
    let names = websocket::is_asked(request).then(|| websocket::asked_protocols(request))?;
    let known = if matches!(stream, StreamRequest::PortForward { .. }) { TUNNEL } else { COMMANDS };
    names.contains(&known).then_some(known)
}

/// As `stream::tunnel`, for a client that asked for `protocol`.
pub(crate) async fn answer(
    executor: &Arc<Executor<'static>>,
    mut request: Request,
    url: &str,
    protocol: &'static str,
    asked: &StreamRequest,
) -> Response {
    let channels = channels(asked);
    let (response, upgrade) = match websocket::handshake(&mut request, Some(protocol)) {
        Ok(done) => done,
        Err(status) => return status.into(),
    };
    request.method = Method::POST;
    for name in ["sec-websocket-protocol", "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"] {
        request.headers.remove(name);
    }
    let spoken = if protocol == TUNNEL { "portforward.k8s.io" } else { "v4.channel.k8s.io" };
    request.headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    request.headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(spoken));
    let (early, runtime) = match stream::dial(&request, url).await {
        Ok(answer) => (answer.rest, answer.stream),
        Err(refused) => return *refused,
    };
    crate::background::spawn(executor, async move {
        let Ok(client) = upgrade.await else { return };
        let (read, write) = io::split(Client::new(client));
        let opened = async_channel::bounded(1);
        let (client, to_runtime) = (Mutex::new(Box::new(write) as _), Mutex::new(Box::new(&runtime) as _));
        let joined = Joined { client, runtime: to_runtime, channels, opened };
        let mut replies = io::Cursor::new(early).chain(&runtime);
        let up: BoxFuture<'_, io::Result<()>> = Box::pin(joined.up(read));
        let down: BoxFuture<'_, io::Result<()>> = match protocol == TUNNEL {
            true => Box::pin(joined.tunnel_down(&mut replies)),
            false => Box::pin(joined.down(&mut replies)),
        };
        if let Err(error) = up.or(down).await {
            tracing::debug!(%error, "stream");
        }
    });
    response
}

/// In the order their streams are opened; the streams are numbered by it.
fn channels(asked: &StreamRequest) -> Vec<Channel> {
    let (StreamRequest::Exec { stdin, stdout, stderr, tty, .. }
    | StreamRequest::Attach { stdin, stdout, stderr, tty, .. }) = asked
    else {
        return Vec::new();
    };
    let all = [(true, STATUS), (*stdin, INPUT), (*stdout, OUTPUT), (*stderr, ERRORS), (*tty, RESIZE)];
    all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, channel)| channel).collect()
}

type Reader<'a> = &'a mut (dyn AsyncRead + Send + Unpin);
type Writer<'a> = Mutex<Box<dyn AsyncWrite + Send + Unpin + 'a>>;

/// Both sides' writers: either direction answers the pings of the side it reads.
struct Joined<'a> {
    client: Writer<'a>,
    runtime: Writer<'a>,
    /// None of them: the client speaks SPDY itself.
    channels: Vec<Channel>,
    /// Closed when the runtime has answered to all streams: what comes for one before that is lost (moby/spdystream).
    opened: (async_channel::Sender<()>, async_channel::Receiver<()>),
}

impl Joined<'_> {
    fn stream_of(&self, channel: u8) -> Option<u32> {
        let at = self.channels.iter().position(|(number, _)| *number == channel)?;
        Some(2 * u32::try_from(at).ok()? + 1)
    }

    fn channel_of(&self, stream: u32) -> Option<u8> {
        let at = usize::try_from(stream.checked_sub(1)? / 2).ok()?;
        self.channels.get(at).map(|(number, _)| *number)
    }

    async fn to_client(&self, opcode: u8, head: &[u8], bytes: &[u8]) -> io::Result<()> {
        let mut message = [head, bytes].concat();
        websocket::enclose(opcode, 0, &mut message);
        write(&self.client, &message).await
    }

    /// From the client to the runtime, until the client closes.
    async fn up(&self, mut client: impl AsyncRead + Send + Unpin) -> io::Result<()> {
        if !self.channels.is_empty() {
            let _ = self.opened.1.recv().await;
        }
        // Of the message that a frame goes on with.
        let mut channel = None;
        loop {
            let (opcode, mut payload) = websocket::read_frame(&mut client, MAX_FRAME_BYTES).await?;
            match opcode {
                PING => {
                    self.to_client(PONG, &[], &payload).await?;
                    continue;
                }
                CLOSE => return self.to_client(CLOSE, &[], &payload).await,
                TEXT | BINARY | CONTINUATION => {}
                _ => continue,
            }
            if self.channels.is_empty() {
                write(&self.runtime, &payload).await?;
                continue;
            }
            if opcode != CONTINUATION {
                channel = (!payload.is_empty()).then(|| payload.remove(0));
            }
            let (stream, flags) = match (channel, payload.first()) {
                (Some(END), Some(ended)) => (self.stream_of(*ended), FIN),
                (Some(number), Some(_)) => (self.stream_of(number), 0),
                _ => continue,
            };
            if let Some(stream) = stream {
                let bytes = if flags == FIN { &[][..] } else { &payload };
                write(&self.runtime, &data_frame(stream, flags, bytes)).await?;
            }
        }
    }

    /// Opens the streams, then from the runtime to the client, until all that the runtime writes to have ended.
    async fn down(&self, runtime: Reader<'_>) -> io::Result<()> {
        // The streams are compressed as one: stored blocks of zlib's, of which the first has the head.
        let mut opened = Vec::new();
        for (at, (number, name)) in self.channels.iter().enumerate() {
            open_stream(self.stream_of(*number).unwrap_or(0), name, at == 0, &mut opened);
        }
        write(&self.runtime, &opened).await?;
        let is_read = |number: &u8| [OUTPUT.0, ERRORS.0, STATUS.0].contains(number);
        let mut open: Vec<u8> = self.channels.iter().map(|(number, _)| *number).filter(is_read).collect();
        // An empty message tells the client that it is connected.
        let first = [OUTPUT.0, ERRORS.0, STATUS.0].into_iter().find(|number| open.contains(number));
        self.to_client(BINARY, &[first.unwrap_or(STATUS.0)], &[]).await?;
        let mut unanswered = self.channels.len();
        let mut piece = vec![0; CHUNK_BYTES];
        while !open.is_empty() {
            let mut head = [0; 8];
            if runtime.read_exact(&mut head).await.is_err() {
                break;
            }
            let [a, b, c, d, flags, len @ ..] = head;
            let mut left = u32::from_be_bytes([0, len[0], len[1], len[2]]) as usize;
            if a & 0x80 != 0 {
                let kind = u16::from_be_bytes([c, d]);
                self.control(kind, left, &mut open, runtime).await?;
                if matches!(kind, SYN_REPLY | RST_STREAM) {
                    unanswered = unanswered.saturating_sub(1);
                }
                if unanswered == 0 {
                    self.opened.0.close();
                }
                continue;
            }
            let channel = self.channel_of(u32::from_be_bytes([a, b, c, d]));
            while left > 0 {
                let count = runtime.read(&mut piece[..left.min(CHUNK_BYTES)]).await?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                left -= count;
                if let Some(channel) = channel {
                    self.to_client(BINARY, &[channel], &piece[..count]).await?;
                }
            }
            if flags & FIN != 0 {
                open.retain(|number| Some(*number) != channel);
            }
        }
        self.goodbye().await
    }

    /// A control frame: a stream may have been given up, a ping is answered, the rest says nothing to us.
    async fn control(&self, kind: u16, len: usize, open: &mut Vec<u8>, runtime: Reader<'_>) -> io::Result<()> {
        if len > MAX_CONTROL_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; len];
        runtime.read_exact(&mut payload).await?;
        let number = payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        match kind {
            RST_STREAM => open.retain(|channel| Some(*channel) != self.channel_of(number)),
            // Its own have even numbers; what we sent would come back odd.
            SPDY_PING if number % 2 == 0 => write(&self.runtime, &control_frame(SPDY_PING, &payload)).await?,
            _ => {}
        }
        Ok(())
    }

    /// SPDY as it is, in messages.
    async fn tunnel_down(&self, runtime: Reader<'_>) -> io::Result<()> {
        let mut piece = vec![0; CHUNK_BYTES];
        loop {
            let count = runtime.read(&mut piece).await?;
            if count == 0 {
                return self.goodbye().await;
            }
            self.to_client(BINARY, &[], &piece[..count]).await?;
        }
    }

    /// 1000: normal closure.
    async fn goodbye(&self) -> io::Result<()> {
        self.to_client(CLOSE, &[], &[0x03, 0xe8]).await?;
        self.client.lock().await.close().await
    }
}

async fn write(to: &Writer<'_>, bytes: &[u8]) -> io::Result<()> {
    let mut to = to.lock().await;
    to.write_all(bytes).await?;
    to.flush().await
}

fn data_frame(stream: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = (bytes.len() as u32).to_be_bytes();
    [&stream.to_be_bytes()[..], &[flags], &len, bytes].concat()
}

fn control_frame(kind: u16, payload: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = (payload.len() as u32).to_be_bytes();
    [&[0x80, 3][..], &kind.to_be_bytes(), &[0], &len, payload].concat()
}

/// SYN_STREAM, of one header. Behind the stored block comes an empty one, at which a reader shows what it has.
fn open_stream(number: u32, name: &str, is_first: bool, out: &mut Vec<u8>) {
    let mut headers = 1u32.to_be_bytes().to_vec();
    for text in ["streamtype", name] {
        headers.extend_from_slice(&(text.len() as u32).to_be_bytes());
        headers.extend_from_slice(text.as_bytes());
    }
    let mut payload = number.to_be_bytes().to_vec();
    // Of no other stream, of no priority.
    payload.extend_from_slice(&[0; 6]);
    payload.extend_from_slice(if is_first { &[0x78, 0x01] } else { &[] });
    let len = headers.len() as u16;
    payload.push(0);
    payload.extend_from_slice(&len.to_le_bytes());
    payload.extend_from_slice(&(!len).to_le_bytes());
    payload.extend_from_slice(&headers);
    payload.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
    out.extend_from_slice(&control_frame(SYN_STREAM, &payload));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::FINAL;
    use futures_lite::future::block_on;
    use std::{
        io::Read as _,
        pin::Pin,
        sync::Mutex as Shared,
        task::{Context, Poll},
    };

    #[derive(Clone, Default)]
    struct Written(Arc<Shared<Vec<u8>>>);

    impl AsyncWrite for Written {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// A runtime that has nothing more to say, and stays.
    struct Silent;

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    struct World {
        client: Written,
        runtime: Written,
        joined: Joined<'static>,
    }

    fn world(channels: Vec<Channel>) -> World {
        let (client, runtime) = (Written::default(), Written::default());
        let (to_client, to_runtime) =
            (Mutex::new(Box::new(client.clone()) as _), Mutex::new(Box::new(runtime.clone()) as _));
        let opened = async_channel::bounded(1);
        World { client, runtime, joined: Joined { client: to_client, runtime: to_runtime, channels, opened } }
    }

    fn taken(written: &Written) -> Vec<u8> {
        std::mem::take(&mut written.0.lock().unwrap())
    }

    /// A client's frame, with a mask that changes nothing.
    fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
        [&[head, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn what_a_client_says_in_messages_the_runtime_reads_in_streams() {
        let world = world(vec![STATUS, INPUT, OUTPUT]);
        let said = [
            frame(FINAL | BINARY, b"\0ab"),
            // One message in two frames, and a ping between them.
            frame(BINARY, b"\0c"),
            frame(FINAL | PING, b"?"),
            frame(FINAL | CONTINUATION, b"d"),
            // Nothing, a channel that is not there, and the end of input.
            frame(FINAL | BINARY, b""),
            frame(FINAL | BINARY, b"\x09x"),
            frame(FINAL | BINARY, &[END, 0]),
            frame(FINAL | CLOSE, &[3, 232]),
        ];
        let replies: Vec<u8> =
            [1, 3, 5].iter().flat_map(|stream| control_frame(SYN_REPLY, &[0, 0, 0, *stream, 0, 0])).collect();
        let mut replies = io::Cursor::new(replies).chain(Silent);
        // However early it speaks, the runtime hears of the streams first, and has answered before it hears more.
        let (up, down) = (world.joined.up(io::Cursor::new(said.concat())), world.joined.down(&mut replies));
        block_on(up.or(down)).unwrap();
        let mut opened = Vec::new();
        for (number, name) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
            open_stream(number, name, number == 1, &mut opened);
        }
        let wanted =
            [opened, data_frame(3, 0, b"ab"), data_frame(3, 0, b"c"), data_frame(3, 0, b"d"), data_frame(3, FIN, b"")];
        assert_eq!(taken(&world.runtime), wanted.concat());
        assert_eq!(taken(&world.client), [&[0x82, 1, 1][..], &[0x8a, 1, b'?'], &[0x88, 2, 3, 232]].concat());
    }

    #[test]
    fn what_the_runtime_writes_comes_to_its_channel_until_all_have_ended() {
        let world = world(vec![STATUS, OUTPUT]);
        let said = [
            control_frame(2, &[0, 0, 0, 1, 0, 0]),
            control_frame(SPDY_PING, &[0, 0, 0, 2]),
            data_frame(3, 0, b"out"),
            data_frame(9, 0, b"nobody's"),
            data_frame(1, FIN, b"{}"),
            control_frame(RST_STREAM, &[0, 0, 0, 3, 0, 0, 0, 5]),
            data_frame(3, 0, b"too late"),
        ];
        block_on(world.joined.down(&mut io::Cursor::new(said.concat()))).unwrap();
        let to_runtime = taken(&world.runtime);
        assert!(to_runtime.ends_with(&control_frame(SPDY_PING, &[0, 0, 0, 2])));
        let wanted = [&[0x82, 1, 1][..], &[0x82, 4, 1], b"out", &[0x82, 3, 3], b"{}", &[0x88, 2, 3, 232]].concat();
        assert_eq!(taken(&world.client), wanted);

        for bad in [&[0x80, 3, 0, 6, 0, 255, 255, 255][..], &[0, 0, 0, 3, 0, 0, 0, 9, b'x']] {
            assert!(block_on(world.joined.down(&mut &bad[..])).is_err());
        }
    }

    #[test]
    fn headers_are_zlib_that_is_one_stream_for_all() {
        let mut frames = Vec::new();
        open_stream(1, "error", true, &mut frames);
        open_stream(3, "stdin", false, &mut frames);
        let (mut zlib, mut rest) = (Vec::new(), &frames[..]);
        for number in [1u32, 3] {
            let len = u32::from_be_bytes([0, rest[5], rest[6], rest[7]]) as usize;
            assert_eq!(&rest[..5], [0x80, 3, 0, 1, 0]);
            assert_eq!(rest[8..12], number.to_be_bytes());
            zlib.extend_from_slice(&rest[18..8 + len]);
            rest = &rest[8 + len..];
        }
        assert!(rest.is_empty());
        let mut text = vec![0; 2 * 27];
        flate2::read::ZlibDecoder::new(&zlib[..]).read_exact(&mut text).unwrap();
        let one = |name: &str| [&[0, 0, 0, 1, 0, 0, 0, 10][..], b"streamtype", &[0, 0, 0, 5], name.as_bytes()].concat();
        assert_eq!(text, [one("error"), one("stdin")].concat());
    }

    #[test]
    fn a_tunnel_changes_nothing() {
        let world = world(Vec::new());
        let said = [frame(FINAL | BINARY, b"ab"), frame(FINAL | CLOSE, b"")].concat();
        block_on(world.joined.up(io::Cursor::new(said))).unwrap();
        block_on(world.joined.tunnel_down(&mut &b"cd"[..])).unwrap();
        assert_eq!(taken(&world.runtime), b"ab");
        assert_eq!(taken(&world.client), [&[0x88, 0, 0x82, 2][..], b"cd", &[0x88, 2, 3, 232]].concat());
    }
}
