//! Services, what is behind them, and the ways in.
use super::row::{NONE, Row, UNSET, join, labels, number, selector, some_of};
use mote_schema::Gather as _;
use mote_schema::Ref;
use std::collections::BTreeSet;

/// How many endpoints, ports or hosts a cell names.
const SHOWN: usize = 3;

pub(super) fn service(row: &mut Row<'_>) {
    row.name();
    row.string("spec.type");
    let ip = row.at("spec.clusterIPs").index(0).str();
    row.text(if ip.is_empty() { NONE } else { ip });
    row.text(&external_ip(row));
    let port = |port: Ref<'_>| {
        let (number, protocol) = (number(port.get("port")), port.get("protocol").str());
        match port.get("nodePort").as_i64() {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    let ports: Vec<String> = row.at("spec.ports").items().map(port).collect();
    row.text(&if ports.is_empty() { NONE.into() } else { ports.join(",") });
    row.age();
    row.text(&labels(row.at("spec.selector")));
}

fn external_ip(row: &Row<'_>) -> String {
    let external = join(row.at("spec.externalIPs").items().map(Ref::str), ",");
    let balancer = balancer(row.at("status.loadBalancer"));
    let both = [balancer, external];
    let both = join(both.iter().map(String::as_str).filter(|text| !text.is_empty()), ",");
    let (text, none) = match row.at("spec.type").str() {
        "ClusterIP" | "NodePort" => (join(row.at("spec.externalIPs").items().map(Ref::str), ","), NONE),
        "LoadBalancer" => (both, "<pending>"),
        "ExternalName" => return row.at("spec.externalName").str().into(),
        _ => (String::new(), "<unknown>"),
    };
    if text.is_empty() { none.into() } else { text }
}

/// Addresses of a load balancer, sorted.
fn balancer(status: Ref<'_>) -> String {
    let address = |ingress: Ref<'_>| {
        let (ip, host) = (ingress.get("ip"), ingress.get("hostname"));
        Some(if ip.is_empty() { host } else { ip })
            .filter(|found| !found.is_empty())
            .map(|found| found.str().to_owned())
    };
    let addresses: BTreeSet<String> = status.get("ingress").items().filter_map(address).gather();
    join(addresses.iter().map(String::as_str), ",")
}

pub(super) fn endpoints(row: &mut Row<'_>) {
    let mut list = Vec::new();
    for subset in row.at("subsets").items() {
        let ips = subset.get("addresses").items().map(|address| address.get("ip").str());
        if subset.get("ports").items().next().is_none() {
            list.extend(ips.clone().map(str::to_owned));
        }
        for port in subset.get("ports").items() {
            let port = number(port.get("port"));
            let joined = |ip: &str| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
            list.extend(ips.clone().map(joined));
        }
    }
    // No subset and no address in any are not the same here.
    let empty = if row.at("subsets").items().next().is_none() { NONE } else { "" };
    row.name();
    row.text(&some_of(&list, SHOWN, empty));
    row.age();
}

pub(super) fn endpoint_slice(row: &mut Row<'_>) {
    let port = |port: Ref<'_>| match (port.get("port").as_i64(), port.get("name").as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".into(),
    };
    let ports: Vec<String> = row.at("ports").items().map(port).collect();
    let addresses = row.at("endpoints").items().flat_map(|endpoint| endpoint.get("addresses").items());
    let addresses: Vec<String> = addresses.map(|address| address.str().to_owned()).collect();
    row.name();
    row.string("addressType");
    row.text(&some_of(&ports, SHOWN, UNSET));
    row.text(&some_of(&addresses, SHOWN, UNSET));
    row.age();
}

pub(super) fn ingress(row: &mut Row<'_>) {
    let rules = row.at("spec.rules");
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules.items() {
        more |= hosts.len() == SHOWN;
        let host = rule.get("host").str();
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    let hosts = match hosts.join(",") {
        text if text.is_empty() => "*".into(),
        text if more => format!("{text} + {} more...", rules.items().count() - SHOWN),
        text => text,
    };
    row.name();
    row.text(row.at("spec.ingressClassName").as_str().unwrap_or(NONE));
    row.text(&hosts);
    row.text(&balancer(row.at("status.loadBalancer")));
    row.text(if row.at("spec.tls").items().next().is_some() { "80, 443" } else { "80" });
    row.age();
}

pub(super) fn ingress_class(row: &mut Row<'_>) {
    let default = row.object.meta().get("annotations").get("ingressclass.kubernetes.io/is-default-class");
    let name = row.object.name();
    row.text(&if default.str() == "true" { format!("{name} (default)") } else { name.into() });
    row.string("spec.controller");
    let parameters = row.at("spec.parameters");
    let group = parameters.get("apiGroup").as_str().map_or(String::new(), |group| format!(".{group}"));
    row.text(&match parameters.exists() {
        true => format!("{}{group}/{}", parameters.get("kind").str(), parameters.get("name").str()),
        false => NONE.into(),
    });
    row.age();
}

pub(super) fn policy(row: &mut Row<'_>) {
    row.name();
    row.text(&selector(row.at("spec.podSelector")));
    row.age();
}

pub(super) fn service_cidr(row: &mut Row<'_>) {
    row.name();
    row.text(&join(row.at("spec.cidrs").items().map(Ref::str), ","));
    row.age();
}

pub(super) fn ip_address(row: &mut Row<'_>) {
    let parent = row.at("spec.parentRef");
    let part = |name| Some(parent.get(name).str()).filter(|text| !text.is_empty());
    let mut text = parent.get("resource").str().to_lowercase();
    if let Some(group) = part("group") {
        text += &format!(".{}", group.to_lowercase());
    }
    for part in [part("namespace"), Some(parent.get("name").str())].into_iter().flatten() {
        text += &format!("/{part}");
    }
    row.name();
    row.text(if parent.exists() { &text } else { NONE });
    // Without a column, as upstream's.
    row.age();
}
