//! A bill of materials, CycloneDX 1.6 in JSON (ECMA-424), of a binary: `cargo metadata` for its target says what it is made of,
//! Cargo.lock gives the checksums, and what is in it besides is named on the command line. No time and no serial number in it:
//! the same sources make the same file.
//!
//! `mote-boards sbom METADATA LOCK SHA256 [NAME=VERSION...]`
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::ExitCode,
};

const ROOT: &str = "mote";

pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let [metadata, lock, sha256, others @ ..] = arguments.as_slice() else {
        eprintln!("usage: mote-boards sbom METADATA LOCK SHA256 [NAME=VERSION...]");
        return ExitCode::from(2);
    };
    let read = |name: &String| fs::read_to_string(name).map_err(|error| format!("{name}: {error}"));
    let made = read(metadata)
        .and_then(|text| serde_json::from_str(&text).map_err(|error| format!("{metadata}: {error}")))
        .and_then(|metadata| bill(&metadata, &checksums(&read(lock)?), sha256, others));
    match made {
        Ok(bill) => {
            println!("{bill:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mote-boards: {error}");
            ExitCode::FAILURE
        }
    }
}

/// "name version" to the SHA-256 of what the registry gave.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let field = |name: &str| {
            let of = |line: &str| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned);
            package.lines().find_map(of)
        };
        if let (Some(name), Some(version), Some(checksum)) = (field("name"), field("version"), field("checksum")) {
            found.insert(format!("{name} {version}"), checksum);
        }
    }
    found
}

fn bill(
    metadata: &Value,
    checksums: &BTreeMap<String, String>,
    sha256: &str,
    others: &[String],
) -> Result<Value, String> {
    let packages = metadata["packages"].as_array().ok_or("metadata without packages")?;
    let packages: BTreeMap<&str, &Value> = packages.iter().map(|package| (text(&package["id"]), package)).collect();
    let root = packages.values().find(|package| package["name"] == ROOT).ok_or("metadata without the binary")?;
    let linked = linked(metadata, text(&root["id"]));
    let mut components: Vec<Value> = Vec::new();
    let mut dependencies: Vec<Value> = Vec::new();
    for (id, on) in &linked {
        let Some(package) = packages.get(id) else { continue };
        if text(&package["name"]) != ROOT {
            components.push(component(package, checksums));
        }
        let on: Vec<String> = on.iter().filter_map(|id| packages.get(id)).map(|package| reference(package)).collect();
        dependencies.push(json!({"ref": reference(package), "dependsOn": on}));
    }
    for other in others {
        let (name, version) = other.split_once('=').ok_or_else(|| format!("{other}: expected NAME=VERSION"))?;
        components.push(json!({"type": "library", "bom-ref": other, "name": name, "version": version}));
    }
    components.sort_by(|a, b| text(&a["bom-ref"]).cmp(text(&b["bom-ref"])));
    let mut whole = component(root, checksums);
    whole["type"] = "application".into();
    whole["hashes"] = json!([{"alg": "SHA-256", "content": sha256}]);
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": whole},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// What the root's code is linked with, and what each of those is: neither build scripts nor macros, which run elsewhere.
fn linked<'m>(metadata: &'m Value, root: &'m str) -> BTreeMap<&'m str, BTreeSet<&'m str>> {
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let nodes: BTreeMap<&str, &Value> = nodes.map(|node| (text(&node["id"]), node)).collect();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let is_macro = |package: &Value| {
        let mut kinds = package["targets"].as_array().into_iter().flatten();
        kinds.any(|target| target["kind"].as_array().is_some_and(|kinds| kinds.contains(&json!("proc-macro"))))
    };
    let macros: BTreeSet<&str> =
        packages.filter(|package| is_macro(package)).map(|package| text(&package["id"])).collect();
    let (mut found, mut left) = (BTreeMap::new(), vec![root]);
    while let Some(id) = left.pop() {
        if found.contains_key(id) {
            continue;
        }
        let on = nodes.get(id).and_then(|node| node["deps"].as_array()).into_iter().flatten();
        let normal = |dep: &&Value| {
            dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
        };
        let on: BTreeSet<&str> =
            on.filter(normal).map(|dep| text(&dep["pkg"])).filter(|id| !macros.contains(id)).collect();
        left.extend(on.iter());
        found.insert(id, on);
    }
    found
}

fn component(package: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let mut component = json!({"type": "library", "bom-ref": reference(package), "name": name, "version": version});
    if let Some(license) = package["license"].as_str() {
        // Older packages write MIT/Apache-2.0.
        component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if !package["source"].is_null() {
        component["purl"] = reference(package).into();
    }
    if let Some(checksum) = checksums.get(&format!("{name} {version}")) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    component
}

fn reference(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_with_its_checksum() {
        let package = |name: &str, kind: &str, source: Value| {
            json!({"id": format!("{name}-id"), "name": name, "version": "1.2.3", "license": "MIT/Apache-2.0",
                "source": source, "targets": [{"kind": [kind]}]})
        };
        let dep = |name: &str, kind: Value| json!({"pkg": format!("{name}-id"), "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("mote", "bin", Value::Null), package("redb", "lib", "registry".into()),
                package("derive", "proc-macro", "registry".into()), package("cc", "lib", "registry".into()),
                package("alone", "lib", "registry".into()),
            ],
            "resolve": {"nodes": [
                {"id": "mote-id", "deps": [dep("redb", Value::Null), dep("derive", Value::Null), dep("cc", "build".into())]},
                {"id": "redb-id", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = \"redb\"\nversion = \"1.2.3\"\nchecksum = \"abc\"\n";
        let bill = bill(&metadata, &checksums(lock), "def", &["rust=1.97.1".to_owned()]).unwrap();
        assert_eq!(bill["metadata"]["component"]["hashes"][0]["content"], "def");
        let names: Vec<&str> = bill["components"].as_array().unwrap().iter().map(|c| text(&c["name"])).collect();
        assert_eq!(names, ["redb", "rust"]);
        let redb = &bill["components"][0];
        assert_eq!(redb["purl"], "pkg:cargo/redb@1.2.3");
        assert_eq!(redb["hashes"][0]["content"], "abc");
        assert_eq!(redb["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(
            bill["dependencies"][0],
            json!({"ref": "pkg:cargo/mote@1.2.3", "dependsOn": ["pkg:cargo/redb@1.2.3"]})
        );
    }
}
