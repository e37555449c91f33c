//! What a running node costs: memory, processor, wake-ups, bytes written; read from the kernel's books.
use crate::Node;
use std::{fs, path::PathBuf};

/// Running totals of the node's process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu_ticks: u64,
    /// Times a thread of it gave the processor away of its own accord, and so had to be woken.
    pub wake_ups: u64,
    pub written_bytes: u64,
}

impl Usage {
    pub fn of(node: &Node) -> Usage {
        let sum = |text: &str, key: &str| -> u64 {
            text.lines().filter_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok()).sum()
        };
        let stat = read(node, "stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        let tasks = fs::read_dir(file(node, "task")).expect("the node runs");
        let tasks = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
        Usage {
            cpu_ticks: ticks(11) + ticks(12),
            wake_ups: tasks.map(|status| sum(&status, "voluntary_ctxt_switches:")).sum(),
            written_bytes: sum(&read(node, "io"), "write_bytes:"),
        }
    }
}

/// Its share of the memory, in kB: what it shares with others counts in parts.
pub fn pss_kb(node: &Node) -> u64 {
    memory_kb(node, "Pss:")
}

/// The same with what is shared counted whole, and so no less than `pss_kb` whoever else runs the same binary.
pub fn rss_kb(node: &Node) -> u64 {
    memory_kb(node, "Rss:")
}

fn memory_kb(node: &Node, field: &str) -> u64 {
    field_kb(&read(node, "smaps_rollup"), field)
}

fn field_kb(text: &str, field: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel counts it");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What a process has in memory, in kB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident_kb: u64,
    pub proportional_kb: u64,
    /// What is in no file, and so cannot be given back but to a swap.
    pub anonymous_kb: u64,
}

impl Memory {
    pub fn of(node: &Node) -> Memory {
        let kb = |field| memory_kb(node, field);
        Memory { resident_kb: kb("Rss:"), proportional_kb: kb("Pss:"), anonymous_kb: kb("Anonymous:") }
    }

    /// Of a process of this machine.
    pub fn of_process(pid: u32) -> Memory {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process lives");
        let kb = |field| field_kb(&text, field);
        Memory { resident_kb: kb("Rss:"), proportional_kb: kb("Pss:"), anonymous_kb: kb("Anonymous:") }
    }
}

/// The node's process in this machine's numbers.
pub fn host_pid(node: &Node) -> u32 {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let (wanted, inside) = (namespace(&node.machine.first().to_string()), node.pid());
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
    let found = names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let last = status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last());
        last == Some(&inside) && namespace(pid) == wanted
    });
    found.and_then(|pid| pid.parse().ok()).expect("the node runs")
}

pub fn threads(node: &Node) -> usize {
    fs::read_dir(file(node, "task")).expect("the node runs").count()
}

fn read(node: &Node, name: &str) -> String {
    let path = file(node, name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file of the node's process, seen through its machine's /proc: nothing is run there to read it, so what is read
/// is not changed by the reading.
fn file(node: &Node, name: &str) -> PathBuf {
    format!("/proc/{}/root/proc/{}/{name}", node.machine.first(), node.pid()).into()
}
