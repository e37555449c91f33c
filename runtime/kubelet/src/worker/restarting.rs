//! RestartAllContainers: when a container ends with an exit code for which its rules say so, all of the pod's are removed
//! from its sandbox, and the pod begins again with its init containers (KEP 5532).
use super::*;
use crate::pod::{ALL, rule};

/// Whether the pod has to begin again: it was told that it does, or a container ended that way just now.
pub fn is_due(pod: &Pod, state: &PodState) -> bool {
    let told =
        pod.status.conditions.iter().flatten().any(|c| c.type_ == "AllContainersRestarting" && c.status == "True");
    let reported = pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses).flatten();
    let reported: Vec<&ContainerStatus> = reported.into_iter().collect();
    let ended = |container: &Container| {
        let found = state.latest(&container.name).filter(|found| found.state == State::Exited);
        let said = reported.iter().find(|status| status.name == container.name);
        let said = said.and_then(|status| status.state.as_ref()?.terminated.as_ref());
        found
            .map(|found| found.exit_code)
            .into_iter()
            .chain(said.map(|said| said.exit_code))
            .any(|code| rule(container, code) == Some(ALL))
    };
    pod.may_restart_all() && (told || pod.own_containers().any(|(_, container)| ended(container)))
}

/// Nothing of the pod is left in the runtime.
pub fn is_cleared(pod: &Pod, state: &PodState) -> bool {
    pod.own_containers().all(|(_, container)| state.latest(&container.name).is_none())
}

impl Kubelet {
    /// Ends and removes every container; those that asked for it last, so that it is not forgotten half-way. Their logs stay.
    pub(super) async fn reset(&self, key: &Key, pod: &Pod, state: &PodState) -> Result<(), Error> {
        let asked = |found: &&state::Container, container: &Container| {
            found.state == State::Exited && rule(container, found.exit_code) == Some(ALL)
        };
        let all = || state.containers.iter().filter_map(|found| Some((found, pod.find(&found.name)?)));
        let ip = state.ips().first().map_or("", String::as_str);
        for last in [false, true] {
            for first in [Role::Main, Role::Init] {
                for (found, (role, container)) in all() {
                    if role != first || asked(&found, container) != last {
                        continue;
                    }
                    if found.state != State::Exited {
                        let target = kill::Target { id: &found.id, role, container, reason: plan::KillReason::Other };
                        kill::container(self, pod, &target, "", Some(Instant::now()), ip).await;
                    }
                    gc::remove_container(self, key, &found.name, &found.id, "").await.map_err(cri)?;
                }
            }
        }
        Ok(())
    }
}
