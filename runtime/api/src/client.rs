//! The in-process client: what controllers, scheduler, kubelet and network use instead of HTTP. It enters the
//! request path at *authorize* with an identity of its own and passes the same admission as everybody.
//! Reads come from the store's current root in memory: no I/O, no copy.
use async_executor::Executor;
use mote_schema::{Kind, Object, Status};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, sync::Arc};

pub type Result<T> = std::result::Result<T, Status>;

/// Which part of an object a write goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    Main,
    Status,
}

#[derive(Clone, Debug)]
pub enum Patch {
    Json(serde_json::Value),
    Merge(serde_json::Value),
    Strategic(serde_json::Value),
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub uid: Option<String>,
    pub resource_version: Option<u64>,
    pub grace_period_seconds: Option<i64>,
    /// "Background", "Foreground", "Orphan"; None is the kind's default.
    pub propagation: Option<String>,
}

/// One object's change. Both sides are the stored bytes, shared.
#[derive(Clone)]
pub struct Change {
    pub revision: u64,
    pub kind: Arc<Kind>,
    pub old: Option<Object>,
    pub new: Option<Object>,
}

impl Change {
    /// The newer side there is.
    pub fn object(&self) -> &Object {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has a side")
    }
}

/// Cheap to clone. `Client::as_user` gives each component its own identity.
#[derive(Clone)]
pub struct Client {}

impl Client {
    /// The same server under another identity, e.g. "system:kube-scheduler" or
    /// "system:serviceaccount:kube-system:deployment-controller"; groups as upstream gives that user.
    pub fn as_user(&self, _name: &str, _groups: &[&str]) -> Client {
        unimplemented!()
    }
    pub fn executor(&self) -> &Arc<Executor<'static>> {
        unimplemented!()
    }
    /// Runs for the life of the process.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.executor().spawn(future).detach();
    }
    /// The kind behind a k8s-openapi type.
    pub fn kind_of<K: k8s_openapi::Resource>(&self) -> Arc<Kind> {
        unimplemented!()
    }
    /// The kind behind group ("" for core), version and plural.
    pub fn kind(&self, _group: &str, _version: &str, _plural: &str) -> Option<Arc<Kind>> {
        unimplemented!()
    }

    pub fn get(&self, _kind: &Arc<Kind>, _namespace: &str, _name: &str) -> Result<Object> {
        unimplemented!()
    }
    /// All of a kind, in one namespace or (None) in all.
    pub fn list(&self, _kind: &Arc<Kind>, _namespace: Option<&str>) -> Result<Vec<Object>> {
        unimplemented!()
    }
    /// `object` has apiVersion and kind or not; metadata.generateName works.
    pub async fn create_value(
        &self,
        _kind: &Arc<Kind>,
        _namespace: &str,
        _object: serde_json::Value,
    ) -> Result<Object> {
        unimplemented!()
    }
    /// metadata.resourceVersion, when set, must match.
    pub async fn update_value(&self, _kind: &Arc<Kind>, _sub: Sub, _object: serde_json::Value) -> Result<Object> {
        unimplemented!()
    }
    pub async fn patch(
        &self,
        _kind: &Arc<Kind>,
        _namespace: &str,
        _name: &str,
        _sub: Sub,
        _patch: Patch,
    ) -> Result<Object> {
        unimplemented!()
    }
    pub async fn delete(
        &self,
        _kind: &Arc<Kind>,
        _namespace: &str,
        _name: &str,
        _options: DeleteOptions,
    ) -> Result<()> {
        unimplemented!()
    }
    /// POST to a subresource: "binding", "eviction", "token".
    pub async fn create_sub(
        &self,
        _kind: &Arc<Kind>,
        _namespace: &str,
        _name: &str,
        _sub: &str,
        _body: serde_json::Value,
    ) -> Result<serde_json::Value> {
        unimplemented!()
    }

    // Typed: the same calls with k8s-openapi types; the kind follows from the type.
    pub fn get_as<K: k8s_openapi::Resource + DeserializeOwned>(&self, namespace: &str, name: &str) -> Result<K> {
        decode(&self.get(&self.kind_of::<K>(), namespace, name)?)
    }
    pub fn list_as<K: k8s_openapi::Resource + DeserializeOwned>(&self, namespace: Option<&str>) -> Result<Vec<K>> {
        self.list(&self.kind_of::<K>(), namespace)?.iter().map(decode).collect()
    }
    pub async fn create<K: k8s_openapi::Resource + Serialize + DeserializeOwned>(
        &self,
        namespace: &str,
        object: &K,
    ) -> Result<K> {
        decode(&self.create_value(&self.kind_of::<K>(), namespace, encode(object)?).await?)
    }
    pub async fn update<K: k8s_openapi::Resource + Serialize + DeserializeOwned>(&self, object: &K) -> Result<K> {
        decode(&self.update_value(&self.kind_of::<K>(), Sub::Main, encode(object)?).await?)
    }
    pub async fn update_status<K: k8s_openapi::Resource + Serialize + DeserializeOwned>(
        &self,
        object: &K,
    ) -> Result<K> {
        decode(&self.update_value(&self.kind_of::<K>(), Sub::Status, encode(object)?).await?)
    }
    /// Records or counts up an Event (core/v1) as upstream's recorder does: the same (object, type, reason,
    /// message, component) within the last 10 minutes raises `count` and `lastTimestamp`. Never fails the caller.
    pub fn event(&self, _about: &Object, _type_: &str, _reason: &str, _message: &str) {
        unimplemented!()
    }
}

fn decode<T: DeserializeOwned>(object: &Object) -> Result<T> {
    object.decode().map_err(|e| Status::internal(format!("decoding {}/{}: {e:?}", object.namespace(), object.name())))
}

fn encode<T: Serialize>(value: &T) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Status::internal(format!("encoding: {e}")))
}
