//! Flash is a budget: what was written lately, against what the card is to take a day. A debt grows with each byte and
//! shrinks with time; nothing ticks.
use std::time::{Duration, Instant};

const DAY_HOURS: usize = 24;
const DAY_SECONDS: f64 = 86_400.0;
/// So many hours of the budget may be spent at once: a roll-out is not yet wear.
const BURST_HOURS: f64 = 2.0;
/// Status waits so many times longer while there is more debt than that, and may coalesce so much more.
const STRETCH: u32 = 6;
/// It does so too while so many keys wait: in a storm most of them change again, and each takes a page of the database.
const STORM_KEYS: usize = 128;

pub(crate) struct Meter {
    /// None: there is no budget.
    bytes_a_day: Option<f64>,
    debt_bytes: f64,
    at: Instant,
    begun: Instant,
    bytes: u64,
    /// What was written in each of the last hours, and which hour since the start the newest of them is.
    hours: [u64; DAY_HOURS],
    hour: usize,
}

impl Meter {
    pub fn new(now: Instant) -> Meter {
        Meter { bytes_a_day: None, debt_bytes: 0.0, at: now, begun: now, bytes: 0, hours: [0; DAY_HOURS], hour: 0 }
    }

    pub fn set_budget(&mut self, bytes_a_day: u64) {
        self.bytes_a_day = (bytes_a_day > 0).then_some(bytes_a_day as f64);
    }

    /// `bytes` is all that was written so far.
    pub fn written(&mut self, bytes: u64, now: Instant) {
        self.turn_to(now);
        self.hours[self.hour % DAY_HOURS] += bytes.saturating_sub(self.bytes);
        self.debt_bytes = self.debt(now) + bytes.saturating_sub(self.bytes) as f64;
        (self.bytes, self.at) = (bytes, now);
    }

    fn turn_to(&mut self, now: Instant) {
        let hour = (now.saturating_duration_since(self.begun).as_secs() / 3600) as usize;
        for gone in (self.hour + 1..=hour).take(DAY_HOURS) {
            self.hours[gone % DAY_HOURS] = 0;
        }
        if hour > self.hour + DAY_HOURS {
            self.hours = [0; DAY_HOURS];
        }
        self.hour = self.hour.max(hour);
    }

    /// Up to an hour less than a day, and not before the start.
    pub fn last_day_bytes(&self, now: Instant) -> u64 {
        let hour = (now.saturating_duration_since(self.begun).as_secs() / 3600) as usize;
        (hour.saturating_sub(DAY_HOURS - 1)..=self.hour).map(|hour| self.hours[hour % DAY_HOURS]).sum()
    }

    fn debt(&self, now: Instant) -> f64 {
        let paid = self.bytes_a_day.unwrap_or(0.0) * now.saturating_duration_since(self.at).as_secs_f64() / DAY_SECONDS;
        (self.debt_bytes - paid).max(0.0)
    }

    pub fn is_over(&self, now: Instant) -> bool {
        self.bytes_a_day.is_some_and(|budget| self.debt(now) > budget * BURST_HOURS / 24.0)
    }

    /// How long a status may wait that so many keys wait with.
    pub fn delay(&self, usual: Duration, keys: usize, now: Instant) -> Duration {
        if self.is_over(now) || keys >= STORM_KEYS { usual * STRETCH } else { usual }
    }

    /// What a year like the time since the start comes to. The start itself is no year: less than an hour counts as one.
    pub fn bytes_a_year(&self, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(self.begun).as_secs_f64().max(3600.0);
        self.bytes as f64 / seconds * DAY_SECONDS * 365.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_is_held_against_the_day_and_a_burst_is_not() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let usual = Duration::from_secs(5);
        let mut meter = Meter::new(start);
        meter.written(1 << 40, at(1));
        assert!(!meter.is_over(at(1)), "without a budget");
        let mut meter = Meter::new(start);
        meter.set_budget(24_000_000);
        meter.written(1_900_000, at(60));
        assert!(!meter.is_over(at(60)), "a burst");
        // Half of the budget, for a day.
        for hour in 1..24 {
            meter.written(1_900_000 + hour * 500_000, at(hour * 3600));
            assert!(!meter.is_over(at(hour * 3600)), "hour {hour}");
        }
        assert_eq!(meter.bytes_a_year(at(86_400)).round() as u64, (1_900_000 + 23 * 500_000) * 365);
        assert_eq!(meter.last_day_bytes(at(86_399)), 1_900_000 + 23 * 500_000);
        // Twice the budget.
        let over = (24..40).find(|hour| {
            meter.written(13_400_000 + (hour - 23) * 2_000_000, at(hour * 3600));
            meter.is_over(at(hour * 3600))
        });
        assert_eq!(over, Some(25));
        assert_eq!(meter.last_day_bytes(at(100 * 3600)), 0);
        assert_eq!(meter.delay(usual, 1, at(25 * 3600)), usual * STRETCH);
        assert_eq!(meter.delay(usual, 1, at(30 * 3600)), usual, "paid");
    }

    #[test]
    fn a_storm_waits_until_it_has_blown_itself_out() {
        let meter = Meter::new(Instant::now());
        let usual = Duration::from_secs(5);
        for (keys, waits) in
            [(0, usual), (STORM_KEYS - 1, usual), (STORM_KEYS, usual * STRETCH), (10_000, usual * STRETCH)]
        {
            assert_eq!(meter.delay(usual, keys, Instant::now()), waits, "{keys} keys");
        }
    }
}
