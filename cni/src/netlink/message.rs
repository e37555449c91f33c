//! Netlink messages and attributes as bytes: building and taking apart, no I/O.
//!
//! A message is a 16-byte header, a fixed part that its subsystem defines, and attributes (length, type, value,
//! padded to four bytes), which may nest. Everything is in the machine's byte order unless an attribute says
//! otherwise; nf_tables wants its numbers in network order.

pub const HEADER_LEN: usize = 16;
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;

pub const NLM_F_REQUEST: u16 = 0x1;
pub const NLM_F_ACK: u16 = 0x4;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;

const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// The length field of an attribute has 16 bits.
pub const ATTR_LIMIT_BYTES: usize = u16::MAX as usize;

pub const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// A message being built. Its length, flags and sequence are filled in when it is finished.
pub struct Message {
    bytes: Vec<u8>,
    flags: u16,
}

impl Message {
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(fixed);
        bytes.resize(align(bytes.len()), 0);
        Message { bytes, flags }
    }

    pub fn attr(mut self, kind: u16, value: &[u8]) -> Message {
        put(&mut self.bytes, kind, value);
        self
    }
    pub fn u32(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_ne_bytes())
    }
    /// Network order, as nf_tables has it.
    pub fn be32(self, kind: u16, value: u32) -> Message {
        self.attr(kind, &value.to_be_bytes())
    }
    /// With the closing zero byte that the kernel wants.
    pub fn string(mut self, kind: u16, value: &str) -> Message {
        put_string(&mut self.bytes, kind, value);
        self
    }
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> Message {
        nest(&mut self.bytes, kind, fill);
        self
    }

    pub fn finish(mut self, flags: u16, sequence: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&(self.flags | flags).to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// Appends an attribute. A value beyond 64 kB cannot be said in netlink; callers keep below `ATTR_LIMIT_BYTES`.
pub fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    debug_assert!(value.len() + 4 <= ATTR_LIMIT_BYTES);
    out.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(align(out.len()), 0);
}

pub fn put_u32(out: &mut Vec<u8>, kind: u16, value: u32) {
    put(out, kind, &value.to_ne_bytes());
}

pub fn put_be32(out: &mut Vec<u8>, kind: u16, value: u32) {
    put(out, kind, &value.to_be_bytes());
}

pub fn put_be64(out: &mut Vec<u8>, kind: u16, value: u64) {
    put(out, kind, &value.to_be_bytes());
}

pub fn put_string(out: &mut Vec<u8>, kind: u16, value: &str) {
    out.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(0);
    out.resize(align(out.len()), 0);
}

pub fn nest(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
    fill(out);
    let len = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&len.to_ne_bytes());
}

/// One message of a datagram.
pub struct Answer<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// The messages of a datagram; stops at the first that does not fit.
pub fn split(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        if len < HEADER_LEN || len > bytes.len() {
            return None;
        }
        let answer = Answer {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            payload: &bytes[HEADER_LEN..len],
        };
        bytes = bytes.get(align(len)..).unwrap_or(&[]);
        Some(answer)
    })
}

/// Attributes of a message or a nest; stops at the first that does not fit.
#[derive(Clone)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    pub fn new(bytes: &'a [u8]) -> Attrs<'a> {
        Attrs(bytes)
    }
    /// The first attribute of this type, or an empty value.
    pub fn value(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }
    pub fn nested(&self, kind: u16) -> Attrs<'a> {
        Attrs(self.value(kind).unwrap_or(&[]))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let len = u16_at(self.0, 0)? as usize;
        let kind = u16_at(self.0, 2)? & NLA_TYPE_MASK;
        if len < 4 {
            return None;
        }
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(align(len)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.first_chunk::<2>().map(|b| u16::from_ne_bytes(*b))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.first_chunk::<4>().map(|b| u32::from_ne_bytes(*b))
}

/// A zero-closed string.
pub fn text(value: &[u8]) -> &str {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    std::str::from_utf8(&value[..end]).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_it_was_built() {
        let message = Message::new(20, 0, &[1, 2, 3])
            .u32(1, 7)
            .string(2, "eth0")
            .nest(3, |out| put_be32(out, 4, 9))
            .finish(NLM_F_REQUEST, 42);
        assert_eq!(message.len() % 4, 0);
        let answers: Vec<_> = split(&message).collect();
        assert_eq!(answers.len(), 1);
        assert_eq!((answers[0].kind, answers[0].flags, answers[0].sequence), (20, NLM_F_REQUEST, 42));
        let attrs = Attrs::new(&answers[0].payload[4..]);
        assert_eq!(attrs.value(1), Some(&7u32.to_ne_bytes()[..]));
        assert_eq!(attrs.value(2).map(text), Some("eth0"));
        assert_eq!(attrs.nested(3).value(4), Some(&9u32.to_be_bytes()[..]));
        assert_eq!(attrs.value(9), None);
    }

    #[test]
    fn damaged_bytes_end_quietly() {
        let whole = Message::new(1, 0, &[]).u32(1, 1).u32(2, 2).finish(0, 1);
        for cut in 0..whole.len() {
            assert_eq!(split(&whole[..cut]).count(), 0);
        }
        for (name, bytes) in [
            ("zero length", &[0u8, 0, 1, 0][..]),
            ("longer than there is", &[9, 0, 1, 0, 5][..]),
            ("shorter than a header", &[3, 0, 1, 0][..]),
        ] {
            assert_eq!(Attrs::new(bytes).count(), 0, "{name}");
        }
    }
}
