//! Recovery by a directory of backups, as MicroShift's `--auto-recovery` has it (its docs/user/autorecovery.md and
//! pkg/admin/autorecovery): `backup` puts a backup into it under the time and what wrote it; `restore` puts the newest that
//! fits back, sets the failed data aside, and never takes the same one twice in a row.
use super::{Error, Fresh, slot, sync_dir};
use mote_schema::Order as _;
use serde_json::{Value, json};
use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

const STATE: &str = "state.json";
const FAILED: &str = "failed";
const RESTORED: &str = "restored";
const SUFFIX: &str = ".tar.gz";
/// yyyymmddHHMMSS
const TIME_DIGITS: usize = 14;

/// What a backup has to be of: the ostree deployment where there is one, else this version of Mote.
fn fits() -> String {
    let slot = slot::current("");
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let is_ostree = command_line.split_whitespace().any(|word| word.starts_with("ostree="));
    if is_ostree { slot } else { env!("CARGO_PKG_VERSION").to_owned() }
}

/// The name of what is made now, the next that is free.
fn name(dir: &Path, suffix: &str) -> PathBuf {
    let (mut time, of) = (jiff::Zoned::now(), fits());
    loop {
        let path = dir.join(format!("{}_{of}{suffix}", time.strftime("%Y%m%d%H%M%S")));
        match time.checked_add(jiff::SignedDuration::from_secs(1)) {
            Ok(later) if path.exists() => time = later,
            _ => return path,
        }
    }
}

/// Where the next backup goes; makes the directory.
pub fn next(storage: &Path) -> Result<PathBuf, Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(storage);
    made.map_err(Error::io(format!("making {}", storage.display())))?;
    Ok(name(storage, SUFFIX))
}

/// The newest backup that fits and is not the one that was put back last.
pub fn candidate(storage: &Path) -> Result<PathBuf, Error> {
    let reading = || Error::io(format!("reading {}", storage.display()));
    let entries = fs::read_dir(storage).map_err(reading())?;
    let names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let last = last(storage);
    let newest = choose(names, &fits(), last.as_deref());
    newest.map(|name| storage.join(name)).ok_or_else(|| Error::Refused("no backups for restoring".to_owned()))
}

fn choose(mut names: Vec<String>, fits: &str, last: Option<&str>) -> Option<String> {
    names.retain(|name| {
        let parts = name.strip_suffix(SUFFIX).and_then(|name| name.split_once('_'));
        let fitting = parts.is_some_and(|(time, of)| {
            time.len() == TIME_DIGITS && time.bytes().all(|digit| digit.is_ascii_digit()) && of == fits
        });
        fitting && Some(name.as_str()) != last
    });
    names.order();
    names.pop()
}

fn last(storage: &Path) -> Option<String> {
    let state: Value = serde_json::from_slice(&fs::read(storage.join(STATE)).ok()?).ok()?;
    Some(state["LastBackup"].as_str()?.to_owned())
}

/// Copies what is about to be replaced to `failed`; there when it is whole.
pub fn save_failed(storage: &Path, data_dir: &Path) -> Result<PathBuf, Error> {
    let saving = || Error::io("saving the failed data");
    let failed = storage.join(FAILED);
    let path = name(&failed, "");
    let mut part = path.clone().into_os_string();
    part.push(".tmp");
    let part = PathBuf::from(part);
    let save = || -> io::Result<()> {
        super::restore::remove(&part)?;
        copy(data_dir, &part, 0)?;
        sync_dir(&part)?;
        fs::rename(&part, &path)?;
        sync_dir(&failed)
    };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&failed);
    made.and_then(|()| save()).map_err(|error| {
        let _ = super::restore::remove(&part);
        saving()(error)
    })?;
    Ok(path)
}

/// What a restore replaces, and what is below it. Links and sockets are not data.
fn copy(from: &Path, to: &Path, depth: usize) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if depth == 0 && !super::restore::is_replaced(&entry.file_name().to_string_lossy()) {
            continue;
        }
        if kind.is_dir() && depth < 8 {
            copy(&entry.path(), &target, depth + 1)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            fs::File::open(&target)?.sync_all()?;
        }
    }
    Ok(())
}

/// `restored` is the data now: the one before it is out of the way of the next time.
pub fn note(storage: &Path, restored: &Path) -> Result<(), Error> {
    let before = last(storage);
    let name = restored.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut state = Fresh::create(&storage.join(STATE))?;
    let text = json!({"LastBackup": name}).to_string();
    state.file.write_all(text.as_bytes()).map_err(Error::io("noting which backup was put back"))?;
    state.publish()?;
    let Some(before) = before.filter(|before| *before != name && !before.contains('/')) else { return Ok(()) };
    let (from, to) = (storage.join(&before), storage.join(RESTORED));
    if from.exists() {
        let moved = fs::DirBuilder::new().recursive(true).mode(0o700).create(&to);
        let moved = moved.and_then(|()| fs::rename(&from, to.join(&before))).and_then(|()| sync_dir(storage));
        moved.map_err(Error::io(format!("moving {}", from.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_fits_is_chosen_and_not_twice() {
        #[track_caller]
        fn check(names: &[&str], last: Option<&str>, expected: Option<&str>) {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(choose(names, "1.0.0", last).as_deref(), expected);
        }
        let (old, new) = ("20260101000000_1.0.0.tar.gz", "20260202000000_1.0.0.tar.gz");
        check(&[], None, None);
        check(&[old, new, "20270101000000_1.1.0.tar.gz", "state.json", "x_1.0.0.tar.gz"], None, Some(new));
        check(&[old, new], Some(new), Some(old));
        check(&[new], Some(new), None);
        check(&["20260101000000_1.0.0.tar.gz.part"], None, None);
    }
}
