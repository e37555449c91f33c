//! The database: redb, its two tables, and how they are read and written. What the bytes mean is in `FORMAT.md`.
//!
//! It is open for writing only while a round of changes goes into it (`disk`), and closed behind each: redb marks the
//! file as in use, and one that is found so must be walked whole by the next start. redb refuses everything after an
//! I/O error: the database is dropped then and opened anew.
use crate::{
    Error, Key, Revision, Storage, record,
    root::Held,
    storage::{Blocks, Part},
};
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, StorageBackend,
    TableDefinition, TableError, backends::InMemoryBackend,
};
use std::{collections::BTreeMap, fmt, io};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// META: which version of `FORMAT.md` this is.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;
/// META: no revision above this one was ever handed out before `JOURNAL`.
const RESERVED: &str = "reserved";
/// META: the newest batch of the journal all of which is here. What is in the journal up to it no longer counts.
const JOURNAL: &str = "journal";

const READING: &str = "reading the database";

/// What a round that is complete records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meta {
    pub reserved: Revision,
    pub batch: u64,
}

/// What the database holds.
#[derive(Default)]
pub(crate) struct Contents {
    pub entries: BTreeMap<Key, Held>,
    pub meta: Meta,
    /// Keys whose records are not what was written.
    pub damaged: Vec<String>,
}

/// Where and how the database is opened.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub storage: &'a dyn Storage,
    pub cache_bytes: usize,
    /// Stands between redb and the storage.
    pub counted: &'a dyn Fn(Box<dyn Blocks>) -> Box<dyn Blocks>,
}

impl Place<'_> {
    /// Whole. Writes only when it must be repaired, and when that cannot be written, repairs a copy in memory.
    pub fn read(self) -> Result<Contents, Error> {
        let backend = self.backend(false).map_err(|e| Error::reading("opening the database", &e))?;
        match self.builder().open_read_only_with_backend(backend) {
            Ok(database) => load(&database),
            // Not closed properly: redb repairs the file, which it can only while writing.
            Err(DatabaseError::RepairAborted) => match self.open() {
                Err(Error::ReadOnly | Error::Full) => load(&self.repaired_copy()?),
                database => {
                    let database = database?;
                    let contents = load(&database)?;
                    close(database)?;
                    Ok(contents)
                }
            },
            Err(error) => Err(Error::redb("opening the database", error)),
        }
    }

    /// For writing.
    pub fn open(self) -> Result<Database, Error> {
        let doing = "opening the database for writing";
        let backend = self.backend(true).map_err(|e| Error::io(doing, &e))?;
        self.builder().create_with_backend(backend).map_err(|e| Error::redb(doing, e))
    }

    /// A new one, unseen until it is published.
    pub fn create(self) -> Result<Database, Error> {
        let doing = "creating the database";
        let blocks = self.storage.create(Part::Database).map_err(|e| Error::io(doing, &e))?;
        let backend = Backend((self.counted)(blocks));
        let create = || -> Result<Database, redb::Error> {
            let database = self.builder().create_with_backend(backend)?;
            let transaction = database.begin_write()?;
            transaction.open_table(ENTRIES)?;
            transaction.open_table(META)?.insert(FORMAT, FORMAT_VERSION)?;
            transaction.commit()?;
            Ok(database)
        };
        create().map_err(|e| Error::redb(doing, e))
    }

    /// Bytes of the file.
    pub fn size(self) -> io::Result<u64> {
        self.storage.open(Part::Database, false)?.size()
    }

    fn backend(self, writable: bool) -> io::Result<Backend> {
        Ok(Backend((self.counted)(self.storage.open(Part::Database, writable)?)))
    }

    fn builder(self) -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        builder
    }

    fn repaired_copy(self) -> Result<Database, Error> {
        let doing = "reading the database from a disk that cannot be written";
        let copy = || -> io::Result<InMemoryBackend> {
            let blocks = self.storage.open(Part::Database, false)?;
            let mut bytes = vec![0; usize::try_from(blocks.size()?).map_err(io::Error::other)?];
            blocks.read(0, &mut bytes)?;
            let copy = InMemoryBackend::new();
            copy.set_len(bytes.len() as u64)?;
            copy.write(0, &bytes)?;
            Ok(copy)
        };
        let copy = copy().map_err(|e| Error::reading(doing, &e))?;
        self.builder().create_with_backend(copy).map_err(|e| Error::redb(doing, e))
    }
}

/// One transaction and one flush. None: the key is deleted.
pub(crate) fn write(database: &Database, changes: &[(Key, Option<Vec<u8>>)], meta: Option<Meta>) -> Result<(), Error> {
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            for (key, record) in changes {
                match record {
                    Some(record) => drop(entries.insert(key.as_bytes(), record.as_slice())?),
                    None => drop(entries.remove(key.as_bytes())?),
                }
            }
        }
        if let Some(meta) = meta {
            let mut table = transaction.open_table(META)?;
            table.insert(RESERVED, meta.reserved)?;
            table.insert(JOURNAL, meta.batch)?;
        }
        Ok(transaction.commit()?)
    };
    write().map_err(|e| Error::redb("writing the database", e))
}

/// Leaves the file so that the next start need not repair it.
pub(crate) fn close(database: Database) -> Result<(), Error> {
    database.close().map_err(|e| Error::redb("closing the database", e))
}

fn load(database: &dyn Reads) -> Result<Contents, Error> {
    let transaction = database.begin().map_err(|e| Error::redb(READING, e))?;
    let meta = transaction.open_table(META).map_err(not_ours)?;
    let number = |name| match meta.get(name) {
        Ok(found) => Ok(found.map(|guard| guard.value())),
        Err(error) => Err(Error::redb(READING, error)),
    };
    match number(FORMAT)? {
        Some(FORMAT_VERSION) => {}
        found => {
            let found = found.map_or("no format version".into(), |version| format!("format {version}"));
            let message = format!("it has {found}, this build reads format {FORMAT_VERSION}");
            return Err(Error::Storage { doing: READING, message });
        }
    }
    let reserved = number(RESERVED)?.unwrap_or(0);
    let meta = Meta { reserved, batch: number(JOURNAL)?.unwrap_or(0) };
    let mut contents = Contents { meta, ..Contents::default() };
    let entries = transaction.open_table(ENTRIES).map_err(not_ours)?;
    for item in entries.iter().map_err(|e| Error::redb(READING, e))? {
        let (key, record) = item.map_err(|e| Error::redb(READING, e))?;
        let text = String::from_utf8_lossy(key.value());
        match record::decode(&text, record.value()) {
            Some(held) if held.created <= held.modified => drop(contents.entries.insert(Key::from(&*text), held)),
            _ => contents.damaged.push(text.into_owned()),
        }
    }
    Ok(contents)
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

fn not_ours(error: TableError) -> Error {
    match error {
        TableError::TableDoesNotExist(table) => {
            Error::Storage { doing: READING, message: format!("it has no table {table:?}: another program's file") }
        }
        error => Error::redb(READING, error),
    }
}

/// Blocks as redb wants them.
struct Backend(Box<dyn Blocks>);

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
