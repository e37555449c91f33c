//! `./dev bench [IDLE_SECONDS] [PART...]`: the table of figures, each against its goal, from the release binary on this
//! machine; parts are starts, idle, pods and api, all of them unless named. One run of each unless said otherwise, so
//! read them with the load of the machine in mind.
use mote_cri::{Runtime, v1::*};
use mote_size_report::elf;
use mote_tests::{
    Machine, Node, cost, eventually,
    http::{Client, Connection, Stream},
    usage::{self, Usage},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixDatagram},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

fn main() {
    let (numbers, parts): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|text| text.parse::<u64>().is_ok());
    let idle_seconds = numbers.first().and_then(|text| text.parse().ok()).unwrap_or(60);
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|named| named == part);
    println!("{:<58}{:>16}{:>16}", "what", "measured", "goal");
    row(
        "release binary",
        fs::metadata(mote_tests::binary()).map_or(0, |file| file.len()) as f64,
        "bytes",
        "<= 7500000",
    );
    if wanted("starts") {
        starts();
    }
    if wanted("idle") {
        idle(idle_seconds);
    }
    if wanted("pods") {
        pods();
    }
    if wanted("api") {
        api();
    }
    save();
}

/// What was printed, for the file that `./dev size` reads.
static ROWS: Mutex<Vec<Value>> = Mutex::new(Vec::new());

/// In MOTE_BENCH_JSON, where that is set.
fn save() {
    let Some(file) = std::env::var_os("MOTE_BENCH_JSON") else { return };
    let binary = fs::read(mote_tests::binary()).expect("the binary can be read");
    let build_id = elf::parse(&binary).expect("an ELF file").build_id(&binary);
    let rows = std::mem::take(&mut *ROWS.lock().expect("no row panics"));
    fs::write(&file, format!("{:#}\n", json!({"buildId": build_id, "rows": rows})))
        .expect("MOTE_BENCH_JSON can be written");
}

fn row(what: &str, measured: f64, unit: &str, goal: &str) {
    let told = json!({"what": what, "measured": (measured * 100.0).round() / 100.0, "unit": unit, "goal": goal});
    ROWS.lock().expect("no row panics").push(told);
    let digits = if measured >= 100.0 { 0 } else { 2 };
    println!("{what:<58}{:>16}{goal:>16}", format!("{measured:.digits$} {unit}"));
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// From exec to what the service manager is told when /readyz is: with certificates to make, and without. The best of five.
fn starts() {
    let machine = Machine::up("starts");
    // /tmp is this machine's, so that the notification gets out.
    let dir = mote_tests::server::scratch();
    let socket = UnixDatagram::bind(dir.join("notify")).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    let line = format!(
        "echo $$ >/run/mote.pid; NOTIFY_SOCKET={}/notify exec '{}' run 2>>/run/machine/mote.log",
        dir.display(),
        mote_tests::binary().display()
    );
    let heard = |machine: &Machine| {
        // The shell and nsenter before it are not Mote's, so they are taken off: the same with `true` in its place.
        let before = Instant::now();
        machine.sh("true");
        let overhead = milliseconds(before);
        let start = Instant::now();
        let mut child = machine.command(&["sh", "-c", &line]).stdin(Stdio::null()).spawn().expect("it starts");
        let mut buffer = [0; 64];
        socket.recv(&mut buffer).expect("READY=1");
        let took = milliseconds(start) - overhead;
        machine.sh("kill $(cat /run/mote.pid)");
        child.wait().expect("it ends");
        let _ = socket.recv(&mut buffer);
        took
    };
    let best = |times: Vec<f64>| times.into_iter().fold(f64::MAX, f64::min);
    let cold = (0..5).map(|_| {
        machine.sh("rm -rf /var/lib/mote/*");
        heard(&machine)
    });
    let cold = best(cold.collect());
    row("exec to /readyz, cold (makes certificates), best of 5", cold, "ms", "<= 150");
    let warm = best((0..5).map(|_| heard(&machine)).collect());
    row("exec to /readyz, warm, best of 5", warm, "ms", "<= 60");
    let _ = fs::remove_dir_all(dir);
}

/// A node without pods that nobody asks anything.
fn idle(seconds: u64) {
    let node = Node::up("idle", "");
    node.kubectl.wait_for_account();
    thread::sleep(Duration::from_secs(15));
    row("idle node, no pods: PSS", usage::pss_kb(&node) as f64 / 1024.0, "MB", "<= 14");
    let before = Usage::of(&node);
    thread::sleep(Duration::from_secs(seconds));
    let after = Usage::of(&node);
    // SAFETY: sysconf(3) of a known name.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let minutes = seconds as f64 / 60.0;
    row("idle CPU a minute", (after.cpu_ticks - before.cpu_ticks) as f64 / ticks_a_second / minutes, "s", "<= 0.06");
    row("idle wake-ups a second", (after.wake_ups - before.wake_ups) as f64 / seconds as f64, "", "<= 4");
    row(
        &format!("bytes written to disk in {seconds} idle seconds"),
        (after.written_bytes - before.written_bytes) as f64,
        "",
        "0",
    );
    row("threads when idle", usage::threads(&node) as f64, "", "");
}

/// A pod's way to Running through the API, and the runtime's own time for the same through cri-client alone.
fn pods() {
    const RUNS: usize = 10;
    let mut node = Node::up("podtime", "");
    node.kubectl.wait_for_account();
    let socket = format!("/proc/{}/root/run/containerd/containerd.sock", node.machine.first());

    let mut restart = Vec::new();
    for _ in 0..3 {
        node.stop("TERM");
        let start = Instant::now();
        node.start();
        node.wait_ready();
        restart.push(milliseconds(start));
    }
    row(
        "node Ready after start, runtime up (kubectl included)",
        restart.into_iter().fold(f64::MAX, f64::min),
        "ms",
        "<= 500",
    );

    let manifest = |n: usize| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("timed-{n}")}, "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "hostNetwork": true,
            "containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", "1000"]}]}})
        .to_string()
    };
    let mut through_api: Vec<f64> = (0..RUNS)
        .map(|n| {
            node.in_network(|client| {
                let mut watch = Connection::open(client).expect("a connection");
                let mut create = Connection::open(client).expect("a connection");
                let start = Instant::now();
                let (code, body) =
                    create.request("POST", "/api/v1/namespaces/default/pods", &manifest(n)).expect("an answer");
                assert_eq!(code, 201, "{}", String::from_utf8_lossy(&body));
                loop {
                    let (_, body) = watch
                        .request("GET", &format!("/api/v1/namespaces/default/pods/timed-{n}"), "")
                        .expect("an answer");
                    if String::from_utf8_lossy(&body).contains("\"phase\":\"Running\"") {
                        return milliseconds(start);
                    }
                    assert!(start.elapsed() < Duration::from_secs(30), "{}", String::from_utf8_lossy(&body));
                    thread::sleep(Duration::from_millis(1));
                }
            })
        })
        .collect();
    node.kubectl.ok("delete pods --all --grace-period=0 --force");
    let executor = Arc::new(async_executor::Executor::new());
    let runtime = Runtime::new(vec![socket.into()], executor.clone());
    let mut alone: Vec<f64> = (0..RUNS).map(|n| async_io::block_on(executor.run(run_alone(&runtime, n)))).collect();
    through_api.sort_by(f64::total_cmp);
    alone.sort_by(f64::total_cmp);
    let (median_api, median_alone) = (through_api[RUNS / 2], alone[RUNS / 2]);
    row("Pod create to Running, median of 10", median_api, "ms", "");
    row("the runtime's own time for the same, median of 10", median_alone, "ms", "");
    row("Mote's part of it", median_api - median_alone, "ms", "<= 30");
}

async fn run_alone(runtime: &Runtime, n: usize) -> f64 {
    let name = format!("alone-{n}");
    let namespaces = Some(NamespaceOption { network: namespace_mode::NODE, ..Default::default() });
    let sandbox = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "default".into(),
            attempt: 0,
        }),
        log_directory: format!("/var/log/pods/{name}"),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/besteffort".into(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: namespaces.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: "localhost/busybox:1".into(), ..Default::default() }),
        command: vec!["sleep".into(), "1000".into()],
        log_path: "c.log".into(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: namespaces,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let start = Instant::now();
    let request = RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
    let id = runtime.run_pod_sandbox(request).await.expect("a sandbox").pod_sandbox_id;
    let request =
        CreateContainerRequest { pod_sandbox_id: id.clone(), config: Some(container), sandbox_config: Some(sandbox) };
    let container_id = runtime.create_container(request).await.expect("a container").container_id;
    runtime.start_container(ContainerId { container_id }).await.expect("it starts");
    milliseconds(start)
}

/// The API alone; and beside another API server, whose kubeconfig MOTE_BENCH_BESIDE names: the same client asks both.
fn api() {
    let server = cost::server();
    let ours = measure(&server.client());
    let beside = std::env::var_os("MOTE_BENCH_BESIDE").map(|kubeconfig| measure(&Client::new(Path::new(&kubeconfig))));
    for (at, (what, unit, measured, goal)) in ours.iter().enumerate() {
        row(what, *measured, unit, "");
        if let Some((_, _, other, _)) = beside.as_ref().and_then(|beside| beside.get(at)) {
            row("  the other API server", *other, unit, "");
            row("  ours to theirs", measured / other, "x", goal);
        }
    }
    row("16 clients to a single one", ours[1].2 / ours[0].2, "x", ">= 5");
    eventually("still ready", 5, || {
        if server.client().get("/readyz").code == 200 { Ok(()) } else { Err("it is not".to_owned()) }
    });
}

/// What, its unit, how much, and the goal of ours to theirs.
type Figure = (String, &'static str, f64, &'static str);
const PODS: usize = 1000;
const CLIENTS: usize = 16;

/// In a namespace of its own.
fn measure(client: &Client) -> Vec<Figure> {
    let namespace = format!("bench-{}", std::process::id());
    let base = format!("/api/v1/namespaces/{namespace}");
    let named = |name: &str| json!({"metadata": {"name": name}});
    assert_eq!(client.post("/api/v1/namespaces", &named(&namespace)).code, 201);
    // There may be no controller to make it.
    assert!(matches!(client.post(&format!("{base}/serviceaccounts"), &named("default")).code, 201 | 409));
    let mut figures = vec![
        ("durable creates of a ConfigMap, 1 client".to_owned(), "/s", creates(client, &base, 1), ""),
        (format!("durable creates of a ConfigMap, {CLIENTS} clients"), "/s", creates(client, &base, CLIENTS), ">= 2"),
    ];
    let mut connection = Connection::open(client).expect("a connection");
    for n in 0..PODS {
        let pod = json!({"metadata": {"name": format!("pod-{n}"), "labels": {"app": "web", "n": n.to_string()}}, "spec": {"containers": [
            {"name": "web", "image": "localhost/busybox:1", "command": ["httpd", "-f"], "ports": [{"containerPort": 80}],
             "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
             "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}});
        let (code, answer) = connection.request("POST", &format!("{base}/pods"), &pod.to_string()).expect("an answer");
        assert_eq!(code, 201, "{}", String::from_utf8_lossy(&answer));
    }
    for (encoding, accept, goal) in
        [("JSON", "application/json", "<= 0.1"), ("protobuf", "application/vnd.kubernetes.protobuf", "<= 0.2")]
    {
        let mut best = f64::MAX;
        let mut bytes = 0;
        for _ in 0..20 {
            let start = Instant::now();
            let answer =
                connection.send("GET", &format!("{base}/pods"), &[("Accept", accept)], b"").expect("an answer");
            assert_eq!(answer.code, 200);
            best = best.min(milliseconds(start));
            bytes = answer.body.len();
        }
        figures.push((format!("LIST of {PODS} pods as {encoding} ({bytes} bytes), best of 20"), "ms", best, goal));
    }
    let applied = no_op_apply(&mut connection, &namespace);
    figures.push(("no-op server-side apply of a Deployment, median of 1,000".into(), "ms", applied, "<= 0.2"));
    let delays = watched(client, &base);
    for (what, part, goal) in [("median", 0.5, ""), ("p90", 0.9, ""), ("p99", 0.99, "<= 0.33")] {
        let delay = delays[((delays.len() - 1) as f64 * part) as usize];
        figures.push((format!("{WATCHERS} watchers: create acknowledged to last event, {what}"), "ms", delay, goal));
    }
    client.request("DELETE", &format!("/api/v1/namespaces/{namespace}"), &[], b"");
    figures
}

/// A second.
fn creates(client: &Client, base: &str, clients: usize) -> f64 {
    const SECONDS: f64 = 3.0;
    let start = Instant::now();
    let create = |n: usize| {
        let (client, path) = (client.clone(), format!("{base}/configmaps"));
        thread::spawn(move || {
            let mut connection = Connection::open(&client).expect("a connection");
            let mut made = 0;
            while start.elapsed().as_secs_f64() < SECONDS {
                let body =
                    json!({"metadata": {"name": format!("c{clients}-{n}-{made}")}, "data": {"a": "b"}}).to_string();
                let (code, answer) = connection.request("POST", &path, &body).expect("an answer");
                assert_eq!(code, 201, "{}", String::from_utf8_lossy(&answer));
                made += 1;
            }
            made
        })
    };
    let threads: Vec<_> = (0..clients).map(create).collect();
    let made: usize = threads.into_iter().map(|thread| thread.join().expect("no client fails")).sum();
    made as f64 / start.elapsed().as_secs_f64()
}

const WATCHERS: usize = 100;

/// How long after each of a row of creates was acknowledged the last of many watchers knew of it: sorted, in milliseconds;
/// nothing where they all knew before. One thread reads for all, so that what is measured is the server and not a hundred threads
/// that wait for the same processor.
fn watched(client: &Client, base: &str) -> Vec<f64> {
    const CREATES: usize = 100;
    let watch = |_| {
        let mut stream = client.connect().expect("a connection");
        let request = format!(
            "GET {base}/secrets?watch=true HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\n\r\n",
            client.address
        );
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut head = [0; 4096];
        let len = stream.read(&mut head).expect("an answer");
        assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head[..len]));
        stream.sock.set_nonblocking(true).expect("a socket");
        stream
    };
    let mut watchers: Vec<Stream> = (0..WATCHERS).map(watch).collect();
    let reader = thread::spawn(move || {
        let name = b"\"name\":\"watched-";
        let poll = |stream: &Stream| libc::pollfd { fd: stream.sock.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut ready: Vec<libc::pollfd> = watchers.iter().map(poll).collect();
        // How many each has seen, and when the last of them saw which.
        let (mut counts, mut last) = ([0; WATCHERS], vec![Instant::now(); CREATES]);
        let mut text = vec![0; 64 * 1024];
        while counts.iter().any(|count| *count < CREATES) {
            // SAFETY: poll(2) of as many entries as there are.
            let found = unsafe { libc::poll(ready.as_mut_ptr(), ready.len() as libc::nfds_t, 60_000) };
            assert!(found > 0, "no events for a minute");
            for (at, _) in ready.iter().enumerate().filter(|(_, one)| one.revents != 0) {
                while let Ok(len) = watchers[at].read(&mut text) {
                    assert!(len > 0, "a watch ended");
                    for _ in text[..len].windows(name.len()).filter(|part| part == name) {
                        last[counts[at]] = Instant::now();
                        counts[at] += 1;
                    }
                }
            }
        }
        last
    });
    let mut connection = Connection::open(client).expect("a connection");
    let acknowledged: Vec<Instant> = (0..CREATES)
        .map(|n| {
            thread::sleep(Duration::from_millis(20));
            let body = json!({"metadata": {"name": format!("watched-{n:03}")}, "data": {"a": "Yg=="}}).to_string();
            let (code, _) = connection.request("POST", &format!("{base}/secrets"), &body).expect("an answer");
            assert_eq!(code, 201);
            Instant::now()
        })
        .collect();
    let seen = reader.join().expect("no watcher fails");
    let delay =
        |(seen, acknowledged): (&Instant, Instant)| seen.saturating_duration_since(acknowledged).as_secs_f64() * 1000.0;
    let mut delays: Vec<f64> = seen.iter().zip(acknowledged).map(delay).collect();
    delays.sort_by(f64::total_cmp);
    delays
}

/// A controller that applies what is there already, over and over.
fn no_op_apply(connection: &mut Connection, namespace: &str) -> f64 {
    const RUNS: usize = 1000;
    let labels = json!({"app": "applied"});
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "applied"}, "spec": {
        "replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [
            {"name": "web", "image": "localhost/busybox:1", "command": ["httpd", "-f"], "ports": [{"containerPort": 80}],
             "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
             "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}}}});
    let body = config.to_string();
    let path = &format!("/apis/apps/v1/namespaces/{namespace}/deployments/applied?fieldManager=bench");
    let headers = [("Content-Type", "application/apply-patch+yaml")];
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let answer = connection.send("PATCH", path, &headers, body.as_bytes()).expect("an answer");
            assert!(matches!(answer.code, 200 | 201), "{}", answer.text());
            milliseconds(start)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
