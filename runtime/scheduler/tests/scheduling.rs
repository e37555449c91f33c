//! The scheduler over a real API server with its store in memory.
#[path = "../../controllers/tests/fixture/mod.rs"]
mod fixture;

use fixture::{Cluster, NODE};
use mote_api::Sub;
use mote_schema::{Value, json};

fn start(name: &str) -> Cluster {
    let cluster = Cluster::new(name);
    cluster.create("serviceaccounts", json!({"metadata": {"name": "default"}}));
    mote_scheduler::start(&cluster.client);
    cluster
}

fn pod(name: &str, cpu: &str, priority: i64) -> Value {
    let class = if priority > 0 { json!("important") } else { Value::Null };
    json!({"metadata": {"name": name}, "spec": {"priorityClassName": class, "containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": cpu}}}]}})
}

fn scheduled(cluster: &Cluster, name: &str) -> Value {
    let pod = cluster.get("pods", name).unwrap_or_default();
    let list = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    list.into_iter().find(|c| c["type"] == "PodScheduled").unwrap_or_default()
}

fn node_of(cluster: &Cluster, name: &str) -> Value {
    cluster.get("pods", name).unwrap_or_default()["spec"]["nodeName"].clone()
}

#[test]
fn pods_wait_for_what_they_need() {
    let cluster = start("scheduler-wait");
    cluster.create("pods", pod("a", "3", 0));
    cluster.until(|| scheduled(&cluster, "a"), |c| c["message"] == "no nodes available to schedule pods");
    cluster.node();
    cluster.until(|| node_of(&cluster, "a"), |node| *node == NODE);
    assert!(cluster.reasons("a").contains(&format!("Scheduled: Successfully assigned default/a to {NODE}")));

    cluster.create("pods", pod("b", "2", 0));
    let said = cluster.until(|| scheduled(&cluster, "b"), |c| c["reason"] == "Unschedulable");
    assert_eq!(
        said["message"],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    cluster.create("pods", pod("huge", "100", 0));
    let said = cluster.until(|| scheduled(&cluster, "huge"), |c| c["reason"] == "Unschedulable");
    assert_eq!(
        said["message"],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 Preemption is not helpful for scheduling."
    );
    // It is no longer wanted, and must not be in the way of anything.
    cluster.delete("pods", "huge", "Background");
    cluster.until_quiet();
    // Room is made, and the waiting pod goes in by itself.
    cluster.patch("pods", "a", Sub::Status, json!({"status": {"phase": "Succeeded"}}));
    cluster.until(|| node_of(&cluster, "b"), |node| *node == NODE);
}

#[test]
fn the_important_make_room() {
    let cluster = start("scheduler-preempt");
    cluster.node();
    cluster.create("priorityclasses", json!({"metadata": {"name": "important"}, "value": 1000}));
    cluster.create("pods", pod("low", "3", 0));
    cluster.until(|| node_of(&cluster, "low"), |node| *node == NODE);
    cluster.create("pods", pod("high", "3", 1000));
    let victim = cluster.until(
        || cluster.get("pods", "low").unwrap_or_default(),
        |p| p.is_null() || p["metadata"]["deletionTimestamp"].is_string(),
    );
    if !victim.is_null() {
        let list = victim["status"]["conditions"].as_array().unwrap();
        assert!(list.iter().any(|c| c["reason"] == "PreemptionByScheduler"));
        assert_eq!(cluster.get("pods", "high").unwrap()["status"]["nominatedNodeName"], NODE);
    }
    cluster.until(
        || {
            cluster.play_kubelet(true);
            node_of(&cluster, "high")
        },
        |node| *node == NODE,
    );
}

#[test]
fn gates_hold() {
    let cluster = start("scheduler-gates");
    cluster.node();
    let mut gated = pod("a", "1", 0);
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    cluster.create("pods", gated);
    cluster.until(|| scheduled(&cluster, "a"), |c| c["reason"] == "SchedulingGated");
    cluster.patch("pods", "a", Sub::Main, json!({"spec": {"schedulingGates": null}}));
    cluster.until(|| node_of(&cluster, "a"), |node| *node == NODE);
}
