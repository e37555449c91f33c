//! The database: redb, its two tables, and how they are read and written. What the bytes mean is in `FORMAT.md`.
//!
//! It is open for writing only while a round of changes goes into it (`disk`), and closed behind each: redb marks the
//! file as in use, and one that is found so must be walked whole by the next start. redb refuses everything after an
//! I/O error: the database is dropped then and opened anew.
use crate::{
    Error, Key, Revision, Storage,
    guard::{Guarded, Sums},
    page::{self, Old},
    record,
    root::Held,
    storage::{Blocks, Part},
};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use std::{collections::BTreeMap, io};

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// META: which version of `FORMAT.md` this is.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;
/// META: no revision above this one was ever handed out before `JOURNAL`.
const RESERVED: &str = "reserved";
/// META: the newest batch of the journal all of which is here. What is in the journal up to it no longer counts.
const JOURNAL: &str = "journal";

/// When it cannot be known which revisions were handed out: so many are skipped, as etcd's documentation advises.
const UNKNOWN_REVISIONS: Revision = 1_000_000_000;

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
    /// Keys whose newest records are not what was written, and places where not even keys can be read.
    pub damaged: Vec<String>,
    /// It was read past redb, and has to be written anew.
    pub salvaged: bool,
}

/// Where and how the database is opened.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub storage: &'a dyn Storage,
    pub cache_bytes: usize,
    /// What is known of its blocks.
    pub sums: &'a Sums,
    /// Stands between redb and the storage.
    pub counted: &'a dyn Fn(Box<dyn Blocks>) -> Box<dyn Blocks>,
}

impl Place<'_> {
    /// Whole, with every checksum verified, and repaired if it was not closed; writes nothing. Of a file that is damaged all
    /// that can be read.
    pub fn read(self) -> Result<Contents, Error> {
        match self.verified() {
            Err(Error::Damaged { message, .. }) => {
                tracing::error!(message, "the database is damaged; what can be read of it is read");
                self.sums.forget();
                self.salvaged()
            }
            contents => contents,
        }
    }

    fn verified(self) -> Result<Contents, Error> {
        let opening = |e: io::Error| Error::reading("opening the database", &e);
        let blocks = self.storage.open(Part::Database, false).map_err(opening)?;
        not_empty(&*blocks)?;
        let layered = Guarded::layered((self.counted)(blocks), self.sums.clone()).map_err(opening)?;
        let database = self.builder(true).create_with_backend(layered);
        load(&database.map_err(|e| Error::redb("opening the database", e))?)
    }

    fn salvaged(self) -> Result<Contents, Error> {
        let blocks = self.storage.open(Part::Database, false).map_err(|e| Error::reading(READING, &e))?;
        let size = blocks.size().map_err(|e| Error::reading(READING, &e))?;
        let trouble = std::cell::RefCell::new(None);
        let at = |offset: u64, out: &mut [u8]| {
            out.fill(0);
            let read = blocks.read(offset, out);
            // Nothing is known from a first page that cannot be read, and the others are looked at all the same.
            read.or_else(|error| {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    *trouble.borrow_mut() = Some(Error::reading(READING, &error));
                }
                if offset == 0 { Ok(()) } else { Err(error) }
            })
        };
        let Old { format, reserved, journal, entries, mut damaged, older } =
            page::read(&at, size).map_err(|e| Error::reading(READING, &e))?;
        check_format(format.or(Some(FORMAT_VERSION)))?;
        if let Some(error) = trouble.take().filter(|_| entries.is_empty() && size > 0) {
            // The disk is gone, not what is on it.
            return Err(error);
        }
        for key in older {
            tracing::error!(key, "damaged; an older version of it was found and stands in");
            damaged.push(key);
        }
        let mut contents = Contents { damaged, salvaged: true, ..Contents::default() };
        for (key, bytes) in entries {
            if let Some(held) = record::decode(&key, &bytes) {
                contents.entries.insert(Key::from(key), held);
            }
        }
        let newest = contents.entries.values().map(|held| held.modified).max().unwrap_or_default();
        // Without a journal's number all of the journal is applied, which comes to the same.
        contents.meta.batch = journal.unwrap_or_default();
        contents.meta.reserved = reserved.unwrap_or(newest + UNKNOWN_REVISIONS).max(newest);
        Ok(contents)
    }

    /// For writing.
    pub fn open(self) -> Result<Database, Error> {
        let doing = "opening the database for writing";
        let blocks = self.storage.open(Part::Database, true).map_err(|e| Error::io(doing, &e))?;
        not_empty(&*blocks)?;
        // Of what it was when it was read, or written since, each block that is read now is compared.
        let builder = self.builder(self.sums.is_empty());
        let backend = Guarded::new((self.counted)(blocks), self.sums.clone());
        builder.create_with_backend(backend).map_err(|e| Error::redb(doing, e))
    }

    /// A new one, unseen until it is published.
    pub fn create(self) -> Result<Database, Error> {
        let doing = "creating the database";
        let blocks = self.storage.create(Part::Database).map_err(|e| Error::io(doing, &e))?;
        self.sums.forget();
        let backend = Guarded::new((self.counted)(blocks), self.sums.clone());
        let create = || -> Result<Database, redb::Error> {
            let database = self.builder(false).create_with_backend(backend)?;
            let transaction = database.begin_write()?;
            transaction.open_table(ENTRIES)?;
            transaction.open_table(META)?.insert(FORMAT, FORMAT_VERSION)?;
            transaction.commit()?;
            Ok(database)
        };
        create().map_err(|e| Error::redb(doing, e))
    }

    fn builder(self, check: bool) -> Builder {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes).set_check_integrity_on_open(check);
        builder
    }
}

/// redb makes a new database of an empty file.
fn not_empty(blocks: &dyn Blocks) -> Result<(), Error> {
    match blocks.size() {
        Ok(0) => Err(Error::Damaged { doing: READING, message: "it is empty".to_owned() }),
        Ok(_) => Ok(()),
        Err(error) => Err(Error::reading(READING, &error)),
    }
}

fn check_format(found: Option<u64>) -> Result<(), Error> {
    if found == Some(FORMAT_VERSION) {
        return Ok(());
    }
    let found = found.map_or("no format version".into(), |version| format!("format {version}"));
    let message = format!("it has {found}, this build reads format {FORMAT_VERSION}");
    Err(Error::Storage { doing: READING, message })
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

fn load(database: &Database) -> Result<Contents, Error> {
    let transaction = database.begin_read().map_err(|e| Error::redb(READING, e))?;
    let meta = transaction.open_table(META).map_err(not_ours)?;
    let number = |name| match meta.get(name) {
        Ok(found) => Ok(found.map(|guard| guard.value())),
        Err(error) => Err(Error::redb(READING, error)),
    };
    check_format(number(FORMAT)?)?;
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

fn not_ours(error: TableError) -> Error {
    match error {
        TableError::TableDoesNotExist(table) => {
            Error::Storage { doing: READING, message: format!("it has no table {table:?}: another program's file") }
        }
        error => Error::redb(READING, error),
    }
}
