//! A frame's header as bytes (`FORMAT.md`): where it belongs, what it carries, and from where on the journal counts.
use crate::{
    Revision,
    change::{u32_at, u64_at},
    crc::{checksum, flipped_bit},
};

/// What a frame is aligned to: nothing that was flushed shares a block with what is written later, so that a write
/// that is torn harms only itself.
pub(crate) const BLOCK_BYTES: usize = 4096;
pub(crate) const SEGMENT_BLOCKS: usize = 16;
pub(crate) const SEGMENT_BYTES: usize = SEGMENT_BLOCKS * BLOCK_BYTES;
pub(crate) const HEADER_BYTES: usize = 64;

pub(crate) const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"MOTE";
/// The header says where its batch begins.
const BEGIN: u8 = 1;
/// In place of a change's offset.
const NONE: u32 = u32::MAX;

/// The frame is the first of its batch, or the last.
pub(crate) const FIRST: u8 = 1;
pub(crate) const LAST: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub flags: u8,
    /// Its place in the segment.
    pub block: usize,
    pub payload_bytes: usize,
    pub payload_sum: u32,
    /// Where in the payload the first change begins that begins in this frame.
    pub first_change: Option<usize>,
    /// Number of the segment: each use of a place has one of its own, in the order of the journal.
    pub segment: u64,
    pub batch: u64,
    pub reserved: Revision,
    /// Differs from segment to segment, so that no value that somebody stores can pass for a frame.
    pub salt: u32,
    /// The journal begins with this segment.
    pub tail: u64,
    /// The segment before this one in the journal, and how many of its blocks count. 0: there is none.
    pub previous: u64,
    pub previous_end: usize,
    /// Segment and block of the batch's first frame. None: it is from a build that did not say.
    pub begin: Option<(u64, usize)>,
}

/// What the first bytes of a block say.
pub(crate) enum Found {
    Frame(Header),
    /// A frame of another version of this format.
    Version(u8),
    Nothing,
}

impl Header {
    pub fn blocks(&self) -> usize {
        blocks(self.payload_bytes)
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        let distance = |other: u64| (self.segment.saturating_sub(other) as u32).to_le_bytes();
        put(0, &MAGIC);
        put(8, &[VERSION, self.flags, self.block as u8, self.previous_end as u8]);
        put(12, &(self.payload_bytes as u32).to_le_bytes());
        put(16, &self.payload_sum.to_le_bytes());
        put(20, &self.first_change.map_or(NONE, |at| at as u32).to_le_bytes());
        put(24, &self.segment.to_le_bytes());
        put(32, &self.batch.to_le_bytes());
        put(40, &self.reserved.to_le_bytes());
        put(48, &self.salt.to_le_bytes());
        put(52, &distance(self.tail));
        put(56, &distance(self.previous));
        if let Some((begin, block)) = self.begin
            && let Ok(distance) = u16::try_from(self.segment.saturating_sub(begin))
        {
            put(60, &[BEGIN, block as u8]);
            put(62, &distance.to_le_bytes());
        }
        let sum = checksum(&bytes[8..]);
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Also when one bit of it is not as it was written.
    pub fn find(bytes: &[u8]) -> Found {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Found::Nothing };
        let Some(bytes) = mended(*bytes) else { return Found::Nothing };
        match bytes[8] {
            VERSION => Header::decode(&bytes).map_or(Found::Nothing, Found::Frame),
            version => Found::Version(version),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Header> {
        let segment = u64_at(bytes, 24)?;
        let distant = |at: usize| Some(segment.saturating_sub(u32_at(bytes, at)?.into()));
        let header = Header {
            flags: *bytes.get(9)?,
            block: (*bytes.get(10)?).into(),
            previous_end: (*bytes.get(11)?).into(),
            payload_bytes: u32_at(bytes, 12)? as usize,
            payload_sum: u32_at(bytes, 16)?,
            first_change: u32_at(bytes, 20).filter(|at| *at != NONE).map(|at| at as usize),
            segment,
            batch: u64_at(bytes, 32)?,
            reserved: u64_at(bytes, 40)?,
            salt: u32_at(bytes, 48)?,
            tail: distant(52)?,
            previous: distant(56)?,
            begin: match *bytes.get(60..)?.first_chunk()? {
                [BEGIN, block, low, high] => {
                    Some((segment.saturating_sub(u16::from_le_bytes([low, high]).into()), block.into()))
                }
                _ => None,
            },
        };
        let fits = header.payload_bytes <= SEGMENT_BYTES && header.block + header.blocks() <= SEGMENT_BLOCKS;
        fits.then_some(header)
    }
}

fn mended(mut bytes: [u8; HEADER_BYTES]) -> Option<[u8; HEADER_BYTES]> {
    let flipped: u32 = bytes.iter().zip(MAGIC).map(|(found, known)| (found ^ known).count_ones()).sum();
    let sum = u32_at(&bytes, 4)?;
    let difference = checksum(&bytes[8..]) ^ sum;
    match (flipped, difference.count_ones()) {
        // The second: a bit of the sum itself.
        (0 | 1, 0) | (0, 1) => {}
        (0, _) => {
            let bit = flipped_bit(&bytes[8..], sum)?;
            bytes[8 + bit / 8] ^= 1 << (bit % 8);
        }
        _ => return None,
    }
    Some(bytes)
}

/// How many blocks a frame with so much payload takes.
pub(crate) fn blocks(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_also_with_a_flipped_bit_and_not_with_two() {
        let header = Header {
            flags: FIRST | LAST,
            block: 3,
            payload_bytes: 5000,
            payload_sum: 1,
            first_change: None,
            segment: 1 << 40,
            batch: 9,
            reserved: 10_001,
            salt: 77,
            tail: (1 << 40) - 5,
            previous: (1 << 40) - 1,
            previous_end: 16,
            begin: Some(((1 << 40) - 2, 15)),
        };
        let bytes = header.encode();
        assert!(matches!(Header::find(&bytes), Found::Frame(found) if found == header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Header::find(&damaged), Found::Frame(found) if found == header), "bit {bit}");
            damaged[(bit / 8 + 9) % HEADER_BYTES] ^= 16;
            assert!(matches!(Header::find(&damaged), Found::Nothing), "bit {bit}");
        }
        assert!(matches!(Header::find(&bytes[..63]), Found::Nothing));
    }
}
