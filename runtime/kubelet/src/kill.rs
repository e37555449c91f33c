//! Stopping containers and pods within their grace: preStop, then the runtime's stop signal, then its kill. Every
//! step is done even when one fails; what failed is logged and found again at the next reconcile.
use crate::spec::Container;
use crate::{
    Kubelet,
    events::Recorder,
    hooks,
    plan::KillReason,
    pod::{Pod, Role, is_sidecar},
    state::{self, PodState, State},
};
use async_io::Timer;
use futures_lite::future;
use mote_cri::v1;
use mote_schema::Order as _;
use std::{
    future::Future,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

/// A container always gets this long after its signal.
const MINIMUM_GRACE_SECONDS: i64 = 2;

pub struct Target<'a> {
    pub id: &'a str,
    pub role: Role,
    pub container: &'a Container,
    pub reason: KillReason,
}

/// deletionGracePeriodSeconds, else the failed probe's, else the pod's.
fn grace_seconds(pod: &Pod, container: &Container, reason: KillReason) -> i64 {
    let probe = match reason {
        KillReason::Startup => container.startup_probe.as_ref(),
        KillReason::Liveness => container.liveness_probe.as_ref(),
        KillReason::Other => None,
    };
    let of_pod = pod.spec.termination_grace_period_seconds.unwrap_or(30);
    pod.deletion_grace_seconds.unwrap_or(probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or(of_pod))
}

/// An empty message is the usual one. `deadline` is when the pod's grace is over, if it has begun already.
pub async fn container(
    kubelet: &Kubelet,
    pod: &Pod,
    target: &Target<'_>,
    message: &str,
    deadline: Option<Instant>,
    pod_ip: &str,
) {
    let Target { id, container, .. } = target;
    let recorder = Recorder::of_container(&kubelet.client, &pod.object, target.role, &container.name);
    let usual = format!("Stopping container {}", container.name);
    recorder.normal("Killing", if message.is_empty() { &usual } else { message });
    let begun = Instant::now();
    let grace = match deadline {
        Some(deadline) => deadline.saturating_duration_since(begun),
        None => Duration::from_secs(grace_seconds(pod, container, target.reason).max(0) as u64),
    };
    if let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()).filter(|_| !grace.is_zero()) {
        let run = async {
            if let Err(error) = hooks::run(&kubelet.runtime, pod, container, id, pod_ip, hook).await {
                tracing::debug!(pod = %pod.described(), container = container.name, error, "preStop hook failed");
                recorder.warning("FailedPreStopHook", "PreStopHook failed");
            }
        };
        let late = async {
            Timer::after(grace).await;
        };
        future::or(run, late).await;
    }
    let left = grace.saturating_sub(begun.elapsed()).as_secs_f64().round() as i64;
    stop(kubelet, id, left.max(MINIMUM_GRACE_SECONDS)).await;
}

async fn stop(kubelet: &Kubelet, id: &str, timeout: i64) {
    let request = v1::StopContainerRequest { container_id: id.into(), timeout };
    match kubelet.runtime.stop_container(request).await {
        Err(e) if !e.is_not_found() => tracing::warn!(container = id, error = %e, "container not stopped"),
        _ => {}
    }
}

/// Stops every running container, the sidecars after the others and in reverse order of their start, and then the
/// sandboxes. `grace` overrides what the pod says.
pub async fn pod(kubelet: &Kubelet, pod: &Pod, state: &PodState, grace: Option<Duration>) {
    let own = pod.deletion_grace_seconds.or(pod.spec.termination_grace_period_seconds).unwrap_or(30);
    let grace = grace.unwrap_or(Duration::from_secs(own.max(0) as u64));
    let deadline = Instant::now() + grace;
    let ip = state.ips().first().map_or("", String::as_str);
    let kill = |found: &'_ state::Container| {
        let (id, name) = (found.id.clone(), found.name.clone());
        async move {
            match pod.find(&name) {
                Some((role, spec)) => {
                    let target = Target { id: &id, role, container: spec, reason: KillReason::Other };
                    container(kubelet, pod, &target, "", Some(deadline), ip).await;
                }
                // Not in the spec any more: nobody to tell.
                None => stop(kubelet, &id, MINIMUM_GRACE_SECONDS).await,
            }
        }
    };
    let live = |f: &&state::Container| f.state != State::Exited;
    let sidecar = |f: &state::Container| pod.init_containers().iter().position(|c| c.name == f.name && is_sidecar(c));
    let first = state.containers.iter().filter(live).filter(|f| sidecar(f).is_none());
    all(first.map(|f| Box::pin(kill(f)) as Pin<Box<dyn Future<Output = ()> + Send + '_>>).collect()).await;
    let mut rest: Vec<_> = state.containers.iter().filter(live).filter_map(|f| Some((sidecar(f)?, f))).collect();
    rest.order_by_key(|(position, _)| std::cmp::Reverse(*position));
    for (_, found) in rest {
        kill(found).await;
    }
    sandboxes(kubelet, state).await;
}

/// Containers of a pod that the API no longer knows: no hooks, a short grace.
pub async fn orphan(kubelet: &Kubelet, state: &PodState) {
    let live = state.containers.iter().filter(|f| f.state != State::Exited);
    let stops = live.map(|f| {
        Box::pin(stop(kubelet, &f.id, MINIMUM_GRACE_SECONDS)) as Pin<Box<dyn Future<Output = ()> + Send + '_>>
    });
    all(stops.collect()).await;
    sandboxes(kubelet, state).await;
}

async fn sandboxes(kubelet: &Kubelet, state: &PodState) {
    for sandbox in state.sandboxes.iter().filter(|s| s.ready) {
        let request = v1::PodSandboxId { pod_sandbox_id: sandbox.id.clone() };
        match kubelet.runtime.stop_pod_sandbox(request).await {
            Err(e) if !e.is_not_found() => tracing::warn!(sandbox = sandbox.id, error = %e, "sandbox not stopped"),
            _ => {}
        }
    }
}

/// Drives all to their end, at the same time.
async fn all(mut futures: Vec<Pin<Box<dyn Future<Output = ()> + Send + '_>>>) {
    std::future::poll_fn(|context| {
        futures.retain_mut(|f| f.as_mut().poll(context).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
