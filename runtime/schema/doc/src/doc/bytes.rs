//! Bytes to values, one step at a time: the only code that takes apart what FORMAT.md describes.
use super::{DocError, MAX_BYTES, MAX_DEPTH, MAX_VALUES, names};

pub(super) const VERSION: u8 = 1;

pub const NULL: u8 = 0x00;
pub(super) const FALSE: u8 = 0x01;
pub(super) const TRUE: u8 = 0x02;
pub(super) const INT: u8 = 0x03;
pub(super) const UINT: u8 = 0x04;
pub(super) const FLOAT: u8 = 0x05;
pub(super) const STRING: u8 = 0x06;
pub(super) const ESCAPED: u8 = 0x07;
pub(super) const MAP: u8 = 0x08;
pub(super) const LIST: u8 = 0x09;
pub(super) const SMALL_INT: u8 = 0x10;
pub(super) const SHORT_STRING: u8 = 0x40;
pub(super) const SHORT_MAP: u8 = 0x80;
pub(super) const SHORT_LIST: u8 = 0xc0;
/// Lengths below this live in the tag.
pub(super) const SHORT: usize = 0x40;
pub(super) const SMALL_INTS: i64 = 0x20;

pub(super) const KEY_WIDE: u8 = 0xc0;
pub(super) const KEY_FIELD: u8 = 0xd8;
pub(super) const KEY_INLINE: u8 = 0xda;
pub(super) const KEY_LONG: u8 = 0xff;
pub(super) const MAX_NAMES: usize = KEY_WIDE as usize + ((KEY_FIELD - KEY_WIDE) as usize) * 256;

#[derive(Clone, Copy)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// Above i64::MAX.
    Uint(u64),
    Float(f64),
    /// `plain` text is the same inside JSON quotes.
    Str {
        text: &'a [u8],
        plain: bool,
    },
    List(&'a [u8]),
    Map(&'a [u8]),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Key<'a> {
    Name(u16),
    /// "f:" and a name.
    Field(u16),
    Inline(&'a [u8]),
}

impl<'a> Key<'a> {
    /// With all the names that this build knows.
    pub fn of(text: &'a [u8]) -> Key<'a> {
        if let Some(id) = names::id(text) {
            return Key::Name(id);
        }
        match text.strip_prefix(b"f:").and_then(names::id) {
            Some(id) => Key::Field(id),
            None => Key::Inline(text),
        }
    }
    /// As a Doc holds it: numbers from `limit` on are text.
    pub(super) fn below(self, limit: u16) -> Key<'a> {
        match self {
            Key::Name(id) | Key::Field(id) if id >= limit => {
                self.text().map_or(self, |text| Key::Inline(text.as_bytes()))
            }
            _ => self,
        }
    }
    pub(super) fn is(self, name: &str) -> bool {
        match self {
            Key::Inline(text) => text == name.as_bytes(),
            key => key.text() == Some(name),
        }
    }
    pub fn text(self) -> Option<&'a str> {
        match self {
            Key::Name(id) => names::name(id),
            Key::Field(id) => names::prefixed(id),
            Key::Inline(text) => std::str::from_utf8(text).ok(),
        }
    }
}

/// A length. Most are below 128, so they do not take the way through postcard.
#[inline]
fn len(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes.split_first() {
        Some((&byte, rest)) if byte < 0x80 => Some((byte.into(), rest)),
        _ => postcard::take_from_bytes::<usize>(bytes).ok(),
    }
}

/// A number as postcard writes it, in one to ten bytes of seven bits.
#[inline]
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return (at < 9 || byte < 2).then_some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[inline]
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = len(bytes)?;
    rest.split_at_checked(len)
}

/// The value at the front and what follows it.
#[inline(always)]
pub fn value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let short = usize::from(tag) % SHORT;
    Some(match tag {
        SHORT_STRING..SHORT_MAP => {
            let (text, rest) = rest.split_at_checked(short)?;
            (Value::Str { text, plain: true }, rest)
        }
        SHORT_MAP..SHORT_LIST => {
            let (inner, rest) = rest.split_at_checked(short)?;
            (Value::Map(inner), rest)
        }
        SHORT_LIST.. => {
            let (inner, rest) = rest.split_at_checked(short)?;
            (Value::List(inner), rest)
        }
        SMALL_INT..0x30 => (Value::Int((tag - SMALL_INT).into()), rest),
        NULL => (Value::Null, rest),
        FALSE => (Value::Bool(false), rest),
        TRUE => (Value::Bool(true), rest),
        INT => {
            let (value, rest) = varint(rest)?;
            // Zigzag: the sign is the lowest bit.
            (Value::Int((value >> 1) as i64 ^ -((value & 1) as i64)), rest)
        }
        UINT => {
            let (value, rest) = varint(rest)?;
            (Value::Uint(value), rest)
        }
        FLOAT => {
            let (value, rest) = postcard::take_from_bytes(rest).ok()?;
            (Value::Float(value), rest)
        }
        STRING | ESCAPED => {
            let (text, rest) = sized(rest)?;
            (Value::Str { text, plain: tag == STRING }, rest)
        }
        MAP => {
            let (inner, rest) = sized(rest)?;
            (Value::Map(inner), rest)
        }
        LIST => {
            let (inner, rest) = sized(rest)?;
            (Value::List(inner), rest)
        }
        _ => return None,
    })
}

/// What follows the value at the front.
#[inline]
pub fn skip(bytes: &[u8]) -> Option<&[u8]> {
    let (&tag, rest) = bytes.split_first()?;
    match tag {
        SHORT_STRING.. => rest.get(usize::from(tag) % SHORT..),
        NULL | FALSE | TRUE | SMALL_INT..0x30 => Some(rest),
        STRING | ESCAPED | MAP | LIST => sized(rest).map(|(_, rest)| rest),
        _ => value(bytes).map(|(_, rest)| rest),
    }
}

/// The key at the front and what follows it. Ids are not looked up.
#[inline(always)]
pub fn key(bytes: &[u8]) -> Option<(Key<'_>, &[u8])> {
    let (&head, rest) = bytes.split_first()?;
    if head < KEY_WIDE {
        return Some((Key::Name(head.into()), rest));
    }
    Some(match head {
        ..KEY_FIELD => {
            let (&low, rest) = rest.split_first()?;
            (Key::Name(wide(head, low)), rest)
        }
        KEY_FIELD => {
            let (&head, rest) = rest.split_first()?;
            match head {
                ..KEY_WIDE => (Key::Field(head.into()), rest),
                KEY_WIDE..KEY_FIELD => {
                    let (&low, rest) = rest.split_first()?;
                    (Key::Field(wide(head, low)), rest)
                }
                _ => return None,
            }
        }
        KEY_INLINE..KEY_LONG => {
            let (text, rest) = rest.split_at_checked((head - KEY_INLINE).into())?;
            (Key::Inline(text), rest)
        }
        KEY_LONG => {
            let (text, rest) = sized(rest)?;
            (Key::Inline(text), rest)
        }
        _ => return None,
    })
}

fn wide(head: u8, low: u8) -> u16 {
    u16::from(KEY_WIDE) + u16::from(head - KEY_WIDE) * 256 + u16::from(low)
}

/// The letter of the escape that stands for `byte` inside JSON quotes, as Go's encoder writes it; 0 when it stands for itself,
/// `LINE` where that depends on what follows.
#[inline(always)]
pub(super) const fn escape(byte: u8) -> u8 {
    ESCAPES[byte as usize]
}

/// Opens U+2028 and U+2029, and much else: text with it takes the slower way and comes out the same.
pub(super) const LINE: u8 = 0xe2;

pub(super) fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(0, |seen, &byte| seen | ESCAPES[usize::from(byte)]) == 0
}

static ESCAPES: [u8; 256] = {
    let (mut table, mut i) = ([0; 256], 0);
    while i < 256 {
        table[i] = match i as u8 {
            byte @ (b'"' | b'\\' | LINE) => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 | b'<' | b'>' | b'&' => b'u',
            _ => 0,
        };
        i += 1;
    }
    table
};

/// Walks everything once. What passes here, readers can walk to its end.
pub(super) fn check(bytes: &[u8]) -> Result<(), DocError> {
    if bytes.len() > MAX_BYTES {
        return Err(DocError::TooLarge { limit: MAX_BYTES });
    }
    let Some((&VERSION, body)) = bytes.split_first() else {
        return Err(DocError::Damaged { at: 0, what: "not a version this build reads" });
    };
    let mut check = Check { total: bytes.len(), values: 0 };
    let rest = check.value(body, 0)?;
    if rest.is_empty() { Ok(()) } else { Err(check.damaged(rest, "bytes after the end")) }
}

/// The same for one value inside `depth` containers, after `values` others: how many there are then.
pub(super) fn check_value(bytes: &[u8], depth: usize, values: usize) -> Result<usize, DocError> {
    let mut check = Check { total: bytes.len(), values };
    check.value(bytes, depth)?;
    Ok(check.values)
}

struct Check {
    total: usize,
    values: usize,
}

impl Check {
    /// `rest` is a tail of the container being walked, so the place is near, not exact.
    fn damaged(&self, rest: &[u8], what: &'static str) -> DocError {
        DocError::Damaged { at: self.total.saturating_sub(rest.len()), what }
    }

    fn value<'a>(&mut self, bytes: &'a [u8], depth: usize) -> Result<&'a [u8], DocError> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(DocError::TooLarge { limit: MAX_VALUES });
        }
        let Some((found, rest)) = value(bytes) else {
            return Err(self.damaged(bytes, "a value is cut short or of an unknown type"));
        };
        match found {
            Value::Null | Value::Bool(_) | Value::Int(_) => {}
            Value::Uint(value) if value <= i64::MAX as u64 => {
                return Err(self.damaged(bytes, "an integer is not in its smallest form"));
            }
            Value::Uint(_) => {}
            Value::Float(value) if !value.is_finite() => return Err(self.damaged(bytes, "a number is not finite")),
            Value::Float(_) => {}
            Value::Str { text, plain } => {
                if std::str::from_utf8(text).is_err() || plain && !is_plain(text) {
                    return Err(self.damaged(bytes, "a string is not UTF-8 or needs escapes"));
                }
            }
            Value::List(mut inner) => {
                self.enter(depth)?;
                while !inner.is_empty() {
                    inner = self.value(inner, depth + 1)?;
                }
            }
            Value::Map(mut inner) => {
                self.enter(depth)?;
                while !inner.is_empty() {
                    inner = match key(inner) {
                        Some((found, rest)) if found.text().is_some() => self.value(rest, depth + 1)?,
                        _ => return Err(self.damaged(inner, "a key is cut short, not UTF-8 or not in the dictionary")),
                    };
                }
            }
        }
        Ok(rest)
    }

    fn enter(&self, depth: usize) -> Result<(), DocError> {
        if depth < MAX_DEPTH { Ok(()) } else { Err(DocError::TooDeep { limit: MAX_DEPTH }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_postcard_reads_them() {
        let near = (0..64).flat_map(|bit| [1u64 << bit, (1 << bit) - 1]).chain([u64::MAX]);
        for value in near {
            let bytes = [postcard::to_allocvec(&value).unwrap(), vec![7]].concat();
            assert_eq!(varint(&bytes), Some((value, &[7][..])));
            for signed in [value as i64, (value as i64).wrapping_neg()] {
                let bytes = [vec![INT], postcard::to_allocvec(&signed).unwrap()].concat();
                assert!(matches!(super::value(&bytes), Some((Value::Int(found), [])) if found == signed), "{signed}");
            }
        }
        for bad in
            [&[][..], &[0x80], &[0xff; 9], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]]
        {
            assert_eq!(varint(bad), None, "{bad:?}");
        }
    }
}
