//! Reads `k8s-pb`: protobuf field numbers from the prost attributes, and the markers in doc comments that name list types, merge
//! keys and defaults. The package follows another Kubernetes version than the table, so what it lacks is left as it is.
use crate::model::{Field, Model, bare, split};
use std::{collections::HashMap, fs, path::Path};

#[derive(Default)]
struct Message {
    fields: Vec<Member>,
}

#[derive(Default, Clone)]
struct Member {
    name: String,
    number: u32,
    /// Name of the message type, without its path.
    message: String,
    markers: Vec<String>,
}

pub fn read(root: &Path, model: &mut Model) -> Result<(), String> {
    let mut packages: HashMap<String, HashMap<String, Message>> = HashMap::new();
    for (definition, found) in &mut model.types {
        let (package, name) = split(definition);
        if !packages.contains_key(package) {
            let path =
                root.join(package.trim_start_matches("io.k8s.").replace('-', "_").replace('.', "/")).join("mod.rs");
            packages.insert(package.into(), fs::read_to_string(path).map(|t| read_messages(&t)).unwrap_or_default());
        }
        let Some(messages) = packages.get(package) else { continue };
        let Some(message) = messages.get(&bare(name)) else { continue };
        let names: Vec<String> = found.fields.keys().map(|json| bare(json)).collect();
        for (json, field) in &mut found.fields {
            if let Some((member, inline)) = find(messages, message, &bare(json), &names) {
                field.number = member.number;
                field.inline = inline;
                apply(field, &member.markers);
            }
        }
    }
    Ok(())
}

/// The member of that name, or one of a message that Go embeds and JSON therefore inlines; `names` are the fields in JSON.
fn find<'a>(
    messages: &'a HashMap<String, Message>,
    message: &'a Message,
    json: &str,
    names: &[String],
) -> Option<(&'a Member, u32)> {
    if let Some(member) = message.fields.iter().find(|m| bare(&m.name) == json) {
        return Some((member, 0));
    }
    // An embedded message is a member named after its own type, and no field in JSON.
    let is_embedded = |m: &&Member| bare(&m.name) == bare(&m.message) && !names.contains(&bare(&m.name));
    let embedded = message.fields.iter().filter(|m| is_embedded(m) || m.name == "handler");
    embedded
        .filter_map(|m| Some((messages.get(&bare(&m.message))?, m.number)))
        .find_map(|(inner, number)| inner.fields.iter().find(|m| bare(&m.name) == json).map(|member| (member, number)))
}

/// By bare name: prost writes NfsVolumeSource for NFSVolumeSource.
fn read_messages(text: &str) -> HashMap<String, Message> {
    let mut messages = HashMap::new();
    let mut current: Option<(String, Message)> = None;
    let mut member = Member::default();
    let mut lines = text.lines().peekable();
    while let Some(raw) = lines.next() {
        let line = raw.trim();
        if let Some(name) = raw.strip_prefix("pub struct ").and_then(|l| l.split([' ', '{']).next()) {
            current = Some((name.into(), Message::default()));
            member = Member::default();
            if raw.ends_with("{}") {
                messages.extend(current.take().map(|(name, m)| (bare(&name), m)));
            }
        } else if raw == "}" {
            messages.extend(current.take().map(|(name, m)| (bare(&name), m)));
        } else if let Some(doc) = line.strip_prefix("///") {
            let doc = doc.trim();
            if doc.starts_with('+') {
                member.markers.push(doc.into());
            }
        } else if let Some(attribute) = line.strip_prefix("#[prost(") {
            let tag = attribute.split("tag = \"").nth(1).and_then(|t| t.split('"').next());
            member.number = tag.and_then(|t| t.parse().ok()).unwrap_or(0);
        } else if let Some((name, ty)) = line.strip_prefix("pub ").and_then(|l| l.split_once(':'))
            && let Some((_, message)) = &mut current
        {
            let mut ty = ty.trim().to_owned();
            while !ty.ends_with(',') {
                match lines.next() {
                    Some(more) => ty.push_str(more.trim()),
                    None => break,
                }
            }
            member.name = name.trim().into();
            let last = ty.trim_end_matches([',', '>']).rsplit([':', '<', ' ']).next();
            member.message = last.unwrap_or_default().into();
            message.fields.push(std::mem::take(&mut member));
        }
    }
    messages
}

fn apply(field: &mut Field, markers: &[String]) {
    let mut keys = Vec::new();
    for marker in markers {
        let (word, value) = marker.split_once('=').unwrap_or((marker, ""));
        match (word, value) {
            ("+listType", "atomic") => field.list_type = Some("Atomic"),
            ("+listType", "set") => field.list_type = Some("Set"),
            ("+listType", "map") => field.list_type = Some("Map"),
            ("+listMapKey", key) => keys.push(key.to_owned()),
            ("+patchMergeKey", key) => field.merge_key = key.into(),
            ("+patchStrategy", strategies) => {
                field.patch_merge = strategies.split(',').any(|s| s == "merge");
                field.patch_retain_keys = strategies.split(',').any(|s| s == "retainKeys");
                field.patch_replace = strategies == "replace";
            }
            ("+structType" | "+mapType", "atomic") => field.atomic = true,
            // `ref(Name)` points at a Go constant; the overlay says those.
            ("+default", json) if serde_json::from_str::<serde_json::Value>(json).is_ok() => {
                field.default = json.into()
            }
            _ => {}
        }
    }
    if !keys.is_empty() || field.list_type != Some("Map") {
        field.list_keys = keys;
    }
}
