//! The members of an object: a sorted vector, shared until one of its holders changes it.
use super::{Name, Value};
use crate::Order;
use std::sync::Arc;

#[derive(Clone, Default)]
pub struct Map(Option<Arc<Vec<(Name, Value)>>>);

impl Map {
    pub fn new() -> Map {
        Map::default()
    }

    /// Members as they come, in any order; of two of one name the last stays.
    pub fn from_members(mut members: Vec<(Name, Value)>) -> Map {
        if !members.is_sorted_by(|(before, _), (after, _)| before < after) {
            let mut places: Vec<usize> = (0..members.len()).collect();
            places.order_by(|a, b| members[*b].0.cmp(&members[*a].0).then(a.cmp(b)));
            let mut sorted: Vec<(Name, Value)> = Vec::with_capacity(members.len());
            for place in places.into_iter().rev() {
                let member = std::mem::replace(&mut members[place], (Name::from(""), Value::Null));
                if sorted.last().is_none_or(|(last, _)| *last != member.0) {
                    sorted.push(member);
                }
            }
            members = sorted;
        }
        Map((!members.is_empty()).then(|| Arc::new(members)))
    }

    fn members(&self) -> &[(Name, Value)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    fn members_mut(&mut self) -> &mut Vec<(Name, Value)> {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.members().binary_search_by(|(key, _)| key.as_str().cmp(name))
    }

    /// Whether both are one in memory: then they are equal.
    pub fn is_shared(&self, other: &Map) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
    pub fn len(&self) -> usize {
        self.members().len()
    }
    pub fn is_empty(&self) -> bool {
        self.members().is_empty()
    }
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.find(name).ok().map(|at| &self.members()[at].1)
    }
    pub fn get_key_value(&self, name: &str) -> Option<(&Name, &Value)> {
        self.find(name).ok().map(|at| (&self.members()[at].0, &self.members()[at].1))
    }
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        let at = self.find(name).ok()?;
        Some(&mut self.members_mut()[at].1)
    }
    pub fn insert(&mut self, key: Name, value: Value) -> Option<Value> {
        let place = self.find(&key);
        let members = self.members_mut();
        match place {
            Ok(at) => Some(std::mem::replace(&mut members[at].1, value)),
            Err(at) => {
                members.insert(at, (key, value));
                None
            }
        }
    }
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.find(name).ok()?;
        Some(self.members_mut().remove(at).1)
    }
    pub fn entry(&mut self, name: impl Into<Name>) -> Entry<'_> {
        Entry { key: name.into(), map: self }
    }
    pub fn retain(&mut self, mut keep: impl FnMut(&Name, &mut Value) -> bool) {
        self.members_mut().retain_mut(|(key, value)| keep(key, value));
    }
    pub fn clear(&mut self) {
        *self = Map::new();
    }
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.members().iter())
    }
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&Name, &mut Value)> {
        self.members_mut().iter_mut().map(|(key, value)| (&*key, value))
    }
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Name> + Clone {
        self.members().iter().map(|(key, _)| key)
    }
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Value> + Clone {
        self.members().iter().map(|(_, value)| value)
    }
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.members_mut().iter_mut().map(|(_, value)| value)
    }
}

/// A member that may have to be made.
pub struct Entry<'m> {
    map: &'m mut Map,
    key: Name,
}

impl<'m> Entry<'m> {
    pub fn or_insert(self, value: Value) -> &'m mut Value {
        self.or_insert_with(|| value)
    }
    pub fn or_insert_with(self, make: impl FnOnce() -> Value) -> &'m mut Value {
        let place = self.map.find(&self.key);
        let members = self.map.members_mut();
        let at = place.unwrap_or_else(|at| {
            members.insert(at, (self.key, make()));
            at
        });
        &mut members[at].1
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.is_shared(other) || self.members() == other.members()
    }
}
impl Eq for Map {}

impl std::fmt::Debug for Map {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[derive(Clone)]
pub struct Iter<'a>(std::slice::Iter<'a, (Name, Value)>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Name, &'a Value);
    fn next(&mut self) -> Option<(&'a Name, &'a Value)> {
        self.0.next().map(|(key, value)| (key, value))
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.0.next_back().map(|(key, value)| (key, value))
    }
}
impl ExactSizeIterator for Iter<'_> {}

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a Name, &'a Value);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl IntoIterator for Map {
    type Item = (Name, Value);
    type IntoIter = std::vec::IntoIter<(Name, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.map_or_else(Vec::new, Arc::unwrap_or_clone).into_iter()
    }
}

impl<K: Into<Name>> FromIterator<(K, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(members: I) -> Map {
        Map::from_members(members.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl<K: Into<Name>> Extend<(K, Value)> for Map {
    fn extend<I: IntoIterator<Item = (K, Value)>>(&mut self, members: I) {
        for (key, value) in members {
            self.insert(key.into(), value);
        }
    }
}

/// Elements of a list, shared until one of its holders changes them.
#[derive(Clone, Default, Eq)]
pub struct List(Arc<Vec<Value>>);

impl List {
    pub fn is_shared(&self, other: &List) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl PartialEq for List {
    fn eq(&self, other: &List) -> bool {
        self.is_shared(other) || self.0 == other.0
    }
}
impl std::ops::Deref for List {
    type Target = Vec<Value>;
    fn deref(&self) -> &Vec<Value> {
        &self.0
    }
}
impl std::ops::DerefMut for List {
    fn deref_mut(&mut self) -> &mut Vec<Value> {
        Arc::make_mut(&mut self.0)
    }
}
impl From<Vec<Value>> for List {
    fn from(list: Vec<Value>) -> List {
        List(Arc::new(list))
    }
}
impl From<List> for Vec<Value> {
    fn from(list: List) -> Vec<Value> {
        Arc::unwrap_or_clone(list.0)
    }
}
impl std::fmt::Debug for List {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl IntoIterator for List {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;
    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}
impl<'a> IntoIterator for &'a List {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
impl<'a> IntoIterator for &'a mut List {
    type Item = &'a mut Value;
    type IntoIter = std::slice::IterMut<'a, Value>;
    fn into_iter(self) -> Self::IntoIter {
        Arc::make_mut(&mut self.0).iter_mut()
    }
}
impl FromIterator<Value> for List {
    fn from_iter<I: IntoIterator<Item = Value>>(list: I) -> List {
        List(Arc::new(list.into_iter().collect()))
    }
}
