//! Quantities, semantic versions, named formats and the authorizer: Kubernetes' quantity, semver, format and authz
//! libraries.
use super::{Context, Function, Outcome, wrong};
use crate::{
    Error,
    auth::{Question, ResourceCheck, Subject},
    opaque::{Opaque, Semver},
    time,
    value::Value,
};
use mote_schema::{
    quantity::{Format, Quantity},
    validate,
};
use std::cmp::Ordering;

pub const FUNCTIONS: &[Function] = &[
    Function { name: "quantity", signatures: "s:Q", run: quantity },
    Function { name: "isQuantity", signatures: "s:b", run: is_quantity },
    Function { name: "sign", signatures: "Q:i", run: |_, args| of_quantity(args, |q| Value::Int(sign(q))) },
    Function {
        name: "isInteger",
        signatures: ".Q:b",
        run: |_, args| of_quantity(args, |q| Value::Bool(whole(q).is_some())),
    },
    Function { name: "asInteger", signatures: ".Q:i", run: as_integer },
    Function {
        name: "asApproximateFloat",
        signatures: ".Q:d",
        run: |_, args| of_quantity(args, |q| Value::Double(q.approximate())),
    },
    Function { name: "add", signatures: ".QQ:Q .Qi:Q", run: |_, args| combine(args, |a, b| a + b) },
    Function { name: "sub", signatures: ".QQ:Q .Qi:Q", run: |_, args| combine(args, |a, b| a - b) },
    Function { name: "isGreaterThan", signatures: ".QQ:b .VV:b", run: |_, args| Ok(Value::Bool(order(args)?.is_gt())) },
    Function { name: "isLessThan", signatures: ".QQ:b .VV:b", run: |_, args| Ok(Value::Bool(order(args)?.is_lt())) },
    Function { name: "compareTo", signatures: ".QQ:i .VV:i", run: |_, args| Ok(Value::Int(order(args)? as i64)) },
    Function { name: "semver", signatures: "s:V sb:V", run: semver },
    Function { name: "isSemver", signatures: "s:b sb:b", run: is_semver },
    Function { name: "major", signatures: ".V:i", run: |_, args| semver_part(args, 0) },
    Function { name: "minor", signatures: ".V:i", run: |_, args| semver_part(args, 1) },
    Function { name: "patch", signatures: ".V:i", run: |_, args| semver_part(args, 2) },
    Function { name: "format.named", signatures: "s:OF", run: named_format },
    Function { name: "format.dns1123Label", signatures: ":F", run: |_, _| constant("dns1123Label") },
    Function { name: "format.dns1123Subdomain", signatures: ":F", run: |_, _| constant("dns1123Subdomain") },
    Function { name: "format.dns1035Label", signatures: ":F", run: |_, _| constant("dns1035Label") },
    Function { name: "format.qualifiedName", signatures: ":F", run: |_, _| constant("qualifiedName") },
    Function { name: "format.dns1123LabelPrefix", signatures: ":F", run: |_, _| constant("dns1123LabelPrefix") },
    Function {
        name: "format.dns1123SubdomainPrefix",
        signatures: ":F",
        run: |_, _| constant("dns1123SubdomainPrefix"),
    },
    Function { name: "format.dns1035LabelPrefix", signatures: ":F", run: |_, _| constant("dns1035LabelPrefix") },
    Function { name: "format.labelValue", signatures: ":F", run: |_, _| constant("labelValue") },
    Function { name: "format.uri", signatures: ":F", run: |_, _| constant("uri") },
    Function { name: "format.uuid", signatures: ":F", run: |_, _| constant("uuid") },
    Function { name: "format.byte", signatures: ":F", run: |_, _| constant("byte") },
    Function { name: "format.date", signatures: ":F", run: |_, _| constant("date") },
    Function { name: "format.datetime", signatures: ":F", run: |_, _| constant("datetime") },
    Function { name: "validate", signatures: ".Fs:OLs", run: validate_format },
    Function { name: "path", signatures: ".Zs:P", run: path },
    Function { name: "group", signatures: ".Zs:G", run: group },
    Function { name: "serviceAccount", signatures: ".Zss:Z", run: service_account },
    Function { name: "resource", signatures: ".Gs:K", run: resource },
    Function {
        name: "subresource",
        signatures: ".Ks:K",
        run: |_, args| with(args, |check, text| check.subresource = text),
    },
    Function {
        name: "namespace",
        signatures: ".Ks:K",
        run: |_, args| with(args, |check, text| check.namespace = text),
    },
    Function { name: "name", signatures: ".Ks:K", run: |_, args| with(args, |check, text| check.name = text) },
    Function {
        name: "fieldSelector",
        signatures: ".Ks:K",
        run: |_, args| with(args, |check, text| check.field_selector = text),
    },
    Function {
        name: "labelSelector",
        signatures: ".Ks:K",
        run: |_, args| with(args, |check, text| check.label_selector = text),
    },
    Function { name: "check", signatures: ".Ps:E .Ks:E", run: check },
    Function { name: "allowed", signatures: ".E:b", run: allowed },
    Function { name: "errored", signatures: ".E:b", run: errored },
    Function { name: "reason", signatures: ".E:s", run: reason },
    Function { name: "error", signatures: ".E:s", run: error },
];

fn opaque<'v, 'a>(args: &'v [Value<'a>], at: usize) -> Option<&'v Opaque<'a>> {
    match args.get(at) {
        Some(Value::Opaque(opaque)) => Some(opaque),
        _ => None,
    }
}

fn quantity<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return wrong() };
    let quantity = Quantity::parse(text).map_err(|error| Error::new(error.to_string()))?;
    Ok(Value::opaque(Opaque::Quantity(quantity)))
}

fn is_quantity<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return wrong() };
    Ok(Value::Bool(Quantity::parse(text).is_ok()))
}

fn of_quantity<'a>(args: &[Value<'a>], part: fn(Quantity) -> Value<'a>) -> Outcome<'a> {
    match opaque(args, 0) {
        Some(Opaque::Quantity(quantity)) => Ok(part(*quantity)),
        _ => wrong(),
    }
}

fn sign(quantity: Quantity) -> i64 {
    match (quantity.is_zero(), quantity.is_negative()) {
        (true, _) => 0,
        (_, true) => -1,
        _ => 1,
    }
}

fn whole(quantity: Quantity) -> Option<i64> {
    let value = quantity.value();
    (Quantity::new(value, Format::DecimalSi) == quantity).then_some(value)
}

fn as_integer<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match opaque(args, 0) {
        Some(Opaque::Quantity(quantity)) => {
            whole(*quantity).map(Value::Int).ok_or_else(|| Error::new("cannot convert value to integer"))
        }
        _ => wrong(),
    }
}

fn combine<'a>(args: &[Value<'a>], combine: fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    let Some(Opaque::Quantity(a)) = opaque(args, 0) else { return wrong() };
    let b = match (args.get(1), opaque(args, 1)) {
        (Some(Value::Int(int)), _) => Quantity::new(*int, Format::DecimalSi),
        (_, Some(Opaque::Quantity(b))) => *b,
        _ => return wrong(),
    };
    Ok(Value::opaque(Opaque::Quantity(combine(*a, b))))
}

fn order(args: &[Value<'_>]) -> Result<Ordering, Error> {
    match (opaque(args, 0), opaque(args, 1)) {
        (Some(Opaque::Quantity(a)), Some(Opaque::Quantity(b))) => Ok(a.cmp(b)),
        (Some(Opaque::Semver(a)), Some(Opaque::Semver(b))) => Ok(a.order(b)),
        _ => Err(Error::no_overload()),
    }
}

fn read_semver(args: &[Value<'_>]) -> Option<Result<Semver, &'static str>> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => Some(parse_semver(text)),
        [Value::String(text), Value::Bool(true)] => Some(normalize_semver(text).and_then(|text| parse_semver(&text))),
        _ => None,
    }
}

fn semver<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Some(read) = read_semver(args) else { return wrong() };
    read.map(|semver| Value::opaque(Opaque::Semver(semver))).map_err(Error::new)
}

fn is_semver<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Some(read) = read_semver(args) else { return wrong() };
    Ok(Value::Bool(read.is_ok()))
}

fn parse_semver(text: &str) -> Result<Semver, &'static str> {
    if text.is_empty() {
        return Err("Version string empty");
    }
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(numbers, pre)| (numbers, Some(pre)));
    if numbers.split('.').count() != 3 && text.splitn(3, '.').count() < 3 {
        return Err("No Major.Minor.Patch elements found");
    }
    let mut found = [0; 3];
    let mut parts = numbers.splitn(3, '.');
    for number in &mut found {
        let part = parts.next().ok_or("No Major.Minor.Patch elements found")?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err("Invalid character(s) found in version number");
        }
        if part.len() > 1 && part.starts_with('0') {
            return Err("Version number must not contain leading zeroes");
        }
        *number = part.parse().map_err(|_| "version number is out of range")?;
    }
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let mut identifiers: Vec<Box<str>> = Vec::new();
    for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
        if !word(part) {
            return Err("Invalid character(s) found in prerelease");
        }
        if part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit()) {
            return Err("Numeric PreRelease version must not contain leading zeroes");
        }
        identifiers.push(part.into());
    }
    if build.is_some_and(|build| !build.split('.').all(word)) {
        return Err("Invalid character(s) found in build meta data");
    }
    Ok(Semver { numbers: found, pre: identifiers, build: build.unwrap_or("").into() })
}

/// "v1" means 1.0.0, and leading zeros are let pass.
fn normalize_semver(text: &str) -> Result<String, &'static str> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| match part.trim_start_matches('0') {
            _ if part.len() <= 1 => part.to_owned(),
            rest if rest.starts_with(|c: char| c.is_ascii_digit()) => rest.to_owned(),
            rest => format!("0{rest}"),
        })
        .collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data");
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}

fn semver_part<'a>(args: &[Value<'a>], part: usize) -> Outcome<'a> {
    match opaque(args, 0) {
        Some(Opaque::Semver(semver)) => Ok(Value::Int(semver.numbers.get(part).copied().unwrap_or(0) as i64)),
        _ => wrong(),
    }
}

const FORMATS: [&str; 13] = [
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

/// How long the pattern behind a named format is, for its cost.
pub fn format_pattern_size(name: &str) -> u64 {
    match name {
        "dns1123Label" | "dns1035Label" | "dns1123LabelPrefix" | "dns1035LabelPrefix" => 30,
        "labelValue" => 40,
        "uri" => 1104,
        "uuid" => 72,
        "byte" => 84,
        "date" | "datetime" => 72,
        _ => 60,
    }
}

fn constant<'a>(name: &'static str) -> Outcome<'a> {
    Ok(Value::opaque(Opaque::Format(name)))
}

fn named_format<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(text)] = args else { return wrong() };
    let found = FORMATS.iter().find(|name| **name == &**text);
    Ok(found.map_or(Value::Optional(None), |name| Value::some(Value::opaque(Opaque::Format(name)))))
}

fn validate_format<'a>(context: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (Some(Opaque::Format(name)), Some(Value::String(text))) = (opaque(args, 0), args.get(1)) else {
        return wrong();
    };
    context.budget.text_work(text.len())?;
    let prefix = || validate::mask_trailing_dash(text);
    let one = |valid: bool, complaint: &str| if valid { Vec::new() } else { vec![complaint.to_owned()] };
    let complaints = match *name {
        "dns1123Label" => validate::dns1123_label(text),
        "dns1123LabelPrefix" => validate::dns1123_label(&prefix()),
        "dns1123Subdomain" => validate::dns1123_subdomain(text),
        "dns1123SubdomainPrefix" => validate::dns1123_subdomain(&prefix()),
        "dns1035Label" => validate::dns1035_label(text),
        "dns1035LabelPrefix" => validate::dns1035_label(&prefix()),
        "qualifiedName" => validate::qualified_name(text),
        "labelValue" => validate::label_value(text),
        "uri" => super::net::complaint_of_uri(text).into_iter().collect(),
        "uuid" => one(is_uuid(text), "does not match the UUID format"),
        "byte" => one(!text.is_empty() && super::strings::decode_base64(text).is_ok(), "invalid base64"),
        "date" => one(text.len() == 10 && time::parse_format_time(text).is_some(), "invalid date"),
        _ => one(time::parse_time(text).is_some(), "invalid datetime"),
    };
    if complaints.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::some(Value::list(complaints.into_iter().map(Value::string).collect())))
}

fn is_uuid(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let dashes = text.match_indices('-').all(|(at, _)| [8, 13, 18, 23].contains(&at) || text.len() < 36);
    digits.len() == 32 && dashes && digits.iter().all(u8::is_ascii_hexdigit)
}

fn text<'v>(args: &'v [Value<'_>], at: usize) -> Option<&'v str> {
    args.get(at).and_then(Value::as_str)
}

fn path<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (Some(Opaque::Authorizer(authorizer, account)), Some(path)) = (opaque(args, 0), text(args, 1)) else {
        return wrong();
    };
    if path.trim().is_empty() {
        return Err(Error::new("path must not be empty"));
    }
    Ok(Value::opaque(Opaque::PathCheck(authorizer.clone(), account.clone(), path.into())))
}

fn group<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (Some(Opaque::Authorizer(authorizer, account)), Some(group)) = (opaque(args, 0), text(args, 1)) else {
        return wrong();
    };
    Ok(Value::opaque(Opaque::GroupCheck(authorizer.clone(), account.clone(), group.into())))
}

fn service_account<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (Some(Opaque::Authorizer(authorizer, _)), Some(namespace), Some(name)) =
        (opaque(args, 0), text(args, 1), text(args, 2))
    else {
        return wrong();
    };
    if !validate::dns1123_subdomain(name).is_empty() {
        return Err(Error::new("Invalid service account name"));
    }
    if !validate::dns1123_label(namespace).is_empty() {
        return Err(Error::new("Invalid service account namespace"));
    }
    let account = format!("{namespace}:{name}");
    Ok(Value::opaque(Opaque::Authorizer(authorizer.clone(), Some(account.into()))))
}

fn resource<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let (Some(Opaque::GroupCheck(authorizer, account, group)), Some(resource)) = (opaque(args, 0), text(args, 1))
    else {
        return wrong();
    };
    if resource.trim().is_empty() {
        return Err(Error::new("resource must not be empty"));
    }
    let check = ResourceCheck {
        service_account: account.as_deref().map(str::to_owned),
        group: group.to_string(),
        resource: resource.into(),
        ..ResourceCheck::default()
    };
    Ok(Value::opaque(Opaque::ResourceCheck(authorizer.clone(), Box::new(check))))
}

fn with<'a>(args: &[Value<'a>], change: fn(&mut ResourceCheck, String)) -> Outcome<'a> {
    let (Some(Opaque::ResourceCheck(authorizer, check)), Some(text)) = (opaque(args, 0), text(args, 1)) else {
        return wrong();
    };
    let mut check = check.clone();
    change(&mut check, text.to_owned());
    Ok(Value::opaque(Opaque::ResourceCheck(authorizer.clone(), check)))
}

fn check<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    let Some(verb) = text(args, 1) else { return wrong() };
    let decision = match opaque(args, 0) {
        Some(Opaque::PathCheck(authorizer, account, path)) => {
            authorizer.check(&Question { service_account: account.as_deref(), verb, subject: Subject::Path(path) })
        }
        Some(Opaque::ResourceCheck(authorizer, check)) => authorizer.check(&Question {
            service_account: check.service_account.as_deref(),
            verb,
            subject: Subject::Resource(check),
        }),
        _ => return wrong(),
    };
    Ok(Value::opaque(Opaque::Decision(decision)))
}

fn allowed<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match opaque(args, 0) {
        Some(Opaque::Decision(decision)) => Ok(Value::Bool(decision.allowed)),
        _ => wrong(),
    }
}

fn errored<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match opaque(args, 0) {
        Some(Opaque::Decision(decision)) => Ok(Value::Bool(decision.error.is_some())),
        _ => wrong(),
    }
}

fn reason<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match opaque(args, 0) {
        Some(Opaque::Decision(decision)) => Ok(Value::string(decision.reason.as_str())),
        _ => wrong(),
    }
}

fn error<'a>(_: &mut Context<'_>, args: &[Value<'a>]) -> Outcome<'a> {
    match opaque(args, 0) {
        Some(Opaque::Decision(decision)) => Ok(Value::string(decision.error.as_deref().unwrap_or(""))),
        _ => wrong(),
    }
}
