//! Reads a profile: the part of TOML that profiles use, which is sections, strings, whole numbers and one-line lists
//! of strings. A hand parser, since a TOML crate costs the node more flash than all profiles together.
use crate::{Budget, Build, Detect, Limits, Profile};
use std::{collections::BTreeMap, fmt};

#[derive(Debug, PartialEq)]
pub struct Mistake {
    /// 0 for what is missing altogether.
    pub line: usize,
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Mistake {}

#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Number(u64),
    List(Vec<String>),
}

/// "section.key" to value and line; what is left after reading a profile is unknown.
struct Fields(BTreeMap<String, (usize, Value)>);

impl Fields {
    fn text(&mut self, key: &str) -> Result<String, Mistake> {
        match self.take(key)? {
            (_, Value::Text(text)) => Ok(text),
            (line, other) => Err(Mistake { line, what: format!("{key}: expected a string, found {other:?}") }),
        }
    }

    fn number(&mut self, key: &str) -> Result<u64, Mistake> {
        match self.take(key)? {
            (_, Value::Number(number)) => Ok(number),
            (line, other) => Err(Mistake { line, what: format!("{key}: expected a number, found {other:?}") }),
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<String>, Mistake> {
        match self.take(key)? {
            (_, Value::List(list)) => Ok(list),
            (line, other) => Err(Mistake { line, what: format!("{key}: expected a list, found {other:?}") }),
        }
    }

    fn take(&mut self, key: &str) -> Result<(usize, Value), Mistake> {
        self.0.remove(key).ok_or_else(|| Mistake { line: 0, what: format!("{key} is missing") })
    }
}

pub fn profile(text: &str) -> Result<Profile, Mistake> {
    let mut fields = fields(text)?;
    let profile = Profile {
        name: fields.text("name")?,
        description: fields.text("description")?,
        detect: Detect { architecture: fields.text("detect.architecture")?, models: fields.list("detect.models")? },
        build: Build {
            target: fields.text("build.target")?,
            cpu: fields.text("build.cpu")?,
            opt_level: fields.text("build.opt_level")?,
        },
        budget: Budget {
            ram_mb: fields.number("budget.ram_mb")?,
            idle_pss_kb: fields.number("budget.idle_pss_kb")?,
            binary_bytes: fields.number("budget.binary_bytes")?,
            idle_writes_bytes_an_hour: fields.number("budget.idle_writes_bytes_an_hour")?,
        },
        limits: Limits {
            threads: fields.number("limits.threads")?,
            pods: fields.number("limits.pods")?,
            connections: fields.number("limits.connections")?,
            requests_in_flight: fields.number("limits.requests_in_flight")?,
            store_cache_kb: fields.number("limits.store_cache_kb")?,
            watch_events: fields.number("limits.watch_events")?,
            watch_kb: fields.number("limits.watch_kb")?,
            history_seconds: fields.number("limits.history_seconds")?,
            lazy_delay_ms: fields.number("limits.lazy_delay_ms")?,
            flash_mb_a_day: fields.number("limits.flash_mb_a_day")?,
            events: fields.number("limits.events")?,
        },
    };
    match fields.0.pop_first() {
        Some((key, (line, _))) => Err(Mistake { line, what: format!("unknown key {key}") }),
        None => Ok(profile),
    }
}

fn fields(text: &str) -> Result<Fields, Mistake> {
    let mut fields = BTreeMap::new();
    let mut section = String::new();
    for (line, source) in text.lines().enumerate().map(|(index, source)| (index + 1, source.trim())) {
        if source.is_empty() || source.starts_with('#') {
            continue;
        }
        if let Some(name) = source.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{name}.");
            continue;
        }
        let mistake = |what: String| Mistake { line, what };
        let (key, source) = source.split_once('=').ok_or_else(|| mistake("expected key = value".to_owned()))?;
        let (key, source) = (format!("{section}{}", key.trim()), source.trim());
        let found = value(source).ok_or_else(|| mistake(format!("{key}: not a value: {source}")))?;
        if fields.insert(key.clone(), (line, found)).is_some() {
            return Err(mistake(format!("{key} is there twice")));
        }
    }
    Ok(Fields(fields))
}

fn value(source: &str) -> Option<Value> {
    if let Some(items) = source.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let items = items.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(text).collect::<Option<Vec<String>>>().map(Value::List);
    }
    text(source).map(Value::Text).or_else(|| source.replace('_', "").parse().ok().map(Value::Number))
}

/// A string in double quotes, without escapes.
fn text(source: &str) -> Option<String> {
    let inner = source.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains(['"', '\\'])).then(|| inner.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_their_line() {
        #[track_caller]
        fn check(change: (&str, &str), line: usize, what: &str) {
            let text = include_str!("../x86_64.toml").replacen(change.0, change.1, 1);
            assert_eq!(profile(&text), Err(Mistake { line, what: what.to_owned() }));
        }
        check(("name = \"x86_64\"", "name = x86_64"), 2, "name: not a value: x86_64");
        check(("name = \"x86_64\"", "name = 5"), 2, "name: expected a string, found Number(5)");
        check(("pods = 250", "pods = \"many\""), 23, "limits.pods: expected a number, found Text(\"many\")");
        check(("pods = 250\n", ""), 0, "limits.pods is missing");
        check(("pods = 250", "pods = 250\npods = 250"), 24, "limits.pods is there twice");
        check(("pods = 250", "pods = 250\npuds = 250"), 24, "unknown key limits.puds");
        check(("pods = 250", "pods"), 23, "expected key = value");
    }
}
