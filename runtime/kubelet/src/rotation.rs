//! Keeps container logs within their size. Runtimes write logs and nobody tells when one grows, so sizes are looked
//! at now and then, while containers run and only then.
use crate::{Kubelet, logs, state::lock};
use async_io::Timer;
use mote_cri::v1;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Upstream's containerLogMonitorInterval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Runs for the life of the process.
pub async fn keep(kubelet: Arc<Kubelet>) {
    loop {
        let changed = kubelet.changed.listen();
        if lock(&kubelet.running_logs).is_empty() {
            changed.await;
            continue;
        }
        Timer::after(INTERVAL).await;
        let running: Vec<(String, PathBuf)> =
            lock(&kubelet.running_logs).iter().map(|(id, path)| (id.clone(), path.clone())).collect();
        let grown = mote_api::unblock(move || {
            let rotated = running.into_iter().filter(|(id, path)| {
                logs::rotate(path).unwrap_or_else(|error| {
                    tracing::warn!(container = id, %error, "the log is not rotated");
                    false
                })
            });
            rotated.collect::<Vec<_>>()
        });
        for (id, path) in grown.await {
            if let Err(error) = kubelet.runtime.reopen_container_log(v1::ContainerId { container_id: id.clone() }).await
            {
                tracing::warn!(container = id, log = %path.display(), %error, "the runtime does not reopen the log");
                mote_api::unblock(move || undo(&path)).await;
            }
        }
    }
}

/// The runtime writes on into the renamed file: it gets its name back, or the log would seem to have ended.
fn undo(path: &Path) {
    let newest = logs::rotated(path).unwrap_or_default().pop();
    if let Some(newest) = newest.filter(|_| !path.exists())
        && let Err(error) = std::fs::rename(newest, path)
    {
        tracing::warn!(log = %path.display(), %error, "the log does not get its name back");
    }
}
