//! Regular expressions as Go's regexp reads them (RE2 syntax), in linear time: rules' `matches`, and the `pattern` of
//! schemas. `regex-lite` does the matching (94 kB); what it writes otherwise than Go is put in its words first, and
//! classes by Unicode category become ranges of letters and digits of the scripts in common use.
use std::rc::Rc;

/// The longest pattern.
const MAX_PATTERN: usize = 64 * 1024;
/// Memory of one compiled pattern.
const MAX_COMPILED_BYTES: usize = 1 << 20;
/// Patterns one evaluation keeps.
const KEPT: usize = 16;

#[derive(Clone, Debug)]
pub struct Regex(regex_lite::Regex);

impl Regex {
    /// The error is text like Go's, without its "error parsing regexp: ".
    pub fn new(pattern: &str) -> Result<Regex, String> {
        if pattern.len() > MAX_PATTERN {
            return Err("expression nests too deeply or is too large".into());
        }
        let translated = translate(pattern)?;
        let built = regex_lite::RegexBuilder::new(&translated).size_limit(MAX_COMPILED_BYTES).build();
        built.map(Regex).map_err(|error| match error.to_string().as_str() {
            "found open group without closing ')'" => format!("missing closing ): `{pattern}`"),
            "found closing ')' without matching '('" => format!("unexpected ): `{pattern}`"),
            other => other.to_owned(),
        })
    }

    /// Anywhere in the text.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
    /// The first match.
    pub fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        self.0.find(text).map(|found| found.as_str())
    }
    pub fn find_all<'t>(&self, text: &'t str, limit: usize) -> Vec<&'t str> {
        self.0.find_iter(text).take(limit).map(|found| found.as_str()).collect()
    }
}

/// The patterns an evaluation has met, so that a loop compiles one once.
#[derive(Default)]
pub struct Regexes(Vec<(Rc<str>, Regex)>);

impl Regexes {
    pub fn get(&mut self, pattern: &str) -> Result<&Regex, String> {
        let found = self.0.iter().position(|(known, _)| **known == *pattern);
        let at = match found {
            Some(at) => at,
            None => {
                let regex = Regex::new(pattern)?;
                if self.0.len() >= KEPT {
                    self.0.remove(0);
                }
                self.0.push((pattern.into(), regex));
                self.0.len() - 1
            }
        };
        self.0.get(at).map(|(_, regex)| regex).ok_or_else(String::new)
    }
}

/// Go's spelling to regex-lite's: `\Q...\E`, `\pL`, octal and single-letter escapes, braces that repeat nothing.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.char_indices().peekable();
    let mut in_class = false;
    let mut repeated = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                let Some((_, next)) = chars.next() else {
                    return Err("trailing backslash at end of expression: ``".into());
                };
                match next {
                    'Q' if !in_class => {
                        let rest = &pattern[at + 2..];
                        let quoted = rest.split("\\E").next().unwrap_or("");
                        out.push_str(&regex_lite::escape(quoted));
                        let end = at + 2 + quoted.len() + 2;
                        while chars.peek().is_some_and(|(at, _)| *at < end) {
                            chars.next();
                        }
                    }
                    'p' | 'P' => {
                        let name: String = match chars.next() {
                            Some((_, '{')) => {
                                let name: String = chars.by_ref().map(|(_, c)| c).take_while(|c| *c != '}').collect();
                                name
                            }
                            Some((_, letter)) => letter.into(),
                            None => String::new(),
                        };
                        let (negated, plain) =
                            name.strip_prefix('^').map_or((next == 'P', &*name), |rest| (next != 'P', rest));
                        let ranges = category(plain)
                            .ok_or_else(|| format!("invalid character class range: `\\{next}{{{name}}}`"))?;
                        match (in_class, negated) {
                            (false, false) => out.push_str(&format!("[{ranges}]")),
                            (false, true) => out.push_str(&format!("[^{ranges}]")),
                            (true, false) => out.push_str(ranges),
                            (true, true) => out.push_str(&format!("[^{ranges}]")),
                        }
                    }
                    'C' if !in_class => out.push_str("(?s:.)"),
                    '0'..='7' => {
                        let mut code = next.to_digit(8).unwrap_or(0);
                        if next != '0' && !chars.peek().is_some_and(|(_, c)| c.is_digit(8)) {
                            return Err(format!("invalid escape sequence: `\\{next}`"));
                        }
                        for _ in 0..2 {
                            let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8)) else { break };
                            code = code * 8 + digit;
                            chars.next();
                        }
                        out.push_str(&format!("\\x{{{code:X}}}"));
                    }
                    'a' | 'f' | 't' | 'n' | 'r' | 'v' | 'x' | 'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                        out.push('\\');
                        out.push(next);
                    }
                    'A' | 'b' | 'B' | 'z' if !in_class => {
                        out.push('\\');
                        out.push(next);
                    }
                    other if other.is_ascii_alphanumeric() || !other.is_ascii() => {
                        return Err(format!("invalid escape sequence: `\\{other}`"));
                    }
                    other => out.push_str(&regex_lite::escape(other.encode_utf8(&mut [0; 4]))),
                }
            }
            '[' if in_class => {
                let named = pattern[at..].starts_with("[:");
                out.push_str(if named { "[" } else { "\\[" });
                if named {
                    for (_, c) in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.next_if(|(_, c)| *c == '^').is_some() {
                    out.push('^');
                }
                // A bracket right at the start is one of the class.
                if chars.next_if(|(_, c)| *c == ']').is_some() {
                    out.push_str("\\]");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            ']' => out.push_str("\\]"),
            // Neither set operations nor anything else is meant by these.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '{' if !in_class && !repeats(&pattern[at..]) => out.push_str("\\{"),
            '}' if !in_class && !out_has_open_repeat(&out) => out.push_str("\\}"),
            // Go takes no repetition of a repetition.
            '*' | '+' if !in_class && repeated => return Err(format!("invalid nested repetition operator: `{c}`")),
            other => out.push(other),
        }
        repeated = !in_class && matches!(c, '*' | '+');
    }
    if in_class {
        let start = pattern.rfind('[').unwrap_or(0);
        return Err(format!("missing closing ]: `{}`", &pattern[start..]));
    }
    Ok(out)
}

/// Whether a brace begins `{2}`, `{2,}` or `{2,3}`.
fn repeats(text: &str) -> bool {
    let Some((inner, _)) = text[1..].split_once('}') else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    !least.is_empty() && least.bytes().all(|b| b.is_ascii_digit()) && most.bytes().all(|b| b.is_ascii_digit())
}

fn out_has_open_repeat(out: &str) -> bool {
    out.rfind('{').is_some_and(|at| !out[..at].ends_with('\\') && !out[at..].contains('}'))
}

/// Categories and scripts in common use, as ranges.
fn category(name: &str) -> Option<&'static str> {
    Some(match name {
        "L" | "Letter" => {
            "A-Za-z\u{aa}\u{b5}\u{ba}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{2c1}\u{370}-\u{373}\u{376}-\u{37d}\u{37f}-\u{481}\u{48a}-\u{559}\u{561}-\u{587}\u{5d0}-\u{5ea}\u{620}-\u{64a}\u{671}-\u{6d3}\u{904}-\u{939}\u{e01}-\u{e30}\u{10a0}-\u{10ff}\u{1100}-\u{11ff}\u{1e00}-\u{1fff}\u{2c00}-\u{2dff}\u{3041}-\u{3096}\u{30a1}-\u{30fa}\u{3400}-\u{4dbf}\u{4e00}-\u{9fff}\u{ac00}-\u{d7a3}\u{f900}-\u{faff}"
        }
        "Lu" => "A-Z\u{c0}-\u{d6}\u{d8}-\u{de}\u{391}-\u{3a9}\u{410}-\u{42f}",
        "Ll" => "a-z\u{b5}\u{df}-\u{f6}\u{f8}-\u{ff}\u{3b1}-\u{3c9}\u{430}-\u{44f}",
        "N" | "Nd" => "0-9\u{660}-\u{669}\u{6f0}-\u{6f9}\u{966}-\u{96f}\u{ff10}-\u{ff19}",
        "P" => {
            "!-#%-*,-/:;?@\\[-\\]_\\{\\}\u{a1}\u{a7}\u{ab}\u{b6}\u{b7}\u{bb}\u{bf}\u{2010}-\u{2027}\u{2030}-\u{205e}\u{3001}-\u{3003}\u{3008}-\u{3011}"
        }
        "S" => {
            "$+<->\\^`|\\~\u{a2}-\u{a6}\u{a8}\u{a9}\u{ac}\u{ae}-\u{b1}\u{b4}\u{b8}\u{d7}\u{f7}\u{20a0}-\u{20c0}\u{2100}-\u{2bff}"
        }
        "Z" | "Zs" => " \u{a0}\u{1680}\u{2000}-\u{200a}\u{202f}\u{205f}\u{3000}",
        "C" | "Cc" => "\u{0}-\u{1f}\u{7f}-\u{9f}",
        "Latin" => "A-Za-z\u{aa}\u{ba}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{2b8}\u{1e00}-\u{1eff}",
        "Greek" => "\u{370}-\u{3ff}\u{1f00}-\u{1fff}",
        "Cyrillic" => "\u{400}-\u{52f}",
        "Han" => "\u{2e80}-\u{2fd5}\u{3400}-\u{4dbf}\u{4e00}-\u{9fff}\u{f900}-\u{faff}",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_go_means() {
        for (pattern, text, matches) in [
            ("^a+$", "aaa", true),
            ("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "a-b", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\pL+$", "Äb", true),
            (r"^[\p{L}\d]+$", "a1", true),
            (r"^\P{L}+$", "12", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^a{2}$", "aa", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"\/\-\_", "/-_", true),
            (r"^\x41\101$", "AA", true),
            ("(?i)^abc$", "ABC", true),
            ("^}$", "}", true),
        ] {
            let regex = Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(regex.is_match(text), matches, "{pattern} {text}");
        }
        for wrong in ["(", "[a", r"\8", r"\y", "(?=a)", r"\pX", "a**", "*"] {
            assert!(Regex::new(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Regex::new("b+").unwrap().find_all("abbcb", 9), ["bb", "b"]);
    }
}
