//! Doc to JSON text, byte for byte as Go's encoder writes it: "<", ">", "&", U+2028 and U+2029 escaped, the shortest
//! digits that read back as the same number. Streams; no tree.
use super::MAX_DEPTH;
use super::Node;
use super::bytes::{self, Key, LINE, Value, escape};
use super::de::DEPTH;
use super::names::{self, PIECE};
use super::{Overlay, Room};
use std::io::Write;

pub fn write_node(node: Node<'_>, out: &mut Vec<u8>) {
    Room::new(out).node(node);
}

/// Appends `text` in quotes.
pub fn write_string(string: &str, out: &mut Vec<u8>) {
    Room::new(out).string(string.as_bytes());
}

impl Room<'_> {
    fn node(&mut self, node: Node<'_>) {
        match node {
            Node::Ref(place, depth) => match place.value() {
                Some(value) => self.json(value, depth),
                None => self.bytes(b"null"),
            },
            Node::Str(text) => self.string(text.as_bytes()),
            Node::Overlay(overlay) => self.overlay(overlay),
        }
    }

    fn overlay(&mut self, overlay: &Overlay<'_>) {
        let mut before = b'{';
        for &(name, member) in overlay.over {
            self.bytes(&[before]);
            self.string(name.as_bytes());
            self.bytes(b":");
            self.node(member);
            before = b',';
        }
        if let Some(Value::Map(inner)) = overlay.base.value() {
            debug_assert!(overlay.over.len() <= MAX_OVER);
            let mut hidden = [None; MAX_OVER];
            for (id, (name, _)) in hidden.iter_mut().zip(overlay.over) {
                *id = names::id(name.as_bytes());
            }
            before = self.members(before, inner, DEPTH, &|key| match key {
                Key::Name(id) => hidden.contains(&Some(id)),
                key => overlay.over.iter().any(|(name, _)| key.is(name)),
            });
        }
        if before == b'{' {
            self.bytes(b"{");
        }
        self.bytes(b"}");
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
        self.advance(len + 2);
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
        self.json(value, depth);
        Some(rest)
    }

    /// `depth` containers are around it.
    pub fn json(&mut self, value: Value<'_>, depth: usize) {
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
    fn map(&mut self, inner: &[u8], depth: usize) {
        if self.members(b'{', inner, depth, &|_| false) == b'{' {
            self.bytes(b"{");
        }
        self.bytes(b"}");
    }

    /// Each behind `before` or a comma; what the next one would stand behind.
    #[inline(always)]
    fn members(&mut self, mut before: u8, mut inner: &[u8], depth: usize, is_hidden: &impl Fn(Key<'_>) -> bool) -> u8 {
        while let Some((key, rest)) = bytes::key(inner) {
            if is_hidden(key) {
                let Some(next) = bytes::skip(rest) else { break };
                inner = next;
                continue;
            }
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
            before = b',';
            let Some(next) = self.encoded(b':', rest, depth) else { break };
            inner = next;
        }
        before
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
            // Writing into a Vec does not fail.
            self.append(&mut |out| drop(write!(out, "{value}")));
        }
    }

    /// In quotes.
    fn string(&mut self, text: &[u8]) {
        self.bytes(b"\"");
        let mut from = 0;
        while from < text.len() {
            let end = text.len().min(from + PIECE);
            let room = self.room(PIECE * LONGEST_ESCAPE);
            let mut to = 0;
            while let Some(&byte) = text.get(from).filter(|_| from < end) {
                from += 1;
                match escape(byte) {
                    0 => {
                        room[to] = byte;
                        to += 1;
                    }
                    letter => {
                        let (escaped, len, read) = escaped(byte, letter, &text[from..]);
                        room[to..to + LONGEST_ESCAPE].copy_from_slice(&escaped);
                        to += len;
                        from += read;
                    }
                }
            }
            self.advance(to);
        }
        self.bytes(b"\"");
    }
}

/// Members that an overlay has.
const MAX_OVER: usize = 4;
const LONGEST_ESCAPE: usize = 6;

/// What stands for `byte`, how much of it, and how many of the bytes behind it are a part of that.
fn escaped(byte: u8, letter: u8, behind: &[u8]) -> ([u8; LONGEST_ESCAPE], usize, usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match (letter, behind) {
        (LINE, [0x80, last @ (0xa8 | 0xa9), ..]) => {
            ([b'\\', b'u', b'2', b'0', b'2', HEX[usize::from(last & 15)]], 6, 2)
        }
        (LINE, _) => ([byte, 0, 0, 0, 0, 0], 1, 0),
        (b'u', _) => ([b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]], 6, 0),
        _ => ([b'\\', letter, 0, 0, 0, 0], 2, 0),
    }
}
