//! What went wrong, as the CNI specification wants it said: a code that runtimes act on, and words for people.
use crate::netlink;
use std::fmt;

/// Codes of the specification (below 100) and our own (from 100 up).
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO_FAILURE: u32 = 5;
    pub const DECODING_FAILURE: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const PLUGIN_NOT_AVAILABLE: u32 = 50;
    pub const KERNEL: u32 = 100;
    pub const POOL_EXHAUSTED: u32 = 101;
    pub const DUPLICATE: u32 = 102;
    pub const CHECK_FAILED: u32 = 103;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: u32,
    pub message: String,
    pub details: String,
}

impl Error {
    pub fn new(code: u32, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), details: String::new() }
    }

    pub fn io(doing: impl fmt::Display, error: impl fmt::Display) -> Error {
        Error::new(code::IO_FAILURE, format!("{doing}: {error}"))
    }

    /// Tear-down goes on after a failure; this is how all of them are told. None if there were none.
    pub fn all(errors: Vec<Error>) -> Option<Error> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.details = errors.map(|e| e.message).collect::<Vec<_>>().join("; ");
        Some(first)
    }
}

impl From<netlink::Error> for Error {
    fn from(error: netlink::Error) -> Error {
        Error::new(code::KERNEL, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, " (also: {})", self.details) }
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;
