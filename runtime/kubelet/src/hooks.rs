//! Lifecycle hooks: postStart and preStop (upstream's pkg/kubelet/lifecycle/handlers.go).
use crate::spec::{Container, LifecycleHandler};
use crate::{http, pod::Pod};
use async_io::Timer;
use mote_cri::{Runtime, v1::ExecSyncRequest};
use std::time::Duration;

/// Upstream's HTTP client for hooks has no limit of its own; a connection that says nothing must end all the same.
const HTTP_TIMEOUT: Duration = Duration::from_secs(300);

/// The error is the message shown as the container's waiting message; it may hold output, so it goes to no event.
pub async fn run(
    runtime: &Runtime,
    pod: &Pod,
    container: &Container,
    id: &str,
    pod_ip: &str,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    let place = format!("for Container {:?} in Pod {:?} failed - error:", container.name, pod.described());
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = format!("Exec lifecycle hook ([{}]) {place}", command.join(" "));
        let request = ExecSyncRequest { container_id: id.into(), cmd: command.clone(), timeout: 0 };
        let answer = runtime.exec_sync(request).await.map_err(|e| format!("{shown} {e}, message: \"\""))?;
        if answer.exit_code != 0 {
            let output = [answer.stdout, answer.stderr].concat();
            return Err(format!(
                "{shown} command '{}' exited with {}: {}, message: {:?}",
                command.join(" "),
                answer.exit_code,
                String::from_utf8_lossy(&output),
                String::from_utf8_lossy(&output),
            ));
        }
    } else if let Some(get) = &hook.http_get {
        let answer = http::get(get, container, pod_ip, "kube-lifecycle/1.36", HTTP_TIMEOUT).await;
        if let Err(http::Failed::Request(e) | http::Failed::Answer(e)) = answer {
            return Err(format!("HTTP lifecycle hook ({}) {place} {e}", get.path.as_deref().unwrap_or("")));
        }
    } else if let Some(sleep) = &hook.sleep {
        Timer::after(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
    } else {
        return Err("Cannot run handler: invalid handler".into());
    }
    Ok(())
}
