//! One step of a path into an object, ordered and printed as structured-merge-diff does (fieldpath/element.go).
use crate::Name;
use crate::status::go_quote;
use crate::{Number, Value};
use std::cmp::Ordering;

#[derive(Clone, Debug)]
pub enum Element {
    /// A member of a map or struct.
    Field(Name),
    /// The element of a keyed list with these values, sorted by name.
    Key(Vec<(Name, Value)>),
    /// The element of a set.
    Value(Value),
    /// Never made here, but clients may name it.
    Index(i64),
}

impl Element {
    pub fn field(name: &str) -> Element {
        Element::Field(name.into())
    }

    fn rank(&self) -> u8 {
        match self {
            Element::Field(_) => 0,
            Element::Key(_) => 1,
            Element::Value(_) => 2,
            Element::Index(_) => 3,
        }
    }

    /// The member name it has in FieldsV1.
    pub(super) fn to_key(&self) -> Name {
        match self {
            Element::Field(name) => name.as_field(),
            Element::Value(value) => ("v:".to_owned() + &json(value)).into(),
            Element::Index(at) => format!("i:{at}").into(),
            Element::Key(fields) => {
                let mut key = String::from("k:{");
                for (at, (name, value)) in fields.iter().enumerate() {
                    key.push_str(if at == 0 { "\"" } else { ",\"" });
                    key.push_str(name);
                    key.push_str("\":");
                    key.push_str(&json(value));
                }
                key.push('}');
                key.into()
            }
        }
    }

    /// Ok(None): a kind of element that a later version may know, and that is dropped.
    pub(super) fn from_key(key: &Name) -> Result<Option<Element>, String> {
        if let Some(name) = key.of_field() {
            return Ok(Some(Element::Field(name)));
        }
        let (kind, rest) = match key.as_bytes() {
            [kind, b':', ..] => (*kind, &key[2..]),
            [] | [_] => return Err("key must be 2 characters long:".into()),
            _ => return Err(format!("missing colon: {key}")),
        };
        let read = || serde_json::from_str::<Value>(rest).map_err(|error| error.to_string());
        Ok(Some(match kind {
            b'v' => Element::Value(read()?),
            b'k' => match read()? {
                // Members of a map are sorted.
                Value::Object(map) => Element::Key(map.into_iter().collect()),
                _ => return Err(format!("a key that is no object: {key}")),
            },
            b'i' => Element::Index(rest.parse().map_err(|_| format!("an index that is no number: {key}"))?),
            _ => return Ok(None),
        }))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Element) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Element) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Element) -> Ordering {
        match (self, other) {
            (Element::Field(a), Element::Field(b)) => a.cmp(b),
            (Element::Value(a), Element::Value(b)) => compare(a, b),
            (Element::Index(a), Element::Index(b)) => a.cmp(b),
            (Element::Key(a), Element::Key(b)) => {
                let mut pairs = a.iter().zip(b).map(|(a, b)| a.0.cmp(&b.0).then_with(|| compare(&a.1, &b.1)));
                pairs.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

/// As conflicts and errors show it: ".spec", "[name=\"a\"]", "[=\"x\"]".
impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Element::Field(name) => write!(f, ".{name}"),
            Element::Index(at) => write!(f, "[{at}]"),
            Element::Value(value) => write!(f, "[={}]", text(value)),
            Element::Key(fields) => {
                let parts: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
                write!(f, "[{}]", parts.join(","))
            }
        }
    }
}

/// value.ToString
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Number(number) => go_number(number),
        Value::Array(list) => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(",")),
        Value::Object(map) => map.iter().map(|(name, value)| format!("{name}={}", text(value))).collect(),
        plain => plain.to_string(),
    }
}

/// What is whole prints as an integer, since Go reads every number of a set as a float and prints the shortest form.
fn go_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => (float as i64).to_string(),
        _ => number.to_string(),
    }
}

/// JSON as Go's encoders write it: HTML's characters escaped.
pub(super) fn json(value: &Value) -> String {
    let plain = match value {
        Value::Number(number) => return go_number(number),
        other => other.to_string(),
    };
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    let mut out = String::with_capacity(plain.len() + 16);
    for c in plain.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out
}

/// value.Compare: numbers by size whatever their form, then strings, booleans, lists, maps, null.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let mut pairs = a.iter().zip(b).map(|(a, b)| compare(a, b));
            pairs.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let mut pairs = a.iter().zip(b).map(|(a, b)| a.0.cmp(b.0).then_with(|| compare(a.1, b.1)));
            pairs.find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Whether both are one value: 1 and 1.0 are.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    a == b || compare(a, b) == Ordering::Equal
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}
