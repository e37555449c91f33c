//! The API server on its own store and on etcd, each on a small file system on a loop device: what reaches the device is what is
//! compared. The kernel's books for a process are of no use for that (see docs/storage.md).
use crate::{milliseconds, part_of, row};
use mote_tests::{
    Server,
    etcd::Etcd,
    http::{Client, Connection},
    server::scratch,
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const ALONE: &str = "components: {disabled: [kubelet, network, scheduler, controllers]}\n";
/// No part of what is compared, nine hundred bytes a request, and on the disk of one of the two alone.
const NO_AUDIT: &str = "apiServer: {auditLog: {profile: None}}\n";
const PODS: usize = 1000;
const UPDATES: usize = 10;
const CLIENTS: usize = 8;
/// Longer than lazy writes wait in a storm.
const SETTLE: Duration = Duration::from_secs(35);
const IDLE_SECONDS: u64 = 60;
const OBJECTS: usize = 10_000;

/// A directory on a file system of its own.
struct Disk {
    device: String,
    dir: PathBuf,
    image: PathBuf,
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Disk {
    /// None: there are no loop devices here, or we are not root.
    fn new(dir: &Path, name: &str) -> Option<Disk> {
        let (image, mounted) = (dir.join(format!("{name}.img")), dir.join(name));
        fs::create_dir(&mounted).ok()?;
        fs::File::create(&image).and_then(|file| file.set_len(512 << 20)).ok()?;
        let text = image.to_str()?;
        run("mke2fs", &["-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", text])?;
        let device = run("losetup", &["-f", "--show", text])?;
        let disk = Disk { device, dir: mounted, image };
        run("mount", &["-t", "ext4", "-o", "noatime", &disk.device, disk.dir.to_str()?])?;
        Some(disk)
    }

    /// All that was given to the device so far, once all is.
    fn written_bytes(&self) -> f64 {
        run("sync", &["-f", &self.dir.display().to_string()]).expect("it can be synced");
        let stat = fs::read_to_string(format!("/sys/block/{}/stat", self.device.trim_start_matches("/dev/")));
        let stat = stat.expect("the kernel counts");
        let sectors: f64 = stat.split_whitespace().nth(6).and_then(|field| field.parse().ok()).expect("a number");
        sectors * 512.0
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.dir.display().to_string()]);
        let _ = run("losetup", &["-d", &self.device]);
        let _ = fs::remove_file(&self.image);
    }
}

pub fn node() {
    let dir = scratch();
    let (Some(ours), Some(theirs)) = (Disk::new(&dir, "data"), Disk::new(&dir, "etcd")) else {
        return println!("no loop devices here: what is written to the disk is not measured");
    };
    let quiet = |dir: &Path| {
        let written =
            fs::create_dir(dir.join("config.d")).and_then(|()| fs::write(dir.join("config.d/audit.yaml"), NO_AUDIT));
        written.expect("the directory can be written");
    };
    quiet(&dir);
    let mut server = Server::start_at(dir.clone(), ALONE);
    let (created, [stormed, hasty]) = storms(&server.client(), &ours);
    let before = ours.written_bytes();
    thread::sleep(Duration::from_secs(IDLE_SECONDS));
    let idle = ours.written_bytes() - before;
    row(&format!("written in {IDLE_SECONDS} idle seconds, {PODS} pods there"), idle, "bytes", "0");
    snapshots(&server);
    server.stop(libc::SIGTERM);
    drop(server);

    let data = theirs.dir.join("data").display().to_string();
    let etcd = Etcd::start_with(&["--data-dir", &data]);
    let beside = scratch();
    quiet(&beside);
    let server = Server::start_at(beside, &format!("{ALONE}{}", etcd.config("/registry")));
    let (etcd_created, [etcd_stormed, etcd_hasty]) = storms(&server.client(), &theirs);
    for (what, ours, theirs, goal) in [
        (format!("{PODS} pods created"), created, etcd_created, ""),
        (format!("status of {PODS} pods, {UPDATES} updates each, an update a second"), stormed, etcd_stormed, ""),
        (
            format!("status of {PODS} pods, {UPDATES} updates each, as fast as they are taken"),
            hasty,
            etcd_hasty,
            "<= 0.05",
        ),
    ] {
        row(&what, ours / 1e6, "MB", "");
        row("  the same on etcd", theirs / 1e6, "MB", "");
        row("  ours to etcd's", ours / theirs, "x", goal);
    }
    drop((server, etcd, theirs, ours));
    let _ = fs::remove_dir_all(dir);
}

/// Bytes that reached the disk for pods, and for what is reported of them: slowly, and at once.
fn storms(client: &Client, disk: &Disk) -> (f64, [f64; 2]) {
    let pods = "/api/v1/namespaces/default/pods";
    // There is no controller to make it.
    client.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}));
    let by_clients = |act: &(dyn Fn(&mut Connection, usize) + Sync)| {
        thread::scope(|scope| {
            for at in 0..CLIENTS {
                scope.spawn(move || {
                    let mut connection = Connection::open(client).expect("a connection");
                    (at..PODS).step_by(CLIENTS).for_each(|n| act(&mut connection, n));
                });
            }
        });
    };
    let written = |act: &dyn Fn()| {
        thread::sleep(SETTLE);
        let before = disk.written_bytes();
        act();
        thread::sleep(SETTLE);
        disk.written_bytes() - before
    };
    let created = written(&|| {
        by_clients(&|connection, n| {
            let pod = json!({"metadata": {"name": format!("pod-{n}"), "labels": {"app": "web"}}, "spec": {"automountServiceAccountToken": false,
                "containers": [{"name": "web", "image": "localhost/busybox:1", "command": ["httpd", "-f"], "ports": [{"containerPort": 80}],
                "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}}, "readinessProbe": {"httpGet": {"path": "/", "port": 80}}}]}});
            let (code, body) = connection.request("POST", pods, &pod.to_string()).expect("an answer");
            assert_eq!(code, 201, "{}", String::from_utf8_lossy(&body));
        });
    });
    let storm = |second: Duration| {
        written(&|| {
            for update in 0..UPDATES {
                let start = Instant::now();
                by_clients(&|connection, n| {
                    let time = format!("2026-01-01T00:{:02}:{update:02}Z", second.as_secs());
                    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time});
                    let conditions = ["Initialized", "PodScheduled", "ContainersReady", "Ready"].map(condition);
                    let status = json!({"status": {"phase": "Running", "podIP": "10.42.0.9", "startTime": time,
                        "conditions": conditions,
                        "containerStatuses": [{"name": "web", "image": "localhost/busybox:1", "imageID": "", "ready": true, "restartCount": update,
                            "containerID": format!("containerd://{n:064x}"), "state": {"running": {"startedAt": time}}}]}});
                    let path = format!("{pods}/pod-{n}/status");
                    let headers = [("Content-Type", "application/merge-patch+json")];
                    let answer = connection.send("PATCH", &path, &headers, status.to_string().as_bytes());
                    let answer = answer.expect("an answer");
                    assert_eq!(answer.code, 200, "{}", answer.text());
                });
                thread::sleep(second.saturating_sub(start.elapsed()));
            }
        })
    };
    (created, [storm(Duration::from_secs(1)), storm(Duration::ZERO)])
}

/// The p99 of a GET while backups are made one after the other, and without.
fn snapshots(server: &Server) {
    let client = server.client();
    mote_tests::cost::create_objects(&client, OBJECTS as u64);
    let path = format!("{}/object-0", mote_tests::cost::CONFIG_MAPS);
    let p99 = || {
        let mut connection = Connection::open(&client).expect("a connection");
        let mut times: Vec<f64> = (0..3000)
            .map(|_| {
                let start = Instant::now();
                let (code, _) = connection.request("GET", &path, "").expect("an answer");
                assert_eq!(code, 200);
                milliseconds(start)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        part_of(&times, 0.99)
    };
    let (target, data) = (server.dir.join("backup"), server.dir.join("data"));
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        alone.push(p99());
        let (ends, count) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    let mut command = Command::new(mote_tests::binary());
                    command.arg("backup").arg(&target).arg("--data-dir").arg(&data);
                    assert!(command.output().expect("it starts").status.success(), "a backup");
                    let _ = fs::remove_file(&target);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            beside.push(p99());
            ends.store(true, Ordering::Relaxed);
        });
        assert!(count.load(Ordering::Relaxed) > 0);
    }
    let (alone, beside) = (crate::median(alone), crate::median(beside));
    row("p99 of a GET, 11 MB live", alone, "ms", "");
    row("  while backups are made", beside, "ms", "");
    row("  growth", beside - alone, "ms", "<= 2");
}
