//! Services: cluster addresses and node ports (pkg/registry/core/service/storage). Which addresses are taken, IPAddress
//! objects say (`addresses`), which ports, the Services themselves; for Services being written `Reservations` say both.
use super::addresses::{self, Range};
use crate::{
    feed,
    registry::{Beside, Target},
    server::Api,
};
use mote_schema::{Cause, Status};
use mote_schema::{Map, Value, json};
use mote_store::{Key, Precondition, Snapshot, Write};
use std::{collections::HashSet, net::Ipv4Addr, ops::RangeInclusive};

/// Fields that mean something only for some types; what a type change leaves behind is dropped
/// (registry/core/service/strategy.go, dropTypeDependentFields).
fn has_cluster_ip(spec: &Value) -> bool {
    matches!(kind_of(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn kind_of(spec: &Value) -> &str {
    spec["type"].as_str().unwrap_or("ClusterIP")
}

fn wants_node_ports(spec: &Value) -> bool {
    match kind_of(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"].as_bool().unwrap_or(true),
        _ => false,
    }
}

fn wants_health_port(spec: &Value) -> bool {
    kind_of(spec) == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// Node ports that other Services hold. A number is one Service's for all protocols.
type Ports = HashSet<u16>;

pub(super) fn allocate(
    api: &Api,
    target: &Target<'_>,
    old: Option<&Value>,
    new: &mut Value,
    beside: &mut Beside,
) -> Result<(), Status> {
    let name = new["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let namespace = target.namespace;
    if target.options.dry_run {
        let taken = other_ports(api, target, &name, &HashSet::new());
        return match new.get_mut("spec").filter(|spec| spec.is_object()) {
            Some(spec) => pretend(&name, &addresses::ranges(api), old.map(|old| &old["spec"]), &taken, spec),
            None => Ok(()),
        };
    }
    // Until what is chosen here is reserved, nobody else chooses.
    let mut held = api.reservations.lock();
    let seen = api.store.snapshot();
    if let Some(spec) = new.get_mut("spec").filter(|spec| spec.is_object()) {
        let old = old.map(|old| &old["spec"]);
        carry_over(old, spec);
        let before = old.map(cluster_ips).unwrap_or_default();
        let ranges = addresses::ranges(api);
        let is_taken = |address: Ipv4Addr| {
            let text = address.to_string();
            !before.contains(&text) && (held.contains(&text) || addresses::is_taken(api, address))
        };
        cluster_address(&name, &ranges, &is_taken, &before, spec)?;
        node_ports(&name, &api.settings.node_port_range, other_ports(api, target, &name, &held), spec)?;
        let after = cluster_ips(spec);
        for address in after.iter().filter(|address| !before.contains(address)) {
            if let Some((key, write)) = addresses::take(api, address, namespace, &name)? {
                beside.preconditions.push((key, Precondition::Absent));
                beside.writes.push(write);
            }
        }
        let gone = before.iter().filter(|address| !after.contains(address));
        beside.writes.extend(gone.filter_map(|address| addresses::give_back(api, address, namespace, &name)));
    }
    let names = names(&new["spec"]);
    if api.store.is_shared() {
        let before = old.map(|old| self::names(&old["spec"])).unwrap_or_default();
        claim_ports(names.iter().filter(|name| !before.contains(name)), &seen, beside);
    }
    beside.holds.push(Box::new(api.reservations.take(&mut held, names)));
    Ok(())
}

/// Other API servers on this store choose ports too, and know nothing of what is reserved here: whoever takes a port writes
/// its mark, which must be as it was when the port was found free.
fn claim_ports<'n>(names: impl Iterator<Item = &'n String>, seen: &Snapshot, beside: &mut Beside) {
    for port in names.filter(|name| name.parse::<u16>().is_ok()) {
        let key: Key = ["nodeports/", port].concat().into();
        let mark = seen.get(&key).map_or(Precondition::Absent, |entry| Precondition::Modified(entry.modified));
        beside.preconditions.push((key.clone(), mark));
        beside.writes.push(Write::Put(key, b"taken".as_slice().into()));
    }
}

/// A dry run takes nothing: it shows the range's own address and ports beyond any range, as upstream's dry-run
/// allocators, and does not look at which addresses are taken.
fn pretend(name: &str, ranges: &[Range], old: Option<&Value>, taken: &Ports, spec: &mut Value) -> Result<(), Status> {
    carry_over(old, spec);
    let before = old.map(cluster_ips).unwrap_or_default();
    check_families(name, &before, spec)?;
    let wanted = spec["clusterIP"].as_str().unwrap_or("").parse::<Ipv4Addr>();
    if let (Ok(address), Some(first)) = (wanted, ranges.first())
        && has_cluster_ip(spec)
        && !first.contains(address)
        && !before.contains(&address.to_string())
    {
        let detail = format!(
            "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {first}"
        );
        let shown = json!([address.to_string()]);
        return Err(invalid(name, Cause::invalid("spec.clusterIPs", &shown, &detail)));
    }
    if has_cluster_ip(spec)
        && spec["clusterIP"].as_str().unwrap_or("").is_empty()
        && spec["clusterIPs"].as_array().is_none_or(Vec::is_empty)
        && let Some(first) = ranges.first()
    {
        spec["clusterIP"] = first.first().to_string().into();
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    let own = cluster_ips(spec);
    cluster_address(name, ranges, &|_| false, &own, spec)?;
    // Nor at the range of ports.
    given_ports(name, &(0..=u16::MAX), taken, spec)?;
    let mut next = DRY_RUN_PORT;
    if wants_node_ports(spec) {
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if port["nodePort"].as_i64().unwrap_or(0) == 0 {
                port["nodePort"] = next.into();
                next += 1;
            }
        }
    }
    if wants_health_port(spec) && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
        spec["healthCheckNodePort"] = next.into();
    }
    Ok(())
}

const DRY_RUN_PORT: u16 = 32769;

/// A Service that goes gives its addresses back.
pub(super) fn release(api: &Api, target: &Target<'_>, old: &Value, beside: &mut Beside) {
    let name = old["metadata"]["name"].as_str().unwrap_or("");
    let held = cluster_ips(&old["spec"]);
    let writes = held.iter().filter_map(|address| addresses::give_back(api, address, target.namespace, name));
    beside.writes.extend(writes);
}

fn invalid(name: &str, cause: Cause) -> Status {
    Status::invalid("", "Service", name, vec![cause])
}

/// The addresses a Service holds; "None" is none.
fn cluster_ips(spec: &Value) -> Vec<String> {
    let list = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    list.filter(|ip| !matches!(*ip, "" | "None")).map(str::to_owned).collect()
}

/// What a Service holds, as the reservations name it.
fn names(spec: &Value) -> Vec<String> {
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    let ports = ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64).filter(|port| *port != 0);
    ports.map(|port| port.to_string()).chain(cluster_ips(spec)).collect()
}

fn other_ports(api: &Api, target: &Target<'_>, name: &str, held: &HashSet<String>) -> Ports {
    let mut taken: Ports = held.iter().filter_map(|reserved| reserved.parse().ok()).collect();
    let own = target.kind.key(target.namespace, name);
    for entry in api.store.snapshot().range(&target.kind.prefix, None).filter(|entry| *entry.key != *own) {
        let object = feed::object(target.kind, &entry);
        let spec = object.root().get("spec");
        let ports = spec.get("ports").items().map(|port| port.get("nodePort"));
        let numbers = ports.chain([spec.get("healthCheckNodePort")]).filter_map(|port| port.as_i64());
        taken.extend(numbers.filter(|port| *port != 0).filter_map(|port| u16::try_from(port).ok()));
    }
    taken
}

/// An update that leaves out what was allocated keeps it; a new type loses what it has no use for.
fn carry_over(old: Option<&Value>, spec: &mut Value) {
    let Some(old) = old else { return };
    if has_cluster_ip(spec) && has_cluster_ip(old) {
        let empty = |field: &str| spec[field].as_str().unwrap_or("").is_empty();
        if empty("clusterIP") && spec.get("clusterIPs").is_none_or(Value::is_null) {
            copy(old, spec, "clusterIP");
            copy(old, spec, "clusterIPs");
        } else if empty("clusterIP") {
            spec["clusterIP"] = spec["clusterIPs"][0].clone();
        } else if spec["clusterIP"] != old["clusterIP"] && spec.get("clusterIPs") == old.get("clusterIPs") {
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
    } else if !has_cluster_ip(spec) && has_cluster_ip(old) && spec["clusterIP"] == old["clusterIP"] {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            remove(spec, field);
        }
    }
    if wants_node_ports(spec) && wants_node_ports(old) {
        let before = old["ports"].as_array().cloned().unwrap_or_default();
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            if port["nodePort"].as_i64().unwrap_or(0) != 0 {
                continue;
            }
            let same = before.iter().find(|b| b["port"] == port["port"] && b["protocol"] == port["protocol"]);
            if let Some(number) = same.map(|b| b["nodePort"].clone()).filter(|n| !n.is_null()) {
                port["nodePort"] = number;
            }
        }
    }
    if !wants_node_ports(spec) && kind_of(spec) != "LoadBalancer" && wants_node_ports(old) {
        let before = old["ports"].as_array().cloned().unwrap_or_default();
        for (at, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            if before.get(at).is_some_and(|b| b["nodePort"] == port["nodePort"]) {
                remove(port, "nodePort");
            }
        }
    }
    if wants_health_port(spec) {
        if spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 {
            copy(old, spec, "healthCheckNodePort");
        }
    } else {
        remove(spec, "healthCheckNodePort");
    }
}

fn copy(from: &Value, to: &mut Value, field: &str) {
    if let (Some(value), Some(to)) = (from.get(field), to.as_object_mut()) {
        to.insert(field.into(), value.clone());
    }
}

fn remove(from: &mut Value, field: &str) {
    from.as_object_mut().map(|object: &mut Map| object.remove(field));
}

/// The families asked for are there.
fn check_families(name: &str, before: &[String], spec: &Value) -> Result<(), Status> {
    if !has_cluster_ip(spec) {
        return Ok(());
    }
    let families = spec["ipFamilies"].as_array().into_iter().flatten().enumerate();
    if let Some((at, family)) = families.into_iter().find(|(_, family)| **family == "IPv6")
        && before.is_empty()
        && spec["clusterIP"] != "None"
    {
        let cause = Cause::invalid(format!("spec.ipFamilies[{at}]"), family, "not configured on this cluster");
        return Err(invalid(name, cause));
    }
    Ok(())
}

fn cluster_address(
    name: &str,
    ranges: &[Range],
    is_taken: &dyn Fn(Ipv4Addr) -> bool,
    before: &[String],
    spec: &mut Value,
) -> Result<(), Status> {
    if !has_cluster_ip(spec) {
        return Ok(());
    }
    check_families(name, before, spec)?;
    let listed = spec["clusterIPs"].as_array().is_some_and(|list| !list.is_empty());
    if listed && spec["clusterIP"].as_str().unwrap_or("").is_empty() {
        let detail = "must be empty when `clusterIP` is not specified";
        return Err(invalid(name, Cause::invalid("spec.clusterIPs", &spec["clusterIPs"], detail)));
    }
    let wanted = spec["clusterIP"].as_str().unwrap_or("").to_owned();
    let address = match wanted.as_str() {
        "None" => "None".to_owned(),
        "" => match ranges.iter().find_map(|range| range.free(is_taken)) {
            Some(address) => address.to_string(),
            None => {
                let detail = format!("failed to allocate a serviceIP for Service {name:?}: range is full");
                return Err(Status::internal(detail));
            }
        },
        given => {
            // What is no address at all is validation's to refuse; what the Service has already it keeps.
            if let Ok(address) = given.parse::<Ipv4Addr>()
                && !before.contains(&wanted)
            {
                let why = if !ranges.iter().any(|range| range.contains(address)) {
                    "the provided network does not match the current range"
                } else if is_taken(address) {
                    "provided IP is already allocated"
                } else {
                    ""
                };
                if !why.is_empty() {
                    let detail = format!("failed to allocate IP {given}: {why}");
                    return Err(invalid(name, Cause::invalid("spec.clusterIPs", &json!([given]), &detail)));
                }
            }
            given.to_owned()
        }
    };
    if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
        spec["clusterIPs"] = json!([address]);
    }
    spec["clusterIP"] = Value::from(address);
    // Endpoints that somebody else makes may be of both families (alloc.go, initIPFamilyFields).
    if spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(Map::is_empty) {
        let policy = spec["ipFamilyPolicy"].as_str().unwrap_or("RequireDualStack").to_owned();
        let mut families = spec["ipFamilies"].as_array().map(|list| list.to_vec()).unwrap_or_default();
        if families.is_empty() {
            families.push("IPv4".into());
        }
        if families.len() < 2 && policy != "SingleStack" {
            let other = if families.iter().any(|family| *family == "IPv4") { "IPv6" } else { "IPv4" };
            families.push(other.into());
        }
        spec["ipFamilies"] = families.into();
        spec["ipFamilyPolicy"] = policy.into();
        return Ok(());
    }
    for (field, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
        if spec.get(field).is_none_or(Value::is_null) {
            spec[field] = value;
        }
    }
    // One address family is all there is: what prefers two gets one.
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(invalid(name, Cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], detail)));
    }
    Ok(())
}

fn node_ports(name: &str, range: &RangeInclusive<u16>, mut taken: Ports, spec: &mut Value) -> Result<(), Status> {
    let (wanted, health) = (wants_node_ports(spec), wants_health_port(spec));
    let mut own = given_ports(name, range, &taken, spec)?;
    let health_given = spec["healthCheckNodePort"].as_i64().unwrap_or(0);
    taken.extend(own.iter().map(|(_, number)| *number));
    if health && health_given != 0 {
        let number = u16::try_from(health_given).ok().filter(|number| range.contains(number));
        let problem = match number {
            None => out_of_range(range),
            Some(number) if taken.contains(&number) => ALLOCATED.to_owned(),
            Some(number) => {
                taken.insert(number);
                String::new()
            }
        };
        if !problem.is_empty() {
            let text = format!("failed to allocate requested HealthCheck NodePort {health_given}: {problem}");
            return Err(Status::internal(text));
        }
    }
    if !wanted {
        return Ok(());
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        let number = port["port"].as_i64().unwrap_or(0);
        let shared = own.iter().find(|(other, _)| *other == number).map(|(_, shared)| *shared);
        let Some(free) = shared.or_else(|| free_port(range, &taken)) else {
            return Err(Status::internal("failed to allocate a nodePort: range is full"));
        };
        taken.insert(free);
        own.push((number, free));
        port["nodePort"] = Value::from(free);
    }
    if health && health_given == 0 {
        let Some(free) = free_port(range, &taken) else {
            return Err(Status::internal("failed to allocate a HealthCheck NodePort 0: range is full"));
        };
        spec["healthCheckNodePort"] = Value::from(free);
    }
    Ok(())
}

/// What the Service names itself, all of which is free: by port, since the same port under another protocol shares the number.
fn given_ports(
    name: &str,
    range: &RangeInclusive<u16>,
    taken: &Ports,
    spec: &Value,
) -> Result<Vec<(i64, u16)>, Status> {
    let wanted = wants_node_ports(spec);
    // Another port of this Service has the number already.
    let is_own = |own: &[(i64, u16)], port: &Value, number: u16| {
        own.iter().any(|(other, held)| *held == number && Some(*other) != port["port"].as_i64())
    };
    let mut own: Vec<(i64, u16)> = Vec::new();
    let ports = || spec["ports"].as_array().into_iter().flatten().enumerate();
    for (at, port) in ports().filter(|(_, port)| port["nodePort"].as_i64().unwrap_or(0) != 0) {
        let given = port["nodePort"].as_i64().unwrap_or(0);
        let free = match u16::try_from(given).ok().filter(|number| range.contains(number)) {
            None if wanted => Err(out_of_range(range)),
            None => continue,
            Some(number) if taken.contains(&number) || is_own(&own, port, number) => Err(ALLOCATED.to_owned()),
            Some(number) => Ok(number),
        };
        match free {
            Ok(number) => own.push((port["port"].as_i64().unwrap_or(0), number)),
            Err(detail) => {
                let field = format!("spec.ports[{at}].nodePort");
                return Err(invalid(name, Cause::invalid(field, &json!(given), &detail)));
            }
        }
    }
    Ok(own)
}

const ALLOCATED: &str = "provided port is already allocated";

fn out_of_range(range: &RangeInclusive<u16>) -> String {
    let (first, last) = (range.start(), range.end());
    format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
}

fn free_port(range: &RangeInclusive<u16>, taken: &Ports) -> Option<u16> {
    let start = addresses::pick(range.len() as u32) as usize;
    let mut candidates = range.clone().skip(start).chain(range.clone().take(start));
    candidates.find(|port| !taken.contains(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(spec: &mut Value, taken: &[&str]) -> Result<(), String> {
        let ranges = [Range::parse("10.43.0.0/16").unwrap()];
        let is_taken = |address: Ipv4Addr| taken.contains(&address.to_string().as_str());
        cluster_address("web", &ranges, &is_taken, &[], spec).map_err(|status| status.message)
    }

    #[test]
    fn cluster_addresses() {
        let mut free = json!({});
        addresses(&mut free, &[]).unwrap();
        let got: Ipv4Addr = free["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(got.octets()[..2] == [10, 43] && u32::from(got) & 0xffff >= 256, "{got} is above the static band");
        assert_eq!(free["clusterIPs"], json!([got.to_string()]));

        let mut headless = json!({"clusterIP": "None"});
        addresses(&mut headless, &[]).unwrap();
        assert_eq!(headless["clusterIPs"], json!(["None"]));

        let refusal = "Service \"web\" is invalid: spec.clusterIPs: Invalid value:";
        for (given, detail) in [
            ("10.43.0.9", "provided IP is already allocated"),
            ("192.168.0.1", "the provided network does not match the current range"),
            ("10.43.0.0", "the provided network does not match the current range"),
        ] {
            let refused = addresses(&mut json!({"clusterIP": given}), &["10.43.0.9"]).unwrap_err();
            assert_eq!(refused, format!("{refusal} [\"{given}\"]: failed to allocate IP {given}: {detail}"));
        }
    }

    #[test]
    fn node_ports_are_given_shared_and_refused() {
        let range = 30000..=30002;
        let ports = |spec: &mut Value, taken: &[u16]| {
            node_ports("web", &range, taken.iter().copied().collect(), spec).map_err(|status| status.message)
        };
        let mut spec = json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]});
        ports(&mut spec, &[]).unwrap();
        assert_eq!(spec["ports"][0]["nodePort"], spec["ports"][1]["nodePort"]);
        assert_ne!(spec["ports"][0]["nodePort"], spec["ports"][2]["nodePort"]);
        let mut both = json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "UDP", "nodePort": 30000}, {"port": 53, "protocol": "TCP"}]});
        ports(&mut both, &[]).unwrap();
        assert_eq!(both["ports"][1]["nodePort"], 30000);

        let refusal = "Service \"web\" is invalid: spec.ports[0].nodePort: Invalid value:";
        for (given, detail) in [
            (80, "80: provided port is not in the valid range. The range of valid ports is 30000-30002"),
            (30001, "30001: provided port is already allocated"),
        ] {
            let mut spec = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": given}]});
            assert_eq!(ports(&mut spec, &[30001]).unwrap_err(), format!("{refusal} {detail}"));
        }
        let mut spec = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
        let full = ports(&mut spec, &[30000, 30001, 30002]).unwrap_err();
        assert_eq!(full, "Internal error occurred: failed to allocate a nodePort: range is full");
    }
}
