//! Claims and the volumes there are for them, bound to each other (pkg/controller/volume/persistentvolume). A claim is
//! bound in four writes, each of which may be the last before a power cut: the volume's reference, its phase, the claim's
//! volume, its phase; whoever comes back to either goes on from there. Nothing is provisioned here: a claim whose class has
//! a provisioner is marked for it, and volumes are neither emptied nor deleted.
use crate::{owner::gone_is_fine, pod, session::Session, status};
use mote_api::{
    Change, Client, Kind, Object, Status, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::claims::{self, BOUND_BY_CONTROLLER};
use mote_schema::{Value, json};
use std::sync::Arc;

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONERS: [&str; 2] =
    ["volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner"];
/// A class with it has only the volumes that somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const DEFAULT_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

struct Binder {
    session: Session,
    claims: Arc<Kind>,
    volumes: Arc<Kind>,
    classes: Arc<Kind>,
    pods: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "persistent-volume-binder");
    let binder = Binder {
        claims: session.kind("", "v1", "persistentvolumeclaims"),
        volumes: session.kind("", "v1", "persistentvolumes"),
        classes: session.kind("storage.k8s.io", "v1", "storageclasses"),
        pods: session.kind("", "v1", "pods"),
        session: session.clone(),
    };
    session.start(binder);
}

fn key_of(object: &Object) -> Key {
    Key::new(object.namespace(), object.name())
}

fn has_annotation(object: &Object, name: &str) -> bool {
    object.meta().get("annotations").get(name).exists()
}

fn text<'a>(object: &'a Object, path: &str) -> &'a str {
    object.root().at(path).str()
}

impl Reconciler for Binder {
    fn name(&self) -> &'static str {
        "persistentvolume-binder"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[
            ("", "v1", "persistentvolumeclaims"),
            ("", "v1", "persistentvolumes"),
            ("storage.k8s.io", "v1", "storageclasses"),
        ]
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        match &*change.kind.plural {
            "persistentvolumeclaims" => {
                queue.add(key_of(object));
                let volume = text(object, "spec.volumeName");
                if !volume.is_empty() {
                    queue.add(Key::new("", volume));
                }
            }
            "persistentvolumes" => {
                queue.add(key_of(object));
                let claim = object.root().at("spec.claimRef");
                if claim.exists() {
                    queue.add(Key::new(claim.get("namespace").str(), claim.get("name").str()));
                } else if text(object, "status.phase") == "Available" {
                    self.wake_waiting(queue);
                }
            }
            _ if change.new.is_some() => self.wake_waiting(queue),
            _ => {}
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            // A volume has no namespace, a claim always has one.
            let is_volume = key.namespace.is_empty();
            let kind = if is_volume { &self.volumes } else { &self.claims };
            let Some(object) = self.find(kind, &key.namespace, &key.name)? else { return Ok(Next::Done) };
            let done = match (is_volume, has_annotation(&object, BIND_COMPLETED)) {
                (true, _) => self.settle_volume(object).await,
                (false, true) => self.keep(object).await,
                (false, false) => self.settle_claim(object).await,
            };
            gone_is_fine(done)?;
            Ok(Next::Done)
        })
    }
}

impl Binder {
    fn find(&self, kind: &Arc<Kind>, namespace: &str, name: &str) -> Result<Option<Object>, Status> {
        match self.session.get(kind, namespace, name) {
            Err(status) if status.is_not_found() => Ok(None),
            found => found.map(Some),
        }
    }

    fn wake_waiting(&self, queue: &Queue) {
        let claims = self.session.list(&self.claims, None).unwrap_or_default();
        claims.iter().filter(|claim| !has_annotation(claim, BIND_COMPLETED)).for_each(|claim| queue.add(key_of(claim)));
    }

    async fn settle_claim(&self, claim: Object) -> Result<(), Status> {
        let wanted = text(&claim, "spec.volumeName");
        if wanted.is_empty() {
            return self.look_for_volume(claim).await;
        }
        let Some(volume) = self.find(&self.volumes, "", wanted)? else { return self.phase(&claim, "Pending").await };
        if claims::is_for(&volume, &claim) {
            return self.bind(volume, claim).await;
        }
        let (reason, message) = if volume.root().at("spec.claimRef").exists() {
            ("FailedBinding", format!("volume \"{wanted}\" already bound to a different claim."))
        } else {
            let Some(why) = claims::mismatch(&volume, &claim) else { return self.bind(volume, claim).await };
            ("VolumeMismatch", format!("Cannot bind to requested volume \"{wanted}\": {why}"))
        };
        self.session.event(&claim, "Warning", reason, &message);
        self.phase(&claim, "Pending").await
    }

    /// For a claim that takes any volume.
    async fn look_for_volume(&self, claim: Object) -> Result<(), Status> {
        let name = claims::class(&claim);
        let class = if name.is_empty() { None } else { self.find(&self.classes, "", name)? };
        let waits = class.as_ref().is_some_and(|class| text(class, "volumeBindingMode") == "WaitForFirstConsumer");
        let volumes = self.session.list(&self.volumes, None)?;
        if let Some(volume) = claims::best(&claim, volumes.iter(), None, waits) {
            return self.bind(volume.clone(), claim).await;
        }
        if !claim.root().at("spec.storageClassName").exists()
            && name.is_empty()
            && let Some(default) = self.default_class()?
        {
            let mut value = claim.to_value();
            value["spec"]["storageClassName"] = default.name().into();
            return self.session.update(&self.claims, Sub::Main, value).await.map(drop);
        }
        let provisioner = class.as_ref().map_or("", |class| text(class, "provisioner"));
        let (type_, reason, message) = if waits && !has_annotation(&claim, SELECTED_NODE) {
            let (reason, message) = self.what_it_waits_for(&claim)?;
            ("Normal", reason, message)
        } else if name.is_empty() {
            let message = "no persistent volumes available for this claim and no storage class is set";
            ("Normal", "FailedBinding", message.into())
        } else if class.is_none() {
            ("Warning", "ProvisioningFailed", format!("storageclass.storage.k8s.io \"{name}\" not found"))
        } else if provisioner.starts_with("kubernetes.io/") {
            let message = format!("no volume plugin matched name: {provisioner}");
            ("Warning", "ProvisioningFailed", message)
        } else {
            self.mark(&claim, provisioner).await?;
            let message = format!(
                "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
            );
            ("Normal", "ExternalProvisioning", message)
        };
        self.session.event(&claim, type_, reason, &message);
        match self.find(&self.claims, claim.namespace(), claim.name())? {
            Some(claim) => self.phase(&claim, "Pending").await,
            None => Ok(()),
        }
    }

    fn default_class(&self) -> Result<Option<Object>, Status> {
        let is_default = |class: &Object| {
            let annotations = class.meta().get("annotations");
            DEFAULT_MARKS.iter().any(|mark| annotations.get(mark).str() == "true")
        };
        let classes = self.session.list(&self.classes, None)?.into_iter().filter(is_default);
        // Of several the newest; of those the first by name, which is the last that is listed the other way round.
        let created = |class: &Object| class.meta().get("creationTimestamp").str().to_owned();
        let newest = |a: &Object, b: &Object| created(a).cmp(&created(b)).then_with(|| b.name().cmp(a.name()));
        Ok(classes.max_by(newest))
    }

    fn what_it_waits_for(&self, claim: &Object) -> Result<(&'static str, String), Status> {
        let pods = self.session.list(&self.pods, Some(claim.namespace()))?;
        let uses = |pod: &&Object| {
            let waits = pod::node_name(pod).is_empty() && !pod::is_finished(pod);
            waits && pod::claims(pod).any(|name| name == claim.name())
        };
        let names: Vec<&str> = pods.iter().filter(uses).map(Object::name).collect();
        Ok(match names.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".into()),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            many => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", many.join(","))),
        })
    }

    /// Tells the provisioner that the claim is its.
    async fn mark(&self, claim: &Object, provisioner: &str) -> Result<(), Status> {
        if provisioner == NO_PROVISIONER || PROVISIONERS.iter().all(|name| has_annotation(claim, name)) {
            return Ok(());
        }
        let mut value = claim.to_value();
        for name in PROVISIONERS {
            value["metadata"]["annotations"][name] = provisioner.into();
        }
        self.session.update(&self.claims, Sub::Main, value).await.map(drop)
    }

    /// A claim that was bound once.
    async fn keep(&self, claim: Object) -> Result<(), Status> {
        let name = text(&claim, "spec.volumeName");
        let volume = if name.is_empty() { None } else { self.find(&self.volumes, "", name)? };
        let (reason, message) = match volume {
            Some(volume) => {
                let reference = volume.root().at("spec.claimRef");
                if !reference.exists() || reference.get("uid").str() == claim.uid() {
                    return self.bind(volume, claim).await;
                }
                ("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
            }
            None if name.is_empty() => {
                ("ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
            }
            None => ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        };
        if text(&claim, "status.phase") != "Lost" {
            self.phase(&claim, "Lost").await?;
            self.session.event(&claim, "Warning", reason, message);
        }
        Ok(())
    }

    /// What is said already is not written again.
    async fn bind(&self, volume: Object, claim: Object) -> Result<(), Status> {
        let mut value = volume.to_value();
        let reference = volume.root().at("spec.claimRef");
        if reference.get("uid").str() != claim.uid() {
            if !claims::is_for(&volume, &claim) {
                value["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into();
            }
            value["spec"]["claimRef"] = json!({
                "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.namespace(),
                "name": claim.name(), "uid": claim.uid(), "resourceVersion": claim.revision.to_string(),
            });
        }
        let volume = self.write(volume, value).await?;
        let volume = self.volume_phase(volume, "Bound", None).await?;
        let mut value = claim.to_value();
        if text(&claim, "spec.volumeName").is_empty() {
            value["spec"]["volumeName"] = volume.name().into();
            value["metadata"]["annotations"][BOUND_BY_CONTROLLER] = "yes".into();
        }
        value["metadata"]["annotations"][BIND_COMPLETED] = "yes".into();
        let claim = self.write(claim, value).await?;
        let mut status = claim.root().get("status").to_value();
        status["phase"] = "Bound".into();
        status["accessModes"] = volume.root().at("spec.accessModes").to_value();
        // A volume that grew is told of by whoever made it larger.
        if text(&claim, "status.phase") != "Bound" {
            status["capacity"] = volume.root().at("spec.capacity").to_value();
        }
        let class = volume.root().at("spec.volumeAttributesClassName");
        if text(&claim, "status.phase") != "Bound" && class.exists() {
            status["currentVolumeAttributesClassName"] = class.to_value();
        }
        status::write(&self.session, &claim, status).await.map(drop)
    }

    async fn write(&self, object: Object, value: Value) -> Result<Object, Status> {
        if object.to_value() == value {
            return Ok(object);
        }
        let kind = object.kind.clone();
        self.session.update(&kind, Sub::Main, value).await
    }

    /// Of a claim that has no volume.
    async fn phase(&self, claim: &Object, phase: &str) -> Result<(), Status> {
        let mut status = claim.root().get("status").to_value();
        if let Some(members) = status.as_object_mut() {
            for name in ["accessModes", "capacity", "currentVolumeAttributesClassName"] {
                members.remove(name);
            }
        }
        status["phase"] = phase.into();
        status::write(&self.session, claim, status).await.map(drop)
    }

    async fn volume_phase(&self, volume: Object, phase: &str, message: Option<&str>) -> Result<Object, Status> {
        let mut status = volume.root().get("status").to_value();
        if status["phase"] == phase {
            return Ok(volume);
        }
        status["phase"] = phase.into();
        match (message, status.as_object_mut()) {
            (Some(message), _) => status["message"] = message.into(),
            (None, Some(members)) => drop(members.remove("message")),
            _ => {}
        }
        status::write(&self.session, &volume, status).await
    }

    async fn settle_volume(&self, volume: Object) -> Result<(), Status> {
        let reference = volume.root().at("spec.claimRef");
        if reference.get("uid").str().is_empty() {
            return self.volume_phase(volume, "Available", None).await.map(drop);
        }
        let (namespace, name) = (reference.get("namespace").str(), reference.get("name").str());
        let claim = self.find(&self.claims, namespace, name)?.filter(|c| c.uid() == reference.get("uid").str());
        let Some(claim) = claim else { return self.release(volume).await };
        let bound = text(&claim, "spec.volumeName");
        if bound == volume.name() {
            return self.volume_phase(volume, "Bound", None).await.map(drop);
        }
        if bound.is_empty() {
            // Its claim goes on from here, unless it cannot.
            if !claims::is_same_mode(&volume, &claim) {
                let message = format!(
                    "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"{name}\" due to incompatible volumeMode."
                );
                self.session.event(&volume, "Warning", "VolumeMismatch", &message);
                let message = format!(
                    "Cannot bind PersistentVolume \"{}\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
                    volume.name()
                );
                self.session.event(&claim, "Warning", "VolumeMismatch", &message);
            }
            return Ok(());
        }
        let deleted = text(&volume, "spec.persistentVolumeReclaimPolicy") == "Delete";
        if deleted && has_annotation(&volume, PROVISIONED_BY) {
            return self.release(volume).await;
        }
        // The claim has another: this one is free again, or promised as it was.
        let mut value = volume.to_value();
        if has_annotation(&volume, BOUND_BY_CONTROLLER) {
            value["spec"]["claimRef"] = Value::Null;
            value["metadata"]["annotations"][BOUND_BY_CONTROLLER] = Value::Null;
        } else {
            value["spec"]["claimRef"]["uid"] = Value::Null;
        }
        let volume = self.write(volume, value).await?;
        self.volume_phase(volume, "Available", None).await.map(drop)
    }

    /// The claim is gone.
    async fn release(&self, volume: Object) -> Result<(), Status> {
        if text(&volume, "status.phase") == "Failed" {
            return Ok(());
        }
        let volume = self.volume_phase(volume, "Released", None).await?;
        let (reason, message) = match text(&volume, "spec.persistentVolumeReclaimPolicy") {
            // Whoever made it takes it back.
            "Delete" if has_annotation(&volume, PROVISIONED_BY) => return Ok(()),
            "Delete" => (
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched",
                    volume.name()
                ),
            ),
            "Recycle" => ("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
            _ => return Ok(()),
        };
        self.session.event(&volume, "Warning", reason, &message);
        self.volume_phase(volume, "Failed", Some(&message)).await.map(drop)
    }
}
