//! What the kinds are: tables of their fields, the form they are stored in, and the rules a change of one goes through.
//! Pure: no I/O, no clock, no globals but tables.
//!
//! The way of a write through this crate: `prune::parse_json` (or `parse_yaml`, `protobuf`) makes a tree, `prune::clean` fits it to
//! its kind, `defaults` completes it, `prepare` keeps it to the part it may touch, `check` says what is wrong, `Doc` is stored.

mod builtin; // the generated table and list of kinds
pub mod check; // validation, a file for each family of kinds
pub mod claims; // which volume a claim may have
pub mod convert; // one stored object under two faces
pub mod defaults; // what is filled in
pub mod kind; // kinds and the catalog of them
pub mod managed; // who owns which field, and server-side apply
pub mod object; // a stored object with its kind and revision
mod parse; // JSON and YAML text to trees, bounded
pub mod patch; // JSON patch and JSON merge patch
pub mod placement; // whether a pod may be on a node
pub mod prepare; // which part of an object a write may touch
pub mod protobuf; // requests and answers, by the table's numbers
pub mod prune; // types checked, unknown fields dropped, canonical forms
pub mod quantity; // "100m", "1Gi"
pub mod regex; // regular expressions as Go reads them
pub mod selector; // label and field selectors
pub mod status; // every error a client sees
pub mod strategic; // strategic merge patch
pub mod structural; // custom kinds and their schemas
pub mod table; // the field table
pub mod validate; // formats of names and values
mod yaml; // trees to YAML text

pub use kind::{Catalog, Kind};
pub use mote_doc::{
    AsValue, DATA_VERSION, Doc, Gather, List, Map, Name, Number, Order, Ref, Text, Value, doc, json, tree,
};
pub use object::Object;
pub use status::{Cause, Status};
