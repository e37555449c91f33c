//! metadata.managedFields: each manager's set with its version and time (util/managedfields/internal/managedfields.go).
use super::{fields, set::Set};
use crate::Order as _;
use crate::{Map, Value};

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Tells managers apart: an applier is one whatever version it applies at.
    pub id: String,
    pub manager: String,
    /// Apply, else Update.
    pub applied: bool,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub set: Set,
}

impl Entry {
    pub fn new(manager: &str, applied: bool, api_version: &str, subresource: &str, set: Set) -> Entry {
        Entry {
            id: id(manager, applied, api_version, subresource),
            manager: manager.into(),
            applied,
            api_version: api_version.into(),
            subresource: subresource.into(),
            time: None,
            set,
        }
    }

    fn operation(&self) -> &'static str {
        if self.applied { "Apply" } else { "Update" }
    }

    /// As conflicts name it.
    pub(super) fn named(&self) -> String {
        let mut text = crate::status::go_quote(&self.manager);
        if !self.subresource.is_empty() {
            text += " with subresource ";
            text += &crate::status::go_quote(&self.subresource);
        }
        if !self.applied {
            text += " using ";
            text += &self.api_version;
        }
        text
    }
}

/// The manager as JSON, by which upstream sorts too.
pub(super) fn id(manager: &str, applied: bool, api_version: &str, subresource: &str) -> String {
    let operation = if applied { "Apply" } else { "Update" };
    let parts = [
        ("manager", manager),
        ("operation", operation),
        ("apiVersion", if applied { "" } else { api_version }),
        ("subresource", subresource),
    ];
    let parts = parts.iter().filter(|(_, text)| !text.is_empty());
    let members: Vec<String> =
        parts.map(|(name, text)| format!("\"{name}\":{}", super::element::json(&(*text).into()))).collect();
    format!("{{{}}}", members.join(","))
}

/// One for each id, in no order until they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entries(pub Vec<Entry>);

impl Entries {
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.id == id)
    }

    pub fn take(&mut self, id: &str) -> Option<Entry> {
        let at = self.0.iter().position(|entry| entry.id == id)?;
        Some(self.0.remove(at))
    }

    /// Replaces one of the same id.
    pub fn put(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|other| other.id == entry.id) {
            Some(other) => *other = entry,
            None => self.0.push(entry),
        }
    }

    /// `metadata.managedFields`, or nothing.
    pub fn decode(value: Option<&Value>) -> Result<Entries, String> {
        let mut entries = Entries::default();
        let list = value.and_then(Value::as_array);
        for (at, item) in list.into_iter().flatten().enumerate() {
            let text = |name: &str| item[name].as_str().unwrap_or("");
            let applied = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            if text("apiVersion").is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
            }
            let set = fields::parse(&item["fieldsV1"]).map_err(|error| format!("error decoding set: {error}"))?;
            let mut entry = Entry::new(text("manager"), applied, text("apiVersion"), text("subresource"), set);
            entry.time = item["time"].as_str().map(str::to_owned);
            entries.put(entry);
        }
        Ok(entries)
    }

    /// In upstream's order: updates last, oldest first.
    pub fn encode(&mut self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        self.0.order_by(|a, b| {
            let key = |entry: &Entry| (entry.operation(), entry.time.clone().unwrap_or_default());
            let rest = |entry: &Entry| (entry.manager.clone(), entry.api_version.clone(), entry.subresource.clone());
            key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
        });
        Some(Value::Array(self.0.iter().map(entry_value).collect()))
    }
}

fn entry_value(entry: &Entry) -> Value {
    let mut map = Map::new();
    let texts = [
        ("apiVersion", entry.api_version.as_str()),
        ("fieldsType", "FieldsV1"),
        ("manager", &entry.manager),
        ("operation", entry.operation()),
        ("subresource", &entry.subresource),
        ("time", entry.time.as_deref().unwrap_or("")),
    ];
    for (name, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        map.insert((*name).into(), (*text).into());
    }
    map.insert("fieldsV1".into(), fields::to_value(&entry.set));
    Value::Object(map)
}
