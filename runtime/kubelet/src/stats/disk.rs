//! What pods have on disks: their volumes, their containers' logs, and all of what goes with them. Trees are walked once a
//! minute at most, as upstream does (volumeStatsAggPeriod), and only when somebody asks.
use crate::{
    Kubelet,
    eviction::{Extent, extent},
    node::file_system,
    sandbox,
    state::lock,
};
use mote_schema::{Map, Value, json};
use rustix::fs::StatVfs;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

const FRESH: Duration = Duration::from_secs(60);

/// Trees that were walked, when, and what was found.
pub type Walked = HashMap<PathBuf, (Instant, Extent)>;

/// A pod's directories.
struct Places {
    logs: BTreeMap<String, PathBuf>,
    volumes: Vec<Place>,
}

struct Place {
    name: String,
    /// Namespace and name.
    claim: Option<(String, String)>,
    dir: PathBuf,
    /// It shares its file system with others.
    is_walked: bool,
    /// It goes with the pod, and is on the node's disk.
    is_ephemeral: bool,
}

/// What a pod has.
#[derive(Default)]
pub struct Disk {
    pub volumes: Vec<Value>,
    pub logs: BTreeMap<String, Extent>,
    /// Of the volumes that go with the pod.
    pub ephemeral: Extent,
}

/// A file system as FsStats shows it, with what is used of it by all, or by one.
pub fn shown(time: &str, disk: &StatVfs, used: Option<Extent>) -> Map {
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let (used_bytes, inodes_used) = match used {
        None => (bytes(disk.f_blocks.saturating_sub(disk.f_bfree)), disk.f_files.saturating_sub(disk.f_ffree)),
        Some(used) => (used.bytes.max(0) as u64, used.inodes.max(0) as u64),
    };
    let mut map = Map::new();
    map.insert("time".into(), time.into());
    for (name, value) in [
        ("availableBytes", bytes(disk.f_bavail)),
        ("capacityBytes", bytes(disk.f_blocks)),
        ("usedBytes", used_bytes),
        ("inodesFree", disk.f_ffree),
        ("inodes", disk.f_files),
        ("inodesUsed", inodes_used),
    ] {
        map.insert(name.into(), value.into());
    }
    map
}

impl Kubelet {
    /// By uid.
    fn places(&self) -> Vec<(String, Places)> {
        let workers = lock(&self.workers);
        let each = workers.values().filter_map(|worker| {
            let memory = lock(&worker.memory);
            let pod = memory.pod.as_ref()?;
            let logs = sandbox::log_dir(&self.config.pod_log_dir, &pod.namespace, &pod.name, &pod.uid);
            let places = pod.spec.volumes.iter().flatten().filter_map(|volume| {
                let dir = memory.volume_dir(&volume.name)?.to_owned();
                let claim = crate::volumes::claim(pod, volume).map(|claim| (pod.namespace.clone(), claim));
                let on_disk = |medium: Option<&str>| medium != Some("Memory");
                let is_ephemeral = volume.empty_dir.as_ref().is_some_and(|it| on_disk(it.medium.as_deref()));
                let is_mounted = claim.is_some() || volume.empty_dir.is_some() && !is_ephemeral;
                // A directory of the host is nobody's.
                let is_counted = volume.host_path.is_none();
                let name = volume.name.clone();
                is_counted.then_some(Place { name, claim, dir, is_walked: !is_mounted, is_ephemeral })
            });
            let volumes = places.collect();
            let logs = pod.containers().map(|(_, c)| (c.name.clone(), logs.join(&c.name))).collect();
            Some((pod.uid.clone(), Places { logs, volumes }))
        });
        each.collect()
    }

    /// By uid.
    pub async fn disks(&self) -> HashMap<String, Disk> {
        let (places, mut before) = (self.places(), std::mem::take(&mut *lock(&self.walked)));
        let measure = move || {
            let mut walked = Walked::new();
            let mut walk = |dir: PathBuf| {
                let known = before.remove(&dir).filter(|(since, _)| since.elapsed() < FRESH);
                let found = known.unwrap_or_else(|| (Instant::now(), extent(&dir)));
                walked.insert(dir, found);
                found.1
            };
            let time = jiff::Timestamp::now().to_string();
            let each = places.into_iter().map(|(uid, places)| {
                let mut disk = Disk::default();
                for Place { name, claim, dir, is_walked, is_ephemeral } in places.volumes {
                    let Some(found) = file_system(&dir) else { continue };
                    let used = is_walked.then(|| walk(dir));
                    if let Some(used) = used.filter(|_| is_ephemeral) {
                        disk.ephemeral += used;
                    }
                    let mut stats = shown(&time, &found, used);
                    stats.insert("name".into(), name.into());
                    if let Some((namespace, name)) = claim {
                        stats.insert("pvcRef".into(), json!({"name": name, "namespace": namespace}));
                    }
                    disk.volumes.push(stats.into());
                }
                disk.logs = places.logs.into_iter().map(|(name, dir)| (name, extent(&dir))).collect();
                (uid, disk)
            });
            let disks: HashMap<String, Disk> = each.collect();
            (disks, walked)
        };
        let (disks, walked) = mote_api::unblock(measure).await;
        *lock(&self.walked) = walked;
        disks
    }
}
