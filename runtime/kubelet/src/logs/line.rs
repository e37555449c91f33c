//! CRI's log format: `TIME STREAM TAGS CONTENT`, one write of the container a line; tag P says that the line goes on.
//! Pure. Upstream: cri-client/pkg/logs.
use jiff::Timestamp;
use mote_api::pods::LogOptions;

/// What a reader wants of each line, and how it wants it.
pub struct Filter {
    since: Option<Timestamp>,
    timestamps: bool,
    stream: Option<&'static str>,
    /// Bytes that may still be sent.
    left: Option<u64>,
    /// The last line had no end: the next goes on where it stopped, without a time.
    goes_on: bool,
}

struct Line<'a> {
    time: &'a str,
    stream: &'a str,
    /// With its newline, unless it goes on.
    content: &'a [u8],
}

/// None if it is no log line.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let (time, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
    let content = parts.next()?;
    let stream = std::str::from_utf8(stream).ok().filter(|stream| matches!(*stream, "stdout" | "stderr"))?;
    let time = std::str::from_utf8(time).ok().filter(|time| time.len() >= 20)?;
    let is_partial = tags.split(|b| *b == b':').next() == Some(b"P");
    Some(Line {
        time,
        stream,
        content: if is_partial { content.strip_suffix(b"\n").unwrap_or(content) } else { content },
    })
}

impl Filter {
    pub fn new(options: &LogOptions, now: Timestamp) -> Filter {
        let by_seconds =
            options.since_seconds.and_then(|seconds| now.checked_sub(jiff::SignedDuration::from_secs(seconds)).ok());
        let by_time = options.since_time.as_deref().and_then(|time| time.parse().ok());
        Filter {
            since: by_time.or(by_seconds),
            timestamps: options.timestamps,
            stream: match options.stream.as_deref() {
                Some("Stdout") => Some("stdout"),
                Some("Stderr") => Some("stderr"),
                _ => None,
            },
            left: options.limit_bytes.map(|bytes| bytes.max(0) as u64),
            goes_on: false,
        }
    }

    /// Appends what is wanted of a raw line, which has its newline unless the file ends in the middle of it. False
    /// once no more is wanted. What is no log line is left out.
    pub fn push(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = parse(raw) else { return true };
        let goes_on = std::mem::replace(&mut self.goes_on, !line.content.ends_with(b"\n") && !line.content.is_empty());
        if self.stream.is_some_and(|stream| stream != line.stream) {
            return true;
        }
        if self.since.is_some_and(|since| line.time.parse().is_ok_and(|time: Timestamp| time < since)) {
            return true;
        }
        let start = out.len();
        if self.timestamps && !goes_on {
            push_time(line.time, out);
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        let Some(left) = &mut self.left else { return true };
        let room = usize::try_from(*left).unwrap_or(usize::MAX);
        out.truncate(start.saturating_add(room).min(out.len()));
        *left -= (out.len() - start) as u64;
        *left > 0
    }
}

/// Always nine digits, and Z for UTC, as upstream prints times.
fn push_time(time: &str, out: &mut Vec<u8>) {
    let zone = time.get(19..).and_then(|rest| rest.find(['Z', '+', '-'])).map_or(time.len(), |at| at + 19);
    let (clock, zone) = time.split_at(zone);
    let (seconds, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let zone = if zone == "+00:00" { "Z" } else { zone };
    out.extend_from_slice(format!("{seconds}.{fraction:0<9}{zone}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-02T03:04:05.000000001Z stdout F one\n\
        2026-01-02T03:04:06.5+00:00 stderr F two\n\
        rubbish\n\
        2026-01-02T03:04:07.1Z stdout P thr\n\
        2026-01-02T03:04:07.2Z stdout P e\n\
        2026-01-02T03:04:07.3Z stdout F e\n\
        2026-01-02T03:04:08.123456789+02:00 stdout F \n";

    fn check(options: LogOptions, expected: &str) {
        let mut filter = Filter::new(&options, "2026-01-02T03:04:08Z".parse().unwrap());
        let mut out = Vec::new();
        for line in LOG.split_inclusive('\n') {
            if !filter.push(line.as_bytes(), &mut out) {
                break;
            }
        }
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{options:?}");
    }

    #[test]
    fn options_choose_and_dress_lines() {
        let default = LogOptions::default;
        check(default(), "one\ntwo\nthree\n\n");
        check(LogOptions { stream: Some("Stderr".into()), ..default() }, "two\n");
        check(LogOptions { stream: Some("Stdout".into()), ..default() }, "one\nthree\n\n");
        check(LogOptions { since_seconds: Some(2), ..default() }, "two\nthree\n");
        check(LogOptions { since_time: Some("2026-01-02T03:04:07.15Z".into()), ..default() }, "ee\n");
        check(LogOptions { limit_bytes: Some(6), ..default() }, "one\ntw");
        check(LogOptions { limit_bytes: Some(0), ..default() }, "");
        check(
            LogOptions { timestamps: true, ..default() },
            "2026-01-02T03:04:05.000000001Z one\n2026-01-02T03:04:06.500000000Z two\n\
             2026-01-02T03:04:07.100000000Z three\n2026-01-02T03:04:08.123456789+02:00 \n",
        );
    }
}
