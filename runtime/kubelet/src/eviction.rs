//! When the node runs short of memory or disk: what it lacks, whose pod goes for that, and what is said of it
//! (pkg/kubelet/eviction; only the hard thresholds, without grace). Pure but for `relieve`, which looks and acts each time
//! the node's Lease is renewed, so that looking costs no wake-up of its own.
use crate::{
    Kubelet,
    events::Recorder,
    labels,
    node::{disk, meminfo},
    pod::Pod,
    resources,
    state::lock,
};
use mote_api::driver::Key;
use mote_cri::v1;
use mote_schema::quantity::{Format, Quantity};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Upstream's thresholds: memory.available and nodefs.available. So much is kept back from allocatable.
pub const MEMORY_RESERVED_BYTES: i64 = 100 << 20;
pub const DISK_RESERVED_PERCENT: u64 = 10;
/// How long the node says that it is short after it last was (eviction-pressure-transition-period).
const TRANSITION: Duration = Duration::from_secs(300);
/// Priorities from here on are the system's (scheduling.SystemCriticalPriority).
const CRITICAL: i64 = 2_000_000_000;
pub const EVICTED: &str = "Evicted";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Memory,
    Disk,
}

impl Resource {
    fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
        }
    }
}

/// Since when the node is short of memory and of disk, if it is.
#[derive(Default)]
pub struct Pressure(Mutex<[Option<Instant>; 2]>);

impl Pressure {
    pub fn is_short_of(&self, resource: Resource) -> bool {
        lock(&self.0)[resource as usize].is_some_and(|last| last.elapsed() < TRANSITION)
    }

    /// Notes what is short now; true if what the node says of itself changes by that.
    fn note(&self, short: [bool; 2]) -> bool {
        let mut known = lock(&self.0);
        let mut changed = false;
        for (last, short) in known.iter_mut().zip(short) {
            let said = last.is_some();
            if short {
                *last = Some(Instant::now());
            } else if last.is_some_and(|last| last.elapsed() >= TRANSITION) {
                *last = None;
            }
            changed |= last.is_some() != said;
        }
        changed
    }

    /// Why a pod that has just come may not stay: none may without disk, and without memory none that asks for nothing.
    pub fn refuses(&self, pod: &Pod) -> Option<String> {
        if is_critical(pod) {
            return None;
        }
        let (memory, disk) = (self.is_short_of(Resource::Memory), self.is_short_of(Resource::Disk));
        let tolerates = || {
            let mut tolerations = pod.object.root().at("spec.tolerations").items();
            tolerations.any(|t| matches!(t.get("key").str(), "" | "node.kubernetes.io/memory-pressure"))
        };
        let spared = resources::qos_class(pod) != "BestEffort" || tolerates();
        let names = [(memory, "MemoryPressure"), (disk, "DiskPressure")];
        let names: Vec<&str> = names.iter().filter(|(short, _)| *short).map(|(_, name)| *name).collect();
        (disk || memory && !spared).then(|| format!("The node had condition: [{}]. ", names.join(" ")))
    }
}

/// What is below its threshold.
struct Shortage {
    resource: Resource,
    threshold: i64,
    available: i64,
}

fn shortage(resource: Resource, threshold: i64, available: i64) -> Option<Shortage> {
    (available < threshold).then_some(Shortage { resource, threshold, available })
}

fn shortages(kubelet: &Kubelet) -> Vec<Shortage> {
    let (total, free) = disk(kubelet);
    let memory = meminfo("MemAvailable").and_then(|free| shortage(Resource::Memory, MEMORY_RESERVED_BYTES, free));
    let threshold = i64::try_from(total / 100 * DISK_RESERVED_PERCENT).unwrap_or(0);
    let disk = shortage(Resource::Disk, threshold, i64::try_from(free).unwrap_or(i64::MAX));
    memory.into_iter().chain(disk).collect()
}

fn is_critical(pod: &Pod) -> bool {
    pod.object.root().at("spec.priority").as_i64().is_some_and(|priority| priority >= CRITICAL)
}

/// A pod and what each of its containers uses of what is short.
struct Candidate {
    key: Key,
    pod: Arc<Pod>,
    used: HashMap<String, i64>,
}

impl Candidate {
    /// Who goes first is least: over its request, of low priority, far over its request.
    fn rank(&self, resource: Resource) -> (bool, i64, i64) {
        let over = self.used.values().sum::<i64>().saturating_sub(resources::pod_request(&self.pod, resource.name()));
        let priority = self.pod.object.root().at("spec.priority").as_i64().unwrap_or(0);
        (over <= 0, priority, over.saturating_neg())
    }

    fn message(&self, shortage: &Shortage) -> String {
        let text = |bytes: i64| Quantity::new(bytes, Format::BinarySi).to_string();
        let name = shortage.resource.name();
        let (threshold, available) = (text(shortage.threshold), text(shortage.available));
        let mut message =
            format!("The node was low on resource: {name}. Threshold quantity: {threshold}, available: {available}. ");
        for container in &self.pod.spec.containers {
            let used = self.used.get(&container.name).copied().unwrap_or(0);
            let (request, _) = resources::request_and_limit(&container.resources, name);
            if used > request {
                let (who, used, request) = (&container.name, text(used), text(request));
                message += &format!(
                    "Container {who} was using {used}, request is {request}, has larger consumption of {name}. "
                );
            }
        }
        message
    }
}

/// The pod that goes for the shortage.
fn victim(mut candidates: Vec<Candidate>, resource: Resource) -> Option<Candidate> {
    candidates.retain(|candidate| !is_critical(&candidate.pod));
    candidates.into_iter().min_by_key(|candidate| candidate.rank(resource))
}

/// Bytes by pod and container.
fn usage(stats: &[v1::ContainerStats], resource: Resource) -> HashMap<String, HashMap<String, i64>> {
    let mut found: HashMap<String, HashMap<String, i64>> = HashMap::new();
    for one in stats {
        let Some(attributes) = &one.attributes else { continue };
        let bytes = match resource {
            Resource::Memory => one.memory.as_ref().and_then(|m| m.working_set_bytes.as_ref()),
            Resource::Disk => one.writable_layer.as_ref().and_then(|l| l.used_bytes.as_ref()),
        };
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let bytes = bytes.map_or(0, |bytes| i64::try_from(bytes.value).unwrap_or(i64::MAX));
        found.entry(label(labels::POD_UID)).or_default().insert(label(labels::CONTAINER_NAME), bytes);
    }
    found
}

/// Says what the node is short of, and ends one pod for it. The next look comes with the next Lease, and finds what that
/// one gave back.
pub async fn relieve(kubelet: &Kubelet) {
    let mut shortages = shortages(kubelet);
    let is_short = |list: &[Shortage], resource| list.iter().any(|shortage| shortage.resource == resource);
    if is_short(&shortages, Resource::Disk) {
        // What nobody uses goes before what somebody does.
        kubelet.make_room().await;
        shortages = self::shortages(kubelet);
    }
    let short = [Resource::Memory, Resource::Disk].map(|resource| is_short(&shortages, resource));
    if kubelet.pressure.note(short) {
        kubelet.health.tell();
    }
    let Some(shortage) = shortages.first() else { return };
    let request = v1::ListContainerStatsRequest::default();
    let Ok(answer) = kubelet.runtime.list_container_stats(request).await else { return };
    let mut used = usage(&answer.stats, shortage.resource);
    let workers = lock(&kubelet.workers);
    let candidates = workers.iter().filter_map(|(key, worker)| {
        let memory = lock(&worker.memory);
        let pod = memory.pod.clone().filter(|pod| !pod.is_terminal() && pod.deletion.is_none())?;
        let used = used.remove(&pod.uid).filter(|_| memory.failed.is_none())?;
        Some(Candidate { key: key.clone(), pod, used })
    });
    let candidates: Vec<Candidate> = candidates.collect();
    drop(workers);
    let Some(victim) = victim(candidates, shortage.resource) else {
        tracing::warn!(resource = shortage.resource.name(), "the node is short of it, and no pod can go for that");
        return;
    };
    let message = victim.message(shortage);
    tracing::warn!(pod = %victim.key, resource = shortage.resource.name(), "a pod is evicted");
    Recorder::of_pod(&kubelet.client, &victim.pod.object).warning(EVICTED, &message);
    let worker = lock(&kubelet.workers).get(&victim.key).cloned();
    if let Some(worker) = worker {
        lock(&worker.memory).failed = Some((EVICTED.into(), message));
        worker.interrupt.notify(usize::MAX);
        kubelet.queue().add(victim.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, Doc, Object, json};

    fn candidate(name: &str, priority: i64, request: &str, used: i64) -> Candidate {
        let kind = Catalog::builtin().by_resource("", "v1", "pods").unwrap().clone();
        let value = json!({"metadata": {"name": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]}});
        let pod = Pod::decode(&Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 });
        Candidate { key: Key::new("ns", name), pod: Arc::new(pod), used: [("c".to_owned(), used)].into() }
    }

    #[test]
    fn who_goes_first() {
        let check = |candidates: Vec<Candidate>, want: &str| {
            let found = victim(candidates, Resource::Memory).map_or(String::new(), |victim| victim.pod.name.clone());
            assert_eq!(found, want);
        };
        // Over its request before under it, whatever the priority; then by priority, then by how much.
        check(vec![candidate("under", 0, "1Gi", 1 << 20), candidate("over", 100, "1Mi", 2 << 20)], "over");
        check(vec![candidate("low", 1, "0", 1), candidate("high", 2, "0", 100)], "low");
        check(vec![candidate("little", 1, "0", 1), candidate("much", 1, "0", 100)], "much");
        check(vec![candidate("system", CRITICAL, "0", 100)], "");
    }

    #[test]
    fn what_is_said() {
        let shortage = shortage(Resource::Memory, MEMORY_RESERVED_BYTES, 90 << 20).unwrap();
        assert_eq!(
            candidate("p", 0, "0", 50 << 20).message(&shortage),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. Container c was using 50Mi, \
             request is 0, has larger consumption of memory. "
        );
    }

    #[test]
    fn who_may_come() {
        let pressure = Pressure::default();
        let (idle, asking, critical) =
            (candidate("p", 0, "0", 0), candidate("p", 0, "1Mi", 0), candidate("p", CRITICAL, "0", 0));
        let check = |short: [bool; 2], want: [bool; 3]| {
            pressure.note(short);
            assert_eq!([&idle, &asking, &critical].map(|c| pressure.refuses(&c.pod).is_some()), want, "{short:?}");
        };
        check([false, false], [false, false, false]);
        check([true, false], [true, false, false]);
        check([false, true], [true, true, false]);
        let said = pressure.refuses(&asking.pod);
        assert_eq!(said.as_deref(), Some("The node had condition: [MemoryPressure DiskPressure]. "));
    }
}
