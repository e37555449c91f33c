//! CEL's types, as the checker sees them and as JSON is read by them. A type says what a value may be; a `Slot` adds how
//! large it may grow, which only cost estimation asks for.
use crate::escape::escape;
use mote_schema::Order as _;
use std::{fmt, sync::Arc};

/// The largest number of elements when nothing bounds a value.
pub const UNBOUNDED: u64 = u64::MAX;

#[derive(Clone, Debug)]
pub enum Type {
    Dyn,
    /// What an expression that did not check has; agrees with everything, so that one mistake is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<ListType>),
    Map(Arc<MapType>),
    Object(Arc<dyn ObjectType>),
    /// A library's own type ("kubernetes.Quantity", "net.IP"); compared by name.
    Opaque(&'static str),
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A type variable of a function's signature or of one expression.
    Param(u32),
}

/// A type and the most elements (characters, bytes, items, entries) a value of it may have.
#[derive(Clone, Debug)]
pub struct Slot {
    pub ty: Type,
    pub max_elements: u64,
}

#[derive(Clone, Debug)]
pub struct ListType {
    pub item: Slot,
    pub kind: ListKind,
}

/// `x-kubernetes-list-type`: decides equality and `+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    /// By these keys (their JSON names).
    Map(Box<[Box<str>]>),
}

#[derive(Clone, Debug)]
pub struct MapType {
    pub key: Slot,
    pub value: Slot,
}

/// An object with known fields.
pub trait ObjectType: Send + Sync + fmt::Debug {
    /// As error messages and type equality name it.
    fn name(&self) -> &str;
    /// By the name an expression uses (escaped where the property's is no identifier).
    fn field(&self, name: &str) -> Option<Field>;
    /// By the JSON property's name.
    fn property(&self, name: &str) -> Option<Field>;
    /// Whether an expression may write `Name{field: value}`.
    fn is_constructible(&self) -> bool {
        false
    }
}

#[derive(Clone, Debug)]
pub struct Field {
    /// The JSON property.
    pub property: Box<str>,
    pub slot: Slot,
}

/// An object type whose fields are listed: what a structural schema becomes.
#[derive(Debug)]
pub struct Fields {
    name: Box<str>,
    constructible: bool,
    /// Sorted by the name used in expressions.
    fields: Vec<(Box<str>, Field)>,
}

impl Fields {
    /// `fields` are JSON properties; those whose names cannot be escaped are left out.
    pub fn new(name: &str, fields: impl IntoIterator<Item = (String, Slot)>) -> Fields {
        let named = fields.into_iter().filter_map(|(property, slot)| {
            Some((escape(&property)?.into(), Field { property: property.into(), slot }))
        });
        let mut fields: Vec<(Box<str>, Field)> = named.collect();
        fields.order_by(|a, b| a.0.cmp(&b.0));
        Fields { name: name.into(), constructible: false, fields }
    }

    /// Expressions may write objects of this type.
    pub fn constructible(mut self) -> Fields {
        self.constructible = true;
        self
    }
}

impl ObjectType for Fields {
    fn name(&self) -> &str {
        &self.name
    }
    fn field(&self, name: &str) -> Option<Field> {
        let find = |name: &str| self.fields.binary_search_by(|(known, _)| (**known).cmp(name)).ok();
        // Reserved words are understood as they are, too.
        let at = find(name).or_else(|| find(&escape(name).filter(|escaped| escaped.len() == name.len() + 4)?))?;
        self.fields.get(at).map(|(_, field)| field.clone())
    }
    fn property(&self, name: &str) -> Option<Field> {
        self.fields.iter().find(|(_, f)| &*f.property == name).map(|(_, field)| field.clone())
    }
    fn is_constructible(&self) -> bool {
        self.constructible
    }
}

impl Slot {
    pub fn new(ty: Type, max_elements: u64) -> Slot {
        Slot { ty, max_elements }
    }
    /// Nothing is known about the size.
    pub fn unbounded(ty: Type) -> Slot {
        Slot { ty, max_elements: UNBOUNDED }
    }
}

impl From<Type> for Slot {
    fn from(ty: Type) -> Slot {
        Slot::unbounded(ty)
    }
}

impl Type {
    pub fn list(item: impl Into<Slot>) -> Type {
        Type::List(Arc::new(ListType { item: item.into(), kind: ListKind::Atomic }))
    }
    pub fn map(key: impl Into<Slot>, value: impl Into<Slot>) -> Type {
        Type::Map(Arc::new(MapType { key: key.into(), value: value.into() }))
    }
    pub fn object(object: impl ObjectType + 'static) -> Type {
        Type::Object(Arc::new(object))
    }
    pub fn optional(inner: Type) -> Type {
        Type::Optional(Arc::new(inner))
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }
    /// Of a size known when compiling.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
            Type::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }
    pub(crate) fn unwrap_optional(&self) -> (&Type, bool) {
        match self {
            Type::Optional(inner) => (inner, true),
            other => (other, false),
        }
    }

    /// Structural equality; objects and library types by name.
    pub fn same(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) => a.item.ty.same(&b.item.ty),
            (Type::Map(a), Type::Map(b)) => a.key.ty.same(&b.key.ty) && a.value.ty.same(&b.value.ty),
            (Type::Object(a), Type::Object(b)) => a.name() == b.name(),
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Optional(a), Type::Optional(b)) => a.same(b),
            (Type::Type(a), Type::Type(b)) => match (a, b) {
                (Some(a), Some(b)) => a.same(b),
                (a, b) => a.is_none() == b.is_none(),
            },
            (Type::Param(a), Type::Param(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }
}

/// As cel-go's checker/format.go prints types in errors.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Dyn => "dyn",
            Type::Error => "!error!",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "duration",
            Type::Timestamp => "timestamp",
            Type::Object(object) => object.name(),
            Type::Opaque(name) => name,
            Type::Type(None) => "type",
            Type::List(list) => return write!(f, "list({})", list.item.ty),
            Type::Map(map) => return write!(f, "map({}, {})", map.key.ty, map.value.ty),
            Type::Optional(inner) => return write!(f, "optional_type({inner})"),
            Type::Type(Some(inner)) => return write!(f, "type({inner})"),
            Type::Param(number) => return write!(f, "_var{number}"),
        })
    }
}

/// What type variables stand for. Checking one candidate works on the map itself and is undone by `rollback`.
#[derive(Default)]
pub(crate) struct Bindings {
    bound: Vec<Option<Type>>,
    undo: Vec<(u32, Option<Type>)>,
}

impl Bindings {
    pub fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Param(self.bound.len() as u32 - 1)
    }

    fn find(&self, ty: &Type) -> Option<&Type> {
        let Type::Param(number) = ty else { return None };
        self.bound.get(*number as usize)?.as_ref()
    }

    fn bind(&mut self, ty: &Type, to: Type) {
        if let Type::Param(number) = ty
            && let Some(slot) = self.bound.get_mut(*number as usize)
        {
            self.undo.push((*number, slot.replace(to)));
        }
    }

    pub fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        self.all_assignable(std::slice::from_ref(from), std::slice::from_ref(to))
    }

    /// Keeps what it bound only when every pair agrees.
    pub fn all_assignable(&mut self, from: &[Type], to: &[Type]) -> bool {
        self.undo.clear();
        if from.len() == to.len() && from.iter().zip(to).all(|(a, b)| self.unify(a, b)) {
            return true;
        }
        while let Some((number, old)) = self.undo.pop() {
            if let Some(slot) = self.bound.get_mut(number as usize) {
                *slot = old;
            }
        }
        false
    }

    /// cel-go's checker/types.go internalIsAssignable.
    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(_) = b {
            let (valid, known) = self.substitution(a, b);
            if valid || known {
                return valid;
            }
        }
        if let Type::Param(_) = a {
            return self.substitution(b, a).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Opaque(_) | Type::Optional(_) | Type::Object(_) | Type::Duration | Type::Timestamp
            ),
            (Type::List(a), Type::List(b)) => self.unify(&a.item.ty, &b.item.ty),
            (Type::Map(a), Type::Map(b)) => self.unify(&a.key.ty, &b.key.ty) && self.unify(&a.value.ty, &b.value.ty),
            (Type::Optional(a), Type::Optional(b)) => self.unify(a, b),
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a.same(b),
        }
    }

    /// Whether `param` (or what it stands for) may stand for `ty`, and whether it stood for something.
    fn substitution(&mut self, ty: &Type, param: &Type) -> (bool, bool) {
        if ty.same(param) {
            return (true, true);
        }
        if let Some(bound) = self.find(param).cloned() {
            if ty.same(&bound) {
                return (true, true);
            }
            if !self.unify(ty, &bound) {
                return (false, true);
            }
            let general = most_general(ty, &bound).clone();
            if !self.occurs(param, &general) {
                self.bind(param, general);
            }
            return (true, true);
        }
        if self.occurs(param, ty) {
            return (false, false);
        }
        self.bind(param, ty.clone());
        (true, false)
    }

    fn occurs(&self, param: &Type, within: &Type) -> bool {
        if param.same(within) {
            return true;
        }
        match within {
            Type::Param(_) => self.find(within).is_some_and(|bound| self.occurs(param, bound)),
            Type::List(list) => self.occurs(param, &list.item.ty),
            Type::Map(map) => self.occurs(param, &map.key.ty) || self.occurs(param, &map.value.ty),
            Type::Optional(inner) | Type::Type(Some(inner)) => self.occurs(param, inner),
            _ => false,
        }
    }

    /// The type with everything bound put in; `close` makes what is still free `dyn`.
    pub fn resolve(&self, ty: &Type, close: bool) -> Type {
        if let Some(bound) = self.find(ty) {
            return self.resolve(bound, close);
        }
        substitute(ty, &|number| if close { Type::Dyn } else { Type::Param(number) }, &|inner| {
            self.resolve(inner, close)
        })
    }
}

/// Rebuilds a type whose parts `part` may change; unchanged leaves are shared.
pub(crate) fn substitute(ty: &Type, param: &dyn Fn(u32) -> Type, part: &dyn Fn(&Type) -> Type) -> Type {
    match ty {
        Type::Param(number) => param(*number),
        Type::List(list) if has_param(&list.item.ty) => Type::List(Arc::new(ListType {
            item: Slot { ty: part(&list.item.ty), max_elements: list.item.max_elements },
            kind: list.kind.clone(),
        })),
        Type::Map(map) if has_param(&map.key.ty) || has_param(&map.value.ty) => Type::Map(Arc::new(MapType {
            key: Slot { ty: part(&map.key.ty), max_elements: map.key.max_elements },
            value: Slot { ty: part(&map.value.ty), max_elements: map.value.max_elements },
        })),
        Type::Optional(inner) => Type::Optional(Arc::new(part(inner))),
        Type::Type(Some(inner)) => Type::Type(Some(Arc::new(part(inner)))),
        other => other.clone(),
    }
}

fn has_param(ty: &Type) -> bool {
    match ty {
        Type::Param(_) => true,
        Type::List(list) => has_param(&list.item.ty),
        Type::Map(map) => has_param(&map.key.ty) || has_param(&map.value.ty),
        Type::Optional(inner) | Type::Type(Some(inner)) => has_param(inner),
        _ => false,
    }
}

/// Of two types that unify, the one that says less.
pub(crate) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if is_equal_or_less_specific(a, b) { a } else { b }
}

fn is_equal_or_less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) => is_equal_or_less_specific(&a.item.ty, &b.item.ty),
        (Type::Map(a), Type::Map(b)) => {
            is_equal_or_less_specific(&a.key.ty, &b.key.ty) && is_equal_or_less_specific(&a.value.ty, &b.value.ty)
        }
        (Type::Optional(a), Type::Optional(b)) => is_equal_or_less_specific(a, b),
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a.same(b),
    }
}
