//! Which probes run: those of the containers that run, and no others.
use super::*;

impl Kubelet {
    /// Starts probes for running containers that have none yet and drops those of containers that run no more.
    pub(super) fn keep_probes(&self, key: &Key, worker: &Worker, pod: &Arc<Pod>, state: &PodState) {
        let mut memory = lock(&worker.memory);
        let runs = |id: &str| state.containers.iter().any(|c| c.id == id && c.state == State::Running);
        memory.probes.retain(|(id, _), _| runs(id));
        let probed = pod.containers().filter(|(role, c)| *role == Role::Main || *role == Role::Init && is_sidecar(c));
        for (role, container) in probed {
            let Some(found) = state.latest(&container.name).filter(|f| f.state == State::Running) else { continue };
            // After a restart of the kubelet what was reported holds until a probe says otherwise.
            let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses).flatten();
            let reported =
                statuses.into_iter().find(|s| s.container_id.as_ref().is_some_and(|id| id.ends_with(&found.id)));
            for type_ in [Type::Startup, Type::Liveness, Type::Readiness] {
                let slot = (found.id.clone(), type_);
                if type_.of(container).is_none() || memory.probes.contains_key(&slot) {
                    continue;
                }
                let initial = match type_ {
                    Type::Startup if reported.is_some_and(|s| s.started == Some(true)) => Some(Standing::Success),
                    Type::Startup => None,
                    Type::Liveness => Some(Standing::Success),
                    Type::Readiness if reported.is_some_and(|s| s.ready) => Some(Standing::Success),
                    Type::Readiness => Some(Standing::Failure),
                };
                let standing = Verdict::new(initial);
                let startup = (type_ != Type::Startup).then(|| memory.probes.get(&(found.id.clone(), Type::Startup)));
                let job = Job {
                    client: self.client.clone(),
                    runtime: self.runtime.clone(),
                    pod: pod.clone(),
                    role,
                    container: container.clone(),
                    id: found.id.clone(),
                    pod_ip: if pod.is_host_network() {
                        self.config.node_ip.clone()
                    } else {
                        state.ips().first().cloned().unwrap_or_default()
                    },
                    type_,
                    standing: standing.clone(),
                    startup: startup.flatten().map(|r| r.standing.clone()),
                    started_at: state::timestamp(found.started_at_ns),
                };
                let done = type_ == Type::Startup && initial.is_some();
                let (queue, key) = (self.queue(), key.clone());
                let task = self.client.executor().spawn(async move {
                    if !done {
                        job.run(move || queue.add(key.clone())).await;
                    }
                });
                let container = container.name.clone();
                memory.probes.insert(slot, Running { container, standing, _task: task });
            }
        }
    }
}
