//! A served kind and the catalog of all of them.
use crate::Order as _;
use crate::{
    builtin,
    structural::Custom,
    table::{BUILTIN, Table, TypeId},
};
use std::{borrow::Cow, cmp::Ordering, sync::Arc};

type Text = Cow<'static, str>;

/// One kind at one version, built-in or from a CustomResourceDefinition.
#[derive(Debug, Clone)]
pub struct Kind {
    /// "" for the core group.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    /// "DeploymentList"
    pub list_kind: Text,
    pub plural: Text,
    pub singular: Text,
    pub short_names: Vec<Text>,
    pub categories: Vec<Text>,
    /// As discovery lists them, sorted.
    pub verbs: Vec<Text>,
    pub subresources: Vec<Subresource>,
    pub namespaced: bool,
    /// Of a kind that a CustomResourceDefinition made: its definition, in which its schema is read.
    pub custom: Option<Arc<Custom>>,
    /// Root type in `table()`; a custom kind has none there.
    pub root: TypeId,
    pub has_status: bool,
    /// Dotted paths of spec.replicas, status.replicas and the selector, when the kind has /scale.
    pub scale: Option<Scale>,
    /// Store keys are `{prefix}{namespace}/{name}` or `{prefix}{name}`; "pods/", "apps/deployments/". Versions and groups that
    /// show one stored object (autoscaling v1 and v2, both Events) share it; `convert` knows how.
    pub prefix: Text,
    /// Served only to create (reviews, bindings): not stored.
    pub virtual_kind: bool,
    /// metadata.generation counts changes of the spec.
    pub has_generation: bool,
}

/// What follows an object's name in the path.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// "scale"
    pub name: Text,
    /// What is read and written there.
    pub group: Text,
    pub version: Text,
    pub kind: Text,
    pub verbs: Vec<Text>,
}

#[derive(Debug, Clone)]
pub struct Scale {
    pub spec_replicas: Text,
    pub status_replicas: Text,
    /// Of a `metav1.LabelSelector`, or of a plain map (ReplicationController), in the spec; for custom kinds of a string.
    pub selector: Text,
}

impl Kind {
    /// "v1", "apps/v1"
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
    /// The store key; namespace is ignored for cluster-scoped kinds.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{}{namespace}/{name}", self.prefix) } else { format!("{}{name}", self.prefix) }
    }
    /// The field table, which knows nothing of custom kinds: those have a `schema`.
    pub fn table(&self) -> &'static Table {
        BUILTIN
    }
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
    /// "deployments.apps", "pods"
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }
    fn is(&self, group: &str, version: &str, kind: &str) -> bool {
        self.kind == kind && self.group == group && self.version == version
    }
}

/// All kinds now served. Immutable; replaced whole when a CustomResourceDefinition changes it.
#[derive(Debug, Default, Clone)]
pub struct Catalog {
    /// In the order of /api and /apis: groups by upstream's priority, versions by preference (the first of a group is the
    /// preferred one), kinds as discovery lists them.
    pub kinds: Vec<Arc<Kind>>,
    /// Read or written as whole objects yet not resources: Scale, Eviction, TokenRequest, DeleteOptions, Status.
    pub parts: Vec<Arc<Kind>>,
    /// Positions in `kinds`, sorted by (plural, group, version) and by (kind, group, version).
    by_resource: Vec<u16>,
    by_kind: Vec<u16>,
}

impl Catalog {
    pub fn builtin() -> Catalog {
        let (mut kinds, mut parts) = (Vec::new(), Vec::new());
        let mut current: Option<Kind> = None;
        for line in builtin::KINDS.lines() {
            let mut words = line.split(' ');
            match words.next().unwrap_or("") {
                "" => {
                    if let Some(kind) = &mut current {
                        kind.add(read_subresource(words));
                    }
                }
                "+" => parts.push(Arc::new(read_part(words))),
                group => {
                    kinds.extend(current.replace(read_kind(group, words)).map(Arc::new));
                }
            }
        }
        kinds.extend(current.map(Arc::new));
        Catalog::new(kinds, parts)
    }

    /// `kinds` in the order discovery shows them.
    pub fn new(kinds: Vec<Arc<Kind>>, parts: Vec<Arc<Kind>>) -> Catalog {
        let mut by_resource: Vec<u16> = (0..kinds.len().min(u16::MAX.into()) as u16).collect();
        let mut by_kind = by_resource.clone();
        let kind = |at: &u16| kinds[usize::from(*at)].as_ref();
        by_resource.order_by(|a, b| order(kind(a), &kind(b).plural, &kind(b).group, &kind(b).version, |k| &k.plural));
        by_kind.order_by(|a, b| order(kind(a), &kind(b).kind, &kind(b).group, &kind(b).version, |k| &k.kind));
        Catalog { kinds, parts, by_resource, by_kind }
    }

    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.find(&self.by_resource, plural, group, version, |k| &k.plural)
    }

    /// Also finds what is no resource of its own (`parts`).
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let found = self.find(&self.by_kind, kind, group, version, |k| &k.kind);
        found.or_else(|| self.parts.iter().find(|k| k.is(group, version, kind)))
    }

    fn find(
        &self,
        index: &[u16],
        name: &str,
        group: &str,
        version: &str,
        of: impl Fn(&Kind) -> &str,
    ) -> Option<&Arc<Kind>> {
        let kind = |at: &u16| self.kinds.get(usize::from(*at));
        let found =
            index.binary_search_by(|at| kind(at).map_or(Ordering::Less, |k| order(k, name, group, version, &of)));
        kind(index.get(found.ok()?)?)
    }

    /// For typed code: the kind of a k8s-openapi type. A few comparisons of short strings.
    pub fn of<K: k8s_openapi::Resource>(&self) -> &Arc<Kind> {
        self.by_kind(K::GROUP, K::VERSION, K::KIND).expect("a built-in type is in the catalog")
    }

    /// Groups in the order of /apis (the core group first), each with its versions, the preferred one first.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for kind in &self.kinds {
            match groups.iter_mut().find(|(group, _)| *group == kind.group) {
                Some((_, versions)) if versions.contains(&kind.version.as_ref()) => {}
                Some((_, versions)) => versions.push(&kind.version),
                None => groups.push((&kind.group, vec![&kind.version])),
            }
        }
        groups
    }
}

fn order(kind: &Kind, name: &str, group: &str, version: &str, of: impl Fn(&Kind) -> &str) -> Ordering {
    of(kind).cmp(name).then_with(|| (*kind.group).cmp(group)).then_with(|| (*kind.version).cmp(version))
}

type Words = std::str::Split<'static, char>;

fn text(words: &mut Words) -> Text {
    Cow::Borrowed(words.next().filter(|w| *w != "-").unwrap_or(""))
}

fn list(words: &mut Words) -> Vec<Text> {
    let text = words.next().filter(|w| *w != "-").unwrap_or("");
    text.split(',').filter(|w| !w.is_empty()).map(Cow::Borrowed).collect()
}

const ALL_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Kinds whose strategy upstream keeps metadata.generation (pkg/registry/*/strategy.go).
const WITH_GENERATION: [(&str, &str); 21] = [
    ("storage.k8s.io", "CSIDriver"),
    ("", "Pod"),
    ("", "ReplicationController"),
    ("", "PodTemplate"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "IngressClass"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("policy", "PodDisruptionBudget"),
    ("admissionregistration.k8s.io", "*"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("flowcontrol.apiserver.k8s.io", "*"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "ResourceSlice"),
];

fn read_kind(group: &'static str, mut words: Words) -> Kind {
    let group = if group == "-" { "" } else { group };
    let (version, kind, plural) = (text(&mut words), text(&mut words), text(&mut words));
    let (singular, list_kind) = (text(&mut words), text(&mut words));
    let namespaced = words.next() == Some("Namespaced");
    let root = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
    let (short_names, categories, mut verbs) = (list(&mut words), list(&mut words), list(&mut words));
    if verbs.is_empty() {
        verbs = ALL_VERBS.iter().map(|v| Cow::Borrowed(*v)).collect();
    }
    let prefix = match (group, plural.as_ref()) {
        // One stored object, two faces: core/v1 and events.k8s.io/v1.
        ("" | "events.k8s.io", "events") => "events/".into(),
        ("", plural) => format!("{plural}/"),
        (group, plural) => format!("{group}/{plural}/"),
    };
    Kind {
        has_generation: WITH_GENERATION.iter().any(|(g, k)| *g == group && (*k == "*" || *k == kind)),
        virtual_kind: !verbs.iter().any(|v| v == "get"),
        group: group.into(),
        version,
        kind,
        list_kind,
        plural,
        singular,
        short_names,
        categories,
        verbs,
        subresources: Vec::new(),
        namespaced,
        custom: None,
        root,
        has_status: false,
        scale: None,
        prefix: prefix.into(),
    }
}

fn read_subresource(mut words: Words) -> Subresource {
    let (name, group, version, kind) = (text(&mut words), text(&mut words), text(&mut words), text(&mut words));
    Subresource { name, group, version, kind, verbs: list(&mut words) }
}

fn read_part(mut words: Words) -> Kind {
    let (group, version, kind) = (text(&mut words), text(&mut words), text(&mut words));
    Kind {
        group,
        version,
        kind,
        list_kind: "".into(),
        plural: "".into(),
        singular: "".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: Vec::new(),
        subresources: Vec::new(),
        namespaced: false,
        custom: None,
        root: words.next().and_then(|w| w.parse().ok()).unwrap_or(0),
        has_status: false,
        scale: None,
        prefix: "".into(),
        virtual_kind: true,
        has_generation: false,
    }
}

impl Kind {
    fn add(&mut self, sub: Subresource) {
        self.has_status |= sub.name == "status";
        if sub.name == "scale" {
            self.scale = Some(Scale {
                spec_replicas: "spec.replicas".into(),
                status_replicas: "status.replicas".into(),
                selector: "spec.selector".into(),
            });
        }
        self.subresources.push(sub);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

    #[test]
    fn finds_kinds() {
        let catalog = Catalog::builtin();
        let deployment = catalog.of::<Deployment>();
        assert_eq!(deployment.api_version(), "apps/v1");
        assert_eq!(deployment.prefix, "apps/deployments/");
        assert_eq!(deployment.short_names, ["deploy"]);
        assert!(deployment.has_status && deployment.scale.is_some() && deployment.has_generation);
        assert_eq!(deployment.table().type_name(deployment.root), "Deployment");
        let pod = catalog.of::<Pod>();
        assert_eq!(pod.key("ns", "a"), "pods/ns/a");
        assert!(pod.subresource("eviction").is_some_and(|s| s.group == "policy" && s.kind == "Eviction"));
        assert!(catalog.by_resource("", "v1", "bindings").is_some_and(|k| k.virtual_kind));
        assert!(catalog.by_kind("policy", "v1", "Eviction").is_some());
        assert!(catalog.by_resource("apps", "v1beta1", "deployments").is_none());
        for kind in &catalog.kinds {
            assert_eq!(BUILTIN.type_name(kind.root), kind.kind);
            assert!(Arc::ptr_eq(catalog.by_resource(&kind.group, &kind.version, &kind.plural).unwrap(), kind));
            assert!(Arc::ptr_eq(catalog.by_kind(&kind.group, &kind.version, &kind.kind).unwrap(), kind));
        }
    }

    #[test]
    fn groups_are_listed_as_upstream_lists_them() {
        let catalog = Catalog::builtin();
        let groups = catalog.groups();
        let names: Vec<&str> = groups.iter().map(|(g, _)| *g).collect();
        assert_eq!(names[..4], ["", "apiregistration.k8s.io", "apps", "events.k8s.io"]);
        assert!(groups.contains(&("autoscaling", vec!["v2", "v1"])));
    }
}
