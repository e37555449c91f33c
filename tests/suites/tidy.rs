//! The tree itself: what nobody should have to remember. Runs without a node and without root.
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    mote_tests::root()
}

/// All files git knows or would add, relative to the root.
fn files() -> Vec<String> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(args).current_dir(root()).output().expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    names.lines().filter(|name| root().join(name).is_file()).map(str::to_owned).collect()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_default()
}

fn sources() -> Vec<(String, String)> {
    files().into_iter().filter(|name| name.ends_with(".rs")).map(|name| (name.clone(), read(&name))).collect()
}

fn metadata() -> Value {
    let args = ["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"];
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

#[track_caller]
fn none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_source_file_says_what_lives_in_it() {
    // The generated table is included in the middle of a module, where no //! may stand.
    none(
        "start with //!",
        sources()
            .into_iter()
            .filter(|(name, text)| !text.starts_with("//!") && !name.ends_with("builtin/table.rs"))
            .map(|(name, _)| name)
            .collect(),
    );
}

#[test]
fn files_are_rooms_not_halls() {
    const LIMIT_LINES: usize = 800;
    let generated = |name: &str| name.contains("/builtin/") || name.ends_with("cri-client/src/v1.rs");
    let long = sources().into_iter().filter(|(name, text)| !generated(name) && text.lines().count() > LIMIT_LINES);
    none("split these", long.map(|(name, text)| format!("{name}: {} lines", text.lines().count())).collect());
}

#[test]
fn nothing_is_left_for_later() {
    // In two parts, so that this file passes its own check.
    let words = [
        ("TO", "DO"),
        ("FIX", "ME"),
        ("unimplement", "ed!("),
        ("to", "do!("),
        ("#[ign", "ore"),
        ("allow(dead", "_code)"),
    ];
    let mut found = Vec::new();
    for name in files().iter().filter(|name| !name.ends_with("Cargo.lock")) {
        for (number, line) in read(name).lines().enumerate() {
            if words.iter().any(|(one, two)| line.contains(&format!("{one}{two}"))) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none("finish these", found);
}

#[test]
fn no_package_registry_is_named() {
    let hosts = [
        ("deb.debian", ".org"),
        ("static.crates", ".io"),
        ("index.crates", ".io"),
        ("npmjs", ".org"),
        ("pypi", ".org"),
    ];
    let mut found = Vec::new();
    for name in files() {
        let text = read(&name);
        found.extend(hosts.iter().filter(|(one, two)| text.contains(&format!("{one}{two}"))).map(|_| name.clone()));
    }
    none("take the machine's own sources instead", found);
}

/// What promises a figure names the test that holds it.
#[test]
fn the_specification_names_tests_that_exist() {
    let page = mote_size_report::budget::Specification::embedded();
    let texts: String = sources().into_iter().map(|(_, text)| text).collect();
    let named = page.held_by.values().chain(page.costs.iter().map(|cost| &cost.held_by));
    let lost = named.filter(|held_by| {
        let name = held_by.trim_matches('`');
        let test = name.split("::").last().unwrap_or_default();
        name != "./dev size" && !texts.contains(&format!("fn {test}()"))
    });
    none("no such test", lost.cloned().collect());
}

#[test]
fn every_module_file_is_part_of_its_crate() {
    let sources = sources();
    let mut lost = Vec::new();
    for (name, _) in sources.iter().filter(|(name, _)| name.contains("/src/")) {
        let path = Path::new(name);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let dir = path.parent().expect("a file has a parent");
        if matches!(stem, "lib" | "main") || dir.ends_with("bin") {
            continue;
        }
        let (module, within) = match stem {
            "mod" => (dir.file_name().and_then(|name| name.to_str()).unwrap_or_default(), dir.parent().unwrap_or(dir)),
            _ => (stem, dir),
        };
        let declared = |(other, text): &&(String, String)| {
            let other = Path::new(other);
            let parent = other.parent() == Some(within) || other.with_extension("") == *within;
            let by_name = |line: &str| {
                let code = line.split("//").next().unwrap_or_default().trim_end();
                code.ends_with(&format!("mod {module};")) || code.contains(&format!("mod {module} "))
            };
            parent && text.lines().any(by_name) || text.contains(&format!("#[path = \"{stem}.rs\"]"))
        };
        if !sources.iter().any(|source| declared(&source)) {
            lost.push(name.clone());
        }
    }
    none("no `mod` leads to these", lost);
}

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("mote-grpc", &[][..]),
        ("mote-store", &["mote-grpc"]),
        ("mote-cri", &["mote-grpc"]),
        ("mote-cni", &[]),
        ("mote-boards", &[]),
        ("mote-doc", &[]),
        ("mote-schema", &["mote-doc"]),
        ("mote-api", &["mote-store", "mote-schema", "mote-cel", "mote-grpc"]),
        ("mote-cel", &["mote-schema"]),
        ("mote-controllers", &["mote-api", "mote-schema"]),
        ("mote-scheduler", &["mote-api", "mote-schema"]),
        ("mote-kubelet", &["mote-api", "mote-schema", "mote-cri"]),
        ("mote-network", &["mote-api", "mote-schema", "mote-cni"]),
    ]);
    let mut wrong = Vec::new();
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(allowed) = allowed.get(name) else { continue };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().unwrap_or_default();
            if on.starts_with("mote-") && dependency["kind"].is_null() && !allowed.contains(&on) {
                wrong.push(format!("{name} on {on}"));
            }
        }
    }
    none("these dependencies point the wrong way", wrong);
}

#[test]
fn no_dependency_is_unwanted_or_unfree() {
    let unwanted = [
        "tonic",
        "axum",
        "reqwest",
        "openssl",
        "openssl-sys",
        "native-tls",
        "async-std",
        "aws-lc-rs",
        "aws-lc-sys",
        "rustables",
    ];
    // MPL-2.0 asks for changes to its own files only, and imbl is used as it is.
    let free = [
        "MPL-2.0+",
        "MIT",
        "Apache-2.0",
        "BSD-3-Clause",
        "BSD-2-Clause",
        "ISC",
        "Zlib",
        "Unlicense",
        "CC0-1.0",
        "0BSD",
        "Unicode-3.0",
        "CDLA-Permissive-2.0",
        "MIT-0",
    ];
    let mut wrong = Vec::new();
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let license = package["license"].as_str().unwrap_or("none named");
        // "A OR B" needs one that is free, "A AND B" all.
        let alternative =
            |text: &str| text.split(" AND ").all(|part| free.contains(&part.trim().trim_matches(['(', ')'])));
        let ok = license.replace('/', " OR ").replace(" WITH LLVM-exception", "").split(" OR ").any(alternative);
        if unwanted.contains(&name) || !ok {
            wrong.push(format!("{name} ({license})"));
        }
    }
    none("do without these", wrong);
}

/// h2 needs tokio's traits; its runtime must not come along.
#[test]
fn tokio_brings_no_runtime() {
    let args = ["tree", "-p", "mote", "-e", "features,no-dev", "--prefix", "none", "-f", "{p} {f}"];
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().expect("cargo runs");
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    let features = tree
        .lines()
        .find_map(|line| line.strip_prefix("tokio v")?.split_once(' '))
        .map_or("", |(_, features)| features);
    let runtime =
        features.split([',', ' ']).filter(|feature| matches!(*feature, "rt" | "rt-multi-thread" | "net" | "full"));
    none("tokio's features", runtime.map(str::to_owned).collect());
}

#[test]
fn the_configuration_page_explains_every_key() {
    let page = read("docs/configuration.md");
    let table = read("runtime/src/config/keys.rs");
    let keys = table.lines().filter_map(|line| line.trim().strip_prefix("path: \"")?.strip_suffix("\","));
    let keys: Vec<_> = keys.map(str::to_owned).collect();
    assert!(keys.len() >= 14, "the table of keys was not found: {keys:?}");
    none("docs/configuration.md lacks", keys.into_iter().filter(|key| !page.contains(&format!("`{key}`"))).collect());
}

#[test]
fn pages_link_to_what_is_there() {
    let mut broken = Vec::new();
    for name in files().iter().filter(|name| name.ends_with(".md")) {
        let dir = root().join(name).parent().expect("a file has a parent").to_owned();
        for link in read(name).split("](").skip(1).filter_map(|rest| rest.split(')').next().map(str::to_owned)) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !path.contains("://") && !dir.join(path).exists() {
                broken.push(format!("{name}: {link}"));
            }
        }
    }
    none("broken links", broken);
    let link = fs::read_link(root().join("Cross.toml")).expect("Cross.toml is a link");
    assert_eq!(link, Path::new("cross.toml"));
}

#[test]
fn scripts_are_scripts() {
    let mut wrong = Vec::new();
    for name in files() {
        if read(&name).starts_with("#!/usr/bin/env bash") {
            let output = Command::new("bash").arg("-n").arg(root().join(&name)).output().expect("bash runs");
            if !output.status.success() || !read(&name).contains("set -euo pipefail") {
                wrong.push(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
            }
        }
    }
    none("bash -n, and set -euo pipefail", wrong);
}
