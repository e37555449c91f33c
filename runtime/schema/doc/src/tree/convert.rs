//! Trees from bytes and to bytes, directly.
use super::{List, Map, Name, Number, Value};
use crate::doc::{self, Doc, DocError, MAX_DEPTH, Ref, Writer};
use serde::{Serialize, de::DeserializeOwned};

impl Value {
    /// What a place in a Doc holds; null for what is absent or damaged.
    pub fn read(place: Ref<'_>) -> Value {
        place.value().and_then(|stored| read(stored, 0)).unwrap_or_default()
    }
    pub fn to_doc(&self) -> Result<Doc, DocError> {
        let mut writer = Writer::new();
        write(self, &mut writer)?;
        writer.finish()
    }
    pub fn write(&self, writer: &mut Writer) -> Result<(), DocError> {
        write(self, writer)
    }
    /// A typed value's tree.
    pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Value, DocError> {
        Ok(Doc::encode(value)?.root().to_value())
    }
    /// A typed value; null is the zero of whatever is asked for.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DocError> {
        self.to_doc()?.decode()
    }
}

/// `depth` bounds what bytes that nobody checked can do to the stack. `None` for what no Doc holds.
fn read(stored: doc::Value<'_>, depth: usize) -> Option<Value> {
    Some(match stored {
        doc::Value::Null => Value::Null,
        doc::Value::Bool(value) => Value::Bool(value),
        doc::Value::Int(value) => Value::Number(value.into()),
        doc::Value::Uint(value) => Value::Number(value.into()),
        doc::Value::Float(value) => Number::from_f64(value).map_or(Value::Null, Value::Number),
        doc::Value::Str { text, .. } => Value::String(std::str::from_utf8(text).ok()?.into()),
        doc::Value::List(_) | doc::Value::Map(_) if depth >= MAX_DEPTH => return None,
        doc::Value::List(mut rest) => {
            let mut list = Vec::new();
            while let Some((element, next)) = doc::value(rest) {
                list.push(read(element, depth + 1)?);
                rest = next;
            }
            Value::Array(list.into())
        }
        doc::Value::Map(mut rest) => {
            let mut members = Vec::new();
            while let Some((key, after)) = doc::key(rest) {
                let (Some(key), Some((member, next))) = (Name::read(key), doc::value(after)) else { break };
                members.push((key, read(member, depth + 1)?));
                rest = next;
            }
            Value::Object(Map::from_members(members))
        }
    })
}

fn write(value: &Value, writer: &mut Writer) -> Result<(), DocError> {
    match value {
        Value::Null => writer.null(),
        Value::Bool(value) => writer.bool(*value),
        Value::String(text) => writer.str(text),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), ..) => writer.i64(value),
            (_, Some(value), _) => writer.u64(value),
            (_, _, value) => writer.f64(value.unwrap_or_default()),
        },
        Value::Array(list) => {
            writer.begin_list()?;
            for element in list {
                write(element, writer)?;
            }
            writer.end();
        }
        Value::Object(map) => {
            writer.begin_map()?;
            for (key, member) in map {
                writer.stored_key(key.stored());
                write(member, writer)?;
            }
            writer.end();
        }
    }
    Ok(())
}

impl From<Map> for Value {
    fn from(map: Map) -> Value {
        Value::Object(map)
    }
}
impl From<List> for Value {
    fn from(list: List) -> Value {
        Value::Array(list)
    }
}
impl From<Number> for Value {
    fn from(number: Number) -> Value {
        Value::Number(number)
    }
}
impl From<()> for Value {
    fn from((): ()) -> Value {
        Value::Null
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}
impl From<f64> for Value {
    fn from(value: f64) -> Value {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}
macro_rules! texts {
    ($($type:ty)*) => {$(
        impl From<$type> for Value {
            fn from(text: $type) -> Value {
                Value::String(text.into())
            }
        }
    )*};
}
texts! { &str String &String super::Text super::Name &super::Text &super::Name std::borrow::Cow<'_, str> }

macro_rules! integers {
    ($($type:ty)*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Value {
                Value::Number(value.into())
            }
        }
    )*};
}
integers! { i8 i16 i32 i64 isize u8 u16 u32 u64 usize }

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(list: Vec<T>) -> Value {
        list.into_iter().collect()
    }
}
impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(list: [T; N]) -> Value {
        list.into_iter().collect()
    }
}
impl<T: Clone + Into<Value>> From<&[T]> for Value {
    fn from(list: &[T]) -> Value {
        list.iter().cloned().collect()
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}
impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(list: I) -> Value {
        Value::Array(list.into_iter().map(Into::into).collect())
    }
}
impl<K: Into<Name>, V: Into<Value>> FromIterator<(K, V)> for Value {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Value {
        Value::Object(members.into_iter().map(|(key, value)| (key, value.into())).collect())
    }
}
