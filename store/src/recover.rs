//! Reading a journal: which segments count, which batches are whole, and what is left of those that are damaged.
//!
//! A power cut can tear the last batch only, since each is flushed before the next is begun: what is not whole at the
//! end never happened, and what is not whole before it is damage, of which all is read that can be.
use crate::{
    Error, Key, Revision,
    change::Change,
    crc::{checksum, flipped_bit},
    frame::{BLOCK_BYTES, FIRST, Found, HEADER_BYTES, Header, LAST, SEGMENT_BLOCKS, SEGMENT_BYTES},
    guard::Sums,
    journal::{Head, Journal, Segment},
    root::Held,
    storage::Blocks,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(crate) struct Recovered {
    pub journal: Journal,
    /// What the journal does to the database. None: a deletion.
    pub changes: BTreeMap<Key, Option<Held>>,
    pub reserved: Revision,
    /// Keys that are lost, and places where not even the key can be read.
    pub damaged: Vec<String>,
    /// A bit had flipped somewhere, and is known: the disk still has it.
    pub mended: bool,
}

const DOING: &str = "reading the journal";
/// Of a write that is not whole, in the log.
const SHOWN_KEYS: usize = 20;

/// Leaves batches up to `done` out: they are in the database. None: there is nothing that Mote wrote.
pub(crate) fn recover(blocks: &dyn Blocks, done: u64, sums: &Sums) -> Result<Option<Recovered>, Error> {
    let size = blocks.size().map_err(|e| Error::reading(DOING, &e))?;
    let mut reader = Reader {
        blocks,
        sums,
        // The last one may end early: a file that grew and was cut.
        places: usize::try_from(size.div_ceil(SEGMENT_BYTES as u64)).unwrap_or(usize::MAX),
        bytes: vec![0; SEGMENT_BYTES],
        first: BTreeMap::new(),
    };
    reader.survey()?;
    let Some(chain) = reader.chain()? else { return Ok(None) };
    let mut replay = Replay { done, ..Replay::default() };
    let mut next_batch = 0;
    // Where a batch that goes on in another segment was written, nothing else counts: where it is torn, there may be the
    // remains of one that failed before it in the same place.
    let spans: Vec<Span> = chain.iter().filter_map(Link::span).collect();
    for link in &chain {
        match link.place {
            Some(place) => {
                reader.read(place)?;
                walk(&reader.bytes, link, |at, piece| {
                    let here = (link.number, at);
                    let torn = |batch| spans.iter().any(|span| span.covers(here) && span.batch != batch);
                    let piece = match piece {
                        Piece::Frame { header, .. } if torn(header.batch) => Piece::Lost { blocks: header.blocks() },
                        piece => piece,
                    };
                    replay.piece(Segment { place, number: link.number }, at, &piece);
                });
            }
            None => replay.lost(format!("segment {}", link.number)),
        }
    }
    for (_, header) in reader.first.values() {
        next_batch = header.batch.max(next_batch);
    }
    replay.finish();
    let cut_short = replay.open.as_ref().map_or_else(String::new, Open::keys);
    let Replay { changes, reserved, damaged, end, torn, last_batch, seen_batch, tail, mended, .. } = replay;
    // Not even the first batch is whole: this was never published.
    let Some((segment, block)) = end else { return Ok(None) };
    let in_use: VecDeque<Segment> =
        chain.iter().filter(|link| link.number <= segment.number).filter_map(Link::segment).collect();
    let newest = reader.first.keys().next_back().copied().unwrap_or(segment.number);
    let header = chain.iter().find(|link| link.number == segment.number).map(|link| link.header);
    let used: BTreeSet<usize> = in_use.iter().map(|segment| segment.place).collect();
    // What counted before the last whole batch may be looked for again, if the next one is torn.
    let leaving = reader.first.iter().filter(|(number, _)| **number >= tail).map(|(_, (place, _))| *place);
    let leaving: BTreeSet<usize> = leaving.filter(|place| !used.contains(place)).collect();
    let head = Head {
        segment,
        block,
        salt: header.map_or(0, |header| header.salt),
        previous: header.map_or(0, |header| header.previous),
        previous_end: header.map_or(0, |header| header.previous_end),
    };
    let journal = Journal {
        in_use,
        head,
        places: reader.places,
        free: (0..reader.places).filter(|place| !used.contains(place) && !leaving.contains(place)).collect(),
        leaving,
        next_segment: newest.max(segment.number) + 1,
        next_batch: last_batch.max(seen_batch).max(next_batch).max(done) + 1,
        unsure: torn || newest != segment.number,
        may_grow: true,
        bad: None,
        buffer: Vec::new(),
    };
    if torn {
        tracing::warn!(
            keys = cut_short,
            "the last write is not whole: it was cut short, and nobody was told that it happened, unless the disk has \
             damaged it since, which looks the same"
        );
    }
    let damaged = damaged.into_iter().collect();
    Ok(Some(Recovered { journal, changes, reserved, damaged, mended }))
}

struct Reader<'a> {
    blocks: &'a dyn Blocks,
    /// Of what was read.
    sums: &'a Sums,
    places: usize,
    /// The segment that was read last.
    bytes: Vec<u8>,
    /// Segments by number: where they are, and the first header that can be read in them.
    first: BTreeMap<u64, (usize, Header)>,
}

/// A segment that counts.
struct Link {
    number: u64,
    /// None: it is nowhere to be found.
    place: Option<usize>,
    header: Header,
    /// How many of its blocks count; None for the last one.
    end: Option<usize>,
}

impl Link {
    fn segment(&self) -> Option<Segment> {
        Some(Segment { place: self.place?, number: self.number })
    }

    /// What the batch takes that goes on at the start of this segment.
    fn span(&self) -> Option<Span> {
        let Header { batch, begin, block: 0, .. } = self.header else { return None };
        self.place.and(begin).filter(|begin| begin.0 < self.number).map(|from| Span { from, end: self.number, batch })
    }
}

/// From this segment and block on, up to the segment `end`, there is nothing but this batch.
struct Span {
    from: (u64, usize),
    end: u64,
    batch: u64,
}

impl Span {
    fn covers(&self, here: (u64, usize)) -> bool {
        here >= self.from && here.0 < self.end
    }
}

impl Reader<'_> {
    /// The first header of each place.
    fn survey(&mut self) -> Result<(), Error> {
        for place in 0..self.places {
            for block in 0..SEGMENT_BLOCKS {
                match self.header(place, block) {
                    Found::Frame(header) if header.block == block => {
                        self.first.insert(header.segment, (place, header));
                        break;
                    }
                    Found::Version(version) => {
                        let message =
                            format!("it has format {version}, this build reads format {}", crate::frame::VERSION);
                        return Err(Error::Storage { doing: DOING, message });
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The segments that count, oldest first.
    fn chain(&mut self) -> Result<Option<Vec<Link>>, Error> {
        let mut below = u64::MAX;
        loop {
            let newest = self.first.range(..below).next_back();
            let Some((&newest, &(place, first))) = newest else { return Ok(None) };
            self.read(place)?;
            let link = Link { number: newest, place: Some(place), header: first, end: None };
            let (mut tail, mut batch) = (first.tail, first.batch);
            walk(&self.bytes, &link, |_, piece| {
                if let Piece::Frame { header, .. } = piece {
                    tail = tail.max(header.tail);
                    batch = header.batch;
                }
            });
            match self.back_from(link, tail, batch) {
                Some(chain) => return Ok(Some(chain)),
                None => below = newest,
            }
        }
    }

    /// From `newest` back to `tail`. None: `newest` belongs to a torn batch, for what should be before it in the same
    /// batch is missing.
    fn back_from(&self, newest: Link, tail: u64, batch: u64) -> Option<Vec<Link>> {
        let (mut number, mut header) = (newest.number, newest.header);
        let mut chain = vec![newest];
        while number > tail && header.previous < number {
            let end = Some(header.previous_end);
            number = header.previous;
            if let Some(&(place, found)) = self.first.get(&number) {
                header = found;
                chain.push(Link { number, place: Some(place), header, end });
                continue;
            }
            if chain.iter().all(|link| link.header.batch == batch && link.header.flags & FIRST == 0) {
                return None;
            }
            // What it was linked to is lost with it: the one numbered before it is the best guess.
            chain.push(Link { number, place: None, header, end });
            let Some((&before, &(place, found))) = self.first.range(tail..number).next_back() else { break };
            (number, header) = (before, found);
            chain.push(Link { number, place: Some(place), header, end: None });
        }
        chain.reverse();
        Some(chain)
    }

    fn header(&self, place: usize, block: usize) -> Found {
        let mut bytes = [0; HEADER_BYTES];
        let offset = (place * SEGMENT_BYTES + block * BLOCK_BYTES) as u64;
        // What cannot be read is like what is not there: damage, if it counts.
        match self.blocks.read(offset, &mut bytes) {
            Ok(()) => Header::find(&bytes),
            Err(_) => Found::Nothing,
        }
    }

    fn read(&mut self, place: usize) -> Result<(), Error> {
        let offset = (place * SEGMENT_BYTES) as u64;
        let Err(error) = self.blocks.read(offset, &mut self.bytes) else {
            // Read twice with another outcome: what the second time gives has sums of its own.
            let _ = self.sums.check(offset, &self.bytes);
            return Ok(());
        };
        let mut readable = 0;
        for (block, bytes) in self.bytes.chunks_mut(BLOCK_BYTES).enumerate() {
            match self.blocks.read(offset + (block * BLOCK_BYTES) as u64, bytes) {
                Ok(()) => readable += 1,
                Err(_) => bytes.fill(0),
            }
        }
        // One bad block is damage; a disk that gives nothing may give it all tomorrow.
        if readable == 0 { Err(Error::reading(DOING, &error)) } else { Ok(()) }
    }
}

/// What lies in a segment, in order.
enum Piece<'a> {
    Frame {
        header: Header,
        payload: &'a [u8],
        intact: bool,
        /// A bit of it was flipped.
        mended: bool,
    },
    /// Blocks that counted and are no frame.
    Lost { blocks: usize },
}

fn walk(bytes: &[u8], link: &Link, mut each: impl FnMut(usize, Piece<'_>)) {
    let find = |block: usize| match Header::find(bytes.get(block * BLOCK_BYTES..).unwrap_or_default()) {
        Found::Frame(header) => Some(header)
            .filter(|header| header.block == block && header.segment == link.number && header.salt == link.header.salt),
        _ => None,
    };
    let limit = link.end.unwrap_or(SEGMENT_BLOCKS).min(SEGMENT_BLOCKS);
    let (mut at, mut batch) = (0, 0);
    while at < limit {
        // Frames behind the head that belong to batches before: a flush that failed left them.
        let valid = |block: usize| find(block).filter(|header| header.batch >= batch);
        if let Some(header) = valid(at) {
            let start = at * BLOCK_BYTES + HEADER_BYTES;
            let payload = bytes.get(start..start + header.payload_bytes).unwrap_or_default();
            let mut mended = bytes.get(start - HEADER_BYTES..start) != Some(&header.encode());
            let mut intact = checksum(payload) == header.payload_sum;
            let mut copy = Vec::new();
            if !intact && let Some(bit) = flipped_bit(payload, header.payload_sum) {
                copy.extend_from_slice(payload);
                copy[bit / 8] ^= 1 << (bit % 8);
                (intact, mended) = (true, true);
            }
            let payload = if copy.is_empty() { payload } else { &copy };
            each(at, Piece::Frame { header, payload, intact, mended });
            batch = header.batch;
            at += header.blocks();
            continue;
        }
        let next = (at + 1..limit).find(|block| valid(*block).is_some());
        let Some(next) = next.or(link.end) else { return };
        each(at, Piece::Lost { blocks: next - at });
        at = next;
    }
}

/// Applies batches in order, each when it is known whether it counts.
#[derive(Default)]
struct Replay {
    changes: BTreeMap<Key, Option<Held>>,
    /// Up to this batch all is in the database.
    done: u64,
    reserved: Revision,
    damaged: BTreeSet<String>,
    /// The batch that is not yet applied.
    open: Option<Open>,
    last_batch: u64,
    /// Also of those that do not count.
    seen_batch: u64,
    /// Behind the last whole batch.
    end: Option<(Segment, usize)>,
    /// Where the log begins, as the last whole batch says.
    tail: u64,
    torn: bool,
    mended: bool,
}

#[derive(Default)]
struct Open {
    /// 0: only blocks of it that cannot be read were met.
    number: u64,
    bytes: Vec<u8>,
    frames: Vec<Place>,
    /// Something is missing at the end of `bytes`.
    gap: bool,
    /// All frames so far are there, from the first on, and as they were written.
    whole: bool,
    /// The last frame is there.
    ended: bool,
    /// Its first frame is not there, and nothing is missing where it would be.
    headless: bool,
    /// What of it cannot be read.
    lost: Vec<String>,
    header: Option<Header>,
    end: Option<(Segment, usize)>,
}

impl Open {
    /// A batch that failed, and was written over by others that failed too: nothing is lost in between, and yet it does
    /// not begin, or not end. Damage leaves a gap.
    fn is_remains(&self) -> bool {
        self.headless || !self.ended && !self.gap
    }

    /// Of changes that can be told, a few.
    fn keys(&self) -> String {
        let (mut rest, mut keys) = (&self.bytes[..], Vec::new());
        while let Some((change, behind)) = Change::split(rest).filter(|_| keys.len() < SHOWN_KEYS) {
            keys.push(change.name().to_string());
            rest = behind;
        }
        keys.join(", ")
    }
}

/// A frame in the batch's bytes.
struct Place {
    start: usize,
    /// Where the first change begins that begins in it.
    change: Option<usize>,
    /// Something is missing before it.
    gap: bool,
}

impl Replay {
    fn piece(&mut self, segment: Segment, at: usize, piece: &Piece<'_>) {
        let (header, payload, intact) = match piece {
            Piece::Frame { header, payload, intact, mended } => {
                if *mended {
                    tracing::warn!(
                        segment = segment.number,
                        block = at,
                        "a bit of the journal had flipped, and was turned back"
                    );
                    self.mended = true;
                }
                (header, payload, *intact)
            }
            Piece::Lost { blocks } => {
                return self.lost(format!("segment {}, blocks {at} to {}", segment.number, at + blocks - 1));
            }
        };
        self.reserved = self.reserved.max(header.reserved);
        self.seen_batch = self.seen_batch.max(header.batch);
        if header.batch <= self.last_batch {
            return;
        }
        let first = header.flags & FIRST != 0;
        let another = |open: &Open| if open.number == 0 { first } else { open.number != header.batch };
        if self.open.as_ref().is_some_and(another) {
            // What is before a batch that follows on what is in the database, is there too.
            self.open.take_if(|open| open.number == 0 && header.batch <= self.done + 1);
            if self.open.take_if(|open| open.number > self.done && open.is_remains()).is_some() {
                self.torn = true;
            }
            self.apply();
        }
        let open = self.open.get_or_insert_with(|| Open { whole: first, headless: !first, ..Open::default() });
        open.number = header.batch;
        open.whole &= intact;
        let start = open.bytes.len();
        let gap = std::mem::take(&mut open.gap) || start == 0 && !first;
        open.frames.push(Place { start, change: header.first_change.map(|at| start + at), gap });
        open.bytes.extend_from_slice(payload);
        open.ended = header.flags & LAST != 0;
        open.header = Some(*header);
        open.end = Some((segment, at + header.blocks()));
    }

    /// A place where nothing can be read. Whose it was is known by what follows.
    fn lost(&mut self, what: String) {
        if self.open.as_ref().is_some_and(|open| open.ended) {
            self.apply();
        }
        let open = self.open.get_or_insert_with(Open::default);
        open.whole = false;
        open.gap = true;
        open.lost.push(what);
    }

    /// The end of the log.
    fn finish(&mut self) {
        match &self.open {
            Some(open) if open.whole && open.ended => self.apply(),
            open => self.torn |= open.is_some(),
        }
    }

    /// The batch happened, whatever is left of it.
    fn apply(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.last_batch = self.last_batch.max(open.number);
        if let Some(header) = open.header {
            self.tail = header.tail;
        }
        self.end = open.end.or(self.end);
        if open.number <= self.done && open.number > 0 {
            return;
        }
        self.damaged.extend(open.lost);
        if open.whole {
            self.all(&open.bytes);
            return;
        }
        let gaps = open.frames.iter().filter(|frame| frame.gap).map(|frame| frame.start);
        let ends: Vec<usize> = gaps.chain([open.bytes.len()]).collect();
        let mut from = 0;
        for end in ends {
            // Where changes are known to begin.
            let known: Vec<usize> = open.frames.iter().filter_map(|frame| frame.change).collect();
            let known: Vec<usize> = known.into_iter().filter(|at| (from..end).contains(at)).collect();
            self.pieces(open.bytes.get(..end).unwrap_or_default(), &known, open.number);
            from = end;
        }
    }

    fn all(&mut self, mut bytes: &[u8]) {
        while let Some((change, rest)) = Change::split(bytes) {
            self.one(&change);
            bytes = rest;
        }
    }

    /// Changes between two gaps of a batch that is not as it was written, from the first that is known to begin there.
    fn pieces(&mut self, bytes: &[u8], known: &[usize], batch: u64) {
        let intact = |at: usize| Change::split(bytes.get(at..)?).filter(|(change, _)| change.is_intact());
        let mut next = known.first().copied();
        while let Some(at) = next.filter(|at| *at < bytes.len()) {
            if let Some((change, rest)) = intact(at) {
                self.one(&change);
                next = Some(bytes.len() - rest.len());
                continue;
            }
            let change = Change::split(bytes.get(at..).unwrap_or_default());
            // Its lengths can be believed when another change follows on it.
            let behind = change.as_ref().map(|(_, rest)| bytes.len() - rest.len());
            let behind = behind.filter(|behind| *behind == bytes.len() || intact(*behind).is_some());
            match (change, behind) {
                (Some((change, _)), Some(_)) => self.damage(change.name()),
                _ => drop(self.damaged.insert(format!("batch {batch}, from byte {at}"))),
            }
            next = behind.or_else(|| known.iter().find(|known| **known > at).copied());
        }
    }

    fn one(&mut self, change: &Change<'_>) {
        match change.held(self.reserved) {
            Some((key, held)) => {
                self.damaged.remove(key);
                match self.changes.get_mut(key) {
                    Some(old) => *old = held,
                    None => drop(self.changes.insert(key.into(), held)),
                }
            }
            None => self.damage(change.name()),
        }
    }

    /// Not even an older value of it is served: that would be another state than the one that was lost.
    fn damage(&mut self, key: Key) {
        self.damaged.insert(key.to_string());
        self.changes.insert(key, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{change, journal::Batch};
    use std::{io, sync::Mutex};

    /// A file in memory; a flush fails on demand.
    #[derive(Default)]
    struct Rows {
        bytes: Mutex<Vec<u8>>,
        fails: Mutex<bool>,
    }

    impl Rows {
        fn bytes(&self) -> Vec<u8> {
            self.bytes.lock().expect("nobody panics").clone()
        }
    }

    impl Blocks for Rows {
        fn size(&self) -> io::Result<u64> {
            Ok(self.bytes().len() as u64)
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            let (bytes, offset) = (self.bytes(), offset as usize);
            let from = bytes.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(from);
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            let (mut bytes, offset) = (self.bytes.lock().expect("nobody panics"), offset as usize);
            let end = bytes.len().max(offset + data.len());
            bytes.resize(end, 0);
            bytes[offset..offset + data.len()].copy_from_slice(data);
            Ok(())
        }
        fn truncate(&self, size: u64) -> io::Result<()> {
            self.bytes.lock().expect("nobody panics").truncate(size as usize);
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            if *self.fails.lock().expect("nobody panics") { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        }
    }

    fn put(key: &str, value: &[u8]) -> Batch {
        let mut batch = Batch { bytes: Vec::new(), starts: vec![0] };
        change::encode(&mut batch.bytes, key, Some((value, 1, 1))).expect("it is small");
        batch
    }

    /// A journal that has no room left: one batch fails where the next one begins that fails too, and of the second only
    /// what is in another segment reaches the disk. What the first one left there is neither done nor damage.
    #[test]
    fn what_lies_under_a_torn_batch_costs_no_older_value() {
        let (rows, mut journal) = (Rows::default(), Journal::new(1, 2));
        journal.format(&rows, 1).unwrap();
        journal.append(&rows, &put("a", b"acknowledged"), 1).unwrap();
        journal.append(&rows, &put("large", &vec![7; SEGMENT_BYTES]), 1).unwrap();
        journal.may_grow = false;
        *rows.fails.lock().unwrap() = true;
        let (place, block) = (journal.head.segment.place, journal.head.block);
        for (first_bytes, intact) in [(9000, true), (9000, false), (100, true)] {
            let before = rows.bytes();
            journal.unsure = false;
            journal.append(&rows, &put("a", &vec![8; first_bytes]), 1).unwrap_err();
            assert!(!journal.unsure, "there is no other place");
            let mut torn = rows.bytes();
            journal.extend(&rows).unwrap();
            journal.append(&rows, &put("b", &vec![9; SEGMENT_BYTES]), 1).unwrap_err();
            let at = place * SEGMENT_BYTES + block * BLOCK_BYTES;
            if !intact {
                torn[at + 5000] ^= 255;
            }
            // The second batch's first frame never got to the disk.
            let mut disk = rows.bytes();
            disk[at..(place + 1) * SEGMENT_BYTES].copy_from_slice(&torn[at..(place + 1) * SEGMENT_BYTES]);
            let disk = Rows { bytes: Mutex::new(disk), ..Rows::default() };
            let found = recover(&disk, 0, &Sums::default()).unwrap().expect("it was flushed once");
            let value = found.changes.get("a").cloned().flatten().map(|held| held.value.to_vec());
            assert!(value.as_deref() == Some(b"acknowledged"), "{:?}", found.damaged);
            assert!(found.damaged.is_empty() && !found.changes.contains_key("b"), "{:?}", found.damaged);
            journal.shrink(&rows, 2).unwrap();
            rows.bytes.lock().unwrap().clone_from(&before);
        }
    }
}
