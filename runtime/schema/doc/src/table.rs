//! What a field table is: every type of every kind as plain numbers. Built-in types are one static `Table`, generated;
//! a CustomResourceDefinition compiles into a `Table` of its own, which the same code reads.
//!
//! Types, fields and texts refer to each other by index, so the built-in table is read-only data without relocations.
//! Invariant: the fields of one type lie together, sorted by JSON name.
use crate::doc::names;
use std::borrow::Cow;

/// Index into `Table::types`.
pub type TypeId = u16;

/// A field's or element's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Bool,
    Int32,
    Int64,
    Double,
    String,
    /// base64 in JSON.
    Bytes,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// `metav1.Duration`, a Go duration string.
    Duration,
    Quantity,
    IntOrString,
    /// Any JSON (RawExtension, JSON, JSONSchemaPropsOrBool, ...): kept as it is.
    Any,
    Object(TypeId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    One,
    List,
    /// string keys
    Map,
    /// string keys, each with a list of the shape (`UserInfo.extra`)
    MapOfLists,
}

/// `+listType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// What becomes of a zero value: Go's pointers, `omitempty` and `omitzero` as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A zero ("", 0, false, [], {}) is left out.
    Omit,
    /// An explicit zero differs from absence and is kept.
    Pointer,
    /// The same, and absence is written as null.
    Null,
    /// A zero is written, also when the client left the field out. (A list or map that is absent stays absent.)
    Always,
}

#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Index of the JSON name: `Table::name`.
    pub name: u16,
    pub shape: Shape,
    pub container: Container,
    pub list_type: Option<ListType>,
    /// Protobuf field number; 0 when not known.
    pub number: u16,
    /// Protobuf number of the embedded message that JSON inlines (Volume's `volumeSource`); 0 for none. A message embedded in that
    /// one has its number in the upper four bits.
    pub inline: u8,
    /// The API documents it as required (OpenAPI `required`).
    pub required: bool,
    /// Strategic merge: `+patchStrategy` holds merge / retainKeys.
    pub patch_merge: bool,
    pub patch_retain_keys: bool,
    /// Strategic merge: the value is replaced whole.
    pub patch_replace: bool,
    /// `+structType=atomic` / `+mapType=atomic`
    pub atomic: bool,
    pub presence: Presence,
    /// Index into `Table::extras`; 0 for none.
    pub extra: u16,
}

/// What few fields have: numbers of texts, 0 for none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// `+listMapKey`s, joined by commas.
    pub list_keys: u16,
    /// Strategic merge: `+patchMergeKey`.
    pub merge_key: u16,
    /// JSON text.
    pub default: u16,
    /// `+enum`, joined by commas.
    pub values: u16,
    /// The named Go type of a scalar: "v1.Protocol".
    pub go_type: u16,
}

#[derive(Clone, Copy, Debug)]
pub struct Type {
    /// Text: "io.k8s.api.apps.v1".
    pub package: u16,
    /// Text: "DeploymentSpec".
    pub name: u16,
    /// First field and how many.
    pub first: u16,
    pub count: u16,
}

/// Where a table's field names lie.
#[derive(Debug)]
pub enum Names {
    /// The dictionary of `Doc`: ids agree with the stored bytes.
    Dictionary,
    Own(Vec<Box<str>>),
}

#[derive(Debug)]
pub struct Table {
    pub types: Cow<'static, [Type]>,
    pub fields: Cow<'static, [Field]>,
    pub extras: Cow<'static, [Extra]>,
    pub names: Names,
    /// All texts, one after the other.
    pub texts: Cow<'static, str>,
    /// Where each text ends.
    pub text_ends: Cow<'static, [u16]>,
}

impl Table {
    /// "" for a number that is not there.
    pub fn text(&self, number: u16) -> &str {
        let number = usize::from(number);
        let end = self.text_ends.get(number).copied().unwrap_or(0);
        let start = if number == 0 { 0 } else { self.text_ends.get(number - 1).copied().unwrap_or(end) };
        self.texts.get(start.into()..end.into()).unwrap_or("")
    }

    /// A type's fields, sorted by JSON name.
    pub fn fields(&self, id: TypeId) -> &[Field] {
        let Some(found) = self.types.get(usize::from(id)) else { return &[] };
        let first = usize::from(found.first);
        self.fields.get(first..first + usize::from(found.count)).unwrap_or(&[])
    }

    pub fn field(&self, id: TypeId, json_name: &str) -> Option<&Field> {
        let fields = self.fields(id);
        fields.binary_search_by(|f| self.name(f).cmp(json_name)).ok().map(|at| &fields[at])
    }

    /// The field at a dotted path of objects, lists and maps being passed through: "spec.template.spec.containers.image".
    pub fn at(&self, root: TypeId, path: &str) -> Option<&Field> {
        let mut names = path.split('.');
        let mut field = self.field(root, names.next()?)?;
        for name in names {
            let Shape::Object(id) = field.shape else { return None };
            field = self.field(id, name)?;
        }
        Some(field)
    }

    /// The JSON name.
    pub fn name(&self, field: &Field) -> &str {
        match &self.names {
            Names::Dictionary => names::name(field.name).unwrap_or(""),
            Names::Own(list) => list.get(usize::from(field.name)).map_or("", |n| n),
        }
    }

    /// "DeploymentSpec"
    pub fn type_name(&self, id: TypeId) -> &str {
        self.types.get(usize::from(id)).map_or("", |t| self.text(t.name))
    }

    /// "io.k8s.api.apps.v1"
    pub fn package(&self, id: TypeId) -> &str {
        self.types.get(usize::from(id)).map_or("", |t| self.text(t.package))
    }

    /// The OpenAPI definition name: "io.k8s.api.apps.v1.DeploymentSpec".
    pub fn definition(&self, id: TypeId) -> String {
        format!("{}.{}", self.package(id), self.type_name(id))
    }

    /// As Go prints the type: "v1.DeploymentSpec".
    pub fn go_name(&self, id: TypeId) -> String {
        format!("{}.{}", self.package(id).rsplit('.').next().unwrap_or(""), self.type_name(id))
    }

    pub fn type_by_definition(&self, definition: &str) -> Option<TypeId> {
        let (package, name) = definition.rsplit_once('.')?;
        let at = self.types.iter().position(|t| self.text(t.name) == name && self.text(t.package) == package)?;
        TypeId::try_from(at).ok()
    }

    fn extra(&self, field: &Field) -> Extra {
        self.extras.get(usize::from(field.extra)).copied().unwrap_or_default()
    }

    /// Keys of a `Map` list, in the order upstream names them.
    pub fn list_keys(&self, field: &Field) -> impl Iterator<Item = &str> + Clone {
        words(self.text(self.extra(field).list_keys))
    }

    /// Strategic merge: the key that tells elements apart; "" for none.
    pub fn merge_key(&self, field: &Field) -> &str {
        self.text(self.extra(field).merge_key)
    }

    /// JSON text; "" for none.
    pub fn default(&self, field: &Field) -> &str {
        self.text(self.extra(field).default)
    }

    /// The closed set of values, when there is one.
    pub fn values(&self, field: &Field) -> impl Iterator<Item = &str> + Clone {
        words(self.text(self.extra(field).values))
    }

    /// The Go type of the field as decoding errors print it: "int32", "[]v1.Container", "map[string]string", "v1.Protocol".
    pub fn go_type(&self, field: &Field) -> String {
        let prefix = match field.container {
            Container::One => "",
            Container::List => "[]",
            Container::Map => "map[string]",
            Container::MapOfLists => "map[string][]",
        };
        prefix.to_owned() + &self.go_element(field)
    }

    /// The Go type of one element of the field.
    pub fn go_element(&self, field: &Field) -> String {
        let named = self.text(self.extra(field).go_type);
        if !named.is_empty() {
            return named.into();
        }
        match field.shape {
            Shape::Bool => "bool".into(),
            Shape::Int32 => "int32".into(),
            Shape::Int64 => "int64".into(),
            Shape::Double => "float64".into(),
            Shape::String => "string".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Time => "v1.Time".into(),
            Shape::MicroTime => "v1.MicroTime".into(),
            Shape::Duration => "v1.Duration".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::IntOrString => "intstr.IntOrString".into(),
            Shape::Any => "runtime.RawExtension".into(),
            Shape::Object(id) => self.go_name(id),
        }
    }
}

/// No word of an empty text.
fn words(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(',').filter(|w| !w.is_empty())
}
