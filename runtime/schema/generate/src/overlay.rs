//! Reads the overlay: facts that no package carries. A line that names an unknown type or field is an error, so that the
//! overlay cannot rot silently when a package moves on.
use crate::model::{Field, Model, split};
use std::{fs, path::Path};

/// A line of `kinds.txt` with its subresources.
#[derive(Debug, Clone, Default)]
pub struct KindFacts {
    pub api_version: String,
    pub kind: String,
    pub singular: String,
    pub short_names: String,
    pub categories: String,
    pub verbs: String,
    /// (name, kind as written, verbs)
    pub subresources: Vec<(String, String, String)>,
}

pub fn read(folder: &Path, model: &mut Model) -> Result<Vec<KindFacts>, String> {
    let mut kinds = Vec::new();
    each(folder, "kinds.txt", |line| read_kind(line, &mut kinds))?;
    each(folder, "presence.txt", |line| read_presence(line, model))?;
    each(folder, "values.txt", |line| read_values(line, model))?;
    each(folder, "fields.txt", |line| read_field(line, model))?;
    Ok(kinds)
}

fn each(folder: &Path, file: &str, mut read: impl FnMut(&str) -> Option<()>) -> Result<(), String> {
    let path = folder.join(file);
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    for (number, line) in text.lines().enumerate() {
        if !line.trim().is_empty() && !line.starts_with('#') {
            read(line).ok_or_else(|| format!("{}:{}: cannot follow {line:?}", path.display(), number + 1))?;
        }
    }
    Ok(())
}

fn read_kind(line: &str, kinds: &mut Vec<KindFacts>) -> Option<()> {
    if let Some(sub) = line.strip_prefix("  ") {
        let mut words = sub.split(' ').map(str::to_owned);
        kinds.last_mut()?.subresources.push((words.next()?, words.next()?, words.next()?));
        return Some(());
    }
    let mut words = line.split(' ').map(str::to_owned);
    let mut facts =
        KindFacts { api_version: words.next()?, kind: words.next()?, singular: words.next()?, ..KindFacts::default() };
    for word in words {
        match word.split_once('=')? {
            ("short", names) => facts.short_names = names.into(),
            ("categories", names) => facts.categories = names.into(),
            ("verbs", names) => facts.verbs = names.into(),
            _ => return None,
        }
    }
    kinds.push(facts);
    Some(())
}

fn read_presence(line: &str, model: &mut Model) -> Option<()> {
    let (definition, rest) = line.split_once(": ")?;
    let found = model.types.get_mut(definition)?;
    let words: Vec<&str> = rest.split(' ').collect();
    for pair in words.chunks(2) {
        let [word, fields] = pair else { return None };
        let presence = match *word {
            "pointer" => "Pointer",
            "omit" => "Omit",
            "always" => "Always",
            "null" => "Null",
            _ => return None,
        };
        for field in fields.split(',') {
            found.fields.get_mut(field)?.presence = Some(presence);
        }
    }
    Some(())
}

/// `Type.field`, in `package` unless the type carries a package of its own.
fn field_mut<'m>(model: &'m mut Model, package: &str, path: &str) -> Option<&'m mut Field> {
    let (owner, field) = path.rsplit_once('.')?;
    let definition = if owner.contains('.') { owner.to_owned() } else { format!("{package}.{owner}") };
    model.types.get_mut(&definition)?.fields.get_mut(field)
}

fn read_values(line: &str, model: &mut Model) -> Option<()> {
    let (head, uses) = line.split_once(": ")?;
    let (definition, values) = match head.split_once(" [") {
        Some((d, v)) => (d, v.strip_suffix(']')?.split('|').map(str::to_owned).collect()),
        None => (head, Vec::new()),
    };
    let (package, name) = split(definition);
    for path in uses.split(' ') {
        let field = field_mut(model, package, path)?;
        field.go_type = format!("{}.{name}", package.rsplit('.').next()?);
        field.values.clone_from(&values);
    }
    Some(())
}

/// `io.k8s.api.core.v1 Container.image word=value ...`
fn read_field(line: &str, model: &mut Model) -> Option<()> {
    let (package, rest) = line.split_once(' ')?;
    let (path, facts) = rest.split_once(' ')?;
    let field = field_mut(model, package, path)?;
    let (word, value) = facts.split_once('=')?;
    match word {
        "default" => {
            serde_json::from_str::<serde_json::Value>(value).ok()?;
            field.default = value.into();
        }
        "number" => field.number = value.parse().ok()?,
        "inline" => field.inline = value.parse().ok()?,
        "listKeys" => {
            field.list_type = Some("Map");
            field.list_keys = value.split(',').map(str::to_owned).collect();
        }
        "mergeKey" => {
            field.patch_merge = true;
            field.merge_key = value.into();
        }
        _ => return None,
    }
    Some(())
}
