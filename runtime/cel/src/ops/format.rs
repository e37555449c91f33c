//! `"...".format([...])`: cel-go's ext/formatting.go; and how values are shown.
use super::{Context, Function, Outcome, wrong};
use crate::{
    Error, time,
    types::Type,
    value::{Key, Value},
};
use std::fmt::Write;

pub const FUNCTIONS: &[Function] = &[Function { name: "format", signatures: ".sLD:s", run: format }];

const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
/// The most digits after the point.
const MAX_PRECISION: usize = 1000;

/// As Go's `%g` prints it, the shortest that reads back.
pub fn double(value: f64) -> String {
    if !value.is_finite() {
        return match value {
            v if v.is_nan() => "NaN",
            v if v > 0.0 => "+Inf",
            _ => "-Inf",
        }
        .into();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        return with_exponent(digits, exponent);
    }
    format!("{value}")
}

/// Go writes two digits at least.
fn with_exponent(digits: &str, exponent: i32) -> String {
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// For error messages and `%s`.
pub fn show(value: &Value<'_>) -> String {
    let mut out = String::new();
    let _ = write_value(&mut out, value, 0);
    out
}

/// The nesting that is still written out.
const MAX_SHOWN_DEPTH: usize = 32;

fn write_value(out: &mut String, value: &Value<'_>, depth: usize) -> Result<(), Error> {
    if depth > MAX_SHOWN_DEPTH {
        out.push('…');
        return Ok(());
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Int(int) => drop(write!(out, "{int}")),
        Value::Uint(uint) => drop(write!(out, "{uint}")),
        Value::Double(value) => out.push_str(&double(*value)),
        Value::String(text) if depth > 0 => drop(write!(out, "\"{}\"", &**text)),
        Value::String(text) => out.push_str(text),
        Value::Bytes(bytes) => out.push_str(&String::from_utf8_lossy(bytes)),
        Value::Duration(nanos) => out.push_str(&time::format_duration_seconds(*nanos)),
        Value::Timestamp(at) => drop(write!(out, "{at}")),
        Value::Type(ty) => drop(write!(out, "{ty}")),
        Value::Opaque(opaque) => drop(write!(out, "{opaque}")),
        Value::Optional(None) => out.push_str("optional.none()"),
        Value::Optional(Some(value)) => {
            out.push_str("optional.of(");
            write_value(out, value, depth + 1)?;
            out.push(')');
        }
        Value::Object(built) => drop(write!(out, "{}{{}}", built.ty.name())),
        Value::Lazy(_) => out.push_str("object"),
        other => {
            if let Some(items) = other.items() {
                out.push('[');
                for (at, item) in items.enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    write_value(out, &item?, depth + 1)?;
                }
                out.push(']');
            } else if let Some(keys) = other.keys() {
                out.push('{');
                for (at, key) in keys.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    write_value(out, key, depth + 1)?;
                    out.push(':');
                    if let Some(Some(value)) = other.map_get(key) {
                        write_value(out, &value?, depth + 1)?;
                    }
                }
                out.push('}');
            } else {
                out.push_str("object");
            }
        }
    }
    Ok(())
}

fn format<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), list] = args else { return wrong() };
    let mut items = list.items().ok_or_else(Error::no_overload)?;
    let mut out = String::new();
    let mut rest: &str = text;
    let mut index = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('%') {
            out.push('%');
            rest = tail;
            continue;
        }
        let mut precision = None;
        if let Some(tail) = rest.strip_prefix('.') {
            let length = tail.bytes().take_while(u8::is_ascii_digit).count();
            let digits = tail[..length].parse().unwrap_or(0);
            if digits > MAX_PRECISION {
                return Err(Error::new("precision is too large"));
            }
            precision = Some(digits);
            rest = &tail[length..];
        }
        let Some(verb) = rest.chars().next() else {
            return Err(Error::new("could not parse formatting clause: unexpected end of string"));
        };
        rest = &rest[verb.len_utf8()..];
        let Some(item) = items.next() else { return Err(Error::new(format!("index {index} out of range"))) };
        index += 1;
        let before = out.len();
        clause(&mut out, verb, precision, &item?)?;
        context.budget.text_work(out.len() - before)?;
    }
    out.push_str(rest);
    context.budget.text_work(out.len())?;
    Ok(Value::string(out))
}

fn mismatch<T>(clause: &str, value: &Value<'_>, allowed: &str) -> Result<T, Error> {
    Err(Error::new(format!(
        "error during formatting: {clause} clause can only be used on {allowed}, was given {}",
        value.type_of()
    )))
}

fn clause(out: &mut String, verb: char, precision: Option<usize>, value: &Value<'_>) -> Result<(), Error> {
    let number = || match value {
        Value::Double(d) => Some(*d),
        Value::Int(i) => Some(*i as f64),
        Value::Uint(u) => Some(*u as f64),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    };
    let sign = |i: i64| if i < 0 { "-" } else { "" };
    match verb {
        's' => return write_value(out, value, 0),
        'd' => match value {
            Value::Int(_) | Value::Uint(_) => return write_value(out, value, 0),
            Value::Double(d) if !d.is_finite() => out.push_str(&infinite(*d)),
            other => return mismatch("decimal", other, "integers"),
        },
        'f' | 'e' => {
            let Some(number) = number() else {
                let name = if verb == 'f' { "fixed-point" } else { "scientific" };
                return mismatch(name, value, "doubles");
            };
            let precision = precision.unwrap_or(6);
            if !number.is_finite() {
                out.push_str(&infinite(number));
            } else if verb == 'f' {
                let _ = write!(out, "{number:.precision$}");
            } else {
                let text = format!("{number:.precision$e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let exponent: i32 = exponent.parse().unwrap_or(0);
                let _ = write!(out, "{digits}×10{}", if exponent < 0 { "⁻" } else { "" });
                for digit in format!("{:02}", exponent.unsigned_abs()).bytes() {
                    out.push(SUPERSCRIPTS[usize::from(digit - b'0') % 10]);
                }
            }
        }
        'b' => match value {
            Value::Bool(b) => out.push(if *b { '1' } else { '0' }),
            Value::Int(i) => drop(write!(out, "{}{:b}", sign(*i), i.unsigned_abs())),
            Value::Uint(u) => drop(write!(out, "{u:b}")),
            other => return mismatch("binary", other, "integers and bools"),
        },
        'o' => match value {
            Value::Int(i) => drop(write!(out, "{}{:o}", sign(*i), i.unsigned_abs())),
            Value::Uint(u) => drop(write!(out, "{u:o}")),
            other => return mismatch("octal", other, "integers"),
        },
        'x' | 'X' => {
            let text = match value {
                Value::Int(i) => format!("{}{:x}", sign(*i), i.unsigned_abs()),
                Value::Uint(u) => format!("{u:x}"),
                Value::String(text) => text.bytes().map(|b| format!("{b:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
                other => return mismatch("hex", other, "integers, byte buffers, and strings"),
            };
            out.push_str(&if verb == 'X' { text.to_ascii_uppercase() } else { text });
        }
        other => {
            let message = format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"");
            return Err(Error::new(message));
        }
    }
    Ok(())
}

fn infinite(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN",
        v if v > 0.0 => "Infinity",
        _ => "-Infinity",
    }
    .into()
}

/// A key as messages show it.
pub fn show_key(key: &Key<'_>) -> String {
    show(&key.to_value())
}

/// What is known to be wrong with a literal format and its arguments' types; with the argument it is about.
pub fn check_format(text: &str, types: &[&Type]) -> Result<(), (Option<usize>, String)> {
    let mut index = 0;
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('%') {
            rest = tail;
            continue;
        }
        rest = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
        let Some(verb) = rest.chars().next() else { break };
        rest = &rest[verb.len_utf8()..];
        let Some(ty) = types.get(index) else { return Err((None, format!("index {index} out of range"))) };
        let (name, allowed, fits) = match verb {
            's' => ("", "", true),
            'd' => ("decimal", "integers", matches!(ty, Type::Int | Type::Uint)),
            'f' => ("fixed-point", "doubles", matches!(ty, Type::Double)),
            'e' => ("scientific", "doubles", matches!(ty, Type::Double)),
            'b' => ("binary", "integers and bools", matches!(ty, Type::Int | Type::Uint | Type::Bool)),
            'o' => ("octal", "integers", matches!(ty, Type::Int | Type::Uint)),
            'x' | 'X' => (
                "hex",
                "integers, byte buffers, and strings",
                matches!(ty, Type::Int | Type::Uint | Type::Bytes | Type::String),
            ),
            other => {
                let message = format!("could not parse formatting clause: unrecognized formatting clause \"{other}\"");
                return Err((None, message));
            }
        };
        if !fits && !matches!(ty, Type::Dyn | Type::Error | Type::Param(_)) {
            let message =
                format!("error during formatting: {name} clause can only be used on {allowed}, was given {ty}");
            return Err((Some(index), message));
        }
        index += 1;
    }
    if index < types.len() {
        let message = format!("too many arguments supplied to string.format (expected {index}, got {})", types.len());
        return Err((None, message));
    }
    Ok(())
}
