//! Objects that come with the machine: the files of `manifests.paths` (MicroShift's `manifests.kustomizePaths`, without
//! Kustomize), applied at every start as `kubectl apply --server-side --force-conflicts` does. What is as it should be is not
//! written again, and nothing is deleted.
//!
//! Order is by file name, and what fails is tried again, more and more seldom: a definition may have to be served first, or a
//! namespace to get its account.
use async_io::Timer;
use mote_api::{Client, Patch, Sub, unblock};
use mote_schema::{Order as _, Value, prune::parse_yaml};
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// Also the name under which fields are owned.
const USER: &str = "mote-manifests";
/// What the API takes of a body.
const FILE_LIMIT_BYTES: u64 = 3 * 1024 * 1024;
const FILES_LIMIT: usize = 1000;
/// Eight and a half minutes in all.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(256);

struct Manifest {
    file: PathBuf,
    object: Value,
}

pub fn start(client: &Client, paths: &[String]) {
    let (client, paths) = (client.as_user(USER, &["system:masters"]), paths.to_vec());
    client.clone().spawn(async move {
        let mut left = unblock(move || paths.iter().flat_map(|dir| read(Path::new(dir))).collect::<Vec<_>>()).await;
        let (count, mut wait) = (left.len(), FIRST_WAIT);
        while !left.is_empty() {
            let mut failed = Vec::new();
            for manifest in left {
                let Err(error) = apply(&client, &manifest.object).await else { continue };
                let file = manifest.file.display();
                match wait {
                    FIRST_WAIT => tracing::warn!(%file, error, "not applied yet"),
                    wait if wait > LAST_WAIT => tracing::error!(%file, error, "not applied"),
                    _ => {}
                }
                failed.push(manifest);
            }
            left = failed;
            if left.is_empty() {
                tracing::info!(count, "manifests are applied");
            } else if wait > LAST_WAIT {
                return;
            } else {
                Timer::after(wait).await;
                wait *= 2;
            }
        }
    });
}

async fn apply(client: &Client, object: &Value) -> Result<(), String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let catalog = client.catalog();
    let Some(kind) = catalog.by_kind(group, version, &kind) else {
        return Err(["no kind ", &kind, " is served in version ", &api_version].concat());
    };
    let (mut namespace, name) = (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]));
    if namespace.is_empty() && kind.namespaced {
        namespace = "default".to_owned();
    }
    let patch = Patch::Apply { config: object.clone(), force: true };
    let applied = client.patch(kind, &namespace, &name, Sub::Main, patch).await;
    applied.map(drop).map_err(|status| [&kind.plural, " ", &name, ": ", &status.message].concat())
}

/// Everything in the files of a directory, which need not be there. What cannot be read is told and left out.
fn read(dir: &Path) -> Vec<Manifest> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).take(FILES_LIMIT).collect(),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(dir = %dir.display(), %error, "manifests cannot be read");
            }
            return Vec::new();
        }
    };
    let wanted = ["yaml", "yml", "json"];
    files.retain(|path| path.extension().is_some_and(|extension| wanted.iter().any(|one| extension == *one)));
    files.order();
    let mut found = Vec::new();
    for file in files {
        match read_file(&file).and_then(|text| objects(&text)) {
            Ok(objects) => found.extend(objects.into_iter().map(|object| Manifest { file: file.clone(), object })),
            Err(error) => tracing::error!(file = %file.display(), error, "not applied"),
        }
    }
    found
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(error.to_string()),
        Ok(bytes) if bytes as u64 > FILE_LIMIT_BYTES => Err("larger than 3 MB".to_owned()),
        Ok(_) => Ok(text),
    }
}

/// The objects of all documents; a list's are its items.
fn objects(text: &str) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for document in documents(text) {
        let (value, _) = parse_yaml(document.as_bytes())?;
        match &value["items"] {
            Value::Array(items) if value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                objects.extend(items.iter().cloned());
            }
            _ if value.is_null() => {}
            _ => objects.push(value),
        }
    }
    Ok(objects)
}

/// Between lines that begin with `---`.
fn documents(text: &str) -> Vec<&str> {
    let (mut documents, mut start, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix("---");
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            documents.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    documents.push(&text[start..]);
    documents
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn objects_of_a_file() {
        let check = |text: &str, expected: &[Value]| assert_eq!(objects(text).as_deref(), Ok(expected), "{text}");
        check("", &[]);
        check("# nothing\n---\n# yet\n", &[]);
        check("a: 1", &[json!({"a": 1})]);
        check("---\na: 1\n---\nb: |\n  ---\n  x\n---\n", &[json!({"a": 1}), json!({"b": "---\nx\n"})]);
        check("a: 1\r\n--- # next\r\nb: 2\r\n", &[json!({"a": 1}), json!({"b": 2})]);
        check("{\"kind\": \"List\", \"items\": [{\"a\": 1}, {\"b\": 2}]}", &[json!({"a": 1}), json!({"b": 2})]);
        assert!(objects("a: [").is_err());
    }
}
