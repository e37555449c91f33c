//! The key file is read again when it changes: the kernel tells (inotify(7)), so nothing polls. The folder is watched, since
//! editors and mounted volumes replace the file. A file with a mistake changes nothing and is reported.
use super::Keyring;
use async_io::Async;
use mote_store::Store;
use rustix::{
    buffer::spare_capacity,
    fs::inotify::{CreateFlags, WatchFlags, add_watch, init},
};
use std::{io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

/// A file that is replaced comes in several steps; the last one counts.
const SETTLE: Duration = Duration::from_millis(100);

/// Runs as long as the server does; returns at once when there is no file.
pub(crate) async fn keep_fresh(keyring: Arc<Keyring>, store: Arc<Store>) {
    let Some(file) = keyring.file.clone() else { return };
    let watch = match watch(file.parent().unwrap_or(Path::new("/"))) {
        Ok(watch) => watch,
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "the encryption configuration cannot be watched: changes count after a restart");
            return;
        }
    };
    loop {
        if let Err(error) = watch.readable().await {
            tracing::warn!(%error, "watching the encryption configuration");
            return;
        }
        async_io::Timer::after(SETTLE).await;
        drain(&watch);
        let own = keyring.clone();
        match crate::unblock(move || own.reload()).await {
            Ok(None) => {}
            Ok(Some(old)) => {
                let new = keyring.keys();
                let stale = |key: &str| old.writes(key) != new.writes(key);
                match store.resealed(stale).await {
                    Ok(read) => tracing::info!(readable = read, "the encryption configuration was read anew"),
                    Err(error) => tracing::warn!(%error, "writing what became readable"),
                }
            }
            Err(error) => tracing::error!(error, "the encryption configuration has a mistake: the old one stays"),
        }
    }
}

fn watch(dir: &Path) -> io::Result<Async<OwnedFd>> {
    let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::DELETE;
    add_watch(&inotify, dir, what)?;
    Async::new_nonblocking(inotify)
}

/// What changed does not matter: the file is compared.
fn drain(watch: &Async<OwnedFd>) {
    let mut events = Vec::with_capacity(4096);
    while rustix::io::read(watch.get_ref(), spare_capacity(&mut events)).is_ok_and(|read| read > 0) {
        events.clear();
    }
}
