//! `DIR/version`: who wrote the data last, and the decision that a start makes by it: go on, put back what this system
//! image left when it was replaced, or refuse.
use super::{Error, Fresh, kept::Snapshot, slot};
use serde_json::{Value, json};
use std::{fs, io::Write as _, path::Path};

const FILE: &str = "version";
/// Rises with every release that writes what the release before it could not read (the rule is in
/// `runtime/schema/doc/FORMAT.md`).
pub const DATA: u64 = mote_schema::DATA_VERSION;

/// Who wrote the data last.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// Mote's.
    pub version: String,
    /// The newest data version among those who ever wrote it.
    pub data: u64,
    pub slot: String,
    pub boot_id: String,
    /// Whether this version has been ready on this slot for a while.
    pub healthy: bool,
}

impl Version {
    /// This program, here, now.
    pub fn current(slot_file: &str) -> Version {
        Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            data: DATA,
            slot: slot::current(slot_file),
            boot_id: slot::boot_id(),
            healthy: false,
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "version": self.version, "data": self.data, "slot": self.slot, "boot_id": self.boot_id,
            "healthy": self.healthy,
        })
    }

    pub fn from_json(json: &Value) -> Option<Version> {
        let text = |name: &str| Some(json[name].as_str()?.to_owned());
        Some(Version {
            version: text("version")?,
            data: json["data"].as_u64()?,
            slot: text("slot")?,
            boot_id: text("boot_id")?,
            healthy: json["healthy"].as_bool()?,
        })
    }

    /// None when there is none, or none that can be read.
    pub fn read(data_dir: &Path) -> Option<Version> {
        Version::from_json(&serde_json::from_slice(&fs::read(data_dir.join(FILE)).ok()?).ok()?)
    }

    pub fn write(&self, data_dir: &Path) -> Result<(), Error> {
        let mut fresh = Fresh::create(&data_dir.join(FILE))?;
        fresh.file.write_all(format!("{}\n", self.to_json()).as_bytes()).map_err(Error::io("writing the version"))?;
        fresh.publish()
    }

    pub fn same_image(&self, other: &Version) -> bool {
        self.slot == other.slot && self.version == other.version
    }
}

/// Whether this program reads data of a version: it reads all older ones, and one newer, which is written so that it can.
pub fn reads(data: u64) -> bool {
    (1..=DATA + 1).contains(&data)
}

#[derive(Debug, PartialEq)]
pub enum Start<'a> {
    /// With the data that is there.
    Go,
    /// An update was rolled back: this image's data first.
    RollBack(&'a Snapshot),
    Refuse(String),
}

impl Start<'_> {
    /// `snapshots`: newest first. `told`: somebody who knows says that an update is rolled back.
    pub fn decide<'a>(here: &Version, found: Option<&Version>, snapshots: &'a [Snapshot], told: bool) -> Start<'a> {
        let Some(found) = found else { return Start::Go };
        let own = snapshots.iter().find(|kept| kept.slot == here.slot && kept.version == here.version);
        let readable = reads(found.data);
        match own {
            // The image that wrote it was never well, so this is no return after months of work.
            Some(own) if !here.same_image(found) && (told || !found.healthy || !readable) => Start::RollBack(own),
            _ if readable => Start::Go,
            _ => Start::Refuse(format!(
                "the data was written by mote {} (data version {}), and mote {} reads up to data version {}. Start mote \
                 {} or newer again, or put a backup of an older one back with `mote restore`",
                found.version,
                found.data,
                here.version,
                DATA + 1,
                found.version,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: &str, slot: &str, data: u64, healthy: bool) -> Version {
        Version { version: version.to_owned(), data, slot: slot.to_owned(), boot_id: "b".to_owned(), healthy }
    }

    fn kept(slot: &str, version: &str, revision: u64) -> Snapshot {
        Snapshot::parse(Path::new(&format!("/x/{slot}_{version}_b_{revision}.tar.gz"))).unwrap()
    }

    #[test]
    fn an_update_that_was_never_well_is_rolled_back_with_its_data() {
        let snapshots = [kept("A", "1.0.0", 90), kept("B", "1.1.0", 80), kept("A", "1.0.0", 70)];
        let here = version("1.0.0", "A", DATA, false);
        #[track_caller]
        fn check(here: &Version, found: Option<Version>, snapshots: &[Snapshot], told: bool, expected: &str) {
            let found = match Start::decide(here, found.as_ref(), snapshots, told) {
                Start::Go => "go".to_owned(),
                Start::RollBack(to) => format!("roll back to {}", to.revision),
                Start::Refuse(why) => why,
            };
            assert!(found.contains(expected), "{found}");
        }
        check(&here, None, &snapshots, true, "go");
        check(&here, Some(version("1.0.0", "A", DATA, false)), &snapshots, true, "go");
        check(&here, Some(version("1.1.0", "B", DATA, false)), &snapshots, false, "roll back to 90");
        check(&here, Some(version("1.1.0", "B", DATA, true)), &snapshots, false, "go");
        check(&here, Some(version("1.1.0", "B", DATA, true)), &snapshots, true, "roll back to 90");
        check(&here, Some(version("1.1.0", "B", DATA + 1, true)), &snapshots, false, "go");
        check(&here, Some(version("1.2.0", "B", DATA + 2, true)), &snapshots, false, "roll back to 90");
        check(&here, Some(version("1.2.0", "B", DATA + 2, true)), &[], false, "Start mote 1.2.0 or newer again");
        check(&here, Some(version("0.0.1", "B", 0, true)), &[], false, "data version 0");
        // The slot of old holds a new image.
        let updated = version("1.2.0", "A", DATA, false);
        check(&updated, Some(version("1.1.0", "B", DATA, false)), &snapshots, false, "go");
    }

    #[test]
    fn the_file_is_read_back() {
        let version = version("1.0.0", "A", 1, true);
        assert_eq!(Version::from_json(&version.to_json()), Some(version));
        assert_eq!(Version::from_json(&json!({"version": "1.0.0"})), None);
    }
}
