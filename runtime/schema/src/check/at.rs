//! A place in an object with its path, and the list that mistakes go to.
use crate::Cause;
use crate::{Map, Text, Value};

static NULL: Value = Value::Null;

/// A value that may be absent (null), and where it stands.
#[derive(Clone)]
pub(super) struct At<'v> {
    pub value: &'v Value,
    /// Empty where places are not asked for.
    pub path: String,
    is_placed: bool,
}

impl<'v> At<'v> {
    pub fn root(value: &'v Value) -> At<'v> {
        At { value, path: String::new(), is_placed: true }
    }
    /// Only to see whether there are mistakes.
    pub fn unplaced(value: &'v Value) -> At<'v> {
        At { value, path: String::new(), is_placed: false }
    }
    fn child(&self, value: &'v Value, path: impl FnOnce() -> String) -> At<'v> {
        At { value, path: if self.is_placed { path() } else { String::new() }, is_placed: self.is_placed }
    }
    /// The same value under another path.
    pub fn moved(&self, path: impl Into<String>) -> At<'v> {
        self.child(self.value, || path.into())
    }
    /// Another value at the same place.
    pub fn with<'o>(&self, value: &'o Value) -> At<'o> {
        At { value, path: self.path.clone(), is_placed: self.is_placed }
    }
    pub fn get(&self, name: &str) -> At<'v> {
        self.child(self.peek(name), || match self.path.as_str() {
            "" => name.to_owned(),
            path => [path, ".", name].concat(),
        })
    }
    /// A chain of `get`.
    pub fn at(&self, path: &str) -> At<'v> {
        path.split('.').fold(self.clone(), |at, name| at.get(name))
    }
    /// The child's value, without a path.
    pub fn peek(&self, name: &str) -> &'v Value {
        self.value.get(name).unwrap_or(&NULL)
    }
    /// A member of a map: `labels[a]`.
    pub fn key(&self, key: &str) -> At<'v> {
        self.child(self.peek(key), || format!("{}[{key}]", self.path))
    }
    pub fn items(&self) -> impl Iterator<Item = At<'v>> + use<'v> {
        let around = self.clone();
        let list = self.value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(move |(i, value)| around.child(value, || format!("{}[{i}]", around.path)))
    }
    pub fn members(&self) -> impl Iterator<Item = (&'v str, &'v Value)> + use<'v> {
        self.value.as_object().into_iter().flat_map(Map::iter).map(|(k, v)| (k.as_str(), v))
    }
    pub fn is_set(&self) -> bool {
        !self.value.is_null()
    }
    pub fn is_true(&self) -> bool {
        self.value == &Value::Bool(true)
    }
    /// The string, or "".
    pub fn str(&self) -> &'v str {
        self.value.as_str().unwrap_or("")
    }
    pub fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }
    /// Members or elements; 0 for what has none.
    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }
    pub fn is_empty(&self) -> bool {
        let elements = self.len();
        elements == 0 && self.str().is_empty()
    }
}

#[derive(Default)]
pub(super) struct Errors(pub Vec<Cause>);

const IMMUTABLE: &str = "field is immutable";

impl Errors {
    pub fn required(&mut self, at: &At<'_>, detail: &str) {
        self.0.push(Cause::required(&*at.path, detail));
    }
    pub fn invalid(&mut self, at: &At<'_>, detail: &str) {
        self.invalid_value(&at.path, at.value, detail);
    }
    pub fn invalid_value(&mut self, path: &str, value: &Value, detail: &str) {
        let empty = Value::String(Text::new());
        let value = if value.is_null() { &empty } else { value };
        self.0.push(Cause::invalid(path, value, detail));
    }
    pub fn forbidden(&mut self, at: &At<'_>, detail: &str) {
        self.0.push(Cause::forbidden(&*at.path, detail));
    }
    pub fn unsupported(&mut self, at: &At<'_>, supported: &[&str]) {
        let empty = Value::String(Text::new());
        let value = if at.is_set() { at.value } else { &empty };
        self.0.push(Cause::not_supported(&*at.path, value, supported));
    }
    pub fn duplicate(&mut self, at: &At<'_>) {
        self.0.push(Cause::duplicate(&*at.path, at.value));
    }
    pub fn not_found(&mut self, at: &At<'_>) {
        self.0.push(Cause::not_found(&*at.path, at.value));
    }
    pub fn too_long(&mut self, at: &At<'_>, max: usize) {
        self.0.push(Cause::too_long(&*at.path, max));
    }
    /// One per message of a check in `validate`.
    pub fn each(&mut self, at: &At<'_>, messages: Vec<String>) {
        for message in messages {
            self.invalid(at, &message);
        }
    }
    /// ValidateNonnegativeField
    pub fn non_negative(&mut self, at: &At<'_>) {
        if at.int().is_some_and(|n| n < 0) {
            self.invalid(at, NEGATIVE);
        }
    }
    /// ValidatePositiveField
    pub fn positive(&mut self, at: &At<'_>) {
        if at.int().unwrap_or(0) <= 0 {
            self.invalid(at, "must be greater than 0");
        }
    }
    /// ValidateImmutableField
    pub fn immutable(&mut self, new: &At<'_>, old: &At<'_>) {
        if new.value != old.value {
            // What was no text is a pointer, a list or a map.
            if old.value.is_string() { self.invalid(new, IMMUTABLE) } else { self.invalid_null(new, IMMUTABLE) }
        }
    }
    /// Go prints an absent pointer, list or map as null, where `invalid` prints "".
    pub fn invalid_null(&mut self, at: &At<'_>, detail: &str) {
        self.0.push(Cause::invalid(&*at.path, at.value, detail));
    }
    /// field.OmitValueType: the value is not shown.
    pub fn invalid_unshown(&mut self, at: &At<'_>, detail: &str) {
        let message = format!("Invalid value: {detail}");
        self.0.push(Cause { reason: "FieldValueInvalid", message, field: at.path.clone() });
    }
    pub fn too_many(&mut self, at: &At<'_>, max: usize) {
        if at.len() > max {
            self.0.push(Cause::too_many(&*at.path, at.len(), max));
        }
    }
}

pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
