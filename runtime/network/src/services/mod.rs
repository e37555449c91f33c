//! The service proxy: from Services and EndpointSlices to one nftables table.
//!
//! `model` reads objects, `plan` is the pure rule building, `rules` the table's design, `table` the difference to
//! what the kernel has, `proxy` the part that watches and commits.

pub mod model;
pub mod plan;
pub mod proxy;
pub mod rules;
pub mod table;

use mote_cni::netlink::{Protocol, Socket, nft::FAMILY_IPV4};

/// Also those of an earlier process.
pub fn remove_rules() -> Result<(), mote_cni::Error> {
    Socket::open(Protocol::Netfilter)?.remove_table(FAMILY_IPV4, rules::TABLE)?;
    Ok(())
}
