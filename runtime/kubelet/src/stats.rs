//! What the node and its pods use: the answer of a kubelet's /stats/summary (kubelet/pkg/apis/stats/v1alpha1), made when
//! somebody asks, from the runtime's figures and the kernel's.
mod disk;

pub use disk::Walked;

use crate::{
    Kubelet,
    eviction::{self, Extent},
    node::{file_system, meminfo},
};
use disk::Disk;
use jiff::Timestamp;
use mote_cri::v1;
use mote_schema::Status;
use mote_schema::{Map, Value, json};
use rustix::fs::StatVfs;
use std::{collections::HashMap, fs};

/// Pods of one answer.
const MAX_PODS: usize = 1024;

impl Kubelet {
    /// Without `whole` there is nothing of disks and the network.
    pub(crate) async fn summary(&self, whole: bool) -> Result<Value, Status> {
        let failed = |error: mote_cri::Error| Status::internal(error.to_string());
        let stats = self.runtime.list_pod_sandbox_stats(Default::default()).await.map_err(failed)?.stats;
        let sandboxes = self.runtime.list_pod_sandbox(Default::default()).await.map_err(failed)?.items;
        let containers = self.runtime.list_containers(Default::default()).await.map_err(failed)?.containers;
        let of_sandboxes = sandboxes.into_iter().map(|sandbox| (sandbox.id, sandbox.created_at));
        let since: Since = containers.into_iter().map(|one| (one.id, one.created_at)).chain(of_sandboxes).collect();
        let disks = if whole { Some(self.disk_stats().await) } else { None };
        let pods: Vec<Value> =
            stats.iter().take(MAX_PODS).filter_map(|stats| pod(stats, &since, disks.as_ref())).collect();
        Ok(json!({"node": self.node_stats(disks), "pods": pods}))
    }

    fn node_stats(&self, disks: Option<Disks>) -> Value {
        let now = Timestamp::now().to_string();
        let of = |name: &str| meminfo(name).unwrap_or(0);
        let (total, available) = (of("MemTotal"), of("MemAvailable"));
        let mut memory = json!({"time": now, "availableBytes": available, "usageBytes": total - of("MemFree"),
            "workingSetBytes": (total - available).max(0), "rssBytes": of("AnonPages")});
        let faults = vmstat();
        for (field, key) in [("pageFaults", "pgfault"), ("majorPageFaults", "pgmajfault")] {
            if let Some(count) = faults.iter().find(|(name, _)| name == key) {
                memory[field] = count.1.into();
            }
        }
        let swap = of("SwapFree");
        let mut node = json!({
            "nodeName": self.config.node_name,
            "startTime": booted(),
            "cpu": {"time": now, "usageCoreNanoSeconds": busy_nanoseconds()},
            "memory": memory,
            "swap": {"time": now, "swapAvailableBytes": swap, "swapUsageBytes": of("SwapTotal") - swap},
        });
        let Some(disks) = disks else { return node };
        if let Some(seen) = eviction::pids() {
            let running = seen.capacity - seen.available;
            node["rlimit"] = json!({"time": now, "maxpid": seen.capacity, "curproc": running});
        }
        if let Some(disk) = disks.node {
            node["fs"] = disk::shown(&now, &disk, None).into();
        }
        if let Some((disk, images, layers)) = disks.images {
            node["runtime"] = json!({"imageFs": disk::shown(&now, &disk, Some(images)),
                "containerFs": disk::shown(&now, &disk, Some(layers))});
        }
        let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let interfaces = links(&text("/proc/net/dev"), &text("/proc/net/route"));
        if let Some(Value::Object(first)) = interfaces.first() {
            let mut network = first.clone();
            network.insert("time".into(), now.into());
            network.insert("interfaces".into(), interfaces.into());
            node["network"] = network.into();
        }
        node
    }

    async fn disk_stats(&self) -> Disks {
        let answer = self.runtime.image_fs_info(v1::Empty {}).await.unwrap_or_default();
        let used = |of: &[v1::FilesystemUsage]| {
            let sum = |field: fn(&v1::FilesystemUsage) -> &Option<v1::UInt64Value>| {
                let found = of.iter().filter_map(|usage| field(usage).as_ref());
                found.fold(0, |sum: i64, value| sum.saturating_add_unsigned(value.value))
            };
            Extent { bytes: sum(|usage| &usage.used_bytes), inodes: sum(|usage| &usage.inodes_used) }
        };
        let images = used(&answer.image_filesystems);
        // Older runtimes have one figure for both.
        let layers = match answer.container_filesystems.as_slice() {
            [] => images,
            layers => used(layers),
        };
        let (nodes, dir) = (self.config.data_dir.clone(), self.image_dir.get().cloned());
        let measure = move || (file_system(&nodes), dir.and_then(|dir| file_system(&dir)));
        let (node, disk) = mote_api::unblock(measure).await;
        Disks { node, images: disk.map(|disk| (disk, images, layers)), pods: self.disks().await }
    }
}

/// When containers and sandboxes were made, by id.
type Since = HashMap<String, i64>;

/// What is on which disk.
struct Disks {
    node: Option<StatVfs>,
    /// Where the runtime keeps images and what containers write; what all images take of it, and all of what is written.
    images: Option<(StatVfs, Extent, Extent)>,
    pods: HashMap<String, Disk>,
}

/// The machine's own links, of proc_pid_net(5), the default route's first; what has to do with pods is shown with them.
fn links(devices: &str, routes: &str) -> Vec<Value> {
    let default = routes.lines().find_map(|line| line.split_once("\t00000000\t").map(|(name, _)| name.trim()));
    let each = devices.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let name = name.trim();
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        let at = |at: usize| numbers.get(at).copied().unwrap_or(0);
        let is_own = name != "lo" && !["veth", "mote"].iter().any(|prefix| name.starts_with(prefix));
        is_own.then(|| json!({"name": name, "rxBytes": at(0), "rxErrors": at(2), "txBytes": at(8), "txErrors": at(10)}))
    });
    let mut all: Vec<Value> = each.collect();
    if let Some(at) = all.iter().position(|link| link["name"].as_str() == default) {
        all.swap(0, at);
    }
    all
}

/// Time that all processors were not idle, since boot (proc(5)).
fn busy_nanoseconds() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or("");
    let ticks: Vec<u64> = first.split_ascii_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    let busy: u64 =
        ticks.iter().enumerate().filter(|(at, _)| matches!(at, 0..=2 | 5..=7)).map(|(_, ticks)| ticks).sum();
    busy.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

fn booted() -> String {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    Timestamp::from_second(seconds.unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn vmstat() -> Vec<(String, u64)> {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect()
}

fn moment(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn time(nanoseconds: i64) -> Value {
    moment(nanoseconds).into()
}

/// What the runtime does not know is left out.
fn figures<const N: usize>(timestamp: i64, fields: [(&str, &Option<v1::UInt64Value>); N]) -> Value {
    let mut map = Map::new();
    map.insert("time".into(), time(timestamp));
    for (name, value) in fields {
        if let Some(value) = value {
            map.insert(name.into(), value.value.into());
        }
    }
    map.into()
}

fn cpu(usage: &Option<v1::CpuUsage>) -> Option<Value> {
    let v1::CpuUsage { timestamp, usage_core_nano_seconds, usage_nano_cores } = usage.as_ref()?;
    let fields = [("usageNanoCores", usage_nano_cores), ("usageCoreNanoSeconds", usage_core_nano_seconds)];
    Some(figures(*timestamp, fields))
}

fn memory(usage: &Option<v1::MemoryUsage>) -> Option<Value> {
    let usage = usage.as_ref()?;
    let fields = [
        ("availableBytes", &usage.available_bytes),
        ("usageBytes", &usage.usage_bytes),
        ("workingSetBytes", &usage.working_set_bytes),
        ("rssBytes", &usage.rss_bytes),
        ("pageFaults", &usage.page_faults),
        ("majorPageFaults", &usage.major_page_faults),
    ];
    Some(figures(usage.timestamp, fields))
}

fn interface(usage: &v1::NetworkInterfaceUsage) -> Map {
    let fields = [
        ("rxBytes", &usage.rx_bytes),
        ("rxErrors", &usage.rx_errors),
        ("txBytes", &usage.tx_bytes),
        ("txErrors", &usage.tx_errors),
    ];
    let mut map = Map::new();
    map.insert("name".into(), usage.name.as_str().into());
    map.extend(fields.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?.value.into()))));
    map
}

fn put(map: &mut Map, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(name.into(), value);
    }
}

fn pod(stats: &v1::PodSandboxStats, since: &Since, disks: Option<&Disks>) -> Option<Value> {
    let (attributes, linux) = (stats.attributes.as_ref()?, stats.linux.as_ref()?);
    let metadata = attributes.metadata.as_ref()?;
    let now = Timestamp::now().to_string();
    let mut pod = Map::new();
    let reference = json!({"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid});
    pod.insert("podRef".into(), reference);
    put(&mut pod, "startTime", since.get(&attributes.id).map(|at| time(*at)));
    let own = disks.and_then(|disks| disks.pods.get(&metadata.uid));
    let mut used = own.map(|own| own.ephemeral).unwrap_or_default();
    let containers = linux.containers.iter().filter_map(|container| {
        let mut map = Map::new();
        let attributes = container.attributes.as_ref()?;
        let name = attributes.metadata.as_ref()?.name.as_str();
        map.insert("name".into(), name.into());
        put(&mut map, "startTime", since.get(&attributes.id).map(|at| time(*at)));
        put(&mut map, "cpu", cpu(&container.cpu));
        put(&mut map, "memory", memory(&container.memory));
        let layer = container.writable_layer.as_ref().zip(disks.and_then(|disks| disks.images.as_ref()));
        if let Some((layer, (disk, ..))) = layer {
            let number = |value: &Option<v1::UInt64Value>| value.as_ref().map_or(0, |value| value.value as i64);
            let extent = Extent { bytes: number(&layer.used_bytes), inodes: number(&layer.inodes_used) };
            used += extent;
            put(&mut map, "rootfs", Some(disk::shown(&moment(layer.timestamp), disk, Some(extent)).into()));
        }
        let logs = own.and_then(|own| own.logs.get(name)).zip(disks.and_then(|disks| disks.node.as_ref()));
        if let Some((logs, disk)) = logs {
            used += *logs;
            put(&mut map, "logs", Some(disk::shown(&now, disk, Some(*logs)).into()));
        }
        Some(Value::Object(map))
    });
    pod.insert("containers".into(), containers.collect());
    put(&mut pod, "cpu", cpu(&linux.cpu));
    put(&mut pod, "memory", memory(&linux.memory));
    let network = linux.network.as_ref().map(|network| {
        let mut map = network.default_interface.as_ref().map(interface).unwrap_or_default();
        // containerd 1.6 does not say.
        map.insert("time".into(), if network.timestamp > 0 { time(network.timestamp) } else { now.as_str().into() });
        map.insert(
            "interfaces".into(),
            network.interfaces.iter().map(|usage| Value::Object(interface(usage))).collect(),
        );
        map.into()
    });
    put(&mut pod, "network", network);
    let processes = linux.process.as_ref().and_then(|process| process.process_count.as_ref());
    if let Some((own, disk)) = own.zip(disks.and_then(|disks| disks.node.as_ref())) {
        put(&mut pod, "ephemeral-storage", Some(disk::shown(&now, disk, Some(used)).into()));
        put(&mut pod, "volume", (!own.volumes.is_empty()).then(|| own.volumes.clone().into()));
    }
    put(&mut pod, "process_stats", processes.map(|count| json!({"process_count": count.value})));
    Some(pod.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runtime_knows_is_shown() {
        let number = |value| Some(v1::UInt64Value { value });
        let stats = v1::PodSandboxStats {
            attributes: Some(v1::PodSandboxAttributes {
                metadata: Some(v1::PodSandboxMetadata {
                    name: "p".into(),
                    namespace: "n".into(),
                    uid: "u".into(),
                    attempt: 0,
                }),
                ..Default::default()
            }),
            linux: Some(v1::LinuxPodSandboxStats {
                cpu: Some(v1::CpuUsage {
                    timestamp: 1_000_000_000,
                    usage_core_nano_seconds: number(5),
                    usage_nano_cores: None,
                }),
                process: Some(v1::ProcessUsage { timestamp: 0, process_count: number(3) }),
                ..Default::default()
            }),
        };
        let since = Since::from([(String::new(), 2_000_000_000)]);
        let shown = pod(&stats, &since, None).expect("a pod");
        assert_eq!(
            shown,
            json!({"podRef": {"name": "p", "namespace": "n", "uid": "u"}, "containers": [], "startTime": "1970-01-01T00:00:02Z",
                "cpu": {"time": "1970-01-01T00:00:01Z", "usageCoreNanoSeconds": 5}, "process_stats": {"process_count": 3}})
        );
        assert!(pod(&v1::PodSandboxStats::default(), &since, None).is_none());
    }

    #[test]
    fn links_of_the_machine() {
        let devices = "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\nwlan0: 0\n  eth0: 7 2 3 0 0 0 0 0 9 4 5 0 0 0 0 0\nveth1: 1\n";
        let routes = "Iface\tDestination\tGateway\neth0\t0000A8C0\t00000000\neth0\t00000000\t0101A8C0\n";
        let found = links(devices, routes);
        let want = json!({"name": "eth0", "rxBytes": 7, "rxErrors": 3, "txBytes": 9, "txErrors": 5});
        assert_eq!(found.first(), Some(&want));
        assert_eq!(found.len(), 2);
    }
}
