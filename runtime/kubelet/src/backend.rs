//! What the API server asks of the kubelet: logs, and streaming URLs for exec, attach and port-forward. Messages:
//! upstream's validateContainerLogStatus and the kubelet server's.
use crate::spec::ContainerStatus;
use crate::{Kubelet, host_logs, logs, pod::Pod};
use async_channel::Receiver;
use async_io::Timer;
use bytes::Bytes;
use futures_lite::future;
use mote_api::{
    driver::BoxFuture,
    pods::{Figures, HostLog, LogOptions, LogStream, PodBackend, StreamRequest},
};
use mote_cri::v1;
use mote_schema::{Object, Status};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// A follower asks again after this long even if no change was announced.
const FOLLOW_RECHECK: Duration = Duration::from_secs(5);

pub struct Backend(pub Arc<Kubelet>);

impl PodBackend for Backend {
    fn node_name(&self) -> &str {
        &self.0.config.node_name
    }

    fn summary(&self, whole: bool) -> BoxFuture<'_, Result<mote_schema::Value, Status>> {
        Box::pin(self.0.summary(whole))
    }

    fn configuration(&self) -> mote_schema::Value {
        let config = &self.0.config;
        mote_schema::json!({
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "clusterDNS": [config.cluster_dns],
            "clusterDomain": config.cluster_domain,
            "maxPods": config.max_pods,
            "podCIDR": config.pod_cidr,
            "podLogsDir": config.pod_log_dir.display().to_string(),
            "containerRuntimeEndpoint":
                config.runtime_endpoint.as_ref().map_or(String::new(), |path| format!("unix://{}", path.display())),
            "enableServer": config.port != 0,
            "port": config.port,
            "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {}},
            "authorization": {"mode": "Webhook"},
        })
    }

    fn figures(&self, of: Figures) -> BoxFuture<'_, Result<String, Status>> {
        Box::pin(self.0.figures(of))
    }

    fn host_log(&self, path: String) -> BoxFuture<'_, Option<HostLog>> {
        let root = self.0.config.pod_log_dir.parent().unwrap_or(Path::new("/var/log"));
        Box::pin(host_logs::open(root.to_owned(), path))
    }

    fn running(&self) -> BoxFuture<'_, Result<Vec<mote_schema::Value>, Status>> {
        Box::pin(self.0.running_pods())
    }

    fn run(&self, pod: Object, container: String, command: Vec<String>) -> BoxFuture<'_, Result<Bytes, Status>> {
        Box::pin(async move {
            let container_id = running(&Pod::decode(&pod), &container)?;
            let request = v1::ExecSyncRequest { container_id, cmd: command, timeout: 0 };
            let answer = self.0.runtime.exec_sync(request).await.map_err(|e| Status::internal(e.to_string()))?;
            let said = [answer.stdout, answer.stderr].concat();
            match answer.exit_code {
                0 => Ok(said.into()),
                code => {
                    Err(Status::internal(format!("command exited with {code}: {}", String::from_utf8_lossy(&said))))
                }
            }
        })
    }

    fn logs(&self, pod: Object, options: LogOptions) -> BoxFuture<'_, Result<LogStream, Status>> {
        Box::pin(async move {
            let pod = Pod::decode(&pod);
            let id = log_container(&pod, &options.container, options.previous).map_err(Status::bad_request)?;
            let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: false };
            let answer = self.0.runtime.container_status(request).await;
            let found = answer.map_err(|e| Status::internal(e.to_string()))?.status.unwrap_or_default();
            let running = found.state == v1::container_state::RUNNING;
            let ended = if options.follow && running { self.when_ended(id) } else { async_channel::bounded(1).1 };
            logs::read(PathBuf::from(found.log_path), options, ended).await
        })
    }

    fn stream_url(&self, pod: Object, request: StreamRequest) -> BoxFuture<'_, Result<String, Status>> {
        Box::pin(async move {
            let pod = Pod::decode(&pod);
            let runtime = &self.0.runtime;
            let answer = match request {
                StreamRequest::Exec { container, command, stdin, stdout, stderr, tty } => {
                    let container_id = running(&pod, &container)?;
                    runtime.exec(v1::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr }).await
                }
                StreamRequest::Attach { container, stdin, stdout, stderr, tty: _ } => {
                    let container_id = running(&pod, &container)?;
                    // Whether there is a terminal was settled when it started; a runtime refuses stderr beside one.
                    let tty = pod.find(&container).is_some_and(|(_, c)| c.tty == Some(true));
                    runtime.attach(v1::AttachRequest { container_id, stdin, tty, stdout, stderr }).await
                }
                StreamRequest::PortForward { ports } => {
                    let key = mote_api::driver::Key::new(&pod.namespace, &pod.name);
                    let found = self.0.observe_pod(&key, &pod.uid).await;
                    let state = found.map_err(|e| Status::internal(e.to_string()))?;
                    let Some(sandbox) = state.sandboxes.iter().find(|s| s.ready) else {
                        return Err(Status::internal(format!("failed to find sandbox for pod {:?}", pod.described())));
                    };
                    let port = ports.into_iter().map(i32::from).collect();
                    runtime.port_forward(v1::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port }).await
                }
            };
            answer.map(|a| a.url).map_err(|e| Status::internal(e.to_string()))
        })
    }
}

fn find<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = &pod.status;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == container)
}

/// "containerd://abc" is "abc" to the runtime.
fn plain(id: &str) -> String {
    id.split_once("://").map_or(id, |(_, id)| id).to_owned()
}

fn running(pod: &Pod, container: &str) -> Result<String, Status> {
    let status = find(pod, container).filter(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    let id = status.and_then(|s| s.container_id.as_deref());
    id.map(plain).ok_or_else(|| Status::new(500, "InternalError", format!("container not found (\"{container}\")")))
}

/// Which container's log is meant.
fn log_container(pod: &Pod, container: &str, previous: bool) -> Result<String, String> {
    let name = &pod.name;
    let Some(status) = find(pod, container) else {
        return Err(format!("container {container:?} in pod {name:?} is not available"));
    };
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    let last_id = last.and_then(|t| t.container_id.as_deref()).filter(|id| !id.is_empty());
    let ended = || format!("container {container:?} in pod {name:?} is terminated");
    if previous {
        let missing = || format!("previous terminated container {container:?} in pod {name:?} not found");
        return last_id.map(plain).ok_or_else(missing);
    }
    if state.running.is_some() {
        return status.container_id.as_deref().map(plain).ok_or_else(ended);
    }
    if let Some(terminated) = &state.terminated {
        let own = terminated.container_id.as_deref().filter(|id| !id.is_empty());
        return own.or(last_id).map(plain).ok_or_else(ended);
    }
    if last.is_some() {
        return last_id.map(plain).ok_or_else(ended);
    }
    let place = format!("container {container:?} in pod {name:?} is waiting to start");
    Err(match state.waiting.map(|w| w.reason.unwrap_or_default()) {
        Some(reason) if reason == "ErrImagePull" => format!("{place}: image can't be pulled"),
        Some(reason) if reason == "ImagePullBackOff" => format!("{place}: trying and failing to pull image"),
        Some(reason) => format!("{place}: {reason}"),
        None => format!("{place} - no logs yet"),
    })
}

impl Backend {
    /// A channel that closes when the container does not run any more.
    fn when_ended(&self, id: String) -> Receiver<()> {
        let (sender, ended) = async_channel::bounded::<()>(1);
        let kubelet = self.0.clone();
        self.0.client.spawn(async move {
            loop {
                let changed = kubelet.changed.listen();
                let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: false };
                let state = match kubelet.runtime.container_status(request).await {
                    Ok(answer) => answer.status.map(|s| s.state),
                    Err(e) if e.is_not_found() => None,
                    // The runtime may be back before the container ends.
                    Err(_) => Some(v1::container_state::RUNNING),
                };
                if state != Some(v1::container_state::RUNNING) {
                    return;
                }
                let nobody_listens = async {
                    sender.closed().await;
                    true
                };
                let woken = async {
                    let slept = async {
                        Timer::after(FOLLOW_RECHECK).await;
                    };
                    future::or(changed, slept).await;
                    false
                };
                if future::or(nobody_listens, woken).await {
                    return;
                }
            }
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pod_with;
    use mote_schema::{Value, json};

    #[test]
    fn which_log() {
        let check = |status: Value, previous: bool, want: Result<&str, &str>| {
            let mut status = status;
            for (key, value) in [
                ("name", json!("c")),
                ("image", json!("x")),
                ("imageID", json!("")),
                ("ready", json!(false)),
                ("restartCount", json!(0)),
            ] {
                status[key] = value;
            }
            let pod = pod_with(json!({"containers": []}), json!({"containerStatuses": [status]}));
            let got = log_container(&pod, "c", previous);
            assert_eq!(got.as_deref().map_err(String::as_str), want);
        };
        let ended = json!({"exitCode": 1, "containerID": "containerd://old"});
        check(json!({"state": {"running": {}}, "containerID": "containerd://a"}), false, Ok("a"));
        check(
            json!({"state": {"running": {}}, "containerID": "containerd://a", "lastState": {"terminated": ended}}),
            true,
            Ok("old"),
        );
        check(json!({"state": {"terminated": ended}}), false, Ok("old"));
        check(
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}),
            false,
            Ok("old"),
        );
        check(
            json!({"state": {"running": {}}}),
            true,
            Err("previous terminated container \"c\" in pod \"p\" not found"),
        );
        check(
            json!({"state": {"waiting": {"reason": "ContainerCreating"}}}),
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: ContainerCreating"),
        );
        check(
            json!({"state": {"waiting": {"reason": "ErrImagePull"}}}),
            false,
            Err("container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
        );
    }
}
