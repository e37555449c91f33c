//! Values. What comes from JSON is read where it lies, by its type; nothing is converted before it is asked for.
use crate::{
    Error,
    budget::Budget,
    opaque::Opaque,
    time,
    types::{ListKind, ObjectType, Type},
};
use mote_schema::Value as Json;
use std::{cmp::Ordering, fmt, rc::Rc, sync::Arc};

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Rc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(time::Timestamp),
    List(Rc<Vec<Value<'a>>>),
    /// Sorted by key.
    Map(Rc<Vec<(Key<'a>, Value<'a>)>>),
    /// An array or object; its type is a list, map, object or dyn.
    Json(&'a Json, Type),
    /// Written in an expression: `Object{spec: ...}`; by JSON property.
    Object(Rc<Built<'a>>),
    Optional(Option<Rc<Value<'a>>>),
    Type(Type),
    Opaque(Rc<Opaque<'a>>),
    /// Fields are made when asked for.
    Lazy(Rc<dyn Lazy<'a> + 'a>),
}

#[derive(Debug)]
pub struct Built<'a> {
    pub ty: Arc<dyn ObjectType>,
    pub fields: Vec<(Box<str>, Value<'a>)>,
}

/// An object whose fields are computed: a policy's `variables`.
pub trait Lazy<'a> {
    /// None: there is no such field.
    fn field(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, Error>>;
}

impl fmt::Debug for dyn Lazy<'_> + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lazy")
    }
}

/// Borrowed from JSON or from the expression where possible.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// A map's key. Numbers of equal value are one key whatever their type.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Number(i128),
    String(Text<'a>),
}

impl Key<'_> {
    fn rank(&self) -> u8 {
        match self {
            Key::Bool(_) => 0,
            Key::Number(_) => 1,
            Key::String(_) => 2,
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Key::Bool(a), Key::Bool(b)) => a.cmp(b),
            (Key::Number(a), Key::Number(b)) => a.cmp(b),
            (Key::String(a), Key::String(b)) => (**a).cmp(&**b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }
}
impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Key<'_> {}

impl<'a> Key<'a> {
    /// None: no map has such a key.
    pub fn of(value: &Value<'a>) -> Option<Key<'a>> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(i) => Key::Number((*i).into()),
            Value::Uint(u) => Key::Number((*u).into()),
            Value::Double(d) if d.fract() == 0.0 && d.abs() < 1e19 => Key::Number(*d as i128),
            Value::String(text) => Key::String(text.clone()),
            _ => return None,
        })
    }
    pub fn to_value(&self) -> Value<'a> {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Number(n) => i64::try_from(*n).map_or_else(|_| Value::Uint(*n as u64), Value::Int),
            Key::String(text) => Value::String(text.clone()),
        }
    }
}

impl<'a> Value<'a> {
    /// `json` read by its type. Only strings with a format can be wrong.
    pub fn from_json(json: &'a Json, ty: &Type) -> Result<Value<'a>, Error> {
        Ok(match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(number) => match (number.as_i64(), ty) {
                (Some(int), Type::Double) => Value::Double(int as f64),
                (Some(int), _) => Value::Int(int),
                (None, Type::Int) => match number.as_f64() {
                    Some(double) if double.fract() == 0.0 && double.abs() < 9.3e18 => Value::Int(double as i64),
                    _ => return Err(Error::new("invalid data, expected int, got float64")),
                },
                (None, _) => Value::Double(number.as_f64().unwrap_or(f64::INFINITY)),
            },
            Json::String(text) => match ty {
                Type::Bytes => {
                    let wrong = |error| Error::new(format!("Invalid byte formatted string {text}: {error}"));
                    Value::Bytes(crate::ops::strings::decode_base64(text).map_err(wrong)?.into())
                }
                Type::Duration => {
                    let wrong = || Error::new(format!("Invalid duration {text}: unable to parse"));
                    Value::Duration(time::parse_format_duration(text).ok_or_else(wrong)?)
                }
                Type::Timestamp => {
                    let wrong = || Error::new(format!("Invalid date-time formatted string {text}"));
                    Value::Timestamp(time::parse_format_time(text).ok_or_else(wrong)?)
                }
                _ => Value::String(Text::Borrowed(text)),
            },
            Json::Array(_) | Json::Object(_) => Value::Json(json, ty.clone()),
        })
    }

    pub fn string(text: impl Into<Rc<str>>) -> Value<'a> {
        Value::String(Text::Shared(text.into()))
    }
    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(Rc::new(items))
    }
    pub fn opaque(opaque: Opaque<'a>) -> Value<'a> {
        Value::Opaque(Rc::new(opaque))
    }
    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Rc::new(value)))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The type an expression sees with `type(x)`.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Duration(_) => Type::Duration,
            Value::Timestamp(_) => Type::Timestamp,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Json(Json::Array(_), _) => Type::list(Type::Dyn),
            Value::Json(_, ty @ Type::Object(_)) => ty.clone(),
            Value::Json(..) => Type::map(Type::Dyn, Type::Dyn),
            Value::Object(built) => Type::Object(built.ty.clone()),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Opaque(opaque) => Type::Opaque(opaque.type_name()),
            Value::Lazy(_) => Type::Dyn,
        }
    }

    /// The number of items of a list.
    pub fn list_len(&self) -> Option<usize> {
        match self {
            Value::List(items) => Some(items.len()),
            Value::Json(Json::Array(items), _) => Some(items.len()),
            _ => None,
        }
    }
    pub fn list_get(&self, at: usize) -> Option<Result<Value<'a>, Error>> {
        match self {
            Value::List(items) => items.get(at).cloned().map(Ok),
            Value::Json(Json::Array(items), ty) => Some(Value::from_json(items.get(at)?, item_type(ty))),
            _ => None,
        }
    }
    /// All items; None when it is no list.
    pub fn items(&self) -> Option<impl Iterator<Item = Result<Value<'a>, Error>> + '_> {
        let length = self.list_len()?;
        Some((0..length).filter_map(|at| self.list_get(at)))
    }
    pub(crate) fn list_kind(&self) -> &ListKind {
        match self {
            Value::Json(_, Type::List(list)) => &list.kind,
            _ => &ListKind::Atomic,
        }
    }

    /// The number of entries of a map (or fields of an object that are there).
    pub fn map_len(&self) -> Option<usize> {
        match self {
            Value::Map(entries) => Some(entries.len()),
            Value::Json(Json::Object(fields), _) => Some(fields.len()),
            _ => None,
        }
    }
    /// None: it is no map.
    pub fn map_get(&self, key: &Value<'a>) -> Option<Option<Result<Value<'a>, Error>>> {
        Some(match self {
            Value::Map(entries) => Key::of(key).and_then(|key| {
                let at = entries.binary_search_by(|(k, _)| k.cmp(&key)).ok()?;
                entries.get(at).map(|(_, value)| Ok(value.clone()))
            }),
            Value::Json(Json::Object(fields), ty) if !matches!(ty, Type::Object(_)) => {
                key.as_str().and_then(|key| fields.get(key)).map(|value| Value::from_json(value, value_type(ty)))
            }
            _ => return None,
        })
    }
    /// The keys in order; None when it is no map.
    pub fn keys(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Value::Map(entries) => Some(entries.iter().map(|(key, _)| key.to_value()).collect()),
            Value::Json(Json::Object(fields), ty) if !matches!(ty, Type::Object(_)) => {
                Some(fields.keys().map(|key| Value::String(Text::Borrowed(key))).collect())
            }
            _ => None,
        }
    }

    /// `self.name`: None when there is no such field. Lists refuse names; what else has no fields has none of this name.
    pub fn field(&self, name: &str, budget: &mut Budget) -> Result<Option<Value<'a>>, Error> {
        match self {
            Value::Json(Json::Object(fields), Type::Object(object)) => {
                let Some(field) = object.field(name) else { return Ok(None) };
                // A null is no value of a field.
                let found = fields.get(&field.property).filter(|value| !value.is_null());
                found.map(|value| Value::from_json(value, &field.slot.ty)).transpose()
            }
            Value::Json(Json::Object(fields), ty) => {
                fields.get(name).map(|value| Value::from_json(value, value_type(ty))).transpose()
            }
            Value::Map(entries) => {
                let key = Key::String(Text::Borrowed(name));
                let at = entries.binary_search_by(|(k, _)| k.cmp(&key)).ok();
                Ok(at.and_then(|at| entries.get(at)).map(|(_, value)| value.clone()))
            }
            Value::Object(built) => {
                let Some(field) = built.ty.field(name) else { return Ok(None) };
                let found = built.fields.iter().find(|(property, _)| **property == *field.property);
                Ok(found.map(|(_, value)| value.clone()))
            }
            Value::Lazy(lazy) => lazy.field(name, budget).transpose(),
            other if other.list_len().is_some() => Err(Error::new("unsupported index type 'string' in list")),
            _ => Ok(None),
        }
    }

    /// The JSON of the value, for results that become part of an object. Errors are for what has none.
    pub fn to_json(&self) -> Result<Json, Error> {
        let number = |double| mote_schema::Number::from_f64(double).map_or(Json::Null, Json::Number);
        Ok(match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(int) => Json::from(*int),
            Value::Uint(uint) => Json::from(*uint),
            Value::Double(double) => number(*double),
            Value::String(text) => Json::String(text.to_string().into()),
            Value::Bytes(bytes) => Json::String(crate::ops::strings::encode_base64(bytes).into()),
            Value::Duration(nanos) => Json::String(time::format_duration_seconds(*nanos).into()),
            Value::Timestamp(at) => Json::String(at.to_string().into()),
            Value::List(items) => Json::Array(items.iter().map(Value::to_json).collect::<Result<_, _>>()?),
            Value::Map(entries) => {
                let entry = |(key, value): &(Key<'a>, Value<'a>)| match key {
                    Key::String(text) => Ok((text.to_string(), value.to_json()?)),
                    _ => Err(Error::new("map keys must be strings")),
                };
                Json::Object(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Value::Json(json, _) => (*json).clone(),
            Value::Object(built) => {
                let fields = built.fields.iter().map(|(name, value)| Ok((name.to_string(), value.to_json()?)));
                Json::Object(fields.collect::<Result<_, Error>>()?)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Type(ty) => Json::String(ty.to_string().into()),
            Value::Opaque(opaque) => Json::String(opaque.to_string().into()),
            Value::Lazy(_) => return Err(Error::new("the value has no JSON form")),
        })
    }
}

pub(crate) fn item_type(ty: &Type) -> &Type {
    match ty {
        Type::List(list) => &list.item.ty,
        _ => &Type::Dyn,
    }
}

pub(crate) fn value_type(ty: &Type) -> &Type {
    match ty {
        Type::Map(map) => &map.value.ty,
        _ => &Type::Dyn,
    }
}

/// The order of two numbers of any types; None when one is NaN or no number.
pub(crate) fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let whole = |value: &Value<'_>| match value {
        Value::Int(int) => Some(i128::from(*int)),
        Value::Uint(uint) => Some(i128::from(*uint)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => Some(compare_double(*a, whole(b)?)?),
        (a, Value::Double(b)) => Some(compare_double(*b, whole(a)?)?.reverse()),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

fn compare_double(double: f64, whole: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double.abs() >= 1e20 {
        return Some(if double > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let floor = double.floor();
    Some((floor as i128).cmp(&whole).then(if double > floor { Ordering::Greater } else { Ordering::Equal }))
}

/// CEL's `==`: never an error between values of different kinds.
pub fn equal<'a>(a: &Value<'a>, b: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    budget.work(1)?;
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => {
            budget.text_work(a.len().min(b.len()))?;
            **a == **b
        }
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => same_runtime_type(a, b),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b, budget)?,
            (a, b) => a.is_none() == b.is_none(),
        },
        (Value::Opaque(a), Value::Opaque(b)) => a.equals(b),
        (Value::Object(_), _) | (_, Value::Object(_)) => equal_objects(a, b, budget)?,
        (Value::Json(Json::Object(x), Type::Object(_)), Value::Json(Json::Object(y), Type::Object(_))) => {
            equal_fields(a, x, b, y, budget)?
        }
        _ if a.list_len().is_some() && b.list_len().is_some() => equal_lists(a, b, budget)?,
        _ if a.map_len().is_some() && b.map_len().is_some() => equal_maps(a, b, budget)?,
        _ => compare_numbers(a, b) == Some(Ordering::Equal),
    })
}

/// `type(x) == list` whatever the list holds.
fn same_runtime_type(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Object(a), Type::Object(b)) => a.name() == b.name(),
        (Type::Opaque(a), Type::Opaque(b)) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

fn equal_lists<'a>(a: &Value<'a>, b: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    let (length, other) = (a.list_len().unwrap_or(0), b.list_len().unwrap_or(0));
    if length != other {
        return Ok(false);
    }
    let get = |list: &Value<'a>, at| list.list_get(at).unwrap_or(Ok(Value::Null));
    let kind = match a.list_kind() {
        ListKind::Atomic => b.list_kind(),
        kind => kind,
    };
    for at in 0..length {
        let item = get(a, at)?;
        let found = match kind {
            ListKind::Atomic => equal(&item, &get(b, at)?, budget)?,
            // Sets and maps have no order.
            ListKind::Set => contains(b, &item, budget)?,
            ListKind::Map(keys) => match find_by_keys(b, &item, keys, budget)? {
                Some(other) => equal(&item, &other, budget)?,
                None => false,
            },
        };
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a list has an equal item.
pub fn contains<'a>(list: &Value<'a>, item: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    for at in 0..list.list_len().unwrap_or(0) {
        if let Some(other) = list.list_get(at)
            && equal(&other?, item, budget)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The item of a list of type map that has the same keys.
pub(crate) fn find_by_keys<'a>(
    list: &Value<'a>,
    item: &Value<'a>,
    keys: &[Box<str>],
    budget: &mut Budget,
) -> Result<Option<Value<'a>>, Error> {
    let raw = |value: &Value<'a>| match value {
        Value::Json(json @ Json::Object(_), _) => Some(*json),
        _ => None,
    };
    let Some(wanted) = raw(item) else { return Ok(None) };
    for other in list.items().into_iter().flatten() {
        budget.work(keys.len() + 1)?;
        let other = other?;
        if raw(&other).is_some_and(|other| keys.iter().all(|key| other.get(&**key) == wanted.get(&**key))) {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

fn equal_maps<'a>(a: &Value<'a>, b: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    if a.map_len() != b.map_len() {
        return Ok(false);
    }
    let (Some(keys), true) = (a.keys(), b.keys().is_some()) else { return Ok(false) };
    for key in keys {
        let (Some(Some(x)), Some(Some(y))) = (a.map_get(&key), b.map_get(&key)) else { return Ok(false) };
        if !equal(&x?, &y?, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

type JsonMap = mote_schema::Map;

/// Two JSON objects by the fields their types know.
fn equal_fields<'a>(
    a: &Value<'a>,
    x: &'a JsonMap,
    b: &Value<'a>,
    y: &'a JsonMap,
    budget: &mut Budget,
) -> Result<bool, Error> {
    let (Value::Json(_, Type::Object(ta)), Value::Json(_, Type::Object(tb))) = (a, b) else { return Ok(false) };
    let absent = |json: &'a JsonMap, name: &str| json.get(name).is_none();
    for (name, value) in x {
        let Some(field) = ta.property(name) else { continue };
        let (Some(other), Some(other_field)) = (y.get(name), tb.property(name)) else { return Ok(false) };
        if !equal(&Value::from_json(value, &field.slot.ty)?, &Value::from_json(other, &other_field.slot.ty)?, budget)? {
            return Ok(false);
        }
    }
    Ok(y.keys().all(|name| tb.property(name).is_none() || !absent(x, name)))
}

fn equal_objects<'a>(a: &Value<'a>, b: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    let (Value::Object(a), Value::Object(b)) = (a, b) else { return Ok(false) };
    if a.ty.name() != b.ty.name() || a.fields.len() != b.fields.len() {
        return Ok(false);
    }
    for (name, value) in &a.fields {
        match b.fields.iter().find(|(other, _)| other == name) {
            Some((_, other)) if equal(value, other, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
