//! An object's tree, as bytes that are read in place (`doc`) and as it is while it changes (`tree`); what its fields are (`table`) and
//! its encodings. Knows no kinds. A crate of its own since it is built for speed, and what judges objects for size.
pub mod doc;
mod order; // sorting in little code
pub mod protobuf;
pub mod table;
pub mod tree;

pub use doc::{DATA_VERSION, Doc, Ref};
pub use order::{Gather, Order};
pub use tree::{AsValue, List, Map, Name, Number, Text, Value};
