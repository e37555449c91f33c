//! The crate's one error.
use crate::{Entry, Key, Revision, Unreadable};
use std::{fmt, io};

#[derive(Clone, Debug)]
pub enum Error {
    /// A precondition did not hold; `found` is what the key holds now.
    Precondition {
        key: Key,
        found: Option<Entry>,
    },
    /// The revision asked for is older than what is kept.
    Compacted {
        asked: Revision,
        oldest: Revision,
    },
    /// The revision asked for has not been reached.
    Future {
        asked: Revision,
        current: Revision,
    },
    /// A write to an entry that is sealed with a key that is not known. It stays as it is.
    Unreadable(Unreadable),
    /// The disk is full; reads go on.
    Full,
    /// The disk cannot be written; reads go on.
    ReadOnly,
    Closed,
    /// The store behind this one did not do it, or did not say whether it did. `undone`: it did not.
    Remote {
        message: String,
        undone: bool,
    },
    /// What is read is not what was written.
    Damaged {
        doing: &'static str,
        message: String,
    },
    Storage {
        doing: &'static str,
        message: String,
    },
}

impl Error {
    /// For what was not trying to write: a missing permission is not a read-only disk.
    pub(crate) fn reading(doing: &'static str, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Storage { doing, message: error.to_string() },
            _ => Error::io(doing, error),
        }
    }

    pub fn io(doing: &'static str, error: &io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Error::Full,
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Error::ReadOnly,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::Damaged { doing, message: error.to_string() }
            }
            // A sector that the disk gives up.
            _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Error::Damaged { doing, message: error.to_string() }
            }
            _ => Error::Storage { doing, message: error.to_string() },
        }
    }

    pub(crate) fn redb(doing: &'static str, error: impl Into<redb::Error>) -> Error {
        match error.into() {
            redb::Error::Io(error) => Error::io(doing, &error),
            redb::Error::Corrupted(message) => Error::Damaged { doing, message },
            error => Error::Storage { doing, message: error.to_string() },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Precondition { key, found: None } => write!(f, "{key}: absent, which the transaction ruled out"),
            Error::Precondition { key, found: Some(entry) } => {
                write!(f, "{key}: at revision {}, which the transaction ruled out", entry.modified)
            }
            Error::Compacted { asked, oldest } => write!(f, "revision {asked} is gone, the oldest kept is {oldest}"),
            Error::Future { asked, current } => write!(f, "revision {asked} is not reached, the newest is {current}"),
            Error::Unreadable(entry) => entry.fmt(f),
            Error::Full => f.write_str("the disk is full"),
            Error::ReadOnly => f.write_str("the disk is read-only"),
            Error::Remote { message, .. } => f.write_str(message),
            Error::Closed => f.write_str("the store is closed"),
            Error::Damaged { doing, message } | Error::Storage { doing, message } => write!(f, "{doing}: {message}"),
        }
    }
}

impl std::error::Error for Error {}
