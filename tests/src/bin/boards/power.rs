//! What a node keeps when the power of its board fails, or somebody resets it, at moments of seeds' choice. A client creates,
//! replaces and deletes objects all the time, and knows what was acknowledged; a program on the board writes past the page cache and
//! never flushes, so that the disk holds what it loses at every cut.
use super::{POD, hold_memory, start, wait_running};
use mote_tests::{
    binary,
    guest::{Guest, Setup, images},
    http::Client,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::Command,
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

#[derive(Clone, Copy, PartialEq)]
enum Event {
    /// The power fails in the middle of a write.
    Cut,
    /// The reset button, which a disk's cache survives.
    Reset,
}

impl Event {
    fn name(self) -> &'static str {
        if self == Event::Cut { "cut" } else { "reset" }
    }

    /// It happens now, and the board starts again: how many sectors were unflushed, and lost.
    fn strike(self, guest: &mut Guest, chance: &mut Chance) -> (usize, usize) {
        match self {
            Event::Cut => {
                let lost = guest.cut(chance.below(u64::MAX));
                guest.power_on();
                lost
            }
            Event::Reset => {
                guest.reset();
                (0, 0)
            }
        }
    }
}

/// What a run of many hours has survived, one line an event, so that another run goes on where this one ends: its seed, what it was,
/// and the binary's hash.
struct Tally {
    file: PathBuf,
    binary: String,
    lines: Vec<String>,
}

impl Tally {
    fn read(file: PathBuf, binary: String) -> Tally {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Tally { file, binary, lines: text.lines().map(str::to_owned).collect() }
    }

    /// The first seed that no run has begun with; it is written down when its event is over.
    fn next_seed(&self) -> u64 {
        let seeds = self.lines.iter().filter_map(|line| line.split_whitespace().next()?.parse().ok());
        seeds.max().map_or(FIRST_SEED, |seed: u64| seed + 1)
    }

    fn survived(&mut self, seed: u64, event: Event) {
        self.lines.push(format!("{seed} {} {}", event.name(), self.binary));
        fs::write(&self.file, self.lines.join("\n") + "\n").expect("the image's directory can be written");
    }

    /// Of this binary, by all runs.
    fn count(&self, event: Event) -> usize {
        let wanted = [event.name(), &self.binary];
        self.lines.iter().filter(|line| line.split_whitespace().skip(1).eq(wanted)).count()
    }
}

const FIRST_SEED: u64 = 20;

/// As many cuts in the middle of a client's writes as asked for, and as many resets, in turns. Every second one is followed by another
/// of its kind at any moment of the boot. Each has a seed of its own; `seed` is the first one's, else the tally knows which is next.
pub fn run(setup: Setup, cuts: u64, resets: u64, seed: Option<u64>) {
    let board = setup.board.clone();
    let hash = Command::new("sha256sum").arg(binary()).output().expect("sha256sum").stdout;
    let hash = String::from_utf8_lossy(&hash).chars().take(12).collect();
    let mut tally = Tally::read(images(&board).join("survived"), hash);
    let first = seed.unwrap_or_else(|| tally.next_seed());
    let (mut guest, kubectl) = start(setup);
    kubectl.apply(POD);
    wait_running(&guest, &kubectl, "hello");
    hold_memory(&guest, &board);
    let mut acknowledged = Acknowledged::default();
    let (mut left, mut booting, mut lossy, mut all_lost) = ((cuts, resets), 0, 0, 0);
    for seed in first..first + cuts + resets {
        let event = if left.1 > left.0 { Event::Reset } else { Event::Cut };
        let count = if event == Event::Cut { &mut left.0 } else { &mut left.1 };
        *count -= 1;
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        guest.eventually("the second writer", || guest.shell(NEVER_FLUSHES));
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (Client::new(&guest.kubeconfig()), stop.clone());
        let before = acknowledged.count;
        let writer = thread::spawn(move || {
            acknowledged.write(&client, seed, &stopped);
            acknowledged
        });
        thread::sleep(Duration::from_millis(2000 + chance.below(6000)));
        if event == Event::Cut {
            guest.disk.fail_after(chance.below(500));
            assert!(guest.disk.wait_failed(Duration::from_secs(120)), "nothing was written in two minutes");
        }
        let lost = event.strike(&mut guest, &mut chance);
        stop.store(true, Ordering::Relaxed);
        acknowledged = writer.join().expect("no answer was wrong");
        let written = acknowledged.count - before;
        assert!(written > 0, "nothing was acknowledged before");
        lossy += u64::from(lost.1 > 0);
        all_lost += lost.1;
        let mut again = String::new();
        if chance.below(2) == 0 && left != (0, 0) {
            let moment = Duration::from_millis(chance.below(45_000));
            thread::sleep(moment);
            let lost = event.strike(&mut guest, &mut chance);
            again = format!(", again {moment:.0?} into the boot ({} of {})", lost.1, lost.0);
            booting += 1;
            all_lost += lost.1;
        }
        acknowledged.check(&maps(&guest), seed);
        guest.wait_ready(&kubectl);
        tally.survived(seed, event);
        println!(
            "{board}: {}, seed {seed}: {written} writes acknowledged, {} of {} unflushed sectors lost{again}; Ready again after {:.0?}",
            event.name(),
            lost.1,
            lost.0,
            guest.since_power_on(),
        );
    }
    wait_running(&guest, &kubectl, "hello");
    println!(
        "{board}: {cuts} cuts amid writes, {lossy} of them lost something, {resets} resets, {booting} more of both in the boot; {all_lost} \
         sectors lost, {} acknowledged writes, none lost; the pod runs",
        acknowledged.count
    );
    println!(
        "{board}: this binary has survived {} cuts and {} resets by all runs; the next seed is {}",
        tally.count(Event::Cut),
        tally.count(Event::Reset),
        tally.next_seed()
    );
    guest.shut_down();
    println!("{board}: shut down");
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_tests::server::scratch;

    #[test]
    fn a_tally_goes_on_where_it_ended_and_counts_one_binary() {
        let dir = scratch();
        let file = dir.join("survived");
        let mut tally = Tally::read(file.clone(), "old".to_owned());
        assert_eq!(tally.next_seed(), FIRST_SEED);
        tally.survived(40, Event::Cut);
        let mut tally = Tally::read(file.clone(), "new".to_owned());
        tally.survived(41, Event::Reset);
        tally.survived(42, Event::Cut);
        let tally = Tally::read(file, "new".to_owned());
        assert_eq!((tally.next_seed(), tally.count(Event::Cut), tally.count(Event::Reset)), (43, 1, 1));
        fs::remove_dir_all(dir).expect("it is there");
    }
}
