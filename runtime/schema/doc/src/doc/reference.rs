//! Reading in place: a `Ref` is a place inside a Doc's bytes. Nothing here allocates but `to_value` and `decode`.
use super::bytes::{self, Key, VERSION, Value};
use super::{DocError, Node};
use serde::de::DeserializeOwned;

/// A place inside a Doc; `Ref::absent()` for a place that is not there, so that paths chain.
///
/// Holds the bytes from the value's tag to the end of the container around it.
#[derive(Clone, Copy)]
pub struct Ref<'a>(Option<&'a [u8]>);

impl<'a> Ref<'a> {
    pub fn absent() -> Ref<'a> {
        Ref(None)
    }
    pub(super) fn root(doc: &'a [u8]) -> Ref<'a> {
        match doc.split_first() {
            Some((&VERSION, body)) => Ref(Some(body)),
            _ => Ref(None),
        }
    }
    pub fn value(self) -> Option<Value<'a>> {
        Some(bytes::value(self.0?)?.0)
    }
    /// This value's own bytes.
    pub(super) fn encoded(self) -> Option<&'a [u8]> {
        let all = self.0?;
        let (_, rest) = bytes::value(all)?;
        all.get(..all.len() - rest.len())
    }
    pub fn exists(self) -> bool {
        self.value().is_some()
    }
    /// Whether both hold the same value, written the same way; two absent ones do.
    pub fn is_same(self, other: Ref<'_>) -> bool {
        self.encoded() == other.encoded()
    }
    pub fn is_null(self) -> bool {
        matches!(self.value(), Some(Value::Null))
    }
    pub fn is_map(self) -> bool {
        matches!(self.value(), Some(Value::Map(_)))
    }
    pub fn is_list(self) -> bool {
        matches!(self.value(), Some(Value::List(_)))
    }
    /// "null", "bool", "integer", "number", "string", "array" or "object"; "" when absent.
    pub fn type_name(self) -> &'static str {
        match self.value() {
            None => "",
            Some(Value::Null) => "null",
            Some(Value::Bool(_)) => "bool",
            Some(Value::Int(_) | Value::Uint(_)) => "integer",
            Some(Value::Float(_)) => "number",
            Some(Value::Str { .. }) => "string",
            Some(Value::List(_)) => "array",
            Some(Value::Map(_)) => "object",
        }
    }
    pub fn get(self, name: &str) -> Ref<'a> {
        let Some(Value::Map(mut inner)) = self.value() else { return Ref(None) };
        let wanted = Key::of(name.as_bytes());
        while let Some((key, rest)) = bytes::key(inner) {
            // Bytes from a time when the dictionary was smaller hold the name inline.
            if key == wanted || matches!(key, Key::Inline(text) if text == name.as_bytes()) {
                return Ref(Some(rest));
            }
            match bytes::value(rest) {
                Some((_, next)) => inner = next,
                None => break,
            }
        }
        Ref(None)
    }
    /// `at("spec.template.spec")`: a chain of `get`, names without dots.
    pub fn at(self, path: &str) -> Ref<'a> {
        path.split('.').fold(self, Ref::get)
    }
    /// The element of a list.
    pub fn index(self, index: usize) -> Ref<'a> {
        self.items().nth(index).unwrap_or(Ref(None))
    }
    pub fn as_str(self) -> Option<&'a str> {
        match self.value()? {
            Value::Str { text, .. } => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }
    /// The string, or "".
    pub fn str(self) -> &'a str {
        self.as_str().unwrap_or("")
    }
    /// An integer; also a number without a fraction.
    pub fn as_i64(self) -> Option<i64> {
        match self.value()? {
            Value::Int(value) => Some(value),
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(value as i64),
            _ => None,
        }
    }
    pub fn as_f64(self) -> Option<f64> {
        match self.value()? {
            Value::Int(value) => Some(value as f64),
            Value::Uint(value) => Some(value as f64),
            Value::Float(value) => Some(value),
            _ => None,
        }
    }
    pub fn as_bool(self) -> Option<bool> {
        match self.value()? {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }
    /// Whether it is `true`; absent and null are false.
    pub fn is_true(self) -> bool {
        self.as_bool() == Some(true)
    }
    /// A list or map without members, an empty string, null, or nothing at all.
    pub fn is_empty(self) -> bool {
        match self.value() {
            None | Some(Value::Null) => true,
            Some(Value::List(inner) | Value::Map(inner)) => inner.is_empty(),
            Some(Value::Str { text, .. }) => text.is_empty(),
            Some(_) => false,
        }
    }
    /// Elements of a list; empty for anything else.
    pub fn items(self) -> impl Iterator<Item = Ref<'a>> + Clone + 'a {
        let inner = match self.value() {
            Some(Value::List(inner)) => inner,
            _ => &[],
        };
        Items(inner)
    }
    /// Members of an object in stored order; empty for anything else.
    pub fn entries(self) -> impl Iterator<Item = (&'a str, Ref<'a>)> + Clone + 'a {
        let inner = match self.value() {
            Some(Value::Map(inner)) => inner,
            _ => &[],
        };
        Entries(inner)
    }
    /// null and absent become the type's zero value, as in Go.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, DocError> {
        T::deserialize(Node::from(self))
    }
    pub fn to_value(self) -> crate::Value {
        crate::Value::read(self)
    }
    pub fn write_json(self, out: &mut Vec<u8>) {
        super::write_node(Node::from(self), out);
    }
}

impl std::fmt::Debug for Ref<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = Vec::new();
        self.write_json(&mut out);
        f.write_str(&String::from_utf8_lossy(&out))
    }
}

#[derive(Clone)]
pub(super) struct Items<'a>(pub &'a [u8]);

impl<'a> Iterator for Items<'a> {
    type Item = Ref<'a>;
    fn next(&mut self) -> Option<Ref<'a>> {
        let here = self.0;
        // Damage ends the walk, and it does not resume.
        self.0 = &[];
        self.0 = bytes::value(here)?.1;
        Some(Ref(Some(here)))
    }
}

#[derive(Clone)]
pub(super) struct Entries<'a>(pub &'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Ref<'a>);
    fn next(&mut self) -> Option<(&'a str, Ref<'a>)> {
        let (key, rest) = bytes::key(std::mem::take(&mut self.0))?;
        let name = key.text()?;
        self.0 = bytes::value(rest)?.1;
        Some((name, Ref(Some(rest))))
    }
}
