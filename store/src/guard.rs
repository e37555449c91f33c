//! What stands between redb and the database's bytes. redb believes what it reads, and may panic on a file that has
//! rotted; so it never sees a block that is not what was verified when the file was read, or written since.
//!
//! Two things do it. A file is read through a *layer*: what redb writes stays in memory, which lets it verify every
//! checksum, and repair what a cut left, without a write to the disk. And there is a sum in memory for each block that
//! was verified or written: a block that reads otherwise later is an error, never data.
use crate::storage::Blocks;
use redb::StorageBackend;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(crate) const BLOCK_BYTES: usize = 4096;
/// So many blocks a scrub reads at once, while the writer may have to wait.
const SCRUB_BLOCKS: usize = 16;

/// A sum for each block of a file; 0 where none is known.
#[derive(Clone, Default)]
pub(crate) struct Sums(Arc<Mutex<Vec<u32>>>);

/// One word that differs makes another sum for certain, before it is folded; it is kept in memory only.
fn sum(block: &[u8]) -> u32 {
    let (words, _) = block.as_chunks::<8>();
    let mix =
        |sum: u64, word: &[u8; 8]| (sum.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sum = words.iter().fold(0, mix);
    ((sum >> 32) as u32).max(1)
}

impl Sums {
    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is known of the file any more.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Nothing is known of these blocks any more.
    pub fn forget_blocks(&self, blocks: &[usize]) {
        let mut sums = self.lock();
        for block in blocks {
            if let Some(sum) = sums.get_mut(*block) {
                *sum = 0;
            }
        }
    }

    /// The file is another one.
    pub fn replace(&self, other: &Sums) {
        if !Arc::ptr_eq(&self.0, &other.0) {
            *self.lock() = std::mem::take(&mut *other.lock());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Takes note of blocks that are read for the first time; an error when one is not what it was.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut sums = self.lock();
        for (block, bytes) in whole_blocks(offset, bytes) {
            if sums.len() <= block {
                sums.resize(block + 1, 0);
            }
            match sums[block] {
                0 => sums[block] = sum(bytes),
                known if known == sum(bytes) => {}
                _ => {
                    let what = format!("block {block} is not what was written");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
        Ok(())
    }

    /// Reads up to `limit_bytes` of the file from block `from` on, from the disk; returns where to go on and the blocks that have
    /// rotted. The end is followed by the start.
    pub fn scrub(&self, blocks: &dyn Blocks, from: usize, limit_bytes: u64) -> io::Result<(usize, Vec<usize>)> {
        let (mut at, mut read, mut rotten) = (from, 0, Vec::new());
        let mut bytes = vec![0; SCRUB_BLOCKS * BLOCK_BYTES];
        while read < limit_bytes {
            let sums = self.lock();
            let here = sums.len().saturating_sub(at).min(SCRUB_BLOCKS);
            if here == 0 {
                return Ok((0, rotten));
            }
            let bytes = &mut bytes[..here * BLOCK_BYTES];
            match blocks.read((at * BLOCK_BYTES) as u64, bytes) {
                Ok(()) => {
                    let found = bytes.chunks_exact(BLOCK_BYTES).zip(&sums[at..]).enumerate();
                    let bad = found.filter(|(_, (block, known))| **known != 0 && sum(block) != **known);
                    rotten.extend(bad.map(|(place, _)| at + place));
                }
                Err(_) => rotten.extend(at..at + here),
            }
            at += here;
            read += bytes.len() as u64;
        }
        Ok((at, rotten))
    }
}

/// Blocks whose sums are known from what is written to them, block by block.
pub(crate) struct Summed {
    pub blocks: Box<dyn Blocks>,
    pub sums: Sums,
}

impl Blocks for Summed {
    fn size(&self) -> io::Result<u64> {
        self.blocks.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.blocks.read(offset, out)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A scrub reads a block and its sum together.
        let mut sums = self.sums.lock();
        let written = self.blocks.write(offset, data);
        for (block, bytes) in whole_blocks(offset, data) {
            if sums.len() <= block {
                sums.resize(block + 1, 0);
            }
            sums[block] = if written.is_ok() { sum(bytes) } else { 0 };
        }
        written
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.sums.lock().truncate((size / BLOCK_BYTES as u64) as usize);
        self.blocks.truncate(size)
    }
    fn sync(&self) -> io::Result<()> {
        let synced = self.blocks.sync();
        if synced.is_err() {
            // What is on disk is anybody's guess.
            self.sums.forget();
        }
        synced
    }
}

/// The blocks that are in `bytes` from their first to their last byte.
fn whole_blocks(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = offset.next_multiple_of(BLOCK_BYTES as u64);
    let inside = bytes.get((first - offset) as usize..).unwrap_or_default();
    let first = (first / BLOCK_BYTES as u64) as usize;
    inside.chunks_exact(BLOCK_BYTES).enumerate().map(move |(place, block)| (first + place, block))
}

/// The database's blocks as redb wants them.
pub(crate) struct Guarded {
    blocks: Box<dyn Blocks>,
    sums: Sums,
    layer: Option<Mutex<Layer>>,
}

/// What was written and is not on the disk.
struct Layer {
    len: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl Guarded {
    pub fn new(blocks: Box<dyn Blocks>, sums: Sums) -> Guarded {
        Guarded { blocks, sums, layer: None }
    }

    /// The same, and nothing reaches the disk.
    pub fn layered(blocks: Box<dyn Blocks>, sums: Sums) -> io::Result<Guarded> {
        let layer = Layer { len: blocks.size()?, blocks: BTreeMap::new() };
        Ok(Guarded { blocks, sums, layer: Some(Mutex::new(layer)) })
    }

    fn layer(&self) -> Option<MutexGuard<'_, Layer>> {
        Some(self.layer.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From the disk, as far as it goes; zeros behind that.
    fn below(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let there = self.blocks.size()?.saturating_sub(offset).min(out.len() as u64) as usize;
        if there == 0 {
            return Ok(());
        }
        self.blocks.read(offset, &mut out[..there])?;
        self.sums.check(offset, &out[..there])
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guarded")
    }
}

impl StorageBackend for Guarded {
    fn len(&self) -> io::Result<u64> {
        self.layer().map_or_else(|| self.blocks.size(), |layer| Ok(layer.len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let Some(layer) = self.layer() else {
            self.blocks.read(offset, out)?;
            return self.sums.check(offset, out);
        };
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= layer.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.below(offset, out)?;
        let size = BLOCK_BYTES as u64;
        for (block, bytes) in layer.blocks.range(offset / size..end.div_ceil(size)) {
            let (from, to) = (offset.max(block * size), end.min((block + 1) * size));
            let source = &bytes[(from - block * size) as usize..(to - block * size) as usize];
            out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let keep = len.div_ceil(BLOCK_BYTES as u64);
        if let Some(mut layer) = self.layer() {
            layer.len = len;
            layer.blocks.split_off(&keep);
            return Ok(());
        }
        self.blocks.truncate(len)?;
        self.sums.lock().truncate(keep as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.layer.is_some() { Ok(()) } else { self.blocks.sync() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let size = BLOCK_BYTES as u64;
        let end = offset + data.len() as u64;
        let touched = offset / size..end.div_ceil(size);
        if let Some(mut layer) = self.layer() {
            for block in touched {
                let bytes = match layer.blocks.entry(block) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        let mut bytes = vec![0; BLOCK_BYTES];
                        self.below(block * size, &mut bytes)?;
                        new.insert(bytes)
                    }
                };
                let (from, to) = (offset.max(block * size), end.min((block + 1) * size));
                bytes[(from - block * size) as usize..(to - block * size) as usize]
                    .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            }
            return Ok(());
        }
        // A scrub reads a block and its sum together.
        let mut sums = self.sums.lock();
        self.blocks.write(offset, data)?;
        if sums.len() < touched.end as usize {
            sums.resize(touched.end as usize, 0);
        }
        let mut bytes = vec![0; BLOCK_BYTES];
        for block in touched {
            let whole = offset <= block * size && end >= (block + 1) * size;
            let inside = (block * size).saturating_sub(offset) as usize;
            sums[block as usize] = match whole {
                true => sum(&data[inside..inside + BLOCK_BYTES]),
                // The rest of the block is as it was: redb writes its header so.
                false => self.blocks.read(block * size, &mut bytes).map_or(0, |()| sum(&bytes)),
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Row(Arc<Mutex<Vec<u8>>>);

    impl Blocks for Row {
        fn size(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().len() as u64)
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let row = self.0.lock().unwrap();
            let offset = offset as usize;
            out.copy_from_slice(row.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let (mut row, offset) = (self.0.lock().unwrap(), offset as usize);
            let end = row.len().max(offset + data.len());
            row.resize(end, 0);
            row[offset..offset + data.len()].copy_from_slice(data);
            Ok(())
        }
        fn truncate(&self, size: u64) -> io::Result<()> {
            self.0.lock().unwrap().resize(size as usize, 0);
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_layer_is_read_as_if_it_were_written() {
        let row = Row::default();
        row.write(0, &[1; 10_000]).unwrap();
        let layer = Guarded::layered(Box::new(row.clone()), Sums::default()).unwrap();
        layer.set_len(20_000).unwrap();
        layer.write(4_000, &[2; 5_000]).unwrap();
        layer.write(19_990, &[3; 10]).unwrap();
        let mut out = vec![9; 20_000];
        layer.read(0, &mut out).unwrap();
        let expected = [vec![1; 4_000], vec![2; 5_000], vec![1; 1_000], vec![0; 9_990], vec![3; 10]].concat();
        assert!(out == expected);
        let mut part = vec![9; 4_500];
        layer.read(3_900, &mut part).unwrap();
        assert!(part == expected[3_900..8_400]);
        assert!(layer.read(19_999, &mut part).is_err());
        layer.set_len(4_096).unwrap();
        layer.set_len(8_192).unwrap();
        assert_eq!((layer.len().unwrap(), row.size().unwrap()), (8_192, 10_000));
        assert!(*row.0.lock().unwrap() == [1; 10_000]);
    }

    #[test]
    fn a_block_that_rots_is_an_error_and_found_by_a_scrub() {
        let (row, sums) = (Row::default(), Sums::default());
        let guarded = Guarded::new(Box::new(row.clone()), sums.clone());
        guarded.write(0, &[1; 40 * BLOCK_BYTES]).unwrap();
        guarded.write(100, &[2; 320]).unwrap();
        let all = 40 * BLOCK_BYTES as u64;
        assert_eq!(sums.scrub(&row, 0, u64::MAX).unwrap(), (0, vec![]));
        for block in [0, 7, 39] {
            row.0.lock().unwrap()[block * BLOCK_BYTES + 200] ^= 16;
            let mut out = vec![0; BLOCK_BYTES];
            assert!(guarded.read((block * BLOCK_BYTES) as u64, &mut out).is_err());
            assert_eq!(sums.scrub(&row, 0, u64::MAX).unwrap(), (0, vec![block]));
            row.0.lock().unwrap()[block * BLOCK_BYTES + 200] ^= 16;
            guarded.read((block * BLOCK_BYTES) as u64, &mut out).unwrap();
        }
        // A budget is kept, and the next one goes on from there.
        assert_eq!(sums.scrub(&row, 0, 1).unwrap().0, SCRUB_BLOCKS);
        assert_eq!(sums.scrub(&row, SCRUB_BLOCKS, all).unwrap().0, 0);
    }
}
