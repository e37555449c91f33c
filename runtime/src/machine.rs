//! What the node asks of the machine it starts on: which board it is, its name and address, and memory that goes back
//! to the kernel when it is free.
use crate::config::Config;
use mote_boards::Profile;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The profile the configuration names, or the one that fits this board.
pub fn board(config: &Config) -> &'static Profile {
    let named = config.board.as_deref().and_then(mote_boards::named);
    named.unwrap_or_else(|| {
        let ram = rustix::system::sysinfo();
        let ram_mb = (ram.totalram as u64).saturating_mul(u64::from(ram.mem_unit)) >> 20;
        mote_boards::detect(std::env::consts::ARCH, &model(), ram_mb)
    })
}

/// As the device tree names the board; "" where there is none.
pub fn model() -> String {
    let model = std::fs::read("/proc/device-tree/model").unwrap_or_default();
    String::from_utf8_lossy(&model).trim_end_matches('\0').to_owned()
}

/// As the kubelet names its node: the override, else the host name in lower case.
pub fn node_name(config: &Config) -> String {
    if !config.hostname_override.is_empty() {
        return config.hostname_override.clone();
    }
    let name = rustix::system::uname().nodename().to_string_lossy().trim().to_lowercase();
    if name.is_empty() || name == "(none)" { "localhost".to_owned() } else { name }
}

/// The configured address, or the one from which this machine reaches others; None on a machine without a network.
pub fn node_ip(config: &Config) -> Option<Ipv4Addr> {
    config.node_ip.or_else(|| {
        // Connecting a datagram socket sends nothing: the kernel only picks the route and the source address. The
        // target is a block kept for documentation (RFC 5737), so only a default route leads there.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        match socket.local_addr().ok()?.ip() {
            IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
            _ => None,
        }
    })
}

/// Few arenas and early trimming: glibc otherwise keeps one arena a thread and never returns what a burst took.
pub fn tame_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt(3) takes two numbers; it is called before other threads start.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// What lies free between things in use.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number, and locks the arenas it works on.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// As many descriptors as the system lets us have, within reason: connections, watches and sockets to the runtime.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const WANTED: u64 = 65_536;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = Some(limit.maximum.unwrap_or(WANTED).min(WANTED));
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "raising the limit of open files");
    }
}
