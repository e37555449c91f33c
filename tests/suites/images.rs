//! What images of boards are made of (`boards/image/packages`), with a stand-in for mmdebstrap whose mirror is between two states. The
//! images themselves are made and booted by `./dev boards`.
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

/// Fails for trixie as apt does, with the message of FAILS; stable is the release that STABLE names.
const MMDEBSTRAP: &str = r#"#!/bin/sh
while [ $# -gt 3 ]; do shift; done
echo "$1" >>"$ASKED"
[ "$1" = stable ] || { echo "E: Failed to fetch Packages.xz  $FAILS"; exit 25; }
mkdir -p "$2/var/lib/apt/lists" "$2/usr/bin"
echo "Codename: $STABLE" >"$2/var/lib/apt/lists/mirror_dists_stable_InRelease"
echo kept >"$2/usr/bin/kept"
"#;

fn program(dir: &Path, name: &str, text: &str) {
    let file = dir.join(name);
    fs::write(&file, text).expect("the scratch directory can be written");
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("the same");
}

fn fetch(dir: &Path, fails: &str, stable: &str) -> (Output, String) {
    let asked = dir.join("asked");
    fs::write(&asked, "").expect("the scratch directory can be written");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").expect("there is a PATH"));
    let output = Command::new(mote_tests::root().join("boards/image/packages"))
        .arg(dir.join("tree"))
        .args(["riscv64", "systemd", "containerd"])
        .envs([("PATH", path.as_str()), ("FAILS", fails), ("STABLE", stable)])
        .env("ASKED", &asked)
        .output()
        .expect("the script is there");
    (output, fs::read_to_string(asked).expect("it was written"))
}

#[test]
fn a_mirror_between_two_states_is_asked_for_the_release_by_its_other_name() {
    let dir = mote_tests::server::scratch();
    program(&dir, "mmdebstrap", MMDEBSTRAP);
    program(&dir, "apt-get", "#!/bin/sh\necho http://mirror.invalid/debian\n");
    let between = "File has unexpected size (1 != 2). Mirror sync in progress?";
    let complaint = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    // Another failure is not helped by another name.
    let (output, asked) = fetch(&dir, "404  Not Found", "trixie");
    assert!(!output.status.success() && complaint(&output).contains("404  Not Found"), "{output:?}");
    assert_eq!(asked, "trixie\n");

    // Nor is the next release taken for this one.
    let (output, asked) = fetch(&dir, between, "forky");
    assert!(!output.status.success() && complaint(&output).contains("is not trixie"), "{output:?}");
    assert_eq!(asked, "trixie\nstable\n");
    assert!(!dir.join("tree").exists());

    let (output, asked) = fetch(&dir, between, "trixie");
    assert!(output.status.success() && complaint(&output).contains("is between two states"), "{output:?}");
    assert_eq!(asked, "trixie\nstable\n");
    let listed = Command::new("tar").arg("-tf").arg(dir.join("tree")).output().expect("tar").stdout;
    let listed = String::from_utf8_lossy(&listed);
    assert!(listed.contains("./usr/bin/kept") && !listed.contains("InRelease"), "{listed}");
    fs::remove_dir_all(dir).expect("it is there");
}
