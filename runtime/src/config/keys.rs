//! The table of configuration keys: for each its path, what it expects, how it is set and how it is shown.
use super::{
    Cidr, Component, Config, Etcd, LogLevel, is_subject_alt_name, kubelet, network::is_dns_name, source::Value,
};
use mote_api::audit::Profile;
use mote_kubelet::go_duration;
use std::{net::Ipv4Addr, ops::RangeInclusive, str::FromStr, time::Duration};

pub struct Key {
    pub path: &'static str,
    /// Completes "expected ...".
    expects: &'static str,
    /// None when the value is not what is expected.
    set: fn(&mut Config, &Value) -> Option<()>,
    /// As YAML on one line.
    pub show: fn(&Config) -> String,
}

/// In the order in which they are shown: sections together, by name.
pub const TABLE: &[Key] = &[
    Key {
        path: "apiServer.advertiseAddress",
        expects: "an IPv4 address that pods can reach the API server at",
        set: |config, value| put(&mut config.advertise_address, address(value)),
        show: |config| optional(config.advertise_address),
    },
    Key {
        path: "apiServer.auditLog.maxFileAge",
        expects: "a number of days, 0 for no limit",
        set: |config, value| put(&mut config.audit.max_file_age_days, scalar(value)?.parse().ok()),
        show: |config| config.audit.max_file_age_days.to_string(),
    },
    Key {
        path: "apiServer.auditLog.maxFileSize",
        expects: "a number of megabytes from 1",
        set: |config, value| put(&mut config.audit.max_file_size_mb, number(value, 1..=u32::MAX)),
        show: |config| config.audit.max_file_size_mb.to_string(),
    },
    Key {
        path: "apiServer.auditLog.maxFiles",
        expects: "a number of files, 0 for no limit",
        set: |config, value| put(&mut config.audit.max_files, scalar(value)?.parse().ok()),
        show: |config| config.audit.max_files.to_string(),
    },
    Key {
        path: "apiServer.auditLog.path",
        expects: "an absolute path",
        set: |config, value| put(&mut config.audit.path, path(value)),
        show: |config| quoted(&config.audit.path),
    },
    Key {
        path: "apiServer.auditLog.policyFile",
        expects: "the absolute path of an audit.k8s.io/v1 Policy",
        set: |config, value| put(&mut config.audit.policy_file, path(value)),
        show: |config| quoted(&config.audit.policy_file),
    },
    Key {
        path: "apiServer.auditLog.profile",
        expects: "one of Default, WriteRequestBodies, AllRequestBodies, None",
        set: |config, value| put(&mut config.audit.profile, named(&Profile::ALL, scalar(value)?)),
        show: |config| format!("{:?}", config.audit.profile),
    },
    Key {
        path: "apiServer.encryptionConfig",
        expects: "the absolute path of an EncryptionConfiguration",
        set: |config, value| put(&mut config.encryption_config, path(value)),
        show: |config| quoted(&config.encryption_config),
    },
    Key {
        path: "apiServer.port",
        expects: "a port from 1 to 65535",
        set: |config, value| put(&mut config.api_port, number(value, 1..=u16::MAX)),
        show: |config| config.api_port.to_string(),
    },
    Key {
        path: "apiServer.subjectAltNames",
        expects: "a list of DNS names and IP addresses",
        set: |config, value| {
            let names = list(value)?;
            let good = names.iter().all(|name| is_subject_alt_name(name));
            put(&mut config.subject_alt_names, good.then(|| names.to_vec()))
        },
        show: |config| shown_list(&config.subject_alt_names),
    },
    Key {
        path: "backups.dir",
        expects: "an absolute path",
        set: |config, value| put(&mut config.backups.dir, path(value)),
        show: |config| quoted(&config.backups.dir),
    },
    Key {
        path: "backups.everyHours",
        expects: "a number of hours up to 8760, 0 for never",
        set: |config, value| put(&mut config.backups.every_hours, number(value, 0..=8760)),
        show: |config| config.backups.every_hours.to_string(),
    },
    Key {
        path: "backups.healthyAfterSeconds",
        expects: "a number of seconds from 1 to 86400",
        set: |config, value| put(&mut config.backups.healthy_after_seconds, number(value, 1..=86400)),
        show: |config| config.backups.healthy_after_seconds.to_string(),
    },
    Key {
        path: "backups.keep",
        expects: "a number up to 100, 0 for no backups",
        set: |config, value| put(&mut config.backups.keep, number(value, 0..=100)),
        show: |config| config.backups.keep.to_string(),
    },
    Key {
        path: "backups.maxSizeMB",
        expects: "a number of megabytes up to 1000000",
        set: |config, value| put(&mut config.backups.max_size_mb, number(value, 0..=1_000_000)),
        show: |config| config.backups.max_size_mb.to_string(),
    },
    Key {
        path: "backups.onDamage",
        expects: "Repair or Report",
        set: |config, value| {
            put(&mut config.backups.repair, named(&[("Repair", true), ("Report", false)], scalar(value)?))
        },
        show: |config| if config.backups.repair { "Repair" } else { "Report" }.to_owned(),
    },
    Key {
        path: "backups.onFailedOpen",
        expects: "Restore or Stop",
        set: |config, value| {
            put(&mut config.backups.restore, named(&[("Restore", true), ("Stop", false)], scalar(value)?))
        },
        show: |config| if config.backups.restore { "Restore" } else { "Stop" }.to_owned(),
    },
    Key {
        path: "backups.scrubMBPerDay",
        expects: "a number of megabytes up to 100000, 0 for none",
        set: |config, value| put(&mut config.backups.scrub_mb_per_day, number(value, 0..=100_000)),
        show: |config| config.backups.scrub_mb_per_day.to_string(),
    },
    Key {
        path: "backups.slotFile",
        expects: "an absolute path",
        set: |config, value| put(&mut config.backups.slot_file, path(value)),
        show: |config| quoted(&config.backups.slot_file),
    },
    Key {
        path: "board",
        expects: "the name of a board's profile",
        set: |config, value| {
            let name = scalar(value)?;
            config.board = match name {
                "" => None,
                _ => Some(mote_boards::named(name)?.name.to_owned()),
            };
            Some(())
        },
        show: |config| quoted(config.board.as_deref().unwrap_or_default()),
    },
    Key {
        path: "components.disabled",
        expects: "any of scheduler, controllers, kubelet, network, proxy, dns",
        set: |config, value| {
            let names = list(value)?.iter();
            put(&mut config.disabled, names.map(|name| named(&Component::ALL, name)).collect())
        },
        show: |config| {
            let disabled = Component::ALL.iter().filter(|(_, component)| !config.runs(*component));
            shown_list(&disabled.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>())
        },
    },
    Key {
        path: "debugging.logLevel",
        expects: "one of Normal, Debug, Trace, TraceAll",
        set: |config, value| put(&mut config.log_level, named(&LogLevel::ALL, scalar(value)?)),
        show: |config| format!("{:?}", config.log_level),
    },
    Key {
        path: "dns.baseDomain",
        expects: "a DNS name",
        set: |config, value| {
            let name = scalar(value).filter(|name| is_dns_name(name));
            put(&mut config.base_domain, name.map(str::to_owned))
        },
        show: |config| quoted(&config.base_domain),
    },
    Key {
        path: "kubelet.evictionHard",
        expects: kubelet::EXPECTS_AMOUNT,
        set: |config, value| kubelet::set_amount(&mut config.eviction.hard, value),
        show: |config| kubelet::shown(&config.eviction.hard),
    },
    Key {
        path: "kubelet.evictionMaxPodGracePeriod",
        expects: "a number of seconds up to 86400",
        set: |config, value| put(&mut config.eviction.max_pod_grace_seconds, number(value, 0..=86400)),
        show: |config| config.eviction.max_pod_grace_seconds.to_string(),
    },
    Key {
        path: "kubelet.evictionMinimumReclaim",
        expects: kubelet::EXPECTS_AMOUNT,
        set: |config, value| kubelet::set_amount(&mut config.eviction.minimum_reclaim, value),
        show: |config| kubelet::shown(&config.eviction.minimum_reclaim),
    },
    Key {
        path: "kubelet.evictionPressureTransitionPeriod",
        expects: kubelet::EXPECTS_TIME,
        set: |config, value| put(&mut config.eviction.pressure_transition, kubelet::time(scalar(value)?)),
        show: |config| go_duration(config.eviction.pressure_transition),
    },
    Key {
        path: "kubelet.evictionSoft",
        expects: kubelet::EXPECTS_AMOUNT,
        set: |config, value| kubelet::set_amount(&mut config.eviction.soft, value),
        show: |config| kubelet::shown(&config.eviction.soft),
    },
    Key {
        path: "kubelet.evictionSoftGracePeriod",
        expects: kubelet::EXPECTS_TIME,
        set: |config, value| kubelet::set_entry(&mut config.eviction.soft_grace, value, kubelet::time),
        show: |config| kubelet::shown(&config.eviction.soft_grace.map(|time| time.map(go_duration))),
    },
    Key {
        path: "kubelet.port",
        expects: "a port, 0 for none",
        set: |config, value| put(&mut config.kubelet_port, scalar(value)?.parse().ok()),
        show: |config| config.kubelet_port.to_string(),
    },
    Key {
        path: "manifests.paths",
        expects: "a list of absolute paths of directories",
        set: |config, value| {
            let paths = list(value)?;
            put(&mut config.manifests, paths.iter().all(|path| path.starts_with('/')).then(|| paths.to_vec()))
        },
        show: |config| shown_list(&config.manifests),
    },
    Key {
        path: "network.clusterNetwork",
        expects: "a list of one IPv4 block from /8 to /28, such as 10.42.0.0/16",
        set: |config, value| put(&mut config.cluster_network, block(value, 8, 28)),
        show: |config| shown_list(&[config.cluster_network.to_string()]),
    },
    Key {
        path: "network.serviceNetwork",
        // Upstream's allocator takes no more than 20 bits of host part (pkg/controlplane/apiserver/options).
        expects: "a list of one IPv4 block from /12 to /28, such as 10.43.0.0/16",
        set: |config, value| put(&mut config.service_network, block(value, 12, 28)),
        show: |config| shown_list(&[config.service_network.to_string()]),
    },
    Key {
        path: "network.serviceNodePortRange",
        expects: "a range of ports, such as 30000-32767",
        set: |config, value| {
            let (first, last) = scalar(value)?.split_once('-')?;
            let range = first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?;
            let good = *range.start() > 0 && range.start() <= range.end();
            put(&mut config.node_port_range, good.then_some(range))
        },
        show: |config| format!("{}-{}", config.node_port_range.start(), config.node_port_range.end()),
    },
    Key {
        path: "node.hostnameOverride",
        expects: "a DNS name of at most 63 characters, in lower case",
        set: |config, value| {
            let name = scalar(value).filter(|name| name.is_empty() || is_dns_name(name) && name.len() <= 63);
            put(&mut config.hostname_override, name.map(str::to_owned))
        },
        show: |config| quoted(&config.hostname_override),
    },
    Key {
        path: "node.nodeIP",
        expects: "an IPv4 address of this machine",
        set: |config, value| put(&mut config.node_ip, address(value)),
        show: |config| optional(config.node_ip),
    },
    Key {
        path: "runtime.endpoint",
        expects: "a socket's absolute path, such as unix:///run/crio/crio.sock",
        set: |config, value| {
            let text = scalar(value)?;
            let path = text.strip_prefix("unix://").unwrap_or(text);
            // sun_path of unix(7) holds 108 bytes with its end.
            let good = path.is_empty() || path.starts_with('/') && path.len() < 108;
            put(&mut config.runtime_endpoint, good.then(|| text.to_owned()))
        },
        show: |config| quoted(&config.runtime_endpoint),
    },
    Key {
        path: "store.etcd.caFile",
        expects: "the absolute path of a PEM file",
        set: |config, value| put(&mut config.etcd.ca_file, path(value)),
        show: |config| quoted(&config.etcd.ca_file),
    },
    Key {
        path: "store.etcd.certFile",
        expects: "the absolute path of a PEM file",
        set: |config, value| put(&mut config.etcd.cert_file, path(value)),
        show: |config| quoted(&config.etcd.cert_file),
    },
    Key {
        path: "store.etcd.endpoints",
        expects: "a list of URLs, such as https://10.0.0.1:2379",
        set: |config, value| put(&mut config.etcd.endpoints, Etcd::endpoints(list(value)?)),
        show: |config| shown_list(&config.etcd.endpoints),
    },
    Key {
        path: "store.etcd.keyFile",
        expects: "the absolute path of a PEM file",
        set: |config, value| put(&mut config.etcd.key_file, path(value)),
        show: |config| quoted(&config.etcd.key_file),
    },
    Key {
        path: "store.etcd.passwordFile",
        expects: "the absolute path of a file with a password",
        set: |config, value| put(&mut config.etcd.password_file, path(value)),
        show: |config| quoted(&config.etcd.password_file),
    },
    Key {
        path: "store.etcd.prefix",
        expects: "what keys begin with, such as /registry",
        set: |config, value| put(&mut config.etcd.prefix, path(value).filter(|prefix| prefix.len() > 1)),
        show: |config| quoted(&config.etcd.prefix),
    },
    Key {
        path: "store.etcd.username",
        expects: "the name of a user of etcd's",
        set: |config, value| put(&mut config.etcd.username, scalar(value).map(str::to_owned)),
        show: |config| quoted(&config.etcd.username),
    },
    Key {
        path: "store.eventTTL",
        expects: "a duration from 1m to 8760h, such as 1h or 90m",
        set: |config, value| {
            let ttl = duration(scalar(value)?).filter(|ttl| (60..=8760 * 3600).contains(&ttl.as_secs()));
            put(&mut config.volatile.event_ttl, ttl)
        },
        show: |config| go_duration(config.volatile.event_ttl),
    },
    Key {
        path: "store.persist",
        expects: "any of events, leases, heartbeats",
        set: |config, value| {
            let mut set = mote_api::Volatile { event_ttl: config.volatile.event_ttl, ..Default::default() };
            for name in list(value)? {
                *PERSIST.iter().find(|(known, _)| known == name)?.1(&mut set) = true;
            }
            config.volatile = set;
            Some(())
        },
        show: |config| {
            let mut volatile = config.volatile;
            let persist = PERSIST.iter().filter(|(_, place)| *place(&mut volatile));
            shown_list(&persist.map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>())
        },
    },
    Key {
        path: "threads",
        expects: "a number from 1 to 16",
        set: |config, value| {
            config.threads = match scalar(value)? {
                "" => None,
                _ => Some(number(value, 1..=16)?),
            };
            Some(())
        },
        show: |config| config.threads.map_or_else(|| quoted(""), |threads| threads.to_string()),
    },
];

fn number<T: FromStr + PartialOrd>(value: &Value, range: RangeInclusive<T>) -> Option<T> {
    scalar(value)?.parse().ok().filter(|number| range.contains(number))
}

type Persisted = fn(&mut mote_api::Volatile) -> &mut bool;

/// What is volatile unless it is named.
const PERSIST: [(&str, Persisted); 3] = [
    ("events", |volatile| &mut volatile.persist_events),
    ("leases", |volatile| &mut volatile.persist_leases),
    ("heartbeats", |volatile| &mut volatile.persist_heartbeats),
];

/// As Go writes one, in whole hours, minutes and seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut number) = (0u64, None::<u64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Sets one key; answers with its name from the table, or with what is wrong. An empty value changes nothing.
pub fn set(config: &mut Config, path: &str, value: &Value) -> Result<&'static str, String> {
    let Some(key) = TABLE.iter().find(|key| key.path == path) else {
        return match (map_above(path), value) {
            (Some((key, _)), Value::Empty) => Ok(key.path),
            (Some((key, name)), Value::Scalar(text)) => {
                let entry = Value::List(vec![name.to_owned(), text.clone()]);
                let wrong = || format!("{path}: expected {}, found {text:?}", key.expects);
                (key.set)(config, &entry).map(|()| key.path).ok_or_else(wrong)
            }
            _ => unknown(path, value),
        };
    };
    if *value == Value::Empty || (key.set)(config, value).is_some() {
        return Ok(key.path);
    }
    let found = match value {
        Value::Empty => "nothing".to_owned(),
        Value::Scalar(text) => format!("{text:?}"),
        Value::List(_) if !(key.show)(config).starts_with('[') => "a list".to_owned(),
        Value::List(items) => {
            // The item to blame is the first that is wrong alone.
            let wrong =
                |item: &&String| (key.set)(&mut Config::default(), &Value::List(vec![item.to_string()])).is_none();
            items.iter().find(wrong).map_or_else(|| format!("{} items", items.len()), |item| format!("{item:?}"))
        }
    };
    Err(format!("{path}: expected {}, found {found}", key.expects))
}

/// The key that is a map of names of its own, and the name, which may have dots.
fn map_above(path: &str) -> Option<(&'static Key, &str)> {
    let is_map = |key: &&Key| (key.show)(&Config::default()).starts_with('{');
    TABLE.iter().filter(is_map).find_map(|key| Some((key, path.strip_prefix(key.path)?.strip_prefix('.')?)))
}

fn unknown(path: &str, value: &Value) -> Result<&'static str, String> {
    // What may stand right below a section.
    let children = |section: &str| -> Vec<&'static str> {
        let below = TABLE.iter().filter_map(|key| key.path.strip_prefix(section)?.strip_prefix('.'));
        let mut names: Vec<_> = below.map(|rest| rest.split('.').next().unwrap_or(rest)).collect();
        names.dedup();
        names
    };
    let section = path.rsplit_once('.').map_or(path, |(parent, _)| parent);
    let section = if children(path).is_empty() { section } else { path };
    let section = if children(section).is_empty() { path.split('.').next().unwrap_or_default() } else { section };
    let known = children(section);
    if known.is_empty() {
        let mut sections: Vec<_> = TABLE.iter().filter_map(|key| key.path.split('.').next()).collect();
        sections.dedup();
        return Err(format!("{path}: unknown key; there are {}", sections.join(", ")));
    }
    match value {
        // `node:` with nothing below it.
        Value::Empty if section == path => {
            Ok(TABLE.iter().find(|key| key.path.starts_with(section)).map_or("", |key| key.path))
        }
        _ if section == path => Err(format!("{path}: expected keys below it: {}", known.join(", "))),
        _ => Err(format!("{path}: unknown key; {section} has {}", known.join(", "))),
    }
}

/// What is wrong only when several keys are seen together; each is blamed on one key.
pub fn conflicts(config: &Config) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let (cluster, service) = (config.cluster_network, config.service_network);
    if cluster.overlaps(service) {
        found.push(("network.clusterNetwork", format!("{cluster} overlaps network.serviceNetwork {service}")));
    }
    if config.node_port_range.contains(&config.api_port) {
        let (first, last) = (config.node_port_range.start(), config.node_port_range.end());
        found
            .push(("apiServer.port", format!("{} is in network.serviceNodePortRange {first}-{last}", config.api_port)));
    }
    if let Err(error) = config.audit.policy() {
        found.push(("apiServer.auditLog.policyFile", format!("{}: {error}", config.audit.policy_file)));
    }
    found.extend(kubelet::conflict(&config.eviction).map(|what| ("kubelet.evictionSoft", what)));
    let file = std::path::Path::new(&config.encryption_config);
    if !config.encryption_config.is_empty()
        && let Err(error) = mote_api::encryption::Keys::read(file)
    {
        found.push(("apiServer.encryptionConfig", error));
    }
    found.extend(config.etcd.conflict().map(|(path, why)| (path, why.to_owned())));
    #[cfg(not(feature = "etcd"))]
    if config.etcd.is_used() {
        found.push(("store.etcd.endpoints", "this build of mote has no etcd in it".to_owned()));
    }
    for (key, address) in [("node.nodeIP", config.node_ip), ("apiServer.advertiseAddress", config.advertise_address)] {
        for (name, network) in [("clusterNetwork", cluster), ("serviceNetwork", service)] {
            if let Some(address) = address.filter(|address| network.contains(*address)) {
                found.push((key, format!("{address} is in network.{name} {network}")));
            }
        }
    }
    found
}

fn put<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

fn scalar(value: &Value) -> Option<&str> {
    match value {
        Value::Scalar(text) => Some(text),
        Value::Empty | Value::List(_) => None,
    }
}

fn list(value: &Value) -> Option<&[String]> {
    match value {
        Value::List(items) => Some(items),
        Value::Empty | Value::Scalar(_) => None,
    }
}

/// An address that others can use, or "" for one to be found.
fn address(value: &Value) -> Option<Option<Ipv4Addr>> {
    let text = scalar(value)?;
    if text.is_empty() {
        return Some(None);
    }
    let address: Ipv4Addr = text.parse().ok()?;
    let usable =
        !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || address.is_broadcast());
    usable.then_some(Some(address))
}

fn path(value: &Value) -> Option<String> {
    let path = scalar(value)?;
    (path.is_empty() || path.starts_with('/')).then(|| path.to_owned())
}

fn block(value: &Value, shortest: u8, longest: u8) -> Option<Cidr> {
    let [text] = list(value)? else { return None };
    Cidr::parse(text).filter(|cidr| (shortest..=longest).contains(&cidr.prefix))
}

fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn optional(address: Option<Ipv4Addr>) -> String {
    address.map_or_else(|| quoted(""), |address| address.to_string())
}

fn shown_list(items: &[String]) -> String {
    format!("[{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
}
