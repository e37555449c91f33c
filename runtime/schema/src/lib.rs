//! What the kinds are. Pure: no I/O, no clock, no globals but tables.
//!
//! SEAM: names and signatures here are fixed; bodies are being written.

mod builtin;
pub mod check;
pub mod convert;
pub mod defaults;
pub mod doc;
pub mod kind;
pub mod object;
mod parse;
pub mod patch;
pub mod placement;
pub mod prepare;
pub mod protobuf;
pub mod prune;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod strategic;
pub mod table;
pub mod validate;
mod yaml;

pub use doc::{Doc, Ref};
pub use kind::{Catalog, Kind};
pub use object::Object;
pub use status::{Cause, Status};
