//! Reads the generated sources of `k8s-openapi`: one struct a file, in a fixed layout.
use crate::model::{Field, Kind, Model, Scope, Type};
use std::{collections::HashMap, fs, path::Path};

pub fn read(root: &Path) -> Result<Model, String> {
    let mut model = Model::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let path = entry.map_err(|e| e.to_string())?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
                if let Some((name, found)) = read_type(&text).map_err(|e| format!("{}: {e}", path.display()))? {
                    model.types.insert(name, found);
                }
            }
        }
    }
    resolve(&mut model);
    Ok(model)
}

/// A file without a struct of named fields (newtypes, enums, lists of modules) is none of ours.
fn read_type(text: &str) -> Result<Option<(String, Type)>, String> {
    let Some(definition) = text.lines().next().and_then(|l| l.strip_prefix("// Generated from definition ")) else {
        return Ok(None);
    };
    let mut found = Type::default();
    let Some(start) = text.lines().position(|l| l.starts_with("pub struct ") && l.ends_with('{')) else {
        // A struct without fields is a newtype over any JSON there; `read_field` knows the ones that truly hold anything.
        let empty =
            text.lines().any(|l| l.starts_with("pub struct ") && l.ends_with("(pub crate::serde_json::Value);"));
        return Ok(empty.then(|| (definition.into(), found)));
    };
    if text.lines().nth(start).is_some_and(|l| l.contains('<')) {
        return Ok(None);
    }
    let json_names: HashMap<&str, &str> = text
        .lines()
        .filter_map(|l| {
            let (json, key) = l.trim().strip_prefix('"')?.split_once("\" => Field::Key_")?;
            Some((key.strip_suffix(',')?, json))
        })
        .collect();
    for line in text.lines().skip(start + 1).take_while(|l| *l != "}") {
        let Some((rust, ty)) =
            line.strip_prefix("    pub ").and_then(|l| l.strip_suffix(',')).and_then(|l| l.split_once(": "))
        else {
            continue;
        };
        let json = json_names.get(rust.trim_start_matches("r#")).ok_or_else(|| format!("no JSON name for {rust}"))?;
        let mut field = read_field(ty)?;
        field.rust = rust.into();
        // The package makes every kind's metadata plain; upstream requires none of it.
        if *json == "metadata" && field.object.ends_with("::ObjectMeta") {
            field.required = false;
            field.presence = Some("Always");
        }
        found.fields.insert((*json).into(), field);
    }
    merge_strategies(text, &mut found);
    found.kind = read_kind(text);
    if found.kind.is_some() {
        for name in ["apiVersion", "kind"] {
            found.fields.entry(name.into()).or_insert_with(|| scalar("String"));
        }
    }
    Ok(Some((definition.into(), found)))
}

fn scalar(shape: &str) -> Field {
    Field { shape: shape.into(), container: "One", ..Field::default() }
}

fn inside<'a>(ty: &'a str, outer: &str) -> Option<&'a str> {
    ty.strip_prefix(outer)?.strip_prefix('<')?.strip_suffix('>')
}

fn read_field(ty: &str) -> Result<Field, String> {
    let (ty, required) = inside(ty, "Option").map_or((ty, true), |t| (t, false));
    let (ty, container) = if let Some(element) = inside(ty, "std::vec::Vec") {
        (element, "List")
    } else if let Some(value) = inside(ty, "std::collections::BTreeMap") {
        let value = value.strip_prefix("std::string::String, ").ok_or_else(|| format!("a map by {value}"))?;
        match inside(value, "std::vec::Vec") {
            Some(element) => (element, "MapOfLists"),
            None => (value, "Map"),
        }
    } else {
        (ty, "One")
    };
    let ty = inside(ty, "std::boxed::Box").unwrap_or(ty);
    let shape = match ty {
        "bool" => "Bool",
        "i32" => "Int32",
        "i64" => "Int64",
        "f64" => "Double",
        "std::string::String" => "String",
        "crate::ByteString" => "Bytes",
        _ => match ty.rsplit("::").next().unwrap_or(ty) {
            "Time" => "Time",
            "MicroTime" => "MicroTime",
            "Duration" => "Duration",
            "Quantity" => "Quantity",
            "IntOrString" => "IntOrString",
            "RawExtension"
            | "FieldsV1"
            | "JSON"
            | "Value"
            | "JSONSchemaPropsOrBool"
            | "JSONSchemaPropsOrArray"
            | "JSONSchemaPropsOrStringArray" => "Any",
            _ => "Object",
        },
    };
    // A path for now; `resolve` turns it into a definition name.
    let object = if shape == "Object" { ty.into() } else { String::new() };
    Ok(Field { shape: shape.into(), object, container, required, ..Field::default() })
}

/// Turns paths into definition names. A path that leads nowhere stays; it matters only if a served kind reaches it.
fn resolve(model: &mut Model) {
    let by_path: HashMap<String, String> = model.types.keys().map(|d| (rust_path(d), d.clone())).collect();
    for field in model.types.values_mut().flat_map(|t| t.fields.values_mut()).filter(|f| !f.object.is_empty()) {
        if let Some(definition) = by_path.get(&field.object) {
            field.object.clone_from(definition);
        }
    }
}

/// "io.k8s.kube-aggregator.pkg.apis.x.v1.T" lies at "crate::kube_aggregator::pkg::apis::x::v1::T".
fn rust_path(definition: &str) -> String {
    definition.trim_start_matches("io.k8s.").replace('-', "_").split('.').fold("crate".to_owned(), |p, s| p + "::" + s)
}

/// The merge implementations name list types, keys and atomic maps.
fn merge_strategies(text: &str, found: &mut Type) {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        let Some(call) = line.strip_prefix("crate::merge_strategies::") else { continue };
        let argument = if call.contains("&mut self.") { call } else { lines.get(at + 1).copied().unwrap_or_default() };
        let Some(rust) = argument.split("&mut self.").nth(1).and_then(|r| r.split([',', ')']).next()) else { continue };
        let Some(field) = found.fields.values_mut().find(|f| f.rust == rust) else { continue };
        if call.starts_with("list::atomic") {
            field.list_type = Some("Atomic");
        } else if call.starts_with("list::set") {
            field.list_type = Some("Set");
        } else if call.starts_with("map::atomic") {
            field.atomic = true;
        } else if call.starts_with("list::map") {
            field.list_type = Some("Map");
            let keys = lines.iter().skip(at).find(|l| l.starts_with("&[")).copied().unwrap_or_default();
            field.list_keys = keys
                .split("lhs.")
                .skip(1)
                .filter_map(|k| k.split([' ', ')']).next())
                .map(|k| k.trim_start_matches("r#").into())
                .collect();
        }
    }
    // Keys were Rust names of the element type so far; JSON differs in case only.
    for field in found.fields.values_mut() {
        for key in &mut field.list_keys {
            *key = camel(key);
        }
    }
}

fn camel(snake: &str) -> String {
    let mut out = String::new();
    for (at, part) in snake.trim_end_matches('_').split('_').enumerate() {
        let mut letters = part.chars();
        match letters.next() {
            Some(first) if at > 0 => out.extend(first.to_uppercase().chain(letters)),
            Some(first) => out.extend(std::iter::once(first).chain(letters)),
            None => {}
        }
    }
    out
}

fn read_kind(text: &str) -> Option<Kind> {
    let constant = |name: &str| {
        let marker = format!("    const {name}: &'static str = \"");
        Some(text.lines().find_map(|l| l.strip_prefix(marker.as_str()))?.strip_suffix("\";")?.to_owned())
    };
    let scope = text.lines().find_map(|l| l.strip_prefix("    type Scope = crate::"))?;
    Some(Kind {
        group: constant("GROUP")?,
        version: constant("VERSION")?,
        kind: constant("KIND")?,
        list_kind: constant("LIST_KIND").unwrap_or_default(),
        segment: constant("URL_PATH_SEGMENT")?,
        scope: match scope {
            "ClusterResourceScope;" => Scope::Cluster,
            "NamespaceResourceScope;" => Scope::Namespace,
            _ => Scope::Sub,
        },
    })
}
