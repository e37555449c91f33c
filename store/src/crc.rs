//! CRC-32C (Castagnoli): every write is summed, and every start sums all that is on disk. Processors of servers, and most boards',
//! have an instruction for it, which is ten times as fast as the tables.

pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    !crc32c(!0, bytes)
}

/// Reflected, without the inversions.
pub(crate) fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instruction.
        return unsafe { by_instruction(sum, bytes) };
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("crc") {
        // SAFETY: the processor has the instruction.
        return unsafe { by_instruction(sum, bytes) };
    }
    by_tables(sum, bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(sum: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(u64::from(sum), |sum, word| _mm_crc32_u64(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum as u32, |sum, byte| _mm_crc32_u8(sum, *byte))
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "crc")]
fn by_instruction(sum: u32, bytes: &[u8]) -> u32 {
    use std::arch::aarch64::{__crc32cb, __crc32cd};
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(sum, |sum, word| __crc32cd(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| __crc32cb(sum, *byte))
}

fn by_tables(mut sum: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        let [a, b, c, d] = (sum ^ u32::from_le_bytes(*word)).to_le_bytes().map(usize::from);
        sum = TABLES[3][a] ^ TABLES[2][b] ^ TABLES[1][c] ^ TABLES[0][d];
    }
    rest.iter().fold(sum, |sum, byte| (sum >> 8) ^ TABLES[0][usize::from(sum as u8 ^ byte)])
}

/// The one bit of `bytes` that makes them other than what `sum` is of; None: they differ in more, or in nothing. By chance
/// bytes that differ in much look so once in 2^32 divided by their bits.
pub(crate) fn flipped_bit(bytes: &[u8], sum: u32) -> Option<usize> {
    let difference = checksum(bytes) ^ sum;
    // What each bit of the last byte does to the sum; that of the byte before it does the same, and goes through one more.
    let mut bits: [u32; 8] = std::array::from_fn(|bit| crc32c(0, &[1 << bit]));
    for at in (0..bytes.len()).rev() {
        if let Some(bit) = bits.iter().position(|effect| *effect == difference) {
            return Some(at * 8 + bit);
        }
        bits = bits.map(|effect| crc32c(effect, &[0]));
    }
    None
}

static TABLES: [[u32; 256]; 4] = tables();

const fn tables() -> [[u32; 256]; 4] {
    let mut tables = [[0; 256]; 4];
    let mut i = 0;
    while i < 256 {
        let mut sum = i as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
            bit += 1;
        }
        tables[0][i] = sum;
        i += 1;
    }
    i = 0;
    while i < 256 {
        let mut n = 1;
        while n < 4 {
            let before = tables[n - 1][i];
            tables[n][i] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            n += 1;
        }
        i += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(b""), 0);
        let bytes: Vec<u8> = (0..=255).collect();
        for split in 0..bytes.len() {
            let (a, b) = bytes.split_at(split);
            assert_eq!(crc32c(crc32c(!0, a), b), crc32c(!0, &bytes));
            // With an instruction or without, at whatever place in memory.
            assert_eq!((crc32c(!0, a), crc32c(7, b)), (by_tables(!0, a), by_tables(7, b)));
        }
    }

    #[test]
    fn one_flipped_bit_is_found_and_two_are_not() {
        let bytes: Vec<u8> = (0..200).map(|at| (at * 7) as u8).collect();
        let sum = checksum(&bytes);
        assert_eq!(flipped_bit(&bytes, sum), None);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(flipped_bit(&flipped, sum), Some(bit));
            flipped[(bit / 8 + 31) % 200] ^= 4;
            assert_eq!(flipped_bit(&flipped, sum), None);
        }
    }
}
