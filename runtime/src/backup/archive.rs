//! The form of a backup: a tar archive (POSIX ustar) in gzip, as every system can list and unpack it. Only what a
//! backup needs: regular files with their mode and owner, short names, each small enough to be held in memory.
use std::io::{self, Read, Write};

const BLOCK_BYTES: usize = 512;
/// The largest value of the store and its key are well below.
const MEMBER_LIMIT_BYTES: usize = 32 << 20;
const NAME_BYTES: usize = 100;

#[derive(Debug, PartialEq)]
pub struct Member {
    pub name: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub bytes: Vec<u8>,
}

pub fn add(out: &mut dyn Write, name: &str, (mode, uid, gid): (u32, u32, u32), bytes: &[u8]) -> io::Result<()> {
    if name.len() > NAME_BYTES {
        return Err(io::Error::other(format!("{name}: the name is too long for a backup")));
    }
    let mut head = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{:07o}", mode & 0o7777));
    put(108, &format!("{:07o}", uid & 0o777_7777));
    put(116, &format!("{:07o}", gid & 0o777_7777));
    put(124, &format!("{:011o}", bytes.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.write_all(&head)?;
    out.write_all(bytes)?;
    out.write_all(&[0; BLOCK_BYTES][..bytes.len().next_multiple_of(BLOCK_BYTES) - bytes.len()])
}

pub fn finish(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK_BYTES])
}

/// The next member; None at the archive's end. An archive that just stops is an error.
pub fn next(mut from: &mut dyn Read) -> io::Result<Option<Member>> {
    let mut head = [0; BLOCK_BYTES];
    from.read_exact(&mut head)?;
    if head == [0; BLOCK_BYTES] {
        // To the very end, so that the checksum of the compressed stream is looked at.
        io::copy(from, &mut io::sink())?;
        return Ok(None);
    }
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the archive is damaged");
    let text = |at: usize, len: usize| {
        let field = head[at..at + len].split(|byte| *byte == 0).next().unwrap_or_default();
        str::from_utf8(field).ok().map(str::trim)
    };
    let number = |at: usize, len: usize| u32::from_str_radix(text(at, len)?, 8).ok();
    let sum: u32 = (0..BLOCK_BYTES).map(|at| if (148..156).contains(&at) { 32 } else { u32::from(head[at]) }).sum();
    let fields = || Some((text(0, NAME_BYTES)?, number(100, 8)?, number(108, 8)?, number(116, 8)?, number(124, 12)?));
    let Some((name, mode, uid, gid, size)) = fields().filter(|_| number(148, 8) == Some(sum)) else {
        return Err(damaged());
    };
    let size = size as usize;
    if head[156] != b'0' || size > MEMBER_LIMIT_BYTES {
        return Err(damaged());
    }
    let mut bytes = Vec::new();
    let padded = size.next_multiple_of(BLOCK_BYTES);
    if Read::by_ref(&mut from).take(padded as u64).read_to_end(&mut bytes)? != padded {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    bytes.truncate(size);
    Ok(Some(Member { name: name.to_owned(), mode, uid, gid, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, bytes) in members {
            add(&mut out, name, (0o640, 1000, 70_000), bytes).unwrap();
        }
        finish(&mut out).unwrap();
        out
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let large = vec![7; 70_000];
        let bytes = archive(&[("mote.json", b"{}"), ("certs/ca.crt", b""), ("store/1", &large)]);
        let mut from = &bytes[..];
        let mut members = Vec::new();
        while let Some(member) = next(&mut from).unwrap() {
            members.push(member);
        }
        let names: Vec<_> = members.iter().map(|m| (m.name.as_str(), m.bytes.len())).collect();
        assert_eq!(names, [("mote.json", 2), ("certs/ca.crt", 0), ("store/1", 70_000)]);
        assert!(members.iter().all(|member| (member.mode, member.uid, member.gid) == (0o640, 1000, 70_000)));
        assert!(add(&mut Vec::new(), &"x".repeat(101), (0, 0, 0), b"").is_err());
    }

    #[test]
    fn what_is_damaged_or_cut_off_is_an_error() {
        let bytes = archive(&[("mote.json", b"{}")]);
        for length in 0..bytes.len() - BLOCK_BYTES {
            let mut from = &bytes[..length];
            assert!((0..2).any(|_| next(&mut from).is_err()), "{length} bytes");
        }
        // The last byte of the checksum's field means nothing.
        for at in (0..BLOCK_BYTES).filter(|at| *at != 155) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x11;
            assert!(next(&mut &damaged[..]).is_err(), "byte {at}");
        }
    }
}
