//! Which value of the old object a value of the new one comes from (apiserver/pkg/cel/common/equality.go): members by
//! name, elements of map lists by their keys, elements of other lists not at all.
use super::{Schema, lists};
use crate::Value;
use crate::table::ListType;

/// Looks up elements of one old list.
pub struct OldList<'v> {
    elements: Vec<(Value, &'v Value)>,
}

/// Of a list that `schema` describes.
pub fn old_element<'v>(schema: Schema<'_>, old: Option<&'v Value>) -> OldList<'v> {
    let list = match old {
        Some(Value::Array(list)) if schema.list_type() == Some(ListType::Map) => list.as_slice(),
        _ => &[],
    };
    OldList { elements: list.iter().map(|element| (lists::key(schema, element), element)).collect() }
}

impl<'v> OldList<'v> {
    pub fn get(&self, schema: Schema<'_>, element: &Value) -> Option<&'v Value> {
        if self.elements.is_empty() {
            return None;
        }
        let key = lists::key(schema, element);
        self.elements.iter().find(|(known, _)| *known == key).map(|(_, old)| *old)
    }
}
