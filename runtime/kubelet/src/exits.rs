//! Hearing a container's end at once on runtimes without events: a pidfd of its first process becomes readable when
//! that ends, and until then costs nothing. Where the kernel has none (before 5.3), or the runtime does not tell the
//! process, the lists of `watch` find out a little later.
use crate::Kubelet;
use async_io::{Async, Timer};
use mote_api::driver::Key;
use mote_cri::v1;
use rustix::{
    fd::OwnedFd,
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{sync::Arc, time::Duration};

/// The runtime hears of the end as we do, and needs a moment to write it down.
const SETTLES_WITHIN: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(300)];

/// Follows one running container; the task ends with it.
pub fn follow(kubelet: &Arc<Kubelet>, id: String, key: Key) {
    let kubelet = kubelet.clone();
    kubelet.client.clone().spawn(async move {
        let Some(process) = process(&kubelet, &id).await else { return };
        if process.readable().await.is_err() {
            return;
        }
        drop(process);
        for delay in SETTLES_WITHIN {
            Timer::after(delay).await;
            kubelet.queue().add(key.clone());
            kubelet.changed.notify(usize::MAX);
        }
        kubelet.stirred.notify(usize::MAX);
    });
}

async fn process(kubelet: &Kubelet, id: &str) -> Option<Async<OwnedFd>> {
    let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer = kubelet.runtime.container_status(request).await.ok()?;
    // Both runtimes put a JSON text under "info", with the process' number in it.
    let info: mote_schema::Value = serde_json::from_str(answer.info.get("info")?).ok()?;
    let pid = Pid::from_raw(i32::try_from(info["pid"].as_i64()?).ok()?)?;
    let fd = pidfd_open(pid, PidfdFlags::NONBLOCK).or_else(|_| pidfd_open(pid, PidfdFlags::empty())).ok()?;
    Async::new_nonblocking(fd).ok()
}
