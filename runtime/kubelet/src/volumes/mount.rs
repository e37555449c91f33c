//! The kernel's side of volumes: tmpfs, bind mounts, and removing a tree without ever following a mount.
use mote_schema::Order as _;
use rustix::mount::{MountFlags, UnmountFlags};
use std::{
    ffi::CString,
    fs, io,
    os::unix::{
        ffi::OsStringExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Mutex,
};

/// Two pods must not put a tmpfs on the same directory at once.
static MOUNTING: Mutex<()> = Mutex::new(());

/// Makes `dir` a tmpfs of at most `size` ("64m", "25%") unless it is one already. Blocking.
pub fn tmpfs(dir: &Path, size: &str, mode: u32) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let _guard = MOUNTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if is_mount(dir)? {
        return Ok(());
    }
    // Secrets must not reach a swap device; kernels before 6.4 do not know the option.
    let mut last = Ok(());
    for noswap in [",noswap", ""] {
        let options = CString::new(format!("size={size},mode={mode:o}{noswap}"))?;
        last = rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options);
        if last != Err(rustix::io::Errno::INVAL) {
            break;
        }
    }
    last?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// Puts the file system of a block device on `dir` unless one is there. Blocking.
pub fn device(device: &Path, dir: &Path, fs_type: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let _guard = MOUNTING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if is_mount(dir)? {
        return Ok(());
    }
    Ok(rustix::mount::mount(device, dir, fs_type, MountFlags::empty(), None)?)
}

/// Whether `path` is the root of a mount of another filesystem.
pub fn is_mount(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(path.symlink_metadata()?.dev() != parent.symlink_metadata()?.dev())
}

/// Mount points at and below `dir`, deepest first.
pub fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?, dir))
}

/// The fifth field of each line, with spaces and the like in octal.
fn parse(mountinfo: &[u8], dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|point| PathBuf::from(std::ffi::OsString::from_vec(unescape(point))))
        .filter(|point| point.starts_with(dir))
        .collect();
    // Later mounts lie over earlier ones.
    found.reverse();
    found.order_by_key(|point| std::cmp::Reverse(point.components().count()));
    found
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) = (first, tail) {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = tail;
        } else {
            out.push(*first);
        }
    }
    out
}

/// Unmounts all below `dir`, then removes it. Does all it can; what is left is in the errors. Blocking.
pub fn remove_tree(dir: &Path) -> Result<(), Vec<String>> {
    let mut errors = Vec::new();
    let points = below(dir).unwrap_or_else(|e| {
        errors.push(format!("reading mounts: {e}"));
        Vec::new()
    });
    for point in points {
        if let Err(e) = rustix::mount::unmount(&point, UnmountFlags::DETACH) {
            errors.push(format!("unmounting {}: {e}", point.display()));
        }
    }
    match dir.symlink_metadata() {
        Ok(metadata) => remove(dir, &metadata, metadata.dev(), &mut errors),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => errors.push(format!("removing {}: {e}", dir.display())),
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// What is on another device is somebody else's data, however it came there.
fn remove(path: &Path, metadata: &fs::Metadata, device: u64, errors: &mut Vec<String>) {
    let mut say = |e: io::Error| {
        if e.kind() != io::ErrorKind::NotFound {
            errors.push(format!("removing {}: {e}", path.display()));
        }
    };
    if metadata.dev() != device {
        return say(io::Error::other("a filesystem is still mounted there"));
    }
    if !metadata.is_dir() {
        return fs::remove_file(path).unwrap_or_else(say);
    }
    match fs::read_dir(path) {
        Err(e) => say(e),
        Ok(entries) => {
            for entry in entries.flatten() {
                if let Ok(metadata) = entry.path().symlink_metadata() {
                    remove(&entry.path(), &metadata, device, errors);
                }
            }
            if let Err(e) = fs::remove_dir(path) {
                errors.push(format!("removing {}: {e}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    #[test]
    fn mount_points_deepest_first() {
        let mountinfo = b"22 1 8:1 / / rw - ext4 /dev/a rw\n\
            30 22 0:5 / /pods/u/volumes/a rw - tmpfs tmpfs rw\n\
            31 22 0:5 / /pods/u/volumes/a rw - tmpfs tmpfs rw\n\
            32 31 0:6 / /pods/u/volumes/a/b\\040c rw - tmpfs tmpfs rw\n\
            33 22 0:7 / /pods/u2 rw - tmpfs tmpfs rw\n\n";
        let found = parse(mountinfo, Path::new("/pods/u"));
        let expected = ["/pods/u/volumes/a/b c", "/pods/u/volumes/a", "/pods/u/volumes/a"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn trees_go_and_links_are_not_followed() {
        let temp = Temp::new();
        let tree = temp.0.join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/f"), "").unwrap();
        fs::write(temp.0.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&temp.0, tree.join("a/l")).unwrap();
        assert_eq!(remove_tree(&tree), Ok(()));
        assert!(!tree.exists() && temp.0.join("kept").exists());
        assert_eq!(remove_tree(&tree), Ok(()));
        assert!(!is_mount(&temp.0).unwrap());
    }
}
