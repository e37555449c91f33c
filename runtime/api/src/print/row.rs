//! One row being written: the object it is about, and the cells in order. The texts that several kinds share
//! ("<none>", label sets, ages) are made here.
use super::duration;
use jiff::Timestamp;
use mote_schema::Order as _;
use mote_schema::{Object, Ref, doc::write_string, quantity::Quantity, selector::LabelSelector};

pub(super) const NONE: &str = "<none>";
pub(super) const UNSET: &str = "<unset>";
pub(super) const UNKNOWN: &str = "<unknown>";

pub(super) struct Row<'a> {
    pub object: &'a Object,
    now: Timestamp,
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Row<'a> {
    pub fn new(object: &'a Object, now: Timestamp, out: &'a mut Vec<u8>) -> Row<'a> {
        Row { object, now, out, first: true }
    }

    pub fn at(&self, path: &str) -> Ref<'a> {
        self.object.root().at(path)
    }
    pub fn number(&self, path: &str) -> i64 {
        number(self.at(path))
    }

    // Cells.

    fn separate(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
    }
    pub fn text(&mut self, text: &str) {
        self.separate();
        write_string(text, self.out);
    }
    pub fn int(&mut self, number: i64) {
        self.separate();
        self.out.extend_from_slice(number.to_string().as_bytes());
    }
    /// What is JSON already.
    pub fn raw(&mut self, json: &str) {
        self.separate();
        self.out.extend_from_slice(json.as_bytes());
    }
    pub fn bool(&mut self, value: bool) {
        self.separate();
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }
    /// The string at a path, "" when absent.
    pub fn string(&mut self, path: &str) {
        let text = self.at(path).str();
        self.text(text);
    }
    /// The string at a path, `or` when it is absent or empty.
    pub fn string_or(&mut self, path: &str, or: &str) {
        let text = self.at(path).str();
        self.text(if text.is_empty() { or } else { text });
    }
    /// The number at a path, 0 when absent.
    pub fn integer(&mut self, path: &str) {
        let number = self.number(path);
        self.int(number);
    }
    /// How many elements or members there are.
    pub fn count(&mut self, path: &str) {
        let place = self.at(path);
        self.int(if place.is_map() { place.entries().count() } else { place.items().count() } as i64);
    }
    pub fn name(&mut self) {
        let name = self.object.name();
        self.text(name);
    }
    pub fn age(&mut self) {
        let age = self.since(self.object.meta().get("creationTimestamp"));
        self.text(&age);
    }
    /// Names and images of a pod template's containers: two cells.
    pub fn containers(&mut self, template: &str) {
        let containers = self.at(template).at("spec.containers");
        self.text(&join(containers.items().map(|container| container.get("name").str()), ","));
        self.text(&join(containers.items().map(|container| container.get("image").str()), ","));
    }

    // Times.

    /// How long ago a time was; "<unknown>" for none.
    pub fn since(&self, time: Ref<'_>) -> String {
        match time.as_str().and_then(|text| text.parse().ok()) {
            Some(time) => duration::human(seconds(time, self.now)),
            None => UNKNOWN.into(),
        }
    }
    /// From one time to another, or to now when the other is absent; None when the first one is.
    pub fn between(&self, from: Ref<'_>, to: Ref<'_>) -> Option<String> {
        let time = |place: Ref<'_>| place.as_str().and_then(|text| text.parse::<Timestamp>().ok());
        Some(duration::human(seconds(time(from)?, time(to).unwrap_or(self.now))))
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    // Toward zero, as Go cuts.
    let nanoseconds = to.as_nanosecond() - from.as_nanosecond();
    i64::try_from(nanoseconds / 1_000_000_000).unwrap_or(i64::MAX)
}

pub(super) fn number(place: Ref<'_>) -> i64 {
    place.as_i64().unwrap_or(0)
}

pub(super) fn join<'a>(texts: impl Iterator<Item = &'a str>, separator: &str) -> String {
    texts.collect::<Vec<_>>().join(separator)
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { NONE.into() } else { text }
}

/// labels.FormatLabels: `a=b,c=d` by key, or "<none>".
pub(super) fn labels(map: Ref<'_>) -> String {
    let mut pairs: Vec<_> = map.entries().map(|(key, value)| format!("{key}={}", value.str())).collect();
    pairs.order();
    or_none(pairs.join(","))
}

/// metav1.FormatLabelSelector: what a selector asks for, or "<none>" when that is nothing.
pub(super) fn selector(selector: Ref<'_>) -> String {
    match LabelSelector::from_ref(selector) {
        Ok(found) => or_none(found.map_or(String::new(), |found| found.to_string())),
        Err(_) => "<error>".into(),
    }
}

/// The first `max` and how many more there are.
pub(super) fn some_of(list: &[String], max: usize, empty: &str) -> String {
    match list.len() {
        0 => empty.into(),
        count if count > max => format!("{} + {} more...", list[..max].join(","), count - max),
        _ => list.join(","),
    }
}

/// A quantity in its canonical form; an absent one is "0".
pub(super) fn quantity(place: Ref<'_>) -> String {
    match place.as_str() {
        Some(text) => Quantity::canonical(text).unwrap_or_else(|_| text.into()),
        None => place.as_i64().unwrap_or(0).to_string(),
    }
}

/// The condition of this type.
pub(super) fn condition<'a>(conditions: Ref<'a>, kind: &str) -> Ref<'a> {
    conditions.items().find(|condition| condition.get("type").str() == kind).unwrap_or(Ref::absent())
}
