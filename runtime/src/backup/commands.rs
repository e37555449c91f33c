//! The commands: `mote backup`, `mote restore` and `mote store verify`.
use super::{Error, Fresh, Manifest, Version, control, length, recovery, restore as steps, write};
use crate::data_dir::{self, DataDir};
use flate2::{Compression, write::GzEncoder};
use mote_store::Store;
use std::{
    fs,
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

/// Damage was found.
const EXIT_DAMAGED: u8 = 3;
const DAMAGED: &str = "damaged: ";

/// A line on a terminal that says how far it is; nothing elsewhere.
struct Progress {
    doing: &'static str,
    total: u64,
    shown: Option<Instant>,
}

impl Progress {
    fn new(doing: &'static str, total: u64) -> Progress {
        let shown = io::stderr().is_terminal().then(Instant::now);
        Progress { doing, total, shown }
    }

    fn show(&mut self, bytes: u64) {
        let Some(shown) = self.shown else { return };
        if shown.elapsed().as_millis() >= 100 {
            let percent = (bytes * 100).checked_div(self.total).map(|percent| format!(", {} %", percent.min(100)));
            eprint!("\r{}: {} kB{}\x1b[K", self.doing, bytes / 1000, percent.unwrap_or_default());
            self.shown = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn outcome(result: Result<ExitCode, Error>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("mote: {error}");
        ExitCode::FAILURE
    })
}

pub fn backup(path: &Path, data_dir: &Path) -> ExitCode {
    outcome(make(path, data_dir))
}

fn make(path: &Path, data_dir: &Path) -> Result<ExitCode, Error> {
    let refused = |why: &str| Err(Error::Refused(format!("{}: {why}", path.display())));
    if path.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return refused("a backup is not for a terminal; give a file");
        }
        fill(&mut io::stdout().lock(), data_dir)?;
        return Ok(ExitCode::SUCCESS);
    }
    if path.exists() {
        return refused("is there already");
    }
    let mut fresh = Fresh::create(path)?;
    match fill(&mut fresh.file, data_dir) {
        Ok(()) => fresh.publish()?,
        Err(error) => {
            fresh.discard();
            return Err(error);
        }
    }
    let bytes = fs::metadata(path).map_or(0, |facts| facts.len());
    println!("{}: {} kB", path.display(), bytes.div_ceil(1000));
    Ok(ExitCode::SUCCESS)
}

/// From the node that runs, or from the files of one that does not.
fn fill(out: &mut dyn Write, data_dir: &Path) -> Result<(), Error> {
    if let Some(mut asked) = control::ask(data_dir, "backup")? {
        let mut progress = Progress::new("backing up", asked.bytes);
        let mut packed = GzEncoder::new(out, Compression::default());
        let (mut buffer, mut bytes) = (vec![0; 64 * 1024], 0);
        loop {
            let read = asked.read(&mut buffer).map_err(Error::io("reading from the running node"))?;
            if read == 0 {
                break;
            }
            packed.write_all(&buffer[..read]).map_err(Error::io("writing the backup"))?;
            bytes += read as u64;
            progress.show(bytes);
        }
        packed.finish().map_err(Error::io("writing the backup"))?;
        return Ok(());
    }
    if !data_dir.is_dir() {
        return Err(Error::Refused(format!("{}: there is no such directory", data_dir.display())));
    }
    let store = steps::open(data_dir)?;
    let backup = store.backup();
    let version = Version::read(data_dir).unwrap_or_else(|| Version::current(""));
    let manifest = Manifest { version, revision: backup.revision() };
    let mut progress = Progress::new("backing up", length(&backup));
    write(out, true, &manifest, data_dir, &backup, &mut |bytes| progress.show(bytes))
}

pub fn restore(path: &Path, data_dir: &Path) -> ExitCode {
    outcome(put_back(|_| Ok(path.to_owned()), data_dir))
}

/// Into a directory of backups, under a name by which `recover` finds it.
pub fn backup_into(storage: &Path, data_dir: &Path) -> ExitCode {
    outcome(recovery::next(storage).and_then(|path| make(&path, data_dir)))
}

/// Puts the newest backup of a directory back that fits; the data that failed is kept in it, unless told not to.
pub fn recover(storage: &Path, save_failed: bool, data_dir: &Path) -> ExitCode {
    let mut chosen = PathBuf::new();
    let choose = |data_dir: &Path| {
        chosen = recovery::candidate(storage)?;
        if save_failed {
            let saved = recovery::save_failed(storage, data_dir)?;
            println!("the failed data is in {}", saved.display());
        }
        Ok(chosen.clone())
    };
    let restored = put_back(choose, data_dir);
    outcome(restored.and_then(|code| recovery::note(storage, &chosen).map(|()| code)))
}

/// `choose` is asked with the data directory locked.
fn put_back(choose: impl FnOnce(&Path) -> Result<PathBuf, Error>, data_dir: &Path) -> Result<ExitCode, Error> {
    let held = DataDir::open(data_dir).map_err(|error| match error {
        data_dir::Error::Held { dir } => {
            Error::Refused(format!("mote runs on {}: stop it first (systemctl stop mote)", dir.display()))
        }
        error => Error::Refused(error.to_string()),
    })?;
    steps::finish(&held.path)?;
    let path = choose(&held.path)?;
    let file = fs::File::open(&path).map_err(Error::io(format!("opening {}", path.display())))?;
    let mut progress = Progress::new("restoring", 0);
    let manifest = steps::restore(&held.path, io::BufReader::new(file), &mut |bytes| progress.show(bytes))?;
    drop(progress);
    let Version { version, slot, .. } = &manifest.version;
    println!(
        "restored revision {} of mote {version} on {slot}; what was there is in {}",
        manifest.revision,
        held.path.join(steps::BEFORE).display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Prints what it found; the exit code tells: 0 nothing, 3 damage.
pub fn verify(data_dir: &Path) -> ExitCode {
    outcome(check(data_dir))
}

fn check(data_dir: &Path) -> Result<ExitCode, Error> {
    let text = match control::ask(data_dir, "verify")? {
        Some(mut asked) => {
            let mut text = String::new();
            asked.read_to_string(&mut text).map_err(Error::io("reading from the running node"))?;
            text
        }
        None if data_dir.is_dir() => {
            let store = steps::open(data_dir)?;
            report(&store, store.damaged())
        }
        None => return Err(Error::Refused(format!("{}: there is no such directory", data_dir.display()))),
    };
    print!("{text}");
    let damaged = text.lines().any(|line| line.starts_with(DAMAGED));
    Ok(if damaged { ExitCode::from(EXIT_DAMAGED) } else { ExitCode::SUCCESS })
}

/// A line for all that is damaged, and one for all that is there.
pub fn report(store: &Store, damaged: &[String]) -> String {
    let (entries, bytes) = store.backup().size();
    let mut text: String = damaged.iter().map(|what| format!("{DAMAGED}{what}\n")).collect();
    text.push_str(&format!("{entries} entries, {} kB, {} damaged\n", bytes.div_ceil(1000), damaged.len()));
    text
}
