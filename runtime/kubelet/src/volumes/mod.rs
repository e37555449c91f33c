//! A pod's volumes on this node: set up, kept up to date, mounted into containers, torn down. Every step may be
//! repeated: a pod that is found again after a restart is set up again.
//!
//! emptyDir lives under the pod's directory. What the API feeds (configMap, secret, projected, downwardAPI) lives in one
//! tmpfs for all pods, DIR/kubelet/memory/UID/VOLUME: secrets never touch flash, updates wear nothing out, and the mount
//! table, which the kernel copies for each container, stays short. An image is mounted by the runtime itself.
mod host_path;
mod mount;
mod ownership;
mod payload;
mod subpath;
mod token;
mod writer;

use crate::spec::{Container, EmptyDirVolumeSource, Volume, VolumeMount};
use crate::{env, pod::Pod};
use mote_api::{Change, Client};
use mote_cri::v1::{Device, ImageSpec, Mount, mount_propagation};
use mote_schema::Gather as _;
use mote_schema::Order as _;
use mote_schema::{quantity::Quantity, status::go_quote};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};
use token::Token;

/// What volumes need to know beyond the pod.
pub struct Facts<'a> {
    pub client: &'a Client,
    pub node_name: &'a str,
    /// DIR/kubelet/pods/UID
    pub pod_dir: &'a Path,
}

/// Host path by volume name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volumes {
    pub paths: BTreeMap<String, PathBuf>,
    /// When `set_up` wants to be called again (a token that has to be renewed).
    pub again: Option<Duration>,
    /// DIR/kubelet/pods/UID, for subPaths.
    pub pod_dir: PathBuf,
}

/// What the runtime mounts of an image, by volume name.
pub type Images = BTreeMap<String, ImageSpec>;

/// All pods' files from the API together; what is in use is a few kilobytes a pod.
const MEMORY_SIZE: &str = "25%";

/// What has to be done on disk for one volume. Made from the API's objects, then carried out where it may block.
#[derive(Debug, PartialEq)]
enum Plan {
    EmptyDir {
        dir: PathBuf,
        tmpfs_size: Option<String>,
        group: Option<u32>,
    },
    HostPath {
        path: String,
        kind: String,
    },
    /// `dir` is where its file system goes if it is a block device, of the type that is named.
    Local {
        path: String,
        group: Option<u32>,
        dir: PathBuf,
        fs_type: String,
    },
    /// A block device that containers get as it is.
    Device {
        path: String,
    },
    Files {
        dir: PathBuf,
        files: writer::Files,
        group: Option<u32>,
        mount_points: Vec<String>,
    },
}

/// Creates or updates every volume. The error is the message of the FailedMount event.
pub async fn set_up(facts: &Facts<'_>, pod: &Pod) -> Result<Volumes, String> {
    if pod.spec.volumes.iter().flatten().next().is_none() {
        return Ok(Volumes { pod_dir: facts.pod_dir.to_owned(), ..Volumes::default() });
    }
    let now_s = jiff::Timestamp::now().as_second();
    let memory = memory_dir(facts.pod_dir);
    let tokens = tokens(facts.client, pod, &memory, now_s).await;
    let again = tokens.iter().filter_map(|(_, token)| token.as_ref().ok()?.fresh_for(now_s)).min();
    let plans = plans(facts, pod, &memory, &tokens);
    let set_up = mote_api::unblock(move || {
        let mut paths = BTreeMap::new();
        let mut failed = None;
        for (name, plan) in plans {
            match plan.and_then(|plan| plan.carry_out(&memory)) {
                Ok(path) => drop(paths.insert(name, path)),
                // The others are made nevertheless: less is left for the next attempt.
                Err(e) => drop(failed.get_or_insert(format!("MountVolume.SetUp failed for volume \"{name}\" : {e}"))),
            }
        }
        failed.map_or(Ok(paths), Err)
    });
    Ok(Volumes { paths: set_up.await?, again, pod_dir: facts.pod_dir.to_owned() })
}

/// Kept tokens where they are fresh, new ones where not.
async fn tokens(client: &Client, pod: &Pod, memory: &Path, now_s: i64) -> Vec<(String, Result<Token, String>)> {
    let mut tokens = Vec::new();
    for wanted in payload::wanted(pod) {
        let path = memory.join(wanted.volume).join(&wanted.projection.path);
        let kept = mote_api::unblock(move || fs::read_to_string(path)).await.ok();
        let kept = kept.and_then(|text| Token::read(text, wanted.projection));
        let token = match kept.filter(|token| token.fresh_for(now_s).is_some()) {
            Some(token) => Ok(token),
            None => token::request(client, pod, wanted.projection, now_s).await,
        };
        tokens.push((token::id(wanted.volume, &wanted.projection.path), token));
    }
    tokens
}

type Plans = Vec<(String, Result<Plan, String>)>;

fn plans(facts: &Facts<'_>, pod: &Pod, memory: &Path, tokens: &[(String, Result<Token, String>)]) -> Plans {
    let client = facts.client;
    let get = |plural: &str, name: &str| env::lookup(client, &pod.namespace, plural, name);
    let bundles = || {
        let kind = ["v1", "v1beta1"].iter().find_map(|v| client.kind("certificates.k8s.io", v, "clustertrustbundles"));
        kind.and_then(|kind| client.list(&kind, None).ok()).unwrap_or_default()
    };
    let allocatable = allocatable(client, facts.node_name);
    let sources = payload::Sources { get: &get, bundles: &bundles, allocatable: &allocatable };
    let volumes = pod.spec.volumes.iter().flatten().filter(|volume| volume.image.is_none());
    let plan = |volume: &Volume| plan(client, pod, volume, facts.pod_dir, memory, &sources, tokens);
    volumes.map(|volume| (volume.name.clone(), plan(volume))).gather()
}

/// The node's, for limits that are not set.
fn allocatable(client: &Client, node_name: &str) -> Vec<(String, String)> {
    let node = client.kind("", "v1", "nodes").and_then(|kind| client.get(&kind, "", node_name).ok());
    let list = node.as_ref().map(|node| node.root().at("status.allocatable").entries());
    list.into_iter().flatten().map(|(name, amount)| (name.to_owned(), amount.str().to_owned())).gather()
}

fn plan(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    pod_dir: &Path,
    memory: &Path,
    sources: &payload::Sources<'_>,
    tokens: &[(String, Result<Token, String>)],
) -> Result<Plan, String> {
    let group = pod.spec.security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    if let Some(files) = payload::files(pod, volume, sources, tokens) {
        let mount_points = nested(pod, &volume.name)?;
        return Ok(Plan::Files { dir: memory.join(&volume.name), files: files?, group, mount_points });
    }
    if let Some(source) = &volume.empty_dir {
        let tmpfs_size = tmpfs_size(pod, source, sources.allocatable)?;
        let dir = pod_dir.join("volumes/kubernetes.io~empty-dir").join(&volume.name);
        return Ok(Plan::EmptyDir { dir, tmpfs_size, group });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Plan::HostPath { path: source.path.clone(), kind: source.type_.clone().unwrap_or_default() });
    }
    if let Some(claim) = claim(pod, volume) {
        let dir = pod_dir.join("volumes/kubernetes.io~local-volume").join(&volume.name);
        return claimed(client, &pod.namespace, &claim, group, dir);
    }
    Err("no volume plugin matched".into())
}

/// The claim behind a volume; that of an ephemeral volume is named after the pod.
pub fn claim(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
    named.or_else(|| volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name, volume.name)))
}

/// Volumes that are directories or devices of this node: local and hostPath.
fn claimed(client: &Client, namespace: &str, claim: &str, group: Option<u32>, dir: PathBuf) -> Result<Plan, String> {
    let failed = |e: &str| format!("error processing PVC {namespace}/{claim}: {e}");
    let found = env::lookup(client, namespace, "persistentvolumeclaims", claim);
    let found = found.map_err(|e| failed(&format!("failed to fetch PVC from API server: {}", e.message)))?;
    let bound = found.root().at("spec.volumeName").str();
    if bound.is_empty() || found.root().at("status.phase").str() != "Bound" {
        return Err(failed("PVC is not bound"));
    }
    let volume = env::lookup(client, "", "persistentvolumes", bound);
    let volume = volume.map_err(|e| format!("failed to fetch PV \"{bound}\" from API server: {}", e.message))?;
    let spec = volume.root().get("spec");
    if let Some(path) = spec.at("local.path").as_str() {
        let path = path.into();
        if spec.get("volumeMode").str() == "Block" {
            return Ok(Plan::Device { path });
        }
        let fs_type = spec.at("local.fsType").as_str().filter(|type_| !type_.is_empty()).unwrap_or("ext4").into();
        return Ok(Plan::Local { path, group, dir, fs_type });
    }
    match spec.at("hostPath.path").as_str() {
        Some(path) => Ok(Plan::HostPath { path: path.into(), kind: spec.at("hostPath.type").str().into() }),
        None => Err("no volume plugin matched".into()),
    }
}

/// For medium Memory: the smallest of the volume's limit, the pod's limit, and what the node has for pods.
fn tmpfs_size(
    pod: &Pod,
    source: &EmptyDirVolumeSource,
    allocatable: &[(String, String)],
) -> Result<Option<String>, String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => return Ok(None),
        "Memory" => {}
        other => return Err(format!("unknown storage medium {}", go_quote(other))),
    }
    let parse = |text: &str| Quantity::parse(text).ok().map(Quantity::value).filter(|bytes| *bytes > 0);
    let of_node = allocatable.iter().find(|(name, _)| name == "memory").and_then(|(_, text)| parse(text));
    let of_container = |container: &Container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        parse(&limits.get("memory")?.0)
    };
    // A pod is limited when each of its containers is.
    let of_pod = pod.spec.containers.iter().map(of_container).sum::<Option<i64>>();
    let own = source.size_limit.as_ref().and_then(|limit| parse(&limit.0));
    let size = [of_node, of_pod, own].into_iter().flatten().min();
    Ok(Some(size.map_or("50%".into(), |bytes| bytes.to_string())))
}

/// Directories a volume needs because others are mounted below it, in which nothing can be made later since it is
/// mounted read-only (pkg/volume/util/nested_volumes.go).
fn nested(pod: &Pod, volume: &str) -> Result<Vec<String>, String> {
    let mut dirs = Vec::new();
    for (_, container) in pod.containers() {
        let clean = |mount: &VolumeMount| mount.mount_path.trim_end_matches('/').to_owned();
        let mounts = || container.volume_mounts.iter().flatten();
        let mut all: Vec<String> = mounts().map(clean).collect();
        all.order();
        for own in mounts().filter(|mount| mount.name == volume).map(clean) {
            let mut before: Vec<String> = Vec::new();
            for other in &all {
                let Some(below) = other.strip_prefix(&own).and_then(|rest| rest.strip_prefix('/')) else { continue };
                if before.iter().any(|before| other.starts_with(before.as_str())) {
                    continue;
                }
                if below.split('/').any(|part| part == "..") {
                    return Err(format!("invalid container mount point {other}"));
                }
                before.push(format!("{other}/"));
                dirs.push(below.to_owned());
            }
        }
    }
    Ok(dirs)
}

impl Plan {
    /// Where the volume is then. Blocking.
    fn carry_out(self, memory: &Path) -> Result<PathBuf, String> {
        match self {
            Plan::HostPath { path, kind } => host_path::check(&path, &kind).map(|()| path.into()),
            Plan::Local { path, group, dir, fs_type } => {
                let mut path = found(&path)?;
                if is_device(&path) {
                    mount::device(&path, &dir, &fs_type)
                        .map_err(|e| format!("mounting {} as {fs_type}: {e}", path.display()))?;
                    path = dir;
                }
                own(&path, group).map_err(|e| e.to_string())?;
                Ok(path)
            }
            Plan::Device { path } => match found(&path)? {
                path if is_device(&path) => Ok(path),
                path => Err(format!("{} is not a block device", path.display())),
            },
            Plan::EmptyDir { dir, tmpfs_size, group } => {
                let made = match tmpfs_size {
                    // As upstream, which leaves a tmpfs the mode that the kernel gives it.
                    Some(size) => mount::tmpfs(&dir, &size, 0o1777),
                    None if dir.is_dir() => Ok(()),
                    None => fs::create_dir_all(&dir)
                        .and_then(|()| fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))),
                };
                made.and_then(|()| own(&dir, group)).map_err(|e| e.to_string())?;
                Ok(dir)
            }
            Plan::Files { dir, files, group, mount_points } => {
                let base = memory.parent().unwrap_or(memory);
                mount::tmpfs(base, MEMORY_SIZE, 0o755).map_err(|e| format!("mounting tmpfs: {e}"))?;
                write_files(&dir, &files, group, &mount_points)?;
                Ok(dir)
            }
        }
    }
}

/// Where links lead in the end.
fn found(path: &str) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|_| format!("path \"{path}\" does not exist"))
}

fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

fn own(dir: &Path, group: Option<u32>) -> std::io::Result<()> {
    match group {
        Some(group) if !ownership::is_changed(dir, group) => ownership::change(dir, group, false),
        _ => Ok(()),
    }
}

fn write_files(dir: &Path, files: &writer::Files, group: Option<u32>, mount_points: &[String]) -> Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    fs::create_dir_all(dir).map_err(text)?;
    for point in mount_points {
        fs::create_dir_all(dir.join(point)).map_err(|e| format!("unable to create nested volume mountpoints: {e}"))?;
    }
    writer::write(dir, files, &|_| group.map_or(Ok(()), |group| ownership::change(dir, group, true)))
}

/// DIR/kubelet/memory/UID for DIR/kubelet/pods/UID.
fn memory_dir(pod_dir: &Path) -> PathBuf {
    let kubelet = pod_dir.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    kubelet.join("memory").join(pod_dir.file_name().unwrap_or_default())
}

/// Whether a changed ConfigMap or Secret is mounted by the pod, so that its volumes need `set_up`.
pub fn concerns(pod: &Pod, change: &Change) -> bool {
    let object = change.object();
    let is_core = change.kind.group.is_empty();
    is_core && object.namespace() == pod.namespace && mounts_object(pod, &change.kind.plural, object.name())
}

fn mounts_object(pod: &Pod, plural: &str, name: &str) -> bool {
    let volumes = || pod.spec.volumes.iter().flatten();
    let projected =
        || volumes().filter_map(|volume| volume.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    match plural {
        "configmaps" => {
            volumes().any(|volume| volume.config_map.as_ref().is_some_and(|map| map.name == name))
                || projected().any(|source| source.config_map.as_ref().is_some_and(|map| map.name == name))
        }
        "secrets" => {
            volumes()
                .any(|volume| volume.secret.as_ref().is_some_and(|secret| secret.secret_name.as_deref() == Some(name)))
                || projected().any(|source| source.secret.as_ref().is_some_and(|secret| secret.name == name))
        }
        "persistentvolumeclaims" => volumes().any(|volume| claim(pod, volume).as_deref() == Some(name)),
        _ => false,
    }
}

/// volumeMounts with subPath, subPathExpr (by `env`), readOnly and propagation. The error is the message of
/// CreateContainerConfigError.
pub async fn mounts(
    pod: &Pod,
    container: &Container,
    volumes: &Volumes,
    images: &Images,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = pod.spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
        let mounted = Mount {
            container_path: absolute(&mount.mount_path),
            propagation: propagation(mount)?,
            recursive_read_only: mount.recursive_read_only.as_deref() == Some("Enabled"),
            ..Default::default()
        };
        if let Some(image) = images.get(&mount.name) {
            let image_sub_path = sub_path(mount, env)?;
            let (readonly, selinux_relabel) = (true, true);
            mounts.push(Mount { image: Some(image.clone()), image_sub_path, readonly, selinux_relabel, ..mounted });
            continue;
        }
        let (Some(volume), Some(path)) = (volume, volumes.paths.get(&mount.name)) else {
            let (name, container) = (&mount.name, &container.name);
            return Err(format!(
                "cannot find volume {} to mount into container {}",
                go_quote(name),
                go_quote(container)
            ));
        };
        let sub_path = sub_path(mount, env)?;
        let host_path = if sub_path.is_empty() {
            path.clone()
        } else {
            let target = volumes.pod_dir.join("volume-subpaths").join(&mount.name).join(&container.name);
            let target = target.join(index.to_string());
            let place = format!("for volumeMount {} of container {}", go_quote(&mount.name), go_quote(&container.name));
            bind_sub_path(path.clone(), sub_path, target, place).await?
        };
        mounts.push(Mount {
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only == Some(true) || is_read_only(volume),
            selinux_relabel: volume.host_path.is_none(),
            ..mounted
        });
    }
    Ok(mounts)
}

/// The volumes that a container has as block devices. The error is the message of CreateContainerConfigError.
pub fn devices(pod: &Pod, container: &Container, volumes: &Volumes) -> Result<Vec<Device>, String> {
    let each = container.volume_devices.iter().flatten().map(|wanted| {
        let volume = pod.spec.volumes.iter().flatten().find(|volume| volume.name == wanted.name);
        let (Some(volume), Some(path)) = (volume, volumes.paths.get(&wanted.name)) else {
            let (name, container) = (go_quote(&wanted.name), go_quote(&container.name));
            return Err(format!("cannot find volume {name} to pass into container {container}"));
        };
        Ok(Device {
            container_path: wanted.device_path.clone(),
            host_path: path.to_string_lossy().into_owned(),
            permissions: if is_read_only(volume) { "r" } else { "mrw" }.into(),
        })
    });
    each.collect()
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// What the API feeds is not the container's to change.
fn is_read_only(volume: &Volume) -> bool {
    let fed = volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some();
    let claim_is = volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true));
    fed || volume.projected.is_some() || claim_is
}

fn propagation(mount: &VolumeMount) -> Result<i32, String> {
    match mount.mount_propagation.as_deref().unwrap_or("None") {
        "None" => Ok(mount_propagation::PRIVATE),
        "HostToContainer" => Ok(mount_propagation::HOST_TO_CONTAINER),
        "Bidirectional" => Ok(mount_propagation::BIDIRECTIONAL),
        other => Err(format!("invalid MountPropagation mode: {}", go_quote(other))),
    }
}

/// "" for the whole volume.
fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<String, String> {
    let path = match mount.sub_path_expr.as_deref().filter(|expression| !expression.is_empty()) {
        Some(expression) => {
            env::expand_strict(expression, env).map_err(|names| format!("missing value for {names}"))?
        }
        None => mount.sub_path.clone().unwrap_or_default(),
    };
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(path)
}

/// What went wrong in detail is the log's: a container's user is not told about the node's files.
async fn bind_sub_path(volume: PathBuf, path: String, target: PathBuf, place: String) -> Result<PathBuf, String> {
    mote_api::unblock(move || {
        let wanted = subpath::Wanted { volume: &volume, path: &path, target: target.clone() };
        subpath::create(&wanted).map_err(|e| {
            tracing::warn!("subPath {path} of {}: {e}", volume.display());
            format!("failed to create subPath directory {place}")
        })?;
        subpath::mount(&wanted).map_err(|e| {
            tracing::warn!("subPath {path} of {}: {e}", volume.display());
            format!("failed to prepare subPath {place}")
        })?;
        Ok(target)
    })
    .await
}

/// The text of a small file that a container wrote into a volume, and where it is.
pub async fn read_inside(root: PathBuf, path: String) -> std::io::Result<(PathBuf, String)> {
    const LIMIT_BYTES: u64 = 64 << 10;
    mote_api::unblock(move || subpath::read(&root, &path, LIMIT_BYTES)).await
}

/// Unmounts and removes everything under the pod's directory. Does all steps; the errors are what is left.
pub async fn tear_down(pod_dir: &Path) -> Result<(), Vec<String>> {
    let dirs = [memory_dir(pod_dir), pod_dir.to_owned()];
    mote_api::unblock(move || {
        let errors: Vec<String> = dirs.iter().filter_map(|dir| mount::remove_tree(dir).err()).flatten().collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    })
    .await
}

#[cfg(test)]
pub mod tests;
