//! Hundreds of power cuts at seeded places, against a model: what is found afterwards is the outcome of all durable and
//! lazy transactions up to some point, and that point is not before the last acknowledged durable one.
use crate::support::{Commit, Faulty, Random, dump};
use futures_lite::future::{block_on, poll_once};
use mote_store::{Class, Store, Transaction, Write};
use std::collections::BTreeMap;

const SEEDS: u64 = 60;
const CUTS: u64 = 6;

#[derive(Default)]
struct Model {
    /// What the disk may hold: after each transaction in the order submitted.
    states: Vec<BTreeMap<String, String>>,
    /// Index of the state of the last acknowledged durable commit.
    safe: usize,
    newest_revision: u64,
}

impl Model {
    fn new(found: Vec<String>, newest_revision: u64) -> Model {
        let pair = |line: String| line.split_once('=').map(|(key, value)| (key.into(), value.into()));
        Model { states: vec![found.into_iter().filter_map(pair).collect()], safe: 0, newest_revision }
    }

    fn submit(&mut self, transaction: &Transaction) -> usize {
        let mut state = self.states.last().cloned().unwrap_or_default();
        if transaction.class != Class::Volatile {
            for write in &transaction.writes {
                match write {
                    Write::Put(key, value) => {
                        state.insert(key.to_string(), String::from_utf8_lossy(value).into_owned());
                    }
                    Write::Delete(key) => {
                        state.remove(&**key);
                    }
                }
            }
        }
        self.states.push(state);
        self.states.len() - 1
    }

    fn allows(&self, found: &[String]) -> bool {
        let lines =
            |state: &BTreeMap<String, String>| state.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        self.states[self.safe..].iter().any(|state| lines(state) == found)
    }
}

fn transaction(random: &mut Random, number: &mut u64) -> Transaction {
    let class = match random.below(4) {
        0 => Class::Volatile,
        1 | 2 => Class::Lazy,
        _ => Class::Durable,
    };
    let writes = (0..1 + random.below(3)).map(|_| {
        // Volatile keys are their own, so that what is read while running is what the model says.
        let key = format!("{class:?}/{}", random.below(12)).replace("Lazy", "Durable");
        *number += 1;
        match random.below(4) {
            0 => Write::Delete(key.into()),
            _ => Write::Put(key.into(), format!("{number:0$}", 1 + random.below(600) as usize).into_bytes().into()),
        }
    });
    let writes = writes.collect();
    Transaction { class, preconditions: Vec::new(), writes }
}

/// Commits in groups until something fails or there were enough.
fn run(store: &Store, model: &mut Model, random: &mut Random, number: &mut u64) {
    for _ in 0..random.below(40) {
        let mut group: Vec<(usize, bool, Commit<'_>)> = Vec::new();
        for _ in 0..1 + random.below(4) {
            let transaction = transaction(random, number);
            let (state, durable) = (model.submit(&transaction), transaction.class == Class::Durable);
            let mut commit: Commit<'_> = Box::pin(store.commit(transaction));
            match block_on(poll_once(&mut commit)) {
                None => group.push((state, durable, commit)),
                Some(Ok(revision)) => model.newest_revision = model.newest_revision.max(revision),
                Some(Err(_)) => return,
            }
        }
        let mut failed = false;
        for (state, durable, commit) in group {
            match block_on(commit) {
                Ok(revision) => {
                    model.newest_revision = model.newest_revision.max(revision);
                    if durable {
                        model.safe = model.safe.max(state);
                    }
                }
                Err(_) => failed = true,
            }
        }
        if failed {
            return;
        }
    }
}

#[test]
fn a_power_cut_leaves_a_prefix() {
    let mut cuts = 0;
    for seed in 0..SEEDS {
        let (storage, mut random, mut number) = (Faulty::default(), Random::new(seed), 0);
        let mut model = Model::new(Vec::new(), 1);
        for cut in 0..CUTS {
            storage.medium().fuel = Some(random.below(400));
            if let Ok(store) = storage.open() {
                let found = dump(&store.snapshot());
                assert!(model.allows(&found), "seed {seed}, cut {cut}: {found:#?} is no prefix");
                assert!(store.revision() >= model.newest_revision, "seed {seed}, cut {cut}: a revision came twice");
                model = Model::new(found, model.newest_revision);
                run(&store, &mut model, &mut random, &mut number);
                if random.below(2) == 0 {
                    storage.medium().dark = true;
                }
            }
            cuts += usize::from(storage.medium().dark);
            storage.medium().power_cycle(&mut random);
        }
        let store = storage.open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let found = dump(&store.snapshot());
        assert!(model.allows(&found), "seed {seed}: {found:#?} is no prefix");
    }
    assert!(cuts >= 200, "{cuts} cuts");
}
