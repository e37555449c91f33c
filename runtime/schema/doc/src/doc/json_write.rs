//! Doc to JSON text, byte for byte as Go's encoder writes it: "<", ">", "&", U+2028 and U+2029 escaped, the shortest
//! digits that read back as the same number. Streams; no tree.
use super::MAX_DEPTH;
use super::Node;
use super::bytes::{self, Key, Value, needs_escape};
use std::io::Write;

pub fn write_node(node: Node<'_>, out: &mut Vec<u8>) {
    match node {
        Node::Ref(place, depth) => match place.encoded() {
            Some(encoded) => drop(write(encoded, depth, out)),
            None => out.extend_from_slice(b"null"),
        },
        Node::Str(text) => write_string(text, out),
        Node::Overlay(overlay) => {
            out.push(b'{');
            for (i, (name, member)) in overlay.members().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_node(member, out);
            }
            out.push(b'}');
        }
    }
}

/// The value at the front of `bytes`; what follows it. Damage is written as null.
fn write<'a>(bytes: &'a [u8], depth: usize, out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let Some((value, rest)) = bytes::value(bytes) else {
        out.extend_from_slice(b"null");
        return None;
    };
    write_value(value, depth, out);
    Some(rest)
}

/// `depth` containers are around it.
#[inline]
pub fn write_value(value: Value<'_>, depth: usize, out: &mut Vec<u8>) {
    match value {
        Value::Str { text, plain: true } => {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        Value::Str { text, plain: false } => write_string_bytes(text, out),
        Value::Map(inner) if depth < MAX_DEPTH => write_map(inner, depth + 1, out),
        Value::List(mut inner) if depth < MAX_DEPTH => {
            out.push(b'[');
            while let Some(next) = (!inner.is_empty()).then(|| write(inner, depth + 1, out)).flatten() {
                inner = next;
                if !inner.is_empty() {
                    out.push(b',');
                }
            }
            out.push(b']');
        }
        Value::Null | Value::Map(_) | Value::List(_) => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(value) => write_integer(value.unsigned_abs(), value < 0, out),
        Value::Uint(value) => write_integer(value, false, out),
        Value::Float(value) => write_float(value, out),
    }
}

fn write_map(mut inner: &[u8], depth: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    while let Some((key, rest)) = bytes::key(inner) {
        match key {
            Key::Inline(text) => write_string_bytes(text, out),
            Key::Name(_) | Key::Field(_) => {
                out.push(b'"');
                out.extend_from_slice(key.text().unwrap_or_default().as_bytes());
                out.push(b'"');
            }
        }
        out.push(b':');
        match write(rest, depth, out) {
            Some(next) => inner = next,
            None => break,
        }
        if !inner.is_empty() {
            out.push(b',');
        }
    }
    out.push(b'}');
}

fn write_integer(mut value: u64, negative: bool, out: &mut Vec<u8>) {
    let mut digits = [0; 21];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if negative {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

/// Go switches to an exponent below 1e-6 and from 1e21 on.
fn write_float(value: f64, out: &mut Vec<u8>) {
    let size = value.abs();
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        let text = if size >= 1.0 { text.replace('e', "e+") } else { text };
        out.extend_from_slice(text.as_bytes());
    } else {
        // Writing into a Vec does not fail.
        let _ = write!(out, "{value}");
    }
}

/// Appends `text` in quotes.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    write_string_bytes(text.as_bytes(), out);
}

fn write_string_bytes(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut copied = 0;
    for (at, &byte) in text.iter().enumerate() {
        if !needs_escape(byte) {
            continue;
        }
        let (escape, width): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0x08 => (b"\\b", 1),
            0x0c => (b"\\f", 1),
            0xe2 => match text.get(at + 1..at + 3) {
                Some([0x80, 0xa8]) => (b"\\u2028", 3),
                Some([0x80, 0xa9]) => (b"\\u2029", 3),
                _ => continue,
            },
            _ => (&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]], 1),
        };
        out.extend_from_slice(&text[copied..at]);
        out.extend_from_slice(escape);
        copied = at + width;
    }
    out.extend_from_slice(&text[copied..]);
    out.push(b'"');
}
