//! The corpus of the differential suite as it is written: `differential/cases/*.yaml` to a list of requests. What a step may say
//! is in `differential/README.md`. Asking and comparing are in `differential.rs`.
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// One file: requests that are sent in order, in a namespace of their own.
pub struct Group {
    pub name: String,
    pub namespace: String,
    /// Compare metadata.managedFields too.
    pub managed_fields: bool,
    pub cases: Vec<Case>,
}

pub struct Case {
    /// Made of what is asked, so that it outlives what is added before it.
    pub name: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub fn directory() -> PathBuf {
    crate::root().join("tests/differential")
}

/// All groups, by name; only those named when any are.
pub fn read(wanted: &[String]) -> Vec<Group> {
    let entries = fs::read_dir(directory().join("cases")).expect("the corpus is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    let name = |file: &Path| file.file_stem().expect("a name").to_string_lossy().into_owned();
    let files = files.into_iter().filter(|file| wanted.is_empty() || wanted.contains(&name(file)));
    files.map(|file| group(&name(&file), &fs::read_to_string(&file).expect("readable"))).collect()
}

fn group(name: &str, text: &str) -> Group {
    let file = yaml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let namespace = file["namespace"].as_str().map_or_else(|| format!("d-{name}"), str::to_owned);
    let mut reader = Reader { namespace, objects: HashMap::new(), cases: Vec::new(), seen: BTreeMap::new() };
    // Those that are like others after the others.
    let mut objects: Vec<_> = file["objects"].as_object().into_iter().flatten().collect();
    objects.sort_by_key(|(_, facts)| !facts["like"].is_null());
    for (object, facts) in objects {
        let facts = reader.fill(facts);
        let at = facts["at"].as_str().unwrap_or_else(|| panic!("{name}: {object} has no `at`")).to_owned();
        let body = match facts["like"].as_str() {
            Some(other) => match reader.objects.get(other) {
                Some((_, body)) => edited(body, &facts["with"]),
                None => panic!("{name}: {object} is like nothing"),
            },
            None => facts["body"].clone(),
        };
        reader.objects.insert(object.clone(), (at, body));
    }
    for step in file["steps"].as_array().into_iter().flatten() {
        reader.step(step).unwrap_or_else(|error| panic!("{name}: {error}: {step}"));
    }
    let managed_fields = file["managedFields"] == true;
    Group { name: name.to_owned(), namespace: reader.namespace, managed_fields, cases: reader.cases }
}

struct Reader {
    namespace: String,
    /// Path of the collection, and what is posted to it.
    objects: HashMap<String, (String, Value)>,
    cases: Vec<Case>,
    seen: BTreeMap<String, usize>,
}

/// Words for a table of edits: what is asked of the object, for each.
const TABLES: [(&str, &str, &str); 8] = [
    ("create", "POST", ""),
    ("invalid", "POST", "?dryRun=All"),
    ("update", "PUT", "?dryRun=All"),
    ("status", "PUT", "/status?dryRun=All"),
    ("patch", "PATCH", "?dryRun=All"),
    ("patch-status", "PATCH", "/status?dryRun=All"),
    ("replace", "PUT", ""),
    ("replace-status", "PUT", "/status"),
];

impl Reader {
    fn step(&mut self, step: &Value) -> Result<(), String> {
        if let Value::String(request) = step {
            return self.request(request, &Value::Null);
        }
        let map = step.as_object().ok_or("a step is a text or a map")?;
        for (word, method, query) in TABLES {
            if let Some(object) = map.get(word) {
                let object = object.as_str().ok_or("the name of an object")?;
                return self.table(word, method, query, object, &map.get("with").cloned().unwrap_or(json!([{}])));
            }
        }
        for (request, body) in map {
            self.request(request, body)?;
        }
        Ok(())
    }

    fn table(&mut self, word: &str, method: &str, query: &str, object: &str, edits: &Value) -> Result<(), String> {
        let (at, body) = self.objects.get(object).cloned().ok_or("no such object")?;
        for edit in edits.as_array().ok_or("`with` is a list")? {
            let edit = self.fill(edit);
            let name = name_of(&body).to_owned();
            // A patch is made of the edits alone.
            let body = edited(if method == "PATCH" { &Value::Null } else { &body }, &edit);
            // An update may name another object than its path does.
            let item = match method {
                "POST" => String::new(),
                "PUT" => format!("/{}", name_of(&body)),
                _ => format!("/{name}"),
            };
            let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let words = edit.as_object().into_iter().flatten().map(|(path, value)| format!(" {path}={}", short(value)));
            let name = format!("{word} {object}{}", words.collect::<String>());
            let headers = vec![("Content-Type".to_owned(), media.to_owned())];
            self.add(name, method, &format!("{at}{item}{query}"), headers, body.to_string().into_bytes());
        }
        Ok(())
    }

    /// "METHOD path Header:value ...", with `{object}` for an object's path and `{object@}` for its collection's.
    fn request(&mut self, request: &str, body: &Value) -> Result<(), String> {
        let mut words = request.split_whitespace();
        let (method, path) = words.next().zip(words.next()).ok_or("a method and a path")?;
        let (method, kind) = method.split_once(':').unwrap_or((method, ""));
        let media = match kind {
            "" => "application/json",
            "json" => "application/json-patch+json",
            "merge" => "application/merge-patch+json",
            "strategic" => "application/strategic-merge-patch+json",
            "apply" => "application/apply-patch+yaml",
            other => return Err(format!("no kind of patch is called {other}")),
        };
        let mut headers = Vec::new();
        // A word after # tells cases apart.
        for word in words.filter(|word| !word.starts_with('#')) {
            let (name, value) = word.split_once(':').ok_or("headers are Name:value")?;
            headers.push((name.to_owned(), value.replace('+', " ").replace("%2B", "+")));
        }
        let mut body_bytes = Vec::new();
        if !body.is_null() {
            body_bytes = self.body(body)?;
            if !headers.iter().any(|(name, _)| name == "Content-Type") {
                headers.push(("Content-Type".to_owned(), media.to_owned()));
            }
        }
        let mut path = path.replace("{ns}", &self.namespace);
        for (object, (at, body)) in &self.objects {
            path = path.replace(&format!("{{{object}@}}"), at);
            path = path.replace(&format!("{{{object}}}"), &format!("{at}/{}", name_of(body)));
        }
        let edits = match body {
            Value::Array(list) if is_reference(list) => {
                list[1].as_object().into_iter().flatten().map(|(p, v)| format!(" {p}={}", short(v))).collect()
            }
            _ => String::new(),
        };
        self.add(format!("{request}{edits}"), method, &path, headers, body_bytes);
        Ok(())
    }

    /// `$object`, `[$object, edits]`, any other text as it is, anything else as JSON.
    fn body(&self, body: &Value) -> Result<Vec<u8>, String> {
        let object = |name: &str| {
            let (_, body) = self.objects.get(name.trim_start_matches('$')).ok_or(format!("no object {name}"))?;
            Ok::<_, String>(body.clone())
        };
        Ok(match self.fill(body) {
            Value::String(text) if text.starts_with('$') => object(&text)?.to_string().into_bytes(),
            Value::String(text) => text.into_bytes(),
            Value::Array(list) if is_reference(&list) => {
                edited(&object(list[0].as_str().unwrap_or_default())?, &list[1]).to_string().into_bytes()
            }
            value => value.to_string().into_bytes(),
        })
    }

    fn add(&mut self, name: String, method: &str, path: &str, headers: Vec<(String, String)>, body: Vec<u8>) {
        let count = self.seen.entry(name.clone()).or_default();
        *count += 1;
        let name = if *count > 1 { format!("{name} #{count}") } else { name };
        self.cases.push(Case { name, method: method.to_owned(), path: path.to_owned(), headers, body });
    }

    /// `{ns}` in any text.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => text.replace("{ns}", &self.namespace).into(),
            Value::Array(list) => list.iter().map(|value| self.fill(value)).collect(),
            Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), self.fill(value))).collect(),
            other => other.clone(),
        }
    }
}

fn is_reference(list: &[Value]) -> bool {
    list.len() == 2 && list[0].as_str().is_some_and(|name| name.starts_with('$'))
}

fn name_of(body: &Value) -> &str {
    body["metadata"]["name"].as_str().unwrap_or_default()
}

fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() > 80 { text.chars().take(80).chain("...".chars()).collect() } else { text }
}

/// Each edit is a path, dotted or with slashes (then with JSON pointer's escapes), and what goes there; null takes away.
fn edited(object: &Value, edits: &Value) -> Value {
    let mut object = object.clone();
    for (path, value) in edits.as_object().into_iter().flatten() {
        let words: Vec<String> = match path.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(|w| w.replace("~1", "/").replace("~0", "~")).collect(),
            None => path.split('.').map(str::to_owned).collect(),
        };
        set(&mut object, &words, value);
    }
    object
}

fn set(at: &mut Value, words: &[String], value: &Value) {
    let Some((word, rest)) = words.split_first() else {
        *at = value.clone();
        return;
    };
    if let Value::Array(list) = at {
        let index: usize = word.parse().unwrap_or_else(|_| panic!("{word} is no index"));
        if rest.is_empty() && value.is_null() {
            list.remove(index);
            return;
        }
        if index >= list.len() {
            list.push(Value::Null);
        }
        let last = list.len() - 1;
        return set(&mut list[index.min(last)], rest, value);
    }
    if !at.is_object() {
        *at = if word == "0" { json!([null]) } else { json!({}) };
        return set(at, words, value);
    }
    let map = at.as_object_mut().expect("it was made one");
    if rest.is_empty() && value.is_null() {
        map.remove(word);
    } else {
        set(map.entry(word.as_str()).or_insert(Value::Null), rest, value);
    }
}

/// YAML 1.2's core schema, as much as the corpus uses.
fn yaml(text: &str) -> Result<Value, String> {
    let mut stack: Vec<(Value, Option<String>)> = vec![(json!([]), None)];
    let mut anchors: HashMap<usize, Value> = HashMap::new();
    let mut open = Vec::new();
    for event in Parser::<StrInput<'_>>::new_from_str(text) {
        let (event, span) = event.map_err(|error| error.to_string())?;
        let value = match event {
            Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
            Event::Scalar(text, ..) => Value::String(text.into_owned()),
            Event::SequenceStart(anchor, _) => {
                open.push(anchor);
                stack.push((json!([]), None));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push(anchor);
                stack.push((Value::Object(Map::new()), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let (value, _) = stack.pop().ok_or("unbalanced")?;
                if let Some(anchor) = open.pop().filter(|anchor| *anchor > 0) {
                    anchors.insert(anchor, value.clone());
                }
                value
            }
            Event::Alias(anchor) => anchors.get(&anchor).cloned().ok_or("an alias of nothing")?,
            _ => continue,
        };
        match stack.last_mut() {
            Some((Value::Array(list), _)) => list.push(value),
            Some((Value::Object(map), key)) => match key.take() {
                Some(key) => {
                    if map.insert(key.clone(), value).is_some() {
                        return Err(format!("{key:?} twice, at line {}", span.start.line()));
                    }
                }
                None => *key = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
            },
            _ => return Err("unbalanced".to_owned()),
        }
    }
    stack.pop().and_then(|(documents, _)| documents.get(0).cloned()).ok_or_else(|| "no document".to_owned())
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => match text.parse::<i64>() {
            Ok(number) if !text.starts_with('+') => number.into(),
            _ => match text.parse::<f64>() {
                Ok(number) if text.contains('.') && text.bytes().all(|b| b"0123456789.-".contains(&b)) => number.into(),
                _ => text.into(),
            },
        },
    }
}
