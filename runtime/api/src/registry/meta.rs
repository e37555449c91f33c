//! Object metadata that the server itself writes: names, uids, times, generations.
use jiff::Timestamp;
use mote_schema::Status;
use mote_schema::{Map, Value};

/// What upstream's `names.SimpleNameGenerator` draws from (no vowels, nothing that looks alike).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const MAX_GENERATED_LENGTH: usize = 63;

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            // Interrupted; the kernel gives as much as asked otherwise.
            Err(_) => continue,
        }
    }
    bytes
}

/// A version 4 UUID.
pub(crate) fn new_uid() -> String {
    let mut b: [u8; 16] = random();
    b[6] = b[6] & 0x0f | 0x40;
    b[8] = b[8] & 0x3f | 0x80;
    let hex = |part: &[u8]| part.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [hex(&b[..4]), hex(&b[4..6]), hex(&b[6..8]), hex(&b[8..10]), hex(&b[10..])].join("-")
}

pub(crate) fn generate_name(base: &str) -> String {
    let mut cut = base.len().min(MAX_GENERATED_LENGTH - SUFFIX_LENGTH);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    let suffix = random::<SUFFIX_LENGTH>().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
    let mut name = base[..cut].to_owned();
    name.extend(suffix);
    name
}

pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// metav1.Time: RFC 3339 in UTC, whole seconds.
pub(crate) fn format_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The object's `metadata`, made when absent.
pub(crate) fn metadata(value: &mut Value) -> Result<&mut Map, Status> {
    let root = value.as_object_mut().ok_or_else(|| Status::bad_request("the object is not a JSON object"))?;
    let metadata = root.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    metadata.as_object_mut().ok_or_else(|| Status::bad_request("metadata is not a JSON object"))
}

pub(crate) fn text<'a>(metadata: &'a Map, field: &str) -> &'a str {
    metadata.get(field).and_then(Value::as_str).unwrap_or("")
}

/// rest.EnsureObjectNamespaceMatchesRequestNamespace
pub(crate) fn settle_namespace(metadata: &mut Map, namespaced: bool, namespace: &str) -> Result<(), Status> {
    if !namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    match text(metadata, "namespace") {
        given if given == namespace => Ok(()),
        "" => {
            metadata.insert("namespace".into(), Value::from(namespace));
            Ok(())
        }
        _ => Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// One entry for what is twice in ownerReferences; the warning says whose (endpoints/handlers/rest.go, dedupOwnerReferences).
pub(crate) fn dedup_owners(metadata: &mut Map, after_admission: bool) -> Option<String> {
    let list = metadata.get_mut("ownerReferences")?.as_array_mut()?;
    let mut twice = Vec::new();
    let mut kept: Vec<Value> = Vec::with_capacity(list.len());
    for reference in std::mem::take(list) {
        if kept.contains(&reference) {
            twice.push(reference["uid"].as_str().unwrap_or("").to_owned());
        } else {
            kept.push(reference);
        }
    }
    *list = kept;
    let when = if after_admission { " after mutating admission happens" } else { "" };
    (!twice.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            twice.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_and_differ() {
        let long = "x".repeat(80);
        for base in ["web-", &long] {
            let (one, two) = (generate_name(base), generate_name(base));
            assert!(one.len() <= MAX_GENERATED_LENGTH && one != two, "{one} {two}");
            assert!(one.starts_with(&base[..base.len().min(58)]));
        }
    }

    #[test]
    fn uids_are_version_4() {
        let uid = new_uid();
        assert_eq!((uid.len(), &uid[14..15]), (36, "4"));
        assert!(matches!(&uid[19..20], "8" | "9" | "a" | "b"));
    }
}
