//! What a node survives: kill -9 under load, a runtime that goes and comes back, a machine without a network.
use mote_tests::{Machine, Node, eventually};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: 'localhost/busybox:1', command: [sleep, '100000']}]
";

/// Container of each pod, and how often it was restarted.
fn containers(node: &Node) -> BTreeMap<String, String> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let text = node.kubectl.ok_args(&["get", "pods", "-l", "app=web", "-o", path]);
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect()
}

/// Ten times at random moments while somebody writes: what was acknowledged is there afterwards, and no container
/// was restarted or replaced.
#[test]
fn kill_9_ten_times_under_load_loses_nothing() {
    let mut node = Node::up("kill", "");
    node.kubectl.wait_for_account();
    node.kubectl.apply(WEB);
    node.kubectl.ok("rollout status deployment/web --timeout=60s");
    let before = containers(&node);
    assert_eq!(before.len(), 3);

    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (stop, kubectl) = (stop.clone(), node.kubectl.clone());
        move || {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if kubectl.run(&format!("create configmap load-{n} --from-literal=n={n}")).success {
                    acknowledged.push(n);
                }
            }
            acknowledged
        }
    });
    for _ in 0..10 {
        let noise = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
        thread::sleep(Duration::from_millis(100 + u64::from(noise % 900)));
        node.stop("KILL");
        node.start();
        eventually("it serves again", 20, || {
            let answer = node.kubectl.run("get --raw /readyz");
            if answer.success { Ok(()) } else { Err(answer.to_string()) }
        });
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.join().unwrap();
    assert!(acknowledged.len() > 10, "too little load: {acknowledged:?}");

    let there = node.kubectl.ok("get configmaps -o name");
    let lost: Vec<_> =
        acknowledged.iter().filter(|n| !there.lines().any(|line| line == format!("configmap/load-{n}"))).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    node.wait_ready();
    eventually("all pods are as before", 30, || {
        let after = containers(&node);
        if after == before { Ok(()) } else { Err(format!("{before:?}\n{after:?}")) }
    });
    node.kubectl.ok("rollout status deployment/web --timeout=10s");
    // And it still works: a new pod starts.
    node.kubectl.ok("scale deployment/web --replicas=4");
    node.kubectl.eventually_field("deployment/web", ".status.readyReplicas", "4", 30);
}

#[test]
fn a_runtime_that_goes_and_comes_back() {
    let mut node = Node::up("runtime", "");
    node.kubectl.wait_for_account();
    node.kubectl.apply(WEB);
    node.kubectl.ok("rollout status deployment/web --timeout=60s");
    let before = containers(&node);

    node.machine.runtime("kill");
    let condition = |field: &str| {
        node.kubectl.field("nodes", &format!(".items[0].status.conditions[?(@.type==\"Ready\")].{field}"))
    };
    eventually("NotReady with the reason", 40, || match (condition("status")?, condition("message")?) {
        (status, message) if status == "False" && message.to_lowercase().contains("runtime") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    node.kubectl.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: meanwhile}}");
    node.machine.runtime("start");
    node.wait_ready();
    eventually("the same containers", 30, || {
        let after = containers(&node);
        if after == before { Ok(()) } else { Err(format!("{before:?}\n{after:?}")) }
    });

    // Stopped and started in order: the same.
    node.stop("TERM");
    assert_eq!(node.machine.sh("ctr -n k8s.io tasks ls -q | wc -l").trim(), "6", "three containers, three sandboxes");
    node.start();
    node.wait_ready();
    assert_eq!(containers(&node), before);
}

/// No address but the loopback's, no route, no resolver.
#[test]
fn a_machine_without_a_network() {
    let mut node = Node::up("alone", "");
    node.stop("TERM");
    node.machine.sh("ip link delete eth0; : >/etc/resolv.conf; rm -rf /var/lib/mote/*");
    node.start();
    eventually("it serves", 20, || {
        let answer = node.kubectl.run("get --raw /readyz");
        if answer.success { Ok(()) } else { Err(answer.to_string()) }
    });
    node.wait_ready();
    node.kubectl.wait_for_account();
    node.kubectl.apply(WEB);
    node.kubectl.ok("rollout status deployment/web --timeout=60s");
}

#[test]
fn the_socket_of_no_runtime_is_waited_for() {
    let mut node = Node::up("absent", "runtime: {endpoint: 'unix:///run/containerd/containerd.sock'}\n");
    node.stop("TERM");
    node.machine.runtime("stop");
    node.start();
    eventually("the API serves without a runtime", 20, || {
        let answer = node.kubectl.run("get --raw /readyz");
        if answer.success { Ok(()) } else { Err(answer.to_string()) }
    });
    node.kubectl.eventually_field("nodes", ".items[0].status.conditions[?(@.type==\"Ready\")].status", "False", 20);
    node.machine.runtime("start");
    node.wait_ready();
}

/// A disk that fills up: writes are refused with the reason, reads and watches go on, and room makes all well again.
#[test]
fn a_full_disk_and_a_read_only_one() {
    let mut node = Node::up("disk", "");
    node.stop("TERM");
    node.machine.sh("mount -t tmpfs -o size=12m small /var/lib/mote");
    node.start();
    // The administrator's file is inside the small disk now, out of this machine's sight.
    let copy = || node.machine.sh("cat /var/lib/mote/kubeconfig");
    let kubeconfig = eventually("a kubeconfig", 20, || {
        match node.machine.exec(&["test", "-s", "/var/lib/mote/kubeconfig"]).status.success() {
            true => Ok(copy()),
            false => Err("none".to_owned()),
        }
    });
    std::fs::write(node.machine.state().join("files/mote/kubeconfig"), kubeconfig).unwrap();
    node.wait_ready();
    node.kubectl.wait_for_account();
    node.kubectl.ok("create configmap before");
    node.machine.sh("busybox dd if=/dev/zero of=/var/lib/mote/fill bs=1k 2>/dev/null || true");
    // What the store holds in reserve and gives back when it tidies up takes some writes still: none of them is deleted.
    let large = "x".repeat(60_000);
    let refused = (0..200)
        .find_map(|round| {
            let answer = node.kubectl.run(&format!("create configmap full-{round} --from-literal=a={large}"));
            (!answer.success).then_some(answer.stderr)
        })
        .expect("a write is refused");
    let refused = refused.to_lowercase();
    assert!(refused.contains("full") || refused.contains("no space"), "{refused}");
    node.kubectl.ok("get configmap before");
    node.kubectl.ok("get --raw /livez");
    let pressure = ".items[0].status.conditions[?(@.type==\"StorePressure\")]";
    node.kubectl.eventually_field("nodes", &format!("{pressure}.reason"), "DiskFull", 60);
    node.machine.sh("rm /var/lib/mote/fill");
    eventually("writes work again", 30, || {
        let answer = node.kubectl.run("create configmap after");
        if answer.success { Ok(()) } else { Err(answer.to_string()) }
    });
    node.kubectl.eventually_field("nodes", &format!("{pressure}.status"), "False", 60);

    node.stop("TERM");
    node.machine.sh("mount -o remount,ro /var/lib/mote");
    let output = node.machine.exec(&["timeout", "10", &mote_tests::binary().display().to_string(), "run"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/var/lib/mote") && text.to_lowercase().contains("read-only"), "{text}");
}

/// Rot that no backup makes good is told in the node's condition and in an Event, all else is served, and what is written anew
/// is well again.
#[test]
fn rot_is_told_by_the_node_until_it_is_mended() {
    let mut node = Node::up("rot", "backups: {onDamage: Report}\n");
    node.kubectl.wait_for_account();
    for n in 0..5 {
        node.kubectl.ok(&format!("create configmap rot-{n} --from-literal=text=the-text-of-rot-{n}"));
    }
    node.stop("TERM");
    let file = node.machine.state().join("files/mote/store.redb");
    let (mut image, text) = (std::fs::read(&file).unwrap(), b"the-text-of-rot-3");
    let places: Vec<_> = (0..image.len()).filter(|at| image[*at..].starts_with(text)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|place| image[place] ^= 1);
    std::fs::write(&file, image).unwrap();
    node.start();
    node.wait_ready();
    let condition = ".items[0].status.conditions[?(@.type==\"StoreDamaged\")]";
    node.kubectl.eventually_field("nodes", &format!("{condition}.reason"), "StoreIsDamaged", 60);
    let message = node.kubectl.field("nodes", &format!("{condition}.message")).unwrap();
    assert_eq!(message, "damaged on the disk: configmaps/default/rot-3");
    let event = |reason: &str| {
        eventually(reason, 60, || {
            let events = node.kubectl.ok("get events -A");
            if events.contains(reason) { Ok(()) } else { Err(events) }
        });
    };
    event("StoreDamaged");
    assert_eq!(node.kubectl.ok("get configmap rot-4 -o jsonpath={.data.text}"), "the-text-of-rot-4");
    node.kubectl.ok("create configmap rot-3");
    node.kubectl.eventually_field("nodes", &format!("{condition}.status"), "False", 60);
    event("StoreRepaired");
}

const HUNGRY: &str = "
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
    command: [sh, -c, 'dd if=/dev/zero of=/m/x bs=1M count=600; sleep 100000']
    volumeMounts: [{name: m, mountPath: /m}]
---
apiVersion: v1
kind: Pod
metadata: {name: modest}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sleep, '100000']
    resources: {requests: {memory: 64Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]
  containers:
  - name: main
    image: localhost/busybox:1
    command: [sh, -c, 'dd if=/dev/zero of=/v/x bs=1M count=8; sleep 100000']
    volumeMounts: [{name: v, mountPath: /v}]
    resources: {requests: {memory: 64Mi}}
";

/// On a machine with 1 GB, as its memory controller has it, a pod that takes 600 MB goes, and the one that asked for what
/// it uses stays; one that writes more than its volume may hold goes for that.
#[test]
fn memory_runs_out_and_the_right_pod_goes() {
    let machine = Machine::up("hungry");
    let limits = ["/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"];
    let root = format!("/proc/{}/root", machine.first());
    let Some(path) = limits.iter().find(|path| Path::new(&format!("{root}{path}")).exists()) else {
        panic!("the machine has no memory controller");
    };
    machine.sh(&format!("echo 1G >{path}"));
    let config = "kubelet: {evictionHard: {memory.available: 400Mi}, evictionPressureTransitionPeriod: 5s}";
    let node = Node::on(machine, config);
    let kubectl = &node.kubectl;
    kubectl.wait_for_account();
    let memory = |list: &str| kubectl.ok(&format!("get node -o jsonpath={{.items[0].status.{list}.memory}}"));
    assert_eq!([memory("capacity"), memory("allocatable")], ["1Gi", "624Mi"].map(str::to_owned));
    kubectl.apply(HUNGRY);
    kubectl.eventually_field("pod/hog", ".status.reason", "Evicted", 120);
    let message = kubectl.field("pod/hog", ".status.message").unwrap();
    let low = "The node was low on resource: memory. Threshold quantity: 400Mi, available: ";
    assert!(message.starts_with(low), "{message}");
    let condition = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
    kubectl.eventually_field("pod/hog", condition, "TerminationByKubelet", 60);
    kubectl.eventually_field("pod/hog", ".status.phase", "Failed", 60);
    eventually("the node tells of it", 60, || {
        let events = kubectl.ok("get events -A");
        if events.contains("EvictionThresholdMet") && events.contains("Attempting to reclaim memory") {
            Ok(())
        } else {
            Err(events)
        }
    });
    kubectl.eventually_field("pod/writer", ".status.reason", "Evicted", 180);
    assert_eq!(
        kubectl.field("pod/writer", ".status.message").unwrap(),
        "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "
    );
    let pressure = ".items[0].status.conditions[?(@.type==\"MemoryPressure\")].status";
    kubectl.eventually_field("nodes", pressure, "False", 120);
    assert_eq!(kubectl.field("pod/modest", ".status.phase").unwrap(), "Running");
}
