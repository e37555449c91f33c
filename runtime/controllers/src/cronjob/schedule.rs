//! Cron schedules: five fields or a `@daily`, and the next and last moments they name. Pure.
//!
//! As the field reads it (robfig/cron's standard parser): when both day fields are restricted, either may match.
use jiff::{
    Timestamp, ToSpan,
    civil::{Date, time},
    tz::TimeZone,
};

/// A schedule that names no moment within this many days names none (29 February comes every eight years at worst).
const HORIZON_DAYS: usize = 8 * 366 + 1;

#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One field as bits, and whether it was `*` or `?`.
fn field(text: &str, low: u32, high: u32, names: &[&str]) -> Option<(u64, bool)> {
    let number = |text: &str| -> Option<u32> {
        let lower = text.to_ascii_lowercase();
        if let Some(index) = names.iter().position(|name| *name == lower) {
            return Some(low + u32::try_from(index).ok()?);
        }
        text.parse().ok()
    };
    let mut bits = 0;
    let mut any = false;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if range == "*" || range == "?" => {
                any |= step.is_none_or(|step| step == 1);
                (low, high)
            }
            // "5/10" means from 5 on.
            None => (number(range)?, if step.is_some() { high } else { number(range)? }),
        };
        if first < low || last > high || first > last {
            return None;
        }
        bits |= (first..=last).step_by(step.unwrap_or(1) as usize).fold(0, |bits, n| bits | 1u64 << n);
    }
    Some((bits, any))
}

impl Schedule {
    pub fn parse(text: &str) -> Option<Schedule> {
        let text = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else { return None };
        let (days, any_day) = field(days, 1, 31, &[])?;
        let (weekdays, any_weekday) = field(weekdays, 0, 6, &WEEKDAYS)?;
        Some(Schedule {
            minutes: field(minutes, 0, 59, &[])?.0,
            hours: field(hours, 0, 23, &[])?.0,
            days,
            months: field(months, 1, 12, &MONTHS)?.0,
            weekdays,
            any_day,
            any_weekday,
        })
    }

    fn on(&self, date: Date) -> bool {
        let bit = |bits: u64, n: i8| bits >> n & 1 == 1;
        let day = bit(self.days, date.day());
        let weekday = bit(self.weekdays, date.weekday().to_sunday_zero_offset());
        let either = if self.any_day || self.any_weekday { day && weekday } else { day || weekday };
        bit(self.months, date.month()) && either
    }

    /// (hour, minute) of a matching day, in order.
    fn times(&self) -> impl DoubleEndedIterator<Item = (i8, i8)> + '_ {
        let hours = (0..24i8).filter(|hour| self.hours >> hour & 1 == 1);
        hours.flat_map(|hour| {
            (0..60i8).filter(|minute| self.minutes >> minute & 1 == 1).map(move |minute| (hour, minute))
        })
    }

    fn moment(date: Date, (hour, minute): (i8, i8), zone: &TimeZone) -> Option<Timestamp> {
        Some(date.to_datetime(time(hour, minute, 0, 0)).to_zoned(zone.clone()).ok()?.timestamp())
    }

    /// The first moment after `after`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = after.to_zoned(zone.clone()).date();
        for _ in 0..HORIZON_DAYS {
            if self.on(date) {
                let mut moments = self.times().filter_map(|time| Schedule::moment(date, time, zone));
                if let Some(found) = moments.find(|at| *at > after) {
                    return Some(found);
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    /// The last moment that is not after `now`.
    pub fn last(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = now.to_zoned(zone.clone()).date();
        for _ in 0..HORIZON_DAYS {
            if self.on(date) {
                let mut moments = self.times().rev().filter_map(|time| Schedule::moment(date, time, zone));
                if let Some(found) = moments.find(|at| *at <= now) {
                    return Some(found);
                }
            }
            date = date.checked_sub(1.day()).ok()?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let check = |text: &str, from: &str, next: &str, last: &str| {
            let schedule = Schedule::parse(text).unwrap();
            let at = |text: &str| text.parse::<Timestamp>().unwrap();
            assert_eq!(schedule.next(at(from), &TimeZone::UTC), Some(at(next)), "{text} after {from}");
            assert_eq!(schedule.last(at(from), &TimeZone::UTC), Some(at(last)), "{text} until {from}");
        };
        check("* * * * *", "2030-01-01T00:00:30Z", "2030-01-01T00:01:00Z", "2030-01-01T00:00:00Z");
        check("*/15 * * * *", "2030-01-01T00:15:00Z", "2030-01-01T00:30:00Z", "2030-01-01T00:15:00Z");
        check("0 5 * * mon-fri", "2030-01-04T06:00:00Z", "2030-01-07T05:00:00Z", "2030-01-04T05:00:00Z");
        check("@monthly", "2030-01-31T10:00:00Z", "2030-02-01T00:00:00Z", "2030-01-01T00:00:00Z");
        check("0 0 29 2 *", "2030-01-01T00:00:00Z", "2032-02-29T00:00:00Z", "2028-02-29T00:00:00Z");
        // Either day field, when both are given.
        check("0 0 13 * fri", "2030-01-01T00:00:00Z", "2030-01-04T00:00:00Z", "2029-12-28T00:00:00Z");
        check("30/20 3 * * *", "2030-01-01T03:30:00Z", "2030-01-01T03:50:00Z", "2030-01-01T03:30:00Z");
    }

    #[test]
    fn nonsense() {
        for text in ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "x * * * *", "@reboot"] {
            assert_eq!(Schedule::parse(text), None, "{text}");
        }
        assert_eq!(Schedule::parse("0 0 31 2 *").unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
