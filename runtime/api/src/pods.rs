//! What the API server asks of a pod's node: logs, the streaming URLs of exec, attach and port-forward, and what a
//! kubelet's own port would answer.
use crate::driver::BoxFuture;
use bytes::Bytes;
use mote_schema::{Object, Status};
use std::pin::Pin;

pub type LogStream = Pin<Box<dyn futures_lite::Stream<Item = std::io::Result<Bytes>> + Send>>;

#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Already resolved to an existing container name of the pod's spec.
    pub container: String,
    pub follow: bool,
    pub previous: bool,
    pub since_seconds: Option<i64>,
    /// RFC 3339
    pub since_time: Option<String>,
    pub timestamps: bool,
    pub tail_lines: Option<i64>,
    pub limit_bytes: Option<i64>,
    /// "All", "Stdout", "Stderr"
    pub stream: Option<String>,
}

#[derive(Clone, Debug)]
pub enum StreamRequest {
    Exec { container: String, command: Vec<String>, stdin: bool, stdout: bool, stderr: bool, tty: bool },
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool, tty: bool },
    PortForward { ports: Vec<u16> },
}

/// Of the host's own logs.
pub enum HostLog {
    /// Names in order; those of directories end in a slash.
    Directory(Vec<String>),
    File(LogStream),
}

/// The pages of a kubelet's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figures {
    /// /metrics
    Kubelet,
    /// /metrics/resource
    Resources,
    /// /metrics/cadvisor
    Containers,
    /// /metrics/probes
    Probes,
}

/// Implemented by the kubelet of this process. Errors carry upstream's texts, e.g. `container "x" in pod "y" is
/// waiting to start: ContainerCreating` (400 BadRequest).
pub trait PodBackend: Send + Sync + 'static {
    fn logs(&self, pod: Object, options: LogOptions) -> BoxFuture<'_, Result<LogStream, Status>>;
    /// The runtime's streaming URL (http://127.0.0.1:port/...), to which the API server tunnels the upgraded connection.
    fn stream_url(&self, pod: Object, request: StreamRequest) -> BoxFuture<'_, Result<String, Status>>;
    /// The node that this kubelet is.
    fn node_name(&self) -> &str;
    /// What a command says that runs in a container, on both its outputs.
    fn run(&self, pod: Object, container: String, command: Vec<String>) -> BoxFuture<'_, Result<Bytes, Status>>;
    /// Pods with containers that run, by what the runtime says.
    fn running(&self) -> BoxFuture<'_, Result<Vec<mote_schema::Value>, Status>>;
    /// Below /var/log; None: there is no such thing.
    fn host_log(&self, path: String) -> BoxFuture<'_, Option<HostLog>>;
    /// What node and pods use, as a kubelet's /stats/summary shows it; without disks and the network it costs less.
    fn summary(&self, whole: bool) -> BoxFuture<'_, Result<mote_schema::Value, Status>>;
    /// What a kubelet shows at /metrics and below.
    fn figures(&self, of: Figures) -> BoxFuture<'_, Result<String, Status>>;
    /// What a kubelet's /configz shows as `kubeletconfig`.
    fn configuration(&self) -> mote_schema::Value;
}
