//! Backups from outside: made while somebody writes, put back, rolled back between two system images, and what becomes
//! of a node whose file is damaged.
use mote_tests::{Server, binary, eventually, server::scratch};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

const ALONE: &str = "components: {disabled: [kubelet, network, scheduler, controllers]}\n";

/// A node whose system image is what the file `slot` says, and which counts as good after a second.
fn start() -> Server {
    let dir = scratch();
    fs::write(dir.join("slot"), "A").unwrap();
    let config = format!("{ALONE}backups: {{healthyAfterSeconds: 1, slotFile: {}}}", dir.join("slot").display());
    Server::start_at(dir, &config)
}

fn mote(command: &[&str], data_dir: &Path) -> Output {
    Command::new(binary()).args(command).arg("--data-dir").arg(data_dir).output().expect("the binary starts")
}

#[track_caller]
fn ok(command: &[&str], data_dir: &Path) -> String {
    let output = mote(command, data_dir);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn refused(command: &[&str], data_dir: &Path, expected: &str) {
    let output = mote(command, data_dir);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(expected), "{command:?}: {output:?}");
}

fn maps(server: &Server) -> Vec<String> {
    let text = server.kubectl.ok("get configmaps -o name");
    text.lines().filter_map(|line| Some(line.strip_prefix("configmap/")?.to_owned())).collect()
}

fn version(server: &Server) -> String {
    fs::read_to_string(server.dir.join("data/version")).unwrap_or_default()
}

#[track_caller]
fn wait_healthy(server: &Server) {
    eventually("the image counts as good", 20, || {
        let version = version(server);
        if version.contains("\"healthy\":true") { Ok(()) } else { Err(version) }
    });
}

fn kept(server: &Server) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.dir.join("data-backups")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    // One that is being written is none yet.
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "gz")).collect();
    paths.sort();
    paths
}

#[test]
fn a_backup_made_while_somebody_writes_is_one_state_and_is_put_back() {
    let mut server = start();
    let (data, file) = (server.dir.join("data"), server.dir.join("backup.tar.gz"));
    let path = file.to_str().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let (stop, client) = (stop.clone(), server.client());
        move || {
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                let body = format!(
                    r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"n{written:05}"}},"data":{{"x":"{}"}}}}"#,
                    "y".repeat(2000)
                );
                let json = [("Content-Type", "application/json")];
                let answer = client.request("POST", "/api/v1/namespaces/default/configmaps", &json, body.as_bytes());
                assert_eq!(answer.code, 201, "{}", answer.text());
                written += 1;
            }
            written
        }
    });
    eventually("a few are written", 20, || if maps(&server).len() > 50 { Ok(()) } else { Err("too few".to_owned()) });
    ok(&["backup", path], &data);
    stop.store(true, Ordering::Relaxed);
    let written: usize = writer.join().unwrap();
    refused(&["backup", path], &data, "is there already");
    refused(&["restore", path], &data, "stop it first");
    server.kubectl.ok("create configmap later");
    let revision = server.kubectl.ok_args(&["get", "configmap", "later", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let authority = fs::read(data.join("certs/ca.crt")).unwrap();

    server.stop(libc::SIGTERM);
    ok(&["restore", path], &data);
    assert!(data.join("before-restore").exists());
    server.start_again();
    let back = maps(&server);
    // One state: all up to some moment, none after it.
    let expected: Vec<String> = (0..back.len()).map(|n| format!("n{n:05}")).collect();
    assert_eq!(back, expected);
    assert!((50..=written).contains(&back.len()), "{} of {written}", back.len());
    assert_eq!(fs::read(data.join("certs/ca.crt")).unwrap(), authority);
    server.kubectl.ok("create configmap after");
    let after = server.kubectl.ok_args(&["get", "configmap", "after", "-o", "jsonpath={.metadata.resourceVersion}"]);
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    assert!(number(&after) > number(&revision), "a revision came twice: {after} after {revision}");
    wait_healthy(&server);
    eventually("what was there is given up", 10, || {
        if data.join("before-restore").exists() { Err("it is still there".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn a_stopped_node_is_backed_up_and_its_backup_starts_another() {
    let mut server = start();
    server.kubectl.ok("create configmap mine");
    server.stop(libc::SIGTERM);
    let (data, file) = (server.dir.join("data"), server.dir.join("b.tar.gz"));
    ok(&["backup", file.to_str().unwrap()], &data);
    let piped = mote(&["backup", "-"], &data);
    assert!(piped.status.success() && piped.stdout.starts_with(&[0x1f, 0x8b]));
    fs::remove_dir_all(&data).unwrap();
    refused(&["backup", "/nowhere/b.tar.gz"], &data, "/nowhere/b.tar.gz");
    refused(&["backup", server.dir.join("c.tar.gz").to_str().unwrap()], &data, "there is no such directory");
    ok(&["restore", file.to_str().unwrap()], &data);
    server.start_again();
    assert_eq!(maps(&server), ["mine"]);

    server.stop(libc::SIGTERM);
    let bytes = fs::read(&file).unwrap();
    for (name, damaged) in [
        ("short", bytes[..bytes.len() - 9].to_vec()),
        ("foreign", b"no backup".to_vec()),
        ("flipped", {
            let mut bytes = bytes.clone();
            bytes[1000] ^= 4;
            bytes
        }),
    ] {
        let path = server.dir.join(name);
        fs::write(&path, damaged).unwrap();
        refused(&["restore", path.to_str().unwrap()], &data, "mote: ");
    }
    server.start_again();
    assert_eq!(maps(&server), ["mine"]);
}

#[test]
fn an_update_that_never_was_good_is_rolled_back_with_its_data() {
    let mut server = start();
    server.kubectl.ok("create configmap of-a");
    wait_healthy(&server);
    server.stop(libc::SIGTERM);
    // As another boot of another image: the boot is in the file of versions.
    let image = |server: &Server, slot: &str| {
        fs::write(server.dir.join("slot"), slot).unwrap();
        let file = server.dir.join("data/version");
        let text = fs::read_to_string(&file).unwrap();
        let boot = text.split("\"boot_id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        fs::write(&file, text.replace(&boot, "0123456789abcdef0123456789abcdef")).unwrap();
    };
    image(&server, "B");
    server.start_again();
    assert_eq!(kept(&server).len(), 1, "what A left is kept before B writes");
    server.kubectl.ok("create configmap of-b");
    server.kubectl.ok("delete configmap of-a");
    server.stop(libc::SIGKILL);
    // B was never good; the boot loader goes back to A.
    let text = version(&server).replace("\"healthy\":true", "\"healthy\":false");
    fs::write(server.dir.join("data/version"), text).unwrap();
    image(&server, "A");
    server.start_again();
    assert_eq!(maps(&server), ["of-a"]);
    assert!(server.log().contains("the update was rolled back"), "{}", server.log());
    wait_healthy(&server);

    // An update that was good is not taken back: whoever returns to A after it keeps the data.
    server.stop(libc::SIGTERM);
    image(&server, "C");
    server.start_again();
    server.kubectl.ok("create configmap of-c");
    wait_healthy(&server);
    server.stop(libc::SIGTERM);
    image(&server, "A");
    server.start_again();
    assert_eq!(maps(&server), ["of-a", "of-c"]);
    // Unless somebody who knows says so.
    server.stop(libc::SIGTERM);
    image(&server, "C");
    fs::write(server.dir.join("data-backups/restore"), "").unwrap();
    server.start_again();
    assert!(!server.dir.join("data-backups/restore").exists());
}

#[test]
fn data_of_a_newer_version_is_refused_with_what_to_do() {
    let mut server = start();
    wait_healthy(&server);
    server.stop(libc::SIGTERM);
    let (data, file) = (server.dir.join("data"), server.dir.join("b.tar.gz"));
    ok(&["backup", file.to_str().unwrap()], &data);
    let text = version(&server);
    let newer = |data: u64| text.replace("\"data\":1", &format!("\"data\":{data}")).replace("0.1.0", "9.0.0");
    fs::write(data.join("version"), newer(3)).unwrap();
    let config = server.dir.join("config.yaml");
    let output = mote(&["run", "--config", config.to_str().unwrap()], &data);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("Start mote 9.0.0 or newer again"), "{said}");
    // One release newer is read, and so is a backup of an older one put back.
    fs::write(data.join("version"), newer(2)).unwrap();
    server.start_again();
    assert!(version(&server).contains("\"data\":2"), "{}", version(&server));
    server.stop(libc::SIGTERM);
    fs::write(data.join("version"), newer(3)).unwrap();
    ok(&["restore", file.to_str().unwrap()], &data);
    server.start_again();
}

#[test]
fn a_damaged_file_starts_and_is_repaired_from_the_newest_backup() {
    let mut server = start();
    for n in 0..30 {
        server.kubectl.ok(&format!("create configmap n{n:02} --from-literal=text=this-is-value-{n:02}"));
    }
    let before = maps(&server);
    let data = server.dir.join("data");
    assert!(ok(&["store", "verify"], &data).contains(" 0 damaged"));
    wait_healthy(&server);
    server.stop(libc::SIGTERM);
    assert!(ok(&["store", "verify"], &data).contains(" 0 damaged"));
    // The next boot keeps what this one left.
    let text = version(&server);
    let boot = text.split("\"boot_id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    fs::write(data.join("version"), text.replace(&boot, "0123456789abcdef0123456789abcdef")).unwrap();
    server.start_again();
    eventually("a backup is kept", 20, || if kept(&server).len() == 1 { Ok(()) } else { Err("none".to_owned()) });
    server.stop(libc::SIGTERM);

    let file = data.join("store.redb");
    let mut image = fs::read(&file).unwrap();
    let text = b"this-is-value-07";
    let places: Vec<_> = (0..image.len()).filter(|at| image[*at..].starts_with(text)).collect();
    assert!(!places.is_empty());
    for place in places {
        image[place] ^= 1;
    }
    fs::write(&file, image).unwrap();
    let output = mote(&["store", "verify"], &data);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("configmaps/default/n07"), "{output:?}");
    server.start_again();
    assert_eq!(maps(&server), before);
    let value = server.kubectl.ok_args(&["get", "configmap", "n07", "-o", "jsonpath={.data.text}"]);
    assert_eq!(value, "this-is-value-07");
    assert!(server.log().contains("it is again what the backup says"), "{}", server.log());
    server.stop(libc::SIGTERM);
    assert!(ok(&["store", "verify"], &data).contains(" 0 damaged"));
    assert!(data.join("store.redb.damaged-1").exists());
    // Nothing but rubbish: what the backup holds comes back.
    fs::write(&file, vec![0x5a; 100_000]).unwrap();
    let _ = fs::remove_file(data.join("store.log"));
    server.start_again();
    assert_eq!(maps(&server), before);
}

/// A stopped node that has kept one backup, made of a boot before, in which `one` was there, and `two` came later.
fn with_a_backup(config: &str) -> Server {
    let dir = scratch();
    let mut server = Server::start_at(dir, &format!("{ALONE}backups: {{healthyAfterSeconds: 1{config}}}"));
    let data = server.dir.join("data");
    server.kubectl.ok("create configmap one --from-literal=text=this-is-value-1");
    wait_healthy(&server);
    server.stop(libc::SIGTERM);
    let text = version(&server);
    let boot = text.split("\"boot_id\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    fs::write(data.join("version"), text.replace(&boot, "0123456789abcdef0123456789abcdef")).unwrap();
    server.start_again();
    eventually("a backup is kept", 20, || if kept(&server).len() == 1 { Ok(()) } else { Err("none".to_owned()) });
    server.kubectl.ok("create configmap two --from-literal=text=this-is-value-2");
    server.stop(libc::SIGTERM);
    server
}

/// Flips a bit of each place in the database where this text is, `after` bytes behind its begin; says how many there are.
fn flip(data: &Path, text: &[u8], after: usize, bit: u8) -> usize {
    let file = data.join("store.redb");
    let mut image = fs::read(&file).unwrap();
    let places: Vec<_> = (0..image.len()).filter(|at| image[*at..].starts_with(text)).collect();
    for place in &places {
        image[place + after] ^= bit;
    }
    fs::write(&file, image).unwrap();
    places.len()
}

/// A start that ends by itself: its exit code, and what it said.
fn start_that_fails(server: &Server) -> (Option<i32>, String) {
    let mut command = Command::new("timeout");
    command.arg("60").arg(binary()).arg("run").arg("--config").arg(server.dir.join("config.yaml"));
    let output = command.arg("--data-dir").arg(server.dir.join("data")).output().expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The store says of itself that it is of a format which this build does not read: nothing of it is damaged, and nothing is touched.
#[test]
fn a_store_that_cannot_be_opened_is_left_or_replaced_as_the_policy_says() {
    // redb's leaf of three keys, and their values behind them: `format` is the first.
    let names = b"formatjournalreserved";
    for (policy, restored) in [("", false), (", onFailedOpen: Stop", false), (", onFailedOpen: Restore", true)] {
        let mut server = with_a_backup(policy);
        let data = server.dir.join("data");
        assert!(flip(&data, names, names.len(), 8) > 0);
        let file = fs::read(data.join("store.redb")).unwrap();
        let output = mote(&["store", "verify"], &data);
        assert!(!output.status.success(), "{output:?}");
        assert!(format!("{output:?}").contains("format 9"), "{output:?}");
        if restored {
            // What was there goes when the node counts as good.
            let config = server.dir.join("config.yaml");
            let text = fs::read_to_string(&config).unwrap();
            fs::write(&config, text.replace("healthyAfterSeconds: 1,", "healthyAfterSeconds: 3600,")).unwrap();
            server.start_again();
            assert_eq!(maps(&server), ["one"], "{policy}");
            assert!(server.log().contains("the newest backup takes its place"), "{}", server.log());
            let before = server.dir.join("data/before-restore/old");
            assert!(fs::read(before.join("store.redb")).is_ok_and(|kept| kept == file), "what was there is kept");
            continue;
        }
        // As often as somebody tries.
        for _ in 0..2 {
            let (code, said) = start_that_fails(&server);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("format 9") && !said.contains("panicked"), "{said}");
        }
        assert!(fs::read(data.join("store.redb")).is_ok_and(|now| now == file), "the file was changed");
    }
    // The policy, and no backup to follow it with: the reason is told, and nothing is lost.
    let server = with_a_backup(", onFailedOpen: Restore");
    let data = server.dir.join("data");
    kept(&server).iter().for_each(|backup| drop(fs::remove_dir_all(backup).or_else(|_| fs::remove_file(backup))));
    assert!(flip(&data, names, names.len(), 8) > 0);
    let file = fs::read(data.join("store.redb")).unwrap();
    let (code, said) = start_that_fails(&server);
    assert_eq!((code, said.contains("format 9")), (Some(1), true), "{said}");
    assert!(fs::read(data.join("store.redb")).is_ok_and(|now| now == file), "the file was changed");
}

/// `backups.onDamage: Report`: the key that damage took is named wherever somebody looks, all others are served, and writing it
/// again mends it.
#[test]
fn damage_that_is_only_reported_is_named_until_it_is_mended() {
    let mut server = with_a_backup(", onDamage: Report");
    let data = server.dir.join("data");
    assert!(flip(&data, b"this-is-value-2", 0, 1) > 0);
    let output = mote(&["store", "verify"], &data);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("configmaps/default/two"), "{output:?}");
    server.start_again();
    let said = |expected: &str| server.kubectl.ok("get --raw /readyz?verbose").contains(expected);
    assert_eq!(maps(&server), ["one"]);
    assert!(server.log().contains("configmaps/default/two"), "{}", server.log());
    assert!(said("[-]store-undamaged"), "the node is ready, and says so");
    let damaged =
        |count: u32| server.client().get("/metrics").text().contains(&format!("\nmote_store_damaged_keys {count}\n"));
    assert!(damaged(1));
    assert!(ok(&["status"], &data).contains("configmaps/default/two"), "{}", ok(&["status"], &data));
    server.kubectl.ok("create configmap two --from-literal=text=again");
    assert!(damaged(0) && said("[+]store-undamaged"));
    server.stop(libc::SIGTERM);
    server.start_again();
    assert_eq!(maps(&server), ["one", "two"]);
    assert!(ok(&["store", "verify"], &data).contains(" 0 damaged"));
}

#[test]
fn status_is_told_by_a_node_that_runs_and_by_one_that_does_not() {
    let mut server = start();
    let data = server.dir.join("data");
    server.kubectl.ok("create configmap one");
    let json = |data: &Path| -> serde_json::Value {
        serde_json::from_str(&ok(&["status", "-o", "json"], data)).expect("JSON")
    };
    let running = json(&data);
    assert_eq!((&running["running"], &running["ready"]), (&true.into(), &true.into()), "{running}");
    assert_eq!(running["store"]["damaged"], 0);
    assert!(running["flash"]["writtenLastDayBytes"].as_u64() > Some(0), "{running}");
    assert!(running["flash"]["writeAmplification"].as_f64() > Some(0.0), "{running}");
    assert!(ok(&["status"], &data).contains("the API is ready"));
    let ready = server.kubectl.ok("get --raw /readyz?verbose");
    assert!(ready.contains("[+]store-undamaged ok"), "{ready}");
    server.stop(libc::SIGKILL);
    let files = |data: &Path| -> Vec<_> {
        let mut files: Vec<_> =
            fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
        files.sort();
        files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect()
    };
    let before = files(&data);
    let stopped = json(&data);
    assert_eq!((&stopped["running"], &stopped["store"]["damaged"]), (&false.into(), &0.into()), "{stopped}");
    assert!(
        stopped["store"]["entries"].as_u64() >= running["store"]["entries"].as_u64().map(|count| count / 2),
        "{stopped}"
    );
    assert!(files(&data) == before, "the files of a stopped node were changed");
    refused(&["status"], &server.dir.join("nowhere"), "there is no such directory");
}

#[test]
fn a_directory_of_backups_recovers_and_keeps_what_failed() {
    let mut server = start();
    let (data, storage) = (server.dir.join("data"), server.dir.join("recovery"));
    let storage = storage.to_str().unwrap();
    refused(&["restore", "--auto-recovery", storage], &data, "stop it first");
    server.kubectl.ok("create configmap one");
    ok(&["backup", "--auto-recovery", storage], &data);
    server.kubectl.ok("create configmap two");
    server.stop(libc::SIGTERM);
    ok(&["restore", "--auto-recovery", storage], &data);
    let names = |below: &str| fs::read_dir(Path::new(storage).join(below)).map_or(0, Iterator::count);
    assert_eq!(names("failed"), 1);
    server.start_again();
    assert_eq!(maps(&server), ["one"]);
    server.stop(libc::SIGTERM);
    // The one that was put back last did not help: there is no other.
    refused(&["restore", "--auto-recovery", storage], &data, "no backups for restoring");
    ok(&["backup", "--auto-recovery", storage], &data);
    ok(&["restore", "--auto-recovery", storage, "--dont-save-failed"], &data);
    assert_eq!((names("failed"), names("restored")), (1, 1));
    server.start_again();
    assert_eq!(maps(&server), ["one"]);
}

#[test]
fn events_are_kept_when_the_configuration_says_so() {
    let event = |server: &Server| {
        let body = r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"kept"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"}}"#;
        let json = [("Content-Type", "application/json")];
        let answer = server.client().request("POST", "/api/v1/namespaces/default/events", &json, body.as_bytes());
        assert_eq!(answer.code, 201, "{}", answer.text());
    };
    let there = |server: &Server| server.client().get("/api/v1/namespaces/default/events/kept").code;
    for (config, code) in [("store: {persist: [events], eventTTL: 2h}", 200), ("", 404)] {
        let mut server = Server::start_at(scratch(), &format!("{ALONE}{config}"));
        event(&server);
        server.stop(libc::SIGTERM);
        server.start_again();
        assert_eq!(there(&server), code, "{config:?}");
    }
}
