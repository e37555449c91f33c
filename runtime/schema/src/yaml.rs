//! A tree as YAML text, laid out as sigs.k8s.io/yaml does: block style, members sorted, list items at their key's indent, text
//! of several lines as literal blocks. Reading YAML is `parse`'s.
use crate::{Map, Value};

pub fn to_yaml(value: &Value) -> Result<String, String> {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => members(map, 0, false, &mut out),
        Value::Array(list) if !list.is_empty() => items(list, 0, &mut out),
        plain => {
            scalar(plain, 0, &mut out);
            out.push('\n');
        }
    }
    Ok(out)
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// `started`: the first member follows on the line of its "- ".
fn members(map: &Map, indent: usize, started: bool, out: &mut String) {
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 || !started {
            pad(indent, out);
        }
        text(key, indent, true, out);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                members(inner, indent + 2, false, out);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                items(list, indent, out);
            }
            plain => {
                out.push(' ');
                scalar(plain, indent, out);
                out.push('\n');
            }
        }
    }
}

fn items(list: &[Value], indent: usize, out: &mut String) {
    for value in list {
        pad(indent, out);
        out.push_str("- ");
        match value {
            Value::Object(map) if !map.is_empty() => members(map, indent + 2, true, out),
            // The first inner item shares the line.
            Value::Array(inner) if !inner.is_empty() => {
                let mut rest = String::new();
                items(inner, indent + 2, &mut rest);
                out.push_str(rest.trim_start());
            }
            plain => {
                scalar(plain, indent, out);
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::String(string) => text(string, indent, false, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
        plain => out.push_str(&plain.to_string()),
    }
}

fn text(string: &str, indent: usize, is_key: bool, out: &mut String) {
    let printable = !string.chars().any(|c| c.is_control() && c != '\n' || c == '\u{feff}');
    if string.contains('\n') && printable && !is_key && !string.starts_with([' ', '\n']) {
        out.push_str(match (string.ends_with('\n'), string.ends_with("\n\n")) {
            (_, true) => "|+",
            (true, _) => "|",
            _ => "|-",
        });
        for line in string.strip_suffix('\n').unwrap_or(string).split('\n') {
            out.push('\n');
            if !line.is_empty() {
                pad(indent + 2, out);
                out.push_str(line);
            }
        }
    } else if is_plain(string) {
        out.push_str(string);
    } else {
        // JSON's strings are YAML's double-quoted ones.
        out.push_str(&Value::from(string).to_string());
    }
}

/// Reads back as the same string without quotes.
fn is_plain(string: &str) -> bool {
    let Some(first) = string.chars().next() else { return false };
    let safe_start = !"-?:,[]{}#&*!|>'\"%@`= \t~<".contains(first);
    let inside = string.contains(": ") || string.contains(" #") || string.ends_with([':', ' ', '\t']);
    let printable = !string.chars().any(|c| c.is_control());
    safe_start && !inside && printable && crate::parse::is_string(string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn layout_is_upstream_s() {
        let value = json!({"a": {"b": [1, {"c": "x", "d": {}}, [2, 3]], "e": []}, "m": "l1\nl2\n", "o": "l1\nl2", "v": "true",
            "num": "0755", "colon": "a: b", "t": true, "z": null, "empty": "", "dash": "- x", "date": "2024-01-01", "url": "http://x:1"});
        let want = "a:\n  b:\n  - 1\n  - c: x\n    d: {}\n  - - 2\n    - 3\n  e: []\ncolon: \"a: b\"\ndash: \"- x\"\n\
            date: \"2024-01-01\"\nempty: \"\"\nm: |\n  l1\n  l2\nnum: \"0755\"\no: |-\n  l1\n  l2\nt: true\nurl: http://x:1\nv: \"true\"\nz: null\n";
        let text = to_yaml(&value).unwrap();
        assert_eq!(text, want);
        assert_eq!(crate::parse::parse_yaml(text.as_bytes()).unwrap().0, value);
    }

    #[test]
    fn what_is_written_reads_back() {
        for odd in [
            "a\tb", "\n", " x", "x ", "#", "a #b", "~", "null", "1e3", "-", "--- a", "é", "\u{1}", "{a", "a\n\n",
            "yes", "'q'", "0x1f",
        ] {
            let value = json!({"k": odd, odd: [odd]});
            let text = to_yaml(&value).unwrap();
            assert_eq!(crate::parse::parse_yaml(text.as_bytes()).map(|(v, _)| v), Ok(value), "{text}");
        }
    }
}
