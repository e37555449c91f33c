//! The pods' part of the cgroup tree: /kubepods, one group per QoS class that needs one, one per pod, on cgroup v1
//! and v2. With the cgroupfs driver they are made here; with the systemd driver systemd makes the slices from their
//! names when the runtime asks for a sandbox, and is told their limits then and their end later.
//!
//! What cannot be made is no reason not to run a pod: it is told once and the runtime makes what it needs.
use crate::{
    resources::{CPU_PERIOD_US, MAX_SHARES, MIN_SHARES, PodCgroup},
    systemd,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

const ROOT: &str = "/sys/fs/cgroup";
/// Controllers of v1 in which pods get limits; the runtime makes groups in the others by itself.
const V1_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const V2_CONTROLLERS: &str = "+cpu +memory +pids +cpuset +io +hugetlb";
const SHARES_OF_A_CPU: i64 = 1024;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

pub struct Cgroups {
    pub driver: Driver,
    unified: bool,
    told: AtomicBool,
}

impl Cgroups {
    pub fn detect(driver: Driver) -> Cgroups {
        let unified = rustix::fs::statfs(ROOT).is_ok_and(|s| s.f_type == CGROUP2_SUPER_MAGIC);
        Cgroups { driver, unified, told: AtomicBool::new(false) }
    }

    /// What the runtime gets as the sandbox's cgroup parent.
    pub fn parent(&self, uid: &str, qos: &str) -> String {
        parent(self.driver, uid, qos)
    }

    /// Makes the pod's group with its limits, unless systemd will. Blocking.
    pub fn create(&self, uid: &str, qos: &str, limits: &PodCgroup) {
        if self.driver == Driver::Cgroupfs {
            self.limit(uid, qos, limits);
        }
    }

    /// Gives the pod's group its limits. Blocking.
    pub fn limit(&self, uid: &str, qos: &str, limits: &PodCgroup) {
        let path = group(self.driver, uid, qos);
        let by_hand =
            || if self.unified { create_v2(Path::new(ROOT), &path, limits) } else { create_v1(&path, limits) };
        let made = match self.driver {
            Driver::Cgroupfs => by_hand(),
            // What systemd does not know, it takes back when it is reloaded.
            Driver::Systemd => {
                systemd::set_properties(&parent(self.driver, uid, qos), &self.properties(limits)).or_else(|_| by_hand())
            }
        };
        let made = made.and_then(|()| self.balance());
        if let Err(e) = made
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(error = %e, path, "pod cgroups cannot be managed; limits hold per container only");
        }
    }

    /// The limits that the pod's group has. Shares are not read back: nothing depends on them. Blocking.
    pub fn limits(&self, uid: &str, qos: &str) -> PodCgroup {
        let path = group(self.driver, uid, qos);
        let read = |controller: &str, file: &str| {
            let root = if self.unified { PathBuf::from(ROOT) } else { Path::new(ROOT).join(controller) };
            let text = fs::read_to_string(root.join(path.trim_start_matches('/')).join(file)).ok()?;
            limit_in(&text)
        };
        let files =
            if self.unified { ["cpu.max", "memory.max"] } else { ["cpu.cfs_quota_us", "memory.limit_in_bytes"] };
        PodCgroup { cpu_shares: 0, cpu_quota_us: read("cpu", files[0]), memory_limit_bytes: read("memory", files[1]) }
    }

    /// Tasks in the pod's group; 0 where nobody counts them. Blocking.
    pub fn pids(&self, uid: &str, qos: &str) -> i64 {
        let root = if self.unified { PathBuf::from(ROOT) } else { Path::new(ROOT).join("pids") };
        let path = root.join(group(self.driver, uid, qos).trim_start_matches('/')).join("pids.current");
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    /// The limits as a slice's properties.
    fn properties(&self, limits: &PodCgroup) -> Vec<(&'static str, u64)> {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let mut properties = vec![(self.weight_property(), number(self.scale(limits.cpu_shares)))];
        if let Some(quota) = limits.cpu_quota_us {
            properties.push(("CPUQuotaPerSecUSec", number(quota * (1_000_000 / CPU_PERIOD_US))));
        }
        if let Some(bytes) = limits.memory_limit_bytes {
            properties.push((if self.unified { "MemoryMax" } else { "MemoryLimit" }, number(bytes)));
        }
        properties
    }

    fn weight_property(&self) -> &'static str {
        if self.unified { "CPUWeight" } else { "CPUShares" }
    }

    /// Shares as the hierarchy counts them.
    fn scale(&self, shares: i64) -> i64 {
        if self.unified { weight(shares) } else { shares }
    }

    /// What the pods get of the processor as a whole, and each class beside the pods of the other: a class of which
    /// nothing is said would outweigh every pod (pkg/kubelet/cm/qos_container_manager_linux.go). The tree is what is
    /// counted, so a restart of the node loses nothing.
    fn balance(&self) -> io::Result<()> {
        let (root, file) = if self.unified { (ROOT, "cpu.weight") } else { ("/sys/fs/cgroup/cpu", "cpu.shares") };
        let [pods, burstable, best_effort] = match self.driver {
            Driver::Cgroupfs => ["kubepods", "burstable", "besteffort"],
            Driver::Systemd => ["kubepods.slice", "kubepods-burstable.slice", "kubepods-besteffort.slice"],
        };
        let root = Path::new(root).join(pods);
        let weigh = |dir: &Path, unit: &str, value: i64| {
            let current = fs::read_to_string(dir.join(file)).ok().and_then(|text| text.trim().parse::<i64>().ok());
            match current {
                // Not there, or as it should be.
                None => Ok(()),
                Some(current) if current == value => Ok(()),
                Some(_) if self.driver == Driver::Systemd => {
                    let property = (self.weight_property(), u64::try_from(value).unwrap_or(1));
                    systemd::set_properties(unit, &[property]).or_else(|_| set(dir, file, value))
                }
                Some(_) => set(dir, file, value),
            }
        };
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as i64);
        weigh(&root, pods, self.scale(SHARES_OF_A_CPU * cpus))?;
        let dir = root.join(burstable);
        let each = fs::read_dir(&dir).into_iter().flatten().flatten();
        let each = each.filter_map(|pod| fs::read_to_string(pod.path().join(file)).ok()?.trim().parse::<i64>().ok());
        let sum = each.sum::<i64>().clamp(self.scale(MIN_SHARES), self.scale(MAX_SHARES));
        weigh(&dir, burstable, sum)?;
        weigh(&root.join(best_effort), best_effort, self.scale(MIN_SHARES))
    }

    /// Removes the pod's group where it is left, its empty children first. Blocking.
    pub fn remove(&self, uid: &str, qos: &str) {
        let path = group(self.driver, uid, qos);
        let roots: Vec<PathBuf> = if self.unified {
            vec![ROOT.into()]
        } else {
            fs::read_dir(ROOT).into_iter().flatten().flatten().map(|e| e.path()).collect()
        };
        let dirs = roots.into_iter().map(|root| root.join(path.trim_start_matches('/')));
        let dirs: Vec<PathBuf> = dirs.filter(|dir| dir.exists()).collect();
        if dirs.is_empty() {
            return;
        }
        if self.driver == Driver::Systemd
            && let Err(e) = systemd::stop(&parent(self.driver, uid, qos))
        {
            tracing::debug!(error = %e, path, "slice stays");
        }
        for dir in dirs {
            if let Err(e) = remove_tree(&dir, 0) {
                tracing::debug!(error = %e, dir = %dir.display(), "cgroup stays");
            }
        }
        // A share too many is taken back with the next pod.
        let _ = self.balance();
    }
}

fn parent(driver: Driver, uid: &str, qos: &str) -> String {
    let class = match qos {
        "Burstable" => "burstable",
        "BestEffort" => "besteffort",
        _ => "",
    };
    match (driver, class) {
        (Driver::Cgroupfs, "") => format!("/kubepods/pod{uid}"),
        (Driver::Cgroupfs, class) => format!("/kubepods/{class}/pod{uid}"),
        // A dash nests slices, so those of the uid become underscores.
        (Driver::Systemd, "") => format!("kubepods-pod{}.slice", uid.replace('-', "_")),
        (Driver::Systemd, class) => format!("kubepods-{class}-pod{}.slice", uid.replace('-', "_")),
    }
}

/// Where the pod's group is in a hierarchy.
fn group(driver: Driver, uid: &str, qos: &str) -> String {
    let parent = parent(driver, uid, qos);
    match (driver, parent.split('-').count()) {
        (Driver::Cgroupfs, _) => parent,
        // A slice lies in those whose names it begins with.
        (Driver::Systemd, 2) => format!("/kubepods.slice/{parent}"),
        (Driver::Systemd, _) => format!("/kubepods.slice/kubepods-{}.slice/{parent}", qos.to_ascii_lowercase()),
    }
}

fn create_v1(path: &str, limits: &PodCgroup) -> io::Result<()> {
    for controller in V1_CONTROLLERS {
        let root = Path::new(ROOT).join(controller);
        if !root.exists() {
            continue;
        }
        let dir = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(&dir)?;
        match controller {
            "cpu" => {
                set(&dir, "cpu.shares", limits.cpu_shares)?;
                if let Some(quota) = limits.cpu_quota_us {
                    set(&dir, "cpu.cfs_period_us", CPU_PERIOD_US)?;
                    set(&dir, "cpu.cfs_quota_us", quota)?;
                }
            }
            "memory" => {
                if let Some(bytes) = limits.memory_limit_bytes {
                    set(&dir, "memory.limit_in_bytes", bytes)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn create_v2(root: &Path, path: &str, limits: &PodCgroup) -> io::Result<()> {
    let mut dir = root.to_owned();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        // A child has a controller only if its parent hands it down. One that the kernel lacks must not keep back
        // the rest, so they are written one by one.
        for controller in V2_CONTROLLERS.split(' ') {
            let _ = fs::write(dir.join("cgroup.subtree_control"), controller);
        }
        dir.push(part);
        if let Err(e) = fs::create_dir(&dir)
            && e.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(e);
        }
    }
    set(&dir, "cpu.weight", weight(limits.cpu_shares))?;
    if let Some(quota) = limits.cpu_quota_us {
        fs::write(dir.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"))?;
    }
    if let Some(bytes) = limits.memory_limit_bytes {
        set(&dir, "memory.max", bytes)?;
    }
    Ok(())
}

/// CPU shares (2 to 262144) as cgroup v2's weight (1 to 10000): a curve through both ends and both defaults, 1024 and
/// 100, as runtimes and kubelet draw it (ConvertCPUSharesToCgroupV2Value of opencontainers/cgroups).
fn weight(shares: i64) -> i64 {
    match shares {
        ..=MIN_SHARES => 1,
        MAX_SHARES.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as i64
        }
    }
}

/// A limit as the kernel prints it, "max 100000", "-1" and the largest number of pages being none.
fn limit_in(text: &str) -> Option<i64> {
    text.split_ascii_whitespace().next()?.parse().ok().filter(|limit| (0..1 << 62).contains(limit))
}

fn set(dir: &Path, file: &str, value: i64) -> io::Result<()> {
    let path = dir.join(file);
    fs::write(&path, value.to_string()).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// Only directories are removed: a cgroup's files go with it. Depth is bounded by what runtimes nest.
fn remove_tree(dir: &Path, depth: u32) -> io::Result<()> {
    if depth > 8 || !dir.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path(), depth + 1)?;
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        for (driver, qos, want) in [
            (Driver::Cgroupfs, "Guaranteed", "/kubepods/poda-b"),
            (Driver::Cgroupfs, "Burstable", "/kubepods/burstable/poda-b"),
            (Driver::Systemd, "BestEffort", "kubepods-besteffort-poda_b.slice"),
            (Driver::Systemd, "Guaranteed", "kubepods-poda_b.slice"),
        ] {
            assert_eq!(parent(driver, "a-b", qos), want);
        }
    }

    #[test]
    fn groups() {
        for (driver, qos, want) in [
            (Driver::Cgroupfs, "Burstable", "/kubepods/burstable/poda-b"),
            (
                Driver::Systemd,
                "BestEffort",
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-poda_b.slice",
            ),
            (Driver::Systemd, "Guaranteed", "/kubepods.slice/kubepods-poda_b.slice"),
        ] {
            assert_eq!(group(driver, "a-b", qos), want);
        }
    }

    #[test]
    fn limits_read_back() {
        for (text, want) in [
            ("100000\n", Some(100_000)),
            ("-1\n", None),
            ("9223372036854771712\n", None),
            ("max 100000\n", None),
            ("5000 100000\n", Some(5000)),
            ("", None),
        ] {
            assert_eq!(limit_in(text), want, "{text:?}");
        }
    }

    #[test]
    fn weights() {
        for (shares, want) in [(0, 1), (2, 1), (102, 17), (1024, 100), (4096, 303), (262_144, 10_000)] {
            assert_eq!(weight(shares), want);
        }
    }
}
