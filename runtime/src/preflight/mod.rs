//! `mote preflight`, and the same at every start: does this machine offer what a node needs, what is done without when it does not,
//! and which line in which file of this board mends it. Nothing is changed here, and nothing but its own files and
//! sockets asked: `host` reads the machine, `checks` is the table, `kernel` knows the kernel's parts.
//!
//! Invariant: only what no node can run without fails; what can be done without is a warning that names what is missing then.
mod checks;
mod host;
mod kernel;
#[cfg(test)]
mod tests;

use crate::{config::Config, machine};
use mote_boards::Profile;
use std::{io::Write, path::Path, process::ExitCode};

pub use host::Host;

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Level {
    Ok,
    Warn,
    Fail,
}

const LEVELS: [&str; 3] = ["ok", "warn", "fail"];

#[derive(Debug, PartialEq)]
struct Finding {
    level: Level,
    /// What is there, or what is wrong with it.
    found: String,
    /// What a node does without, and how it is mended; "" where all is well.
    without: &'static str,
    fix: String,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Finding {
        Finding { level: Level::Ok, found: found.into(), without: "", fix: String::new() }
    }

    fn warn(found: impl Into<String>, without: &'static str, fix: impl Into<String>) -> Finding {
        Finding { level: Level::Warn, found: found.into(), without, fix: fix.into() }
    }

    fn fail(found: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { level: Level::Fail, found: found.into(), without: "", fix: fix.into() }
    }
}

struct Check {
    name: &'static str,
    when: When,
    look: fn(&Host<'_>) -> Finding,
}

#[derive(Clone, Copy, PartialEq)]
enum When {
    /// By the command and at every start.
    Always,
    /// By the command alone: at a start, the node itself finds out, or it is not settled yet.
    Asked,
}

/// 1 when something fails, so that an installer can stop there.
pub fn command(config: &Config, data_dir: &Path, json: bool) -> ExitCode {
    let board = machine::board(config);
    let host = Host::new(Path::new("/"), board, config, data_dir);
    let findings: Vec<_> = checks::TABLE.iter().map(|check| (check.name, (check.look)(&host))).collect();
    let text = if json { as_json(board, &findings) } else { as_text(board, &findings) };
    let shown = std::io::stdout().write_all(text.as_bytes());
    let failed = findings.iter().any(|(_, finding)| finding.level == Level::Fail);
    if failed || shown.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says what is not as it should be, and goes on: who starts a node wants what there can be of it.
pub fn at_start(config: &Config, board: &'static Profile, data_dir: &Path) {
    let host = Host::new(Path::new("/"), board, config, data_dir);
    for check in checks::TABLE.iter().filter(|check| check.when == When::Always) {
        let Finding { level, found, without, fix } = (check.look)(&host);
        match level {
            Level::Ok => {}
            Level::Warn => tracing::warn!(check = check.name, without, fix, "{found}"),
            Level::Fail => tracing::error!(check = check.name, fix, "{found}"),
        }
    }
}

fn as_text(board: &Profile, findings: &[(&str, Finding)]) -> String {
    let mut text = ["board ", board.name, ": ", board.description, "\n"].concat();
    for (name, finding) in findings {
        let level = LEVELS[finding.level as usize];
        text += &format!("{level:<5} {name:<16} {}\n", finding.found);
        for (label, what) in [("without", finding.without), ("fix", &finding.fix)] {
            if !what.is_empty() {
                text += &format!("      {label:<16} {what}\n");
            }
        }
    }
    text
}

fn as_json(board: &Profile, findings: &[(&str, Finding)]) -> String {
    let checks = findings.iter().map(|(name, finding)| {
        serde_json::json!({"check": name, "level": LEVELS[finding.level as usize], "found": finding.found,
            "without": finding.without, "fix": finding.fix})
    });
    let checks: Vec<serde_json::Value> = checks.collect();
    serde_json::json!({"board": board.name, "checks": checks}).to_string() + "\n"
}
