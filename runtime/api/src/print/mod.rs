//! Server-side printing. SEAM: bodies are being written.
use mote_schema::{Kind, Object, Status};

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Include {
    #[default]
    Metadata,
    Object,
    None,
}

impl Include {
    pub fn parse(_text: &str) -> Result<Include, Status> {
        Ok(Include::Metadata)
    }
}

#[derive(Default)]
pub struct Options {
    pub include: Include,
    /// ListMeta; null leaves `{}`.
    pub metadata: serde_json::Value,
    /// Later frames of a watch: columnDefinitions is null.
    pub omit_columns: bool,
}

/// Appends a meta.k8s.io/v1 Table.
pub fn write_table(_kind: &Kind, _objects: &[Object], _options: &Options, _out: &mut Vec<u8>) {
    unimplemented!()
}
