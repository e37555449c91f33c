//! Rules that are facts: which fields of an object are required, what form they have, what they may be. One word a rule, in
//! the order in which upstream looks; what a word cannot say is code in the file of its kind.
//!
//! | word | |
//! |---|---|
//! | `a.b!` | required: not absent, "", [] or {} |
//! | `a!form`, `a~form` | required and of this form; of this form when it is not empty |
//! | `a[]~form` | each element |
//! | `a=x\|y`, `a!=x\|y` | one of these when it is not empty; and required |
//! | `a?=x\|y`, `a==x\|y` | one of these when it is there, which "" is none of; also when it is not there |
//! | `a>0`, `a>=0` | positive, non-negative, when it is there |
//! | `a:1..255` | between, when it is there |
use super::at::{At, Errors};
use crate::validate as format;

pub(super) fn rules(at: &At<'_>, words: &str, errors: &mut Errors) {
    words.split(' ').for_each(|word| rule(at, word, errors));
}

fn rule(at: &At<'_>, word: &str, errors: &mut Errors) {
    let end = word.find(['!', '~', '=', '>', ':', '?']).unwrap_or(word.len());
    let (path, rule) = word.split_at(end);
    if let Some(path) = path.strip_suffix("[]") {
        for item in at.at(path).items() {
            form(&item, rule.trim_start_matches('~'), errors);
        }
        return;
    }
    let field = at.at(path);
    match rule.as_bytes() {
        [b'!', ..] if field.is_empty() && !field.value.is_number() => errors.required(&field, ""),
        [b'!', b'=', ..] => one_of(&field, &rule[2..], errors),
        [b'?', b'=', ..] if field.is_set() => one_of(&field, &rule[2..], errors),
        [b'=', b'=', ..] => one_of(&field, &rule[2..], errors),
        [b'=', ..] if !field.is_empty() => one_of(&field, &rule[1..], errors),
        [b'!' | b'~', ..] if !field.is_empty() => form(&field, &rule[1..], errors),
        b">0" if field.is_set() => errors.positive(&field),
        b">=0" => errors.non_negative(&field),
        [b':', ..] => {
            let bounds = rule[1..].split_once("..").and_then(|(a, b)| Some((a.parse::<i64>().ok()?, b.parse().ok()?)));
            if let (Some((low, high)), Some(number)) = (bounds, field.int())
                && !(low..=high).contains(&number)
            {
                errors.invalid(&field, &format!("must be between {low} and {high}, inclusive"));
            }
        }
        _ => {}
    }
}

fn one_of(at: &At<'_>, values: &str, errors: &mut Errors) {
    let values: Vec<&str> = values.split('|').collect();
    if !values.contains(&at.str()) {
        errors.unsupported(at, &values);
    }
}

fn form(at: &At<'_>, name: &str, errors: &mut Errors) {
    let text = at.str();
    let messages = match name {
        "label" => format::dns1123_label(text),
        "variable" => format::env_var_name(text),
        "subdomain" => format::dns1123_subdomain(text),
        "qualified" => format::qualified_name(text),
        "value" => format::label_value(text),
        "segment" => format::path_segment_name(text),
        "path" => format::path_no_backsteps(text),
        "driver" => return driver(at, errors),
        "domain-path" => return domain_prefixed_path(at, errors),
        "labels" => return super::meta::labels(at, errors),
        "selector" => return super::meta::label_selector(at, errors),
        _ => return,
    };
    errors.each(at, messages);
}

/// IsDomainPrefixedPath
pub(super) fn domain_prefixed_path(at: &At<'_>, errors: &mut Errors) {
    let Some((host, path)) = at.str().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        return errors.invalid(at, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    for message in format::dns1123_subdomain(host) {
        errors.invalid_value(&at.path, &host.into(), &message);
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let detail = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.invalid_value(&at.path, &path.into(), detail);
    }
}

/// ValidateCSIDriverName: a domain in any case, and short.
fn driver(at: &At<'_>, errors: &mut Errors) {
    short(at, 63, errors);
    errors.each(at, format::dns1123_subdomain(&at.str().to_lowercase()));
}

pub(super) fn short(at: &At<'_>, max_bytes: usize, errors: &mut Errors) {
    if at.str().len() > max_bytes {
        errors.too_long(at, max_bytes);
    }
}
