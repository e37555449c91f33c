//! A machine of its own (`tests/machine`) and the whole node on it.
use crate::{Kubectl, eventually, http::Client};
use std::{
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

pub struct Machine {
    pub name: String,
}

impl Machine {
    /// With its container runtime up; gone when the process ends.
    #[track_caller]
    pub fn up(purpose: &str) -> Machine {
        sweep();
        let machine = Machine { name: format!("test-{purpose}-{}", std::process::id()) };
        let name = machine.name.clone();
        crate::on_exit(move || {
            let _ = script(&["down", &name]).status();
        });
        let output = script(&["up", &machine.name]).output().expect("tests/machine runs");
        assert!(output.status.success(), "tests/machine up: {}", String::from_utf8_lossy(&output.stderr));
        machine
    }

    /// Where its files are on this machine.
    pub fn state(&self) -> PathBuf {
        machines().join(&self.name)
    }

    /// Its first process, in this machine's numbers.
    pub fn first(&self) -> u32 {
        let text = std::fs::read_to_string(self.state().join("first")).expect("the machine is up");
        text.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a number")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut all = vec!["exec", &self.name];
        all.extend(args);
        script(&all)
    }

    pub fn exec(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("tests/machine runs")
    }

    /// What a shell line printed; panics when it fails.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.exec(&["sh", "-c", line]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {}{stderr}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// "start", "stop" or "kill".
    #[track_caller]
    pub fn runtime(&self, action: &str) {
        assert!(script(&["runtime", &self.name, action]).status().expect("tests/machine runs").success(), "{action}");
    }
}

/// The whole node on a machine.
pub struct Node {
    pub machine: Machine,
    pub kubectl: Kubectl,
    child: Child,
}

impl Node {
    /// Up and Ready.
    #[track_caller]
    pub fn up(purpose: &str, config: &str) -> Node {
        Node::on(Machine::up(purpose), config)
    }

    /// The same on a machine that was made ready before.
    #[track_caller]
    pub fn on(machine: Machine, config: &str) -> Node {
        std::fs::write(machine.state().join("config.yaml"), config).expect("the state directory can be written");
        machine.sh("cp /run/machine/config.yaml /etc/mote/config.yaml");
        // The disk of whoever runs the tests may be as good as full, which is nothing to evict their pods for.
        let roomy = "kubelet: {evictionHard: {nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%, imagefs.inodesFree: 1%}}";
        machine.sh(&format!("mkdir -p /etc/mote/config.d && echo '{roomy}' >/etc/mote/config.d/disk.yaml"));
        let kubectl = Kubectl::new(&machine.state().join("files/mote/kubeconfig"), Some(machine.first()));
        let child = start(&machine);
        let node = Node { machine, kubectl, child };
        node.wait_ready();
        node
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        let ready = ".items[0].status.conditions[?(@.type==\"Ready\")].status";
        eventually("the node is Ready", 60, || match self.kubectl.field("nodes", ready)?.as_str() {
            "True" => Ok(()),
            other => Err(format!("Ready is {other:?}; log:\n{}", self.log())),
        });
    }

    /// In the machine's own numbers.
    pub fn pid(&self) -> String {
        self.machine.sh("cat /run/mote.pid").trim().to_owned()
    }

    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.machine.state().join("mote.log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// "KILL", "TERM": sent and waited for.
    #[track_caller]
    pub fn stop(&mut self, signal: &str) {
        self.machine.sh(&format!("kill -{signal} {}", self.pid()));
        self.child.wait().expect("the child can be waited for");
    }

    pub fn start(&mut self) {
        self.child = start(&self.machine);
    }

    /// Runs `work` on a thread in the machine's network, with a client for its API.
    pub fn in_network<T: Send>(&self, work: impl FnOnce(&Client) -> T + Send) -> T {
        let namespace =
            std::fs::File::open(format!("/proc/{}/ns/net", self.machine.first())).expect("the machine is up");
        let client = Client::new(&self.machine.state().join("files/mote/kubeconfig"));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: setns(2) moves this thread alone; the descriptor is open.
                assert_eq!(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }, 0, "setns");
                work(&client)
            });
            thread.join().expect("the work is done")
        })
    }
}

fn start(machine: &Machine) -> Child {
    let line = format!(
        "echo $$ >/run/mote.pid; exec '{}' run </dev/null >>/run/machine/mote.log 2>&1",
        crate::binary().display()
    );
    machine.command(&["sh", "-c", &line]).stdin(Stdio::null()).spawn().expect("tests/machine runs")
}

fn machines() -> PathBuf {
    std::env::var_os("MOTE_MACHINES").map_or_else(|| "/var/lib/mote-machines".into(), PathBuf::from)
}

fn script(args: &[&str]) -> Command {
    let mut command = Command::new(crate::root().join("tests/machine"));
    command.args(args);
    command
}

/// Ends the machines of test processes that were killed before they could.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(machines()) else { return };
    for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let owner = name.strip_prefix("test-").and_then(|rest| rest.rsplit_once('-')).map(|(_, pid)| pid);
        if owner.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = script(&["down", &name]).status();
        }
    }
}
