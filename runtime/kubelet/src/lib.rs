//! The kubelet: pods of this node from spec to containers, over CRI.
//!
//! One keyed reconcile per pod (`worker`) looks at the API's pod and at what the runtime holds (`state`), decides
//! (`plan`), acts (`sandbox`, `container`, `kill`, `volumes`) and reports (`status`). `watch` tells it of container
//! changes, `node` keeps the Node object. What is decided or computed is pure; what is kept is in the runtime.
mod admit;
mod backend;
mod backoff;
mod cgroups;
mod conditions;
mod container;
mod counts;
mod dns;
mod env;
mod events;
pub mod eviction;
mod exits;
mod figures;
#[cfg(test)]
mod fixture;
mod gc;
mod health;
mod hooks;
mod host_logs;
mod http;
mod images;
mod kill;
mod labels;
mod logs;
mod node;
mod plan;
mod pod;
mod probes;
mod resize;
mod resources;
mod rotation;
mod sandbox;
mod security;
mod spec;
mod state;
mod stats;
mod status;
mod systemd;
mod userns;
mod volumes;
mod watch;
mod worker;

pub use backoff::go_duration;
use cgroups::{Cgroups, Driver};
use event_listener::Event;
use futures_lite::future;
use mote_api::{
    Change, Client,
    driver::{self, BoxFuture, Error, Key, Next, Queue, Reconciler},
    pods::PodBackend,
};
use mote_cri::{Runtime, v1};
use mote_schema::Order as _;
use mote_schema::{Kind, Object};
use state::{PodState, lock};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock},
    time::Instant,
};
use worker::Worker;

/// Where runtimes put their sockets, in the order in which they are tried.
pub const RUNTIME_SOCKETS: [&str; 2] = ["/run/crio/crio.sock", "/run/containerd/containerd.sock"];
/// Images reported in the node's status, the largest first.
const MAX_REPORTED_IMAGES: usize = 50;

#[derive(Clone, Debug)]
pub struct Config {
    pub node_name: String,
    pub node_ip: String,
    /// What `kubectl get nodes` shows: "v1.36.0".
    pub version: String,
    /// None: the first of `RUNTIME_SOCKETS` that exists, also if it appears later.
    pub runtime_endpoint: Option<PathBuf>,
    /// DIR/kubelet
    pub data_dir: PathBuf,
    /// /var/log/pods
    pub pod_log_dir: PathBuf,
    /// The tenth service address.
    pub cluster_dns: String,
    /// "cluster.local"
    pub cluster_domain: String,
    pub max_pods: u32,
    /// The board's profile, as a cloud names a kind of machine.
    pub instance_type: String,
    /// Of the kubelet itself; 0: none.
    pub port: u16,
    /// "10.42.0.0/24"
    pub pod_cidr: String,
    pub eviction: eviction::Settings,
}

pub(crate) struct Kubelet {
    client: Client,
    runtime: Arc<Runtime>,
    config: Config,
    machine: node::Machine,
    health: health::Health,
    pressure: eviction::Pressure,
    cgroups: OnceLock<Arc<Cgroups>>,
    /// Where the runtime keeps images, once it has said.
    image_dir: OnceLock<PathBuf>,
    cache: state::Cache,
    images: images::Puller,
    workers: Mutex<HashMap<Key, Arc<Worker>>>,
    queue: OnceLock<Queue>,
    pods: Arc<Kind>,
    nodes: Arc<Kind>,
    /// Something was done to the runtime: lists are worth more for a while.
    stirred: Event,
    /// A container may have changed.
    changed: Event,
    /// Logs of the containers that run, by container id.
    running_logs: Mutex<HashMap<String, PathBuf>>,
    started: Instant,
    counts: counts::Counts,
    walked: Mutex<stats::Walked>,
}

/// Starts the kubelet on the client's executor. The runtime need not be there yet.
pub async fn start(client: Client, config: Config) -> Arc<dyn PodBackend> {
    let name = format!("system:node:{}", config.node_name);
    let client = client.as_user(&name, &["system:nodes", "system:authenticated"]);
    let sockets = match &config.runtime_endpoint {
        Some(socket) => vec![socket.clone()],
        None => RUNTIME_SOCKETS.map(PathBuf::from).to_vec(),
    };
    node::protect();
    let kubelet = Arc::new(Kubelet {
        runtime: Arc::new(Runtime::new(sockets, client.executor().clone())),
        machine: mote_api::unblock(node::Machine::read).await,
        health: health::Health::default(),
        pressure: eviction::Pressure::default(),
        cgroups: OnceLock::new(),
        image_dir: OnceLock::new(),
        cache: state::Cache::default(),
        images: images::Puller::default(),
        workers: Mutex::default(),
        queue: OnceLock::new(),
        pods: client.kind_of::<k8s_openapi::api::core::v1::Pod>(),
        nodes: client.kind_of::<k8s_openapi::api::core::v1::Node>(),
        stirred: Event::new(),
        changed: Event::new(),
        running_logs: Mutex::default(),
        started: Instant::now(),
        counts: counts::Counts::default(),
        walked: Mutex::default(),
        client: client.clone(),
        config,
    });
    let queue = driver::start(&client, Arc::new(Pods(kubelet.clone())));
    let _ = kubelet.queue.set(queue);
    client.spawn(watch::watch(kubelet.clone()));
    client.spawn(node::keep(kubelet.clone()));
    client.spawn(node::keep_lease(kubelet.clone()));
    client.spawn(rotation::keep(kubelet.clone()));
    Arc::new(backend::Backend(kubelet))
}

impl Kubelet {
    fn queue(&self) -> Queue {
        self.queue.get().expect("the queue is set before anything runs").clone()
    }

    fn cgroups(&self) -> Arc<Cgroups> {
        self.cgroups.get_or_init(|| Arc::new(Cgroups::detect(Driver::Cgroupfs))).clone()
    }

    fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.data_dir.join("pods").join(uid)
    }

    /// Keys of the pods bound to this node.
    fn own_keys(&self) -> Vec<Key> {
        let pods = self.client.list(&self.pods, None).unwrap_or_default();
        pods.iter().filter(|p| self.is_own(p)).map(|p| Key::new(p.namespace(), p.name())).collect()
    }

    fn is_own(&self, pod: &Object) -> bool {
        pod.root().at("spec.nodeName").str() == self.config.node_name
    }

    async fn observe_pod(&self, key: &Key, uid: &str) -> Result<PodState, mote_cri::Error> {
        let found = state::observe(&self.runtime, &self.cache, &key.namespace, &key.name).await?;
        Ok(found.into_iter().find(|s| s.uid == uid).unwrap_or_default())
    }
}

/// The node's images as its status lists them.
async fn images_of(kubelet: &Kubelet) -> mote_schema::Value {
    let Ok(answer) = kubelet.runtime.list_images(v1::ListImagesRequest::default()).await else {
        return mote_schema::Value::Null;
    };
    let mut images = answer.images;
    images.order_by_key(|i| std::cmp::Reverse(i.size));
    let list = images.into_iter().take(MAX_REPORTED_IMAGES).map(|image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).collect();
        mote_schema::json!({"names": names, "sizeBytes": image.size})
    });
    list.collect()
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()
}

/// The reconciler of this node's pods.
struct Pods(Arc<Kubelet>);

impl Reconciler for Pods {
    fn name(&self) -> &'static str {
        "kubelet"
    }
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "pods"), ("", "v1", "configmaps"), ("", "v1", "secrets")]
    }
    fn workers(&self) -> usize {
        // A reconcile waits for pulls and for containers to stop: one pod must never hold up another.
        self.0.config.max_pods as usize * 2
    }
    fn wake(&self, change: &Change, queue: &Queue) {
        if change.kind.plural != "pods" {
            self.wake_mounting(change, queue);
            return;
        }
        if !change.old.iter().chain(&change.new).any(|p| self.0.is_own(p)) || is_report(change) {
            return;
        }
        let object = change.object();
        let key = Key::new(object.namespace(), object.name());
        self.wake_deferred(queue);
        if let Some(worker) = lock(&self.0.workers).get(&key) {
            // The downward API shows labels and annotations in files.
            lock(&worker.memory).volumes_stale |= !same_meta(change, "labels") || !same_meta(change, "annotations");
            if shortens_life(change) {
                worker.interrupt.notify(usize::MAX);
            }
        }
        queue.add(key);
    }
    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let worker = lock(&self.0.workers).entry(key.clone()).or_default().clone();
            let interrupted = worker.interrupt.listen();
            let cut = async {
                interrupted.await;
                // Its cause woke the key as well.
                Ok(Next::Done)
            };
            future::or(self.0.sync(key, &worker), cut).await
        })
    }
}

impl Pods {
    /// Another pod has come, gone, ended or been resized: there may be room for a resize that found none.
    fn wake_deferred(&self, queue: &Queue) {
        let mut waiting: Vec<_> = {
            let workers = lock(&self.0.workers);
            let each = workers.iter().filter_map(|(key, worker)| {
                let memory = lock(&worker.memory);
                memory.resize.pending.as_ref()?;
                Some((resize::turn(memory.pod.as_ref()?, &memory.resize), key.clone()))
            });
            each.collect()
        };
        waiting.order_by_key(|(turn, _)| *turn);
        waiting.into_iter().for_each(|(_, key)| queue.add(key));
    }

    /// A ConfigMap or Secret changed: pods that mount it get their files renewed.
    fn wake_mounting(&self, change: &Change, queue: &Queue) {
        for (key, worker) in lock(&self.0.workers).iter() {
            let mut memory = lock(&worker.memory);
            if *key.namespace == *change.object().namespace()
                && memory.pod.as_ref().is_some_and(|pod| volumes::concerns(pod, change))
            {
                memory.volumes_stale = true;
                queue.add(key.clone());
            }
        }
    }
}

/// The pod has to go, or to go sooner.
fn shortens_life(change: &Change) -> bool {
    let grace = |o: &Object| o.meta().get("deletionGracePeriodSeconds").as_i64();
    match (&change.old, &change.new) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(old), Some(new)) => {
            new.is_deleting() && (!old.is_deleting() || grace(new) < grace(old)) || old.uid() != new.uid()
        }
    }
}

fn same_meta(change: &Change, name: &str) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    old.meta().get(name).to_value() == new.meta().get(name).to_value()
}

/// Only what the kubelet itself reports has changed: its own writes must not wake it.
fn is_report(change: &Change) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return false };
    let generation = |o: &Object| o.meta().get("generation").as_i64();
    // A binding changes the node and not the generation.
    let node = |o: &Object| o.root().at("spec.nodeName").str().to_owned();
    let same_spec = generation(new).is_some() && generation(new) == generation(old) && node(new) == node(old);
    let same = |name| same_meta(change, name);
    if !same_spec || old.uid() != new.uid() || old.is_deleting() != new.is_deleting() {
        return false;
    }
    let gates = new.root().at("spec.readinessGates").items().next().is_some();
    let phase = |o: &Object| o.root().at("status.phase").str().to_owned();
    !gates && same("labels") && same("annotations") && same("deletionGracePeriodSeconds") && phase(old) == phase(new)
}
