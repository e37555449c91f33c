//! Policies against the types they are about (policy/validating/typechecking.go): warnings for the policy's status, since a
//! misspelt field is no error before a request comes. Kinds that rules name by wildcard are not looked at.
use super::definitions::{Compiler, Side};
use crate::custom;
use mote_cel::{Field as CelField, ObjectType, Type, escape};
use mote_schema::{
    Catalog, Kind, Object, Ref,
    table::{BUILTIN, Container, Field, Shape, TypeId},
};
use std::{collections::BTreeMap, sync::Arc};

/// Kinds one policy is checked against at most.
const MAX_TYPES: usize = 10;

/// What is wrong with a ValidatingAdmissionPolicy's expressions: where, and what.
pub fn policy_warnings(catalog: &Catalog, policy: &Object) -> Vec<(String, String)> {
    let spec = policy.root().get("spec");
    let types = types_to_check(catalog, spec);
    let params = spec.get("paramKind");
    let (group, version) = split(params.get("apiVersion").str());
    let params = catalog.by_kind(group, version, params.get("kind").str()).map_or(Type::Dyn, |kind| type_of(kind));
    let mut warnings = Vec::new();
    for (at, validation) in spec.get("validations").items().enumerate() {
        for field in ["expression", "messageExpression"] {
            let text = validation.get(field).str();
            let mut found = Vec::new();
            for (name, ty) in types.iter().filter(|_| !text.is_empty()) {
                let mut compiler = Compiler::new(spec, Side::Validating).typed(ty.clone(), params.clone());
                for variable in spec.get("variables").items() {
                    compiler.variable(variable.get("name").str(), variable.get("expression").str());
                }
                if let Err(error) = compiler.any(text).program {
                    found.push(format!("{name}: {error}\n"));
                }
            }
            if !found.is_empty() {
                warnings.push((format!("spec.validations[{at}].{field}"), found.join("\n")));
            }
        }
    }
    warnings
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// By group, version and kind, as they are printed.
fn types_to_check(catalog: &Catalog, spec: Ref<'_>) -> Vec<(String, Type)> {
    let mut kinds: BTreeMap<(String, String, String), Arc<Kind>> = BTreeMap::new();
    for rule in spec.at("matchConstraints.resourceRules").items() {
        let names = |field: &str| rule.get(field).items().map(|name| name.str());
        if names("apiGroups").chain(names("apiVersions")).any(|name| name.contains('*')) {
            continue;
        }
        for group in names("apiGroups") {
            for version in names("apiVersions") {
                for resource in names("resources").filter(|name| !name.contains(['*', '/'])) {
                    let Some(kind) = catalog.by_resource(group, version, resource) else { continue };
                    if kinds.len() < MAX_TYPES {
                        kinds.insert((group.into(), version.into(), kind.kind.to_string()), kind.clone());
                    }
                }
            }
        }
    }
    let print = |((group, version, name), kind): ((String, String, String), Arc<Kind>)| {
        (format!("{group}/{version}, Kind={name}"), type_of(&kind))
    };
    kinds.into_iter().map(print).collect()
}

fn type_of(kind: &Kind) -> Type {
    if kind.is_custom() {
        return custom::type_of(kind).unwrap_or(Type::Dyn);
    }
    Type::object(Builtin { id: kind.root, name: kind.kind.to_string() })
}

/// A type of the built-in table, each field's made when it is asked for.
#[derive(Debug)]
struct Builtin {
    id: TypeId,
    name: String,
}

impl Builtin {
    fn element(&self, field: &Field) -> Type {
        match field.shape {
            Shape::Bool => Type::Bool,
            Shape::Int32 | Shape::Int64 => Type::Int,
            Shape::Double => Type::Double,
            Shape::String | Shape::Duration | Shape::Quantity => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Time | Shape::MicroTime => Type::Timestamp,
            Shape::IntOrString | Shape::Any => Type::Dyn,
            Shape::Object(id) => Type::object(Builtin { id, name: format!("{}.{}", self.name, BUILTIN.name(field)) }),
        }
    }

    fn found(&self, field: &Field) -> CelField {
        let element = self.element(field);
        let ty = match field.container {
            Container::One => element,
            Container::List => Type::list(element),
            Container::Map => Type::map(Type::String, element),
            Container::MapOfLists => Type::map(Type::String, Type::list(element)),
        };
        CelField { property: BUILTIN.name(field).into(), slot: ty.into() }
    }
}

impl ObjectType for Builtin {
    fn name(&self) -> &str {
        &self.name
    }
    fn field(&self, name: &str) -> Option<CelField> {
        let escaped = |field: &&Field| escape(BUILTIN.name(field)).is_some_and(|escaped| escaped == name);
        let direct = BUILTIN.field(self.id, name);
        direct.or_else(|| BUILTIN.fields(self.id).iter().find(escaped)).map(|field| self.found(field))
    }
    fn property(&self, name: &str) -> Option<CelField> {
        BUILTIN.field(self.id, name).map(|field| self.found(field))
    }
}
