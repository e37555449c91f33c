//! Appending to a `Vec` of bytes that are there already: what is short is copied in one or two steps of a fixed length, and what
//! a piece holds too much the next thing overwrites.
use super::names::PIECE;

pub struct Room<'o> {
    out: &'o mut Vec<u8>,
    at: usize,
}

/// Most bytes made ready at a time.
const AHEAD: usize = 2048;

impl<'o> Room<'o> {
    pub fn new(out: &'o mut Vec<u8>) -> Room<'o> {
        let at = out.len();
        Room { out, at }
    }

    /// How long what is written is.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.at
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// What is written.
    #[inline(always)]
    pub fn written(&mut self) -> &mut [u8] {
        &mut self.out[..self.at]
    }

    pub fn truncate(&mut self, len: usize) {
        self.at = self.at.min(len);
    }

    /// For who appends by other means.
    pub fn append(&mut self, write: &mut dyn FnMut(&mut Vec<u8>)) {
        self.out.truncate(self.at);
        write(self.out);
        self.at = self.out.len();
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, len: usize) {
        // Little for what is short, since a watcher's frames are kept as they are.
        self.out.resize(self.at + len + (self.at / 4).clamp(PIECE, AHEAD), 0);
    }

    /// The next `len` bytes, and more.
    #[inline(always)]
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        if self.out.len() - self.at < len {
            self.grow(len);
        }
        &mut self.out[self.at..]
    }

    /// `len` bytes of the room are written.
    #[inline(always)]
    pub fn advance(&mut self, len: usize) {
        self.at += len;
    }

    #[inline(always)]
    pub fn bytes<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.room(N)[..N].copy_from_slice(bytes);
        self.at += N;
    }

    #[inline(always)]
    pub fn slice(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len());
        if !(copy::<16>(room, bytes) || copy::<8>(room, bytes) || copy::<4>(room, bytes)) {
            copy_any(room, bytes);
        }
        self.at += bytes.len();
    }

    /// As LEB128.
    #[inline(always)]
    pub fn varint(&mut self, value: u64) {
        let room = self.room(10);
        if value < 0x80 {
            room[0] = value as u8;
            self.at += 1;
        } else {
            self.long_varint(value);
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, mut value: u64) {
        let mut digits = [0; 10];
        let mut len = 0;
        while value >= 0x80 {
            digits[len] = value as u8 | 0x80;
            value >>= 7;
            len += 1;
        }
        digits[len] = value as u8;
        self.room(10)[..10].copy_from_slice(&digits);
        self.at += len + 1;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.at);
    }
}

/// `N` to `2 * N` bytes, as two pieces that may overlap.
#[inline(always)]
fn copy<const N: usize>(room: &mut [u8], bytes: &[u8]) -> bool {
    let len = bytes.len();
    if len < N || len > 2 * N || room.len() < len {
        return false;
    }
    room[..N].copy_from_slice(&bytes[..N]);
    room[len - N..len].copy_from_slice(&bytes[len - N..]);
    true
}

/// Less than 4 bytes or more than 32.
#[inline(always)]
fn copy_any(room: &mut [u8], bytes: &[u8]) {
    match *bytes {
        [] => {}
        [a] => room[0] = a,
        [a, b] => room[..2].copy_from_slice(&[a, b]),
        [a, b, c] => room[..3].copy_from_slice(&[a, b, c]),
        _ => room[..bytes.len()].copy_from_slice(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lengths_arrive() {
        let text: Vec<u8> = (0..=255).collect();
        for len in 0..text.len() {
            let mut out = b"before".to_vec();
            let mut room = Room::new(&mut out);
            room.slice(&text[..len]);
            room.bytes(b"behind");
            assert_eq!(room.len(), len + 12);
            drop(room);
            assert_eq!(out, [b"before", &text[..len], b"behind"].concat());
        }
    }

    #[test]
    fn varints() {
        for value in (0..64).flat_map(|bit| [1u64 << bit, (1 << bit) - 1]).chain([u64::MAX]) {
            let mut out = Vec::new();
            Room::new(&mut out).varint(value);
            assert_eq!(out, postcard::to_allocvec(&value).unwrap(), "{value}");
        }
    }
}
