//! The service proxy: from Services and EndpointSlices to one nftables table.
//!
//! `model` reads objects, `plan` is the pure rule building, `rules` the table's design, `table` the difference to
//! what the kernel has, `proxy` the part that watches and commits.

pub mod model;
pub mod plan;
pub mod proxy;
pub mod rules;
pub mod table;
