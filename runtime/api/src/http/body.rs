//! The outgoing body on the wire: a `Body` with what must end when it ends (the in-flight slot, the connection's
//! busy mark), cut off in order when the server stops. Compression of large answers is here too.
use super::request::{Body, BoxStream, Response};
use super::server::Stop;
use bytes::Bytes;
use event_listener::EventListener;
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

pub struct Outgoing {
    content: Content,
    /// Dropped with the body: when it was sent, or when the client went away.
    _until_sent: Box<dyn Any + Send>,
}

enum Content {
    Full(Option<Bytes>),
    Stream { stream: BoxStream<io::Result<Bytes>>, stopped: Option<Pin<Box<EventListener>>> },
}

impl Outgoing {
    pub fn new(body: Body, stop: &Stop, until_sent: impl Send + 'static) -> Outgoing {
        let content = match body {
            Body::Empty => Content::Full(None),
            Body::Full(bytes) => Content::Full((!bytes.is_empty()).then_some(bytes)),
            Body::Stream(stream) => Content::Stream { stream, stopped: Some(Box::pin(stop.listen())) },
        };
        Outgoing { content, _until_sent: Box::new(until_sent) }
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.content {
            Content::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
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
            Content::Stream { .. } => SizeHint::default(),
        }
    }
}

/// Level 1, as upstream, off the main thread; an answer that does not shrink is left as it is.
pub async fn compress(mut response: Response) -> Response {
    let Body::Full(plain) = &response.body else { return response };
    if plain.len() < GZIP_FROM_BYTES || response.headers.iter().any(|(name, _)| name == header::CONTENT_ENCODING) {
        return response;
    }
    let plain = plain.clone();
    let packed = blocking::unblock(move || {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
        encoder.write_all(&plain).and_then(|()| encoder.finish()).ok().filter(|packed| packed.len() < plain.len())
    });
    if let Some(packed) = packed.await {
        response.body = Body::Full(packed.into());
        response.headers.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        response.headers.push((header::VARY, HeaderValue::from_static("Accept-Encoding")));
    }
    response
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
    use std::io::Read as _;

    fn compressed(text: Vec<u8>) -> (bool, Vec<u8>) {
        let response = futures_lite::future::block_on(compress(Response::json(200, text)));
        let Body::Full(body) = response.body else { panic!("no body") };
        (response.headers.iter().any(|(name, value)| name == header::CONTENT_ENCODING && value == "gzip"), body.into())
    }

    #[test]
    fn large_answers_shrink() {
        let large: Vec<u8> = b"{\"a\":\"bcd\"}".iter().copied().cycle().take(GZIP_FROM_BYTES).collect();
        let (is_packed, body) = compressed(large.clone());
        assert!(is_packed && body.len() < large.len() / 10);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, large);
        assert_eq!(compressed(large[1..].to_vec()), (false, large[1..].to_vec()));
        let random: Vec<u8> = (0u64..GZIP_FROM_BYTES as u64)
            .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 ^ n as u8)
            .collect();
        let packed = compressed(random.clone());
        assert!(packed.1.len() <= random.len());
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
