//! The journal being written: batches go to its head, flushed one after the other; places of segments that no longer count
//! are used again. What a batch says is nothing to it.
//!
//! The invariant: when a batch is begun, every batch before it is on disk. So only the last one can be torn, and a frame
//! never lies to its right that belongs to a later one.
use crate::{
    Revision,
    crc::checksum,
    frame::{BLOCK_BYTES, FIRST, HEADER_BYTES, Header, LAST, SEGMENT_BYTES},
    storage::Blocks,
};
use std::{
    collections::{BTreeSet, VecDeque},
    hash::{BuildHasher, RandomState},
    io,
};

/// Places that only what frees space may fill when the disk is full.
pub(crate) const HELD_BACK: usize = 2;

/// A segment in use: where it is in the file, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub place: usize,
    pub number: u64,
}

/// Where the next frame goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub segment: Segment,
    pub block: usize,
    pub salt: u32,
    pub previous: u64,
    pub previous_end: usize,
}

pub(crate) struct Journal {
    /// From the oldest that counts to the one that is written.
    pub in_use: VecDeque<Segment>,
    pub head: Head,
    /// How many segments the file has room for.
    pub places: usize,
    pub free: BTreeSet<usize>,
    /// Free as soon as one more batch is flushed: until then a crash would still look there.
    pub leaving: BTreeSet<usize>,
    pub next_segment: u64,
    pub next_batch: u64,
    /// What lies behind the head is not known: go on in a new segment.
    pub unsure: bool,
    /// There may be more places than there are.
    pub may_grow: bool,
    /// The place where the last failure was: not the first to be tried again.
    pub bad: Option<usize>,
    /// A frame, kept for the next one.
    pub buffer: Vec<u8>,
}

/// Bytes of a batch, and where in them changes begin.
#[derive(Default)]
pub(crate) struct Batch {
    pub bytes: Vec<u8>,
    pub starts: Vec<usize>,
}

impl Journal {
    /// One that nothing is written of.
    pub fn new(first_batch: u64, places: usize) -> Journal {
        let segment = Segment { place: 0, number: 1 };
        Journal {
            in_use: VecDeque::from([segment]),
            head: Head { segment, block: 0, salt: salt(1), previous: 0, previous_end: 0 },
            places,
            free: (1..places).collect(),
            leaving: BTreeSet::new(),
            next_segment: 2,
            next_batch: first_batch,
            unsure: false,
            may_grow: true,
            bad: None,
            buffer: Vec::new(),
        }
    }

    /// Makes room for it, and writes a first batch, which says that there is nothing.
    pub fn format(&mut self, blocks: &dyn Blocks, reserved: Revision) -> io::Result<()> {
        blocks.write(0, &vec![0; self.places * SEGMENT_BYTES])?;
        self.append(blocks, &Batch::default(), reserved)
    }

    /// No batch was begun with a higher number.
    pub fn last_batch(&self) -> u64 {
        self.next_batch - 1
    }

    /// Bytes of all segments that count.
    pub fn bytes(&self) -> usize {
        (self.in_use.len() - 1) * SEGMENT_BYTES + self.head.block * BLOCK_BYTES
    }

    /// How many new segments a batch takes.
    pub fn needs(&self, payload_bytes: usize) -> usize {
        let left = if self.unsure { 0 } else { room(self.head.block) };
        payload_bytes.saturating_sub(left).div_ceil(room(0)) + usize::from(left == 0 && payload_bytes == 0)
    }

    /// Puts a place at the end of the file. It is on disk with the batch that is flushed next.
    pub fn extend(&mut self, blocks: &dyn Blocks) -> io::Result<()> {
        blocks.write((self.places * SEGMENT_BYTES) as u64, &[0; SEGMENT_BYTES])?;
        self.free.insert(self.places);
        self.places += 1;
        Ok(())
    }

    /// Gives free places at the end of the file back.
    pub fn shrink(&mut self, blocks: &dyn Blocks, keep: usize) -> io::Result<()> {
        let mut places = self.places;
        while places > keep && self.free.contains(&(places - 1)) {
            places -= 1;
        }
        if places < self.places {
            blocks.truncate((places * SEGMENT_BYTES) as u64)?;
            self.free.retain(|place| *place < places);
            self.places = places;
        }
        Ok(())
    }

    /// Nothing before this segment counts any more.
    pub fn begin_at(&mut self, number: u64) {
        while let Some(gone) = self.in_use.pop_front_if(|segment| segment.number < number) {
            self.leaving.insert(gone.place);
        }
    }

    /// Writes a batch and flushes it. On an error it is not there, unless a crash follows before the next batch.
    pub fn append(&mut self, blocks: &dyn Blocks, batch: &Batch, reserved: Revision) -> io::Result<()> {
        let (head, in_use, unsure) = (self.head, self.in_use.len(), self.unsure);
        let number = self.next_batch;
        self.next_batch += 1;
        let leaving = self.leaving.clone();
        let result = self.write(blocks, batch, number, reserved).and_then(|()| blocks.sync());
        match result {
            Ok(()) => {
                for place in leaving {
                    self.leaving.remove(&place);
                    self.free.insert(place);
                }
            }
            Err(_) => {
                self.bad = Some(self.head.segment.place);
                for segment in self.in_use.drain(in_use..) {
                    self.free.insert(segment.place);
                }
                // Unless it has to, nothing is written over what failed: the place may be bad, or hold a frame
                // that nobody was promised. Where it is, the next batch says where it begins, so that nothing from there
                // on is taken for what was before it.
                self.unsure = unsure || !self.free.is_empty() || self.may_grow;
                self.head = head;
            }
        }
        result
    }

    fn write(&mut self, blocks: &dyn Blocks, batch: &Batch, number: u64, reserved: Revision) -> io::Result<()> {
        let tail = self.in_use.front().map_or(self.head.segment.number, |segment| segment.number);
        let (mut at, mut flags, mut begin) = (0, FIRST, None);
        while flags & LAST == 0 {
            if self.unsure || room(self.head.block) == 0 {
                self.next_segment_is_head()?;
            }
            let head = self.head;
            let payload_bytes = room(head.block).min(batch.bytes.len() - at);
            let payload = &batch.bytes[at..at + payload_bytes];
            if at + payload_bytes == batch.bytes.len() {
                flags |= LAST;
            }
            let first = batch.starts.partition_point(|start| *start < at);
            let first = batch.starts.get(first).filter(|start| **start < at + payload_bytes);
            let header = Header {
                flags,
                block: head.block,
                payload_bytes,
                payload_sum: checksum(payload),
                first_change: first.map(|start| start - at),
                segment: head.segment.number,
                batch: number,
                reserved,
                salt: head.salt,
                tail,
                previous: head.previous,
                previous_end: head.previous_end,
                begin: Some(*begin.get_or_insert((head.segment.number, head.block))),
            };
            self.buffer.clear();
            self.buffer.extend_from_slice(&header.encode());
            self.buffer.extend_from_slice(payload);
            self.buffer.resize(header.blocks() * BLOCK_BYTES, 0);
            let offset = head.segment.place * SEGMENT_BYTES + head.block * BLOCK_BYTES;
            blocks.write(offset as u64, &self.buffer)?;
            self.head.block += header.blocks();
            at += payload_bytes;
            flags &= !FIRST;
        }
        // A batch larger than a segment leaves no larger buffer behind.
        self.buffer.shrink_to(SEGMENT_BYTES);
        Ok(())
    }

    fn next_segment_is_head(&mut self) -> io::Result<()> {
        let good = self.free.iter().find(|place| Some(**place) != self.bad);
        let place = good.or_else(|| self.free.first()).copied().ok_or(io::ErrorKind::StorageFull)?;
        self.free.remove(&place);
        let segment = Segment { place, number: self.next_segment };
        self.next_segment += 1;
        let (previous, previous_end) = (self.head.segment.number, self.head.block);
        self.head = Head { segment, block: 0, salt: salt(segment.number), previous, previous_end };
        self.in_use.push_back(segment);
        self.unsure = false;
        Ok(())
    }
}

/// Payload bytes that the rest of a segment takes.
fn room(block: usize) -> usize {
    (SEGMENT_BYTES - block * BLOCK_BYTES).saturating_sub(HEADER_BYTES)
}

/// A number that nobody can guess.
fn salt(number: u64) -> u32 {
    RandomState::new().hash_one(number) as u32
}
