//! What the files may take, and what stands in the way of a flush, held by counts: nothing here looks at a clock.
//! `MOTE_STORE_UPDATES` says how many updates; `./dev power` makes a million.
use crate::support::{Commit, Faulty, Random, SIZES, delete, put};
use futures_lite::future::{block_on, poll_once};
use mote_store::{Apart, Class, Store, Transaction, Writer};

const UPDATES: u64 = 50_000;
const OBJECTS: u64 = 1000;
/// Times what is live, which the database may take at any moment.
const FILE_TIMES: u64 = 3;
/// A commit waits behind one slice of a round at most: so many bytes take a slow card (2 MB a second) no longer than half a
/// second with its flush, and eMMC or SSDs less than 50 ms. However much there is to do, a slice stays as small.
const STEP_LIMIT_BYTES: u64 = 1200 << 10;

/// A store whose writer is held by hand, and the largest step and file that were seen.
struct Driven {
    storage: Faulty,
    store: Store,
    writer: Writer,
    steps: u64,
    largest_step_bytes: u64,
    largest_file_bytes: u64,
}

impl Driven {
    fn new(apart: Apart) -> Driven {
        let storage = Faulty::default();
        let (store, mut writer) = storage.open_by_hand().unwrap();
        writer.apart = apart;
        Driven { storage, store, writer, steps: 0, largest_step_bytes: 0, largest_file_bytes: 0 }
    }

    /// All of them in one flush.
    fn commit(&mut self, transactions: impl Iterator<Item = Transaction>) {
        let mut waiting: Vec<Commit<'_>> = Vec::new();
        for transaction in transactions {
            let mut commit: Commit<'_> = Box::pin(self.store.commit(transaction));
            if block_on(poll_once(&mut commit)).is_none() {
                waiting.push(commit);
            }
        }
        for mut commit in waiting {
            while block_on(poll_once(&mut commit)).is_none() {
                let before = self.storage.medium().written;
                self.writer.step().unwrap();
                self.steps += 1;
                self.largest_step_bytes = self.largest_step_bytes.max(self.storage.medium().written - before);
            }
        }
        self.largest_file_bytes = self.largest_file_bytes.max(self.store.stats().file_bytes);
    }

    fn told(&self, what: &str) {
        let stats = self.store.stats();
        eprintln!(
            "{what}: live {} kB, database {} kB (at most {}), journal {} kB; {} steps, the largest {} kB; {} rounds, {} bytes written",
            stats.live_bytes / 1000,
            stats.file_bytes / 1000,
            self.largest_file_bytes / 1000,
            stats.journal_bytes / 1000,
            self.steps,
            self.largest_step_bytes / 1000,
            stats.rounds,
            stats.written_bytes
        );
    }
}

fn updates() -> u64 {
    std::env::var("MOTE_STORE_UPDATES").ok().and_then(|text| text.parse().ok()).unwrap_or(UPDATES)
}

#[test]
fn updates_and_churn_leave_no_growth() {
    let mut driven = Driven::new(Apart::Later(2));
    let (mut random, updates) = (Random::new(3), updates());
    let object = |random: &mut Random| {
        let (key, bytes) = (format!("pods/{}", random.below(OBJECTS)), 1000 + random.below(1000) as usize);
        (key, "x".repeat(bytes))
    };
    let mut after_half = 0;
    for n in 0..updates / 16 {
        driven.commit((0..16).map(|_| {
            let (key, value) = object(&mut random);
            // One in sixteen goes, and comes back with a later update.
            if random.below(16) == 0 { delete(Class::Durable, &key) } else { put(Class::Durable, &key, &value) }
        }));
        if n == updates / 32 {
            after_half = driven.largest_file_bytes;
        }
    }
    driven.told("updates");
    let stats = driven.store.stats();
    let limit = stats.live_bytes as u64 * FILE_TIMES;
    assert!(stats.rounds > 10 && stats.live_bytes > 1_000_000, "{stats:?}");
    assert!(driven.largest_file_bytes <= limit, "{} bytes for {} live", driven.largest_file_bytes, stats.live_bytes);
    assert!(driven.largest_file_bytes <= after_half + after_half / 4, "it grows: {after_half} before");
    assert!(driven.largest_step_bytes <= STEP_LIMIT_BYTES, "{} bytes in one step", driven.largest_step_bytes);
}

#[test]
fn what_is_deleted_is_given_back_to_the_file_system() {
    let mut driven = Driven::new(Apart::Never);
    let value = "x".repeat(2000);
    for n in 0..500u64 {
        driven.commit((0..16).map(|at| put(Class::Durable, &format!("pods/{}", n * 16 + at), &value)));
    }
    let full = driven.store.stats().file_bytes;
    assert!(full > 16_000_000, "{full}");
    for n in 0..490u64 {
        driven.commit((0..16).map(|at| delete(Class::Durable, &format!("pods/{}", n * 16 + at))));
    }
    // A round comes with the next writes; what is deleted asks for none.
    for n in 0..400 {
        driven.commit(std::iter::once(put(Class::Durable, "pods/last", &n.to_string())));
    }
    driven.told("deleted");
    let stats = driven.store.stats();
    assert!(stats.file_bytes < 2_500_000, "{} bytes of {full} for {} live", stats.file_bytes, stats.live_bytes);
    assert!(stats.journal_bytes <= 1 << 20, "{} bytes of journal", stats.journal_bytes);
}

#[test]
fn no_slice_of_a_round_or_of_a_file_written_anew_is_large() {
    for apart in [Apart::Never, Apart::Later(3)] {
        let (mut driven, mut random) = (Driven::new(apart), Random::new(7));
        for i in 0..6000 {
            let key = format!("pods/{}", random.below(3000));
            driven.commit(std::iter::once(put(Class::Durable, &key, &"x".repeat(500 + i % 700))));
        }
        driven.told("slices");
        assert!(driven.store.stats().rounds > 20, "{}", driven.store.stats().rounds);
        assert!(driven.largest_step_bytes <= STEP_LIMIT_BYTES, "{} bytes in one step", driven.largest_step_bytes);
    }
}

/// With a database that is never done unless somebody waits for it.
#[test]
fn a_flush_waits_for_the_database_only_when_the_journal_has_grown() {
    let journal = |free_bytes: Option<usize>| {
        let mut driven = Driven::new(Apart::Later(u32::MAX));
        let size = driven.storage.medium().size();
        driven.storage.medium().capacity = free_bytes.map(|free| size + free);
        let commit = |driven: &mut Driven, n: usize| {
            driven.commit(std::iter::once(put(Class::Durable, &format!("pods/{n}"), &"x".repeat(2000))));
        };
        let (mut most, mut n) = (0, 0);
        while driven.store.stats().rounds == 0 {
            commit(&mut driven, n);
            n += 1;
            most = most.max(driven.store.stats().journal_bytes as usize);
        }
        driven.writer.apart = Apart::Never;
        (0..400).for_each(|n| commit(&mut driven, n));
        assert_eq!(driven.store.stats().journal_bytes as usize, SIZES.journal_bytes, "and it is given back");
        most
    };
    assert_eq!(journal(None), 4 * SIZES.journal_bytes);
    assert_eq!(journal(Some(8 << 20)), SIZES.journal_bytes, "where there is little room");
}
