//! The little of systemd's D-Bus that slices need: their limits set, so that systemd keeps them over a reload of its
//! own, and their end. One call a connection, over the socket that systemd itself listens on, so no bus need run.
//! Wire format: the D-Bus specification, "Message Protocol"; methods: org.freedesktop.systemd1(5).
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

const SOCKET: &str = "/run/systemd/private";
const TIMEOUT: Duration = Duration::from_secs(5);
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
/// Of a message that is read; answers to these calls are a few hundred bytes.
const MAX_BYTES: usize = 64 * 1024;

/// `properties` are numbers: CPUWeight, CPUQuotaPerSecUSec, MemoryMax.
pub fn set_properties(unit: &str, properties: &[(&str, u64)]) -> io::Result<()> {
    let mut body = Marshal::default();
    body.string(unit);
    // At run time only: a slice is gone after a boot, and so are its pods.
    body.u32(1);
    let length = body.begin_array(8);
    for (name, value) in properties {
        body.align(8);
        body.string(name);
        body.signature("t");
        body.u64(*value);
    }
    body.end_array(length, 8);
    call("SetUnitProperties", "sba(sv)", body)
}

pub fn stop(unit: &str) -> io::Result<()> {
    let mut body = Marshal::default();
    body.string(unit);
    body.string("replace");
    call("StopUnit", "ss", body)
}

fn call(member: &str, signature: &str, body: Marshal) -> io::Result<()> {
    let stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut stream = BufReader::new(stream);
    let uid = rustix::process::geteuid().as_raw().to_string();
    let uid: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
    stream.get_mut().write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
    let mut line = String::new();
    stream.by_ref().take(1024).read_line(&mut line)?;
    if !line.starts_with("OK ") {
        return Err(io::Error::other(format!("systemd does not know us: {}", line.trim_end())));
    }
    stream.get_mut().write_all(b"BEGIN\r\n")?;
    stream.get_mut().write_all(&message(member, signature, body))?;
    loop {
        // What is none of ours in between is a signal.
        match answer(&mut stream)? {
            (METHOD_RETURN, _) => return Ok(()),
            (ERROR, text) => return Err(io::Error::other(format!("{member}: {text}"))),
            _ => {}
        }
    }
}

fn message(member: &str, signature: &str, body: Marshal) -> Vec<u8> {
    let mut out = Marshal::default();
    out.0.extend([b'l', METHOD_CALL, 0, 1]);
    out.u32(body.0.len() as u32);
    out.u32(1);
    let length = out.begin_array(8);
    let fields = [
        (1, "o", "/org/freedesktop/systemd1"),
        (6, "s", "org.freedesktop.systemd1"),
        (2, "s", "org.freedesktop.systemd1.Manager"),
        (3, "s", member),
    ];
    for (code, kind, text) in fields {
        out.align(8);
        out.0.push(code);
        out.signature(kind);
        out.string(text);
    }
    out.align(8);
    out.0.push(8);
    out.signature("g");
    out.signature(signature);
    out.end_array(length, 8);
    out.align(8);
    out.0.extend(body.0);
    out.0
}

/// The type of the next message, and the text its body begins with when it is an error.
fn answer(stream: &mut impl Read) -> io::Result<(u8, String)> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let (body, fields) = (number(&head[4..8]), number(&head[12..16]));
    if head[0] != b'l' || body > MAX_BYTES || fields > MAX_BYTES {
        return Err(io::Error::other("systemd's answer is no D-Bus message"));
    }
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest)?;
    let body = &rest[fields.next_multiple_of(8)..];
    let text = body.get(..4).map(number).and_then(|length| body.get(4..4 + length)).unwrap_or_default();
    Ok((head[1], String::from_utf8_lossy(text).into_owned()))
}

/// Little-endian D-Bus values, aligned from the start of what is written.
#[derive(Default)]
struct Marshal(Vec<u8>);

impl Marshal {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }
    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }
    fn string(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.bytes().chain([0]));
    }
    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.bytes().chain([0]));
    }
    /// Where the length goes; elements are aligned to `to`.
    fn begin_array(&mut self, to: usize) -> usize {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(to);
        length
    }
    fn end_array(&mut self, length: usize, to: usize) {
        let bytes = (self.0.len() - (length + 4).next_multiple_of(to)) as u32;
        self.0[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_byte_by_byte() {
        let mut body = Marshal::default();
        body.string("a");
        body.string("replace");
        let bytes = message("StopUnit", "ss", body);
        // Fixed head: little endian, a call, version 1, 20 bytes of body, serial 1.
        assert_eq!(bytes[..12], [b'l', 1, 0, 1, 20, 0, 0, 0, 1, 0, 0, 0]);
        let fields = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), (16 + fields).next_multiple_of(8) + 20);
        assert_eq!(bytes[16..24], [1, 1, b'o', 0, 25, 0, 0, 0]);
        let body = &bytes[bytes.len() - 20..];
        assert_eq!(body, b"\x01\0\0\0a\0\0\0\x07\0\0\0replace\0");
    }

    #[test]
    fn properties_are_aligned() {
        let mut body = Marshal::default();
        body.string("s");
        body.u32(1);
        let length = body.begin_array(8);
        body.align(8);
        body.string("W");
        body.signature("t");
        body.u64(7);
        body.end_array(length, 8);
        assert_eq!(
            body.0,
            [
                &[1, 0, 0, 0, b's', 0, 0, 0, 1, 0, 0, 0, 24, 0, 0, 0][..],
                &[1, 0, 0, 0, b'W', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0][..]
            ]
            .concat()
        );
    }

    #[test]
    fn answers() {
        for (bytes, want) in [
            (&b"l\x02\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0"[..], Some((2, ""))),
            (b"l\x03\0\x01\x07\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0no\0", Some((3, "no"))),
            (b"l\x03\0\x01\x07\0\0\0\x01\0\0\0\0\0\0\0\xff\0\0\0no\0", Some((3, ""))),
            (b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0", None),
            (b"HTTP", None),
        ] {
            let read = answer(&mut &bytes[..]).ok();
            assert_eq!(read, want.map(|(kind, text)| (kind, text.to_owned())));
        }
    }
}
