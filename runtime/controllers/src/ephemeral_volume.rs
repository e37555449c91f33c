//! The claims of generic ephemeral volumes: made from the pod's template, and the pod's own, so that they go with it
//! (pkg/controller/volume/ephemeral).
use crate::{owner, pod, session::Session};
use mote_api::{
    Change, Client, Kind, Object, Status,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::{Value, json};
use std::sync::Arc;

struct Ephemeral {
    session: Session,
    pods: Arc<Kind>,
    claims: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "ephemeral-volume-controller");
    let (pods, claims) = (session.kind("", "v1", "pods"), session.kind("", "v1", "persistentvolumeclaims"));
    session.clone().start(Ephemeral { session, pods, claims });
}

impl Reconciler for Ephemeral {
    fn name(&self) -> &'static str {
        "ephemeral-volume"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("", "v1", "pods"), ("", "v1", "persistentvolumeclaims")]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if change.kind.prefix == self.claims.prefix {
            // One that somebody removed is made again.
            if let Some(key) = owner::controller_key(object, &self.pods).filter(|_| change.new.is_none()) {
                queue.add(key);
            }
        } else if object.root().at("spec.volumes").items().any(|volume| volume.get("ephemeral").exists()) {
            queue.add(Key::new(object.namespace(), object.name()));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(pod) = self.session.get(&self.pods, &key.namespace, &key.name) else { return Ok(Next::Done) };
            if pod.is_deleting() || pod::is_finished(&pod) {
                return Ok(Next::Done);
            }
            for volume in pod.root().at("spec.volumes").items() {
                let template = volume.at("ephemeral.volumeClaimTemplate");
                if !template.exists() {
                    continue;
                }
                let volume = volume.get("name").str();
                let name = format!("{}-{volume}", pod.name());
                if let Err(status) = self.make(&pod, &name, template.to_value()).await {
                    let message = format!("ephemeral volume {volume}: {}", status.message);
                    self.session.event(&pod, "Warning", "FailedBinding", &message);
                    return Err(status.into());
                }
            }
            Ok(Next::Done)
        })
    }
}

impl Ephemeral {
    async fn make(&self, pod: &Object, name: &str, template: Value) -> Result<(), Status> {
        match self.session.get(&self.claims, pod.namespace(), name) {
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
            Ok(claim) if owner::is_controlled_by(&claim, pod) => return Ok(()),
            Ok(_) => {
                let text = format!(
                    "PVC {}/{name} was not created for pod {}/{} (pod is not owner)",
                    pod.namespace(),
                    pod.namespace(),
                    pod.name()
                );
                return Err(Status::internal(text));
            }
        }
        let metadata = json!({
            "name": name, "ownerReferences": [owner::controller_ref(pod)],
            "annotations": template["metadata"]["annotations"].clone(), "labels": template["metadata"]["labels"].clone(),
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"].clone(),
        });
        self.session.create(&self.claims, pod.namespace(), claim).await.map(drop)
    }
}
