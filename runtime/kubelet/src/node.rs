//! The Node object of this machine: registered at start, its status written when it changes and every five minutes,
//! its Lease renewed. Reasons and messages: upstream's pkg/kubelet/nodestatus.
use crate::{
    Kubelet,
    eviction::{self, Alarm, Condition, Signal},
    gc, images_of,
};
use async_io::Timer;
use futures_lite::future;
use jiff::Timestamp;
use mote_api::{Sub, client::Result};
use mote_schema::{Object, Ref};
use mote_schema::{Value, json};
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Keys that a condition and an Event name.
const NAMED_DAMAGE: usize = 5;
const HEARTBEAT: Duration = Duration::from_secs(300);
const LEASE_SECONDS: u64 = 40;
const LEASE_RENEW: Duration = Duration::from_secs(10);
/// After a write that failed.
const RETRY: Duration = Duration::from_millis(500);

/// What does not change while the process lives.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub memory_bytes: i64,
    pub cpus: usize,
    pub hugepages: Vec<(i64, i64)>,
    pub swap: Swap,
    pub has_apparmor: bool,
    machine_id: String,
    system_uuid: String,
    boot_id: String,
    kernel: String,
    os_image: String,
}

impl Machine {
    /// Reads /proc, /sys and /etc. Blocking, but only of memory.
    pub fn read() -> Machine {
        let line = |path: &str| fs::read_to_string(path).map_or(String::new(), |t| t.trim().to_owned());
        let machine_id = line("/etc/machine-id");
        let system_uuid = Some(line("/sys/class/dmi/id/product_uuid")).filter(|u| !u.is_empty());
        Machine {
            memory_bytes: eviction::memory().map_or(0, |memory| memory.capacity),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            hugepages: hugepages(),
            swap: swap(),
            has_apparmor: has_apparmor(),
            system_uuid: system_uuid.unwrap_or_else(|| machine_id.clone()),
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&line("/etc/os-release")),
        }
    }
}

pub fn meminfo(name: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<i64>().ok().map(|kb| kb * 1024)
}

/// Whether what a group may swap can be bounded, and by which version of cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Swap {
    #[default]
    Unbounded,
    V1,
    V2,
}

fn has_apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    Path::new("/sys/kernel/security/apparmor").exists() && enabled.is_ok_and(|text| text.starts_with('Y'))
}

/// The root of v2's hierarchy has no such file: this process's own group is asked.
fn swap() -> Swap {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
    let exists = |path: &Path| path.exists();
    if exists(&Path::new("/sys/fs/cgroup").join(own).join("memory.swap.max")) {
        Swap::V2
    } else if exists(Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")) {
        Swap::V1
    } else {
        Swap::Unbounded
    }
}

/// When memory is gone all the same, the kernel ends a pod and not the node (qos.KubeletOOMScoreAdj). A unit may have set it.
pub fn protect() {
    const FILE: &str = "/proc/self/oom_score_adj";
    const SCORE: i32 = -999;
    let is_set = fs::read_to_string(FILE).is_ok_and(|now| now.trim().parse::<i32>().is_ok_and(|now| now <= SCORE));
    if !is_set && let Err(error) = fs::write(FILE, SCORE.to_string()) {
        tracing::warn!(%error, "not permitted to protect the node from the kernel's OOM killer");
    }
}

/// (page size, bytes reserved in all)
fn hugepages() -> Vec<(i64, i64)> {
    let entries = fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kb: i64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: i64 = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        Some((kb * 1024, kb * 1024 * count))
    });
    sizes.collect()
}

fn os_image(os_release: &str) -> String {
    let name = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Total and free bytes of the file system with the pods' data.
pub fn disk(kubelet: &Kubelet) -> (u64, u64) {
    file_system(&kubelet.config.data_dir).map_or((0, 0), |s| (s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize))
}

/// The one that a directory is on, or will be on: before the first pod there is none yet.
pub fn file_system(dir: &Path) -> Option<rustix::fs::StatVfs> {
    dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())
}

fn kib(bytes: i64) -> String {
    format!("{}Ki", bytes / 1024)
}

impl Kubelet {
    /// (resource, quantity) of what pods may use.
    pub fn allocatable(&self) -> Vec<(String, String)> {
        let (disk, _) = disk(self);
        let reserved = |signal, capacity| self.config.eviction.reserved(signal, capacity);
        let memory = self.machine.memory_bytes - reserved(Signal::MemoryAvailable, self.machine.memory_bytes);
        let disk = i64::try_from(disk).unwrap_or(i64::MAX);
        let disk = disk - reserved(Signal::NodeFsAvailable, disk);
        let mut list = vec![
            ("cpu".to_owned(), self.machine.cpus.to_string()),
            ("ephemeral-storage".to_owned(), disk.to_string()),
            ("memory".to_owned(), kib(memory)),
            ("pods".to_owned(), self.config.max_pods.to_string()),
        ];
        list.extend(self.hugepages());
        list
    }

    fn capacity(&self) -> Vec<(String, String)> {
        let (disk, _) = disk(self);
        let mut list = vec![
            ("cpu".to_owned(), self.machine.cpus.to_string()),
            ("ephemeral-storage".to_owned(), format!("{}Ki", disk / 1024)),
            ("memory".to_owned(), kib(self.machine.memory_bytes)),
            ("pods".to_owned(), self.config.max_pods.to_string()),
        ];
        list.extend(self.hugepages());
        list
    }

    fn hugepages(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.machine.hugepages.iter().map(|(size, total)| {
            let (number, unit) = if size % (1 << 30) == 0 {
                (size >> 30, "Gi")
            } else if size % (1 << 20) == 0 {
                (size >> 20, "Mi")
            } else {
                (size >> 10, "Ki")
            };
            (format!("hugepages-{number}{unit}"), total.to_string())
        })
    }

    fn labels(&self) -> Value {
        let arch = architecture();
        json!({
            "beta.kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "kubernetes.io/hostname": self.config.node_name,
            "kubernetes.io/os": "linux",
            "node-role.kubernetes.io/control-plane": "",
            "node.kubernetes.io/instance-type": self.config.instance_type,
        })
    }

    /// Conditions as they are now, with the transition times of `old` where nothing changed.
    fn conditions(&self, old: Ref<'_>, now: Timestamp) -> Vec<Value> {
        let pressure = |yes, reasons: (&'static str, &'static str), messages: (&'static str, &'static str)| {
            let (reason, message) = if yes { (reasons.0, messages.0) } else { (reasons.1, messages.1) };
            (yes, reason, message.to_owned())
        };
        let not_ready = self.health.not_ready();
        let ready = match not_ready {
            None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
            Some(why) => (false, "KubeletNotReady", why),
        };
        let all = [
            (
                "MemoryPressure",
                pressure(
                    self.pressure.is_said(Condition::Memory),
                    ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
                    ("kubelet has insufficient memory available", "kubelet has sufficient memory available"),
                ),
            ),
            (
                "DiskPressure",
                pressure(
                    self.pressure.is_said(Condition::Disk),
                    ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
                    ("kubelet has disk pressure", "kubelet has no disk pressure"),
                ),
            ),
            (
                "PIDPressure",
                pressure(
                    self.pressure.is_said(Condition::Pid),
                    ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
                    ("kubelet has insufficient PID available", "kubelet has sufficient PID available"),
                ),
            ),
            // Mote's own: upstream's nodes have no store.
            (
                "StorePressure",
                match self.client.store_trouble() {
                    Some((reason, message)) => (true, reason, message),
                    None => (false, "StoreHasNoPressure", "what is to be stored is stored".to_owned()),
                },
            ),
            (
                "StoreDamaged",
                match self.client.store_damage().0 {
                    damage if damage.is_empty() => {
                        (false, "StoreIsWhole", "nothing of the store is damaged".to_owned())
                    }
                    damage => (true, "StoreIsDamaged", damage_message(&damage)),
                },
            ),
            ("Ready", ready),
        ];
        let own: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let others = old.items().filter(|c| !own.contains(&c.get("type").str())).map(Ref::to_value);
        let mut list: Vec<Value> = others.collect();
        let now = crate::status::time(now).0.to_string();
        for (name, (yes, reason, message)) in all {
            let status = if yes { "True" } else { "False" };
            let before = old.items().find(|c| c.get("type").str() == name && c.get("status").str() == status);
            let since = before.map(|c| c.get("lastTransitionTime").str().to_owned()).unwrap_or_else(|| now.clone());
            list.push(json!({"type": name, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": since}));
        }
        list
    }

    async fn status(&self, old: Ref<'_>) -> Value {
        // What others advertise (extended resources) stays.
        let map = |list: Vec<(String, String)>, field: &str| {
            let others = old.get(field).entries().filter(|(name, _)| name.contains('/'));
            let others = others.map(|(name, amount)| (name.to_owned(), amount.to_value()));
            list.into_iter().map(|(k, v)| (k, Value::from(v))).chain(others).collect::<mote_schema::Map>()
        };
        let images = if self.health.is_up() { images_of(self).await } else { old.get("images").to_value() };
        let mut status = json!({
            "addresses": [
                {"type": "InternalIP", "address": self.config.node_ip},
                {"type": "Hostname", "address": self.config.node_name},
            ],
            "allocatable": map(self.allocatable(), "allocatable"),
            "capacity": map(self.capacity(), "capacity"),
            "conditions": self.conditions(old.get("conditions"), Timestamp::now()),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.config.port}},
            "nodeInfo": {
                "architecture": architecture(),
                "bootID": self.machine.boot_id,
                "containerRuntimeVersion": self.health.runtime_version(),
                "kernelVersion": self.machine.kernel,
                "kubeProxyVersion": "",
                "kubeletVersion": self.config.version,
                "machineID": self.machine.machine_id,
                "operatingSystem": "linux",
                "osImage": self.machine.os_image,
                "systemUUID": self.machine.system_uuid,
            },
        });
        for (name, value) in self.health.abilities() {
            if let Some(value) = value {
                status[name] = value;
            }
        }
        if images.is_array() {
            status["images"] = images;
        }
        for kept in ["volumesAttached", "volumesInUse", "config"] {
            let value = old.get(kept);
            if value.exists() {
                status[kept] = value.to_value();
            }
        }
        status
    }

    async fn register(&self) -> Result<Object> {
        let name = &self.config.node_name;
        match self.client.get(&self.nodes, "", name) {
            Ok(node) => {
                // Found again: its labels may be those of another build.
                let mut value = node.to_value();
                let before = value.clone();
                if let (Some(labels), Value::Object(own)) = (value["metadata"]["labels"].as_object_mut(), self.labels())
                {
                    labels.extend(own);
                } else {
                    value["metadata"]["labels"] = self.labels();
                }
                if value["spec"]["podCIDR"].is_null() && !self.config.pod_cidr.is_empty() {
                    value["spec"]["podCIDR"] = json!(self.config.pod_cidr);
                    value["spec"]["podCIDRs"] = json!([self.config.pod_cidr]);
                }
                if value == before { Ok(node) } else { self.client.update_value(&self.nodes, Sub::Main, value).await }
            }
            Err(e) if e.is_not_found() => {
                let mut node = json!({
                    "metadata": {
                        "name": name,
                        "labels": self.labels(),
                        "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
                    },
                    "spec": {},
                    "status": self.status(Ref::absent()).await,
                });
                if !self.config.pod_cidr.is_empty() {
                    node["spec"] = json!({"podCIDR": self.config.pod_cidr, "podCIDRs": [self.config.pod_cidr]});
                }
                self.client.create_value(&self.nodes, "", node).await
            }
            Err(e) => Err(e),
        }
    }

    /// Makes room when the disk is nearly full.
    pub async fn make_room(&self) {
        // As `df` counts: what is reserved for root is neither used nor free.
        let usage = || {
            file_system(&self.config.data_dir).map_or(0, |s| {
                let used = s.f_blocks.saturating_sub(s.f_bfree);
                (100 * used).checked_div(used + s.f_bavail).unwrap_or(0)
            })
        };
        // Images of pods that are still to come are not unused.
        if self.health.is_up()
            && self.started.elapsed() >= gc::IMAGE_MINIMUM_AGE
            && usage() >= gc::IMAGES_HIGH_PERCENT
            && let Err(error) = gc::images(self, usage).await
        {
            tracing::warn!(doing = error.doing(), %error, "unused images stay");
        }
    }

    async fn report(&self, was_ready: &mut Option<bool>) -> Result<()> {
        self.make_room().await;
        let node = self.register().await?;
        let mut value = node.to_value();
        value["status"] = self.status(node.root().get("status")).await;
        self.client.update_value(&self.nodes, Sub::Status, value).await?;
        let ready = self.health.not_ready().is_none();
        if was_ready.replace(ready) != Some(ready) {
            let reason = if ready { "NodeReady" } else { "NodeNotReady" };
            let message = format!("Node {} status is now: {reason}", self.config.node_name);
            self.client.event(&node, "Normal", reason, &message);
        }
        Ok(())
    }

    async fn renew_lease(&self, node_uid: &str) -> Result<()> {
        const NAMESPACE: &str = "kube-node-lease";
        let name = &self.config.node_name;
        let Some(kind) = self.client.kind("coordination.k8s.io", "v1", "leases") else { return Ok(()) };
        let now = format!("{:.6}", Timestamp::now());
        match self.client.get(&kind, NAMESPACE, name) {
            Ok(lease) => {
                let mut value = lease.to_value();
                value["spec"]["renewTime"] = json!(now);
                self.client.update_value(&kind, Sub::Main, value).await.map(drop)
            }
            Err(e) if e.is_not_found() => {
                let owner = json!({"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid});
                let lease = json!({
                    "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]},
                    "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
                });
                self.client.create_value(&kind, NAMESPACE, lease).await.map(drop)
            }
            Err(e) => Err(e),
        }
    }
}

/// Runs for the life of the process: reports at once, at each change of health and at each heartbeat.
pub async fn keep(kubelet: Arc<Kubelet>) {
    let mut was_ready = None;
    let mut greeted = false;
    loop {
        let changed = kubelet.health.listen();
        let wait = match kubelet.report(&mut was_ready).await {
            Ok(()) => HEARTBEAT,
            // Somebody else wrote in between: once more from what is there now.
            Err(e) if e.is_conflict() => Duration::ZERO,
            Err(e) => {
                tracing::warn!(error = %e, "the node's status cannot be written");
                RETRY
            }
        };
        if !greeted && let Ok(node) = kubelet.client.get(&kubelet.nodes, "", &kubelet.config.node_name) {
            kubelet.client.event(&node, "Normal", "Starting", "Starting kubelet.");
            greeted = true;
        }
        let slept = async {
            Timer::after(wait).await;
        };
        future::or(changed, slept).await;
    }
}

/// What is damaged, a few of it by name.
fn damage_message(damage: &[String]) -> String {
    let named = damage.get(..NAMED_DAMAGE).unwrap_or(damage).join(", ");
    let more = damage.len().saturating_sub(NAMED_DAMAGE);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    format!("damaged on the disk: {named}{more}")
}

/// Tells of damage in an Event when it is found, and when it is mended; `known` is what was told last.
fn tell_damage(kubelet: &Kubelet, known: &mut Option<usize>) -> bool {
    let (damage, found) = kubelet.client.store_damage();
    let before = known.replace(damage.len());
    let (kind, reason, message) = match (before, damage.len()) {
        (None, 0) if found > 0 => {
            let message =
                format!("{found} keys or places were damaged at the start, and are what the last backup says");
            ("Warning", "StoreRepaired", message)
        }
        (None | Some(0), 0) => return false,
        (Some(_), 0) => ("Normal", "StoreRepaired", "what was damaged is written anew".to_owned()),
        (Some(before), now) if now <= before => return before != now,
        _ => ("Warning", "StoreDamaged", damage_message(&damage)),
    };
    match kubelet.client.get(&kubelet.nodes, "", &kubelet.config.node_name) {
        Ok(node) => kubelet.client.event(&node, kind, reason, &message),
        Err(_) => *known = before,
    }
    true
}

/// Runs for the life of the process. A Lease costs no flash: it is a volatile write.
pub async fn keep_lease(kubelet: Arc<Kubelet>) {
    let (mut pressure, mut damage) = (None, None);
    let mut alarm = Alarm::new();
    loop {
        // Nobody tells of a disk that is full; this is the one thing here that runs all the time.
        let now = kubelet.client.store_trouble().map(|(reason, _)| reason);
        if std::mem::replace(&mut pressure, now) != now || tell_damage(&kubelet, &mut damage) {
            kubelet.health.wake();
        }
        let wait = match kubelet.client.get(&kubelet.nodes, "", &kubelet.config.node_name) {
            Ok(node) => match kubelet.renew_lease(node.uid()).await {
                Ok(()) => LEASE_RENEW,
                Err(e) => {
                    tracing::debug!(error = %e, "the node's lease cannot be renewed");
                    RETRY * 4
                }
            },
            Err(_) => RETRY,
        };
        let end = Instant::now() + wait;
        loop {
            let soon = eviction::look(&kubelet, &mut alarm).await;
            let next = soon.map_or(end, |soon| end.min(Instant::now() + soon));
            if !alarm.rings_before(next).await && Instant::now() >= end {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::file_system;
    use std::path::Path;

    #[test]
    fn a_directory_to_come_is_on_the_file_system_above_it() {
        let of = |dir| file_system(Path::new(dir)).map(|s| (s.f_fsid, s.f_blocks));
        assert_eq!(of("/proc/nowhere/pods"), of("/proc"));
        assert_ne!(of("/proc/nowhere/pods"), of("/"));
    }
}
