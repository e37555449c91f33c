//! An object of a request in the version that a webhook or policy asked for (`matchPolicy: Equivalent`), and back.
use super::{super::Attributes, matching::Matched};
use crate::custom;
use mote_schema::{Kind, Status, Value, convert, defaults};
use std::borrow::Cow;

/// `value` is in the version of the request's target; so is null.
pub(crate) async fn view<'v>(
    attributes: &Attributes<'_, '_>,
    matched: &Matched,
    value: &'v Value,
) -> Result<Cow<'v, Value>, Status> {
    if !needs(attributes, matched) || value.is_null() {
        return Ok(Cow::Borrowed(value));
    }
    let mut value = value.clone();
    if attributes.target.kind.is_custom() {
        name(attributes.target.kind, &mut value);
        return custom::convert::between(attributes.api, &matched.kind, value).await.map(Cow::Owned);
    }
    convert::from_stored(&matched.kind, &mut value);
    name(&matched.kind, &mut value);
    Ok(Cow::Owned(value))
}

/// What a webhook made of a view, in the target's version again.
pub(in crate::admission) async fn back(
    attributes: &Attributes<'_, '_>,
    matched: &Matched,
    mut value: Value,
) -> Result<Value, Status> {
    if needs(attributes, matched) && attributes.target.kind.is_custom() {
        return custom::convert::between(attributes.api, attributes.target.kind, value).await;
    }
    if needs(attributes, matched) {
        defaults::apply(&matched.kind, &mut value);
        convert::to_stored(&matched.kind, &mut value);
        name(attributes.target.kind, &mut value);
    }
    Ok(value)
}

/// Parts (Eviction, Scale) are the same in every version.
fn needs(attributes: &Attributes<'_, '_>, matched: &Matched) -> bool {
    let own = attributes.target.kind;
    own.kind == attributes.object.kind && (own.group != matched.kind.group || own.version != matched.kind.version)
}

fn name(kind: &Kind, value: &mut Value) {
    value["kind"] = Value::from(&*kind.kind);
    value["apiVersion"] = kind.api_version().into();
}
