//! Log lines: one an event, to stderr, `time LEVEL target: message key=value`. A subscriber of our own, since spans
//! and layers are not used and the general one costs a hundred kilobytes of flash and a registry in memory.
//!
//! Under systemd the line starts with the journal's priority instead of the time, which the journal knows itself.
use crate::config::LogLevel;
use std::{fmt::Write as _, io::Write as _};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

/// A line is cut here, so that no object's text can fill the journal.
const LIMIT_BYTES: usize = 4096;

/// Crates that speak of every connection; only TraceAll wants to hear them.
const CHATTY: [&str; 4] = ["h2", "hyper", "rustls", "polling"];

struct Lines {
    level: LevelFilter,
    all: bool,
    journal: bool,
}

pub fn start(level: LogLevel) {
    let filter = match level {
        LogLevel::Normal => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace | LogLevel::TraceAll => LevelFilter::TRACE,
    };
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = Lines { level: filter, all: level == LogLevel::TraceAll, journal };
    // Only a second call could fail, and the first one's subscriber is as good.
    let _ = tracing::subscriber::set_global_default(lines);
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let krate = metadata.target().split(':').next().unwrap_or_default();
        metadata.is_event()
            && *metadata.level() <= self.level
            && (self.all || !(CHATTY.contains(&krate) && *metadata.level() > Level::WARN))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = String::with_capacity(160);
        prefix(&mut line, event.metadata(), self.journal);
        // The message comes first wherever it was written.
        event.record(&mut Fields { line: &mut line, message: true });
        event.record(&mut Fields { line: &mut line, message: false });
        if line.len() > LIMIT_BYTES {
            line.truncate(line.floor_char_boundary(LIMIT_BYTES));
            line.push('…');
        }
        line.push('\n');
        // One write, so that lines of several threads do not mix. Nobody is left to tell that stderr is gone.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    // Spans are off (`enabled`), so these are never called with one.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

fn prefix(line: &mut String, metadata: &Metadata<'_>, journal: bool) {
    let level = *metadata.level();
    if journal {
        // Syslog priorities: sd-daemon(3).
        let priority = match level {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let _ = write!(line, "<{priority}>");
    } else {
        let _ = write!(line, "{:.3} ", jiff::Timestamp::now());
    }
    let target = metadata.target();
    let _ = write!(line, "{level:>5} {}:", target.strip_prefix("mote_").unwrap_or(target));
}

struct Fields<'a> {
    line: &'a mut String,
    message: bool,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: std::fmt::Arguments<'_>) {
        let start = self.line.len() + 1;
        if field.name() == "message" {
            if self.message {
                let _ = write!(self.line, " {value}");
            }
        } else if !self.message {
            let _ = write!(self.line, " {}={value}", field.name());
        }
        // A text with line breaks in it must stay one line.
        if self.line.get(start..).is_some_and(|new| new.contains(['\n', '\r'])) {
            let one_line = self.line.split_off(start).replace('\n', "\\n").replace('\r', "\\r");
            self.line.push_str(&one_line);
        }
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" && (value.is_empty() || value.contains([' ', '"', '='])) {
            self.put(field, format_args!("{value:?}"));
        } else {
            self.put(field, format_args!("{value}"));
        }
    }
}
