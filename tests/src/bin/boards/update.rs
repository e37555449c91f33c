//! The two systems of an image, for real: through a boot loader on the disk the other slot is written, booted and kept when its node is
//! well; a system whose Mote does not start, one whose Mote does not stay up, one that holds nothing and one whose kernel does not start
//! are gone back from without anybody's help, and the data goes back with them.
use super::start;
use mote_tests::{
    Kubectl,
    guest::{Guest, Setup, images},
};
use std::{fs, path::Path, process::Command};

/// How long a node must be well here; usually five minutes.
const CONFIG: &str = "backups: {healthyAfterSeconds: 60}\n";
/// A slot that will not be well has twenty minutes for it. Here they begin when the test has seen it, and are short.
const IMPATIENT: &str = "[Service]\nEnvironment=MOTE_TRIAL_SECONDS=20\nTimeoutStartSec=infinity\n\
    ExecStartPre=/bin/sh -c 'until [ -e /run/seen ]; do sleep 1; done'\n";

/// debugfs COMMANDS on a root file system.
fn change(root: &Path, commands: &str) {
    let script = root.with_extension("debugfs");
    fs::write(&script, commands).expect("the temporary directory can be written");
    let output = Command::new("debugfs").arg("-w").arg("-f").arg(&script).arg(root).output().expect("debugfs runs");
    assert!(output.status.success(), "debugfs: {}", String::from_utf8_lossy(&output.stderr));
}

/// A copy of the board's root file system with a mark in it and, in place of mote, a program when one is given, which finds the real one
/// as /usr/bin/mote-real.
fn system(dir: &Path, board: &str, mark: &str, program: Option<&str>) {
    let root = dir.join("second");
    let from = images(board).join(format!("mote-{board}.root"));
    let copied = Command::new("cp").arg("--sparse=always").arg(from).arg(&root).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp");
    let file = |name: &str, text: &str| {
        fs::write(dir.join(name), text).expect("the temporary directory can be written");
        dir.join(name).display().to_string()
    };
    let mut commands = format!("write {} /etc/mark\n", file("mark", mark));
    if let Some(program) = program {
        let (program, unit) = (file("program", program), file("unit", IMPATIENT));
        let place = "/etc/systemd/system/mote-good.service.d";
        commands += &format!(
            "mkdir {place}\nwrite {unit} {place}/test.conf\nln /usr/bin/mote /usr/bin/mote-real\nunlink /usr/bin/mote\n\
             write {program} /usr/bin/mote\nset_inode_field /usr/bin/mote mode 0100755\n"
        );
    }
    change(&root, &commands);
}

fn put(kubectl: &Kubectl, guest: &Guest, name: &str) {
    guest.eventually("an object is written", || {
        let output = kubectl.run(&format!("create configmap {name} --from-literal=a=b --request-timeout=30s"));
        if output.stdout.contains("created") || output.stderr.contains("AlreadyExists") {
            Ok(())
        } else {
            Err(output.to_string())
        }
    });
}

fn names(kubectl: &Kubectl, guest: &Guest) -> Vec<String> {
    guest.eventually("the objects", || {
        let output = kubectl.run("get configmaps -o name --request-timeout=30s");
        let names = output.stdout.lines().filter_map(|line| line.strip_prefix("configmap/")).map(str::to_owned);
        let names: Vec<_> = names.filter(|name| name != "kube-root-ca.crt").collect();
        if output.success { Ok(names) } else { Err(output.to_string()) }
    })
}

fn slot(guest: &Guest) -> String {
    guest.eventually("which slot runs", || guest.shell("/usr/lib/mote/slot")).trim().to_owned()
}

fn wait_slot(guest: &Guest, expected: &str) {
    guest.eventually(expected, || match guest.shell("/usr/lib/mote/slot") {
        Ok(line) if line.trim() == expected => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Writes the other slot from the second disk, and starts it.
fn update(guest: &mut Guest) {
    // The node is well, so that what it leaves is kept.
    guest.eventually("this slot is good", || match guest.shell("grep -q '\"healthy\":true' /var/lib/mote/version") {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("not yet {error}")),
    });
    // The board may have looked at the disk when something else was on it.
    let write =
        "echo 1 >/proc/sys/vm/drop_caches; blockdev --flushbufs /dev/vdb; /usr/lib/mote/slot update /dev/vdb 2>&1";
    let said = guest.shell_for(600, write).expect("the slot is written");
    println!("{}", said.trim().lines().last().unwrap_or_default());
    let _ = guest.shell("systemctl --no-block reboot");
    guest.wait_off();
    guest.power_on();
    guest.follow_restarts();
}

/// A system that is not well in slot b, which is gone back from without anybody's help; meanwhile, what `meanwhile` does.
fn goes_back(guest: &mut Guest, kubectl: &Kubectl, mark: &str, meanwhile: impl FnOnce(&Guest)) {
    update(guest);
    assert_eq!(guest.shell("cat /etc/mark").as_deref(), Ok(mark));
    assert_eq!(slot(guest), "running=b good=a try=b left=1");
    meanwhile(guest);
    guest.eventually("the board is told that it was seen", || guest.shell("touch /run/seen"));
    guest.wait_off();
    guest.power_on();
    guest.follow_restarts();
    is_back(guest, kubectl);
}

fn is_back(guest: &Guest, kubectl: &Kubectl) {
    assert_eq!(slot(guest), "running=a good=a try= left=0");
    guest.wait_ready(kubectl);
    assert_eq!(names(kubectl, guest), ["of-a"], "the data is the good slot's");
}

pub fn run(mut setup: Setup) {
    let board = setup.board.clone();
    let dir = mote_tests::server::scratch();
    setup.loader = true;
    setup.second = Some(dir.join("second"));
    setup.dropped.push(("config.yaml", CONFIG.into()));
    // It serves for a while, every time, so that there is data of its own.
    let falls =
        "#!/bin/sh\n[ \"$1\" = run ] || exec mote-real \"$@\"\nexec timeout --foreground -s KILL 40 mote-real \"$@\"\n";
    system(&dir, &board, "falls", Some(falls));
    let (mut guest, kubectl) = start(setup);
    assert_eq!(slot(&guest), "running=a good=a try= left=0");
    put(&kubectl, &guest, "of-a");

    goes_back(&mut guest, &kubectl, "falls", |guest| put(&kubectl, guest, "of-the-one-that-falls"));
    println!("{board}: a system whose Mote does not stay up was gone back from, and its data with it");

    let stops = "#!/bin/sh\n[ \"$1\" != run ] || exit 1\nexec mote-real \"$@\"\n";
    system(&dir, &board, "stops", Some(stops));
    goes_back(&mut guest, &kubectl, "stops", |_| ());
    println!("{board}: a system whose Mote does not start was gone back from");

    // What is written is a file system, but no system.
    change(&dir.join("second"), "rm /usr/lib/systemd/systemd\n");
    update(&mut guest);
    is_back(&guest, &kubectl);
    println!("{board}: a slot that holds no system was gone back from");

    fs::write(dir.join("noise"), [0x55; 4096]).expect("the temporary directory can be written");
    for (file, what) in [("vmlinuz", "is none"), ("initrd", "panics")] {
        system(&dir, &board, what, None);
        let noise = dir.join("noise").display().to_string();
        change(&dir.join("second"), &format!("rm /boot/slot/{file}\nwrite {noise} /boot/slot/{file}\n"));
        update(&mut guest);
        is_back(&guest, &kubectl);
        println!("{board}: a slot whose kernel {what} was gone back from");
    }

    system(&dir, &board, "well", None);
    update(&mut guest);
    assert_eq!(guest.shell("cat /etc/mark").as_deref(), Ok("well"));
    guest.wait_ready(&kubectl);
    put(&kubectl, &guest, "of-b");
    wait_slot(&guest, "running=b good=b try= left=0");
    guest.reset();
    guest.wait_ready(&kubectl);
    assert_eq!(slot(&guest), "running=b good=b try= left=0");
    assert_eq!(names(&kubectl, &guest), ["of-a", "of-b"]);
    println!("{board}: an update that is well runs in slot b, and stays");
    guest.shut_down();
    let _ = fs::remove_dir_all(&dir);
}
