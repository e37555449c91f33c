//! Which PersistentVolume a claim may have (component-helpers/storage/volume/pv_helpers.go). Pure; the controller that
//! binds and the scheduler, which looks at one node at a time, both ask here.
use crate::{Object, Ref, placement::node_selector_matches, quantity::Quantity, selector::LabelSelector};
use std::cmp::Reverse;

/// The older way to name a class.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// On what was bound by a program; what is without it was chosen by somebody, and stays promised when it is let go.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// The class that a claim or a volume names; "" is none.
pub fn class(object: &Object) -> &str {
    let beta = object.meta().get("annotations").get(BETA_CLASS).as_str();
    beta.unwrap_or_else(|| object.root().at("spec.storageClassName").str())
}

/// The volume is promised to the claim, or has it.
pub fn is_for(volume: &Object, claim: &Object) -> bool {
    let reference = volume.root().at("spec.claimRef");
    let uid = reference.get("uid").str();
    reference.get("name").str() == claim.name()
        && reference.get("namespace").str() == claim.namespace()
        && (uid.is_empty() || uid == claim.uid())
}

pub fn is_same_mode(volume: &Object, claim: &Object) -> bool {
    let mode = |object: &Object| object.root().at("spec.volumeMode").as_str() == Some("Block");
    mode(volume) == mode(claim)
}

fn size(text: Ref<'_>) -> Quantity {
    Quantity::parse(text.str()).unwrap_or_default()
}

fn attributes_class(object: &Object) -> &str {
    object.root().at("spec.volumeAttributesClassName").str()
}

fn has_modes(volume: &Object, claim: &Object) -> bool {
    let offers = |mode: &str| volume.root().at("spec.accessModes").items().any(|offered| offered.str() == mode);
    claim.root().at("spec.accessModes").items().all(|mode| offers(mode.str()))
}

/// Why the volume is none for the claim that asks for it by name.
pub fn mismatch(volume: &Object, claim: &Object) -> Option<String> {
    if volume.is_deleting() {
        return Some(format!("the volume is marked for deletion \"{}\"", volume.name()));
    }
    let text = if !is_large_enough(volume, claim) {
        "requested PV is too small"
    } else if class(volume) != class(claim) {
        "storageClassName does not match"
    } else if attributes_class(volume) != attributes_class(claim) {
        "volumeAttributesClassName does not match"
    } else if !is_same_mode(volume, claim) {
        "incompatible volumeMode"
    } else if !has_modes(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(text.into())
}

fn is_large_enough(volume: &Object, claim: &Object) -> bool {
    size(volume.root().at("spec.capacity.storage")) >= size(claim.root().at("spec.resources.requests.storage"))
}

/// Whether the node can have the volume.
pub fn is_reachable(volume: &Object, node: Ref<'_>) -> bool {
    let required = volume.root().at("spec.nodeAffinity.required");
    !required.exists() || node_selector_matches(required, node)
}

/// The volume that fits the claim best: one that is promised to it, else the free one with the fewest access modes and of
/// those the smallest. With a node (its root), what that node can have. `promised_only`: the claim waits for its node.
pub fn best<'a>(
    claim: &Object,
    volumes: impl Iterator<Item = &'a Object>,
    node: Option<Ref<'_>>,
    promised_only: bool,
) -> Option<&'a Object> {
    let selector = LabelSelector::from_ref(claim.root().at("spec.selector")).ok()?;
    let fits = |volume: &&Object| {
        let promised = is_for(volume, claim);
        let free = || {
            !promised_only
                && !volume.root().at("spec.claimRef").exists()
                && volume.root().at("status.phase").str() == "Available"
                && selector.as_ref().is_none_or(|selector| selector.matches(volume.meta().get("labels")))
                && class(volume) == class(claim)
                && has_modes(volume, claim)
        };
        is_large_enough(volume, claim)
            && is_same_mode(volume, claim)
            && attributes_class(volume) == attributes_class(claim)
            && !volume.is_deleting()
            && (promised || free())
    };
    let rank = |volume: &&Object| {
        let modes = volume.root().at("spec.accessModes").items().count();
        (Reverse(is_for(volume, claim)), modes, size(volume.root().at("spec.capacity.storage")))
    };
    let reachable = |volume: &&Object| node.is_none_or(|node| is_reachable(volume, node));
    // A promised volume that the node cannot have rules the node out.
    let found = volumes.filter(fits).filter(|volume| is_for(volume, claim) || reachable(volume)).min_by_key(rank);
    found.filter(reachable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Value, json, kind::Catalog};

    fn object(plural: &str, value: Value) -> Object {
        let catalog = Catalog::builtin();
        let kind = catalog.by_resource("", "v1", plural).unwrap();
        Object { kind: kind.clone(), revision: 1, doc: crate::Doc::encode(&value).unwrap() }
    }

    fn claim(spec: Value) -> Object {
        object("persistentvolumeclaims", json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec}))
    }

    fn volume(name: &str, modes: Value, size: &str, more: Value) -> Object {
        let mut spec = json!({"accessModes": modes, "capacity": {"storage": size}});
        for (key, value) in more.as_object().unwrap().iter() {
            spec[&**key] = value.clone();
        }
        object(
            "persistentvolumes",
            json!({"metadata": {"name": name, "labels": {"l": name}}, "spec": spec, "status": {"phase": "Available"}}),
        )
    }

    #[test]
    fn the_best_volume() {
        let one = json!(["ReadWriteOnce"]);
        let volumes = [
            volume("large", one.clone(), "10Gi", json!({})),
            volume("small", one.clone(), "1Gi", json!({})),
            volume("both", json!(["ReadWriteOnce", "ReadOnlyMany"]), "1Gi", json!({})),
            volume("classy", one.clone(), "1Gi", json!({"storageClassName": "fast"})),
            volume("block", one.clone(), "1Gi", json!({"volumeMode": "Block"})),
            volume("others", one.clone(), "1Gi", json!({"claimRef": {"namespace": "n", "name": "other"}})),
        ];
        let wants = |more: Value| {
            let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
            for (key, value) in more.as_object().unwrap().iter() {
                spec[&**key] = value.clone();
            }
            claim(spec)
        };
        let check = |more: Value, want: Option<&str>| {
            let claim = wants(more.clone());
            assert_eq!(best(&claim, volumes.iter(), None, false).map(Object::name), want, "{more:?}");
        };
        check(json!({}), Some("small"));
        check(json!({"resources": {"requests": {"storage": "2Gi"}}}), Some("large"));
        check(json!({"resources": {"requests": {"storage": "20Gi"}}}), None);
        check(json!({"accessModes": ["ReadOnlyMany"]}), Some("both"));
        check(json!({"storageClassName": "fast"}), Some("classy"));
        check(json!({"volumeMode": "Block"}), Some("block"));
        check(json!({"selector": {"matchLabels": {"l": "large"}}}), Some("large"));
        let promised = volume("promised", one, "5Gi", json!({"claimRef": {"namespace": "n", "name": "c"}}));
        let claim = wants(json!({}));
        let found = |only| best(&claim, volumes.iter().chain([&promised]), None, only).map(Object::name);
        assert_eq!((found(false), found(true)), (Some("promised"), Some("promised")));
        assert_eq!(best(&claim, volumes.iter(), None, true).map(Object::name), None);
    }
}
