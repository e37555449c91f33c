//! `json!`: a tree as its JSON is written, with expressions for values and names.
use super::{Map, Name, Number, Text, Value};
use std::borrow::Cow;

/// What may stand for a value in `json!`, by reference.
pub trait AsValue {
    fn as_value(&self) -> Value;
}

macro_rules! by_clone {
    ($($type:ty)*) => {$(
        impl AsValue for $type {
            fn as_value(&self) -> Value {
                Value::from(self.clone())
            }
        }
    )*};
}
by_clone! { () bool i8 i16 i32 i64 isize u8 u16 u32 u64 usize f64 Number Text Name Map super::List }

impl AsValue for Value {
    fn as_value(&self) -> Value {
        self.clone()
    }
}
impl AsValue for serde_json::Value {
    fn as_value(&self) -> Value {
        Value::from(self.clone())
    }
}
impl AsValue for str {
    fn as_value(&self) -> Value {
        self.into()
    }
}
impl AsValue for String {
    fn as_value(&self) -> Value {
        self.as_str().into()
    }
}
impl AsValue for Cow<'_, str> {
    fn as_value(&self) -> Value {
        Value::from(&**self)
    }
}
impl<T: AsValue + ?Sized> AsValue for &T {
    fn as_value(&self) -> Value {
        T::as_value(self)
    }
}
impl<T: AsValue + ?Sized> AsValue for Box<T> {
    fn as_value(&self) -> Value {
        T::as_value(self)
    }
}
impl<T: AsValue + ?Sized> AsValue for std::sync::Arc<T> {
    fn as_value(&self) -> Value {
        T::as_value(self)
    }
}
impl<T: AsValue> AsValue for Option<T> {
    fn as_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::as_value)
    }
}
impl<T: AsValue> AsValue for [T] {
    fn as_value(&self) -> Value {
        self.iter().map(T::as_value).collect()
    }
}
impl<T: AsValue, const N: usize> AsValue for [T; N] {
    fn as_value(&self) -> Value {
        self.as_slice().as_value()
    }
}
impl<T: AsValue> AsValue for Vec<T> {
    fn as_value(&self) -> Value {
        self.as_slice().as_value()
    }
}
impl<T: AsValue> AsValue for std::collections::BTreeSet<T> {
    fn as_value(&self) -> Value {
        self.iter().map(T::as_value).collect()
    }
}
impl<K: AsRef<str>, T: AsValue> AsValue for std::collections::BTreeMap<K, T> {
    fn as_value(&self) -> Value {
        self.iter().map(|(name, value)| (name.as_ref(), value.as_value())).collect()
    }
}

/// `json!({"name": name, "ports": [80, port], (key): null})`
#[macro_export]
macro_rules! json {
    (null) => { $crate::Value::Null };
    ([$($all:tt)*]) => { $crate::json!(@list [] $($all)*) };
    ({$($all:tt)*}) => {{
        #[allow(unused_mut)]
        let mut object = $crate::Map::new();
        $crate::json!(@map object $($all)*);
        $crate::Value::Object(object)
    }};

    (@list [$($done:expr,)*]) => { $crate::Value::Array(::std::vec![$($done),*].into()) };
    (@list [$($done:expr,)*] null $(, $($rest:tt)*)?) => {
        $crate::json!(@list [$($done,)* $crate::Value::Null,] $($($rest)*)?)
    };
    (@list [$($done:expr,)*] [$($inner:tt)*] $(, $($rest:tt)*)?) => {
        $crate::json!(@list [$($done,)* $crate::json!([$($inner)*]),] $($($rest)*)?)
    };
    (@list [$($done:expr,)*] {$($inner:tt)*} $(, $($rest:tt)*)?) => {
        $crate::json!(@list [$($done,)* $crate::json!({$($inner)*}),] $($($rest)*)?)
    };
    (@list [$($done:expr,)*] $next:expr $(, $($rest:tt)*)?) => {
        $crate::json!(@list [$($done,)* $crate::AsValue::as_value(&$next),] $($($rest)*)?)
    };

    (@map $map:ident) => {};
    (@map $map:ident $key:tt : null $(, $($rest:tt)*)?) => {
        $map.insert($crate::Name::from($key), $crate::Value::Null);
        $crate::json!(@map $map $($($rest)*)?);
    };
    (@map $map:ident $key:tt : [$($inner:tt)*] $(, $($rest:tt)*)?) => {
        $map.insert($crate::Name::from($key), $crate::json!([$($inner)*]));
        $crate::json!(@map $map $($($rest)*)?);
    };
    (@map $map:ident $key:tt : {$($inner:tt)*} $(, $($rest:tt)*)?) => {
        $map.insert($crate::Name::from($key), $crate::json!({$($inner)*}));
        $crate::json!(@map $map $($($rest)*)?);
    };
    (@map $map:ident $key:tt : $value:expr $(, $($rest:tt)*)?) => {
        $map.insert($crate::Name::from($key), $crate::AsValue::as_value(&$value));
        $crate::json!(@map $map $($($rest)*)?);
    };

    ($value:expr) => { $crate::AsValue::as_value(&$value) };
}
