//! What is known of each board: how its binary is built, what it may cost, and the bounds a node keeps on it.
//! The profiles are the `*.toml` files beside `Cargo.toml`, embedded here; the node takes its limits from them,
//! `./dev build` its target, and `size-report` its budgets. Nothing here touches the machine it runs on.
//!
//! Invariant: every embedded profile parses and has every field (a test reads them all), so a node never meets a
//! profile it cannot use.
mod parse;

pub use parse::Mistake;

/// Ordered: the first profile that fits a board is the board's, so known models stand before an architecture's rest.
const EMBEDDED: [&str; 3] =
    [include_str!("../rpi4-2gb.toml"), include_str!("../qemu-virt-arm64.toml"), include_str!("../x86_64.toml")];

#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub name: String,
    pub description: String,
    pub detect: Detect,
    pub build: Build,
    pub budget: Budget,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Detect {
    /// As `uname -m` says it.
    pub architecture: String,
    /// Beginnings of `/proc/device-tree/model`; none fits every model.
    pub models: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Build {
    /// Rust's target triple.
    pub target: String,
    /// Rust's `target-cpu`.
    pub cpu: String,
    pub opt_level: String,
}

/// What the node may cost on the board; tests and `size-report` hold it to that.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// What the kernel leaves to programs.
    pub ram_mb: u64,
    pub idle_pss_kb: u64,
    pub binary_bytes: u64,
    pub idle_writes_bytes_an_hour: u64,
}

/// Bounds of every queue, cache and count in the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub threads: u64,
    pub pods: u64,
    pub connections: u64,
    pub requests_in_flight: u64,
    /// redb's page cache.
    pub store_cache_kb: u64,
    /// The ring from which watches are served and resumed.
    pub watch_events: u64,
    pub watch_kb: u64,
    /// How long a continued LIST finds its state.
    pub history_seconds: u64,
    /// How long a status may wait for the disk.
    pub lazy_delay_ms: u64,
    /// What the store may write a day before the node warns and status waits longer; 0: no bound.
    pub flash_mb_a_day: u64,
    /// Event objects kept in memory.
    pub events: u64,
}

/// Every profile there is.
pub fn all() -> Vec<Profile> {
    EMBEDDED.iter().filter_map(|text| parse::profile(text).ok()).collect()
}

pub fn named(name: &str) -> Option<Profile> {
    all().into_iter().find(|profile| profile.name == name)
}

/// The profile of a board by its architecture (as `uname -m` says it) and device-tree model ("" where there is none).
/// A board that no profile describes is held to the tightest limits there are.
pub fn detect(architecture: &str, model: &str) -> Profile {
    let fits = |profile: &&Profile| {
        let Detect { architecture: wanted, models } = &profile.detect;
        wanted == architecture && (models.is_empty() || models.iter().any(|start| model.starts_with(start.as_str())))
    };
    let profiles = all();
    let found = profiles.iter().find(fits).or_else(|| profiles.iter().min_by_key(|profile| profile.budget.ram_mb));
    found.expect("the embedded profiles parse, as a test checks").clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_profile_parses() {
        for text in EMBEDDED {
            parse::profile(text).unwrap();
        }
    }

    #[test]
    fn boards_are_told_apart() {
        #[track_caller]
        fn check(architecture: &str, model: &str, expected: &str) {
            assert_eq!(detect(architecture, model).name, expected);
        }
        check("aarch64", "Raspberry Pi 4 Model B Rev 1.4", "rpi4-2gb");
        check("aarch64", "linux,dummy-virt", "qemu-virt-arm64");
        check("aarch64", "", "qemu-virt-arm64");
        check("x86_64", "", "x86_64");
        check("riscv64", "StarFive VisionFive 2 v1.3B", "rpi4-2gb");
    }

    #[test]
    fn a_profile_leaves_most_of_the_board_to_pods() {
        for profile in all() {
            let Limits { store_cache_kb, watch_kb, .. } = profile.limits;
            assert!(
                store_cache_kb + watch_kb < profile.budget.idle_pss_kb,
                "{}: caches outgrow the budget",
                profile.name
            );
            assert!(
                profile.budget.idle_pss_kb * 100 < profile.budget.ram_mb * 1024,
                "{}: over 1 % of RAM",
                profile.name
            );
        }
    }
}
