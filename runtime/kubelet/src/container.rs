//! One container's start: image, configuration, create, start, postStart. Events, reasons and messages:
//! upstream's startContainer (pkg/kubelet/kuberuntime/kuberuntime_container.go).
use crate::spec::Container;
use crate::{
    Kubelet, dns, env,
    events::Recorder,
    hooks,
    images::{self, Failure, Wanted, failure},
    kill, labels,
    plan::KillReason,
    pod::{Pod, Role},
    resources, sandbox, security,
    state::PodState,
    volumes::{self, Volumes},
};
use futures_lite::future;
use mote_cri::v1;
use std::{
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

pub struct Start<'a> {
    pub pod: &'a Pod,
    pub role: Role,
    pub container: &'a Container,
    /// An ephemeral container's target.
    pub target: Option<&'a str>,
    pub sandbox_id: &'a str,
    pub sandbox: &'a v1::PodSandboxConfig,
    pub state: &'a PodState,
    pub ips: &'a [String],
    pub volumes: &'a Volumes,
}

/// The id of the container that runs now.
pub async fn start(kubelet: &Kubelet, start: &Start<'_>) -> Result<String, Failure> {
    let Start { pod, container, .. } = start;
    let recorder = Recorder::of_container(&kubelet.client, &pod.object, start.role, &container.name);
    let wanted = Wanted {
        runtime: &kubelet.runtime,
        client: &kubelet.client,
        recorder: &recorder,
        pod,
        image: container.image.as_deref().unwrap_or(""),
        policy: container.image_pull_policy.as_deref(),
        sandbox: start.sandbox,
    };
    let refused = |reason: &'static str, message: String| {
        recorder.warning("Failed", &format!("Error: {message}"));
        failure(reason, message)
    };
    let restarts = async {
        match start.state.latest(&container.name) {
            Some(before) => before.restart_count + 1,
            None => logged_restarts(kubelet, pod, container).await,
        }
    };
    let (image, restart_count) = future::zip(kubelet.images.ensure(&wanted), restarts).await;
    let image = image.inspect_err(|why| recorder.warning("Failed", &format!("Error: {}", why.reason)))?;
    let volumes = image_volumes(kubelet, start, &wanted).await;
    let volumes = volumes.inspect_err(|why| recorder.warning("Failed", &format!("Error: {}", why.reason)))?;
    let image_volumes = volumes.len();
    let config = config(kubelet, start, &image, &volumes, restart_count).await;
    let config = config.map_err(|e| refused("CreateContainerConfigError", e))?;
    let log_link = config.log_path.clone();
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: start.sandbox_id.into(),
        config: Some(config),
        sandbox_config: Some(start.sandbox.clone()),
    };
    let created = kubelet.runtime.create_container(request).await;
    if image_volumes > 0 {
        kubelet.counts.add("image_volume_requested_total", "", image_volumes);
        let failed = created.as_ref().is_err_and(|error| error.message().contains("ImageVolumeMountFailed"));
        let mounted = if failed { "image_volume_mounted_errors_total" } else { "image_volume_mounted_succeed_total" };
        kubelet.counts.add(mounted, "", image_volumes);
    }
    let id = created.map_err(|e| refused("CreateContainerError", e.message().into()))?.container_id;
    recorder.normal("Created", "Container created");
    let log = Path::new(&start.sandbox.log_directory).join(log_link);
    let started = kubelet.runtime.start_container(v1::ContainerId { container_id: id.clone() });
    let (started, ()) = future::zip(started, link_log(kubelet, pod, container, &id, &log)).await;
    if let Err(e) = started {
        let message = e.message().replace(&id, &container.name);
        recorder.warning("Failed", &format!("Error: {message}"));
        return Err(failure("RunContainerError", e.message()));
    }
    recorder.normal("Started", "Container started");

    let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    if let Some(hook) = hook {
        let ip = start.ips.first().map_or("", String::as_str);
        if let Err(message) = hooks::run(&kubelet.runtime, pod, container, &id, ip, hook).await {
            recorder.warning("FailedPostStartHook", "PostStartHook failed");
            let target = kill::Target { id: &id, role: start.role, container, reason: KillReason::Other };
            kill::container(kubelet, pod, &target, "FailedPostStartHook", None, ip).await;
            return Err(failure("PostStartHookError", message));
        }
    }
    Ok(id)
}

/// The images that the container mounts as volumes; what is said of them is said of the pod.
async fn image_volumes(kubelet: &Kubelet, start: &Start<'_>, wanted: &Wanted<'_>) -> Result<volumes::Images, Failure> {
    let recorder = Recorder::of_pod(&kubelet.client, &start.pod.object);
    let mut found = volumes::Images::new();
    for volume in start.pod.spec.volumes.iter().flatten() {
        let Some(source) = &volume.image else { continue };
        if !start.container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name) {
            continue;
        }
        let asked = source.reference.as_deref().unwrap_or("");
        let wanted = Wanted { recorder: &recorder, image: asked, policy: source.pull_policy.as_deref(), ..*wanted };
        let image = kubelet.images.ensure(&wanted).await?;
        let spec = v1::ImageSpec { image: image.id, user_specified_image: asked.into(), ..Default::default() };
        found.insert(volume.name.clone(), spec);
    }
    Ok(found)
}

/// After a reboot the runtime has forgotten; the numbered logs have not.
async fn logged_restarts(kubelet: &Kubelet, pod: &Pod, container: &Container) -> i32 {
    let dir = sandbox::log_dir(&kubelet.config.pod_log_dir, &pod.namespace, &pod.name, &pod.uid).join(&container.name);
    mote_api::unblock(move || {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
        let numbers = names.filter_map(|n| n.to_str()?.split_once(".log")?.0.parse::<i32>().ok());
        numbers.max().map_or(0, |n| n.saturating_add(1))
    })
    .await
}

async fn config(
    kubelet: &Kubelet,
    start: &Start<'_>,
    image: &v1::Image,
    image_volumes: &volumes::Images,
    restart_count: i32,
) -> Result<v1::ContainerConfig, String> {
    let Start { pod, container, .. } = start;
    let user = images::user(image);
    security::verify_non_root(pod, container, &user)?;
    let allocatable = kubelet.allocatable();
    let facts = env::Facts {
        client: &kubelet.client,
        host_ip: &kubelet.config.node_ip,
        pod_ips: start.ips,
        allocatable: &allocatable,
        volumes: start.volumes,
    };
    let env = env::make(&facts, pod, container).await?;
    let (command, args) = env::command_and_args(container, &env);
    let mut mounts = volumes::mounts(pod, container, start.volumes, image_volumes, &env).await?;
    let pod_dir = kubelet.pod_dir(&pod.uid);
    let wants_hosts = (!start.ips.is_empty() || pod.is_host_network())
        && !container.volume_mounts.iter().flatten().any(|m| m.mount_path == "/etc/hosts");
    let hosts =
        async { if wants_hosts { hosts_mount(kubelet, pod, &pod_dir, start.ips).await.map(Some) } else { Ok(None) } };
    let message_path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let termination = async {
        if message_path.is_empty() {
            Ok(None)
        } else {
            termination_mount(&pod_dir, container, message_path).await.map(Some)
        }
    };
    let log_path = format!("{}/{restart_count}.log", container.name);
    let log_dir = make_dir(Path::new(&start.sandbox.log_directory).join(&container.name));
    let ((hosts, termination), log_dir) = future::zip(future::zip(hosts, termination), log_dir).await;
    mounts.extend(hosts?);
    mounts.extend(termination?);
    // As the sandbox has it, which may be older than this process.
    let context = start.sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let users = context.and_then(|it| it.namespace_options.as_ref()?.userns_options.clone());
    if let Some(users) = &users {
        // Files belong to the pod's users and not to those that the host knows by the same numbers.
        for mount in &mut mounts {
            mount.uid_mappings.clone_from(&users.uids);
            mount.gid_mappings.clone_from(&users.gids);
        }
    }
    log_dir.map_err(|e| format!("create container log directory for container {} failed: {e}", container.name))?;
    let seccomp_dir = kubelet.config.data_dir.join("seccomp");
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: restart_count.max(0) as u32 }),
        image: Some(v1::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env.into_iter().map(|(key, value)| v1::KeyValue { key, value: value.into_bytes() }).collect(),
        mounts,
        devices: volumes::devices(pod, container, start.volumes)?,
        labels: labels::of_container(pod, container),
        annotations: labels::container_annotations(pod, container, restart_count),
        log_path,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources::without_swap(
                resources::of_container(pod, container, kubelet.machine.memory_bytes),
                kubelet.machine.swap,
            )),
            security_context: Some(security::of_container(pod, container, &user, &seccomp_dir, start.target, users)),
        }),
        ..Default::default()
    })
}

async fn make_dir(dir: PathBuf) -> io::Result<()> {
    mote_api::unblock(move || std::fs::create_dir_all(dir)).await
}

async fn hosts_mount(kubelet: &Kubelet, pod: &Pod, pod_dir: &Path, ips: &[String]) -> Result<v1::Mount, String> {
    let path = pod_dir.join("etc-hosts");
    let text = if pod.is_host_network() {
        let host = mote_api::unblock(|| std::fs::read_to_string("/etc/hosts")).await.map_err(|e| e.to_string())?;
        dns::hosts_file_host_network(pod, &host)
    } else {
        dns::hosts_file(pod, &kubelet.config.cluster_domain, ips)
    };
    let file = path.clone();
    let written = mote_api::unblock(move || {
        file.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(file, text)
    });
    written.await.map_err(|e| e.to_string())?;
    Ok(v1::Mount {
        container_path: "/etc/hosts".into(),
        host_path: path.display().to_string(),
        selinux_relabel: true,
        ..Default::default()
    })
}

/// A file of its own for each start, writable by whoever the container runs as.
async fn termination_mount(pod_dir: &Path, container: &Container, message_path: &str) -> Result<v1::Mount, String> {
    let dir = pod_dir.join("containers").join(&container.name);
    let unique = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let path = dir.join(format!("{:08x}", unique as u32 ^ (unique >> 32) as u32));
    let file = path.clone();
    let made = mote_api::unblock(move || {
        std::fs::create_dir_all(dir)?;
        std::fs::write(&file, "")?;
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666))
    });
    made.await.map_err(|e| format!("error on creating termination-log file {:?}: {e}", path.display()))?;
    let container_path = if message_path.starts_with('/') { message_path.into() } else { format!("/{message_path}") };
    Ok(v1::Mount { container_path, host_path: path.display().to_string(), selinux_relabel: true, ..Default::default() })
}

/// /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log, where log collectors look. Its absence harms nobody.
pub fn link_path(kubelet: &Kubelet, namespace: &str, name: &str, container: &str, id: &str) -> PathBuf {
    let dir = kubelet.config.pod_log_dir.parent().unwrap_or(Path::new("/var/log")).join("containers");
    dir.join(format!("{name}_{namespace}_{container}-{id}.log"))
}

async fn link_log(kubelet: &Kubelet, pod: &Pod, container: &Container, id: &str, log: &Path) {
    let link = link_path(kubelet, &pod.namespace, &pod.name, &container.name, id);
    let log = log.to_owned();
    let linked = mote_api::unblock(move || {
        link.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::os::unix::fs::symlink(log, link)
    });
    if let Err(e) = linked.await {
        tracing::debug!(error = %e, "log link not made");
    }
}
