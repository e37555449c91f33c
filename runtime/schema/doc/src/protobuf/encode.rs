//! An object's bytes to protobuf, without a tree, in one walk: fields in the order they are stored in (readers take any), those
//! of embedded messages behind the others, maps in the order of their keys. A zero that Go would write and JSON leaves out is
//! left out here too: readers see the same.
//!
//! The length before a message is guessed from the length of the Doc's own bytes, which is nearly the same, and the message
//! is moved when its length takes another number of bytes. What does not fit its field's type is left out.
use super::special::{self, Any};
use crate::{
    Order as _,
    doc::{Key, MAX_DEPTH, Ref, Room, Value, key, value},
    table::{Container, Field, Shape, Table, TypeId},
};

pub struct Encoder<'a, 'o> {
    table: &'a Table,
    pub out: Room<'o>,
    /// Fields of embedded messages which wait for the end of the message, each message's behind its parent's.
    embedded: Vec<(&'a Field, Value<'a>)>,
    depth: usize,
}

/// A message whose length is not yet known.
pub struct Open {
    start: usize,
    /// Bytes kept for the length.
    width: usize,
}

/// What an object's bytes do not hold: the resourceVersion of its metadata.
#[derive(Clone, Copy)]
pub enum Revision<'a> {
    None,
    /// Of the metadata that is a field of this message.
    Below(&'a str),
    /// This message is the metadata.
    Here(&'a str),
}

/// An embedded message that is open, and its `Field::inline`.
type Embedded = Option<(u8, Open)>;

const BYTES: u64 = 2;
/// ObjectMeta's resourceVersion.
const RESOURCE_VERSION: u16 = 6;

impl<'a, 'o> Encoder<'a, 'o> {
    pub fn new(table: &'a Table, out: &'o mut Vec<u8>) -> Encoder<'a, 'o> {
        Encoder { table, out: Room::new(out), embedded: Vec::new(), depth: 0 }
    }

    #[inline(always)]
    fn tag(&mut self, number: u16, wire: u64) {
        self.out.varint(u64::from(number) << 3 | wire);
    }

    /// Begins a field of some length, about `len`.
    pub fn open(&mut self, number: u16, len: usize) -> Open {
        self.tag(number, BYTES);
        let width = varint_len(len);
        // Written when it is known.
        self.out.room(width);
        self.out.advance(width);
        Open { start: self.out.len(), width }
    }

    /// Begins a field of exactly `len` bytes.
    #[inline(always)]
    pub fn length(&mut self, number: u16, len: usize) {
        self.tag(number, BYTES);
        self.out.varint(len as u64);
    }

    pub fn close(&mut self, open: Open) {
        let end = self.out.len();
        let len = end - open.start;
        let width = varint_len(len);
        let head = open.start - open.width;
        if width > open.width {
            self.out.room(width - open.width);
            self.out.advance(width - open.width);
        }
        let written = self.out.written();
        if width != open.width {
            written.copy_within(open.start..end, head + width);
        }
        let mut rest = len;
        for byte in &mut written[head..head + width - 1] {
            *byte = rest as u8 | 0x80;
            rest >>= 7;
        }
        written[head + width - 1] = rest as u8;
        self.out.truncate(head + width + len);
    }

    #[inline(always)]
    pub fn bytes(&mut self, number: u16, bytes: &[u8]) {
        self.length(number, bytes.len());
        self.out.slice(bytes);
    }

    pub fn number(&mut self, number: u16, value: i64) {
        self.tag(number, 0);
        self.out.varint(value as u64);
    }

    /// The fields of a message of type `id`.
    pub fn object(&mut self, id: TypeId, object: Ref<'a>, revision: Revision<'a>) {
        if let Some(Value::Map(members)) = object.value() {
            self.message(id, members, revision);
        }
    }

    /// Stored names are in the table's own order most of the time, so each is looked for from where the last one was found.
    fn message(&mut self, id: TypeId, mut members: &'a [u8], revision: Revision<'a>) {
        if self.depth >= MAX_DEPTH {
            return;
        }
        self.depth += 1;
        let (first, len) = (self.embedded.len(), members.len());
        let (table, fields) = (self.table, self.table.fields(id));
        let mut from = 0;
        while let Some((name, rest)) = key(members) {
            let Some((found, next)) = value(rest) else { break };
            members = next;
            let at = match name {
                Key::Name(id) => position(fields, from, |field| field.name == id),
                Key::Inline(text) => position(fields, from, |field| table.name(field).as_bytes() == text),
                Key::Field(_) => None,
            };
            let Some(at) = at else { continue };
            from = at + 1;
            let field = &fields[at];
            if field.number == 0 || matches!(found, Value::Null) && field.shape != Shape::Any {
                continue;
            }
            match (field.inline, field.container, field.shape, found) {
                (0, Container::One, Shape::String, Value::Str { text, .. }) => self.bytes(field.number, text),
                (0, ..) => self.field(id, field, found, revision),
                _ => self.embedded.push((field, found)),
            }
        }
        if let Revision::Here(text) = revision {
            self.bytes(RESOURCE_VERSION, text.as_bytes());
        }
        if self.embedded.len() > first {
            self.embedded(id, first, len);
        }
        self.depth -= 1;
    }

    /// The fields that waited, in their messages.
    fn embedded(&mut self, id: TypeId, first: usize, len: usize) {
        // The outer message is in the lower four bits.
        self.embedded[first..].order_by_key(|(field, _)| field.inline.rotate_left(4));
        let (mut outer, mut inner): (Embedded, Embedded) = (None, None);
        for at in first..self.embedded.len() {
            let (field, found) = self.embedded[at];
            self.shut(&mut inner, field.inline);
            self.shut(&mut outer, field.inline & 15);
            if outer.is_none() {
                outer = Some((field.inline & 15, self.open((field.inline & 15).into(), len)));
            }
            if inner.is_none() && field.inline > 15 {
                inner = Some((field.inline, self.open((field.inline >> 4).into(), len)));
            }
            self.field(id, field, found, Revision::None);
        }
        self.shut(&mut inner, 0);
        self.shut(&mut outer, 0);
        self.embedded.truncate(first);
    }

    /// Unless it is the message wanted.
    fn shut(&mut self, open: &mut Embedded, wanted: u8) {
        if let Some((_, open)) = open.take_if(|(which, _)| *which != wanted) {
            self.close(open);
        }
    }

    fn field(&mut self, owner: TypeId, field: &Field, found: Value<'a>, revision: Revision<'a>) {
        match (field.container, found) {
            (Container::One, found) => match (field.shape, found, revision) {
                (Shape::Object(id), Value::Map(members), Revision::Below(text))
                    if self.table.name(field) == "metadata" =>
                {
                    let open = self.open(field.number, members.len() + 16);
                    self.message(id, members, Revision::Here(text));
                    self.close(open);
                }
                _ => self.one(owner, field, field.number, found),
            },
            (Container::List, Value::List(mut items)) => {
                while let Some((item, next)) = value(items) {
                    self.one(owner, field, field.number, item);
                    items = next;
                }
            }
            (Container::Map | Container::MapOfLists, Value::Map(members)) => {
                let entries = Entries(members);
                if entries.clone().map(|(name, _)| name).is_sorted() {
                    entries.for_each(|entry| self.entry(owner, field, entry));
                    return;
                }
                let mut entries: Vec<_> = entries.collect();
                entries.order_by(|a, b| a.0.cmp(b.0));
                entries.into_iter().for_each(|entry| self.entry(owner, field, entry));
            }
            _ => {}
        }
    }

    fn entry(&mut self, owner: TypeId, field: &Field, (name, found): (&'a [u8], Value<'a>)) {
        let open = self.open(field.number, name.len() + len(found) + 4);
        self.bytes(1, name);
        match (field.container, found) {
            (Container::MapOfLists, Value::List(mut items)) => {
                let list = self.open(2, items.len());
                while let Some((item, next)) = value(items) {
                    self.one(owner, field, 1, item);
                    items = next;
                }
                self.close(list);
            }
            (Container::MapOfLists, _) => {}
            _ => self.one(owner, field, 2, found),
        }
        self.close(open);
    }

    /// One value of the field's shape.
    fn one(&mut self, owner: TypeId, field: &Field, number: u16, found: Value<'a>) {
        match (field.shape, found) {
            (Shape::Bool, Value::Bool(value)) => self.number(number, value.into()),
            (Shape::Int32 | Shape::Int64, Value::Int(value)) => self.number(number, value),
            (Shape::Int32 | Shape::Int64, Value::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
                self.number(number, value as i64);
            }
            (Shape::Double, Value::Float(value)) => self.double(number, value),
            (Shape::Double, Value::Int(value)) => self.double(number, value as f64),
            (Shape::Double, Value::Uint(value)) => self.double(number, value as f64),
            (Shape::String, Value::Str { text, .. }) => self.bytes(number, text),
            (Shape::Bytes, Value::Str { text, .. }) => {
                let open = self.open(number, text.len() / 4 * 3);
                self.out.append(&mut |out| {
                    // `prune` wrote it; other text would be what was read before the fault.
                    if base64::Engine::decode_vec(&base64::prelude::BASE64_STANDARD, text, out).is_err() {
                        out.truncate(open.start);
                    }
                });
                self.close(open);
            }
            (Shape::Quantity, Value::Str { text, .. }) => {
                let open = self.open(number, text.len() + 2);
                self.bytes(1, text);
                self.close(open);
            }
            (Shape::IntOrString, Value::Int(value)) => {
                let open = self.open(number, 4);
                self.number(1, 0);
                self.number(2, value);
                self.close(open);
            }
            (Shape::IntOrString, Value::Str { text, .. }) => {
                let open = self.open(number, text.len() + 4);
                self.number(1, 1);
                self.bytes(3, text);
                self.close(open);
            }
            (Shape::Time | Shape::MicroTime, Value::Str { text, .. }) => {
                let time = std::str::from_utf8(text).ok().and_then(special::time);
                let open = self.open(number, 12);
                if let Some((seconds, nanos)) = time {
                    self.number(1, seconds);
                    self.number(2, if field.shape == Shape::Time { 0 } else { i64::from(nanos / 1000 * 1000) });
                }
                self.close(open);
            }
            (Shape::Duration, Value::Str { text, .. }) => {
                let nanos = std::str::from_utf8(text).ok().and_then(special::duration_nanos);
                let open = self.open(number, 8);
                self.number(1, nanos.unwrap_or(0));
                self.close(open);
            }
            (Shape::Any, found) => {
                let open = self.open(number, len(found) + len(found) / 2);
                self.any(owner, Any::of(self.table, owner, field), found);
                self.close(open);
            }
            (Shape::Object(id), Value::Map(members)) => {
                let open = self.open(number, members.len());
                self.message(id, members, Revision::None);
                self.close(open);
            }
            _ => {}
        }
    }

    /// The inside of a message that holds anything; `owner` is JSONSchemaProps where a schema may stand.
    fn any(&mut self, owner: TypeId, any: Any, found: Value<'a>) {
        match (any, found) {
            (Any::SchemaOrBool, Value::Bool(allows)) => self.number(1, allows.into()),
            (Any::SchemaOrBool, Value::Map(members)) => {
                self.number(1, 1);
                self.schema(2, owner, members);
            }
            (Any::SchemaOrSchemas | Any::SchemaOrStrings, Value::Map(members)) => self.schema(1, owner, members),
            (Any::SchemaOrSchemas | Any::SchemaOrStrings, Value::List(mut items)) => {
                while let Some((item, next)) = value(items) {
                    match item {
                        Value::Map(members) if any == Any::SchemaOrSchemas => self.schema(2, owner, members),
                        Value::Str { text, .. } if any == Any::SchemaOrStrings => self.bytes(2, text),
                        _ => {}
                    }
                    items = next;
                }
            }
            (Any::Raw, found) => {
                let open = self.open(1, len(found) + len(found) / 2);
                self.out.json(found, self.depth);
                self.close(open);
            }
            _ => {}
        }
    }

    fn schema(&mut self, number: u16, id: TypeId, members: &'a [u8]) {
        let open = self.open(number, members.len());
        self.message(id, members, Revision::None);
        self.close(open);
    }

    fn double(&mut self, number: u16, value: f64) {
        self.tag(number, 1);
        self.out.bytes(&value.to_bits().to_le_bytes());
    }
}

/// The first field that is meant, looked for from `from` on and then before it.
#[inline]
fn position(fields: &[Field], from: usize, is_it: impl Fn(&Field) -> bool) -> Option<usize> {
    let (before, after) = fields.split_at_checked(from)?;
    for (at, field) in after.iter().enumerate() {
        if is_it(field) {
            return Some(from + at);
        }
    }
    before.iter().position(is_it)
}

/// Members of a map with string keys.
#[derive(Clone)]
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Value<'a>);
    fn next(&mut self) -> Option<(&'a [u8], Value<'a>)> {
        let (name, rest) = key(std::mem::take(&mut self.0))?;
        let (found, next) = value(rest)?;
        self.0 = next;
        let name = match name {
            Key::Inline(text) => text,
            name => name.text()?.as_bytes(),
        };
        Some((name, found))
    }
}

/// About how long a value will be.
fn len(value: Value<'_>) -> usize {
    match value {
        Value::Str { text, .. } => text.len(),
        Value::List(inner) | Value::Map(inner) => inner.len(),
        _ => 4,
    }
}

#[inline(always)]
fn varint_len(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}
