//! What is known of each board: how its binary is built, what it may cost, the bounds a node keeps on it, what it must offer
//! and how its image is laid out. The profiles are the `*.toml` files beside `Cargo.toml`, made of those in `parts` and
//! their own keys; the build script checks them and makes the table here. The node takes its limits from it, `./dev build`
//! its target, `./dev image` its layout, `size-report` its budgets. Nothing here touches the machine it runs on.
pub mod parse;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// Of the file.
    pub name: &'static str,
    pub description: &'static str,
    pub detect: Detect,
    pub budget: Budget,
    pub limits: Limits,
    pub boot: Boot,
}

/// Every section's fields are those of `parse::SCHEMA`, which says what they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detect {
    pub architecture: &'static str,
    pub models: &'static [&'static str],
}

/// What the node may cost on the board; tests and `size-report` hold it to that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    pub ram_mb: u64,
    pub idle_pss_kb: u64,
    pub binary_bytes: u64,
    pub idle_writes_bytes_an_hour: u64,
    pub data_mb: u64,
}

/// Bounds of every queue, cache and count in the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub threads: u64,
    pub pods: u64,
    pub connections: u64,
    pub requests_in_flight: u64,
    pub store_cache_kb: u64,
    pub watch_events: u64,
    pub watch_kb: u64,
    pub history_seconds: u64,
    pub lazy_delay_ms: u64,
    pub flash_mb_a_day: u64,
    pub events: u64,
    pub unread_kb: u64,
    pub dns_cache_kb: u64,
}

/// What the kernel must be told on the board, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boot {
    pub cmdline: &'static [&'static str],
    pub cmdline_file: &'static str,
    pub cmdline_line: &'static str,
    pub cmdline_then: &'static str,
    pub modules: &'static [&'static str],
}

const PROFILES: &[Profile] = include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

/// Every profile there is, by name.
pub fn all() -> &'static [Profile] {
    PROFILES
}

pub fn named(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

/// The profile of a board by its architecture (as `uname -m` says it), device-tree model ("" where there is none) and RAM:
/// of those that know the model, else of those for any model, the largest that its RAM suffices for.
/// A board that no profile describes is held to the tightest limits there are.
pub fn detect(architecture: &str, model: &str, ram_mb: u64) -> &'static Profile {
    let knows = |profile: &Profile| profile.detect.models.iter().any(|start| model.starts_with(start));
    let fits = |profile: &&'static Profile, known: bool| {
        profile.detect.architecture == architecture
            && if known { knows(profile) } else { profile.detect.models.is_empty() }
    };
    let of = |known: bool| {
        let mut fitting: Vec<_> = PROFILES.iter().filter(|profile| fits(profile, known)).collect();
        fitting.sort_by_key(|profile| profile.budget.ram_mb);
        // Kernels keep back more or less of the same RAM: an eighth less is still that board.
        let suffices = |profile: &&&Profile| profile.budget.ram_mb * 7 / 8 <= ram_mb;
        fitting.iter().rev().find(suffices).or(fitting.first()).copied()
    };
    let tightest = || PROFILES.iter().min_by_key(|profile| (profile.budget.ram_mb, profile.limits.pods));
    of(true).or_else(|| of(false)).or_else(tightest).unwrap_or(&PROFILES[0])
}

#[cfg(test)]
mod tests;
