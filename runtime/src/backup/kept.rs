//! Backups that the node keeps by itself: the last good states of each system image, a few, in a directory beside the
//! data, so that a rolled back update finds its data and damage has something to be repaired from.
//!
//! Their names say all that is needed to choose: SLOT_VERSION_BOOT_REVISION.tar.gz. Revisions never go back, so the
//! highest is the newest, whatever the clock says.
use super::{Error, Fresh, Manifest, Version, length, sync_dir, write};
use mote_schema::Order as _;
use mote_store::Backup;
use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

const SUFFIX: &str = ".tar.gz";
/// Images whose backups are kept: what runs, what ran before, and one more.
const SLOTS: usize = 3;
/// Left free on the disk by automatic backups.
const RESERVE_BYTES: u64 = 32 << 20;

#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub path: PathBuf,
    pub slot: String,
    pub version: String,
    pub boot_id: String,
    pub revision: u64,
    pub bytes: u64,
}

impl Snapshot {
    pub fn parse(path: &Path) -> Option<Snapshot> {
        let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
        let [slot, version, boot_id, revision] = name.split('_').collect::<Vec<_>>().try_into().ok()?;
        let bytes = fs::metadata(path).map_or(0, |facts| facts.len());
        let (slot, version, boot_id) = (slot.to_owned(), version.to_owned(), boot_id.to_owned());
        Some(Snapshot { path: path.to_owned(), slot, version, boot_id, revision: revision.parse().ok()?, bytes })
    }
}

/// What the configuration says of automatic backups.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// "": the data directory's name with "-backups".
    pub dir: String,
    /// For each image; 0: none are made.
    pub keep: usize,
    pub max_size_mb: u64,
    /// Hours between two while the node runs on; 0: none.
    pub every_hours: u64,
    /// How long an image must have been ready to count as good.
    pub healthy_after_seconds: u64,
    /// "": the slot is found from the machine.
    pub slot_file: String,
    /// What damage took comes back from the newest backup.
    pub repair: bool,
    /// A store that does not open is replaced by the newest backup.
    pub restore: bool,
    /// Of the store's file, read anew and compared; 0: none.
    pub scrub_mb_per_day: u64,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            dir: String::new(),
            keep: 2,
            max_size_mb: 256,
            every_hours: 7 * 24,
            healthy_after_seconds: 300,
            slot_file: String::new(),
            repair: true,
            restore: false,
            scrub_mb_per_day: 64,
        }
    }
}

/// The directory of automatic backups.
#[derive(Clone)]
pub struct Kept {
    pub dir: PathBuf,
    keep: usize,
    max_bytes: u64,
}

impl Kept {
    pub fn new(policy: &Policy, data_dir: &Path) -> Kept {
        let mut beside = data_dir.as_os_str().to_owned();
        beside.push("-backups");
        let dir = if policy.dir.is_empty() { PathBuf::from(beside) } else { PathBuf::from(&policy.dir) };
        Kept { dir, keep: policy.keep, max_bytes: policy.max_size_mb << 20 }
    }

    /// Newest first.
    pub fn list(&self) -> Vec<Snapshot> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let mut found: Vec<_> = entries.filter_map(|entry| Snapshot::parse(&entry.ok()?.path())).collect();
        found.order_by_key(|kept| std::cmp::Reverse(kept.revision));
        found
    }

    /// Somebody's word (greenboot's script, an updater) that the next start is after an update was rolled back.
    fn mark(&self) -> PathBuf {
        self.dir.join("restore")
    }

    pub fn told(&self) -> bool {
        self.mark().exists()
    }

    pub fn forget_told(&self) {
        let _ = fs::remove_file(self.mark());
    }

    /// Makes one, unless there is one of the same state. None: there was no need.
    pub fn make(&self, version: &Version, backup: &Backup, data_dir: &Path) -> Result<Option<PathBuf>, Error> {
        let (slot, revision) = (&version.slot, backup.revision());
        let known = self.list().into_iter().any(|kept| kept.slot == *slot && kept.revision == revision);
        if self.keep == 0 || known {
            return Ok(None);
        }
        let making = || Error::io(format!("making {}", self.dir.display()));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(making())?;
        self.make_room(length(backup))?;
        let name = format!("{slot}_{}_{}_{revision}{SUFFIX}", version.version, version.boot_id);
        let path = self.dir.join(name);
        let mut fresh = Fresh::create(&path)?;
        let manifest = Manifest { version: version.clone(), revision };
        match write(&mut fresh.file, true, &manifest, data_dir, backup, &mut |_| {}) {
            Ok(()) => fresh.publish()?,
            Err(error) => {
                fresh.discard();
                return Err(error);
            }
        }
        self.prune();
        Ok(Some(path))
    }

    /// The disk keeps a reserve; older backups go first. The newest stays.
    fn make_room(&self, bytes: u64) -> Result<(), Error> {
        loop {
            let space = rustix::fs::statvfs(&self.dir).map_err(|error| {
                let error = error.into();
                Error::Io { doing: format!("asking for the space of {}", self.dir.display()), error }
            })?;
            if space.f_bavail * space.f_frsize >= bytes + RESERVE_BYTES {
                return Ok(());
            }
            let mut kept = self.list();
            match kept.pop().filter(|_| !kept.is_empty()) {
                Some(oldest) => remove(&oldest),
                None => return Err(Error::Refused(format!("{}: too little space is left", self.dir.display()))),
            }
        }
    }

    fn prune(&self) {
        for old in surplus(&self.list(), self.keep, self.max_bytes) {
            remove(old);
        }
        let _ = sync_dir(&self.dir);
    }
}

/// Which of them go: all but so many of each of the newest slots, and the oldest of those as long as all together are
/// too large. The newest one stays in any case.
fn surplus(newest_first: &[Snapshot], keep: usize, max_bytes: u64) -> Vec<&Snapshot> {
    let (mut slots, mut bytes, mut surplus): (Vec<(&str, usize)>, u64, Vec<_>) = (Vec::new(), 0, Vec::new());
    for (place, kept) in newest_first.iter().enumerate() {
        let known = slots.iter().position(|(slot, _)| *slot == kept.slot).unwrap_or_else(|| {
            slots.push((&kept.slot, 0));
            slots.len() - 1
        });
        slots[known].1 += 1;
        bytes += kept.bytes;
        if place > 0 && (known >= SLOTS || slots[known].1 > keep || bytes > max_bytes) {
            surplus.push(kept);
        }
    }
    surplus
}

fn remove(kept: &Snapshot) {
    match fs::remove_file(&kept.path) {
        Ok(()) => tracing::info!(backup = %kept.path.display(), "an old backup is removed"),
        Err(error) => tracing::warn!(%error, backup = %kept.path.display(), "removing an old backup"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_each_slot_are_kept_and_the_newest_always() {
        #[track_caller]
        fn check(kept: &[(&str, u64, u64)], keep: usize, max: u64, gone: &[u64]) {
            let parse = |(slot, revision, bytes): &(&str, u64, u64)| {
                let kept = Snapshot::parse(Path::new(&format!("/x/{slot}_1_b_{revision}.tar.gz"))).unwrap();
                Snapshot { bytes: *bytes, ..kept }
            };
            let all: Vec<_> = kept.iter().map(parse).collect();
            let found: Vec<_> = surplus(&all, keep, max).into_iter().map(|kept| kept.revision).collect();
            assert_eq!(found, gone);
        }
        check(&[("A", 9, 1), ("A", 8, 1), ("B", 7, 1), ("A", 6, 1)], 2, 100, &[6]);
        check(&[("A", 9, 1), ("B", 8, 1), ("C", 7, 1), ("D", 6, 1)], 2, 100, &[6]);
        check(&[("A", 9, 200), ("B", 8, 1)], 2, 100, &[8]);
        check(&[("A", 9, 60), ("B", 8, 60), ("A", 7, 1)], 2, 100, &[8, 7]);
        check(&[], 2, 100, &[]);
    }

    #[test]
    fn names_are_read_back_and_others_left_alone() {
        let kept = Snapshot::parse(Path::new("/x/fedora-35d7b5.0_0.1.0_80364f_10012.tar.gz")).unwrap();
        assert_eq!((kept.slot.as_str(), kept.version.as_str(), kept.revision), ("fedora-35d7b5.0", "0.1.0", 10_012));
        for name in ["a_b_c.tar.gz", "a_b_c_d.tar.gz", "a_b_c_1.tar.gz.part", "mine.tar.gz"] {
            assert_eq!(Snapshot::parse(Path::new(name)), None, "{name}");
        }
    }
}
