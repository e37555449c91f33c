//! What one call did cost: cel-go's interpreter/runtimecost.go under apiserver/pkg/cel/library/cost.go.
use crate::{
    check::Callee,
    cost::{AUTHORIZATION, PATTERN, TEXT},
    opaque::Opaque,
    ops::{self, size_of},
    types::Type,
    value::Value,
};

fn size(value: Option<&Value<'_>>) -> u64 {
    match value {
        Some(Value::Optional(Some(inner))) => size(Some(inner)),
        Some(Value::Opaque(opaque)) => match &**opaque {
            Opaque::Ip(ip) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            // The bytes of the prefix.
            Opaque::Cidr(_, length) => u64::from(length.div_ceil(8)),
            _ => 1,
        },
        Some(value) => size_of(value).map_or(1, |size| size as u64),
        None => 1,
    }
}

/// What looking at all of a value costs.
fn traversal(value: Option<&Value<'_>>) -> u64 {
    let Some(value) = value else { return 0 };
    match value {
        Value::String(text) => (text.len() as f64 * TEXT) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TEXT) as u64,
        list => match list.items() {
            Some(items) => items.map(|item| traversal(item.ok().as_ref())).sum(),
            None => 1,
        },
    }
}

fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// What one call did cost.
pub fn actual(function: &str, callee: &Callee, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
    let [first, second] = [args.first(), args.get(1)];
    // Only a call whose meaning was known when compiling pays by it.
    let mut overloads = callee.overloads();
    let overload = overloads.next().filter(|_| callee.overloads.len() == 1);
    let param = |at: usize| overload.and_then(|overload| overload.args.get(at));
    let allocating = |factor: f64, size: u64| ((size as f64 * factor) as i64).saturating_add(11).max(0) as u64;
    match function {
        "check" => AUTHORIZATION,
        "fieldSelector" | "labelSelector" => {
            let length = size(second);
            10 + scaled(length, TEXT) + scaled(scaled(length, 0.5), 50.0)
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => traversal(first),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => scaled(size(first), TEXT),
        "ip" => match first {
            Some(Value::Opaque(_)) => 1,
            first => scaled(size(first), TEXT),
        },
        "replace" | "split" | "ip.isCanonical" => scaled(size(first), 2.0 * TEXT),
        "join" => scaled(size(result), 2.0 * TEXT),
        "find" | "findAll" => scaled(size(first) + 1, TEXT) * scaled(size(second), PATTERN),
        "containsIP" | "containsCIDR" => {
            let prefix = size(first);
            let mut cost = scaled(prefix * 2, TEXT);
            if function == "containsCIDR" {
                cost += scaled(prefix, TEXT) + 1;
            }
            if matches!(param(1), Some(Type::String)) {
                cost += scaled(size(second), TEXT);
            }
            cost
        }
        "validate" => {
            let pattern = match first {
                Some(Value::Opaque(opaque)) => match &**opaque {
                    Opaque::Format(name) => ops::format_pattern_size(name),
                    _ => 1,
                },
                _ => 1,
            };
            scaled(size(second) + 1, TEXT) * scaled(pattern, PATTERN)
        }
        "slice" | "lists.range" | "reverse" => allocating(1.0, size(result)),
        "flatten" => {
            let depth = match second {
                Some(Value::Int(depth)) => *depth as f64,
                _ => 1.0,
            };
            allocating(depth, size(first))
        }
        "sort" | "@sortByAssociatedKeys" if overload.is_none() => 1,
        "distinct" | "sort" | "@sortByAssociatedKeys" => {
            let list = if function == "@sortByAssociatedKeys" { second } else { first };
            let length = size(list);
            let text = matches!(list.and_then(|list| list.list_get(0)), Some(Ok(Value::String(_) | Value::Bytes(_))));
            allocating(if text { 2.0 + TEXT } else { 2.0 }, length * length)
        }
        "sets.contains" | "sets.intersects" => 1 + size(first) * size(second),
        "sets.equivalent" => 1 + 2 * size(first) * size(second),
        "_==_" if matches!(first, Some(Value::Opaque(_))) => 1,
        "_==_" | "_!=_" => scaled(size(first).min(size(second)), TEXT),
        "startsWith" | "endsWith" => scaled(size(second), TEXT),
        "format" | "strings.quote" => scaled(size(first), TEXT),
        "matches" => scaled(size(first) + 1, TEXT) * scaled(size(second), PATTERN),
        "contains" => scaled(size(first), TEXT) * scaled(size(second), TEXT),
        _ => match (function, param(0)) {
            ("bytes", Some(Type::String)) | ("string", Some(Type::Bytes)) => scaled(size(first), TEXT),
            ("@in", _) if matches!(param(1), Some(Type::List(_))) => size(second),
            ("_<_" | "_<=_" | "_>_" | "_>=_", Some(Type::String | Type::Bytes)) => {
                scaled(size(first).min(size(second)), TEXT)
            }
            ("_+_", Some(Type::String | Type::Bytes)) => scaled(size(first) + size(second), TEXT),
            _ => 1,
        },
    }
}
