//! Profiles as written, as read and as chosen.
use super::{parse::*, *};
use std::{collections::BTreeSet, fs, path::Path};

fn read(name: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).ok()
}

#[test]
fn boards_are_told_apart() {
    #[track_caller]
    fn check(architecture: &str, model: &str, ram_mb: u64, expected: &str) {
        assert_eq!(detect(architecture, model, ram_mb).name, expected);
    }
    check("aarch64", "Raspberry Pi 4 Model B Rev 1.4", 1844, "rpi4-2gb");
    check("aarch64", "Raspberry Pi 4 Model B Rev 1.4", 7800, "rpi4-2gb");
    check("aarch64", "Raspberry Pi 3 Model B Plus Rev 1.3", 905, "rpi3-1gb");
    check("aarch64", "Raspberry Pi Zero 2 W Rev 1.0", 416, "rpi-zero2w");
    check("aarch64", "Raspberry Pi 5 Model B Rev 1.0", 4045, "rpi5-2gb");
    check("aarch64", "NVIDIA Jetson Nano 2GB Developer Kit", 1930, "jetson-nano-2gb");
    check("aarch64", "NVIDIA Jetson Orin Nano Developer Kit", 7600, "jetson-orin-nano");
    check("aarch64", "linux,dummy-virt", 1966, "qemu-virt-arm64");
    check("aarch64", "linux,dummy-virt", 470, "qemu-virt-arm64-512mb");
    check("aarch64", "linux,dummy-virt", 100, "qemu-virt-arm64-512mb");
    check("aarch64", "", 3900, "qemu-virt-arm64");
    check("x86_64", "", 900, "x86_64");
    check("riscv64", "StarFive VisionFive 2 v1.3B", 1900, "visionfive2-2gb");
    check("riscv64", "Milk-V DuoS", 480, "milkv-duo-s");
    check("riscv64", "riscv-virtio,qemu", 1966, "qemu-virt-riscv64");
    check("loongarch64", "", 8000, "rpi-zero2w");
}

#[test]
fn a_profile_leaves_most_of_the_board_to_pods() {
    for Profile { name, budget, limits, .. } in all() {
        assert!(limits.store_cache_kb + limits.watch_kb < budget.idle_pss_kb, "{name}: caches outgrow the budget");
        assert!(budget.idle_pss_kb * 100 < budget.ram_mb * 1024 * 4, "{name}: over 4 % of RAM");
        // Every connection with an answer of 64 kB on its way, and what is bounded in bytes: an eighth of the board.
        let most_kb = limits.unread_kb + limits.store_cache_kb + limits.watch_kb + limits.dns_cache_kb;
        assert!(most_kb * 8 <= budget.ram_mb * 1024, "{name}: bounds of {most_kb} kB on {} MB", budget.ram_mb);
    }
}

#[test]
fn every_part_belongs_to_a_board() {
    let boards: Vec<String> = all().iter().filter_map(|profile| read(&format!("{}.toml", profile.name))).collect();
    let parts = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("parts")).unwrap();
    let parts: BTreeSet<String> = parts.map(|part| part.unwrap().file_name().into_string().unwrap()).collect();
    for part in parts.iter().filter_map(|part| part.strip_suffix(".toml")).filter(|part| *part != "base") {
        assert!(boards.iter().any(|board| board.contains(&format!("\"{part}\""))), "no board has parts/{part}.toml");
    }
}

/// A processor that its name promises AES for need not have it: Raspberry Pis before the fifth do not.
#[test]
fn binaries_use_no_instruction_that_the_board_lacks() {
    for name in ["rpi-zero2w", "rpi3-1gb", "rpi4-2gb"] {
        let fields = profile(name, &read).unwrap();
        assert_eq!(fields["build.target_features"], Value::Text("-aes,-sha2".to_owned()), "{name}");
    }
}

#[test]
fn every_key_is_documented() {
    let page = read("../docs/boards.md").unwrap();
    for key in SCHEMA {
        let row = format!("| `{}` |", key.path);
        assert!(page.contains(&row), "docs/boards.md: a row {row} {}", key.what);
    }
    for Profile { name, description, .. } in all() {
        assert!(
            page.contains(&format!("| `{name}` | {description} |")),
            "docs/boards.md: a row for {name}, {description}"
        );
    }
}

#[test]
fn mistakes_name_their_file_line_and_key() {
    #[track_caller]
    fn check(file: &str, change: (&str, &str), expected: &[&str]) {
        let changed = |name: &str| {
            let text = read(name)?;
            assert!(name != file || text.contains(change.0), "{file} has no {:?}", change.0);
            Some(if name == file { text.replacen(change.0, change.1, 1) } else { text })
        };
        let found = profile("x86_64", &changed).unwrap_err();
        assert_eq!(found.iter().map(Mistake::to_string).collect::<Vec<_>>(), expected);
    }
    let (own, base) = ("x86_64.toml", "parts/base.toml");
    check(own, ("cpu = \"x86-64\"", "cpu = x86-64"), &["x86_64.toml:11: build.cpu: not a value: x86-64"]);
    check(own, ("cpu = \"x86-64\"", "cpu = 5"), &["x86_64.toml:11: build.cpu: expected a string, found 5"]);
    check(
        own,
        ("cpu = \"x86-64\"", "cpu = \"x86-64\"\ncpu = \"x86-64\"\nopt_level = \"9\""),
        &[
            "x86_64.toml:12: build.cpu is there twice",
            "x86_64.toml:13: build.opt_level: expected one of 1, 2, 3, s, z, found \"9\"",
        ],
    );
    check(own, ("cpu = \"x86-64\"", "cpu"), &["x86_64.toml:11: expected key = value"]);
    check(own, ("cpu = \"x86-64\"\n", ""), &["x86_64.toml: build.cpu is missing: Rust's `target-cpu`"]);
    check(
        own,
        ("[build]", "[built]"),
        &[
            "x86_64.toml:10: built.target: there is no section [built]",
            "x86_64.toml:11: built.cpu: there is no section [built]",
        ],
    );
    check(own, ("\"ram-4gb\"", "\"ram-4tb\""), &["x86_64.toml: inherits: there is no parts/ram-4tb.toml"]);
    check(
        base,
        ("threads = 1", "threads = 0"),
        &["parts/base.toml:18: limits.threads: expected a number from 1 to 16, found 0"],
    );
    check(
        base,
        ("threads = 1", "thread = 1"),
        &["parts/base.toml:18: limits.thread: unknown key; there are threads, pods, connections, requests_in_flight, \
            store_cache_kb, watch_events, watch_kb, history_seconds, lazy_delay_ms, flash_mb_a_day, events, unread_kb, dns_cache_kb"],
    );
}
