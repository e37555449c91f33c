//! Data directories that earlier releases left when they were killed (fixtures/make): everything in them is read as it was, can
//! be changed, and is read again. With MOTE_BEFORE, the binary of the release before, also on the way back to it and forth again.
use mote_tests::{Server, binary, server::scratch};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The store of the directory, not one that the suites share.
const ALONE: &str = "components: {disabled: [kubelet, network, scheduler, controllers]}\nstore: {persist: []}\n";

fn get(server: &Server, path: &str) -> Value {
    let answer = server.client().request("GET", path, &[], b"");
    assert_eq!(answer.code, 200, "{path}: {}", answer.text());
    answer.json()
}

#[track_caller]
fn check_all(server: &Server, expected: &[(String, Value)], what: &str) {
    for (path, object) in expected {
        assert_eq!(&get(server, path), object, "{path}, {what}");
    }
}

fn unpack(fixture: &Path) -> (PathBuf, Vec<(String, Value)>) {
    let dir = scratch();
    let data = dir.join("data");
    fs::create_dir(&data).unwrap();
    let status = Command::new("tar").arg("-C").arg(&data).arg("-xJf").arg(fixture).status().unwrap();
    assert!(status.success(), "{}: {status}", fixture.display());
    let text = fs::read_to_string(data.join("expected")).unwrap();
    let line = |line: &str| {
        let (path, object) = line.split_once('\t').unwrap();
        (path.to_owned(), serde_json::from_str(object).unwrap())
    };
    (dir, text.lines().map(line).collect())
}

#[test]
fn what_an_earlier_release_wrote_is_read_changed_and_read_again() {
    let fixtures = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")).unwrap();
    let archives: Vec<PathBuf> = fixtures
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "xz"))
        .collect();
    assert!(!archives.is_empty());
    for fixture in archives {
        let (dir, mut expected) = unpack(&fixture);
        assert!(expected.len() > 10, "{}", fixture.display());
        let mut server = Server::start_at(dir, ALONE);
        check_all(&server, &expected, "as it was left");
        let gone = server.client().request("GET", "/api/v1/namespaces/kept/configmaps/gone", &[], b"");
        assert_eq!(gone.code, 404, "{}", gone.text());
        let patch = json!({"metadata": {"annotations": {"example.com/changed": "yes"}}}).to_string();
        for (path, object) in &mut expected {
            let answer = server.client().request(
                "PATCH",
                path,
                &[("Content-Type", "application/merge-patch+json")],
                patch.as_bytes(),
            );
            assert_eq!(answer.code, 200, "{path}: {}", answer.text());
            let changed = answer.json();
            // Nothing else is different, now that it is written by this one.
            let mut same = changed.clone();
            same["metadata"]["annotations"].as_object_mut().unwrap().remove("example.com/changed");
            if same["metadata"]["annotations"] == json!({}) {
                same["metadata"].as_object_mut().unwrap().remove("annotations");
            }
            // A deployment's annotations count as another generation of it.
            for field in ["resourceVersion", "managedFields", "generation"] {
                if let Some(before) = object["metadata"].get(field) {
                    same["metadata"][field] = before.clone();
                }
            }
            assert_eq!(&same, object, "{path}");
            *object = changed;
        }
        let mut releases = vec![(binary(), "after a start of this one")];
        if let Some(before) = std::env::var_os("MOTE_BEFORE") {
            releases.push((before.into(), "with the release before"));
            releases.push((binary(), "and back"));
        }
        for (binary, what) in releases {
            server.stop(libc::SIGKILL);
            server.start_again_as(&binary);
            check_all(&server, &expected, what);
        }
    }
}
