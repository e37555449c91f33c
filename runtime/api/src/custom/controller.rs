//! One controller over all definitions: accepts names, establishes, and, when a definition is deleted, deletes its instances
//! before it lets it go (apiextensions-apiserver/pkg/controller/finalizer). Nothing polls for the instances: each that goes
//! wakes their definition.
use super::{GROUP, PLURAL, PREFIX, conditions, install};
use crate::{
    Change, Client, DeleteOptions, Sub,
    driver::{self, BoxFuture, Error, Key, Next, Queue, Reconciler},
    feed,
    registry::{Options, Target},
    server::Api,
};
use mote_schema::{Kind, Object, Status, Value, structural};
use std::sync::Arc;

pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

struct Controller {
    client: Client,
}

pub(crate) fn start(client: &Client) {
    driver::start(client, Arc::new(Controller { client: client.clone() }));
}

fn has_finalizer(object: &Object) -> bool {
    object.meta().get("finalizers").items().any(|name| name.str() == FINALIZER)
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "customresourcedefinition"
    }

    /// All kinds: instances are of any.
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if let Some(custom) = &change.kind.custom {
            if custom.is_terminating && change.new.is_none() {
                queue.add(Key::new("", &change.kind.resource()));
            }
            return;
        }
        if change.kind.group != GROUP || change.kind.plural != PLURAL {
            return;
        }
        queue.add(Key::new("", change.object().name()));
        // Names that were given up are free for others of the group.
        let names =
            |object: &Option<Object>| object.as_ref().map(|object| object.root().at("status.acceptedNames").to_value());
        if change.old.is_some() && names(&change.old) != names(&change.new) {
            let group = change.object().root().at("spec.group").str().to_owned();
            for other in self.of_group(&group).iter().filter(|other| other.name() != change.object().name()) {
                queue.add(Key::new("", other.name()));
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Some(kind) = self.kind() else { return Ok(Next::Done) };
            let object = match self.api().get(&kind, "", &key.name) {
                Ok(object) => object,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            if object.is_deleting() {
                if has_finalizer(&object) {
                    quiet(self.finalize(&kind, object).await)?;
                }
                return Ok(Next::Done);
            }
            quiet(self.settle(&kind, object).await)?;
            Ok(Next::Done)
        })
    }
}

/// Somebody else was faster: their write wakes this key again.
fn quiet(result: Result<(), Status>) -> Result<(), Error> {
    match result {
        Err(status) if !status.is_conflict() && !status.is_not_found() => Err(status.into()),
        _ => Ok(()),
    }
}

impl Controller {
    fn api(&self) -> &Arc<Api> {
        self.client.api()
    }

    fn kind(&self) -> Option<Arc<Kind>> {
        self.client.kind(GROUP, "v1", PLURAL)
    }

    fn of_group(&self, group: &str) -> Vec<Object> {
        let Some(kind) = self.kind() else { return Vec::new() };
        let snapshot = self.api().store.snapshot();
        let all = snapshot.range(PREFIX, None).map(|entry| feed::object(&kind, &entry));
        all.filter(|object| object.root().at("spec.group").str() == group).collect()
    }

    async fn settle(&self, kind: &Arc<Kind>, object: Object) -> Result<(), Status> {
        let mut taken = conditions::Taken::default();
        for other in self.of_group(object.root().at("spec.group").str()) {
            taken.add(other.root().at("status.acceptedNames"));
        }
        let before = object.to_value();
        let mut new = before.clone();
        conditions::settle(&object.doc, &mut new, &taken);
        if new == before {
            return Ok(());
        }
        if !structural::is_true(object.root(), "Established") {
            // Whoever sees it established finds it served.
            install(self.api(), object.name(), Api::encode(new.clone())?);
        }
        self.client.update_value(kind, Sub::Status, new).await.map(drop)
    }

    async fn finalize(&self, kind: &Arc<Kind>, object: Object) -> Result<(), Status> {
        let mut new = object.to_value();
        let pending = "InstanceDeletionPending";
        if conditions::find(&new["status"], "Terminating").is_none_or(|condition| condition["reason"] == pending) {
            let message = "CustomResource deletion is in progress";
            conditions::set(&mut new, "Terminating", true, "InstanceDeletionInProgress", message);
            new = self.client.update_value(kind, Sub::Status, new).await?.to_value();
        }
        if !structural::is_true(object.root(), "Established") {
            conditions::set(&mut new, "Terminating", false, "NeverEstablished", "resource was never established");
        } else if let Some(instances) = structural::stored_kind(&object.doc).filter(|kind| !self.is_builtin(kind)) {
            if let Err(status) = self.delete_instances(&instances).await {
                let message = format!("could not issue all deletes: {}", status.message);
                conditions::set(&mut new, "Terminating", true, "InstanceDeletionFailed", &message);
                self.client.update_value(kind, Sub::Status, new).await?;
                return Err(status);
            }
            if self.api().store.snapshot().range(&instances.prefix, None).next().is_some() {
                // The last of them to go wakes this again.
                return Ok(());
            }
            conditions::set(&mut new, "Terminating", false, "InstanceDeletionCompleted", "removed all instances");
        } else {
            let message = "instances overlap with built-in resources in storage";
            conditions::set(&mut new, "Terminating", false, "OverlappingBuiltInResource", message);
        }
        if let Some(finalizers) = new["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|name| name != FINALIZER);
            if finalizers.is_empty()
                && let Some(metadata) = new["metadata"].as_object_mut()
            {
                metadata.remove("finalizers");
            }
        }
        self.client.update_value(kind, Sub::Status, new).await.map(drop)
    }

    fn is_builtin(&self, kind: &Kind) -> bool {
        self.api().catalog().kinds.iter().any(|known| !known.is_custom() && known.prefix == kind.prefix)
    }

    async fn delete_instances(&self, kind: &Arc<Kind>) -> Result<(), Status> {
        let snapshot = self.api().store.snapshot();
        let mut namespaces: Vec<String> = Vec::new();
        for entry in snapshot.range(&kind.prefix, None) {
            let object = feed::object(kind, &entry);
            if !object.is_deleting() && !namespaces.iter().any(|known| known == object.namespace()) {
                namespaces.push(object.namespace().to_owned());
            }
        }
        for namespace in namespaces {
            let mut target = Target::new(self.client.user(), kind, &namespace, "", Sub::Main);
            target.options = Options::default();
            let mut listed: Vec<_> = snapshot.range(&self.api().list_prefix(kind, &namespace), None).collect();
            listed.retain(|entry| !feed::object(kind, entry).is_deleting());
            self.api().delete_collection(&mut target, &DeleteOptions::default(), &listed).await?;
        }
        Ok(())
    }
}

/// What the first DELETE of a definition adds to it (registry/customresourcedefinition/etcd.go).
pub(crate) fn begin_deletion(object: &mut Value) {
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    conditions::set(object, "Terminating", true, "InstanceDeletionPending", message);
}
