//! String formats a schema may ask for (kube-openapi/pkg/validation/strfmt over govalidator). Formats nobody knows are not checked.
use super::Patterns;
use crate::validate;

/// Formats that are regular expressions. Dashes in a format's name do not count.
const PATTERNS: [(&str, &str); 14] = [
    ("bsonobjectid", "^[0-9a-fA-F]{24}$"),
    ("uuid", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    ("uuid3", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    ("uuid4", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ("uuid5", "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ("ssn", r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
    ("hexcolor", "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
    (
        "rgbcolor",
        r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*(,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*){2}\)$",
    ),
    ("byte", "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"),
    ("email", r#"^(.*<)?[^\s@<>()",;:\[\]\\]+@([^\s@<>()",;:\[\]\\]+|\[[0-9.:a-fA-F]+\])>?$"#),
    (
        "hostname",
        "^([a-zA-Z0-9](-?[a-zA-Z0-9]{0,62})?|([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?[.])+[a-zA-Z]{2,63})$",
    ),
    (
        "mac",
        "^(([0-9a-fA-F]{2}([:-])){5}[0-9a-fA-F]{2}|([0-9a-fA-F]{2}[:-]){7}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}[.]){2,3}[0-9a-fA-F]{4})$",
    ),
    (
        "duration",
        r"(?i)^[-+]?(0|(\d+([.]\d*)?|[.]\d+)\s*(ns|us|µs|μs|ms|s|m|h|d|w|nano|micro|milli|sec|min|hr|hour|day|wk|week)[a-z]*[\s,]*)+$",
    ),
    ("datetime", r"(?i)^\d{4}-\d\d-\d\dt([01]\d|2[0-3]):[0-5]\d:[0-5]\d(.\d+)?(z|[+-]\d\d:\d\d)$"),
];

const OTHERS: [&str; 12] = [
    "uri",
    "ipv4",
    "ipv6",
    "cidr",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "password",
    "date",
    "k8sshortname",
    "k8slongname",
];

fn normal(format: &str) -> String {
    format.replace('-', "")
}

/// Whether a value of this type is checked against this format (StripUnsupportedFormatsPostProcessorForVersion).
pub(super) fn is_known(type_name: &str, format: &str) -> bool {
    match type_name {
        "" | "string" => {
            let format = normal(format);
            PATTERNS.iter().any(|(name, _)| *name == format) || OTHERS.contains(&&*format)
        }
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

pub(super) fn fits(patterns: &Patterns, format: &str, text: &str) -> bool {
    let format = normal(format);
    if let Some((_, pattern)) = PATTERNS.iter().find(|(name, _)| *name == format) {
        let matches = patterns.get(pattern).is_none_or(|regex| regex.is_match(text));
        return matches && (format != "datetime" || is_date(text.get(..10).unwrap_or("")));
    }
    match format.as_str() {
        "uri" => is_request_uri(text),
        "ipv4" => text.contains('.') && validate::is_ip(text),
        "ipv6" => text.contains(':') && text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => validate::is_cidr(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "date" => is_date(text),
        "k8sshortname" => validate::dns1123_label(text).is_empty(),
        "k8slongname" => validate::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// url.ParseRequestURI: an absolute path, or a scheme and anything that may follow one.
fn is_request_uri(text: &str) -> bool {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) || !escapes_are_whole(text) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let Some(rest) = rest.strip_prefix("//") else { return named };
    let host = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let port = match host.rsplit_once(':') {
        Some((_, port)) if !port.contains(']') => port,
        _ => "",
    };
    named
        && !host.contains([' ', '<', '>', '"', '\\', '^', '`', '{', '|', '}'])
        && port.bytes().all(|b| b.is_ascii_digit())
}

fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    })
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = digits(text);
    let value = |(at, b): (usize, u8)| match b {
        b'0'..=b'9' => Some(u32::from(b - b'0')),
        b'X' if at == 9 => Some(10),
        _ => None,
    };
    let values: Option<Vec<u32>> = text.bytes().enumerate().map(value).collect();
    values.is_some_and(|v| v.len() == 10 && v.iter().zip(1..).map(|(v, at)| v * at).sum::<u32>() % 11 == 0)
}

fn is_isbn13(text: &str) -> bool {
    let text = digits(text);
    let all = text.len() == 13 && text.bytes().all(|b| b.is_ascii_digit());
    all && text.bytes().enumerate().map(|(at, b)| u32::from(b - b'0') * if at % 2 == 0 { 1 } else { 3 }).sum::<u32>()
        % 10
        == 0
}

/// Digits in a length that cards have, with Luhn's check digit.
fn is_credit_card(text: &str) -> bool {
    let text: String = text.chars().filter(char::is_ascii_digit).collect();
    let sum: u32 = text
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, b)| {
            let digit = u32::from(b - b'0');
            match at % 2 {
                0 => digit,
                _ => digit * 2 / 10 + digit * 2 % 10,
            }
        })
        .sum();
    (13..=16).contains(&text.len()) && text.starts_with(['2', '3', '4', '5', '6', '1']) && sum.is_multiple_of(10)
}
