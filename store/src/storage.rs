//! Where the database's bytes are: the seam behind which a test injects faults. The real one is a file in a directory
//! that is locked for as long as the store lives.
use redb::{StorageBackend, backends::FileBackend};
use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// A place for one database. Backends are opened one at a time; after a failure the last one is dropped and the place
/// is opened again.
pub trait Storage: Send + Sync + 'static {
    /// What is there; `NotFound` when nothing is.
    fn open(&self, writable: bool) -> io::Result<Box<dyn StorageBackend>>;
    /// An empty place for a new database, which a crash before `publish` leaves unseen.
    fn create(&self) -> io::Result<Box<dyn StorageBackend>>;
    /// Puts what `create` gave, now complete and closed, where `open` finds it, durably.
    fn publish(&self) -> io::Result<()>;
}

const FILE: &str = "store.redb";
const NEW_FILE: &str = "store.redb.new";

/// The file `store.redb` in a directory.
pub struct Directory {
    path: PathBuf,
    /// Holds the lock. The directory itself is locked, so locking writes nothing.
    handle: File,
    written: AtomicBool,
}

impl Directory {
    /// Makes the directory (mode 0700) when it is missing. `ResourceBusy` when another process holds it.
    pub fn new(path: &Path) -> io::Result<Directory> {
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let handle = File::open(path)?;
        match handle.try_lock() {
            Ok(()) => Ok(Directory { path: path.into(), handle, written: AtomicBool::new(false) }),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => {
                let message = format!("{} is in use by another process", path.display());
                Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
            }
        }
    }
}

impl Storage for Directory {
    fn open(&self, writable: bool) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new().read(true).write(writable).open(self.path.join(FILE))?;
        if writable && self.written.swap(true, Ordering::Relaxed) {
            // Opened for writing once more: something failed. Pages whose write-back failed look clean in the page
            // cache and are not on disk (fsync(2), NOTES); forget them, so that what is read is what is there.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        backend(file)
    }

    fn create(&self) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        backend(options.open(self.path.join(NEW_FILE))?)
    }

    fn publish(&self) -> io::Result<()> {
        std::fs::rename(self.path.join(NEW_FILE), self.path.join(FILE))?;
        self.handle.sync_all()
    }
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    match FileBackend::new(file) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(error) => Err(io::Error::other(error)),
    }
}
