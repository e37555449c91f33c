//! Equality, order, membership, size; and the signatures of what the evaluator does itself.
use super::{Context, Function, Outcome, wrong};
use crate::{
    Error,
    value::{Value, compare_numbers, contains, equal},
};
use std::cmp::Ordering;

const ORDERED: &str = "bb:b ii:b id:b iu:b uu:b ud:b ui:b dd:b di:b du:b ss:b yy:b TT:b RR:b";

pub const FUNCTIONS: &[Function] = &[
    Function { name: "_==_", signatures: "AA:b", run: equals },
    Function { name: "_!=_", signatures: "AA:b", run: differs },
    Function { name: "_<_", signatures: ORDERED, run: |_, args| ordered(args, Ordering::is_lt) },
    Function { name: "_<=_", signatures: ORDERED, run: |_, args| ordered(args, Ordering::is_le) },
    Function { name: "_>_", signatures: ORDERED, run: |_, args| ordered(args, Ordering::is_gt) },
    Function { name: "_>=_", signatures: ORDERED, run: |_, args| ordered(args, Ordering::is_ge) },
    Function { name: "@in", signatures: "ALA:b AMAB:b", run: is_in },
    Function { name: "!_", signatures: "b:b", run: not },
    Function { name: "size", signatures: "y:i .y:i LA:i .LA:i MAB:i .MAB:i s:i .s:i", run: size },
    // What follows is evaluated in `eval`, since not all arguments always are.
    Function { name: "_&&_", signatures: "bb:b", run: elsewhere },
    Function { name: "_||_", signatures: "bb:b", run: elsewhere },
    Function { name: "_?_:_", signatures: "bAA:A", run: elsewhere },
    Function { name: "@not_strictly_false", signatures: "b:b", run: elsewhere },
    Function { name: "_[_]", signatures: "LAi:A MABA:B OLAi:OA OMABA:OB", run: elsewhere },
    Function { name: "_[?_]", signatures: "LAi:OA OLAi:OA MABA:OB OMABA:OB", run: elsewhere },
    Function { name: "_?._", signatures: "Ds:OA", run: elsewhere },
    Function { name: "or", signatures: ".OAOA:OA", run: elsewhere },
    Function { name: "orValue", signatures: ".OAA:A", run: elsewhere },
];

fn elsewhere<'a>(_: &mut Context<'_>, _: &[Value<'a>]) -> Outcome<'a> {
    wrong()
}

fn equals<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(equal(a, b, context.budget)?)),
        _ => wrong(),
    }
}

fn differs<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(!equal(a, b, context.budget)?)),
        _ => wrong(),
    }
}

/// The order of two values that have one.
pub fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Error> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            compare_numbers(a, b).ok_or_else(|| Error::new("NaN values cannot be ordered"))?
        }
        _ => return Err(Error::no_overload()),
    })
}

fn ordered<'a>(args: &[Value<'a>], test: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(test(order(a, b)?))),
        _ => wrong(),
    }
}

fn is_in<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [item, container] = args else { return wrong() };
    if container.list_len().is_some() {
        return Ok(Value::Bool(contains(container, item, context.budget)?));
    }
    match container.map_get(item) {
        Some(found) => Ok(Value::Bool(found.is_some())),
        None => wrong(),
    }
}

fn not<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(!b)),
        _ => wrong(),
    }
}

/// What `size()` gives; None for values without.
pub fn size_of(value: &Value<'_>) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Bytes(bytes) => Some(bytes.len()),
        other => other.list_len().or_else(|| other.map_len()),
    }
}

fn size<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [value] = args else { return wrong() };
    if let Value::String(text) = value {
        context.budget.text_work(text.len())?;
    }
    size_of(value).map_or_else(wrong, |size| Ok(Value::Int(size as i64)))
}
