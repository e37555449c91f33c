//! `./dev bench store`: the store's table of figures, each against its goal, beside etcd from Debian on the same disk. What is in
//! TMPDIR's file system is measured; other load on the machine or its disk is measured with it, so the parts that are compared
//! take turns. `puts` is the store alone and etcd alone, `opens` what a cut leaves, `node` the API server on either.
mod node;
mod opens;
mod puts;

use std::{path::PathBuf, time::Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // What this program starts of itself, to be killed or to be looked at.
        ["fill", dir] => return opens::fill(dir.as_ref()),
        ["hold", dir] => return opens::hold(dir.as_ref()),
        _ => {}
    }
    let wanted = |part: &str| arguments.is_empty() || arguments.iter().any(|named| named == part);
    println!("{:<74}{:>16}{:>14}", "what", "measured", "goal");
    if wanted("puts") {
        puts::puts();
    }
    if wanted("opens") {
        opens::opens();
    }
    if wanted("node") {
        node::node();
    }
}

fn row(what: &str, measured: f64, unit: &str, goal: &str) {
    let digits = if measured >= 100.0 { 0 } else { 2 };
    println!("{what:<74}{:>16}{goal:>14}", format!("{measured:.digits$} {unit}"));
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn part_of(sorted: &[f64], part: f64) -> f64 {
    sorted.get(((sorted.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or_default()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    part_of(&numbers, 0.5)
}

fn options(dir: PathBuf) -> mote_store::Options {
    mote_store::Options {
        dir: Some(dir),
        cache_bytes: 512 * 1024,
        watch_events: 1000,
        watch_bytes: 1 << 20,
        history: std::time::Duration::from_secs(300),
        lazy_delay: std::time::Duration::from_secs(5),
    }
}
