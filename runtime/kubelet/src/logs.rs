//! Container logs in CRI's format: reading with upstream's options, following, and rotation.
mod files;
mod line;

use async_io::Async;
use bytes::Bytes;
use jiff::Timestamp;
use line::Filter;
use mote_api::pods::{LogOptions, LogStream};
use mote_schema::Status;
use rustix::fs::inotify;
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

pub use files::{rotate, rotated};

/// Rotation starts at this size and keeps this many files (upstream's containerLogMaxSize and containerLogMaxFiles).
pub const MAX_BYTES: u64 = 10 << 20;
pub const MAX_FILES: usize = 5;

/// Read from disk at once; also about what is sent at once.
const CHUNK: usize = 64 << 10;
/// A runtime writes lines of 16 KiB; what is longer is no log line.
const MAX_LINE: usize = 1 << 20;
/// What a message of termination takes from the log.
const TAIL_LINES: u64 = 80;
const TAIL_BYTES: usize = 2048;

/// Streams the log at `path` (and its rotated predecessors). When following, the stream ends once `ended` closes
/// and all has been read; `ended` is closed when the container is not running.
pub async fn read(path: PathBuf, options: LogOptions, ended: async_channel::Receiver<()>) -> Result<LogStream, Status> {
    let shown = path.display().to_string();
    let failed = |e: io::Error| Status::internal(format!("failed to open log file \"{shown}\": {e}"));
    // Watched before the first read, so that nothing is missed between the last read and the wait.
    let changes = if options.follow { Some(watch(&path).map_err(failed)?) } else { None };
    let opened = mote_api::unblock(move || Reader::open(path, &options)).await;
    let state = Following { reader: opened.map_err(failed)?, changes, ended, is_ended: false };
    let stream = futures_lite::stream::unfold(Some(state), async |state| {
        let (chunk, state) = state?.next().await?;
        Some((chunk, state))
    });
    Ok(Box::pin(stream))
}

/// The last lines of a log for terminationMessagePolicy FallbackToLogsOnError: at most 80 lines and 2048 bytes. Blocking.
pub fn tail(path: &Path) -> String {
    let options = LogOptions { tail_lines: Some(TAIL_LINES as i64), ..Default::default() };
    let mut text = Vec::new();
    if let Ok(mut reader) = Reader::open(path.to_owned(), &options) {
        while let Ok(Progress::Read | Progress::More) = reader.advance(&mut text) {
            text.drain(..text.len().saturating_sub(TAIL_BYTES));
        }
    }
    let start = text.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

/// Writes to the log, and files that come and go beside it.
fn watch(path: &Path) -> io::Result<Async<OwnedFd>> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let wanted = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
    inotify::add_watch(&fd, path.parent().unwrap_or(Path::new("/")), wanted)?;
    Async::new(fd)
}

struct Following {
    reader: Reader,
    /// None when the reader does not follow.
    changes: Option<Async<OwnedFd>>,
    ended: async_channel::Receiver<()>,
    is_ended: bool,
}

impl Following {
    /// The next piece of text, and what comes after it. None at the end.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Option<Following>)> {
        loop {
            let mut reader = self.reader;
            let (reader, text, progress) = mote_api::unblock(move || {
                let mut text = Vec::new();
                let progress = reader.fill(&mut text);
                (reader, text, progress)
            })
            .await;
            self.reader = reader;
            let at_end = match progress {
                Err(e) => return Some((Err(e), None)),
                Ok(Progress::Done) => true,
                Ok(Progress::End) => self.changes.is_none() || self.is_ended,
                Ok(Progress::Read | Progress::More) => false,
            };
            let more = matches!(progress, Ok(Progress::Read | Progress::More));
            if !text.is_empty() {
                return Some((Ok(text.into()), if at_end { None } else { Some(self) }));
            }
            if at_end {
                return None;
            }
            if !more {
                self.wait().await;
            }
        }
    }

    /// For a change, or the end of the container: then what it has written last is read once more.
    async fn wait(&mut self) {
        let Some(changes) = &self.changes else { return };
        let changed = async {
            let _ = changes.readable().await;
            false
        };
        let ended = async {
            // Nothing is ever sent.
            let _ = self.ended.recv().await;
            true
        };
        let is_ended = futures_lite::future::or(ended, changed).await;
        let mut events = [0; 4096];
        while rustix::io::read(changes, &mut events).is_ok_and(|len| len > 0) {}
        self.is_ended = is_ended;
    }
}

enum Progress {
    /// Something was read.
    Read,
    /// Another file comes.
    More,
    /// All there is now was read.
    End,
    /// No more is wanted.
    Done,
}

struct Reader {
    path: PathBuf,
    /// Open files that come after `file`.
    next: VecDeque<File>,
    file: File,
    /// The start of a line whose end was not read yet.
    rest: Vec<u8>,
    filter: Filter,
    /// Lines that are still wanted, when their number was asked for and nothing is followed.
    lines: Option<u64>,
    follow: bool,
}

impl Reader {
    fn open(path: PathBuf, options: &LogOptions) -> io::Result<Reader> {
        let tail = options.tail_lines.map(|lines| lines.max(0) as u64);
        let mut next: VecDeque<File> = files::open_tail(&path, tail)?.into();
        let file = next.pop_front().ok_or(io::ErrorKind::NotFound)?;
        let filter = Filter::new(options, Timestamp::now());
        let lines = tail.filter(|_| !options.follow);
        Ok(Reader { path, next, file, rest: Vec::new(), filter, lines, follow: options.follow })
    }

    /// Reads until there is about a chunk of text or an end.
    fn fill(&mut self, out: &mut Vec<u8>) -> io::Result<Progress> {
        loop {
            match self.advance(out)? {
                Progress::Read | Progress::More if out.len() < CHUNK / 2 => {}
                progress => return Ok(progress),
            }
        }
    }

    fn advance(&mut self, out: &mut Vec<u8>) -> io::Result<Progress> {
        if self.lines == Some(0) {
            return Ok(Progress::Done);
        }
        let before = self.rest.len();
        self.rest.resize(before + CHUNK, 0);
        let read = self.file.read(&mut self.rest[before..]);
        self.rest.truncate(before + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            return self.at_end(out);
        }
        let mut start = 0;
        while let Some(len) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            let end = start + len + 1;
            let wanted = self.filter.push(&self.rest[start..end], out);
            start = end;
            self.lines = self.lines.map(|lines| lines.saturating_sub(1));
            if !wanted || self.lines == Some(0) {
                return Ok(Progress::Done);
            }
        }
        self.rest.drain(..start);
        if self.rest.len() > MAX_LINE {
            self.rest.clear();
        }
        Ok(Progress::Read)
    }

    fn at_end(&mut self, out: &mut Vec<u8>) -> io::Result<Progress> {
        if let Some(next) = self.next.pop_front() {
            self.file = next;
            return Ok(Progress::More);
        }
        if !self.follow {
            let rest = std::mem::take(&mut self.rest);
            self.filter.push(&rest, out);
            return Ok(Progress::Done);
        }
        // Rotated: another file has the name now.
        let (here, named) = (self.file.metadata()?, self.path.metadata());
        if named.is_ok_and(|named| (named.dev(), named.ino()) != (here.dev(), here.ino())) {
            self.file = File::open(&self.path)?;
            self.rest.clear();
            return Ok(Progress::More);
        }
        Ok(Progress::End)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;
    use futures_lite::{StreamExt, future::block_on};
    use std::{fs, io::Write};

    fn line(text: &str) -> String {
        format!("2026-01-02T03:04:05.000000001Z stdout F {text}\n")
    }

    fn all(path: &Path, options: LogOptions) -> String {
        block_on(async {
            let mut stream = read(path.to_owned(), options, async_channel::bounded(1).1).await.unwrap();
            let mut text = Vec::new();
            while let Some(chunk) = stream.next().await {
                text.extend_from_slice(&chunk.unwrap());
            }
            String::from_utf8(text).unwrap()
        })
    }

    #[test]
    fn logs_are_read_to_their_end() {
        let temp = Temp::new();
        let path = temp.0.join("0.log");
        fs::write(temp.0.join("0.log.20260101-000000"), line("a")).unwrap();
        fs::write(&path, line("b") + &line("c") + line("d").trim_end()).unwrap();
        assert_eq!(all(&path, LogOptions::default()), "a\nb\nc\nd");
        assert_eq!(all(&path, LogOptions { tail_lines: Some(2), ..Default::default() }), "b\nc\n");
        assert_eq!(all(&path, LogOptions { tail_lines: Some(0), ..Default::default() }), "");
        assert_eq!(all(&path, LogOptions { limit_bytes: Some(3), ..Default::default() }), "a\nb");
        fs::write(&path, line(&"x".repeat(100)).repeat(5000)).unwrap();
        assert_eq!(all(&path, LogOptions::default()).len(), 2 + 101 * 5000);
        let missing = block_on(read(temp.0.join("1.log"), LogOptions::default(), async_channel::bounded(1).1));
        assert_eq!(missing.err().map(|status| status.code), Some(500));
    }

    #[test]
    fn followers_see_what_is_written_and_rotation() {
        let temp = Temp::new();
        let path = temp.0.join("0.log");
        fs::write(&path, line("old") + &line("a")).unwrap();
        let (running, ended) = async_channel::bounded(1);
        let options = LogOptions { follow: true, tail_lines: Some(1), ..Default::default() };
        block_on(async {
            let mut stream = read(path.clone(), options, ended).await.unwrap();
            let mut next = async || String::from_utf8(stream.next().await?.unwrap().to_vec()).ok();
            assert_eq!(next().await.as_deref(), Some("a\n"));
            let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
            let text = line("b");
            file.write_all(&text.as_bytes()[..10]).unwrap();
            file.write_all(&text.as_bytes()[10..]).unwrap();
            assert_eq!(next().await.as_deref(), Some("b\n"));
            fs::rename(&path, temp.0.join("0.log.20260101-000000")).unwrap();
            fs::write(&path, line("c")).unwrap();
            assert_eq!(next().await.as_deref(), Some("c\n"));
            fs::write(&path, line("c") + &line("d")).unwrap();
            drop(running);
            assert_eq!(next().await.as_deref(), Some("d\n"));
            assert_eq!(next().await, None);
        });
    }

    #[test]
    fn the_tail_is_short() {
        let temp = Temp::new();
        let path = temp.0.join("0.log");
        let lines: String = (0..200).map(|i| line(&format!("{i}"))).collect();
        fs::write(&path, lines).unwrap();
        let text = tail(&path);
        assert!(text.starts_with("120\n") && text.ends_with("199\n"), "{text}");
        fs::write(&path, line(&"y".repeat(3000))).unwrap();
        assert_eq!(tail(&path).len(), TAIL_BYTES);
        assert_eq!(tail(&temp.0.join("none")), "");
    }
}
