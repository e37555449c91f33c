//! What is watched, from where on it is short, and since when it has been: pkg/kubelet/eviction/{helpers,api}.go. Pure.
use mote_schema::quantity::{Format, Quantity};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

/// In the order of `Signal`, and of every list by signal.
pub const SIGNALS: [(&str, Signal); 6] = [
    ("memory.available", Signal::MemoryAvailable),
    ("nodefs.available", Signal::NodeFsAvailable),
    ("nodefs.inodesFree", Signal::NodeFsInodesFree),
    ("imagefs.available", Signal::ImageFsAvailable),
    ("imagefs.inodesFree", Signal::ImageFsInodesFree),
    ("pid.available", Signal::PidAvailable),
];

/// What pods are evicted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Memory,
    Storage,
    Inodes,
    Pids,
}

impl Resource {
    pub fn name(self) -> &'static str {
        match self {
            Resource::Memory => "memory",
            Resource::Storage => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        }
    }

    pub fn amount(self, amount: i64) -> String {
        let format = match self {
            Resource::Memory | Resource::Storage => Format::BinarySi,
            Resource::Inodes | Resource::Pids => Format::DecimalSi,
        };
        Quantity::new(amount, format).to_string()
    }
}

/// What the node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Memory,
    Disk,
    Pid,
}

pub const CONDITIONS: [(&str, Condition); 3] =
    [("MemoryPressure", Condition::Memory), ("DiskPressure", Condition::Disk), ("PIDPressure", Condition::Pid)];

impl Signal {
    pub fn resource(self) -> Resource {
        match self {
            Signal::MemoryAvailable => Resource::Memory,
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => Resource::Storage,
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => Resource::Inodes,
            Signal::PidAvailable => Resource::Pids,
        }
    }

    fn condition(self) -> Condition {
        match self.resource() {
            Resource::Memory => Condition::Memory,
            Resource::Storage | Resource::Inodes => Condition::Disk,
            Resource::Pids => Condition::Pid,
        }
    }

    pub fn is_of_images(self) -> bool {
        matches!(self, Signal::ImageFsAvailable | Signal::ImageFsInodesFree)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Units(i64),
    Percent(f64),
}

impl Amount {
    /// "100Mi" or "10%".
    pub fn parse(text: &str) -> Option<Amount> {
        if let Some(percent) = text.strip_suffix('%') {
            return percent.parse().ok().filter(|p| (0.0..=100.0).contains(p)).map(Amount::Percent);
        }
        let quantity = Quantity::parse(text).ok().filter(|q| !q.is_negative())?;
        Some(Amount::Units(quantity.value()))
    }

    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Amount::Units(units) => units,
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }

    /// All or nothing is how a threshold is switched off.
    fn is_off(self) -> bool {
        matches!(self, Amount::Percent(percent) if percent <= 0.0 || percent >= 100.0)
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Amount::Units(units) => Quantity::new(*units, Format::BinarySi).fmt(f),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// By signal.
pub type List<T> = [Option<T>; SIGNALS.len()];

/// The fields of a KubeletConfiguration, and its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub hard: List<Amount>,
    pub soft: List<Amount>,
    pub soft_grace: List<Duration>,
    pub minimum_reclaim: List<Amount>,
    pub pressure_transition: Duration,
    pub max_pod_grace_seconds: i64,
}

impl Default for Settings {
    fn default() -> Settings {
        let percent = |percent| Some(Amount::Percent(percent));
        Settings {
            hard: [Some(Amount::Units(100 << 20)), percent(10.0), percent(5.0), percent(15.0), percent(5.0), None],
            soft: [None; 6],
            soft_grace: [None; 6],
            minimum_reclaim: [None; 6],
            pressure_transition: Duration::from_secs(300),
            max_pod_grace_seconds: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub amount: Amount,
    /// None: pods go at once.
    pub grace: Option<Duration>,
    minimum_reclaim: Option<Amount>,
}

impl Settings {
    /// Memory's first: it is relieved before all else.
    pub fn thresholds(&self) -> Vec<Threshold> {
        let mut all = Vec::new();
        for (at, (_, signal)) in SIGNALS.into_iter().enumerate() {
            let minimum_reclaim = self.minimum_reclaim[at];
            let mut push = |amount: Option<Amount>, grace| {
                let amount = amount.filter(|amount| !amount.is_off());
                all.extend(amount.map(|amount| Threshold { signal, amount, grace, minimum_reclaim }));
            };
            push(self.hard[at], None);
            push(self.soft[at], self.soft_grace[at]);
        }
        all
    }

    /// Of the capacity, what pods are not given: they would be evicted for using it.
    pub fn reserved(&self, signal: Signal, capacity: i64) -> i64 {
        let amount = self.hard[signal as usize].filter(|amount| !amount.is_off());
        amount.map_or(0, |amount| amount.of(capacity)).min(capacity)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub available: i64,
    pub capacity: i64,
}

pub type Observations = List<Observation>;

impl Threshold {
    /// What is below the threshold, or below it and what is to be reclaimed beyond.
    pub fn is_met(&self, seen: &Observations, with_reclaim: bool) -> bool {
        let Some(Observation { available, capacity }) = seen[self.signal as usize] else { return false };
        let beyond = self.minimum_reclaim.filter(|_| with_reclaim).map_or(0, |amount| amount.of(capacity));
        available < self.amount.of(capacity).saturating_add(beyond)
    }
}

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub struct Standing {
    /// By threshold: since when it has been met.
    since: Vec<Option<Instant>>,
    /// By threshold: it was acted upon, until what is to be reclaimed is.
    acted: Vec<bool>,
    /// By condition: when something was short last.
    last: [Option<Instant>; CONDITIONS.len()],
    pub said: [bool; CONDITIONS.len()],
}

impl Standing {
    /// What must be relieved now, and whether what the node says of itself changes.
    pub fn note(&mut self, settings: &Settings, seen: &Observations, now: Instant) -> (Vec<Threshold>, bool) {
        let thresholds = settings.thresholds();
        self.since.resize(thresholds.len(), None);
        self.acted.resize(thresholds.len(), false);
        let mut due = Vec::new();
        for ((threshold, since), acted) in thresholds.into_iter().zip(&mut self.since).zip(&mut self.acted) {
            let is_met = threshold.is_met(seen, false) || *acted && threshold.is_met(seen, true);
            *since = is_met.then(|| since.unwrap_or(now));
            if is_met {
                self.last[threshold.signal.condition() as usize] = Some(now);
            }
            *acted = since.is_some_and(|since| now.duration_since(since) >= threshold.grace.unwrap_or_default());
            due.extend(acted.then_some(threshold));
        }
        let said =
            self.last.map(|last| last.is_some_and(|last| now.duration_since(last) < settings.pressure_transition));
        (due, std::mem::replace(&mut self.said, said) != said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, want) in [
            ("100Mi", Some(Amount::Units(100 << 20))),
            ("1k", Some(Amount::Units(1000))),
            ("7.5%", Some(Amount::Percent(7.5))),
            ("101%", None),
            ("-1", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(Amount::parse(text), want, "{text}");
        }
        assert_eq!(Amount::Percent(10.0).of(1000), 100);
        assert_eq!([Amount::Percent(7.5), Amount::Units(100 << 20)].map(|a| a.to_string()), ["7.5%", "100Mi"]);
    }

    /// Seconds and what is available of 1000; what is due after each look, and whether the node says it is short.
    fn check(settings: &Settings, looks: &[(u64, i64, bool, bool)]) {
        let (mut standing, start) = (Standing::default(), Instant::now());
        for (second, available, is_due, said) in looks {
            let mut seen = Observations::default();
            seen[0] = Some(Observation { available: *available, capacity: 1000 });
            let (due, _) = standing.note(settings, &seen, start + Duration::from_secs(*second));
            assert_eq!((!due.is_empty(), standing.said), (*is_due, [*said, false, false]), "at {second} s");
        }
    }

    fn settings() -> Settings {
        Settings { hard: [None; 6], pressure_transition: Duration::from_secs(30), ..Settings::default() }
    }

    #[test]
    fn a_hard_threshold_acts_at_once() {
        let mut settings = settings();
        settings.hard[0] = Amount::parse("10%");
        check(
            &settings,
            &[(0, 100, false, false), (1, 99, true, true), (2, 100, false, true), (32, 500, false, false)],
        );
        settings.hard[0] = Amount::parse("0%");
        check(&settings, &[(0, 0, false, false)]);
    }

    #[test]
    fn a_soft_threshold_waits_out_its_grace() {
        let mut settings = settings();
        (settings.soft[0], settings.soft_grace[0]) = (Amount::parse("200"), Some(Duration::from_secs(10)));
        // Short and not yet due; well again, which starts the grace anew; due.
        check(
            &settings,
            &[
                (0, 150, false, true),
                (5, 250, false, true),
                (6, 150, false, true),
                (15, 150, false, true),
                (16, 150, true, true),
            ],
        );
    }

    #[test]
    fn what_is_to_be_reclaimed_is_reclaimed() {
        let mut settings = settings();
        (settings.hard[0], settings.minimum_reclaim[0]) = (Amount::parse("100"), Amount::parse("50"));
        check(&settings, &[(0, 140, false, false), (1, 99, true, true), (2, 149, true, true), (3, 150, false, true)]);
    }

    #[test]
    fn upstreams_defaults() {
        let settings = Settings::default();
        let shown: Vec<String> =
            settings.thresholds().iter().map(|t| format!("{}<{}", SIGNALS[t.signal as usize].0, t.amount)).collect();
        assert_eq!(
            shown,
            [
                "memory.available<100Mi",
                "nodefs.available<10%",
                "nodefs.inodesFree<5%",
                "imagefs.available<15%",
                "imagefs.inodesFree<5%"
            ]
        );
        assert_eq!(settings.reserved(Signal::MemoryAvailable, 1 << 30), 100 << 20);
        assert_eq!(settings.reserved(Signal::NodeFsAvailable, 1000), 100);
    }
}
