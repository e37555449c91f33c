//! gRPC's framing: a message is one byte of flags, four of big-endian length, and the bytes
//! (grpc/doc/PROTOCOL-HTTP2.md). Pure; the connection is in `channel`.
use crate::error::Code;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use std::time::Duration;

/// No answer that is asked for is near this (grpc-go's kubelet side uses the same bound).
pub const LIMIT_BYTES: usize = 16 << 20;
const PREFIX_BYTES: usize = 5;

/// `fill` appends the encoded message.
pub fn encode(size: usize, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + size);
    out.put_u8(0);
    out.put_u32(size as u32);
    fill(&mut out);
    out.freeze()
}

/// Takes one whole message off the front; None until it has arrived.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, String> {
    let Some(prefix) = buffer.get(..PREFIX_BYTES) else { return Ok(None) };
    if prefix[0] != 0 {
        return Err("a compressed message was not asked for".into());
    }
    let size = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if size > LIMIT_BYTES {
        return Err(format!("a message of {size} bytes is over the limit of {LIMIT_BYTES}"));
    }
    if buffer.len() < PREFIX_BYTES + size {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(buffer.split_to(size).freeze()))
}

/// `grpc-timeout` takes at most eight digits and a unit.
pub fn timeout_header(timeout: Duration) -> String {
    let ms = timeout.as_millis();
    if ms < 100_000_000 { format!("{ms}m") } else { format!("{}S", timeout.as_secs().min(99_999_999)) }
}

/// The status in `grpc-status` and `grpc-message` of headers or trailers, if they carry one.
pub fn status(headers: &HeaderMap) -> Option<(Code, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().map_or(Code::UNKNOWN, Code);
    let message = headers.get("grpc-message").map_or(String::new(), |m| percent_decode(m.as_bytes()));
    Some((code, message))
}

fn percent_decode(text: &[u8]) -> String {
    let hex = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = match tail {
            [a, b, ..] if first == b'%' => hex(*a).zip(hex(*b)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_and_in_order() {
        let one = encode(3, |b| b.put_slice(b"abc"));
        let two = encode(0, |_| {});
        let mut buffer = BytesMut::new();
        for (i, byte) in one.iter().chain(two.iter()).enumerate() {
            buffer.put_u8(*byte);
            let got = take(&mut buffer).unwrap();
            match i {
                7 => assert_eq!(got.unwrap(), "abc"),
                12 => assert_eq!(got.unwrap(), ""),
                _ => assert!(got.is_none(), "byte {i}"),
            }
        }
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(take(&mut BytesMut::from(&[1, 0, 0, 0, 0][..])).is_err());
        assert!(take(&mut BytesMut::from(&[0, 255, 0, 0, 0][..])).is_err());
    }

    #[test]
    fn percent() {
        for (text, want) in [("a%20b", "a b"), ("100%", "100%"), ("%zz%41", "%zzA"), ("%e2%82%ac", "€"), ("", "")] {
            assert_eq!(percent_decode(text.as_bytes()), want);
        }
    }

    #[test]
    fn timeouts() {
        assert_eq!(timeout_header(Duration::from_millis(1500)), "1500m");
        assert_eq!(timeout_header(Duration::from_secs(200_000)), "200000S");
    }
}
