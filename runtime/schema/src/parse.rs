//! Text to tree: JSON and YAML as a client sends them, bounded in size, depth and count before they are believed (a few hundred
//! bytes of YAML aliases can stand for gigabytes). JSON goes through `Doc`, whose reader words errors as Go's decoder.
//!
//! YAML is read as sigs.k8s.io/yaml reads it: the first document, YAML 1.1 booleans, the last of two equal keys, merge keys.
use crate::doc::{Doc, DocError, MAX_BYTES, MAX_DEPTH};
use crate::{Map, Name, Number, Value};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use std::collections::{HashMap, HashSet};

/// What a YAML document may cost once its aliases are written out: so much a value, and its text.
const VALUE_COST: usize = 24;
const MAX_COST: usize = 2 * MAX_BYTES;

/// The tree, and what a strict client wants to hear: `duplicate field "spec.replicas"`.
pub fn parse_json(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let mut paths = Vec::new();
    let doc = Doc::from_json_strict(bytes, &mut paths).map_err(|e| match e {
        DocError::Json { message } | DocError::Type { message } => message,
        DocError::TooDeep { .. } => "json: exceeded max depth".into(),
        DocError::TooLarge { limit } => format!("json: more than {limit} bytes or values"),
        DocError::Damaged { what, .. } => what.into(),
    })?;
    Ok((doc.root().to_value(), paths.iter().map(|path| format!("duplicate field {path:?}")).collect()))
}

pub fn parse_yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| wrap("yaml: invalid leading UTF-8 octet"))?;
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        cost: 0,
        anchored: 0,
        duplicates: Vec::new(),
    };
    let value = reader.document().map_err(|e| wrap(&e))?;
    let complaints = match reader.duplicates.as_slice() {
        [] => Vec::new(),
        list => vec![format!("yaml: unmarshal errors:\n{}", list.join("\n"))],
    };
    Ok((value, complaints))
}

fn wrap(error: &str) -> String {
    format!("error converting YAML to JSON: {error}")
}

fn scan_error(error: &ScanError) -> String {
    // Upstream's reader names no first line.
    match error.marker().line() {
        0 | 1 => format!("yaml: {}", error.info()),
        line => format!("yaml: line {line}: {}", error.info()),
    }
}

struct Reader<'i> {
    parser: Parser<'i, StrInput<'i>>,
    /// What an alias stands for, with its cost.
    anchors: HashMap<usize, (Value, usize)>,
    cost: usize,
    /// Cost of what is kept for aliases; anchors may nest.
    anchored: usize,
    duplicates: Vec<String>,
}

/// A container that is being read.
enum Open {
    List {
        anchor: usize,
        before: usize,
        list: Vec<Value>,
    },
    Map {
        anchor: usize,
        before: usize,
        members: Vec<(Name, Value)>,
        seen: HashSet<Name>,
        key: Option<Name>,
        merges: Vec<Value>,
    },
}

impl<'i> Reader<'i> {
    /// No recursion: the stack is a vector, so depth costs memory that is bounded.
    fn document(&mut self) -> Result<Value, String> {
        let mut stack: Vec<Open> = Vec::new();
        loop {
            let (event, span) = match self.parser.next_event() {
                Some(Ok(next)) => next,
                Some(Err(error)) => return Err(scan_error(&error)),
                None => return Ok(Value::Null),
            };
            let (value, anchor, before) = match event {
                Event::StreamEnd | Event::DocumentEnd => return Ok(Value::Null),
                Event::MappingStart(anchor, _) => {
                    let (members, seen, merges) = (Vec::new(), HashSet::new(), Vec::new());
                    stack.push(Open::Map { anchor, before: self.cost, members, seen, key: None, merges });
                    self.count(VALUE_COST, stack.len())?;
                    continue;
                }
                Event::SequenceStart(anchor, _) => {
                    stack.push(Open::List { anchor, before: self.cost, list: Vec::new() });
                    self.count(VALUE_COST, stack.len())?;
                    continue;
                }
                Event::MappingEnd => match stack.pop() {
                    Some(Open::Map { anchor, before, members, merges, .. }) => {
                        (Value::Object(merge(members, merges)?), anchor, before)
                    }
                    _ => return Err("yaml: unbalanced mapping".into()),
                },
                Event::SequenceEnd => match stack.pop() {
                    Some(Open::List { anchor, before, list }) => (Value::Array(list.into()), anchor, before),
                    _ => return Err("yaml: unbalanced sequence".into()),
                },
                Event::Scalar(text, style, anchor, tag) => {
                    let before = self.cost;
                    self.count(VALUE_COST + text.len(), stack.len())?;
                    (scalar(&text, style, tag.as_deref())?, anchor, before)
                }
                Event::Alias(id) => {
                    let before = self.cost;
                    let (value, size) = match self.anchors.get(&id) {
                        Some((value, size)) => (value, *size),
                        None => return Err("yaml: anchor contains itself or is unknown".into()),
                    };
                    // Bounded before the copy is made.
                    let value = if self.cost + size <= MAX_COST { value.clone() } else { Value::Null };
                    self.count(size, stack.len())?;
                    if depth(&value) + stack.len() > MAX_DEPTH {
                        return Err(too_deep());
                    }
                    (value, 0, before)
                }
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => continue,
            };
            if anchor != 0 {
                let size = self.cost - before;
                self.anchored += size;
                if self.anchored > MAX_COST {
                    return Err(EXCESSIVE.into());
                }
                self.anchors.insert(anchor, (value.clone(), size));
            }
            match stack.last_mut() {
                None => return Ok(value),
                Some(Open::List { list, .. }) => list.push(value),
                Some(Open::Map { members, seen, key, merges, .. }) => match key.take() {
                    None => *key = Some(key_text(value)?),
                    Some(name) if name == "<<" => merges.push(value),
                    Some(name) => {
                        if !seen.insert(name.clone()) {
                            self.duplicate(&name, &span);
                        }
                        members.push((name, value));
                    }
                },
            }
        }
    }

    fn count(&mut self, more: usize, depth: usize) -> Result<(), String> {
        self.cost += more;
        match () {
            () if depth > MAX_DEPTH => Err(too_deep()),
            () if self.cost > MAX_COST => Err(EXCESSIVE.into()),
            () => Ok(()),
        }
    }

    fn duplicate(&mut self, name: &str, span: &Span) {
        if self.duplicates.len() < 100 {
            self.duplicates.push(format!("  line {}: key {name:?} already set in map", span.start.line()));
        }
    }
}

const EXCESSIVE: &str = "yaml: document contains excessive aliasing";

fn too_deep() -> String {
    format!("yaml: exceeded max depth of {MAX_DEPTH}")
}

/// At most `MAX_DEPTH`, since the value was itself read under that bound.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// `<<`: members of other maps that this one does not have itself; of theirs, the first counts.
fn merge(members: Vec<(Name, Value)>, merges: Vec<Value>) -> Result<Map, String> {
    let mut all = Vec::new();
    for source in merges.into_iter().rev() {
        let sources = match source {
            Value::Array(list) => list.into(),
            one => vec![one],
        };
        for source in sources.into_iter().rev() {
            let Value::Object(source) = source else {
                return Err("yaml: map merge requires map or sequence of maps as the value".into());
            };
            all.extend(source);
        }
    }
    all.extend(members);
    Ok(Map::from_members(all))
}

fn key_text(value: Value) -> Result<Name, String> {
    match value {
        Value::String(text) => Ok(text.as_str().into()),
        Value::Null => Ok("null".into()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string().into()),
        Value::Array(_) | Value::Object(_) => Err("yaml: invalid map key".into()),
    }
}

/// A plain scalar that stays a string; what other readers take for a time is quoted too.
pub(crate) fn is_string(text: &str) -> bool {
    !is_dated(text)
        && !matches!(text, "y" | "Y" | "n" | "N" | "<<")
        && scalar(text, ScalarStyle::Plain, None).is_ok_and(|v| v.is_string())
}

/// "2024-1-2", and what may stand behind it.
fn is_dated(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let mut next = || parts.next().unwrap_or("");
    let (year, month, rest) = (next(), next(), next());
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let day = rest.split(['T', 't', ' ']).next().unwrap_or("");
    year.len() == 4 && digits(year) && month.len() < 3 && digits(month) && day.len() < 3 && digits(day)
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let core = tag.filter(|t| t.is_yaml_core_schema()).map(|t| t.suffix.as_str());
    match core {
        Some("str" | "binary") => return Ok(text.into()),
        None if style != ScalarStyle::Plain => return Ok(text.into()),
        _ => {}
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true.into(),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => false.into(),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN" | ".NAN" => {
            return Err(format!("json: unsupported value: {}", text.trim_start_matches('.')));
        }
        _ => number(text).map_or_else(|| text.into(), Value::Number),
    })
}

/// Integers of YAML 1.1 (with `0b`, `0x`, octal, underscores) and decimal floats.
fn number(text: &str) -> Option<Number> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'-' | b'+' | b'.')) {
        return None;
    }
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let (radix, body) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] if digits.bytes().all(|b| b.is_ascii_digit()) => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric()) {
        if let Ok(n) = i64::from_str_radix(&format!("{sign}{body}"), radix) {
            return Some(n.into());
        }
        if let (Ok(n), "") = (u64::from_str_radix(body, radix), sign) {
            return Some(n.into());
        }
    }
    let decimal = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.bytes().any(|b| b.is_ascii_digit());
    if decimal { Number::from_f64(plain.parse().ok()?) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn check(yaml: &str, want: Value) {
        assert_eq!(parse_yaml(yaml.as_bytes()).map(|(v, _)| v), Ok(want), "{yaml}");
    }

    #[test]
    fn yaml_means_what_kubernetes_reads() {
        check(
            "a: 1\nb: [x, 'true', true, yes, ~]\nc:\n  d: 1.5\n",
            json!({"a":1,"b":["x","true",true,true,null],"c":{"d":1.5}}),
        );
        check(
            "mode: 0644\nhex: 0x10\nbig: 1_000\n1: one\nver: \"1.20\"",
            json!({"mode":420,"hex":16,"big":1000,"1":"one","ver":"1.20"}),
        );
        check("x: &a {k: v}\nw: *a\nz:\n  <<: *a\n  m: 1\n", json!({"x":{"k":"v"},"w":{"k":"v"},"z":{"k":"v","m":1}}));
        check(
            "t: 2001-01-01\nip: 10.0.0.1\nv: v1\ne: 1e3\ntext: |\n  a\n  b\n",
            json!({"t":"2001-01-01","ip":"10.0.0.1","v":"v1","e":1000.0,"text":"a\nb\n"}),
        );
        check("a: 1\n---\nb: 2\n", json!({"a":1}));
        check("", Value::Null);
    }

    #[test]
    fn duplicates_are_told_and_the_last_wins() {
        let (value, complaints) = parse_yaml(b"a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(value, json!({"a":3,"b":2}));
        assert_eq!(complaints, ["yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"]);
        let (value, complaints) = parse_json(br#"{"a":{"b":1,"b":2}}"#).unwrap();
        assert_eq!(value, json!({"a":{"b":2}}));
        assert_eq!(complaints, ["duplicate field \"a.b\""]);
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..30 {
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","));
        }
        assert!(parse_yaml(bomb.as_bytes()).unwrap_err().contains("excessive aliasing"));
        assert!(parse_yaml("[".repeat(100_000).as_bytes()).is_err());
        assert!(parse_yaml("- ".repeat(1000).as_bytes()).unwrap_err().contains("max depth"));
        assert!(parse_yaml(b"x: 1\na: b: c").unwrap_err().contains("line 2"));
        assert!(parse_yaml(b"a: &x [*x]").is_err());
        assert!(parse_yaml(b"\xff").is_err());
    }
}
