//! The fields of a pod that the kubelet reads and writes, as types. They are read from a stored object in place and
//! written as JSON, by code of a few bytes a field; k8s-openapi's types are for those to whom size is nothing (a typed
//! Pod costs 0.3 MB of the binary). What a client stored was validated against the schema, so a value of another type
//! reads as absent.
mod container;
mod pod;
mod status;
mod volume;

pub use container::*;
pub use pod::*;
pub use status::*;
pub use volume::*;

use jiff::Timestamp;
use mote_schema::Gather as _;
use mote_schema::{Map, Value};
use mote_schema::{Ref, selector::LabelSelector};
use std::collections::BTreeMap;

/// A type with fields: its Rust names, JSON names and types.
macro_rules! fields {
    ($($name:ident { $($field:ident $json:literal: $type:ty,)* })*) => { $(
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name { $(pub $field: $type,)* }

        impl $crate::spec::Field for $name {
            const NAMES: &'static [&'static str] = &[$($json),*];

            fn read(value: mote_schema::Ref<'_>) -> Option<$name> {
                if !value.is_map() {
                    return None;
                }
                #[allow(unused_mut)]
                let mut read = $name::default();
                for (name, _value) in value.entries() {
                    match name {
                        $($json => read.$field = $crate::spec::Field::read(_value).unwrap_or_default(),)*
                        _ => {}
                    }
                }
                Some(read)
            }

            fn write(&self) -> Option<mote_schema::Value> {
                #[allow(unused_mut)]
                let mut object = mote_schema::Map::new();
                $($crate::spec::put(&mut object, $json, $crate::spec::Field::write(&self.$field));)*
                Some(mote_schema::Value::Object(object))
            }
        }
    )* };
}
use fields;

/// A value that can be a field's.
pub trait Field: Sized {
    /// The JSON names of its own fields.
    const NAMES: &'static [&'static str] = &[];

    /// `None` when it is absent, null or of another type.
    fn read(value: Ref<'_>) -> Option<Self>;
    /// `None` when there is nothing to say.
    fn write(&self) -> Option<Value>;
}

pub fn put(object: &mut Map, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        object.insert(name.to_owned().into(), value);
    }
}

impl Field for String {
    fn read(value: Ref<'_>) -> Option<String> {
        value.as_str().map(str::to_owned)
    }
    fn write(&self) -> Option<Value> {
        Some(Value::from(self.as_str()))
    }
}

impl Field for bool {
    fn read(value: Ref<'_>) -> Option<bool> {
        value.as_bool()
    }
    fn write(&self) -> Option<Value> {
        Some(Value::from(*self))
    }
}

impl Field for i64 {
    fn read(value: Ref<'_>) -> Option<i64> {
        value.as_i64()
    }
    fn write(&self) -> Option<Value> {
        Some(Value::from(*self))
    }
}

impl Field for i32 {
    fn read(value: Ref<'_>) -> Option<i32> {
        value.as_i64().and_then(|number| i32::try_from(number).ok())
    }
    fn write(&self) -> Option<Value> {
        Some(Value::from(*self))
    }
}

impl<T: Field> Field for Option<T> {
    fn read(value: Ref<'_>) -> Option<Option<T>> {
        T::read(value).map(Some)
    }
    fn write(&self) -> Option<Value> {
        self.as_ref()?.write()
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(value: Ref<'_>) -> Option<Vec<T>> {
        value.is_list().then(|| value.items().filter_map(T::read).collect())
    }
    fn write(&self) -> Option<Value> {
        Some(self.iter().filter_map(T::write).collect())
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn read(value: Ref<'_>) -> Option<BTreeMap<String, T>> {
        let entries = value.entries().filter_map(|(name, value)| Some((name.to_owned(), T::read(value)?)));
        value.is_map().then(|| entries.gather())
    }
    fn write(&self) -> Option<Value> {
        Some(self.iter().filter_map(|(name, value)| Some((name.clone(), value.write()?))).collect())
    }
}

/// As it was written: "100m".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantity(pub String);

impl Field for Quantity {
    fn read(value: Ref<'_>) -> Option<Quantity> {
        String::read(value).map(Quantity)
    }
    fn write(&self) -> Option<Value> {
        self.0.write()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Time(pub Timestamp);

impl Field for Time {
    fn read(value: Ref<'_>) -> Option<Time> {
        value.as_str()?.parse().ok().map(Time)
    }
    fn write(&self) -> Option<Value> {
        Some(Value::from(self.0.to_string()))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

impl Default for IntOrString {
    fn default() -> IntOrString {
        IntOrString::Int(0)
    }
}

impl Field for IntOrString {
    fn read(value: Ref<'_>) -> Option<IntOrString> {
        i32::read(value).map(IntOrString::Int).or_else(|| String::read(value).map(IntOrString::String))
    }
    fn write(&self) -> Option<Value> {
        match self {
            IntOrString::Int(number) => number.write(),
            IntOrString::String(text) => text.write(),
        }
    }
}

/// A metav1.LabelSelector, or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector(pub Result<Option<LabelSelector>, String>);

impl Field for Selector {
    fn read(value: Ref<'_>) -> Option<Selector> {
        Some(Selector(LabelSelector::from_ref(value)))
    }
    fn write(&self) -> Option<Value> {
        None
    }
}
