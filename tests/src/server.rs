//! An API server alone: the binary with `components.disabled`, on a port of its own on the loopback, with a directory
//! of its own. Needs no runtime, no namespaces and no root.
use crate::{Kubectl, eventually, http::Client};
use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

pub struct Server {
    pub dir: PathBuf,
    pub port: u16,
    pub kubectl: Kubectl,
    child: Child,
}

/// What an API server alone leaves out.
const ALONE: &str = "components: {disabled: [kubelet, network]}\n";

impl Server {
    /// Ready to serve; `config` is added to the configuration.
    #[track_caller]
    pub fn start(config: &str) -> Server {
        Server::start_with(&format!("{ALONE}{config}"))
    }

    /// The same with the parts that `config` leaves.
    #[track_caller]
    pub fn start_with(config: &str) -> Server {
        Server::start_at(scratch(), config)
    }

    /// In a directory that has something in it: more configuration in `config.d`, and what that names.
    #[track_caller]
    pub fn start_at(dir: PathBuf, config: &str) -> Server {
        let port = free_port();
        let store = if config.contains("store: ") { String::new() } else { crate::etcd::config_of_suites() };
        fs::write(dir.join("config.yaml"), format!("apiServer: {{port: {port}}}\n{store}{config}")).expect("writing");
        let mut server = Server {
            kubectl: Kubectl::new(&dir.join("data/kubeconfig"), None),
            child: spawn(&dir, &crate::binary()),
            port,
            dir,
        };
        server.wait_ready();
        server
    }

    /// For tests that share one: stopped and removed when the process ends.
    #[track_caller]
    pub fn shared(config: &str) -> Server {
        let server = Server::start(config);
        server.kubectl.wait_for_account();
        let (pid, dir) = (server.child.id(), server.dir.clone());
        crate::on_exit(move || {
            // SAFETY: kill(2) of a child that nothing else has waited for.
            unsafe { libc::kill(pid as i32, libc::SIGKILL) };
            let _ = fs::remove_dir_all(dir);
        });
        server
    }

    #[track_caller]
    pub fn wait_ready(&mut self) {
        let kubeconfig = self.dir.join("data/kubeconfig");
        let port = self.port;
        let child = &mut self.child;
        let log = self.dir.join("log");
        eventually("the API is ready", 20, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("mote ended with {status}: {}", fs::read_to_string(&log).unwrap_or_default());
            }
            if !kubeconfig.exists() || std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                return Err("nobody listens".to_owned());
            }
            let answer = Client::new(&kubeconfig).try_request("GET", "/readyz", &[], b"").map_err(|e| e.to_string())?;
            if answer.code == 200 { Ok(()) } else { Err(answer.text()) }
        });
    }

    pub fn client(&self) -> Client {
        Client::new(&self.dir.join("data/kubeconfig"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill(2) of our own child, which has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Sends the signal and waits: how it ended and how long that took.
    pub fn stop(&mut self, signal: i32) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(signal);
        let status = self.child.wait().expect("the child can be waited for");
        (status, start.elapsed())
    }

    /// The same directory and port again.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.start_again_as(&crate::binary());
    }

    /// The same with another release's binary.
    #[track_caller]
    pub fn start_again_as(&mut self, binary: &Path) {
        self.child = spawn(&self.dir, binary);
        self.wait_ready();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn spawn(dir: &Path, binary: &Path) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).expect("the log can be written");
    let mut command = Command::new(binary);
    command.arg("run").arg("--config").arg(dir.join("config.yaml")).arg("--data-dir").arg(dir.join("data"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("the binary starts")
}

/// A new directory for one use.
pub fn scratch() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("mote-test-{}-{count}", std::process::id()));
    fs::create_dir_all(&dir).expect("the temporary directory can be written");
    dir
}

/// Nobody's at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}
