//! What a cut leaves: how long the next start takes with it, and what it takes in memory.
use crate::{milliseconds, options, row};
use futures_lite::future::block_on;
use mote_store::{Class, Store, Transaction, Write};
use mote_tests::{server::scratch, usage::Memory};
use std::{
    io::{BufRead, BufReader, Read, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const OBJECTS: u64 = 10_000;
const VALUE_BYTES: usize = 980;
const CUTS: u64 = 5;

fn put(store: &Store, n: u64, filling: u8) {
    let writes = vec![Write::Put(format!("pods/default/object-{n:05}").into(), vec![filling; VALUE_BYTES].into())];
    let transaction = Transaction { class: Class::Durable, preconditions: Vec::new(), writes };
    block_on(store.commit(transaction)).expect("it is committed");
}

/// Says when all objects are there, and goes on to update them until it is killed.
pub fn fill(dir: &Path) {
    let store = Store::open(options(dir.into())).expect("a store");
    (0..OBJECTS).for_each(|n| put(&store, n, 1));
    println!("filled");
    for n in 0u64.. {
        put(&store, n * 7919 % OBJECTS, n as u8);
    }
}

/// Opens it, and says what that took of memory; then the same for a store with nothing in it.
pub fn hold(dir: &Path) {
    let anonymous = || Memory::of_process(std::process::id()).anonymous_kb;
    let before = anonymous();
    let store = Store::open(options(dir.into())).expect("a store");
    let after = anonymous();
    println!("{} {}", store.stats().live_bytes, (after - before) * 1024);
    std::io::stdout().flush().expect("somebody reads");
}

fn this(what: &str, dir: &Path) -> Child {
    let program = std::env::current_exe().expect("it has a name");
    let mut command = Command::new(program);
    // As the node tells glibc.
    command.env(
        "GLIBC_TUNABLES",
        "glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=131072:glibc.malloc.mmap_threshold=65536",
    );
    command.arg(what).arg(dir).stdout(Stdio::piped()).spawn().expect("it starts")
}

pub fn opens() {
    let dir = scratch();
    let mut worst: f64 = 0.0;
    for cut in 0..CUTS {
        let mut child = this("fill", &dir);
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("it says so");
        // In the middle of a round, or between two, with a journal that is full or not.
        thread::sleep(Duration::from_millis(50 + 37 * cut));
        child.kill().and_then(|()| child.wait()).expect("it is killed");
        let start = Instant::now();
        let store = Store::open(options(dir.clone())).expect("it opens");
        worst = worst.max(milliseconds(start));
        assert_eq!(store.stats().entries as u64, OBJECTS);
    }
    row("open with 10,000 objects (10 MB) after kill -9 under load, worst of 5", worst, "ms", "<= 150");
    let mut child = this("hold", &dir);
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("it says so");
    child.wait().expect("it ends");
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse::<f64>().ok());
    let (live, taken) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let goal = format!("<= {:.1}", (live * 1.3 + 3e6) / 1e6);
    row(&format!("memory of an open store with {:.1} MB live", live / 1e6), taken / 1e6, "MB", &goal);
    let _ = std::fs::remove_dir_all(dir);
}
