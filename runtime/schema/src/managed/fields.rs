//! FieldsV1: a set as JSON. `f:` a field, `k:` a list element by its keys, `v:` by its value, `i:` by its place; `.` says that the node
//! around it is a member itself although it has members below (fieldpath/serialize.go).
use super::{
    element::Element,
    set::{Node, Set},
};
use crate::{Map, Value};
use serde::{Serialize, Serializer, ser::SerializeMap};

const SELF: &str = ".";

/// What is not an object holds nothing, as upstream reads it.
pub fn parse(fields: &Value) -> Result<Set, String> {
    Ok(read(fields)?.0)
}

/// The children, and whether the node around them is a member.
fn read(value: &Value) -> Result<(Set, bool), String> {
    let (mut set, mut member) = (Set::default(), false);
    let empty = Map::new();
    for (key, below) in value.as_object().unwrap_or(&empty) {
        if key == SELF {
            member = true;
            continue;
        }
        let Some(element) = Element::from_key(key)? else { continue };
        let (children, below) = read(below)?;
        if below || !children.is_empty() {
            let node = set.descend(&element);
            node.member |= below;
            node.children = children;
        }
    }
    let leaf = set.is_empty();
    Ok((set, member || leaf))
}

/// Members of a `Value` are sorted by name; `Ordered` gives them upstream's order when they are written.
pub fn to_value(set: &Set) -> Value {
    let members = set.0.iter().map(|node| {
        let mut below = to_value(&node.children);
        if let (true, Value::Object(map)) = (has_self(node), &mut below) {
            map.insert(SELF.into(), Value::Object(Map::new()));
        }
        (node.element.to_key(), below)
    });
    Value::Object(members.collect())
}

fn has_self(node: &Node) -> bool {
    node.member && !node.children.is_empty()
}

impl Serialize for Set {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(self, false, serializer)
    }
}

fn write<S: Serializer>(set: &Set, is_member: bool, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(set.0.len() + usize::from(is_member)))?;
    if is_member {
        map.serialize_entry(SELF, &Set::default())?;
    }
    for node in set.0.iter() {
        map.serialize_entry(&node.element.to_key(), &Below(node))?;
    }
    map.end()
}

struct Below<'n>(&'n Node);

impl Serialize for Below<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write(&self.0.children, has_self(self.0), serializer)
    }
}

/// A whole object that is written with each `fieldsV1` of its managedFields in upstream's order.
pub struct Ordered<'v>(pub &'v Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        At { value: self.0, rest: &["metadata", "managedFields", "fieldsV1"] }.serialize(serializer)
    }
}

/// A value on the way to `rest`; lists are passed through.
struct At<'v> {
    value: &'v Value,
    rest: &'static [&'static str],
}

impl Serialize for At<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.value, self.rest) {
            (Value::Object(members), [next, rest @ ..]) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    if name == next {
                        map.serialize_entry(name, &At { value, rest })?;
                    } else {
                        map.serialize_entry(name, value)?;
                    }
                }
                map.end()
            }
            (Value::Array(list), [_, ..]) => {
                serializer.collect_seq(list.iter().map(|value| At { value, rest: self.rest }))
            }
            (fields, []) => match parse(fields) {
                Ok(set) => set.serialize(serializer),
                Err(_) => fields.serialize(serializer),
            },
            (other, _) => other.serialize(serializer),
        }
    }
}
