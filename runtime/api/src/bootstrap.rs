//! What a cluster has before anybody asks: namespaces, the service network, the `kubernetes` Service and its endpoints,
//! the two system priority classes, the bootstrap roles. Written once; a start that finds them writes nothing.
use crate::{Client, DeleteOptions, Sub, rbac};
use mote_schema::Status;
use mote_schema::{Value, json};

const NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "default"];

/// scheduling.SystemPriorityClasses
const PRIORITY_CLASSES: &[(&str, i64, &str)] = &[
    ("system-node-critical", 2_000_001_000, "For pods that a node cannot do without; not for use outside kube-system."),
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods that the cluster cannot do without; they may move to another node.",
    ),
];

pub async fn ensure(client: &Client) -> Result<(), Status> {
    for name in NAMESPACES {
        let namespace = json!({"metadata": {"name": name}});
        create_missing(client, ("", "v1", "namespaces"), "", name, namespace).await?;
    }
    for (name, value, description) in PRIORITY_CLASSES {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        create_missing(client, ("scheduling.k8s.io", "v1", "priorityclasses"), "", name, class).await?;
    }
    rbac::ensure_policy(client).await?;
    service_cidr(client).await?;
    token_tracking(client).await?;
    kubernetes_service(client).await?;
    dns_service(client).await
}

/// The service network as people see it; addresses come from the configuration (controlplane/controller/defaultservicecidr).
async fn service_cidr(client: &Client) -> Result<(), Status> {
    let (base, prefix) = client.api().settings.service_cidr;
    let cidr = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": [format!("{base}/{prefix}")]}});
    create_missing(client, ("networking.k8s.io", "v1", "servicecidrs"), "", "kubernetes", cidr).await?;
    let Some(kind) = client.kind("networking.k8s.io", "v1", "servicecidrs") else { return Ok(()) };
    let stored = client.get(&kind, "", "kubernetes")?;
    if !stored.root().at("status.conditions").is_empty() {
        return Ok(());
    }
    let mut ready = stored.to_value();
    ready["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": crate::clock::timestamp()}]});
    client.update_value(&kind, Sub::Status, ready).await.map(drop)
}

/// Since when use of token Secrets is noted; kube-controller-manager's cleaner reckons from it
/// (controlplane/controller/legacytokentracking).
async fn token_tracking(client: &Client) -> Result<(), Status> {
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    let today = crate::auth::secret_token::today();
    let map = json!({"metadata": {"name": name, "namespace": "kube-system"}, "data": {"since": today}});
    create_missing(client, ("", "v1", "configmaps"), "kube-system", name, map).await
}

fn service_address(client: &Client, offset: u32) -> String {
    let (base, _) = client.api().settings.service_cidr;
    std::net::Ipv4Addr::from(u32::from(base).wrapping_add(offset)).to_string()
}

/// The name under which people and tools look for the cluster's DNS, and what keeps its address from others. The
/// server itself is part of this process and listens on that very address, which is therefore also the endpoint: a
/// proxy of somebody else's would refuse a Service without one. Where DNS is somebody else's, so is the Service.
async fn dns_service(client: &Client) -> Result<(), Status> {
    let Some(slices) = client.kind("discovery.k8s.io", "v1", "endpointslices") else { return Ok(()) };
    let (namespace, service, slice) = ("kube-system", "kube-dns", "kube-dns");
    if !client.api().settings.serves_dns {
        return match client.delete(&slices, namespace, slice, DeleteOptions::default()).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(()),
        };
    }
    let address = service_address(client, 10);
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]);
    let object = json!({
        "metadata": {"name": service, "namespace": namespace,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "DNS"}},
        "spec": {"type": "ClusterIP", "clusterIP": address, "ports": ports},
    });
    create_missing(client, ("", "v1", "services"), namespace, service, object).await?;
    let object = json!({
        "metadata": {"name": slice, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": ports,
    });
    create_missing(client, ("discovery.k8s.io", "v1", "endpointslices"), namespace, slice, object).await
}

async fn create_missing(
    client: &Client,
    (group, version, plural): (&str, &str, &str),
    namespace: &str,
    name: &str,
    object: Value,
) -> Result<(), Status> {
    let Some(kind) = client.kind(group, version, plural) else { return Ok(()) };
    if client.get(&kind, namespace, name).is_ok() {
        return Ok(());
    }
    match client.create_value(&kind, namespace, object).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

/// Pods find the API server under the first address of the service network (controlplane/controller/kubernetesservice).
async fn kubernetes_service(client: &Client) -> Result<(), Status> {
    let settings = &client.api().settings;
    let first = service_address(client, 1);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"type": "ClusterIP", "clusterIP": first, "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": settings.port}]},
    });
    create_missing(client, ("", "v1", "services"), "default", "kubernetes", service).await?;
    if settings.advertise_address.is_loopback() {
        // Upstream's validation refuses it in Endpoints, and no pod could reach it.
        tracing::warn!("no address but the loopback: pods cannot reach the API server through its Service");
        return Ok(());
    }
    let address = settings.advertise_address.to_string();
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}],
            "ports": [{"name": "https", "port": settings.port, "protocol": "TCP"}]}],
    });
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": settings.port, "protocol": "TCP"}],
    });
    keep(client, ("", "v1", "endpoints"), endpoints, "subsets").await?;
    keep(client, ("discovery.k8s.io", "v1", "endpointslices"), slice, "endpoints").await
}

/// Created, or rewritten when the board's address changed.
async fn keep(
    client: &Client,
    (group, version, plural): (&str, &str, &str),
    wanted: Value,
    field: &str,
) -> Result<(), Status> {
    let Some(kind) = client.kind(group, version, plural) else { return Ok(()) };
    match client.get(&kind, "default", "kubernetes") {
        Err(_) => create_missing(client, (group, version, plural), "default", "kubernetes", wanted).await,
        Ok(found) => {
            let mut new = found.to_value();
            if new[field] == wanted[field] && new.get("ports") == wanted.get("ports") {
                return Ok(());
            }
            for part in [field, "ports"] {
                if let Some(value) = wanted.get(part) {
                    new[part] = value.clone();
                }
            }
            client.update_value(&kind, Sub::Main, new).await.map(drop)
        }
    }
}
