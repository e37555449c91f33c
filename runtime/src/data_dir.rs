//! The data directory: made if it is missing, checked before anything starts, and held by one process at a time.
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use std::{
    fmt, fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub enum Error {
    Create { dir: PathBuf, error: io::Error },
    Write { dir: PathBuf, error: io::Error },
    Held { dir: PathBuf },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Create { dir, error } => write!(f, "creating the data directory {}: {error}", dir.display()),
            Error::Write { dir, error } => write!(f, "the data directory {} cannot be written: {error}", dir.display()),
            Error::Held { dir } => write!(f, "another mote runs on the data directory {}", dir.display()),
        }
    }
}

/// Held for the life of the process; the kernel lets go of the lock when it ends, however it ends.
pub struct DataDir {
    pub path: PathBuf,
    _lock: fs::File,
}

impl DataDir {
    pub fn open(path: &Path) -> Result<DataDir, Error> {
        let dir = || path.to_owned();
        // The private key of the cluster is below: nobody else has business here.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| Error::Create { dir: dir(), error })?;
        let write = |error: io::Error| Error::Write { dir: dir(), error };
        let mut options = fs::OpenOptions::new();
        let lock =
            options.write(true).create(true).truncate(false).mode(0o600).open(path.join("lock")).map_err(write)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(Error::Held { dir: dir() }),
            Err(error) => return Err(write(error.into())),
        }
        (&lock).write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(write)?;
        Ok(DataDir { path: dir(), _lock: lock })
    }
}

/// Whether a node runs on it.
pub fn is_held(path: &Path) -> bool {
    fs::File::open(path.join("lock"))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_holds_the_directory() {
        let dir = std::env::temp_dir().join(format!("mote-data-{}", std::process::id()));
        let held = DataDir::open(&dir).unwrap();
        assert!(matches!(DataDir::open(&dir), Err(Error::Held { .. })));
        drop(held);
        DataDir::open(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_cannot_be_a_directory_is_named() {
        let error = DataDir::open(Path::new("/proc/version/mote")).err().unwrap().to_string();
        assert!(error.starts_with("creating the data directory /proc/version/mote: "), "{error}");
    }
}
