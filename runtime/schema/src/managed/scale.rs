//! Owners of an object's replicas as the owners of a Scale's, and back (util/managedfields/scalehandler.go).
use super::{
    element::Element,
    entries::{Entries, Entry, id},
    set::Set,
};
use crate::Value;

const SCALE: &str = "autoscaling/v1";

fn path(dotted: &str) -> Vec<Element> {
    dotted.split('.').map(Element::field).collect()
}

/// `replicas` gives the dotted path of the replicas for each version of the kind that has one.
pub fn to_scale(parent: Option<&Value>, replicas: &dyn Fn(&str) -> Option<String>) -> Option<Value> {
    let parent = Entries::decode(parent).ok()?;
    let mut entries = Entries::default();
    for entry in parent.0 {
        if !replicas(&entry.api_version).is_some_and(|dotted| entry.set.contains(&path(&dotted))) {
            continue;
        }
        let set = Set::of(&[&["spec", "replicas"]]);
        entries.put(Entry { api_version: SCALE.into(), set, ..entry });
    }
    entries.encode()
}

/// What became of the owners of `version`'s replicas.
pub fn to_parent(
    parent: Option<&Value>,
    scale: Option<&Value>,
    version: &str,
    replicas: &dyn Fn(&str) -> Option<String>,
) -> Option<Value> {
    let parent = Entries::decode(parent).ok()?;
    let mut scale = Entries::decode(scale).ok()?;
    let mut entries = Entries::default();
    for mut entry in parent.0 {
        let Some(dotted) = replicas(&entry.api_version) else {
            continue;
        };
        let path = path(&dotted);
        let at_scale = id(&entry.manager, entry.applied, SCALE, &entry.subresource);
        if entry.set.contains(&path) && scale.take(&at_scale).is_none() {
            let mut own = Set::default();
            own.insert(&path);
            entry.set = entry.set.difference(&own);
        }
        if !entry.set.is_empty() {
            entries.put(entry);
        }
    }
    let at = path(&replicas(version)?);
    for entry in scale.0.into_iter().filter(|entry| entry.set.contains(&path("spec.replicas"))) {
        let mut set = Set::default();
        set.insert(&at);
        // Without a time, as upstream leaves it.
        entries.put(Entry::new(&entry.manager, entry.applied, version, &entry.subresource, set));
    }
    entries.encode()
}
