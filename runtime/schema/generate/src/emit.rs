//! Writes what `mote-schema` compiles in: the dictionary of field names (appended to, never reordered), the table as Rust statics
//! of indices, and the list of kinds as text.
use crate::{
    model::{Field, Kind, Model, Scope, split},
    overlay::KindFacts,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fmt::Write,
};

pub struct Output {
    pub names: String,
    pub table: String,
    pub kinds: String,
}

/// Not served as resources of their own, yet read or written as whole objects.
const PARTS: [&str; 6] = [
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
];

pub fn write(model: &Model, facts: &[KindFacts], names: &str) -> Result<Output, String> {
    let served = served(model, facts)?;
    let reached = reach(model, served.iter().map(|(_, d, _)| d.as_str()).chain(PARTS));
    let ids: HashMap<&str, usize> = reached.iter().enumerate().map(|(id, d)| (*d, id)).collect();
    let (names, dictionary) = append_names(model, &reached, names);
    Ok(Output { table: table(model, &reached, &ids, &dictionary)?, kinds: kinds(model, &served, &ids)?, names })
}

/// Every line of the overlay's list with its definition.
fn served<'a>(model: &'a Model, facts: &'a [KindFacts]) -> Result<Vec<(&'a Kind, String, &'a KindFacts)>, String> {
    facts
        .iter()
        .map(|f| {
            let (group, version) = f.api_version.split_once('/').unwrap_or(("", &f.api_version));
            let matches = |k: &Kind| k.group == group && k.version == version && k.kind == f.kind;
            let found =
                model.types.iter().find_map(|(d, t)| Some((t.kind.as_ref().filter(|k| matches(k))?, d.clone(), f)));
            found.ok_or_else(|| format!("no type for {} {}", f.api_version, f.kind))
        })
        .collect()
}

/// All definitions that the roots lead to, sorted.
fn reach<'m>(model: &'m Model, roots: impl Iterator<Item = &'m str>) -> Vec<&'m str> {
    let mut queue: VecDeque<&str> = roots.collect();
    let mut seen = BTreeSet::new();
    while let Some(definition) = queue.pop_front() {
        let Some((definition, found)) = model.types.get_key_value(definition) else { continue };
        if seen.insert(definition.as_str()) {
            queue.extend(found.fields.values().filter(|f| f.shape == "Object").map(|f| f.object.as_str()));
        }
    }
    seen.into_iter().collect()
}

/// Lines that exist keep their place; what is missing follows, most used first.
fn append_names(model: &Model, reached: &[&str], old: &str) -> (String, HashMap<String, usize>) {
    let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
    let known: BTreeSet<&str> = old.lines().collect();
    let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
    for name in reached.iter().flat_map(|d| model.types[*d].fields.keys()).filter(|n| !known.contains(n.as_str())) {
        *uses.entry(name).or_default() += 1;
    }
    let mut fresh: Vec<(&str, usize)> = uses.into_iter().collect();
    fresh.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    lines.extend(fresh.into_iter().map(|(n, _)| n.to_owned()));
    let dictionary = lines.iter().enumerate().map(|(id, n)| (n.clone(), id)).collect();
    (lines.join("\n") + "\n", dictionary)
}

/// Strings by number, each held once; number 0 is the empty one.
#[derive(Default)]
struct Texts {
    numbers: HashMap<String, usize>,
    list: Vec<String>,
}

impl Texts {
    fn number(&mut self, text: &str) -> usize {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        self.numbers.insert(text.into(), self.list.len());
        self.list.push(text.into());
        self.list.len() - 1
    }
}

fn table(
    model: &Model,
    reached: &[&str],
    ids: &HashMap<&str, usize>,
    dictionary: &HashMap<String, usize>,
) -> Result<String, String> {
    let mut texts = Texts::default();
    texts.number("");
    let mut extras: Vec<[usize; 5]> = vec![[0; 5]];
    let (mut types, mut fields) = (String::new(), String::new());
    let mut count = 0;
    for definition in reached {
        let found = &model.types[*definition];
        let (package, name) = split(definition);
        let row = (texts.number(package), texts.number(name), count, found.fields.len());
        let _ = writeln!(types, "    t({}, {}, {}, {}),", row.0, row.1, row.2, row.3);
        let _ = writeln!(fields, "    // {definition}");
        for (json, field) in &found.fields {
            let extra = [
                texts.number(&field.list_keys.join(",")),
                texts.number(&field.merge_key),
                texts.number(&field.default),
                texts.number(&field.values.join(",")),
                texts.number(&field.go_type),
            ];
            let extra = extras.iter().position(|e| *e == extra).unwrap_or_else(|| {
                extras.push(extra);
                extras.len() - 1
            });
            let shape = match field.shape.as_str() {
                "Object" => {
                    let id = ids.get(field.object.as_str());
                    format!("Object({})", id.ok_or_else(|| format!("{definition}.{json}: no type {}", field.object))?)
                }
                plain => plain.into(),
            };
            let _ = writeln!(
                fields,
                "    f({}, {shape}, {}, {}, {}, {}, {}, {extra}),",
                dictionary[json],
                field.container,
                field.list_type.map_or("None".into(), |t| format!("Some({t})")),
                flags(field),
                field.number,
                field.inline,
            );
            count += 1;
        }
    }
    if count > usize::from(u16::MAX) || texts.list.len() > usize::from(u16::MAX) {
        return Err("the table outgrew its 16-bit indices".into());
    }
    let mut out = String::from(
        "// Written by mote-schema-generate from registry packages and its overlay; do not edit.\n\
         use super::{e, f, t};\n\
         use crate::table::{Container::*, Extra, Field, ListType::{Atomic, Map as Keyed, Set}, Shape::*, Type};\n\n",
    );
    let out_fields = fields.replace("Some(Map)", "Some(Keyed)");
    let _ = writeln!(out, "pub(super) static TYPES: [Type; {}] = [\n{types}];\n", reached.len());
    let _ = writeln!(out, "pub(super) static FIELDS: [Field; {count}] = [\n{out_fields}];\n");
    let _ = writeln!(out, "pub(super) static EXTRAS: [Extra; {}] = [", extras.len());
    for [keys, merge, default, values, go] in &extras {
        let _ = writeln!(out, "    e({keys}, {merge}, {default}, {values}, {go}),");
    }
    let ends = texts.list.iter().scan(0, |end, t| {
        *end += t.len();
        Some(*end)
    });
    let ends: Vec<String> = ends.map(|e| e.to_string()).collect();
    let _ = writeln!(out, "];\n\npub(super) static TEXT_ENDS: [u16; {}] = [", ends.len());
    for line in ends.chunks(20) {
        let _ = writeln!(out, "    {},", line.join(", "));
    }
    let _ = writeln!(out, "];\n\npub(super) static TEXTS: &str = concat!(");
    for text in texts.list.iter().filter(|t| !t.is_empty()) {
        let _ = writeln!(out, "    {text:?},");
    }
    out.push_str(");\n");
    Ok(out)
}

/// The bits `builtin::f` takes apart.
fn flags(field: &Field) -> u8 {
    let plain = field.container == "One";
    let presence = field.presence.unwrap_or(match (plain, field.shape.as_str(), field.required) {
        (true, "Time" | "MicroTime", _) => "Omit",
        (true, "Any", _) => "Pointer",
        (true, "Object" | "Quantity" | "IntOrString" | "Duration", false) => "Pointer",
        (_, _, true) => "Always",
        (_, _, false) => "Omit",
    });
    let presence = match presence {
        "Omit" => 0,
        "Pointer" => 1,
        "Null" => 3,
        _ => 2,
    };
    u8::from(field.required)
        | u8::from(field.patch_merge) << 1
        | u8::from(field.patch_retain_keys) << 2
        | u8::from(field.atomic) << 3
        | presence << 4
        | u8::from(field.patch_replace) << 6
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// One line a kind, words separated by blanks, "-" for nothing; subresources follow indented.
fn kinds(model: &Model, served: &[(&Kind, String, &KindFacts)], ids: &HashMap<&str, usize>) -> Result<String, String> {
    let mut out = String::new();
    for (kind, definition, facts) in served {
        let _ = writeln!(
            out,
            "{} {} {} {} {} {} {} {} {} {} {}",
            or_dash(&kind.group),
            kind.version,
            kind.kind,
            kind.segment,
            facts.singular,
            or_dash(&kind.list_kind),
            if kind.scope == Scope::Namespace { "Namespaced" } else { "Cluster" },
            ids[definition.as_str()],
            or_dash(&facts.short_names),
            or_dash(&facts.categories),
            or_dash(&facts.verbs),
        );
        for (name, sub_kind, verbs) in &facts.subresources {
            let mut words = sub_kind.rsplitn(3, '/');
            let (sub, version, group) = (words.next(), words.next(), words.next());
            let (group, version) = match version {
                Some(version) => (group.unwrap_or(""), version),
                None => (kind.group.as_str(), kind.version.as_str()),
            };
            let _ = writeln!(out, " {name} {} {version} {} {verbs}", or_dash(group), sub.unwrap_or_default());
        }
    }
    for definition in PARTS {
        let found = model.types.get(definition).ok_or_else(|| format!("no type {definition}"))?;
        let (group, version, name) = match &found.kind {
            Some(kind) => (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str()),
            None => ("", "v1", split(definition).1),
        };
        let _ = writeln!(out, "+ {} {version} {name} {}", or_dash(group), ids[definition]);
    }
    Ok(out)
}
