//! The functions of Kubernetes' CEL environment (apiserver/pkg/cel/environment/base.go, all that 1.36 has): a table of
//! names, what they take and give, and what they do. The checker reads the signatures, the evaluator calls the code;
//! nothing else names a function, but the operators that are evaluated in part (`&&`, `||`, `?:`, indexing, `or`).
use crate::{Error, budget::Budget, regex::Regexes, types::Type, value::Value};
use mote_schema::Order as _;
use std::sync::OnceLock;

mod arithmetic;
mod compare;
mod convert;
mod format;
mod kube;
mod lists;
mod net;
pub(crate) mod strings;
mod times;

/// What a function may use beside its arguments.
pub struct Context<'c> {
    pub budget: &'c mut Budget,
    pub regexes: &'c mut Regexes,
}

pub type Outcome<'a> = Result<Value<'a>, Error>;
pub type Op = for<'a> fn(&mut Context<'_>, &[Value<'a>]) -> Outcome<'a>;

/// One name. `signatures` are separated by blanks: a leading dot for methods, types in a letter each (see `read_type`), a
/// colon, the result's type.
pub struct Function {
    pub name: &'static str,
    pub signatures: &'static str,
    pub run: Op,
}

pub struct Declared {
    pub name: &'static str,
    pub run: Op,
    pub overloads: Vec<Overload>,
}

pub struct Overload {
    pub is_method: bool,
    /// The target of a method first.
    pub args: Vec<Type>,
    pub result: Type,
    pub params: u32,
}

const TABLES: [&[Function]; 9] = [
    compare::FUNCTIONS,
    arithmetic::FUNCTIONS,
    convert::FUNCTIONS,
    strings::FUNCTIONS,
    format::FUNCTIONS,
    lists::FUNCTIONS,
    times::FUNCTIONS,
    net::FUNCTIONS,
    kube::FUNCTIONS,
];

/// Sorted by name.
pub fn all() -> &'static [Declared] {
    static ALL: OnceLock<Vec<Declared>> = OnceLock::new();
    ALL.get_or_init(|| {
        let declare = |function: &Function| Declared {
            name: function.name,
            run: function.run,
            overloads: function.signatures.split(' ').map(read_overload).collect(),
        };
        let mut all: Vec<Declared> = TABLES.iter().flat_map(|table| table.iter().map(declare)).collect();
        all.order_by(|a, b| a.name.cmp(b.name));
        all
    })
}

/// The place of a function in `all`.
pub fn find(name: &str) -> Option<usize> {
    all().binary_search_by(|function| function.name.cmp(name)).ok()
}

fn read_overload(signature: &str) -> Overload {
    let (is_method, signature) = signature.strip_prefix('.').map_or((false, signature), |rest| (true, rest));
    let mut letters = signature.chars();
    let mut args = Vec::new();
    let mut result = Type::Dyn;
    let mut params = 0;
    while let Some(ty) = read_type(&mut letters, &mut params) {
        args.push(ty);
    }
    if let Some(ty) = read_type(&mut letters, &mut params) {
        result = ty;
    }
    Overload { is_method, args, result, params }
}

/// None at the colon and at the end.
fn read_type(letters: &mut std::str::Chars<'_>, params: &mut u32) -> Option<Type> {
    let mut part = |letters: &mut std::str::Chars<'_>| read_type(letters, params).unwrap_or(Type::Dyn);
    Some(match letters.next()? {
        'D' => Type::Dyn,
        'n' => Type::Null,
        'b' => Type::Bool,
        'i' => Type::Int,
        'u' => Type::Uint,
        'd' => Type::Double,
        's' => Type::String,
        'y' => Type::Bytes,
        'R' => Type::Duration,
        'T' => Type::Timestamp,
        'L' => Type::list(part(letters)),
        'M' => {
            let key = part(letters);
            Type::map(key, part(letters))
        }
        'O' => Type::optional(part(letters)),
        't' => Type::Type(Some(part(letters).into())),
        'A' => {
            *params = (*params).max(1);
            Type::Param(0)
        }
        'B' => {
            *params = 2;
            Type::Param(1)
        }
        'Q' => Type::Opaque("kubernetes.Quantity"),
        'U' => Type::Opaque("kubernetes.URL"),
        'V' => Type::Opaque("kubernetes.Semver"),
        'F' => Type::Opaque("kubernetes.NamedFormat"),
        'I' => Type::Opaque("net.IP"),
        'C' => Type::Opaque("net.CIDR"),
        'Z' => Type::Opaque("kubernetes.authorization.Authorizer"),
        'P' => Type::Opaque("kubernetes.authorization.PathCheck"),
        'G' => Type::Opaque("kubernetes.authorization.GroupCheck"),
        'K' => Type::Opaque("kubernetes.authorization.ResourceCheck"),
        'E' => Type::Opaque("kubernetes.authorization.Decision"),
        _ => return None,
    })
}

/// The types an expression may name.
pub fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "string" => Type::String,
        "null_type" => Type::Null,
        "type" => Type::Type(None),
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "optional_type" => Type::optional(Type::Dyn),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "net.IP" => Type::Opaque("net.IP"),
        "net.CIDR" => Type::Opaque("net.CIDR"),
        "kubernetes.Quantity" => Type::Opaque("kubernetes.Quantity"),
        "kubernetes.URL" => Type::Opaque("kubernetes.URL"),
        "kubernetes.Semver" => Type::Opaque("kubernetes.Semver"),
        "kubernetes.NamedFormat" => Type::Opaque("kubernetes.NamedFormat"),
        _ => return None,
    })
}

pub use compare::size_of;
pub use format::{check_format, show};
pub use kube::format_pattern_size;
pub use lists::insert;

fn wrong<'a>() -> Outcome<'a> {
    Err(Error::no_overload())
}
