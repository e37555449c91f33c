//! Formats of names and values: each check returns what is wrong, in the words clients know
//! (apimachinery/pkg/util/validation and pkg/api/validate/content). An empty list means valid.
//!
//! Which field has which format is not here.
mod address;

pub use address::{cidr, cidr_legacy, cidr_warnings, ip, ip_legacy, ip_warning};
pub(crate) use address::{is_cidr, is_ip};

pub const DNS1123_LABEL_MAX: usize = 63;
pub const DNS1123_SUBDOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1123_SUBDOMAIN_UNDERSCORE: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// "{what} (e.g. 'a',  or 'b', regex used for validation is '{regex}')": the odd commas are upstream's.
fn regex_error(what: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    let open = if examples.is_empty() { "(" } else { "(e.g. " };
    format!("{what} {open}{}regex used for validation is '{regex}')", examples.join(" or "))
}

fn too_long(value: &str, max: usize, unit: &str) -> Option<String> {
    (value.len() > max).then(|| format!("must be no more than {max} {unit}"))
}

fn list(messages: impl IntoIterator<Item = Option<String>>) -> Vec<String> {
    messages.into_iter().flatten().collect()
}

/// Not empty, of `inner` bytes only, with `edge` bytes at both ends.
fn is_bounded(value: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    edge(first) && edge(last) && bytes.iter().all(|&b| inner(b))
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_dns1123_label(value: &str) -> bool {
    is_bounded(value, lower, |b| lower(b) || b == b'-')
}

fn is_dns1123_subdomain(value: &str) -> bool {
    value.split('.').all(is_dns1123_label)
}

/// Names of Namespaces, containers, volumes.
pub fn dns1123_label(value: &str) -> Vec<String> {
    let form = if is_dns1123_label(value) {
        None
    } else if is_dns1123_subdomain(value) {
        Some("must not contain dots".into())
    } else {
        Some(regex_error(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            DNS1123_LABEL,
            &["my-name", "123-abc"],
        ))
    };
    list([too_long(value, DNS1123_LABEL_MAX, "characters"), form])
}

/// Names of most objects.
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    subdomain(value, "characters")
}

/// The same with underscores among the letters: search paths of resolvers.
pub fn dns1123_subdomain_underscore(value: &str) -> Vec<String> {
    let bounded = |label: &str| is_bounded(label, lower, |b| lower(b) || b == b'-' || b == b'_');
    let valid = value.split('.').all(|label| bounded(label.strip_prefix('_').unwrap_or(label)));
    let form = (!valid).then(|| {
        regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN_UNDERSCORE,
            &["example.com"],
        )
    });
    list([too_long(value, DNS1123_SUBDOMAIN_MAX, "characters"), form])
}

fn subdomain(value: &str, unit: &str) -> Vec<String> {
    let form = (!is_dns1123_subdomain(value)).then(|| {
        regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        )
    });
    list([too_long(value, DNS1123_SUBDOMAIN_MAX, unit), form])
}

/// "*.example.com"
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let form = (!value.strip_prefix("*.").is_some_and(is_dns1123_subdomain)).then(|| {
        regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        )
    });
    list([too_long(value, DNS1123_SUBDOMAIN_MAX, "characters"), form])
}

/// Names of Services.
pub fn dns1035_label(value: &str) -> Vec<String> {
    let valid = is_dns1123_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase());
    let form = (!valid).then(|| {
        regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        )
    });
    list([too_long(value, DNS1123_LABEL_MAX, "characters"), form])
}

/// What a generateName is checked as: something will follow its last dash.
pub fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        // Upstream drops the character before the dash as well.
        Some(rest) if !rest.is_empty() => {
            let mut chars = rest.chars();
            chars.next_back();
            format!("{}a", chars.as_str())
        }
        _ => prefix.into(),
    }
}

fn is_label_text(value: &str) -> bool {
    is_bounded(value, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

const LABEL_KEY_RULE: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_KEY_EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];

/// Label and annotation keys, resource names, taint keys: "[prefix/]name".
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".into());
            }
            let checked = if prefix.is_empty() { Vec::new() } else { subdomain(prefix, "bytes") };
            errors.extend(checked.into_iter().map(|message| format!("prefix part {message}")));
            name
        }
        _ => {
            let form = regex_error(LABEL_KEY_RULE, LABEL_KEY, &LABEL_KEY_EXAMPLES);
            return vec![format!(
                "a valid label key {form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".into());
    }
    errors.extend(too_long(name, LABEL_MAX, "bytes").map(|message| format!("name part {message}")));
    if !is_label_text(name) {
        errors.push(format!("name part {}", regex_error(LABEL_KEY_RULE, LABEL_KEY, &LABEL_KEY_EXAMPLES)));
    }
    errors
}

pub fn label_value(value: &str) -> Vec<String> {
    let form = (!value.is_empty() && !is_label_text(value)).then(|| {
        regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({LABEL_KEY})?"),
            &["MyValue", "my_value", "12345"],
        )
    });
    list([too_long(value, LABEL_MAX, "bytes"), form])
}

/// Environment variable names: since 1.34 any printable ASCII but "=".
pub fn env_var_name(value: &str) -> Vec<String> {
    let empty = value.is_empty().then(|| "environment variable name must be non-empty".into());
    let form = (!value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'=')).then(|| {
        "a valid environment variable name must consist only of printable ASCII characters other than '='".into()
    });
    list([empty, form])
}

/// "my_name", as in prefixes of envFrom before they were relaxed.
pub fn c_identifier(value: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = value.bytes().all(word) && value.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    let form = (!valid).then(|| {
        regex_error(
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
            "[A-Za-z_][A-Za-z0-9_]*",
            &["my_name", "MY_NAME", "MyName"],
        )
    });
    list([form])
}

/// Keys of ConfigMaps and Secrets.
pub fn config_map_key(value: &str) -> Vec<String> {
    let valid = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let form = (!valid).then(|| {
        regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        )
    });
    let dots = match value {
        "." => Some("must not be '.'".into()),
        ".." => Some("must not be '..'".into()),
        _ if value.starts_with("..") => Some("must not start with '..'".into()),
        _ => None,
    };
    list([too_long(value, DNS1123_SUBDOMAIN_MAX, "characters"), form, dots])
}

pub fn in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    list([(!(min..=max).contains(&value)).then(|| format!("must be between {min} and {max}, inclusive"))])
}

pub fn port_number(value: i64) -> Vec<String> {
    in_range(value, 1, 65535)
}

pub fn user_id(value: i64) -> Vec<String> {
    in_range(value, 0, i32::MAX.into())
}

pub fn group_id(value: i64) -> Vec<String> {
    user_id(value)
}

pub fn non_negative(value: i64) -> Vec<String> {
    list([(value < 0).then(|| "must be greater than or equal to 0".into())])
}

/// An IANA service name, in lower case.
pub fn port_name(value: &str) -> Vec<String> {
    let charset = !value.is_empty() && value.bytes().all(|b| lower(b) || b == b'-');
    list([
        too_long(value, 15, "characters"),
        (!charset).then(|| "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into()),
        (!value.bytes().any(|b| b.is_ascii_lowercase())).then(|| "must contain at least one letter (a-z)".into()),
        value.contains("--").then(|| "must not contain consecutive hyphens".into()),
        (value.starts_with('-') || value.ends_with('-')).then(|| "must not begin or end with a hyphen".into()),
    ])
}

/// "50%"
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    let form = (digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit())).then(|| {
        regex_error(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )
    });
    list([form])
}

pub fn http_header_name(value: &str) -> Vec<String> {
    let valid = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let form = (!valid).then(|| {
        regex_error(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )
    });
    list([form])
}

/// Names that only have to be one segment of a URL (RBAC objects).
pub fn path_segment_name(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    path_segment_prefix(value)
}

pub fn path_segment_prefix(value: &str) -> Vec<String> {
    list(["/", "%"].map(|part| value.contains(part).then(|| format!("may not contain '{part}'"))))
}

/// A path inside a volume or an image: relative, and never up.
pub fn local_descending_path(value: &str) -> Vec<String> {
    let absolute = value.starts_with('/').then(|| "must be a relative path".into());
    let mut errors = list([absolute]);
    errors.extend(path_no_backsteps(value));
    errors
}

pub fn path_no_backsteps(value: &str) -> Vec<String> {
    list([value.split('/').any(|part| part == "..").then(|| "must not contain '..'".into())])
}

pub fn absolute_path(value: &str) -> Vec<String> {
    list([(!value.starts_with('/')).then(|| "must be an absolute path".into())])
}

#[cfg(test)]
mod tests;
