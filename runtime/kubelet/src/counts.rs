//! What the kubelet counts of its own work, for /metrics; the names are upstream's (pkg/kubelet/metrics/metrics.go), whose
//! labels here are all of few values. Nothing survives a restart, as with any counter.
use crate::state::lock;
use mote_api::metrics::Text;
use std::{collections::BTreeMap, sync::Mutex, time::Duration};

/// Upper bounds in seconds of how long pods took to start (upstream's podStartupDurationBuckets).
const BUCKETS: [f64; 24] = [
    1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0,
    900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];

#[derive(Default)]
pub struct Counts {
    /// By name and labels.
    counters: Mutex<BTreeMap<(&'static str, String), u64>>,
    starts: Mutex<Starts>,
}

#[derive(Default)]
struct Starts {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: Duration,
}

impl Counts {
    /// `name` without its kubelet_.
    pub fn add(&self, name: &'static str, labels: impl Into<String>, count: usize) {
        *lock(&self.counters).entry((name, labels.into())).or_default() += count as u64;
    }

    /// From when a pod was first seen until it ran.
    pub fn started(&self, took: Duration) {
        let mut starts = lock(&self.starts);
        let at = BUCKETS.iter().position(|bound| took.as_secs_f64() <= *bound);
        if let Some(bucket) = at.and_then(|at| starts.buckets.get_mut(at)) {
            *bucket += 1;
        }
        starts.count += 1;
        starts.sum += took;
    }

    pub fn write(&self, text: &mut Text) {
        let mut last = "";
        for ((name, labels), count) in lock(&self.counters).iter() {
            if *name != last {
                text.family(&["kubelet_", name].concat(), "counter", "Counted since the start.");
                last = name;
            }
            text.sample("", labels, *count as f64);
        }
        let help = "Seconds from when a pod was first seen until it ran.";
        text.family("kubelet_pod_start_duration_seconds", "histogram", help);
        let starts = lock(&self.starts);
        text.histogram("", &BUCKETS, &starts.buckets, starts.count, starts.sum.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_by_name_and_labels() {
        let counts = Counts::default();
        counts.add("evictions", "eviction_signal=\"memory.available\"", 1);
        counts.add("evictions", "eviction_signal=\"memory.available\"", 1);
        counts.add("evictions", "eviction_signal=\"pid.available\"", 1);
        counts.started(Duration::from_millis(2500));
        counts.started(Duration::from_secs(4000));
        let mut text = Text::default();
        counts.write(&mut text);
        let text = text.finish();
        for line in [
            "kubelet_evictions{eviction_signal=\"memory.available\"} 2",
            "kubelet_evictions{eviction_signal=\"pid.available\"} 1",
            "kubelet_pod_start_duration_seconds_bucket{le=\"2\"} 0",
            "kubelet_pod_start_duration_seconds_bucket{le=\"3600\"} 1",
            "kubelet_pod_start_duration_seconds_bucket{le=\"+Inf\"} 2",
            "kubelet_pod_start_duration_seconds_sum 4002.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(text.matches("# TYPE kubelet_evictions counter").count(), 1);
    }
}
