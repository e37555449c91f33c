//! The pods' part of the cgroup tree: /kubepods, one group per QoS class that needs one, one per pod, on cgroup v1
//! and v2 with the cgroupfs driver. With the systemd driver the runtime makes the slices from their names.
//!
//! What cannot be made is no reason not to run a pod: it is told once and the runtime makes what it needs.
use crate::resources::{CPU_PERIOD_US, PodCgroup};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

const ROOT: &str = "/sys/fs/cgroup";
/// Controllers of v1 in which pods get limits; the runtime makes groups in the others by itself.
const V1_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
const V2_CONTROLLERS: &str = "+cpu +memory +pids +cpuset +io +hugetlb";
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

    /// Makes the pod's group with its limits. Blocking.
    pub fn create(&self, uid: &str, qos: &str, limits: &PodCgroup) {
        if self.driver == Driver::Systemd {
            return;
        }
        let path = parent(self.driver, uid, qos);
        let made = if self.unified { create_v2(Path::new(ROOT), &path, limits) } else { self.create_v1(&path, limits) };
        if let Err(e) = made
            && !self.told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(error = %e, path, "pod cgroups cannot be managed; limits hold per container only");
        }
    }

    fn create_v1(&self, path: &str, limits: &PodCgroup) -> io::Result<()> {
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

    /// Removes the pod's group where it is left, its empty children first. Blocking.
    pub fn remove(&self, uid: &str, qos: &str) {
        if self.driver == Driver::Systemd {
            return;
        }
        let path = parent(self.driver, uid, qos);
        let roots: Vec<PathBuf> = if self.unified {
            vec![ROOT.into()]
        } else {
            fs::read_dir(ROOT).into_iter().flatten().flatten().map(|e| e.path()).collect()
        };
        for root in roots {
            let dir = root.join(path.trim_start_matches('/'));
            if let Err(e) = remove_tree(&dir, 0) {
                tracing::debug!(error = %e, dir = %dir.display(), "cgroup stays");
            }
        }
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

/// CPU shares (2 to 262144) as cgroup v2's weight (1 to 10000): KEP-2254's straight line.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
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
    fn weights() {
        for (shares, want) in [(2, 1), (1024, 39), (262_144, 10_000)] {
            assert_eq!(weight(shares), want);
        }
    }
}
