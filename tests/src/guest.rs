//! A whole board under QEMU, from an image of `./dev image`: its serial console in a file, the API and a secure shell on
//! ports of the loopback, and its power in the test's hand. One at a time: without hardware virtualisation it is slow, and what waits
//! here waits long. Its disk is a copy, on which unflushed writes can be lost (see `disk`).
use crate::{Kubectl, disk::Disk, eventually, server::free_port, server::scratch};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// For anything that a board does by itself: minutes on two busy cores.
pub const PATIENCE_SECONDS: u64 = 900;
/// The image's disk has grown to this when it boots.
const DISK_BYTES: u64 = 4 << 30;

/// How a board is set up before its first power-on.
#[derive(Clone)]
pub struct Setup {
    pub board: String,
    pub memory_mb: u32,
    /// A boot loader finds the kernel on the disk; otherwise QEMU is given it.
    pub loader: bool,
    /// A second disk, read-only.
    pub second: Option<PathBuf>,
    /// Files on the boot partition, by path there.
    pub dropped: Vec<(&'static str, Vec<u8>)>,
}

pub struct Guest {
    dir: PathBuf,
    images: PathBuf,
    setup: Setup,
    pub disk: Disk,
    ssh: u16,
    api: u16,
    child: Child,
    powered: Instant,
}

impl Guest {
    /// Powers a board on: `MOTE_IMAGES`/BOARD holds its image. A key for the secure shell is dropped on its boot partition.
    #[track_caller]
    pub fn start(setup: Setup) -> Guest {
        let images = images(&setup.board);
        let dir = scratch();
        let image = dir.join("disk");
        let from = images.join(format!("mote-{}.img", setup.board));
        run(Command::new("cp").arg("--sparse=always").arg(from).arg(&image));
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join("key")));
        let partition = format!("{}@@1M", image.display());
        let put = |file: &Path, name: &str| {
            run(Command::new("mcopy").args(["-o", "-i", &partition]).arg(file).arg(format!("::{name}")));
        };
        put(&dir.join("key.pub"), "authorized_keys");
        for (name, bytes) in &setup.dropped {
            fs::write(dir.join("dropped"), bytes).expect("the temporary directory can be written");
            put(&dir.join("dropped"), name);
        }
        let file = File::options().write(true).open(&image).expect("the copy is there");
        file.set_len(DISK_BYTES).expect("a file with a hole");
        let disk = Disk::serve(&image, &dir.join("disk.socket")).expect("a socket in the temporary directory");
        let (ssh, api) = (free_port(), free_port());
        let child = power_on(&images, &dir, &setup, &disk, ssh, api);
        Guest { dir, images, setup, disk, ssh, api, child, powered: Instant::now() }
    }

    /// The power fails now, as a disk with a volatile cache sees it: says how many sectors were unflushed, and lost.
    #[track_caller]
    pub fn cut(&mut self, seed: u64) -> (usize, usize) {
        self.child.kill().expect("QEMU runs");
        self.child.wait().expect("QEMU was started here");
        self.disk.cut(seed).expect("the disk's file can be written")
    }

    /// The reset button: the disk keeps its power.
    #[track_caller]
    pub fn reset(&mut self) {
        self.child.kill().expect("QEMU runs");
        self.child.wait().expect("QEMU was started here");
        self.disk.reset().expect("the disk's file can be written");
        self.power_on();
    }

    /// Powers it on again, after a cut or when it went off by itself.
    pub fn power_on(&mut self) {
        self.child = power_on(&self.images, &self.dir, &self.setup, &self.disk, self.ssh, self.api);
        self.powered = Instant::now();
    }

    /// Shuts down by itself, and QEMU ends.
    #[track_caller]
    pub fn shut_down(&mut self) {
        let _ = self.shell("systemctl --no-block poweroff");
        self.wait_off();
    }

    /// Until the board is off, or has wanted to start again: QEMU ends with either.
    #[track_caller]
    pub fn wait_off(&mut self) {
        eventually("the board is off", PATIENCE_SECONDS, || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}; console: {}", self.console())),
        });
    }

    /// The same when it is to start again, as often as it does, until its secure shell answers.
    #[track_caller]
    pub fn follow_restarts(&mut self) {
        let end = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
        loop {
            if let Ok(Some(_)) = self.child.try_wait() {
                self.power_on();
            }
            if self.shell("true").is_ok() {
                return;
            }
            assert!(Instant::now() < end, "the board does not come up; console: {}", self.console());
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    pub fn since_power_on(&self) -> Duration {
        self.powered.elapsed()
    }

    /// The end of what the serial console said.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.dir.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(4000)..]).into_owned()
    }

    /// A command on the board: what it printed, or what went wrong.
    pub fn shell(&self, command: &str) -> Result<String, String> {
        self.shell_for(60, command)
    }

    /// The same, with more patience.
    pub fn shell_for(&self, seconds: u32, command: &str) -> Result<String, String> {
        let output = Command::new("timeout")
            .arg(seconds.to_string())
            .args(["ssh", "-q", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=15"])
            .args(["-p", &self.ssh.to_string(), "-i"])
            .arg(self.dir.join("key"))
            .args(["root@127.0.0.1", command])
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        match output.status.code() {
            Some(0) => Ok(said),
            Some(124) => Err(format!("{command}: nothing within {seconds} s; until then: {said}{complained}")),
            // 255 is ssh's own.
            code => Err(format!("{command}: exit {code:?}: {said}{complained}")),
        }
    }

    /// The administrator, when the board's node has made its credentials.
    #[track_caller]
    pub fn kubectl(&self) -> Kubectl {
        let text = self.eventually("credentials", || self.shell("cat /var/lib/mote/kubeconfig"));
        self.kubectl_with(&self.kubeconfig(), &text)
    }

    /// Whoever a kubeconfig names, which is written to a file: the board is reached by a port of the loopback.
    pub fn kubectl_with(&self, file: &Path, text: &str) -> Kubectl {
        let server = format!("server: https://127.0.0.1:{}", self.api);
        let lines = text.lines().map(|line| match line.split_once("server: ") {
            Some((indent, _)) => format!("{indent}{server}\n"),
            None => format!("{line}\n"),
        });
        fs::write(file, lines.collect::<String>()).expect("the temporary directory can be written");
        Kubectl::new(file, None)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Waits with a board's patience, and shows its console when it was in vain.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
        eventually(what, PATIENCE_SECONDS, || {
            attempt().map_err(|error| {
                std::thread::sleep(Duration::from_secs(2));
                format!("{error}; console:\n{}", self.console())
            })
        })
    }

    #[track_caller]
    pub fn wait_ready(&self, kubectl: &Kubectl) {
        self.eventually("the node is Ready", || {
            let output = kubectl.run("get nodes --no-headers --request-timeout=30s");
            if output.stdout.contains(" Ready ") { Ok(()) } else { Err(output.to_string()) }
        });
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where `./dev image` leaves what it makes of a board.
pub fn images(board: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("MOTE_IMAGES").expect("MOTE_IMAGES is set; run ./dev boards")).join(board)
}

fn power_on(images: &Path, dir: &Path, setup: &Setup, disk: &Disk, ssh: u16, api: u16) -> Child {
    // The last console is the main one. Boot loaders are those of Debian's u-boot-qemu and ovmf.
    let (program, machine, console, loader): (_, &[&str], _, &[&str]) = match &setup.board {
        board if board.contains("arm64") => (
            "qemu-system-aarch64",
            &["-M", "virt", "-cpu", "cortex-a72"],
            "ttyAMA0",
            &["-bios", "/usr/lib/u-boot/qemu_arm64/u-boot.bin"],
        ),
        board if board.contains("riscv64") => (
            "qemu-system-riscv64",
            &["-M", "virt"],
            "ttyS0",
            &["-kernel", "/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf"],
        ),
        _ => ("qemu-system-x86_64", &["-M", "q35", "-cpu", "max"], "ttyS0", &["-bios", "/usr/share/ovmf/OVMF.fd"]),
    };
    let words = fs::read_to_string(images.join("cmdline")).expect("the image has a command line");
    let log = File::create(dir.join("qemu")).expect("the temporary directory can be written");
    let mut command = Command::new(program);
    command.args(machine).args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", &setup.memory_mb.to_string()]);
    command.args(["-display", "none", "-no-reboot", "-monitor", "none"]);
    command.args(["-serial", &format!("file:{}", dir.join("console").display())]);
    if setup.loader {
        command.args(loader);
    } else {
        command.arg("-kernel").arg(images.join("vmlinuz")).arg("-initrd").arg(images.join("initrd"));
        command.args(["-append", &format!("{} console={console} loglevel=4 systemd.show_status=auto", words.trim())]);
    }
    command.args(["-drive", &format!("file={},format=raw,if=virtio,cache=none,aio=threads", disk.address())]);
    if let Some(second) = &setup.second {
        command.args(["-drive", &format!("file={},format=raw,if=virtio,readonly=on", second.display())]);
    }
    let network = format!("user,id=network,hostfwd=tcp:127.0.0.1:{ssh}-:22,hostfwd=tcp:127.0.0.1:{api}-:6443");
    // Not -nic, for which the RISC-V machine makes no device; nothing boots from the network, so its ROM need not be installed.
    command.args(["-netdev", &network, "-device", "virtio-net-pci,netdev=network,romfile="]);
    command.args(["-device", "virtio-rng-pci"]);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second descriptor")).stderr(log);
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"))
}
