//! The field table: every type of every kind as plain numbers. Built-in types are one static `Table`,
//! generated; a CustomResourceDefinition compiles into a `Table` of its own.

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
}

/// `+listType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

#[derive(Clone, Debug)]
pub struct Field {
    /// Index into `Table::names`.
    pub name: u16,
    pub shape: Shape,
    pub container: Container,
    /// Protobuf field number; 0 when not known.
    pub number: u16,
    /// The API documents it as required (OpenAPI `required`).
    pub required: bool,
    pub list_type: Option<ListType>,
    /// `+listMapKey`s, joined by commas in `Table::names`; 0xffff for none.
    pub list_keys: u16,
    /// Strategic merge: `+patchMergeKey`; 0xffff for none.
    pub merge_key: u16,
    /// Strategic merge: `+patchStrategy` holds merge / retainKeys.
    pub patch_merge: bool,
    pub patch_retain_keys: bool,
    /// `+structType=atomic` / `+mapType=atomic`
    pub atomic: bool,
    /// JSON text of the default in `Table::names`; 0xffff for none.
    pub default: u16,
}
