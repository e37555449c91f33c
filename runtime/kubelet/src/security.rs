//! Security contexts: the pod's and the container's merged, as the runtime wants them. Pure. Upstream:
//! pkg/securitycontext/util.go and pkg/kubelet/kuberuntime/security_context*.go.
use crate::pod::Pod;
use crate::spec::{Container, SeccompProfile, SecurityContext};
use mote_cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceOption,
    SecurityProfile, UserNamespace, namespace_mode, profile_type,
};
use std::path::Path;

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user the image names: a number, a name, or neither (root).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

fn namespaces(pod: &Pod, users: Option<UserNamespace>) -> NamespaceOption {
    let node = |yes: Option<bool>, other| if yes == Some(true) { namespace_mode::NODE } else { other };
    let shared =
        if pod.spec.share_process_namespace == Some(true) { namespace_mode::POD } else { namespace_mode::CONTAINER };
    NamespaceOption {
        network: node(pod.spec.host_network, namespace_mode::POD),
        pid: node(pod.spec.host_pid, shared),
        ipc: node(pod.spec.host_ipc, namespace_mode::POD),
        userns_options: users,
        ..Default::default()
    }
}

pub fn of_sandbox(pod: &Pod, users: Option<UserNamespace>) -> LinuxSandboxSecurityContext {
    let own = pod.spec.security_context.clone().unwrap_or_default();
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, users)),
        run_as_user: own.run_as_user.map(|value| Int64Value { value }),
        run_as_group: own.run_as_group.map(|value| Int64Value { value }),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged: pod.containers().any(|(_, c)| own_context(c).privileged == Some(true)),
        seccomp: Some(SecurityProfile { profile_type: profile_type::RUNTIME_DEFAULT, localhost_ref: String::new() }),
        ..Default::default()
    }
}

fn own_context(container: &Container) -> SecurityContext {
    container.security_context.clone().unwrap_or_default()
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(own) = &pod.spec.security_context else { return Vec::new() };
    own.fs_group.iter().chain(own.supplemental_groups.iter().flatten()).copied().collect()
}

fn groups_policy(pod: &Pod) -> i32 {
    let policy = pod.spec.security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref());
    i32::from(policy == Some("Strict"))
}

/// `seccomp_dir` holds Localhost profiles. `target` is the container whose processes an ephemeral one sees.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    user: &ImageUser,
    seccomp_dir: &Path,
    target: Option<&str>,
    users: Option<UserNamespace>,
) -> LinuxContainerSecurityContext {
    let own = own_context(container);
    let shared = pod.spec.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(shared.run_as_user);
    let mut namespaces = namespaces(pod, users);
    if let Some(id) = target.filter(|_| namespaces.pid == namespace_mode::CONTAINER) {
        namespaces.pid = namespace_mode::TARGET;
        namespaces.target_id = id.to_owned();
    }
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let privileged = own.privileged == Some(true);
    LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: run_as_user.or(user.uid).map(|value| Int64Value { value }),
        run_as_username: if run_as_user.is_none() && user.uid.is_none() { user.name.clone() } else { String::new() },
        run_as_group: own.run_as_group.or(shared.run_as_group).map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref()), seccomp_dir)),
        apparmor: own.app_armor_profile.as_ref().or(shared.app_armor_profile.as_ref()).map(apparmor),
    }
}

fn seccomp(profile: Option<&SeccompProfile>, dir: &Path) -> SecurityProfile {
    let (profile_type, localhost_ref) = match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        Some(("RuntimeDefault", _)) => (profile_type::RUNTIME_DEFAULT, String::new()),
        Some(("Localhost", Some(name))) => (profile_type::LOCALHOST, dir.join(name).display().to_string()),
        _ => (profile_type::UNCONFINED, String::new()),
    };
    SecurityProfile { profile_type, localhost_ref }
}

/// Without one the runtime does as it likes.
fn apparmor(profile: &SeccompProfile) -> SecurityProfile {
    let (profile_type, localhost_ref) = match profile.type_.as_str() {
        "RuntimeDefault" => (profile_type::RUNTIME_DEFAULT, String::new()),
        "Localhost" => (profile_type::LOCALHOST, profile.localhost_profile.clone().unwrap_or_default()),
        _ => (profile_type::UNCONFINED, String::new()),
    };
    SecurityProfile { profile_type, localhost_ref }
}

/// Whether the pod relies on AppArmor (pkg/security/apparmor).
pub fn needs_apparmor(pod: &Pod) -> bool {
    let shared = pod.spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let own = |container: &Container| own_context(container).app_armor_profile;
    let mut all = pod.containers().filter_map(|(_, container)| own(container)).chain(shared.cloned());
    all.any(|profile| profile.type_ != "Unconfined")
}

/// The error is the message of CreateContainerConfigError.
pub fn verify_non_root(pod: &Pod, container: &Container, user: &ImageUser) -> Result<(), String> {
    let own = own_context(container);
    let shared = pod.spec.security_context.clone().unwrap_or_default();
    if own.run_as_non_root.or(shared.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: \"{}\", container: {})", pod.described(), container.name);
    match (own.run_as_user.or(shared.run_as_user), user.uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, Some(_)) => Ok(()),
        (None, None) if !user.name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            user.name
        )),
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pod;
    use mote_schema::{Value, json};

    #[test]
    fn non_root() {
        let check = |shared: Value, own: Value, user: (Option<i64>, &str), want: &str| {
            let p = pod(json!({"securityContext": shared,
                "containers": [{"name": "c", "image": "x", "securityContext": own}]}));
            let user = ImageUser { uid: user.0, name: user.1.into() };
            let got = verify_non_root(&p, &p.spec.containers[0], &user).err().unwrap_or_default();
            assert!(got.starts_with(want) && got.is_empty() == want.is_empty(), "{got} / {want}");
        };
        let non_root = || json!({"runAsNonRoot": true});
        check(json!({}), json!({}), (Some(0), ""), "");
        check(
            non_root(),
            json!({}),
            (Some(0), ""),
            "container has runAsNonRoot and image will run as root (pod: \"p_ns(uid-1)\", container: c)",
        );
        check(non_root(), json!({"runAsNonRoot": false}), (Some(0), ""), "");
        check(non_root(), json!({"runAsUser": 0}), (Some(1), ""), "container's runAsUser breaks non-root policy");
        check(non_root(), json!({"runAsUser": 7}), (Some(0), ""), "");
        check(json!({}), non_root(), (None, "www"), "container has runAsNonRoot and image has non-numeric user (www)");
        check(json!({}), non_root(), (Some(5), ""), "");
    }

    #[test]
    fn merged() {
        let p = pod(
            json!({"securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4],
                "seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}}, "hostPID": true,
            "containers": [{"name": "c", "image": "x", "securityContext": {"runAsUser": 9, "procMount": "Unmasked",
                "allowPrivilegeEscalation": false, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]}),
        );
        let got = of_container(&p, &p.spec.containers[0], &ImageUser::default(), Path::new("/s"), None, None);
        assert_eq!(got.run_as_user.map(|v| v.value), Some(9));
        assert_eq!(got.run_as_group.map(|v| v.value), Some(2));
        assert_eq!(got.supplemental_groups, [3, 4]);
        assert!(got.no_new_privs && got.masked_paths.is_empty() && got.readonly_paths.is_empty());
        assert_eq!(
            got.namespace_options.map(|n| (n.network, n.pid)),
            Some((namespace_mode::POD, namespace_mode::NODE))
        );
        assert_eq!(got.seccomp.map(|s| s.profile_type), Some(profile_type::RUNTIME_DEFAULT));
        assert_eq!(
            got.apparmor.map(|s| (s.profile_type, s.localhost_ref)),
            Some((profile_type::LOCALHOST, "x".into()))
        );
        assert!(needs_apparmor(&p));
    }
}
