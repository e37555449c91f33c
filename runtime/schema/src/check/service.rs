//! Services (validateService, ValidateServiceUpdate).
use super::{
    at::{At, Errors},
    container, meta, network,
};
use crate::validate as format;
use crate::{Value, json};
use std::{collections::HashSet, net::IpAddr};

fn is_headless(spec: &At<'_>) -> bool {
    spec.get("clusterIPs").items().count() == 1 && spec.get("clusterIPs").items().all(|ip| ip.str() == "None")
        || spec.get("clusterIP").str() == "None"
}

fn needs_node_port(spec: &At<'_>) -> bool {
    matches!(spec.get("type").str(), "NodePort" | "LoadBalancer")
}

pub(super) fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    let (kind, headless) = (spec.get("type"), is_headless(&spec));
    let external = kind.str() == "ExternalName";
    let mut addresses = Errors::default();
    if !external {
        cluster_ips(&spec, &mut addresses);
    }
    if let Some(old) = old {
        // They are looked at before they are allocated, and all else after that.
        if !addresses.0.is_empty() {
            *errors = addresses;
            return;
        }
        update(&spec, &old.get("spec"), errors);
    }
    if spec.get("ports").is_empty() && !headless && !external {
        errors.required(&spec.get("ports"), "");
    }
    match kind.str() {
        "" => errors.required(&kind, ""),
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {} services", kind.str());
            errors.invalid_value("spec.clusterIPs[0]", &json!("None"), &detail);
        }
        "ExternalName" => external_name(&spec, errors),
        _ => {}
    }
    ports(&spec, errors);
    meta::labels(&spec.get("selector"), errors);
    session_affinity(&spec, errors);
    errors.0.append(&mut addresses.0);
    for ip in spec.get("externalIPs").items() {
        network::endpoint_ip(&ip, errors);
    }
    load_balancer(&spec, errors);
    traffic(&spec, errors);
}

fn external_name(spec: &At<'_>, errors: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let at = spec.get(field);
        if !at.is_empty() {
            errors.forbidden(&at, "may not be set for ExternalName services");
        }
    }
    let name = spec.get("externalName");
    match name.str().strip_suffix('.').unwrap_or(name.str()) {
        "" => errors.required(&name, ""),
        text => errors.each(&name, format::dns1123_subdomain(text)),
    }
}

fn ports(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.get("ports");
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for port in list.items() {
        let name = port.get("name");
        if name.str().is_empty() {
            if list.len() > 1 {
                errors.required(&name, "");
            }
        } else {
            errors.each(&name, format::dns1123_label(name.str()));
            if !names.insert(name.str()) {
                errors.duplicate(&name);
            }
        }
        let (number, protocol, node) = (port.get("port"), port.get("protocol"), port.get("nodePort"));
        let value = number.int().unwrap_or(0);
        for message in format::port_number(value) {
            errors.invalid_value(&number.path, &Value::from(value), &message);
        }
        if protocol.str().is_empty() {
            errors.required(&protocol, "");
        }
        container::port_number_or_name(&port.get("targetPort"), errors);
        let application = port.get("appProtocol");
        if application.is_set() {
            errors.each(&application, format::qualified_name(application.str()));
        }
        if spec.get("type").str() == "ClusterIP" && node.int().is_some_and(|n| n != 0) {
            errors.forbidden(&node, "may not be used when `type` is 'ClusterIP'");
        }
        if let Some(n) = node.int().filter(|n| *n != 0)
            && !node_ports.insert((protocol.str(), n))
        {
            errors.duplicate(&node);
        }
        if !numbers.insert((protocol.str(), value)) {
            let key = json!({"Name": "", "Protocol": protocol.str(), "AppProtocol": null, "Port": value, "TargetPort": 0, "NodePort": 0});
            errors.0.push(crate::Cause::duplicate(&*port.path, &key));
        }
    }
}

const MAX_TIMEOUT: i64 = 86_400;

fn session_affinity(spec: &At<'_>, errors: &mut Errors) {
    let (affinity, config) = (spec.get("sessionAffinity"), spec.get("sessionAffinityConfig"));
    match affinity.str() {
        "" => errors.required(&affinity, ""),
        "None" if config.is_set() => errors.forbidden(&config, "must not be set when session affinity is None"),
        "ClientIP" => {
            let seconds = config.at("clientIP.timeoutSeconds");
            match seconds.int() {
                None => errors.required(&seconds, "when session affinity type is ClientIP"),
                Some(n) if !(1..=MAX_TIMEOUT).contains(&n) => {
                    errors.invalid(&seconds, &format!("must be greater than 0 and less than {MAX_TIMEOUT}"));
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

/// ValidateServiceClusterIPsRelatedFields
fn cluster_ips(spec: &At<'_>, errors: &mut Errors) {
    let (ip, list, families) = (spec.get("clusterIP"), spec.get("clusterIPs"), spec.get("ipFamilies"));
    let first = list.items().next();
    match (ip.str(), &first) {
        ("", Some(_)) => errors.invalid(&list, "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(&list, ""),
        (ip, Some(first)) if first.str() != ip => errors.invalid(&list, "first value must match `clusterIP`"),
        _ => {}
    }
    let mut seen = HashSet::new();
    for family in families.items() {
        if !seen.insert(family.str()) {
            errors.duplicate(&family);
        }
    }
    let before = errors.0.len();
    for (at, ip) in list.items().enumerate() {
        if at == 0 && ip.str() == "None" {
            if list.len() > 1 {
                errors.invalid(&list, "'None' must be the first and only value");
            }
            continue;
        }
        errors.each(&ip, format::ip_legacy(ip.str()));
    }
    if list.len() > 2 {
        errors.invalid(&list, "may only hold up to 2 values");
    }
    if errors.0.len() > before || is_headless(spec) {
        return;
    }
    let is_v6 = |ip: &At<'_>| ip.str().parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    if list.len() == 2 {
        let v6 = list.items().filter(is_v6).count();
        if v6 != 1 {
            errors.invalid(&list, "may specify no more than one IP for each IP family");
        }
    }
    for (at, (ip, family)) in list.items().zip(families.items()).enumerate() {
        if (family.str() == "IPv6") != is_v6(&ip) {
            let wanted = if is_v6(&ip) { "an IPv4" } else { "an IPv6" };
            errors.invalid(&ip, &format!("expected {wanted} value as indicated by `ipFamilies[{at}]`"));
        }
    }
}

fn load_balancer(spec: &At<'_>, errors: &mut Errors) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = spec.get("type").str() == "LoadBalancer";
    let ranges = spec.get("loadBalancerSourceRanges").moved("spec.LoadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        errors.forbidden(&ranges, ONLY);
    }
    for range in ranges.items() {
        errors.each(&range, format::cidr_legacy(range.str().trim()));
    }
    let allocate = spec.get("allocateLoadBalancerNodePorts");
    if allocate.is_set() && !balanced {
        errors.forbidden(&allocate, ONLY);
    }
    let class = spec.get("loadBalancerClass");
    match (balanced, class.is_set()) {
        (true, true) => errors.each(&class, format::qualified_name(class.str())),
        (false, true) => errors.forbidden(&class, ONLY),
        _ => {}
    }
}

/// service.NeedsHealthCheck
fn needs_health_check(spec: &At<'_>) -> bool {
    spec.get("type").str() == "LoadBalancer" && spec.get("externalTrafficPolicy").str() == "Local"
}

/// validateServiceExternalTrafficPolicy. The health check's port is not asked for: it is allocated where there is a balancer.
fn traffic(spec: &At<'_>, errors: &mut Errors) {
    let policy = spec.get("externalTrafficPolicy");
    let kind = spec.get("type").str();
    let external = needs_node_port(spec) || kind == "ClusterIP" && !spec.get("externalIPs").is_empty();
    match (external, policy.str()) {
        (true, "") => errors.required(&policy, ""),
        (false, text) if !text.is_empty() => {
            errors.invalid(&policy, "may only be set for externally-accessible services")
        }
        _ => {}
    }
    let health = spec.get("healthCheckNodePort");
    if let Some(n) = health.int().filter(|n| *n != 0) {
        if needs_health_check(spec) {
            errors.each(&health, format::port_number(n));
        } else {
            errors.invalid(
                &health,
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            );
        }
    }
    let internal = spec.get("internalTrafficPolicy");
    if !internal.is_set() && matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.required(&internal, "");
    }
    let distribution = spec.get("trafficDistribution");
    if distribution.is_set() && !matches!(distribution.str(), "PreferClose" | "PreferSameZone" | "PreferSameNode") {
        errors.unsupported(&distribution, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
    }
}

fn update(spec: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    const ONCE: &str = "may not change once set";
    let kinds = [spec.get("type").str(), old.get("type").str()];
    if kinds.contains(&"ExternalName") || is_headless(spec) && is_headless(old) {
        return;
    }
    let (new_ips, old_ips) = (spec.get("clusterIPs"), old.get("clusterIPs"));
    if new_ips.is_empty() && !old_ips.is_empty() {
        errors.invalid_value("spec.clusterIPs[0]", &json!([]), "primary clusterIP can not be unset");
    }
    for (at, (new, old)) in new_ips.items().zip(old_ips.items()).enumerate() {
        if new.str() != old.str() {
            errors.invalid_value(&format!("spec.clusterIPs[{at}]"), new_ips.value, ONCE);
        }
    }
    let (class, old_class) = (spec.get("loadBalancerClass"), old.get("loadBalancerClass"));
    if kinds == ["LoadBalancer", "LoadBalancer"] && class.value != old_class.value {
        errors.invalid_null(&class, ONCE);
    }
    let (health, before) = (spec.get("healthCheckNodePort"), old.get("healthCheckNodePort"));
    if needs_health_check(spec) && needs_health_check(old) && health.int() != before.int() {
        errors.forbidden(&health, "field is immutable");
    }
}

/// ValidateLoadBalancerStatus
pub(super) fn status(new: &At<'_>, errors: &mut Errors) {
    let list = new.at("status.loadBalancer.ingress");
    if new.at("spec.type").str() != "LoadBalancer" && !list.is_empty() {
        errors.forbidden(&list, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for ingress in list.items() {
        let (ip, mode, host) = (ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname"));
        if !ip.str().is_empty() {
            errors.each(&ip, crate::validate::ip_legacy(ip.str()));
        }
        if mode.is_set() && ip.str().is_empty() {
            errors.forbidden(&mode, "may not be specified when `ip` is not set");
        } else if mode.is_set() && !matches!(mode.str(), "VIP" | "Proxy") {
            errors.unsupported(&mode, &["Proxy", "VIP"]);
        }
        if !host.str().is_empty() {
            errors.each(&host, crate::validate::dns1123_subdomain(host.str()));
            if host.str().parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
}
