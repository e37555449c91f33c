//! subPath: one file or directory of a volume in a container, without a way out of the volume. The container's user may
//! have put links anywhere in it, and may swap them while this runs.
//!
//! As upstream (pkg/volume/util/subpath): resolve, check that it is inside, open it step by step without following
//! links, and bind-mount what was opened.
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, fstat, mkdirat, openat, statat};
use rustix::mount::UnmountFlags;
use std::{
    fs,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

pub struct Wanted<'a> {
    /// Root of the volume on this node.
    pub volume: &'a Path,
    /// Relative, without "..".
    pub path: &'a str,
    /// Where to mount: POD_DIR/volume-subpaths/VOLUME/CONTAINER/INDEX.
    pub target: PathBuf,
}

const WALK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes the directory if nothing is there. Blocking.
pub fn create(wanted: &Wanted<'_>) -> io::Result<()> {
    let full = wanted.volume.join(wanted.path);
    if full.symlink_metadata().is_ok() {
        return Ok(());
    }
    // What exists of it may lead through links, as long as they stay inside; the rest is made step by step.
    let root = fs::canonicalize(wanted.volume)?;
    let mode = Mode::from_raw_mode(fstat(open(&root)?.as_fd())?.st_mode & 0o7777);
    let (mut existing, mut missing) = (full.as_path(), Vec::new());
    while existing.symlink_metadata().is_err() {
        missing.push(existing.file_name().ok_or_else(outside)?);
        existing = existing.parent().ok_or_else(outside)?;
    }
    let mut dir = open_inside(&root, existing)?;
    for name in missing.into_iter().rev() {
        match mkdirat(&dir, name, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) | Ok(()) => {}
            Err(e) => return Err(e.into()),
        }
        let made = openat(&dir, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        fchmod(&made, mode)?;
        dir = made;
    }
    Ok(())
}

/// Bind-mounts it at the target, and says where. What an earlier start of the container has mounted is used again if it
/// is still the same. Blocking.
pub fn mount(wanted: &Wanted<'_>) -> io::Result<()> {
    let root = fs::canonicalize(wanted.volume)?;
    let source = open_inside(&root, &wanted.volume.join(wanted.path))?;
    let found = fstat(&source)?;
    let target = &wanted.target;
    if let Ok(before) = rustix::fs::stat(target) {
        if (before.st_dev, before.st_ino) == (found.st_dev, found.st_ino) {
            return Ok(());
        }
        unmount(target)?;
    }
    fs::create_dir_all(target.parent().ok_or_else(outside)?)?;
    let made = if rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() {
        fs::create_dir(target)
    } else {
        fs::OpenOptions::new().write(true).create_new(true).open(target).map(drop)
    };
    made?;
    let opened = format!("/proc/self/fd/{}", source.as_raw_fd());
    rustix::mount::mount_bind(opened, target).map_err(io::Error::from)
}

fn unmount(target: &Path) -> io::Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH) {
        // It was no mount, only its place.
        Err(rustix::io::Errno::INVAL) | Ok(()) => {}
        Err(e) => return Err(e.into()),
    }
    if target.is_dir() { fs::remove_dir(target) } else { fs::remove_file(target) }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn outside() -> io::Error {
    io::Error::other("the subpath is not inside the volume")
}

/// Resolves `path`, and opens what it is if that is inside `root`. A link that somebody swaps in meanwhile is an error.
fn open_inside(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let real = fs::canonicalize(path)?;
    let inside = real.strip_prefix(root).map_err(|_| outside())?;
    let mut at = open(root).or_else(|_| rustix::fs::open(root, WALK, Mode::empty()).map_err(io::Error::from))?;
    for part in inside.components() {
        let Component::Normal(name) = part else { return Err(outside()) };
        let next = openat(&at, name, WALK, Mode::empty())?;
        let kind = rustix::fs::FileType::from_raw_mode(statat(&next, "", AtFlags::EMPTY_PATH)?.st_mode);
        if kind.is_symlink() {
            return Err(outside());
        }
        at = next;
    }
    Ok(at)
}

/// The text of a file in a volume, of at most `limit_bytes`; and where it is. Blocking.
pub fn read(volume: &Path, path: &str, limit_bytes: u64) -> io::Result<(PathBuf, String)> {
    let full = volume.join(path);
    let found = open_inside(&fs::canonicalize(volume)?, &full)?;
    // A pipe would keep the reader waiting.
    if !rustix::fs::FileType::from_raw_mode(fstat(&found)?.st_mode).is_file() {
        return Err(io::Error::other("not a file"));
    }
    // What was opened names a place; reading needs another way in, and the same file at its end.
    let opened = fs::File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    let mut text = String::new();
    io::Read::take(opened, limit_bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit_bytes {
        return Err(io::Error::other("the file is too large"));
    }
    Ok((full, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_lead_nowhere_but_inside() {
        let temp = Temp::new();
        let volume = temp.0.join("volume");
        fs::create_dir_all(volume.join("..set/d")).unwrap();
        fs::write(volume.join("..set/f"), "x").unwrap();
        symlink("..set", volume.join("..data")).unwrap();
        symlink("..data/f", volume.join("f")).unwrap();
        symlink("/etc", volume.join("etc")).unwrap();
        symlink("../..", volume.join("up")).unwrap();
        fs::write(temp.0.join("out"), "").unwrap();
        let root = fs::canonicalize(&volume).unwrap();
        for (path, inside) in [
            ("f", true),
            ("..data/d", true),
            ("", true),
            ("etc", false),
            ("etc/passwd", false),
            ("up", false),
            ("up/out", false),
        ] {
            assert_eq!(open_inside(&root, &volume.join(path)).is_ok(), inside, "{path}");
        }
        assert_eq!(read(&volume, "f", 1).unwrap().1, "x");
        assert!(read(&volume, "f", 0).is_err() && read(&volume, "etc/passwd", 1 << 20).is_err());
    }

    #[test]
    fn directories_are_made_as_the_volume_is() {
        let temp = Temp::new();
        let volume = temp.0.join("volume");
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2775)).unwrap();
        symlink(&temp.0, volume.join("out")).unwrap();
        let create = |path: &str| create(&Wanted { volume: &volume, path, target: PathBuf::new() });
        create("a/b").unwrap();
        create("a/b").unwrap();
        assert_eq!(volume.join("a/b").metadata().unwrap().permissions().mode() & 0o7777, 0o2775);
        assert!(create("out/x").is_err() && !temp.0.join("x").exists());
    }
}
