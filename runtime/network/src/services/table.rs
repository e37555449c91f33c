//! What the kernel's table holds, as far as we know, and the difference that a change makes to it. Pure: it makes
//! transactions, somebody else commits them.
//!
//! Two Services may want one key (the same external address and port, the same pod behind both): the first by name
//! has it, and the next takes over when it goes.
use super::plan::Plan;
use super::rules::{self, Chain, Map, Network, TABLE};
use mote_api::driver::Key;
use mote_cni::netlink::expr::Data;
use mote_cni::netlink::nft::{Batch, FAMILY_IPV4};
use std::collections::BTreeMap;

/// Chains nobody uses any more are kept, in case; beyond this the table is written anew without them.
const UNUSED_CHAINS_LIMIT: usize = 64;

type ElementKey = (Map, Vec<u8>);
/// Key and, for maps, value.
type Element = (Vec<u8>, Option<Data>);

pub struct Table {
    network: Network,
    plans: BTreeMap<Key, Plan>,
    wants: BTreeMap<ElementKey, BTreeMap<Key, Option<Data>>>,
    /// The chains in the kernel, and how many plans use each.
    chains: BTreeMap<Chain, usize>,
    /// Whether the kernel has what we think it has.
    written: bool,
}

/// What an update changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub chains: Vec<Chain>,
    pub removed: BTreeMap<Map, Vec<Vec<u8>>>,
    pub added: BTreeMap<Map, Vec<Element>>,
    /// Everything is written anew.
    pub whole: bool,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        !self.whole && self.chains.is_empty() && self.removed.is_empty() && self.added.is_empty()
    }
}

impl Table {
    pub fn new(network: Network) -> Table {
        Table { network, plans: BTreeMap::new(), wants: BTreeMap::new(), chains: BTreeMap::new(), written: false }
    }

    pub fn plan(&self, key: &Key) -> Option<&Plan> {
        self.plans.get(key)
    }

    /// The kernel's table is not known any more (a transaction failed): the next difference is the whole.
    pub fn distrust(&mut self) {
        self.written = false;
    }

    /// Takes new plans (None: the Service is gone) and says what is to be written.
    pub fn update(&mut self, plans: Vec<(Key, Option<Plan>)>) -> Difference {
        let mut before: BTreeMap<ElementKey, Option<Option<Data>>> = BTreeMap::new();
        let mut difference = Difference::default();
        for (key, plan) in plans {
            let old = match &plan {
                Some(plan) => self.plans.insert(key.clone(), plan.clone()),
                None => self.plans.remove(&key),
            };
            if old == plan {
                continue;
            }
            let (old, new) = (old.unwrap_or_default(), plan.unwrap_or_default());
            for element in old.elements.keys().chain(new.elements.keys()) {
                before.entry(element.clone()).or_insert_with(|| winner(self.wants.get(element)));
            }
            for element in old.elements.keys().filter(|e| !new.elements.contains_key(*e)) {
                if let Some(owners) = self.wants.get_mut(element) {
                    owners.remove(&key);
                }
            }
            for (element, data) in new.elements {
                self.wants.entry(element).or_default().insert(key.clone(), data);
            }
            for chain in &old.chains {
                self.chains.entry(chain.clone()).and_modify(|uses| *uses = uses.saturating_sub(1));
            }
            for chain in new.chains {
                if !self.chains.contains_key(&chain) {
                    difference.chains.push(chain.clone());
                }
                *self.chains.entry(chain).or_insert(0) += 1;
            }
        }
        for (element, before) in before {
            let after = winner(self.wants.get(&element));
            if self.wants.get(&element).is_some_and(BTreeMap::is_empty) {
                self.wants.remove(&element);
            }
            if before == after {
                continue;
            }
            let (map, key) = element;
            if before.is_some() {
                difference.removed.entry(map).or_default().push(key.clone());
            }
            if let Some(data) = after {
                difference.added.entry(map).or_default().push((key, data));
            }
        }
        let unused = self.chains.values().filter(|uses| **uses == 0).count();
        if !self.written || unused > UNUSED_CHAINS_LIMIT {
            return self.whole();
        }
        difference
    }

    fn whole(&mut self) -> Difference {
        self.chains.retain(|_, uses| *uses > 0);
        let mut added: BTreeMap<Map, Vec<Element>> = BTreeMap::new();
        for ((map, key), owners) in &self.wants {
            if let Some(data) = owners.values().next() {
                added.entry(*map).or_default().push((key.clone(), data.clone()));
            }
        }
        self.written = true;
        Difference { chains: self.chains.keys().cloned().collect(), removed: BTreeMap::new(), added, whole: true }
    }

    /// The difference as one transaction: a few messages, however many Services there are.
    pub fn batch(&self, difference: &Difference) -> Batch {
        let mut batch = Batch::new(FAMILY_IPV4, TABLE);
        if difference.whole {
            rules::write_base(&mut batch, &self.network);
        }
        // All chains first: one may go to another.
        for chain in &difference.chains {
            batch.add_chain(&chain.name());
            if let Chain::Tie { slot, .. } = chain {
                rules::add_affinity_set(&mut batch, *slot);
            }
        }
        for chain in &difference.chains {
            for rule in chain.rules(&self.network) {
                batch.add_rule(&chain.name(), rule);
            }
        }
        for (map, keys) in &difference.removed {
            batch.delete_elements(&map.set().name, keys.iter().map(Vec::as_slice));
        }
        for (map, elements) in &difference.added {
            batch.add_elements(&map.set().name, elements.iter().map(|(key, data)| (key.as_slice(), data.as_ref())));
        }
        batch
    }
}

fn winner(owners: Option<&BTreeMap<Key, Option<Data>>>) -> Option<Option<Data>> {
    owners.and_then(|owners| owners.values().next().cloned())
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests_support::{endpoints, service};
    use super::*;

    fn table() -> Table {
        Table::new(Network {
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            dns_ip: Some("10.43.0.10".parse().unwrap()),
        })
    }

    fn planned(name: &str, ip: &str, backs: &[&str]) -> (Key, Option<Plan>) {
        let key = Key::new("default", name);
        let (service, endpoints) = (service(ip), endpoints(backs));
        let plan = super::super::plan::plan(&service, "192.0.2.1".parse().unwrap(), &|_| endpoints.clone(), None);
        (key, Some(plan))
    }

    #[test]
    fn a_change_costs_the_same_however_many_services_there_are() {
        let messages = |others: u16| {
            let mut table = table();
            let many: Vec<_> = (0..others)
                .map(|n| planned(&format!("s{n}"), &format!("10.43.{}.{}", n / 250, n % 250), &["10.42.0.9"]))
                .collect();
            assert!(table.update(many).whole);
            let first = planned("web", "10.43.200.1", &["10.42.0.2"]);
            table.update(vec![first]);
            let second = planned("web", "10.43.200.1", &["10.42.0.3"]);
            let difference = table.update(vec![second]);
            table.batch(&difference).len()
        };
        assert_eq!(messages(0), messages(1000));
        assert_eq!(messages(0), 4, "one endpoint and its hairpin, out and in");
    }

    #[test]
    fn what_is_unchanged_writes_nothing() {
        let mut table = table();
        let plan = planned("web", "10.43.0.7", &["10.42.0.2"]);
        assert!(table.update(vec![plan.clone()]).whole);
        assert!(table.update(vec![plan.clone()]).is_empty());
        assert!(table.update(vec![(Key::new("default", "other"), None)]).is_empty());
        table.distrust();
        assert!(table.update(Vec::new()).whole);
        let gone = table.update(vec![(plan.0, None)]);
        assert_eq!((gone.added.len(), gone.removed.len()), (0, 4));
        assert!(table.wants.is_empty());
    }

    #[test]
    fn a_key_that_two_want_is_the_first_ones_and_then_the_others() {
        let mut table = table();
        let (a, b) = (planned("a", "10.43.0.7", &["10.42.0.2"]), planned("b", "10.43.0.7", &["10.42.0.3"]));
        table.update(vec![a.clone()]);
        let second = table.update(vec![b]);
        assert!(!second.added.contains_key(&Map::Endpoints) && second.removed.is_empty(), "{second:?}");
        let taken_over = table.update(vec![(a.0, None)]);
        let back = Data::Value(vec![10, 42, 0, 3, 0, 80, 0, 0]);
        assert_eq!(taken_over.added[&Map::Endpoints][0].1, Some(back));
        assert!(!taken_over.removed.contains_key(&Map::Services), "both go to pick-1");
    }
}
