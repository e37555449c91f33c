//! Back-off by key: doubling from an initial delay to a bound, forgotten after twice the bound without use
//! (client-go's flowcontrol.Backoff). Time comes in, so tests need no clock.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

pub const CONTAINER_INITIAL: Duration = Duration::from_secs(10);
pub const CONTAINER_MAX: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    entries: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    delay: Duration,
    updated: Instant,
}

impl Backoff {
    pub fn new(initial: Duration, max: Duration) -> Backoff {
        Backoff { initial, max, entries: HashMap::new() }
    }

    fn live(&self, key: &str, now: Instant) -> Option<&Entry> {
        self.entries.get(key).filter(|e| now.saturating_duration_since(e.updated) <= self.max * 2)
    }

    /// The present delay, if the key has one.
    pub fn delay(&self, key: &str, now: Instant) -> Option<Duration> {
        self.live(key, now).map(|e| e.delay)
    }

    /// How much of the delay is left, counted from the last failure noted.
    pub fn left(&self, key: &str, now: Instant) -> Option<Duration> {
        let entry = self.live(key, now)?;
        entry.delay.checked_sub(now.saturating_duration_since(entry.updated)).filter(|d| !d.is_zero())
    }

    /// Notes a failure: the next delay is the double.
    pub fn fail(&mut self, key: &str, now: Instant) -> Duration {
        let delay = self.live(key, now).map_or(self.initial, |e| (e.delay * 2).min(self.max));
        self.entries.insert(key.to_owned(), Entry { delay, updated: now });
        delay
    }

    /// Goes on where an earlier process was after `failures`, if nothing is known yet.
    pub fn resume(&mut self, key: &str, failures: u32, now: Instant) {
        if failures > 0 && self.live(key, now).is_none() {
            let delay = self.initial.saturating_mul(1 << (failures - 1).min(16)).min(self.max);
            self.entries.insert(key.to_owned(), Entry { delay, updated: now });
        }
    }

    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// As Go prints a duration of whole seconds: "10s", "1m20s", "5m0s"; with milliseconds "1.5s", "250ms".
pub fn go_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms == 0 {
        return "0s".into();
    }
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let (seconds, fraction) = (ms / 1000, ms % 1000);
    let fraction =
        if fraction == 0 { String::new() } else { format!(".{fraction:03}").trim_end_matches('0').to_owned() };
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}{fraction}s"),
        (0, m) => format!("{m}m{rest}{fraction}s"),
        (h, m) => format!("{h}h{m}m{rest}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_bound_and_is_forgotten() {
        let mut backoff = Backoff::new(CONTAINER_INITIAL, CONTAINER_MAX);
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..7 {
            delays.push(backoff.fail("a", now).as_secs());
            now += Duration::from_secs(1);
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.left("a", now), Some(Duration::from_secs(299)));
        now += Duration::from_secs(300);
        assert_eq!(backoff.left("a", now), None);
        assert_eq!(backoff.delay("a", now), Some(Duration::from_secs(300)));
        now += Duration::from_secs(301);
        assert_eq!(backoff.delay("a", now), None);
        assert_eq!(backoff.fail("a", now), CONTAINER_INITIAL);
    }

    #[test]
    fn goes_on_after_a_restart() {
        let mut backoff = Backoff::new(CONTAINER_INITIAL, CONTAINER_MAX);
        let now = Instant::now();
        for (key, failures, want) in [("a", 0, None), ("b", 1, Some(10)), ("c", 3, Some(40)), ("d", 99, Some(300))] {
            backoff.resume(key, failures, now);
            assert_eq!(backoff.delay(key, now).map(|d| d.as_secs()), want);
        }
        backoff.resume("c", 1, now);
        assert_eq!(backoff.delay("c", now), Some(Duration::from_secs(40)));
    }

    #[test]
    fn durations() {
        for (ms, want) in [
            (0, "0s"),
            (250, "250ms"),
            (10_000, "10s"),
            (1500, "1.5s"),
            (80_000, "1m20s"),
            (300_000, "5m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(ms)), want);
        }
    }
}
