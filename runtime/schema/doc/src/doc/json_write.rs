//! Doc to JSON text, byte for byte as Go's encoder writes it: "<", ">", "&", U+2028 and U+2029 escaped, the shortest
//! digits that read back as the same number. Streams; no tree.
use super::MAX_DEPTH;
use super::Node;
use super::bytes::{self, Key, Value, needs_escape};
use super::names::{self, PIECE};
use std::io::Write;

pub fn write_node(node: Node<'_>, out: &mut Vec<u8>) {
    match node {
        Node::Ref(place, depth) => match place.encoded() {
            Some(encoded) => match bytes::value(encoded) {
                Some((value, _)) => write_value(value, depth, out),
                None => out.extend_from_slice(b"null"),
            },
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

/// `depth` containers are around it.
pub fn write_value(value: Value<'_>, depth: usize, out: &mut Vec<u8>) {
    Text::of(out, |text| text.value(value, depth));
}

/// Appends `text` in quotes.
pub fn write_string(string: &str, out: &mut Vec<u8>) {
    Text::of(out, |text| text.string(string.as_bytes()));
}

/// JSON being written at `at` into bytes that are there already: a key or a short string is copied as one piece of a fixed
/// length, of which the next thing overwrites what is too much.
struct Text<'o> {
    out: &'o mut Vec<u8>,
    at: usize,
}

/// Most bytes made ready at a time.
const ROOM: usize = 2048;

impl Text<'_> {
    fn of(out: &mut Vec<u8>, write: impl FnOnce(&mut Text<'_>)) {
        let at = out.len();
        let mut text = Text { out, at };
        write(&mut text);
        let Text { out, at } = text;
        out.truncate(at);
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, len: usize) {
        // Little for what is short, since a watcher's frames are kept as they are.
        self.out.resize(self.at + len + (self.at / 4).clamp(PIECE, ROOM), 0);
    }

    /// The next `len` bytes, and more.
    #[inline(always)]
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.out.len() - self.at < len {
            self.grow(len);
        }
        &mut self.out[self.at..]
    }

    #[inline(always)]
    fn bytes<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.room(N)[..N].copy_from_slice(bytes);
        self.at += N;
    }

    #[inline(always)]
    fn slice(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// `before`, a quote and the first `len` bytes of `from`, behind which more may stand.
    #[inline(always)]
    fn piece(&mut self, before: u8, from: &[u8], len: usize) {
        let Some(piece) = from.first_chunk::<PIECE>().filter(|_| len <= PIECE) else {
            self.bytes(&[before, b'"']);
            return self.slice(from.get(..len).unwrap_or_default());
        };
        let room = self.room(PIECE + 2);
        room[0] = before;
        room[1] = b'"';
        room[2..PIECE + 2].copy_from_slice(piece);
        self.at += len + 2;
    }

    /// The value at the front of `encoded`; what follows it. Damage is written as null.
    fn encoded<'a>(&mut self, before: u8, encoded: &'a [u8], depth: usize) -> Option<&'a [u8]> {
        let found = bytes::value(encoded);
        if let Some((Value::Str { text, plain: true }, rest)) = found {
            // What follows the text in the Doc may be copied along.
            self.piece(before, &encoded[encoded.len() - rest.len() - text.len()..], text.len());
            self.bytes(b"\"");
            return Some(rest);
        }
        self.bytes(&[before]);
        let Some((value, rest)) = found else {
            self.bytes(b"null");
            return None;
        };
        self.value(value, depth);
        Some(rest)
    }

    fn value(&mut self, value: Value<'_>, depth: usize) {
        match value {
            Value::Str { text, .. } => self.string(text),
            Value::Map([]) => self.bytes(b"{}"),
            Value::List([]) => self.bytes(b"[]"),
            Value::Map(inner) if depth < MAX_DEPTH => self.map(inner, depth + 1),
            Value::List(inner) if depth < MAX_DEPTH => self.list(inner, depth + 1),
            Value::Null | Value::Map(_) | Value::List(_) => self.bytes(b"null"),
            Value::Bool(true) => self.bytes(b"true"),
            Value::Bool(false) => self.bytes(b"false"),
            Value::Int(value) => self.integer(value.unsigned_abs(), value < 0),
            Value::Uint(value) => self.integer(value, false),
            Value::Float(value) => self.float(value),
        }
    }

    /// Of one item or more.
    fn list(&mut self, mut inner: &[u8], depth: usize) {
        let mut before = b'[';
        while let Some(next) = (!inner.is_empty()).then(|| self.encoded(before, inner, depth)).flatten() {
            (inner, before) = (next, b',');
        }
        self.bytes(b"]");
    }

    /// Of one member or more.
    fn map(&mut self, mut inner: &[u8], depth: usize) {
        let mut before = b'{';
        while let Some((key, rest)) = bytes::key(inner) {
            let quoted = match key {
                Key::Name(id) => names::quoted(id, false),
                Key::Field(id) => names::quoted(id, true),
                Key::Inline(_) => None,
            };
            match (quoted, key) {
                (Some((name, len)), _) => self.piece(before, name, len),
                (None, Key::Inline(name)) => {
                    self.bytes(&[before]);
                    self.string(name);
                }
                // A number that this build does not know.
                (None, _) => self.bytes(&[before, b'"', b'"']),
            }
            let Some(next) = self.encoded(b':', rest, depth) else { break };
            (inner, before) = (next, b',');
        }
        self.bytes(b"}");
    }

    fn integer(&mut self, mut value: u64, negative: bool) {
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
        self.slice(&digits[at..]);
    }

    /// Go switches to an exponent below 1e-6 and from 1e21 on.
    fn float(&mut self, value: f64) {
        let size = value.abs();
        if !value.is_finite() {
            self.bytes(b"null");
        } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
            let text = format!("{value:e}");
            let text = if size >= 1.0 { text.replace('e', "e+") } else { text };
            self.slice(text.as_bytes());
        } else {
            self.out.truncate(self.at);
            // Writing into a Vec does not fail.
            let _ = write!(self.out, "{value}");
            self.at = self.out.len();
        }
    }

    /// In quotes.
    fn string(&mut self, text: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self.bytes(b"\"");
        let mut rest = text;
        while let Some(at) = rest.iter().position(|&byte| needs_escape(byte)) {
            let (plain, odd) = rest.split_at(at);
            self.slice(plain);
            let (escape, width): (&[u8], usize) = match *odd {
                [b'"', ..] => (b"\\\"", 1),
                [b'\\', ..] => (b"\\\\", 1),
                [b'\n', ..] => (b"\\n", 1),
                [b'\r', ..] => (b"\\r", 1),
                [b'\t', ..] => (b"\\t", 1),
                [0x08, ..] => (b"\\b", 1),
                [0x0c, ..] => (b"\\f", 1),
                [0xe2, 0x80, 0xa8, ..] => (b"\\u2028", 3),
                [0xe2, 0x80, 0xa9, ..] => (b"\\u2029", 3),
                [0xe2, ..] => (b"\xe2", 1),
                [byte, ..] => (&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]], 1),
                [] => break,
            };
            self.slice(escape);
            rest = &odd[width..];
        }
        self.slice(rest);
        self.bytes(b"\"");
    }
}
