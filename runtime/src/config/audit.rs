//! `apiServer.auditLog`: MicroShift's keys, and two of our own (`path`, `policyFile`).
use mote_api::audit::{self, Policy, Profile, Rotation};
use std::path::Path;

/// A policy is a page or two; this is far beyond.
const POLICY_LIMIT_BYTES: u64 = 256 * 1024;
const MEGABYTE: u64 = 1024 * 1024;

#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    pub profile: Profile,
    /// "": the profile decides.
    pub policy_file: String,
    /// "": in the data directory.
    pub path: String,
    pub max_file_age_days: u32,
    pub max_files: u32,
    pub max_file_size_mb: u32,
}

impl Default for Audit {
    /// MicroShift's profile and number of files. Its files of 200 MB would take 2 GB of a card of 8: ours are of 10 MB.
    fn default() -> Audit {
        Audit {
            profile: Profile::Default,
            policy_file: String::new(),
            path: String::new(),
            max_file_age_days: 0,
            max_files: 10,
            max_file_size_mb: 10,
        }
    }
}

impl Audit {
    /// The policy file's, or the profile's.
    pub fn policy(&self) -> Result<Policy, String> {
        if self.policy_file.is_empty() {
            return Ok(Policy::profile(self.profile));
        }
        let path = Path::new(&self.policy_file);
        let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
        if size > POLICY_LIMIT_BYTES {
            return Err(format!("larger than {} kB", POLICY_LIMIT_BYTES / 1024));
        }
        Policy::parse(&std::fs::read(path).map_err(|error| error.to_string())?)
    }

    /// None when nothing is to be written.
    pub fn config(&self, data_dir: &Path) -> Option<audit::Config> {
        let policy = self.policy().ok().filter(|policy| !policy.is_silent())?;
        let file = if self.path.is_empty() { data_dir.join("audit/audit.log") } else { self.path.clone().into() };
        let rotation = Rotation {
            max_age_days: self.max_file_age_days,
            max_files: self.max_files,
            max_file_bytes: u64::from(self.max_file_size_mb) * MEGABYTE,
        };
        Some(audit::Config { policy, file, rotation })
    }
}
