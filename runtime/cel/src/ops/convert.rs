//! Conversions between types, and values that say what they are.
use super::{Context, Function, Outcome, wrong};
use crate::{Error, opaque::Opaque, time, value::Value};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "bool", signatures: "b:b s:b", run: to_bool },
    Function { name: "bytes", signatures: "y:y s:y", run: to_bytes },
    Function { name: "double", signatures: "d:d i:d s:d u:d", run: to_double },
    Function { name: "duration", signatures: "R:R i:R s:R", run: to_duration },
    Function { name: "dyn", signatures: "A:D", run: first },
    Function { name: "int", signatures: "i:i d:i R:i s:i T:i u:i", run: to_int },
    Function { name: "string", signatures: "s:s b:s y:s d:s R:s i:s T:s u:s I:s C:s", run: to_string },
    Function { name: "timestamp", signatures: "T:T i:T s:T", run: to_timestamp },
    Function { name: "type", signatures: "A:tA", run: type_of },
    Function { name: "uint", signatures: "u:u d:u i:u s:u", run: to_uint },
    Function { name: "optional.of", signatures: "A:OA", run: optional_of },
    Function { name: "optional.ofNonZeroValue", signatures: "A:OA", run: optional_of_non_zero },
    Function { name: "optional.none", signatures: ":OA", run: |_, _| Ok(Value::Optional(None)) },
    Function { name: "optional.unwrap", signatures: "LOA:LA", run: unwrap_all },
    Function { name: "unwrapOpt", signatures: ".LOA:LA", run: unwrap_all },
    Function { name: "value", signatures: ".OA:A", run: value },
    Function { name: "hasValue", signatures: ".OA:b", run: has_value },
];

fn first<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args.first().cloned().map_or_else(wrong, Ok)
}

fn not_a<'a>(kind: &str) -> Outcome<'a> {
    Err(Error::new(format!("type conversion error from 'string' to '{kind}'")))
}

fn to_bool<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(*b)),
        [Value::String(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => not_a("bool"),
        },
        _ => wrong(),
    }
}

fn to_bytes<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
        [Value::String(text)] => {
            context.budget.text_work(text.len())?;
            Ok(Value::Bytes(text.as_bytes().into()))
        }
        _ => wrong(),
    }
}

/// As Go reads floats: no blanks, but "inf" and "nan".
fn parse_double(text: &str) -> Option<f64> {
    let sane = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b));
    text.parse().ok().filter(|_| sane)
}

fn to_double<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Double(d)] => Ok(Value::Double(*d)),
        [Value::Int(i)] => Ok(Value::Double(*i as f64)),
        [Value::Uint(u)] => Ok(Value::Double(*u as f64)),
        [Value::String(text)] => parse_double(text).map_or_else(|| not_a("double"), |d| Ok(Value::Double(d))),
        _ => wrong(),
    }
}

fn to_duration<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(d)] => Ok(Value::Duration(*d)),
        [Value::String(text)] => time::parse_duration(text)
            .map_or_else(|| not_a("google.protobuf.Duration"), |nanos| Ok(Value::Duration(nanos))),
        _ => wrong(),
    }
}

fn to_int<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || Error::new("integer overflow");
    match args {
        [Value::Int(i)] => Ok(Value::Int(*i)),
        [Value::Uint(u)] => i64::try_from(*u).map(Value::Int).map_err(|_| overflow()),
        // The bounds are no doubles themselves, so they are left out as upstream does.
        [Value::Double(d)] if *d > i64::MIN as f64 && *d < i64::MAX as f64 => Ok(Value::Int(*d as i64)),
        [Value::Double(_)] => Err(overflow()),
        [Value::Duration(nanos)] => Ok(Value::Int(*nanos)),
        [Value::Timestamp(at)] => Ok(Value::Int(at.seconds)),
        [Value::String(text)] => text.parse().map(Value::Int).or_else(|_| not_a("int")),
        _ => wrong(),
    }
}

fn to_uint<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || Error::new("unsigned integer overflow");
    match args {
        [Value::Uint(u)] => Ok(Value::Uint(*u)),
        [Value::Int(i)] => u64::try_from(*i).map(Value::Uint).map_err(|_| overflow()),
        [Value::Double(d)] if *d >= 0.0 && *d < u64::MAX as f64 => Ok(Value::Uint(*d as u64)),
        [Value::Double(_)] => Err(overflow()),
        [Value::String(text)] if !text.starts_with('+') => text.parse().map(Value::Uint).or_else(|_| not_a("uint")),
        [Value::String(_)] => not_a("uint"),
        _ => wrong(),
    }
}

fn to_string<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(match args {
        [Value::String(text)] => Value::String(text.clone()),
        [Value::Bool(b)] => Value::string(if *b { "true" } else { "false" }),
        [Value::Int(i)] => Value::string(i.to_string()),
        [Value::Uint(u)] => Value::string(u.to_string()),
        [Value::Double(d)] => Value::string(super::format::double(*d)),
        [Value::Duration(nanos)] => Value::string(time::format_duration_seconds(*nanos)),
        [Value::Timestamp(at)] => Value::string(at.to_string()),
        [Value::Bytes(bytes)] => {
            context.budget.text_work(bytes.len())?;
            match std::str::from_utf8(bytes) {
                Ok(text) => Value::string(text),
                Err(_) => return Err(Error::new("invalid UTF-8 in bytes, cannot convert to string")),
            }
        }
        [Value::Opaque(opaque)] if matches!(**opaque, Opaque::Ip(_) | Opaque::Cidr(..)) => {
            Value::string(opaque.to_string())
        }
        _ => return wrong(),
    })
}

fn to_timestamp<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Timestamp(at)] => Ok(Value::Timestamp(*at)),
        [Value::Int(seconds)] => Ok(Value::Timestamp(time::Timestamp::new(*seconds, 0)?)),
        [Value::String(text)] => {
            time::parse_time(text).map_or_else(|| not_a("google.protobuf.Timestamp"), |at| Ok(Value::Timestamp(at)))
        }
        _ => wrong(),
    }
}

fn type_of<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args.first().map_or_else(wrong, |value| Ok(Value::Type(value.type_of())))
}

fn optional_of<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    args.first().map_or_else(wrong, |value| Ok(Value::some(value.clone())))
}

fn optional_of_non_zero<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] if is_zero(value) => Ok(Value::Optional(None)),
        _ => optional_of(context, args),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(d) => *d == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Optional(inner) => inner.is_none(),
        Value::Object(built) => built.fields.is_empty(),
        Value::Timestamp(at) => at.to_string() == "0001-01-01T00:00:00Z",
        other => other.list_len().or_else(|| other.map_len()) == Some(0),
    }
}

fn unwrap_all<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [list] = args else { return wrong() };
    let Some(items) = list.items() else { return wrong() };
    context.budget.new_items(list.list_len().unwrap_or(0))?;
    let mut values = Vec::new();
    for item in items {
        match item? {
            Value::Optional(Some(value)) => values.push((*value).clone()),
            Value::Optional(None) => {}
            other => return Err(Error::new(format!("value {} is not optional", super::format::show(&other)))),
        }
    }
    Ok(Value::list(values))
}

fn value<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(Error::new("optional.none() dereference")),
        _ => wrong(),
    }
}

fn has_value<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => wrong(),
    }
}
