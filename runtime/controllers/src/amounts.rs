//! Numbers as the API spells them: counts or percentages, and moments in time.
use jiff::Timestamp;
use mote_api::Ref;
use std::time::Duration;

/// An IntOrString against `total`; percentages round up or down. None when it is neither.
/// Matches intstr.GetScaledValueFromIntOrPercent.
pub fn scaled(value: Ref<'_>, total: i64, round_up: bool) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let percent: i64 = value.as_str()?.strip_suffix('%')?.parse().ok()?;
    let product = percent.checked_mul(total)?;
    Some(if round_up { product.saturating_add(99).div_euclid(100) } else { product.div_euclid(100) })
}

/// Whole seconds, as metav1.Time is written.
pub fn now() -> Timestamp {
    Timestamp::now()
}

pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

pub fn parse_time(value: Ref<'_>) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// What is left until `from + after`; None when that has passed.
pub fn remaining(from: Timestamp, after: Duration, now: Timestamp) -> Option<Duration> {
    let passed = now.as_millisecond().saturating_sub(from.as_millisecond());
    let left = i64::try_from(after.as_millis()).unwrap_or(i64::MAX).saturating_sub(passed);
    (left > 0).then(|| Duration::from_millis(left.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_api::Doc;
    use mote_schema::json;

    #[test]
    fn int_or_percent() {
        let check = |value: mote_schema::Value, total, up, want| {
            let doc = Doc::encode(&json!({"v": value})).unwrap();
            assert_eq!(scaled(doc.root().get("v"), total, up), want, "{value} of {total}");
        };
        check(json!(3), 10, true, Some(3));
        check(json!("25%"), 10, true, Some(3));
        check(json!("25%"), 10, false, Some(2));
        check(json!("0%"), 10, true, Some(0));
        check(json!("100%"), 7, false, Some(7));
        check(json!("abc"), 7, false, None);
        check(json!("x%"), 7, false, None);
    }

    #[test]
    fn deadlines() {
        let t = |s: i64| Timestamp::from_second(s).unwrap();
        assert_eq!(remaining(t(100), Duration::from_secs(10), t(104)), Some(Duration::from_secs(6)));
        assert_eq!(remaining(t(100), Duration::from_secs(10), t(110)), None);
        assert_eq!(rfc3339(t(0)), "1970-01-01T00:00:00Z");
    }
}
