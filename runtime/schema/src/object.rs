//! A stored object: its kind, its Doc (without apiVersion, kind and resourceVersion, which are known from
//! elsewhere) and the revision that last wrote it.
use crate::{Doc, Kind, Ref, doc::DocError};
use serde::de::DeserializeOwned;
use std::sync::Arc;

#[derive(Clone)]
pub struct Object {
    pub kind: Arc<Kind>,
    pub doc: Doc,
    pub revision: u64,
}

impl Object {
    pub fn root(&self) -> Ref<'_> {
        self.doc.root()
    }
    pub fn meta(&self) -> Ref<'_> {
        self.root().get("metadata")
    }
    pub fn name(&self) -> &str {
        self.meta().get("name").str()
    }
    /// "" for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.meta().get("namespace").str()
    }
    pub fn uid(&self) -> &str {
        self.meta().get("uid").str()
    }
    pub fn is_deleting(&self) -> bool {
        self.meta().get("deletionTimestamp").exists()
    }
    /// Typed, with resourceVersion filled in.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DocError> {
        unimplemented!()
    }
    /// As a client sees it: apiVersion, kind and resourceVersion filled in.
    pub fn to_value(&self) -> serde_json::Value {
        unimplemented!()
    }
    /// Appends the JSON a client sees. `envelope` false leaves out apiVersion and kind (items of a built-in List).
    pub fn write_json(&self, _envelope: bool, _out: &mut Vec<u8>) {
        unimplemented!()
    }
}
