//! A serde `Deserializer` over places in a Doc, so that typed structs and `serde_json::Value` come out of the bytes.
//!
//! null is the zero value of whatever is asked for, as in Go.
use super::bytes::Value;
use super::reference::{Entries, Items};
use super::{DocError, MAX_DEPTH, Ref};
use serde::de::{self, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// A value to read: a place in a Doc, or something laid over one.
#[derive(Clone, Copy)]
pub(crate) enum Node<'a> {
    /// And how many containers are around it, so that bytes which nobody checked cannot exhaust the stack.
    Ref(Ref<'a>, usize),
    Str(&'a str),
    Overlay(&'a Overlay<'a>),
}

/// An object whose members in `over` come first and hide those of `base`.
pub(crate) struct Overlay<'a> {
    pub base: Ref<'a>,
    pub over: &'a [(&'static str, Node<'a>)],
}

impl<'a> From<Ref<'a>> for Node<'a> {
    fn from(place: Ref<'a>) -> Node<'a> {
        Node::Ref(place, 0)
    }
}

impl<'a> Overlay<'a> {
    pub(crate) fn members(&self) -> impl Iterator<Item = (&'a str, Node<'a>)> {
        let over = self.over;
        let visible = self.base.entries().filter(move |(name, _)| over.iter().all(|(hidden, _)| hidden != name));
        over.iter().copied().chain(visible.map(|(name, place)| (name, Node::Ref(place, 2))))
    }
}

impl<'a> Node<'a> {
    fn value(self) -> Option<Value<'a>> {
        match self {
            Node::Ref(place, _) => place.value(),
            Node::Str(text) => Some(Value::Str { text: text.as_bytes(), plain: false }),
            Node::Overlay(_) => Some(Value::Map(&[])),
        }
    }
    fn is_null(self) -> bool {
        matches!(self.value(), None | Some(Value::Null))
    }
    fn inner(self) -> Result<usize, DocError> {
        match self {
            Node::Ref(_, depth) if depth >= MAX_DEPTH => Err(DocError::TooDeep { limit: MAX_DEPTH }),
            Node::Ref(_, depth) => Ok(depth + 1),
            _ => Ok(0),
        }
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
        if let Node::Overlay(overlay) = self {
            return visitor.visit_map(Members { members: overlay.members(), value: None });
        }
        match self.value() {
            None | Some(Value::Null) => visitor.visit_unit(),
            Some(Value::Bool(value)) => visitor.visit_bool(value),
            Some(Value::Int(value)) if value >= 0 => visitor.visit_u64(value as u64),
            Some(Value::Int(value)) => visitor.visit_i64(value),
            Some(Value::Uint(value)) => visitor.visit_u64(value),
            Some(Value::Float(value)) => visitor.visit_f64(value),
            Some(Value::Str { text, .. }) => match std::str::from_utf8(text) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => Err(DocError::Damaged { at: 0, what: "a string is not UTF-8" }),
            },
            Some(Value::List(inner)) => visitor.visit_seq(Elements { items: Items(inner), depth: self.inner()? }),
            Some(Value::Map(inner)) => {
                let depth = self.inner()?;
                let members = Entries(inner).map(move |(name, place)| (name, Node::Ref(place, depth)));
                visitor.visit_map(Members { members, value: None })
            }
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
        deserialize_map visit_map Members { members: Entries(&[]).map(|(name, place)| (name, Node::from(place))), value: None };
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
        let Node::Ref(place, _) = self else { return Err(DocError::custom("an enum is expected")) };
        if let Some(name) = place.as_str() {
            return visitor.visit_enum(name.into_deserializer());
        }
        let mut members = place.entries();
        match (members.next(), members.next()) {
            (Some((name, content)), None) => {
                visitor.visit_enum(Variant { name, content: Node::Ref(content, self.inner()?) })
            }
            _ => Err(DocError::custom("a string or an object with one member is expected")),
        }
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DocError> {
        visitor.visit_unit()
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

struct Members<'a, I: Iterator<Item = (&'a str, Node<'a>)>> {
    members: I,
    value: Option<Node<'a>>,
}

impl<'de, I: Iterator<Item = (&'de str, Node<'de>)>> MapAccess<'de> for Members<'de, I> {
    type Error = DocError;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DocError> {
        let Some((name, value)) = self.members.next() else { return Ok(None) };
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
