//! Values to bytes. Containers are written after a one-byte head that grows, if it must, when they are closed.
//!
//! Invariant: an object never holds a name twice; of two, the later stays.
use super::bytes::{
    self, ESCAPED, FALSE, FLOAT, INT, KEY_FIELD, KEY_INLINE, KEY_LONG, KEY_WIDE, Key, LIST, MAP, NULL, SHORT,
    SHORT_LIST, SHORT_MAP, SHORT_STRING, SMALL_INT, SMALL_INTS, STRING, TRUE, UINT, VERSION,
};
use super::{Doc, DocError, MAX_BYTES, MAX_DEPTH, MAX_VALUES, Ref};
use crate::order::Order as _;

/// Duplicate fields that are reported by path; upstream stops at as many.
const MAX_DUPLICATES: usize = 100;

/// Builds a Doc front to back. Each `begin_*` needs its `end`, each value in a map its `key` before.
pub struct Writer {
    out: Vec<u8>,
    open: Vec<Open>,
    values: usize,
    duplicates: Vec<String>,
}

/// A container being written.
struct Open {
    /// Of the head byte.
    start: usize,
    /// Of the last key.
    key: usize,
    is_map: bool,
    members: usize,
    /// One bit for each one-byte name; the other keys share the last 64.
    seen: [u64; 4],
    /// Two keys share a bit: look closer at the end.
    suspect: bool,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new()
    }
}

impl Writer {
    pub fn new() -> Writer {
        Writer::with_capacity(1024)
    }
    pub fn with_capacity(bytes: usize) -> Writer {
        let mut out = Vec::with_capacity(bytes);
        out.push(VERSION);
        Writer { out, open: Vec::new(), values: 0, duplicates: Vec::new() }
    }

    /// The bounds on size and count are checked here: what is written costs memory in proportion to what was read.
    pub fn finish(self) -> Result<Doc, DocError> {
        let misused = |message: &str| Err(DocError::Type { message: message.into() });
        if self.values > MAX_VALUES {
            return Err(DocError::TooLarge { limit: MAX_VALUES });
        }
        if self.out.len() > MAX_BYTES {
            return Err(DocError::TooLarge { limit: MAX_BYTES });
        }
        if self.values == 0 {
            return misused("nothing was written");
        }
        if !self.open.is_empty() {
            return misused("a list or map was not closed");
        }
        Ok(Doc::trusted(self.out.into()))
    }

    /// Paths of the fields that appeared twice so far, in order.
    pub fn take_duplicates(&mut self) -> Vec<String> {
        std::mem::take(&mut self.duplicates)
    }

    fn count(&mut self) {
        self.values += 1;
        if let Some(open) = self.open.last_mut() {
            open.members += 1;
        }
    }

    pub fn null(&mut self) {
        self.count();
        self.out.push(NULL);
    }
    pub fn bool(&mut self, value: bool) {
        self.count();
        self.out.push(if value { TRUE } else { FALSE });
    }
    pub fn i64(&mut self, value: i64) {
        self.count();
        if (0..SMALL_INTS).contains(&value) {
            self.out.push(SMALL_INT + value as u8);
        } else {
            self.out.push(INT);
            self.scalar(&value);
        }
    }
    pub fn u64(&mut self, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.i64(value),
            Err(_) => {
                self.count();
                self.out.push(UINT);
                self.scalar(&value);
            }
        }
    }
    /// What JSON has no number for becomes null.
    pub fn f64(&mut self, value: f64) {
        if !value.is_finite() {
            return self.null();
        }
        self.count();
        self.out.push(FLOAT);
        self.scalar(&value);
    }
    pub fn str(&mut self, text: &str) {
        self.text(text.as_bytes(), bytes::is_plain(text.as_bytes()));
    }
    /// `text` is UTF-8; `plain` as `bytes::is_plain` has it.
    #[inline]
    pub(super) fn text(&mut self, text: &[u8], plain: bool) {
        self.count();
        if plain && text.len() < SHORT {
            self.out.push(SHORT_STRING + text.len() as u8);
        } else {
            self.out.push(if plain { STRING } else { ESCAPED });
            self.len(text.len());
        }
        self.out.extend_from_slice(text);
    }
    /// A copy of a value of any Doc of this process; nothing when it is absent, so ask before writing its key.
    pub fn copy(&mut self, value: Ref<'_>) -> Result<(), DocError> {
        let Some(encoded) = value.encoded() else {
            return Err(DocError::Type { message: "a value to copy is absent".into() });
        };
        self.count();
        self.values = bytes::check_value(encoded, self.open.len(), self.values - 1)?;
        self.out.extend_from_slice(encoded);
        Ok(())
    }

    pub fn begin_map(&mut self) -> Result<(), DocError> {
        self.begin(true)
    }
    pub fn begin_list(&mut self) -> Result<(), DocError> {
        self.begin(false)
    }
    #[inline]
    fn begin(&mut self, is_map: bool) -> Result<(), DocError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(DocError::TooDeep { limit: MAX_DEPTH });
        }
        self.count();
        let start = self.out.len();
        self.open.push(Open { start, key: 0, is_map, members: 0, seen: [0; 4], suspect: false });
        self.out.push(if is_map { SHORT_MAP } else { SHORT_LIST });
        Ok(())
    }

    pub fn key(&mut self, name: &str) {
        self.key_bytes(name.as_bytes());
    }
    /// `name` is UTF-8.
    #[inline]
    pub(super) fn key_bytes(&mut self, name: &[u8]) {
        self.stored_key(Key::of(name));
    }
    #[inline]
    pub fn stored_key(&mut self, name: Key<'_>) {
        let key = self.out.len();
        let slot = match name.below(super::names::WRITTEN) {
            Key::Name(id) => self.name(id),
            Key::Field(id) => {
                self.out.push(KEY_FIELD);
                self.name(id)
            }
            Key::Inline(text) => {
                if text.len() < (KEY_LONG - KEY_INLINE).into() {
                    self.out.push(KEY_INLINE + text.len() as u8);
                } else {
                    self.out.push(KEY_LONG);
                    self.len(text.len());
                }
                self.out.extend_from_slice(text);
                text.iter().fold(text.len(), |sum, &b| sum.wrapping_mul(31) + usize::from(b))
            }
        };
        if let Some(open) = self.open.last_mut() {
            let head = self.out[key];
            let bit = if head < KEY_WIDE { head.into() } else { usize::from(KEY_WIDE) + slot % 64 };
            open.suspect |= open.seen[bit / 64] >> (bit % 64) & 1 != 0;
            open.seen[bit / 64] |= 1 << (bit % 64);
            open.key = key;
        }
    }
    #[inline]
    fn name(&mut self, id: u16) -> usize {
        if id < KEY_WIDE.into() {
            self.out.push(id as u8);
        } else {
            let wide = id - u16::from(KEY_WIDE);
            self.out.extend_from_slice(&[KEY_WIDE + (wide >> 8) as u8, wide as u8]);
        }
        id.into()
    }

    #[inline]
    pub fn end(&mut self) {
        let Some(open) = self.open.pop() else { return };
        if open.suspect {
            self.drop_duplicates(open.start);
        }
        let body = open.start + 1;
        let len = self.out.len() - body;
        if len < SHORT {
            self.out[open.start] += len as u8;
            return;
        }
        self.out[open.start] = if open.is_map { MAP } else { LIST };
        let end = self.out.len();
        self.len(len);
        let width = self.out.len() - end;
        self.out[body..].rotate_right(width);
    }

    fn len(&mut self, len: usize) {
        if len < 0x80 {
            self.out.push(len as u8);
        } else {
            self.scalar(&len);
        }
    }
    /// A number as postcard writes it: ten bytes at most.
    fn scalar<T: serde::Serialize>(&mut self, value: &T) {
        let mut bytes = [0; 10];
        if let Ok(written) = postcard::to_slice(value, &mut bytes) {
            self.out.extend_from_slice(written);
        }
    }

    /// Rewrites the container at `start`, the last one in `out`, without the earlier ones of equal names.
    fn drop_duplicates(&mut self, start: usize) {
        let body = start + 1;
        let mut members = Vec::new();
        let mut rest = &self.out[body..];
        while let Some((key, after_key)) = bytes::key(rest) {
            let Some((_, next)) = bytes::value(after_key) else { break };
            let at = self.out.len() - rest.len();
            members.push((&self.out[at..self.out.len() - after_key.len()], at..self.out.len() - next.len(), key));
            rest = next;
        }
        members.order_by_key(|(key, range, _)| (*key, range.start));
        let twice = |pair: &[(&[u8], std::ops::Range<usize>, Key<'_>)]| pair[0].0 == pair[1].0;
        let mut paths: Vec<(usize, String)> = Vec::new();
        let mut drop: Vec<std::ops::Range<usize>> = Vec::new();
        for pair in members.windows(2).filter(|pair| twice(pair)) {
            paths.push((pair[1].1.start, self.path(pair[0].2.text().unwrap_or_default())));
            drop.push(pair[0].1.clone());
        }
        paths.order();
        paths.truncate(MAX_DUPLICATES.saturating_sub(self.duplicates.len()));
        self.duplicates.extend(paths.into_iter().map(|(_, path)| path));
        drop.order_by_key(|range| range.start);
        let mut kept = Vec::with_capacity(self.out.len() - body);
        let mut from = body;
        for range in drop {
            kept.extend_from_slice(&self.out[from..range.start]);
            from = range.end;
        }
        kept.extend_from_slice(&self.out[from..]);
        self.out.truncate(body);
        self.out.extend_from_slice(&kept);
    }

    /// "spec.containers[0].name" for `name` in a container whose parents are those still open.
    fn path(&self, name: &str) -> String {
        let mut path = String::new();
        for open in &self.open {
            if open.is_map {
                let key = self.out.get(open.key..).and_then(bytes::key).and_then(|(key, _)| key.text());
                path.push_str(key.unwrap_or_default());
                path.push('.');
            } else {
                if path.ends_with('.') {
                    path.pop();
                }
                path.push_str(&format!("[{}].", open.members.saturating_sub(1)));
            }
        }
        path + name
    }
}
