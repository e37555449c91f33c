//! What the store survives, with the real binary on a real file system: kill -9 at any moment while somebody writes, and
//! a disk that is full, or fails.
use mote_tests::{Server, eventually, http::Client, server::scratch};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::AsRawFd,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

const ALONE: &str = "components: {disabled: [kubelet, network, scheduler, controllers]}\n";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// As often as `MOTE_KILLS` says.
const KILLS: u32 = 5;

fn map(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}})
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Creates and updates until the server is gone; returns the names that were acknowledged, the last acknowledged count
/// of each writer, and the highest revision that was seen.
fn write(client: &Client, writer: usize, round: u32, stop: &AtomicBool) -> (Vec<String>, u64, u64) {
    let (mut names, mut count, mut newest) = (Vec::new(), 0, 0);
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("load-{writer}-{round}-{n}");
        let body = map(&name, &"x".repeat(n as usize * 997 % 9000)).to_string();
        let json = [("Content-Type", "application/json")];
        let Ok(created) = client.try_request("POST", MAPS, &json, body.as_bytes()) else { break };
        assert_eq!(created.code, 201, "{}", created.text());
        newest = newest.max(revision(&created.json()));
        names.push(name);
        let path = format!("{MAPS}/count-{writer}");
        let patch = json!({"data": {"text": format!("{round}-{n}")}}).to_string();
        let merge = [("Content-Type", "application/merge-patch+json")];
        let Ok(patched) = client.try_request("PATCH", &path, &merge, patch.as_bytes()) else { break };
        assert_eq!(patched.code, 200, "{}", patched.text());
        newest = newest.max(revision(&patched.json()));
        count = n;
    }
    (names, count, newest)
}

#[test]
fn kill_9_under_load_loses_nothing_and_revisions_rise() {
    let mut server = Server::start_at(scratch(), ALONE);
    let kills = std::env::var("MOTE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    for writer in 0..3 {
        assert_eq!(server.client().post(MAPS, &map(&format!("count-{writer}"), "")).code, 201);
    }
    let mut acknowledged = Vec::new();
    for round in 0..kills {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (client, stop) = (server.client(), stop.clone());
                thread::spawn(move || write(&client, writer, round, &stop))
            })
            .collect();
        thread::sleep(Duration::from_millis(300 + u64::from(round) * 7919 % 1500));
        server.stop(libc::SIGKILL);
        stop.store(true, Ordering::Relaxed);
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join().expect("no answer was wrong")).collect();
        server.start_again();
        let list = server.client().get(MAPS).json();
        let newest = written.iter().map(|(_, _, newest)| *newest).max().unwrap_or_default();
        assert!(revision(&list) >= newest, "round {round}: revisions go back from {newest} to {}", revision(&list));
        let items = list["items"].as_array().expect("a list");
        let text = |name: &str| {
            let item = items.iter().find(|item| item["metadata"]["name"] == name)?;
            Some(item["data"]["text"].as_str().unwrap_or_default().to_owned())
        };
        for (writer, (names, count, _)) in written.into_iter().enumerate() {
            acknowledged.extend(names);
            let found = text(&format!("count-{writer}")).unwrap_or_default();
            let found: u64 = found.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default();
            assert!(found >= count, "round {round}: writer {writer} was told of {count}, and {found} is there");
        }
        for name in &acknowledged {
            assert!(text(name).is_some(), "round {round}: {name} was acknowledged and is gone");
        }
        // What a client knew before is told to list again.
        let watch = server.client().get(&format!("{MAPS}?watch=1&resourceVersion={newest}&timeoutSeconds=1"));
        assert!(watch.text().contains("\"code\":410"), "round {round}: {}", watch.text());
    }
    assert!(acknowledged.len() > kills as usize * 5, "{} writes", acknowledged.len());
    eprintln!("{kills} kills, {} creations acknowledged", acknowledged.len());
    let (status, took) = server.stop(libc::SIGTERM);
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    server.start_again();
    assert!(server.log().matches("damaged").count() == 0, "{}", server.log());
}

fn umount(at: &str) {
    assert!(Command::new("umount").arg(at).status().expect("umount(8) is there").success(), "umount {at}");
}

/// Runs `mount` in the calling thread's namespace.
fn mount(arguments: &[&str]) {
    let status = Command::new("mount").args(arguments).status().expect("mount(8) is there");
    assert!(status.success(), "mount {arguments:?}");
}

/// A directory for a server whose data is to be on a disk of its own, mounted where only this thread and what it starts see it.
fn apart() -> (PathBuf, String) {
    let dir = scratch();
    let data = dir.join("data");
    fs::create_dir(&data).expect("a directory");
    // SAFETY: takes no memory; a mount namespace for this thread and what it starts.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "needs root");
    mount(&["--make-rprivate", "/"]);
    let at = data.to_str().expect("a path in UTF-8").to_owned();
    (dir, at)
}

/// What a thread that creates maps until it is stopped was told: the names that were acknowledged, and each kind of refusal.
type Told = (Vec<String>, BTreeMap<u16, String>);

/// Creates maps of many sizes, whatever comes of it.
fn load(client: &Client, writer: usize, stop: &AtomicBool) -> Told {
    let (mut names, mut refusals) = (Vec::new(), BTreeMap::new());
    for n in 0..5000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("under-load-{writer}-{n}");
        let answer = client.post(MAPS, &map(&name, &"x".repeat(n * 997 % 9000)));
        match answer.code {
            201 => names.push(name),
            code => drop(refusals.insert(code, answer.text())),
        }
    }
    (names, refusals)
}

/// Runs `trouble` while two writers write; returns what they were told.
fn under_load(server: &Server, trouble: impl FnOnce(&Client)) -> Told {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                let (client, stop) = (server.client(), &stop);
                scope.spawn(move || load(&client, writer, stop))
            })
            .collect();
        trouble(&server.client());
        stop.store(true, Ordering::Relaxed);
        let (mut names, mut refusals) = Told::default();
        for writer in writers {
            let (more, others) = writer.join().expect("an answer to each request");
            names.extend(more);
            refusals.extend(others);
        }
        (names, refusals)
    })
}

/// What was acknowledged is there, and what was refused alone is not.
fn all_there(server: &Server, acknowledged: &[String]) {
    let list = server.client().get(MAPS).json();
    let there: BTreeSet<&str> =
        list["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !there.contains(name.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}\n{}", server.log());
}

/// A server's answer to one more write.
fn answer_to_one(client: &Client) -> (u16, Value) {
    let answer = client.post(MAPS, &map("one-more", "x"));
    (answer.code, answer.json())
}

#[test]
fn a_full_disk_is_told_and_deletions_go_on() {
    let (dir, at) = apart();
    mount(&["-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", &at]);
    let server = Server::start_at(dir, ALONE);
    let (client, text) = (server.client(), "x".repeat(150_000));
    let mut count = 0;
    let refused = loop {
        let answer = client.post(MAPS, &map(&format!("big-{count}"), &text));
        if answer.code != 201 {
            break answer;
        }
        count += 1;
    };
    assert!(count > 5 && refused.code == 507, "{count}: {}", refused.text());
    assert_eq!(refused.json()["reason"], "InsufficientStorage");
    assert_eq!(client.get(&format!("{MAPS}/big-0")).code, 200);
    for n in 0..count / 2 {
        let answer = client.request("DELETE", &format!("{MAPS}/big-{n}"), &[], b"");
        assert_eq!(answer.code, 200, "{n} of {count}: {}", answer.text());
    }
    mount(&["-o", "remount,size=64m", &at]);
    eventually("the disk takes more again", 5, || match client.post(MAPS, &map("after", &text)) {
        answer if answer.code == 201 => Ok(()),
        answer => Err(answer.text()),
    });
    let mut server = server;
    server.stop(libc::SIGKILL);
    server.start_again();
    let left = server.client().get(MAPS).json()["items"].as_array().map_or(0, Vec::len);
    assert_eq!(left, count - count / 2 + 1);
    server.stop(libc::SIGTERM);
}

/// A file system in a file, on a loop device. None: this kernel has no such devices for us.
struct Loop(String);

impl Loop {
    fn new(file: &str, bytes: u64) -> Option<Loop> {
        fs::File::create(file).and_then(|file| file.set_len(bytes)).expect("a sparse file");
        let made = Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(file).status();
        assert!(made.expect("mke2fs(8) is there").success());
        let output = Command::new("losetup").args(["-f", "--show", file]).output().expect("losetup(8) is there");
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() {
            eprintln!("no loop device here, so this is not tried: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Loop(name))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // It goes when nobody has it mounted any more.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A file system that finds an error in itself, and from then on takes no writes (`errors=remount-ro`, what most boards' cards have):
/// the commonest end of a card. Reads go on, writers are told why, and a start on the file system as it was checked finds all
/// that was acknowledged.
#[test]
fn a_file_system_that_makes_itself_read_only_under_load() {
    let (dir, at) = apart();
    let Some(disk) = Loop::new(&dir.join("disk").display().to_string(), 64 << 20) else { return };
    mount(&["-t", "ext4", "-o", "errors=remount-ro", &disk.0, &at]);
    let mut server = Server::start_at(dir, ALONE);
    let client = server.client();
    assert_eq!(client.post(MAPS, &map("before", "x")).code, 201);
    let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", disk.0.trim_start_matches("/dev/"));
    let (acknowledged, refusals) = under_load(&server, |client| {
        thread::sleep(Duration::from_millis(500));
        fs::write(&trigger, "the test's error").expect("ext4 has it");
        let refused = eventually("writes are refused", 30, || match answer_to_one(client) {
            (201 | 409, _) => Err("taken".to_owned()),
            refused => Ok(refused),
        });
        let (code, body) = refused;
        assert_eq!((code, &body["reason"]), (503, &json!("ServiceUnavailable")), "{body}");
        assert!(body["message"].as_str().is_some_and(|message| message.contains("read-only")), "{body}");
        assert_eq!(client.get(&format!("{MAPS}/before")).code, 200, "reads go on");
        let watch = client.get(&format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1"));
        assert!(watch.text().contains("\"before\""), "watches go on");
        assert_eq!(client.get("/livez").code, 200, "a start would not help");
    });
    assert!(refusals.keys().all(|code| [500, 503].contains(code)), "{refusals:?}");
    let trouble = client.get("/metrics").text();
    assert!(!trouble.contains("mote_store_failed_flushes_total 0\n"), "failed flushes are counted");
    server.stop(libc::SIGKILL);
    umount(&at);
    // 1: errors were corrected.
    let checked = Command::new("e2fsck").args(["-fp", &disk.0]).status().expect("e2fsck(8) is there");
    assert!(matches!(checked.code(), Some(0 | 1)), "{checked}");
    mount(&["-t", "ext4", &disk.0, &at]);
    server.start_again();
    all_there(&server, &acknowledged);
    assert!(!acknowledged.is_empty() && !server.log().contains("damaged"), "{}", server.log());
    server.stop(libc::SIGTERM);
    umount(&at);
}

/// Read-only for a while, and back: nothing has to be started anew. A mount of the directory over itself is what is read-only, for a file
/// system with files open for writing cannot be; and the disk is full first, for what could not be written is not kept open.
#[test]
fn a_disk_that_is_read_only_for_a_while() {
    let (dir, at) = apart();
    mount(&["-t", "tmpfs", "-o", "size=12m,mode=0700", "tmpfs", &at]);
    let mut server = Server::start_at(dir, ALONE);
    let (client, text) = (server.client(), "x".repeat(150_000));
    let mut acknowledged = Vec::new();
    while client.post(MAPS, &map(&format!("big-{}", acknowledged.len()), &text)).code == 201 {
        acknowledged.push(format!("big-{}", acknowledged.len()));
    }
    mount(&["--bind", &at, &at]);
    mount(&["-o", "remount,bind,ro", &at]);
    for _ in 0..3 {
        let (code, body) = answer_to_one(&client);
        assert_eq!((code, &body["reason"]), (503, &json!("ServiceUnavailable")), "{body}");
        assert!(body["message"].as_str().is_some_and(|message| message.contains("read-only")), "{body}");
        let removed = client.request("DELETE", &format!("{MAPS}/big-0"), &[], b"");
        assert_eq!(removed.code, 503, "what frees space is a write too: {}", removed.text());
    }
    assert_eq!(client.get(&format!("{MAPS}/big-0")).code, 200, "reads go on");
    assert_eq!([client.get("/livez").code, client.get("/readyz").code], [200, 200], "it serves what it has");
    umount(&at);
    mount(&["-o", "remount,size=64m", &at]);
    eventually("it goes on by itself", 30, || match answer_to_one(&client) {
        (201 | 409, _) => Ok(()),
        (code, body) => Err(format!("{code}: {body}")),
    });
    all_there(&server, &acknowledged);
    server.stop(libc::SIGKILL);
    server.start_again();
    acknowledged.push("one-more".to_owned());
    all_there(&server, &acknowledged);
    server.stop(libc::SIGTERM);
}

/// `FS_IOC_SHUTDOWN` of linux/fs.h, and its flag for a disk that is pulled out: nothing more is written, not even what waits.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
static NO_LOG_FLUSH: u32 = 2;

/// From one moment on every write gives EIO. Reads go on, nobody is told that a write worked, and a start on the mended file system
/// finds all that was acknowledged.
#[test]
fn a_disk_that_gives_nothing_but_errors() {
    let (dir, at) = apart();
    let Some(disk) = Loop::new(&dir.join("disk").display().to_string(), 64 << 20) else { return };
    mount(&["-t", "ext4", &disk.0, &at]);
    let mut server = Server::start_at(dir, ALONE);
    // Its file is not to be read any more later on.
    let client = server.client();
    assert_eq!(client.post(MAPS, &map("before", "x")).code, 201);
    let (acknowledged, refusals) = under_load(&server, |client| {
        thread::sleep(Duration::from_millis(500));
        let root = fs::File::open(&at).expect("it is mounted");
        // SAFETY: the descriptor is open, and the flag outlives the call.
        let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN as _, &raw const NO_LOG_FLUSH) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        eventually("writes are refused", 30, || match answer_to_one(client) {
            (500 | 503, body) if body["kind"] == "Status" => Ok(()),
            (code, body) => Err(format!("{code}: {body}")),
        });
        assert_eq!(client.get(&format!("{MAPS}/before")).code, 200, "reads go on");
    });
    assert!(refusals.keys().all(|code| [500, 503].contains(code)), "{refusals:?}");
    let trouble = answer_to_one(&client).1["message"].as_str().unwrap_or_default().to_owned();
    assert!(trouble.contains("Input/output error") || trouble.contains("read-only"), "{trouble}");
    server.stop(libc::SIGKILL);
    umount(&at);
    mount(&["-t", "ext4", &disk.0, &at]);
    server.start_again();
    all_there(&server, &acknowledged);
    assert!(!acknowledged.is_empty() && !server.log().contains("damaged"), "{}", server.log());
    server.stop(libc::SIGTERM);
    umount(&at);
}
