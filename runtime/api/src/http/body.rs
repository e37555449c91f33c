//! The outgoing body on the wire: a `Body` with what must end when it ends (the in-flight slot, the connection's
//! busy mark), cut off in order when the server stops. Compression of large answers is here too.
use super::request::{Body, BoxStream, Response};
use super::server::{Sending, Stop};
use bytes::Bytes;
use event_listener::EventListener;
use futures_lite::stream;
use http::{HeaderValue, header};
use hyper::body::{Frame, SizeHint};
use std::{
    any::Any,
    future::Future,
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll},
};

/// Smaller answers are not worth the work (upstream's threshold).
const GZIP_FROM_BYTES: usize = 128 * 1024;
/// Compressed bytes that are sent at once.
const SEND_FROM_BYTES: usize = 16 * 1024;

pub struct Outgoing {
    content: Content,
    /// Of an answer that has an end.
    sending: Option<Sending>,
    /// Dropped with the body: when it was sent, or when the client went away.
    _until_sent: Box<dyn Any + Send>,
}

enum Content {
    Full(Option<Bytes>),
    Chunks(Box<dyn Iterator<Item = Bytes> + Send>),
    Stream { stream: BoxStream<io::Result<Bytes>>, stopped: Option<Pin<Box<EventListener>>> },
}

impl Outgoing {
    pub fn new(body: Body, stop: &Stop, sending: Option<Sending>, until_sent: impl Send + 'static) -> Outgoing {
        let content = match body {
            // A refusal has its bytes by now (`accept::settle`).
            Body::Empty | Body::Status(_) => Content::Full(None),
            Body::Chunks(chunks) => Content::Chunks(chunks),
            Body::Full(bytes) => Content::Full((!bytes.is_empty()).then_some(bytes)),
            Body::Stream(stream) => Content::Stream { stream, stopped: Some(Box::pin(stop.listen())) },
        };
        Outgoing { content, sending, _until_sent: Box::new(until_sent) }
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(sending) = &self.sending {
            sending.progress();
        }
        match &mut self.content {
            Content::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Content::Chunks(chunks) => Poll::Ready(chunks.next().map(|b| Ok(Frame::data(b)))),
            Content::Stream { stream, stopped } => {
                if stopped.as_mut().is_none_or(|listener| listener.as_mut().poll(cx).is_ready()) {
                    *stopped = None;
                    return Poll::Ready(None);
                }
                stream.as_mut().poll_next(cx).map(|item| item.map(|chunk| chunk.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.content, Content::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Chunks(_) | Content::Stream { .. } => SizeHint::default(),
        }
    }
}

type Encoder = flate2::write::GzEncoder<Vec<u8>>;

/// Level 1, as upstream, off the main thread. Watches and logs are left alone.
pub async fn compress(mut response: Response) -> Response {
    if response.headers.iter().any(|(name, _)| name == header::CONTENT_ENCODING) {
        return response;
    }
    let chunks: Box<dyn Iterator<Item = Bytes> + Send> = match response.body {
        Body::Full(plain) if plain.len() > GZIP_FROM_BYTES => Box::new(std::iter::once(plain)),
        Body::Chunks(mut chunks) => {
            // How long it will be shows when it is made.
            let mut first = Vec::new();
            let mut len = 0;
            while len <= GZIP_FROM_BYTES {
                let Some(chunk) = chunks.next() else {
                    response.body = Body::Chunks(Box::new(first.into_iter()));
                    return response;
                };
                len += chunk.len();
                first.push(chunk);
            }
            Box::new(first.into_iter().chain(chunks))
        }
        _ => return response,
    };
    let encoder = Encoder::new(Vec::new(), flate2::Compression::new(1));
    response.body = Body::Stream(Box::pin(stream::unfold(Some((encoder, chunks)), pack)));
    response.headers.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    response.headers.push((header::VARY, HeaderValue::from_static("Accept-Encoding")));
    response
}

type Packing = Option<(Encoder, Box<dyn Iterator<Item = Bytes> + Send>)>;

/// The next piece that has come out of the encoder; its end with the last.
async fn pack(state: Packing) -> Option<(io::Result<Bytes>, Packing)> {
    let (mut encoder, mut chunks) = state?;
    loop {
        let Some(chunk) = chunks.next() else {
            let rest = crate::unblock(move || encoder.finish()).await;
            return Some((rest.map(Bytes::from), None));
        };
        let packed = crate::unblock(move || {
            let result = encoder.write_all(&chunk);
            (encoder, result)
        });
        let result;
        (encoder, result) = packed.await;
        if let Err(error) = result {
            return Some((Err(error), None));
        }
        if encoder.get_ref().len() >= SEND_FROM_BYTES {
            let ready = std::mem::take(encoder.get_mut());
            return Some((Ok(ready.into()), Some((encoder, chunks))));
        }
    }
}

/// The client says it reads gzip (a weight of zero says it does not).
pub fn accepts_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|part| {
        let (coding, weight) = part.split_once(';').unwrap_or((part, ""));
        coding.trim().eq_ignore_ascii_case("gzip") && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::StreamExt as _;
    use std::io::Read as _;

    fn compressed(body: Body) -> (bool, Vec<u8>) {
        let response = Response { status: 200, headers: Vec::new(), body };
        let mut response = futures_lite::future::block_on(compress(response));
        let mut bytes = Vec::new();
        match &mut response.body {
            Body::Full(full) => bytes.extend_from_slice(full),
            Body::Chunks(chunks) => chunks.for_each(|chunk| bytes.extend_from_slice(&chunk)),
            Body::Stream(stream) => {
                futures_lite::future::block_on(stream.for_each(|chunk| bytes.extend_from_slice(&chunk.unwrap())));
            }
            Body::Empty | Body::Status(_) => panic!("no body"),
        }
        (response.headers.iter().any(|(name, value)| name == header::CONTENT_ENCODING && value == "gzip"), bytes)
    }

    #[test]
    fn large_answers_shrink() {
        let large: Vec<u8> = b"{\"a\":\"bcd\"}".iter().copied().cycle().take(GZIP_FROM_BYTES * 3).collect();
        let pieces = |text: &[u8]| {
            let pieces: Vec<Bytes> = text.chunks(50_000).map(Bytes::copy_from_slice).collect();
            Body::Chunks(Box::new(pieces.into_iter()))
        };
        for body in [Body::Full(large.clone().into()), pieces(&large)] {
            let (is_packed, body) = compressed(body);
            assert!(is_packed && body.len() < large.len() / 10);
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, large);
        }
        let small = &large[..GZIP_FROM_BYTES];
        for body in [Body::Full(small.to_vec().into()), pieces(small)] {
            assert_eq!(compressed(body), (false, small.to_vec()));
        }
    }

    #[test]
    fn accept_encoding() {
        for (header, want) in [
            ("gzip", true),
            ("deflate, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
            ("xgzip", false),
        ] {
            assert_eq!(accepts_gzip(header), want, "{header}");
        }
    }
}
