//! Thousands of power cuts at seeded places, against a model: what is found afterwards is the outcome of all durable and
//! lazy transactions up to some point, and that point is not before the last acknowledged durable one.
//!
//! There is no thread and no clock here: a seed gives the same writes, the same flushes and the same cuts every time.
//! `MOTE_STORE_CUTS` says how many cuts, and `MOTE_STORE_SEED` with which seed they begin.
use crate::support::{Commit, Faulty, Random};
use futures_lite::future::{block_on, poll_once};
use mote_store::{Class, Key, Revision, Snapshot, Store, Transaction, Value, Write, Writer};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

const CUTS: u64 = 10_000;
/// Cuts that one store lives through.
const CUTS_A_STORE: u64 = 25;

type State = BTreeMap<Key, Value>;

#[derive(Default)]
struct Model {
    /// What the disk held when it was found the last time.
    base: State,
    /// What was done to it since, by transactions of the classes that last, in the order submitted.
    done: Vec<Vec<Write>>,
    /// So many of them were promised to last.
    safe: usize,
    newest: Revision,
    /// All revisions are above this one.
    before: Revision,
}

fn apply(state: &mut State, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(key, value) => drop(state.insert(key.clone(), value.clone())),
            Write::Delete(key) => drop(state.remove(key)),
        }
    }
}

fn found(snapshot: &Snapshot) -> State {
    snapshot.range("", None).map(|entry| (entry.key, entry.value)).collect()
}

impl Model {
    /// Returns how many of the transactions are there; None: what is there was never so.
    fn agree(&self, found: &State) -> Option<usize> {
        let mut state = self.base.clone();
        self.done[..self.safe].iter().for_each(|writes| apply(&mut state, writes));
        let mut count = self.safe;
        loop {
            if state == *found {
                return Some(count);
            }
            apply(&mut state, self.done.get(count)?);
            count += 1;
        }
    }
}

/// The mix of a node: objects are created, their status is reported again and again, they are deleted.
fn transaction(random: &mut Random) -> Transaction {
    let class = match random.below(8) {
        0 => Class::Volatile,
        1..5 => Class::Lazy,
        _ => Class::Durable,
    };
    let writes = (0..1 + random.below(8) / 5).map(|_| {
        // Volatile keys are their own, so that what is read while running is what the model says.
        let prefix = if class == Class::Volatile { "leases" } else { "pods" };
        let key: Key = format!("{prefix}/{}", random.below(40)).into();
        let bytes = match random.below(50) {
            0..8 => return Write::Delete(key),
            // Larger than a segment.
            8 => random.below(200_000),
            10..20 => random.below(20_000),
            _ => random.below(2000),
        };
        // Distinct, and cheap.
        let mut value = vec![random.below(256) as u8; bytes as usize + 8];
        value[..8].copy_from_slice(&random.below(1 << 31).to_le_bytes());
        Write::Put(key, value.into())
    });
    Transaction { class, preconditions: Vec::new(), writes: writes.collect() }
}

type Waiting<'a> = Vec<(usize, Commit<'a>)>;

/// Takes note of what became of commits. False: one failed.
fn settle(waiting: &mut Waiting<'_>, model: &mut Model) -> bool {
    let mut good = true;
    waiting.retain_mut(|(place, commit)| match block_on(poll_once(commit.as_mut())) {
        None => true,
        Some(Ok(revision)) => {
            assert!(revision > model.before, "revision {revision} came twice");
            model.newest = model.newest.max(revision);
            // Behind one that failed only what changes nothing succeeds, and that says nothing of what is before it.
            if good {
                model.safe = model.safe.max(*place);
            }
            false
        }
        Some(Err(_)) => {
            good = false;
            false
        }
    });
    good
}

/// Commits, and flushes now and then, until the power goes or there were enough.
fn run(store: &Store, writer: &mut Writer, model: &mut Model, random: &mut Random) {
    let mut waiting = Waiting::new();
    for _ in 0..random.below(150) {
        let transaction = transaction(random);
        let durable = transaction.class == Class::Durable;
        if transaction.class != Class::Volatile {
            model.done.push(transaction.writes.clone());
        }
        // An acknowledged lazy one may be lost all the same.
        let place = if durable { model.done.len() } else { 0 };
        waiting.push((place, Box::pin(store.commit(transaction))));
        let mut good = settle(&mut waiting, model);
        if random.below(3) == 0 {
            while random.below(8) > 0 && writer.step().is_ok_and(|more| more) {}
            good &= settle(&mut waiting, model);
        }
        if !good {
            return;
        }
    }
}

/// Lives through a number of power cuts; returns how many.
fn live(seed: u64) -> u64 {
    let (storage, mut random) = (Faulty::default(), Random::new(seed));
    let (mut model, mut cuts) = (Model::default(), 0);
    for cut in 0..CUTS_A_STORE {
        // Most cuts hit the writes of a start, a sweep or a flush of many; some find the node asleep.
        let most = if random.below(4) == 0 { 12 } else { 160 };
        storage.medium().fuel = Some(random.below(most));
        let opened = storage.open_by_hand();
        if let Err(error) = &opened {
            assert!(storage.medium().dark, "seed {seed}, cut {cut}: {error}");
        }
        if let Ok((store, mut writer)) = opened {
            let snapshot = store.snapshot();
            let state = found(&snapshot);
            assert!(store.damaged().is_empty(), "seed {seed}, cut {cut}: {:?} was damaged by nothing", store.damaged());
            assert!(model.agree(&state).is_some(), "seed {seed}, cut {cut}: this was never so: {:?}", state.keys());
            assert!(store.revision() >= model.newest, "seed {seed}, cut {cut}: revisions go back");
            model = Model { base: state, before: store.revision(), newest: store.revision(), ..Model::default() };
            run(&store, &mut writer, &mut model, &mut random);
            if random.below(16) == 0 {
                // Stopped, not cut: nothing is lost, lazy or not.
                while writer.step().is_ok_and(|more| more) {}
                if !storage.medium().dark {
                    model.safe = model.done.len();
                }
            }
        }
        cuts += 1;
        storage.medium().power_cycle(&mut random);
    }
    cuts
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_power_cut_leaves_a_prefix() {
    let (cuts, first) = (number("MOTE_STORE_CUTS", CUTS), number("MOTE_STORE_SEED", 0));
    let (done, seed) = (AtomicU64::new(0), AtomicU64::new(first));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) < cuts {
                    done.fetch_add(live(seed.fetch_add(1, Ordering::Relaxed)), Ordering::Relaxed);
                }
            });
        }
    });
    assert!(done.into_inner() >= cuts);
}

/// A disk that fails again and again, and then is cut: what was refused is not seen, what was acknowledged is there, and
/// the store goes on by itself.
fn fail(seed: u64) {
    let (storage, mut random) = (Faulty::default(), Random::new(seed));
    drop(storage.open_by_hand().expect("nothing was wrong yet"));
    let mut state = State::new();
    for cut in 0..10 {
        let (store, mut writer) = storage.open_by_hand().expect("it opens by itself");
        storage.medium().random = Random::new(random.below(1 << 30));
        storage.medium().error_every = Some(2 + random.below(40));
        // What may be found: what was seen since something lasted, and what was refused and is on disk all the same.
        let mut allowed = vec![state.clone()];
        for _ in 0..random.below(200) {
            let mut transaction = transaction(&mut random);
            transaction.class = if random.below(2) == 0 { Class::Lazy } else { Class::Durable };
            let (durable, mut next) = (transaction.class == Class::Durable, state.clone());
            apply(&mut next, &transaction.writes);
            let mut commit: Commit<'_> = Box::pin(store.commit(transaction));
            let outcome = loop {
                match block_on(poll_once(&mut commit)) {
                    Some(outcome) => break outcome,
                    None => drop(writer.step()),
                }
            };
            match outcome {
                Ok(_) if durable => (state, allowed) = (next.clone(), vec![next]),
                Ok(_) => {
                    state = next.clone();
                    allowed.push(next);
                }
                Err(_) => allowed.push(next),
            }
            assert!(found(&store.snapshot()) == state, "seed {seed}, cut {cut}: not what was acknowledged is seen");
        }
        storage.medium().error_every = None;
        drop((store, writer));
        storage.medium().power_cycle(&mut random);
        let (store, mut writer) = storage.open_by_hand().expect("it opens by itself");
        let now = found(&store.snapshot());
        assert!(allowed.contains(&now), "seed {seed}, cut {cut}: this was never so");
        state = now;
        if random.below(2) == 0 {
            writer.close().expect("nothing is wrong any more");
        }
    }
}

#[test]
fn a_disk_that_fails_loses_nothing_and_ends_nothing() {
    for seed in 0..number("MOTE_STORE_CUTS", CUTS) / 250 {
        fail(seed);
    }
}
