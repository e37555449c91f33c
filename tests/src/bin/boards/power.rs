//! What a node keeps when the power of its board fails, or somebody resets it, at moments of a seed's choice. A client creates,
//! replaces and deletes objects all the time, and knows what was acknowledged; a program on the board writes past the page cache and
//! never flushes, so that the disk holds what it loses at every cut.
use super::{POD, hold_memory, start, wait_running};
use mote_tests::{
    guest::{Guest, Setup},
    http::Client,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Overwrites four megabytes again and again. Its file is there, and its blocks are, before: nothing of this makes ext4 flush.
const NEVER_FLUSHES: &str = "cd /var/tmp && dd if=/dev/zero of=unflushed bs=1M count=4 conv=fsync 2>/dev/null && \
    nohup sh -c 'while :; do dd if=/dev/urandom of=unflushed bs=4k count=1024 oflag=direct conv=notrunc; done' \
    >/dev/null 2>&1 </dev/null &";

/// What was acknowledged of an object, by name: its value, None when it was deleted. Of the one that was on its way when the board
/// went, both states are right.
#[derive(Default)]
struct Acknowledged {
    values: BTreeMap<String, Option<String>>,
    count: usize,
    underway: Option<(String, Option<String>)>,
}

impl Acknowledged {
    /// Writes until the board is gone, or it is told to stop.
    fn write(&mut self, client: &Client, round: u64, stop: &AtomicBool) {
        for number in 0u64.. {
            let name = format!("cut-{round}-{}", number / 4);
            let (method, path, value) = match number % 4 {
                0 => ("POST", MAPS.to_owned(), Some("first")),
                1 => ("PUT", format!("{MAPS}/{name}"), Some("second")),
                2 => ("PUT", format!("{MAPS}/{name}"), Some("third")),
                // Two of three stay.
                _ if number % 3 != 0 => continue,
                _ => ("DELETE", format!("{MAPS}/{name}"), None),
            };
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let value = value.map(str::to_owned);
            self.underway = Some((name.clone(), value.clone()));
            let body = value.as_ref().map_or(String::new(), |value| map(&name, value));
            let answer = client.try_request(method, &path, &[("Content-Type", "application/json")], body.as_bytes());
            match answer {
                Ok(answer) if answer.code == 200 || answer.code == 201 => {
                    self.values.insert(name, value);
                    self.count += 1;
                    self.underway = None;
                }
                _ => return,
            }
        }
    }

    fn check(&mut self, found: &BTreeMap<String, String>, seed: u64) {
        if let Some((name, value)) = self.underway.take() {
            let known = self.values.get(&name).cloned().flatten();
            let found = found.get(&name).cloned();
            assert!(found == value || found == known, "seed {seed}: {name} is {found:?}, which nobody wrote last");
            self.values.insert(name, found);
        }
        for (name, value) in &self.values {
            assert_eq!(found.get(name), value.as_ref(), "seed {seed}: {name} is not what was acknowledged");
        }
    }
}

fn map(name: &str, value: &str) -> String {
    let data = json!({"value": value, "text": "x".repeat(900)});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}).to_string()
}

fn maps(guest: &Guest) -> BTreeMap<String, String> {
    let listed = guest.eventually("the API serves again", || {
        let answer = Client::new(&guest.kubeconfig()).try_request("GET", MAPS, &[], b"").map_err(|e| e.to_string())?;
        if answer.code == 200 { Ok(answer.json()) } else { Err(answer.text()) }
    });
    let items = listed["items"].as_array().expect("a list");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    items.iter().map(|item| (text(&item["metadata"]["name"]), text(&item["data"]["value"]))).collect()
}

/// A sequence that a seed decides (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Every third time it is the reset button, which a disk's cache survives; of the cuts every second one is followed by another during
/// the boot.
pub fn run(setup: Setup, count: u64, seed: u64) {
    let board = setup.board.clone();
    let (mut guest, kubectl) = start(setup);
    kubectl.apply(POD);
    wait_running(&guest, &kubectl, "hello");
    hold_memory(&guest, &board);
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut acknowledged = Acknowledged::default();
    let (mut cuts, mut resets, mut lossy, mut all_lost) = (0, 0, 0, 0);
    while cuts + resets < count {
        guest.eventually("the second writer", || guest.shell(NEVER_FLUSHES));
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped, round) = (Client::new(&guest.kubeconfig()), stop.clone(), cuts + resets);
        let before = acknowledged.count;
        let writer = thread::spawn(move || {
            acknowledged.write(&client, round, &stopped);
            acknowledged
        });
        thread::sleep(Duration::from_millis(2000 + chance.below(6000)));
        let mut lost = (0, 0);
        let reset = round % 3 == 2;
        if reset {
            guest.reset();
            resets += 1;
        } else {
            guest.disk.fail_after(chance.below(500));
            assert!(guest.disk.wait_failed(Duration::from_secs(120)), "nothing was written in two minutes");
            lost = guest.cut(chance.below(u64::MAX));
            cuts += 1;
        }
        stop.store(true, Ordering::Relaxed);
        acknowledged = writer.join().expect("no answer was wrong");
        let written = acknowledged.count - before;
        assert!(written > 0, "nothing was acknowledged before the cut");
        let mut boot_cut = String::new();
        if !reset {
            lossy += u64::from(lost.1 > 0);
            all_lost += lost.1;
            guest.power_on();
            if chance.below(2) == 0 && cuts + resets < count {
                let moment = Duration::from_millis(chance.below(45_000));
                thread::sleep(moment);
                let lost = guest.cut(chance.below(u64::MAX));
                boot_cut = format!(", and {moment:.0?} into the boot ({} of {})", lost.1, lost.0);
                cuts += 1;
                guest.power_on();
            }
        }
        acknowledged.check(&maps(&guest), seed);
        guest.wait_ready(&kubectl);
        println!(
            "{board}: {} {}: {written} writes acknowledged, {} of {} unflushed sectors lost{boot_cut}; Ready again after {:.0?}",
            if reset { "reset" } else { "cut" },
            cuts + resets,
            lost.1,
            lost.0,
            guest.since_power_on(),
        );
    }
    wait_running(&guest, &kubectl, "hello");
    println!(
        "{board}: {cuts} cuts, {lossy} of those under load lost something, {all_lost} sectors in all; {resets} resets; {} acknowledged \
         writes, none lost; the pod runs",
        acknowledged.count
    );
    guest.shut_down();
    println!("{board}: shut down");
}
