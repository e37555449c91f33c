//! What things cost in memory, held: an object, a watcher, a connection, a large definition. Counts of the kernel's, with the API
//! server alone and a process of its own for each figure, so they are stable on a busy machine; each is printed. How they are
//! measured is in `src/cost.rs`, what they may be in size-report/SPECIFICATION.md.
use mote_size_report::budget::Specification;
use mote_tests::cost::MEMORY;

#[track_caller]
fn check(words: &str) {
    let (what, measure) = MEMORY.iter().find(|(what, _)| what.starts_with(words)).expect("it is measured");
    let (measured, at_most) = (measure(), Specification::embedded().cost(what));
    println!("{what}: {measured} bytes, at most {at_most}");
    assert!(measured <= at_most, "{what}: {measured} bytes, over {at_most}");
}

#[test]
fn an_object_costs_little_more_than_its_bytes() {
    check("an object");
}

#[test]
fn a_watcher_costs_little() {
    check("a watcher");
}

#[test]
fn a_connection_costs_little() {
    check("a TLS connection");
}

#[test]
fn a_large_definition_costs_its_bytes() {
    check("a definition");
}
