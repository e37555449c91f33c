//! Whose pod goes for what is short, and what is said of it (pkg/kubelet/eviction/helpers.go). Pure.
use super::threshold::{Observations, Resource, Signal, Threshold};
use crate::{pod::Pod, resources};
use mote_api::driver::Key;
use mote_schema::{Map, quantity::Quantity};
use std::{collections::HashMap, ops::AddAssign, sync::Arc};

/// Priorities from here on are the system's (scheduling.SystemCriticalPriority).
const CRITICAL: i64 = 2_000_000_000;
const MIRROR: &str = "kubernetes.io/config.mirror";
const STORAGE: &str = "ephemeral-storage";

pub fn is_critical(pod: &Pod) -> bool {
    priority(pod) >= CRITICAL || pod.annotations.contains_key(MIRROR)
}

fn priority(pod: &Pod) -> i64 {
    pod.object.root().at("spec.priority").as_i64().unwrap_or(0)
}

/// Of a directory tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    pub bytes: i64,
    pub inodes: i64,
}

impl AddAssign for Extent {
    fn add_assign(&mut self, other: Extent) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.inodes = self.inodes.saturating_add(other.inodes);
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ContainerUse {
    pub memory_bytes: i64,
    /// What it has written over its image.
    pub layer: Extent,
    pub logs: Extent,
}

/// What a pod uses.
#[derive(Clone, Debug, Default)]
pub struct Use {
    pub containers: HashMap<String, ContainerUse>,
    /// emptyDirs that are on the disk, and what the API feeds.
    pub volumes: HashMap<String, Extent>,
    pub pids: i64,
}

impl Use {
    /// On the file system that a signal is about: images and layers may have one of their own.
    fn on_disk(&self, signal: Signal, images_apart: bool) -> Extent {
        let mut sum = Extent::default();
        for container in self.containers.values() {
            if !images_apart || signal.is_of_images() {
                sum += container.layer;
            }
            if !images_apart || !signal.is_of_images() {
                sum += container.logs;
            }
        }
        if !images_apart || !signal.is_of_images() {
            self.volumes.values().for_each(|volume| sum += *volume);
        }
        sum
    }
}

pub struct Candidate {
    pub key: Key,
    pub pod: Arc<Pod>,
    pub used: Use,
}

impl Candidate {
    /// Who goes first is least: over its request, of low priority, far over its request.
    fn rank(&self, signal: Signal, images_apart: bool) -> (bool, i64, i64) {
        let request = |name| resources::pod_request(&self.pod, name);
        let (used, request, allowed) = match signal.resource() {
            Resource::Memory => {
                let used = self.used.containers.values().map(|c| c.memory_bytes).fold(0, i64::saturating_add);
                (used, request("memory"), request("memory"))
            }
            Resource::Storage => (self.used.on_disk(signal, images_apart).bytes, request(STORAGE), request(STORAGE)),
            // No pod can ask for inodes, so each exceeds; upstream sets them off against its bytes all the same.
            Resource::Inodes => (self.used.on_disk(signal, images_apart).inodes, request(STORAGE), 0),
            Resource::Pids => return (false, priority(&self.pod), self.used.pids.saturating_neg()),
        };
        (used <= allowed, priority(&self.pod), request.saturating_sub(used))
    }

    /// The Event's message and annotations (evictionMessage).
    pub fn message(&self, threshold: &Threshold, seen: &Observations) -> (String, Map) {
        let resource = threshold.signal.resource();
        let name = resource.name();
        let mut message = format!("The node was low on resource: {name}. ");
        if let Some(seen) = seen[threshold.signal as usize] {
            let (least, available) = (threshold.amount.of(seen.capacity), seen.available);
            let (least, available) = (resource.amount(least), resource.amount(available));
            message += &format!("Threshold quantity: {least}, available: {available}. ");
        }
        let mut annotations = Map::new();
        let (mut offending, mut usage) = (Vec::new(), Vec::new());
        let mut blame = |what: &str, who: &str, used: String, request: &str| {
            let larger = "has larger consumption of";
            message += &format!("{what} {who} was using {used}, request is {request}, {larger} {name}. ");
        };
        let text = |own: &Option<crate::spec::ResourceRequirements>| {
            let found = own.as_ref().and_then(|own| own.requests.as_ref()).and_then(|list| list.get(name));
            found.and_then(|amount| Quantity::parse(&amount.0).ok()).map(|amount| amount.to_string())
        };
        if let Some(request) = text(&self.pod.spec.resources).filter(|_| resource == Resource::Memory) {
            let used = self.used.containers.values().map(|c| c.memory_bytes).fold(0, i64::saturating_add);
            let used = resource.amount(used);
            annotations.insert("offending_pod".into(), self.pod.name.as_str().into());
            annotations.insert("offending_pod_usage".into(), used.as_str().into());
            blame("Pod", &self.pod.name, used, &request);
        }
        for container in self.pod.spec.containers.iter().chain(self.pod.init_containers()) {
            let Some(found) = self.used.containers.get(&container.name) else { continue };
            let used = match resource {
                Resource::Memory => found.memory_bytes,
                Resource::Storage => found.layer.bytes.saturating_add(found.logs.bytes),
                Resource::Inodes | Resource::Pids => continue,
            };
            if used > resources::request_and_limit(&container.resources, name).0 {
                let request = text(&container.resources).unwrap_or_else(|| "0".into());
                offending.push(container.name.as_str());
                usage.push(resource.amount(used));
                blame("Container", &container.name, resource.amount(used), &request);
            }
        }
        annotations.insert("offending_containers".into(), offending.join(",").into());
        annotations.insert("offending_containers_usage".into(), usage.join(",").into());
        annotations.insert("starved_resource".into(), name.into());
        (message, annotations)
    }

    /// What of the pod is over a limit of its own, whether the disk is full or not: as which signal it counts, and what is said.
    pub fn over_limit(&self, images_apart: bool) -> Option<(&'static str, String)> {
        let shown = |text: &str| Quantity::parse(text).map_or_else(|_| text.to_owned(), |q| q.to_string());
        for volume in self.pod.spec.volumes.iter().flatten() {
            let limit = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref());
            let (Some(limit), Some(used)) = (limit, self.used.volumes.get(&volume.name)) else { continue };
            if (1..used.bytes).contains(&resources::number(STORAGE, Some(&limit.0))) {
                let (name, limit) = (&volume.name, shown(&limit.0));
                let said = format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ");
                return Some(("emptydirfs.limit", said));
            }
        }
        let all = self.used.on_disk(Signal::NodeFsAvailable, false).bytes;
        let limit = resources::pod_limit(&self.pod, STORAGE);
        if (1..all).contains(&limit) {
            let limit = Resource::Storage.amount(limit);
            let said = format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
            return Some(("ephemeralpodfs.limit", said));
        }
        self.pod.spec.containers.iter().find_map(|container| {
            let found = self.used.containers.get(&container.name)?;
            let layer = if images_apart { 0 } else { found.layer.bytes };
            let (_, limit) = resources::request_and_limit(&container.resources, STORAGE);
            let used = found.logs.bytes.saturating_add(layer);
            let name = &container.name;
            let limits = container.resources.as_ref().and_then(|own| own.limits.as_ref());
            let text = shown(&limits?.get(STORAGE)?.0);
            let said = || format!("Container {name} exceeded its local ephemeral storage limit {text:?}. ");
            (1..used).contains(&limit).then(|| ("ephemeralcontainerfs.limit", said()))
        })
    }
}

/// Whether anything of the pod has a limit on the disk.
pub fn has_limit(pod: &Pod) -> bool {
    let sized =
        |volume: &crate::spec::Volume| volume.empty_dir.as_ref().is_some_and(|source| source.size_limit.is_some());
    resources::pod_limit(pod, STORAGE) > 0 || pod.spec.volumes.iter().flatten().any(sized)
}

/// The pod that goes for what is short.
pub fn victim(mut candidates: Vec<Candidate>, signal: Signal, images_apart: bool) -> Option<Candidate> {
    candidates.retain(|candidate| !is_critical(&candidate.pod));
    candidates.into_iter().min_by_key(|candidate| candidate.rank(signal, images_apart))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::eviction::threshold::{Observation, Settings};
    use mote_schema::{Catalog, Doc, Object, Value, json};

    pub fn pod(name: &str, spec: Value) -> Arc<Pod> {
        let kind = Catalog::builtin().by_resource("", "v1", "pods").unwrap().clone();
        let value = json!({"metadata": {"name": name}, "spec": spec});
        Arc::new(Pod::decode(&Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }))
    }

    fn candidate(name: &str, priority: i64, requests: Value, used: ContainerUse) -> Candidate {
        let container = json!({"name": "c", "resources": {"requests": requests}});
        let pod = pod(name, json!({"priority": priority, "containers": [container]}));
        let used = Use { containers: [("c".to_owned(), used)].into(), ..Use::default() };
        Candidate { key: Key::new("ns", name), pod, used }
    }

    fn memory(name: &str, priority: i64, request: &str, used: i64) -> Candidate {
        candidate(name, priority, json!({"memory": request}), ContainerUse { memory_bytes: used, ..Default::default() })
    }

    fn check(signal: Signal, images_apart: bool, candidates: Vec<Candidate>, want: &str) {
        let found = victim(candidates, signal, images_apart).map_or(String::new(), |victim| victim.pod.name.clone());
        assert_eq!(found, want);
    }

    #[test]
    fn who_goes_first_for_memory() {
        let check = |candidates, want| check(Signal::MemoryAvailable, false, candidates, want);
        // Over its request before under it, whatever the priority; then by priority, then by how much.
        check(vec![memory("under", 0, "1Gi", 1 << 20), memory("over", 100, "1Mi", 2 << 20)], "over");
        check(vec![memory("low", 1, "0", 1), memory("high", 2, "0", 100)], "low");
        check(vec![memory("little", 1, "0", 1), memory("much", 1, "0", 100)], "much");
        check(vec![memory("asked", 1, "50", 101), memory("idle", 1, "0", 100)], "idle");
        check(vec![memory("system", CRITICAL, "0", 100)], "");
    }

    #[test]
    fn who_goes_first_for_the_disk() {
        let on_disk = |name: &str, layer: i64, logs: i64, volume: i64| {
            let extent = |bytes| Extent { bytes, inodes: 100 - bytes };
            let used = ContainerUse { memory_bytes: 0, layer: extent(layer), logs: extent(logs) };
            let mut made = candidate(name, 0, json!({STORAGE: "1"}), used);
            made.used.volumes.insert("v".into(), extent(volume));
            made
        };
        let all = || vec![on_disk("layer", 50, 2, 2), on_disk("logs", 2, 30, 3), on_disk("volume", 2, 3, 20)];
        check(Signal::NodeFsAvailable, false, all(), "layer");
        check(Signal::NodeFsAvailable, true, all(), "logs");
        check(Signal::ImageFsAvailable, true, all(), "layer");
        check(Signal::NodeFsInodesFree, false, all(), "volume");
    }

    #[test]
    fn who_goes_first_for_pids() {
        let forks = |name: &str, priority: i64, pids: i64| {
            let mut made = memory(name, priority, "0", 0);
            made.used.pids = pids;
            made
        };
        check(Signal::PidAvailable, false, vec![forks("few", 0, 2), forks("many", 0, 9)], "many");
        check(Signal::PidAvailable, false, vec![forks("few", 0, 2), forks("many", 1, 9)], "few");
    }

    #[test]
    fn what_is_said() {
        let mut seen = Observations::default();
        seen[0] = Some(Observation { available: 90 << 20, capacity: 1 << 30 });
        seen[2] = Some(Observation { available: 7, capacity: 1000 });
        let thresholds = Settings::default().thresholds();
        let said = |at: usize| memory("p", 0, "1Mi", 50 << 20).message(&thresholds[at], &seen);
        let annotations =
            json!({"offending_containers": "c", "offending_containers_usage": "50Mi", "starved_resource": "memory"});
        assert_eq!(Value::from(said(0).1), annotations);
        assert_eq!(
            said(0).0,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 90Mi. Container c was using 50Mi, \
             request is 1Mi, has larger consumption of memory. "
        );
        assert_eq!(said(2).0, "The node was low on resource: inodes. Threshold quantity: 50, available: 7. ");
    }

    #[test]
    fn limits_of_its_own() {
        let check = |limit: Value, size: Value, want: Option<&str>| {
            let spec = json!({"containers": [{"name": "c", "resources": {"limits": limit}}],
                "volumes": [{"name": "v", "emptyDir": size}]});
            let used = ContainerUse { layer: Extent { bytes: 60, inodes: 1 }, ..Default::default() };
            let used = Use {
                containers: [("c".to_owned(), used)].into(),
                volumes: [("v".to_owned(), Extent { bytes: 100, inodes: 2 })].into(),
                pids: 0,
            };
            let candidate = Candidate { key: Key::new("ns", "p"), pod: pod("p", spec), used };
            assert_eq!(candidate.over_limit(false).map(|found| found.1).as_deref(), want);
            assert_eq!(has_limit(&candidate.pod), limit != json!({}) || size != json!({}));
        };
        check(json!({}), json!({}), None);
        check(json!({}), json!({"sizeLimit": "100"}), None);
        let said = "Usage of EmptyDir volume \"v\" exceeds the limit \"99\". ";
        check(json!({}), json!({"sizeLimit": "99"}), Some(said));
        let said = "Pod ephemeral local storage usage exceeds the total limit of containers 150. ";
        check(json!({STORAGE: "150"}), json!({}), Some(said));
        check(json!({STORAGE: "160"}), json!({}), None);
    }
}
