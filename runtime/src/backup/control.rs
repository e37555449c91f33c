//! The socket in the data directory by which commands ask the running node: a line goes in, then what was asked for
//! comes out. Who may enter the directory may ask. It waits in the event loop and costs nothing until somebody does.
//!
//! An answer is `ok N` (about how many bytes come) or the reason why not, on a line; then frames: their length in four
//! bytes, and so many bytes. Length 0 ends it well; the largest length is followed by what went wrong.
use super::Error;
use async_io::Async;
use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const SOCKET: &str = "control.sock";
const FRAME_BYTES: usize = 64 * 1024;
const FAILED: u32 = u32::MAX;
/// Somebody who asks and does not read is let go.
const PATIENCE: Duration = Duration::from_secs(60);
const LINE_LIMIT_BYTES: usize = 200;

/// Answers one request; what it writes goes into frames. The first call says how many bytes come.
pub type Answer =
    dyn Fn(&str, &mut dyn FnMut(u64) -> io::Result<()>, &mut dyn Write) -> Result<(), Error> + Send + Sync;

/// Paths of sockets are short: this one leads to the directory whatever its name.
fn socket(dir: &fs::File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Serves requests one after the other, as long as it is polled.
pub async fn listen(data_dir: &Path, answer: Arc<Answer>) -> io::Result<()> {
    let dir = fs::File::open(data_dir)?;
    let path = socket(&dir);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = Async::new(UnixListener::bind(&path)?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    loop {
        let (stream, _) = listener.accept().await?;
        let answer = answer.clone();
        let served = mote_api::unblock(move || serve(stream.into_inner()?, &*answer)).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a command's request");
        }
    }
}

fn serve(mut stream: UnixStream, answer: &Answer) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let line = read_line(&mut stream)?;
    let mut out = Frames { stream: stream.try_clone()?, buffer: Vec::new() };
    let mut begun = false;
    let mut begin = |bytes: u64| {
        begun = true;
        stream.write_all(format!("ok {bytes}\n").as_bytes())
    };
    match answer(&line, &mut begin, &mut out) {
        Ok(()) => {
            out.flush()?;
            out.stream.write_all(&0u32.to_le_bytes())
        }
        Err(error) if begun => {
            out.stream.write_all(&FAILED.to_le_bytes())?;
            out.stream.write_all(error.to_string().as_bytes())
        }
        Err(error) => out.stream.write_all(format!("{error}\n").as_bytes()),
    }
}

fn read_line(stream: &mut dyn Read) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    // What follows the line is not for us to read.
    while line.len() < LINE_LIMIT_BYTES && stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).map_err(io::Error::other)
}

struct Frames {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= FRAME_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.stream.write_all(&(self.buffer.len() as u32).to_le_bytes())?;
            self.stream.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// What a running node answers.
pub struct Asked {
    stream: UnixStream,
    /// Of the frame that is being read.
    left: usize,
    ended: bool,
    /// About how many bytes come.
    pub bytes: u64,
}

/// None when no node runs there.
pub fn ask(data_dir: &Path, request: &str) -> Result<Option<Asked>, Error> {
    let asking = || Error::io("asking the running node");
    let Ok(dir) = fs::File::open(data_dir) else { return Ok(None) };
    let mut stream = match UnixStream::connect(socket(&dir)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(asking()(error)),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(asking())?;
    stream.write_all(format!("{request}\n").as_bytes()).map_err(asking())?;
    let line = read_line(&mut stream).map_err(asking())?;
    match line.strip_prefix("ok ").and_then(|bytes| bytes.parse().ok()) {
        Some(bytes) => Ok(Some(Asked { stream, left: 0, ended: false, bytes })),
        None => Err(Error::Refused(if line.is_empty() { "the node does not answer".to_owned() } else { line })),
    }
}

impl Read for Asked {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut length = [0; 4];
            self.stream.read_exact(&mut length)?;
            match u32::from_le_bytes(length) {
                0 => self.ended = true,
                FAILED => {
                    let mut why = String::new();
                    Read::by_ref(&mut self.stream).take(LINE_LIMIT_BYTES as u64).read_to_string(&mut why)?;
                    return Err(io::Error::other(why));
                }
                length => self.left = length as usize,
            }
        }
        let limit = out.len().min(self.left);
        if limit == 0 {
            return Ok(0);
        }
        let read = self.stream.read(&mut out[..limit])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::FutureExt;

    fn answer(request: &str, begin: &mut dyn FnMut(u64) -> io::Result<()>, out: &mut dyn Write) -> Result<(), Error> {
        let writing = || Error::io("writing");
        match request {
            "much" => {
                begin(300_000).map_err(writing())?;
                (0..3).try_for_each(|n| out.write_all(&vec![n; 100_000])).map_err(writing())
            }
            "broken" => {
                begin(1).map_err(writing())?;
                out.write_all(b"x").map_err(writing())?;
                Err(Error::Refused("the disk went away".to_owned()))
            }
            _ => Err(Error::Refused(format!("unknown request {request:?}"))),
        }
    }

    #[test]
    fn what_is_asked_for_arrives_whole_or_not_at_all() {
        let dir = std::env::temp_dir().join(format!("mote-control-{}-{}", std::process::id(), "long".repeat(30)));
        fs::create_dir_all(&dir).unwrap();
        assert!(ask(&dir, "much").unwrap().is_none());
        let client = mote_api::unblock({
            let dir = dir.clone();
            move || {
                let wait = || while ask(&dir, "").is_ok() {};
                wait();
                let mut bytes = Vec::new();
                let mut asked = ask(&dir, "much").unwrap().unwrap();
                asked.read_to_end(&mut bytes).unwrap();
                assert_eq!((asked.bytes, bytes.len(), bytes[299_999]), (300_000, 300_000, 2));
                let error = ask(&dir, "broken").unwrap().unwrap().read_to_end(&mut bytes).unwrap_err();
                assert_eq!(error.to_string(), "the disk went away");
                let error = ask(&dir, "nonsense").err().unwrap().to_string();
                assert_eq!(error, "unknown request \"nonsense\"");
                assert_eq!(fs::metadata(dir.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
            }
        });
        let server = async { listen(&dir, Arc::new(answer)).await.unwrap() };
        async_io::block_on(client.or(server));
        // After a crash the socket is there and nobody listens.
        assert!(ask(&dir, "much").unwrap().is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
