//! hostPath volumes: the path must be what its type says, or is made. Upstream: pkg/volume/hostpath/host_path.go.
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
    path::Path,
};

/// Blocking.
pub fn check(path: &str, kind: &str) -> Result<(), String> {
    if path.split('/').any(|part| part == "..") {
        return Err(format!("path {path} must not contain '..'"));
    }
    let exists = fs::metadata(path);
    let failed = |what: &str| format!("hostPath type check failed: {path} is not a {what}");
    let is = |what: &str, test: fn(&fs::FileType) -> bool| match &exists {
        Ok(metadata) if test(&metadata.file_type()) => Ok(()),
        _ => Err(failed(what)),
    };
    let made = |result: io::Result<()>| match result {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e.to_string()),
        _ => Ok(()),
    };
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if exists.is_err() => made(fs::DirBuilder::new().recursive(true).mode(0o755).create(path)),
        "DirectoryOrCreate" | "Directory" => is("directory", fs::FileType::is_dir),
        "FileOrCreate" if exists.is_err() => {
            made(fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(Path::new(path)).map(drop))
        }
        // Upstream takes for a file whatever is no directory, socket or device.
        "FileOrCreate" | "File" => is("file", fs::FileType::is_file),
        "Socket" => is("socket file", FileTypeExt::is_socket),
        "CharDevice" => is("character device", FileTypeExt::is_char_device),
        "BlockDevice" => is("block device", FileTypeExt::is_block_device),
        _ => Err(format!("{kind} is an invalid volume type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    #[test]
    fn types_are_checked_or_made() {
        let temp = Temp::new();
        let path = |name: &str| temp.0.join(name).to_str().unwrap().to_owned();
        for (name, kind, error) in [
            ("none", "", None),
            ("none", "Directory", Some("a directory")),
            ("made/deep", "DirectoryOrCreate", None),
            ("made", "Directory", None),
            ("made", "File", Some("a file")),
            ("made/file", "FileOrCreate", None),
            ("made/file", "FileOrCreate", None),
            ("made/file", "File", None),
            ("made/file", "DirectoryOrCreate", Some("a directory")),
            ("made/file", "Socket", Some("a socket file")),
            ("made/file", "BlockDevice", Some("a block device")),
        ] {
            let path = path(name);
            let expected = error.map(|what| format!("hostPath type check failed: {path} is not {what}"));
            assert_eq!(check(&path, kind).err(), expected, "{name} {kind}");
        }
        assert_eq!(check("/dev/null", "CharDevice"), Ok(()));
        assert_eq!(check("/", "Thing"), Err("Thing is an invalid volume type".into()));
    }
}
