//! What the node and its pods use: the answer of a kubelet's /stats/summary (kubelet/pkg/apis/stats/v1alpha1), made when
//! somebody asks, from the runtime's figures and the kernel's.
use crate::{
    Kubelet,
    node::{disk, meminfo},
};
use jiff::Timestamp;
use mote_cri::v1;
use mote_schema::Status;
use mote_schema::{Map, Value, json};
use std::fs;

/// Pods of one answer.
const MAX_PODS: usize = 1024;

impl Kubelet {
    pub(crate) async fn summary(&self) -> Result<Value, Status> {
        let answer = self.runtime.list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default()).await;
        let stats = answer.map_err(|error| Status::internal(error.to_string()))?.stats;
        let pods: Vec<Value> = stats.iter().take(MAX_PODS).filter_map(pod).collect();
        Ok(json!({"node": self.node_stats(), "pods": pods}))
    }

    fn node_stats(&self) -> Value {
        let now = Timestamp::now().to_string();
        let of = |name: &str| meminfo(name).unwrap_or(0);
        let (total, available) = (of("MemTotal"), of("MemAvailable"));
        let used = total - of("MemFree");
        let (disk_bytes, disk_free) = disk(self);
        let mut memory = json!({"time": now, "availableBytes": available, "usageBytes": used,
            "workingSetBytes": (total - available).max(0), "rssBytes": of("AnonPages")});
        let faults = vmstat();
        for (field, key) in [("pageFaults", "pgfault"), ("majorPageFaults", "pgmajfault")] {
            if let Some(count) = faults.iter().find(|(name, _)| name == key) {
                memory[field] = count.1.into();
            }
        }
        json!({
            "nodeName": self.config.node_name,
            "startTime": booted(),
            "cpu": {"time": now, "usageCoreNanoSeconds": busy_nanoseconds()},
            "memory": memory,
            "fs": {"time": now, "availableBytes": disk_free, "capacityBytes": disk_bytes,
                "usedBytes": disk_bytes.saturating_sub(disk_free)},
        })
    }
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

fn time(nanoseconds: i64) -> Value {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH).to_string().into()
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

fn pod(stats: &v1::PodSandboxStats) -> Option<Value> {
    let (attributes, linux) = (stats.attributes.as_ref()?, stats.linux.as_ref()?);
    let metadata = attributes.metadata.as_ref()?;
    let mut pod = Map::new();
    let reference = json!({"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid});
    pod.insert("podRef".into(), reference);
    let containers = linux.containers.iter().filter_map(|container| {
        let mut map = Map::new();
        map.insert("name".into(), container.attributes.as_ref()?.metadata.as_ref()?.name.as_str().into());
        put(&mut map, "cpu", cpu(&container.cpu));
        put(&mut map, "memory", memory(&container.memory));
        let layer = container.writable_layer.as_ref().map(|layer| {
            figures(layer.timestamp, [("usedBytes", &layer.used_bytes), ("inodesUsed", &layer.inodes_used)])
        });
        put(&mut map, "rootfs", layer);
        Some(Value::Object(map))
    });
    pod.insert("containers".into(), containers.collect());
    put(&mut pod, "cpu", cpu(&linux.cpu));
    put(&mut pod, "memory", memory(&linux.memory));
    let network = linux.network.as_ref().map(|network| {
        let mut map = network.default_interface.as_ref().map(interface).unwrap_or_default();
        map.insert("time".into(), time(network.timestamp));
        map.insert(
            "interfaces".into(),
            network.interfaces.iter().map(|usage| Value::Object(interface(usage))).collect(),
        );
        map.into()
    });
    put(&mut pod, "network", network);
    let processes = linux.process.as_ref().and_then(|process| process.process_count.as_ref());
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
        let shown = pod(&stats).expect("a pod");
        assert_eq!(
            shown,
            json!({"podRef": {"name": "p", "namespace": "n", "uid": "u"}, "containers": [],
                "cpu": {"time": "1970-01-01T00:00:01Z", "usageCoreNanoSeconds": 5}, "process_stats": {"process_count": 3}})
        );
        assert!(pod(&v1::PodSandboxStats::default()).is_none());
    }
}
