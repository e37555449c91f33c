//! Discovery documents. SEAM: bodies are being written.
use mote_schema::Catalog;

pub fn document(_catalog: &Catalog, _path: &str, _accept: &str) -> Option<(&'static str, Vec<u8>)> {
    None
}
