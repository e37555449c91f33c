//! A storage in memory that fails on demand and forgets what was not synced, and short ways to drive a store.
use futures_lite::future::block_on;
use mote_store::{Class, Error, Options, Precondition, Revision, Storage, Store, Transaction, Write};
use redb::StorageBackend;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Small numbers that differ from seed to seed (xorshift64*).
pub struct Random(u64);

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

/// A drive writes this many bytes at once or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
pub struct Medium {
    /// What survives, what is read, and how the second grew out of the first.
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
    published: bool,
    pub syncs: u64,
    /// Bytes of all writes.
    pub written: u64,
    /// Writes and syncs until the power goes.
    pub fuel: Option<u64>,
    pub dark: bool,
    pub full: bool,
    pub read_only: bool,
    /// Syncs fail, though what they were for is on disk.
    pub sync_fails: bool,
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

fn apply(image: &mut Vec<u8>, change: &Change, random: Option<&mut Random>) {
    match (change, random) {
        (Change::Length(length), _) => image.resize(*length, 0),
        (Change::Bytes(offset, bytes), None) => image[*offset..offset + bytes.len()].copy_from_slice(bytes),
        (Change::Bytes(offset, bytes), Some(random)) => {
            let end = offset + bytes.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            for sector in offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
                let (from, to) = ((sector * SECTOR_BYTES).max(*offset), ((sector + 1) * SECTOR_BYTES).min(end));
                if random.below(4) > 0 {
                    image[from..to].copy_from_slice(&bytes[from - offset..to - offset]);
                }
            }
        }
    }
}

impl Medium {
    fn step(&mut self) -> io::Result<()> {
        if self.fuel == Some(0) {
            self.dark = true;
        }
        self.fuel = self.fuel.map(|fuel| fuel.saturating_sub(1));
        if self.dark { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.step()?;
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        apply(&mut self.current, &change, None);
        self.unsynced.push(change);
        Ok(())
    }

    /// Damages every copy of `text`; returns how many there were.
    pub fn flip_bit(&mut self, text: &[u8]) -> usize {
        let places: Vec<usize> = (0..self.current.len()).filter(|at| self.current[*at..].starts_with(text)).collect();
        for place in &places {
            self.current[*place] ^= 1;
            self.synced[*place] ^= 1;
        }
        places.len()
    }

    /// The power comes back: of what was not synced, some sectors of some writes are there.
    pub fn power_cycle(&mut self, random: &mut Random) {
        let all = random.below(8) == 0;
        for change in std::mem::take(&mut self.unsynced) {
            if all {
                apply(&mut self.synced, &change, None);
            } else if random.below(2) == 0 {
                apply(&mut self.synced, &change, Some(random));
            }
        }
        self.current = self.synced.clone();
        self.dark = false;
        self.fuel = None;
    }
}

#[derive(Clone, Debug, Default)]
pub struct Faulty(Arc<Mutex<Medium>>);

impl Faulty {
    pub fn medium(&self) -> MutexGuard<'_, Medium> {
        self.0.lock().expect("no test panics while it holds the medium")
    }
    pub fn open(&self) -> Result<Store, Error> {
        Store::open_in(options(), Arc::new(self.clone()))
    }
}

impl Storage for Faulty {
    fn open(&self, writable: bool) -> io::Result<Box<dyn StorageBackend>> {
        let medium = self.medium();
        match (medium.published, writable && medium.read_only) {
            (false, _) => Err(io::ErrorKind::NotFound.into()),
            (_, true) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            _ => Ok(Box::new(self.clone())),
        }
    }
    fn create(&self) -> io::Result<Box<dyn StorageBackend>> {
        let mut medium = self.medium();
        if medium.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        *medium = Medium { fuel: medium.fuel, ..Medium::default() };
        Ok(Box::new(self.clone()))
    }
    fn publish(&self) -> io::Result<()> {
        self.medium().step()?;
        self.medium().published = true;
        Ok(())
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        Ok(self.medium().current.len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let medium = self.medium();
        if medium.dark {
            return Err(io::Error::other("the power is off"));
        }
        let offset = offset as usize;
        let bytes = medium.current.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.medium().change(Change::Length(len as usize))
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.medium().written += data.len() as u64;
        self.medium().change(Change::Bytes(offset as usize, data.to_vec()))
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut medium = self.medium();
        medium.step()?;
        medium.syncs += 1;
        for change in std::mem::take(&mut medium.unsynced) {
            apply(&mut medium.synced, &change, None);
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
