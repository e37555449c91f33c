//! What an expression may name, and expressions compiled against it.
use crate::{
    Error, Issue,
    ast::{Ast, Id},
    budget::Budget,
    check::{Checked, check},
    cost::{self, CostRange},
    eval, ops, parser,
    types::{ObjectType, Slot, Type},
    value::Value,
};
use std::sync::Arc;

/// Variables and their types, and the objects that may be written. Cheap to clone and to extend.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Vec<(Box<str>, Slot)>,
    objects: Vec<Arc<dyn ObjectType>>,
    /// `Object`, `Object.spec` and so on may be written, with any field.
    mutation_objects: bool,
    bindings: bool,
}

impl Environment {
    pub fn new() -> Environment {
        Environment::default()
    }
    /// Another variable; a later one of the same name hides an earlier.
    pub fn with(mut self, name: &str, slot: impl Into<Slot>) -> Environment {
        self.variables.push((name.into(), slot.into()));
        self
    }
    /// An object type that expressions may write.
    pub fn with_object(mut self, object: Arc<dyn ObjectType>) -> Environment {
        self.objects.push(object);
        self
    }
    /// The `Object` types of MutatingAdmissionPolicy.
    pub fn with_mutation_objects(mut self) -> Environment {
        self.mutation_objects = true;
        self
    }

    /// `cel.bind(name, value, expression)`, which devices' selectors have and other expressions do not.
    pub fn with_bindings(mut self) -> Environment {
        self.bindings = true;
        self
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Slot> {
        self.variables.iter().rev().find(|(known, _)| **known == *name).map(|(_, slot)| slot)
    }

    pub(crate) fn first(&self) -> Option<&Slot> {
        self.variables.first().map(|(_, slot)| slot)
    }

    /// The type of a variable, or of a type's own name.
    pub(crate) fn lookup(&self, name: &str) -> Option<Type> {
        if let Some(slot) = self.variable(name) {
            return Some(slot.ty.clone());
        }
        Some(Type::Type(Some(Arc::new(ops::named_type(name)?))))
    }

    pub(crate) fn has_mutations(&self) -> bool {
        self.mutation_objects
    }

    pub(crate) fn constructible(&self, name: &str) -> Option<Arc<dyn ObjectType>> {
        if let Some(found) = self.objects.iter().find(|object| object.name() == name) {
            return Some(found.clone());
        }
        let known = self.mutation_objects && (name == "Object" || name.starts_with("Object."));
        known.then(|| Arc::new(MutationObject(name.into())) as Arc<dyn ObjectType>)
    }

    pub fn compile(&self, text: &str) -> Result<Program, Vec<Issue>> {
        let mut ast = parser::parse(text, self.bindings)?;
        let checked = check(text, &mut ast, self)?;
        let variables = eval::variables_used(&ast);
        let constant = eval::constants(&ast);
        Ok(Program { ast, checked, variables, constant })
    }
}

/// `Object.spec.template`: a name for part of the object, every field of which may be set.
#[derive(Debug)]
struct MutationObject(Box<str>);

impl ObjectType for MutationObject {
    fn name(&self) -> &str {
        &self.0
    }
    fn field(&self, name: &str) -> Option<crate::Field> {
        Some(crate::Field { property: name.into(), slot: Type::Dyn.into() })
    }
    fn property(&self, name: &str) -> Option<crate::Field> {
        self.field(name)
    }
    fn is_constructible(&self) -> bool {
        true
    }
}

/// A checked expression, to be evaluated any number of times.
#[derive(Debug)]
pub struct Program {
    pub(crate) ast: Ast,
    pub(crate) checked: Checked,
    variables: Vec<Box<str>>,
    /// By node: nothing in it depends on variables.
    pub(crate) constant: Vec<bool>,
}

/// What an evaluation's variables are.
pub trait Variables<'a> {
    /// None: it has no value, which is an error where it is read.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Error>>;
}

/// A few variables by name.
impl<'a> Variables<'a> for [(&str, Value<'a>)] {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Error>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

impl<'a, const N: usize> Variables<'a> for [(&str, Value<'a>); N] {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Error>> {
        Variables::get(&self[..], name)
    }
}

impl Program {
    pub fn result_type(&self) -> &Type {
        self.checked.ty(self.ast.root)
    }

    /// Whether the expression reads a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.variables.iter().any(|name| **name == *variable)
    }

    /// The least and the most an evaluation may cost, by the sizes of the environment's slots.
    pub fn estimated_cost(&self, environment: &Environment) -> CostRange {
        cost::estimate(self, environment)
    }

    /// Costs are taken from `budget`, also when evaluation fails.
    pub fn evaluate<'a>(&'a self, variables: &dyn Variables<'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
        eval::evaluate(self, variables, budget)
    }

    pub(crate) fn is_constant(&self, id: Id) -> bool {
        self.constant.get(id as usize).copied().unwrap_or(false)
    }
}
