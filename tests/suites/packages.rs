//! What people install: the Debian package put into a root of its own by the real dpkg, upgraded, removed and purged, and the default
//! configuration that is in it. Needs root, for dpkg's chroot; no network. The root has busybox's shell, and a stand-in for
//! deb-systemd-helper that keeps links as the real one does.
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a command printed; panics when it fails.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

fn packaging(script: &str) -> Command {
    Command::new(mote_tests::root().join("packaging").join(script))
}

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        Scratch(mote_tests::server::scratch())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn default_config() -> String {
    run(packaging("default-config").arg(mote_tests::binary()))
}

fn package(dir: &Path, version: &str, config: &str) -> PathBuf {
    let architecture = run(Command::new("dpkg").arg("--print-architecture"));
    fs::write(dir.join("config.yaml"), config).expect("the scratch directory can be written");
    let mut deb = packaging("deb");
    deb.arg(mote_tests::binary()).args([architecture.trim(), version]).arg(dir.join("config.yaml")).arg(dir);
    run(deb.env("SOURCE_DATE_EPOCH", "1700000000").env("XZ_LEVEL", "0")).trim().into()
}

const SYSTEMD_HELPER: &str = "#!/bin/sh
link=/etc/systemd/system/multi-user.target.wants/mote.service
case \"$1\" in
    enable) mkdir -p \"${link%/*}\"; ln -sf /usr/lib/systemd/system/mote.service $link ;;
    purge) rm -f $link ;;
esac
";

/// A root with a shell and dpkg's own files.
fn root(dir: &Path) -> PathBuf {
    let root = dir.join("root");
    let folders =
        ["bin", "dev", "tmp", "usr/bin", "etc/systemd/system/multi-user.target.wants", "usr/share/doc", "var/lib"];
    let of_dpkg = ["info", "updates", "triggers"].map(|name| format!("var/lib/dpkg/{name}"));
    for folder in folders.into_iter().chain(of_dpkg.iter().map(String::as_str)) {
        fs::create_dir_all(root.join(folder)).expect("the scratch directory can be written");
    }
    fs::write(root.join("var/lib/dpkg/status"), "").expect("it can be written");
    // One is written to by scripts, the other keeps dpkg from taking an empty folder along.
    for file in ["dev/null", "usr/share/doc/other"] {
        fs::write(root.join(file), "").expect("it can be written");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let busybox = std::env::split_paths(&path).map(|dir| dir.join("busybox")).find(|file| file.exists());
    fs::copy(busybox.expect("./dev has installed busybox-static"), root.join("bin/busybox")).expect("it can be copied");
    for name in ["sh", "awk", "cat", "grep", "ln", "mkdir", "rm", "sort", "umount"] {
        symlink("busybox", root.join("bin").join(name)).expect("a link");
    }
    let helper = root.join("usr/bin/deb-systemd-helper");
    fs::write(&helper, SYSTEMD_HELPER).expect("it can be written");
    fs::set_permissions(helper, fs::Permissions::from_mode(0o755)).expect("it is ours");
    root
}

fn dpkg(root: &Path, args: &[&str]) -> String {
    let mut command = Command::new("dpkg");
    command
        .arg(format!("--root={}", root.display()))
        .arg(format!("--log={}/dpkg.log", root.parent().expect("it has one").display()));
    // The tools it depends on are the stand-ins.
    run(command
        .args(["--force-depends", "--force-confdef", "--force-confold"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Every file and folder, but for dpkg's own.
fn tree(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if !path.ends_with("var/lib/dpkg") {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(path.clone());
                }
                found.insert(path);
            }
        }
    }
    found
}

#[test]
fn the_package_is_installed_upgraded_and_purged_without_a_trace() {
    let scratch = Scratch::new();
    let dir = &scratch.0;
    let root = root(dir);
    let before = tree(&root);
    let config = default_config();

    let said = dpkg(&root, &["--install", package(dir, "0.0.1", &config).to_str().expect("a path")]);
    assert!(said.contains("kubeconfig: /var/lib/mote/kubeconfig"), "{said}");
    assert_eq!(
        run(Command::new(root.join("usr/bin/mote")).arg("version")),
        run(Command::new(mote_tests::binary()).arg("version"))
    );
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/mote.service")).expect("the unit");
    assert!(unit.contains("\nExecStart=/usr/bin/mote run\n"), "{unit}");
    assert!(root.join("usr/share/man/man8/mote.8.gz").exists());
    let wanted = root.join("etc/systemd/system/multi-user.target.wants/mote.service");
    assert!(fs::symlink_metadata(&wanted).is_ok(), "it starts at every boot");

    // The administrator has changed the configuration, the package brings another: neither is lost.
    let file = root.join("etc/mote/config.yaml");
    fs::write(&file, "threads: 2\n").expect("it can be written");
    let data = ["var/lib/mote/store", "var/lib/mote-backups/one"].map(|name| root.join(name));
    for path in &data {
        fs::create_dir_all(path.parent().expect("a folder")).and_then(|()| fs::write(path, "data")).expect("writing");
    }
    dpkg(&root, &["--install", package(dir, "0.0.2", &format!("{config}## new\n")).to_str().expect("a path")]);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "threads: 2\n");
    let brought = fs::read_to_string(root.join("etc/mote/config.yaml.dpkg-dist")).expect("the new one is beside it");
    assert!(brought.ends_with("## new\n"), "{brought}");

    dpkg(&root, &["--remove", "mote"]);
    assert!(!root.join("usr/bin/mote").exists() && file.exists() && data.iter().all(|path| path.exists()));

    dpkg(&root, &["--purge", "mote"]);
    let left: Vec<_> = tree(&root).symmetric_difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_same_package_has_the_same_bytes() {
    let made = || {
        let scratch = Scratch::new();
        fs::read(package(&scratch.0, "0.0.1", "")).expect("the package")
    };
    assert!(made() == made());
}

/// With every # taken away, what is in the package says what is the default without it.
#[test]
fn the_default_configuration_is_the_default() {
    let scratch = Scratch::new();
    let file = scratch.0.join("config.yaml");
    let config = default_config();
    let keys: Vec<&str> = config.lines().map(|line| line.strip_prefix('#').unwrap_or(line)).collect();
    fs::write(&file, keys.join("\n")).expect("it can be written");
    let show = |args: &[&str]| run(Command::new(mote_tests::binary()).arg("show-config").args(args));
    assert_eq!(show(&["--config", file.to_str().expect("a path")]), show(&["--mode", "default"]));
    // Each key is explained.
    let explained = config
        .lines()
        .filter(|line| line.trim_start_matches(['#', ' ']).len() < line.len() && line.contains("# "))
        .count();
    let keys = config.lines().filter(|line| line.starts_with('#') && line.contains(": ")).count();
    assert!(explained >= keys.min(20), "{explained} explanations of {keys} keys");
}
