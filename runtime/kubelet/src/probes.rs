//! Probes: one task per container and probe, alive as long as that container runs. Rules and texts: upstream's
//! pkg/kubelet/prober and pkg/probe. The count of results is a pure `Tally`.
use crate::spec::{Container, GRPCAction, Probe};
use crate::{
    backoff::go_duration,
    events::Recorder,
    http::{self, Failed},
    plan::Standing,
    pod::{Pod, Role},
    state::lock,
};
use async_io::Timer;
use event_listener::Event;
use mote_api::Client;
use mote_cri::{Code, Runtime, Serving, check_health, v1::ExecSyncRequest};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    Startup,
    Liveness,
    Readiness,
}

impl Type {
    pub fn name(self) -> &'static str {
        match self {
            Type::Startup => "Startup",
            Type::Liveness => "Liveness",
            Type::Readiness => "Readiness",
        }
    }
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Type::Startup => container.startup_probe.as_ref(),
            Type::Liveness => container.liveness_probe.as_ref(),
            Type::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// How upstream counts what comes of an attempt (prober.go).
pub const RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

/// Results in a row, and when they change the standing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    last: Option<bool>,
    run: i32,
}

impl Tally {
    /// The standing after one more result, if the thresholds say that it may change.
    pub fn add(&mut self, success: bool, probe: &Probe) -> Option<Standing> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold =
            if success { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        (self.run >= threshold).then_some(if success { Standing::Success } else { Standing::Failure })
    }
}

/// The standing that a task keeps, and others read or wait for.
#[derive(Default)]
pub struct Verdict {
    standing: Mutex<Option<Standing>>,
    results: [AtomicU64; RESULTS.len()],
    changed: Event,
}

pub type Shared = Arc<Verdict>;

impl Verdict {
    pub fn new(initial: Option<Standing>) -> Shared {
        Arc::new(Verdict { standing: Mutex::new(initial), ..Verdict::default() })
    }
    pub fn get(&self) -> Option<Standing> {
        *lock(&self.standing)
    }
    /// How many there were of each of `RESULTS`.
    pub fn results(&self) -> [u64; RESULTS.len()] {
        self.results.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
    fn set(&self, standing: Standing) {
        *lock(&self.standing) = Some(standing);
        self.changed.notify(usize::MAX);
    }
    async fn succeeds(&self) {
        loop {
            let changed = self.changed.listen();
            if self.get() == Some(Standing::Success) {
                return;
            }
            changed.await;
        }
    }
}

/// A container that has just started needs a moment before anything answers. Upstream's first attempt falls anywhere
/// in the first period; ours come soon and closer, and their failures do not count.
const EARLY_FIRST: Duration = Duration::from_millis(50);
/// A liveness probe may do harm: it waits this long, or a shorter period.
const LIVENESS_FIRST: Duration = Duration::from_secs(1);

pub struct Job {
    pub client: Client,
    pub runtime: Arc<Runtime>,
    pub pod: Arc<Pod>,
    pub role: Role,
    pub container: Container,
    pub id: String,
    pub pod_ip: String,
    pub type_: Type,
    pub standing: Shared,
    /// Standing of the same container's startup probe, which holds back the others.
    pub startup: Option<Shared>,
    pub started_at: jiff::Timestamp,
}

impl Job {
    /// Ends when there is nothing more to find out. `changed` is called after each change of standing.
    pub async fn run(self, changed: impl Fn() + Send) {
        let Some(probe) = self.type_.of(&self.container).cloned() else { return };
        let period = Duration::from_secs(probe.period_seconds.unwrap_or(10).max(1) as u64);
        let age = || {
            let age = jiff::Timestamp::now().duration_since(self.started_at);
            Duration::try_from(age).unwrap_or_default()
        };
        let mut first = Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0).max(0) as u64);
        if self.type_ == Type::Liveness {
            first = first.max(period.min(LIVENESS_FIRST));
        }
        Timer::after(first.saturating_sub(age())).await;
        if let Some(startup) = &self.startup {
            startup.succeeds().await;
        }
        let mut early = EARLY_FIRST;
        if self.type_ != Type::Liveness {
            while age() < first + period && !matches!(self.attempt(&probe).await, Ok(Outcome::Success)) {
                Timer::after(early).await;
                early = (early * 2).min(period);
            }
        }
        let mut tally = Tally::default();
        loop {
            let result = self.once(&probe).await;
            let at = result.map_or(2, |success| usize::from(!success));
            self.standing.results[at].fetch_add(1, Ordering::Relaxed);
            if let Some(success) = result {
                let standing = tally.add(success, &probe);
                if let Some(standing) = standing.filter(|s| Some(*s) != self.standing.get()) {
                    self.standing.set(standing);
                    changed();
                }
                // The container is about to be killed, or has started: this one has said what it had to.
                let over = match self.type_ {
                    Type::Startup => standing.is_some(),
                    Type::Liveness => standing == Some(Standing::Failure),
                    Type::Readiness => false,
                };
                if over {
                    return;
                }
            }
            Timer::after(period).await;
        }
    }

    /// One attempt, with its event; None when it could not be made, which counts as no result.
    async fn once(&self, probe: &Probe) -> Option<bool> {
        let recorder = Recorder::of_container(&self.client, &self.pod.object, self.role, &self.container.name);
        let name = self.type_.name();
        match self.attempt(probe).await {
            Ok(Outcome::Success) => Some(true),
            Ok(Outcome::Warning(output)) => {
                recorder.warning("ProbeWarning", &format!("{name} probe warning: {output}"));
                Some(true)
            }
            Ok(Outcome::Failure(output)) => {
                recorder.warning("Unhealthy", &format!("{name} probe failed: {output}"));
                Some(false)
            }
            Err(error) => {
                let message = format!("{name} probe errored and resulted in unknown state: {error}");
                recorder.warning("Unhealthy", &message.replace(&self.id, &self.container.name));
                None
            }
        }
    }

    async fn attempt(&self, probe: &Probe) -> Result<Outcome, String> {
        let seconds = i64::from(probe.timeout_seconds.unwrap_or(1).max(1));
        let timeout = Duration::from_secs(seconds as u64);
        if let Some(exec) = &probe.exec {
            let cmd = exec.command.clone().unwrap_or_default();
            let request = ExecSyncRequest { container_id: self.id.clone(), cmd, timeout: seconds };
            return match self.runtime.exec_sync(request).await {
                Ok(answer) if answer.exit_code == 0 => Ok(Outcome::Success),
                Ok(answer) => Ok(Outcome::Failure(shown(&[answer.stdout, answer.stderr].concat()))),
                Err(e) if e.code() == Code::DEADLINE_EXCEEDED => {
                    Ok(Outcome::Failure(format!("command timed out: {e}")))
                }
                Err(e) => Err(e.to_string()),
            };
        }
        if let Some(get) = &probe.http_get {
            return match http::get(get, &self.container, &self.pod_ip, "kube-probe/1.36", timeout).await {
                Ok(answer) if (200..300).contains(&answer.status) => Ok(Outcome::Success),
                Ok(answer) if (300..400).contains(&answer.status) => {
                    Ok(Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)))
                }
                Ok(answer) => Ok(Outcome::Failure(format!("HTTP probe failed with statuscode: {}", answer.status))),
                Err(Failed::Answer(why)) => Ok(Outcome::Failure(why)),
                Err(Failed::Request(why)) => Err(why),
            };
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = http::port(&tcp.port, &self.container)?;
            let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&self.pod_ip);
            return Ok(match http::connect(host, port, timeout).await {
                Ok(_) => Outcome::Success,
                Err(why) => Outcome::Failure(why),
            });
        }
        if let Some(grpc) = &probe.grpc {
            return self.grpc(grpc, timeout).await;
        }
        Err(format!("missing probe handler for {}:{}", self.pod.described(), self.container.name))
    }
}

impl Job {
    async fn grpc(&self, grpc: &GRPCAction, timeout: Duration) -> Result<Outcome, String> {
        let port = u16::try_from(grpc.port).map_err(|_| format!("invalid port number: {}", grpc.port))?;
        let ip: IpAddr = self.pod_ip.parse().map_err(|_| format!("invalid pod address {:?}", self.pod_ip))?;
        let address = SocketAddr::new(ip, port);
        let service = grpc.service.as_deref().unwrap_or("");
        let shown = go_duration(timeout);
        let answer = check_health(self.client.executor().clone(), address, service, timeout).await;
        Ok(Outcome::Failure(match answer {
            Ok(Serving::Serving) => return Ok(Outcome::Success),
            Ok(Serving::NotServing) => "service unhealthy (responded with \"NOT_SERVING\")".into(),
            Ok(Serving::ServiceUnknown) => "service unhealthy (responded with \"SERVICE_UNKNOWN\")".into(),
            Ok(Serving::Unknown) => "service unhealthy (responded with \"UNKNOWN\")".into(),
            Err(e) if e.is_unimplemented() => format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                e.message()
            ),
            Err(e) if e.is_unavailable() => {
                format!("timeout: failed to connect service {:?} within {shown}: {}", address.to_string(), e.message())
            }
            Err(e) if e.code() == Code::DEADLINE_EXCEEDED => {
                format!("timeout: health rpc did not complete within {shown}")
            }
            Err(e) => format!("error: health rpc probe failed: {e}"),
        }))
    }
}

enum Outcome {
    Success,
    Warning(String),
    Failure(String),
}

/// The first 10 kB of a command's output.
fn shown(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[..output.len().min(10 << 10)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Default::default() };
        let (ok, bad) = (Some(Standing::Success), Some(Standing::Failure));
        let mut tally = Tally::default();
        for (success, want) in [
            (true, None),
            (true, ok),
            (false, None),
            (true, None),
            (false, None),
            (false, bad),
            (false, bad),
            (true, None),
            (true, ok),
        ] {
            assert_eq!(tally.add(success, &probe), want);
        }
    }
}
