//! Puts symbols on crates. A Rust name starts with the crate that wrote the code, or with the type an impl is for; a
//! name without a path is C or assembler, which is ring's and the C library's.
use crate::elf::Symbol;
use std::collections::BTreeMap;

pub const C: &str = "ring and C";

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Share {
    pub code_bytes: u64,
    pub data_bytes: u64,
}

pub fn by_crate(symbols: &[Symbol]) -> BTreeMap<String, Share> {
    let mut shares: BTreeMap<String, Share> = BTreeMap::new();
    for symbol in symbols {
        let share = shares.entry(crate_of(&symbol.name)).or_default();
        if symbol.code {
            share.code_bytes += symbol.bytes;
        } else {
            share.data_bytes += symbol.bytes;
        }
    }
    shares
}

/// As a person reads it, without hashes.
pub fn readable(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

fn crate_of(name: &str) -> String {
    let readable = readable(name);
    if !readable.contains("::") {
        return C.to_owned();
    }
    // "<&mut T as core::fmt::Debug>::fmt" is the crate of T, or of the trait where T has none.
    paths(&readable).next().unwrap_or(C).to_owned()
}

/// The first word of every path with "::" in it.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$' || c == '.';
    text.split(move |c| !word(c)).filter_map(|path| {
        let (first, rest) = path.split_once("::")?;
        (!first.is_empty() && !rest.is_empty()).then_some(first)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_crate() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            assert_eq!(crate_of(name), expected);
        }
        check("_ZN8mote_api4http5serve17h0123456789abcdefE", "mote_api");
        check("_ZN56_$LT$mote_store..Error$u20$as$u20$core..fmt..Display$GT$3fmt17h0123456789abcdefE", "mote_store");
        check("_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE", "core");
        check("_RNvCskwGfYPst2Cb_7mycrate7example", "mycrate");
        check("ring_core_0_17_14__aes_hw_encrypt", C);
        check("memcpy", C);
    }
}
