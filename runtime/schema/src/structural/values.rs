//! Values against schemas, with the words and the ways of k8s.io/kube-openapi/pkg/validation/validate: in which order things
//! are looked at, which of several failed alternatives is told of, what a mistake is called. What did not change since the
//! last write is not held against an update (CRDValidationRatcheting).
use super::{Additional, MAX_DEPTH, Patterns, Schema, correlate, formats};
use crate::Cause;
use crate::{Number, Value};
use std::fmt::Write as _;

/// All mistakes of `value`. `path` is where it stands in its object.
pub(super) fn check(
    patterns: &Patterns,
    schema: Schema<'_>,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let checker = Checker { patterns, base: path };
    causes.extend(checker.child(schema, value, old, "", 0).faults.into_iter().map(|fault| fault.cause));
}

/// What came of one value and one schema.
#[derive(Default)]
struct Outcome {
    faults: Vec<Fault>,
    /// How much was right: of alternatives that all fail, the best is told of.
    matches: usize,
}

struct Fault {
    /// What makes it the same as another.
    text: String,
    cause: Cause,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        for fault in other.faults {
            self.add(fault);
        }
    }
    fn add(&mut self, fault: Fault) {
        if !self.faults.iter().any(|known| known.text == fault.text) {
            self.faults.push(fault);
        }
    }
}

struct Checker<'c> {
    patterns: &'c Patterns,
    base: &'c str,
}

/// Go's names of what a JSON value is: type, and format of a number.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::Number(n) if n.is_i64() => ("integer", "int64"),
        Value::Number(_) => ("number", "float64"),
        Value::String(_) => ("string", ""),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

/// A float as Go's %v prints it.
fn go_float(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || (1e-4..1e21).contains(&size) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

impl Checker<'_> {
    /// The path of a cause.
    fn field(&self, path: &str) -> String {
        match (self.base, path.strip_prefix('.').unwrap_or(path)) {
            ("", "") => "<nil>".into(),
            (base, "") => base.into(),
            ("", path) => path.into(),
            (base, path) => format!("{base}.{path}"),
        }
    }

    fn invalid(&self, path: &str, value: Value, detail: String) -> Fault {
        Fault { cause: Cause::invalid(self.field(path), &value, &detail), text: detail }
    }

    fn type_invalid(&self, path: &str, wanted: &str, found: &str) -> Fault {
        let text = format!("{path} in body must be of type {wanted}: {}", crate::status::go_quote(found));
        Fault { cause: Cause::type_invalid(self.field(path), &found.into(), &text), text }
    }

    /// An error that names no value.
    fn general(&self, text: String) -> Fault {
        Fault { cause: Cause::invalid(self.field(""), &"".into(), &text), text }
    }

    /// A value with an old one to measure it by.
    fn child(&self, schema: Schema<'_>, value: &Value, old: Option<&Value>, path: &str, depth: usize) -> Outcome {
        let mut outcome = self.node(schema, value, old, path, depth);
        if !outcome.faults.is_empty() && old == Some(value) {
            outcome.faults.clear();
        }
        outcome
    }

    fn node(&self, schema: Schema<'_>, value: &Value, old: Option<&Value>, path: &str, depth: usize) -> Outcome {
        let mut outcome = Outcome::default();
        if depth > MAX_DEPTH {
            outcome.add(self.general(format!("{path} exceeds max depth of {MAX_DEPTH}")));
            return outcome;
        }
        let keywords = Keywords::read(schema);
        self.type_of(&keywords, value, path, &mut outcome);
        if !value.is_null() {
            outcome.merge(self.alternatives(schema, value, old, path, depth));
            outcome.matches += 1;
            match value {
                Value::String(text) => self.string(&keywords, text, path, &mut outcome),
                Value::Number(number) => self.number(schema, &keywords, number, path, &mut outcome),
                Value::Array(list) => self.array(schema, list, old, path, depth, &mut outcome),
                _ => {}
            }
        }
        if keywords.has_enum {
            self.one_of_values(schema, value, path, &mut outcome);
        }
        if let Value::Object(map) = value {
            self.object(schema, map, old, path, depth, &mut outcome);
        }
        if !value.is_null() {
            outcome.matches += 3;
        }
        outcome
    }

    /// typeValidator
    fn type_of(&self, keywords: &Keywords<'_>, value: &Value, path: &str, outcome: &mut Outcome) {
        let (found, format) = type_of(value);
        let (wanted, any_number) = (keywords.types, keywords.types.contains("integer") || keywords.types == "number");
        let is = |name: &str| wanted.split(',').any(|wanted| wanted == name);
        if value.is_null() {
            match wanted.is_empty() || keywords.nullable {
                true => outcome.matches += 1,
                false => outcome.add(self.type_invalid(path, wanted, "null")),
            }
            return;
        }
        if wanted.is_empty() && keywords.format.is_empty() {
            return;
        }
        // The validator ran, whatever it found.
        outcome.matches += 1;
        let whole = value.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < 9_007_199_254_740_992.0);
        let number_fits = found == "number" && whole && is("integer") || found == "integer" && is("number");
        let textual = value.is_string() || value.is_array();
        let fits = is(found) || format == keywords.format || number_fits;
        if !textual && !keywords.format.is_empty() && !fits {
            return outcome.add(self.type_invalid(path, keywords.format, format));
        }
        if !any_number && !keywords.format.is_empty() && textual || is(found) || number_fits {
            outcome.matches += 1;
            return;
        }
        outcome.add(self.type_invalid(path, wanted, found));
    }

    fn string(&self, keywords: &Keywords<'_>, text: &str, path: &str, outcome: &mut Outcome) {
        let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = keywords.max_length.filter(|max| length() > *max) {
            let detail = format!("{path} in body should be at most {max} chars long");
            let cause = Cause::too_long(self.field(path), usize::try_from(max).unwrap_or(0));
            outcome.add(Fault { text: detail, cause });
        } else if let Some(min) = keywords.min_length.filter(|min| length() < *min) {
            let detail = format!("{path} in body should be at least {min} chars long");
            outcome.add(self.invalid(path, text.into(), detail));
        } else if !keywords.pattern.is_empty()
            && self.patterns.get(keywords.pattern).is_some_and(|pattern| !pattern.is_match(text))
        {
            let detail = format!("{path} in body should match '{}'", keywords.pattern);
            outcome.add(self.invalid(path, text.into(), detail));
        }
        if !keywords.format.is_empty() {
            outcome.matches += 1;
            if !formats::fits(self.patterns, keywords.format, text) {
                outcome.add(self.type_invalid(path, keywords.format, text));
            }
        }
    }

    fn number(&self, schema: Schema<'_>, keywords: &Keywords<'_>, number: &Number, path: &str, outcome: &mut Outcome) {
        outcome.matches += 1;
        let place = schema.place();
        let value = number.as_f64().unwrap_or(0.0);
        let in_range = match (keywords.types, keywords.format) {
            ("integer", _) if value.fract() != 0.0 => false,
            ("integer", "int32") => i32::try_from(value as i64).is_ok() && value.abs() < 1e18,
            ("integer", _) => number.is_i64() || value.abs() < 9.2e18,
            ("number", "float") => value.abs() <= f64::from(f32::MAX),
            _ => true,
        };
        if !in_range {
            let format = if keywords.format.is_empty() { "(default format)" } else { "with format " };
            let (types, name) = (keywords.types, keywords.format);
            outcome.add(self.general(format!("Checked value must be of type {types} {format}{name} in {path}")));
        }
        // Whole numbers compare as such, bounds cut to whole numbers too.
        let show = |bound: f64| if number.is_i64() { (bound as i64).to_string() } else { go_float(bound) };
        let cut = |bound: f64| if number.is_i64() { bound.trunc() } else { bound };
        if let Some(factor) = place.get("multipleOf").as_f64() {
            let fits = match number.as_i64() {
                Some(value) => (factor as i64) > 0 && value % (factor as i64) == 0,
                None if factor > 0.0 => {
                    let quotient = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
                    (quotient - quotient.round()).abs() < 1e-9
                }
                None => false,
            };
            if !fits {
                let (shown, detail) = match cut(factor) > 0.0 {
                    true => (number.clone(), format!("{path} in body should be a multiple of {}", show(factor))),
                    false => {
                        let detail =
                            format!("factor MultipleOf declared for {path} must be positive: {}", show(factor));
                        (serde_json::from_str(&show(factor)).unwrap_or(number.clone()), detail)
                    }
                };
                outcome.add(self.invalid(path, Value::Number(shown), detail));
            }
        }
        for (keyword, exclusive, more, less) in
            [("maximum", "exclusiveMaximum", "less than", 1.0), ("minimum", "exclusiveMinimum", "greater than", -1.0)]
        {
            let Some(bound) = place.get(keyword).as_f64() else { continue };
            let exclusive = place.get(exclusive).is_true();
            let beyond = match number.as_i64() {
                // Exact where doubles are not.
                Some(value) => {
                    let order = value.cmp(&(bound as i64));
                    let outside = if less > 0.0 { order.is_gt() } else { order.is_lt() };
                    outside || exclusive && order.is_eq()
                }
                None => (value - bound) * less > 0.0 || exclusive && value == bound,
            };
            if beyond {
                let or_equal = if exclusive { "" } else { " or equal to" };
                let detail = format!("{path} in body should be {more}{or_equal} {}", show(bound));
                outcome.add(self.invalid(path, Value::Number(number.clone()), detail));
            }
        }
    }

    fn array(
        &self,
        schema: Schema<'_>,
        list: &[Value],
        old: Option<&Value>,
        path: &str,
        depth: usize,
        outcome: &mut Outcome,
    ) {
        outcome.matches += 1;
        if let Some(items) = schema.items() {
            let known = correlate::old_element(schema, old);
            let mut at_path = String::with_capacity(path.len() + 8);
            for (at, value) in list.iter().enumerate() {
                at_path.clear();
                let _ = write!(at_path, "{path}[{at}]");
                outcome.merge(self.child(items, value, known.get(schema, value), &at_path, depth + 1));
            }
        }
        let size = list.len();
        self.size(schema, ("minItems", "maxItems", "items"), size, path, outcome);
    }

    /// minItems and maxItems, minProperties and maxProperties.
    fn size(
        &self,
        schema: Schema<'_>,
        (min, max, what): (&str, &str, &str),
        size: usize,
        path: &str,
        outcome: &mut Outcome,
    ) {
        let count = i64::try_from(size).unwrap_or(i64::MAX);
        if let Some(min) = schema.place().get(min).as_i64().filter(|min| count < *min) {
            let detail = format!("{path} in body should have at least {min} {what}");
            outcome.add(self.invalid(path, size.into(), detail));
        }
        if let Some(max) = schema.place().get(max).as_i64().filter(|max| count > *max) {
            let cause = Cause::too_many(self.field(path), size, usize::try_from(max).unwrap_or(0));
            outcome.add(Fault { text: format!("{path} in body should have at most {max} {what}"), cause });
        }
    }

    fn object(
        &self,
        schema: Schema<'_>,
        map: &crate::Map,
        old: Option<&Value>,
        path: &str,
        depth: usize,
        outcome: &mut Outcome,
    ) {
        self.size(schema, ("minProperties", "maxProperties", "properties"), map.len(), path, outcome);
        let old = old.and_then(Value::as_object);
        let was = |name: &str| old.and_then(|old| old.get(name));
        let additional = schema.additional();
        if !matches!(additional, Additional::Unset | Additional::Any) {
            for (name, value) in map.iter().filter(|(name, _)| schema.property(name).is_none()) {
                match additional {
                    Additional::Of(of) => {
                        outcome.merge(self.child(of, value, was(name), &format!("{path}.{name}"), depth + 1));
                    }
                    _ => {
                        let detail = format!("{path}.{name} in body is a forbidden property");
                        outcome.add(self.invalid(path, name.as_str().into(), detail));
                    }
                }
            }
        }
        for (name, property) in schema.properties() {
            let Some(value) = map.get(name) else { continue };
            // Both sides were brought to this version: a change of it cannot be seen.
            let old = was(name).filter(|_| !(path.is_empty() && matches!(name, "apiVersion" | "kind")));
            outcome.merge(self.child(property, value, old, &super::join(path, name), depth + 1));
        }
        for name in schema.place().get("required").items().map(|name| name.str()) {
            if !map.contains_key(name) {
                let at = format!("{path}.{name}");
                let cause = Cause::required(self.field(&at), "");
                outcome.add(Fault { text: format!("{at} in body is required"), cause });
            }
        }
    }

    fn one_of_values(&self, schema: Schema<'_>, value: &Value, path: &str, outcome: &mut Outcome) {
        let allowed: Vec<Value> = schema.place().get("enum").items().map(|allowed| allowed.to_value()).collect();
        let same = |allowed: &&Value| match (allowed, value) {
            (Value::Null, _) => false,
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            (allowed, value) => *allowed == value,
        };
        if allowed.iter().any(|allowed| same(&allowed)) {
            return;
        }
        let texts: Vec<String> =
            allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let cause = Cause::not_supported(self.field(path), value, &texts);
        outcome.add(Fault { text: format!("{path} in body should be one of [{}]", texts.join(" ")), cause });
    }

    /// allOf, anyOf, oneOf and not.
    fn alternatives(
        &self,
        schema: Schema<'_>,
        value: &Value,
        old: Option<&Value>,
        path: &str,
        depth: usize,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let try_one = |of: Schema<'_>| self.node(of, value, old, path, depth + 1);
        let better =
            |best: &Option<Outcome>, found: &Outcome| best.as_ref().is_none_or(|best| found.matches > best.matches);
        let name = crate::status::go_quote(path);
        let mut any = schema.each("anyOf").peekable();
        if any.peek().is_some() {
            let mut best: Option<Outcome> = None;
            let mut succeeded = false;
            for of in any {
                let found = try_one(of);
                if found.faults.is_empty() {
                    (best, succeeded) = (Some(found), true);
                    break;
                }
                if better(&best, &found) {
                    best = Some(found);
                }
            }
            if !succeeded {
                outcome.add(self.general(format!("{name} must validate at least one schema (anyOf)")));
            }
            outcome.merge(best.unwrap_or_default());
        }
        let mut one = schema.each("oneOf").peekable();
        if one.peek().is_some() {
            let (mut best, mut first): (Option<Outcome>, Option<Outcome>) = (None, None);
            let mut valid = 0;
            for of in one {
                let found = try_one(of);
                if found.faults.is_empty() {
                    valid += 1;
                    best = None;
                    first = first.or(Some(found));
                } else if valid == 0 && better(&best, &found) {
                    best = Some(found);
                }
            }
            if valid == 1 {
                outcome.merge(first.unwrap_or_default());
            } else {
                let found =
                    if valid == 0 { "Found none valid".into() } else { format!("Found {valid} valid alternatives") };
                outcome.add(self.general(format!("{name} must validate one and only one schema (oneOf). {found}")));
                outcome.merge(best.unwrap_or_default());
            }
        }
        let (mut count, mut valid) = (0, 0);
        for of in schema.each("allOf") {
            let found = try_one(of);
            count += 1;
            valid += usize::from(found.faults.is_empty());
            outcome.merge(found);
        }
        if valid < count {
            let none = if valid == 0 { ". None validated" } else { "" };
            outcome.add(self.general(format!("{name} must validate all the schemas (allOf){none}")));
        }
        if schema.negated().is_some_and(|not| try_one(not).faults.is_empty()) {
            outcome.add(self.general(format!("{name} must not validate the schema (not)")));
        }
        outcome.matches += 1;
        outcome
    }
}

/// The keywords that scalars are checked by, read in one pass.
#[derive(Default)]
struct Keywords<'a> {
    /// "string"; "integer,string" of an int-or-string; "" for any.
    types: &'a str,
    /// "" unless it is one that is checked.
    format: &'a str,
    pattern: &'a str,
    nullable: bool,
    has_enum: bool,
    min_length: Option<i64>,
    max_length: Option<i64>,
}

impl<'a> Keywords<'a> {
    fn read(schema: Schema<'a>) -> Keywords<'a> {
        let mut keywords = Keywords::default();
        let mut int_or_string = false;
        for (keyword, place) in schema.place().entries() {
            match keyword {
                "type" => keywords.types = place.str(),
                "format" => keywords.format = place.str(),
                "pattern" => keywords.pattern = place.str(),
                "nullable" => keywords.nullable = place.is_true(),
                "enum" => keywords.has_enum = !place.is_empty(),
                "minLength" => keywords.min_length = place.as_i64(),
                "maxLength" => keywords.max_length = place.as_i64(),
                "x-kubernetes-int-or-string" => int_or_string = place.is_true(),
                _ => {}
            }
        }
        if int_or_string {
            keywords.types = "integer,string";
        }
        let single = if int_or_string { "-" } else { keywords.types };
        if !keywords.format.is_empty() && !formats::is_known(single, keywords.format) {
            keywords.format = "";
        }
        keywords
    }
}
