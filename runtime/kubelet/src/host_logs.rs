//! The host's own logs, as a kubelet shows them at /logs/ (ServeLogs): a directory's names, or a file as it is now. What links
//! lead out of /var/log is not there.
use mote_api::pods::{HostLog, LogStream};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

const MAX_NAMES: usize = 10_000;
const CHUNK_BYTES: usize = 64 << 10;

enum Found {
    Directory(Vec<String>),
    File(File),
}

/// None: there is no such thing.
pub async fn open(root: PathBuf, path: String) -> Option<HostLog> {
    Some(match mote_api::unblock(move || find(&root, &path).ok()).await? {
        Found::Directory(names) => HostLog::Directory(names),
        Found::File(file) => HostLog::File(stream(file)),
    })
}

fn find(root: &Path, path: &str) -> io::Result<Found> {
    let path = Path::new(path);
    let root = root.canonicalize()?;
    let wanted = root.join(path).canonicalize()?;
    if !path.components().all(|part| matches!(part, Component::Normal(_))) || !wanted.starts_with(&root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let about = fs::metadata(&wanted)?;
    if about.is_dir() {
        let entries = fs::read_dir(wanted)?.flatten().take(MAX_NAMES);
        let named = entries.filter_map(|entry| {
            let end = if entry.path().is_dir() { "/" } else { "" };
            Some(entry.file_name().to_str()?.to_owned() + end)
        });
        let mut names: Vec<String> = named.collect();
        names.sort_unstable();
        return Ok(Found::Directory(names));
    }
    // A pipe would be waited for.
    if !about.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    File::open(wanted).map(Found::File)
}

fn stream(file: File) -> LogStream {
    Box::pin(futures_lite::stream::unfold(Some(file), async |file| {
        let mut file = file?;
        let read = mote_api::unblock(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            let length = file.read(&mut chunk)?;
            chunk.truncate(length);
            Ok((chunk, file))
        });
        match read.await {
            Ok((chunk, _)) if chunk.is_empty() => None,
            Ok((chunk, file)) => Some((Ok(chunk.into()), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    #[test]
    fn what_is_there_and_what_is_not() {
        let temp = Temp::new();
        let root = temp.0.join("log");
        fs::create_dir_all(root.join("pods")).unwrap();
        fs::write(root.join("syslog"), "x").unwrap();
        fs::write(temp.0.join("secret"), "x").unwrap();
        for (name, to) in [("out", "../secret"), ("in", "syslog"), ("up", "..")] {
            std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        }
        let check = |path: &str, want: &str| {
            let found = match find(&root, path) {
                Ok(Found::Directory(names)) => names.join(" "),
                Ok(Found::File(_)) => "file".into(),
                Err(_) => "none".into(),
            };
            assert_eq!(found, want, "{path}");
        };
        check("", "in out pods/ syslog up/");
        check("pods", "");
        check("syslog", "file");
        check("in", "file");
        for path in ["out", "up", "up/secret", "../secret", "pods/../../secret", "/etc/passwd", "nothing"] {
            check(path, "none");
        }
    }
}
