//! The database: its tables, how it is read whole at start, and one flush. What the bytes mean is in `FORMAT.md`.
//!
//! The database is opened for writing at the first flush, not before: redb marks the file as in use when it opens it
//! for writing, and a node that only starts and stops has no need to write. After any failure it is closed, and the
//! next flush opens it anew (redb refuses every transaction after an I/O error).
//!
//! A commit whose last step failed may be on disk or not. The store has taken its transactions back, so their entries
//! as they were before it are kept here and written again by the next flush, ahead of that one's own.
use crate::{
    Cipher, Entry, Error, Key, Opened, Revision, Storage, Value, record,
    root::{Held, Root},
};
use redb::{
    BackendError, Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, TableError, backends::InMemoryBackend,
};
use std::{
    collections::{BTreeMap, HashSet},
    io,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// META: which version of `FORMAT.md` this is.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;
/// META: no revision above this one was ever handed out.
const RESERVED: &str = "reserved";

/// The revision of a store that has never been written.
const FIRST_REVISION: Revision = 1;

/// What one flush writes: the newest version of each key, None for a deletion.
pub(crate) type Writes = BTreeMap<Key, Option<Held>>;

pub(crate) struct Disk {
    storage: Arc<dyn Storage>,
    cache_bytes: usize,
    counters: Arc<Counters>,
    cipher: Option<Arc<dyn Cipher>>,
    database: Option<Database>,
    /// What entries touched by a failed flush were before it.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// What the disk held when it was opened.
pub(crate) struct Loaded {
    pub root: Root,
    pub reserved: Revision,
    /// Keys whose records are not what was written. They are left out of `root`, and on disk.
    pub damaged: Vec<String>,
    pub sealed: Sealed,
}

/// What the cipher had to say about entries.
#[derive(Default)]
pub(crate) struct Sealed {
    /// Cannot be opened: as they are on disk, and why. They are not in the root.
    pub unreadable: BTreeMap<Key, (Held, String)>,
    /// Sealed otherwise than they would be today.
    pub stale: HashSet<Key>,
}

/// What went to the storage.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub bytes: AtomicU64,
    pub syncs: AtomicU64,
}

impl Disk {
    pub fn open(
        storage: Arc<dyn Storage>,
        cache_bytes: usize,
        counters: Arc<Counters>,
        cipher: Option<Arc<dyn Cipher>>,
    ) -> Result<(Disk, Loaded), Error> {
        let mut disk = Disk { storage, cache_bytes, counters, cipher, database: None, before: BTreeMap::new() };
        let backend = match disk.storage.open(false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                disk.create()?;
                disk.storage.open(false)
            }
            backend => backend,
        };
        let backend = disk.counted(backend.map_err(|e| Error::reading("opening the database", &e))?);
        let cipher = disk.cipher.clone();
        let load = |database: &dyn Reads| load(database, cipher.as_deref());
        let loaded = match disk.builder().open_read_only_with_backend(backend) {
            Ok(database) => load(&database)?,
            // Not closed properly: redb repairs the file, which it can only while writing.
            Err(DatabaseError::RepairAborted) => match disk.writable() {
                Err(Error::ReadOnly | Error::Full) => load(&disk.repaired_copy()?)?,
                database => load(database?)?,
            },
            Err(error) => return Err(Error::redb("opening the database", error)),
        };
        Ok((disk, loaded))
    }

    /// All of it in one transaction and one flush. On an error nothing of it counts as written.
    pub fn flush(&mut self, writes: &Writes, reserve: Option<Revision>) -> Result<(), Error> {
        let mut before = std::mem::take(&mut self.before);
        let cipher = self.cipher.clone();
        let result = self.writable().and_then(|database| {
            let sealed = seal(cipher.as_deref(), writes)?;
            let transacted = transact(database, writes, &sealed, reserve, &mut before);
            transacted.map_err(|e| Error::redb("writing the database", e))
        });
        if result.is_err() {
            self.before = before;
            self.database = None;
        }
        result
    }

    /// Leaves the file so that the next start need not repair it.
    pub fn close(&mut self) -> Result<(), Error> {
        let Some(database) = self.database.take() else { return Ok(()) };
        database.close().map_err(|e| Error::redb("closing the database", e))
    }

    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        builder
    }

    fn counted(&self, backend: Box<dyn StorageBackend>) -> Counted {
        Counted { backend, counters: self.counters.clone() }
    }

    fn create(&self) -> Result<(), Error> {
        let doing = "creating the database";
        let backend = self.counted(self.storage.create().map_err(|e| Error::io(doing, &e))?);
        let create = || -> Result<(), redb::Error> {
            let database = self.builder().create_with_backend(backend)?;
            let transaction = database.begin_write()?;
            transaction.open_table(ENTRIES)?;
            transaction.open_table(META)?.insert(FORMAT, FORMAT_VERSION)?;
            transaction.commit()?;
            Ok(database.close()?)
        };
        create().map_err(|e| Error::redb(doing, e))?;
        self.storage.publish().map_err(|e| Error::io(doing, &e))
    }

    /// A new database with these entries, as they are on disk.
    pub fn create_from(
        storage: Arc<dyn Storage>,
        reserved: Revision,
        entries: &mut dyn Iterator<Item = Result<Entry, Error>>,
    ) -> Result<(), Error> {
        let counters = Arc::new(Counters::default());
        let mut disk =
            Disk { storage, cache_bytes: 1 << 20, counters, cipher: None, database: None, before: BTreeMap::new() };
        disk.create()?;
        let mut writes = Writes::new();
        for entry in entries {
            let entry = entry?;
            writes.insert(entry.key.clone(), Some(Held::from(&entry)));
        }
        disk.flush(&writes, Some(reserved))?;
        disk.close()
    }

    fn writable(&mut self) -> Result<&Database, Error> {
        if self.database.is_none() {
            let backend = self.storage.open(true).map_err(|e| Error::io("opening the database for writing", &e))?;
            let database = self.builder().create_with_backend(self.counted(backend));
            self.database = Some(database.map_err(|e| Error::redb("opening the database for writing", e))?);
        }
        self.database.as_ref().ok_or(Error::Closed)
    }

    /// A file that needs a repair on a disk that cannot be written: repaired in memory, so that reads go on.
    fn repaired_copy(&self) -> Result<Database, Error> {
        let doing = "reading the database from a disk that cannot be written";
        let copy = || -> io::Result<InMemoryBackend> {
            let backend = self.storage.open(false)?;
            let mut bytes = vec![0; usize::try_from(backend.len()?).map_err(io::Error::other)?];
            backend.read(0, &mut bytes)?;
            backend.close()?;
            let copy = InMemoryBackend::new();
            copy.set_len(bytes.len() as u64)?;
            copy.write(0, &bytes)?;
            Ok(copy)
        };
        let copy = copy().map_err(|e| Error::reading(doing, &e))?;
        self.builder().create_with_backend(copy).map_err(|e| Error::redb(doing, e))
    }
}

/// What stands on disk for the values that are sealed.
fn seal(cipher: Option<&dyn Cipher>, writes: &Writes) -> Result<BTreeMap<Key, Held>, Error> {
    let mut sealed = BTreeMap::new();
    let Some(cipher) = cipher else { return Ok(sealed) };
    for (key, held) in writes {
        let Some(held) = held else { continue };
        let error = |message| Error::Storage { doing: "encrypting", message: format!("{key}: {message}") };
        if let Some(value) = cipher.seal(key, &held.value).map_err(error)? {
            sealed.insert(key.clone(), Held { value: value.into(), ..held.clone() });
        }
    }
    Ok(sealed)
}

fn load(database: &dyn Reads, cipher: Option<&dyn Cipher>) -> Result<Loaded, Error> {
    let doing = "reading the database";
    let transaction = database.begin().map_err(|e| Error::redb(doing, e))?;
    let meta = transaction.open_table(META).map_err(|e| not_ours(doing, e))?;
    let number = |name| match meta.get(name) {
        Ok(found) => Ok(found.map(|guard| guard.value())),
        Err(error) => Err(Error::redb(doing, error)),
    };
    match number(FORMAT)? {
        Some(FORMAT_VERSION) => {}
        found => {
            let found = found.map_or("no format version".into(), |version| format!("format {version}"));
            let message = format!("it has {found}, this build reads format {FORMAT_VERSION}");
            return Err(Error::Storage { doing, message });
        }
    }
    let reserved = number(RESERVED)?.unwrap_or(FIRST_REVISION);
    let entries = transaction.open_table(ENTRIES).map_err(|e| not_ours(doing, e))?;
    let (mut root, mut damaged, mut sealed) = (Root::default(), Vec::new(), Sealed::default());
    for item in entries.iter().map_err(|e| Error::redb(doing, e))? {
        let (key, record) = item.map_err(|e| Error::redb(doing, e))?;
        let text = String::from_utf8_lossy(key.value());
        match record::decode(&text, record.value()) {
            // A revision above what was reserved was not written by this program.
            Some(held) if held.modified <= reserved && held.created <= held.modified => {
                if let Some(held) = opened(cipher, &text, held, &mut sealed) {
                    root.insert(Key::from(&*text), held);
                }
            }
            _ => damaged.push(text.into_owned()),
        }
    }
    Ok(Loaded { root, reserved, damaged, sealed })
}

/// The entry with the value its user wrote.
fn opened(cipher: Option<&dyn Cipher>, key: &str, mut held: Held, sealed: &mut Sealed) -> Option<Held> {
    let Some(cipher) = cipher else { return Some(held) };
    match cipher.open(key, &held.value) {
        Ok(Opened { value, stale }) => {
            if stale {
                sealed.stale.insert(key.into());
            }
            if let Some(value) = value {
                held.value = Value::from(value);
            }
            Some(held)
        }
        Err(why) => {
            sealed.unreadable.insert(key.into(), (held, why));
            None
        }
    }
}

/// `ReadableDatabase` as far as `load` needs it, for a database opened either way.
trait Reads {
    fn begin(&self) -> Result<redb::ReadTransaction, redb::TransactionError>;
}

impl Reads for Database {
    fn begin(&self) -> Result<redb::ReadTransaction, redb::TransactionError> {
        self.begin_read()
    }
}

impl Reads for ReadOnlyDatabase {
    fn begin(&self) -> Result<redb::ReadTransaction, redb::TransactionError> {
        self.begin_read()
    }
}

fn not_ours(doing: &'static str, error: TableError) -> Error {
    match error {
        TableError::TableDoesNotExist(table) => {
            Error::Storage { doing, message: format!("it has no table {table:?}: another program's file") }
        }
        error => Error::redb(doing, error),
    }
}

fn transact(
    database: &Database,
    writes: &Writes,
    sealed: &BTreeMap<Key, Held>,
    reserve: Option<Revision>,
    before: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for (key, record) in before.iter() {
            match record {
                Some(record) => drop(entries.insert(key.as_slice(), record.as_slice())?),
                None => drop(entries.remove(key.as_slice())?),
            }
        }
        for (key, held) in writes {
            let old = match held {
                Some(held) => {
                    let held = sealed.get(key).unwrap_or(held);
                    entries.insert(key.as_bytes(), record::encode(key, held).as_slice())?
                }
                None => entries.remove(key.as_bytes())?,
            };
            before.entry(key.as_bytes().to_vec()).or_insert_with(|| old.map(|old| old.value().to_vec()));
        }
    }
    if let Some(reserve) = reserve {
        transaction.open_table(META)?.insert(RESERVED, reserve)?;
    }
    Ok(transaction.commit()?)
}

/// A backend that counts what passes.
#[derive(Debug)]
struct Counted {
    backend: Box<dyn StorageBackend>,
    counters: Arc<Counters>,
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.backend.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.backend.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counters.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.backend.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }
    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }
    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }
    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }
    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }
    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
