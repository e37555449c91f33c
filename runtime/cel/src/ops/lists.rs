//! Lists and sets of values: Kubernetes' lists library, cel-go's ext/lists.go (version 3), ext/sets.go, and what the loops
//! over two variables build maps with.
use super::{
    Context, Function, Outcome,
    compare::order,
    strings::{index_of, last_index_of},
    wrong,
};
use crate::{
    Error,
    value::{Key, Value, contains, equal},
};
use mote_schema::Order as _;
use std::{cmp::Ordering, rc::Rc};

const COMPARABLE: &str = ".Li:b .Lu:b .Ld:b .Lb:b .LR:b .LT:b .Ls:b .Ly:b";
const PICKED: &str = ".Li:i .Lu:u .Ld:d .Lb:b .LR:R .LT:T .Ls:s .Ly:y";
const SORTED: &str = ".Li:Li .Lu:Lu .Ld:Ld .Lb:Lb .LR:LR .LT:LT .Ls:Ls .Ly:Ly";
const SORTED_BY: &str = ".LALi:LA .LALu:LA .LALd:LA .LALb:LA .LALR:LA .LALT:LA .LALs:LA .LALy:LA";

pub const FUNCTIONS: &[Function] = &[
    Function { name: "isSorted", signatures: COMPARABLE, run: is_sorted },
    Function { name: "sum", signatures: ".Li:i .Lu:u .Ld:d .LR:R", run: sum },
    Function { name: "max", signatures: PICKED, run: |c, args| pick(c, args, "max", Ordering::Greater) },
    Function { name: "min", signatures: PICKED, run: |c, args| pick(c, args, "min", Ordering::Less) },
    Function { name: "indexOf", signatures: ".LAA:i .ss:i .ssi:i", run: first_index },
    Function { name: "lastIndexOf", signatures: ".LAA:i .ss:i .ssi:i", run: last_index },
    Function { name: "slice", signatures: ".LAii:LA", run: slice },
    Function { name: "flatten", signatures: ".LLA:LA .LDi:LD", run: flatten },
    Function { name: "sort", signatures: SORTED, run: sort },
    Function { name: "@sortByAssociatedKeys", signatures: SORTED_BY, run: sort_by },
    Function { name: "lists.range", signatures: "i:Li", run: range },
    Function { name: "reverse", signatures: ".LA:LA", run: reverse },
    Function { name: "distinct", signatures: ".LA:LA", run: distinct },
    Function { name: "first", signatures: ".LA:OA", run: |c, args| end(c, args, false) },
    Function { name: "last", signatures: ".LA:OA", run: |c, args| end(c, args, true) },
    Function { name: "sets.contains", signatures: "LALA:b", run: set_contains },
    Function { name: "sets.equivalent", signatures: "LALA:b", run: set_equivalent },
    Function { name: "sets.intersects", signatures: "LALA:b", run: set_intersects },
    Function { name: "cel.@mapInsert", signatures: "MABAB:MAB MABMAB:MAB", run: map_insert },
];

/// The items of a list, counted as work.
fn items<'a>(context: &mut Context<'_>, list: &Value<'a>) -> Result<Vec<Value<'a>>, Error> {
    let Some(items) = list.items() else { return Err(Error::no_overload()) };
    context.budget.new_items(list.list_len().unwrap_or(0))?;
    items.collect()
}

fn is_sorted<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    let items = items(context, list)?;
    for pair in items.windows(2) {
        if let [a, b] = pair
            && order(a, b)?.is_gt()
        {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    let overflow = |what: &str| Error::new(format!("{what} overflow"));
    let mut total: Option<Value<'a>> = None;
    for item in items(context, list)? {
        total = Some(match (total, item) {
            (None, item @ (Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_))) => item,
            (Some(Value::Int(a)), Value::Int(b)) => Value::Int(a.checked_add(b).ok_or_else(|| overflow("integer"))?),
            (Some(Value::Uint(a)), Value::Uint(b)) => {
                Value::Uint(a.checked_add(b).ok_or_else(|| overflow("unsigned integer"))?)
            }
            (Some(Value::Double(a)), Value::Double(b)) => Value::Double(a + b),
            (Some(Value::Duration(a)), Value::Duration(b)) => {
                Value::Duration(a.checked_add(b).ok_or_else(|| overflow("duration"))?)
            }
            _ => return wrong(),
        });
    }
    // What an empty list would have held cannot be told from it.
    Ok(total.unwrap_or(Value::Int(0)))
}

fn pick<'a>(context: &mut Context<'_>, args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    let mut best: Option<Value<'a>> = None;
    for item in items(context, list)? {
        match &best {
            Some(best) if order(&item, best)? != wanted => {}
            _ => best = Some(item),
        }
    }
    best.ok_or_else(|| Error::new(format!("{name} called on empty list")))
}

fn first_index<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Int(index_of(text, part, 0)?)),
        [Value::String(text), Value::String(part), Value::Int(from)] => Ok(Value::Int(index_of(text, part, *from)?)),
        [list, item] => find(context, list, item, false),
        _ => wrong(),
    }
}

fn last_index<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Int(last_index_of(text, part, None)?)),
        [Value::String(text), Value::String(part), Value::Int(from)] => {
            Ok(Value::Int(last_index_of(text, part, Some(*from))?))
        }
        [list, item] => find(context, list, item, true),
        _ => wrong(),
    }
}

fn find<'a>(context: &mut Context<'_>, list: &Value<'a>, item: &Value<'a>, last: bool) -> Outcome<'a> {
    let mut found = -1;
    for (at, other) in items(context, list)?.iter().enumerate() {
        if equal(other, item, context.budget)? {
            found = at as i64;
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn slice<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list, Value::Int(start), Value::Int(end)] = args else { return wrong() };
    let length = list.list_len().ok_or_else(Error::no_overload)?;
    let refuse = |why: &str| Err(Error::new(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return refuse("negative indexes not supported");
    };
    if from > to {
        return refuse("start index must be less than or equal to end index");
    }
    if to > length {
        return refuse(&format!("list is length {length}"));
    }
    context.budget.new_items(to - from)?;
    let part: Result<Vec<Value<'a>>, Error> = (from..to).filter_map(|at| list.list_get(at)).collect();
    Ok(Value::list(part?))
}

fn flatten<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, levels) = match args {
        [list] => (list, 1),
        [_, Value::Int(levels)] if *levels < 0 => return Err(Error::new("level must be non-negative")),
        [list, Value::Int(levels)] => (list, *levels),
        _ => return wrong(),
    };
    let mut flat = items(context, list)?;
    for _ in 0..levels {
        if !flat.iter().any(|item| item.list_len().is_some()) {
            break;
        }
        let mut next = Vec::new();
        for item in flat {
            match item.list_len() {
                Some(_) => next.append(&mut items(context, &item)?),
                None => next.push(item),
            }
        }
        flat = next;
    }
    Ok(Value::list(flat))
}

fn sort<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    sorted(context, list, list)
}

fn sort_by<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list, keys] = args else { return wrong() };
    sorted(context, list, keys)
}

fn sorted<'a>(context: &mut Context<'_>, list: &Value<'a>, keys: &Value<'a>) -> Outcome<'a> {
    let (items, keys) = (items(context, list)?, items(context, keys)?);
    if items.len() != keys.len() {
        return Err(Error::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            items.len(),
            keys.len()
        )));
    }
    if let Some(first) = keys.first() {
        if !matches!(
            first,
            Value::Int(_)
                | Value::Uint(_)
                | Value::Double(_)
                | Value::Bool(_)
                | Value::Duration(_)
                | Value::Timestamp(_)
                | Value::String(_)
                | Value::Bytes(_)
        ) {
            return Err(Error::new("list elements must be comparable"));
        }
        if keys.iter().any(|key| std::mem::discriminant(key) != std::mem::discriminant(first)) {
            return Err(Error::new("list elements must have the same type"));
        }
    }
    context.budget.work(items.len().saturating_mul(items.len().max(2).ilog2() as usize))?;
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.into_iter().zip(items).collect();
    pairs.order_by(|(a, _), (b, _)| order(a, b).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}

fn range<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Int(end)] = args else { return wrong() };
    context.budget.new_items(usize::try_from(*end).unwrap_or(0))?;
    Ok(Value::list((0..*end).map(Value::Int).collect()))
}

fn reverse<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    let mut items = items(context, list)?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    let mut unique: Vec<Value<'a>> = Vec::new();
    'items: for item in items(context, list)? {
        for other in &unique {
            if equal(other, &item, context.budget)? {
                continue 'items;
            }
        }
        unique.push(item);
    }
    Ok(Value::list(unique))
}

fn end<'a>(_: &mut Context<'_>, args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    let length = list.list_len().ok_or_else(Error::no_overload)?;
    let at = if last { length.wrapping_sub(1) } else { 0 };
    list.list_get(at).map_or(Ok(Value::Optional(None)), |item| Ok(Value::some(item?)))
}

fn set_contains<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list, part] = args else { return wrong() };
    for item in items(context, part)? {
        if !contains(list, &item, context.budget)? {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn set_equivalent<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [a, b] = args else { return wrong() };
    match set_contains(context, &[a.clone(), b.clone()])? {
        Value::Bool(true) => set_contains(context, &[b.clone(), a.clone()]),
        other => Ok(other),
    }
}

fn set_intersects<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [a, b] = args else { return wrong() };
    for item in items(context, a)? {
        if contains(b, &item, context.budget)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn map_insert<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Map(map), key, value] => {
            let mut entries = map.clone();
            insert(context, &mut entries, key, value.clone())?;
            Ok(Value::Map(entries))
        }
        [Value::Map(map), more] => {
            let mut entries = map.clone();
            for key in more.keys().ok_or_else(Error::no_overload)? {
                let Some(Some(value)) = more.map_get(&key) else { continue };
                insert(context, &mut entries, &key, value?)?;
            }
            Ok(Value::Map(entries))
        }
        _ => wrong(),
    }
}

/// Only copies when somebody else holds the map too.
pub fn insert<'a>(
    context: &mut Context<'_>,
    map: &mut Rc<Vec<(Key<'a>, Value<'a>)>>,
    key: &Value<'a>,
    value: Value<'a>,
) -> Result<(), Error> {
    let key = Key::of(key).ok_or_else(|| Error::new("unsupported key type"))?;
    match map.binary_search_by(|(k, _)| k.cmp(&key)) {
        Ok(_) => Err(Error::new(format!("insert failed: key {} already exists", super::format::show_key(&key)))),
        Err(at) => {
            let copied = if Rc::strong_count(map) > 1 { map.len() } else { (map.len() - at) / 64 };
            context.budget.new_items(copied + 1)?;
            Rc::make_mut(map).insert(at, (key, value));
            Ok(())
        }
    }
}
