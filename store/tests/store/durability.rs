//! What reaches the disk, when, and what happens when it does not.
use crate::support::{Commit, Faulty, commit, delete, dump, given, options, put};
use Class::{Durable, Lazy, Volatile};
use futures_lite::future::{block_on, poll_once};
use mote_store::{Class, Error, Options, Precondition, Store};
use redb::TableDefinition;
use std::{path::PathBuf, sync::Arc, time::Duration};

/// A store with its numbers reserved: only durable commits flush from here.
fn started() -> (Faulty, Store) {
    let storage = Faulty::default();
    let store = storage.open().unwrap();
    commit(&store, put(Durable, "start", "")).unwrap();
    (storage, store)
}

fn after_crash(storage: &Faulty, store: Store) -> Vec<String> {
    storage.medium().dark = true;
    drop(store);
    storage.medium().power_cycle(&mut crate::support::Random::new(1));
    dump(&storage.open().unwrap().snapshot())
}

#[test]
fn commits_that_arrive_together_share_a_flush() {
    let (storage, store) = started();
    let before = store.stats();
    let busy = storage.medium();
    let mut commits: Vec<Commit<'_>> = Vec::new();
    for i in 0..64 {
        let mut commit: Commit<'_> = Box::pin(store.commit(put(Durable, &format!("{i:02}"), "")));
        assert!(block_on(poll_once(&mut commit)).is_none());
        commits.push(commit);
    }
    assert_eq!(store.revision(), 2, "nothing is visible before it is flushed");
    drop(busy);
    let revisions: Vec<u64> = commits.into_iter().map(|commit| block_on(commit).unwrap()).collect();
    assert_eq!(revisions, (3..67).collect::<Vec<_>>());
    let after = store.stats();
    assert!(after.flushes - before.flushes <= 2, "{after:?}");
    assert_eq!(after.durable_commits - before.durable_commits, 64);
}

/// A store whose disk is known to be quick. The machine may be too busy to show it at once.
fn quick() -> (Faulty, Store) {
    let (storage, store) = started();
    // Large enough for space to be held back, which takes time.
    commit(&store, put(Durable, "first", &"x".repeat(1000))).unwrap();
    for n in 0..100_000 {
        commit(&store, put(Durable, "quick", &n.to_string())).unwrap();
        if store.stats().led_flushes > 0 {
            return (storage, store);
        }
    }
    panic!("nobody ever flushed himself: {:?}", store.stats());
}

#[test]
fn who_commits_flushes_himself_where_that_is_short_and_only_there() {
    let (storage, store) = quick();
    let here = |storage: &Faulty| {
        let me = std::thread::current().id();
        storage.medium().journal_synced_by.iter().filter(|by| **by == me).count() as u64
    };
    let led = store.stats().led_flushes;
    assert_eq!(here(&storage), led);
    assert_eq!(storage.medium().journal_synced_by.len() as u64, store.stats().flushes + 1, "and the one that made it");
    // The disk has become slow: one has to find out.
    storage.medium().sync_takes = Duration::from_millis(1);
    for n in 0..50 {
        commit(&store, put(Durable, "slow", &n.to_string())).unwrap();
    }
    assert!((led..=led + 1).contains(&here(&storage)), "{led} before, {} then", here(&storage));

    let (storage, store) = started();
    storage.medium().sync_takes = Duration::from_millis(1);
    for n in 0..100 {
        commit(&store, put(Durable, "slow", &n.to_string())).unwrap();
    }
    assert_eq!((here(&storage), store.stats().led_flushes), (0, 0));
}

#[test]
fn who_flushes_himself_takes_along_all_who_can_commit_meanwhile() {
    let (storage, store) = quick();
    for _ in 0..10_000 {
        let puts = (0..16).map(|n| Box::pin(store.commit(put(Durable, &format!("{n:02}"), ""))) as Commit<'_>);
        let mut commits: Vec<Commit<'_>> = puts.collect();
        commits.retain_mut(|commit| block_on(poll_once(commit)).is_none());
        let (before, syncs) = (store.stats(), storage.medium().syncs);
        // The second turn of the first of them.
        let done = commits.first_mut().and_then(|commit| block_on(poll_once(commit))).is_some();
        let after = store.stats();
        let (led, count) = (after.led_flushes - before.led_flushes, after.durable_commits - before.durable_commits);
        commits.drain(..usize::from(done));
        // A flush was too slow for once, the database is being written, or the thread was awake: it does it.
        if (led, count) != (1, 16) {
            assert!(commits.into_iter().all(|commit| block_on(commit).is_ok()));
            continue;
        }
        assert_eq!((after.flushes - before.flushes, storage.medium().syncs - syncs), (1, 1));
        assert!(commits.iter_mut().all(|commit| block_on(poll_once(commit)).is_some_and(|done| done.is_ok())));
        return;
    }
    panic!("{:?}", store.stats());
}

#[test]
fn who_goes_away_before_he_flushes_has_it_done() {
    let (_, store) = quick();
    for n in 0..100 {
        let mut commit = Box::pin(store.commit(put(Durable, "gone", &n.to_string())));
        assert!(block_on(poll_once(&mut commit)).is_none());
        drop(commit);
        while store.snapshot().get("gone").is_none_or(|entry| *entry.value != *n.to_string().as_bytes()) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_is_large_nobody_flushes_himself() {
    let (_, store) = quick();
    let led = store.stats().led_flushes;
    commit(&store, put(Durable, "large", &"x".repeat(100_000))).unwrap();
    for n in 0..100 {
        commit(&store, put(Lazy, &format!("lazy-{n}"), &"x".repeat(1000))).unwrap();
    }
    commit(&store, put(Durable, "rides", "")).unwrap();
    assert_eq!((store.stats().led_flushes, store.stats().lazy_keys), (led, 0));
}

#[test]
fn what_is_behind_a_durable_commit_waits_for_it() {
    let (storage, store) = started();
    let mut watcher = store.watch("", 2).unwrap();
    let busy = storage.medium();
    let mut durable = Box::pin(store.commit(put(Durable, "a", "1")));
    let mut volatile = Box::pin(store.commit(given(put(Volatile, "a", "2"), "a", Precondition::Modified(3))));
    assert!(block_on(poll_once(&mut durable)).is_none());
    assert!(block_on(poll_once(&mut volatile)).is_none());
    assert!(block_on(poll_once(Box::pin(watcher.next()))).is_none());
    drop(busy);
    assert_eq!((block_on(volatile).unwrap(), block_on(durable).unwrap()), (4, 3));
    assert_eq!(block_on(watcher.next()).unwrap().len(), 2);
}

/// Or he would read the old state again, and be refused again, until the flush is done.
#[test]
fn who_loses_a_race_is_told_when_he_can_see_to_whom() {
    let (storage, store) = started();
    commit(&store, put(Durable, "a", "1")).unwrap();
    let race = |value: &str| given(put(Durable, "a", value), "a", Precondition::Modified(3));
    let refused = |key: &str, modified: Option<u64>, result: Result<u64, Error>| match result {
        Err(Error::Precondition { key: which, found }) => {
            assert_eq!((&*which, found.map(|entry| entry.modified)), (key, modified));
        }
        other => panic!("{other:?}"),
    };
    let busy = storage.medium();
    let mut first = Box::pin(store.commit(race("2")));
    let mut second = Box::pin(store.commit(race("3")));
    assert!(block_on(poll_once(&mut first)).is_none());
    assert!(block_on(poll_once(&mut second)).is_none());
    drop(busy);
    refused("a", Some(4), block_on(second));
    assert_eq!(store.snapshot().get("a").unwrap().modified, 4);
    assert_eq!(block_on(first).unwrap(), 4);

    // The one that was first may fail: then there is nothing to see, and still an answer.
    let mut busy = storage.medium();
    busy.sync_fails = true;
    let race = |value: &str| given(put(Durable, "a", value), "a", Precondition::Modified(4));
    let mut first = Box::pin(store.commit(race("4")));
    let mut second = Box::pin(store.commit(race("5")));
    assert!(block_on(poll_once(&mut first)).is_none());
    assert!(block_on(poll_once(&mut second)).is_none());
    drop(busy);
    refused("a", Some(5), block_on(second));
    assert!(block_on(first).is_err());
    assert_eq!(store.snapshot().get("a").unwrap().modified, 4);
    storage.medium().sync_fails = false;
}

#[test]
fn a_lazy_write_is_acknowledged_at_once_and_goes_with_the_next_durable_one() {
    let (storage, store) = started();
    let flushes = store.stats().flushes;
    for i in 0..5 {
        let mut lazy = Box::pin(store.commit(put(Lazy, "a", &i.to_string())));
        assert!(block_on(poll_once(&mut lazy)).is_some());
    }
    assert_eq!((store.stats().flushes, store.stats().lazy_keys), (flushes, 1));
    commit(&store, put(Durable, "b", "")).unwrap();
    assert_eq!((store.stats().flushes, store.stats().lazy_keys), (flushes + 1, 0));
    commit(&store, put(Lazy, "c", "lost")).unwrap();
    assert_eq!(after_crash(&storage, store), ["a=4", "b=", "start="]);
}

#[test]
fn a_lazy_write_goes_alone_after_a_while() {
    let storage = Faulty::default();
    let options = Options { lazy_delay: Duration::ZERO, ..options() };
    let store = Store::open_in(options, Arc::new(storage.clone())).unwrap();
    commit(&store, put(Durable, "start", "")).unwrap();
    commit(&store, put(Lazy, "a", "1")).unwrap();
    while store.stats().flushes < 2 {
        std::thread::yield_now();
    }
    assert_eq!(after_crash(&storage, store), ["a=1", "start="]);
}

#[test]
fn a_volatile_write_never_reaches_the_disk() {
    let (storage, store) = started();
    commit(&store, put(Durable, "node", "spec")).unwrap();
    commit(&store, put(Volatile, "node", "heartbeat")).unwrap();
    commit(&store, put(Volatile, "lease", "x")).unwrap();
    commit(&store, put(Lazy, "both", "lazy")).unwrap();
    commit(&store, put(Volatile, "both", "volatile")).unwrap();
    commit(&store, put(Volatile, "deleted", "x")).unwrap();
    commit(&store, delete(Durable, "deleted")).unwrap();
    assert_eq!(dump(&store.snapshot()), ["both=volatile", "lease=x", "node=heartbeat", "start="]);
    assert_eq!(after_crash(&storage, store), ["both=lazy", "node=spec", "start="]);
}

#[test]
fn a_start_that_changes_nothing_writes_nothing() {
    let (storage, store) = started();
    store.close().unwrap();
    drop(store);
    storage.medium().written = 0;
    storage.medium().syncs = 0;
    for _ in 0..3 {
        let store = storage.open().unwrap();
        assert_eq!(dump(&store.snapshot()), ["start="]);
        store.close().unwrap();
    }
    let medium = storage.medium();
    assert_eq!((medium.written, medium.syncs), (0, 0));
}

#[test]
fn an_idle_store_writes_nothing_and_volatile_commits_cost_no_write() {
    let (storage, store) = started();
    storage.medium().written = 0;
    for i in 0..1000 {
        commit(&store, put(Volatile, "lease", &i.to_string())).unwrap();
    }
    assert_eq!((storage.medium().written, store.stats().volatile_commits), (0, 1000));
}

#[test]
fn revisions_never_come_twice() {
    let storage = Faulty::default();
    let mut newest = 0;
    for start in 0..5 {
        let store = storage.open().unwrap();
        assert!(store.revision() >= newest, "start {start}");
        // More than one block, none of them flushed for its own sake.
        for i in 0..12_000 {
            let revision = commit(&store, put(Volatile, "lease", &i.to_string())).unwrap();
            assert!(revision > newest);
            newest = revision;
        }
        after_crash(&storage, store);
    }
}

#[test]
fn a_full_disk_fails_the_commit_and_nothing_else() {
    let (storage, store) = started();
    commit(&store, put(Lazy, "status", "1")).unwrap();
    let before = dump(&store.snapshot());
    storage.medium().full = true;
    let mut watcher = store.watch("", store.revision()).unwrap();
    for _ in 0..3 {
        assert!(matches!(commit(&store, put(Durable, "a", "1")), Err(Error::Full)));
        assert_eq!(dump(&store.snapshot()), before);
    }
    assert!(block_on(poll_once(Box::pin(watcher.next()))).is_none());
    commit(&store, put(Volatile, "lease", "1")).unwrap();
    commit(&store, put(Lazy, "status", "2")).unwrap();
    storage.medium().full = false;
    let absent = given(put(Durable, "a", "2"), "a", Precondition::Absent);
    assert_eq!(commit(&store, absent).unwrap(), store.revision());
    assert_eq!(dump(&store.snapshot()), ["a=2", "lease=1", "start=", "status=2"]);
    assert_eq!(after_crash(&storage, store), ["a=2", "start=", "status=2"]);
}

#[test]
fn what_frees_space_goes_on_when_the_disk_is_full() {
    let (storage, store) = started();
    storage.medium().capacity = Some(6 << 20);
    let (value, mut count) = ("x".repeat(20_000), 0);
    let error = loop {
        match commit(&store, put(Durable, &format!("pods/{count}"), &value)) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full) && count > 50, "{error}, {count}");
    assert!(matches!(store.trouble(), Some(Error::Full)));
    for i in 0..count / 2 {
        // As an API deletes: a mark first, then for good.
        commit(&store, put(Durable, &format!("pods/{i}"), &format!("{value}deleted"))).unwrap();
        commit(&store, delete(Durable, &format!("pods/{i}"))).unwrap();
        assert!(store.snapshot().get("pods/70").is_some() || i >= 70);
    }
    storage.medium().capacity = None;
    commit(&store, put(Durable, "new", &value)).unwrap();
    assert!(store.trouble().is_none());
    let left = count - count / 2 + 2;
    assert_eq!(after_crash(&storage, store).len(), left);
}

#[test]
fn what_waits_behind_a_failed_flush_is_applied_anew() {
    let (storage, store) = started();
    let mut busy = storage.medium();
    busy.full = true;
    let mut first = Box::pin(store.commit(put(Durable, "a", "1")));
    let mut on_top = Box::pin(store.commit(given(put(Volatile, "b", "1"), "a", Precondition::Present)));
    let mut beside = Box::pin(store.commit(put(Volatile, "c", "1")));
    assert!(block_on(poll_once(&mut first)).is_none());
    assert!(block_on(poll_once(&mut on_top)).is_none());
    assert!(block_on(poll_once(&mut beside)).is_none());
    drop(busy);
    assert!(matches!(block_on(first), Err(Error::Full)));
    assert!(matches!(block_on(on_top), Err(Error::Precondition { found: None, .. })));
    assert_eq!(block_on(beside).unwrap(), store.revision());
    assert_eq!(dump(&store.snapshot()), ["c=1", "start="]);
}

#[test]
fn a_commit_that_failed_but_reached_the_disk_is_taken_back_there() {
    let (storage, store) = started();
    commit(&store, put(Durable, "kept", "before")).unwrap();
    storage.medium().sync_fails = true;
    for key in ["kept", "new"] {
        assert!(matches!(commit(&store, put(Durable, key, "failed")), Err(Error::Storage { .. })));
    }
    assert!(commit(&store, delete(Durable, "start")).is_err());
    storage.medium().sync_fails = false;
    commit(&store, put(Durable, "next", "")).unwrap();
    assert_eq!(after_crash(&storage, store), ["kept=before", "next=", "start="]);
}

#[test]
fn a_read_only_disk_is_read() {
    let (storage, store) = started();
    storage.medium().dark = true;
    drop(store);
    storage.medium().power_cycle(&mut crate::support::Random::new(1));
    storage.medium().read_only = true;
    let store = storage.open().unwrap();
    assert_eq!(dump(&store.snapshot()), ["start="]);
    assert!(matches!(commit(&store, put(Durable, "a", "")), Err(Error::ReadOnly)));
    storage.medium().read_only = false;
    commit(&store, put(Durable, "a", "")).unwrap();
    assert_eq!(dump(&store.snapshot()), ["a=", "start="]);
    let nothing = Faulty::default();
    nothing.medium().read_only = true;
    assert!(matches!(nothing.open(), Err(Error::ReadOnly)));
}

#[test]
fn a_damaged_record_is_named_and_the_rest_is_read() {
    let (storage, store) = started();
    commit(&store, put(Durable, "a", "a value that is easy to find")).unwrap();
    store.close().unwrap();
    drop(store);
    assert!(storage.medium().flip_bit(b"easy to find") > 0);
    let store = storage.open().unwrap();
    assert_eq!(store.damaged(), ["a"]);
    assert_eq!(dump(&store.snapshot()), ["start="]);
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        Scratch(std::env::temp_dir().join(format!("mote-store-{name}-{}", std::process::id())))
    }
    fn options(&self) -> Options {
        Options { dir: Some(self.0.clone()), ..options() }
    }
    fn refuses(&self, expected: &str) {
        let error = Store::open(self.options()).err().map_or("opened".into(), |error| error.to_string());
        assert!(error.contains(expected), "{error}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_directory_belongs_to_one_store_at_a_time() {
    let scratch = Scratch::new("lock");
    let store = Store::open(scratch.options()).unwrap();
    commit(&store, put(Durable, "a", "1")).unwrap();
    scratch.refuses("is in use by another process");
    drop(store);
    let store = Store::open(scratch.options()).unwrap();
    assert_eq!(dump(&store.snapshot()), ["a=1"]);
    assert_eq!(store.stats().written_bytes, 0);
}

#[test]
fn a_file_that_is_not_ours_is_refused() {
    let scratch = Scratch::new("foreign");
    let file = scratch.0.join("store.redb");
    std::fs::create_dir_all(&scratch.0).unwrap();
    let table: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let write = |insert: &dyn Fn(&mut redb::Table<'_, &str, u64>)| {
        let database = redb::Database::create(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        insert(&mut transaction.open_table(table).unwrap());
        transaction.commit().unwrap();
    };
    write(&|_| {});
    scratch.refuses("it has no format version");
    write(&|table| drop(table.insert("format", 2).unwrap()));
    scratch.refuses("it has format 2, this build reads format 1");
    write(&|table| drop(table.insert("format", 1).unwrap()));
    scratch.refuses("no table \"entries\"");
}
