//! ServiceCIDRs and the IPAddress objects of cluster addresses. A ServiceCIDR is ready once its finalizer is on, and goes
//! when no address would be left outside all others (pkg/controller/servicecidrs). An IPAddress that does not say what
//! the Services say is set right (pkg/registry/core/service/ipallocator/controller): at every start, and when one is
//! changed; Services themselves are always written together with theirs.
use crate::{
    owner::gone_is_fine,
    session::Session,
    status::{Conditions, condition},
};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Sub,
    addresses::{self, FAMILY, MANAGED_BY, MANAGER, Range},
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::{Value, json};
use std::{net::Ipv4Addr, sync::Arc};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const CIDRS: (&str, &str, &str) = ("networking.k8s.io", "v1", "servicecidrs");
const ADDRESSES: (&str, &str, &str) = ("networking.k8s.io", "v1", "ipaddresses");
const SERVICES: (&str, &str, &str) = ("", "v1", "services");

pub fn start(client: &Client) {
    let session = Session::new(client, "service-cidrs-controller");
    let kind = |session: &Session, (group, version, plural)| session.kind(group, version, plural);
    let (cidrs, all) = (kind(&session, CIDRS), kind(&session, ADDRESSES));
    session.clone().start(Cidrs { session, cidrs: cidrs.clone(), addresses: all.clone() });
    // Upstream's repair loop is the API server's own.
    let server = client.as_user("system:apiserver", &["system:masters", "system:authenticated"]);
    let services = server.kind("", "v1", "services").unwrap_or_else(|| cidrs.clone());
    mote_api::driver::start(&server.clone(), Arc::new(Repair { client: server, cidrs, addresses: all, services }));
}

struct Cidrs {
    session: Session,
    cidrs: Arc<Kind>,
    addresses: Arc<Kind>,
}

fn ranges(cidr: &Object) -> Vec<Range> {
    cidr.root().at("spec.cidrs").items().filter_map(|text| Range::parse(text.str())).collect()
}

impl Reconciler for Cidrs {
    fn name(&self) -> &'static str {
        "service-cidr"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[CIDRS, ADDRESSES]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if change.kind.plural == "servicecidrs" {
            queue.add(Key::new("", change.object().name()));
        }
        // One that is to go may have lost what held it.
        if change.kind.plural == "servicecidrs" || change.new.is_none() {
            let all = self.session.list(&self.cidrs, None).unwrap_or_default();
            all.iter().filter(|cidr| cidr.is_deleting()).for_each(|cidr| queue.add(Key::new("", cidr.name())));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            match self.session.get(&self.cidrs, "", &key.name) {
                Ok(cidr) => self.settle(cidr).await?,
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status.into()),
            }
            Ok(Next::Done)
        })
    }
}

impl Cidrs {
    async fn settle(&self, cidr: Object) -> Result<(), Error> {
        let finalizers: Vec<&str> = cidr.meta().get("finalizers").items().map(|one| one.str()).collect();
        let held = finalizers.contains(&FINALIZER);
        if cidr.is_deleting() {
            if !held {
                return Ok(());
            }
            if self.leaves_addresses(&cidr)? {
                let text = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
                return self.condition(&cidr, "False", "Terminating", text).await;
            }
            let left: Vec<&str> = finalizers.into_iter().filter(|one| *one != FINALIZER).collect();
            return self.finalize(&cidr, left).await;
        }
        if !held {
            self.finalize(&cidr, finalizers.into_iter().chain([FINALIZER]).collect()).await?;
        }
        self.condition(&cidr, "True", "", "Kubernetes Service CIDR is ready").await
    }

    /// Whether an address would be in no range any more.
    fn leaves_addresses(&self, cidr: &Object) -> Result<bool, Error> {
        let own = ranges(cidr);
        let all = self.session.list(&self.cidrs, None)?;
        let others: Vec<Range> = all.iter().filter(|other| other.name() != cidr.name()).flat_map(ranges).collect();
        let addresses = self.session.list(&self.addresses, None)?;
        let managed = addresses.iter().filter(|one| one.meta().get("labels").get(MANAGED_BY).str() == MANAGER);
        let mut held = managed.filter_map(|one| one.name().parse::<Ipv4Addr>().ok());
        let within = |ranges: &[Range], address| ranges.iter().any(|range| range.contains(address));
        Ok(held.any(|address| within(&own, address) && !within(&others, address)))
    }

    async fn finalize(&self, cidr: &Object, finalizers: Vec<&str>) -> Result<(), Error> {
        let finalizers = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
        let patch = json!({"metadata": {"resourceVersion": cidr.revision.to_string(), "finalizers": finalizers}});
        Ok(gone_is_fine(self.session.patch(cidr, Sub::Main, patch).await)?)
    }

    async fn condition(&self, cidr: &Object, status: &str, reason: &str, message: &str) -> Result<(), Error> {
        let mut conditions = Conditions::of(cidr);
        let mut ready = condition("Ready", status, reason, message);
        ready["reason"] = reason.into();
        conditions.set_in_place(ready);
        if conditions == Conditions::of(cidr) {
            return Ok(());
        }
        // The finalizer may have come a moment ago: the status alone is written, to whatever is newest.
        let mut new = cidr.to_value();
        if let Some(metadata) = new["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        new["status"] = json!({"conditions": conditions.into_value()});
        gone_is_fine(self.session.update(&self.cidrs, Sub::Status, new).await)?;
        Ok(())
    }
}

struct Repair {
    client: Client,
    cidrs: Arc<Kind>,
    addresses: Arc<Kind>,
    services: Arc<Kind>,
}

fn cluster_ips(service: &Object) -> impl Iterator<Item = &str> {
    let list = service.root().at("spec.clusterIPs").items().map(|ip| ip.str());
    list.filter(|ip| !matches!(*ip, "" | "None"))
}

impl Reconciler for Repair {
    fn name(&self) -> &'static str {
        "service-ip-repair"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[ADDRESSES, SERVICES]
    }

    /// Services only at the start: after it they are written together with their addresses.
    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if change.kind.plural == "ipaddresses" {
            queue.add(Key::new("", object.name()));
        } else if change.old.is_none() {
            cluster_ips(object).for_each(|ip| queue.add(Key::new("", ip)));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            self.repair(&key.name).await?;
            Ok(Next::Done)
        })
    }
}

impl Repair {
    async fn repair(&self, ip: &str) -> Result<(), Error> {
        let address = match self.client.get(&self.addresses, "", ip) {
            Ok(address) => Some(address),
            Err(status) if status.is_not_found() => None,
            Err(status) => return Err(status.into()),
        };
        let has = |service: &Object| cluster_ips(service).any(|own| own == ip);
        if let Some(address) = &address {
            let parent = address.root().at("spec.parentRef");
            let of_service = parent.get("group").str().is_empty() && parent.get("resource").str() == "services";
            let (namespace, name) = (parent.get("namespace").str(), parent.get("name").str());
            let service = self.client.get(&self.services, namespace, name).ok().filter(|_| of_service);
            if service.is_some_and(|service| has(&service)) && is_labelled(address) {
                return Ok(());
            }
        }
        let owner = self.client.list(&self.services, None)?.into_iter().find(has);
        match (address, owner) {
            (None, None) => Ok(()),
            (None, Some(service)) => self.restore(ip, &service).await,
            // What others made is theirs.
            (Some(address), None) if address.meta().get("labels").get(MANAGED_BY).str() != MANAGER => Ok(()),
            (Some(address), None) => {
                let text = format!("IPAddress: {ip} is no Service's; cleaning up");
                self.client.event(&address, "Warning", "IPAddressNotAllocated", &text);
                self.remove(&address).await
            }
            (Some(address), Some(service)) => {
                self.remove(&address).await?;
                self.restore(ip, &service).await
            }
        }
    }

    async fn remove(&self, address: &Object) -> Result<(), Error> {
        let options = DeleteOptions { uid: Some(address.uid().into()), ..DeleteOptions::default() };
        gone_is_fine(self.client.delete(&self.addresses, "", address.name(), options).await)?;
        Ok(())
    }

    async fn restore(&self, ip: &str, service: &Object) -> Result<(), Error> {
        let cidrs = self.client.list(&self.cidrs, None)?;
        let within = ip.parse().is_ok_and(|address| cidrs.iter().flat_map(ranges).any(|range| range.contains(address)));
        if !within {
            let text =
                format!("Cluster IP [IPv4]: {ip} is not within any configured Service CIDR; please recreate service");
            self.client.event(service, "Warning", "ClusterIPOutOfRange", &text);
            return Ok(());
        }
        let text = format!("Cluster IP [IPv4]: {ip} is not allocated; repairing");
        self.client.event(service, "Warning", "ClusterIPNotAllocated", &text);
        let object = addresses::object(ip, service.namespace(), service.name());
        match self.client.create_value(&self.addresses, "", object).await {
            Err(status) if !status.is_already_exists() => Err(status.into()),
            _ => Ok(()),
        }
    }
}

fn is_labelled(address: &Object) -> bool {
    let labels = address.meta().get("labels");
    labels.get(MANAGED_BY).str() == MANAGER && labels.get(FAMILY).exists()
}
