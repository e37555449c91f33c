//! Cluster addresses: the ServiceCIDRs say which there are, an IPAddress object each which are taken and by which
//! Service (KEP-1880). The object is written and removed in the Service's own transaction.
use crate::{
    Object, feed,
    registry::{format_time, new_uid, now},
    server::Api,
};
use mote_schema::Order as _;
use mote_schema::{Kind, Status};
use mote_schema::{Value, json};
use mote_store::{Key, Write};
use std::{net::Ipv4Addr, sync::Arc};

pub const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub const MANAGER: &str = "ipallocator.k8s.io";

/// The usable addresses of one IPv4 network: neither its own address nor the broadcast address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: u32,
    size: u32,
}

impl Range {
    pub fn parse(cidr: &str) -> Option<Range> {
        let (address, bits) = cidr.split_once('/')?;
        Range::new(address.parse().ok()?, bits.parse().ok()?)
    }

    pub(super) fn new(address: Ipv4Addr, bits: u8) -> Option<Range> {
        let host_bits = 32u32.checked_sub(bits.into())?;
        let size = 1u32.checked_shl(host_bits).unwrap_or(u32::MAX);
        Some(Range { base: u32::from(address) & !(size - 1), size })
    }

    pub(super) fn first(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.base)
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.size - 1
    }

    /// From the upper part of the range, then the lower, each from a random address on. The lower one (at most 256
    /// addresses, 1/16 of the range) is left for addresses that people choose (KEP-3070).
    pub(super) fn free(&self, is_taken: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let last = self.size.saturating_sub(1);
        let band = if self.size <= 16 { 1 } else { (self.size / 16).clamp(16, 256) };
        let around = |from: u32, to: u32| {
            let start = pick(to.saturating_sub(from)).saturating_add(from);
            (start..to).chain(from..start.min(to))
        };
        let mut offsets = around(band, last).chain(around(1, band.min(last)));
        offsets.find_map(|offset| Some(Ipv4Addr::from(self.base + offset)).filter(|address| !is_taken(*address)))
    }
}

pub(super) fn pick(bound: u32) -> u32 {
    u32::from_le_bytes(crate::registry::random()).checked_rem(bound).unwrap_or(0)
}

/// Of the ServiceCIDRs that stay and are not said to be unready, the oldest first; with none at all, what is configured.
pub(super) fn ranges(api: &Api) -> Vec<Range> {
    let mut cidrs: Vec<Object> = api.list_all("networking.k8s.io", "v1", "servicecidrs");
    if cidrs.is_empty() {
        let (address, bits) = api.settings.service_cidr;
        return Range::new(address, bits).into_iter().collect();
    }
    cidrs.retain(|cidr| {
        let mut conditions = cidr.root().at("status.conditions").items();
        let ready = conditions.find(|condition| condition.get("type").str() == "Ready");
        !cidr.is_deleting() && ready.is_none_or(|ready| ready.get("status").str() == "True")
    });
    cidrs.order_by_key(|cidr| cidr.meta().get("creationTimestamp").str().to_owned());
    cidrs.iter().flat_map(|cidr| cidr.root().at("spec.cidrs").items()).filter_map(|c| Range::parse(c.str())).collect()
}

fn kind(api: &Api) -> Option<Arc<Kind>> {
    api.catalog().by_resource("networking.k8s.io", "v1", "ipaddresses").cloned()
}

fn key(kind: &Kind, address: &str) -> Key {
    kind.key("", address).into()
}

pub(super) fn is_taken(api: &Api, address: Ipv4Addr) -> bool {
    let kind = kind(api);
    kind.is_some_and(|kind| api.store.snapshot().get(&kind.key("", &address.to_string())).is_some())
}

/// The object that says who has an address.
pub fn object(address: &str, namespace: &str, service: &str) -> Value {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "metadata": {"name": address, "labels": {FAMILY: family, MANAGED_BY: MANAGER}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": service}},
    })
}

/// The write that takes an address, and the key it must be the first at.
pub(super) fn take(api: &Api, address: &str, namespace: &str, service: &str) -> Result<Option<(Key, Write)>, Status> {
    let Some(kind) = kind(api) else { return Ok(None) };
    let mut value = object(address, namespace, service);
    value["metadata"]["uid"] = new_uid().into();
    value["metadata"]["creationTimestamp"] = format_time(now()).into();
    let key = key(&kind, address);
    Ok(Some((key.clone(), Write::Put(key, Api::encode(value)?.bytes().clone()))))
}

/// The write that gives an address back, if it is this Service's.
pub(super) fn give_back(api: &Api, address: &str, namespace: &str, service: &str) -> Option<Write> {
    let kind = kind(api)?;
    let key = key(&kind, address);
    let entry = api.store.snapshot().get(&key)?;
    let parent = feed::object(&kind, &entry).root().at("spec.parentRef").to_value();
    (parent["namespace"] == namespace && parent["name"] == service).then_some(Write::Delete(key))
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first(), self.size.leading_zeros() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leaves_out_its_ends() {
        let range = Range::parse("10.0.0.0/29").unwrap();
        let contained = (0..8u8).filter(|last| range.contains(Ipv4Addr::new(10, 0, 0, *last)));
        assert_eq!(contained.collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
        assert!(!range.contains(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!(range.to_string(), "10.0.0.0/29");
        assert!(Range::parse("fd00::/64").is_none() && Range::parse("10.0.0.0/33").is_none());
    }

    #[test]
    fn every_address_is_given_once_and_the_lower_band_last() {
        for (cidr, count, band) in [("10.0.0.0/29", 6, 0), ("10.1.0.0/24", 254, 15), ("10.2.0.0/16", 65534, 255)] {
            let range = Range::parse(cidr).unwrap();
            let first = range.free(|_| false).unwrap();
            assert!(u32::from(first) - range.base > band, "{first} of {cidr}");
            let upper = range.base + band;
            let all = (1..range.size - 1).count();
            assert_eq!(all, count);
            let lower = range.free(|address| u32::from(address) > upper);
            assert_eq!(lower.is_some(), band > 0, "{cidr}");
            assert_eq!(range.free(|_| true), None);
        }
    }
}
