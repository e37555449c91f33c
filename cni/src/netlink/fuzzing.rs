//! Entries for the fuzz targets (`fuzz/`) to the parsers of the kernel's answers: compiled only for them (`--cfg fuzzing`).
use super::{address, conntrack, link, message::Attrs, nft, parse_error};

pub fn answer(payload: &[u8]) {
    drop(link::parse(payload));
    drop(address::parse_route(payload));
    drop(conntrack::parse(payload));
    drop(nft::parse_data(Attrs::new(payload)));
    drop(parse_error(0x200, payload));
}
