//! Kubernetes' protobuf (`application/vnd.kubernetes.protobuf`) into a tree, driven by the table's field numbers.
//! Typed clients, kubectl's `create deployment` among them, send it unasked.
//!
//! A body is four magic bytes and a `runtime.Unknown` message that names the kind and carries its message
//! (apimachinery/pkg/runtime/serializer/protobuf). Go writes every field that is no pointer, also when it is zero;
//! `prune::clean` takes those away, as it does for JSON. Bounded by the input: no length is believed beyond it.
use crate::{
    Catalog,
    table::{BUILTIN, Container, Field, Shape, Table, TypeId},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages; the deepest built-in type (JSONSchemaProps aside) needs about 20.
const MAX_DEPTH: usize = 64;
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The tree with apiVersion and kind, as the same object in JSON.
pub fn decode(catalog: &Catalog, body: &[u8]) -> Result<Value, String> {
    let raw = body
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let mut version = "";
    let mut kind = "";
    let mut message: &[u8] = &[];
    for field in Fields(raw) {
        match field? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => message = bytes,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(format!("content encoding {:?} is not supported", utf8(encoding)?));
            }
            _ => {}
        }
    }
    let (group, v) = version.rsplit_once('/').unwrap_or(("", version));
    let root = match catalog.by_kind(group, v, kind) {
        Some(found) => Some(found.root),
        None => BUILTIN.type_by_definition(&format!("{META}.{kind}")),
    };
    let root = root.ok_or_else(|| format!("no kind {kind:?} is registered for version {version:?}"))?;
    let mut object = read_message(BUILTIN, root, 0, message, 0)?;
    object.insert("apiVersion".into(), Value::from(version));
    object.insert("kind".into(), Value::from(kind));
    Ok(Value::Object(object))
}

enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Field numbers and values of a message, in the order they come.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u64, Wire<'a>), String> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.take(8)?.try_into().map_err(|_| truncated())?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| truncated())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((key >> 3, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or_else(truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }
}

fn truncated() -> String {
    "unexpected EOF".into()
}

fn utf8(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "proto: string field contains invalid UTF-8".into())
}

/// `inline` is the number of the embedded message that is being read, whose fields JSON shows in its parent.
fn read_message(
    table: &Table,
    id: TypeId,
    inline: u8,
    bytes: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    if depth > MAX_DEPTH {
        return Err(format!("messages are nested more than {MAX_DEPTH} deep"));
    }
    let fields = table.fields(id);
    for item in Fields(bytes) {
        let (number, wire) = item?;
        let own = fields.iter().find(|f| f.inline == inline && u64::from(f.number) == number && number != 0);
        if let Some(field) = own {
            read_field(table, field, wire, &mut object, depth)?;
            continue;
        }
        let embedded = fields.iter().find(|f| inline == 0 && f.inline != 0 && u64::from(f.inline) == number);
        if let (Some(field), Wire::Bytes(inner)) = (embedded, wire) {
            object.append(&mut read_message(table, id, field.inline, inner, depth + 1)?);
        }
    }
    Ok(object)
}

fn read_field(
    table: &Table,
    field: &Field,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    let name = table.name(field);
    match field.container {
        Container::One => {
            let value = read_value(table, field.shape, wire, depth)?;
            object.insert(name.into(), value);
        }
        Container::List => {
            let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Some(list) = list.as_array_mut() else { return Ok(()) };
            match (wire, field.shape) {
                // Packed numbers.
                (Wire::Bytes(packed), Shape::Int32 | Shape::Int64 | Shape::Bool) => {
                    let mut numbers = Fields(packed);
                    while !numbers.0.is_empty() {
                        let number = numbers.varint()?;
                        list.push(read_value(table, field.shape, Wire::Varint(number), depth)?);
                    }
                }
                (wire, shape) => list.push(read_value(table, shape, wire, depth)?),
            }
        }
        Container::Map | Container::MapOfLists => {
            let Wire::Bytes(entry) = wire else { return Err(mismatch(name)) };
            let (mut key, mut value) = ("", None);
            for item in Fields(entry) {
                match item? {
                    (1, Wire::Bytes(text)) => key = utf8(text)?,
                    (2, wire) if field.container == Container::Map => {
                        value = Some(read_value(table, field.shape, wire, depth)?)
                    }
                    // `message ExtraValue { repeated string items = 1; }`
                    (2, Wire::Bytes(items)) => {
                        let mut list = Vec::new();
                        for item in Fields(items) {
                            if let (1, wire) = item? {
                                list.push(read_value(table, field.shape, wire, depth)?);
                            }
                        }
                        value = Some(Value::Array(list));
                    }
                    _ => {}
                }
            }
            let value = match value {
                Some(value) => value,
                None if field.container == Container::MapOfLists => Value::Array(Vec::new()),
                None => read_value(table, field.shape, Wire::Bytes(&[]), depth)?,
            };
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Some(map) = map.as_object_mut() {
                map.insert(key.into(), value);
            }
        }
    }
    Ok(())
}

fn mismatch(what: &str) -> String {
    format!("proto: wrong wireType for field {what}")
}

fn read_value(table: &Table, shape: Shape, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match (shape, wire) {
        (Shape::Bool, Wire::Varint(number)) => Value::from(number != 0),
        // Negative numbers are sign-extended to 64 bits.
        (Shape::Int32, Wire::Varint(number)) => Value::from(number as i64 as i32),
        (Shape::Int64, Wire::Varint(number)) => Value::from(number as i64),
        (Shape::Double, Wire::Fixed64(bytes)) => Value::from(f64::from_le_bytes(bytes)),
        (Shape::String, Wire::Bytes(text)) => Value::from(utf8(text)?),
        (Shape::Bytes, Wire::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
        (Shape::Time | Shape::MicroTime, Wire::Bytes(message)) => read_time(shape, message)?,
        (Shape::Duration, Wire::Bytes(message)) => {
            let nanoseconds = number_at(message, 1)?.unwrap_or(0);
            Value::from(go_duration(nanoseconds))
        }
        (Shape::Quantity, Wire::Bytes(message)) => match bytes_at(message, 1)? {
            Some(text) => Value::from(utf8(text)?),
            None => Value::from("0"),
        },
        (Shape::IntOrString, Wire::Bytes(message)) => match number_at(message, 1)?.unwrap_or(0) {
            1 => Value::from(utf8(bytes_at(message, 3)?.unwrap_or_default())?),
            _ => Value::from(number_at(message, 2)?.unwrap_or(0) as i32),
        },
        // RawExtension, JSON and FieldsV1: `bytes raw = 1`, JSON text.
        (Shape::Any, Wire::Bytes(message)) => match bytes_at(message, 1)? {
            Some(raw) if !raw.is_empty() => serde_json::from_slice(raw).map_err(|error| error.to_string())?,
            _ => Value::Null,
        },
        (Shape::Object(id), Wire::Bytes(message)) => Value::Object(read_message(table, id, 0, message, depth + 1)?),
        // Zero values of map entries that were left out.
        (Shape::Bool, Wire::Bytes([])) => Value::from(false),
        (Shape::Int32 | Shape::Int64, Wire::Bytes([])) => Value::from(0),
        (shape, _) => return Err(mismatch(&format!("{shape:?}"))),
    })
}

fn bytes_at(message: &[u8], wanted: u64) -> Result<Option<&[u8]>, String> {
    let mut found = None;
    for item in Fields(message) {
        if let (number, Wire::Bytes(bytes)) = item?
            && number == wanted
        {
            found = Some(bytes);
        }
    }
    Ok(found)
}

fn number_at(message: &[u8], wanted: u64) -> Result<Option<i64>, String> {
    let mut found = None;
    for item in Fields(message) {
        if let (number, Wire::Varint(value)) = item?
            && number == wanted
        {
            found = Some(value as i64);
        }
    }
    Ok(found)
}

/// `{seconds = 1, nanos = 2}`; the empty message is Go's zero time, null in JSON.
fn read_time(shape: Shape, message: &[u8]) -> Result<Value, String> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = number_at(message, 1)?.unwrap_or(0);
    let nanoseconds = number_at(message, 2)?.and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    let at = Timestamp::new(seconds, nanoseconds).map_err(|error| format!("a time is out of range: {error}"))?;
    let format = if shape == Shape::Time { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
    Ok(Value::from(at.strftime(format).to_string()))
}

/// Go's `time.Duration.String` for whole seconds and parts of them.
fn go_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let (seconds, rest) = (all / 1_000_000_000, all % 1_000_000_000);
    if seconds == 0 {
        let (unit, size) = match rest {
            0 => return "0s".into(),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        return format!("{sign}{}{unit}", decimal(rest / size, rest % size, size));
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let last = format!("{}s", decimal(seconds % 60, rest, 1_000_000_000));
    match (hours, minutes) {
        (0, 0) => format!("{sign}{last}"),
        (0, m) => format!("{sign}{m}m{last}"),
        (h, m) => format!("{sign}{h}h{m}m{last}"),
    }
}

fn decimal(whole: u64, part: u64, of: u64) -> String {
    if part == 0 {
        return whole.to_string();
    }
    let digits = of.ilog10() as usize;
    let text = format!("{whole}.{part:0digits$}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A field with a length, a field with a number.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(content);
        out
    }

    fn body(version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, message)].concat()
    }

    #[test]
    fn a_pod_with_an_inlined_volume_source_a_probe_and_quantities() {
        let quantity = bytes(1, b"100m");
        let requests = bytes(2, &[bytes(1, b"cpu"), bytes(2, &quantity)].concat());
        let port = [vec![0x08, 0x01], bytes(3, b"http")].concat();
        let handler = bytes(1, &bytes(2, &[bytes(1, b"/ok"), bytes(2, &port)].concat()));
        let container = [bytes(1, b"web"), bytes(2, b"image"), bytes(8, &requests), bytes(10, &handler)].concat();
        let volume = [bytes(1, b"tmp"), bytes(2, &bytes(2, &bytes(1, b"Memory")))].concat();
        let spec = [bytes(1, &volume), bytes(2, &container)].concat();
        let labels = bytes(11, &[bytes(1, b"app"), bytes(2, b"web")].concat());
        let created = bytes(8, &[]);
        let metadata = [bytes(1, b"web"), created, labels].concat();
        let pod = body("v1", "Pod", &[bytes(1, &metadata), bytes(2, &spec)].concat());
        let decoded = decode(&Catalog::builtin(), &pod).expect("a pod");
        assert_eq!(
            decoded,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "web", "creationTimestamp": null, "labels": {"app": "web"}},
                "spec": {
                    "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
                    "containers": [{"name": "web", "image": "image", "resources": {"requests": {"cpu": "100m"}},
                        "livenessProbe": {"httpGet": {"path": "/ok", "port": "http"}}}],
                },
            })
        );
    }

    #[test]
    fn rubbish_is_an_error_and_never_a_panic() {
        let whole = body("v1", "Pod", &bytes(1, &bytes(1, b"web")));
        let catalog = Catalog::builtin();
        for cut in 0..whole.len() {
            let _ = decode(&catalog, &whole[..cut]);
            let mut flipped = whole.clone();
            flipped[cut] ^= 0xff;
            let _ = decode(&catalog, &flipped);
        }
        for (bad, expected) in [
            (b"{}".to_vec(), "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
            (body("v1", "Nonsense", &[]), "no kind \"Nonsense\" is registered for version \"v1\""),
            (body("v1", "Pod", &[0x0a, 0x7f]), "unexpected EOF"),
        ] {
            assert_eq!(decode(&catalog, &bad), Err(expected.to_owned()));
        }
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (250_000_000, "250ms"),
            (-1_000, "-1µs"),
        ] {
            assert_eq!(go_duration(nanoseconds), expected);
        }
    }
}
