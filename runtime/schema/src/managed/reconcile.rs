//! Sets from a time when a type was granular that has become atomic since: who owned a part owns the whole
//! (typed/reconcile_schema.go).
use super::{
    element::Element,
    set::{Node, Set},
    types::TypeRef,
};
use std::sync::Arc;

/// None: the set is as the types want it.
pub(super) fn reconcile(types: TypeRef<'_>, set: &Set) -> Option<Set> {
    let atom = types.resolve();
    let mut changed = None;
    for (at, node) in set.0.iter().enumerate() {
        let below = match (&atom.map, &node.element) {
            (Some(map), Element::Field(name)) => map.member(name),
            (Some(map), _) => map.element,
            (None, _) => match atom.list {
                Some(list) => list.element,
                None => return None,
            },
        };
        if let Some(new) = reconcile_node(below, node) {
            Arc::make_mut(&mut changed.get_or_insert_with(|| set.clone()).0)[at] = new;
        }
    }
    changed
}

fn reconcile_node(types: TypeRef<'_>, node: &Node) -> Option<Node> {
    if types.is_none() || node.children.is_empty() {
        return None;
    }
    let atom = types.resolve();
    let is_whole = match (&atom.map, &atom.list) {
        (Some(map), _) if map.is_deduced() => return None,
        (Some(map), _) => map.atomic,
        (None, Some(list)) => list.is_atomic(),
        (None, None) => false,
    };
    if is_whole {
        return Some(Node { element: node.element.clone(), member: true, children: Set::default() });
    }
    let children = reconcile(types, &node.children)?;
    Some(Node { element: node.element.clone(), member: node.member, children })
}
