//! What an idle node may cost, held: memory, wake-ups, bytes written. Counts that are stable on a busy machine too;
//! `./dev bench` prints them with the times that are not.
use mote_size_report::budget::{HOST, Specification};
use mote_tests::{
    Machine, Node,
    usage::{Memory, Usage},
};
use std::{path::Path, thread, time::Duration};

/// From Ready until what the start brought is done.
const SETTLE_SECONDS: u64 = 20;
const IDLE_SECONDS: u64 = 30;
const SMALL_RAM_MB: u64 = 512;

fn check(node: &Node) {
    let specification = Specification::embedded();
    node.kubectl.wait_for_account();
    thread::sleep(Duration::from_secs(SETTLE_SECONDS));
    let before = Usage::of(node);
    thread::sleep(Duration::from_secs(IDLE_SECONDS));
    let after = Usage::of(node);
    // The nodes of this suite share the binary's pages, which would flatter the PSS of each.
    let Memory { resident_kb, anonymous_kb, .. } = Memory::of(node);
    let wake_ups = (after.wake_ups - before.wake_ups) * 60 / IDLE_SECONDS;
    println!("idle: {resident_kb} kB resident, {anonymous_kb} kB anonymous, {wake_ups} wake-ups a minute");
    let check = |what: &str, measured: u64| {
        let at_most = specification.board(HOST, what);
        assert!(measured <= at_most, "{what}: {measured}, over {at_most}");
    };
    check("PSS idle kB", resident_kb);
    check("anonymous idle kB", anonymous_kb);
    check("wake-ups a minute", wake_ups);
    assert_eq!(after.written_bytes, before.written_bytes, "an idle node wrote to the disk; log:\n{}", node.log());
}

#[test]
fn an_idle_node_keeps_to_its_budget() {
    check(&Node::up("idle", ""));
}

/// The bounds come from the profile and not from the machine: with 512 MB, as /proc/meminfo and the memory controller
/// have it, the node comes up and costs the same.
#[test]
fn an_idle_node_with_512_mb_keeps_to_the_same() {
    let machine = Machine::up("idle-small");
    let kb = SMALL_RAM_MB * 1024;
    machine.sh(&format!(
        "sed 's/^MemTotal:.*/MemTotal: {kb} kB/; s/^MemFree:.*/MemFree: {free} kB/; s/^MemAvailable:.*/MemAvailable: {free} kB/' \
         /proc/meminfo >/run/meminfo && mount --bind /run/meminfo /proc/meminfo",
        free = kb / 2
    ));
    let limits = ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"];
    let root = format!("/proc/{}/root", machine.first());
    let limit = limits.iter().find(|path| Path::new(&format!("{root}{path}")).exists());
    if let Some(path) = limit {
        machine.sh(&format!("echo {SMALL_RAM_MB}M >{path}"));
    }
    let node = Node::on(machine, "");
    let memory = node.kubectl.ok("get node -o jsonpath={.items[0].status.capacity.memory}");
    assert_eq!(memory, format!("{SMALL_RAM_MB}Mi"));
    check(&node);
}
