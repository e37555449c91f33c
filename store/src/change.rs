//! One change as bytes in a batch of the journal (`FORMAT.md`): a checksum, revisions, key and value, or the key's
//! deletion. Batches are checked as wholes; a change's own checksum tells the good from the bad in one that is damaged.
use crate::{Key, Revision, Value, crc::checksum, root::Held};

/// checksum, key length, value length, created, modified.
pub(crate) const HEADER_BYTES: usize = 4 + 4 + 4 + 8 + 8;
/// In place of a value's length.
const DELETED: u32 = u32::MAX;

/// How many bytes an entry takes.
pub(crate) fn size(key: &str, value: &[u8]) -> usize {
    HEADER_BYTES + key.len() + value.len()
}

/// None: lengths beyond what a change can say.
pub(crate) fn encode(out: &mut Vec<u8>, key: &str, held: Option<(&[u8], Revision, Revision)>) -> Option<()> {
    let start = out.len();
    let (value, created, modified) = held.unwrap_or_default();
    let key_bytes = u32::try_from(key.len()).ok()?;
    let value_bytes = u32::try_from(value.len()).ok().filter(|bytes| *bytes != DELETED)?;
    let value_bytes = if held.is_some() { value_bytes } else { DELETED };
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&key_bytes.to_le_bytes());
    out.extend_from_slice(&value_bytes.to_le_bytes());
    out.extend_from_slice(&created.to_le_bytes());
    out.extend_from_slice(&modified.to_le_bytes());
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value);
    let sum = checksum(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    Some(())
}

/// A change where it lies.
pub(crate) struct Change<'a> {
    pub key: &'a [u8],
    /// None: the key is deleted.
    pub value: Option<&'a [u8]>,
    pub created: Revision,
    pub modified: Revision,
    sum: u32,
    summed: &'a [u8],
}

impl<'a> Change<'a> {
    /// The change at the beginning of `bytes`, as far as its lengths can be believed; and what is behind it.
    pub fn split(bytes: &'a [u8]) -> Option<(Change<'a>, &'a [u8])> {
        let (header, _) = bytes.split_at_checked(HEADER_BYTES)?;
        let (sum, key_bytes, value_bytes) = (u32_at(header, 0)?, u32_at(header, 4)?, u32_at(header, 8)?);
        let deleted = value_bytes == DELETED;
        let value_bytes = if deleted { 0 } else { value_bytes as usize };
        let whole = HEADER_BYTES.checked_add(key_bytes as usize)?.checked_add(value_bytes)?;
        let (whole, rest) = bytes.split_at_checked(whole)?;
        let (key, value) = whole.get(HEADER_BYTES..)?.split_at_checked(key_bytes as usize)?;
        let (created, modified) = (u64_at(header, 12)?, u64_at(header, 20)?);
        let value = (!deleted).then_some(value);
        Some((Change { key, value, created, modified, sum, summed: whole.get(4..)? }, rest))
    }

    pub fn is_intact(&self) -> bool {
        checksum(self.summed) == self.sum
    }

    /// What the key holds from here on. None: a key or revisions that were never written so.
    pub fn held(&self, reserved: Revision) -> Option<(&'a str, Option<Held>)> {
        let key = str::from_utf8(self.key).ok()?;
        let Some(value) = self.value else { return Some((key, None)) };
        let plausible = self.created <= self.modified && self.modified <= reserved;
        plausible
            .then(|| (key, Some(Held { value: Value::from(value), created: self.created, modified: self.modified })))
    }

    pub fn name(&self) -> Key {
        String::from_utf8_lossy(self.key).into()
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().map(u32::from_le_bytes).ok()
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().map(u64::from_le_bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_comes_back_and_a_flipped_bit_is_found() {
        let mut bytes = Vec::new();
        encode(&mut bytes, "pods/a/b", Some((b"some value", 7, u64::MAX))).expect("short enough");
        let length = bytes.len();
        assert_eq!(length, size("pods/a/b", b"some value"));
        encode(&mut bytes, "pods/a/c", None).expect("short enough");
        let (put, rest) = Change::split(&bytes).expect("a change");
        assert!(put.is_intact());
        let (key, held) = put.held(u64::MAX).expect("as it was written");
        let held = held.expect("a value");
        assert_eq!((key, &*held.value, held.created, held.modified), ("pods/a/b", &b"some value"[..], 7, u64::MAX));
        assert!(put.held(8).is_none(), "a revision that was never reserved");
        let (delete, rest) = Change::split(rest).expect("a change");
        assert!(delete.is_intact() && rest.is_empty());
        assert!(matches!(delete.held(8), Some(("pods/a/c", None))));
        for bit in 0..length * 8 {
            let mut damaged = bytes[..length].to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Change::split(&damaged).is_none_or(|(change, _)| !change.is_intact()), "bit {bit}");
        }
        for shorter in 0..length {
            assert!(Change::split(&bytes[..shorter]).is_none(), "{shorter} bytes");
        }
    }
}
