//! Backups: what is in one, made while the node runs or not, put back, and kept by themselves for each system image.
//! `docs/backup.md` is what users read.
//!
//! A backup is an archive of `mote.json`, the files of the data directory that nothing can make again, the store's
//! entries in chunks, and `end.json`. Values that the store seals stay sealed.
mod archive;
mod commands;
mod control;
mod kept;
mod life;
mod recovery;
mod restore;
pub mod slot;
mod version;

pub use commands::{backup, backup_into, recover, restore, verify};
pub use control::{Asked, ask, listen};
pub use kept::{Kept, Policy};
pub use life::Life;
pub use restore::open;
pub use version::Version;

use mote_schema::Order as _;
use version::Start;

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use mote_store::{Backup, Entry};
use serde_json::{Value, json};
use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
};

const MANIFEST: &str = "mote.json";
const END: &str = "end.json";
const STORE_PREFIX: &str = "store/";
/// Of the data directory: what is in a backup besides the store.
const FILES: [&str; 2] = ["certs", "kubeconfig"];
/// Keys and certificates are of a few kilobytes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub enum Error {
    Io { doing: String, error: io::Error },
    Store(mote_store::Error),
    Refused(String),
}

impl Error {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let doing = doing.into();
        |error| Error::Io { doing, error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { doing, error } => write!(f, "{doing}: {error}"),
            Error::Store(error) => error.fmt(f),
            Error::Refused(why) => f.write_str(why),
        }
    }
}

impl From<mote_store::Error> for Error {
    fn from(error: mote_store::Error) -> Error {
        Error::Store(error)
    }
}

/// What a backup says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    pub version: Version,
    pub revision: u64,
}

impl Manifest {
    fn to_json(&self) -> Value {
        let mut json = self.version.to_json();
        json["revision"] = json!(self.revision);
        json
    }

    fn from_json(bytes: &[u8]) -> Option<Manifest> {
        let json: Value = serde_json::from_slice(bytes).ok()?;
        Some(Manifest { version: Version::from_json(&json)?, revision: json["revision"].as_u64()? })
    }
}

/// About how long the archive is before it is compressed.
fn length(backup: &Backup) -> u64 {
    backup.size().1
}

/// Writes the archive, compressed or not; `done` hears how many bytes of the store are in it.
fn write(
    out: &mut dyn Write,
    compress: bool,
    manifest: &Manifest,
    data_dir: &Path,
    backup: &Backup,
    done: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let failed = || Error::io("writing the backup");
    if compress {
        let mut packed = GzEncoder::new(out, Compression::default());
        write(&mut packed, false, manifest, data_dir, backup, done)?;
        packed.finish().map_err(failed())?;
        return Ok(());
    }
    let ours = (0o600, 0, 0);
    archive::add(out, MANIFEST, ours, manifest.to_json().to_string().as_bytes()).map_err(failed())?;
    for name in files(data_dir).map_err(Error::io("reading the data directory"))? {
        let reading = || Error::io(format!("reading {name}"));
        let mut file = fs::File::open(data_dir.join(&name)).map_err(reading())?;
        let facts = file.metadata().map_err(reading())?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(FILE_LIMIT_BYTES).read_to_end(&mut bytes).map_err(reading())?;
        archive::add(out, &name, (facts.mode(), facts.uid(), facts.gid()), &bytes).map_err(failed())?;
    }
    let (mut chunks, mut bytes) = (0, 0);
    let entries = backup.write(&mut |chunk| {
        chunks += 1;
        let name = format!("{STORE_PREFIX}{chunks:06}");
        archive::add(out, &name, ours, chunk).map_err(|error| mote_store::Error::io("writing the backup", &error))?;
        bytes += chunk.len() as u64;
        done(bytes);
        Ok(())
    })?;
    archive::add(out, END, ours, json!({"entries": entries}).to_string().as_bytes()).map_err(failed())?;
    archive::finish(out).map_err(failed())
}

/// Paths below the data directory, in order. Links and what is too large for a key are not ours.
fn files(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut todo: Vec<String> = FILES.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = todo.pop() {
        let path = data_dir.join(&name);
        match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_dir() => {
                for entry in fs::read_dir(&path)? {
                    let below = entry?.file_name();
                    todo.push(format!("{name}/{}", below.to_string_lossy()));
                }
            }
            Ok(facts) if facts.is_file() && facts.len() < FILE_LIMIT_BYTES => found.push(name),
            _ => {}
        }
    }
    found.order();
    Ok(found)
}

/// Reads an archive from its start.
struct Reader<R: Read> {
    from: GzDecoder<R>,
    manifest: Manifest,
}

enum Part {
    File(archive::Member),
    Entries(Vec<Entry>),
}

impl<R: Read> Reader<R> {
    fn open(from: R) -> Result<Reader<R>, Error> {
        let mut from = GzDecoder::new(from);
        let first = archive::next(&mut from).map_err(Error::io("reading the backup"))?;
        let manifest = first.filter(|member| member.name == MANIFEST).and_then(|m| Manifest::from_json(&m.bytes));
        let manifest = manifest.ok_or_else(|| Error::Refused("this is no backup of Mote's".to_owned()))?;
        Ok(Reader { from, manifest })
    }

    /// All that is in it, each part when it has been checked. On an error the parts before it are worth nothing: only
    /// a backup that was read to its end is whole.
    fn parts(mut self, take: &mut dyn FnMut(Part) -> Result<(), Error>) -> Result<(), Error> {
        let damaged = |what: &str| Error::Refused(format!("the backup is damaged: {what}"));
        let (mut entries, mut expected) = (0, None);
        while let Some(member) = archive::next(&mut self.from).map_err(Error::io("reading the backup"))? {
            if member.name == END {
                let end: Option<Value> = serde_json::from_slice(&member.bytes).ok();
                expected = end.and_then(|end| end["entries"].as_u64());
            } else if member.name.starts_with(STORE_PREFIX) {
                let chunk = mote_store::entries(&member.bytes).collect::<Result<Vec<_>, _>>()?;
                entries += chunk.len() as u64;
                take(Part::Entries(chunk))?;
            } else if FILES.iter().any(|name| member.name.split('/').next() == Some(*name))
                && member.name.split('/').all(|part| !matches!(part, "" | "." | ".."))
            {
                take(Part::File(member))?;
            } else {
                return Err(damaged(&format!("{:?} does not belong in it", member.name)));
            }
        }
        if expected == Some(entries) { Ok(()) } else { Err(damaged("it is not whole")) }
    }
}

/// A file that is there when it is whole, and not before: written beside `path`, flushed, renamed.
struct Fresh {
    path: PathBuf,
    part: PathBuf,
    file: fs::File,
}

impl Fresh {
    fn create(path: &Path) -> Result<Fresh, Error> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file = file.map_err(Error::io(format!("writing {}", part.display())))?;
        Ok(Fresh { path: path.to_owned(), part, file })
    }

    fn publish(self) -> Result<(), Error> {
        let done = self.file.sync_all().and_then(|()| fs::rename(&self.part, &self.path));
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        done.and_then(|()| sync_dir(parent)).map_err(Error::io(format!("writing {}", self.path.display())))
    }

    fn discard(self) {
        let _ = fs::remove_file(&self.part);
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Puts a member's file below `dir`, with its mode and, for root, its owner.
fn unpack(dir: &Path, member: &archive::Member) -> io::Result<()> {
    let path = dir.join(&member.name);
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(member.mode).open(path)?;
    file.write_all(&member.bytes)?;
    match fchown(&file, Some(member.uid), Some(member.gid)) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    file.sync_all()
}
