//! Pods that want more memory than a board of 512 MB has: they go in upstream's order, the ones that keep to what they asked for stay,
//! the API answers all the time, and the kernel kills neither Mote nor the runtime.
use super::{start, wait_running};
use mote_tests::{guest::Setup, http::Client};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// `modest` asks for more than it uses. Both others ask for nothing: of those the lower priority goes first, though it takes less
/// (pkg/kubelet/eviction/helpers.go, rankMemoryPressure). What they take cannot be compressed.
const PODS: &str = r#"
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: low}
value: -10
---
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "localhost/busybox:1", command: [sleep, "100000"], resources: {requests: {memory: 64Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: low}
spec:
  priorityClassName: low
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: m, emptyDir: {medium: Memory}}]
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "dd if=/dev/urandom of=/m/x bs=1M count=60; sleep 100000"]
    volumeMounts: [{name: m, mountPath: /m}]
"#;
/// Takes 8 MB every three seconds, up to most of the board.
const HOG: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: hog}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: m, emptyDir: {medium: Memory}}]
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, "for n in $(seq 50); do dd if=/dev/urandom of=/m/$n bs=1M count=8; sleep 3; done; sleep 100000"]
    volumeMounts: [{name: m, mountPath: /m}]
"#;
const PROCESSES: &str = "systemctl show -P MainPID mote containerd | tr '\\n' ' '";

pub fn run(setup: Setup) {
    let board = setup.board.clone();
    let (mut guest, kubectl) = start(setup);
    let processes = guest.eventually("the processes", || guest.shell(PROCESSES));
    kubectl.apply(PODS);
    wait_running(&guest, &kubectl, "modest");
    wait_running(&guest, &kubectl, "low");
    let asking = Arc::new(AtomicBool::new(true));
    let (client, goes_on) = (Client::new(&guest.kubeconfig()), asking.clone());
    let asker = thread::spawn(move || {
        let (mut asked, mut unanswered, mut longest) = (0, Vec::new(), Duration::ZERO);
        while goes_on.load(Ordering::Relaxed) {
            let start = Instant::now();
            match client.try_request("GET", "/readyz", &[], b"") {
                Ok(answer) if answer.code == 200 => asked += 1,
                Ok(answer) => unanswered.push(format!("{} {}", answer.code, answer.text())),
                Err(error) => unanswered.push(error.to_string()),
            }
            longest = longest.max(start.elapsed());
            thread::sleep(Duration::from_millis(500));
        }
        (asked, unanswered, longest)
    });
    kubectl.apply(HOG);
    let evicted = |pod: &str| match kubectl.field(&format!("pod/{pod}"), ".status.reason") {
        Ok(reason) if reason == "Evicted" => Ok(()),
        other => Err(format!("{other:?}; {}", guest.shell("free -m").unwrap_or_default())),
    };
    guest.eventually("the pod of lower priority goes", || evicted("low"));
    println!("{board}: the pod of lower priority was evicted; {}", available(&guest));
    assert!(evicted("hog").is_err(), "both went at once: one was enough");
    guest.eventually("the greedy pod goes", || evicted("hog"));
    assert!(evicted("modest").is_err(), "the pod that keeps to what it asked for went with the greedy one");
    println!("{board}: {}", kubectl.field("pod/hog", ".status.message").unwrap_or_default());
    guest.eventually("the pressure is over", || {
        match kubectl.field("nodes", ".items[0].status.conditions[?(@.type==\"MemoryPressure\")].status") {
            Ok(status) if status == "False" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    asking.store(false, Ordering::Relaxed);
    let (asked, unanswered, longest) = asker.join().expect("whoever asks does not panic");
    println!("{board}: /readyz answered {asked} times, the slowest in {longest:.1?}; {}", available(&guest));
    assert!(unanswered.is_empty() && asked > 0, "/readyz: {unanswered:?}");
    assert_eq!(guest.shell(PROCESSES).as_ref(), Ok(&processes), "Mote or the runtime was started again");
    // As upstream's, the kubelet looks for more half a minute after the last one went; on a slow machine its memory is not back yet.
    println!("{board}: the modest pod is {}", kubectl.field("pod/modest", ".status.phase").unwrap_or_else(|said| said));
    let protected = "for unit in mote containerd; do cat /proc/$(systemctl show -P MainPID $unit)/oom_score_adj; done; \
        grep -h oom_kill /sys/fs/cgroup/mote.service/memory.events; dmesg | grep -c 'Killed process' || true";
    println!("{board}: {}", guest.shell(protected).unwrap_or_else(|said| said).trim().replace('\n', ", "));
    guest.shut_down();
}

fn available(guest: &mote_tests::guest::Guest) -> String {
    let line = guest.shell("grep MemAvailable /proc/meminfo").unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
