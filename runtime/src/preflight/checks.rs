//! The table of checks: one row each, in the order in which they are shown.
use super::{
    Check, Finding, Host, When,
    kernel::{self, Need},
};
use crate::{
    config::{Component, is_dns_name},
    machine,
};
use async_executor::Executor;
use async_io::block_on;
use mote_cri::{Runtime, v1};
use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

#[rustfmt::skip]
pub const TABLE: &[Check] = &[
    Check { name: "kernel", when: When::Always, look: release },
    Check { name: "cgroups", when: When::Always, look: cgroups },
    Check { name: "cgroup-memory", when: When::Always, look: |host| controller(host, "memory", "memory limits and requests of pods are not enforced") },
    Check { name: "cgroup-cpu", when: When::Always, look: |host| controller(host, "cpu", "CPU limits and requests of pods are not enforced") },
    Check { name: "cgroup-pids", when: When::Always, look: |host| controller(host, "pids", "a pod may start processes without end") },
    Check { name: "overlayfs", when: When::Always, look: |host| kernel::needs(host, OVERLAY) },
    Check { name: "pod-network", when: When::Always, look: |host| kernel::needs(host, LINKS) },
    Check { name: "nftables", when: When::Always, look: |host| kernel::needs(host, NFTABLES) },
    Check { name: "clock", when: When::Always, look: clock },
    Check { name: "entropy", when: When::Always, look: entropy },
    Check { name: "hostname", when: When::Always, look: hostname },
    Check { name: "data-directory", when: When::Always, look: data_directory },
    Check { name: "free-space", when: When::Always, look: free_space },
    Check { name: "runtime", when: When::Asked, look: runtime },
    Check { name: "port", when: When::Asked, look: port },
];

/// The first that has all that is used: nftables with several tables' features, cgroup2's kill, pidfds.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// Before the oldest release of Mote, no clock can be right.
const EARLIEST_SECOND: i64 = 1_767_225_600;
/// Since Linux 5.18 it is always 256 once the generator is seeded.
const SEEDED_BITS: u32 = 128;
/// The store's reserve, and a little for what it writes beside itself.
const LEAST_FREE_MB: u64 = 32;
const NO_IMAGES: &str = "the runtime cannot use its overlayfs snapshots";
const NO_SERVICES: &str = "Services, NodePorts, host ports and network policies do not work";
const NO_POD_NETWORK: &str = "only pods with hostNetwork run";

const OVERLAY: &[Need] = &[Need { option: "OVERLAY_FS", module: "overlay", without: NO_IMAGES }];
const LINKS: &[Need] = &[
    Need { option: "BRIDGE", module: "bridge", without: NO_POD_NETWORK },
    Need { option: "VETH", module: "veth", without: NO_POD_NETWORK },
    Need {
        option: "BRIDGE_NETFILTER",
        module: "br_netfilter",
        without: "a pod does not reach itself by its own Service",
    },
];
const NFTABLES: &[Need] = &[
    Need { option: "NF_TABLES", module: "nf_tables", without: NO_SERVICES },
    Need { option: "NFT_CT", module: "nft_ct", without: NO_SERVICES },
    Need { option: "NFT_NAT", module: "nft_nat", without: NO_SERVICES },
    Need { option: "NFT_MASQ", module: "nft_masq", without: NO_SERVICES },
    Need { option: "NFT_NUMGEN", module: "nft_numgen", without: NO_SERVICES },
    Need { option: "NFT_FIB_INET", module: "nft_fib_inet", without: NO_SERVICES },
    Need { option: "NFT_REJECT_INET", module: "nft_reject_inet", without: NO_SERVICES },
];

fn release(host: &Host<'_>) -> Finding {
    let release = host.line("/proc/sys/kernel/osrelease");
    match kernel::version(&release) {
        Some(version) if version >= OLDEST_KERNEL => Finding::ok(release),
        Some(_) => Finding::warn(
            format!("Linux {release} is older than 5.10"),
            "what it lacks is tried and told when it fails",
            "a newer kernel, such as Debian's",
        ),
        None => Finding::ok("cannot be told"),
    }
}

enum Cgroups {
    V2,
    V1,
    Absent,
}

fn version_of_cgroups(host: &Host<'_>) -> Cgroups {
    if host.has("/sys/fs/cgroup/cgroup.controllers") {
        Cgroups::V2
    } else if ["cpu", "memory", "pids"].iter().any(|name| host.has(&format!("/sys/fs/cgroup/{name}"))) {
        Cgroups::V1
    } else {
        Cgroups::Absent
    }
}

fn cgroups(host: &Host<'_>) -> Finding {
    match version_of_cgroups(host) {
        Cgroups::V2 => Finding::ok("v2"),
        Cgroups::V1 => Finding::ok("v1"),
        Cgroups::Absent => Finding::fail(
            "/sys/fs/cgroup has no cgroups",
            "in /etc/fstab: cgroup2 /sys/fs/cgroup cgroup2 defaults 0 0; then: mount /sys/fs/cgroup",
        ),
    }
}

/// Which controllers are on. Raspberry Pis leave memory off unless their command line says otherwise.
fn controller(host: &Host<'_>, name: &str, without: &'static str) -> Finding {
    let enabled = match version_of_cgroups(host) {
        Cgroups::V2 => host.read("/sys/fs/cgroup/cgroup.controllers").split_whitespace().any(|found| found == name),
        Cgroups::V1 => host.has(&format!("/sys/fs/cgroup/{name}")),
        Cgroups::Absent => false,
    };
    if enabled {
        return Finding::ok("on");
    }
    // `#subsys_name hierarchy num_cgroups enabled`: there, and switched off.
    let known = host.read("/proc/cgroups").lines().any(|line| line.split_whitespace().next() == Some(name));
    let fix = match name {
        "memory" if known || !host.board.boot.cmdline.is_empty() => {
            let words = match host.board.boot.cmdline {
                [] => "cgroup_enable=memory".to_owned(),
                words => words.join(" "),
            };
            host.cmdline_fix(&words)
        }
        "memory" => "a kernel with CONFIG_MEMCG=y".to_owned(),
        "cpu" => "a kernel with CONFIG_CGROUP_SCHED=y and CONFIG_CFS_BANDWIDTH=y".to_owned(),
        _ => "a kernel with CONFIG_CGROUP_PIDS=y".to_owned(),
    };
    Finding::warn(format!("the {name} controller is off"), without, fix)
}

fn clock(_: &Host<'_>) -> Finding {
    let now = jiff::Timestamp::now();
    if now.as_second() >= EARLIEST_SECOND {
        return Finding::ok(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    Finding::warn(
        format!("the clock is not set: it says {}", now.strftime("%Y-%m-%d")),
        "certificates made now are not valid yet for others, nor theirs here",
        "timedatectl set-ntp true; without a network: apt-get install fake-hwclock",
    )
}

fn entropy(host: &Host<'_>) -> Finding {
    match host.line("/proc/sys/kernel/random/entropy_avail").parse::<u32>() {
        Ok(bits) if bits < SEEDED_BITS => Finding::warn(
            format!("{bits} bits"),
            "the first start waits until there is enough for keys",
            "apt-get install rng-tools5",
        ),
        Ok(bits) => Finding::ok(format!("{bits} bits")),
        Err(_) => Finding::ok("cannot be told"),
    }
}

fn hostname(host: &Host<'_>) -> Finding {
    let name = machine::node_name(host.config);
    let fix = "hostnamectl set-hostname NAME, or in /etc/mote/config.yaml: node: {hostnameOverride: NAME}";
    if !is_dns_name(&name) || name.len() > 63 {
        return Finding::fail(format!("{name:?} cannot be a Node's name"), fix);
    }
    if name == "localhost" {
        return Finding::warn("the Node will be called localhost", "no two such nodes can be told apart", fix);
    }
    Finding::ok(name)
}

/// The directory, or what is above it and is there already.
fn existing(host: &Host<'_>) -> PathBuf {
    let dir = std::path::absolute(host.data_dir).unwrap_or_else(|_| host.data_dir.to_owned());
    dir.ancestors().find(|dir| host.at(&dir.to_string_lossy()).exists()).unwrap_or(&dir).to_owned()
}

fn data_directory(host: &Host<'_>) -> Finding {
    let dir = existing(host);
    let Some((kind, options)) = host.mount_of(&dir) else { return Finding::ok("cannot be told") };
    let shown = format!("{} is on {kind}", dir.display());
    let fix = "--data-dir on an ext4, xfs, btrfs or f2fs of its own";
    if options.split(',').any(|option| option == "ro") {
        return Finding::fail(format!("{shown}, which is read-only"), fix);
    }
    match kind.as_str() {
        "vfat" | "exfat" | "msdos" | "squashfs" | "erofs" | "iso9660" => Finding::fail(shown, fix),
        "tmpfs" | "ramfs" | "zram" => Finding::warn(shown, "nothing survives a power cut", fix),
        "nfs" | "nfs4" | "cifs" | "9p" | "fuse.sshfs" => {
            Finding::warn(shown, "a network that goes away stops every write", fix)
        }
        _ => Finding::ok(shown),
    }
}

fn free_space(host: &Host<'_>) -> Finding {
    let dir = existing(host);
    let Ok(space) = rustix::fs::statvfs(host.at(&dir.to_string_lossy())) else { return Finding::ok("cannot be told") };
    let free_mb = space.f_bavail.saturating_mul(space.f_frsize) >> 20;
    let wanted_mb = host.board.budget.data_mb;
    let shown = format!("{free_mb} MB below {}", dir.display());
    if free_mb < LEAST_FREE_MB {
        Finding::fail(shown, format!("{wanted_mb} MB: a larger card, or --data-dir elsewhere"))
    } else if free_mb < wanted_mb {
        Finding::warn(shown, "few images fit", format!("{wanted_mb} MB: a larger card, or --data-dir elsewhere"))
    } else {
        Finding::ok(shown)
    }
}

fn runtime(host: &Host<'_>) -> Finding {
    if !host.config.runs(Component::Kubelet) {
        return Finding::ok("not needed: the kubelet is disabled");
    }
    let endpoint = host.config.runtime_endpoint.trim_start_matches("unix://");
    let sockets: Vec<PathBuf> = match endpoint {
        "" => mote_kubelet::RUNTIME_SOCKETS.map(|socket| host.at(socket)).into(),
        socket => vec![host.at(socket)],
    };
    if !sockets.iter().any(|socket| socket.exists()) {
        let names: Vec<_> = sockets.iter().map(|socket| socket.display().to_string()).collect();
        return Finding::warn(
            format!("no {}", names.join(", no ")),
            "the API serves; pods run once there is one",
            "apt-get install containerd runc, or install CRI-O; elsewhere: runtime: {endpoint: unix:///SOCKET} in /etc/mote/config.yaml",
        );
    }
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::new(sockets, executor.clone());
    let asked = async { runtime.version(v1::VersionRequest { version: "v1".to_owned() }).await };
    match block_on(executor.run(asked)) {
        Ok(answer) if answer.runtime_api_version.starts_with("v1") && !answer.runtime_api_version.contains("alpha") => {
            Finding::ok(format!("{} {}", answer.runtime_name, answer.runtime_version))
        }
        Ok(answer) => Finding::fail(
            format!("{} {} speaks CRI {}", answer.runtime_name, answer.runtime_version, answer.runtime_api_version),
            "CRI-O, or containerd 1.6 or later",
        ),
        Err(error) => Finding::warn(
            format!("{}: {error}", runtime.socket().display()),
            "the API serves; pods run once it answers",
            "systemctl status containerd crio; in /etc/containerd/config.toml: disabled_plugins without \"cri\"",
        ),
    }
}

/// Held by the node that runs already, it is in use and that is right.
fn port(host: &Host<'_>) -> Finding {
    let port = host.config.api_port;
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Finding::ok(format!("{port} is free")),
        Err(_)
            if host.has(&host.data_dir.join("lock").to_string_lossy()) && crate::data_dir::is_held(host.data_dir) =>
        {
            Finding::ok(format!("{port} is this node's"))
        }
        Err(error) => Finding::fail(
            format!("{port}: {error}"),
            "in /etc/mote/config.yaml: apiServer: {port: ANOTHER}; `ss -ltnp` says who has it",
        ),
    }
}
