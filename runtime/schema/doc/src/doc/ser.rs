//! serde values to bytes, directly.
use super::{DocError, Value, Writer};
use serde::ser::{self, Serialize};

type Result<T> = std::result::Result<T, DocError>;

/// An open list or map, inside another map of one member when it is an enum's variant.
pub struct Compound<'a> {
    writer: &'a mut Writer,
    variant: bool,
}

impl Compound<'_> {
    fn close(self) {
        self.writer.end();
        if self.variant {
            self.writer.end();
        }
    }
}

impl Writer {
    fn list(&mut self) -> Result<Compound<'_>> {
        self.begin_list()?;
        Ok(Compound { writer: self, variant: false })
    }
    fn map(&mut self) -> Result<Compound<'_>> {
        self.begin_map()?;
        Ok(Compound { writer: self, variant: false })
    }
    fn variant(&mut self, name: &str) -> Result<()> {
        self.begin_map()?;
        self.key(name);
        Ok(())
    }
}

macro_rules! scalars {
    ($($name:ident $from:ty => $to:ident;)*) => {$(
        fn $name(self, value: $from) -> Result<()> {
            self.$to(value.into());
            Ok(())
        }
    )*};
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = DocError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    scalars! {
        serialize_bool bool => bool;
        serialize_i8 i8 => i64;
        serialize_i16 i16 => i64;
        serialize_i32 i32 => i64;
        serialize_i64 i64 => i64;
        serialize_u8 u8 => u64;
        serialize_u16 u16 => u64;
        serialize_u32 u32 => u64;
        serialize_u64 u64 => u64;
        serialize_f32 f32 => f64;
        serialize_f64 f64 => f64;
    }
    fn serialize_char(self, value: char) -> Result<()> {
        self.str(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }
    fn serialize_str(self, value: &str) -> Result<()> {
        self.str(value);
        Ok(())
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        ser::Serializer::collect_seq(self, value)
    }
    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<()> {
        self.null();
        Ok(())
    }
    fn serialize_unit_struct(self, _name: &'static str) -> Result<()> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _name: &'static str, _index: u32, variant: &'static str) -> Result<()> {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _name: &'static str, value: &T) -> Result<()> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        self.variant(variant)?;
        value.serialize(&mut *self)?;
        self.end();
        Ok(())
    }
    fn serialize_seq(self, _len: Option<usize>) -> Result<Compound<'a>> {
        self.list()
    }
    fn serialize_tuple(self, _len: usize) -> Result<Compound<'a>> {
        self.list()
    }
    fn serialize_tuple_struct(self, _name: &'static str, _len: usize) -> Result<Compound<'a>> {
        self.list()
    }
    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>> {
        self.variant(variant)?;
        Ok(Compound { variant: true, ..self.list()? })
    }
    fn serialize_map(self, _len: Option<usize>) -> Result<Compound<'a>> {
        self.map()
    }
    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Compound<'a>> {
        self.map()
    }
    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>> {
        self.variant(variant)?;
        Ok(Compound { variant: true, ..self.map()? })
    }
}

macro_rules! lists {
    ($($compound:ident $method:ident;)*) => {$(
        impl ser::$compound for Compound<'_> {
            type Ok = ();
            type Error = DocError;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                value.serialize(&mut *self.writer)
            }
            fn end(self) -> Result<()> {
                self.close();
                Ok(())
            }
        }
    )*};
}
lists! {
    SerializeSeq serialize_element;
    SerializeTuple serialize_element;
    SerializeTupleStruct serialize_field;
    SerializeTupleVariant serialize_field;
}

macro_rules! structs {
    ($($compound:ident)*) => {$(
        impl ser::$compound for Compound<'_> {
            type Ok = ();
            type Error = DocError;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
                self.writer.key(key);
                value.serialize(&mut *self.writer)
            }
            fn end(self) -> Result<()> {
                self.close();
                Ok(())
            }
        }
    )*};
}
structs! { SerializeStruct SerializeStructVariant }

impl ser::SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = DocError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        // A key is a string; what else serde allows there (numbers, unit variants) goes the long way through a value.
        let mut text = Writer::with_capacity(32);
        key.serialize(&mut text)?;
        let key = text.finish()?;
        match (key.root().as_str(), key.root().value()) {
            (Some(text), _) => self.writer.key(text),
            (None, Some(Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::Bool(_))) => {
                self.writer.key(&format!("{:?}", key.root()));
            }
            _ => return Err(ser::Error::custom("a key must be a string")),
        }
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(&mut *self.writer)
    }
    fn end(self) -> Result<()> {
        self.close();
        Ok(())
    }
}
