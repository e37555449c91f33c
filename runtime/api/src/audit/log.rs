//! The audit file: lines are gathered in a bounded buffer and appended off the main thread, one write at a time; the file
//! is put aside when it is full. Names and rotation are lumberjack's, which upstream writes through:
//! `audit.log`, and `audit-2026-01-02T15-04-05.000.log` for one that is full.
use async_executor::Executor;
use event_listener::Event;
use mote_schema::Order as _;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// What may wait for a slow disk; events beyond it are lost and counted.
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// When a file is full, and how long it is kept. 0 is no limit for age and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub max_age_days: u32,
    pub max_files: u32,
    pub max_file_bytes: u64,
}

pub struct Log {
    path: PathBuf,
    rotation: Rotation,
    executor: Arc<Executor<'static>>,
    waiting: Mutex<Waiting>,
    /// All that waited was written.
    idle: Event,
    written: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    count: u64,
    /// A task is writing, and will take what comes meanwhile.
    writing: bool,
}

impl Log {
    pub fn new(path: PathBuf, rotation: Rotation, executor: Arc<Executor<'static>>) -> Log {
        Log {
            path,
            rotation,
            executor,
            waiting: Mutex::default(),
            idle: Event::new(),
            written: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Written and lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.written.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// `line` ends with a newline.
    pub fn write(self: &Arc<Self>, line: &str) {
        let mut waiting = self.waiting();
        if waiting.lines.len() + line.len() > MAX_WAITING_BYTES {
            drop(waiting);
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line.as_bytes());
        waiting.count += 1;
        if !waiting.writing {
            waiting.writing = true;
            drop(waiting);
            crate::background::spawn(&self.executor, self.clone().run());
        }
    }

    async fn run(self: Arc<Self>) {
        let mut file = None;
        let mut told = false;
        loop {
            let (lines, count) = {
                let mut waiting = self.waiting();
                if waiting.lines.is_empty() {
                    waiting.writing = false;
                    drop(waiting);
                    self.idle.notify(usize::MAX);
                    return;
                }
                (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.count))
            };
            let (path, rotation) = (self.path.clone(), self.rotation);
            let open = file.take();
            let result = crate::unblock(move || append(&path, rotation, open, &lines)).await;
            match result {
                Ok(open) => {
                    self.written.fetch_add(count, Ordering::Relaxed);
                    file = Some(open);
                }
                Err(error) => {
                    self.failed.fetch_add(count, Ordering::Relaxed);
                    if !told {
                        tracing::warn!(%error, path = %self.path.display(), "the audit log cannot be written");
                        told = true;
                    }
                }
            }
        }
    }

    pub async fn flush(&self) {
        loop {
            let idle = self.idle.listen();
            if !self.waiting().writing {
                return;
            }
            idle.await;
        }
    }
}

/// Appends to the file, which is put aside first when it would grow too large.
fn append(path: &Path, rotation: Rotation, open: Option<File>, lines: &[u8]) -> io::Result<File> {
    let mut file = match open {
        Some(file) => file,
        None => create(path)?,
    };
    let size = file.metadata()?.len();
    if size > 0 && size + lines.len() as u64 > rotation.max_file_bytes {
        drop(file);
        fs::rename(path, aside(path, SystemTime::now()))?;
        clean(path, rotation);
        file = create(path)?;
    }
    file.write_all(lines)?;
    Ok(file)
}

/// Readable by root alone: requests and their objects are in it.
fn create(path: &Path) -> io::Result<File> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn aside(path: &Path, now: SystemTime) -> PathBuf {
    let time = jiff::Timestamp::try_from(now).unwrap_or_default();
    let (stem, extension) = parts(path);
    path.with_file_name(format!("{stem}-{}{extension}", time.strftime("%Y-%m-%dT%H-%M-%S%.3f")))
}

/// "audit" and ".log".
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}"));
    (text(path.file_stem()).unwrap_or_default(), extension.unwrap_or_default())
}

/// Removes files that were put aside and are too many or too old.
fn clean(path: &Path, rotation: Rotation) {
    let (stem, extension) = parts(path);
    let Some(Ok(dir)) = path.parent().map(fs::read_dir) else { return };
    let mut old: Vec<String> = dir
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            let middle = name.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-'));
            let middle = middle.and_then(|rest| rest.strip_suffix(&extension));
            middle.is_some_and(|time| time.len() == 23 && time.as_bytes()[10] == b'T')
        })
        .collect();
    // Names sort as their times do.
    old.order();
    let many = if rotation.max_files == 0 { 0 } else { old.len().saturating_sub(rotation.max_files as usize) };
    let age = Duration::from_secs(u64::from(rotation.max_age_days) * 24 * 3600);
    let oldest = match rotation.max_age_days {
        0 => String::new(),
        _ => aside(path, SystemTime::now() - age)
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
    };
    for (at, name) in old.iter().enumerate() {
        if (at < many || *name < oldest)
            && let Err(error) = fs::remove_file(path.with_file_name(name))
        {
            tracing::warn!(%error, name, "an old audit log cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, gone afterwards.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("mote-audit-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> =
                fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.order();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn lines_arrive_in_order_and_files_turn() {
        let dir = Dir::new("lines");
        let executor = Arc::new(Executor::new());
        let rotation = Rotation { max_age_days: 0, max_files: 2, max_file_bytes: 100 };
        let log = Arc::new(Log::new(dir.0.join("a/audit.log"), rotation, executor.clone()));
        futures_lite::future::block_on(executor.run(async {
            for round in 0..5 {
                for line in 0..6 {
                    log.write(&format!("{round} {line} ----------\n"));
                }
                log.flush().await;
                // Two files put aside in one millisecond would have one name.
                std::thread::sleep(Duration::from_millis(2));
            }
        }));
        assert_eq!(log.counts(), (30, 0));
        let dir = Dir(dir.0.join("a"));
        let names = dir.names();
        assert_eq!(names.len(), 3, "{names:?}");
        let last = fs::read_to_string(dir.0.join("audit.log")).unwrap();
        assert_eq!(last.lines().map(|l| &l[..3]).collect::<Vec<_>>(), ["4 0", "4 1", "4 2", "4 3", "4 4", "4 5"]);
        std::mem::forget(dir);
    }

    #[test]
    fn old_files_go() {
        let dir = Dir::new("old");
        let path = dir.0.join("audit.log");
        let day = Duration::from_secs(24 * 3600);
        for days in [1, 3, 5] {
            fs::write(aside(&path, SystemTime::now() - day * days), "x").unwrap();
        }
        fs::write(dir.0.join("audit-of-mine.log"), "x").unwrap();
        clean(&path, Rotation { max_age_days: 4, max_files: 0, max_file_bytes: 1 });
        assert_eq!(dir.names().len(), 3);
        clean(&path, Rotation { max_age_days: 0, max_files: 1, max_file_bytes: 1 });
        assert_eq!(dir.names().len(), 2);
    }
}
