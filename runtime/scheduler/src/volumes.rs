//! A pod's claims: bound ones tie it to where their volume is, unbound ones that bind at once keep it waiting, and those
//! that wait for their first consumer get a volume of the node that is chosen, or are told which node it is so that one is
//! provisioned there (plugin volumebinding). The volume controller completes what is begun here.
use crate::{
    cluster::{Node, Pod},
    filter::{Reason, cause},
};
use mote_api::{Client, Kind, Object};
use mote_schema::claims::{best, is_reachable};
use std::sync::Arc;

pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// A class with it has only the volumes that somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

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
    /// Claims that wait for a node to be chosen, and whether a volume can be made for them.
    waiting: Vec<(Object, bool)>,
    /// What there is for them.
    volumes: Vec<Object>,
}

/// A claim that waits for a node, and the volume that it gets there; None: one is to be made.
pub type Choice = (Object, Option<Object>);

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
        let unbound = || rejected("pod has unbound immediate PersistentVolumeClaims".into());
        if !volume_name.is_empty() && !claim.meta().get("annotations").get(BIND_COMPLETED).exists() {
            return Err(unbound());
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
        let waits = |class: &Object| class.root().get("volumeBindingMode").str() == "WaitForFirstConsumer";
        match class.filter(waits) {
            Some(class) => {
                let provisioned = !matches!(class.root().get("provisioner").str(), "" | NO_PROVISIONER);
                found.waiting.push((claim, provisioned));
            }
            None => return Err(unbound()),
        }
    }
    if !found.waiting.is_empty() {
        found.volumes = client.list(&kinds.volumes, None).unwrap_or_default();
    }
    Ok(found)
}

impl Claims {
    pub fn filter(&self, node: &Node) -> Result<(), Reason> {
        if !self.bound.iter().all(|volume| is_reachable(volume, node.object.root())) {
            return Err(Reason::new("node(s) didn't match PersistentVolume's node affinity", cause::VOLUMES, false));
        }
        self.choices(node).map(drop)
    }

    /// What the claims that wait would get on the node: no volume twice.
    pub fn choices(&self, node: &Node) -> Result<Vec<Choice>, Reason> {
        let mut choices: Vec<Choice> = Vec::new();
        for (claim, provisioned) in &self.waiting {
            // A claim already promised to one node stays there.
            let selected = claim.meta().get("annotations").get(SELECTED_NODE).as_str();
            let here = selected.is_none_or(|selected| selected == node.name());
            let taken =
                |volume: &&Object| choices.iter().flat_map(|(_, taken)| taken).any(|t| t.name() == volume.name());
            let free = self.volumes.iter().filter(|volume| !taken(volume));
            let volume = best(claim, free, Some(node.object.root()), false);
            if !here || volume.is_none() && !provisioned {
                let text = "node(s) didn't find available persistent volumes to bind";
                return Err(Reason::new(text, cause::VOLUMES, false));
            }
            let volume = volume.cloned();
            choices.push((claim.clone(), volume));
        }
        Ok(choices)
    }
}
