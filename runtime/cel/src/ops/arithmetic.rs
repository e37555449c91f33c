//! `+ - * / %` and the minus sign, each of which may overflow.
use super::{Context, Function, Outcome, wrong};
use crate::{
    Error,
    types::ListKind,
    value::{Value, contains, find_by_keys},
};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "_+_", signatures: "yy:y dd:d RR:R RT:T TR:T ii:i LALA:LA ss:s uu:u", run: add },
    Function { name: "_-_", signatures: "dd:d RR:R ii:i TR:T TT:R uu:u", run: subtract },
    Function { name: "_*_", signatures: "dd:d ii:i uu:u", run: multiply },
    Function { name: "_/_", signatures: "dd:d ii:i uu:u", run: divide },
    Function { name: "_%_", signatures: "ii:i uu:u", run: remainder },
    Function { name: "-_", signatures: "d:d i:i", run: negate },
];

fn int<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Int).ok_or_else(|| Error::new("integer overflow"))
}
fn uint<'a>(value: Option<u64>) -> Outcome<'a> {
    value.map(Value::Uint).ok_or_else(|| Error::new("unsigned integer overflow"))
}
fn duration<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Duration).ok_or_else(|| Error::new("integer overflow"))
}

fn add<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_add(*b)),
        [Value::Timestamp(t), Value::Duration(d)] | [Value::Duration(d), Value::Timestamp(t)] => {
            Ok(Value::Timestamp(t.add(*d)?))
        }
        [Value::String(a), Value::String(b)] => {
            context.budget.text_work(a.len() + b.len())?;
            Ok(Value::string([&**a, &**b].concat()))
        }
        [Value::Bytes(a), Value::Bytes(b)] => {
            context.budget.text_work(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        [a, b] if a.list_len().is_some() && b.list_len().is_some() => add_lists(context, a, b),
        _ => wrong(),
    }
}

/// Sets and maps merge; other lists are put one behind the other.
fn add_lists<'a>(context: &mut Context<'_>, a: &Value<'a>, b: &Value<'a>) -> Outcome<'a> {
    let length = a.list_len().unwrap_or(0) + b.list_len().unwrap_or(0);
    context.budget.new_items(length)?;
    let mut items = Vec::with_capacity(length);
    for item in a.items().into_iter().flatten() {
        items.push(item?);
    }
    for item in b.items().into_iter().flatten() {
        let item = item?;
        match a.list_kind() {
            ListKind::Atomic => items.push(item),
            ListKind::Set => {
                if !contains(a, &item, context.budget)? {
                    items.push(item);
                }
            }
            ListKind::Map(keys) => {
                let mut place = None;
                for (at, mine) in a.items().into_iter().flatten().enumerate() {
                    let mine = Value::list(vec![mine?]);
                    if find_by_keys(&mine, &item, keys, context.budget)?.is_some() {
                        place = Some(at);
                        break;
                    }
                }
                match place.and_then(|at| items.get_mut(at)) {
                    Some(mine) => *mine = item,
                    None => items.push(item),
                }
            }
        }
    }
    Ok(Value::list(items))
}

fn subtract<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_sub(*b)),
        [Value::Timestamp(t), Value::Duration(d)] => {
            let d = d.checked_neg().ok_or_else(|| Error::new("timestamp overflow"))?;
            Ok(Value::Timestamp(t.add(d)?))
        }
        [Value::Timestamp(a), Value::Timestamp(b)] => Ok(Value::Duration(a.since(*b)?)),
        _ => wrong(),
    }
}

fn multiply<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => int(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => wrong(),
    }
}

fn divide<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(Error::new("division by zero")),
        [Value::Int(a), Value::Int(b)] => int(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => wrong(),
    }
}

fn remainder<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(Error::new("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => int(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => uint(a.checked_rem(*b)),
        _ => wrong(),
    }
}

fn negate<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a)] => int(a.checked_neg()),
        [Value::Double(a)] => Ok(Value::Double(-a)),
        _ => wrong(),
    }
}
