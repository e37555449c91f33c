//! `./dev boards BOARD [MB]`: a board under QEMU from power-on to a running pod, what its node keeps when the power is cut while clients
//! write, and a clean shutdown. MOTE_CUTS says how often the power fails; every second time it also fails during the boot after.
use mote_tests::{guest::Guest, http::Client};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// A pod from the image that came with the system.
const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec:
  containers:
  - {name: hello, image: "localhost/busybox:1", imagePullPolicy: Never, command: [sh, -c, "while :; do sleep 3600; done"]}
"#;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn map(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x".repeat(900)}})
        .to_string()
}

/// Creates until the board is gone; the names that were acknowledged.
fn write(client: &Client, round: u64, stop: &AtomicBool) -> Vec<String> {
    let mut names = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let name = format!("cut-{round}-{}", names.len());
        match client.try_request("POST", MAPS, &[("Content-Type", "application/json")], map(&name).as_bytes()) {
            Ok(answer) if answer.code == 201 => names.push(name),
            _ => break,
        }
    }
    names
}

fn main() {
    let board = std::env::var("MOTE_BOARD").expect("MOTE_BOARD is set; run ./dev boards");
    let memory_mb = number("MOTE_BOARD_MB", 1024) as u32;
    let mut guest = Guest::start(&board, memory_mb);
    let kubectl = guest.kubectl();
    println!("{board}: credentials {:.0?} after power-on", guest.since_power_on());
    guest.wait_ready(&kubectl);
    println!("{board}: Ready {:.0?} after power-on", guest.since_power_on());
    guest.eventually("the default account", || kubectl.field("serviceaccount/default", ".metadata.name").map(drop));
    kubectl.apply(POD);
    let running = |guest: &Guest| {
        guest.eventually("the pod runs", || match kubectl.field("pod/hello", ".status.phase") {
            Ok(phase) if phase == "Running" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    running(&guest);
    println!("{board}: the pod runs {:.0?} after power-on", guest.since_power_on());
    let memory = "cat /proc/meminfo /proc/$(systemctl show -P MainPID mote)/smaps_rollup";
    for line in guest.shell(memory).expect("the shell answers").lines() {
        if ["MemTotal:", "MemAvailable:", "Pss:", "Anonymous:"].iter().any(|key| line.starts_with(key)) {
            println!("{board}: {line}");
        }
    }

    let (cuts, seed) = (number("MOTE_CUTS", 1), number("MOTE_CUTS_SEED", 20));
    let mut acknowledged = Vec::new();
    for round in 0..cuts {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (Client::new(&guest.kubeconfig()), stop.clone());
        let writer = thread::spawn(move || write(&client, round, &stopped));
        thread::sleep(Duration::from_millis(4000 + (seed + round) * 7919 % 4000));
        let (unflushed, lost) = guest.cut(seed + round);
        stop.store(true, Ordering::Relaxed);
        let names = writer.join().expect("no answer was wrong");
        println!(
            "{board}: cut {round}: {} creates acknowledged, {lost} of {unflushed} unflushed sectors lost",
            names.len()
        );
        assert!(!names.is_empty(), "nothing was acknowledged before the cut");
        acknowledged.extend(names);
        guest.power_on();
        if round % 2 == 1 {
            let moment = Duration::from_millis((seed + round) * 104_729 % 45_000);
            thread::sleep(moment);
            let (unflushed, lost) = guest.cut(seed ^ round);
            println!("{board}: cut {moment:.0?} after power-on: {lost} of {unflushed} unflushed sectors lost");
            guest.power_on();
        }
        let listed = guest.eventually("the API serves again", || {
            let answer =
                Client::new(&guest.kubeconfig()).try_request("GET", MAPS, &[], b"").map_err(|e| e.to_string())?;
            if answer.code == 200 { Ok(answer.json()) } else { Err(answer.text()) }
        });
        let items = listed["items"].as_array().expect("a list");
        for name in &acknowledged {
            assert!(
                items.iter().any(|item| item["metadata"]["name"] == name.as_str()),
                "seed {seed}, cut {round}: {name} is lost"
            );
        }
        guest.wait_ready(&kubectl);
        println!("{board}: Ready again {:.0?} after power-on", guest.since_power_on());
    }
    running(&guest);
    println!("{board}: all {} creates are there; the pod runs again", acknowledged.len());
    guest.shut_down();
    println!("{board}: shut down");
}
