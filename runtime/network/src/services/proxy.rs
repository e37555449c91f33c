//! Watching and committing. Every change only notes the Service it concerns; one key in the queue then plans all
//! noted Services and commits one transaction, so changes that arrive together cost one.
//!
//! At start the whole table is replaced in one transaction: what an earlier process left goes, and established
//! connections, which live in connection tracking, stay. When a transaction fails, the next one is the whole again.
use super::model::{Place, Service, read_endpoints, tidy};
use super::plan::{Plan, UdpFront, plan};
use super::rules::{TABLE, affinity_set};
use super::table::Table;
use crate::Config;
use crate::slices::Slices;
use mote_api::driver::{BoxFuture, Error, Key, Next, Queue, Reconciler};
use mote_api::{Change, Client, Kind, Object};
use mote_cni::netlink::conntrack::Flow;
use mote_cni::netlink::nft::{Batch, FAMILY_IPV4};
use mote_cni::netlink::{self, Protocol, Socket};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

const UDP: u8 = 17;
/// Flows forgotten in one go; UDP flows that nobody uses end by themselves within minutes.
const FLOWS_LIMIT: usize = 65536;

pub struct Proxy {
    client: Client,
    services: Arc<Kind>,
    endpoint_slices: Arc<Kind>,
    nodes: Arc<Kind>,
    slices: Arc<Slices>,
    node_name: String,
    node_ip: IpAddr,
    own_dns_ip: Option<IpAddr>,
    noted: Mutex<BTreeSet<Key>>,
    table: Mutex<Table>,
    stopped: AtomicBool,
    synced: AtomicBool,
}

fn zone(node: &Object) -> &str {
    node.meta().get("labels").get("topology.kubernetes.io/zone").str()
}

/// The one key of the queue.
pub fn everything() -> Key {
    Key::new("", "services")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Proxy {
    pub fn new(client: Client, config: &Config, slices: Arc<Slices>) -> Result<Proxy, crate::Error> {
        let kind = |group: &str, version: &str, plural: &'static str| {
            client.kind(group, version, plural).ok_or(crate::Error::NoSuchKind(plural))
        };
        Ok(Proxy {
            services: kind("", "v1", "services")?,
            endpoint_slices: kind("discovery.k8s.io", "v1", "endpointslices")?,
            nodes: kind("", "v1", "nodes")?,
            client,
            slices,
            node_name: config.node_name.clone(),
            node_ip: config.node_ip.into(),
            own_dns_ip: config.own_dns_ip().map(IpAddr::from),
            noted: Mutex::default(),
            table: Mutex::new(Table::new(config.rules())),
            // It then only follows the slices, for the DNS server.
            stopped: AtomicBool::new(!config.proxy),
            synced: AtomicBool::new(false),
        })
    }

    /// Changes nothing any more from now on.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The table is in place, whole, as of some moment.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }

    /// All Services, when this node is in another zone than before.
    fn moved(&self, change: &Change) -> Vec<Key> {
        if change.object().name() != self.node_name
            || change.old.as_ref().map_or("", zone) == change.new.as_ref().map_or("", zone)
        {
            return Vec::new();
        }
        let services = self.client.list(&self.services, None).unwrap_or_default();
        services.iter().map(|service| Key::new(service.namespace(), service.name())).collect()
    }

    /// None when the Service is gone or not the proxy's.
    fn plan(&self, table: &Table, key: &Key) -> Result<Option<Plan>, Error> {
        let object = match self.client.get(&self.services, &key.namespace, &key.name) {
            Ok(object) => object,
            Err(status) if status.code == 404 => return Ok(None),
            Err(status) => return Err(status.into()),
        };
        let Some(service) = Service::read(&object) else { return Ok(None) };
        // Cluster DNS answers at that address itself; a Service may stand there so that tools find it.
        if self.own_dns_ip == Some(service.cluster_ip.into()) {
            return Ok(None);
        }
        let mut slices = Vec::new();
        for name in self.slices.of(key) {
            match self.client.get(&self.endpoint_slices, &key.namespace, &name) {
                Ok(slice) => slices.push(slice),
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status.into()),
            }
        }
        let node = self.client.get(&self.nodes, "", &self.node_name).ok();
        let here = Place { node: &self.node_name, zone: node.as_ref().map_or("", zone) };
        let endpoints = |port: &super::model::Port| {
            let mut endpoints = Vec::new();
            for slice in &slices {
                read_endpoints(slice, port, &here, &mut endpoints);
            }
            tidy(endpoints)
        };
        Ok(Some(plan(&service, self.node_ip, &endpoints, table.plan(key))))
    }

    async fn sync(&self) -> Result<(), Error> {
        let noted = std::mem::take(&mut *lock(&self.noted));
        let work = {
            let mut table = lock(&self.table);
            let mut plans = Vec::with_capacity(noted.len());
            for key in &noted {
                match self.plan(&table, key) {
                    Ok(plan) => plans.push((key.clone(), plan)),
                    Err(error) => {
                        lock(&self.noted).extend(noted);
                        return Err(error);
                    }
                }
            }
            Work::new(&mut table, plans)
        };
        if let Some(work) = work
            && let Err(error) = mote_api::unblock(move || work.run()).await
        {
            lock(&self.table).distrust();
            return Err(Error::Other(error.to_string()));
        }
        self.synced.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A transaction and what is to be tidied up after it.
struct Work {
    batch: Batch,
    udp: Vec<UdpFront>,
    /// The slots of fronts that hold another endpoint now.
    untied: BTreeMap<u32, BTreeSet<Vec<u8>>>,
}

impl Work {
    fn new(table: &mut Table, plans: Vec<(Key, Option<Plan>)>) -> Option<Work> {
        let (mut udp, mut untied) = (Vec::new(), BTreeMap::<u32, BTreeSet<Vec<u8>>>::new());
        for (key, plan) in &plans {
            let (Some(old), Some(new)) = (table.plan(key), plan) else {
                // A new Service: flows that went nowhere before it existed.
                udp.extend(plan.iter().flat_map(|plan| plan.udp.clone()));
                continue;
            };
            if old.udp != new.udp {
                udp.extend(new.udp.clone());
            }
            for (front, slots) in &old.sticky {
                let now = new.sticky.get(front);
                let changed = slots.iter().filter(|(slot, back)| now.and_then(|now| now.get(slot)) != Some(back));
                for (slot, _) in changed {
                    untied.entry(*slot).or_default().insert(front.clone());
                }
            }
        }
        let difference = table.update(plans);
        (!difference.is_empty()).then(|| Work { batch: table.batch(&difference), udp, untied })
    }

    fn run(self) -> netlink::Result<()> {
        let mut socket = Socket::open(Protocol::Netfilter)?;
        let messages = self.batch.len();
        self.batch.commit(&mut socket, "writing service rules")?;
        tracing::debug!(messages, "service rules written");
        for (slot, fronts) in &self.untied {
            untie(&mut socket, *slot, fronts)?;
        }
        if !self.udp.is_empty() {
            forget(&mut socket, &self.udp)?;
        }
        Ok(())
    }
}

/// Ends the affinity of the clients of these fronts to a slot.
fn untie(socket: &mut Socket, slot: u32, fronts: &BTreeSet<Vec<u8>>) -> netlink::Result<()> {
    let set = affinity_set(slot);
    for element in socket.elements(FAMILY_IPV4, TABLE, &set)? {
        // The client's address stands before the front.
        if !element.key.get(4..).is_some_and(|front| fronts.contains(front)) {
            continue;
        }
        let mut batch = Batch::new(FAMILY_IPV4, TABLE);
        batch.delete_elements(&set, [element.key.as_slice()]);
        match batch.commit(socket, "ending session affinity") {
            // Its time was up in between.
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// UDP has no connections that end: flows to an endpoint that is gone would be translated there for ever
/// (upstream: pkg/proxy/conntrack/cleanup.go).
fn forget(socket: &mut Socket, fronts: &[UdpFront]) -> netlink::Result<()> {
    let stale = |flow: &Flow| {
        let (IpAddr::V4(destination), IpAddr::V4(answers)) = (flow.destination, flow.answers) else { return false };
        flow.protocol == UDP
            && fronts.iter().any(|front| {
                front.port == flow.destination_port
                    && front.ip.is_none_or(|ip| ip == destination)
                    && !front.serving.contains(&(answers, flow.answers_port))
            })
    };
    for flow in socket.flows(FAMILY_IPV4, FLOWS_LIMIT, &stale)? {
        socket.forget(FAMILY_IPV4, &flow)?;
    }
    Ok(())
}

impl Reconciler for Proxy {
    fn name(&self) -> &'static str {
        "service-proxy"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "services"), ("discovery.k8s.io", "v1", "endpointslices"), ("", "v1", "nodes")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let concerned = if change.kind.plural == self.services.plural {
            let object = change.object();
            vec![Key::new(object.namespace(), object.name())]
        } else if change.kind.plural == self.nodes.plural {
            match self.moved(change) {
                // A node reports all the time, and moves never.
                services if services.is_empty() => return,
                services => services,
            }
        } else {
            self.slices.change(change)
        };
        if !self.stopped.load(Ordering::Relaxed) {
            lock(&self.noted).extend(concerned);
            queue.add(everything());
        }
    }

    fn reconcile<'a>(&'a self, _key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async {
            if !self.stopped.load(Ordering::Relaxed) {
                self.sync().await?;
            }
            Ok(Next::Done)
        })
    }
}
