//! fsGroup: a volume's files belong to the pod's group, which may read and (if it may be written) write them, and new
//! files inherit it. Upstream: pkg/volume/volume_linux.go.
use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, lchown},
    path::Path,
};

const READ: u32 = 0o440;
const READ_WRITE: u32 = 0o660;
const ENTER: u32 = 0o110;
const SET_GROUP: u32 = 0o2000;

/// Children first and the root last, so that a root that is right says that all is. Blocking.
pub fn change(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            change(&entry?.path(), group, read_only)?;
        }
    }
    lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mask = if read_only { READ } else { READ_WRITE } | if metadata.is_dir() { SET_GROUP | ENTER } else { 0 };
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777 | mask))
}

/// Whether `change` has finished here before.
pub fn is_changed(path: &Path, group: u32) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| {
        let mask = SET_GROUP | READ_WRITE | ENTER;
        metadata.gid() == group && metadata.mode() & mask == mask
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    #[test]
    fn the_group_may_use_the_volume() {
        let temp = Temp::new();
        fs::create_dir(temp.0.join("d")).unwrap();
        fs::write(temp.0.join("d/f"), "").unwrap();
        let mode = |path: &str| temp.0.join(path).metadata().unwrap().mode() & 0o7777;
        fs::set_permissions(temp.0.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("nowhere", temp.0.join("d/l")).unwrap();
        let group = temp.0.metadata().unwrap().gid();
        assert!(!is_changed(&temp.0, group));
        change(&temp.0, group, false).unwrap();
        assert_eq!((mode("d/f"), mode("d") & 0o2770), (0o660, 0o2770));
        assert!(is_changed(&temp.0, group) && !is_changed(&temp.0, group + 1));
        fs::set_permissions(temp.0.join("d/f"), fs::Permissions::from_mode(0o600)).unwrap();
        change(&temp.0, group, true).unwrap();
        assert_eq!(mode("d/f"), 0o640);
    }
}
