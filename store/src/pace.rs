//! Whether who commits may flush on his own thread. Where a flush takes no longer than two threads take to wake each other, that
//! is most of what a commit waits for; where it takes longer, an executor of one thread must not stand still for it.
//!
//! What a disk did last says what it will do next: a flush that was short counts for it, a long one against it, by as much
//! as it was longer. So for a disk that is slow no executor ever stands still, and for one that is slow now and then it stands still
//! for a flush that is too long only so often that all of these, taken over all flushes, are no more than `SHORT / DEBT` for each.
use std::time::Duration;

/// What an executor may stand still for.
const SHORT: Duration = Duration::from_micros(500);
/// So many short flushes make up for each `SHORT` that a long one took.
const DEBT: i64 = 4;
/// So many are to be seen of a disk of which nothing is known.
const FIRST: i64 = 16;

pub(crate) struct Pace {
    /// How many short flushes are still to be seen.
    wanted: i64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { wanted: FIRST }
    }
}

impl Pace {
    /// None: the flush failed.
    pub fn note(&mut self, took: Option<Duration>) {
        self.wanted = match took {
            Some(took) if took <= SHORT => (self.wanted - 1).max(0),
            Some(took) => {
                let times = i64::try_from(took.as_micros().div_ceil(SHORT.as_micros())).unwrap_or(i64::MAX);
                self.wanted.saturating_add(times.saturating_mul(DEBT))
            }
            None => self.wanted.max(FIRST),
        }
    }

    /// The next flush will be short.
    pub fn is_short(&self) -> bool {
        self.wanted == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these flushes an executor stood still for, and for how long in those that were long.
    fn led(flushes: impl IntoIterator<Item = u64>) -> (usize, u64) {
        let mut pace = Pace::default();
        let (mut count, mut micros) = (0, 0);
        for took in flushes {
            if pace.is_short() {
                count += 1;
                micros += if took > 500 { took } else { 0 };
            }
            pace.note(Some(Duration::from_micros(took)));
        }
        (count, micros)
    }

    #[test]
    fn a_slow_disk_has_no_executor_stand_still_and_a_quick_one_soon_does() {
        assert_eq!(led([3000; 1000]), (0, 0), "a card");
        assert_eq!(led([501; 1000]), (0, 0));
        assert_eq!(led([500; 1000]), (1000 - 16, 0), "known after a few");
        // Each so-many-th is long.
        let mixed = |every: usize, long: u64| led((1..=10_000).map(|n| if n % every == 0 { long } else { 150 }));
        assert_eq!(mixed(8, 600), (0, 0));
        assert_eq!(mixed(100, 20_000), (84, 20_000), "up to the first of them");
        let (count, micros) = mixed(1000, 20_000);
        assert_eq!(count, 10_000 - 16 - 9 * 160, "after each, 160 are somebody else's");
        assert!(micros <= 10_000 * 125, "{micros}");
    }

    #[test]
    fn after_a_failure_the_disk_is_another_one() {
        let mut pace = Pace::default();
        for _ in 0..2 {
            (0..16).for_each(|_| {
                assert!(!pace.is_short());
                pace.note(Some(Duration::from_micros(100)));
            });
            assert!(pace.is_short());
            pace.note(None);
        }
    }
}
