//! Thousands of power cuts at seeded places, against a model: what is found afterwards is the outcome of all durable and
//! lazy transactions up to some point, and that point is not before the last acknowledged durable one.
//!
//! There is no thread and no clock here: a seed gives the same writes, the same flushes and the same cuts every time.
//! A cut counts when something was written and not flushed, and where it fell is counted too. Writes that were not flushed
//! are torn, dropped, doubled and reordered. `MOTE_STORE_CUTS` says how many cuts, and `MOTE_STORE_SEED` with which seed they
//! begin; `./dev power` runs 100,000.
use crate::support::{Commit, Faulty, Random, SIZES};
use futures_lite::future::{block_on, poll_once};
use mote_store::{
    Apart, Class, Key, Part, Revision, Sizes, Snapshot, Store, Transaction, Value, Write, Writer, entries,
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
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
        if random.below(6) == 0 {
            // Who commits flushes himself.
            writer.lead();
            good &= settle(&mut waiting, model);
        }
        if random.below(3) == 0 {
            while random.below(8) > 0 && writer.step().is_ok_and(|more| more) {}
            good &= settle(&mut waiting, model);
        }
        if !good {
            return;
        }
    }
}

/// Where the power went, counted.
type Places = BTreeMap<&'static str, u64>;

/// What has to be hit, and how many of a hundred cuts at least.
const HIT: [(&str, u64); 5] =
    [("journal", 10), ("round", 10), ("file written anew", 3), ("recovery", 10), ("backup put back", 3)];

/// Sees to it that what lies there is what may; the store goes on from there.
fn check(storage: &Faulty, model: &Model, what: &str) -> (Store, Writer, State) {
    let opened = storage.open_by_hand();
    let (store, writer) = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
    let state = found(&store.snapshot());
    assert!(store.damaged().is_empty(), "{what}: {:?} was damaged by nothing", store.damaged());
    assert!(model.agree(&state).is_some(), "{what}: this was never so: {:?}", state.keys());
    assert!(store.revision() >= model.newest, "{what}: revisions go back");
    (store, writer, state)
}

/// A new store from a backup, on a disk of its own. None: the power went before it was there.
fn put_back(store: &Store, random: &mut Random, places: &mut Places, what: &str) -> Option<Faulty> {
    let (mut chunks, reserved) = (Vec::new(), store.revision() + 1);
    let take = &mut |chunk: &[u8]| {
        chunks.push(chunk.to_vec());
        Ok(())
    };
    store.backup().write(take).expect("nothing is written");
    let target = Faulty::default();
    target.medium().random = Random::new(random.below(1 << 30));
    target.medium().fuel = Some(random.below(24));
    let created = mote_store::create_in(&target, reserved, &mut chunks.iter().flat_map(|chunk| entries(chunk)));
    let cut = target.medium().dark;
    assert!(cut || created.is_ok(), "{what}: {created:?}");
    if cut && target.medium().is_unsettled() {
        *places.entry("backup put back").or_default() += 1;
    }
    target.medium().power_cycle(random);
    // Of one that was cut nobody is told; it is not there, or whole.
    let (back, _) = target.open_by_hand().unwrap_or_else(|error| panic!("{what}: {error}"));
    let state = found(&back.snapshot());
    let persistent: State = chunks
        .iter()
        .flat_map(|chunk| entries(chunk))
        .map(|entry| entry.expect("as written"))
        .map(|entry| (entry.key, entry.value))
        .collect();
    assert!(state == persistent || created.is_err() && state.is_empty(), "{what}: what is put back is another state");
    assert!(back.damaged().is_empty() && (created.is_err() || back.revision() >= reserved), "{what}");
    created.is_ok().then_some(target)
}

/// Slices are written between two flushes, or some flushes after they were begun.
fn apart(random: &mut Random) -> Apart {
    match random.below(2) {
        0 => Apart::Never,
        _ => Apart::Later(1 + random.below(6) as u32),
    }
}

/// Lives through a number of power cuts; returns where they were, and how many other disks they might have left.
fn live(seed: u64) -> (Places, u64) {
    let (mut storage, mut random) = (Faulty::default(), Random::new(seed));
    let (mut model, mut places, mut images) = (Model::default(), Places::new(), 0);
    for cut in 0..CUTS_A_STORE {
        let what = format!("seed {seed}, cut {cut}");
        if cut == 0 {
            // In what makes a store.
            storage.medium().fuel = Some(random.below(20));
            let opened = storage.open_by_hand();
            assert!(opened.is_ok() || storage.medium().dark, "{what}");
            drop(opened);
            storage.medium().power_cycle(&mut random);
        }
        let (mut store, mut writer, state) = check(&storage, &model, &what);
        model = Model { base: state, before: store.revision(), newest: store.revision(), ..Model::default() };
        if random.below(12) == 0
            && let Some(target) = put_back(&store, &mut random, &mut places, &what)
        {
            drop((store, writer));
            storage = target;
            let (again, hand, state) = check(&storage, &model, &what);
            model = Model { base: state, before: again.revision(), newest: again.revision(), ..Model::default() };
            (store, writer) = (again, hand);
        }
        let recovering = random.below(3) == 0;
        // Most cuts hit the writes of a round or a flush of many.
        let most = if random.below(4) == 0 || recovering { 20 } else { 160 };
        storage.medium().random = Random::new(random.below(1 << 30));
        storage.medium().fuel = Some(random.below(most));
        writer.apart = apart(&mut random);
        if recovering {
            // The database is repaired, and brought up to date from the journal.
            let closed = writer.close();
            assert!(closed.is_ok() || storage.medium().dark, "{what}: {closed:?}");
        }
        let recovering = storage.medium().dark;
        if !recovering {
            run(&store, &mut writer, &mut model, &mut random);
        }
        if random.below(16) == 0 {
            // Stopped, not cut: nothing is lost, lazy or not.
            while writer.step().is_ok_and(|more| more) {}
            if !storage.medium().dark {
                model.safe = model.done.len();
            }
        }
        drop((store, writer));
        if storage.medium().is_unsettled() {
            let (dark, cut_at) = storage.medium().went_dark();
            let place = match cut_at {
                _ if recovering => "recovery",
                _ if !dark => "between writes",
                Some((Part::Journal, false)) => "journal",
                Some((Part::Journal, true)) => "new journal",
                Some((Part::Database, false)) => "round",
                Some((Part::Database, true)) => "file written anew",
                None => "space held back",
            };
            *places.entry(place).or_default() += 1;
            if random.below(2) == 0 {
                let image = storage.image(&mut random);
                let (store, mut writer, state) = check(&image, &model, &what);
                writer.close().unwrap_or_else(|error| panic!("{what}: {error}"));
                drop((store, writer));
                let recovered = Model { base: state, ..Model::default() };
                drop(check(&image, &recovered, &what));
                images += 1;
            }
        }
        storage.medium().power_cycle(&mut random);
    }
    (places, images)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn a_power_cut_leaves_a_prefix() {
    let (cuts, first) = (number("MOTE_STORE_CUTS", CUTS), number("MOTE_STORE_SEED", 0));
    let (done, seed) = (Mutex::new((Places::new(), 0)), AtomicU64::new(first));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                // One that panicked has said why.
                while done.lock().is_ok_and(|done| done.0.values().sum::<u64>() < cuts) {
                    let (places, images) = live(seed.fetch_add(1, Ordering::Relaxed));
                    let mut done = done.lock().expect("nobody panics while counting");
                    places.into_iter().for_each(|(place, count)| *done.0.entry(place).or_default() += count);
                    done.1 += images;
                }
            });
        }
    });
    let (places, images) = done.into_inner().expect("nobody panics while counting");
    let cuts: u64 = places.values().sum();
    eprintln!("{cuts} cuts in the middle of writes, {images} more disks they might have left: {places:?}");
    for (place, least) in HIT {
        let hit = places.get(place).copied().unwrap_or_default();
        assert!(hit * 100 >= cuts * least, "only {hit} of {cuts} cuts were in: {place}");
    }
}

/// A disk that fails again and again, and then is cut: what was refused is not seen, what was acknowledged is there, and
/// the store goes on by itself.
fn fail(seed: u64) {
    let (storage, mut random) = (Faulty::default(), Random::new(seed));
    // In a small one there is soon no place left but those where something has failed.
    let sizes = if seed.is_multiple_of(2) { SIZES } else { Sizes { journal_bytes: 64 * 1024, ..SIZES } };
    let open = || storage.open_sized(sizes).expect("it opens by itself");
    drop(open());
    let mut state = State::new();
    for cut in 0..10 {
        let (store, mut writer) = open();
        writer.apart = apart(&mut random);
        storage.medium().random = Random::new(random.below(1 << 30));
        storage.medium().error_every = Some(2 + random.below(40));
        storage.medium().database_fails = sizes.journal_bytes < SIZES.journal_bytes && random.below(8) > 0;
        // What may be found: what was seen since something lasted, and what was refused and is on disk all the same.
        let mut allowed = vec![state.clone()];
        for _ in 0..random.below(200) {
            let mut transaction = transaction(&mut random);
            transaction.class = if random.below(2) == 0 { Class::Lazy } else { Class::Durable };
            let (durable, mut next) = (transaction.class == Class::Durable, state.clone());
            apply(&mut next, &transaction.writes);
            let flushes = store.stats().flushes;
            let mut commit: Commit<'_> = Box::pin(store.commit(transaction));
            let outcome = loop {
                match block_on(poll_once(&mut commit)) {
                    Some(outcome) => break outcome,
                    None => drop(writer.step()),
                }
            };
            match outcome {
                // One that changes nothing needs no flush, and leaves open what was refused before it.
                Ok(_) if durable && store.stats().flushes > flushes => (state, allowed) = (next.clone(), vec![next]),
                Ok(_) => {
                    state = next.clone();
                    allowed.push(next);
                }
                Err(_) => allowed.push(next),
            }
            assert!(found(&store.snapshot()) == state, "seed {seed}, cut {cut}: not what was acknowledged is seen");
        }
        (storage.medium().error_every, storage.medium().database_fails) = (None, false);
        drop((store, writer));
        storage.medium().power_cycle(&mut random);
        let (store, mut writer) = open();
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
    let first = number("MOTE_STORE_SEED", 0);
    // The last one lost a value once.
    (first..first + number("MOTE_STORE_CUTS", CUTS) / 250).chain([314]).for_each(fail);
}

/// The same with the store's own threads, one of which flushes while the other writes the database: where the power goes is
/// chosen, and what the two do until then is theirs.
#[test]
fn a_power_cut_while_two_threads_write() {
    let (storage, mut random) = (Faulty::default(), Random::new(number("MOTE_STORE_SEED", 0)));
    let mut acknowledged = BTreeMap::<String, Vec<u8>>::new();
    let mut rounds = 0;
    for cut in 0..20 {
        let store = storage.open().expect("it opens by itself");
        storage.medium().random = Random::new(random.below(1 << 30));
        storage.medium().fuel = Some(random.below(3000));
        let mut doubt = None;
        for n in 0u64.. {
            let (key, mut value) =
                (format!("pods/{}", random.below(60)), vec![cut as u8; 4000 + random.below(4000) as usize]);
            value[..8].copy_from_slice(&n.to_le_bytes());
            let writes = vec![Write::Put(key.as_str().into(), value.clone().into())];
            let commit = store.commit(Transaction { class: Class::Durable, preconditions: Vec::new(), writes });
            if block_on(commit).is_err() {
                doubt = Some((key, value));
                break;
            }
            acknowledged.insert(key, value);
        }
        rounds += store.stats().rounds;
        drop(store);
        storage.medium().power_cycle(&mut random);
        let store = storage.open().expect("it opens by itself");
        let found: BTreeMap<_, _> =
            found(&store.snapshot()).into_iter().map(|(key, value)| (key.to_string(), value.to_vec())).collect();
        let mut done = acknowledged.clone();
        done.extend(doubt);
        assert!(found == acknowledged || found == done, "cut {cut}: this was never so");
        assert!(store.damaged().is_empty(), "cut {cut}: {:?}", store.damaged());
        acknowledged = found;
    }
    assert!(rounds > 20, "{rounds} rounds");
}
