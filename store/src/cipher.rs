//! The seam at which values are encrypted: between memory, where they are what their users wrote, and the disk. The
//! store knows no algorithm and no key.
use std::fmt;

/// What stands between a value and the disk. Called by the writer thread, and at start for every entry.
pub trait Cipher: Send + Sync {
    /// What goes to disk in place of `value`; None: the value itself.
    fn seal(&self, key: &str, value: &[u8]) -> Result<Option<Vec<u8>>, String>;
    /// What `stored` was before it was sealed.
    fn open(&self, key: &str, stored: &[u8]) -> Result<Opened, String>;
}

#[derive(Debug, PartialEq, Eq)]
pub struct Opened {
    /// None: it was stored as it is.
    pub value: Option<Vec<u8>>,
    /// It would be sealed otherwise today.
    pub stale: bool,
}

/// An entry that is on disk and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub key: crate::Key,
    pub why: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unable to read {:?} from the disk: {}", self.key, self.why)
    }
}
