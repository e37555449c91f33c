//! What a write is warned of beside its answer: upstream's WarningsOnCreate and WarningsOnUpdate (pkg/registry/*/strategy.go and
//! pkg/api/*/warnings.go). What pods and their templates are warned of is in `pod_warnings`.
use super::{at::At, pod_warnings};
use crate::Value;
use crate::{Kind, quantity::Quantity, validate as format};
use base64::{Engine, prelude::BASE64_STANDARD};

/// Annotations and labels that are no longer to be used, and what to say of them.
type Deprecated = &'static [(&'static str, &'static str)];

/// Labels of nodes: the name that has taken one's place, or "", and what to say.
const NODE_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", "kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
    ("app.kubernetes.io/created-by", "", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const STORAGE_ANNOTATIONS: Deprecated = &[
    (STORAGE_CLASS, r#"deprecated since v1.8; use "storageClassName" attribute instead"#),
    ("volume.beta.kubernetes.io/mount-options", r#"deprecated since v1.31; use "mountOptions" attribute instead"#),
];

const IN_1_31: &str = "deprecated in v1.28, non-functional in v1.31+";
const IN_1_25: &str = "deprecated in v1.22, non-functional in v1.25+";

/// Volume plugins that are gone, by their field; of a PersistentVolume those without `IN_1_25` but for storageOS.
pub(super) const VOLUMES: Deprecated = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", IN_1_25),
    ("storageos", IN_1_25),
    ("quobyte", IN_1_25),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", IN_1_31),
    ("rbd", IN_1_31),
];
const PERSISTENT_VOLUMES: Deprecated = &[
    ("cephfs", IN_1_31),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", IN_1_25),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", IN_1_31),
];

/// The warnings of one write, in the order they are given.
#[derive(Default)]
pub(super) struct Warnings(pub Vec<String>);

impl Warnings {
    /// "path: text"
    pub fn add(&mut self, at: &At<'_>, text: &str) {
        self.0.push([&*at.path, ": ", text].concat());
    }
    fn say(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
    /// GetWarningsForIP
    pub fn ip(&mut self, at: &At<'_>) {
        if let Some(text) = format::ip_warning(at.str()) {
            self.add(at, &text);
        }
    }
    fn cidr(&mut self, at: &At<'_>) {
        for text in format::cidr_warnings(at.str()) {
            self.add(at, &text);
        }
    }
    /// A part of a byte.
    pub fn fraction(&mut self, amounts: &At<'_>, resource: &str) {
        let at = amounts.key(resource);
        if let Ok(quantity) = Quantity::parse(at.str())
            && quantity.milli_value() % 1000 != 0
        {
            self.add(&at, &format!("fractional byte value {:?} is invalid, must be an integer", at.str()));
        }
    }
    fn dns_label(&mut self, new: &At<'_>, used: &str) {
        let name = new.at("metadata.name");
        let wrong = format::dns1123_label(name.str());
        if !wrong.is_empty() {
            let wrong = wrong.join(" ");
            self.add(
                &name,
                &format!("this is used in {used}, which can result in surprising behavior; a DNS label is recommended: [{wrong}]"),
            );
        }
    }
    fn known(&mut self, annotations: &At<'_>, known: Deprecated) {
        for (key, text) in known {
            let at = annotations.key(key);
            if at.is_set() {
                self.add(&at, text);
            }
        }
    }
    /// GetWarningsForNodeSelectorTerm
    pub fn node_term(&mut self, term: &At<'_>, with_values: bool) {
        for expression in term.get("matchExpressions").items() {
            self.label_key(&expression.get("key"));
            for value in expression.get("values").items().filter(|_| with_values) {
                for wrong in format::label_value(value.str()) {
                    self.add(&value, &format!("{} is invalid, {wrong}", value.str()));
                }
            }
        }
    }
    /// "path: key is deprecated"
    pub fn label_key(&mut self, at: &At<'_>) {
        if let Some(text) = node_label(at.str()) {
            self.add(at, &format!("{} is {text}", at.str()));
        }
    }
    /// GetWarningsForPersistentVolumeClaimSpec
    pub fn claim(&mut self, spec: &At<'_>) {
        self.fraction(&spec.at("resources.requests"), "storage");
        self.fraction(&spec.at("resources.limits"), "storage");
    }
}

pub(super) fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, ..)| *label == key).map(|(.., text)| *text)
}

/// The label of nodes that says today what this one did.
pub(super) fn successor(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, ..)| *label == key).map(|(_, name, _)| *name).filter(|name| !name.is_empty())
}

const IN_POD_NAMES: &str = "Pod names and hostnames";

/// What the writer of `new` is told; `sub` as in `validate`.
pub fn warnings(kind: &Kind, new: &Value, old: Option<&Value>, sub: &str) -> Vec<String> {
    let mut said = Warnings::default();
    let (new, old) = (At::root(new), old.map(At::root));
    match sub {
        _ if kind.is_custom() => {}
        "" => object(kind, &new, old.as_ref(), &mut said),
        "status" => status(kind, &new, &mut said),
        _ => {}
    }
    said.0
}

fn object(kind: &Kind, new: &At<'_>, old: Option<&At<'_>>, said: &mut Warnings) {
    let generation = |at: &At<'_>| at.at("metadata.generation").int();
    // Templates are looked at again only when what the user asks for has changed.
    let changed = old.is_none_or(|old| generation(old) != generation(new));
    let spec = new.get("spec");
    let annotations = new.at("metadata.annotations");
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") if old.is_none() => {
            said.dns_label(new, "the Pod's hostname");
            pod_warnings::pod(&new.get("spec"), &annotations, false, said);
        }
        ("", "PodTemplate") if changed => pod_warnings::template(&new.get("template"), said),
        ("apps", "Deployment" | "ReplicaSet") | ("", "ReplicationController") => {
            if old.is_none() {
                said.dns_label(new, IN_POD_NAMES);
            }
            if changed {
                pod_warnings::template(&spec.get("template"), said);
            }
        }
        ("apps", "DaemonSet") if changed => pod_warnings::template(&spec.get("template"), said),
        ("apps", "StatefulSet") => {
            if changed {
                pod_warnings::template(&spec.get("template"), said);
            }
            for claim in spec.get("volumeClaimTemplates").items() {
                // An update's path has a word more, upstream.
                let place = if old.is_some() { [&*claim.path, ".Spec"].concat() } else { claim.path.clone() };
                said.claim(&claim.get("spec").moved(place));
            }
            if spec.get("revisionHistoryLimit").int().is_some_and(|limit| limit < 0) {
                said.add(
                    &spec.get("revisionHistoryLimit"),
                    "a negative value retains all historical revisions; a value >= 0 is recommended",
                );
            }
        }
        ("batch", "Job") => {
            if old.is_none() {
                said.dns_label(new, IN_POD_NAMES);
            }
            if changed {
                job(&spec, said);
            }
        }
        ("batch", "CronJob") => {
            if old.is_none() {
                said.dns_label(new, IN_POD_NAMES);
            }
            if changed {
                job(&spec.at("jobTemplate.spec"), said);
            }
            if old.is_some() && spec.get("schedule").str().contains("TZ") {
                said.say("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details");
            }
        }
        ("", "Endpoints") if !managed_by(new, &["endpoints.kubernetes.io/managed-by"], &["endpoint-controller"]) => {
            for subset in new.get("subsets").items() {
                for list in ["addresses", "notReadyAddresses"] {
                    subset.get(list).items().for_each(|address| said.ip(&address.get("ip")));
                }
            }
        }
        ("", "Node") => {
            if !spec.get("externalID").is_empty() {
                said.say("spec.externalID: this field is deprecated, and is unused by Kubernetes");
            }
            spec.get("podCIDRs").items().for_each(|cidr| said.cidr(&cidr));
        }
        ("", "PersistentVolume") => {
            said.known(&annotations, STORAGE_ANNOTATIONS);
            let policy = spec.get("persistentVolumeReclaimPolicy");
            if policy.str() == "Recycle" {
                said.add(&policy, "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.");
            }
            for term in spec.at("nodeAffinity.required.nodeSelectorTerms").items() {
                said.node_term(&term, false);
            }
            volumes(&spec, PERSISTENT_VOLUMES, said);
        }
        ("", "PersistentVolumeClaim") => {
            said.known(&annotations, &STORAGE_ANNOTATIONS[..1]);
            said.claim(&spec);
        }
        ("", "ResourceQuota") if old.is_none() => quota(&spec.get("hard"), said),
        ("", "ServiceAccount") => {
            const KEY: &str = "kubernetes.io/enforce-mountable-secrets";
            let at = annotations.key(KEY);
            if at.is_set() && old.is_none_or(|old| !old.at("metadata.annotations").key(KEY).is_set()) {
                said.add(&at, "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets");
            }
        }
        ("", "Secret") if new.get("type").str() == "kubernetes.io/tls" => {
            // As far as can be seen without reading certificates.
            let data = new.get("data");
            for (key, what) in [("tls.crt", "certificate"), ("tls.key", "key")] {
                let text = BASE64_STANDARD.decode(data.key(key).str()).unwrap_or_default();
                if !text.windows(11).any(|part| part == b"-----BEGIN ") {
                    return said.0.push(format!("tls: failed to find any PEM data in {what} input"));
                }
            }
        }
        ("", "Service") => service(new, said),
        ("discovery.k8s.io", "EndpointSlice") => {
            if old.is_none() && new.get("addressType").str() == "FQDN" {
                said.say("spec.addressType: FQDN endpoints are deprecated");
            }
            let controllers = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
            if new.get("addressType").str() != "FQDN"
                && !managed_by(new, &["endpointslice.kubernetes.io/managed-by"], &controllers)
            {
                for endpoint in new.get("endpoints").items() {
                    endpoint.get("addresses").items().for_each(|address| said.ip(&address));
                }
            }
        }
        ("networking.k8s.io", "Ingress") if old.is_none() => {
            let set = annotations.key("kubernetes.io/ingress.class").is_set();
            if set && !spec.get("ingressClassName").is_set() {
                said.say("annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead");
            }
        }
        ("networking.k8s.io", "NetworkPolicy") => {
            for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
                for peer in spec.get(rules).items().flat_map(|rule| rule.get(peers).items()) {
                    said.cidr(&peer.at("ipBlock.cidr"));
                    peer.at("ipBlock.except").items().for_each(|cidr| said.cidr(&cidr));
                }
            }
        }
        ("node.k8s.io", "RuntimeClass") => {
            let selector = new.at("scheduling.nodeSelector");
            for text in selector.members().filter_map(|(key, _)| node_label(key)) {
                said.add(&selector, text);
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            let topologies = new.get("allowedTopologies").items();
            for expression in topologies.flat_map(|topology| topology.get("matchLabelExpressions").items()) {
                let key = expression.get("key");
                if let Some(text) = node_label(key.str()) {
                    said.add(&key, text);
                }
            }
        }
        ("storage.k8s.io", "CSIStorageCapacity") => {
            let topology = new.get("nodeTopology");
            said.node_term(&topology, false);
            let labels = topology.get("matchLabels");
            for (key, text) in labels.members().filter_map(|(key, _)| Some((key, node_label(key)?))) {
                said.add(&labels.get(key), text);
            }
        }
        ("storage.k8s.io", "CSIDriver") => {
            let requests = spec.get("tokenRequests");
            let same = old.is_some_and(|old| old.at("spec.tokenRequests").value == requests.value);
            if !requests.is_empty() && !same && !spec.get("serviceAccountTokenInSecrets").is_set() {
                said.say("spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes");
            }
        }
        ("resource.k8s.io", "ResourceSlice") => {
            let driver = spec.get("driver");
            if driver.str().chars().any(char::is_uppercase) {
                let text =
                    format!("driver names should be lowercase; {:?} contains uppercase characters", driver.str());
                said.add(&driver, &text);
            }
        }
        _ => {}
    }
}

fn status(kind: &Kind, new: &At<'_>, said: &mut Warnings) {
    let status = new.get("status");
    match (&*kind.group, &*kind.kind) {
        ("", "Pod") => {
            for list in ["podIPs", "hostIPs"] {
                status.get(list).items().for_each(|address| said.ip(&address.get("ip")));
            }
        }
        ("", "Service") | ("networking.k8s.io", "Ingress") => {
            // The path is that of the entry.
            for entry in status.at("loadBalancer.ingress").items() {
                said.ip(&entry.get("ip").moved(entry.path.clone()));
            }
        }
        _ => {}
    }
}

fn managed_by(new: &At<'_>, labels: &[&str], controllers: &[&str]) -> bool {
    let own = new.at("metadata.labels");
    labels.iter().any(|label| controllers.contains(&own.key(label).str()))
}

pub(super) fn volumes(at: &At<'_>, known: Deprecated, said: &mut Warnings) {
    for (name, text) in known {
        let volume = at.get(name);
        if volume.is_set() {
            // Spelled as the Go field in these paths.
            let path = if *name == "storageos" { at.get("storageOS").path } else { volume.path };
            said.0.push([&*path, ": ", text].concat());
        }
    }
}

/// WarningsForJobSpec
fn job(spec: &At<'_>, said: &mut Warnings) {
    let many = |field: &str, limit: i64| spec.get(field).int().unwrap_or(0) > limit;
    if spec.get("completionMode").str() == "Indexed" && many("completions", 100_000) && many("parallelism", 10_000) {
        said.add(spec, "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail");
    }
    pod_warnings::template(&spec.get("template"), said);
}

fn quota(hard: &At<'_>, said: &mut Warnings) {
    for resource in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let (requests, limits) = (format!("requests.{resource}"), format!("limits.{resource}"));
        let mut request = (requests.as_str(), hard.key(&requests));
        if !request.1.is_set() && matches!(resource, "cpu" | "memory") {
            request = (resource, hard.key(resource));
        }
        let limit = hard.key(&limits);
        let parsed = (Quantity::parse(request.1.str()), Quantity::parse(limit.str()));
        if let (Ok(least), Ok(most)) = parsed
            && least > most
        {
            let (name, asked, allowed) = (request.0, request.1.str(), limit.str());
            said.0.push(format!("ResourceQuota {name} ({asked}) should be less than {limits} ({allowed})"));
        }
    }
}

/// GetWarningsForService
fn service(new: &At<'_>, said: &mut Warnings) {
    let spec = new.get("spec");
    let text = |field: &str| spec.get(field).str();
    if new.at("metadata.annotations").key("service.kubernetes.io/topology-aware-hints").is_set() {
        said.say("annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead");
    }
    let external = text("type") == "ExternalName";
    let headless = text("type") == "ClusterIP" && text("clusterIP") == "None";
    if !external && !headless {
        spec.get("clusterIPs").items().for_each(|ip| said.ip(&ip));
    }
    let addresses = spec.get("externalIPs");
    if headless {
        for (field, ignored) in [
            ("loadBalancerIP", !spec.get("loadBalancerIP").is_empty()),
            ("externalIPs", !addresses.is_empty()),
            ("SessionAffinity", text("sessionAffinity") != "None"),
        ] {
            if ignored {
                said.0.push(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    addresses.items().for_each(|ip| said.ip(&ip));
    if !addresses.is_empty() && !headless && !external {
        said.say("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    }
    if !spec.get("loadBalancerIP").is_empty() {
        said.ip(&spec.get("loadBalancerIP"));
    }
    spec.get("loadBalancerSourceRanges").items().for_each(|cidr| said.cidr(&cidr));
    if external && !addresses.is_empty() {
        said.say("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if !external && !text("externalName").is_empty() {
        said.say("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if text("trafficDistribution") == "PreferClose" {
        said.say("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}
