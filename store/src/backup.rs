//! What a store holds, as a stream of bytes that does not depend on how it is kept on disk, and a new store from it.
//!
//! A stream is entries one after the other, cut into chunks between two of them. Values are as on disk: sealed where
//! the store seals them. An entry: length of key and of value (4 bytes each), created, modified (8 each), the checksum
//! that a record of it has (4), key, value; all little endian.
use crate::{
    Cipher, Directory, Entry, Error, Key, Revision, Snapshot, Storage, Store, Value, disk::Disk, record, root::Held,
};
use std::{path::Path, sync::Arc};

const HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 4;
/// A chunk is given away when it is this long.
const CHUNK_BYTES: usize = 256 * 1024;

/// One state of the store; what comes later does not change it.
pub struct Backup {
    snapshot: Snapshot,
    cipher: Option<Arc<dyn Cipher>>,
}

impl Store {
    /// The newest visible state; cheap.
    pub fn backup(&self) -> Backup {
        Backup { snapshot: self.snapshot(), cipher: self.cipher() }
    }
}

impl Backup {
    pub fn revision(&self) -> Revision {
        self.snapshot.revision()
    }

    /// Entries, and the bytes of their keys and values.
    pub fn size(&self) -> (usize, u64) {
        self.snapshot.persistent().fold((0, 0), |(entries, bytes), (entry, _)| {
            (entries + 1, bytes + (HEAD_BYTES + entry.key.len() + entry.value.len()) as u64)
        })
    }

    /// Gives the stream away chunk by chunk; returns how many entries it has.
    pub fn write(&self, take: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<usize, Error> {
        let (mut chunk, mut entries) = (Vec::new(), 0);
        for (entry, sealed) in self.snapshot.persistent() {
            let value = match &self.cipher {
                Some(cipher) if !sealed => {
                    let error = |message| Error::Storage { doing: "encrypting", message };
                    cipher.seal(&entry.key, &entry.value).map_err(error)?.map_or(entry.value, Value::from)
                }
                _ => entry.value,
            };
            if !chunk.is_empty() && chunk.len() + HEAD_BYTES + entry.key.len() + value.len() > CHUNK_BYTES {
                take(&chunk)?;
                chunk.clear();
            }
            let held = Held { value, created: entry.created, modified: entry.modified };
            let record = record::encode(&entry.key, &held);
            for length in [entry.key.len(), held.value.len()] {
                chunk.extend_from_slice(&(length as u32).to_le_bytes());
            }
            // A record starts with the revisions and the checksum, and its value is last.
            let (head, value) = record.split_at(record.len() - held.value.len());
            chunk.extend_from_slice(head);
            chunk.extend_from_slice(entry.key.as_bytes());
            chunk.extend_from_slice(value);
            entries += 1;
        }
        if !chunk.is_empty() {
            take(&chunk)?;
        }
        Ok(entries)
    }
}

/// The entries of a chunk, their values as on disk.
pub fn entries(mut chunk: &[u8]) -> impl Iterator<Item = Result<Entry, Error>> {
    std::iter::from_fn(move || {
        if chunk.is_empty() {
            return None;
        }
        let entry = take_entry(&mut chunk);
        if entry.is_none() {
            chunk = &[];
        }
        let damaged = || Error::Storage { doing: "reading a backup", message: "an entry is damaged".to_owned() };
        Some(entry.ok_or_else(damaged))
    })
}

fn take_entry(chunk: &mut &[u8]) -> Option<Entry> {
    let (head, rest) = chunk.split_at_checked(HEAD_BYTES)?;
    let length = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?) as usize);
    let (key, rest) = rest.split_at_checked(length(0)?)?;
    let (value, rest) = rest.split_at_checked(length(4)?)?;
    let key = str::from_utf8(key).ok()?;
    let Held { value, created, modified } = record::decode(key, &[&head[8..], value].concat())?;
    *chunk = rest;
    Some(Entry { key: Key::from(key), value, created, modified })
}

/// Makes a store in a directory that has none, durably. No revision up to `reserved` is handed out by it.
pub fn create(
    dir: &Path,
    reserved: Revision,
    entries: &mut dyn Iterator<Item = Result<Entry, Error>>,
) -> Result<(), Error> {
    let directory = Directory::new(dir).map_err(|e| Error::io("making the directory of a store", &e))?;
    create_in(&directory, reserved, entries)
}

/// The same in another place.
pub fn create_in(
    storage: &dyn Storage,
    reserved: Revision,
    entries: &mut dyn Iterator<Item = Result<Entry, Error>>,
) -> Result<(), Error> {
    Disk::create_from(storage, reserved, entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Options, Transaction, Write};
    use futures_lite::future::block_on;
    use std::time::Duration;

    fn options(dir: Option<&Path>) -> Options {
        Options {
            dir: dir.map(Into::into),
            cache_bytes: 64 * 1024,
            watch_events: 100,
            watch_bytes: 1 << 20,
            history: Duration::ZERO,
            lazy_delay: Duration::ZERO,
        }
    }

    fn store() -> Store {
        let store = Store::open(options(None)).unwrap();
        for i in 0..100 {
            let value = vec![i; 100 * usize::from(i)].into();
            let writes = vec![Write::Put(format!("/registry/things/{i}").into(), value)];
            block_on(store.commit(Transaction { class: Class::Durable, preconditions: Vec::new(), writes })).unwrap();
        }
        store
    }

    fn chunks(backup: &Backup) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let take = &mut |chunk: &[u8]| {
            chunks.push(chunk.to_vec());
            Ok(())
        };
        backup.write(take).unwrap();
        chunks
    }

    #[test]
    fn a_store_comes_back_from_its_chunks() {
        let store = store();
        let backup = store.backup();
        let chunks = chunks(&backup);
        let bytes: usize = chunks.iter().map(Vec::len).sum();
        assert_eq!(backup.size(), (100, bytes as u64));
        assert!(chunks.len() > 1 && chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
        let dir = std::env::temp_dir().join(format!("mote-backup-{}", std::process::id()));
        create(&dir, 5_000, &mut chunks.iter().flat_map(|chunk| entries(chunk))).unwrap();
        let back = Store::open(options(Some(&dir))).unwrap();
        let all = |store: &Store| store.snapshot().range("", None).collect::<Vec<_>>();
        assert_eq!(all(&back), all(&store));
        assert!(back.revision() >= 5_000);
        drop(back);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_flipped_bit_or_a_missing_end_is_found() {
        let chunk = chunks(&store().backup()).swap_remove(0);
        let first = HEAD_BYTES + "/registry/things/0".len();
        for bit in (0..first * 8).chain((first * 8..chunk.len() * 8).step_by(997)) {
            let mut damaged = chunk.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(entries(&damaged).any(|entry| entry.is_err()), "bit {bit}");
        }
        for length in 1..first {
            assert!(entries(&chunk[..length]).any(|entry| entry.is_err()), "{length} bytes");
        }
    }
}
