//! Messages that stand for what is a scalar, or anything at all, in JSON.
use crate::table::{Field, Table, TypeId};
use jiff::Timestamp;

/// What a field of `Shape::Any` is as a message (apimachinery/pkg/runtime, apiextensions/v1 generated.proto).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Any {
    /// RawExtension, FieldsV1 and JSON: the JSON text as bytes.
    Raw,
    /// JSONSchemaPropsOrBool: allows = 1, schema = 2.
    SchemaOrBool,
    /// JSONSchemaPropsOrArray: schema = 1, schemas = 2.
    SchemaOrSchemas,
    /// JSONSchemaPropsOrStringArray: schema = 1, property = 2.
    SchemaOrStrings,
}

impl Any {
    pub fn of(table: &Table, owner: TypeId, field: &Field) -> Any {
        if table.type_name(owner) != "JSONSchemaProps" {
            return Any::Raw;
        }
        match table.name(field) {
            "additionalItems" | "additionalProperties" => Any::SchemaOrBool,
            "items" => Any::SchemaOrSchemas,
            "dependencies" => Any::SchemaOrStrings,
            _ => Any::Raw,
        }
    }
}

/// Seconds since 1970 and nanoseconds of an RFC 3339 text. What is stored ends in "Z" and is read without a calendar library.
pub fn time(text: &str) -> Option<(i64, i32)> {
    stored_time(text.as_bytes()).or_else(|| {
        let time = parse_time(text)?;
        // Nanoseconds count forward, also before 1970.
        let nanos = time.subsec_nanosecond();
        Some(if nanos < 0 { (time.as_second() - 1, nanos + 1_000_000_000) } else { (time.as_second(), nanos) })
    })
}

/// RFC 3339 as Go's time.Parse takes it: upper-case T and Z, a zone, optional fraction.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let fixed = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || fixed.iter().any(|(at, want)| bytes.get(*at) != Some(want)) {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches('.').trim_start_matches(|c: char| c.is_ascii_digit());
    let valid = zone == "Z" || zone.len() == 6 && zone.starts_with(['+', '-']) && zone.as_bytes().get(3) == Some(&b':');
    if valid { text.parse().ok() } else { None }
}

/// "2006-01-02T15:04:05Z", or with a fraction before the "Z".
fn stored_time(text: &[u8]) -> Option<(i64, i32)> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, rest @ ..] = text else {
        return None;
    };
    if ![y1, y2, y3, y4, m1, m2, d1, d2, h1, h2, n1, n2, s1, s2].iter().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
    let (year, month, day) = (two(y1, y2) * 100 + two(y3, y4), two(m1, m2), two(d1, d2));
    let (hour, minute, second) = (two(h1, h2), two(n1, n2), two(s1, s2));
    // Days past the end of a month and leap seconds are for the library.
    if !(1..=12).contains(&month) || !(1..=28).contains(&day) && day > days_of(year, month) || day < 1 {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let nanos = match rest.strip_suffix(b"Z")? {
        [] => 0,
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let value = digits.iter().fold(0, |sum, b| sum * 10 + i32::from(b - b'0'));
            value * 10i32.pow(9 - digits.len() as u32)
        }
        _ => return None,
    };
    // Years begin in March, so that the leap day is the last: days from civil, as in Howard Hinnant's chrono paper.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (y.div_euclid(400), y.rem_euclid(400));
    let of_year = (153 * m + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some((days * 86_400 + hour * 3_600 + minute * 60 + second, nanos))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The nanoseconds of a Go duration ("1m30s"), which `prune` has looked at; None when they do not fit.
pub fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total = 0f64;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len() - digits);
        let unit = match &rest[digits..digits + letters] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3_600e9,
            _ => return None,
        };
        total += rest[..digits].parse::<f64>().ok()? * unit;
        rest = &rest[digits + letters..];
    }
    let total = if negative { -total } else { total };
    (total.abs() < 9e18).then_some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_agree_with_the_calendar_library() {
        let mut seconds = -62_135_596_800i64;
        while seconds < 253_402_300_799 {
            let want = jiff::Timestamp::new(seconds, 0).unwrap();
            assert_eq!(stored_time(want.to_string().as_bytes()), Some((seconds, 0)), "{want}");
            seconds += 86_400 * 13 + 3_661;
        }
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("2024-02-29T12:00:00.000001Z", Some((1_709_208_000, 1_000))),
            ("1969-12-31T23:59:59.5Z", Some((-1, 500_000_000))),
            ("2024-01-01T02:00:00+02:00", Some((1_704_067_200, 0))),
            ("2023-02-29T00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01", None),
            ("", None),
        ] {
            assert_eq!(time(text), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [("0", Some(0)), ("1m30s", Some(90_000_000_000)), ("-1.5h", Some(-5_400_000_000_000))] {
            assert_eq!(duration_nanos(text), want, "{text}");
        }
        for bad in ["5", "1d", "9999999999999h"] {
            assert_eq!(duration_nanos(bad), None, "{bad}");
        }
    }
}
