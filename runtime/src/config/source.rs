//! One configuration file as a flat list of keys, each with its line. Knows YAML and nothing of what the keys mean.
//!
//! Of YAML it takes what a configuration needs: one document of maps, lists of scalars, and scalars. Anchors, tags and
//! maps within lists are refused where they stand. Size and depth are bounded.
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::{fs::File, io::Read, path::Path};

/// A configuration file is a page or two; this is far beyond.
const LIMIT_BYTES: u64 = 256 * 1024;
const LIMIT_DEPTH: usize = 8;

/// A key written out ("apiServer.port") and what it was set to.
#[derive(Debug, PartialEq)]
pub struct Entry {
    pub line: usize,
    pub key: String,
    pub value: Value,
}

#[derive(Debug, PartialEq)]
pub enum Value {
    /// Nothing after the colon, or `null`, or an empty map.
    Empty,
    Scalar(String),
    List(Vec<String>),
}

/// What is wrong, at which line of the file.
pub type Mistake = (usize, String);

/// Everything the file sets, and every mistake that can still be told from the rest.
pub fn read(path: &Path) -> Result<(Vec<Entry>, Vec<Mistake>), std::io::Error> {
    let mut text = String::new();
    let mut file = File::open(path)?.take(LIMIT_BYTES + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT_BYTES {
        return Err(std::io::Error::other(format!("larger than {} kB", LIMIT_BYTES / 1024)));
    }
    Ok(parse(&text))
}

fn parse(text: &str) -> (Vec<Entry>, Vec<Mistake>) {
    let mut reader = Reader { events: Parser::new_from_str(text), entries: Vec::new(), mistakes: Vec::new() };
    if let Err(mistake) = reader.document() {
        reader.mistakes.push(mistake);
    }
    (reader.entries, reader.mistakes)
}

struct Reader<'a> {
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    entries: Vec<Entry>,
    mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), Mistake> {
        match self.events.next_event() {
            Some(Ok((Event::Alias(_), span))) => Err((span.start.line(), "aliases are not supported here".to_owned())),
            Some(Ok((event, Span { start, .. }))) => Ok((event, start.line())),
            Some(Err(error)) => Err((error.marker().line(), format!("not valid YAML: {}", error.info()))),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn document(&mut self) -> Result<(), Mistake> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::MappingStart(..), _) => break,
                (Event::Scalar(text, ..), _) if is_empty(&text) => break,
                (Event::StreamEnd, _) => return Ok(()),
                (_, line) => {
                    return Err((line, "expected keys and values, as in `node: {nodeIP: 10.0.0.5}`".to_owned()));
                }
            }
        }
        self.map("", 1)?;
        loop {
            match self.next()? {
                (Event::DocumentEnd, _) => {}
                (Event::StreamEnd, _) => return Ok(()),
                (_, line) => return Err((line, "expected one YAML document, found a second".to_owned())),
            }
        }
    }

    /// After a map's start, up to its end.
    fn map(&mut self, parent: &str, depth: usize) -> Result<(), Mistake> {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let (line, key) = match self.next()? {
                (Event::Scalar(text, ..), line) => (line, text.into_owned()),
                (Event::MappingEnd | Event::DocumentEnd | Event::StreamEnd, _) => return Ok(()),
                (_, line) => return Err((line, "expected a key".to_owned())),
            };
            let key = if parent.is_empty() { key } else { format!("{parent}.{key}") };
            if seen.contains(&key) {
                self.mistakes.push((line, format!("{key}: is set twice in this file")));
            }
            seen.push(key.clone());
            let value = match self.next()? {
                (Event::Scalar(text, style, ..), _) => match style {
                    ScalarStyle::Plain if is_empty(&text) => Value::Empty,
                    _ => Value::Scalar(text.into_owned()),
                },
                (Event::SequenceStart(..), _) => Value::List(self.list(&key)?),
                (Event::MappingStart(..), line) if depth == LIMIT_DEPTH => {
                    return Err((line, format!("{key}: is nested more than {LIMIT_DEPTH} levels deep")));
                }
                (Event::MappingStart(..), _) => {
                    let before = self.entries.len();
                    self.map(&key, depth + 1)?;
                    if self.entries.len() > before {
                        continue;
                    }
                    Value::Empty
                }
                (_, line) => return Err((line, format!("{key}: expected a value"))),
            };
            self.entries.push(Entry { line, key, value });
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<String>, Mistake> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::Scalar(text, ..), _) => items.push(text.into_owned()),
                (Event::SequenceEnd, _) => return Ok(items),
                (_, line) => return Err((line, format!("{key}: expected a list of plain values"))),
            }
        }
    }
}

fn is_empty(plain: &str) -> bool {
    matches!(plain, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, entries: &[(usize, &str, &str)], mistakes: &[(usize, &str)]) {
        let (found, wrong) = parse(text);
        let found: Vec<_> = found.iter().map(|e| (e.line, e.key.as_str(), format!("{:?}", e.value))).collect();
        let expected: Vec<_> = entries.iter().map(|(line, key, value)| (*line, *key, (*value).to_owned())).collect();
        assert_eq!(found, expected);
        let wrong: Vec<_> = wrong.iter().map(|(line, what)| (*line, what.as_str())).collect();
        assert_eq!(wrong, mistakes);
    }

    #[test]
    fn keys_come_with_their_lines() {
        check("", &[], &[]);
        check("# nothing yet\n", &[], &[]);
        check("---\n", &[], &[]);
        check(
            "node:\n  nodeIP: 10.0.0.5 # the wired one\napiServer: {port: 6443}\n",
            &[(2, "node.nodeIP", "Scalar(\"10.0.0.5\")"), (3, "apiServer.port", "Scalar(\"6443\")")],
            &[],
        );
        check(
            "a:\n- x\n- 'y'\nb:\nc: {}\nd: ~\ne: \"\"\n",
            &[
                (1, "a", "List([\"x\", \"y\"])"),
                (4, "b", "Empty"),
                (5, "c", "Empty"),
                (6, "d", "Empty"),
                (7, "e", "Scalar(\"\")"),
            ],
            &[],
        );
    }

    #[test]
    fn mistakes_come_with_their_lines() {
        check("- a\n", &[], &[(1, "expected keys and values, as in `node: {nodeIP: 10.0.0.5}`")]);
        check(
            "a: 1\na: 2\n",
            &[(1, "a", "Scalar(\"1\")"), (2, "a", "Scalar(\"2\")")],
            &[(2, "a: is set twice in this file")],
        );
        check("a: &x 1\nb: *x\n", &[(1, "a", "Scalar(\"1\")")], &[(2, "aliases are not supported here")]);
        check("a:\n- b: 1\n", &[], &[(2, "a: expected a list of plain values")]);
        check("a: 1\n---\nb: 2\n", &[(1, "a", "Scalar(\"1\")")], &[(2, "expected one YAML document, found a second")]);
        check(
            "a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}\n",
            &[],
            &[(1, "a.b.c.d.e.f.g.h: is nested more than 8 levels deep")],
        );
        let (_, mistakes) = parse("a: 1\nb: [1, 2\nc: 3\n");
        assert!(mistakes.len() == 1 && mistakes[0].1.starts_with("not valid YAML: "), "{mistakes:?}");
    }
}
