//! What pods and pod templates are warned of (pkg/api/pod/warnings.go).
use super::{
    at::At,
    warnings::{VOLUMES, Warnings, node_label, volumes},
};
use std::collections::HashMap;

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const USE_SECCOMP: &str = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
const USE_APPARMOR: &str = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;
const MATCHES_NONE: &str = "a null labelSelector results in matching no pod";
const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

pub(super) fn template(at: &At<'_>, said: &mut Warnings) {
    pod(&at.get("spec"), &at.at("metadata.annotations"), true, said);
}

pub(super) fn pod(spec: &At<'_>, annotations: &At<'_>, is_template: bool, said: &mut Warnings) {
    let selector = spec.get("nodeSelector");
    for (key, text) in selector.members().filter_map(|(key, _)| Some((key, node_label(key)?))) {
        said.add(&selector.key(key), text);
    }
    let affinity = spec.get("affinity");
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let nodes = affinity.get("nodeAffinity");
    nodes.get(required).get("nodeSelectorTerms").items().for_each(|term| said.node_term(&term, false));
    nodes.get(preferred).items().for_each(|term| said.node_term(&term.get("preference"), true));
    for constraint in spec.get("topologySpreadConstraints").items() {
        said.label_key(&constraint.get("topologyKey"));
        selects_something(&constraint, said);
    }
    for (key, text) in ANNOTATIONS {
        if annotations.key(key).is_set() {
            said.add(&annotations.key(key), text);
        }
    }
    for volume in spec.get("volumes").items() {
        volumes(&volume, VOLUMES, said);
        let template = volume.at("ephemeral.volumeClaimTemplate");
        if template.is_set() {
            said.claim(&template.get("spec"));
        }
    }
    spec.get("volumes").items().for_each(|volume| overlaps(&volume, said));
    twice(&spec.get("hostAliases"), "ip", said);
    let secrets = spec.get("imagePullSecrets");
    twice(&secrets, "name", said);
    for name in secrets.items().map(|secret| secret.get("name")).filter(|name| name.str().is_empty()) {
        said.add(&name, r#"invalid empty name """#);
    }
    BYTES.iter().for_each(|resource| said.fraction(&spec.get("overhead"), resource));
    if !spec.at("securityContext.seccompProfile").is_set() && annotations.key(SECCOMP_POD).is_set() {
        said.add(&annotations.key(SECCOMP_POD), USE_SECCOMP);
    }
    containers(spec).for_each(|at| container(&at, spec, annotations, is_template, said));
    ports(spec, said);
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds < 0) {
        said.add(&grace, "must be >= 0; negative values are invalid and will be treated as 1");
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.get(kind);
        terms.get(required).items().for_each(|term| selects_something(&term, said));
        terms.get(preferred).items().for_each(|term| selects_something(&term.get("podAffinityTerm"), said));
    }
    spec.at("dnsConfig.nameservers").items().for_each(|server| said.ip(&server));
    spec.get("hostAliases").items().for_each(|alias| said.ip(&alias.get("ip")));
}

/// pods.VisitContainersWithPath
fn containers<'v>(spec: &At<'v>) -> impl Iterator<Item = At<'v>> + use<'v> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].map(|list| spec.get(list));
    lists.into_iter().flat_map(|list| list.items())
}

fn selects_something(term: &At<'_>, said: &mut Warnings) {
    if !term.get("labelSelector").is_set() {
        said.add(&term.get("labelSelector"), MATCHES_NONE);
    }
}

fn twice(list: &At<'_>, field: &str, said: &mut Warnings) {
    let mut seen = Vec::new();
    for at in list.items().map(|item| item.get(field)) {
        if seen.contains(&at.str()) {
            said.add(&at, &format!("duplicate {field} {:?}", at.str()));
        } else {
            seen.push(at.str());
        }
    }
}

fn container(at: &At<'_>, spec: &At<'_>, annotations: &At<'_>, is_template: bool, said: &mut Warnings) {
    let name = at.get("name").str();
    let seccomp = annotations.key(&[SECCOMP_CONTAINER, name].concat());
    if seccomp.is_set() && !at.at("securityContext.seccompProfile").is_set() {
        said.add(&seccomp, USE_SECCOMP);
    }
    let apparmor = annotations.key(&[APPARMOR_CONTAINER, name].concat());
    if is_template && apparmor.is_set() && !at.at("securityContext.appArmorProfile").is_set() {
        let of_pod = spec.at("securityContext.appArmorProfile");
        let named = match (of_pod.get("type").str(), of_pod.get("localhostProfile").str()) {
            ("Unconfined", _) => "unconfined".to_owned(),
            ("RuntimeDefault", _) => "runtime/default".to_owned(),
            ("Localhost", profile) => ["localhost/", profile].concat(),
            _ => String::new(),
        };
        if named != apparmor.str() {
            said.add(&apparmor, USE_APPARMOR);
        }
    }
    for resource in BYTES {
        for list in ["limits", "requests"] {
            said.fraction(&at.get("resources").get(list), resource);
        }
    }
    let mut seen = Vec::new();
    for variable in at.get("env").items() {
        let name = variable.get("name").str();
        let (reference, value) = (format!("$({name})"), variable.get("value").str());
        if !seen.contains(&name) {
            seen.push(name);
        } else if variable.get("valueFrom").is_set() || value == reference || !value.contains(&reference) {
            said.add(
                &variable,
                &format!("hides previous definition of {name:?}, which may be dropped when using apply"),
            );
        }
    }
}

fn ports(spec: &At<'_>, said: &mut Warnings) {
    let ports: Vec<At<'_>> = containers(spec).flat_map(|at| at.get("ports").items()).collect();
    let host = |port: &At<'_>| port.get("hostPort").int().unwrap_or(0);
    for (place, port) in ports.iter().enumerate() {
        let ip = port.get("hostIP").str();
        if !ip.is_empty() && host(port) == 0 {
            // Go prints the structure: its fields in order, without names of types.
            let (name, number) = (port.get("name").str(), port.get("containerPort").int().unwrap_or(0));
            let protocol = port.get("protocol").str();
            said.add(
                port,
                &format!("hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}"),
            );
        }
        let same = |other: &&At<'_>| {
            ["containerPort", "protocol"].iter().all(|field| other.get(field).value == port.get(field).value)
        };
        for other in ports[..place].iter().filter(same) {
            let (other_ip, path) = (other.get("hostIP").str(), &other.path);
            if ip == other_ip && host(port) == host(other) {
                said.add(port, &format!("duplicate port definition with {path}"));
            } else if host(port) == 0 || host(other) == 0 {
                said.add(port, &format!("overlapping port definition with {path}"));
            } else if host(port) == host(other) && ip.is_empty() != other_ip.is_empty() {
                said.add(port, &format!("dangerously ambiguous port definition with {path}"));
            }
        }
    }
    let mut names: HashMap<&str, &str> = HashMap::new();
    for port in &ports {
        let name = port.get("name").str();
        match names.get(name) {
            _ if name.is_empty() => {}
            None => {
                names.insert(name, &port.path);
            }
            Some(other) => said.add(
                port,
                &format!("duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"),
            ),
        }
    }
}

/// A file of a volume and where it comes from, "" when that is the volume itself.
type Source = (String, String);

fn shown((path, source): &Source) -> String {
    if source.is_empty() { format!("{path:?}") } else { format!("{path:?} ({source})") }
}

fn paths(items: &At<'_>, source: &str) -> Vec<Source> {
    items.items().map(|item| (item.get("path").str().to_owned(), source.to_owned())).collect()
}

/// checkVolumeMappingForOverlap: one file on or under another.
fn collisions(files: Vec<Source>, all: &mut Vec<Source>, mut say: impl FnMut(String)) {
    for (path, source) in files {
        let file = (path.trim_end_matches('/').to_owned(), source);
        let is_under = |a: &str, b: &str| format!("{a}/").starts_with(&format!("{b}/"));
        for other in all.iter().filter(|other| !file.0.is_empty() && !other.0.is_empty()) {
            if is_under(&other.0, &file.0) || is_under(&file.0, &other.0) {
                say(format!("{} with {}", shown(&file), shown(other)));
            }
        }
        all.push(file);
    }
}

/// warningsForOverlappingVirtualPaths
fn overlaps(volume: &At<'_>, said: &mut Warnings) {
    let name = volume.get("name").str();
    let mut say =
        |what: &str, text: String| said.0.push(format!("volume {name:?} ({what}): overlapping paths: {text}"));
    for (field, what, named) in
        [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")]
    {
        let at = volume.get(field);
        let what = if named.is_empty() { what.to_owned() } else { format!("{what} {:?}", at.get(named).str()) };
        collisions(paths(&at.get("items"), ""), &mut Vec::new(), |text| say(&what, text));
    }
    let mut all = Vec::new();
    for source in volume.at("projected.sources").items() {
        if source.is_empty() {
            said.0.push(format!("volume {name:?} (Projected) has no sources provided"));
            continue;
        }
        let mut files = Vec::new();
        for (field, what) in [("configMap", "ConfigMap"), ("secret", "Secret")] {
            let at = source.get(field);
            files.extend(paths(&at.get("items"), &format!("{what} {:?}", at.get("name").str())));
        }
        files.extend(paths(&source.at("downwardAPI.items"), "DownwardAPI"));
        let mut one = |at: At<'_>, source: &str| {
            if at.is_set() {
                files.push((at.str().to_owned(), source.to_owned()));
            }
        };
        one(source.at("serviceAccountToken.path"), "ServiceAccountToken");
        let bundle = source.get("clusterTrustBundle");
        let named = if bundle.get("name").is_set() { bundle.get("name") } else { bundle.get("signerName") };
        one(bundle.get("path"), &format!("ClusterTrustBundle {:?}", named.str()));
        let certificate = source.get("podCertificate");
        one(certificate.get("certificateChainPath"), "PodCertificate chain");
        one(certificate.get("keyPath"), "PodCertificate key");
        one(certificate.get("credentialBundlePath"), "PodCertificate credential bundle");
        collisions(files, &mut all, |text| {
            said.0.push(format!("volume {name:?} (Projected): overlapping paths: {text}"));
        });
    }
}
