//! How objects lie in etcd: keys and values as kube-apiserver has them, so that tools made for it find what they look for. Keys
//! are those of pkg/kubeapiserver/default_storage_factory_builder.go; built-in kinds are protobuf in `k8s\0`, custom ones JSON.
//! What is read may be either, of any version that is served.
use crate::{custom, server::Api};
use mote_schema::{Catalog, Doc, Kind, Object, Value, convert, managed::Ordered, protobuf, prune};
use mote_store::Layout;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

const PROTOBUF: &[u8] = b"k8s\0";
/// What is no object of a kind's.
const OWN: &str = "mote/";

/// Resources that do not lie under their plural.
const SPECIAL: &[(&str, &str, &str)] = &[
    ("", "endpoints", "services/endpoints/"),
    ("", "nodes", "minions/"),
    ("", "replicationcontrollers", "controllers/"),
    ("", "services", "services/specs/"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "apiextensions.k8s.io/customresourcedefinitions/"),
    ("apiregistration.k8s.io", "apiservices", "apiregistration.k8s.io/apiservices/"),
    ("networking.k8s.io", "ingresses", "ingress/"),
];

/// Kinds whose values are JSON: their own API servers within kube-apiserver write them so.
const AS_JSON: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

pub struct EtcdLayout {
    catalog: Catalog,
    /// Stored kinds with where they lie.
    places: Vec<(Arc<Kind>, String)>,
    /// By key prefix, what objects of custom kinds are called. Learnt from the definitions that come by, which are there
    /// before any object of theirs is written.
    custom: RwLock<BTreeMap<String, String>>,
    event_ttl: Duration,
}

impl EtcdLayout {
    pub fn new(event_ttl: Duration) -> EtcdLayout {
        let catalog = Catalog::builtin();
        let stored = catalog.kinds.iter().filter(|kind| !kind.virtual_kind && !convert::is_needed(kind));
        let mut places: Vec<(Arc<Kind>, String)> = Vec::new();
        for kind in stored {
            if !places.iter().any(|(other, _)| other.prefix == kind.prefix) {
                let special = SPECIAL.iter().find(|(group, plural, _)| kind.group == *group && kind.plural == *plural);
                let outer = special.map_or_else(|| format!("{}/", kind.plural), |(_, _, outer)| (*outer).to_owned());
                places.push((kind.clone(), outer));
            }
        }
        EtcdLayout { catalog, places, custom: RwLock::default(), event_ttl }
    }

    fn kind_of(&self, key: &str) -> Option<&(Arc<Kind>, String)> {
        self.places.iter().find(|(kind, _)| key.starts_with(&*kind.prefix))
    }

    fn learn(&self, key: &str, doc: &Doc) {
        if !key.starts_with(custom::PREFIX) {
            return;
        }
        let text = |path: &str| doc.root().at(path).str().to_owned();
        let prefix = format!("{}/{}/", text("spec.group"), text("spec.names.plural"));
        self.custom.write().unwrap_or_else(PoisonError::into_inner).insert(prefix, text("spec.names.kind"));
    }

    fn decode_builtin(&self, kind: &Arc<Kind>, stored: &[u8]) -> Result<Doc, String> {
        let (written, mut value) = match stored.starts_with(PROTOBUF) {
            true => {
                let envelope = protobuf::envelope(stored)?;
                let written = self.version(kind, &envelope.api_version, &envelope.kind)?;
                let value = protobuf::decode(&written, envelope.raw)?;
                (written, value)
            }
            false => {
                let (value, _) = prune::parse_json(stored)?;
                let text = |field: &str| value[field].as_str().unwrap_or("");
                (self.version(kind, text("apiVersion"), text("kind"))?, value)
            }
        };
        prune::clean(&written, &mut value)?;
        convert::to_stored(&written, &mut value);
        Api::encode(value).map_err(|status| status.message)
    }

    /// What a definition has made a kind of.
    fn decode_custom(stored: &[u8]) -> Result<Doc, String> {
        let (mut value, _) = prune::parse_json(stored)?;
        if let Some(root) = value.as_object_mut() {
            root.remove("kind");
            if let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("resourceVersion");
            }
        }
        Doc::encode(&Ordered(&value)).map_err(|error| format!("{error:?}"))
    }

    fn encode_custom(&self, key: &str, doc: &Doc) -> Result<Vec<u8>, String> {
        let prefix: String = key.split_inclusive('/').take(2).collect();
        let custom = self.custom.read().unwrap_or_else(PoisonError::into_inner);
        let name = custom.get(&prefix).ok_or_else(|| format!("no definition of {prefix} was seen"))?;
        let mut value = doc.root().to_value();
        value["kind"] = name.as_str().into();
        serde_json::to_vec(&value).map_err(|error| error.to_string())
    }

    /// The kind as the version that something was written in.
    fn version(&self, kind: &Arc<Kind>, api_version: &str, name: &str) -> Result<Arc<Kind>, String> {
        if api_version.is_empty() || api_version == kind.api_version() && name == kind.kind {
            return Ok(kind.clone());
        }
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let known = self.catalog.by_kind(group, version, name).filter(|known| known.prefix == kind.prefix);
        known.cloned().ok_or_else(|| format!("it is a {name} of {api_version}, which is not served"))
    }
}

impl Layout for EtcdLayout {
    fn outer_key(&self, key: &str) -> String {
        match self.kind_of(key) {
            Some((kind, outer)) => [outer.as_str(), &key[kind.prefix.len()..]].concat(),
            None if is_custom(key) => key.to_owned(),
            None => [OWN, key].concat(),
        }
    }

    fn inner_key(&self, outer: &str) -> Option<String> {
        if let Some((kind, place)) = self.places.iter().find(|(_, place)| outer.starts_with(place.as_str())) {
            return Some([&*kind.prefix, &outer[place.len()..]].concat());
        }
        outer.strip_prefix(OWN).or(Some(outer).filter(|outer| is_custom(outer))).map(str::to_owned)
    }

    fn encode(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, String> {
        let doc = Doc::trusted(value.into());
        let Some((kind, _)) = self.kind_of(key) else {
            return if is_custom(key) { self.encode_custom(key, &doc) } else { Ok(value.to_vec()) };
        };
        self.learn(key, &doc);
        let mut out = Vec::with_capacity(value.len() + 64);
        let object = Object { kind: kind.clone(), doc, revision: 0 };
        match AS_JSON.contains(&&*kind.group) {
            true => object.write_json(true, &mut out),
            false => protobuf::write_object(&object, &mut out),
        }
        Ok(out)
    }

    fn decode(&self, key: &str, stored: &[u8]) -> Result<Vec<u8>, String> {
        let doc = match self.kind_of(key) {
            Some((kind, _)) => self.decode_builtin(kind, stored)?,
            None if is_custom(key) => EtcdLayout::decode_custom(stored)?,
            None => return Ok(stored.to_vec()),
        };
        self.learn(key, &doc);
        Ok(doc.bytes().to_vec())
    }

    fn lifetime(&self, key: &str) -> Option<Duration> {
        key.starts_with("events/").then_some(self.event_ttl)
    }
}

/// Groups of custom kinds have a dot, what else there may be has none.
fn is_custom(key: &str) -> bool {
    let mut segments = key.split('/');
    segments.next().is_some_and(|group| group.contains('.')) && segments.count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn keys_are_those_of_upstream_and_come_back() {
        let layout = EtcdLayout::new(Duration::from_secs(3600));
        for (inner, outer) in [
            ("pods/a/b", "pods/a/b"),
            ("services/a/b", "services/specs/a/b"),
            ("endpoints/a/b", "services/endpoints/a/b"),
            ("nodes/b", "minions/b"),
            ("replicationcontrollers/a/b", "controllers/a/b"),
            ("apps/deployments/a/b", "deployments/a/b"),
            ("networking.k8s.io/ingresses/a/b", "ingress/a/b"),
            ("networking.k8s.io/networkpolicies/a/b", "networkpolicies/a/b"),
            ("events/a/b", "events/a/b"),
            ("rbac.authorization.k8s.io/clusterroles/system:x", "clusterroles/system:x"),
            ("coordination.k8s.io/leases/a/b", "leases/a/b"),
            ("apiextensions.k8s.io/customresourcedefinitions/b", "apiextensions.k8s.io/customresourcedefinitions/b"),
            ("apiregistration.k8s.io/apiservices/b", "apiregistration.k8s.io/apiservices/b"),
            ("example.com/widgets/a/b", "example.com/widgets/a/b"),
            ("example.com/gadgets/b", "example.com/gadgets/b"),
            ("something", "mote/something"),
        ] {
            assert_eq!(layout.outer_key(inner), outer);
            assert_eq!(layout.inner_key(outer).as_deref(), Some(inner));
        }
        for foreign in ["ranges/serviceips", "masterleases/10.0.0.1", "compact_rev_key"] {
            assert_eq!(layout.inner_key(foreign), None);
        }
        for (at, (kind, outer)) in layout.places.iter().enumerate() {
            let others = layout.places.iter().skip(at + 1);
            assert!(others.clone().all(|(_, other)| other != outer), "{} lies where another does", kind.plural);
        }
    }

    #[track_caller]
    fn check(layout: &EtcdLayout, key: &str, value: Value, begins: &[u8]) {
        let doc = Doc::encode(&Ordered(&value)).unwrap();
        let stored = layout.encode(key, doc.bytes()).unwrap();
        assert!(stored.starts_with(begins), "{}", String::from_utf8_lossy(&stored));
        let back = layout.decode(key, &stored).unwrap();
        assert_eq!(Doc::trusted(back.as_slice().into()).root().to_value(), value, "{key}");
        assert_eq!(back, doc.bytes().to_vec(), "{key}: other bytes");
    }

    #[test]
    fn values_come_back() {
        let layout = EtcdLayout::new(Duration::from_secs(3600));
        let metadata = |name: &str| {
            json!({"name": name, "namespace": "a", "uid": "u", "creationTimestamp": "2024-01-01T00:00:00Z",
                "labels": {"a": "b"}, "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1",
                "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:x": {}}}}]})
        };
        let map = json!({"metadata": metadata("m"), "data": {"x": "", "y": "z"}, "immutable": false});
        check(&layout, "configmaps/a/m", map, b"k8s\0");
        let pod = json!({"metadata": metadata("p"), "spec": {"containers": [{"name": "c", "image": "i",
            "resources": {"limits": {"cpu": "100m", "memory": "1Gi"}}, "command": ["a", ""],
            "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 10}}],
            "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}]},
            "status": {"phase": "Pending"}});
        check(&layout, "pods/a/p", pod, b"k8s\0");
        let secret = json!({"metadata": metadata("s"), "data": {"x": "AAEC", "e": ""}, "type": "Opaque"});
        check(&layout, "secrets/a/s", secret, b"k8s\0");
        let lease = json!({"metadata": metadata("l"), "spec": {"holderIdentity": "h", "renewTime": "2024-01-01T00:00:00.123456Z"}});
        check(&layout, "coordination.k8s.io/leases/a/l", lease, b"k8s\0");
        let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com",
            "names": {"plural": "widgets", "kind": "Widget"}, "scope": "Namespaced", "versions": [{"name": "v1", "served": true,
            "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
            "status": {"acceptedNames": {"kind": "Widget", "plural": "widgets"}, "conditions": null, "storedVersions": ["v1"]}});
        let widget =
            json!({"apiVersion": "example.com/v1", "metadata": {"name": "w", "namespace": "a"}, "x": [1, null]});
        assert!(layout.encode("example.com/widgets/a/w", Doc::encode(&Ordered(&widget)).unwrap().bytes()).is_err());
        check(&layout, "apiextensions.k8s.io/customresourcedefinitions/widgets.example.com", definition, b"{");
        check(&layout, "example.com/widgets/a/w", widget, b"{");
    }

    #[test]
    fn other_versions_and_json_are_read() {
        let layout = EtcdLayout::new(Duration::from_secs(3600));
        let read =
            |key: &str, text: &str| layout.decode(key, text.as_bytes()).map(|doc| Doc::trusted(doc.as_slice().into()));
        let event =
            r#"{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{"name":"e","namespace":"a"},"note":"n"}"#;
        assert_eq!(read("events/a/e", event).unwrap().root().get("message").str(), "n");
        let map = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m","namespace":"a"},"data":{"x":"y"},"later":1}"#;
        assert_eq!(read("configmaps/a/m", map).unwrap().root().at("data.x").str(), "y");
        assert!(read("configmaps/a/m", r#"{"apiVersion":"v2","kind":"ConfigMap"}"#).is_err());
        assert!(read("configmaps/a/m", "rubbish").is_err());
    }
}
