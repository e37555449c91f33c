//! Wall time for certificates and tokens. A board without a clock battery starts in 1970: this clock never shows a
//! time before this build was made, so that what was issued earlier stays valid until the network brings the time.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2026-11-01T00:00:00Z: no build is older.
const BUILD_SECONDS: u64 = 1_793_491_200;

/// Time since 1970, at least the time of the build.
pub fn now() -> Duration {
    let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    system.max(Duration::from_secs(BUILD_SECONDS))
}

pub fn now_seconds() -> i64 {
    i64::try_from(now().as_secs()).unwrap_or(i64::MAX)
}

/// RFC 3339 with seconds, as `metav1.Time`.
pub fn timestamp() -> String {
    format_seconds(now_seconds())
}

pub fn format_seconds(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn never_before_the_build() {
        let built = jiff::Timestamp::from_second(super::BUILD_SECONDS as i64).unwrap();
        assert_eq!(built.to_string(), "2026-11-01T00:00:00Z");
        assert!(super::now().as_secs() >= super::BUILD_SECONDS);
    }
}
