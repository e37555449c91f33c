//! The dictionary of field names: `names.txt`, one name a line, the line number (from 0) is the id. Append only, since
//! stored Docs hold the ids. Everything is laid out at compile time, in read-only memory (about 23 bytes a name); nothing
//! is built at start.
//!
//! Every name is kept as `f:name"`, so that the keys of managedFields borrow from the same text, and JSON copies what it
//! writes of a key as one piece.

const TEXT: &[u8] = include_bytes!("../names.txt");

const COUNT: usize = {
    let (mut count, mut i) = (0, 0);
    while i < TEXT.len() {
        if TEXT[i] == b'\n' {
            count += 1;
        }
        i += 1;
    }
    count
};

/// Names that the release before this one knows, and so may be written as numbers: who goes back a release can read all
/// that this one wrote. `FORMAT.md`, "Change", says when this and `DATA_VERSION` rise.
pub(super) const WRITTEN: u16 = 878;
/// What stored objects are written as. A build reads all versions before its own, and the one after it.
pub const DATA_VERSION: u64 = 1;

const _: () = assert!(WRITTEN as usize <= COUNT);
const _: () = assert!(COUNT < super::bytes::MAX_NAMES && TEXT[TEXT.len() - 1] == b'\n');

/// Each line loses its newline and gains "f:" before it and a quote behind it.
const SIZE: usize = TEXT.len() + COUNT * (PREFIX + SUFFIX - 1);
const PREFIX: usize = 2;
const SUFFIX: usize = 1;
/// A piece of text of one length, which is copied faster than one whose length must be looked at. Most names are shorter.
/// As many bytes stand behind the last name.
pub(super) const PIECE: usize = 32;
const _: () = assert!(SIZE <= u16::MAX as usize, "ENDS needs a wider integer");

const SLOTS: usize = (COUNT * 2).next_power_of_two();
const NONE: u16 = u16::MAX;

struct Layout {
    text: [u8; SIZE + PIECE],
    /// Where each name, with what stands behind it, ends in `text`.
    ends: [u16; COUNT],
    /// Open addressing from `hash` to id.
    slots: [u16; SLOTS],
}

#[allow(long_running_const_eval, reason = "two thousand names take well under a second")]
static LAYOUT: Layout = layout();

const fn layout() -> Layout {
    let mut layout = Layout { text: [0; SIZE + PIECE], ends: [0; COUNT], slots: [NONE; SLOTS] };
    let (mut read, mut write, mut id) = (0, 0, 0);
    while id < COUNT {
        layout.text[write] = b'f';
        layout.text[write + 1] = b':';
        write += 2;
        let start = read;
        while TEXT[read] != b'\n' {
            let b = TEXT[read];
            // So that names are written into JSON as they are.
            assert!(
                b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'$' | b'/'),
                "odd byte in names.txt"
            );
            layout.text[write] = b;
            write += 1;
            read += 1;
        }
        assert!(read > start, "empty line in names.txt");
        layout.text[write] = b'"';
        write += SUFFIX;
        layout.ends[id] = write as u16;
        let mut slot = hash(TEXT, start, read) as usize & (SLOTS - 1);
        while layout.slots[slot] != NONE {
            let other = layout.slots[slot] as usize;
            let from = if other == 0 { PREFIX } else { layout.ends[other - 1] as usize + PREFIX };
            assert!(
                !same(&layout.text, from, layout.ends[other] as usize - SUFFIX, start, read),
                "a name is twice in names.txt"
            );
            slot = (slot + 1) & (SLOTS - 1);
        }
        layout.slots[slot] = id as u16;
        read += 1;
        id += 1;
    }
    layout
}

const fn same(text: &[u8; SIZE + PIECE], from: usize, to: usize, start: usize, end: usize) -> bool {
    if to - from != end - start {
        return false;
    }
    let mut i = 0;
    while i < to - from {
        if text[from + i] != TEXT[start + i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Of the length and the first and last eight bytes: names differ there, and three multiplications are cheaper than a loop.
const fn hash(bytes: &[u8], from: usize, to: usize) -> u32 {
    let len = to - from;
    let (a, b) = if len >= 8 {
        (load(bytes, from), load(bytes, to - 8))
    } else {
        let (mut word, mut i) = (0u64, from);
        while i < to {
            word = word << 8 | bytes[i] as u64;
            i += 1;
        }
        (word, 0)
    };
    let mixed = (a ^ len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as u32
}

const fn load(bytes: &[u8], i: usize) -> u64 {
    u64::from_le_bytes([
        bytes[i],
        bytes[i + 1],
        bytes[i + 2],
        bytes[i + 3],
        bytes[i + 4],
        bytes[i + 5],
        bytes[i + 6],
        bytes[i + 7],
    ])
}

static NAMES: &str = match std::str::from_utf8(&LAYOUT.text) {
    Ok(text) => text,
    Err(_) => panic!("names.txt is ASCII"),
};

/// Names this build knows.
pub fn name_count() -> usize {
    COUNT
}

/// Where `f:name"` stands in the text.
#[inline]
fn place(id: u16) -> Option<(usize, usize)> {
    let id = usize::from(id);
    let end = *LAYOUT.ends.get(id)?;
    let start = if id == 0 { 0 } else { LAYOUT.ends[id - 1] };
    Some((start.into(), end.into()))
}

/// "f:name"
pub fn prefixed(id: u16) -> Option<&'static str> {
    let (start, end) = place(id)?;
    NAMES.get(start..end - SUFFIX)
}

pub fn name(id: u16) -> Option<&'static str> {
    prefixed(id).map(|name| &name[PREFIX..])
}

/// The bytes at `name"`, or at `f:name"`, and how many of them these are: they may be more than a piece.
#[inline]
pub(super) fn quoted(id: u16, prefixed: bool) -> Option<(&'static [u8], usize)> {
    let (start, end) = place(id)?;
    let start = if prefixed { start } else { start + PREFIX };
    Some((LAYOUT.text.get(start..)?, end - start))
}

pub fn id(name: &[u8]) -> Option<u16> {
    let mut slot = hash(name, 0, name.len()) as usize;
    loop {
        slot &= SLOTS - 1;
        let id = LAYOUT.slots[slot];
        if id == NONE {
            return None;
        }
        if self::name(id).is_some_and(|known| known.as_bytes() == name) {
            return Some(id);
        }
        slot += 1;
    }
}

#[cfg(test)]
mod tests {
    /// Stored Docs hold these numbers. Never change this but by appending: raise the count, then the sum.
    #[test]
    fn names_keep_their_numbers() {
        const STORED: usize = super::WRITTEN as usize;
        let lines = super::TEXT.split_inclusive(|b| *b == b'\n').take(STORED).flatten();
        let sum = lines.fold(0xcbf2_9ce4_8422_2325u64, |sum, b| (sum ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        assert_eq!(sum, 0xf46990b4f4db0bb9, "a name of names.txt has moved");
    }

    #[test]
    fn every_name_is_found_and_strangers_are_not() {
        for i in 0..super::name_count() as u16 {
            let name = super::name(i).unwrap();
            assert_eq!(super::id(name.as_bytes()), Some(i), "{name}");
            assert_eq!(super::prefixed(i).unwrap(), format!("f:{name}"));
        }
        for stranger in ["", "n", "Name", "nam", "names2", "metadatametadata", "f:name"] {
            assert_eq!(super::id(stranger.as_bytes()), None, "{stranger}");
        }
        assert_eq!(super::name(super::name_count() as u16), None);
    }
}
