//! Labels and annotations on sandboxes and containers: how everything is found again after a restart. The names are
//! upstream's (pkg/kubelet/kuberuntime/labels.go, pkg/kubelet/types/labels.go), so that `crictl` and log collectors
//! understand them.
use crate::pod::Pod;
use crate::spec::Container;
use mote_cri::v1::Map;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";

pub fn of_sandbox(pod: &Pod) -> Map {
    let mut labels: Map = pod.labels.clone();
    labels.extend(identity(pod));
    labels
}

pub fn sandbox_annotations(pod: &Pod) -> Map {
    let mut annotations: Map = pod.annotations.clone();
    annotations.insert(CONFIG_SEEN.into(), jiff::Timestamp::now().to_string());
    annotations.insert(CONFIG_SOURCE.into(), "api".into());
    annotations
}

pub fn of_container(pod: &Pod, container: &Container) -> Map {
    let mut labels: Map = identity(pod).into();
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

pub fn container_annotations(pod: &Pod, container: &Container, restart_count: i32) -> Map {
    let text = |value: &Option<String>, default: &str| value.as_deref().unwrap_or(default).to_owned();
    let mut annotations = Map::from([
        (HASH.to_owned(), format!("{:x}", hash(container))),
        (RESTART_COUNT.to_owned(), restart_count.to_string()),
        (TERMINATION_PATH.to_owned(), text(&container.termination_message_path, "/dev/termination-log")),
        (TERMINATION_POLICY.to_owned(), text(&container.termination_message_policy, "File")),
    ]);
    if let Some(grace) = pod.spec.termination_grace_period_seconds {
        annotations.insert(POD_GRACE.into(), grace.to_string());
    }
    annotations
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.into(), pod.name.clone()),
        (POD_NAMESPACE.into(), pod.namespace.clone()),
        (POD_UID.into(), pod.uid.clone()),
    ]
}

/// Changes with the fields that may be edited on a live pod and need a restart: the image. FNV-1a over the same
/// JSON as upstream, so that a container outlives a change of kubelet.
pub fn hash(container: &Container) -> u32 {
    let picked = mote_schema::json!({"image": container.image.as_deref().unwrap_or(""), "name": container.name});
    fnv(picked.to_string().as_bytes())
}

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv1a() {
        for (text, want) in [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv(text.as_bytes()), want);
        }
    }
}
