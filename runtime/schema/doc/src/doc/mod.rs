//! One object's tree as bytes, read in place. FORMAT.md says what every byte means.
//!
//! Nothing here knows a kind. Bytes from outside go through `Doc::from_bytes` or `Doc::from_json`, which believe nothing;
//! readers never panic, not even on bytes that nobody checked.

pub mod bytes;
mod de;
mod edit;
mod json_read;
mod json_write;
pub mod names;
mod reference;
mod room;
mod ser;
mod write;

pub use bytes::{Key, NULL, Value, key, skip, value};
pub use de::{Node, Overlay};
pub use edit::Edit;
pub use json_write::{write_node, write_string};
pub use names::{DATA_VERSION, name_count};
pub use reference::Ref;
pub use room::Room;
pub use write::Writer;

use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// Containers inside containers. The deepest kinds (CustomResourceDefinitions with a pod template in their schema) need about 60.
pub const MAX_DEPTH: usize = 128;
/// Bytes of one Doc, and of the JSON it is read from. The API server takes requests of 3 MiB; patches may grow an object.
pub const MAX_BYTES: usize = 8 << 20;
/// Values in one Doc, counting every scalar, list and map: bounds what a decoded tree can cost.
pub const MAX_VALUES: usize = 1 << 19;

/// An immutable encoded tree. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Doc(Arc<[u8]>);

impl Doc {
    /// Believes nothing: checks version, depth, sizes and names once, so that readers need not.
    pub fn from_bytes(bytes: Arc<[u8]>) -> Result<Doc, DocError> {
        bytes::check(&bytes)?;
        Ok(Doc(bytes))
    }
    /// For bytes that this process encoded or already checked.
    pub fn trusted(bytes: Arc<[u8]>) -> Doc {
        Doc(bytes)
    }
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }
    pub fn root(&self) -> Ref<'_> {
        Ref::root(&self.0)
    }
    /// Any serde value: typed k8s-openapi objects, `crate::Value`.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Doc, DocError> {
        let mut writer = Writer::new();
        value.serialize(&mut writer)?;
        writer.finish()
    }
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DocError> {
        self.root().decode()
    }
    /// Streaming, without a tree. Of a name that appears twice in one object the last value stays.
    pub fn from_json(json: &[u8]) -> Result<Doc, DocError> {
        json_read::read(json, &mut Vec::new())
    }
    /// As `from_json`, and adds the path of every field that appeared twice ("spec.containers[0].name"), at most 100.
    pub fn from_json_strict(json: &[u8], duplicates: &mut Vec<String>) -> Result<Doc, DocError> {
        json_read::read(json, duplicates)
    }
    /// Appends JSON text.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.root().write_json(out);
    }
}

impl std::fmt::Debug for Doc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.root().fmt(f)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum DocError {
    /// The text is not JSON; the message is the one Go's decoder gives, as clients know it.
    Json {
        message: String,
    },
    TooDeep {
        limit: usize,
    },
    TooLarge {
        limit: usize,
    },
    /// The bytes are not a Doc this build reads.
    Damaged {
        at: usize,
        what: &'static str,
    },
    /// The tree does not fit the type it was asked to become.
    Type {
        message: String,
    },
}

impl std::fmt::Display for DocError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DocError::Json { message } | DocError::Type { message } => f.write_str(message),
            DocError::TooDeep { limit } => write!(f, "exceeded max depth of {limit}"),
            DocError::TooLarge { limit } => write!(f, "exceeded the limit of {limit} bytes or values"),
            DocError::Damaged { at, what } => write!(f, "damaged document at byte {at}: {what}"),
        }
    }
}

impl std::error::Error for DocError {}

impl serde::ser::Error for DocError {
    fn custom<T: std::fmt::Display>(message: T) -> DocError {
        DocError::Type { message: message.to_string() }
    }
}

impl serde::de::Error for DocError {
    fn custom<T: std::fmt::Display>(message: T) -> DocError {
        DocError::Type { message: message.to_string() }
    }
}

#[cfg(test)]
mod stored;
#[cfg(test)]
mod tests;
