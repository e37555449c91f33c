//! Turns the profiles into the table that the node carries; a mistake in one of them ends the build, named by file, line and key.
#[path = "src/parse.rs"]
mod parse;

use parse::{Fields, Mistake, SCHEMA, Value};
use std::{env, fmt::Write, fs, path::Path, process::ExitCode};

/// Those that are of use to a running node.
const SECTIONS: [(&str, &str); 4] =
    [("detect", "Detect"), ("budget", "Budget"), ("limits", "Limits"), ("boot", "Boot")];

fn main() -> ExitCode {
    for changed in ["build.rs", "src/parse.rs", "parts", "."] {
        println!("cargo:rerun-if-changed={changed}");
    }
    let read = |name: &str| fs::read_to_string(name).ok();
    let mut mistakes: Vec<Mistake> = Vec::new();
    let mut table = String::from("&[\n");
    for name in names() {
        match parse::profile(&name, &read) {
            Ok(fields) => table.push_str(&literal(&name, &fields)),
            // A part's mistakes are those of every board that has it.
            Err(found) => mistakes.extend(found),
        }
    }
    table.push(']');
    mistakes.sort_by(|a, b| (&a.file, a.line, &a.what).cmp(&(&b.file, b.line, &b.what)));
    mistakes.dedup();
    for mistake in &mistakes {
        eprintln!("boards/{mistake}");
    }
    let out = env::var("OUT_DIR").unwrap_or_default();
    match fs::write(Path::new(&out).join("profiles.rs"), table) {
        Ok(()) if mistakes.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{out}/profiles.rs: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Of all profiles, sorted.
fn names() -> Vec<String> {
    let files = fs::read_dir(".").into_iter().flatten().flatten();
    let names = files.filter_map(|file| file.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned));
    let mut names: Vec<String> = names.filter(|name| name != "Cargo").collect();
    names.sort();
    names
}

fn literal(name: &str, fields: &Fields) -> String {
    let mut text = format!("Profile {{ name: {name:?}, description: {}", value(&fields["description"]));
    for (section, record) in SECTIONS {
        let _ = write!(text, ", {section}: {record} {{ ");
        for key in SCHEMA {
            if let Some(field) = key.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')) {
                let _ = write!(text, "{field}: {}, ", value(&fields[key.path]));
            }
        }
        text.push('}');
    }
    text + " },\n"
}

fn value(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Number(number) => number.to_string(),
        Value::List(items) => format!("&{items:?}"),
    }
}
