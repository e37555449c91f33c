//! Volumes without an API server and without mounts.
use super::*;
use crate::fixture;
use mote_schema::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A directory of this test's own, gone afterwards.
pub struct Temp(pub PathBuf);

impl Temp {
    pub fn new() -> Temp {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("mote-volumes-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).unwrap();
        Temp(path)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pod(volumes: Value, mounts: Value) -> Pod {
    fixture::pod(json!({"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]}))
}

fn mounted(pod: &Pod, paths: &[(&str, &Path)], env: &[(String, String)]) -> Result<Vec<Mount>, String> {
    let paths = paths.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect();
    let volumes = Volumes { paths, ..Default::default() };
    let images = Images::from([("image".to_owned(), ImageSpec { image: "id".into(), ..Default::default() })]);
    futures_lite::future::block_on(mounts(pod, &pod.spec.containers[0], &volumes, &images, env))
}

#[test]
fn mounts_say_what_the_container_may() {
    let pod = pod(
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "x"}}, {"name": "h", "hostPath": {"path": "/"}}]),
        json!([{"name": "a", "mountPath": "/a", "readOnly": true}, {"name": "b", "mountPath": "b"},
            {"name": "h", "mountPath": "/h", "mountPropagation": "HostToContainer"}]),
    );
    let mounts =
        mounted(&pod, &[("a", Path::new("/x/a")), ("b", Path::new("/x/b")), ("h", Path::new("/"))], &[]).unwrap();
    let seen: Vec<_> = mounts
        .iter()
        .map(|m| (m.container_path.as_str(), m.host_path.as_str(), m.readonly, m.selinux_relabel, m.propagation))
        .collect();
    assert_eq!(seen, [("/a", "/x/a", true, true, 0), ("/b", "/x/b", true, true, 0), ("/h", "/", false, false, 1)]);
}

#[test]
fn an_image_is_mounted_by_the_runtime() {
    let pod = pod(
        json!([{"name": "image", "image": {"reference": "x"}}]),
        json!([{"name": "image", "mountPath": "/i", "subPath": "dir"}]),
    );
    let mounts = mounted(&pod, &[], &[]).unwrap();
    let mount = &mounts[0];
    assert_eq!(mount.image.as_ref().map(|image| image.image.as_str()), Some("id"));
    assert_eq!((mount.host_path.as_str(), mount.image_sub_path.as_str(), mount.readonly), ("", "dir", true));
}

#[test]
fn bad_mounts_are_refused() {
    let check = |mount: Value, error: &str| {
        let pod = pod(json!([{"name": "a", "emptyDir": {}}]), json!([mount]));
        assert_eq!(mounted(&pod, &[("a", Path::new("/none"))], &[]), Err(error.into()));
    };
    check(json!({"name": "q", "mountPath": "/q"}), "cannot find volume \"q\" to mount into container \"c\"");
    check(
        json!({"name": "a", "mountPath": "/a", "subPath": "/etc"}),
        "error SubPath `/etc` must not be an absolute path",
    );
    check(
        json!({"name": "a", "mountPath": "/a", "subPath": "x/../../y"}),
        "unable to provision SubPath `x/../../y`: must not contain '..'",
    );
    check(json!({"name": "a", "mountPath": "/a", "subPathExpr": "$(B)/$(A)"}), "missing value for A, B");
    check(
        json!({"name": "a", "mountPath": "/a", "subPath": "x"}),
        "failed to create subPath directory for volumeMount \"a\" of container \"c\"",
    );
}

#[test]
fn places_for_mounts_inside_are_made() {
    let pod = pod(
        json!([]),
        json!([{"name": "a", "mountPath": "/dir/"}, {"name": "b", "mountPath": "/dir/nested"}, {"name": "c", "mountPath": "/dir/nested/more"},
            {"name": "d", "mountPath": "/dir/nested-2/x"}, {"name": "e", "mountPath": "/directory"}]),
    );
    assert_eq!(nested(&pod, "a"), Ok(vec!["nested".into(), "nested-2/x".into()]));
    assert_eq!(nested(&pod, "b"), Ok(vec!["more".into()]));
}

#[test]
fn memory_is_bounded_by_the_smallest_limit() {
    let allocatable = [("memory".to_owned(), "100Mi".to_owned())];
    let check = |limits: [Option<&str>; 2], source: Value, expected: Result<Option<&str>, &str>| {
        let container = |limit: &Option<&str>| match limit {
            Some(limit) => json!({"name": "c", "resources": {"limits": {"memory": limit}}}),
            None => json!({"name": "c"}),
        };
        let pod = fixture::pod(json!({"containers": limits.iter().map(container).collect::<Vec<_>>()}));
        let source: EmptyDirVolumeSource = crate::fixture::read(source);
        let size = tmpfs_size(&pod, &source, &allocatable);
        assert_eq!(size, expected.map(|size| size.map(str::to_owned)).map_err(str::to_owned));
    };
    check([None, None], json!({}), Ok(None));
    check([None, Some("1Mi")], json!({"medium": "Memory"}), Ok(Some("104857600")));
    check([Some("1Mi"), Some("1Mi")], json!({"medium": "Memory"}), Ok(Some("2097152")));
    check([Some("1Gi"), None], json!({"medium": "Memory", "sizeLimit": "1Mi"}), Ok(Some("1048576")));
    check([None, None], json!({"medium": "HugePages"}), Err("unknown storage medium \"HugePages\""));
}

#[test]
fn objects_that_are_mounted_concern_the_pod() {
    let pod = pod(
        json!([{"name": "a", "configMap": {"name": "x"}}, {"name": "b", "secret": {"secretName": "y"}},
            {"name": "c", "projected": {"sources": [{"configMap": {"name": "z"}}, {"secret": {"name": "w"}}]}},
            {"name": "d", "ephemeral": {}}]),
        json!([]),
    );
    for (plural, name, concerned) in [
        ("configmaps", "x", true),
        ("configmaps", "z", true),
        ("configmaps", "y", false),
        ("secrets", "y", true),
        ("secrets", "w", true),
        ("persistentvolumeclaims", "p-d", true),
        ("services", "x", false),
    ] {
        assert_eq!(mounts_object(&pod, plural, name), concerned, "{plural} {name}");
    }
}

#[test]
fn plans_on_disk_and_their_end() {
    let temp = Temp::new();
    let pod_dir = temp.0.join("pods/u");
    let memory = memory_dir(&pod_dir);
    assert_eq!(memory, temp.0.join("memory/u"));
    let dir = pod_dir.join("volumes/e");
    let plan = || Plan::EmptyDir { dir: dir.clone(), tmpfs_size: None, group: None };
    assert_eq!(plan().carry_out(&memory), Ok(dir.clone()));
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o777);
    fs::write(dir.join("kept"), "").unwrap();
    plan().carry_out(&memory).unwrap();
    assert!(dir.join("kept").exists());
    let files: writer::Files = [("k".to_owned(), writer::File { data: b"v".into(), mode: 0o644, owner: None })].into();
    write_files(&memory.join("m"), &files, None, &["nested/deep".into()]).unwrap();
    assert_eq!(fs::read(memory.join("m/k")).unwrap(), b"v");
    assert!(memory.join("m/nested/deep").is_dir());
    let missing = Plan::Local { path: "/no/such/dir".into(), group: None, dir: PathBuf::new(), fs_type: "ext4".into() };
    assert_eq!(missing.carry_out(&memory), Err("path \"/no/such/dir\" does not exist".into()));
    futures_lite::future::block_on(tear_down(&pod_dir)).unwrap();
    assert!(!pod_dir.exists() && !memory.exists() && temp.0.join("memory").exists());
}
