//! How a controller reaches the API: it reads as the node itself and writes under an identity of its own, as upstream's
//! controllers read from shared caches and write as their service accounts. RBAC's bootstrap roles say what each may write.
use mote_api::{
    Catalog, Client, DeleteOptions, Kind, Object, Patch, Status, Sub,
    driver::{self, Queue, Reconciler},
};
use mote_schema::Value;
use std::{future::Future, sync::Arc};

type Result<T> = std::result::Result<T, Status>;

#[derive(Clone)]
pub struct Session {
    reads: Client,
    writes: Client,
}

impl Session {
    /// Writes as `system:serviceaccount:kube-system:<name>`, with a service account's groups.
    pub fn new(client: &Client, name: &str) -> Session {
        let user = format!("system:serviceaccount:kube-system:{name}");
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
        Session { reads: client.clone(), writes: client.as_user(&user, &groups) }
    }

    /// Writes as kube-controller-manager itself does what none of its controllers' accounts may.
    pub fn of_the_manager(client: &Client) -> Session {
        let writes = client.as_user("system:kube-controller-manager", &["system:authenticated"]);
        Session { reads: client.clone(), writes }
    }

    pub fn start(&self, reconciler: impl Reconciler) -> Queue {
        driver::start(&self.reads, Arc::new(reconciler))
    }

    /// A task of the node's executor; dropping it cancels the work.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> async_executor::Task<T> {
        self.reads.executor().spawn(future)
    }

    /// A built-in kind; the table is part of this binary, so a missing one is a mistake of the build.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Arc<Kind> {
        let kind = self.find_kind(group, version, plural);
        kind.unwrap_or_else(|| panic!("no built-in kind {group}/{version} {plural}"))
    }

    pub fn find_kind(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.reads.kind(group, version, plural)
    }

    /// Every stored kind, once.
    pub fn kinds(&self) -> Vec<Arc<Kind>> {
        self.reads.kinds()
    }

    pub fn catalog(&self) -> Arc<Catalog> {
        self.reads.catalog()
    }

    pub fn get(&self, kind: &Arc<Kind>, namespace: &str, name: &str) -> Result<Object> {
        self.reads.get(kind, namespace, name)
    }

    pub fn list(&self, kind: &Arc<Kind>, namespace: Option<&str>) -> Result<Vec<Object>> {
        self.reads.list(kind, namespace)
    }

    pub async fn create(&self, kind: &Arc<Kind>, namespace: &str, object: Value) -> Result<Object> {
        self.writes.create_value(kind, namespace, object).await
    }

    pub async fn update(&self, kind: &Arc<Kind>, sub: Sub, object: Value) -> Result<Object> {
        self.writes.update_value(kind, sub, object).await
    }

    /// A JSON merge patch (RFC 7386) of `object`.
    pub async fn patch(&self, object: &Object, sub: Sub, patch: Value) -> Result<Object> {
        self.writes.patch(&object.kind, object.namespace(), object.name(), sub, Patch::Merge(patch)).await
    }

    /// Deletes exactly this incarnation of `object`.
    pub async fn delete(&self, object: &Object, options: DeleteOptions) -> Result<()> {
        let options = DeleteOptions { uid: Some(object.uid().into()), ..options };
        self.writes.delete(&object.kind, object.namespace(), object.name(), options).await
    }

    pub fn event(&self, about: &Object, type_: &str, reason: &str, message: &str) {
        self.writes.event(about, type_, reason, message);
    }
}
