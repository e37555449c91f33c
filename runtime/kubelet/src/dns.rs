//! A pod's resolver configuration, host name and /etc/hosts. Pure but for the host's resolv.conf, which comes in as
//! text. Behaviour: upstream's pkg/kubelet/network/dns/dns.go and kubelet_pods.go.
use crate::pod::Pod;
use mote_cri::v1::DnsConfig;
use mote_schema::Gather as _;
use std::collections::BTreeMap;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_DOMAIN_CHARS: usize = 253;
const MAX_HOSTNAME_CHARS: usize = 63;
const HOSTS_HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOSTS_HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";

/// The configuration, and messages for DNSConfigForming events about what did not fit.
pub fn config(pod: &Pod, cluster_dns: &str, cluster_domain: &str, host_resolv_conf: &str) -> (DnsConfig, Vec<String>) {
    let mut config = parse(host_resolv_conf);
    let policy = pod.spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    match policy {
        "None" => config = DnsConfig::default(),
        "Default" => {}
        "ClusterFirst" if pod.is_host_network() => {}
        _ => {
            let namespace = &pod.namespace;
            let own =
                [format!("{namespace}.svc.{cluster_domain}"), format!("svc.{cluster_domain}"), cluster_domain.into()];
            config.servers = vec![cluster_dns.into()];
            config.searches.splice(0..0, own);
            unique(&mut config.searches);
            config.options = vec!["ndots:5".into()];
        }
    }
    if let Some(own) = &pod.spec.dns_config {
        config.servers.extend(own.nameservers.iter().flatten().cloned());
        config.searches.extend(own.searches.iter().flatten().cloned());
        unique(&mut config.servers);
        unique(&mut config.searches);
        let mut options: BTreeMap<String, String> = config.options.iter().map(|o| split_option(o)).gather();
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            options.insert(name.clone(), option.value.clone().unwrap_or_default());
        }
        let joined = options.into_iter().map(|(n, v)| if v.is_empty() { n } else { format!("{n}:{v}") });
        config.options = joined.collect();
    }
    let told = fit(&mut config);
    (config, told)
}

fn unique(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

fn split_option(option: &str) -> (String, String) {
    let (name, value) = option.split_once(':').unwrap_or((option, ""));
    (name.into(), value.into())
}

fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    let mut options = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        match fields.next() {
            Some("nameserver") => config.servers.extend(fields.next().map(str::to_owned)),
            Some("search") => {
                let domains = fields.filter(|s| *s != ".").map(|s| s.trim_end_matches('.').to_owned());
                config.searches = domains.collect();
            }
            Some("options") => options.extend(fields.map(|o| (split_option(o).0, o.to_owned()))),
            _ => {}
        }
    }
    config.options = options.into_values().collect();
    config
}

fn fit(config: &mut DnsConfig) -> Vec<String> {
    let mut told = Vec::new();
    if config.servers.len() > MAX_NAMESERVERS {
        config.servers.truncate(MAX_NAMESERVERS);
        let line = config.servers.join(" ");
        told.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {line}"
        ));
    }
    let before = config.searches.len();
    config.searches.truncate(MAX_SEARCHES);
    config.searches.retain(|s| s.len() <= MAX_DOMAIN_CHARS);
    while config.searches.iter().map(|s| s.len() + 1).sum::<usize>() > MAX_SEARCH_CHARS + 1 {
        config.searches.pop();
    }
    if config.searches.len() < before {
        let line = config.searches.join(" ");
        told.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {line}"
        ));
    }
    told
}

/// Host name and domain ("" for none).
pub fn host_name(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let cut = |name: &str| {
        let cut: String = name.chars().take(MAX_HOSTNAME_CHARS).collect();
        if cut.len() < name.len() { cut.trim_end_matches(['-', '.']).to_owned() } else { cut }
    };
    if let Some(name) = &pod.spec.hostname_override {
        return (cut(name), String::new());
    }
    let own = pod.spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(&pod.name);
    let domain = match pod.spec.subdomain.as_deref() {
        None | Some("") => String::new(),
        Some(sub) => format!("{sub}.{}.svc.{cluster_domain}", pod.namespace),
    };
    (cut(own), domain)
}

/// What the kernel is told; the error is upstream's.
pub fn kernel_name(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (name, domain) = host_name(pod, cluster_domain);
    if pod.spec.set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(name);
    }
    let fqdn = format!("{name}.{domain}");
    if fqdn.len() > 64 {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 is the max characters, {} characters requested)",
            fqdn.len()
        ));
    }
    Ok(fqdn)
}

/// /etc/hosts of a pod with a network of its own.
pub fn hosts_file(pod: &Pod, cluster_domain: &str, ips: &[String]) -> String {
    let (name, domain) = host_name(pod, cluster_domain);
    let mut text = format!(
        "{HOSTS_HEADER}127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
    );
    for ip in ips {
        let line =
            if domain.is_empty() { format!("{ip}\t{name}\n") } else { format!("{ip}\t{name}.{domain}\t{name}\n") };
        text.push_str(&line);
    }
    text + &aliases(pod)
}

/// /etc/hosts of a pod on the host's network: the host's own, and the aliases.
pub fn hosts_file_host_network(pod: &Pod, host: &str) -> String {
    format!("{HOSTS_HEADER_HOST_NETWORK}{host}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let aliases = pod.spec.host_aliases.iter().flatten();
    let lines: String =
        aliases.map(|a| format!("{}\t{}\n", a.ip, a.hostnames.as_deref().unwrap_or_default().join("\t"))).collect();
    if lines.is_empty() { lines } else { format!("\n# Entries added by HostAliases.\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pod;
    use mote_schema::{Value, json};

    const HOST: &str = "# c\nnameserver 9.9.9.9\nsearch lan. home\noptions ndots:2 edns0\n";

    fn check(spec: Value, want: (&str, &str, &str)) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let (config, told) = config(&pod(spec.clone()), "10.43.0.10", "cluster.local", HOST);
        let got = (config.servers.join(" "), config.searches.join(" "), config.options.join(" "));
        assert_eq!((got.0.as_str(), got.1.as_str(), got.2.as_str()), want, "{spec}");
        assert!(told.is_empty());
    }

    #[test]
    fn policies() {
        let cluster = "ns.svc.cluster.local svc.cluster.local cluster.local lan home";
        check(json!({}), ("10.43.0.10", cluster, "ndots:5"));
        check(json!({"hostNetwork": true}), ("9.9.9.9", "lan home", "edns0 ndots:2"));
        check(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), ("10.43.0.10", cluster, "ndots:5"));
        check(json!({"dnsPolicy": "Default"}), ("9.9.9.9", "lan home", "edns0 ndots:2"));
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"],
                "options": [{"name": "ndots", "value": "1"}, {"name": "rotate"}]}}),
            ("1.1.1.1", "a", "ndots:1 rotate"),
        );
        check(json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}), ("10.43.0.10", cluster, "ndots:2"));
    }

    #[test]
    fn limits() {
        let spec = json!({"containers": [], "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"]}});
        let (config, told) = config(&pod(spec), "", "", "");
        assert_eq!(config.servers.len(), 3);
        assert!(told[0].ends_with("nameserver line is: 1.1.1.1 2.2.2.2 3.3.3.3"), "{told:?}");
    }

    #[test]
    fn hosts() {
        let p = pod(json!({"containers": [], "hostname": "h", "subdomain": "s",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts_file(&p, "cluster.local", &["10.0.0.1".into()]);
        assert!(text.starts_with(HOSTS_HEADER));
        assert!(
            text.ends_with("10.0.0.1\th.s.ns.svc.cluster.local\th\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
        );
    }
}
