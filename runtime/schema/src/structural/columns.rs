//! Printer columns: JSONPath as client-go's jsonpath package reads it, evaluated over stored bytes. A column shows the first
//! of the values that its path finds (apiextensions-apiserver/pkg/registry/customresource/tableconvertor).
use super::Custom;
use crate::Ref;

/// A column of a definition, or the one that a definition without columns has.
pub struct Column<'a> {
    pub name: &'a str,
    /// "integer", "number", "string", "boolean", "date"
    pub type_name: &'a str,
    pub format: &'a str,
    /// "" when the definition has none.
    pub description: &'a str,
    pub priority: i64,
    pub text: &'a str,
    pub path: Path,
}

/// The columns after the name; a path that cannot be read ends them.
pub fn columns(custom: &Custom) -> Vec<Column<'_>> {
    let list = custom.version().get("additionalPrinterColumns");
    if list.is_empty() {
        let path = Path::parse(AGE).unwrap_or_default();
        let age = Column { name: "Age", type_name: "date", format: "", description: "", priority: 0, text: AGE, path };
        return vec![age];
    }
    list.items().map_while(read).collect()
}

fn read(column: Ref<'_>) -> Option<Column<'_>> {
    let text = column.get("jsonPath").str();
    Some(Column {
        name: column.get("name").str(),
        type_name: column.get("type").str(),
        format: column.get("format").str(),
        description: column.get("description").str(),
        priority: column.get("priority").as_i64().unwrap_or(0),
        text,
        path: Path::parse(text).ok()?,
    })
}

const AGE: &str = ".metadata.creationTimestamp";
/// Steps of one path; values one step may lead to.
const MAX_STEPS: usize = 64;
const MAX_FOUND: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Name(String),
    All,
    /// From, to and by, as Python slices; an index is a slice of one.
    Slice(Option<i64>, Option<i64>, i64),
    Filter(Box<Filter>),
    Descend(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Side,
    /// "" asks whether there is anything.
    operator: &'static str,
    right: Side,
}

#[derive(Clone, Debug, PartialEq)]
enum Side {
    Path(Path),
    Text(String),
    Number(f64),
    Bool(bool),
}

const OPERATORS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];

impl Path {
    pub fn parse(text: &str) -> Result<Path, String> {
        let fail = || format!("unrecognized column definition {text:?}");
        let mut steps = Vec::new();
        let mut rest = text.strip_prefix('$').unwrap_or(text);
        while !rest.is_empty() && steps.len() < MAX_STEPS {
            if let Some(after) = rest.strip_prefix("..") {
                let (name, left) = name(after);
                steps.push(Step::Descend(name));
                rest = left;
            } else if let Some(after) = rest.strip_prefix('.') {
                let (name, left) = name(after);
                match name.as_str() {
                    "*" => steps.push(Step::All),
                    // "." alone, and the dot before a bracket.
                    "" if left.is_empty() || left.starts_with('[') => {}
                    "" => return Err(fail()),
                    _ => steps.push(Step::Name(name)),
                }
                rest = left;
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = closing(after).ok_or_else(fail)?;
                steps.push(bracket(after[..end].trim()).ok_or_else(fail)?);
                rest = &after[end + 1..];
            } else if steps.is_empty() {
                let (name, left) = name(rest);
                steps.push(Step::Name(name));
                rest = left;
            } else {
                return Err(fail());
            }
        }
        if rest.is_empty() { Ok(Path(steps)) } else { Err(fail()) }
    }

    /// The first value there.
    pub fn first<'a>(&self, root: Ref<'a>) -> Option<Ref<'a>> {
        self.find(root).into_iter().next()
    }

    fn find<'a>(&self, root: Ref<'a>) -> Vec<Ref<'a>> {
        let mut here = vec![root];
        for step in &self.0 {
            let mut next = Vec::new();
            for place in here {
                step.take(place, &mut next);
            }
            next.truncate(MAX_FOUND);
            here = next;
        }
        here
    }
}

impl Step {
    fn take<'a>(&self, place: Ref<'a>, out: &mut Vec<Ref<'a>>) {
        match self {
            Step::Name(name) => out.extend(Some(place.get(name)).filter(|found| found.exists())),
            Step::All => {
                out.extend(place.items().take(MAX_FOUND));
                out.extend(place.entries().map(|(_, value)| value).take(MAX_FOUND));
            }
            Step::Slice(from, to, by) => {
                let list: Vec<Ref<'a>> = place.items().take(MAX_FOUND).collect();
                let length = list.len() as i64;
                let whole = |at: i64| if at < 0 { at + length } else { at }.clamp(0, length);
                let (from, to) = (whole(from.unwrap_or(0)), whole(to.unwrap_or(length)));
                let by = usize::try_from(*by).unwrap_or(1).max(1);
                out.extend((from..to).step_by(by).filter_map(|at| list.get(at as usize)));
            }
            Step::Filter(filter) => out.extend(place.items().take(MAX_FOUND).filter(|element| filter.picks(*element))),
            Step::Descend(name) => descend(place, name, out, 0),
        }
    }
}

fn descend<'a>(place: Ref<'a>, name: &str, out: &mut Vec<Ref<'a>>, depth: usize) {
    if depth > 64 || out.len() > MAX_FOUND {
        return;
    }
    for (key, value) in place.entries() {
        if key == name || name == "*" {
            out.push(value);
        }
        descend(value, name, out, depth + 1);
    }
    for value in place.items() {
        descend(value, name, out, depth + 1);
    }
}

impl Filter {
    fn picks(&self, element: Ref<'_>) -> bool {
        if self.operator.is_empty() {
            return !matches!(&self.left, Side::Path(path) if path.find(element).is_empty());
        }
        let order = match (self.left.text(element), self.right.text(element)) {
            (Some(left), Some(right)) => match (left.parse::<f64>(), right.parse::<f64>()) {
                (Ok(left), Ok(right)) => left.partial_cmp(&right),
                _ => Some(left.cmp(&right)),
            },
            _ => return false,
        };
        let Some(order) = order else { return false };
        match self.operator {
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            "<=" => order.is_le(),
            ">=" => order.is_ge(),
            "<" => order.is_lt(),
            _ => order.is_gt(),
        }
    }
}

impl Side {
    fn text(&self, element: Ref<'_>) -> Option<String> {
        match self {
            Side::Path(path) => path.first(element).map(text_of),
            Side::Text(text) => Some(text.clone()),
            Side::Number(number) => Some(number.to_string()),
            Side::Bool(value) => Some(value.to_string()),
        }
    }

    fn parse(text: &str) -> Option<Side> {
        let text = text.trim();
        for quote in ['"', '\''] {
            if let Some(inner) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
                return Some(Side::Text(inner.into()));
            }
        }
        match text {
            "true" => Some(Side::Bool(true)),
            "false" => Some(Side::Bool(false)),
            _ => match text.parse() {
                Ok(number) => Some(Side::Number(number)),
                Err(_) => Path::parse(text.strip_prefix('@')?).ok().map(Side::Path),
            },
        }
    }
}

/// A value as a cell of type string shows it: strings and numbers bare, lists and objects as JSON.
pub fn text_of(place: Ref<'_>) -> String {
    if let Some(text) = place.as_str() {
        return text.into();
    }
    if place.is_null() {
        return "<no value>".into();
    }
    let mut out = Vec::new();
    place.write_json(&mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// A name up to the next delimiter; `\.` is a dot of the name's own.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (name, &text[at..]),
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket that is open ends; quotes and inner brackets are passed over.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        for operator in OPERATORS {
            if let Some((left, right)) = condition.split_once(operator) {
                let (left, right) = (Side::parse(left)?, Side::parse(right)?);
                return Some(Step::Filter(Box::new(Filter { left, operator, right })));
            }
        }
        let left = Side::parse(condition)?;
        return Some(Step::Filter(Box::new(Filter { left, operator: "", right: Side::Bool(true) })));
    }
    if let Some(Side::Text(name)) = Side::parse(text) {
        return Some(Step::Name(name));
    }
    let numbers: Option<Vec<Option<i64>>> = text
        .split(':')
        .map(|part| if part.trim().is_empty() { Some(None) } else { part.trim().parse().ok().map(Some) })
        .collect();
    match numbers?.as_slice() {
        [Some(-1)] => Some(Step::Slice(Some(-1), None, 1)),
        [Some(at)] => Some(Step::Slice(Some(*at), Some(at + 1), 1)),
        [from, to] => Some(Step::Slice(*from, *to, 1)),
        [from, to, by] => Some(Step::Slice(*from, *to, by.unwrap_or(1))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Doc;

    #[test]
    fn paths_find_values() {
        let doc = Doc::from_json(
            br#"{"spec":{"a.b":"dot","n":[1,2,3],"m":{"x":true}},"status":{"conditions":[
                {"type":"Ready","status":"True","at":3},{"type":"Other","status":"False","at":12}]}}"#,
        )
        .unwrap();
        let run = |path: &str| Path::parse(path).map(|path| path.first(doc.root()).map(text_of));
        for (path, wanted) in [
            (".spec.n[0]", Some("1")),
            (".spec.n[-1]", Some("3")),
            (".spec.n[1:]", Some("2")),
            (".spec.n[*]", Some("1")),
            (r".spec.a\.b", Some("dot")),
            (".spec['a.b']", Some("dot")),
            (".spec.m", Some(r#"{"x":true}"#)),
            (r#".status.conditions[?(@.type=="Other")].status"#, Some("False")),
            (".status.conditions[?(@.type=='Ready')].status", Some("True")),
            (".status.conditions[?(@.at > 5)].type", Some("Other")),
            (".status.conditions[?(@.none)].type", None),
            ("..at", Some("3")),
            (".spec.none.deep", None),
            (".spec.n[7]", None),
            ("spec.m.x", Some("true")),
        ] {
            assert_eq!(run(path), Ok(wanted.map(str::to_owned)), "{path}");
        }
        for bad in [".a[", ".a[b]", ".a[?(x)]", ".a.b]c["] {
            assert!(run(bad).is_err() || run(bad) == Ok(None), "{bad}");
        }
    }
}
