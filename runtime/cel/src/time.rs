//! Timestamps and durations as CEL and Go write them. Years 1 to 9999, nanoseconds, no leap seconds, no time zone
//! database: fixed offsets and UTC only, since a board may carry no zone files.
use crate::Error;
use std::fmt;

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z
const MIN_SECONDS: i64 = -62_135_596_800;
const MAX_SECONDS: i64 = 253_402_300_799;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Since 1970.
    pub seconds: i64,
    pub nanos: u32,
}

/// A moment in some zone, in parts.
pub struct Civil {
    pub year: i64,
    /// From 1.
    pub month: i64,
    pub day: i64,
    /// From 0.
    pub day_of_year: i64,
    /// From 0, Sunday.
    pub weekday: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
}

impl Timestamp {
    pub fn new(seconds: i64, nanos: u32) -> Result<Timestamp, Error> {
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            return Err(Error::new("timestamp overflow"));
        }
        Ok(Timestamp { seconds, nanos })
    }

    pub fn add(self, nanos: i64) -> Result<Timestamp, Error> {
        let total = i128::from(self.seconds) * i128::from(NANOS) + i128::from(self.nanos) + i128::from(nanos);
        let seconds = i64::try_from(total.div_euclid(NANOS.into())).unwrap_or(i64::MAX);
        Timestamp::new(seconds, total.rem_euclid(NANOS.into()) as u32)
    }

    pub fn since(self, earlier: Timestamp) -> Result<i64, Error> {
        let nanos = (i128::from(self.seconds) - i128::from(earlier.seconds)) * i128::from(NANOS)
            + i128::from(self.nanos)
            - i128::from(earlier.nanos);
        i64::try_from(nanos).map_err(|_| Error::new("timestamp overflow"))
    }

    /// At an offset in seconds from UTC.
    pub fn civil(self, offset: i64) -> Civil {
        let local = self.seconds + offset;
        let (days, rest) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let (year, month, day) = date_of_days(days);
        Civil {
            year,
            month,
            day,
            day_of_year: days - days_of_date(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }
}

/// RFC 3339 with as many digits as needed.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.civil(0);
        write!(f, "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", c.year, c.month, c.day, c.hour, c.minute, c.second)?;
        if self.nanos > 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Days since 1970 of a date (Howard Hinnant's civil calendar).
fn days_of_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn date_of_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * of_year + 2) / 153;
    let month = if part < 10 { part + 3 } else { part - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_year - (153 * part + 2) / 5 + 1)
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

fn digits(text: &str, from: usize, count: usize) -> Option<i64> {
    let part = text.get(from..from + count)?;
    part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
}

fn date(text: &str) -> Option<(i64, i64, i64)> {
    let (year, month, day) = (digits(text, 0, 4)?, digits(text, 5, 2)?, digits(text, 8, 2)?);
    let shape = text.get(4..5)? == "-" && text.get(7..8)? == "-";
    let valid = (1..=12).contains(&month) && (1..=month_days(year, month)).contains(&day);
    (shape && valid).then_some((year, month, day))
}

/// RFC 3339.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let (year, month, day) = date(text)?;
    let (hour, minute, second) = (digits(text, 11, 2)?, digits(text, 14, 2)?, digits(text, 17, 2)?);
    let shape = matches!(text.get(10..11)?, "T" | "t") && text.get(13..14)? == ":" && text.get(16..17)? == ":";
    if !shape || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if length == 0 {
            return None;
        }
        nanos = format!("{:0<9}", &fraction[..length.min(9)]).parse().ok()?;
        rest = &fraction[length..];
    }
    let offset = if matches!(rest, "Z" | "z") { 0 } else { offset_of(rest)? };
    let seconds = days_of_date(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    Timestamp::new(seconds, nanos).ok()
}

/// "+01:00", in seconds.
fn offset_of(text: &str) -> Option<i64> {
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = (digits(text, 1, 2)?, digits(text, 4, 2)?);
    (text.len() == 6 && text.get(3..4)? == ":" && hours < 24 && minutes < 60)
        .then_some(sign * (hours * 3600 + minutes * 60))
}

/// The offset of a zone's name: "UTC", "+02:00", "02:00".
pub fn zone(name: &str) -> Result<i64, Error> {
    if matches!(name, "" | "UTC" | "GMT" | "Etc/UTC" | "Etc/GMT") {
        return Ok(0);
    }
    let signed = if name.starts_with(['+', '-']) { name.to_owned() } else { format!("+{name}") };
    offset_of(&signed).ok_or_else(|| Error::new(format!("unknown time zone {name}")))
}

/// A schema's `date-time` or `date`.
pub fn parse_format_time(text: &str) -> Option<Timestamp> {
    if text.len() == 10 {
        let (year, month, day) = date(text)?;
        return Timestamp::new(days_of_date(year, month, day) * DAY, 0).ok();
    }
    parse_time(&text.replacen(' ', "T", 1))
}

/// A schema's `duration`: Go's notation, or numbers with words ("3 days", "1w").
pub fn parse_format_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = parse_duration(text) {
        return Some(nanos);
    }
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let amount: i64 = text[..at].parse().ok()?;
    let unit = match text[at..].trim().to_ascii_lowercase().as_str() {
        "ns" | "nano" => 1,
        "us" | "µs" | "micro" => 1_000,
        "ms" | "milli" => 1_000_000,
        "s" | "sec" | "second" | "seconds" => NANOS,
        "m" | "min" | "minute" | "minutes" => 60 * NANOS,
        "h" | "hr" | "hour" | "hours" => 3600 * NANOS,
        "d" | "day" | "days" => DAY * NANOS,
        "w" | "wk" | "week" | "weeks" => 7 * DAY * NANOS,
        _ => return None,
    };
    amount.checked_mul(unit)
}

/// Go's `time.ParseDuration`, in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
            return None;
        }
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let unit: i128 = match &tail[..end] {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        total += whole.parse::<i128>().unwrap_or(0) * unit;
        let kept = &fraction[..fraction.len().min(18)];
        if !kept.is_empty() {
            total += kept.parse::<i128>().ok()? * unit / 10_i128.pow(kept.len() as u32);
        }
        rest = &tail[end..];
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// "3600s", "1.5s": how CEL turns a duration into a string.
pub fn format_duration_seconds(nanos: i64) -> String {
    let (sign, total) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, fraction) = (total / NANOS as u64, total % NANOS as u64);
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{fraction:09}");
    format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2009-02-13T23:31:30.5Z", 1_234_567_890, 500_000_000),
            ("2000-02-29T12:00:00+02:00", 951_818_400, 0),
            ("0001-01-01T00:00:00Z", MIN_SECONDS, 0),
            ("9999-12-31T23:59:59Z", MAX_SECONDS, 0),
        ] {
            assert_eq!(parse_time(text), Some(Timestamp { seconds, nanos }), "{text}");
        }
        for wrong in ["2001-02-29T00:00:00Z", "2001-01-01T24:00:00Z", "2001-01-01", "x", "2001-01-01T00:00:00"] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
        let time = parse_time("2009-02-13T23:31:30.120Z").unwrap();
        assert_eq!(time.to_string(), "2009-02-13T23:31:30.12Z");
        let civil = time.civil(zone("+01:00").unwrap());
        assert_eq!((civil.day, civil.hour, civil.weekday, civil.day_of_year), (14, 0, 6, 44));
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, nanos) in [
            ("1h", Some(3600 * NANOS)),
            ("-1.5s", Some(-1_500_000_000)),
            ("1m30s", Some(90 * NANOS)),
            ("0", Some(0)),
            ("1", None),
            ("", None),
            ("9999999999h", None),
        ] {
            assert_eq!(parse_duration(text), nanos, "{text}");
        }
        assert_eq!(parse_format_duration("2 days"), Some(2 * DAY * NANOS));
        assert_eq!(format_duration_seconds(-1_500_000_000), "-1.5s");
        assert_eq!(format_duration_seconds(3600 * NANOS), "3600s");
    }
}
