//! A set of field paths as a trie, whose parts are shared until one of their holders changes them. A node that is not a member itself has members below it; that keeps equal sets
//! equal, and FieldsV1 maps onto nodes one to one.
use super::{
    element::Element,
    types::{At, TypeRef},
};
use std::{cmp::Ordering, sync::Arc};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set(pub(super) Arc<Vec<Node>>);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub element: Element,
    pub member: bool,
    pub children: Set,
}

impl Node {
    fn kept(self) -> Option<Node> {
        (self.member || !self.children.is_empty()).then_some(self)
    }
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of field names: `of(&[&["spec"], &["metadata", "labels"]])`.
    pub fn of(paths: &[&[&str]]) -> Set {
        let mut set = Set::default();
        for path in paths {
            let path: Vec<Element> = path.iter().copied().map(Element::field).collect();
            set.insert(&path);
        }
        set
    }

    /// Parents are not added. The empty path means the whole object, which nobody owns.
    pub fn insert(&mut self, path: &[Element]) {
        let [first, rest @ ..] = path else { return };
        let node = self.descend(first);
        match rest {
            [] => node.member = true,
            rest => node.children.insert(rest),
        }
    }

    pub(super) fn descend(&mut self, element: &Element) -> &mut Node {
        // Walks insert in order: the last node is mostly the one, or the one before it.
        let found = match self.0.last().map(|last| last.element.cmp(element)) {
            None | Some(Ordering::Less) => Err(self.0.len()),
            Some(Ordering::Equal) => Ok(self.0.len() - 1),
            Some(Ordering::Greater) => self.find(element),
        };
        let at = found.unwrap_or_else(|at| {
            let node = Node { element: element.clone(), member: false, children: Set::default() };
            Arc::make_mut(&mut self.0).insert(at, node);
            at
        });
        &mut Arc::make_mut(&mut self.0)[at]
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        self.0.binary_search_by(|node| node.element.cmp(element))
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.find(element).ok().map(|at| &self.0[at])
    }

    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|node| node.member),
            [first, rest @ ..] => self.get(first).is_some_and(|node| node.children.contains(rest)),
        }
    }

    pub fn union(&self, other: &Set) -> Set {
        zip(self, other, &|a, b| match (a, b) {
            (Some(a), Some(b)) => {
                let children = a.children.union(&b.children);
                Some(Node { element: a.element.clone(), member: a.member || b.member, children })
            }
            (one, other) => one.or(other).cloned(),
        })
    }

    pub fn intersection(&self, other: &Set) -> Set {
        zip(self, other, &|a, b| {
            let (a, b) = a.zip(b)?;
            let children = a.children.intersection(&b.children);
            Node { element: a.element.clone(), member: a.member && b.member, children }.kept()
        })
    }

    /// A member here is no reason to take its children out of `self`.
    pub fn difference(&self, other: &Set) -> Set {
        zip(self, other, &|a, b| match (a?, b) {
            (a, None) => Some(a.clone()),
            (a, Some(b)) => {
                let children = a.children.difference(&b.children);
                Node { element: a.element.clone(), member: a.member && !b.member, children }.kept()
            }
        })
    }

    /// A member of `other` takes everything below it along.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        zip(self, other, &|a, b| match (a?, b) {
            (a, None) => Some(a.clone()),
            (_, Some(b)) if b.member => None,
            (a, Some(b)) => {
                let children = a.children.recursive_difference(&b.children);
                Node { element: a.element.clone(), member: a.member, children }.kept()
            }
        })
    }

    /// Every member in order: those of a level before what is below it.
    pub fn each(&self, visit: &mut dyn FnMut(&[Element])) {
        self.each_below(&mut Vec::new(), visit);
    }

    fn each_below(&self, path: &mut Vec<Element>, visit: &mut dyn FnMut(&[Element])) {
        for members in [true, false] {
            for node in &*self.0 {
                path.push(node.element.clone());
                if !members {
                    node.children.each_below(path, visit);
                } else if node.member {
                    visit(path);
                }
                path.pop();
            }
        }
    }

    /// With every named field that leads to a member: parents of applied fields count as applied where a schema names them
    /// (EnsureNamedFieldsAreMembers).
    pub(super) fn with_named_fields(&self, at: TypeRef<'_>) -> Set {
        let atom = at.resolve();
        let nodes = self.0.iter().map(|node| {
            let (mut member, mut below) = (node.member, at.at(At::None));
            match &node.element {
                Element::Field(name) => {
                    if let Some(map) = &atom.map {
                        let field = map.field(name);
                        member |= field.is_some() && !node.children.is_empty();
                        below = field.unwrap_or(map.element);
                    }
                }
                Element::Key(_) => below = atom.list.map_or(below, |list| list.element),
                _ => {}
            }
            Node { element: node.element.clone(), member, children: node.children.with_named_fields(below) }
        });
        Set(Arc::new(nodes.collect()))
    }

    /// Whether every member is one of `other`'s.
    pub fn is_within(&self, other: &Set) -> bool {
        self.difference(other).is_empty()
    }

    pub(super) fn retain(&self, keep: &dyn Fn(&Node) -> Option<Node>) -> Set {
        Set(Arc::new(self.0.iter().filter_map(keep).collect()))
    }
}

/// What becomes of an element that one or both have.
type Choose<'c> = dyn Fn(Option<&Node>, Option<&Node>) -> Option<Node> + 'c;

/// Both in order, equal elements together.
fn zip(a: &Set, b: &Set, choose: &Choose<'_>) -> Set {
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    loop {
        let (left, right) = (a.0.get(i), b.0.get(j));
        let order = match (left, right) {
            (None, None) => return Set(Arc::new(out)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(left), Some(right)) => left.element.cmp(&right.element),
        };
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
        let left = left.filter(|_| order != Ordering::Greater);
        out.extend(choose(left, right.filter(|_| order != Ordering::Less)));
    }
}

/// ".spec.ports[port=80,protocol=\"TCP\"].name"
pub(super) fn path_text(path: &[Element]) -> String {
    path.iter().map(Element::to_string).collect()
}
