//! Whether a configuration fits its type, worded as structured-merge-diff words it (typed/validate.go).
use super::{Element, Set};
use super::{
    list,
    set::path_text,
    types::{Atom, Scalar, TypeRef},
};
use crate::Value;
use crate::strategic::go;

/// Complaints of one object at most.
const MAX_ERRORS: usize = 100;

/// With `duplicates` a list may hold one element several times.
pub(super) fn validate(types: TypeRef<'_>, value: &Value, duplicates: bool) -> Result<(), String> {
    let mut walk = Walk { errors: Vec::new(), path: Vec::new(), duplicates };
    walk.any(types, value);
    match walk.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(many.iter().fold("errors:".to_owned(), |text, error| text + "\n  " + error)),
    }
}

struct Walk {
    errors: Vec<String>,
    path: Vec<Element>,
    duplicates: bool,
}

impl Walk {
    fn fail(&mut self, message: String) {
        if self.errors.len() < MAX_ERRORS {
            let path = path_text(&self.path);
            self.errors.push(if path.is_empty() { message } else { format!("{path}: {message}") });
        }
    }

    fn below(&mut self, element: Element, types: TypeRef<'_>, value: &Value) {
        self.path.push(element);
        self.any(types, value);
        self.path.pop();
    }

    fn any(&mut self, types: TypeRef<'_>, value: &Value) {
        let atom = types.resolve().of(Some(value));
        match (&atom, value) {
            (_, Value::Null) => {}
            (Atom { map: Some(map), .. }, Value::Object(members)) => {
                for (name, member) in members {
                    let types = map.member(name);
                    if types.is_none() {
                        self.path.push(Element::field(name));
                        self.fail("field not declared in schema".into());
                        self.path.pop();
                        break;
                    }
                    self.below(Element::field(name), types, member);
                }
            }
            (Atom { map: Some(_), .. }, other) => self.fail(format!("expected map, got &{{{}}}", go(other))),
            (Atom { scalar: Some(scalar), .. }, value) => self.scalar(*scalar, value),
            (Atom { list: Some(list), .. }, Value::Array(items)) => {
                let (keys, mut seen) = (list.keys(), Set::default());
                for (at, item) in items.iter().enumerate() {
                    let element =
                        if list.is_atomic() { Ok(Element::Index(at as i64)) } else { list::element(list, &keys, item) };
                    match element {
                        Err(error) => return self.fail(format!("element {at}: {error}")),
                        Ok(element) => {
                            let path = [element];
                            if !self.duplicates && seen.contains(&path) {
                                self.fail(format!("duplicate entries for key {}", path[0]));
                            }
                            seen.insert(&path);
                            let [element] = path;
                            self.below(element, list.element, item);
                        }
                    }
                }
            }
            (Atom { list: Some(_), .. }, other) => self.fail(format!("expected list, got &{{{}}}", go(other))),
            _ => self.fail("schema error: invalid atom: inlined".into()),
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        let fits = match scalar {
            Scalar::Numeric => value.is_number(),
            Scalar::String => value.is_string(),
            Scalar::Boolean => value.is_boolean(),
            Scalar::Untyped => !value.is_array() && !value.is_object(),
        };
        if !fits {
            self.fail(match scalar {
                Scalar::Numeric => format!("expected numeric (int or float), got {}", go_type(value)),
                Scalar::String => {
                    format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value))
                }
                Scalar::Boolean => format!("expected boolean, got &{{{}}}", go(value)),
                Scalar::Untyped => format!("expected any scalar, got &{{{}}}", go(value)),
            });
        }
    }
}

/// %T
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// %#v
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            format!("[]interface {{}}{{{}}}", list.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(name, v)| format!("{name:?}:{}", go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        Value::String(text) => crate::status::go_quote(text),
        Value::Null => "interface {}(nil)".into(),
        plain => plain.to_string(),
    }
}
