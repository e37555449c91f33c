//! Files that change all at once: readers see the old set or the new one, never a mix.
//!
//! The layout is upstream's (pkg/volume/util/atomic_writer.go), since programs watch it: files live in a directory named
//! by its time, `..data` links to that directory, and each visible name links into `..data`. An update is the rename of one link.
use mote_schema::Gather as _;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    path::{Component, Path, PathBuf},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    pub owner: Option<u32>,
}

/// By relative path.
pub type Files = BTreeMap<String, File>;

const DATA: &str = "..data";
const NEXT: &str = "..data_tmp";
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

/// Makes `dir` show `files` and nothing else. `prepare` sees the finished directory before anybody else does. Blocking.
pub fn write(dir: &Path, files: &Files, prepare: &dyn Fn(&Path) -> io::Result<()>) -> Result<(), String> {
    let mut clean = Files::new();
    for (path, file) in files {
        clean.insert(checked(path)?, file.clone());
    }
    swap(dir, &clean, prepare).map_err(|e| e.to_string())
}

fn swap(dir: &Path, files: &Files, prepare: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let old = match fs::read_link(dir.join(DATA)) {
        Ok(name) => Some(dir.join(name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    if !old.as_ref().is_some_and(|old| holds(old, files)) {
        let new = new_dir(dir)?;
        let filled = fill(&new, files).and_then(|()| prepare(&new)).and_then(|()| {
            let next = dir.join(NEXT);
            // Left behind by a power cut.
            remove_file(&next)?;
            symlink(new.file_name().unwrap_or_default(), &next)?;
            fs::rename(next, dir.join(DATA))
        });
        if let Err(e) = filled {
            let _ = fs::remove_dir_all(&new);
            return Err(e);
        }
    }
    let shown: BTreeMap<&str, ()> = files.keys().map(|path| (first(path), ())).gather();
    for name in shown.keys() {
        let link = dir.join(name);
        match symlink(Path::new(DATA).join(name), &link) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    let current = fs::read_link(dir.join(DATA))?;
    for entry in fs::read_dir(dir)? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let Some(text) = name.to_str() else { continue };
        if text.starts_with("..") {
            // Older sets, also those of a process that was killed.
            if path.symlink_metadata()?.is_dir() && Path::new(text) != current {
                fs::remove_dir_all(path)?;
            }
        } else if !shown.contains_key(text) && fs::read_link(&path).is_ok_and(|target| target.starts_with(DATA)) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn first(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The path without "." and doubled slashes, if it stays inside and its names fit.
fn checked(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Err("invalid path: must not be empty: \"\"".into());
    }
    if path.starts_with('/') {
        return Err(format!("invalid path: must be relative path: {path}"));
    }
    if path.len() > MAX_PATH {
        return Err(format!("invalid path: must be less than or equal to {MAX_PATH} characters"));
    }
    for item in path.split('/') {
        if item == ".." {
            return Err(format!("invalid path: must not contain '..': {path}"));
        }
        if item.len() > MAX_NAME {
            return Err(format!("invalid path: filenames must be less than or equal to {MAX_NAME} characters"));
        }
    }
    if path.starts_with("..") {
        return Err(format!("invalid path: must not start with '..': {path}"));
    }
    let parts = Path::new(path).components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    let clean = parts.collect::<Vec<_>>().join("/");
    if clean.is_empty() { Err(format!("invalid path: must not be empty: {path}")) } else { Ok(clean) }
}

/// Whether a set has these files with these bytes and no others. Modes are not compared, as upstream.
fn holds(dir: &Path, files: &Files) -> bool {
    let same = |(path, file): (&String, &File)| fs::read(dir.join(path)).is_ok_and(|data| data == file.data);
    files.iter().all(same) && count(dir).is_ok_and(|count| count == files.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        total += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(total)
}

/// "..2026_11_22_15_04_05.123456789"
fn new_dir(dir: &Path) -> io::Result<PathBuf> {
    let mut tries = 0;
    loop {
        let now = jiff::Timestamp::now();
        let name =
            format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond().unsigned_abs() + tries);
        let path = dir.join(name);
        match fs::DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
                return Ok(path);
            }
            // The clock stands still or has jumped back.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < 100 => tries += 1,
            Err(e) => return Err(e),
        }
    }
}

fn fill(dir: &Path, files: &Files) -> io::Result<()> {
    for (path, file) in files {
        let path = dir.join(path);
        let mut parent = dir.to_path_buf();
        for part in path.parent().and_then(|parent| parent.strip_prefix(dir).ok()).into_iter().flatten() {
            parent.push(part);
            if !parent.is_dir() {
                fs::create_dir(&parent)?;
                fs::set_permissions(&parent, fs::Permissions::from_mode(0o755))?;
            }
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut out, &file.data)?;
        out.set_permissions(fs::Permissions::from_mode(file.mode & 0o777))?;
        if let Some(owner) = file.owner {
            lchown(&path, Some(owner), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |data: &str| File { data: data.into(), mode: 0o640, owner: None };
        list.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn check(dir: &Path, list: &[(&str, &str)]) -> PathBuf {
        write(dir, &files(list), &|_| Ok(())).unwrap();
        for (path, data) in list {
            assert_eq!(fs::read_to_string(dir.join(path)).unwrap(), *data, "{path}");
            let mode = fs::metadata(dir.join(path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o640, "{path}");
        }
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with(".."));
        names.sort();
        let mut expected: Vec<&str> = list.iter().map(|(path, _)| first(path)).collect();
        expected.sort();
        expected.dedup();
        assert_eq!(names, expected);
        let hidden = fs::read_dir(dir)
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_str().is_some_and(|name| name.starts_with("..")));
        assert_eq!(hidden.count(), 2, "..data and one set");
        fs::read_link(dir.join(DATA)).unwrap()
    }

    #[test]
    fn sets_are_swapped_whole() {
        let temp = Temp::new();
        let one = check(&temp.0, &[("a", "1"), ("d/x", "2"), ("d/y/z", "3")]);
        assert_eq!(check(&temp.0, &[("a", "1"), ("d/x", "2"), ("d/y/z", "3")]), one, "nothing to do");
        let two = check(&temp.0, &[("a", "1"), ("d/x", "2")]);
        assert_ne!(two, one);
        let three = check(&temp.0, &[("b", "1")]);
        // What a power cut may leave.
        fs::create_dir(temp.0.join("..2020_01_01_00_00_00.1")).unwrap();
        symlink("nowhere", temp.0.join(NEXT)).unwrap();
        assert_ne!(check(&temp.0, &[("b", "2")]), three);
        check(&temp.0, &[("./c//d", "2")].map(|_| ("c/d", "2")));
        check(&temp.0, &[]);
    }

    #[test]
    fn a_failed_set_is_not_seen() {
        let temp = Temp::new();
        check(&temp.0, &[("a", "1")]);
        let failed = write(&temp.0, &files(&[("a", "2")]), &|_| Err(io::Error::other("no")));
        assert_eq!(failed, Err("no".into()));
        check(&temp.0, &[("a", "1")]);
    }

    #[test]
    fn paths_stay_inside() {
        let temp = Temp::new();
        let long = "x".repeat(256);
        for (path, error) in [
            ("", "invalid path: must not be empty"),
            ("/a", "invalid path: must be relative path: /a"),
            ("a/../b", "invalid path: must not contain '..': a/../b"),
            ("..a", "invalid path: must not start with '..': ..a"),
            (".", "invalid path: must not be empty"),
            (&long, "invalid path: filenames must be less"),
        ] {
            let written = write(&temp.0, &files(&[(path, "")]), &|_| Ok(())).unwrap_err();
            assert!(written.starts_with(error), "{path}: {written}");
        }
    }
}
