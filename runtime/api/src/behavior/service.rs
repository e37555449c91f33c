//! Services: cluster addresses and node ports. What is taken the Services say themselves, and `Reservations` for those
//! that are being written.
use crate::{
    feed,
    registry::{Beside, Target},
    server::Api,
};
use mote_schema::{Cause, Status};
use serde_json::{Map, Value, json};
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

/// What all other Services hold.
#[derive(Default)]
struct Taken {
    addresses: HashSet<Ipv4Addr>,
    ports: HashSet<(String, u16)>,
}

pub(super) fn allocate(
    api: &Api,
    target: &Target<'_>,
    old: Option<&Value>,
    new: &mut Value,
    beside: &mut Beside,
) -> Result<(), Status> {
    let name = new["metadata"]["name"].as_str().unwrap_or("").to_owned();
    let mut causes = Vec::new();
    // Until what is chosen here is reserved, nobody else chooses.
    let mut held = api.reservations.lock();
    let taken = taken(api, target, &name, &held);
    if let Some(spec) = new.get_mut("spec").filter(|spec| spec.is_object()) {
        carry_over(old.map(|old| &old["spec"]), spec);
        cluster_address(api.settings.service_cidr, &taken, spec, &mut causes);
        node_ports(&api.settings.node_port_range, taken, spec, &mut causes);
    }
    if !causes.is_empty() {
        return Err(Status::invalid("", "Service", &name, causes));
    }
    let names = names(&new["spec"]);
    beside.holds.push(Box::new(api.reservations.take(&mut held, names)));
    Ok(())
}

/// What a Service holds, as the reservations name it.
fn names(spec: &Value) -> Vec<String> {
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    let mut names: Vec<String> =
        list("clusterIPs").filter_map(Value::as_str).filter(|ip| *ip != "None").map(str::to_owned).collect();
    for port in list("ports").filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0) {
        names.push(port_name(port["protocol"].as_str().unwrap_or("TCP"), &port["nodePort"]));
    }
    if spec["healthCheckNodePort"].as_i64().unwrap_or(0) != 0 {
        names.push(port_name("TCP", &spec["healthCheckNodePort"]));
    }
    names
}

fn port_name(protocol: &str, number: impl std::fmt::Display) -> String {
    format!("{protocol}/{number}")
}

fn taken(api: &Api, target: &Target<'_>, name: &str, held: &HashSet<String>) -> Taken {
    let mut taken = Taken::default();
    for reserved in held {
        match reserved.split_once('/') {
            Some((protocol, port)) => taken.ports.extend(port.parse().map(|port| (protocol.to_owned(), port))),
            None => taken.addresses.extend(reserved.parse::<Ipv4Addr>()),
        }
    }
    let own = target.kind.key(target.namespace, name);
    for entry in api.store.snapshot().range(&target.kind.prefix, None) {
        if *entry.key == *own {
            continue;
        }
        let object = feed::object(target.kind, &entry);
        let spec = object.root().get("spec");
        taken.addresses.extend(spec.get("clusterIPs").items().filter_map(|ip| ip.str().parse::<Ipv4Addr>().ok()));
        for port in spec.get("ports").items() {
            if let Some(number) = port.get("nodePort").as_i64().and_then(|n| u16::try_from(n).ok()) {
                taken.ports.insert((port.get("protocol").str().to_owned(), number));
            }
        }
        if let Some(number) = spec.get("healthCheckNodePort").as_i64().and_then(|n| u16::try_from(n).ok()) {
            taken.ports.insert(("TCP".into(), number));
        }
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
    if !matches!(kind_of(spec), "NodePort" | "LoadBalancer") {
        remove(spec, "externalTrafficPolicy");
    }
    if kind_of(spec) != "LoadBalancer" {
        remove(spec, "allocateLoadBalancerNodePorts");
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
    from.as_object_mut().map(|object: &mut Map<String, Value>| object.remove(field));
}

fn cluster_address(cidr: (Ipv4Addr, u8), taken: &Taken, spec: &mut Value, causes: &mut Vec<Cause>) {
    if !has_cluster_ip(spec) {
        return;
    }
    if spec["clusterIP"].as_str().unwrap_or("").is_empty()
        && let Some(first) = spec["clusterIPs"][0].as_str()
    {
        spec["clusterIP"] = Value::from(first);
    }
    let wanted = spec["clusterIP"].as_str().unwrap_or("").to_owned();
    let (base, size) = (u32::from(cidr.0), 1u32.checked_shl(u32::from(32 - cidr.1.min(32))).unwrap_or(u32::MAX));
    let range = format!("{}/{}", cidr.0, cidr.1);
    let address = match wanted.as_str() {
        "None" => "None".to_owned(),
        "" => match free_address(base, size, &taken.addresses) {
            Some(address) => address.to_string(),
            None => {
                let detail = "failed to allocate a serviceIP: range is full";
                return causes.push(Cause::invalid("spec.clusterIPs", &json!([]), detail));
            }
        },
        given => {
            let shown = json!([given]);
            let mut refuse = |detail: String| causes.push(Cause::invalid("spec.clusterIPs", &shown, &detail));
            // What is no address at all is validation's to refuse.
            if let Ok(address) = given.parse::<Ipv4Addr>() {
                let offset = u32::from(address).wrapping_sub(base);
                if offset == 0 || offset >= size.saturating_sub(1) {
                    return refuse(format!(
                        "failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. The range of valid IPs is {range}"
                    ));
                }
                if taken.addresses.contains(&address) {
                    return refuse(format!("failed to allocate IP {given}: provided IP is already allocated"));
                }
            }
            given.to_owned()
        }
    };
    if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
        spec["clusterIPs"] = json!([address]);
    }
    spec["clusterIP"] = Value::from(address);
    for (field, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
        if spec.get(field).is_none_or(Value::is_null) {
            spec[field] = value;
        }
    }
    // One address family is all there is: what prefers two gets one.
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], detail));
    }
}

/// The lower band (at most 256 addresses, 1/16 of the range) is left for addresses people choose (KEP-3070).
fn free_address(base: u32, size: u32, taken: &HashSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let band = (size / 16).clamp(16, 256).min(size);
    let (upper, lower) = (band..size.saturating_sub(1), 1..band);
    let start = pick(upper.len() as u32);
    let upper = upper.clone().skip(start as usize).chain(upper.take(start as usize));
    upper.chain(lower).map(|offset| Ipv4Addr::from(base.wrapping_add(offset))).find(|address| !taken.contains(address))
}

fn pick(bound: u32) -> u32 {
    u32::from_le_bytes(crate::registry::random()).checked_rem(bound).unwrap_or(0)
}

fn node_ports(range: &RangeInclusive<u16>, mut taken: Taken, spec: &mut Value, causes: &mut Vec<Cause>) {
    let wanted = wants_node_ports(spec);
    let health = wants_health_port(spec);
    let mut own: Vec<(String, i64, u16)> = Vec::new();
    for (at, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let number = port["port"].as_i64().unwrap_or(0);
        let given = port["nodePort"].as_i64().unwrap_or(0);
        if given == 0 {
            continue;
        }
        let field = format!("spec.ports[{at}].nodePort");
        match u16::try_from(given).ok().filter(|port| range.contains(port)) {
            None if wanted => {
                let detail = format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    range.start(),
                    range.end()
                );
                causes.push(Cause::invalid(field, &json!(given), &detail));
            }
            Some(port) if taken.ports.contains(&(protocol.clone(), port)) => {
                causes.push(Cause::invalid(field, &json!(given), "provided port is already allocated"));
            }
            Some(port) => {
                taken.ports.insert((protocol.clone(), port));
                own.push((protocol, number, port));
            }
            None => {}
        }
    }
    if !wanted {
        return;
    }
    for (at, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        let number = port["port"].as_i64().unwrap_or(0);
        // The same port under another protocol shares the node port.
        let shared = own.iter().find(|(p, n, _)| *n == number && *p != protocol).map(|(_, _, port)| *port);
        let shared = shared.filter(|port| !taken.ports.contains(&(protocol.clone(), *port)));
        match shared.or_else(|| free_port(range, &protocol, &taken)) {
            Some(free) => {
                taken.ports.insert((protocol.clone(), free));
                own.push((protocol, number, free));
                port["nodePort"] = Value::from(free);
            }
            None => {
                let detail = "failed to allocate a nodePort: range is full";
                causes.push(Cause::invalid(format!("spec.ports[{at}].nodePort"), &json!(0), detail));
            }
        }
    }
    if health
        && spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0
        && let Some(free) = free_port(range, "TCP", &taken)
    {
        spec["healthCheckNodePort"] = Value::from(free);
    }
}

fn free_port(range: &RangeInclusive<u16>, protocol: &str, taken: &Taken) -> Option<u16> {
    let start = pick(range.len() as u32) as usize;
    let protocol = protocol.to_owned();
    let candidates = range.clone().skip(start).chain(range.clone().take(start));
    candidates.into_iter().find(|port| !taken.ports.contains(&(protocol.clone(), *port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 43, 0, 0), 16);

    fn addresses(spec: &mut Value, taken: &[&str]) -> Vec<String> {
        let addresses = taken.iter().filter_map(|ip| ip.parse().ok()).collect();
        let mut causes = Vec::new();
        cluster_address(CIDR, &Taken { addresses, ..Taken::default() }, spec, &mut causes);
        causes.into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn cluster_addresses() {
        let mut free = json!({});
        assert!(addresses(&mut free, &[]).is_empty());
        let got: Ipv4Addr = free["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(got.octets()[..2] == [10, 43] && u32::from(got) & 0xffff >= 256, "{got} is above the static band");
        assert_eq!(free["clusterIPs"], json!([got.to_string()]));

        let mut headless = json!({"clusterIP": "None"});
        assert!(addresses(&mut headless, &[]).is_empty());
        assert_eq!(headless["clusterIPs"], json!(["None"]));

        for (given, taken, expected) in [
            (
                "10.43.0.9",
                vec!["10.43.0.9"],
                "spec.clusterIPs: Invalid value: [\"10.43.0.9\"]: failed to allocate IP 10.43.0.9: provided IP is already allocated",
            ),
            (
                "192.168.0.1",
                vec![],
                "spec.clusterIPs: Invalid value: [\"192.168.0.1\"]: failed to allocate IP 192.168.0.1: the provided IP (192.168.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16",
            ),
        ] {
            assert_eq!(addresses(&mut json!({"clusterIP": given}), &taken), [expected]);
        }
    }

    #[test]
    fn node_ports_are_given_shared_and_refused() {
        let range = 30000..=30002;
        let mut spec = json!({"type": "NodePort", "ports": [
            {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}, {"port": 80, "protocol": "TCP"}]});
        let mut causes = Vec::new();
        node_ports(&range, Taken::default(), &mut spec, &mut causes);
        assert!(causes.is_empty());
        assert_eq!(spec["ports"][0]["nodePort"], spec["ports"][1]["nodePort"]);
        assert_ne!(spec["ports"][0]["nodePort"], spec["ports"][2]["nodePort"]);

        let mut spec = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 80}]});
        node_ports(&range, Taken::default(), &mut spec, &mut causes);
        assert_eq!(
            causes[0].message,
            "Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30002"
        );
    }
}
