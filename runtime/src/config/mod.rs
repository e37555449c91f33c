//! The node's configuration: MicroShift's keys and defaults where it has the thing, and a few of our own. `keys` is
//! the one table of what may be set; reading, checking and `mote show-config` all go through it.
//!
//! Invariant: a file with a mistake starts nothing, and every mistake in every file is reported at once.
mod audit;
mod etcd;
mod keys;
mod kubelet;
mod network;
mod source;

pub use audit::Audit;
pub use etcd::Etcd;
pub use network::{Cidr, is_dns_name};

use crate::backup;
use mote_kubelet::eviction::Settings as Eviction;
use mote_schema::Order as _;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

pub const DEFAULT_FILE: &str = "/etc/mote/config.yaml";

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// None: the node's own address.
    pub advertise_address: Option<Ipv4Addr>,
    pub api_port: u16,
    pub audit: Audit,
    /// "": nothing is encrypted on disk.
    pub encryption_config: String,
    pub subject_alt_names: Vec<String>,
    pub backups: backup::Policy,
    /// None: found from the machine.
    pub board: Option<String>,
    pub disabled: Vec<Component>,
    pub log_level: LogLevel,
    /// Directories of objects that are applied at every start.
    pub manifests: Vec<String>,
    pub base_domain: String,
    pub cluster_network: Cidr,
    pub service_network: Cidr,
    pub node_port_range: RangeInclusive<u16>,
    /// "": the machine's host name.
    pub hostname_override: String,
    /// None: the address of the default route's link.
    pub node_ip: Option<Ipv4Addr>,
    /// "": CRI-O's socket if there is one, else containerd's.
    pub runtime_endpoint: String,
    pub etcd: Etcd,
    pub eviction: Eviction,
    /// 0: closed.
    pub kubelet_port: u16,
    pub volatile: mote_api::Volatile,
    /// None: what the board's profile says.
    pub threads: Option<usize>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            advertise_address: None,
            api_port: 6443,
            audit: Audit::default(),
            encryption_config: String::new(),
            subject_alt_names: Vec::new(),
            backups: backup::Policy::default(),
            board: None,
            disabled: Vec::new(),
            log_level: LogLevel::Normal,
            manifests: ["/usr/lib/mote/manifests", "/etc/mote/manifests"].map(str::to_owned).into(),
            base_domain: "example.com".to_owned(),
            cluster_network: Cidr::new(Ipv4Addr::new(10, 42, 0, 0), 16),
            service_network: Cidr::new(Ipv4Addr::new(10, 43, 0, 0), 16),
            node_port_range: 30000..=32767,
            hostname_override: String::new(),
            node_ip: None,
            runtime_endpoint: String::new(),
            etcd: Etcd::default(),
            eviction: Eviction::default(),
            kubelet_port: 10250,
            volatile: mote_api::Volatile::default(),
            threads: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    Scheduler,
    Controllers,
    Kubelet,
    /// With the two below, which are of no use without it.
    Network,
    Proxy,
    Dns,
}

impl Component {
    pub const ALL: [(&str, Component); 6] = [
        ("scheduler", Component::Scheduler),
        ("controllers", Component::Controllers),
        ("kubelet", Component::Kubelet),
        ("network", Component::Network),
        ("proxy", Component::Proxy),
        ("dns", Component::Dns),
    ];
}

/// MicroShift's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Normal,
    Debug,
    Trace,
    TraceAll,
}

impl LogLevel {
    pub const ALL: [(&str, LogLevel); 4] = [
        ("Normal", LogLevel::Normal),
        ("Debug", LogLevel::Debug),
        ("Trace", LogLevel::Trace),
        ("TraceAll", LogLevel::TraceAll),
    ];
}

/// One thing wrong in a file.
#[derive(Debug, PartialEq)]
pub struct Mistake {
    pub file: PathBuf,
    /// 0 when it is the file as a whole.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.what),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.what),
        }
    }
}

impl Config {
    /// Reads `file` (or the default one, which may be absent) and the `*.yaml` files of `config.d` beside it, in the
    /// order of their names. Later files win: maps merge, lists replace.
    pub fn load(file: Option<&Path>) -> Result<Config, Vec<Mistake>> {
        let main = file.unwrap_or(Path::new(DEFAULT_FILE));
        let mut loader = Loader::default();
        if file.is_some() || main.exists() {
            loader.file(main);
        }
        for path in loader.drop_ins(&main.with_file_name("config.d")) {
            loader.file(&path);
        }
        loader.finish()
    }

    pub fn runs(&self, component: Component) -> bool {
        !self.disabled.contains(&component)
    }

    /// As YAML, every key in it.
    pub fn show(&self) -> String {
        let mut text = String::new();
        let mut before: Vec<&str> = Vec::new();
        for key in keys::TABLE {
            let mut parts: Vec<&str> = key.path.split('.').collect();
            let name = parts.pop().unwrap_or_default();
            let known = parts.iter().zip(&before).take_while(|(a, b)| a == b).count();
            for (depth, section) in parts.iter().enumerate().skip(known) {
                text.push_str(&format!("{:1$}{section}:\n", "", depth * 4));
            }
            text.push_str(&format!("{:1$}{name}: {2}\n", "", parts.len() * 4, (key.show)(self)));
            before = parts;
        }
        text
    }
}

#[derive(Default)]
struct Loader {
    config: Config,
    mistakes: Vec<Mistake>,
    /// Where each key was set last, for mistakes that only show when keys are seen together.
    set_at: Vec<(&'static str, PathBuf, usize)>,
}

impl Loader {
    fn mistake(&mut self, file: &Path, line: usize, what: impl Into<String>) {
        self.mistakes.push(Mistake { file: file.to_owned(), line, what: what.into() });
    }

    fn drop_ins(&mut self, dir: &Path) -> Vec<PathBuf> {
        let mut files = match std::fs::read_dir(dir) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.mistake(dir, 0, format!("cannot be read: {error}"));
                Vec::new()
            }
        };
        files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        files.order();
        files
    }

    fn file(&mut self, path: &Path) {
        let (entries, mistakes) = match source::read(path) {
            Ok(read) => read,
            Err(error) => return self.mistake(path, 0, format!("cannot be read: {error}")),
        };
        for (line, what) in mistakes {
            self.mistake(path, line, what);
        }
        for entry in entries {
            match keys::set(&mut self.config, &entry.key, &entry.value) {
                Ok(key) => {
                    self.set_at.retain(|(known, ..)| *known != key);
                    self.set_at.push((key, path.to_owned(), entry.line));
                }
                Err(what) => self.mistake(path, entry.line, what),
            }
        }
    }

    fn finish(mut self) -> Result<Config, Vec<Mistake>> {
        for (key, what) in keys::conflicts(&self.config) {
            let (file, line) = match self.set_at.iter().find(|(known, ..)| *known == key) {
                Some((_, file, line)) => (file.clone(), *line),
                None => (PathBuf::from(DEFAULT_FILE), 0),
            };
            self.mistake(&file, line, format!("{key}: {what}"));
        }
        if self.mistakes.is_empty() { Ok(self.config) } else { Err(self.mistakes) }
    }
}

/// Whether a name or address may stand in a certificate.
fn is_subject_alt_name(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_dns_name(text.strip_prefix("*.").unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own with these files, gone afterwards.
    #[track_caller]
    fn load(files: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let dir = std::env::temp_dir().join(format!("mote-config-{}-{:p}", std::process::id(), files));
        std::fs::create_dir_all(dir.join("config.d")).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        let loaded = Config::load(Some(&dir.join("config.yaml")));
        std::fs::remove_dir_all(&dir).unwrap();
        let prefix = format!("{}/", dir.display());
        loaded.map_err(|mistakes| mistakes.iter().map(|m| m.to_string().replace(&prefix, "")).collect())
    }

    #[test]
    fn later_files_win_by_key() {
        let config = load(&[
            ("config.yaml", "node: {hostnameOverride: a, nodeIP: 10.0.0.5}\napiServer: {subjectAltNames: [x, y]}"),
            ("config.d/20.yaml", "node: {hostnameOverride: c}"),
            ("config.d/10.yaml", "node: {hostnameOverride: b}\napiServer: {subjectAltNames: [z]}"),
            ("config.d/30.conf", "nonsense"),
        ])
        .unwrap();
        assert_eq!(config.hostname_override, "c");
        assert_eq!(config.node_ip, Some(Ipv4Addr::new(10, 0, 0, 5)));
        assert_eq!(config.subject_alt_names, ["z"]);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = load(&[
            (
                "config.yaml",
                "apiServer:\n  port: 70000\n  ports: 1\nnode: {nodeIP: here}\nthreads: []\netcd: {memoryLimitMB: 1}",
            ),
            ("config.d/a.yaml", "components:\n  disabled: [kubelet, etcd]\ndebugging: {logLevel: Loud}\n"),
            (
                "config.d/b.yaml",
                "network:\n  clusterNetwork: [10.43.128.0/17]\nkubelet:\n  evictionHard: {memory.available: 1x, disk: 1}\n  evictionSoft: {memory.available: 1Gi}\n",
            ),
        ]);
        assert_eq!(
            mistakes.unwrap_err(),
            [
                "config.yaml:2: apiServer.port: expected a port from 1 to 65535, found \"70000\"",
                "config.yaml:3: apiServer.ports: unknown key; apiServer has advertiseAddress, auditLog, encryptionConfig, port, subjectAltNames",
                "config.yaml:4: node.nodeIP: expected an IPv4 address of this machine, found \"here\"",
                "config.yaml:5: threads: expected a number from 1 to 16, found a list",
                "config.yaml:6: etcd.memoryLimitMB: unknown key; there are apiServer, backups, board, components, debugging, dns, kubelet, manifests, network, node, runtime, store, threads",
                "config.d/a.yaml:2: components.disabled: expected any of scheduler, controllers, kubelet, network, proxy, dns, found \"etcd\"",
                "config.d/a.yaml:3: debugging.logLevel: expected one of Normal, Debug, Trace, TraceAll, found \"Loud\"",
                "config.d/b.yaml:4: kubelet.evictionHard.memory.available: expected a signal such as memory.available and a quantity or percentage, as in {nodefs.available: 10%}, found \"1x\"",
                "config.d/b.yaml:4: kubelet.evictionHard.disk: expected a signal such as memory.available and a quantity or percentage, as in {nodefs.available: 10%}, found \"1\"",
                "config.d/b.yaml:2: network.clusterNetwork: 10.43.128.0/17 overlaps network.serviceNetwork 10.43.0.0/16",
                "config.d/b.yaml:5: kubelet.evictionSoft: memory.available has no time in kubelet.evictionSoftGracePeriod",
            ]
        );
        assert_eq!(load(&[]).unwrap_err(), ["config.yaml: cannot be read: No such file or directory (os error 2)"]);
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        let config = load(&[(
            "config.yaml",
            "apiServer: {auditLog: {profile: None, maxFiles: 3, path: /x/y.log}, port: 7443, subjectAltNames: [a.b, '*.c', 10.0.0.9], advertiseAddress: 10.9.9.8}\nthreads: 2\n\
             components: {disabled: [network]}\nboard: rpi4-2gb\nruntime: {endpoint: 'unix:///run/x.sock'}\n\
             network: {serviceNodePortRange: 20000-20100, clusterNetwork: [10.0.0.0/24], serviceNetwork: [10.1.0.0/24]}\n\
             store: {eventTTL: 1h30m, persist: [leases, events]}\n\
             node: {nodeIP: 10.9.9.9, hostnameOverride: n}\nkubelet: {port: 0, evictionHard: {memory.available: 7.5%}, evictionSoft: {nodefs.available: 1Gi}, evictionSoftGracePeriod: {nodefs.available: 90s}}\ndns: {baseDomain: b.c}\ndebugging: {logLevel: debug}\nmanifests: {paths: [/x]}",
        )])
        .unwrap();
        assert_eq!(load(&[("config.yaml", &config.show())]).unwrap(), config);
        let default = Config::default();
        assert_eq!(load(&[("config.yaml", &default.show())]).unwrap(), default);
    }
}
