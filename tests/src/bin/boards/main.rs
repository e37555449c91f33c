//! `./dev boards [WHAT] BOARD [CUTS [RESETS]]`: a board's image under QEMU. Each of these starts with a disk that was never booted:
//!
//! - `boot`: from power-on to a running pod, what was dropped on the boot partition, what the node takes, and a clean shutdown
//! - `power`: the power fails, and somebody resets the board, CUTS and RESETS times (as many), while clients write
//! - `update`: the other slot's system, one that is well and ones that are not
//! - `squeeze`: pods that want more memory than there is
//! - `smoke`: a Raspberry Pi's kernel, device tree and initramfs, without its disk
mod plug;
mod power;
mod smoke;
mod squeeze;
mod update;

use mote_size_report::budget::Specification;
use mote_tests::{
    Kubectl,
    guest::{Guest, Setup},
};

/// A pod from the image that came with the system.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  containers:
  - {name: hello, image: "localhost/busybox:1", imagePullPolicy: Never, command: [sh, -c, "while :; do sleep 3600; done"]}
"#;

/// Of 512 MB, and so of all that is larger.
const LEFT_FOR_PODS_KB: u64 = 300 * 1024;

/// From power-on to a node that is Ready.
fn start(setup: Setup) -> (Guest, Kubectl) {
    let board = setup.board.clone();
    let guest = Guest::start(setup);
    let kubectl = guest.kubectl();
    guest.wait_ready(&kubectl);
    println!("{board}: Ready {:.0?} after power-on", guest.since_power_on());
    guest.eventually("the default account", || kubectl.field("serviceaccount/default", ".metadata.name").map(drop));
    (guest, kubectl)
}

fn wait_running(guest: &Guest, kubectl: &Kubectl, pod: &str) {
    guest.eventually("the pod runs", || match kubectl.field(&format!("pod/{pod}"), ".status.phase") {
        Ok(phase) if phase == "Running" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// What Mote takes with a pod or two, which the idle node may not take, and what is left for pods.
fn hold_memory(guest: &Guest, board: &str) {
    let command = "cat /proc/meminfo /proc/$(systemctl show -P MainPID mote)/smaps_rollup";
    let text = guest.shell(command).expect("the shell answers");
    let kb = |key: &str| -> u64 {
        let mut words = text.lines().filter_map(|line| line.strip_prefix(key)?.split_whitespace().next());
        words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key} in {text}"))
    };
    let (pss, anonymous, total, left) = (kb("Pss:"), kb("Anonymous:"), kb("MemTotal:"), kb("MemAvailable:"));
    println!("{board}: Mote takes {pss} kB PSS, {anonymous} kB anonymous; {left} of {total} kB are available");
    let specification = Specification::embedded();
    assert!(pss <= specification.board(board, "PSS idle kB"), "{pss} kB PSS");
    assert!(anonymous <= specification.board(board, "anonymous idle kB"), "{anonymous} kB anonymous");
    assert!(left >= LEFT_FOR_PODS_KB, "{left} kB are available");
}

fn boot(mut setup: Setup) {
    let board = setup.board.clone();
    setup.dropped.extend(plug::files(&board));
    let (mut guest, kubectl) = start(setup);
    kubectl.apply(POD);
    wait_running(&guest, &kubectl, "hello");
    println!("{board}: the pod runs {:.0?} after power-on", guest.since_power_on());
    plug::check(&guest);
    println!(
        "{board}: all that was dropped on the boot partition counts {:.0?} after power-on",
        guest.since_power_on()
    );
    hold_memory(&guest, &board);
    let times = guest.shell("systemd-analyze time; systemctl show -P ActiveEnterTimestampMonotonic mote");
    println!("{board}: {}", times.expect("the shell answers").trim().replace('\n', "; "));
    guest.shut_down();
    println!("{board}: shut down");
}

fn main() {
    let text = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set; run ./dev boards"));
    let number = |name: &str, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let board = text("MOTE_BOARD");
    let profile = mote_boards::named(&board).unwrap_or_else(|| panic!("{board} is no board"));
    let setup = Setup {
        // What is sold: the kernel leaves programs less of it.
        memory_mb: number("MOTE_BOARD_MB", profile.budget.ram_mb.next_power_of_two().min(2048)) as u32,
        board,
        loader: std::env::var("MOTE_LOADER").is_ok_and(|text| text == "1"),
        second: None,
        dropped: Vec::new(),
    };
    match text("MOTE_BOARDS").as_str() {
        "boot" => boot(setup),
        "power" => {
            let cuts = number("MOTE_CUTS", 10);
            let seed = std::env::var("MOTE_CUTS_SEED").ok().and_then(|text| text.parse().ok());
            power::run(setup, cuts, number("MOTE_RESETS", cuts), seed)
        }
        "update" => update::run(setup),
        "squeeze" => squeeze::run(setup),
        "smoke" => smoke::run(&setup.board),
        other => panic!("{other}: boot, power, update, squeeze or smoke"),
    }
}
