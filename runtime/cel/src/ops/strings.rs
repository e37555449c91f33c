//! Strings: the standard functions, cel-go's ext/strings.go (version 2), Kubernetes' regex library. Places are counted in
//! characters.
use super::{Context, Function, Outcome, wrong};
use crate::{Error, value::Value};
use base64::{Engine as _, engine::general_purpose::STANDARD};

pub const FUNCTIONS: &[Function] = &[
    Function { name: "contains", signatures: ".ss:b", run: |c, args| test(c, args, |a, b| a.contains(b)) },
    Function { name: "startsWith", signatures: ".ss:b", run: |c, args| test(c, args, |a, b| a.starts_with(b)) },
    Function { name: "endsWith", signatures: ".ss:b", run: |c, args| test(c, args, |a, b| a.ends_with(b)) },
    Function { name: "matches", signatures: "ss:b .ss:b", run: matches },
    Function { name: "find", signatures: ".ss:s", run: find },
    Function { name: "findAll", signatures: ".ss:Ls .ssi:Ls", run: find_all },
    Function { name: "charAt", signatures: ".si:s", run: char_at },
    Function { name: "lowerAscii", signatures: ".s:s", run: |c, args| map(c, args, |text| text.to_ascii_lowercase()) },
    Function { name: "upperAscii", signatures: ".s:s", run: |c, args| map(c, args, |text| text.to_ascii_uppercase()) },
    Function { name: "trim", signatures: ".s:s", run: |c, args| map(c, args, |text| text.trim().to_owned()) },
    Function { name: "strings.quote", signatures: "s:s", run: |c, args| map(c, args, quote) },
    Function { name: "jsonpatch.escapeKey", signatures: "s:s", run: |c, args| map(c, args, escape_key) },
    Function { name: "replace", signatures: ".sss:s .sssi:s", run: replace },
    Function { name: "split", signatures: ".ss:Ls .ssi:Ls", run: split },
    Function { name: "substring", signatures: ".si:s .sii:s", run: substring },
    Function { name: "join", signatures: ".Ls:s .Lss:s", run: join },
];

pub fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    STANDARD.decode(text)
}
pub fn encode_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn test<'a>(context: &mut Context<'_>, args: &[Value<'a>], test: fn(&str, &str) -> bool) -> Outcome<'a> {
    let [Value::String(text), Value::String(part)] = args else { return wrong() };
    context.budget.text_work(text.len())?;
    Ok(Value::Bool(test(text, part)))
}

fn map<'a>(context: &mut Context<'_>, args: &[Value<'a>], change: fn(&str) -> String) -> Outcome<'a> {
    let [Value::String(text)] = args else { return wrong() };
    context.budget.text_work(text.len())?;
    Ok(Value::string(change(text)))
}

fn matches<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::String(pattern)] = args else { return wrong() };
    let found = context.regexes.get(pattern).map(|regex| regex.is_match(text));
    found.map(Value::Bool).map_err(|error| Error::new(format!("error parsing regexp: {error}")))
}

fn illegal(error: String) -> Error {
    Error::new(format!("Illegal regex: error parsing regexp: {error}"))
}

fn find<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::String(pattern)] = args else { return wrong() };
    let regex = context.regexes.get(pattern).map_err(illegal)?;
    Ok(Value::string(regex.find(text).unwrap_or("")))
}

fn find_all<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [Value::String(text), Value::String(pattern), Value::Int(limit)] => (text, pattern, *limit),
        _ => return wrong(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let regex = context.regexes.get(pattern).map_err(illegal)?;
    let found: Vec<Value<'a>> = regex.find_all(text, limit).into_iter().map(Value::string).collect();
    context.budget.new_items(found.len())?;
    Ok(Value::list(found))
}

fn out_of_range(index: i64) -> Error {
    Error::new(format!("index out of range: {index}"))
}

/// The byte at which a character starts; the end counts as one.
fn byte_at(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

fn char_at<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text), Value::Int(index)] = args else { return wrong() };
    context.budget.text_work(text.len())?;
    let at = byte_at(text, *index).ok_or_else(|| out_of_range(*index))?;
    Ok(Value::string(text[at..].chars().next().map(String::from).unwrap_or_default()))
}

/// `indexOf` of a string: in characters, from one.
pub fn index_of(text: &str, part: &str, from: i64) -> Result<i64, Error> {
    if part.is_empty() {
        return Ok(from);
    }
    if from < 0 {
        return Err(out_of_range(from));
    }
    let Some(start) = byte_at(text, from) else { return Ok(-1) };
    let found = text[start..].find(part);
    Ok(found.map_or(-1, |at| text[..start + at].chars().count() as i64))
}

/// The last place that starts at or before `from`.
pub fn last_index_of(text: &str, part: &str, from: Option<i64>) -> Result<i64, Error> {
    let length = text.chars().count() as i64;
    if part.is_empty() {
        return Ok(from.unwrap_or(length));
    }
    let from = match from {
        Some(from) if from < 0 => return Err(out_of_range(from)),
        Some(from) => from,
        None => length,
    };
    let end = byte_at(text, from).unwrap_or(text.len()).saturating_add(part.len()).min(text.len());
    let end = (end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let found =
        text[..end].rmatch_indices(part).map(|(at, _)| text[..at].chars().count() as i64).find(|at| *at <= from);
    Ok(found.unwrap_or(-1))
}

fn replace<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, old, new, limit) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => (text, old, new, *limit),
        _ => return wrong(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = if old.is_empty() { text.len() + 1 } else { text.len() / old.len() };
    let most = count.min(limit).saturating_mul(new.len());
    context.budget.text_work(text.len().saturating_add(most))?;
    Ok(Value::string(text.replacen(&**old, new, limit)))
}

fn split<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return wrong(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    context.budget.new_items(text.len().min(limit))?;
    let mut parts: Vec<Value<'a>> = Vec::new();
    if limit == 0 {
        return Ok(Value::list(parts));
    }
    let mut rest: &str = text;
    while parts.len() + 1 < limit {
        // Between all characters when there is no separator.
        let found = match separator.len() {
            0 => rest.chars().next().map(char::len_utf8).filter(|at| *at < rest.len()),
            _ => rest.find(&**separator),
        };
        let Some(at) = found else { break };
        parts.push(Value::string(&rest[..at]));
        rest = &rest[at + separator.len()..];
    }
    if !(separator.is_empty() && rest.is_empty()) {
        parts.push(Value::string(rest));
    }
    Ok(Value::list(parts))
}

fn substring<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return wrong(),
    };
    context.budget.text_work(text.len())?;
    if let Some(end) = end
        && start > end
    {
        return Err(Error::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    let from = byte_at(text, start).ok_or_else(|| out_of_range(start))?;
    let to = match end {
        Some(end) => byte_at(text, end).ok_or_else(|| out_of_range(end))?,
        None => text.len(),
    };
    Ok(Value::string(&text[from..to]))
}

fn join<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [list] => (list, ""),
        [list, Value::String(separator)] => (list, &**separator),
        _ => return wrong(),
    };
    let Some(items) = list.items() else { return wrong() };
    let mut joined = String::new();
    for (at, item) in items.enumerate() {
        let item = item?;
        let Value::String(text) = &item else {
            return Err(Error::new(format!("join: invalid input: {}", super::format::show(&item))));
        };
        context.budget.text_work(text.len() + separator.len())?;
        if at > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Value::string(joined))
}

/// As a literal that reads back as the text.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        let escaped = match c {
            '\x07' => 'a',
            '\x08' => 'b',
            '\x0c' => 'f',
            '\n' => 'n',
            '\r' => 'r',
            '\t' => 't',
            '\x0b' => 'v',
            '\\' | '"' => c,
            _ => {
                quoted.push(c);
                continue;
            }
        };
        quoted.push('\\');
        quoted.push(escaped);
    }
    quoted + "\""
}

/// RFC 6901.
fn escape_key(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}
