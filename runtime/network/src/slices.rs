//! Which EndpointSlices belong to which Service: names only, the objects stay in the store. Kept by the proxy's
//! watch, read by the proxy and the DNS server, so that neither looks through all slices for one Service.
use mote_api::driver::Key;
use mote_api::{Change, Object};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

#[derive(Default)]
pub struct Slices(Mutex<BTreeMap<Key, BTreeSet<Arc<str>>>>);

/// The Service that a slice belongs to.
pub fn owner(slice: &Object) -> Option<Key> {
    let name = slice.meta().get("labels").get(SERVICE_LABEL).str();
    (!name.is_empty()).then(|| Key::new(slice.namespace(), name))
}

impl Slices {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Key, BTreeSet<Arc<str>>>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes a slice's change in; returns the Services it concerns.
    pub fn change(&self, change: &Change) -> Vec<Key> {
        let (old, new) = (change.old.as_ref().and_then(owner), change.new.as_ref().and_then(owner));
        let name = change.object().name();
        let mut map = self.map();
        if old != new
            && let Some(key) = &old
            && let Some(names) = map.get_mut(key)
        {
            names.remove(name);
            if names.is_empty() {
                map.remove(key);
            }
        }
        if let Some(key) = &new {
            map.entry(key.clone()).or_default().insert(name.into());
        }
        let moved = if old == new { None } else { old };
        new.into_iter().chain(moved).collect()
    }

    pub fn of(&self, service: &Key) -> Vec<Arc<str>> {
        self.map().get(service).into_iter().flatten().cloned().collect()
    }
}
