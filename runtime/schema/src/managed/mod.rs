//! Who owns which field: metadata.managedFields and server-side apply, as structured-merge-diff v6 and apimachinery's
//! `util/managedfields` decide them. Pure: the time and other versions of an object come in from outside.
//!
//! A `Set` is a trie of path elements. Objects are read beside their types (`TypeRef`), so built-in and custom kinds take the same
//! way. `Tracker` is what a write goes through; all else serves it.

mod compare; // what one write changed
mod element; // one step of a path
mod entries; // metadata.managedFields to sets and back
mod fields; // FieldsV1, the JSON of a set
mod list; // which element of a list is which
mod merge; // a configuration laid over an object
mod mutation; // what a mutating policy lays over an object
mod reconcile; // sets from before a type became atomic
mod remove; // an object without the items of a set
mod reset; // what an endpoint's strategy takes back
pub mod scale; // owners of replicas, as the scale subresource shows them
mod set;
mod tracker; // update and apply, managers and all
mod types; // list and map types of any kind
mod update; // conflicts, ownership, removal
mod validate; // whether a configuration fits its type

pub use fields::Ordered;
pub use mutation::lay_over;
pub use reset::Filter;
pub use tracker::{Tracker, Versions};
pub use types::{TypeRef, is_atomic};

use element::Element;
use set::Set;

#[cfg(test)]
mod tests;
