//! Revisions, preconditions, snapshots and watches, without faults.
use crate::support::{Faulty, Random, commit, delete, dump, given, memory, options, put};
use futures_lite::future::{block_on, poll_once};
use mote_store::{Class, Error, Event, Options, Precondition, Store, Transaction, Write};
use std::{
    future::Future as _,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
};

use Class::{Durable, Lazy, Volatile};

/// `revision key old>new` of an event.
fn line(event: &Event) -> String {
    let side = |side: &Option<mote_store::Entry>| match side {
        Some(entry) => String::from_utf8_lossy(&entry.value).into_owned(),
        None => "-".into(),
    };
    format!("{} {} {}>{}", event.revision, event.key(), side(&event.old), side(&event.new))
}

fn lines(events: &[Event]) -> Vec<String> {
    events.iter().map(line).collect()
}

#[test]
fn revisions_rise_by_one_and_entries_remember_two_of_them() {
    let store = memory();
    assert_eq!(store.revision(), 1);
    for (revision, class) in [(2, Durable), (3, Lazy), (4, Volatile)] {
        assert_eq!(commit(&store, put(class, "a", "x")).unwrap(), revision);
    }
    let entry = store.snapshot().get("a").unwrap();
    assert_eq!((entry.created, entry.modified), (2, 4));
    commit(&store, delete(Durable, "a")).unwrap();
    assert_eq!(commit(&store, put(Durable, "a", "y")).unwrap(), 6);
    assert_eq!(store.snapshot().get("a").unwrap().created, 6);
}

#[test]
fn preconditions() {
    let store = memory();
    commit(&store, put(Durable, "a", "x")).unwrap();
    #[track_caller]
    fn check(store: &Store, key: &str, precondition: Precondition, holds: bool) {
        let before = store.revision();
        match commit(store, given(put(Durable, "other", "y"), key, precondition)) {
            Ok(_) => assert!(holds),
            Err(Error::Precondition { key: named, found }) => {
                assert!(!holds);
                assert_eq!((&*named, found), (key, store.snapshot().get(key)));
                assert_eq!(store.revision(), before);
            }
            Err(error) => panic!("{error}"),
        }
    }
    check(&store, "a", Precondition::Present, true);
    check(&store, "a", Precondition::Absent, false);
    check(&store, "a", Precondition::Modified(2), true);
    check(&store, "a", Precondition::Modified(1), false);
    check(&store, "b", Precondition::Present, false);
    check(&store, "b", Precondition::Absent, true);
    check(&store, "b", Precondition::Modified(2), false);
}

#[test]
fn a_transaction_happens_whole_and_the_last_write_to_a_key_counts() {
    let store = memory();
    let mut watcher = store.watch("", 1).unwrap();
    let writes = vec![
        Write::Put("a".into(), b"1".as_slice().into()),
        Write::Put("b".into(), b"2".as_slice().into()),
        Write::Delete("a".into()),
        Write::Delete("never there".into()),
        Write::Put("b".into(), b"3".as_slice().into()),
    ];
    commit(&store, Transaction { class: Durable, preconditions: Vec::new(), writes }).unwrap();
    assert_eq!(dump(&store.snapshot()), ["b=3"]);
    assert_eq!(lines(&block_on(watcher.next()).unwrap()), ["2 b ->3"]);
}

#[test]
fn ranges_are_by_prefix_and_continue_after_a_key() {
    let store = memory();
    for key in ["a/", "a/b", "a/b/c", "a/c", "a0", "b"] {
        commit(&store, put(Durable, key, "")).unwrap();
    }
    let snapshot = store.snapshot();
    let check = |prefix, after, expected: &[&str]| {
        let keys: Vec<_> = snapshot.range(prefix, after).map(|entry| entry.key).collect();
        assert_eq!(keys.iter().map(|key| &**key).collect::<Vec<_>>(), expected, "{prefix} {after:?}");
    };
    check("", None, &["a/", "a/b", "a/b/c", "a/c", "a0", "b"]);
    check("a/", None, &["a/", "a/b", "a/b/c", "a/c"]);
    check("a/", Some("a/b"), &["a/b/c", "a/c"]);
    check("a/", Some("a/bb"), &["a/c"]);
    check("a/", Some("a/zzz"), &[]);
    check("a/b", Some("a"), &["a/b", "a/b/c"]);
    check("c", None, &[]);
}

#[test]
fn an_old_state_can_be_had_again_while_its_events_are_there() {
    let store = Store::open(Options { watch_events: 10, ..options() }).unwrap();
    let mut states = vec![(1, Vec::new())];
    for i in 0..9 {
        let write = if i % 3 == 2 { delete(Durable, "a") } else { put(Durable, "a", &i.to_string()) };
        states.push((commit(&store, write).unwrap(), dump(&store.snapshot())));
    }
    for (revision, state) in &states {
        let snapshot = store.snapshot_at(*revision).unwrap();
        assert_eq!((snapshot.revision(), &dump(&snapshot)), (*revision, state));
    }
    assert!(matches!(store.snapshot_at(11), Err(Error::Future { asked: 11, current: 10 })));
    for _ in 0..20 {
        commit(&store, put(Durable, "b", "")).unwrap();
    }
    // Asked for before: kept, though its events are gone. Never asked for: gone.
    assert_eq!(dump(&store.snapshot_at(3).unwrap()), states[2].1);
    assert!(matches!(store.snapshot_at(12), Err(Error::Compacted { asked: 12, oldest: 20 })));
}

#[test]
fn what_was_replaced_too_long_ago_is_gone_however_often_it_is_asked_for() {
    let store = Store::open(Options { history: std::time::Duration::ZERO, ..options() }).unwrap();
    let first = commit(&store, put(Durable, "a", "1")).unwrap();
    assert!(store.snapshot_at(first).is_ok());
    let second = commit(&store, put(Durable, "a", "2")).unwrap();
    assert!(store.snapshot_at(first).is_ok());
    let third = commit(&store, put(Durable, "a", "3")).unwrap();
    assert!(matches!(store.snapshot_at(first), Err(Error::Compacted { .. })));
    assert!(store.snapshot_at(second).is_ok() && store.snapshot_at(third).is_ok());
}

#[test]
fn the_difference_of_two_states_is_what_the_events_say() {
    let (store, mut random) = (memory(), Random::new(5));
    let key = |random: &mut Random| format!("key/{}", random.below(300));
    for _ in 0..600 {
        commit(&store, put(Durable, &key(&mut random), "old")).unwrap();
    }
    let old = store.snapshot();
    let mut watcher = store.watch("", old.revision()).unwrap();
    for i in 0..200 {
        let key = key(&mut random);
        let write = if random.below(3) == 0 { delete(Durable, &key) } else { put(Durable, &key, &i.to_string()) };
        commit(&store, write).unwrap();
    }
    let new = store.snapshot();
    let mut sides = std::collections::BTreeMap::new();
    while watcher.progress() < new.revision() {
        for event in block_on(watcher.next()).unwrap() {
            let first = sides.entry(event.key().clone()).or_insert((event.old.clone(), None));
            first.1 = event.new;
        }
    }
    let expected: Vec<_> = sides.into_values().filter(|(old, new)| old != new).collect();
    let diff: Vec<_> = old.diff(&new).into_iter().map(|event| (event.old, event.new)).collect();
    assert_eq!(diff, expected);
    assert!(new.diff(&new.clone()).is_empty());
}

#[test]
fn a_watch_cut_at_any_place_and_resumed_sees_every_change_once() {
    let store = memory();
    for i in 0..60 {
        let writes = (0..=i % 3).map(|n| Write::Put(format!("{}/{n}", ["a", "b"][i % 2]).into(), [n as u8].into()));
        let writes = writes.collect();
        commit(&store, Transaction { class: Volatile, preconditions: Vec::new(), writes }).unwrap();
    }
    let mut all = store.watch("a/", 1).unwrap();
    let all = lines(&block_on(all.next()).unwrap());
    assert_eq!(all.len(), 60);
    for from in 1..=store.revision() {
        let mut rest = store.watch("a/", from).unwrap();
        let rest = block_on(poll_once(pin!(rest.next()))).map_or(Vec::new(), |events| lines(&events.unwrap()));
        let after = |line: &&String| line.split(' ').next().unwrap().parse::<u64>().unwrap() > from;
        assert_eq!(rest, all.iter().filter(after).cloned().collect::<Vec<_>>(), "from {from}");
    }
    assert!(matches!(store.watch("a/", store.revision() + 1), Err(Error::Future { .. })));
}

#[test]
fn batches_end_with_a_revision() {
    let store = memory();
    for _ in 0..5 {
        let writes = (0..200).map(|n| Write::Put(format!("a/{n}").into(), [].into())).collect();
        commit(&store, Transaction { class: Volatile, preconditions: Vec::new(), writes }).unwrap();
    }
    let mut watcher = store.watch("a/", 1).unwrap();
    let mut seen = 0;
    while watcher.progress() < store.revision() {
        let batch = block_on(watcher.next()).unwrap();
        assert_eq!(batch.len() % 200, 0);
        assert_eq!(watcher.progress(), batch.last().unwrap().revision);
        seen += batch.len();
    }
    assert_eq!(seen, 1000);
}

#[test]
fn a_watcher_of_something_else_never_falls_behind_and_a_slow_one_is_told() {
    let store = Store::open(Options { watch_events: 10, ..options() }).unwrap();
    let mut rare = store.watch("rare/", 1).unwrap();
    let mut slow = store.watch("busy/", 1).unwrap();
    for i in 0..50 {
        commit(&store, put(Volatile, "busy/a", &i.to_string())).unwrap();
        assert_eq!(rare.progress(), store.revision());
    }
    assert_eq!(slow.progress(), 1);
    assert!(matches!(block_on(slow.next()), Err(Error::Compacted { asked: 1, oldest: 41 })));
    assert!(matches!(store.watch("busy/", 40), Err(Error::Compacted { asked: 40, oldest: 41 })));
    assert!(block_on(poll_once(pin!(rare.next()))).is_none());
    commit(&store, put(Volatile, "rare/a", "x")).unwrap();
    assert_eq!(lines(&block_on(rare.next()).unwrap()), ["52 rare/a ->x"]);
    assert!(store.watch("busy/", store.revision()).is_ok());
}

#[test]
fn the_ring_is_bounded_by_the_bytes_it_keeps_alive() {
    let store = Store::open(Options { watch_bytes: 100_000, ..options() }).unwrap();
    let value = "x".repeat(10_000);
    for _ in 0..100 {
        commit(&store, put(Volatile, "a", &value)).unwrap();
    }
    let stats = store.stats();
    assert!(stats.ring_bytes <= 100_000 && (5..10).contains(&stats.ring_events), "{stats:?}");
    assert_eq!((stats.entries, stats.live_bytes, stats.volatile_commits), (1, 10_001, 100));
}

#[test]
fn waiting_wakes_at_the_revision_and_not_before() {
    let store = memory();
    block_on(store.wait_for(1));
    let mut wait = pin!(store.wait_for(3));
    assert!(block_on(poll_once(wait.as_mut())).is_none());
    commit(&store, put(Volatile, "a", "")).unwrap();
    assert!(block_on(poll_once(wait.as_mut())).is_none());
    commit(&store, put(Volatile, "a", "")).unwrap();
    block_on(wait);
}

#[test]
fn a_dropped_next_loses_nothing() {
    let store = memory();
    let mut watcher = store.watch("", 1).unwrap();
    for _ in 0..3 {
        assert!(block_on(poll_once(pin!(watcher.next()))).is_none());
    }
    commit(&store, put(Volatile, "a", "x")).unwrap();
    drop(watcher.next());
    assert_eq!(lines(&block_on(watcher.next()).unwrap()), ["2 a ->x"]);
}

#[test]
fn a_closed_store_reads_on() {
    let storage = Faulty::default();
    let store = storage.open().unwrap();
    commit(&store, put(Lazy, "a", "x")).unwrap();
    let mut watcher = store.watch("", 1).unwrap();
    store.close().unwrap();
    assert!(matches!(commit(&store, put(Volatile, "a", "y")), Err(Error::Closed)));
    assert_eq!(dump(&store.snapshot()), ["a=x"]);
    assert_eq!(lines(&block_on(watcher.next()).unwrap()), ["2 a ->x"]);
    assert!(matches!(block_on(watcher.next()), Err(Error::Closed)));
    drop(store);
    assert_eq!(dump(&storage.open().unwrap().snapshot()), ["a=x"]);
}

/// Who was acknowledged can rely on it that all who watch are on their way: those that watch are woken first.
#[test]
fn who_watches_is_woken_before_who_wrote() {
    struct Noted(&'static str, Arc<Mutex<Vec<&'static str>>>);
    impl Wake for Noted {
        fn wake(self: Arc<Noted>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let woken = Arc::new(Mutex::new(Vec::new()));
    let note = |who| Waker::from(Arc::new(Noted(who, woken.clone())));
    let (store, mut writer) = Faulty::default().open_by_hand().unwrap();
    let mut watcher = store.watch("pods/", store.revision()).unwrap();
    let mut commit = Box::pin(store.commit(put(Durable, "pods/a", "1")));
    let mut next = Box::pin(watcher.next());
    assert!(commit.as_mut().poll(&mut Context::from_waker(&note("who wrote"))).is_pending());
    assert!(next.as_mut().poll(&mut Context::from_waker(&note("who watches"))).is_pending());
    writer.step().unwrap();
    assert_eq!(*woken.lock().unwrap(), ["who watches", "who wrote"]);
}
