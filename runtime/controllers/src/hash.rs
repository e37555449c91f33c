//! Template hashes that end in object names: FNV-1a over canonical bytes, spelled in upstream's alphabet.
//!
//! Upstream hashes a dump of the Go struct, which nothing but Go reproduces; what callers rely on is that the same
//! template gives the same text, that a collision count changes it, and that the text is safe in a name.
use mote_schema::Value;

/// No vowels and no look-alikes, so that no hash reads as a word (apimachinery's util/rand).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Each character of `text` replaced by one of the safe alphabet.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// `value` hashed with its members in order of name, whatever order they were stored in.
pub fn of(value: &Value, collision_count: Option<i64>) -> String {
    let mut bytes = Vec::new();
    canonical(value, &mut bytes);
    if let Some(count) = collision_count {
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    safe_encode(&fnv32a(&bytes).to_string())
}

fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            out.push(b'{');
            // Members are sorted.
            for (name, member) in members {
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
                canonical(member, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::String(text) => {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        }
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn known_values() {
        assert_eq!(fnv32a(b""), 0x811c_9dc5);
        assert_eq!(fnv32a(b"foobar"), 0xbf9c_f968);
        assert_eq!(safe_encode("1234567890").len(), 10);
    }

    #[test]
    fn stable_and_sensitive() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":[true,"x"]}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":[true,"x"],"a":1}"#).unwrap();
        assert_eq!(of(&a, None), of(&b, None));
        assert_ne!(of(&a, None), of(&a, Some(1)));
        assert_ne!(of(&a, None), of(&json!({"a": 1, "b": [true, "y"]}), None));
    }
}
