//! Field selectors: parse, match. Grammar and error texts as apimachinery's fields package.
use crate::Order as _;
use crate::Ref;

/// `metadata.name=x,status.phase!=Running`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSelector {
    /// (dotted path, value, negated); a path may be several, `a|b`, of which the first that is not empty counts
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|part| !part.is_empty()) {
            let Some(at) = part.find('=') else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            let (path, rest) = part.split_at(at);
            let (path, negated) = match path.strip_suffix('!') {
                Some(path) => (path, true),
                None => (path, false),
            };
            let double = !negated && rest.starts_with("==");
            terms.push((path.to_string(), unescape(&rest[if double { 2 } else { 1 }..])?, negated));
        }
        terms.order();
        Ok(FieldSelector { terms })
    }

    /// The value that `path` must have, when the selector says so: a list of one object needs no scan.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|(p, _, negated)| p == path && !negated).map(|(_, value, _)| value.as_str())
    }

    /// Booleans and numbers compare by their text. A field that is not there has its type's zero value: "", "false" or "0".
    pub fn matches(&self, root: Ref<'_>) -> bool {
        self.terms.iter().all(|(path, value, negated)| is_value(find(root, path), value) != *negated)
    }
}

/// `a|b`: what is at a, or where that is empty, what is at b.
fn find<'a>(root: Ref<'a>, path: &str) -> Ref<'a> {
    match path.split_once('|') {
        Some((first, rest)) if root.at(first).is_empty() => find(root, rest),
        Some((first, _)) => root.at(first),
        None => root.at(path),
    }
}

fn is_value(place: Ref<'_>, value: &str) -> bool {
    if let Some(text) = place.as_str() {
        return text == value;
    }
    if place.is_empty() {
        return matches!(value, "" | "false" | "0");
    }
    if place.is_map() || place.is_list() {
        return false;
    }
    let mut text = Vec::new();
    place.write_json(&mut text);
    text == value.as_bytes()
}

/// At commas without a backslash in front.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence: String = other.into_iter().collect();
                    return Err(format!("invalid field selector: invalid escape sequence: \\{sequence}"));
                }
            },
            // Upstream prints the character's number.
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {}", u32::from(c)));
            }
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doc;

    #[test]
    fn fields_match() {
        let doc = Doc::from_json(br#"{"metadata":{"name":"x,y"},"spec":{"on":true,"n":3},"type":"a=b"}"#).unwrap();
        for (text, expected) in [
            ("", true),
            (r"metadata.name=x\,y", true),
            (r"metadata.name==x\,y,type=a\=b", true),
            ("metadata.name!=x", true),
            ("spec.on=true,spec.n=3", true),
            ("spec.off=false,spec.x=", true),
            ("spec.off!=false", false),
            ("spec=", false),
            ("spec.off|type=a\\=b,type|spec.n=a\\=b", true),
            ("spec.off|spec.no=x", false),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(doc.root()), expected, "{text}");
        }
        for (text, error) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            assert_eq!(FieldSelector::parse(text), Err(error.into()), "{text}");
        }
    }
}
