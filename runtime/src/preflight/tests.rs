//! Machines made of a few files, and what preflight says of them.
use super::*;
use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

/// What every machine of the tests has; a file of the same name replaces it.
const SOUND: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.12.43+deb13-arm64\n"),
    ("proc/sys/kernel/random/entropy_avail", "256\n"),
    ("proc/mounts", "/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n"),
    ("proc/filesystems", "nodev\ttmpfs\n\text4\nnodev\toverlay\n"),
    ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
    ("boot/config-6.12.43+deb13-arm64", CONFIG),
    ("lib/modules/6.12.43+deb13-arm64/modules.dep", MODULES),
    ("data/.keep", ""),
];
const CONFIG: &str = "# Linux\nCONFIG_BRIDGE=m\nCONFIG_NFT_MASQ=y\n# CONFIG_TUN is not set\n";
const MODULES: &str = "kernel/net/bridge/bridge.ko.xz: kernel/net/llc/llc.ko.xz\nkernel/net/bridge/br_netfilter.ko.xz:\n\
    kernel/drivers/net/veth.ko:\nkernel/net/netfilter/nf_tables.ko.xz:\nkernel/net/netfilter/nft_ct.ko.xz:\n\
    kernel/net/netfilter/nft_nat.ko.xz:\nkernel/net/netfilter/nft_numgen.ko.xz:\n\
    kernel/net/netfilter/nft_fib_inet.ko.xz:\nkernel/net/netfilter/nft_reject_inet.ko.xz:\n";

struct Machine(PathBuf);

impl Machine {
    fn of(files: &[(&str, &str)]) -> Machine {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("mote-preflight-{}-{number}", std::process::id()));
        for (name, text) in SOUND.iter().chain(files) {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Machine(root)
    }

    fn without(self, name: &str) -> Machine {
        fs::remove_file(self.0.join(name)).unwrap();
        self
    }

    fn look(&self, board: &str, name: &str) -> Finding {
        let config = Config { hostname_override: "board".to_owned(), ..Config::default() };
        let board = mote_boards::named(board).unwrap();
        let host = Host::new(&self.0, board, &config, Path::new("/data"));
        (checks::TABLE.iter().find(|check| check.name == name).unwrap().look)(&host)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn check(machine: &Machine, name: &str, level: Level, expected: &[&str]) {
    let finding = machine.look("rpi4-2gb", name);
    assert_eq!(finding.level, level, "{finding:?}");
    let all = [finding.found.as_str(), finding.without, &finding.fix].join("\n");
    for text in expected {
        assert!(all.contains(text), "no {text:?} in {finding:?}");
    }
}

#[test]
fn a_sound_machine_passes() {
    let machine = Machine::of(&[]);
    for name in ["kernel", "cgroups", "cgroup-memory", "cgroup-cpu", "cgroup-pids", "overlayfs", "pod-network"] {
        check(&machine, name, Level::Ok, &[]);
    }
    for name in ["nftables", "clock", "entropy", "hostname", "data-directory"] {
        check(&machine, name, Level::Ok, &[]);
    }
}

#[test]
fn the_memory_controller_is_switched_on_where_the_board_does_it() {
    let off = ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n");
    let machine = Machine::of(&[off]);
    let words = "add to the one line of /boot/firmware/cmdline.txt: cgroup_enable=memory cgroup_memory=1; then: reboot";
    check(&machine, "cgroup-memory", Level::Warn, &["are not enforced", words]);
    check(&machine, "cgroup-cpu", Level::Ok, &[]);
    // A PC's kernel has it and was told not to use it, or does not have it.
    let known = Machine::of(&[off, ("proc/cgroups", "#subsys_name\thierarchy\tnum\tenabled\nmemory\t0\t1\t0\n")]);
    let fix = known.look("x86_64", "cgroup-memory").fix;
    assert_eq!(fix, "in /etc/default/grub: GRUB_CMDLINE_LINUX=\"cgroup_enable=memory\"; then: update-grub && reboot");
    assert_eq!(machine.look("x86_64", "cgroup-memory").fix, "a kernel with CONFIG_MEMCG=y");
}

#[test]
fn both_versions_of_cgroups_do() {
    let v1 = Machine::of(&[("sys/fs/cgroup/cpu/tasks", ""), ("sys/fs/cgroup/pids/tasks", "")]);
    let v1 = v1.without("sys/fs/cgroup/cgroup.controllers");
    check(&v1, "cgroups", Level::Ok, &["v1"]);
    check(&v1, "cgroup-cpu", Level::Ok, &[]);
    check(&v1, "cgroup-memory", Level::Warn, &["cgroup_memory=1"]);
    let none = Machine::of(&[]).without("sys/fs/cgroup/cgroup.controllers");
    check(&none, "cgroups", Level::Fail, &["/etc/fstab"]);
}

#[test]
fn what_the_kernel_lacks_is_named_with_its_option() {
    let modules = "lib/modules/6.12.43+deb13-arm64/modules.dep";
    let machine = Machine::of(&[(modules, &MODULES.replace("kernel/net/netfilter/nf_tables.ko.xz:\n", ""))]);
    check(&machine, "nftables", Level::Warn, &["no nf_tables", "NodePorts", "CONFIG_NF_TABLES=m"]);
    let loaded = Machine::of(&[(modules, ""), ("sys/module/bridge/x", ""), ("sys/module/veth/x", "")]);
    check(&loaded, "pod-network", Level::Warn, &["no br_netfilter", "its own Service"]);
    // In a container, there is neither a configuration nor a list of modules to be seen.
    let blind = Machine::of(&[]).without(modules).without("boot/config-6.12.43+deb13-arm64");
    check(&blind, "nftables", Level::Ok, &["cannot be told"]);
    let no_overlay = Machine::of(&[("proc/filesystems", "\text4\n")]);
    check(&no_overlay, "overlayfs", Level::Warn, &["CONFIG_OVERLAY_FS=m"]);
    let old = Machine::of(&[("proc/sys/kernel/osrelease", "4.9.337-tegra\n")]);
    check(&old, "kernel", Level::Warn, &["4.9.337-tegra is older than 5.10"]);
}

#[test]
fn the_configuration_of_the_running_kernel_is_unpacked() {
    let machine = Machine::of(&[]).without("lib/modules/6.12.43+deb13-arm64/modules.dep");
    let names = ["BRIDGE", "VETH", "BRIDGE_NETFILTER"];
    let text: String = names.iter().map(|name| format!("CONFIG_{name}=y\n")).collect();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    fs::write(machine.0.join("proc/config.gz"), packed.finish().unwrap()).unwrap();
    check(&machine, "pod-network", Level::Ok, &["there"]);
    check(&machine, "nftables", Level::Warn, &["CONFIG_NF_TABLES=m"]);
}

#[test]
fn a_data_directory_that_keeps_nothing_is_told() {
    let on = |kind: &str, options: &str| {
        let mounts = format!("/dev/root / ext4 rw 0 0\n{kind} /data {kind} {options} 0 0\n");
        Machine::of(&[("proc/mounts", &mounts)])
    };
    check(&on("f2fs", "rw"), "data-directory", Level::Ok, &["/data is on f2fs"]);
    check(&on("tmpfs", "rw"), "data-directory", Level::Warn, &["nothing survives"]);
    check(&on("vfat", "rw"), "data-directory", Level::Fail, &["--data-dir"]);
    check(&on("ext4", "ro,relatime"), "data-directory", Level::Fail, &["read-only"]);
}

#[test]
fn the_report_is_for_people_and_for_programs() {
    let board = mote_boards::named("rpi4-2gb").unwrap();
    let findings = [("kernel", Finding::ok("6.12")), ("clock", Finding::warn("1970", "nothing", "set \"it\""))];
    assert_eq!(
        as_text(board, &findings),
        "board rpi4-2gb: Raspberry Pi 4 Model B, 2 GB\nok    kernel           6.12\nwarn  clock            1970\n      \
         without          nothing\n      fix              set \"it\"\n"
    );
    let json: serde_json::Value = serde_json::from_str(&as_json(board, &findings)).unwrap();
    assert_eq!(json["checks"][1]["fix"], "set \"it\"");
    assert_eq!(json["checks"][0]["level"], "ok");
}
