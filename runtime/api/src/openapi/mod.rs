//! OpenAPI documents. SEAM: bodies are being written.
use crate::http::Query;
use mote_schema::Catalog;

pub fn document(_catalog: &Catalog, _path: &str, _query: &Query, _accept: &str) -> Option<(&'static str, Vec<u8>)> {
    None
}
