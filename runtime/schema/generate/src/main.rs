//! Writes the field table of `mote-schema` from the sources of the registry packages `k8s-openapi` (JSON names, types, what is
//! required, kinds) and `k8s-pb` (protobuf numbers, list and merge markers) and the overlay beside this file (facts that no
//! package carries). Run it after raising the version of a package or editing the overlay:
//!
//!     cargo run -p mote-schema-generate
//!
//! Its test fails when the tree does not hold what it would write. Output is facts: names, numbers, shapes; no prose.

mod emit;
mod model;
mod openapi;
mod overlay;
mod protobuf;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

/// The folder of a package's sources, as cargo resolves it in this workspace.
fn package_dir(metadata: &serde_json::Value, name: &str) -> Result<PathBuf, String> {
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let found = packages.iter().find(|p| p["name"] == name).ok_or_else(|| format!("package {name} is not resolved"))?;
    let manifest = found["manifest_path"].as_str().ok_or("a package without manifest_path")?;
    Ok(Path::new(manifest).parent().ok_or("a manifest without folder")?.to_owned())
}

/// Asks offline first; a clone that never fetched these packages asks the registry.
fn metadata(here: &Path) -> Result<serde_json::Value, String> {
    run_metadata(here, &["--offline"]).or_else(|_| run_metadata(here, &[]))
}

fn run_metadata(here: &Path, more: &[&str]) -> Result<serde_json::Value, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    // Without a platform, packages of systems that nobody here builds for would have to be at hand.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--all-features", "--filter-platform", &platform])
        .args(more)
        .arg("--manifest-path")
        .arg(here.join("Cargo.toml"))
        .output()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))
}

/// Every file this tool owns: path and what it should hold.
fn generate() -> Result<Vec<(PathBuf, String)>, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let metadata = metadata(here)?;
    let mut model = openapi::read(&package_dir(&metadata, "k8s-openapi")?.join("src/v1_36"))?;
    protobuf::read(&package_dir(&metadata, "k8s-pb")?.join("src"), &mut model)?;
    let kinds = overlay::read(&here.join("overlay"), &mut model)?;
    let schema = here.join("../src");
    let names_path = here.join("../doc/src/names.txt");
    let names = fs::read_to_string(&names_path).map_err(|e| format!("{}: {e}", names_path.display()))?;
    let out = emit::write(&model, &kinds, &names)?;
    Ok(vec![
        (names_path, out.names),
        (schema.join("builtin/table.rs"), out.table),
        (schema.join("builtin/kinds.txt"), out.kinds),
    ])
}

fn run() -> Result<(), String> {
    for (path, text) in generate()? {
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    /// The tree holds byte for byte what the packages and the overlay give.
    #[test]
    fn what_is_committed_is_what_is_generated() {
        for (path, text) in super::generate().unwrap_or_else(|e| panic!("{e}")) {
            let old = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(old == text, "{} is stale: run `cargo run -p mote-schema-generate`", path.display());
        }
    }
}
