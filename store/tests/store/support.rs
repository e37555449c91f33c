//! A storage in memory that fails on demand and forgets what was not synced, and short ways to drive a store.
use futures_lite::future::block_on;
use mote_store::{
    Blocks, Class, Error, Options, Part, Precondition, Revision, Sizes, Storage, Store, Transaction, Write, Writer,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, ThreadId},
    time::Duration,
};

/// Small numbers that differ from seed to seed (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Random {
        Random::new(0)
    }
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// How a write that was not synced may come out, sector by sector.
const SECTOR_BYTES: [usize; 2] = [512, 4096];
const BLOCK_BYTES: usize = 4096;

/// What survives, what is read, and how the second grew out of the first.
#[derive(Clone, Debug, Default)]
struct Image {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
    /// Blocks of it that take space.
    taken: BTreeSet<usize>,
}

/// The files of a directory on one disk: what is synced of one says nothing of the others.
#[derive(Debug, Default)]
pub struct Medium {
    files: BTreeMap<(Part, bool), Image>,
    pub syncs: u64,
    /// Who synced the journal.
    pub journal_synced_by: Vec<ThreadId>,
    /// What a sync takes.
    pub sync_takes: Duration,
    /// Bytes of all writes.
    pub written: u64,
    /// Writes and syncs until the power goes.
    pub fuel: Option<u64>,
    pub dark: bool,
    /// What was being written when the power went; None: no file.
    cut_at: Option<(Part, bool)>,
    /// Nothing can be written, or nothing beyond so many bytes.
    pub full: bool,
    pub capacity: Option<usize>,
    held_back: usize,
    pub read_only: bool,
    /// Syncs fail, though what they were for is on disk.
    pub sync_fails: bool,
    /// One step in so many fails, and leaves something behind or not.
    pub error_every: Option<u64>,
    /// No step of the database succeeds.
    pub database_fails: bool,
    pub random: Random,
}

#[derive(Clone, Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

fn apply(image: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => image.resize(*length, 0),
        Change::Bytes(offset, bytes) => {
            image.resize(image.len().max(offset + bytes.len()), 0);
            image[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// Some sectors of a change; with `garbage` now and then one that was being written holds neither the old nor the new.
fn apply_torn(image: &mut Vec<u8>, change: &Change, sector_bytes: usize, garbage: bool, random: &mut Random) {
    let Change::Bytes(offset, bytes) = change else { return apply(image, change) };
    let end = offset + bytes.len();
    image.resize(image.len().max(end), 0);
    let keep = 1 + random.below(4);
    for sector in offset / sector_bytes..=(end - 1) / sector_bytes {
        let (from, to) = ((sector * sector_bytes).max(*offset), ((sector + 1) * sector_bytes).min(end));
        match random.below(64) {
            0 if garbage => image[from..to].iter_mut().for_each(|byte| *byte = random.below(256) as u8),
            dice if dice % 4 < keep => image[from..to].copy_from_slice(&bytes[from - offset..to - offset]),
            _ => {}
        }
    }
}

/// redb writes its header in place, and so needs sectors that are written wholly or not at all. The journal does not.
fn may_be_garbage((part, new): (Part, bool)) -> bool {
    new || part == Part::Journal
}

impl Medium {
    fn step(&mut self, name: Option<(Part, bool)>) -> io::Result<()> {
        if self.fuel == Some(0) && !self.dark {
            self.dark = true;
            self.cut_at = name;
        }
        self.fuel = self.fuel.map(|fuel| fuel.saturating_sub(1));
        if self.dark { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn fails(&mut self, (part, _): (Part, bool)) -> bool {
        self.database_fails && part == Part::Database
            || self.error_every.is_some_and(|every| self.random.below(every) == 0)
    }

    fn file(&mut self, name: (Part, bool)) -> io::Result<&mut Image> {
        self.files.get_mut(&name).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Bytes of all files.
    pub fn size(&self) -> usize {
        self.files.values().map(|file| file.taken.len() * BLOCK_BYTES).sum::<usize>() + self.held_back
    }

    fn change(&mut self, name: (Part, bool), change: Change) -> io::Result<()> {
        let was_dark = self.dark;
        if let Err(error) = self.step(Some(name)) {
            if !was_dark && let Ok(file) = self.file(name) {
                // The one that the cut is in.
                file.unsynced.push(change);
            }
            return Err(error);
        }
        // A file that is only made longer takes no space, and neither does a hole.
        let blocks = match &change {
            Change::Length(_) => 0..0,
            Change::Bytes(offset, bytes) => offset / BLOCK_BYTES..(offset + bytes.len()).div_ceil(BLOCK_BYTES),
        };
        let taken = &self.file(name)?.taken;
        let grows = blocks.clone().filter(|block| !taken.contains(block)).count() * BLOCK_BYTES;
        if self.full || grows > 0 && self.capacity.is_some_and(|capacity| self.size() + grows > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let fails = self.fails(name).then(|| Random::new(self.random.below(1 << 30)));
        let (file, garbage) = (self.file(name)?, may_be_garbage(name));
        if let Some(mut torn) = fails {
            if torn.below(2) == 0 {
                let sector_bytes = SECTOR_BYTES[torn.below(2) as usize];
                apply_torn(&mut file.current, &change, sector_bytes, garbage, &mut torn);
                file.unsynced.push(change);
            }
            return Err(io::Error::other("a bad block"));
        }
        file.taken.extend(blocks);
        if let Change::Length(length) = change {
            file.taken.split_off(&length.div_ceil(BLOCK_BYTES));
        }
        apply(&mut file.current, &change);
        file.unsynced.push(change);
        Ok(())
    }

    /// Damages every copy of `text`; returns how many there were.
    pub fn flip_bit(&mut self, text: &[u8]) -> usize {
        let mut count = 0;
        for file in self.files.values_mut() {
            let places = (0..file.current.len()).filter(|at| file.current[*at..].starts_with(text));
            for place in places.collect::<Vec<_>>() {
                file.current[place] ^= 1;
                file.synced[place] ^= 1;
                count += 1;
            }
        }
        count
    }

    /// The power comes back: of what was not synced, some sectors of some writes are there, in whatever order they
    /// were to be written: which of its versions a sector holds has nothing to do with the others.
    pub fn power_cycle(&mut self, random: &mut Random) {
        let sector_bytes = SECTOR_BYTES[random.below(2) as usize];
        for (name, file) in &mut self.files {
            let all = random.below(8) == 0;
            for change in disorder(std::mem::take(&mut file.unsynced), random) {
                if all {
                    apply(&mut file.synced, &change);
                } else if random.below(3) > 0 {
                    apply_torn(&mut file.synced, &change, sector_bytes, may_be_garbage(*name), random);
                }
            }
            file.current = file.synced.clone();
        }
        self.dark = false;
        self.fuel = None;
    }

    /// Whether the power is gone, and in what.
    pub fn went_dark(&self) -> (bool, Option<(Part, bool)>) {
        (self.dark, self.cut_at)
    }

    /// Whether a cut now leaves anything to chance.
    pub fn is_unsettled(&self) -> bool {
        self.files.values().any(|file| !file.unsynced.is_empty())
    }
}

/// In another order, some of them twice. Lengths are the file system's, which keeps them in order.
fn disorder(changes: Vec<Change>, random: &mut Random) -> Vec<Change> {
    if random.below(2) == 0 {
        return changes;
    }
    let (mut out, mut run): (Vec<Change>, usize) = (Vec::new(), 0);
    for change in changes {
        let twice = matches!(change, Change::Bytes(..)) && random.below(8) == 0;
        for change in twice.then(|| change.clone()).into_iter().chain([change]) {
            if matches!(change, Change::Length(_)) {
                run = out.len() + 1;
                out.push(change);
                continue;
            }
            let place = run + random.below((out.len() - run) as u64 + 1) as usize;
            out.insert(place, change);
        }
    }
    out
}

#[derive(Clone, Debug, Default)]
pub struct Faulty(Arc<Mutex<Medium>>);

/// Small ones: many rounds, and many files written anew.
pub const SIZES: Sizes = Sizes { journal_bytes: 512 * 1024, least_file_bytes: 1 << 20 };

impl Faulty {
    pub fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().expect("no test panics while it holds the medium")
    }
    pub fn open(&self) -> Result<Store, Error> {
        Store::open_in(options(), Arc::new(self.clone()))
    }
    /// Another disk that this one might have been, had the power gone now.
    pub fn image(&self, random: &mut Random) -> Faulty {
        let files = self.medium().files.clone();
        let image = Faulty(Arc::new(Mutex::new(Medium { files, ..Medium::default() })));
        image.medium().power_cycle(random);
        image
    }
    pub fn open_by_hand(&self) -> Result<(Store, Writer), Error> {
        self.open_sized(SIZES)
    }
    pub fn open_sized(&self, sizes: Sizes) -> Result<(Store, Writer), Error> {
        Store::open_by_hand(options(), sizes, Arc::new(self.clone()))
    }
}

impl Faulty {
    fn row(&self, part: Part, new: bool) -> Box<dyn Blocks> {
        Box::new(Row { storage: self.clone(), name: (part, new) })
    }
}

/// Metadata of the file system is in its own journal: a name is changed wholly or not at all, and at once.
impl Storage for Faulty {
    fn open(&self, part: Part, writable: bool) -> io::Result<Box<dyn Blocks>> {
        let mut medium = self.medium();
        medium.file((part, false))?;
        match writable && medium.read_only {
            true => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            false => Ok(self.row(part, false)),
        }
    }
    fn create(&self, part: Part) -> io::Result<Box<dyn Blocks>> {
        let mut medium = self.medium();
        medium.step(Some((part, true)))?;
        if medium.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        medium.files.insert((part, true), Image::default());
        Ok(self.row(part, true))
    }
    fn publish(&self, part: Part) -> io::Result<()> {
        let mut medium = self.medium();
        let was_dark = medium.dark;
        let step = medium.step(Some((part, true)));
        if step.is_ok() || !was_dark && medium.random.below(2) == 0 {
            let file = medium.files.remove(&(part, true)).ok_or(io::ErrorKind::NotFound)?;
            medium.files.insert((part, false), file);
        }
        step
    }
    fn keep(&self, part: Part) -> io::Result<()> {
        self.medium().step(Some((part, false)))
    }
    fn set_aside(&self, part: Part) -> io::Result<()> {
        self.medium().files.remove(&(part, false)).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
    fn forget(&self, part: Part) {
        if let Ok(file) = self.medium().file((part, false)) {
            file.current = file.synced.clone();
            file.unsynced.iter().for_each(|change| apply(&mut file.current, change));
        }
    }
    fn hold_back(&self, bytes: u64) -> io::Result<()> {
        let mut medium = self.medium();
        medium.step(None)?;
        let bytes = bytes as usize;
        let grows = bytes.saturating_sub(medium.held_back);
        if grows > 0 && (medium.full || medium.capacity.is_some_and(|capacity| medium.size() + grows > capacity)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        medium.held_back = bytes;
        Ok(())
    }
    fn free_bytes(&self) -> io::Result<u64> {
        let medium = self.medium();
        let free = medium.capacity.map(|capacity| capacity.saturating_sub(medium.size()) as u64);
        Ok(if medium.full { 0 } else { free.unwrap_or(u64::MAX) })
    }
    fn taken_bytes(&self, part: Part) -> io::Result<u64> {
        Ok((self.medium().file((part, false))?.taken.len() * BLOCK_BYTES) as u64)
    }
}

/// One file that is open.
struct Row {
    storage: Faulty,
    name: (Part, bool),
}

impl Row {
    fn with<T>(&self, act: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        let mut medium = self.storage.medium();
        if medium.dark {
            return Err(io::Error::other("the power is off"));
        }
        act(medium.file(self.name)?)
    }
}

impl Blocks for Row {
    fn size(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.current.len() as u64))
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.with(|file| {
            let bytes = file.current.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.storage.medium().change(self.name, Change::Length(size as usize))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut medium = self.storage.medium();
        medium.written += data.len() as u64;
        medium.change(self.name, Change::Bytes(offset as usize, data.to_vec()))
    }
    fn sync(&self) -> io::Result<()> {
        let mut medium = self.storage.medium();
        medium.step(Some(self.name))?;
        medium.syncs += 1;
        if self.name.0 == Part::Journal {
            medium.journal_synced_by.push(thread::current().id());
        }
        thread::sleep(medium.sync_takes);
        let (fails, forgets) = (medium.fails(self.name), medium.random.below(2) == 0);
        let file = medium.file(self.name)?;
        if fails {
            // The kernel forgets that these were to be written, and shows them all the same.
            if forgets {
                file.unsynced.clear();
            }
            return Err(io::Error::other("a bad block"));
        }
        for change in std::mem::take(&mut file.unsynced) {
            apply(&mut file.synced, &change);
        }
        if medium.sync_fails { Err(io::Error::other("the cable is loose")) } else { Ok(()) }
    }
}

pub fn options() -> Options {
    Options {
        dir: None,
        cache_bytes: 64 * 1024,
        watch_events: 1000,
        watch_bytes: 1 << 20,
        history: Duration::from_secs(3600),
        lazy_delay: Duration::from_secs(3600),
    }
}

pub fn memory() -> Store {
    Store::open(options()).expect("a store in memory opens")
}

pub fn put(class: Class, key: &str, value: &str) -> Transaction {
    let writes = vec![Write::Put(key.into(), value.as_bytes().into())];
    Transaction { class, preconditions: Vec::new(), writes }
}

pub fn delete(class: Class, key: &str) -> Transaction {
    Transaction { class, preconditions: Vec::new(), writes: vec![Write::Delete(key.into())] }
}

pub fn given(mut transaction: Transaction, key: &str, precondition: Precondition) -> Transaction {
    transaction.preconditions.push((key.into(), precondition));
    transaction
}

pub type Commit<'a> = Pin<Box<dyn Future<Output = Result<Revision, Error>> + 'a>>;

pub fn commit(store: &Store, transaction: Transaction) -> Result<Revision, Error> {
    block_on(store.commit(transaction))
}

/// `key=value` of all entries, in order.
pub fn dump(snapshot: &mote_store::Snapshot) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    snapshot.range("", None).map(|entry| format!("{}={}", entry.key, text(&entry.value))).collect()
}
