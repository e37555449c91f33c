//! ConfigMaps and Secrets: keys, sizes, what a Secret's type asks for, and what `immutable` freezes.
use super::at::{At, Errors};
use crate::Value;
use crate::validate as format;
use base64::{Engine, prelude::BASE64_STANDARD};

/// core.MaxSecretSize
const MAX_BYTES: usize = 1 << 20;
const FROZEN: &str = "field is immutable when `immutable` is set";

pub(super) fn config_map(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    frozen(new, old, &["data", "binaryData"], errors);
    let (data, binary) = (new.get("data"), new.get("binaryData"));
    let mut size = keys(&data, false, errors);
    for (key, _) in data.members().filter(|(k, _)| binary.value.get(k).is_some()) {
        errors.invalid_value(&data.key(key).path, &Value::from(key), "duplicate of key present in binaryData");
    }
    size += keys(&binary, true, errors);
    if size > MAX_BYTES {
        errors.0.push(crate::Cause::too_long("", MAX_BYTES));
    }
}

/// Checks the keys; how many bytes the values are.
fn keys(data: &At<'_>, base64: bool, errors: &mut Errors) -> usize {
    let mut size = 0;
    for (key, value) in data.members() {
        for message in format::config_map_key(key) {
            errors.invalid_value(&data.key(key).path, &Value::from(key), &message);
        }
        let text = value.as_str().unwrap_or("");
        size += if base64 { decoded_len(text) } else { text.len() };
    }
    size
}

fn decoded_len(base64: &str) -> usize {
    base64.len() / 4 * 3 - base64.bytes().rev().take_while(|b| *b == b'=').count().min(base64.len() / 4 * 3)
}

fn frozen(new: &At<'_>, old: Option<&At<'_>>, fields: &[&str], errors: &mut Errors) {
    let Some(old) = old.filter(|o| o.get("immutable").is_true()) else { return };
    if !new.get("immutable").is_true() {
        errors.forbidden(&new.get("immutable"), FROZEN);
    }
    for field in fields {
        if new.peek(field) != old.peek(field) {
            errors.forbidden(&new.get(field), FROZEN);
        }
    }
}

pub(super) fn secret(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    if let Some(old) = old {
        errors.immutable(&new.get("type"), &old.get("type"));
    }
    frozen(new, old, &["data"], errors);
    let data = new.get("data");
    if keys(&data, true, errors) > MAX_BYTES {
        errors.too_long(&data, MAX_BYTES);
    }
    let mut required = |key: &str| {
        let at = data.key(key);
        if !at.is_set() {
            errors.required(&at, "");
        }
        at
    };
    match new.get("type").str() {
        "kubernetes.io/tls" => {
            required("tls.crt");
            required("tls.key");
        }
        "kubernetes.io/ssh-auth" => {
            let at = required("ssh-privatekey");
            if at.is_set() && at.str().is_empty() {
                errors.required(&at, "");
            }
        }
        "kubernetes.io/basic-auth" => {
            let (user, password) = (data.key("username"), data.key("password"));
            if !user.is_set() && !password.is_set() {
                errors.required(&user, "");
                errors.required(&password, "");
            }
        }
        "kubernetes.io/dockercfg" => docker(&required(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => docker(&required(".dockerconfigjson"), errors),
        "kubernetes.io/service-account-token" => {
            let at = new.at("metadata.annotations").key("kubernetes.io/service-account.name");
            if at.str().is_empty() {
                errors.required(&at, "");
            }
        }
        _ => {}
    }
}

/// Credentials are never shown back.
fn docker(at: &At<'_>, errors: &mut Errors) {
    if !at.is_set() {
        return;
    }
    let bytes = BASE64_STANDARD.decode(at.str()).unwrap_or_default();
    let detail = match crate::prune::parse_json(&bytes) {
        Ok((Value::Object(_) | Value::Null, _)) => return,
        Ok((other, _)) => {
            let kind = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")
        }
        Err(detail) => detail,
    };
    errors.invalid_value(&at.path, &Value::from("<secret contents redacted>"), &detail);
}
