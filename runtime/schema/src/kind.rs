//! A served kind and the catalog of all of them.
use std::sync::Arc;

/// One kind at one version, built-in or from a CustomResourceDefinition.
#[derive(Debug)]
pub struct Kind {
    /// "" for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    /// Root type in `table::BUILTIN` (CustomResourceDefinitions bring their own table).
    pub root: crate::table::TypeId,
    pub has_status: bool,
    /// Dotted paths of spec.replicas, status.replicas and the selector, when the kind has /scale.
    pub scale: Option<Scale>,
    /// Store keys are `{prefix}{namespace}/{name}` or `{prefix}{name}`; "pods/", "apps/deployments/".
    pub prefix: String,
    /// Served only to create (reviews, bindings): not stored.
    pub virtual_kind: bool,
}

#[derive(Debug, Clone)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: String,
}

impl Kind {
    /// "v1", "apps/v1"
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
    /// The store key; namespace is ignored for cluster-scoped kinds.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{}{namespace}/{name}", self.prefix) } else { format!("{}{name}", self.prefix) }
    }
}

/// All kinds now served. Immutable; replaced whole when a CustomResourceDefinition changes it.
#[derive(Debug, Default)]
pub struct Catalog {
    pub kinds: Vec<Arc<Kind>>,
}

impl Catalog {
    pub fn builtin() -> Catalog {
        unimplemented!()
    }
    pub fn by_resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|k| k.group == group && k.version == version && k.plural == plural)
    }
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|k| k.group == group && k.version == version && k.kind == kind)
    }
    /// For typed code: the kind of a k8s-openapi type.
    pub fn of<K: k8s_openapi::Resource>(&self) -> &Arc<Kind> {
        self.by_kind(K::GROUP, K::VERSION, K::KIND).expect("a built-in type is in the catalog")
    }
}
