//! One object's tree as bytes.
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// An immutable encoded tree. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Doc(Arc<[u8]>);

impl Doc {
    /// Believes nothing: checks version, depth, sizes and names once, so that readers need not.
    pub fn from_bytes(_bytes: Arc<[u8]>) -> Result<Doc, DocError> {
        unimplemented!()
    }
    /// For bytes that this process encoded or already checked.
    pub fn trusted(bytes: Arc<[u8]>) -> Doc {
        Doc(bytes)
    }
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.0
    }
    pub fn root(&self) -> Ref<'_> {
        unimplemented!()
    }
    /// Any serde value: typed k8s-openapi objects, `serde_json::Value`.
    pub fn encode<T: Serialize + ?Sized>(_value: &T) -> Result<Doc, DocError> {
        unimplemented!()
    }
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DocError> {
        unimplemented!()
    }
    /// Streaming, without a tree.
    pub fn from_json(_json: &[u8]) -> Result<Doc, DocError> {
        unimplemented!()
    }
    /// Appends JSON text.
    pub fn write_json(&self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
}

/// A place inside a Doc; `Ref::absent()` for a place that is not there, so that paths chain.
#[derive(Clone, Copy)]
pub struct Ref<'a>(#[allow(dead_code)] Option<&'a [u8]>);

impl<'a> Ref<'a> {
    pub fn absent() -> Ref<'a> {
        Ref(None)
    }
    pub fn exists(self) -> bool {
        unimplemented!()
    }
    pub fn is_null(self) -> bool {
        unimplemented!()
    }
    pub fn get(self, _name: &str) -> Ref<'a> {
        unimplemented!()
    }
    /// `at("spec.template.spec")`: a chain of `get`, names without dots.
    pub fn at(self, path: &str) -> Ref<'a> {
        path.split('.').fold(self, Ref::get)
    }
    pub fn as_str(self) -> Option<&'a str> {
        unimplemented!()
    }
    /// The string, or "".
    pub fn str(self) -> &'a str {
        self.as_str().unwrap_or("")
    }
    pub fn as_i64(self) -> Option<i64> {
        unimplemented!()
    }
    pub fn as_f64(self) -> Option<f64> {
        unimplemented!()
    }
    pub fn as_bool(self) -> Option<bool> {
        unimplemented!()
    }
    /// Elements of a list; empty for anything else.
    pub fn items(self) -> impl Iterator<Item = Ref<'a>> + Clone + 'a {
        std::iter::empty()
    }
    /// Members of an object in stored order; empty for anything else.
    pub fn entries(self) -> impl Iterator<Item = (&'a str, Ref<'a>)> + Clone + 'a {
        std::iter::empty()
    }
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, DocError> {
        unimplemented!()
    }
    pub fn to_value(self) -> serde_json::Value {
        unimplemented!()
    }
    pub fn write_json(self, _out: &mut Vec<u8>) {
        unimplemented!()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum DocError {
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
    Type {
        message: String,
    },
}
