//! Requests, read by the field numbers of the table as a tree that `prune` then cleans like any other. kubectl sends what it
//! makes itself (`create namespace`, `create token`) this way only, and Kubernetes' own components send all they write.
//!
//! Believes nothing: depth, count and every length are checked.
use super::MAGIC;
use crate::{
    Kind,
    doc::{MAX_DEPTH, MAX_VALUES},
    table::{Container, Field, Shape, Table, TypeId},
};
use crate::{List, Map, Name, Number, Text, Value};
use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use mote_doc::protobuf::Any;

/// What stands around an object.
#[derive(Debug, PartialEq)]
pub struct Envelope<'b> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'b [u8],
}

/// `runtime.Unknown` (apimachinery/pkg/runtime/generated.proto).
pub fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, String> {
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let mut found = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = Reader { bytes: rest };
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut reader = Reader { bytes: meta };
                while let Some(part) = reader.next()? {
                    match part {
                        (1, Wire::Bytes(text)) => found.api_version = string(text)?,
                        (2, Wire::Bytes(text)) => found.kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => found.raw = raw,
            (3, Wire::Bytes(encoding)) if !encoding.is_empty() => {
                return Err(format!("unsupported content encoding {:?}", String::from_utf8_lossy(encoding)));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The object of an envelope whose kind has been found.
pub fn decode(kind: &Kind, raw: &[u8]) -> Result<Value, String> {
    let mut decoder = Decoder { table: kind.table(), values: 0 };
    let mut map = Map::new();
    decoder.object(kind.root, raw, 0, 0, &mut map)?;
    Ok(Value::Object(map))
}

struct Decoder<'t> {
    table: &'t Table,
    values: usize,
}

impl Decoder<'_> {
    /// `inline` says which embedded message is being read, as `Field::inline` does; 0 outside of one.
    fn object(&mut self, id: TypeId, bytes: &[u8], inline: u8, depth: usize, map: &mut Map) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("proto: exceeded max depth".into());
        }
        let table = self.table;
        let fields = table.fields(id);
        let mut reader = Reader { bytes };
        // Entries of maps, sorted once: they come one by one and in any order.
        let mut maps: Vec<(&str, Vec<(Name, Value)>)> = Vec::new();
        while let Some((number, wire)) = reader.next()? {
            let field = fields.iter().find(|f| f.inline == inline && u64::from(f.number) == number && f.number != 0);
            if let Some(field) = field {
                let name = table.name(field);
                let read =
                    match field.container {
                        Container::Map | Container::MapOfLists => self.entry(id, field, wire, depth).map(|entry| {
                            match maps.iter_mut().find(|(known, _)| *known == name) {
                                Some((_, entries)) => entries.push(entry),
                                None => maps.push((name, vec![entry])),
                            }
                        }),
                        _ => self.field(id, field, wire, depth, map.entry(name).or_insert(Value::Null)),
                    };
                read.map_err(|e| if e.starts_with("proto:") { e } else { format!("proto: {name}: {e}") })?;
            } else if let (Wire::Bytes(embedded), Some(inner)) = (&wire, embedded_in(inline, number))
                && fields.iter().any(|f| f.inline == inner || inline == 0 && f.inline & 15 == inner)
            {
                self.object(id, embedded, inner, depth + 1, map)?;
            }
            // Numbers this version does not know are passed over, as protobuf asks.
        }
        for (name, mut entries) in maps {
            // A message may come in pieces.
            if let Some(Value::Object(before)) = map.remove(name) {
                entries.splice(..0, before);
            }
            map.insert(name.into(), Value::Object(Map::from_members(entries)));
        }
        Ok(())
    }

    fn entry(&mut self, owner: TypeId, field: &Field, wire: Wire<'_>, depth: usize) -> Result<(Name, Value), String> {
        let Wire::Bytes(entry) = wire else { return Err("not a map".into()) };
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader { bytes: entry };
        while let Some((number, wire)) = reader.next()? {
            match (number, wire) {
                (1, Wire::Bytes(text)) => key = string(text)?,
                (2, Wire::Bytes(items)) if field.container == Container::MapOfLists => {
                    let mut list = Vec::new();
                    let mut reader = Reader { bytes: items };
                    while let Some((_, item)) = reader.next()? {
                        list.push(self.one(owner, field, item, depth, Value::Null)?);
                    }
                    value = Some(Value::from(list));
                }
                (2, wire) => value = Some(self.one(owner, field, wire, depth, Value::Null)?),
                _ => {}
            }
        }
        let zero = if field.shape == Shape::String { Value::String(Text::new()) } else { Value::Null };
        Ok((key.into(), value.unwrap_or(zero)))
    }

    fn field(
        &mut self,
        owner: TypeId,
        field: &Field,
        wire: Wire<'_>,
        depth: usize,
        slot: &mut Value,
    ) -> Result<(), String> {
        match field.container {
            Container::One => {
                // A message that comes in pieces is merged.
                let before = slot.take();
                *slot = self.one(owner, field, wire, depth, before)?;
            }
            Container::List => {
                if slot.is_null() {
                    *slot = Value::Array(List::default());
                }
                let Value::Array(list) = slot else { return Err("not a list".into()) };
                match (field.shape, wire) {
                    (Shape::Bool | Shape::Int32 | Shape::Int64, Wire::Bytes(packed)) => {
                        let mut reader = Reader { bytes: packed };
                        while !reader.bytes.is_empty() {
                            let number = reader.varint()?;
                            list.push(self.one(owner, field, Wire::Varint(number), depth, Value::Null)?);
                        }
                    }
                    (_, wire) => list.push(self.one(owner, field, wire, depth, Value::Null)?),
                }
            }
            // Read by `entry`.
            Container::Map | Container::MapOfLists => {}
        }
        Ok(())
    }

    fn one(
        &mut self,
        owner: TypeId,
        field: &Field,
        wire: Wire<'_>,
        depth: usize,
        before: Value,
    ) -> Result<Value, String> {
        self.count()?;
        Ok(match (field.shape, wire) {
            (Shape::Bool, Wire::Varint(n)) => Value::Bool(n != 0),
            // Signed by two's complement, sign-extended to 64 bits.
            (Shape::Int32, Wire::Varint(n)) => Value::from(n as i64 as i32),
            (Shape::Int64, Wire::Varint(n)) => Value::from(n as i64),
            (Shape::Double, Wire::Fixed64(bits)) => {
                Number::from_f64(f64::from_bits(bits)).map(Value::Number).ok_or("not a number")?
            }
            (Shape::String, Wire::Bytes(text)) => Value::String(string(text)?.into()),
            (Shape::Bytes, Wire::Bytes(bytes)) => Value::String(BASE64_STANDARD.encode(bytes).into()),
            (Shape::Quantity, Wire::Bytes(message)) => {
                let text = member(message, 1)?.map_or(Ok(String::new()), |w| w.text())?;
                Value::String(if text.is_empty() { "0".into() } else { text.into() })
            }
            (Shape::IntOrString, Wire::Bytes(message)) => match member(message, 1)? {
                Some(Wire::Varint(1)) => {
                    Value::String(member(message, 3)?.map_or(Ok(String::new()), |w| w.text())?.into())
                }
                _ => Value::from(member(message, 2)?.map_or(Ok(0), |w| w.number())? as i32),
            },
            // An empty message is the zero time, which is null in JSON.
            (Shape::Time | Shape::MicroTime, Wire::Bytes([])) => Value::Null,
            (Shape::Time | Shape::MicroTime, Wire::Bytes(message)) => {
                let seconds = member(message, 1)?.map_or(Ok(0), |w| w.number())?;
                let nanos = member(message, 2)?.map_or(Ok(0), |w| w.number())?;
                let time = i32::try_from(nanos).ok().and_then(|nanos| Timestamp::new(seconds, nanos).ok());
                Value::String(time.ok_or("time out of range")?.to_string().into())
            }
            (Shape::Duration, Wire::Bytes(message)) => {
                let nanos = member(message, 1)?.map_or(Ok(0), |w| w.number())?;
                Value::String(format!("{nanos}ns").into())
            }
            (Shape::Any, Wire::Bytes(message)) => self.any(owner, Any::of(self.table, owner, field), message, depth)?,
            (Shape::Object(id), Wire::Bytes(message)) => {
                let mut map = if let Value::Object(map) = before { map } else { Map::new() };
                self.object(id, message, 0, depth + 1, &mut map)?;
                Value::Object(map)
            }
            _ => return Err("unexpected wire type".into()),
        })
    }

    /// `owner` is JSONSchemaProps where a schema may stand.
    fn any(&mut self, owner: TypeId, any: Any, message: &[u8], depth: usize) -> Result<Value, String> {
        if any == Any::Raw {
            return Ok(match member(message, 1)? {
                None => Value::Null,
                Some(Wire::Bytes(json)) => crate::prune::parse_json(json).map_err(|e| format!("proto: {e}"))?.0,
                Some(_) => return Err("unexpected wire type".into()),
            });
        }
        let (mut allows, mut one, mut many) = (false, None, Vec::new());
        let mut reader = Reader { bytes: message };
        while let Some((number, wire)) = reader.next()? {
            match (any, number, wire) {
                (Any::SchemaOrBool, 1, Wire::Varint(n)) => allows = n != 0,
                (Any::SchemaOrBool, 2, Wire::Bytes(schema)) | (_, 1, Wire::Bytes(schema)) => {
                    one = Some(self.schema(owner, schema, depth)?);
                }
                (Any::SchemaOrSchemas, 2, Wire::Bytes(schema)) => many.push(self.schema(owner, schema, depth)?),
                (Any::SchemaOrStrings, 2, Wire::Bytes(text)) => {
                    self.count()?;
                    many.push(Value::String(string(text)?.into()));
                }
                _ => {}
            }
        }
        Ok(match (any, one) {
            (_, Some(schema)) => schema,
            (Any::SchemaOrBool, None) => Value::Bool(allows),
            (_, None) => Value::Array(many.into()),
        })
    }

    fn schema(&mut self, id: TypeId, message: &[u8], depth: usize) -> Result<Value, String> {
        self.count()?;
        let mut map = Map::new();
        self.object(id, message, 0, depth + 1, &mut map)?;
        Ok(Value::Object(map))
    }

    fn count(&mut self) -> Result<(), String> {
        self.values += 1;
        if self.values > MAX_VALUES { Err("proto: too many values".into()) } else { Ok(()) }
    }
}

/// `Field::inline` of what lies in message `number` inside the embedded message `inline`.
fn embedded_in(inline: u8, number: u64) -> Option<u8> {
    let number = u8::try_from(number).ok().filter(|n| (1..16).contains(n))?;
    match inline {
        0 => Some(number),
        1..16 => Some(inline | number << 4),
        _ => None,
    }
}

/// The last field of that number in a message.
fn member(message: &[u8], number: u64) -> Result<Option<Wire<'_>>, String> {
    let mut reader = Reader { bytes: message };
    let mut found = None;
    while let Some((n, wire)) = reader.next()? {
        if n == number {
            found = Some(wire);
        }
    }
    Ok(found)
}

fn string(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "proto: string is not UTF-8".into())
}

#[derive(Debug)]
enum Wire<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'b [u8]),
}

impl Wire<'_> {
    fn text(self) -> Result<String, String> {
        match self {
            Wire::Bytes(bytes) => string(bytes),
            _ => Err("unexpected wire type".into()),
        }
    }
    fn number(self) -> Result<i64, String> {
        match self {
            Wire::Varint(n) => Ok(n as i64),
            _ => Err("unexpected wire type".into()),
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
}

const CUT: &str = "proto: unexpected EOF";

impl<'b> Reader<'b> {
    fn next(&mut self) -> Result<Option<(u64, Wire<'b>)>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(u64::from_le_bytes(bytes.try_into().map_err(|_| CUT)?))
            }
            2 => {
                let len = usize::try_from(self.varint()?).map_err(|_| CUT)?;
                Wire::Bytes(self.take(len)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok(Some((tag >> 3, wire)))
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(CUT)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for at in 0..10 {
            let (byte, rest) = self.bytes.split_first().ok_or(CUT)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }
}
