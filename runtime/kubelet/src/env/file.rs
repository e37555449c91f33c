//! Environment files, which one container writes and others read by key (fileKeyRef): a strict part of the shell's
//! syntax, `NAME='value'`, where a value may go over lines. Pure. Upstream: pkg/kubelet/util/env.

/// The value of `key`; None when it is not there, or is empty.
pub fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| Err(format!("invalid environment variable format at line {}: {what}", number + 1));
        let Some((name, assigned)) = line.split_once('=') else { return wrong("missing '='") };
        if name.trim_end_matches([' ', '\t']).is_empty() {
            return wrong("empty variable name");
        }
        if name.ends_with([' ', '\t']) {
            return wrong("whitespace before '=' is not allowed");
        }
        // A space after "=" makes the value empty, as in the shell.
        if assigned.starts_with([' ', '\t']) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(first) = assigned.strip_prefix('\'') else { return wrong("value must be enclosed in single quotes") };
        let (mut value, mut rest) = (String::new(), first);
        let after = loop {
            if let Some((end, after)) = rest.split_once('\'') {
                value.push_str(end);
                break after;
            }
            value.push_str(rest);
            value.push('\n');
            let Some((_, next)) = lines.next() else {
                let start = number + 1;
                return Err(format!(
                    "invalid environment variable format starting at line {start}: unclosed single quote"
                ));
            };
            rest = next;
        };
        let after = after.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with('#') {
            return wrong("unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(value).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #[test]
    fn values_are_quoted() {
        let text = "# note\n\n  A='1'\nB='two\nlines' # why\nC= 'x'\nD=''\nA='again'\n";
        for (key, expected) in [("A", Some("1")), ("B", Some("two\nlines")), ("C", None), ("D", None), ("E", None)] {
            assert_eq!(super::value(text, key), Ok(expected.map(str::to_owned)), "{key}");
        }
        for (text, error) in [
            ("A", "at line 1: missing '='"),
            ("\n='x'", "at line 2: empty variable name"),
            ("A ='x'", "at line 1: whitespace before '=' is not allowed"),
            ("A=x", "at line 1: value must be enclosed in single quotes"),
            ("A='x'y", "at line 1: unexpected content after closing quote"),
            ("A='x\ny", "starting at line 1: unclosed single quote"),
        ] {
            assert_eq!(super::value(text, "K"), Err(format!("invalid environment variable format {error}")), "{text}");
        }
    }
}
