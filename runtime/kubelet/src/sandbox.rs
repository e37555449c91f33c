//! What the runtime is told to make a pod's sandbox of. Pure.
use crate::{dns, labels, pod::Pod, resources, security};
use mote_cri::v1::{
    DnsConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, UserNamespace, protocol,
};
use std::path::{Path, PathBuf};

/// DIR/NAMESPACE_NAME_UID
pub fn log_dir(root: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    root.join(format!("{namespace}_{name}_{uid}"))
}

pub struct Parts<'a> {
    pub attempt: u32,
    pub log_root: &'a Path,
    pub cgroup_parent: String,
    pub cluster_domain: &'a str,
    pub dns: DnsConfig,
    /// None: the host's users.
    pub users: Option<UserNamespace>,
}

pub fn config(pod: &Pod, parts: Parts<'_>) -> Result<PodSandboxConfig, String> {
    // On the host's network the host's name stays.
    let hostname = if pod.is_host_network() { String::new() } else { dns::kernel_name(pod, parts.cluster_domain)? };
    let sysctls = pod.spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt: parts.attempt,
        }),
        hostname,
        log_directory: log_dir(parts.log_root, &pod.namespace, &pod.name, &pod.uid).display().to_string(),
        dns_config: Some(parts.dns),
        port_mappings: port_mappings(pod),
        labels: labels::of_sandbox(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: parts.cgroup_parent,
            security_context: Some(security::of_sandbox(pod, parts.users)),
            sysctls: sysctls.map(|s| (s.name.clone(), s.value.clone())).collect(),
            resources: Some(resources::of_sandbox(pod)),
            ..Default::default()
        }),
    })
}

/// Sidecars may have ports as well as containers; other init containers end before anyone could connect.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let sidecars = pod.init_containers().iter().filter(|c| crate::pod::is_sidecar(c));
    let ports = sidecars.chain(&pod.spec.containers).flat_map(|c| c.ports.iter().flatten());
    let mapped = ports.map(|p| PortMapping {
        protocol: match p.protocol.as_deref() {
            Some("UDP") => protocol::UDP,
            Some("SCTP") => protocol::SCTP,
            _ => protocol::TCP,
        },
        container_port: p.container_port,
        host_port: p.host_port.unwrap_or(0),
        host_ip: p.host_ip.clone().unwrap_or_default(),
    });
    mapped.collect()
}
