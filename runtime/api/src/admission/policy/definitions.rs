//! Policies and their bindings, compiled once and kept while their revisions stand. A request looks at the store's newest
//! root; where no policy is configured that costs two looks into the map.
use super::{
    super::hooks::Matcher,
    environment::{Expression, Options, apply_type, environment, json_patch_list, variables_type},
};
use crate::{feed, server::Api};
use mote_cel::{Environment, Type};
use mote_schema::{Kind, Object, Ref};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Mutating,
    Validating,
}

impl Side {
    fn plurals(self) -> (&'static str, &'static str) {
        match self {
            Side::Mutating => ("mutatingadmissionpolicies", "mutatingadmissionpolicybindings"),
            Side::Validating => ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
        }
    }
}

/// All policies in force.
#[derive(Default)]
pub(crate) struct Policies {
    mutating: Mutex<Kept>,
    validating: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Of policies and bindings.
    revisions: Vec<u64>,
    policies: Arc<[Bound]>,
}

/// A policy with its bindings, by name.
#[derive(Clone)]
pub(super) struct Bound {
    pub policy: Arc<Policy>,
    pub bindings: Vec<Arc<Binding>>,
}

pub(super) struct Policy {
    pub object: Object,
    pub matcher: Matcher,
    pub ignores_failures: bool,
    pub reinvokes: bool,
    pub conditions: Vec<Expression>,
    pub variables: Vec<Variable>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Expression)>,
    pub mutations: Vec<Mutation>,
}

pub(super) struct Variable {
    pub name: String,
    pub expression: Expression,
}

pub(super) struct Validation {
    pub rule: Expression,
    pub message: String,
    pub message_expression: Option<Expression>,
    pub reason: String,
}

pub(super) enum Mutation {
    Apply(Expression),
    JsonPatch(Expression),
}

pub(super) struct Binding {
    pub object: Object,
    /// Of its matchResources, when it has any.
    pub matcher: Option<Matcher>,
}

/// Compiles a policy's expressions in their order, since each variable is known to those after it.
pub(super) struct Compiler {
    options: Options,
    object: Type,
    params: Type,
    variables: Vec<(String, Type)>,
}

impl Compiler {
    pub fn new(spec: Ref<'_>, side: Side) -> Compiler {
        let has_params = !spec.get("paramKind").is_empty();
        let options = Options { params: has_params, authorizer: true, mutations: side == Side::Mutating };
        Compiler { options, object: Type::Dyn, params: Type::Dyn, variables: Vec::new() }
    }

    /// With types that are known.
    pub fn typed(mut self, object: Type, params: Type) -> Compiler {
        (self.object, self.params) = (object, params);
        self
    }

    fn environment(&self, authorizer: bool) -> Environment {
        let options = Options { authorizer, ..self.options };
        let environment = environment(options, self.object.clone(), self.params.clone());
        environment.with("variables", variables_type(&self.variables))
    }

    pub fn condition(&self, text: &str) -> Expression {
        let options = Options { mutations: false, ..self.options };
        Expression::compile(&environment(options, self.object.clone(), self.params.clone()), text, &[Type::Bool])
    }
    pub fn variable(&mut self, name: &str, text: &str) -> Expression {
        let expression = Expression::compile(&self.environment(true), text, &[]);
        let ty = expression.program.as_ref().map_or(Type::Dyn, |program| program.result_type().clone());
        self.variables.push((name.to_owned(), ty));
        expression
    }
    pub fn rule(&self, text: &str) -> Expression {
        Expression::compile(&self.environment(true), text, &[Type::Bool])
    }
    pub fn message(&self, text: &str) -> Expression {
        Expression::compile(&self.environment(false), text, &[Type::String])
    }
    pub fn annotation(&self, text: &str) -> Expression {
        Expression::compile(&self.environment(true), text, &[Type::String, Type::Null])
    }
    /// For type checking, which asks nothing of the result.
    pub fn any(&self, text: &str) -> Expression {
        Expression::compile(&self.environment(true), text, &[])
    }
    pub fn apply(&self, text: &str) -> Expression {
        Expression::compile(&self.environment(true), text, &[apply_type()])
    }
    pub fn json_patch(&self, text: &str) -> Expression {
        Expression::compile(&self.environment(true), text, &[json_patch_list()])
    }
}

impl Policy {
    fn new(object: Object, side: Side) -> Policy {
        let root = object.root();
        let spec = root.get("spec");
        let mut compiler = Compiler::new(spec, side);
        let conditions = spec.get("matchConditions").items();
        let conditions = conditions.map(|condition| compiler.condition(condition.get("expression").str())).collect();
        let mut variables = Vec::new();
        for variable in spec.get("variables").items() {
            let name = variable.get("name").str().to_owned();
            let expression = compiler.variable(&name, variable.get("expression").str());
            variables.push(Variable { name, expression });
        }
        let validations = spec.get("validations").items().map(|validation| Validation {
            rule: compiler.rule(validation.get("expression").str()),
            message: validation.get("message").str().to_owned(),
            message_expression: Some(validation.get("messageExpression").str())
                .filter(|text| !text.is_empty())
                .map(|text| compiler.message(text)),
            reason: validation.get("reason").str().to_owned(),
        });
        let validations = validations.collect();
        let annotations = spec.get("auditAnnotations").items().map(|annotation| {
            let expression = compiler.annotation(annotation.get("valueExpression").str());
            (annotation.get("key").str().to_owned(), expression)
        });
        let annotations = annotations.collect();
        let mutations = spec.get("mutations").items().map(|mutation| {
            let text = |field: &str| mutation.get(field).get("expression").str();
            match mutation.get("patchType").str() {
                "JSONPatch" => Mutation::JsonPatch(compiler.json_patch(text("jsonPatch"))),
                _ => Mutation::Apply(compiler.apply(text("applyConfiguration"))),
            }
        });
        let mutations = mutations.collect();
        Policy {
            matcher: Matcher::new(spec.get("matchConstraints")),
            ignores_failures: spec.get("failurePolicy").str() == "Ignore",
            reinvokes: spec.get("reinvocationPolicy").str() == "IfNeeded",
            conditions,
            variables,
            validations,
            annotations,
            mutations,
            object,
        }
    }
}

impl Binding {
    fn new(object: Object) -> Binding {
        let resources = object.root().at("spec.matchResources");
        let matcher = resources.is_map().then(|| Matcher::new(resources));
        Binding { matcher, object }
    }
    pub fn policy_name(&self) -> &str {
        self.object.root().at("spec.policyName").str()
    }
}

impl Policies {
    /// Those that are bound, by name.
    pub(super) fn of(&self, api: &Api, side: Side) -> Arc<[Bound]> {
        let place = match side {
            Side::Mutating => &self.mutating,
            Side::Validating => &self.validating,
        };
        let (policies, bindings) = side.plurals();
        let catalog = api.catalog();
        let kind = |plural: &str| catalog.by_resource("admissionregistration.k8s.io", "v1", plural);
        let (Some(policies), Some(bindings)) = (kind(policies), kind(bindings)) else { return Arc::default() };
        let snapshot = api.store.snapshot();
        let mut kept = place.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut revisions = Vec::new();
        for kind in [policies, bindings] {
            revisions.extend(snapshot.range(&kind.prefix, None).map(|entry| entry.modified));
        }
        if revisions == kept.revisions {
            return kept.policies.clone();
        }
        let objects = |kind: &Arc<Kind>| {
            snapshot.range(&kind.prefix, None).map(move |entry| feed::object(kind, &entry)).collect::<Vec<Object>>()
        };
        let bound: Vec<Arc<Binding>> =
            objects(bindings).into_iter().map(|object| Arc::new(Binding::new(object))).collect();
        let compile = |object: Object| {
            let known = kept.policies.iter().find(|known| {
                known.policy.object.revision == object.revision && known.policy.object.name() == object.name()
            });
            let policy = known.map_or_else(|| Arc::new(Policy::new(object, side)), |known| known.policy.clone());
            let name = policy.object.name();
            let bindings = bound.iter().filter(|binding| binding.policy_name() == name).cloned().collect();
            Bound { policy, bindings }
        };
        // One that is not bound is not asked, and not compiled.
        let is_bound = |object: &Object| bound.iter().any(|binding| binding.policy_name() == object.name());
        let policies: Arc<[Bound]> = objects(policies).into_iter().filter(is_bound).map(compile).collect();
        *kept = Kept { revisions, policies };
        kept.policies.clone()
    }
}
