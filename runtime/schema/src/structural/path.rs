//! Paths of names, `.spec.replicas`: where a scale has its numbers, what may be selected by, what a rule speaks of.
use super::{Additional, Schema, join};
use crate::{Cause, Value, kind::Scale};

/// A path that starts with a dot and holds names only (validateSimpleJSONPath).
pub(super) fn check_simple(path: &str, at: &str, causes: &mut Vec<Cause>) -> bool {
    let detail = match path {
        "" => "must not be empty",
        _ if !path.starts_with('.') => "must be a simple json path starting with .",
        _ => return true,
    };
    causes.push(Cause::invalid(at, &path.into(), detail));
    false
}

/// Go's name of a value's type.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The value at a path without its leading dot; an error in unstructured.NestedInt64's words when there is something else.
fn find<'v>(root: &'v Value, path: &str, wanted: &str) -> Result<Option<&'v Value>, String> {
    let fail = |value: &Value, wanted: &str| {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Err(format!(".{path} accessor error: {shown} is of the type {}, expected {wanted}", go_type(value)))
    };
    let mut value = root;
    for name in path.split('.') {
        match value {
            Value::Object(map) => match map.get(name) {
                Some(child) => value = child,
                None => return Ok(None),
            },
            other => return fail(other, "map[string]interface{}"),
        }
    }
    if go_type(value) == wanted { Ok(Some(value)) } else { fail(value, wanted) }
}

/// The numbers and the selector behind /scale (ValidateScaleSpec, ValidateScaleStatus).
pub(super) fn check_scale(scale: &Scale, object: &Value, spec: bool, causes: &mut Vec<Cause>) {
    let paths = [(spec, &scale.spec_replicas), (true, &scale.status_replicas)];
    for (_, path) in paths.into_iter().filter(|(looked_at, _)| *looked_at) {
        let found = find(object, path, "int64");
        let number = found.as_ref().ok().and_then(|value| value.and_then(Value::as_i64)).unwrap_or(0);
        let detail = match found {
            Err(error) => error,
            Ok(_) if number < 0 => "should be a non-negative integer".into(),
            Ok(_) if number > i64::from(i32::MAX) => format!("should be less than or equal to {}", i32::MAX),
            Ok(_) => continue,
        };
        causes.push(Cause::invalid(format!(".{path}"), &number.into(), &detail));
    }
    if !scale.selector.is_empty()
        && let Err(error) = find(object, &scale.selector, "string")
    {
        causes.push(Cause::invalid(format!(".{}", scale.selector), &"".into(), &error));
    }
}

/// A path of fields and map keys through a schema (ValidFieldPath): the path as errors print it, and the schema there.
/// `.a.b` and `['a']`; `brackets` false refuses the latter.
pub fn follow<'a>(path: &str, schema: Schema<'a>, brackets: bool) -> Result<(String, Option<Schema<'a>>), String> {
    let mut printed = String::new();
    let mut here = Some(schema);
    let mut rest = path;
    while !rest.is_empty() {
        let name: String;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 && after.is_empty() {
                return Err("unexpected end of JSON path".into());
            }
            // A delimiter where a name should be is taken for one.
            let end = end.max(1);
            (name, rest) = (after[..end].into(), &after[end..]);
        } else if let Some(after) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".into());
            }
            let (quoted, after) = quoted(after)?;
            name = quoted;
            rest = after.strip_prefix(']').ok_or_else(|| match after {
                "" => "unexpected end of JSON path".to_owned(),
                other => format!("expected ] but got {other}"),
            })?;
        } else {
            let end = rest.find(['.', '[', ']']).filter(|end| *end > 0).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        }
        let schema = here.ok_or("does not refer to a valid field")?;
        if schema.has_properties() {
            here = Some(schema.property(&name).ok_or("does not refer to a valid field")?);
            printed = join(&printed, &name);
        } else {
            here = match schema.additional() {
                Additional::Unset => return Err("does not refer to a valid field".into()),
                Additional::Of(of) => Some(of),
                Additional::Any | Additional::No => None,
            };
            printed = format!("{printed}[{name}]");
        }
    }
    Ok((printed, here))
}

/// A string in single quotes at the front, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let inner = match text.strip_prefix('\'') {
        Some(inner) => inner,
        None if text.is_empty() => return Err("unexpected end of JSON path".into()),
        None => {
            let end = text.find(['.', '[', ']']).filter(|end| *end > 0).unwrap_or(text.len());
            return Err(format!("expected single quoted string but got {}", &text[..end]));
        }
    };
    let mut name = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Ok((name, &inner[at + 1..])),
            '\\' => match chars.next() {
                Some((_, c @ ('\'' | '\\'))) => name.push(c),
                Some((_, 'a')) => name.push('\x07'),
                Some((_, 'b')) => name.push('\x08'),
                Some((_, 'f')) => name.push('\x0c'),
                Some((_, 'n')) => name.push('\n'),
                Some((_, 'r')) => name.push('\r'),
                Some((_, 't')) => name.push('\t'),
                Some((_, 'v')) => name.push('\x0b'),
                Some((_, c)) => return Err(format!("invalid string literal: invalid escape char \\{c}")),
                None => break,
            },
            c => name.push(c),
        }
    }
    Err(format!("expected single quoted string but got '{inner}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doc;

    #[test]
    fn paths_through_a_schema() {
        let doc = Doc::from_json(
            br#"{"properties":{"spec":{"properties":{"a":{"type":"string"},"m":{"additionalProperties":{"type":"integer"}}}}}}"#,
        )
        .unwrap();
        let schema = Schema::new(doc.root());
        let run = |path| follow(path, schema, true).map(|(path, schema)| (path, schema.map_or("", Schema::type_name)));
        assert_eq!(run(".spec.a"), Ok(("spec.a".into(), "string")));
        assert_eq!(run(".spec.m['x.y']"), Ok(("spec.m[x.y]".into(), "integer")));
        assert_eq!(run(".spec.m.k"), Ok(("spec.m[k]".into(), "integer")));
        for (path, error) in [
            ("spec", "expected [ or . but got: spec"),
            (".spec.none", "does not refer to a valid field"),
            (".spec.a.b", "does not refer to a valid field"),
            (".spec[0]", "expected single quoted string but got 0"),
            (".spec.", "unexpected end of JSON path"),
            (".spec['a'", "unexpected end of JSON path"),
        ] {
            assert_eq!(run(path).err().as_deref(), Some(error), "{path}");
        }
        assert_eq!(follow("['spec']", schema, false).err().as_deref(), Some("array notation is not allowed"));
    }
}
