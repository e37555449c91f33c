//! One program for every fuzz target: libFuzzer's, with the target named by MOTE_FUZZ_TARGET. `./dev fuzz` builds and runs it.
//!
//! A target takes bytes from outside to the code that reads them and checks what must hold; what it finds becomes a test case
//! beside that code. Where bytes by chance say little there are seeds: the files that MOTE_FUZZ_SEEDS is made to hold.
#![no_main]

mod schema; // trees, selectors, patches, definitions
mod wire; // HTTP, tokens, certificates, DNS, netlink, gRPC, CEL

use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::OnceLock;

type Target = fn(&[u8]);
type Seeds = fn() -> Vec<Vec<u8>>;

/// What a target begins with.
const SEEDS: [(&str, Seeds); 2] = [("cel", wire::recorded_expressions), ("object", schema::recorded_objects)];

const TARGETS: [(&str, Target); 19] = [
    ("json", schema::json),
    ("yaml", schema::yaml),
    ("doc", schema::doc),
    ("protobuf", schema::protobuf),
    ("object", schema::object),
    ("patch", schema::patch),
    ("apply", schema::apply),
    ("definition", schema::definition),
    ("label-selector", schema::label_selector),
    ("field-selector", schema::field_selector),
    ("quantity", schema::quantity),
    ("cel", wire::cel),
    ("http", wire::http),
    ("token", wire::token),
    ("certificate", wire::certificate),
    ("policy", wire::policy),
    ("dns", wire::dns),
    ("netlink", wire::netlink),
    ("runtime", wire::runtime),
];

fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let name = std::env::var("MOTE_FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|(known, _)| *known == name);
        let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        found.unwrap_or_else(|| panic!("MOTE_FUZZ_TARGET is one of {}", names.join(", "))).1
    })
}

/// Writes the target's seeds where it is told to, by number: written again they are the same.
fn seed() {
    let (Ok(name), Ok(directory)) = (std::env::var("MOTE_FUZZ_TARGET"), std::env::var("MOTE_FUZZ_SEEDS")) else {
        return;
    };
    let Some((_, seeds)) = SEEDS.iter().find(|(known, _)| *known == name) else { return };
    for (number, seed) in seeds().into_iter().enumerate() {
        std::fs::write(format!("{directory}/{number}"), seed).expect("a seed can be written");
    }
}

fuzz_target!(init: seed(), |data: &[u8]| -> Corpus {
    target()(data);
    Corpus::Keep
});
