//! What can go wrong while the server starts or renews its certificates. Once it serves, clients get a `Status`.
use std::{fmt, io, path::PathBuf};

#[derive(Debug)]
pub enum Error {
    /// Reading or writing a file of the data directory.
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A certificate or key that cannot be made or read.
    Certificate {
        doing: &'static str,
        message: String,
    },
    PortInUse {
        port: u16,
    },
    Listen {
        address: String,
        source: io::Error,
    },
    /// What every cluster starts with could not be stored.
    Bootstrap {
        message: String,
    },
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { doing, path, source }
    }
    pub(crate) fn certificate<E: fmt::Display>(doing: &'static str) -> impl Fn(E) -> Error {
        move |error| Error::Certificate { doing, message: error.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { doing, path, source } => write!(f, "{doing} {}: {source}", path.display()),
            Error::Certificate { doing, message } => write!(f, "{doing}: {message}"),
            Error::PortInUse { port } => {
                write!(f, "port {port} is in use by another program (apiServer.port chooses another)")
            }
            Error::Bootstrap { message } => write!(f, "storing what the cluster starts with: {message}"),
            Error::Listen { address, source } => write!(f, "listening on {address}: {source}"),
        }
    }
}

impl std::error::Error for Error {}
