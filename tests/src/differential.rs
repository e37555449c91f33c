//! Asking a server what the corpus asks, and telling two answers apart. What changes from run to run (uids, revisions, times,
//! allocated addresses, tokens) is masked in both; what one cluster is called and where it listens too.
use crate::{
    corpus::{self, Case, Group},
    http::{Client, Connection, Response},
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, io};

/// What matters of an answer, as it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// "Name: value", sorted; those of `HEADERS`.
    pub headers: Vec<String>,
    pub body: Value,
}

const HEADERS: [&str; 5] = ["allow", "content-type", "location", "retry-after", "warning"];

impl Answer {
    pub fn to_json(&self, case: &str) -> Value {
        json!({"case": case, "status": self.status, "headers": self.headers, "body": self.body})
    }

    pub fn from_json(line: &Value) -> Answer {
        let headers = line["headers"].as_array().into_iter().flatten();
        Answer {
            status: line["status"].as_u64().unwrap_or(0) as u16,
            headers: headers.filter_map(|header| Some(header.as_str()?.to_owned())).collect(),
            body: line["body"].clone(),
        }
    }
}

/// Sends a group's requests in order, in a namespace of its own.
pub fn ask(client: &Client, group: &Group) -> io::Result<Vec<Answer>> {
    let mut connection = Connection::open(client)?;
    let json = [("Content-Type", "application/json")];
    let namespace = json!({"metadata": {"name": group.namespace}}).to_string();
    connection.send("POST", "/api/v1/namespaces", &json, namespace.as_bytes())?;
    // What a controller would make: without it pods are refused.
    let account = json!({"metadata": {"name": "default"}}).to_string();
    let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", group.namespace);
    connection.send("POST", &accounts, &json, account.as_bytes())?;
    let mut answers = Vec::with_capacity(group.cases.len());
    for case in &group.cases {
        answers.push(one(&mut connection, client, case, group.managed_fields)?);
    }
    Ok(answers)
}

fn one(connection: &mut Connection, client: &Client, case: &Case, managed_fields: bool) -> io::Result<Answer> {
    let headers: Vec<(&str, &str)> = case.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let response = match connection.send(&case.method, &case.path, &headers, &case.body) {
        Ok(response) => response,
        // Closed between two requests, or after one it did not like.
        Err(_) => {
            *connection = Connection::open(client)?;
            connection.send(&case.method, &case.path, &headers, &case.body)?
        }
    };
    if response.headers.to_ascii_lowercase().contains("connection: close") {
        *connection = Connection::open(client)?;
    }
    Ok(answer(&response, managed_fields))
}

fn answer(response: &Response, managed_fields: bool) -> Answer {
    let mut headers = Vec::new();
    for line in response.headers.lines().skip(1) {
        let Some((name, value)) = line.split_once(": ") else { continue };
        let name = name.to_ascii_lowercase();
        if HEADERS.contains(&&*name) {
            headers.push(format!("{name}: {}", masked_text(value)));
        }
    }
    headers.sort();
    let text = String::from_utf8(response.body.clone());
    let mut body = match &text {
        Err(_) => Value::from("<binary>"),
        Ok(text) => match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) => frames(text).unwrap_or_else(|| Value::from(masked_text(text))),
        },
    };
    mask(&mut body, managed_fields);
    Answer { status: response.code, headers, body }
}

/// A watch's events, one a line.
fn frames(text: &str) -> Option<Value> {
    let frames: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    frames.ok().filter(|list| list.len() > 1).map(Value::Array)
}

/// Whether an address was allocated: from the Service network that Mote has unless told otherwise, or from the ServiceCIDRs
/// that cases add.
fn is_allocated(address: &str) -> bool {
    ["10.43.", "10.55.0.", "10.66.0."].iter().any(|network| address.starts_with(network))
}

fn mask(value: &mut Value, managed_fields: bool) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| mask(value, managed_fields)),
        Value::String(text) => *text = masked_text(text),
        Value::Object(map) => {
            if !managed_fields {
                map.remove("managedFields");
            }
            // In the order of their times, which are whole seconds: whether two fall into one is chance.
            if let Some(Value::Array(owners)) = map.get_mut("managedFields") {
                owners
                    .sort_by_key(|owner| ["operation", "manager", "subresource"].map(|field| owner[field].to_string()));
            }
            if let Some(prefix) = map.get("generateName").and_then(Value::as_str).map(str::to_owned)
                && map.get("name").and_then(Value::as_str).is_some_and(|name| name.starts_with(&prefix))
            {
                map.insert("name".into(), format!("{prefix}<suffix>").into());
            }
            mask_table(map);
            for (key, value) in map {
                match (key.as_str(), &*value) {
                    ("resourceVersion", Value::String(text)) if text.parse::<u64>().is_ok_and(|n| n > 1) => {
                        *value = "<revision>".into();
                    }
                    ("continue", Value::String(text)) if !text.is_empty() => *value = "<token>".into(),
                    // What follows is a difference of two inner Go structures.
                    ("message", Value::String(text)) if text.contains('\n') => {
                        *value = masked_text(text.split('\n').next().unwrap_or_default()).into();
                    }
                    ("token", Value::String(text)) if text.len() > 100 => *value = "<token>".into(),
                    ("serverAddress", _) => *value = "<address>".into(),
                    ("jwks_uri", Value::String(uri)) if uri.ends_with("/openid/v1/jwks") => *value = "<address>".into(),
                    ("nodePort" | "healthCheckNodePort", Value::Number(_)) => *value = "<port>".into(),
                    ("clusterIP", Value::String(ip)) if is_allocated(ip) => *value = "<ip>".into(),
                    ("clusterIPs", Value::Array(list))
                        if list.iter().any(|ip| ip.as_str().is_some_and(is_allocated)) =>
                    {
                        *value = json!(["<ip>"]);
                    }
                    _ => mask(value, managed_fields),
                }
            }
        }
        _ => {}
    }
}

/// Descriptions are prose, not behaviour; ages, addresses and node ports change.
fn mask_table(map: &mut Map<String, Value>) {
    let Some(Value::Array(columns)) = map.get_mut("columnDefinitions") else { return };
    let names: Vec<String> = columns.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect();
    for column in columns.iter_mut().filter_map(Value::as_object_mut) {
        column.remove("description");
    }
    for row in map.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        // Some have more cells than columns.
        let names = names.iter().map(String::as_str).chain(std::iter::repeat(""));
        for (cell, name) in row["cells"].as_array_mut().into_iter().flatten().zip(names) {
            let Some(text) = cell.as_str() else { continue };
            if is_age(text) {
                *cell = "<age>".into();
            } else if name == "Port(s)" {
                *cell = masked_ports(text).into();
            } else if name == "Cluster-IP" && is_allocated(text) {
                *cell = "<ip>".into();
            }
        }
    }
}

/// Of what was just made, "7s", or of what says that it is of 2020, "6y328d". Others are durations that somebody asked for.
fn is_age(text: &str) -> bool {
    let years = text.split_once('y').is_some_and(|(years, _)| years.parse::<u8>().is_ok());
    let seconds = text.ends_with('s') && text.len() < 5 && text.starts_with(|c: char| c.is_ascii_digit());
    seconds || years && text.len() < 8
}

/// "80:31234/TCP" to "80:<port>/TCP"
fn masked_ports(text: &str) -> String {
    let port = |port: &str| match port.split_once(':') {
        Some((port, rest)) => format!("{port}:<port>/{}", rest.split('/').nth(1).unwrap_or_default()),
        None => port.to_owned(),
    };
    text.split(',').map(port).collect::<Vec<_>>().join(",")
}

/// Uuids, times of these years, the names that admission makes up.
fn masked_text(text: &str) -> String {
    // The administrator's own name.
    if matches!(text, "kubernetes-admin" | "system:admin") {
        return "<admin>".to_owned();
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let at_word = !out.ends_with(|c: char| c.is_ascii_alphanumeric());
        if at_word && let Some(bytes) = uuid(rest) {
            out.push_str("<uuid>");
            rest = &rest[bytes..];
        } else if at_word && let Some(bytes) = time(rest) {
            out.push_str("<time>");
            rest = &rest[bytes..];
        } else if (out.ends_with("value: ") || out.ends_with("ound: "))
            && let Some(bytes) = go_value(rest)
        {
            out.push_str("<value>");
            rest = &rest[bytes..];
        } else if first.is_ascii_alphanumeric()
            && ["current: ", "serverAddress: ", "resourceVersion: \"", "in record ("]
                .iter()
                .any(|name| out.ends_with(name))
        {
            out.push_str("<its>");
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':'));
        } else if at_word && is_allocated(rest) && out.ends_with("Invalid value: \"") {
            out.push_str("<ip>");
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        } else if out.ends_with("nvalid value: ")
            && rest.starts_with("\"{\\\"")
            && let Some(end) = rest.find("}\": ")
        {
            // A whole object as JSON, in the order of its Go structure.
            out.push_str("<object>");
            rest = &rest[end + 2..];
        } else if let Some(tail) = rest.strip_prefix("X509SHA256=").filter(|tail| !tail.starts_with('<')) {
            // The administrator's own certificate.
            out.push_str("X509SHA256=<hash>");
            rest = tail.trim_start_matches(|c: char| c.is_ascii_hexdigit());
        } else if let Some(tail) = rest.strip_prefix("kube-api-access-").filter(|tail| suffix(tail)) {
            out.push_str("kube-api-access-<suffix>");
            rest = &tail[5..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn suffix(text: &str) -> bool {
    text.len() >= 5 && text.bytes().take(5).all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// How many bytes a structure has that stands in front: kube-apiserver prints its own inner types there, not the API's.
fn go_value(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (place, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (place > 0 && !quoted && matches!(b, b'}' | b']')).then_some(place + 1);
        }
    }
    None
}

/// How many bytes of a UUID stand in front.
fn uuid(text: &str) -> Option<usize> {
    let bytes = text.as_bytes().get(..36)?;
    let fits =
        |(place, b): (usize, &u8)| if [8, 13, 18, 23].contains(&place) { *b == b'-' } else { b.is_ascii_hexdigit() };
    // One that a case made up stays: it has no version.
    (bytes.iter().enumerate().all(fits) && bytes[14] == b'4').then_some(36)
}

/// How many bytes of a time of this run, which no case names: 2025 and later.
fn time(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let head = bytes.get(..19)?;
    let digits = |range: std::ops::Range<usize>| head[range].iter().all(u8::is_ascii_digit);
    let fits =
        digits(0..4) && head[4] == b'-' && digits(5..7) && head[7] == b'-' && head[10] == b'T' && head[13] == b':';
    let year: u32 = std::str::from_utf8(&head[..4]).ok()?.parse().ok()?;
    if !fits || !(2025..2090).contains(&year) {
        return None;
    }
    let tail = bytes[19..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
    (bytes.get(19 + tail) == Some(&b'Z')).then_some(20 + tail)
}

/// What is different, one line each: "status: 201, not 422", "body.spec.x: absent, not 3".
pub fn differences(wanted: &Answer, got: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if wanted.status != got.status {
        found.push(format!("status: {}, not {}", got.status, wanted.status));
    }
    if wanted.headers != got.headers {
        found.push(format!("headers: {:?}, not {:?}", got.headers, wanted.headers));
    }
    compare("body", Some(&wanted.body), Some(&got.body), &mut found);
    // A Status says the same twice.
    if found.iter().any(|line| line.starts_with("body.details.causes")) {
        found.retain(|line| !line.starts_with("body.message"));
    }
    found
}

fn compare(path: &str, wanted: Option<&Value>, got: Option<&Value>, found: &mut Vec<String>) {
    match (wanted, got) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let extra = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(extra) {
                compare(&format!("{path}.{key}"), a.get(key), b.get(key), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for place in 0..a.len().max(b.len()) {
                compare(&format!("{path}[{place}]"), a.get(place), b.get(place), found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => {
            let shown = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
            found.push(format!("{path}: {}, not {}", shown(b), shown(a)));
        }
    }
}

/// The recorded answers of a group, by case.
pub fn recorded(group: &str) -> BTreeMap<String, Answer> {
    let file = corpus::directory().join(format!("answers/{group}.jsonl"));
    let text = fs::read_to_string(&file).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
    let masked = lines.map(|mut line| {
        // What is masked now may not have been when this was recorded.
        mask(&mut line["body"], true);
        line
    });
    masked.map(|line| (line["case"].as_str().unwrap_or_default().to_owned(), Answer::from_json(&line))).collect()
}
