//! A pod's claims: bound ones tie it to where their volume is, unbound ones that bind at once keep it waiting, and those
//! that wait for their first consumer are told which node it is (plugin volumebinding, thin: matching of
//! claims to existing volumes is the volume controller's).
use crate::{
    cluster::{Node, Pod},
    filter::{Reason, cause},
};
use mote_api::{Client, Kind, Object};
use mote_schema::placement::node_selector_matches;
use std::sync::Arc;

pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

pub struct Kinds {
    pub claims: Arc<Kind>,
    pub volumes: Arc<Kind>,
    pub classes: Arc<Kind>,
}

/// What a pod's claims come to.
#[derive(Default)]
pub struct Claims {
    /// PersistentVolumes of bound claims.
    bound: Vec<Object>,
    /// Claims that wait for a node to be chosen.
    pub waiting: Vec<Object>,
}

/// Reads the pod's claims; the error is why no node can take it now.
pub fn claims(client: &Client, kinds: &Kinds, pod: &Pod) -> Result<Claims, Reason> {
    let mut found = Claims::default();
    for volume in pod.spec().get("volumes").items() {
        let ephemeral = volume.get("ephemeral").exists();
        let name = match volume.at("persistentVolumeClaim.claimName").as_str() {
            Some(name) => name.to_owned(),
            None if ephemeral => format!("{}-{}", pod.object.name(), volume.get("name").str()),
            None => continue,
        };
        let rejected = |text: String| Reason::new(text, cause::VOLUMES, false);
        let Ok(claim) = client.get(&kinds.claims, pod.object.namespace(), &name) else {
            return Err(rejected(if ephemeral {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            } else {
                format!("persistentvolumeclaim {name:?} not found")
            }));
        };
        let volume_name = claim.root().at("spec.volumeName").str();
        if claim.root().at("status.phase").str() == "Lost" {
            let text = format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume_name:?}");
            return Err(rejected(text));
        }
        if claim.is_deleting() {
            return Err(rejected(format!("persistentvolumeclaim {name:?} is being deleted")));
        }
        if !volume_name.is_empty() {
            match client.get(&kinds.volumes, "", volume_name) {
                Ok(volume) => found.bound.push(volume),
                Err(_) => {
                    let text = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                    return Err(rejected(text.into()));
                }
            }
            continue;
        }
        let class = claim.root().at("spec.storageClassName").str();
        let class = client.get(&kinds.classes, "", class).ok();
        if class.is_some_and(|c| c.root().get("volumeBindingMode").str() == "WaitForFirstConsumer") {
            found.waiting.push(claim);
        } else {
            return Err(rejected("pod has unbound immediate PersistentVolumeClaims".into()));
        }
    }
    Ok(found)
}

impl Claims {
    pub fn filter(&self, node: &Node) -> Result<(), Reason> {
        let reachable = |volume: &Object| {
            let required = volume.root().at("spec.nodeAffinity.required");
            !required.exists() || node_selector_matches(required, node.object.root())
        };
        // A claim already promised to one node stays there.
        let elsewhere = |claim: &Object| {
            let selected = claim.meta().get("annotations").get(SELECTED_NODE).as_str();
            selected.is_some_and(|selected| selected != node.name())
        };
        if !self.bound.iter().all(reachable) || self.waiting.iter().any(elsewhere) {
            return Err(Reason::new("node(s) didn't match PersistentVolume's node affinity", cause::VOLUMES, false));
        }
        Ok(())
    }
}
