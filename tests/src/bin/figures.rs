//! `./dev figures FILE`: what the release binary takes as it runs on this machine, as JSON for `./dev size`: memory by phase, idle
//! system calls, wake-ups and writes, allocations and memory of what clients do. Counts of the kernel's and of breakpoints; no times.
use mote_size_report::{budget::HOST, elf};
use mote_tests::{
    Node, Server, cost, eventually,
    http::Connection,
    trace,
    usage::{self, Memory, Usage},
};
use serde_json::{Map, Value, json};
use std::{fs, thread, time::Duration};

/// From the last thing that happened until all it brought is done.
const SETTLE_SECONDS: u64 = 20;
const IDLE_SECONDS: u64 = 60;
const PODS: [usize; 3] = [10, 30, 100];
const OBJECTS: u64 = 10_000;
const CONNECTIONS: u64 = 100;

#[derive(Default)]
struct Figures {
    phases: Vec<Value>,
    idle: Map<String, Value>,
    costs: Map<String, Value>,
    others: Map<String, Value>,
}

impl Figures {
    fn phase(&mut self, name: &str, how: &str, memory: Memory) {
        let Memory { resident_kb, proportional_kb, anonymous_kb } = memory;
        println!(
            "{name:<40}{proportional_kb:>8} kB proportional{anonymous_kb:>8} kB anonymous{resident_kb:>8} kB resident"
        );
        self.phases.push(
            json!({"phase": name, "how": how, "pssKb": proportional_kb, "anonymousKb": anonymous_kb, "rssKb": resident_kb}),
        );
    }
}

fn main() {
    let Some(file) = std::env::args().nth(1) else {
        eprintln!("figures FILE");
        std::process::exit(2);
    };
    let mut figures = Figures::default();
    node(&mut figures);
    server(&mut figures);
    let allocations: &[cost::Cost] = if cfg!(target_arch = "x86_64") { &cost::ALLOCATIONS } else { &[] };
    for (what, measure) in cost::MEMORY.iter().chain(allocations) {
        let measured = measure();
        println!("{what:<66}{measured:>10}");
        figures.costs.insert((*what).to_owned(), measured.into());
    }
    let binary = fs::read(mote_tests::binary()).expect("the binary can be read");
    let build_id = elf::parse(&binary).expect("an ELF file").build_id(&binary);
    let Figures { phases, idle, costs, others } = figures;
    let told = json!({"buildId": build_id, "machine": machine(), "board": HOST, "phases": phases, "idle": idle, "costs": costs, "others": others});
    fs::write(&file, format!("{told:#}\n")).unwrap_or_else(|error| panic!("{file}: {error}"));
    println!("written: {file}");
}

/// What was measured on, in words.
fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    format!("{} with {cores} cores, Linux {}", std::env::consts::ARCH, kernel.trim())
}

/// A whole node on a machine of its own, with a container runtime.
fn node(figures: &mut Figures) {
    let mut node = Node::up("figures", "");
    node.kubectl.wait_for_account();
    node.stop("TERM");
    node.start();
    let started = eventually("the API serves", 60, || match node.kubectl.run("get --raw /readyz") {
        answer if answer.success => Ok(Memory::of(&node)),
        answer => Err(answer.stderr),
    });
    figures.phase("start", "a whole node, when the API is ready", started);
    node.wait_ready();
    figures.phase("ready", "the same, when the Node is Ready", Memory::of(&node));
    thread::sleep(Duration::from_secs(SETTLE_SECONDS));
    let before = Usage::of(&node);
    thread::sleep(Duration::from_secs(IDLE_SECONDS));
    let after = Usage::of(&node);
    let idle = Memory::of(&node);
    figures.phase("idle", "the same, asked nothing, without pods", idle);
    let minutes = IDLE_SECONDS as f64 / 60.0;
    let writes = (after.written_bytes - before.written_bytes) as f64 / minutes * 60.0;
    figures.idle.insert("PSS idle kB".into(), idle.proportional_kb.into());
    figures.idle.insert("anonymous idle kB".into(), idle.anonymous_kb.into());
    figures.idle.insert("wake-ups a minute".into(), ((after.wake_ups - before.wake_ups) as f64 / minutes).into());
    figures.idle.insert("idle writes bytes an hour".into(), writes.into());
    let calls = trace::system_calls(usage::host_pid(&node), IDLE_SECONDS) as f64 / minutes;
    figures.others.insert("system calls a minute, idle".into(), calls.into());
    figures.others.insert("threads, idle".into(), usage::threads(&node).into());
    let written = Usage::of(&node).written_bytes;
    let mut running = 0;
    for count in PODS {
        create_pods(&node, running..count);
        running = count;
        eventually("the pods run", 600, || {
            let phases = node.kubectl.run("get pods -o jsonpath={.items[*].status.phase}");
            let found = phases.stdout.split_whitespace().filter(|phase| *phase == "Running").count();
            if found == count { Ok(()) } else { Err(format!("{found} of {count}")) }
        });
        thread::sleep(Duration::from_secs(SETTLE_SECONDS));
        figures.phase(&format!("{count} pods"), "the same, with pods of one container that run", Memory::of(&node));
    }
    let each = (Usage::of(&node).written_bytes - written) / running as u64;
    figures.others.insert("bytes written for a pod, from nothing to running".into(), each.into());
    let before = Usage::of(&node);
    thread::sleep(Duration::from_secs(IDLE_SECONDS));
    let after = Usage::of(&node);
    let wake_ups = (after.wake_ups - before.wake_ups) as f64 / minutes;
    figures.others.insert(format!("wake-ups a minute, {running} pods that do nothing"), wake_ups.into());
    let writes = (after.written_bytes - before.written_bytes) as f64 / minutes * 60.0;
    figures.others.insert(format!("writes, bytes an hour, {running} pods that do nothing"), writes.into());
    node.kubectl.ok("delete pods --all --grace-period=0 --force");
}

fn create_pods(node: &Node, numbers: std::ops::Range<usize>) {
    node.in_network(|client| {
        let mut connection = Connection::open(client).expect("a connection");
        for number in numbers {
            let pod = json!({"metadata": {"name": format!("pod-{number}")}, "spec": {
                "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false, "hostNetwork": true,
                "containers": [{"name": "c", "image": "localhost/busybox:1", "command": ["sleep", "100000"]}]}});
            let (code, answer) =
                connection.request("POST", "/api/v1/namespaces/default/pods", &pod.to_string()).expect("an answer");
            assert_eq!(code, 201, "{}", String::from_utf8_lossy(&answer));
        }
    });
}

/// An API server alone, for what needs no pods.
fn server(figures: &mut Figures) {
    let server: Server = cost::server();
    let client = server.client();
    let settle = || thread::sleep(Duration::from_secs(SETTLE_SECONDS / 4));
    settle();
    figures.phase(
        "API server alone",
        "no kubelet, network, scheduler or controllers",
        Memory::of_process(server.pid()),
    );
    let connections = cost::connections(&client, CONNECTIONS);
    settle();
    let how = "the API server alone";
    figures.phase(&format!("{CONNECTIONS} connections"), how, Memory::of_process(server.pid()));
    drop(connections);
    cost::create_objects(&client, OBJECTS);
    settle();
    figures.phase("10,000 objects", "the API server alone, with ConfigMaps of 1 kB", Memory::of_process(server.pid()));
}
