//! What is removed: dead containers but the newest of each name (`logs --previous` wants it), old sandboxes, all of a
//! pod that is gone, and directories that belong to no pod.
use crate::{
    Kubelet, container,
    pod::Pod,
    sandbox,
    state::{PodState, State, lock},
    volumes,
};
use mote_api::driver::Key;
use mote_cri::{Error, v1};
use mote_schema::Order as _;
use std::{collections::HashSet, time::Duration};

/// Disk use at which unused images go, and at which enough have gone (imageGCHighThresholdPercent and its low twin).
pub const IMAGES_HIGH_PERCENT: u64 = 85;
const IMAGES_LOW_PERCENT: u64 = 80;
/// No image goes before the node has been up for so long (upstream's imageMinimumGCAge, counted from when it saw the image).
pub const IMAGE_MINIMUM_AGE: Duration = Duration::from_secs(120);
/// Images under this name were brought to the board by hand: no registry can give them back.
const LOCAL: &str = "localhost/";

pub async fn remove_container(kubelet: &Kubelet, key: &Key, name: &str, id: &str, log: &str) -> Result<(), Error> {
    match kubelet.runtime.remove_container(v1::ContainerId { container_id: id.into() }).await {
        Err(e) if !e.is_not_found() => return Err(e),
        _ => {}
    }
    let link = container::link_path(kubelet, &key.namespace, &key.name, name, id);
    let log = log.to_owned();
    mote_api::unblock(move || {
        // Either may be gone already, with the pod's directory.
        let _ = std::fs::remove_file(link);
        if !log.is_empty() {
            let _ = std::fs::remove_file(log);
        }
    })
    .await;
    Ok(())
}

async fn remove_sandbox(kubelet: &Kubelet, id: &str) -> Result<(), Error> {
    // Stopped again even when not ready: only that frees its network for certain.
    let request = || v1::PodSandboxId { pod_sandbox_id: id.into() };
    for outcome in
        [kubelet.runtime.stop_pod_sandbox(request()).await, kubelet.runtime.remove_pod_sandbox(request()).await]
    {
        match outcome {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Keeps one dead container per name and the newest sandbox. What cannot be removed now is met again at the next
/// reconcile, and must not keep the pod from running.
pub async fn dead_containers(kubelet: &Kubelet, key: &Key, pod: &Pod, state: &PodState) {
    if let Err(error) = remove_dead(kubelet, key, pod, state).await {
        tracing::debug!(pod = %key, doing = error.doing(), %error, "dead containers are left behind");
    }
}

async fn remove_dead(kubelet: &Kubelet, key: &Key, pod: &Pod, state: &PodState) -> Result<(), Error> {
    let mut kept = HashSet::new();
    for found in state.containers.iter().filter(|c| c.state == State::Exited) {
        if kept.insert(found.name.as_str()) && pod.find(&found.name).is_some() {
            continue;
        }
        remove_container(kubelet, key, &found.name, &found.id, &found.log_path).await?;
    }
    let used = |id: &str| state.containers.iter().any(|c| c.sandbox == id && c.state != State::Exited);
    for old in state.sandboxes.iter().skip(1).filter(|s| !s.ready && !used(&s.id)) {
        // Containers that are kept live in the runtime's records of their sandbox.
        if !state.containers.iter().any(|c| c.sandbox == old.id && kept.contains(c.name.as_str())) {
            remove_sandbox(kubelet, &old.id).await?;
        }
    }
    Ok(())
}

/// Everything of a pod that has stopped.
pub async fn remove_pod(kubelet: &Kubelet, key: &Key, state: &PodState) -> Result<(), Error> {
    for found in &state.containers {
        remove_container(kubelet, key, &found.name, &found.id, "").await?;
    }
    for old in &state.sandboxes {
        remove_sandbox(kubelet, &old.id).await?;
    }
    Ok(())
}

pub async fn remove_logs(kubelet: &Kubelet, key: &Key, uid: &str) {
    let dir = sandbox::log_dir(&kubelet.config.pod_log_dir, &key.namespace, &key.name, uid);
    let removed = mote_api::unblock(move || std::fs::remove_dir_all(dir)).await;
    if let Err(e) = removed.or_else(|e| if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e) }) {
        tracing::warn!(pod = %key, error = %e, "logs are left behind");
    }
}

/// Removes images that no container uses, the largest first, until the disk is below upstream's low threshold. Only
/// called when it is above the high one.
pub async fn images(kubelet: &Kubelet, usage: impl Fn() -> u64) -> Result<(), Error> {
    let containers = kubelet.runtime.list_containers(v1::ListContainersRequest::default()).await?.containers;
    let mut used: HashSet<String> = HashSet::new();
    for container in containers {
        used.insert(container.image_ref);
        used.insert(container.image_id);
        used.extend(container.image.map(|i| i.image));
    }
    let mut images = kubelet.runtime.list_images(v1::ListImagesRequest::default()).await?.images;
    // Sandboxes do not name their image: what is pinned, or called so, is the sandbox's.
    let sandbox = |i: &v1::Image| i.pinned || i.repo_tags.iter().any(|t| t.contains("/pause:"));
    let local = |i: &v1::Image| i.repo_tags.iter().any(|t| t.starts_with(LOCAL));
    images.retain(|i| {
        let named = std::iter::once(&i.id).chain(&i.repo_tags).chain(&i.repo_digests);
        !sandbox(i) && !local(i) && !named.into_iter().any(|name| used.contains(name))
    });
    images.order_by_key(|i| std::cmp::Reverse(i.size));
    for image in images {
        if usage() < IMAGES_LOW_PERCENT {
            break;
        }
        tracing::info!(
            image = image.id,
            names = image.repo_tags.join(" "),
            "removing an unused image: the disk is full"
        );
        let spec = v1::ImageSpec { image: image.id, ..Default::default() };
        kubelet.runtime.remove_image(v1::RemoveImageRequest { image: Some(spec) }).await?;
    }
    Ok(())
}

/// All containers of pods that have ended, with their logs: room is worth more.
pub async fn finished_pods(kubelet: &Kubelet) {
    let finished: Vec<(Key, String)> = {
        let workers = lock(&kubelet.workers);
        let each = workers.iter().filter_map(|(key, worker)| {
            let pod = lock(&worker.memory).pod.clone().filter(|pod| pod.is_terminal())?;
            Some((key.clone(), pod.uid.clone()))
        });
        each.collect()
    };
    for (key, uid) in finished {
        let Ok(state) = kubelet.observe_pod(&key, &uid).await else { continue };
        for dead in state.containers.iter().filter(|c| c.state == State::Exited) {
            if let Err(error) = remove_container(kubelet, &key, &dead.name, &dead.id, &dead.log_path).await {
                tracing::warn!(pod = %key, doing = error.doing(), %error, "a dead container stays");
            }
        }
    }
}

/// Pod and log directories of pods that neither the API nor the runtime knows: they went while nobody watched.
pub async fn orphan_directories(kubelet: &Kubelet, runtime_uids: HashSet<String>) {
    let mut known = runtime_uids;
    match kubelet.client.list(&kubelet.pods, None) {
        Ok(pods) => known.extend(pods.iter().map(|p| p.uid().to_owned())),
        // Without the API's word nothing is an orphan.
        Err(_) => return,
    }
    known.extend(lock(&kubelet.workers).values().filter_map(|w| Some(lock(&w.memory).pod.as_ref()?.uid.clone())));
    let names = |dir: std::path::PathBuf| {
        mote_api::unblock(move || {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.filter_map(|e| e.file_name().into_string().ok()).collect::<Vec<_>>()
        })
    };
    let mut uids = names(kubelet.config.data_dir.join("pods")).await;
    // After a pod whose directory went first, files of it may be left in memory.
    uids.extend(names(kubelet.config.data_dir.join("memory")).await);
    for uid in uids {
        if !known.contains(&uid) {
            tracing::info!(uid, "removing volumes of a pod that is gone");
            if let Err(errors) = volumes::tear_down(&kubelet.pod_dir(&uid)).await {
                tracing::warn!(uid, errors = errors.join("; "), "volumes are left behind");
            }
        }
    }
    for name in names(kubelet.config.pod_log_dir.clone()).await {
        // NAMESPACE_NAME_UID: none of the three has an underscore.
        let mut parts = name.split('_');
        let (Some(_), Some(_), Some(uid), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if !known.contains(uid) {
            let dir = kubelet.config.pod_log_dir.join(&name);
            let _ = mote_api::unblock(move || std::fs::remove_dir_all(dir)).await;
        }
    }
}
