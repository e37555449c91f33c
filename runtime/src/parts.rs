//! The parts beside the API server, as `components.disabled` leaves them: scheduler, controllers, kubelet, network and two parts of that.
use crate::{
    config::{Cidr, Component, Config},
    election, machine, node,
};
use mote_api::{Client, Gate, Running, health::Scope};
use mote_boards::Profile;
use std::{
    hash::{BuildHasher as _, RandomState},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

const POD_LOG_DIR: &str = "/var/log/pods";
const CNI_CONFIG_DIR: &str = "/etc/cni/net.d";
/// Where CRI-O and containerd look for plugins unless told otherwise.
const CNI_PLUGIN_DIR: &str = "/opt/cni/bin";
/// Where Debian's containerd is told to look.
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// This node: its configuration and what was found out about it.
pub struct Place {
    pub config: Config,
    pub node_name: String,
    pub node_ip: Ipv4Addr,
    /// This node's share of the cluster network.
    pub pod_network: Cidr,
    pub board: &'static Profile,
    pub data_dir: PathBuf,
}

impl Place {
    pub fn new(config: Config, board: &'static Profile, data_dir: PathBuf) -> Place {
        let cluster = config.cluster_network;
        let pod_network = Cidr::new(cluster.address, cluster.prefix.max(24));
        // With no network but the loopback, the node is known by the address that its pods can reach it at.
        let node_ip = machine::node_ip(&config).unwrap_or_else(|| pod_network.nth(1));
        let node_name = machine::node_name(&config);
        Place { node_name, node_ip, pod_network, board, data_dir, config }
    }

    /// The pods' gateway: the host, as pods see it.
    pub fn gateway(&self) -> Ipv4Addr {
        self.pod_network.nth(1)
    }
}

pub struct Parts {
    network: Option<mote_network::Handle>,
}

impl Parts {
    pub fn stop(&self) {
        if let Some(network) = &self.network {
            network.stop();
        }
    }
}

pub async fn start(running: &Running, place: &Place) -> Parts {
    let client = running.client();
    if place.runs(Component::Controllers) {
        let local_node = if place.runs(Component::Kubelet) { place.node_name.clone() } else { String::new() };
        let certificates = Some(running.certificates.clone());
        let config = mote_controllers::Config { certificates, local_node, ..Default::default() };
        once(&client, place, "kube-controller-manager", move |client| mote_controllers::start_all(client, &config));
    }
    if place.runs(Component::Scheduler) {
        once(&client, place, "kube-scheduler", mote_scheduler::start);
    }
    let mut components = Vec::new();
    components.extend(place.runs(Component::Controllers).then_some("controller-manager"));
    components.extend(place.runs(Component::Scheduler).then_some("scheduler"));
    running.api.set_components(components);
    let mut network = None;
    if place.runs(Component::Network) {
        match mote_network::start(client.clone(), network_config(place)).await {
            Ok(handle) => {
                network = Some(handle);
                install_plugin(place);
            }
            Err(error) => {
                tracing::error!(%error, "the network does not start");
                let error = error.to_string();
                running.health.register("network", Scope::Ready, move || Err(error.clone()));
            }
        }
    }
    if place.runs(Component::Kubelet) {
        let port = place.config.kubelet_port;
        let backend = mote_kubelet::start(client, kubelet_config(place)).await;
        // The node serves without it: the API server needs no port to ask its own kubelet.
        if let Err(error) = running.set_kubelet(backend, port) {
            tracing::warn!(%error, port, "the kubelet's own port stays closed");
        }
    }
    Parts { network }
}

/// Starts what must run once in a cluster: at once on a node of its own, else when this one leads.
fn once(client: &Client, place: &Place, name: &'static str, start: impl FnOnce(&Client) + Send + 'static) {
    if !client.is_shared() {
        return start(client);
    }
    let gate = Arc::new(Gate::default());
    // As upstream's: the host's name, and something that no other process of it has.
    let identity = format!("{}_{:016x}", place.node_name, RandomState::new().hash_one(name));
    client.spawn(election::run(client.clone(), name, identity, gate.clone()));
    let client = client.behind(gate.clone());
    client.clone().spawn(async move {
        gate.opened().await;
        start(&client);
    });
}

fn network_config(place: &Place) -> mote_network::Config {
    let service = place.config.service_network;
    mote_network::Config {
        node_name: place.node_name.clone(),
        node_ip: place.node_ip,
        cluster_cidr: place.config.cluster_network.into(),
        pod_cidr: place.pod_network.into(),
        service_cidr: service.into(),
        dns_domain: node::CLUSTER_DOMAIN.to_owned(),
        dns_ip: service.nth(10),
        dns: place.runs(Component::Dns),
        proxy: place.runs(Component::Proxy),
        resolv_conf: PathBuf::from("/etc/resolv.conf"),
        mtu: 0,
        dns_cache_limit_bytes: place.board.limits.dns_cache_kb as usize * 1024,
    }
}

fn kubelet_config(place: &Place) -> mote_kubelet::Config {
    let endpoint = &place.config.runtime_endpoint;
    mote_kubelet::Config {
        node_name: place.node_name.clone(),
        node_ip: place.node_ip.to_string(),
        version: mote_api::KUBERNETES_VERSION.to_owned(),
        runtime_endpoint: (!endpoint.is_empty()).then(|| endpoint.trim_start_matches("unix://").into()),
        data_dir: place.data_dir.join("kubelet"),
        pod_log_dir: POD_LOG_DIR.into(),
        cluster_dns: place.config.service_network.nth(10).to_string(),
        cluster_domain: node::CLUSTER_DOMAIN.to_owned(),
        max_pods: place.board.limits.pods as u32,
        instance_type: place.board.name.to_owned(),
        pod_cidr: place.pod_network.to_string(),
        port: place.config.kubelet_port,
        eviction: place.config.eviction.clone(),
    }
}

/// A link to this very program, and the configuration that names it. A system that is read-only there can have both
/// installed beforehand, so failing is no reason to stop.
fn install_plugin(place: &Place) {
    let network = network_config(place).pod_network();
    // On tmpfs: pods' addresses end with the boot that the pods end with.
    let data_dir = Path::new(mote_cni::config::DEFAULT_DATA_DIR);
    let installed = std::env::current_exe().map_err(|error| error.to_string()).and_then(|program| {
        for plugin_dir in plugin_dirs(&std::fs::read_to_string(CONTAINERD_CONFIG).unwrap_or_default()) {
            mote_cni::install(&plugin_dir, Path::new(CNI_CONFIG_DIR), &program, &network, data_dir)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    });
    if let Err(error) = installed {
        tracing::warn!(error, "installing the CNI plugin");
    }
}

/// Takes the host's network apart again: links, rules, plugin and reservations. Pods that still run lose their network.
/// Does all it can and tells what it could not.
pub fn clean() -> ExitCode {
    let mut errors = Vec::new();
    errors.extend(mote_network::remove_all().err().map(|error| error.to_string()));
    for plugin_dir in plugin_dirs(&std::fs::read_to_string(CONTAINERD_CONFIG).unwrap_or_default()) {
        let removed = mote_cni::uninstall(&plugin_dir, Path::new(CNI_CONFIG_DIR));
        errors.extend(removed.err().map(|error| error.to_string()));
    }
    match std::fs::remove_dir_all(mote_cni::config::DEFAULT_DATA_DIR) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => errors.push(error.to_string()),
        _ => {}
    }
    for error in &errors {
        eprintln!("mote clean: {error}");
    }
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The usual place, and the one containerd is told to look at.
fn plugin_dirs(containerd_config: &str) -> Vec<PathBuf> {
    let told = containerd_config.lines().filter_map(|line| {
        let value = line.trim().strip_prefix("bin_dir")?.trim_start().strip_prefix('=')?;
        value.trim().strip_prefix('"')?.split('"').next()
    });
    let mut dirs: Vec<PathBuf> = [CNI_PLUGIN_DIR].into_iter().chain(told).map(PathBuf::from).collect();
    dirs.dedup();
    dirs
}

impl From<Cidr> for mote_cni::Cidr {
    fn from(cidr: Cidr) -> mote_cni::Cidr {
        mote_cni::Cidr::new(cidr.address.into(), cidr.prefix).unwrap_or(mote_cni::Cidr::host(cidr.address.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_goes_where_the_runtime_looks() {
        #[track_caller]
        fn check(config: &str, expected: &[&str]) {
            assert_eq!(plugin_dirs(config), expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
        check("", &["/opt/cni/bin"]);
        check("[x.cni]\n  bin_dir = \"/usr/lib/cni\" # Debian\n", &["/opt/cni/bin", "/usr/lib/cni"]);
        check("bin_dir=\"/opt/cni/bin\"\n", &["/opt/cni/bin"]);
    }
}
