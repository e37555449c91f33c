//! The variables of one request, and expressions evaluated over them.
use super::{
    super::{Attributes, hooks::Matched},
    definitions::Variable,
    environment::{Expression, namespace_type, request_type},
};
use crate::{http::User, rbac, server::Api};
use mote_cel::{
    Budget, Error, Lazy, Opaque, Type, Value, Variables,
    auth::{Authorizer, Decision, Question, ResourceCheck, Subject},
};
use mote_schema::Value as Json;
use std::{
    borrow::Cow,
    cell::RefCell,
    rc::{Rc, Weak},
};

/// Everything an expression may ask about, as JSON: made once for a request and a kind that it matched.
pub(super) struct Inputs<'a> {
    pub object: Cow<'a, Json>,
    pub old: Cow<'a, Json>,
    pub request: Json,
    /// Null for what lies in no namespace.
    pub namespace: Json,
    pub asker: Asker<'a>,
    pub resource: ResourceCheck,
}

impl<'a> Inputs<'a> {
    /// `object` and `old` are in the version that matched.
    pub fn new(
        attributes: &'a Attributes<'_, '_>,
        matched: &Matched,
        object: Cow<'a, Json>,
        old: Cow<'a, Json>,
    ) -> Inputs<'a> {
        let name = match attributes.target.name {
            "" => object["metadata"]["name"].as_str().unwrap_or("").to_owned(),
            name => name.to_owned(),
        };
        let resource = ResourceCheck {
            group: matched.kind.group.to_string(),
            resource: matched.kind.plural.to_string(),
            subresource: attributes.subresource.into(),
            namespace: attributes.target.namespace.into(),
            name,
            ..ResourceCheck::default()
        };
        Inputs {
            request: Json::Object(super::super::hooks::request_head(attributes, matched, &object, "")),
            object: named(object, matched),
            old: named(old, matched),
            namespace: namespace(attributes),
            asker: Asker { api: attributes.api, user: attributes.target.user },
            resource,
        }
    }
}

/// With apiVersion and kind, which trees inside the server may lack.
fn named<'a>(object: Cow<'a, Json>, matched: &Matched) -> Cow<'a, Json> {
    let has = |field: &str| object[field].as_str().is_some_and(|text| !text.is_empty());
    if object.is_null() || (has("kind") && has("apiVersion")) {
        return object;
    }
    let mut object = object.into_owned();
    super::name(&mut object, &matched.object);
    Cow::Owned(object)
}

/// A Namespace is in no namespace, whatever its attributes say.
fn namespace(attributes: &Attributes<'_, '_>) -> Json {
    let name = attributes.target.namespace;
    if name.is_empty() || attributes.is("", "namespaces") {
        return Json::Null;
    }
    attributes.api.lookup("", "v1", "namespaces", "", name).map_or(Json::Null, |found| found.to_value())
}

/// Why an expression gave nothing.
pub(super) enum Failure {
    Evaluation(String),
    /// Nothing more is to be evaluated.
    OutOfBudget(String),
}

/// What expressions see: the inputs, one param, and a policy's variables.
pub(super) struct Scope<'a> {
    base: Rc<Vec<(&'static str, Value<'a>)>>,
    variables: Option<Rc<Computed<'a>>>,
}

impl<'a> Scope<'a> {
    pub fn new(
        inputs: &'a Inputs<'a>,
        param: Option<&'a Json>,
        has_authorizer: bool,
        variables: &'a [Variable],
    ) -> Result<Scope<'a>, Error> {
        let mut base = vec![
            ("object", Value::from_json(&inputs.object, &Type::Dyn)?),
            ("oldObject", Value::from_json(&inputs.old, &Type::Dyn)?),
            ("request", Value::from_json(&inputs.request, request_type())?),
            ("namespaceObject", Value::from_json(&inputs.namespace, namespace_type())?),
            ("params", Value::from_json(param.unwrap_or(&Json::Null), &Type::Dyn)?),
        ];
        if has_authorizer {
            let asker: Rc<dyn Authorizer + 'a> = Rc::new(&inputs.asker);
            let own = Opaque::ResourceCheck(asker.clone(), Box::new(inputs.resource.clone()));
            base.push(("authorizer", Value::opaque(Opaque::Authorizer(asker, None))));
            base.push(("authorizer.requestResource", Value::opaque(own)));
        }
        let base = Rc::new(base);
        let variables = (!variables.is_empty()).then(|| {
            Rc::new_cyclic(|me: &Weak<Computed<'a>>| Computed {
                me: me.clone(),
                base: base.clone(),
                variables,
                known: RefCell::new(vec![None; variables.len()]),
            })
        });
        Ok(Scope { base, variables })
    }

    pub fn evaluate(&self, expression: &'a Expression, budget: &mut Budget) -> Result<Value<'a>, Failure> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(error) => return Err(Failure::Evaluation(format!("compilation error: {error}"))),
        };
        let result = program.evaluate(self, budget);
        if budget.is_exceeded() {
            let text = "validation failed due to running out of cost budget, no further validation rules will be run";
            return Err(Failure::OutOfBudget(text.into()));
        }
        result.map_err(|error| {
            Failure::Evaluation(format!("expression '{}' resulted in error: {error}", expression.text))
        })
    }
}

impl<'a> Variables<'a> for Scope<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Error>> {
        if name == "variables" {
            return self.variables.as_ref().map(|variables| Ok(Value::Lazy(variables.clone())));
        }
        self.base.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// A policy's variables, each computed when it is first asked for.
struct Computed<'a> {
    me: Weak<Computed<'a>>,
    base: Rc<Vec<(&'static str, Value<'a>)>>,
    variables: &'a [Variable],
    known: RefCell<Vec<Option<Result<Value<'a>, Error>>>>,
}

impl<'a> Lazy<'a> for Computed<'a> {
    fn field(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, Error>> {
        let at = self.variables.iter().position(|variable| variable.name == name)?;
        if let Some(Some(known)) = self.known.borrow().get(at) {
            return Some(known.clone());
        }
        let expression = &self.variables.get(at)?.expression;
        let result = match &expression.program {
            Ok(program) => {
                let scope = Scope { base: self.base.clone(), variables: self.me.upgrade() };
                program.evaluate(&scope, budget).map_err(|error| match error {
                    Error::Budget => Error::Budget,
                    Error::Failed(why) => Error::new(format!("composited variable {name:?} fails to evaluate: {why}")),
                })
            }
            Err(error) => Err(Error::new(format!("composited variable {name:?} fails to compile: {error}"))),
        };
        if let Some(slot) = self.known.borrow_mut().get_mut(at) {
            *slot = Some(result.clone());
        }
        Some(result)
    }
}

/// Answers the authorizer library's questions.
pub(super) struct Asker<'a> {
    pub api: &'a Api,
    pub user: &'a User,
}

impl Authorizer for &Asker<'_> {
    fn check(&self, question: &Question<'_>) -> Decision {
        let account = question.service_account.and_then(|account| account.split_once(':')).map(|(namespace, name)| {
            let groups =
                ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
            User::new(&format!("system:serviceaccount:{namespace}:{name}"), &groups)
        });
        let empty = ResourceCheck::default();
        let (path, resource) = match question.subject {
            Subject::Path(path) => (path, &empty),
            Subject::Resource(resource) => ("", resource),
        };
        let asked = rbac::Attributes {
            verb: question.verb,
            group: &resource.group,
            version: "*",
            resource: &resource.resource,
            subresource: &resource.subresource,
            namespace: &resource.namespace,
            name: &resource.name,
            path,
            fields: &resource.field_selector,
            is_resource: path.is_empty(),
        };
        match self.api.security() {
            Ok(security) => {
                let decision = security.authorizer.decide(account.as_ref().unwrap_or(self.user), &asked);
                Decision { allowed: decision.allowed, reason: decision.reason, error: None }
            }
            Err(status) => Decision { allowed: false, reason: String::new(), error: Some(status.message) },
        }
    }
}
