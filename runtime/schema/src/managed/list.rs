//! Which element of a list is which: by the keys of a map list, by the value in a set (typed/helpers.go).
use super::{element::Element, types::ListOf};
use crate::Name;
use crate::Value;

pub(super) fn element(list: &ListOf<'_>, keys: &[&str], item: &Value) -> Result<Element, String> {
    if keys.is_empty() {
        return match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
            plain => Ok(Element::Value(plain.clone())),
        };
    }
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".into()),
        _ => return Err("associative list with keys may not have non-map elements".into()),
    };
    let mut found: Vec<(Name, Value)> = Vec::with_capacity(keys.len());
    for key in keys {
        let value = map.get(key).cloned().or_else(|| list.key_default(key));
        found.extend(value.map(|value| ((*key).into(), value)));
    }
    if found.is_empty() {
        let names: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    crate::Order::order_by(&mut found[..], |a, b| a.0.cmp(&b.0));
    Ok(Element::Key(found))
}

/// The elements of a list in order, and for each the places of its items.
pub(super) struct Index {
    /// Of every item.
    pub elements: Vec<Element>,
    /// Sorted by element, then place.
    order: Vec<usize>,
}

impl Index {
    /// The error names the first item that is none.
    pub(super) fn new(list: &ListOf<'_>, items: &[Value]) -> Result<Index, String> {
        let keys = list.keys();
        let mut elements = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            elements.push(element(list, &keys, item).map_err(|error| format!("element {at}: {error}"))?);
        }
        let mut order: Vec<usize> = (0..elements.len()).collect();
        crate::Order::order_by(&mut order[..], |a, b| elements[*a].cmp(&elements[*b]));
        Ok(Index { elements, order })
    }

    /// The places of all items that are this element, in order.
    pub(super) fn places(&self, element: &Element) -> &[usize] {
        let first = self.order.partition_point(|at| self.elements[*at] < *element);
        let count = self.order[first..].iter().take_while(|at| self.elements[**at] == *element).count();
        &self.order[first..first + count]
    }

    /// Each different element once, in order of elements.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[usize]> {
        self.order.chunk_by(|a, b| self.elements[*a] == self.elements[*b])
    }
}
