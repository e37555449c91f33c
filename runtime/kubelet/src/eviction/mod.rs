//! When the node runs short of memory, disk or process numbers: what it lacks (`threshold`), how that is measured
//! (`measure`), whose pod goes for it (`rank`). `look` does it all each time the node's Lease is renewed, so that looking
//! costs no wake-up of its own, and when the kernel tells of memory (`alarm`). Behaviour: pkg/kubelet/eviction.
mod alarm;
mod measure;
mod rank;
mod threshold;

pub use alarm::Alarm;
pub use measure::{extent, memory, pids, space};
pub use rank::Extent;
pub use threshold::{Amount, CONDITIONS, Condition, SIGNALS, Settings, Signal};

use crate::{
    Kubelet,
    events::Recorder,
    gc,
    pod::Pod,
    resources,
    state::lock,
    worker::{Failed, Memory},
};
use measure::Trees;
use mote_api::driver::Key;
use mote_schema::Map;
use rank::{Candidate, Use, is_critical};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use threshold::{Observations, Resource, Standing, Threshold};

pub const EVICTED: &str = "Evicted";
/// What a pod gets that goes at once (immediateEvictionGracePeriodSeconds).
const IMMEDIATE: Duration = Duration::from_secs(1);
/// One pod goes at a time, and so long the others are safe from the same shortage (podCleanupTimeout), looked at so often.
const LEAVING: Duration = Duration::from_secs(30);
const LEAVING_LOOK: Duration = Duration::from_secs(1);
/// Trees of pods with limits on the disk are walked this often (volumeStatsAggPeriod).
const LIMITS: Duration = Duration::from_secs(60);

/// What the node lacks, and who is on the way out for that.
#[derive(Default)]
pub struct Pressure {
    standing: Mutex<Standing>,
    leaving: Mutex<Option<(Key, Instant)>>,
    limits_seen: Mutex<Option<Instant>>,
}

impl Pressure {
    pub fn is_said(&self, condition: Condition) -> bool {
        lock(&self.standing).said[condition as usize]
    }

    /// Why a pod that has just come may not stay: for want of memory none that asks for nothing, else none.
    pub fn refuses(&self, pod: &Pod) -> Option<String> {
        let said = lock(&self.standing).said;
        if said == [false; 3] || is_critical(pod) {
            return None;
        }
        let tolerates = || {
            let mut tolerations = pod.object.root().at("spec.tolerations").items();
            tolerations.any(|t| matches!(t.get("key").str(), "" | "node.kubernetes.io/memory-pressure"))
        };
        if said == [true, false, false] && (resources::qos_class(pod) != "BestEffort" || tolerates()) {
            return None;
        }
        let names: Vec<&str> = CONDITIONS.iter().filter(|(_, c)| said[*c as usize]).map(|(name, _)| *name).collect();
        Some(format!("The node had condition: [{}]. ", names.join(" ")))
    }
}

/// Says what the node is short of, and ends one pod for it; when to look again if that is sooner than usual.
pub(crate) async fn look(kubelet: &Kubelet, alarm: &mut Alarm) -> Option<Duration> {
    let settings = &kubelet.config.eviction;
    let seen = observe(kubelet);
    let memory = seen[Signal::MemoryAvailable as usize];
    alarm.set(memory, memory.map_or(0, |seen| settings.reserved(Signal::MemoryAvailable, seen.capacity)));
    let (due, changed) = lock(&kubelet.pressure.standing).note(settings, &seen, Instant::now());
    if changed {
        kubelet.health.tell();
    }
    if !kubelet.health.is_up() {
        return None;
    }
    if is_leaving(kubelet) {
        return Some(LEAVING_LOOK);
    }
    if let Some((candidate, (signal, message))) = over_limit(kubelet).await {
        let message = Told { message, signal, annotations: Default::default() };
        evict(kubelet, candidate, message, IMMEDIATE, false);
        return Some(LEAVING_LOOK);
    }
    let threshold = due.first()?;
    let resource = threshold.signal.resource().name();
    tracing::warn!(resource, signal = SIGNALS[threshold.signal as usize].0, "the node is short of it");
    if let Ok(node) = kubelet.client.get(&kubelet.nodes, "", &kubelet.config.node_name) {
        let message = format!("Attempting to reclaim {resource}");
        kubelet.client.event(&node, "Warning", "EvictionThresholdMet", &message);
    }
    if reclaim(kubelet, threshold).await {
        return None;
    }
    let candidates = candidates(kubelet, |_| true, threshold.signal.resource()).await?;
    let Some(victim) = rank::victim(candidates, threshold.signal, images_apart(kubelet)) else {
        tracing::warn!(resource, "no pod can go for it");
        return None;
    };
    let (message, annotations) = victim.message(threshold, &seen);
    let message = Told { message, signal: SIGNALS[threshold.signal as usize].0, annotations };
    let grace = match threshold.grace {
        None => IMMEDIATE,
        Some(_) => {
            let own = victim.pod.spec.termination_grace_period_seconds.unwrap_or(i64::MAX);
            Duration::from_secs(own.min(settings.max_pod_grace_seconds).max(0) as u64)
        }
    };
    evict(kubelet, victim, message, grace, true);
    Some(LEAVING_LOOK)
}

fn observe(kubelet: &Kubelet) -> Observations {
    measure::observe(&kubelet.config.data_dir, kubelet.image_dir.get().map(|dir| dir.as_path()))
}

fn images_apart(kubelet: &Kubelet) -> bool {
    kubelet.image_dir.get().is_some_and(|dir| measure::is_apart(dir, &kubelet.config.data_dir))
}

fn is_leaving(kubelet: &Kubelet) -> bool {
    let mut leaving = lock(&kubelet.pressure.leaving);
    let is_there = |key: &Key| lock(&kubelet.workers).get(key).is_some_and(|w| !lock(&w.memory).is_cleaned());
    let waits = leaving.as_ref().is_some_and(|(key, since)| since.elapsed() < LEAVING && is_there(key));
    if !waits {
        *leaving = None;
    }
    waits
}

/// What nobody uses goes before what somebody does: dead containers and unused images of the file system that is full.
/// Whether that was enough.
async fn reclaim(kubelet: &Kubelet, threshold: &Threshold) -> bool {
    let on_disk = matches!(threshold.signal.resource(), Resource::Storage | Resource::Inodes);
    // With a file system of their own, they are not what fills the other.
    if !on_disk || images_apart(kubelet) && !threshold.signal.is_of_images() {
        return false;
    }
    gc::finished_pods(kubelet).await;
    if kubelet.started.elapsed() >= gc::IMAGE_MINIMUM_AGE
        && let Err(error) = gc::images(kubelet, || u64::MAX).await
    {
        tracing::warn!(doing = error.doing(), %error, "unused images stay");
    }
    let seen = observe(kubelet);
    !kubelet.config.eviction.thresholds().iter().any(|threshold| threshold.is_met(&seen, true))
}

/// A pod that uses more of the disk than its own limits allow.
async fn over_limit(kubelet: &Kubelet) -> Option<(Candidate, (&'static str, String))> {
    let due = {
        let mut seen = lock(&kubelet.pressure.limits_seen);
        let due = seen.is_none_or(|seen| seen.elapsed() >= LIMITS);
        let any = || {
            lock(&kubelet.workers).values().any(|w| lock(&w.memory).pod.as_ref().is_some_and(|p| rank::has_limit(p)))
        };
        if due && any() {
            *seen = Some(Instant::now());
            true
        } else {
            false
        }
    };
    if !due {
        return None;
    }
    let apart = images_apart(kubelet);
    let found = candidates(kubelet, rank::has_limit, Resource::Storage).await?;
    found.into_iter().find_map(|candidate| {
        let found = candidate.over_limit(apart).filter(|_| !is_critical(&candidate.pod))?;
        Some((candidate, found))
    })
}

/// Pods that have anything running, with what they use of a resource.
async fn candidates(kubelet: &Kubelet, wanted: fn(&Pod) -> bool, resource: Resource) -> Option<Vec<Candidate>> {
    let mut used = match measure::containers(kubelet).await {
        Ok(used) => used,
        Err(error) => {
            tracing::warn!(doing = error.doing(), %error, "what pods use is not known");
            return None;
        }
    };
    let found: Vec<(Key, Arc<Pod>, Use)> = {
        let workers = lock(&kubelet.workers);
        let each = workers.iter().filter_map(|(key, worker)| {
            let memory: std::sync::MutexGuard<'_, Memory> = lock(&worker.memory);
            let pod = memory.pod.clone().filter(|pod| !pod.is_terminal() && pod.deletion.is_none() && wanted(pod))?;
            let used = used.remove(&pod.uid).filter(|_| memory.failed.is_none())?;
            Some((key.clone(), pod, used))
        });
        each.collect()
    };
    let cgroups = kubelet.cgroups();
    let trees: HashMap<String, Trees> = match resource {
        Resource::Storage | Resource::Inodes => {
            found.iter().map(|(_, pod, _)| (pod.uid.clone(), Trees::of(kubelet, pod))).collect()
        }
        Resource::Memory | Resource::Pids => HashMap::new(),
    };
    let measured = mote_api::unblock(move || {
        let mut trees = trees;
        let each = found.into_iter().map(|(key, pod, mut used)| {
            if let Some(trees) = trees.remove(&pod.uid) {
                trees.add_to(&mut used);
            }
            if resource == Resource::Pids {
                used.pids = cgroups.pids(&pod.uid, resources::qos_class(&pod));
            }
            Candidate { key, pod, used }
        });
        each.collect()
    });
    Some(measured.await)
}

/// What is said of an eviction, and as what it counts.
struct Told {
    message: String,
    signal: &'static str,
    annotations: Map,
}

fn evict(kubelet: &Kubelet, victim: Candidate, told: Told, grace: Duration, disrupts: bool) {
    let Told { message, signal, annotations } = told;
    kubelet.counts.add("evictions", format!("eviction_signal={signal:?}"), 1);
    tracing::warn!(pod = %victim.key, message, "a pod is evicted");
    Recorder::of_pod(&kubelet.client, &victim.pod.object).annotated(EVICTED, &message, annotations);
    let worker = lock(&kubelet.workers).get(&victim.key).cloned();
    if let Some(worker) = worker {
        lock(&worker.memory).failed = Some(Failed { reason: EVICTED.into(), message, grace: Some(grace), disrupts });
        worker.interrupt.notify(usize::MAX);
        kubelet.queue().add(victim.key.clone());
    }
    *lock(&kubelet.pressure.leaving) = Some((victim.key, Instant::now()));
}

/// Where the runtime keeps images and what containers write.
pub(crate) async fn image_dir(kubelet: &Kubelet) -> Option<std::path::PathBuf> {
    let answer = kubelet.runtime.image_fs_info(mote_cri::v1::Empty {}).await.ok()?;
    let dir = answer.image_filesystems.into_iter().next()?.fs_id?.mountpoint;
    Some(dir).filter(|dir| Path::new(dir).is_absolute()).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn who_may_come() {
        let pressure = Pressure::default();
        let made = |priority: i64, requests| {
            let container = json!({"name": "c", "resources": {"requests": requests}});
            rank::tests::pod("p", json!({"priority": priority, "containers": [container]}))
        };
        let (idle, asking, critical) =
            (made(0, json!({})), made(0, json!({"memory": "1Mi"})), made(2_000_000_000, json!({})));
        let check = |said: [bool; 3], want: [bool; 3]| {
            lock(&pressure.standing).said = said;
            assert_eq!([&idle, &asking, &critical].map(|pod| pressure.refuses(pod).is_some()), want, "{said:?}");
        };
        check([false, false, false], [false, false, false]);
        check([true, false, false], [true, false, false]);
        check([false, false, true], [true, true, false]);
        check([true, true, false], [true, true, false]);
        let said = pressure.refuses(&asking);
        assert_eq!(said.as_deref(), Some("The node had condition: [MemoryPressure DiskPressure]. "));
    }
}
