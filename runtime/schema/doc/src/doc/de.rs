//! A serde `Deserializer` over places in a Doc, so that typed structs and `crate::Value` come out of the bytes.
//!
//! null is the zero value of whatever is asked for, as in Go.
use super::bytes::Value;
use super::reference::{Entries, Items};
use super::{DocError, MAX_DEPTH, Ref};
use serde::de::{self, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// A value to read: a place in a Doc, or something laid over one.
#[derive(Clone, Copy)]
pub enum Node<'a> {
    /// And how many containers are around it, so that bytes which nobody checked cannot exhaust the stack.
    Ref(Ref<'a>, usize),
    Str(&'a str),
    Overlay(&'a Overlay<'a>),
}

/// Of what is in an overlay: members are read two objects deep, since the object itself and its metadata are laid over.
pub(super) const DEPTH: usize = 2;

/// An object whose members in `over` come first and hide those of `base`.
pub struct Overlay<'a> {
    pub base: Ref<'a>,
    pub over: &'a [(&'static str, Node<'a>)],
}

impl<'a> From<Ref<'a>> for Node<'a> {
    fn from(place: Ref<'a>) -> Node<'a> {
        Node::Ref(place, 0)
    }
}

impl<'a> Overlay<'a> {
    pub fn members(&self) -> Members<'a> {
        let base = match self.base.value() {
            Some(Value::Map(inner)) => inner,
            _ => &[],
        };
        Members { over: self.over.iter(), hidden: self.over, base: Entries(base), depth: DEPTH, value: None }
    }
}

/// What a place holds, ready for a visitor. Not generic: a typed kind pays only for the call of its visitor.
enum Seen<'a> {
    Null,
    Bool(bool),
    Negative(i64),
    Natural(u64),
    Float(f64),
    Str(&'a str),
    List(Elements<'a>),
    Map(Members<'a>),
}

impl<'a> Node<'a> {
    fn seen(self) -> Result<Seen<'a>, DocError> {
        let (place, depth) = match self {
            Node::Ref(place, depth) => (place, depth),
            Node::Str(text) => return Ok(Seen::Str(text)),
            Node::Overlay(overlay) => return Ok(Seen::Map(overlay.members())),
        };
        Ok(match place.value() {
            None | Some(Value::Null) => Seen::Null,
            Some(Value::Bool(value)) => Seen::Bool(value),
            Some(Value::Int(value)) => u64::try_from(value).map_or(Seen::Negative(value), Seen::Natural),
            Some(Value::Uint(value)) => Seen::Natural(value),
            Some(Value::Float(value)) => Seen::Float(value),
            Some(Value::Str { text, .. }) => match std::str::from_utf8(text) {
                Ok(text) => Seen::Str(text),
                Err(_) => return Err(DocError::Damaged { at: 0, what: "a string is not UTF-8" }),
            },
            Some(Value::List(_) | Value::Map(_)) if depth >= MAX_DEPTH => {
                return Err(DocError::TooDeep { limit: MAX_DEPTH });
            }
            Some(Value::List(inner)) => Seen::List(Elements { items: Items(inner), depth: depth + 1 }),
            Some(Value::Map(inner)) => Seen::Map(Members::of(inner, depth + 1)),
        })
    }
    fn is_null(self) -> bool {
        matches!(self, Node::Ref(place, _) if matches!(place.value(), None | Some(Value::Null)))
    }
}

macro_rules! zero_for_null {
    ($($method:ident $visit:ident $zero:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocError> {
            if self.is_null() { visitor.$visit($zero) } else { self.deserialize_any(visitor) }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = DocError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocError> {
        match self.seen()? {
            Seen::Null => visitor.visit_unit(),
            Seen::Bool(value) => visitor.visit_bool(value),
            Seen::Negative(value) => visitor.visit_i64(value),
            Seen::Natural(value) => visitor.visit_u64(value),
            Seen::Float(value) => visitor.visit_f64(value),
            Seen::Str(text) => visitor.visit_borrowed_str(text),
            Seen::List(elements) => visitor.visit_seq(elements),
            Seen::Map(members) => visitor.visit_map(members),
        }
    }

    zero_for_null! {
        deserialize_bool visit_bool false;
        deserialize_i8 visit_i64 0;
        deserialize_i16 visit_i64 0;
        deserialize_i32 visit_i64 0;
        deserialize_i64 visit_i64 0;
        deserialize_u8 visit_u64 0;
        deserialize_u16 visit_u64 0;
        deserialize_u32 visit_u64 0;
        deserialize_u64 visit_u64 0;
        deserialize_f32 visit_f64 0.0;
        deserialize_f64 visit_f64 0.0;
        deserialize_str visit_borrowed_str "";
        deserialize_string visit_borrowed_str "";
        deserialize_bytes visit_borrowed_str "";
        deserialize_byte_buf visit_borrowed_str "";
        deserialize_seq visit_seq Elements { items: Items(&[]), depth: 0 };
        deserialize_map visit_map Members::of(&[], 0);
    }
    serde::forward_to_deserialize_any! { i128 u128 char unit unit_struct tuple tuple_struct identifier }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DocError> {
        self.deserialize_map(visitor)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DocError> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DocError> {
        match self.variant()? {
            (name, None) => visitor.visit_enum(name.into_deserializer()),
            (name, Some(content)) => visitor.visit_enum(Variant { name, content }),
        }
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocError> {
        visitor.visit_unit()
    }
}

impl<'a> Node<'a> {
    /// A string, or an object with one member.
    fn variant(self) -> Result<(&'a str, Option<Node<'a>>), DocError> {
        match self.seen()? {
            Seen::Str(name) => Ok((name, None)),
            Seen::Map(mut members) => match (members.next(), members.next()) {
                (Some((name, content)), None) => Ok((name, Some(content))),
                _ => Err(DocError::custom("an object with one member is expected")),
            },
            _ => Err(DocError::custom("a string or an object with one member is expected")),
        }
    }
}

struct Elements<'a> {
    items: Items<'a>,
    depth: usize,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = DocError;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DocError> {
        self.items.next().map(|place| seed.deserialize(Node::Ref(place, self.depth))).transpose()
    }
}

/// Of an object: what lies over it, then the rest of it.
pub struct Members<'a> {
    over: std::slice::Iter<'a, (&'static str, Node<'a>)>,
    hidden: &'a [(&'static str, Node<'a>)],
    base: Entries<'a>,
    depth: usize,
    value: Option<Node<'a>>,
}

impl<'a> Members<'a> {
    fn of(inner: &'a [u8], depth: usize) -> Members<'a> {
        Members { over: [].iter(), hidden: &[], base: Entries(inner), depth, value: None }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Node<'a>);
    fn next(&mut self) -> Option<(&'a str, Node<'a>)> {
        if let Some(&(name, node)) = self.over.next() {
            return Some((name, node));
        }
        loop {
            let (name, place) = self.base.next()?;
            if self.hidden.iter().all(|(hidden, _)| *hidden != name) {
                return Some((name, Node::Ref(place, self.depth)));
            }
        }
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = DocError;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DocError> {
        let Some((name, value)) = self.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(de::value::BorrowedStrDeserializer::new(name)).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DocError> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(DocError::custom("a value was asked for before its key")),
        }
    }
}

struct Variant<'a> {
    name: &'a str,
    content: Node<'a>,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = DocError;
    type Variant = Node<'de>;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Node<'de>), DocError> {
        Ok((seed.deserialize(de::value::BorrowedStrDeserializer::new(self.name))?, self.content))
    }
}

impl<'de> de::VariantAccess<'de> for Node<'de> {
    type Error = DocError;
    fn unit_variant(self) -> Result<(), DocError> {
        Ok(())
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DocError> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, DocError> {
        self.deserialize_seq(visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DocError> {
        self.deserialize_map(visitor)
    }
}
