//! Which system image runs, as far as the machine tells: an ostree deployment, a bootc image, one of two slots that
//! RAUC, Mender or SWUpdate switch between; or none of these. And which boot it is.
use std::{fs, path::Path};

/// Of a file name that also holds a version, a boot and a revision.
const NAME_LIMIT_BYTES: usize = 120;

/// `file` is the configured one, which wins.
pub fn current(file: &str) -> String {
    let told = (!file.is_empty()).then(|| fs::read_to_string(file).ok()).flatten();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let link = |path: &str| Some(fs::read_link(path).ok()?.to_string_lossy().into_owned());
    told.map_or_else(|| from_command_line(&command_line, &link), |name| clean(name.trim()))
}

/// Without dashes, as `journalctl --list-boots` shows it.
pub fn boot_id() -> String {
    let id = fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    id.chars().filter(char::is_ascii_alphanumeric).collect()
}

fn from_command_line(line: &str, link: &dyn Fn(&str) -> Option<String>) -> String {
    let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    if let Some(path) = value("ostree") {
        // /ostree/boot.1/OS/CHECKSUM-OF-KERNEL/0, a link to ../../../deploy/OS/deploy/CHECKSUM.SERIAL, by which
        // rpm-ostree names the deployment: OS-CHECKSUM.SERIAL (ostree's src/libostree/ostree-sysroot.c).
        let target = link(path).or_else(|| link(&format!("/sysroot{path}")));
        let parts: Vec<&str> = target.as_deref().unwrap_or(path).rsplit('/').collect();
        return match (&target, parts.as_slice()) {
            (Some(_), [deployment, "deploy", os, ..]) => clean(&format!("{os}-{deployment}")),
            (_, [serial, checksum, os, ..]) => clean(&format!("{os}-{checksum}.{serial}")),
            _ => clean(path),
        };
    }
    // bootc without ostree names the image by the digest of its tree; RAUC by a name it passes on; the boot loaders of
    // NVIDIA's and Android's boards by a suffix; Mender and SWUpdate by the partition that is the root.
    let known = [("composefs", "image"), ("rauc.slot", "slot"), ("boot.slot_suffix", "slot")];
    let known = known.into_iter().chain([("androidboot.slot_suffix", "slot"), ("root", "root")]);
    let found = known.into_iter().find_map(|(key, prefix)| Some((prefix, value(key)?)));
    found.map_or_else(|| "system".to_owned(), |(prefix, value)| clean(&format!("{prefix}-{value}")))
}

/// As part of a file name.
fn clean(name: &str) -> String {
    let mut clean = String::new();
    for c in name.chars().take(NAME_LIMIT_BYTES) {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' => clean.push(c),
            _ if !clean.ends_with('-') => clean.push('-'),
            _ => {}
        }
    }
    clean.trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_is_read_from_the_command_line() {
        #[track_caller]
        fn check(line: &str, expected: &str) {
            let link = |path: &str| {
                (path == "/ostree/boot.1/fedora/0a1b/0").then(|| "../../../deploy/fedora/deploy/35d7b5.0".to_owned())
            };
            assert_eq!(from_command_line(line, &link), expected);
        }
        check("quiet ostree=/ostree/boot.1/fedora/0a1b/0 root=UUID=1", "fedora-35d7b5.0");
        check("ostree=/ostree/boot.0/centos/77aa/1 ro", "centos-77aa.1");
        check("composefs=?9f86d0 root=/dev/sda2", "image-9f86d0");
        check("root=/dev/mmcblk0p2 rauc.slot=A", "slot-A");
        check("boot.slot_suffix=_b root=/dev/nvme0n1p1", "slot-b");
        check("console=ttyS0 root=/dev/mmcblk0p3 rootwait", "root-dev-mmcblk0p3");
        check("root=PARTUUID=0f3c-02 ro", "root-PARTUUID-0f3c-02");
        check("", "system");
    }

    #[test]
    fn a_boot_has_a_name() {
        assert_eq!(boot_id().len(), 32);
    }
}
