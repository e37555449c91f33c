//! What changed between two objects of a type (typed/compare.go), and every field an object holds (typed/tofieldset.go).
use super::{
    element::{Element, same},
    list::Index,
    set::{Set, path_text},
    types::{Atom, ListOf, MapType, TypeRef},
};
use crate::Gather as _;
use crate::{Map, Name, Value};
use std::collections::BTreeSet;

#[derive(Debug, Default, Clone)]
pub(super) struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

/// The error says where a list has an element that is none.
pub(super) fn compare(types: TypeRef<'_>, old: &Value, new: &Value) -> Result<Comparison, String> {
    let mut walk = Walk { found: Comparison::default(), path: Vec::new(), error: None };
    walk.any(types, Some(old), Some(new));
    walk.error.map_or(Ok(walk.found), Err)
}

static NULL: Value = Value::Null;

struct Walk {
    found: Comparison,
    path: Vec<Element>,
    error: Option<String>,
}

impl Walk {
    fn any(&mut self, types: TypeRef<'_>, old: Option<&Value>, new: Option<&Value>) {
        // What one is a copy of the other has not changed.
        if old.zip(new).is_some_and(|(old, new)| old.is_shared(new)) {
            return;
        }
        let atom = types.resolve();
        let (before, after) = (atom.of(old), atom.of(new));
        let leaf = match (old, new) {
            (_, None) => self.atom(&before, old, new),
            (None, _) => self.atom(&after, old, new),
            _ if before.choice() == after.choice() => self.atom(&after, old, new),
            // A list became a map: both are told.
            _ => {
                self.atom(&before, old, new);
                self.atom(&after, old, new)
            }
        };
        if !leaf {
            match (old, new) {
                (None, _) => self.found.added.insert(&self.path),
                (_, None) => self.found.removed.insert(&self.path),
                _ => {}
            }
        }
    }

    /// Whether the place was taken as one.
    fn atom(&mut self, atom: &Atom<'_>, old: Option<&Value>, new: Option<&Value>) -> bool {
        if let Some(map) = &atom.map {
            let (a, b) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if map.atomic || a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                return self.leaf(old, new);
            }
            self.map(map, a, b);
            false
        } else if atom.scalar.is_some() {
            self.leaf(old, new)
        } else if let Some(list) = &atom.list {
            let (a, b) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if list.is_atomic() || a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty) {
                return self.leaf(old, new);
            }
            self.list(list, a.map_or(&[], |list| list), b.map_or(&[], |list| list));
            false
        } else {
            self.fail("field not declared in schema");
            true
        }
    }

    fn fail(&mut self, what: &str) {
        let place = path_text(&self.path);
        self.error.get_or_insert_with(|| format!("{place}: {what}"));
    }

    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) -> bool {
        match (old, new) {
            (None, _) => self.found.added.insert(&self.path),
            (_, None) => self.found.removed.insert(&self.path),
            (Some(old), Some(new)) if !same(old, new) => self.found.modified.insert(&self.path),
            _ => {}
        }
        true
    }

    fn member(&mut self, types: TypeRef<'_>, element: Element, old: Option<&Value>, new: Option<&Value>) {
        self.path.push(element);
        self.any(types, old, new);
        self.path.pop();
    }

    fn map(&mut self, map: &MapType<'_>, old: Option<&Map>, new: Option<&Map>) {
        let mut names: BTreeSet<&str> = old.into_iter().chain(new).flat_map(Map::keys).map(Name::as_str).gather();
        if old.is_none() || new.is_none() {
            // A struct that comes or goes takes its nulls along.
            for name in map.always() {
                names.insert(name);
            }
        }
        for name in names {
            let absent = map.is_always(name).then_some(&NULL);
            let old = old.and_then(|old| old.get(name).or(absent));
            let new = new.and_then(|new| new.get(name).or(absent));
            // What does not differ is not walked.
            if old != new {
                self.member(map.member(name), Element::field(name), old, new);
            }
        }
    }

    fn list(&mut self, list: &ListOf<'_>, old: &[Value], new: &[Value]) {
        if old == new {
            return;
        }
        let (before, after) = match (Index::new(list, old), Index::new(list, new)) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(error), _) | (_, Err(error)) => {
                return self.fail(&error);
            }
        };
        for group in before.groups() {
            let element = &before.elements[group[0]];
            self.items(list, element, old, group, new, after.places(element));
        }
        for group in after.groups() {
            let element = &after.elements[group[0]];
            if before.places(element).is_empty() {
                self.items(list, element, old, &[], new, group);
            }
        }
    }

    /// Items that are one element. Several of a kind are one value together.
    fn items(&mut self, list: &ListOf<'_>, element: &Element, old: &[Value], a: &[usize], new: &[Value], b: &[usize]) {
        let (first_old, first_new) = (a.first().map(|at| &old[*at]), b.first().map(|at| &new[*at]));
        let types = list.element;
        match (a.len(), b.len()) {
            (0 | 1, 0 | 1) => self.member(types, element.clone(), first_old, first_new),
            (2.., 2..) => {
                let equal = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&old[*a], &new[*b]));
                if !equal {
                    self.mark(element, |found| &mut found.modified);
                }
            }
            (2.., _) => {
                if first_new.is_some() {
                    self.member(types, element.clone(), None, first_new);
                }
                self.mark(element, |found| &mut found.removed);
            }
            _ => {
                if first_old.is_some() {
                    self.member(types, element.clone(), first_old, None);
                }
                self.mark(element, |found| &mut found.added);
            }
        }
    }

    fn mark(&mut self, element: &Element, set: impl Fn(&mut Comparison) -> &mut Set) {
        self.path.push(element.clone());
        set(&mut self.found).insert(&self.path);
        self.path.pop();
    }
}

/// Every leaf and list item an object holds.
pub(super) fn fields_of(types: TypeRef<'_>, value: &Value) -> Result<Set, String> {
    let mut set = Set::default();
    collect(types, value, &mut Vec::new(), &mut set)?;
    Ok(set)
}

fn collect(types: TypeRef<'_>, value: &Value, path: &mut Vec<Element>, set: &mut Set) -> Result<(), String> {
    let atom = types.resolve().of(Some(value));
    if let Some(map) = &atom.map {
        if map.atomic {
            set.insert(path);
            return Ok(());
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            path.push(Element::field(name));
            collect(map.member(name), member, path, set)?;
            let empty = member.is_null() || member.as_object().is_some_and(Map::is_empty);
            if empty || map.field(name).is_none() {
                set.insert(path);
            }
            path.pop();
        }
    } else if atom.scalar.is_some() {
        set.insert(path);
    } else if let Some(list) = &atom.list {
        if list.is_atomic() {
            set.insert(path);
            return Ok(());
        }
        let items = value.as_array().map_or(&[][..], |items| items);
        let index = Index::new(list, items)?;
        for group in index.groups() {
            path.push(index.elements[group[0]].clone());
            if let [one] = group {
                collect(list.element, &items[*one], path, set)?;
            }
            set.insert(path);
            path.pop();
        }
    }
    Ok(())
}
