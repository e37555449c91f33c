//! Ingress, NetworkPolicy, Endpoints and EndpointSlices (pkg/apis/{networking,discovery,core}/validation).
use super::{
    at::{At, Errors},
    meta,
    rules::rules,
};
use crate::{Cause, Value, validate as format};
use std::{collections::HashSet, net::IpAddr};

pub(super) fn ingress(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !backend.is_set() {
        errors.0.push(Cause::invalid(&*spec.path, rules.value, "either `defaultBackend` or `rules` must be specified"));
    }
    if backend.is_set() {
        ingress_backend(&backend, errors);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if !host.str().is_empty() {
            if host.str().parse::<IpAddr>().is_ok() {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
            host_name(&host, errors);
        }
        let http = rule.get("http");
        if !http.is_set() {
            continue;
        }
        if http.get("paths").is_empty() {
            errors.required(&http.get("paths"), "");
        }
        for path in http.get("paths").items() {
            ingress_path(&path, errors);
        }
    }
    for tls in spec.get("tls").items() {
        for host in tls.get("hosts").items() {
            host_name(&host, errors);
        }
        let secret = tls.get("secretName");
        if !secret.str().is_empty() {
            errors.each(&secret, format::dns1123_subdomain(secret.str()));
        }
    }
    let class = spec.get("ingressClassName");
    if class.is_set() {
        errors.each(&class, format::dns1123_subdomain(class.str()));
    }
    let annotation = new.at("metadata.annotations").key(CLASS_ANNOTATION);
    if old.is_none() && annotation.is_set() && class.is_set() && annotation.str() != class.str() {
        let path = format!("annotations.{CLASS_ANNOTATION}");
        errors.invalid_value(&path, annotation.value, "must match `ingressClassName` when both are specified");
    }
}

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// ValidateIngressLoadBalancerStatus; a Service's has more.
pub(super) fn ingress_status(status: &At<'_>, errors: &mut Errors) {
    for entry in status.get("ingress").items() {
        let (ip, host) = (entry.get("ip"), entry.get("hostname"));
        if !ip.str().is_empty() {
            errors.each(&ip, format::ip_legacy(ip.str()));
        }
        if !host.str().is_empty() {
            errors.each(&host, format::dns1123_subdomain(host.str()));
            if format::is_ip(host.str()) {
                errors.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
}

fn host_name(host: &At<'_>, errors: &mut Errors) {
    let messages = if host.str().contains('*') {
        format::wildcard_dns1123_subdomain(host.str())
    } else {
        format::dns1123_subdomain(host.str())
    };
    errors.each(host, messages);
}

fn ingress_path(path: &At<'_>, errors: &mut Errors) {
    let (kind, text) = (path.get("pathType"), path.get("path"));
    if !kind.is_set() {
        return errors.required(&kind, "pathType must be specified");
    }
    let absolute = text.str().starts_with('/');
    match kind.str() {
        "Exact" | "Prefix" => {
            if !absolute {
                errors.invalid(&text, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|s| text.str().contains(**s)) {
                errors.invalid(&text, &format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].iter().filter(|s| text.str().ends_with(**s)) {
                errors.invalid(&text, &format!("cannot end with '{suffix}'"));
            }
        }
        "ImplementationSpecific" if !text.str().is_empty() && !absolute => {
            errors.invalid(&text, "must be an absolute path");
        }
        "ImplementationSpecific" => {}
        _ => errors.unsupported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    ingress_backend(&path.get("backend"), errors);
}

fn ingress_backend(at: &At<'_>, errors: &mut Errors) {
    let (resource, service) = (at.get("resource"), at.get("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => errors.invalid_value(&at.path, &Value::Null, "cannot set both resource and service backends"),
        (true, false) => reference(&resource, errors),
        (false, true) => {
            let name = service.get("name");
            match name.str() {
                "" => errors.required(&name, ""),
                text => errors.each(&name, format::dns1123_label(text)),
            }
            let (port, number) = (service.at("port.name"), service.at("port.number"));
            match (port.str(), number.int().unwrap_or(0)) {
                ("", 0) => errors.required(at, "port name or number is required"),
                ("", n) => errors.each(&number, format::port_number(n)),
                (text, 0) => errors.each(&port, format::port_name(text)),
                _ => errors.invalid_value(&at.path, &Value::Null, "cannot set both port name & port number"),
            }
        }
        (false, false) => errors.invalid_value(&at.path, &Value::Null, "resource or service backend is required"),
    }
}

/// A typed reference: kind and name, and a group that is a domain.
fn reference(at: &At<'_>, errors: &mut Errors) {
    let group = at.get("apiGroup");
    if group.is_set() {
        errors.each(&group, format::dns1123_subdomain(group.str()));
    }
    for field in ["kind", "name"] {
        let at = at.get(field);
        match at.str() {
            "" => errors.required(&at, ""),
            text => errors.each(&at, format::path_segment_name(text)),
        }
    }
}

pub(super) fn ingress_class(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let controller = new.at("spec.controller");
    if controller.str().len() > 250 {
        errors.too_long(&controller, 250);
    }
    rules(new, "spec.controller!domain-path", errors);
    if let Some(old) = old {
        errors.immutable(&controller, &old.at("spec.controller"));
    }
    let parameters = new.at("spec.parameters");
    if parameters.is_set() {
        reference(&parameters, errors);
        let (scope, namespace) = (parameters.get("scope"), parameters.get("namespace"));
        match scope.str() {
            _ if !scope.is_set() => errors.required(&scope, ""),
            "Namespace" if !namespace.is_set() => {
                errors.required(&namespace, "`parameters.scope` is set to 'Namespace'");
            }
            "Namespace" => errors.each(&namespace, format::dns1123_label(namespace.str())),
            "Cluster" if namespace.is_set() => {
                errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'");
            }
            "Cluster" => {}
            _ => errors.unsupported(&scope, &["Cluster", "Namespace"]),
        }
    }
}

pub(super) fn network_policy(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    meta::label_selector(&spec.get("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.get(direction).items() {
            for port in rule.get("ports").items() {
                policy_port(&port, errors);
            }
            for peer in rule.get(peers).items() {
                policy_peer(&peer, errors);
            }
        }
    }
    let types = spec.get("policyTypes");
    if types.len() > 2 {
        errors.invalid(&types, "may not specify more than two policyTypes");
    }
}

fn policy_port(at: &At<'_>, errors: &mut Errors) {
    rules(at, "protocol?=TCP|UDP|SCTP", errors);
    let (port, end) = (at.get("port"), at.get("endPort"));
    match (port.value, end.int()) {
        (Value::Null, Some(_)) => errors.invalid(&end, "may not be specified when `port` is not specified"),
        (Value::Null, None) => {}
        (Value::String(name), end_port) => {
            if end_port.is_some() {
                errors.invalid(&end, "may not be specified when `port` is non-numeric");
            }
            errors.each(&port, format::port_name(name));
        }
        (_, end_port) => {
            let number = port.int().unwrap_or(0);
            errors.each(&port, format::port_number(number));
            if let Some(last) = end_port {
                if last < number {
                    errors.invalid_value(&end.path, port.value, "must be greater than or equal to `port`");
                }
                errors.each(&end, format::port_number(last));
            }
        }
    }
}

fn policy_peer(peer: &At<'_>, errors: &mut Errors) {
    let (block, mut others) = (peer.get("ipBlock"), 0);
    for field in ["podSelector", "namespaceSelector"] {
        let selector = peer.get(field);
        if selector.is_set() {
            others += 1;
            meta::label_selector(&selector, errors);
        }
    }
    match (block.is_set(), others) {
        (false, 0) => errors.required(peer, "must specify a peer"),
        (true, 1..) => errors.forbidden(peer, "may not specify both ipBlock and another peer"),
        _ => {}
    }
    if !block.is_set() {
        return;
    }
    let cidr = block.get("cidr");
    if cidr.str().is_empty() {
        return errors.required(&cidr, "");
    }
    errors.each(&cidr, format::cidr_legacy(cidr.str()));
    let Some((network, bits)) = parse_cidr(cidr.str()) else { return };
    for except in block.get("except").items() {
        errors.each(&except, format::cidr_legacy(except.str()));
        if let Some((inner, inner_bits)) = parse_cidr(except.str())
            && (inner_bits <= bits || !contains(network, bits, inner))
        {
            errors.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (ip, bits) = text.split_once('/')?;
    let (ip, bits): (IpAddr, u32) = (ip.parse().ok()?, bits.parse().ok()?);
    (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, bits))
}

fn contains(network: IpAddr, bits: u32, ip: IpAddr) -> bool {
    let (a, b, width) = match (network, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    bits == 0 || (a ^ b) >> (width - bits) == 0
}

/// ValidateEndpointIP
pub(super) fn endpoint_ip(at: &At<'_>, errors: &mut Errors) {
    errors.each(at, format::ip_legacy(at.str()));
    if let Ok(ip) = at.str().parse::<IpAddr>() {
        special_ip(ip, at, errors);
    }
}

/// ValidateNonSpecialIP
fn special_ip(ip: IpAddr, at: &At<'_>, errors: &mut Errors) {
    let (link_local, multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        errors.invalid(at, &format!("may not be unspecified ({})", at.str()));
    }
    if ip.is_loopback() {
        errors.invalid(at, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(at, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(at, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub(super) fn endpoints(new: &At<'_>, errors: &mut Errors) {
    for subset in new.get("subsets").items() {
        let (ready, not_ready, ports) = (subset.get("addresses"), subset.get("notReadyAddresses"), subset.get("ports"));
        if ready.is_empty() && not_ready.is_empty() {
            errors.required(&subset, "must specify `addresses` or `notReadyAddresses`");
        }
        for address in ready.items().chain(not_ready.items()) {
            let ip = address.get("ip");
            errors.each(&ip, format::ip_legacy(ip.str()));
            let host = address.get("hostname");
            if !host.str().is_empty() {
                errors.each(&host, format::dns1123_label(host.str()));
            }
            let node = address.get("nodeName");
            if node.is_set() {
                errors.each(&node, format::dns1123_subdomain(node.str()));
            }
            match ip.str().parse() {
                Ok(special) => special_ip(special, &ip, errors),
                Err(_) => errors.invalid(&ip, "must be a valid IP address"),
            }
        }
        for port in ports.items() {
            let (name, number) = (port.get("name"), port.get("port"));
            match name.str() {
                "" if ports.len() > 1 => errors.required(&name, ""),
                "" => {}
                text => errors.each(&name, format::dns1123_label(text)),
            }
            let value = number.int().unwrap_or(0);
            for message in format::port_number(value) {
                errors.invalid_value(&number.path, &Value::from(value), &message);
            }
            rules(&port, "protocol?=SCTP|TCP|UDP appProtocol~qualified", errors);
        }
    }
}

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

pub(super) fn endpoint_slice(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let kind = new.get("addressType");
    match kind.str() {
        "" => errors.required(&kind, ""),
        "FQDN" | "IPv4" | "IPv6" => {}
        _ => errors.unsupported(&kind, &["FQDN", "IPv4", "IPv6"]),
    }
    let endpoints = new.get("endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.0.push(Cause::too_many(&*endpoints.path, endpoints.len(), MAX_ENDPOINTS));
    } else {
        for endpoint in endpoints.items() {
            slice_endpoint(&endpoint, kind.str(), errors);
        }
    }
    let ports = new.get("ports");
    if ports.len() > MAX_PORTS {
        return errors.0.push(Cause::too_many(&*ports.path, ports.len(), MAX_PORTS));
    }
    let mut names = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.str().is_empty() {
            errors.each(&name, format::dns1123_label(name.str()));
        }
        if !names.insert(name.str()) {
            errors.duplicate(&name);
        }
        let application = port.get("appProtocol");
        if application.is_set() {
            errors.each(&application, format::qualified_name(application.str()));
        }
    }
    if let Some(old) = old {
        errors.immutable(&kind, &old.get("addressType"));
    }
}

fn slice_endpoint(endpoint: &At<'_>, kind: &str, errors: &mut Errors) {
    for (list, is_zone) in [("hints.forZones", true), ("hints.forNodes", false)] {
        let mut seen = HashSet::new();
        for name in endpoint.at(list).items().map(|hint| hint.get("name")) {
            let text = name.str();
            errors.each(&name, if is_zone { format::label_value(text) } else { format::dns1123_subdomain(text) });
            if !seen.insert(text) {
                errors.duplicate(&name);
            }
        }
    }
    let addresses = endpoint.get("addresses");
    match addresses.len() {
        0 => errors.required(&addresses, "must contain at least 1 address"),
        n if n > MAX_ADDRESSES => errors.0.push(Cause::too_many(&*addresses.path, n, MAX_ADDRESSES)),
        _ => {}
    }
    for address in addresses.items() {
        let ip = address.str().parse::<IpAddr>();
        match (kind, ip) {
            ("FQDN", _) => {
                let name = address.str();
                let wrong = format::dns1123_subdomain(name.strip_suffix('.').unwrap_or(name));
                if name.is_empty() {
                    errors.required(&address, "");
                } else if !wrong.is_empty() {
                    errors.invalid(&address, &wrong.join(","));
                } else if !name.trim_end_matches('.').contains('.') {
                    errors.invalid(&address, "should be a domain with at least two segments separated by dots");
                }
            }
            (_, Err(_)) => errors.each(&address, format::ip(address.str())),
            (_, Ok(ip)) => {
                if (kind == "IPv6") != ip.is_ipv6() {
                    let detail = format!("must be an {kind} address");
                    errors.invalid_value(&addresses.path, address.value, &detail);
                }
                errors.each(&address, format::ip(address.str()));
                special_ip(ip, &address, errors);
            }
        }
    }
    let (node, host) = (endpoint.get("nodeName"), endpoint.get("hostname"));
    if node.is_set() {
        errors.each(&node, format::dns1123_subdomain(node.str()));
    }
    if host.is_set() {
        errors.each(&host, format::dns1123_label(host.str()));
    }
    meta::labels(&endpoint.get("deprecatedTopology"), errors);
}
