//! Resizing a pod in place: asking for room, and giving the pod's group and its containers what they are allocated.
use super::*;
use crate::resize::{self, Action, Allocation};

/// A resize that found no room is tried again after this long, beside when something leaves.
const DEFERRED: Duration = Duration::from_secs(180);

impl Kubelet {
    /// The pod with a spec that says what it is allocated, which is what the spec says if there is room for that.
    pub(super) fn allocate(&self, worker: &Worker, mut pod: Pod) -> Result<Pod, Error> {
        let wanted = Allocation::of(&pod);
        let known = lock(&worker.memory).allocated.clone();
        let has_started = pod.status.start_time.is_some();
        let known = known.or_else(|| has_started.then(|| Allocation::reported(&pod))).unwrap_or_else(|| wanted.clone());
        let ends = pod.deletion.is_some() || pod.is_terminal();
        let refusal = if known.is(&wanted) || ends { None } else { self.no_room(worker, &pod)? };
        let mut memory = lock(&worker.memory);
        let memory = &mut *memory;
        let Some((_, message)) = refusal.as_ref().filter(|_| !ends) else {
            memory.resize.pending = None;
            memory.resize.pending_since = None;
            if ends {
                known.apply(&mut pod);
                return Ok(pod);
            }
            if !known.is(&wanted) {
                memory.resize.progress = Some((String::new(), pod.generation));
                let said = resize::described("started", &pod, pod.generation, "");
                Recorder::of_pod(&self.client, &pod.object).normal("ResizeStarted", &said);
            }
            memory.allocated = Some(wanted);
            return Ok(pod);
        };
        let pending = Some((message.clone(), pod.generation));
        if memory.resize.pending.as_ref().is_none_or(|(_, generation)| *generation != pod.generation) {
            let said = resize::described("Deferred", &pod, pod.generation, message);
            Recorder::of_pod(&self.client, &pod.object).warning("ResizeDeferred", &said);
        }
        memory.resize.pending = pending;
        memory.resize.pending_since.get_or_insert_with(Instant::now);
        known.apply(&mut pod);
        memory.allocated = Some(known);
        Ok(pod)
    }

    /// Why a resize has to wait. Pods are looked at side by side: one that is served first may come here later.
    fn no_room(&self, worker: &Worker, pod: &Pod) -> Result<Option<admit::Refusal>, Error> {
        if let Some(refusal) = self.refusal(pod)? {
            return Ok(Some(refusal));
        }
        let mine = {
            let standing = &lock(&worker.memory).resize;
            let since = standing.pending_since.or_else(|| Some(Instant::now()));
            resize::turn(pod, &Resizing { pending_since: since, ..Resizing::default() })
        };
        let earlier: Vec<Key> = {
            let workers = lock(&self.workers);
            let each = workers.iter().filter(|(_, other)| !std::ptr::eq(&***other, worker));
            let is_earlier = |memory: &Memory| {
                let pod = memory.pod.as_ref().filter(|pod| pod.deletion.is_none() && !pod.is_terminal());
                memory.resize.pending.is_some() && pod.is_some_and(|pod| resize::turn(pod, &memory.resize) < mine)
            };
            each.filter(|(_, other)| is_earlier(&lock(&other.memory))).map(|(key, _)| key.clone()).collect()
        };
        for key in earlier {
            let Ok(object) = self.client.get(&self.pods, &key.namespace, &key.name) else { continue };
            if self.refusal(&Pod::decode(&object))?.is_none() {
                let message = format!("Node has room for the resize of {key} first");
                return Ok(Some(("Deferred".into(), message)));
            }
        }
        Ok(None)
    }

    /// Notes whether all of the pod has what it is allocated; when to ask for the rest again.
    pub(super) fn note_progress(&self, worker: &Worker, pod: &Pod, state: &PodState) -> Option<Duration> {
        let mut memory = lock(&worker.memory);
        let memory = &mut *memory;
        memory.actuated.follow(pod, state);
        if resize::in_progress(pod, state, &memory.actuated) {
            memory.resize.progress.get_or_insert((String::new(), pod.generation));
        } else if let Some((_, generation)) = memory.resize.progress.take() {
            memory.retries.forget("resize");
            let said = resize::described("completed", pod, generation, "");
            Recorder::of_pod(&self.client, &pod.object).normal("ResizeCompleted", &said);
        }
        memory.resize.pending.is_some().then_some(DEFERRED)
    }

    /// Gives the pod's group and the `names`d containers their new sizes; a restart takes care of the others.
    pub(super) async fn resize(
        &self,
        worker: &Worker,
        pod: &Pod,
        state: &PodState,
        names: &[String],
        soonest: &mut Soonest,
    ) {
        let Err(message) = self.try_resize(worker, pod, state, names).await else { return };
        let mut memory = lock(&worker.memory);
        let (said, generation) = memory.resize.progress.get_or_insert((String::new(), pod.generation));
        if *said != message {
            *said = message.clone();
            let said = resize::described("error", pod, *generation, &message);
            Recorder::of_pod(&self.client, &pod.object).warning("ResizeError", &said);
        }
        drop(memory);
        soonest.offer(Some(self.retry(worker, "resize")));
    }

    async fn try_resize(&self, worker: &Worker, pod: &Pod, state: &PodState, names: &[String]) -> Result<(), String> {
        let (cgroups, uid, qos) = (self.cgroups(), pod.uid.clone(), resources::qos_class(pod));
        let wanted = resources::of_pod(pod);
        let current = mote_api::unblock(move || cgroups.limits(&uid, qos)).await;
        let containers = names.iter().filter_map(|name| Some((pod.find(name)?.1, state.latest(name)?)));
        let containers: Vec<_> = containers.collect();
        self.check_usage(state, &wanted, &current, &containers).await?;
        // A group's limit holds for what is in it, so the pod's is raised first and lowered last.
        self.limit_pod(pod, wanted.or_more(&current)).await;
        for (container, found) in containers {
            let linux = resources::of_container(pod, container, self.machine.memory_bytes);
            let linux = resources::without_swap(linux, self.machine.swap);
            let request = v1::UpdateContainerResourcesRequest {
                container_id: found.id.clone(),
                linux: Some(linux),
                ..Default::default()
            };
            let updated = self.runtime.update_container_resources(request).await;
            updated.map_err(|e| format!("updating container {:?} resources: {}", container.name, e.message()))?;
            lock(&worker.memory).actuated.set(&found.id, container);
        }
        self.limit_pod(pod, wanted).await;
        Ok(())
    }

    async fn limit_pod(&self, pod: &Pod, limits: resources::PodCgroup) {
        let (cgroups, uid, qos) = (self.cgroups(), pod.uid.clone(), resources::qos_class(pod));
        mote_api::unblock(move || cgroups.limit(&uid, qos, &limits)).await;
    }

    /// A memory limit below what is in use would end somebody.
    async fn check_usage(
        &self,
        state: &PodState,
        wanted: &resources::PodCgroup,
        current: &resources::PodCgroup,
        containers: &[(&Container, &state::Container)],
    ) -> Result<(), String> {
        let pod_limit = wanted.memory_limit_bytes.filter(|limit| current.memory_limit_bytes.is_none_or(|c| *limit < c));
        let limits = containers.iter().map(|(container, found)| (*found, resources::memory_limit(container)));
        let limits: Vec<_> = limits.filter(|(_, limit)| *limit > 0).collect();
        if pod_limit.is_none() && limits.is_empty() {
            return Ok(());
        }
        let Some(sandbox) = state.sandboxes.first() else { return Ok(()) };
        let filter = v1::ContainerStatsFilter { pod_sandbox_id: sandbox.id.clone(), ..Default::default() };
        let request = v1::ListContainerStatsRequest { filter: Some(filter) };
        let answer = self.runtime.list_container_stats(request).await;
        let stats = answer.map_err(|_| "unable to read memory usage".to_owned())?.stats;
        let usage = stats.iter().filter_map(|s| {
            let bytes = s.memory.as_ref()?.usage_bytes.as_ref()?.value;
            Some((s.attributes.as_ref()?.id.as_str(), i64::try_from(bytes).ok()?))
        });
        let usage: HashMap<&str, i64> = usage.collect();
        let total: i64 = usage.values().sum();
        let over_pod = pod_limit
            .filter(|limit| total >= *limit)
            .map(|limit| format!("attempting to set pod memory limit ({limit}) below current usage ({total})"));
        let over = limits.iter().filter_map(|(found, limit)| {
            let used = usage.get(found.id.as_str()).filter(|used| **used >= *limit)?;
            let name = &found.name;
            Some(format!("attempting to set container {name:?} memory limit ({limit}) below current usage ({used})"))
        });
        let errors: Vec<String> = over_pod.into_iter().chain(over).collect();
        match &errors[..] {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
        }
    }
}

impl Memory {
    /// What a running container must undergo to have what it is allocated.
    pub(super) fn resizing(&self, pod: &Pod, found: &state::Container) -> Action {
        pod.find(&found.name).map_or(Action::Nothing, |(_, c)| resize::action(c, found, &self.actuated))
    }
}
