//! What there is left of the node, and what a pod has of it: from /proc, from file systems and their trees, and from
//! cgroups. Blocking, but for what `Kubelet` asks the runtime.
use super::{
    rank::{ContainerUse, Extent, Use},
    threshold::{Observation, Observations},
};
use crate::{
    Kubelet, labels,
    node::{file_system, meminfo},
    pod::Pod,
    sandbox,
};
use mote_cri::{Error, v1};
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Entries of one tree that are looked at.
const MAX_ENTRIES: usize = 200_000;
const BLOCK_BYTES: u64 = 512;

fn number(path: impl AsRef<Path>) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A node in a container is as large as that: the bound on the root of its cgroup namespace, v2's or v1's, and what is in
/// use of it without what the kernel would drop (working set).
fn bound() -> Option<(i64, i64)> {
    const V2: [&str; 4] = ["/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "];
    const V1: [&str; 4] =
        ["/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
    [V2, V1].into_iter().find_map(|[dir, limit, usage, inactive]| {
        let dir = Path::new(dir);
        let limit = number(dir.join(limit)).filter(|limit| *limit < 1 << 60)?;
        let text = fs::read_to_string(dir.join("memory.stat")).ok()?;
        let inactive = text.lines().find_map(|line| line.strip_prefix(inactive)?.parse::<i64>().ok()).unwrap_or(0);
        Some((limit, number(dir.join(usage))?.saturating_sub(inactive)))
    })
}

/// What is in zram is neither: its pages are in use, and swapped ones are no memory.
pub fn memory() -> Option<Observation> {
    let (capacity, available) = (meminfo("MemTotal")?, meminfo("MemAvailable")?);
    Some(match bound() {
        Some((limit, used)) if limit < capacity => {
            Observation { capacity: limit, available: available.min(limit.saturating_sub(used)).max(0) }
        }
        _ => Observation { capacity, available },
    })
}

/// Every task counts, and either of two bounds may be the lower (pkg/kubelet/stats/pidlimit).
pub fn pids() -> Option<Observation> {
    let capacity = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"].into_iter().filter_map(number).min()?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let tasks: i64 = load.split_ascii_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Observation { capacity, available: capacity.saturating_sub(tasks) })
}

/// Bytes and inodes; some file systems have no number of inodes.
pub fn space(dir: &Path) -> [Option<Observation>; 2] {
    let Some(found) = file_system(dir) else { return [None, None] };
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let bytes = |blocks: u64| whole(blocks.saturating_mul(found.f_frsize));
    let inodes = Observation { available: whole(found.f_favail), capacity: whole(found.f_files) };
    [
        Some(Observation { available: bytes(found.f_bavail), capacity: bytes(found.f_blocks) }),
        Some(inodes).filter(|inodes| inodes.capacity > 0),
    ]
}

pub fn observe(nodes: &Path, images: Option<&Path>) -> Observations {
    let [bytes, inodes] = space(nodes);
    let [image_bytes, image_inodes] = images.map_or([None, None], space);
    [memory(), bytes, inodes, image_bytes, image_inodes, pids()]
}

/// Whether two directories, there or to come, are on different file systems.
pub fn is_apart(one: &Path, other: &Path) -> bool {
    let device = |dir: &Path| dir.ancestors().find_map(|dir| Some(fs::metadata(dir).ok()?.dev()));
    device(one) != device(other)
}

/// Below a directory and with it, on its own file system.
pub fn extent(dir: &Path) -> Extent {
    let Ok(top) = dir.symlink_metadata() else { return Extent::default() };
    let (mut dirs, mut sum, mut left) = (vec![dir.to_owned()], Extent { bytes: 0, inodes: 1 }, MAX_ENTRIES);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Some(found) = entry.metadata().ok().filter(|found| found.dev() == top.dev()) else { continue };
            let bytes = i64::try_from(found.blocks().saturating_mul(BLOCK_BYTES)).unwrap_or(i64::MAX);
            // A file of several names counts once in truth, and once a name here: nobody hides from that.
            sum += Extent { bytes, inodes: 1 };
            left -= 1;
            if left == 0 {
                return sum;
            }
            if found.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    sum
}

/// The trees of a pod that are on the node's disk: its volumes and its containers' logs, by name.
pub struct Trees {
    volumes: Vec<(String, PathBuf)>,
    logs: Vec<(String, PathBuf)>,
}

impl Trees {
    pub fn of(kubelet: &Kubelet, pod: &Pod) -> Trees {
        let volumes = kubelet.pod_dir(&pod.uid).join("volumes/kubernetes.io~empty-dir");
        let logs = sandbox::log_dir(&kubelet.config.pod_log_dir, &pod.namespace, &pod.name, &pod.uid);
        let on_disk = |volume: &&crate::spec::Volume| {
            volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref() != Some("Memory"))
        };
        let named = pod.spec.volumes.iter().flatten().filter(on_disk);
        Trees {
            volumes: named.map(|volume| (volume.name.clone(), volumes.join(&volume.name))).collect(),
            logs: pod.containers().map(|(_, c)| (c.name.clone(), logs.join(&c.name))).collect(),
        }
    }

    pub fn add_to(self, used: &mut Use) {
        used.volumes.extend(self.volumes.into_iter().map(|(name, dir)| (name, extent(&dir))));
        for (name, dir) in self.logs {
            if let Some(container) = used.containers.get_mut(&name) {
                container.logs = extent(&dir);
            }
        }
    }
}

/// What the runtime knows of the containers that run, by pod.
pub async fn containers(kubelet: &Kubelet) -> Result<HashMap<String, Use>, Error> {
    let answer = kubelet.runtime.list_container_stats(v1::ListContainerStatsRequest::default()).await?;
    let mut found: HashMap<String, Use> = HashMap::new();
    for one in &answer.stats {
        let Some(attributes) = &one.attributes else { continue };
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let number = |value: &Option<v1::UInt64Value>| {
            value.as_ref().map_or(0, |value| i64::try_from(value.value).unwrap_or(i64::MAX))
        };
        let layer = one.writable_layer.as_ref();
        let used = ContainerUse {
            memory_bytes: one.memory.as_ref().map_or(0, |m| number(&m.working_set_bytes)),
            layer: layer
                .map(|l| Extent { bytes: number(&l.used_bytes), inodes: number(&l.inodes_used) })
                .unwrap_or_default(),
            logs: Extent::default(),
        };
        let pod = found.entry(label(labels::POD_UID)).or_default();
        pod.containers.insert(label(labels::CONTAINER_NAME), used);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    #[test]
    fn what_lies_in_a_directory_counts() {
        let temp = Temp::new();
        fs::create_dir(temp.0.join("d")).unwrap();
        fs::write(temp.0.join("d/x"), [1u8; 64 << 10]).unwrap();
        let found = extent(&temp.0);
        assert_eq!(found.inodes, 3);
        assert!(found.bytes >= 64 << 10, "{found:?}");
        assert_eq!(extent(Path::new("/no/such")), Extent::default());
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let temp = Temp::new();
        let seen = observe(&temp.0, None);
        for (at, found) in seen.iter().enumerate().filter(|(at, _)| matches!(at, 0 | 1 | 5)) {
            let found = found.unwrap_or_else(|| panic!("signal {at}"));
            assert!((0..=found.capacity).contains(&found.available), "{at}: {found:?}");
        }
        assert!(is_apart(&temp.0, Path::new("/proc")));
        assert!(!is_apart(&temp.0, &temp.0.join("to/come")));
    }
}
