//! The API server: HTTP and TLS in front, one generic path for every kind behind, the store below.
//!
//! SEAM: `client`, `driver`, `pods` and `server` are what the rest of the node uses.

pub mod client;
pub mod driver;
pub mod http;
pub mod pods;

pub use client::{Change, Client, DeleteOptions, Patch, Sub};
pub use mote_schema::{Catalog, Doc, Kind, Object, Ref, Status};
