//! What a place in an object may hold and how it merges, whatever table or schema says so: the types of structured-merge-diff,
//! read from the field table as kube-openapi's schemaconv makes them from upstream's OpenAPI.
use crate::Value;
use crate::{
    Kind,
    structural::{Additional, Schema},
    table::{BUILTIN, Container, Field, ListType, Presence, Shape, Table, TypeId},
};
use std::sync::OnceLock;

/// A type, by where it is found.
#[derive(Clone, Copy)]
pub struct TypeRef<'t> {
    table: &'t Table,
    at: At<'t>,
}

#[derive(Clone, Copy)]
pub enum At<'t> {
    Struct(TypeId),
    /// All of a field: its list or map too.
    Field(&'t Field),
    /// One element of the field's list or map.
    Element(&'t Field),
    /// The list that is an element of a map of lists.
    Inner(&'t Field),
    /// A place in a custom kind's schema. `preserves`: unknown fields stay, as something above it or itself says.
    Schema {
        schema: Schema<'t>,
        root: bool,
        preserves: bool,
    },
    /// Anything: maps by member, lists whole.
    Deduced,
    /// Anything, as one.
    Untyped,
    /// No such thing may be here.
    None,
}

/// What a value here may be; the first of map, scalar and list that is there decides where the value does not.
#[derive(Clone, Copy, Default)]
pub struct Atom<'t> {
    pub map: Option<MapType<'t>>,
    pub scalar: Option<Scalar>,
    pub list: Option<ListOf<'t>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

/// Where the named members of a map are.
#[derive(Clone, Copy)]
enum Fields<'t> {
    None,
    Table(&'t Table, TypeId),
    /// `root`: apiVersion, kind and metadata are there whatever the schema says.
    Schema {
        schema: Schema<'t>,
        root: bool,
        preserves: bool,
    },
}

#[derive(Clone, Copy)]
pub struct MapType<'t> {
    pub atomic: bool,
    fields: Fields<'t>,
    /// Of members that are no fields.
    pub element: TypeRef<'t>,
}

#[derive(Clone, Copy)]
enum Keys<'t> {
    None,
    Field(&'t Table, &'t Field),
    Schema(Schema<'t>),
}

#[derive(Clone, Copy)]
pub struct ListOf<'t> {
    pub kind: ListType,
    keys: Keys<'t>,
    pub element: TypeRef<'t>,
}

/// Structs that are one value wherever they stand (`+structType=atomic` on the type), with their packages.
const ATOMIC: [(&str, &str); 28] = [
    ("ConfigMapKeySelector", "io.k8s.api.core.v1"),
    ("CrossVersionObjectReference", "io.k8s.api.autoscaling.v1"),
    ("EndpointAddress", "io.k8s.api.core.v1"),
    ("EndpointPort", "io.k8s.api.core.v1"),
    ("EndpointPort", "io.k8s.api.discovery.v1"),
    ("FileKeySelector", "io.k8s.api.core.v1"),
    ("LabelSelector", "io.k8s.apimachinery.pkg.apis.meta.v1"),
    ("LocalObjectReference", "io.k8s.api.core.v1"),
    ("MatchResources", "io.k8s.api.admissionregistration.v1"),
    ("NamedRuleWithOperations", "io.k8s.api.admissionregistration.v1"),
    ("NodeSelector", "io.k8s.api.core.v1"),
    ("NodeSelectorTerm", "io.k8s.api.core.v1"),
    ("ObjectFieldSelector", "io.k8s.api.core.v1"),
    ("ObjectReference", "io.k8s.api.core.v1"),
    ("OwnerReference", "io.k8s.apimachinery.pkg.apis.meta.v1"),
    ("ParamKind", "io.k8s.api.admissionregistration.v1"),
    ("ParamRef", "io.k8s.api.admissionregistration.v1"),
    ("ResourceFieldSelector", "io.k8s.api.core.v1"),
    ("RoleRef", "io.k8s.api.rbac.v1"),
    ("ScopeSelector", "io.k8s.api.core.v1"),
    ("SecretKeySelector", "io.k8s.api.core.v1"),
    ("SecretReference", "io.k8s.api.core.v1"),
    ("ServiceBackendPort", "io.k8s.api.networking.v1"),
    ("Subject", "io.k8s.api.rbac.v1"),
    ("TopologySelectorTerm", "io.k8s.api.core.v1"),
    ("TypedLocalObjectReference", "io.k8s.api.core.v1"),
    ("Variable", "io.k8s.api.admissionregistration.v1"),
    ("Variable", "io.k8s.api.admissionregistration.v1beta1"),
];

/// Some type with apiVersion, kind and metadata.
static ANY_OBJECT: OnceLock<Option<TypeId>> = OnceLock::new();

/// The one field that is granular although its type is atomic (PersistentVolumeSpec).
const GRANULAR: &str = "claimRef";

pub fn is_atomic(table: &Table, id: TypeId) -> bool {
    let name = table.type_name(id);
    let first = ATOMIC.partition_point(|(atomic, _)| *atomic < name);
    ATOMIC[first..].iter().take_while(|(atomic, _)| *atomic == name).any(|(_, package)| *package == table.package(id))
}

impl<'t> TypeRef<'t> {
    /// The type of a kind's objects.
    pub fn of(kind: &'t Kind) -> TypeRef<'t> {
        let at = match kind.schema() {
            None => At::Struct(kind.root),
            Some(schema) if schema.place().is_map() => At::Schema { schema, root: true, preserves: false },
            Some(_) => At::Deduced,
        };
        TypeRef { table: kind.table(), at }
    }

    /// For objects of which nothing is known.
    pub fn deduced() -> TypeRef<'static> {
        TypeRef { table: BUILTIN, at: At::Deduced }
    }

    pub(super) fn at(self, at: At<'t>) -> TypeRef<'t> {
        TypeRef { at, ..self }
    }

    pub(super) fn is_none(self) -> bool {
        matches!(self.at, At::None)
    }

    pub fn resolve(self) -> Atom<'t> {
        match self.at {
            At::Struct(id) => {
                let atomic = is_atomic(self.table, id);
                self.map(atomic, Fields::Table(self.table, id), At::None)
            }
            At::Field(field) => self.field(field),
            At::Element(field) => self.shape(field),
            At::Inner(field) => {
                Atom { list: Some(self.list(ListType::Atomic, Keys::None, At::Element(field))), ..Atom::default() }
            }
            At::Deduced => self.any(false),
            At::Untyped => self.any(true),
            At::Schema { schema, root, preserves } => self.schema(schema, root, preserves),
            At::None => Atom::default(),
        }
    }

    fn map(self, atomic: bool, fields: Fields<'t>, element: At<'t>) -> Atom<'t> {
        Atom { map: Some(MapType { atomic, fields, element: self.at(element) }), ..Atom::default() }
    }

    fn list(self, kind: ListType, keys: Keys<'t>, element: At<'t>) -> ListOf<'t> {
        ListOf { kind, keys, element: self.at(element) }
    }

    /// As schemaconv reads what a CustomResourceDefinition publishes (kube-openapi/pkg/schemaconv/openapi.go).
    fn schema(self, schema: Schema<'t>, root: bool, preserves: bool) -> Atom<'t> {
        let preserves = preserves || schema.preserves_unknown();
        let below = |schema| At::Schema { schema, root: false, preserves };
        let map = || {
            let members = match schema.additional() {
                Additional::Of(schema) => below(schema),
                Additional::Any => At::Deduced,
                Additional::Unset if preserves || !schema.has_properties() => At::Deduced,
                Additional::Unset | Additional::No => At::None,
            };
            let root = root || schema.is_embedded();
            self.map(schema.is_atomic_map(), Fields::Schema { schema, root, preserves }, members)
        };
        let list = || {
            let kind = schema.list_type().unwrap_or(ListType::Atomic);
            self.list(kind, Keys::Schema(schema), schema.items().map_or(At::Untyped, below))
        };
        let scalar = |scalar| Atom { scalar: Some(scalar), ..Atom::default() };
        match schema.type_name() {
            "object" => map(),
            "array" => Atom { list: Some(list()), ..Atom::default() },
            "integer" | "number" => scalar(Scalar::Numeric),
            "boolean" => scalar(Scalar::Boolean),
            "string" if matches!(schema.place().get("format").str(), "" | "byte") => scalar(Scalar::String),
            "string" => scalar(Scalar::Untyped),
            _ => Atom { scalar: Some(Scalar::Untyped), list: Some(list()), ..map() },
        }
    }

    fn any(self, atomic: bool) -> Atom<'t> {
        let members = if atomic { At::Untyped } else { At::Deduced };
        Atom {
            scalar: Some(Scalar::Untyped),
            list: Some(self.list(ListType::Atomic, Keys::None, At::Untyped)),
            ..self.map(atomic, Fields::None, members)
        }
    }

    fn field(self, field: &'t Field) -> Atom<'t> {
        match field.container {
            Container::One => {
                let mut atom = self.shape(field);
                if let Some(map) = &mut atom.map {
                    map.atomic = (map.atomic || field.atomic) && self.table.name(field) != GRANULAR;
                }
                atom
            }
            Container::Map => self.map(field.atomic, Fields::None, At::Element(field)),
            Container::MapOfLists => self.map(field.atomic, Fields::None, At::Inner(field)),
            Container::List => {
                // Without a list type the strategic merge's facts decide.
                let kind = match field.list_type {
                    Some(kind) => kind,
                    None if !field.patch_merge => ListType::Atomic,
                    None if self.table.merge_key(field).is_empty() => ListType::Set,
                    None => ListType::Map,
                };
                let keys = Keys::Field(self.table, field);
                Atom { list: Some(self.list(kind, keys, At::Element(field))), ..Atom::default() }
            }
        }
    }

    fn shape(self, field: &'t Field) -> Atom<'t> {
        let scalar = match field.shape {
            Shape::Object(id) => return self.at(At::Struct(id)).resolve(),
            // JSON merges by member, RawExtension is one.
            Shape::Any => return self.any(!is_json(self.table, field)),
            Shape::Bool => Scalar::Boolean,
            Shape::Int32 | Shape::Int64 | Shape::Double => Scalar::Numeric,
            Shape::String | Shape::Bytes | Shape::Duration => Scalar::String,
            Shape::Time | Shape::MicroTime | Shape::Quantity | Shape::IntOrString => Scalar::Untyped,
        };
        Atom { scalar: Some(scalar), ..Atom::default() }
    }
}

/// What is required has no omitempty; RawExtensions and some times are structs, which omitempty does not leave out.
fn is_always(field: &Field) -> bool {
    const TIMES: [&str; 7] = [
        "eventTime",
        "firstTimestamp",
        "lastHeartbeatTime",
        "lastProbeTime",
        "lastTimestamp",
        "lastTransitionTime",
        "lastUpdateTime",
    ];
    let is_struct = match field.shape {
        Shape::Any => field.container == Container::One && !is_json(BUILTIN, field),
        Shape::Time | Shape::MicroTime => TIMES.contains(&BUILTIN.name(field)),
        _ => false,
    };
    is_struct || field.required || field.presence == Presence::Always
}

/// The fields of a JSON schema that hold any JSON; all others that do are RawExtensions.
fn is_json(table: &Table, field: &Field) -> bool {
    const JSON: [&str; 7] =
        ["additionalItems", "additionalProperties", "default", "dependencies", "enum", "example", "items"];
    JSON.contains(&table.name(field))
}

impl<'t> MapType<'t> {
    pub fn field(&self, name: &str) -> Option<TypeRef<'t>> {
        match self.fields {
            Fields::None => None,
            Fields::Table(table, id) => Some(TypeRef { table, at: At::Field(table.field(id, name)?) }),
            Fields::Schema { root: true, .. } if matches!(name, "apiVersion" | "kind" | "metadata") => {
                // Any kind has these three, of the same types.
                let id = (*ANY_OBJECT.get_or_init(|| BUILTIN.type_by_definition("io.k8s.api.core.v1.ConfigMap")))?;
                Some(TypeRef { table: BUILTIN, at: At::Field(BUILTIN.field(id, name)?) })
            }
            Fields::Schema { schema, preserves, .. } => {
                let at = At::Schema { schema: schema.property(name)?, root: false, preserves };
                Some(TypeRef { table: BUILTIN, at })
            }
        }
    }

    /// The type of any member; `At::None` where there may be none of that name.
    pub fn member(&self, name: &str) -> TypeRef<'t> {
        self.field(name).unwrap_or(self.element)
    }

    /// Nothing is known of its members.
    pub(super) fn is_deduced(&self) -> bool {
        let known = match self.fields {
            Fields::None => false,
            Fields::Table(..) => true,
            Fields::Schema { schema, root, .. } => root || schema.has_properties(),
        };
        !known && matches!(self.element.at, At::Deduced)
    }

    /// A member that is not there but that Go writes nevertheless, as null.
    pub fn is_always(&self, name: &str) -> bool {
        let field = self.builtin().and_then(|id| BUILTIN.field(id, name));
        field.is_some_and(is_always)
    }

    /// All such members.
    pub fn always(&self) -> impl Iterator<Item = &'static str> + use<> {
        let fields = self.builtin().map_or(&[][..], |id| BUILTIN.fields(id));
        fields.iter().filter(|field| is_always(field)).map(|field| BUILTIN.name(field))
    }

    fn builtin(&self) -> Option<TypeId> {
        match self.fields {
            Fields::Table(_, id) => Some(id),
            _ => None,
        }
    }

    /// The value a key has where an element leaves it out.
    fn default(&self, name: &str) -> Option<Value> {
        let (table, id) = match self.fields {
            Fields::None => return None,
            Fields::Table(table, id) => (table, id),
            Fields::Schema { schema, .. } => {
                let default = schema.property(name)?.default();
                return default.exists().then(|| default.to_value());
            }
        };
        let field = table.field(id, name)?;
        match table.default(field) {
            "" if field.presence == Presence::Always => match field.shape {
                Shape::String => Some("".into()),
                Shape::Int32 | Shape::Int64 => Some(0.into()),
                Shape::Bool => Some(false.into()),
                _ => None,
            },
            "" => None,
            text => serde_json::from_str(text).ok(),
        }
    }
}

impl<'t> ListOf<'t> {
    pub fn is_atomic(&self) -> bool {
        self.kind == ListType::Atomic
    }

    /// The names of the keys; none for a set.
    pub fn keys(&self) -> Vec<&'t str> {
        match self.keys {
            _ if self.kind != ListType::Map => Vec::new(),
            Keys::None => Vec::new(),
            Keys::Schema(schema) => schema.list_keys().collect(),
            Keys::Field(table, field) => {
                let mut keys: Vec<&str> = table.list_keys(field).collect();
                if keys.is_empty() {
                    keys.push(table.merge_key(field));
                }
                keys
            }
        }
    }

    pub fn key_default(&self, name: &str) -> Option<Value> {
        self.element.resolve().map?.default(name)
    }
}

impl<'t> Atom<'t> {
    /// What is left of the choices by what the value is; null and absence leave them all.
    pub(super) fn of(mut self, value: Option<&Value>) -> Atom<'t> {
        let one = match value {
            None | Some(Value::Null) => return self,
            Some(Value::Array(_)) => Atom { list: self.list.take(), ..Atom::default() },
            Some(Value::Object(_)) => Atom { map: self.map.take(), ..Atom::default() },
            Some(_) => Atom { scalar: self.scalar.take(), ..Atom::default() },
        };
        // A value that fits nothing is judged by what was expected.
        if one.map.is_some() || one.list.is_some() || one.scalar.is_some() { one } else { self }
    }

    /// Which of the three it is.
    pub(super) fn choice(&self) -> u8 {
        u8::from(self.map.is_some()) | u8::from(self.scalar.is_some()) << 1 | u8::from(self.list.is_some()) << 2
    }
}
