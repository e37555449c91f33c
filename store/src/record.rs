//! One entry as bytes in the database (`FORMAT.md`): revisions, a checksum, the value. A record is checked when it is
//! read, so that a bit that rots in a value is found at start and named by key.
use crate::{Value, crc::crc32c, root::Held};

/// created, modified, checksum.
const HEADER_BYTES: usize = 8 + 8 + 4;

pub(crate) fn encode(key: &str, held: &Held) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + held.value.len());
    bytes.extend_from_slice(&held.created.to_le_bytes());
    bytes.extend_from_slice(&held.modified.to_le_bytes());
    bytes.extend_from_slice(&checksum(key, &bytes[..16], &held.value).to_le_bytes());
    bytes.extend_from_slice(&held.value);
    bytes
}

/// None when the bytes are not what was written.
pub(crate) fn decode(key: &str, bytes: &[u8]) -> Option<Held> {
    let (header, value) = bytes.split_at_checked(HEADER_BYTES)?;
    let (revisions, sum) = header.split_at(16);
    let (created, modified) = revisions.split_at(8);
    if checksum(key, revisions, value).to_le_bytes() != sum {
        return None;
    }
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    Some(Held { value: Value::from(value), created: number(created)?, modified: number(modified)? })
}

fn checksum(key: &str, revisions: &[u8], value: &[u8]) -> u32 {
    !crc32c(crc32c(crc32c(!0, key.as_bytes()), revisions), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_flipped_bit_is_found() {
        let held = Held { value: b"some value".as_slice().into(), created: 7, modified: u64::MAX };
        let bytes = encode("pods/a/b", &held);
        let back = decode("pods/a/b", &bytes).expect("an intact record");
        assert_eq!((&*back.value, back.created, back.modified), (&*held.value, 7, u64::MAX));
        assert!(decode("pods/a/c", &bytes).is_none(), "a record under another key");
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode("pods/a/b", &damaged).is_none(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode("pods/a/b", &bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
