//! Label selectors: parse, match, print. Grammar and error texts as apimachinery's labels package.
use crate::Gather as _;
use crate::Order as _;
use crate::status::{Cause, go_quote};
use crate::{Ref, validate};
use crate::{Value, json};
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct LabelSelector {
    pub requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    pub key: String,
    pub op: Op,
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Requirement {
    /// Checks as upstream's NewRequirement; the text joins all that is wrong.
    pub fn new(key: &str, op: Op, values: Vec<String>) -> Result<Requirement, String> {
        let list = || json!(values);
        let mut wrong: Vec<Cause> = label_key("key", key).into_iter().collect();
        let count = match op {
            Op::In | Op::NotIn if values.is_empty() => "for 'in', 'notin' operators, values set can't be empty",
            Op::Exists | Op::DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            Op::GreaterThan | Op::LessThan if values.len() != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !count.is_empty() {
            wrong.push(Cause::invalid("values", &list(), count));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(op, Op::GreaterThan | Op::LessThan) && integer(value).is_none() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                wrong.push(Cause::invalid(format!("values[{i}]"), &json!(value), detail));
            }
        }
        for (i, value) in values.iter().enumerate() {
            let messages = validate::label_value(value);
            if !messages.is_empty() {
                wrong.push(Cause::invalid(format!("values[{i}][{key}]"), &json!(value), &messages.join("; ")));
            }
        }
        if wrong.is_empty() {
            Ok(Requirement { key: key.into(), op, values })
        } else {
            Err(crate::status::aggregate(&wrong))
        }
    }

    /// `value` is what the label `key` has. Operators that say "not" match when there is no label.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let Some(value) = value else { return matches!(self.op, Op::NotIn | Op::DoesNotExist) };
        match self.op {
            Op::In => self.values.iter().any(|v| v == value),
            Op::NotIn => self.values.iter().all(|v| v != value),
            Op::Exists => true,
            Op::DoesNotExist => false,
            Op::GreaterThan | Op::LessThan => {
                let (Some(have), [Some(bound)]) =
                    (integer(value), &self.values.iter().map(|v| integer(v)).collect::<Vec<_>>()[..])
                else {
                    return false;
                };
                if self.op == Op::GreaterThan { have > *bound } else { have < *bound }
            }
        }
    }
}

/// As Go's ParseInt: a sign, then digits.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn label_key(field: &str, key: &str) -> Option<Cause> {
    let messages = validate::qualified_name(key);
    (!messages.is_empty()).then(|| Cause::invalid(field, &Value::from(key), &messages.join("; ")))
}

impl LabelSelector {
    /// `a=b,c in (d,e),!f`; the error is upstream's text.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let mut parser = Parser { tokens: lex(text), at: 0 };
        let mut requirements = Vec::new();
        loop {
            match parser.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                Token::End => break,
                token => return Err(format!("found '{token}', expected: !, identifier, or 'end of string'")),
            }
            let requirement = parser.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            match parser.next() {
                Token::End => break,
                Token::Symbol(",") => match parser.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    token => return Err(format!("found '{token}', expected: identifier after ','")),
                },
                token => return Err(format!("found '{token}', expected: ',' or 'end of string'")),
            }
        }
        requirements.order_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements })
    }

    /// From a `metav1.LabelSelector` inside an object. An absent selector matches nothing, an empty one everything.
    pub fn from_ref(selector: Ref<'_>) -> Result<Option<LabelSelector>, String> {
        if !selector.exists() || selector.is_null() {
            return Ok(None);
        }
        let labels = selector.get("matchLabels").entries().map(|(key, value)| (key, value.str()));
        let expressions = selector.get("matchExpressions").items().map(|expression| {
            let values = expression.get("values").items().map(|value| value.str().to_string()).gather();
            (expression.get("key").str(), expression.get("operator").str(), values)
        });
        LabelSelector::from_parts(labels, expressions).map(Some)
    }

    /// A map of labels that must all be there: `spec.selector` of Services and ReplicationControllers, nodeSelector. As
    /// upstream, unchecked; an absent or empty map matches everything.
    pub fn from_map(labels: Ref<'_>) -> LabelSelector {
        let exact = |(key, value): (&str, Ref<'_>)| Requirement {
            key: key.into(),
            op: Op::In,
            values: vec![value.str().into()],
        };
        LabelSelector { requirements: labels.entries().map(exact).collect() }
    }

    fn from_parts<'a>(
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        expressions: impl Iterator<Item = (&'a str, &'a str, Vec<String>)>,
    ) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        for (key, value) in labels {
            requirements.push(Requirement::new(key, Op::In, vec![value.into()])?);
        }
        for (key, operator, values) in expressions {
            let op = match operator {
                "In" => Op::In,
                "NotIn" => Op::NotIn,
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                _ => return Err(format!("{} is not a valid label selector operator", go_quote(operator))),
            };
            requirements.push(Requirement::new(key, op, values)?);
        }
        Ok(LabelSelector { requirements })
    }

    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// `labels` is a map of strings.
    pub fn matches(&self, labels: Ref<'_>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels.get(&requirement.key).as_str()))
    }

    /// For labels that are not in a Doc.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

/// As clients may send it back: "a=b,c in (d,e),!f".
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, Requirement { key, op, values }) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let mut values = values.clone();
            values.order();
            let list = values.join(",");
            match (op, values.len()) {
                (Op::In, 1) => write!(f, "{key}={list}")?,
                (Op::NotIn, 1) => write!(f, "{key}!={list}")?,
                (Op::In, _) => write!(f, "{key} in ({list})")?,
                (Op::NotIn, _) => write!(f, "{key} notin ({list})")?,
                (Op::Exists, _) => f.write_str(key)?,
                (Op::DoesNotExist, _) => write!(f, "!{key}")?,
                (Op::GreaterThan, _) => write!(f, "{key}>{list}")?,
                (Op::LessThan, _) => write!(f, "{key}<{list}")?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'a> {
    End,
    /// An identifier; `in` and `notin` are words too, until one of them is asked for.
    Word(&'a str),
    Symbol(&'a str),
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Token::End => Ok(()),
            Token::Word(text) | Token::Symbol(text) => f.write_str(text),
        }
    }
}

const SYMBOLS: &[u8] = b"=!(),><";

fn lex(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        // Upstream's lexer ends at a zero byte.
        let Some(first) = rest.bytes().next().filter(|b| *b != 0) else { break };
        let is_symbol = |b: u8| SYMBOLS.contains(&b);
        let len = if is_symbol(first) {
            match rest.as_bytes() {
                [b'=' | b'!', b'=', ..] => 2,
                _ => 1,
            }
        } else {
            rest.bytes().position(|b| b == 0 || is_symbol(b) || b" \t\r\n".contains(&b)).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(len);
        tokens.push(if is_symbol(first) { Token::Symbol(token) } else { Token::Word(token) });
        rest = after;
    }
    tokens.push(Token::End);
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }
    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token == Token::Symbol("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else { return Err(format!("found '{token}', expected: identifier")) };
        if let Some(cause) = label_key("<nil>", key) {
            return Err(format!("{}: {}", cause.field, cause.message));
        }
        if negated {
            return Requirement::new(key, Op::DoesNotExist, Vec::new());
        }
        if let Token::End | Token::Symbol(",") = self.peek() {
            return Requirement::new(key, Op::Exists, Vec::new());
        }
        let op = match self.next() {
            Token::Word("in") => Op::In,
            Token::Word("notin") => Op::NotIn,
            Token::Symbol("=" | "==") => return Requirement::new(key, Op::In, vec![self.value()?]),
            Token::Symbol("!=") => return Requirement::new(key, Op::NotIn, vec![self.value()?]),
            Token::Symbol(">") => return Requirement::new(key, Op::GreaterThan, vec![self.value()?]),
            Token::Symbol("<") => return Requirement::new(key, Op::LessThan, vec![self.value()?]),
            token => return Err(format!("found '{token}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        Requirement::new(key, op, self.values()?.into_iter().gather())
    }

    fn value(&mut self) -> Result<String, String> {
        if let Token::End | Token::Symbol(",") = self.peek() {
            return Ok(String::new());
        }
        match self.next() {
            Token::Word(value) => Ok(value.into()),
            token => Err(format!("found '{token}', expected: identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        match self.next() {
            Token::Symbol("(") => {}
            token => return Err(format!("found '{token}' expected: '('")),
        }
        match self.peek() {
            Token::Word(_) | Token::Symbol(",") => {}
            Token::Symbol(")") => {
                self.next();
                return Ok([String::new()].into());
            }
            token => return Err(format!("found '{token}', expected: ',', ')' or identifier")),
        }
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.insert(value.to_string());
                    match self.peek() {
                        Token::Symbol(",") => {}
                        Token::Symbol(")") => break,
                        token => return Err(format!("found '{token}', expected: ',' or ')'")),
                    }
                }
                Token::Symbol(",") => {
                    // "(,": there is an empty value before the comma.
                    if values.is_empty() {
                        values.insert(String::new());
                    }
                    match self.peek() {
                        Token::Symbol(")") => {
                            values.insert(String::new());
                            break;
                        }
                        Token::Symbol(",") => {
                            values.insert(String::new());
                        }
                        _ => {}
                    }
                }
                token => return Err(format!("found '{token}', expected: ',', or identifier")),
            }
        }
        self.next();
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doc;

    #[test]
    fn label_selectors_parse_and_print() {
        for (text, printed) in [
            ("", ""),
            ("a=b", "a=b"),
            ("x==y , a != b", "a!=b,x=y"),
            ("a in (c,b, b),!d,e", "a in (b,c),!d,e"),
            ("a notin ()", "a!="),
            ("a in (,b)", "a in (,b)"),
            ("a in (b,)", "a in (,b)"),
            ("in in (in,notin)", "in in (in,notin)"),
            ("a=", "a="),
            ("a>1,b<2", "a>1,b<2"),
            ("!a", "!a"),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn bad_label_selectors_say_why() {
        let key = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
        for (text, error) in [
            (",", "found ',', expected: !, identifier, or 'end of string'".to_string()),
            ("a,", "found '', expected: identifier after ','".into()),
            ("a=b c", "found 'c', expected: ',' or 'end of string'".into()),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt".into()),
            ("a in b", "unable to parse requirement: found 'b' expected: '('".into()),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'".into()),
            ("a=(", "unable to parse requirement: found '(', expected: identifier".into()),
            ("a>b", "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer".into()),
            ("!=b", "found '!=', expected: !, identifier, or 'end of string'".into()),
            ("-a=b", format!("unable to parse requirement: <nil>: Invalid value: \"-a\": {key}")),
        ] {
            assert_eq!(LabelSelector::parse(text), Err(error), "{text}");
        }
        let error = LabelSelector::parse("a=@").unwrap_err();
        assert!(
            error.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"@\": a valid label"),
            "{error}"
        );
    }

    #[test]
    fn labels_match() {
        let doc = Doc::from_json(br#"{"a":"b","n":"5"}"#).unwrap();
        for (text, expected) in [
            ("a=b", true),
            ("a!=b", false),
            ("x!=b", true),
            ("x notin (b)", true),
            ("a in (c,b)", true),
            ("a,!x", true),
            ("x", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("a>1", false),
            ("x=", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(doc.root()), expected, "{text}");
        }
    }

    #[test]
    fn selectors_of_objects() {
        let from = |json: &str| LabelSelector::from_ref(Doc::from_json(json.as_bytes()).unwrap().root());
        assert_eq!(LabelSelector::from_ref(Ref::absent()), Ok(None));
        assert_eq!(from("null"), Ok(None));
        assert!(from("{}").unwrap().unwrap().matches(Ref::absent()));
        let json = r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"Exists"},{"key":"d","operator":"NotIn","values":["e"]}]}"#;
        let selector = from(json).unwrap().unwrap();
        assert_eq!(selector.to_string(), "a=b,c,d!=e");
        let bad = r#"{"matchExpressions":[{"key":"c","operator":"Has"}]}"#;
        assert_eq!(from(bad), Err("\"Has\" is not a valid label selector operator".into()));
        let bad = r#"{"matchExpressions":[{"key":"c","operator":"In"}]}"#;
        assert_eq!(
            from(bad),
            Err("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into())
        );
    }
}
