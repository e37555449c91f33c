//! The command line, the configuration, and what keeps a node from starting: each with its message and exit code.
use mote_tests::{
    Server, eventually,
    server::{free_port, scratch},
};
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

fn mote(args: &[&str]) -> Output {
    Command::new(mote_tests::binary()).args(args).stdin(Stdio::null()).output().expect("the binary starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A start that must fail: its exit code and everything it wrote to stderr.
#[track_caller]
fn refused(config: &str, data_dir: &Path) -> (i32, String) {
    let dir = scratch();
    fs::write(dir.join("config.yaml"), config).unwrap();
    let mut child = Command::new(mote_tests::binary());
    child.arg("run").arg("--config").arg(dir.join("config.yaml")).arg("--data-dir").arg(data_dir);
    let mut child = child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let status =
        eventually("mote gives up", 10, || child.try_wait().ok().flatten().ok_or_else(|| "it runs".to_owned()));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    (status.code().unwrap_or(-1), text.replace(&format!("{}/", dir.display()), ""))
}

const ALONE: &str = "components: {disabled: [kubelet, network]}\n";

#[test]
fn help_version_and_show_config_print() {
    let help = mote(&["help"]);
    assert!(help.status.success() && stdout(&help).contains("mote run"), "{}", stdout(&help));
    let version: serde_json::Value = serde_json::from_str(&stdout(&mote(&["version", "-o", "json"]))).unwrap();
    assert!(version["kubernetesVersion"].as_str().unwrap().starts_with("v1.36."), "{version}");
    let default = stdout(&mote(&["show-config", "--mode", "default"]));
    for line in ["    port: 6443", "    clusterNetwork: [\"10.42.0.0/16\"]", "    serviceNodePortRange: 30000-32767"] {
        assert!(default.contains(line), "{default}");
    }
}

#[test]
fn preflight_tells_each_check_and_fails_with_the_port_that_is_taken() {
    let dir = scratch();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let report = |port: u16, extra: &[&str]| {
        let config = format!("board: rpi4-2gb\napiServer: {{port: {port}}}\nnode: {{hostnameOverride: board}}\n");
        fs::write(dir.join("config.yaml"), config).unwrap();
        let (config, data) = (dir.join("config.yaml"), dir.join("data"));
        let args = ["preflight", "--config", config.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
        mote(&[&args, extra].concat())
    };
    let output = report(taken.local_addr().unwrap().port(), &["-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["board"], "rpi4-2gb");
    let checks = json["checks"].as_array().unwrap();
    let page = fs::read_to_string(mote_tests::root().join("docs/preflight.md")).unwrap();
    for check in checks {
        assert!(page.contains(&format!("| `{}` |", check["check"].as_str().unwrap())), "docs/preflight.md: {check}");
        assert_eq!(check["level"] == "ok", check["fix"] == "", "{check}");
    }
    let port = checks.iter().find(|check| check["check"] == "port").unwrap();
    assert_eq!(port["level"], "fail", "{port}");
    assert!(port["fix"].as_str().unwrap().contains("apiServer: {port:"), "{port}");
    let output = report(free_port(), &[]);
    let text = stdout(&output);
    assert!(text.starts_with("board rpi4-2gb: ") && text.contains("\nok    hostname         board\n"), "{text}");
    assert!(!dir.join("data").exists(), "preflight made the data directory");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn misuse_ends_with_2_and_names_the_argument() {
    for (args, expected) in [
        (&["start"][..], "unknown command \"start\""),
        (&["run", "--confg", "x"], "\"--confg\""),
        (&[], "expected a command"),
    ] {
        let output = mote(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn mistakes_in_the_configuration_are_told_together_and_start_nothing() {
    let dir = scratch();
    let data = dir.join("data");
    let (code, text) = refused("apiServer:\n  port: none\nnode:\n  nodeIP: 10.0.0.256\n  nodeip: x\n", &data);
    assert_eq!(code, 78);
    assert_eq!(
        text,
        "config.yaml:2: apiServer.port: expected a port from 1 to 65535, found \"none\"\n\
         config.yaml:4: node.nodeIP: expected an IPv4 address of this machine, found \"10.0.0.256\"\n\
         config.yaml:5: node.nodeip: unknown key; node has hostnameOverride, nodeIP\n"
    );
    assert!(!data.exists(), "nothing was to be started");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = scratch();
    let (code, text) = refused(&format!("{ALONE}apiServer: {{port: {port}}}"), &dir.join("data"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(&port.to_string()) && text.to_lowercase().contains("in use"), "{text}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_second_node_on_the_same_directory_is_refused() {
    let server = Server::start("");
    let (code, text) = refused(&format!("{ALONE}apiServer: {{port: {}}}", free_port()), &server.dir.join("data"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("another mote runs on the data directory"), "{text}");
    assert_eq!(server.client().get("/readyz").code, 200, "the first one must not mind");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let dir = scratch();
    fs::write(dir.join("file"), "").unwrap();
    let (code, text) = refused(ALONE, &dir.join("file/data"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("file/data"), "{text}");
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_kubeconfig_is_the_administrators_alone() {
    let server = Server::start("");
    let mode = |name: &str| fs::metadata(server.dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("data/kubeconfig"), 0o600);
    assert_eq!(mode("data"), 0o700);
}

#[test]
fn terminate_stops_in_under_two_seconds_and_what_was_written_stays() {
    let mut server = Server::start("");
    server.kubectl.ok("create configmap kept --from-literal=a=1");
    let (status, elapsed) = server.stop(libc::SIGTERM);
    assert!(status.success(), "{status}: {}", server.log());
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    server.start_again();
    assert_eq!(server.kubectl.ok("get configmap kept -o jsonpath={.data.a}"), "1");
}

/// systemd's protocol: READY=1 once /readyz is, STOPPING=1 at the end.
#[test]
fn the_service_manager_is_told() {
    let dir = scratch();
    let socket = std::os::unix::net::UnixDatagram::bind(dir.join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    fs::write(dir.join("config.yaml"), format!("{ALONE}apiServer: {{port: {}}}", free_port())).unwrap();
    let mut command = Command::new(mote_tests::binary());
    command.arg("run").arg("--config").arg(dir.join("config.yaml")).arg("--data-dir").arg(dir.join("data"));
    command.env("NOTIFY_SOCKET", dir.join("notify")).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut buffer = [0; 256];
    let mut heard = || socket.recv(&mut buffer).map(|bytes| String::from_utf8_lossy(&buffer[..bytes]).into_owned());
    assert_eq!(heard().unwrap(), "READY=1");
    let ready = mote_tests::http::Client::new(&dir.join("data/kubeconfig")).get("/readyz");
    assert_eq!(ready.code, 200, "{}", ready.text());
    // SAFETY: kill(2) of our own child, which has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(heard().unwrap(), "STOPPING=1");
    assert!(child.wait().unwrap().success());
    fs::remove_dir_all(dir).unwrap();
}
