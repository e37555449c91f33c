//! The calls: one row each. A row is name, request, answer, path, and how long the call may take.
use crate::v1::*;
use async_executor::Executor;
use async_io::Async;
use mote_grpc::{Channel, Dial, Dialled, Error, Method, Socket, Streaming};
use std::{
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Upstream's `runtime-request-timeout`.
const STANDARD: Duration = Duration::from_secs(120);
/// Setting up a sandbox may build a network: upstream gives it twice the standard time.
const SANDBOX: Duration = Duration::from_secs(240);
const QUICK: Duration = Duration::from_secs(10);
/// An image may take as long as its registry does; the caller drops the call to end it.
const UNBOUNDED: Option<Duration> = None;

/// A container runtime behind its socket. All calls share one connection.
pub struct Runtime {
    channel: Channel,
    sockets: Vec<PathBuf>,
}

/// Where a server listens.
pub(crate) enum Address {
    /// The first of these sockets that exists.
    Unix(Vec<PathBuf>),
    Tcp(SocketAddr),
}

impl Dial for Address {
    fn dial(&self) -> Dialled<'_> {
        Box::pin(async move {
            let socket: Box<dyn Socket> = match self {
                Address::Unix(sockets) => {
                    let socket = socket(sockets);
                    let stream = Async::<UnixStream>::connect(socket).await;
                    Box::new(stream.map_err(|e| format!("dial unix {}: {e}", socket.display()))?)
                }
                Address::Tcp(address) => {
                    let stream = Async::<TcpStream>::connect(*address).await;
                    Box::new(stream.map_err(|e| format!("dial tcp {address}: {e}"))?)
                }
            };
            Ok(socket)
        })
    }
}

/// The first that exists, else the first: it is the one whose absence is reported.
fn socket(sockets: &[PathBuf]) -> &Path {
    let found = sockets.iter().find(|socket| socket.exists()).or(sockets.first());
    found.map_or(Path::new(""), PathBuf::as_path)
}

/// A call that has a time of its own, and the standard time on top.
fn plus_standard(seconds: i64) -> Option<Duration> {
    Some(Duration::from_secs(seconds.clamp(0, u32::MAX.into()) as u64) + STANDARD)
}

/// The runtime's own limit on a command, and a little for the answer; 0 is no limit.
fn exec_time(seconds: i64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds as u64) + QUICK)
}

macro_rules! calls {
    ($($name:ident $doing:literal $path:literal ($request:ident) -> $answer:ident, $timeout:expr;)*) => {
        impl Runtime {
            $(pub async fn $name(&self, request: $request) -> Result<$answer, Error> {
                let timeout: fn(&$request) -> Option<Duration> = $timeout;
                let method = Method { doing: $doing, path: concat!("/runtime.v1.", $path, "/", $doing) };
                self.channel.call(method, timeout(&request), &request).await
            })*
        }
    };
}

calls! {
    version "Version" "RuntimeService" (VersionRequest) -> VersionResponse, |_| Some(QUICK);
    status "Status" "RuntimeService" (StatusRequest) -> StatusResponse, |_| Some(QUICK);
    run_pod_sandbox "RunPodSandbox" "RuntimeService" (RunPodSandboxRequest) -> RunPodSandboxResponse, |_| Some(SANDBOX);
    stop_pod_sandbox "StopPodSandbox" "RuntimeService" (PodSandboxId) -> Empty, |_| Some(STANDARD);
    remove_pod_sandbox "RemovePodSandbox" "RuntimeService" (PodSandboxId) -> Empty, |_| Some(STANDARD);
    pod_sandbox_status "PodSandboxStatus" "RuntimeService" (PodSandboxStatusRequest) -> PodSandboxStatusResponse,
        |_| Some(STANDARD);
    list_pod_sandbox "ListPodSandbox" "RuntimeService" (ListPodSandboxRequest) -> ListPodSandboxResponse,
        |_| Some(STANDARD);
    create_container "CreateContainer" "RuntimeService" (CreateContainerRequest) -> CreateContainerResponse,
        |_| Some(STANDARD);
    start_container "StartContainer" "RuntimeService" (ContainerId) -> Empty, |_| Some(STANDARD);
    stop_container "StopContainer" "RuntimeService" (StopContainerRequest) -> Empty, |r| plus_standard(r.timeout);
    remove_container "RemoveContainer" "RuntimeService" (ContainerId) -> Empty, |_| Some(STANDARD);
    list_containers "ListContainers" "RuntimeService" (ListContainersRequest) -> ListContainersResponse,
        |_| Some(STANDARD);
    container_status "ContainerStatus" "RuntimeService" (ContainerStatusRequest) -> ContainerStatusResponse,
        |_| Some(STANDARD);
    update_container_resources "UpdateContainerResources" "RuntimeService" (UpdateContainerResourcesRequest) -> Empty,
        |_| Some(STANDARD);
    reopen_container_log "ReopenContainerLog" "RuntimeService" (ContainerId) -> Empty, |_| Some(STANDARD);
    exec_sync "ExecSync" "RuntimeService" (ExecSyncRequest) -> ExecSyncResponse, |r| exec_time(r.timeout);
    exec "Exec" "RuntimeService" (ExecRequest) -> StreamUrl, |_| Some(STANDARD);
    attach "Attach" "RuntimeService" (AttachRequest) -> StreamUrl, |_| Some(STANDARD);
    port_forward "PortForward" "RuntimeService" (PortForwardRequest) -> StreamUrl, |_| Some(STANDARD);
    container_stats "ContainerStats" "RuntimeService" (ContainerId) -> ContainerStatsResponse, |_| Some(STANDARD);
    list_container_stats "ListContainerStats" "RuntimeService" (ListContainerStatsRequest) -> ListContainerStatsResponse,
        |_| Some(STANDARD);
    list_pod_sandbox_stats "ListPodSandboxStats" "RuntimeService" (ListPodSandboxStatsRequest)
        -> ListPodSandboxStatsResponse, |_| Some(STANDARD);
    update_runtime_config "UpdateRuntimeConfig" "RuntimeService" (UpdateRuntimeConfigRequest) -> Empty, |_| Some(QUICK);
    runtime_config "RuntimeConfig" "RuntimeService" (Empty) -> RuntimeConfigResponse, |_| Some(QUICK);
    list_images "ListImages" "ImageService" (ListImagesRequest) -> ListImagesResponse, |_| Some(STANDARD);
    image_status "ImageStatus" "ImageService" (ImageStatusRequest) -> ImageStatusResponse, |_| Some(STANDARD);
    pull_image "PullImage" "ImageService" (PullImageRequest) -> PullImageResponse, |_| UNBOUNDED;
    remove_image "RemoveImage" "ImageService" (RemoveImageRequest) -> Empty, |_| Some(STANDARD);
    image_fs_info "ImageFsInfo" "ImageService" (Empty) -> ImageFsInfoResponse, |_| Some(STANDARD);
}

impl Runtime {
    /// The first of `sockets` that exists is used; asked again at every dial, so the runtime may appear later. Does
    /// not dial: the first call does.
    pub fn new(sockets: Vec<PathBuf>, executor: Arc<Executor<'static>>) -> Runtime {
        Runtime { channel: Channel::new(Box::new(Address::Unix(sockets.clone())), executor), sockets }
    }

    /// The socket that would be dialled now.
    pub fn socket(&self) -> &Path {
        socket(&self.sockets)
    }

    /// Changes of all containers from now on. Unimplemented on runtimes that have no events.
    pub async fn get_container_events(&self) -> Result<Streaming<ContainerEvent>, Error> {
        let method = Method { doing: "GetContainerEvents", path: "/runtime.v1.RuntimeService/GetContainerEvents" };
        self.channel.stream(method, &Empty {}).await
    }
}
