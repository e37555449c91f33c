//! How long things took, counted by how long: enough for a histogram, and nothing is kept of a single one.
use std::time::Duration;

/// From what one flash flush takes at best to what a dying card takes.
const BOUNDS_SECONDS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// By the first bound they are not above.
    counts: [u64; BOUNDS_SECONDS.len()],
    pub total: u64,
    pub sum_seconds: f64,
}

impl Latency {
    pub(crate) fn note(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(at) = BOUNDS_SECONDS.iter().position(|bound| seconds <= *bound) {
            self.counts[at] += 1;
        }
        self.total += 1;
        self.sum_seconds += seconds;
    }

    /// Bounds in seconds, and how many were above the one before and not above this one.
    pub fn buckets(&self) -> (&'static [f64], &[u64]) {
        (&BOUNDS_SECONDS, &self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once_and_what_is_above_all_bounds_only_in_the_total() {
        let mut latency = Latency::default();
        for micros in [1, 500, 501, 3_000_000] {
            latency.note(Duration::from_micros(micros));
        }
        assert_eq!(latency.buckets().1, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((latency.total, latency.sum_seconds), (4, 3.001_002));
    }
}
