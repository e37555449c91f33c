//! What somebody drops on the boot partition of a board before it is switched on for the first time, and finds done: configuration,
//! host name, network, container images, manifests, and a kubeconfig that is good for it.
use super::wait_running;
use mote_tests::{
    guest::{Guest, images},
    server::scratch,
};
use std::{fs, process::Command};

const CONFIG: &str = "kubelet: {port: 10251}\n";
/// An address beside the one that DHCP gives.
const NETWORK: &str = "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\nAddress=192.0.2.77/32\n";
/// The pod is named before its namespace is, and wants the image that was dropped.
const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: plugged, namespace: cabin}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "localhost/dropped:1", imagePullPolicy: Never, command: [sleep, "100000"]}]
---
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cabin"}}
"#;
/// The owner knows no authority of a board that was never switched on.
const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: board
clusters:
- name: board
  cluster:
    server: https://plugged-in:6443
    insecure-skip-tls-verify: true
contexts:
- name: board
  context: {cluster: board, user: owner}
users:
- name: owner
  user:
    token: abcdef.0123456789abcdef
"#;

pub fn files(board: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.yaml", CONFIG.into()),
        ("hostname", "plugged-in\n".into()),
        ("network/50-more.network", NETWORK.into()),
        ("manifests/10-plugged.yaml", MANIFEST.into()),
        ("bootstrap-kubeconfig", KUBECONFIG.into()),
        ("images/dropped.tar", archive(board)),
    ]
}

/// The busybox that comes with the system, under another name.
fn archive(board: &str) -> Vec<u8> {
    let dir = scratch();
    let system = images(board).join(format!("mote-{board}.root"));
    let run = |command: &mut Command| {
        let output = command.current_dir(&dir).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {output:?}");
    };
    run(Command::new("debugfs").args(["-R", "dump /usr/share/mote/images/busybox.tar came.tar"]).arg(system));
    run(Command::new("tar").args(["-xf", "came.tar"]));
    let manifest = fs::read_to_string(dir.join("manifest.json")).expect("the system's image is a docker archive");
    fs::write(dir.join("manifest.json"), manifest.replace("/busybox:1", "/dropped:1")).expect("writing");
    run(Command::new("tar").args(["-cf", "dropped.tar", "config.json", "layer.tar", "manifest.json"]));
    let bytes = fs::read(dir.join("dropped.tar")).expect("tar has written it");
    let _ = fs::remove_dir_all(&dir);
    bytes
}

pub fn check(guest: &Guest) {
    let kubectl = guest.kubectl_with(&guest.kubeconfig().with_extension("owner"), KUBECONFIG);
    guest.eventually("the owner's kubeconfig is good", || {
        let output = kubectl.run("auth can-i * * --all-namespaces");
        if output.stdout.trim() == "yes" { Ok(()) } else { Err(output.to_string()) }
    });
    assert_eq!(kubectl.ok("get nodes -o jsonpath={.items[*].metadata.name}"), "plugged-in");
    let port = ".status.daemonEndpoints.kubeletEndpoint.Port";
    assert_eq!(kubectl.field("node/plugged-in", port).as_deref(), Ok("10251"), "config.yaml is read");
    wait_running(guest, &kubectl.within("cabin"), "plugged");
    let addresses = guest.shell("ip -4 address; ls /run/systemd/network").expect("the shell answers");
    assert!(addresses.contains("192.0.2.77/32"), "{addresses}");
}
