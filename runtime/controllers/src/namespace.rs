//! Namespace deletion: content removed kind by kind, pods first and alone, then the finalizer "kubernetes".
//!
//! Nothing polls for the content to go: each deletion inside a terminating namespace wakes it again. Behaviour of
//! upstream's pkg/controller/namespace/deletion, ordered deletion included.
use crate::{
    amounts::{now, rfc3339},
    session::Session,
    status::{Conditions, write},
};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Order as _;
use mote_schema::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

const FINALIZER: &str = "kubernetes";

/// (type, reason and message when all is well)
const CONDITIONS: [(&str, &str, &str); 5] = [
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
];

struct Controller {
    session: Session,
    kind: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "namespace-controller");
    session.clone().start(Controller { kind: session.kind("", "v1", "namespaces"), session });
}

/// What is left in a namespace.
#[derive(Default)]
struct Remaining {
    /// "pods." or "deployments.apps", as upstream prints a GroupResource here.
    by_resource: BTreeMap<String, usize>,
    by_finalizer: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "namespace"
    }

    /// All kinds: the last object of any of them lets a namespace go.
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[]
    }

    fn workers(&self) -> usize {
        4
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        if change.kind.prefix == self.kind.prefix {
            if let Some(namespace) = change.new.as_ref().filter(|n| n.is_deleting()) {
                queue.add(Key::new("", namespace.name()));
            }
        } else if change.kind.namespaced && change.new.is_none() {
            let name = change.object().namespace();
            if self.session.get(&self.kind, "", name).is_ok_and(|n| n.is_deleting()) {
                queue.add(Key::new("", name));
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let namespace = match self.session.get(&self.kind, "", &key.name) {
                Ok(namespace) => namespace,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            let finalizers = namespace.root().at("spec.finalizers");
            if !namespace.is_deleting() || !finalizers.items().any(|f| f.str() == FINALIZER) {
                return Ok(Next::Done);
            }
            self.empty(namespace).await
        })
    }
}

impl Controller {
    async fn empty(&self, namespace: Object) -> Result<Next, Error> {
        let remaining = self.delete_content(namespace.name()).await;
        let mut status = namespace.root().get("status").to_value();
        if !status.is_object() {
            status = json!({});
        }
        status["phase"] = "Terminating".into();
        status["conditions"] = conditions(Conditions::of(&namespace), &remaining).into_value();
        let namespace = write(&self.session, &namespace, status).await?;
        if let Some(failure) = remaining.failures.into_iter().next() {
            return Err(Error::Other(failure));
        }
        if remaining.by_resource.is_empty() {
            self.finalize(&namespace).await?;
        }
        Ok(Next::Done)
    }

    async fn finalize(&self, namespace: &Object) -> Result<(), Error> {
        let mut value = namespace.to_value();
        if let Some(finalizers) = value.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) {
            finalizers.retain(|f| f != FINALIZER);
        }
        match self.session.update(&self.kind, Sub::Finalize, value).await {
            Err(status) if !status.is_not_found() => Err(status.into()),
            _ => Ok(()),
        }
    }

    /// Asks for the deletion of everything; what was there afterwards. While there are pods nothing else is touched,
    /// so that their Secrets, Services and policies outlive them.
    async fn delete_content(&self, namespace: &str) -> Remaining {
        let mut remaining = Remaining::default();
        let mut kinds = self.session.kinds();
        kinds.retain(|k| k.namespaced);
        kinds.order_by_key(|k| !(k.group.is_empty() && k.plural == "pods"));
        for kind in &kinds {
            self.delete_kind(kind, namespace, &mut remaining).await;
            if kind.group.is_empty() && kind.plural == "pods" && !remaining.by_resource.is_empty() {
                break;
            }
        }
        remaining
    }

    async fn delete_kind(&self, kind: &Arc<Kind>, namespace: &str, remaining: &mut Remaining) {
        let objects = match self.session.list(kind, Some(namespace)) {
            Ok(objects) => objects,
            Err(status) => return remaining.failures.push(status.message),
        };
        if objects.is_empty() {
            return;
        }
        for object in objects.iter().filter(|o| !o.is_deleting()) {
            let options = DeleteOptions { propagation: Some("Background".into()), ..DeleteOptions::default() };
            match self.session.delete(object, options).await {
                Err(status) if !status.is_not_found() && !status.is_conflict() => {
                    remaining.failures.push(status.message)
                }
                _ => {}
            }
        }
        let left = self.session.list(kind, Some(namespace)).unwrap_or_default();
        if !left.is_empty() {
            *remaining.by_resource.entry(format!("{}.{}", kind.plural, kind.group)).or_default() += left.len();
        }
        for finalizer in left.iter().flat_map(|o| o.meta().get("finalizers").items()) {
            *remaining.by_finalizer.entry(finalizer.str().to_owned()).or_default() += 1;
        }
    }
}

fn conditions(mut conditions: Conditions, remaining: &Remaining) -> Conditions {
    let counted = |counts: &BTreeMap<String, usize>, verb: &str| {
        let parts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {verb} {count} resource instances")).collect();
        parts.join(", ")
    };
    for (type_, ok_reason, ok_message) in CONDITIONS {
        let problem = match type_ {
            "NamespaceDeletionContentFailure" if !remaining.failures.is_empty() => Some((
                "ContentDeletionFailed",
                format!(
                    "Failed to delete all resource types, {} remaining: {}",
                    remaining.failures.len(),
                    remaining.failures.join(", ")
                ),
            )),
            "NamespaceContentRemaining" if !remaining.by_resource.is_empty() => Some((
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", counted(&remaining.by_resource, "has")),
            )),
            "NamespaceFinalizersRemaining" if !remaining.by_finalizer.is_empty() => Some((
                "SomeFinalizersRemain",
                format!(
                    "Some content in the namespace has finalizers remaining: {}",
                    counted(&remaining.by_finalizer, "in")
                ),
            )),
            _ => None,
        };
        let (status, reason, message) = match &problem {
            Some((reason, message)) => ("True", *reason, message.as_str()),
            None => ("False", ok_reason, ok_message),
        };
        conditions.set_in_place(json!({
            "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": rfc3339(now()),
        }));
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_in_upstreams_words() {
        let mut remaining = Remaining::default();
        remaining.by_resource.insert("pods.".into(), 2);
        remaining.by_finalizer.insert("example.com/hold".into(), 1);
        let list = conditions(Conditions::default(), &remaining);
        let check = |type_: &str, status: &str, reason: &str, message: &str| {
            let found = list.get(type_).unwrap();
            assert_eq!((&found["status"], &found["reason"]), (&json!(status), &json!(reason)));
            assert_eq!(found["message"], message);
        };
        check(
            "NamespaceContentRemaining",
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: pods. has 2 resource instances",
        );
        check(
            "NamespaceFinalizersRemaining",
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
        );
        check(
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        );
    }
}
