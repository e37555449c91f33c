//! What each kind costs the disk: commits that go there, and their bytes, since the start. Who looks for the writer that wears the
//! card out finds the kind here; the store below knows keys only.
use crate::metrics::Text;
use mote_schema::Kind;
use mote_store::{Class, Write};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// More kinds than definitions may bring to a board; what comes after them is not told apart.
const KINDS: usize = 1000;

#[derive(Default)]
pub(crate) struct Wear(Mutex<BTreeMap<String, Cost>>);

#[derive(Clone, Copy, Default)]
struct Cost {
    durable: u64,
    lazy: u64,
    bytes: u64,
}

impl Wear {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Cost>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A commit that was acknowledged.
    pub fn note(&self, kind: &Kind, class: Class, bytes: u64) {
        if class == Class::Volatile {
            return;
        }
        let mut all = self.lock();
        if !all.contains_key(&*kind.prefix) && all.len() >= KINDS {
            return;
        }
        let cost = match all.get_mut(&*kind.prefix) {
            Some(cost) => cost,
            None => all.entry(kind.prefix.to_string()).or_default(),
        };
        cost.bytes += bytes;
        *(if class == Class::Durable { &mut cost.durable } else { &mut cost.lazy }) += 1;
    }

    /// The kind that most was written for.
    pub fn most(&self) -> Option<String> {
        let all = self.lock();
        let (prefix, _) = all.iter().max_by_key(|(_, cost)| cost.bytes)?;
        Some(resource(prefix))
    }

    pub fn figures(&self, text: &mut Text) {
        let all = self.lock().clone();
        text.family("mote_store_resource_bytes_total", "counter", "Keys and values that were to be on disk, by kind.");
        for (prefix, cost) in &all {
            text.sample("", &format!("resource={:?}", resource(prefix)), cost.bytes as f64);
        }
        text.family("mote_store_resource_commits_total", "counter", "Commits that were to be on disk, by kind.");
        for (prefix, cost) in &all {
            for (class, count) in [("durable", cost.durable), ("lazy", cost.lazy)] {
                text.sample("", &format!("class={class:?},resource={:?}", resource(prefix)), count as f64);
            }
        }
    }
}

/// The keys of all these.
pub(crate) fn bytes_of(writes: &[Write]) -> u64 {
    let bytes = |write: &Write| match write {
        Write::Put(key, value) => key.len() + value.len(),
        Write::Delete(key) => key.len(),
    };
    writes.iter().map(bytes).sum::<usize>() as u64
}

/// "apps/deployments/" is "deployments.apps".
fn resource(prefix: &str) -> String {
    match prefix.trim_end_matches('/').split_once('/') {
        Some((group, plural)) => [plural, ".", group].concat(),
        None => prefix.trim_end_matches('/').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::Catalog;

    #[test]
    fn the_kind_that_costs_most_is_named() {
        let catalog = Catalog::builtin();
        let kind = |group, version, plural| catalog.by_resource(group, version, plural).expect("a kind");
        let wear = Wear::default();
        assert_eq!(wear.most(), None);
        wear.note(kind("", "v1", "pods"), Class::Durable, 100);
        wear.note(kind("apps", "v1", "deployments"), Class::Lazy, 150);
        wear.note(kind("", "v1", "events"), Class::Volatile, 1000);
        assert_eq!(wear.most().as_deref(), Some("deployments.apps"));
        wear.note(kind("", "v1", "pods"), Class::Lazy, 100);
        assert_eq!(wear.most().as_deref(), Some("pods"));
        let mut text = Text::default();
        wear.figures(&mut text);
        let text = text.finish();
        for line in [
            "mote_store_resource_bytes_total{resource=\"pods\"} 200",
            "mote_store_resource_commits_total{class=\"lazy\",resource=\"deployments.apps\"} 1",
            "mote_store_resource_commits_total{class=\"durable\",resource=\"pods\"} 1",
        ] {
            assert!(text.contains(line), "{line}:\n{text}");
        }
        assert!(!text.contains("events"), "{text}");
    }
}
