//! Carrying out a plan: volumes, sandbox, kills, starts.
use super::*;
use crate::cgroups::Driver;

impl Kubelet {
    /// Volumes, sandbox, kills and starts; whether anything may have changed in the runtime.
    pub(super) async fn act(
        &self,
        key: &Key,
        worker: &Worker,
        pod: &Arc<Pod>,
        state: &PodState,
        actions: &Actions,
        soonest: &mut Soonest,
    ) -> Result<bool, Error> {
        let recorder = Recorder::of_pod(&self.client, &pod.object);
        if let Some(left) = self.retry_left(worker, "volumes").filter(|_| !lock(&worker.memory).volumes_stale) {
            soonest.offer(Some(left));
            return Ok(false);
        }
        let volumes = match self.volumes(worker, pod, soonest).await {
            Ok(volumes) => volumes,
            Err(message) => {
                recorder.warning("FailedMount", &message);
                soonest.offer(Some(self.retry(worker, "volumes")));
                return Ok(false);
            }
        };
        let idle = actions.kill.is_empty() && actions.start.is_empty() && !actions.resize_pod;
        if idle && !actions.create_sandbox {
            return Ok(false);
        }
        if actions.create_sandbox {
            if let Some(left) = self.retry_left(worker, "sandbox") {
                soonest.offer(Some(left));
                return Ok(false);
            }
            if let Some(why) = self.health.network_error().filter(|_| !pod.is_host_network()) {
                recorder.warning("NetworkNotReady", &format!("network is not ready: {why}"));
                soonest.offer(Some(self.retry(worker, "sandbox")));
                return Ok(false);
            }
        }
        let config = match self.sandbox_config(pod, actions.attempt).await {
            Ok(config) => config,
            Err(message) => {
                recorder.warning("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {message}"));
                soonest.offer(Some(self.retry(worker, "sandbox")));
                return Ok(false);
            }
        };
        let (sandbox_id, ips) = if actions.create_sandbox {
            let request =
                v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: self.runtime_handler(pod) };
            self.counts.add("started_pods_total", "", 1);
            let made = self.runtime.run_pod_sandbox(request).await;
            let id = match made {
                Ok(answer) => answer.pod_sandbox_id,
                Err(e) => {
                    self.counts.add("started_pods_errors_total", "", 1);
                    recorder.warning("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {e}"));
                    soonest.offer(Some(self.retry(worker, "sandbox")));
                    return Ok(true);
                }
            };
            lock(&worker.memory).retries.forget("sandbox");
            self.limit_slice(pod).await;
            if pod.is_host_network() {
                self.cache.has_no_addresses(&id);
            }
            let ips = state::addresses(&self.runtime, &self.cache, &id).await.map_err(cri)?;
            (id, ips)
        } else {
            let Some(current) = state.sandboxes.first() else { return Ok(false) };
            (current.id.clone(), current.ips.clone())
        };
        let ips = if pod.is_host_network() { vec![self.config.node_ip.clone()] } else { ips };

        let ip = ips.first().map_or("", String::as_str);
        for doomed in &actions.kill {
            let Some((role, spec)) = pod.find(&doomed.name) else { continue };
            let target = kill::Target { id: &doomed.id, role, container: spec, reason: doomed.reason };
            kill::container(self, pod, &target, &doomed.message, None, ip).await;
        }
        if actions.resize_pod {
            match self.retry_left(worker, "resize") {
                Some(left) => soonest.offer(Some(left)),
                None => self.resize(worker, pod, state, &actions.resize, soonest).await,
            }
        }
        for (role, name) in &actions.start {
            let Some((kind, spec)) = pod.find(name) else { continue };
            let target = pod.ephemeral.iter().find(|(c, _)| *role == Role::Ephemeral && c.name == *name);
            let target = target.and_then(|(_, t)| t.as_deref()).and_then(|t| state.latest(t)).map(|t| t.id.as_str());
            let start = container::Start {
                pod,
                role: kind,
                container: spec,
                target,
                sandbox_id: &sandbox_id,
                sandbox: &config,
                state,
                ips: &ips,
                volumes: &volumes,
            };
            // A start that failed for want of something waits its turn, whatever else wakes the pod.
            if let Some(left) = self.retry_left(worker, name) {
                soonest.offer(Some(left));
                if *role == Role::Init && !is_sidecar(spec) {
                    break;
                }
                continue;
            }
            let outcome = match self.crash_back_off(worker, pod, kind, spec, state) {
                Some(why) => Err(why),
                None => {
                    let labels = format!("container_type={:?}", kind.metric_label());
                    self.counts.add("started_containers_total", labels.as_str(), 1);
                    container::start(self, &start).await.inspect_err(|why| {
                        let labels = format!("code={:?},{labels}", why.reason);
                        self.counts.add("started_containers_errors_total", labels, 1);
                    })
                }
            };
            match outcome {
                Ok(id) => {
                    let mut memory = lock(&worker.memory);
                    memory.actuated.set(&id, spec);
                    memory.waiting.remove(name);
                    memory.retries.forget(name);
                }
                Err(why) => {
                    let again = why.again.unwrap_or_else(|| self.retry(worker, name));
                    soonest.offer(Some(again));
                    lock(&worker.memory).waiting.insert(name.clone(), why);
                    // Later init containers wait for this one; a sidecar that fails does not hold back the others.
                    if *role == Role::Init && !is_sidecar(spec) {
                        break;
                    }
                }
            }
            // What is reported must not wait for a slow pull of the next image.
            if actions.start.len() > 1 {
                let now = self.observe_own(key, &pod.uid).await?;
                self.write_status(key, worker, &now, false).await?;
            }
        }
        Ok(true)
    }

    /// Sets volumes up when that was not done since the start, or a source of theirs has changed.
    async fn volumes(&self, worker: &Worker, pod: &Pod, soonest: &mut Soonest) -> Result<Volumes, String> {
        {
            let mut memory = lock(&worker.memory);
            let stale = std::mem::take(&mut memory.volumes_stale);
            if let Some((volumes, since)) = memory.volumes.as_ref().filter(|_| !stale) {
                let left = volumes.again.map(|again| again.saturating_sub(since.elapsed()));
                if left != Some(Duration::ZERO) {
                    soonest.offer(left);
                    return Ok(volumes.clone());
                }
            }
        }
        let facts = volumes::Facts {
            client: &self.client,
            node_name: &self.config.node_name,
            pod_dir: &self.pod_dir(&pod.uid),
        };
        let made = volumes::set_up(&facts, pod).await;
        let mut memory = lock(&worker.memory);
        match made {
            Ok(volumes) => {
                memory.retries.forget("volumes");
                memory.volumes = Some((volumes.clone(), Instant::now()));
                soonest.offer(volumes.again);
                Ok(volumes)
            }
            Err(message) => {
                memory.volumes = None;
                Err(message)
            }
        }
    }

    async fn sandbox_config(&self, pod: &Pod, attempt: u32) -> Result<v1::PodSandboxConfig, String> {
        let (cgroups, qos, uid) = (self.cgroups(), resources::qos_class(pod), pod.uid.clone());
        let cgroup_parent = cgroups.parent(&pod.uid, qos);
        let log_dir = sandbox::log_dir(&self.config.pod_log_dir, &pod.namespace, &pod.name, &pod.uid);
        let (limits, pod_dir) = (resources::of_pod(pod), self.pod_dir(&pod.uid));
        let made = mote_api::unblock(move || {
            cgroups.create(&uid, qos, &limits);
            std::fs::create_dir_all(pod_dir)?;
            std::fs::create_dir_all(log_dir)?;
            Ok(std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
        });
        let resolv_conf = made.await.map_err(|e: std::io::Error| e.to_string())?;
        let (dns, told) = dns::config(pod, &self.config.cluster_dns, &self.config.cluster_domain, &resolv_conf);
        for message in told {
            Recorder::of_pod(&self.client, &pod.object).warning("DNSConfigForming", &message);
        }
        let users = userns::of(self, pod, &self.runtime_handler(pod)).await?;
        let parts = sandbox::Parts {
            users,
            attempt,
            log_root: &self.config.pod_log_dir,
            cgroup_parent,
            cluster_domain: &self.config.cluster_domain,
            dns,
        };
        sandbox::config(pod, parts)
    }

    /// The pod's slice, which systemd made for the sandbox just now, gets the limits that a group of our own has from the start.
    async fn limit_slice(&self, pod: &Pod) {
        let cgroups = self.cgroups();
        if cgroups.driver == Driver::Systemd {
            let (uid, qos, limits) = (pod.uid.clone(), resources::qos_class(pod), resources::of_pod(pod));
            mote_api::unblock(move || cgroups.limit(&uid, qos, &limits)).await;
        }
    }

    /// The handler of the pod's RuntimeClass; "" is the runtime's default.
    fn runtime_handler(&self, pod: &Pod) -> String {
        let Some(name) = pod.spec.runtime_class_name.as_deref().filter(|n| !n.is_empty()) else { return String::new() };
        let Some(kind) = self.client.kind("node.k8s.io", "v1", "runtimeclasses") else { return String::new() };
        self.client.get(&kind, "", name).map_or(String::new(), |class| class.root().get("handler").str().to_owned())
    }

    fn crash_back_off(
        &self,
        worker: &Worker,
        pod: &Pod,
        role: Role,
        container: &Container,
        state: &PodState,
    ) -> Option<Failure> {
        let ended = state.containers.iter().find(|c| c.name == container.name && c.state == State::Exited)?;
        let since = Timestamp::now().duration_since(state::timestamp(ended.finished_at_ns));
        let since = Duration::try_from(since).unwrap_or_default();
        let mut memory = lock(&worker.memory);
        let now = Instant::now();
        // A restart of the kubelet is no amnesty: the restarts are counted in what was reported.
        let reported = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).flatten();
        let waited = |s: &&ContainerStatus| {
            let waiting = s.state.as_ref().and_then(|s| s.waiting.as_ref());
            s.name == container.name && waiting.is_some_and(|w| w.reason.as_deref() == Some("CrashLoopBackOff"))
        };
        if let Some(failures) = reported.into_iter().find(waited).map(|s| s.restart_count) {
            memory.crashes.resume(&container.name, u32::try_from(failures).unwrap_or(0), now);
        }
        let Some(delay) = memory.crashes.delay(&container.name, now).filter(|delay| since < *delay) else {
            memory.crashes.fail(&container.name, now);
            return None;
        };
        drop(memory);
        let (name, described) = (&container.name, pod.described());
        let recorder = Recorder::of_container(&self.client, &pod.object, role, name);
        recorder.warning("BackOff", &format!("Back-off restarting failed container {name} in pod {described}"));
        let message = format!("back-off {} restarting failed container={name} pod={described}", go_duration(delay));
        Some(Failure { again: Some(delay - since), ..failure("CrashLoopBackOff", message) })
    }
}
