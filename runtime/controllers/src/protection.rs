//! Claims in use by pods and volumes bound to claims are not removed under them: finalizers put on when they are made and
//! taken off when nobody uses them any more (pkg/controller/volume/{pvcprotection,pvprotection,vacprotection}). Three
//! flavours of one rule.
use crate::{owner::gone_is_fine, pod, session::Session};
use mote_api::{
    Change, Client, Kind, Object, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Value;
use std::sync::Arc;

struct Flavor {
    name: &'static str,
    user: &'static str,
    finalizer: &'static str,
    watches: &'static [(&'static str, &'static str, &'static str)],
}

const CLAIMS: Flavor = Flavor {
    name: "pvc-protection",
    user: "pvc-protection-controller",
    finalizer: "kubernetes.io/pvc-protection",
    watches: &[("", "v1", "persistentvolumeclaims"), ("", "v1", "pods")],
};
const VOLUMES: Flavor = Flavor {
    name: "pv-protection",
    user: "pv-protection-controller",
    finalizer: "kubernetes.io/pv-protection",
    watches: &[("", "v1", "persistentvolumes")],
};

const CLASSES: Flavor = Flavor {
    name: "vac-protection",
    user: "volumeattributesclass-protection-controller",
    finalizer: "kubernetes.io/vac-protection",
    watches: &[
        ("storage.k8s.io", "v1", "volumeattributesclasses"),
        ("", "v1", "persistentvolumeclaims"),
        ("", "v1", "persistentvolumes"),
    ],
};

struct Controller {
    flavor: &'static Flavor,
    session: Session,
    kind: Arc<Kind>,
    pods: Arc<Kind>,
}

pub fn start(client: &Client) {
    for flavor in [&CLAIMS, &VOLUMES, &CLASSES] {
        let session = Session::new(client, flavor.user);
        let (group, version, plural) = flavor.watches[0];
        let (kind, pods) = (session.kind(group, version, plural), session.kind("", "v1", "pods"));
        session.clone().start(Controller { flavor, session, kind, pods });
    }
}

/// The VolumeAttributesClasses that a claim or a volume names: wanted, on the way, and in effect.
fn classes(object: &Object) -> impl Iterator<Item = &str> {
    let target = object.root().at("status.modifyVolumeStatus.targetVolumeAttributesClassName");
    let names = ["spec.volumeAttributesClassName", "status.currentVolumeAttributesClassName"];
    names
        .into_iter()
        .map(|path| object.root().at(path))
        .chain([target])
        .map(|name| name.str())
        .filter(|n| !n.is_empty())
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        self.flavor.name
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        self.flavor.watches
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if change.kind.prefix == self.kind.prefix {
            if change.new.is_some() {
                queue.add(Key::new(object.namespace(), object.name()));
            }
        } else if self.flavor.name == CLASSES.name {
            // What the older side named may be free now.
            let old = change.old.iter().flat_map(classes);
            old.for_each(|name| queue.add(Key::new("", name)));
        } else if change.new.as_ref().is_none_or(pod::is_finished) {
            pod::claims(object).for_each(|name| queue.add(Key::new(object.namespace(), &name)));
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Ok(object) = self.session.get(&self.kind, &key.namespace, &key.name) else { return Ok(Next::Done) };
            let finalizer = self.flavor.finalizer;
            let has = object.meta().get("finalizers").items().any(|f| f.str() == finalizer);
            let wanted = !object.is_deleting() || has && self.in_use(&object)?;
            if has == wanted {
                return Ok(Next::Done);
            }
            let mut value = object.to_value();
            let mut list = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            if wanted {
                list.push(finalizer.into());
            } else {
                list.retain(|f| f != finalizer);
            }
            value["metadata"]["finalizers"] = Value::Array(list.into());
            gone_is_fine(self.session.update(&self.kind, Sub::Main, value).await)?;
            Ok(Next::Done)
        })
    }
}

impl Controller {
    fn in_use(&self, object: &Object) -> Result<bool, Error> {
        if self.flavor.name == CLASSES.name {
            let (claims, volumes) = (
                self.session.kind("", "v1", "persistentvolumeclaims"),
                self.session.kind("", "v1", "persistentvolumes"),
            );
            let mut users = self.session.list(&claims, None)?;
            users.extend(self.session.list(&volumes, None)?);
            return Ok(users.iter().any(|user| classes(user).any(|name| name == object.name())));
        }
        if !self.kind.namespaced {
            return Ok(object.root().at("status.phase").str() == "Bound");
        }
        let pods = self.session.list(&self.pods, Some(object.namespace()))?;
        // A pod that never got a node holds nothing.
        let holds = |p: &Object| {
            !pod::is_finished(p) && !pod::node_name(p).is_empty() && pod::claims(p).any(|name| name == object.name())
        };
        Ok(pods.iter().any(holds))
    }
}
