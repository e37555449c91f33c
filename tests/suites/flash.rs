//! Flash as a budget, on a whole node: what pods cost the card when they come and when they run, and a controller that writes
//! all the time. Held by counts of the store's own. The kernel's count for the process is of no use but for nothing at all: where
//! a file system has large folios (ext4 since Linux 6.16), it takes a block of 4 kB that is flushed for a folio of up to 512 kB.
use mote_tests::{Node, eventually, http::Client, usage::Usage};
use serde_json::{Value, json};
use std::{thread, time::Duration};

const PODS: u64 = 30;
/// Each pod is created and bound: a flush of 4 kB for either, in which its status rides, and its share of the database.
const DURABLE_COMMITS_A_POD: u64 = 2;
const WRITTEN_BYTES_A_POD: u64 = 32_000;
/// What the node's own parts may do at the same time.
const OTHER_COMMITS: u64 = 10;
const SETTLE_SECONDS: u64 = 20;
const IDLE_SECONDS: u64 = 60;
const MERGE: [(&str, &str); 1] = [("Content-Type", "application/merge-patch+json")];

/// A figure of the store's, by its labels if it has any.
fn figure(client: &Client, name: &str) -> u64 {
    let text = client.get("/metrics").text();
    let value = text.lines().find_map(|line| line.strip_prefix("mote_store_")?.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default() as u64
}

fn pod(n: u64) -> Value {
    let mut container = json!({"name": "main", "image": "localhost/busybox:1", "command": ["sleep", "100000"]});
    if n.is_multiple_of(6) {
        container["readinessProbe"] = json!({"exec": {"command": ["true"]}, "periodSeconds": 10});
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("steady-{n}"), "labels": {"app": "steady"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}})
}

#[test]
fn pods_cost_the_card_little_when_they_come_and_nothing_when_they_run() {
    let node = Node::up("flash", "");
    node.kubectl.wait_for_account();
    thread::sleep(Duration::from_secs(SETTLE_SECONDS));
    node.in_network(|client| {
        let counts =
            || ["written_bytes_total", "commits_durable_total", "rounds_total"].map(|name| figure(client, name));
        let before = counts();
        for n in 0..PODS {
            let made = client.post("/api/v1/namespaces/default/pods", &pod(n));
            assert_eq!(made.code, 201, "{}", made.text());
        }
        let ready = "get pods -l app=steady -o jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        eventually("all pods are ready", 180, || {
            let ready = node.kubectl.ok_args(&ready.splitn(6, ' ').collect::<Vec<_>>());
            let count = ready.split(' ').filter(|status| *status == "True").count();
            if count as u64 == PODS { Ok(()) } else { Err(format!("{count} are")) }
        });
        thread::sleep(Duration::from_secs(SETTLE_SECONDS));
        let after = counts();
        let [bytes, durable, rounds] = std::array::from_fn(|at| after[at] - before[at]);
        println!("{} bytes and {durable} durable commits for {PODS} pods, {rounds} rounds", bytes);
        assert!(durable <= DURABLE_COMMITS_A_POD * PODS + OTHER_COMMITS, "{durable} durable commits\n{}", node.log());
        assert!(bytes <= WRITTEN_BYTES_A_POD * PODS, "{bytes} bytes");
        // Who wrote is told by kind and class.
        assert!(figure(client, "resource_commits_total{class=\"durable\",resource=\"pods\"}") >= 2 * PODS);
        assert!(figure(client, "resource_bytes_total{resource=\"pods\"}") > 1000 * PODS);

        let (before, used) = (counts(), Usage::of(&node));
        thread::sleep(Duration::from_secs(IDLE_SECONDS));
        assert_eq!(counts(), before, "{PODS} pods that only run make the store write\n{}", node.log());
        assert_eq!(Usage::of(&node).written_bytes, used.written_bytes, "something beside the store writes");
    });
}

/// A profile with a bound: 1,400 MB a day, of which two hours' share may be written at once.
const BOARD: &str = "board: rpi4-2gb\n";
const BURST_BYTES: u64 = 1_400_000_000 / 12;

#[test]
fn a_controller_that_writes_all_the_time_is_noticed_and_its_status_coalesces() {
    let node = Node::up("wear", BOARD);
    node.kubectl.wait_for_account();
    let condition = |field: &str| {
        node.kubectl.field("nodes", &format!(".items[0].status.conditions[?(@.type==\"StorePressure\")].{field}"))
    };
    node.in_network(|client| {
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "storm"}, "spec": {"replicas": 0,
            "selector": {"matchLabels": {"app": "storm"}}, "template": {"metadata": {"labels": {"app": "storm"}},
            "spec": {"containers": [{"name": "main", "image": "localhost/busybox:1"}]}}}});
        assert_eq!(client.post("/apis/apps/v1/namespaces/default/deployments", &deployment).code, 201);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {}});
        assert_eq!(client.post("/api/v1/namespaces/default/configmaps", &map).code, 201);
        let path = "/apis/apps/v1/namespaces/default/deployments/storm/status";
        // A minute of a controller that rewrites status ten times a second: as many commits as it asked for, and flushes in the
        // order of the time it took.
        let storm = |writes: u64| {
            let counts = || ["commits_lazy_total", "commits_durable_total", "flushes_total"].map(|name| figure(client, name));
            let before = counts();
            for n in 0..writes {
                let status = json!({"status": {"observedGeneration": n + 1, "conditions": [{"type": "Turning", "status": "True",
                    "reason": "Again", "message": format!("round {n}")}]}});
                let answer = client.request("PATCH", path, &MERGE, status.to_string().as_bytes());
                assert_eq!(answer.code, 200, "{}", answer.text());
            }
            let after = counts();
            let [lazy, durable, flushes] = std::array::from_fn(|at| after[at] - before[at]);
            println!("{lazy} lazy and {durable} durable commits in {flushes} flushes");
            assert!(lazy >= writes, "{lazy} of {writes}");
            assert!(flushes - durable.min(flushes) <= writes / 10, "{flushes} flushes, {durable} durable commits, {lazy} lazy ones");
        };
        storm(600);
        assert_eq!((figure(client, "over_budget"), condition("status")), (0, Ok("False".to_owned())));

        // What cannot wait is written at once, whatever it costs, and that it is too much is told.
        let text = "x".repeat(900_000);
        let write = || {
            let patch = json!({"data": {"text": text, "n": figure(client, "written_bytes_total").to_string()}});
            let path = "/api/v1/namespaces/default/configmaps/large";
            let answer = client.request("PATCH", path, &MERGE, patch.to_string().as_bytes());
            assert_eq!(answer.code, 200, "{}", answer.text());
        };
        let writes = eventually("the budget is used up", 120, || {
            write();
            match figure(client, "over_budget") {
                1 => Ok(figure(client, "written_bytes_total")),
                _ => Err(format!("{} bytes written", figure(client, "written_bytes_total"))),
            }
        });
        // What was a moment over it is paid for before anybody looks: ten minutes are not.
        (0..10).for_each(|_| write());
        assert!(writes > BURST_BYTES, "{writes}");
        storm(600);
    });
    eventually("the node's condition tells", 60, || match (condition("reason")?, condition("message")?) {
        (reason, message) if reason == "FlashBudgetExceeded" && message.contains("configmaps") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(condition("status").as_deref(), Ok("True"));
    let status = |more: &str| node.machine.sh(&format!("'{}' status {more}", mote_tests::binary().display()));
    assert!(status("").contains("exceeded"), "{}", status(""));
    let parsed: Value = serde_json::from_str(&status("-o json")).expect("JSON");
    assert_eq!(parsed["flash"]["overBudget"], true, "{parsed}");
    assert_eq!(parsed["flash"]["budgetBytesPerDay"], 1_400_000_000u64);
}
