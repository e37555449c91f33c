//! Where the store's bytes are: the seam behind which a test injects faults. The real one is a file in a directory that
//! is locked for as long as the store lives.
use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A row of bytes. What was written is on disk when `sync` has returned, and may be there sooner, in any order.
pub trait Blocks: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    /// All of `out`, or an error.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Beyond the end too: the row grows.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    fn truncate(&self, size: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// The store is two rows of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Journal,
    Database,
}

/// A place for one store. After a failure what `open` gave is dropped and the place is opened again.
pub trait Storage: Send + Sync + 'static {
    /// What is there; `NotFound` when nothing is.
    fn open(&self, part: Part, writable: bool) -> io::Result<Box<dyn Blocks>>;
    /// An empty place for a new one, which a crash before `publish` leaves unseen.
    fn create(&self, part: Part) -> io::Result<Box<dyn Blocks>>;
    /// Puts what `create` gave, now complete and on disk, where `open` finds it, durably, in place of what was there.
    fn publish(&self, part: Part) -> io::Result<()>;
    /// What is there as the disk has it, not as it is remembered.
    fn open_fresh(&self, part: Part) -> io::Result<Box<dyn Blocks>> {
        self.open(part, false)
    }
    /// What is there gets a second name, under which it stays when `publish` replaces it.
    fn keep(&self, part: Part) -> io::Result<()>;
    /// What is there is no longer found by `open`, and is not deleted.
    fn set_aside(&self, part: Part) -> io::Result<()>;
    /// A flush failed: what is read from now on is what is on disk, not what was to be there.
    fn forget(&self, part: Part);
    /// Keeps so much space from everybody else, or gives it back.
    fn hold_back(&self, bytes: u64) -> io::Result<()>;
    /// What can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// What a part takes there: what was never written of it takes nothing.
    fn taken_bytes(&self, part: Part) -> io::Result<u64>;
}

/// Of which `st_blocks` counts (stat(2)).
const STAT_BLOCK_BYTES: u64 = 512;

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Journal => "store.log",
            Part::Database => "store.redb",
        }
    }

    fn new_name(self) -> &'static str {
        match self {
            Part::Journal => "store.log.new",
            Part::Database => "store.redb.new",
        }
    }
}

const RESERVE_FILE: &str = "store.reserve";
/// So often something is set aside under a name of its own; then the last one is replaced.
const MAX_ASIDE: u32 = 8;

/// The files in a directory.
pub struct Directory {
    path: PathBuf,
    /// Holds the lock. The directory itself is locked, so locking writes nothing.
    handle: File,
    /// Nothing below it changes.
    read_only: bool,
}

impl Directory {
    /// One that is there, and stays as it is.
    pub fn to_read(path: &Path) -> io::Result<Directory> {
        if !path.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Directory { read_only: true, ..Directory::new(path)? })
    }

    /// Makes the directory (mode 0700) when it is missing. `ResourceBusy` when another process holds it.
    pub fn new(path: &Path) -> io::Result<Directory> {
        if !path.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let handle = File::open(path)?;
        match handle.try_lock() {
            Ok(()) => Ok(Directory { path: path.into(), handle, read_only: false }),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => {
                let message = format!("{} is in use by another process", path.display());
                Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
            }
        }
    }
}

impl Directory {
    /// A name for what is damaged.
    fn aside(&self, part: Part) -> PathBuf {
        let names = (1..=MAX_ASIDE).map(|n| self.path.join(format!("{}.damaged-{n}", part.name())));
        let mut free = names.filter(|path| !path.exists());
        free.next().unwrap_or_else(|| self.path.join(format!("{}.damaged", part.name())))
    }
}

impl Storage for Directory {
    fn open(&self, part: Part, writable: bool) -> io::Result<Box<dyn Blocks>> {
        if writable && self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(Box::new(OpenOptions::new().read(true).write(writable).open(self.path.join(part.name()))?))
    }

    fn create(&self, part: Part) -> io::Result<Box<dyn Blocks>> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Box::new(options.open(self.path.join(part.new_name()))?))
    }

    fn publish(&self, part: Part) -> io::Result<()> {
        std::fs::rename(self.path.join(part.new_name()), self.path.join(part.name()))?;
        self.handle.sync_all()
    }

    fn open_fresh(&self, part: Part) -> io::Result<Box<dyn Blocks>> {
        let file = File::open(self.path.join(part.name()))?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(Box::new(file))
    }

    fn keep(&self, part: Part) -> io::Result<()> {
        let (from, to) = (self.path.join(part.name()), self.aside(part));
        let copied = match std::fs::hard_link(&from, &to) {
            // A file system without links.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => std::fs::copy(&from, &to).map(drop),
            _ => Ok(()),
        };
        copied.and_then(|()| self.handle.sync_all())
    }

    fn set_aside(&self, part: Part) -> io::Result<()> {
        if self.read_only {
            // Who writes the next time comes by here again.
            return Ok(());
        }
        std::fs::rename(self.path.join(part.name()), self.aside(part))?;
        self.handle.sync_all()
    }

    fn forget(&self, part: Part) {
        // Pages whose write-back failed look clean in the page cache and are not on disk (fsync(2), NOTES).
        if let Ok(file) = File::open(self.path.join(part.name())) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    fn hold_back(&self, bytes: u64) -> io::Result<()> {
        let path = self.path.join(RESERVE_FILE);
        if bytes == 0 {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot promise space: there is nothing to hold back.
            Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            result => result.map_err(io::Error::from).and_then(|()| file.set_len(bytes)),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.handle)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn taken_bytes(&self, part: Part) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(part.name()))?.blocks() * STAT_BLOCK_BYTES)
    }
}

impl Blocks for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_all_at(data, offset)
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
