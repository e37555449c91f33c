//! User namespaces: a pod with `hostUsers: false` has 65,536 users and groups of its own, none of them the host's. Which
//! ones is kept in the pod's directory, DIR/kubelet/pods/UID/userns, as long as that is there (pkg/kubelet/userns).
use crate::{Kubelet, pod::Pod, state::lock};
use mote_cri::v1::{IdMapping, UserNamespace, namespace_mode};
use std::{collections::BTreeSet, fs, io, io::Write as _, path::Path, sync::Mutex};

const FILE: &str = "userns";
/// Of a pod (DefaultKubeletUserNamespacesIDsPerPod); the first so many are the host's.
const IDS: u32 = 65_536;

/// One pod at a time chooses.
static CHOOSES: Mutex<()> = Mutex::new(());

/// None: the pod has the host's.
pub async fn of(kubelet: &Kubelet, pod: &Pod, handler: &str) -> Result<Option<UserNamespace>, String> {
    if pod.spec.host_users != Some(false) {
        return Ok(None);
    }
    if !kubelet.health.has_user_namespaces(handler) {
        let what = match handler {
            "" => "runtime".to_owned(),
            handler => format!("RuntimeClass handler {handler:?}"),
        };
        return Err(format!("can't set `spec.hostUsers: false`, {what} does not support user namespaces"));
    }
    let (dir, max_pods) = (kubelet.pod_dir(&pod.uid), kubelet.config.max_pods);
    let first = mote_api::unblock(move || first_id(&dir, max_pods)).await;
    let first = first.map_err(|error| format!("create user namespace: {error}"))?;
    let mapping = vec![IdMapping { host_id: first, container_id: 0, length: IDS }];
    Ok(Some(UserNamespace { mode: namespace_mode::POD, uids: mapping.clone(), gids: mapping }))
}

fn known(pod_dir: &Path) -> Option<u32> {
    let first: u32 = fs::read_to_string(pod_dir.join(FILE)).ok()?.trim().parse().ok()?;
    (first >= IDS && first.is_multiple_of(IDS)).then_some(first)
}

/// Written before it is used: after a power cut nobody else gets the same.
fn first_id(pod_dir: &Path, max_pods: u32) -> io::Result<u32> {
    let _alone = lock(&CHOOSES);
    if let Some(first) = known(pod_dir) {
        return Ok(first);
    }
    fs::create_dir_all(pod_dir)?;
    let others = pod_dir.parent().map(fs::read_dir).transpose()?;
    let taken: BTreeSet<u32> = others.into_iter().flatten().flatten().filter_map(|dir| known(&dir.path())).collect();
    let free = (1..=max_pods).filter_map(|at| at.checked_mul(IDS)).find(|first| !taken.contains(first));
    let first = free.ok_or_else(|| io::Error::other("could not find an empty slot to allocate a user namespace"))?;
    let draft = pod_dir.join("userns.new");
    let mut file = fs::File::create(&draft)?;
    file.write_all(first.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, pod_dir.join(FILE))?;
    fs::File::open(pod_dir)?.sync_all()?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::tests::Temp;

    #[test]
    fn no_two_pods_have_the_same_ids() {
        let temp = Temp::new();
        let first = |pod: &str| first_id(&temp.0.join(pod), 2).ok();
        assert_eq!([first("a"), first("b"), first("a")], [Some(IDS), Some(2 * IDS), Some(IDS)]);
        assert_eq!(first("c"), None);
        fs::remove_dir_all(temp.0.join("a")).unwrap();
        assert_eq!(first("c"), Some(IDS));
    }
}
