//! Putting a backup in the place of what a data directory holds, so that a cut at any moment leaves the one or the other.
//!
//! All of it is first built in `DIR/restore.new`, flushed, and renamed to `DIR/restore.ready`: that rename is the
//! moment. `finish` then moves what was there to `restore.ready/old` and what is new into its place; it can be cut and
//! repeated as often as it takes, and whoever opens the data directory calls it first. In the end the directory is
//! called `before-restore` and holds what was there.
use super::{Error, FILES, Manifest, Part, Reader, sync_dir, unpack, version};
use mote_store::{Entry, Options, Store};
use std::{
    fs,
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

const NEW: &str = "restore.new";
const READY: &str = "restore.ready";
pub const BEFORE: &str = "before-restore";
/// Revisions that nobody can have seen when it is not known which ones were handed out: what etcd's documentation
/// advises to skip (`etcdutl snapshot restore --bump-revision`).
const SKIPPED_REVISIONS: u64 = 1_000_000_000;

/// The data directory's lock is held.
pub fn restore(data_dir: &Path, from: impl Read, done: &mut dyn FnMut(u64)) -> Result<Manifest, Error> {
    let reader = Reader::open(from)?;
    let manifest = reader.manifest.clone();
    let found = &manifest.version;
    if !version::reads(found.data) {
        return Err(Error::Refused(format!(
            "the backup is of mote {} (data version {}), this is mote {} and reads up to data version {}: put it back \
             with mote {} or newer",
            found.version,
            found.data,
            env!("CARGO_PKG_VERSION"),
            version::DATA + 1,
            found.version,
        )));
    }
    let new = data_dir.join(NEW);
    remove(&new).map_err(Error::io(format!("removing {}", new.display())))?;
    let made = fs::DirBuilder::new().mode(0o700).create(&new);
    made.map_err(Error::io(format!("making {}", new.display())))?;
    match fill(&new, data_dir, reader, done) {
        Ok(()) => {}
        Err(error) => {
            let _ = remove(&new);
            return Err(error);
        }
    }
    let ready = fs::rename(&new, data_dir.join(READY)).and_then(|()| sync_dir(data_dir));
    ready.map_err(Error::io("making the restored data the data"))?;
    finish(data_dir)?;
    Ok(manifest)
}

fn fill(new: &Path, data_dir: &Path, reader: Reader<impl Read>, done: &mut dyn FnMut(u64)) -> Result<(), Error> {
    let manifest = reader.manifest.clone();
    let (mut entries, mut bytes): (Vec<Entry>, u64) = (Vec::new(), 0);
    reader.parts(&mut |part| match part {
        Part::File(member) => unpack(new, &member).map_err(Error::io(format!("writing {}", member.name))),
        Part::Entries(chunk) => {
            bytes += chunk.iter().map(|entry| (entry.key.len() + entry.value.len()) as u64).sum::<u64>();
            entries.extend(chunk);
            done(bytes);
            Ok(())
        }
    })?;
    // Nobody may see a revision twice, whatever happened since the backup.
    let newest = entries.iter().map(|entry| entry.modified).max().unwrap_or_default().max(manifest.revision);
    let reserved = match newest_revision(data_dir) {
        Some(revision) => newest.max(revision) + 1,
        None => newest + SKIPPED_REVISIONS,
    };
    mote_store::create(new, reserved, &mut entries.into_iter().map(Ok))?;
    manifest.version.write(new)?;
    let synced = fs::File::open(new).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    synced.map_err(Error::io(format!("writing {}", new.display())))?;
    Ok(())
}

/// Of the store that is there; None when it cannot be known.
fn newest_revision(data_dir: &Path) -> Option<u64> {
    if !data_dir.join("store.redb").exists() {
        // Nobody has seen any.
        return Some(0);
    }
    Some(open(data_dir).ok()?.revision())
}

fn options(data_dir: &Path) -> Options {
    Options {
        dir: Some(data_dir.to_owned()),
        cache_bytes: 1 << 20,
        watch_events: 0,
        watch_bytes: 0,
        history: Duration::ZERO,
        lazy_delay: Duration::ZERO,
    }
}

/// The store of a stopped node, its values as they are on disk. Nothing is written.
pub fn open(data_dir: &Path) -> Result<Store, mote_store::Error> {
    let reading = |error| mote_store::Error::io("opening the data directory", &error);
    let directory = mote_store::Directory::to_read(data_dir).map_err(reading)?;
    let (store, _) = Store::open_by_hand(options(data_dir), mote_store::Sizes::default(), Arc::new(directory))?;
    Ok(store)
}

/// What a restore replaces: what is in a backup, and all that belongs to the store.
pub fn is_replaced(name: &str) -> bool {
    FILES.contains(&name) || name == "version" || name.starts_with("store.") && !name.contains(".damaged")
}

/// Completes a restore that was decided and cut off; nothing to do otherwise.
pub fn finish(data_dir: &Path) -> Result<(), Error> {
    let ready = data_dir.join(READY);
    if !ready.exists() {
        return Ok(());
    }
    swap(data_dir, &ready).map_err(Error::io(format!("completing the restore in {}", ready.display())))
}

fn swap(data_dir: &Path, ready: &Path) -> io::Result<()> {
    let old = ready.join("old");
    let moved = ready.join("old.done");
    if !moved.exists() {
        // What is there makes room first; a name is in the old place, or in `old`.
        fs::create_dir_all(&old)?;
        for name in names(data_dir)?.iter().filter(|name| is_replaced(name)) {
            fs::rename(data_dir.join(name), old.join(name))?;
        }
        sync_dir(&old)?;
        sync_dir(data_dir)?;
        fs::write(&moved, "")?;
        sync_dir(ready)?;
    }
    for name in names(ready)?.iter().filter(|name| is_replaced(name)) {
        fs::rename(ready.join(name), data_dir.join(name))?;
    }
    sync_dir(data_dir)?;
    let before = data_dir.join(BEFORE);
    remove(&before)?;
    fs::rename(ready, before)?;
    sync_dir(data_dir)
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Gone, whether it was there or not.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::{Version, write};
    use futures_lite::future::block_on;
    use mote_store::{Class, Transaction, Write};
    use std::path::PathBuf;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let dir = std::env::temp_dir().join(format!("mote-restore-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("certs/sub")).unwrap();
            Scratch(dir)
        }

        fn put(&self, key: &str, value: &str) {
            let store = Store::open(options(&self.0)).unwrap();
            let writes = vec![Write::Put(key.into(), value.as_bytes().into())];
            block_on(store.commit(Transaction { class: Class::Durable, preconditions: Vec::new(), writes })).unwrap();
            store.close().unwrap();
        }

        /// Entries, and files by name and text.
        fn state(&self) -> (Vec<String>, Vec<(String, String)>) {
            let store = open(&self.0).unwrap();
            let entries = store.snapshot().range("", None).map(|entry| entry.key.to_string()).collect();
            let files = crate::backup::files(&self.0).unwrap();
            let text = |name: String| (name.clone(), fs::read_to_string(self.0.join(name)).unwrap());
            (entries, files.into_iter().map(text).collect())
        }

        fn backup(&self) -> Vec<u8> {
            let manifest = Manifest { version: Version::current(""), revision: 7 };
            let mut bytes = Vec::new();
            let store = open(&self.0).unwrap();
            write(&mut bytes, true, &manifest, &self.0, &store.backup(), &mut |_| {}).unwrap();
            bytes
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A directory with two states: what a backup holds, and what was written after it.
    fn two_states(name: &str) -> (Scratch, Vec<u8>) {
        let dir = Scratch::new(name);
        fs::write(dir.0.join("certs/sub/ca.crt"), "old").unwrap();
        dir.put("/a", "1");
        let backup = dir.backup();
        fs::write(dir.0.join("certs/sub/ca.crt"), "new").unwrap();
        fs::write(dir.0.join("kubeconfig"), "new").unwrap();
        dir.put("/b", "2");
        (dir, backup)
    }

    #[test]
    fn a_backup_is_put_back_and_what_was_there_is_kept_aside() {
        let (dir, backup) = two_states("whole");
        let revision = open(&dir.0).unwrap().revision();
        restore(&dir.0, &backup[..], &mut |_| {}).unwrap();
        assert_eq!(dir.state(), (vec!["/a".to_owned()], vec![("certs/sub/ca.crt".to_owned(), "old".to_owned())]));
        assert!(open(&dir.0).unwrap().revision() > revision, "no revision comes twice");
        let before = dir.0.join(BEFORE).join("old");
        assert_eq!(fs::read_to_string(before.join("certs/sub/ca.crt")).unwrap(), "new");
        assert_eq!(open(&before).unwrap().snapshot().range("", None).count(), 2);
        assert!(Version::read(&dir.0).is_some());
    }

    #[test]
    fn a_damaged_backup_changes_nothing() {
        let (dir, backup) = two_states("damaged");
        let state = dir.state();
        for place in (0..backup.len()).step_by(backup.len() / 40) {
            let mut damaged = backup.clone();
            damaged[place] ^= 1;
            // The header of gzip has bytes that mean nothing, such as the time.
            if restore(&dir.0, &damaged[..], &mut |_| {}).is_err() {
                assert_eq!(dir.state(), state, "byte {place}");
            } else {
                assert!(place < 10, "byte {place}");
                return;
            }
            assert!(restore(&dir.0, &backup[..place], &mut |_| {}).is_err(), "{place} bytes");
            assert_eq!(dir.state(), state, "{place} bytes");
        }
        assert!(!dir.0.join(NEW).exists());
    }

    /// Every step of `swap` is a rename or a new file: cut it after each by hand, as the power would.
    #[test]
    fn a_cut_while_it_is_put_in_place_is_completed() {
        for cut in 0..6 {
            let (dir, backup) = two_states(&format!("cut-{cut}"));
            let new = dir.0.join(NEW);
            fs::create_dir(&new).unwrap();
            fill(&new, &dir.0, Reader::open(&backup[..]).unwrap(), &mut |_| {}).unwrap();
            let ready = dir.0.join(READY);
            fs::rename(&new, &ready).unwrap();
            let all: Vec<_> = names(&dir.0).unwrap().into_iter().filter(|name| is_replaced(name)).collect();
            fs::create_dir(ready.join("old")).unwrap();
            for name in all.iter().take(if cut < 3 { cut } else { all.len() }) {
                fs::rename(dir.0.join(name), ready.join("old").join(name)).unwrap();
            }
            if cut >= 3 {
                fs::write(ready.join("old.done"), "").unwrap();
                let new = names(&ready).unwrap().into_iter().filter(|name| is_replaced(name));
                for name in new.take(cut - 3) {
                    fs::rename(ready.join(&name), dir.0.join(&name)).unwrap();
                }
            }
            finish(&dir.0).unwrap();
            finish(&dir.0).unwrap();
            assert_eq!(dir.state().0, ["/a"], "cut {cut}");
            assert_eq!(fs::read_to_string(dir.0.join("certs/sub/ca.crt")).unwrap(), "old");
            assert!(dir.0.join(BEFORE).join("old/kubeconfig").exists() && !dir.0.join("kubeconfig").exists());
        }
    }
}
