//! A stored object: its kind, its Doc (without apiVersion, kind and resourceVersion, which are known from
//! elsewhere) and the revision that last wrote it.
use crate::doc::{DocError, Node, Overlay, write_node};
use crate::{Doc, Kind, Ref, Value};
use serde::de::DeserializeOwned;
use std::sync::Arc;

#[derive(Clone)]
pub struct Object {
    pub kind: Arc<Kind>,
    pub doc: Doc,
    pub revision: u64,
}

impl Object {
    pub fn root(&self) -> Ref<'_> {
        self.doc.root()
    }
    pub fn meta(&self) -> Ref<'_> {
        self.root().get("metadata")
    }
    pub fn name(&self) -> &str {
        self.meta().get("name").str()
    }
    /// "" for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.meta().get("namespace").str()
    }
    pub fn uid(&self) -> &str {
        self.meta().get("uid").str()
    }
    pub fn is_deleting(&self) -> bool {
        self.meta().get("deletionTimestamp").exists()
    }
    /// Typed, with resourceVersion filled in.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DocError> {
        let mut decoded = Err(DocError::Type { message: String::new() });
        self.filled(true, &mut |node| decoded = T::deserialize(node));
        decoded
    }
    /// As a client sees it: apiVersion, kind and resourceVersion filled in.
    pub fn to_value(&self) -> Value {
        let mut value = self.root().to_value();
        value["kind"] = (&*self.kind.kind).into();
        value["apiVersion"] = self.kind.api_version().into();
        if self.revision != 0 {
            value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        }
        value
    }
    /// Appends the JSON a client sees. `envelope` false leaves out apiVersion and kind (items of a built-in List).
    pub fn write_json(&self, envelope: bool, out: &mut Vec<u8>) {
        self.filled(envelope, &mut |node| write_node(node, out));
    }

    /// Lays what the Doc does not hold over it. An object that was never stored (revision 0) has no resourceVersion.
    fn filled(&self, envelope: bool, read: &mut dyn FnMut(Node<'_>)) {
        // Items of custom kinds say what they are, and their Docs say what they are stored as.
        let envelope = envelope || self.kind.is_custom();
        let (api_version, version) = (self.kind.api_version(), self.revision.to_string());
        let version = [("resourceVersion", Node::Str(&version))];
        let metadata = Overlay { base: self.meta(), over: if self.revision == 0 { &[] } else { &version } };
        let over = [
            ("kind", Node::Str(&self.kind.kind)),
            ("apiVersion", Node::Str(&api_version)),
            ("metadata", Node::Overlay(&metadata)),
        ];
        read(Node::Overlay(&Overlay { base: self.root(), over: if envelope { &over } else { &over[2..] } }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_sees_what_the_doc_does_not_hold() {
        let catalog = crate::Catalog::builtin();
        let kind = catalog.by_kind("apps", "v1", "Deployment").unwrap().clone();
        let doc = Doc::from_json(br#"{"metadata":{"name":"d","namespace":"n"},"spec":{"replicas":2}}"#).unwrap();
        let object = Object { kind, doc, revision: 17 };
        let text = |envelope| {
            let mut out = Vec::new();
            object.write_json(envelope, &mut out);
            String::from_utf8(out).unwrap()
        };
        let inner = r#""metadata":{"resourceVersion":"17","name":"d","namespace":"n"},"spec":{"replicas":2}}"#;
        assert_eq!(text(false), format!("{{{inner}"));
        assert_eq!(text(true), format!(r#"{{"kind":"Deployment","apiVersion":"apps/v1",{inner}"#));
        assert_eq!(object.to_value(), serde_json::from_str::<crate::Value>(&text(true)).unwrap());
        let typed: k8s_openapi::api::apps::v1::Deployment = object.decode().unwrap();
        assert_eq!(typed.metadata.resource_version.as_deref(), Some("17"));
        assert_eq!(typed.spec.unwrap().replicas, Some(2));
        let new = Object { revision: 0, ..object.clone() };
        assert_eq!(new.to_value()["metadata"].get("resourceVersion"), None);
    }
}
