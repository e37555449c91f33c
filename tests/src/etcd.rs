//! etcd as Debian has it, with one member, on ports of its own on the loopback: what the store may be on.
use crate::{eventually, server};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

pub struct Etcd {
    pub dir: PathBuf,
    pub port: u16,
    peers: u16,
    /// etcd's own options, and etcdctl's, for TLS.
    options: Vec<String>,
    /// `NAME:PASSWORD` for etcdctl.
    pub user: Option<&'static str>,
    scheme: &'static str,
    child: Child,
}

impl Etcd {
    #[track_caller]
    pub fn start() -> Etcd {
        Etcd::start_in(server::scratch(), "http", Vec::new())
    }

    /// With certificates: a certificate and key are asked of clients, `ca.crt`, `etcd.crt`, `etcd.key` are in `dir`.
    #[track_caller]
    pub fn start_tls(dir: PathBuf) -> Etcd {
        let file = |name: &str| dir.join(name).display().to_string();
        let options = ["--client-cert-auth", "--trusted-ca-file", &file("ca.crt"), "--cert-file", &file("etcd.crt")];
        let options = options.into_iter().chain(["--key-file", &file("etcd.key")]).map(str::to_owned).collect();
        Etcd::start_in(dir, "https", options)
    }

    /// With options of etcd's.
    #[track_caller]
    pub fn start_with(options: &[&str]) -> Etcd {
        Etcd::start_in(server::scratch(), "http", options.iter().map(|option| (*option).to_owned()).collect())
    }

    #[track_caller]
    fn start_in(dir: PathBuf, scheme: &'static str, options: Vec<String>) -> Etcd {
        let (port, peers) = (server::free_port(), server::free_port());
        let child = spawn(&dir, scheme, port, peers, &options);
        let etcd = Etcd { dir, port, peers, options, user: None, scheme, child };
        etcd.wait();
        etcd
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// The configuration that puts a store here, under a prefix.
    pub fn config(&self, prefix: &str) -> String {
        format!("store: {{etcd: {{endpoints: [{:?}], prefix: {prefix}}}}}\n", self.url())
    }

    /// What etcdctl prints; None when it fails.
    pub fn try_ctl(&self, args: &[&str]) -> Option<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url()]);
        if self.scheme == "https" {
            for (option, name) in [("--cacert", "ca.crt"), ("--cert", "client.crt"), ("--key", "client.key")] {
                command.arg(option).arg(self.dir.join(name));
            }
        }
        command.args(self.user.iter().flat_map(|user| ["--user", *user]));
        let output = command.args(args).output().expect("etcdctl starts");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    #[track_caller]
    pub fn ctl(&self, args: &[&str]) -> String {
        self.try_ctl(args).unwrap_or_else(|| panic!("etcdctl {args:?} fails"))
    }

    #[track_caller]
    fn wait(&self) {
        eventually("etcd answers", 30, || {
            self.try_ctl(&["endpoint", "health"]).map(drop).ok_or_else(|| "not yet".to_owned())
        });
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) of our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    #[track_caller]
    pub fn start_again(&mut self) {
        self.child = spawn(&self.dir, self.scheme, self.port, self.peers, &self.options);
        self.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(dir: &Path, scheme: &str, port: u16, peers: u16, options: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).expect("the log can be written");
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peers}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(dir.join("etcd")).args(["--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
    command
        .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
        .args(options);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("etcd starts; ./dev installs etcd-server")
}

/// With MOTE_TEST_STORE=etcd the servers of every suite are on one etcd, each under a prefix of its own.
pub(crate) fn config_of_suites() -> String {
    static ONE: OnceLock<Etcd> = OnceLock::new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if std::env::var_os("MOTE_TEST_STORE").is_none_or(|store| store != "etcd") {
        return String::new();
    }
    let etcd = ONE.get_or_init(|| {
        let etcd = Etcd::start();
        let (pid, dir) = (etcd.child.id(), etcd.dir.clone());
        crate::on_exit(move || {
            // SAFETY: kill(2) of a child that nothing else has waited for.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            let _ = std::fs::remove_dir_all(dir);
        });
        etcd
    });
    etcd.config(&format!("/suite-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
}
