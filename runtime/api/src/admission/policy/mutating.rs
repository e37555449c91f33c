//! MutatingAdmissionPolicy (policy/mutating/dispatcher.go and patch): the policies that match run one after the other, each over
//! what the one before made of the object; those with `reinvocationPolicy: IfNeeded` run again when something changed after
//! them.
use super::{
    super::{
        Attributes,
        hooks::{Matched, Round, is_exempt, versions},
    },
    conditions,
    definitions::{Binding, Mutation, Policy, Side},
    params,
    scope::{Failure, Inputs, Scope},
};
use mote_cel::{Budget, RUNTIME_BUDGET, Value};
use mote_schema::{
    Cause, Kind, Status, defaults,
    managed::{TypeRef, lay_over},
    patch, prune,
};
use mote_schema::{Map, Value as Json};
use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

/// Policy, binding and param.
type Key = (String, String, String);

/// What one pass of the mutating chain leaves for the next.
#[derive(Default)]
pub(crate) struct Reinvocation {
    last: Option<Json>,
    /// Ran, and wish to run again once something changes after them.
    ran: BTreeSet<Key>,
    again: BTreeSet<Key>,
}

impl Reinvocation {
    fn changed(&mut self) {
        self.again.append(&mut self.ran);
    }
}

struct Invocation {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    matched: Matched,
    param: Option<Json>,
}

impl Invocation {
    fn key(&self) -> Key {
        let param = self.param.as_ref().map_or(String::new(), |param| {
            let text = |field: &str| param["metadata"][field].as_str().unwrap_or("");
            format!("{}/{}", text("namespace"), text("name"))
        });
        (self.policy.object.name().to_owned(), self.binding.object.name().to_owned(), param)
    }
}

/// `new` is null for a DELETE, which no policy can change.
pub(crate) async fn mutate(
    attributes: &mut Attributes<'_, '_>,
    new: &mut Json,
    round: &mut Round,
) -> Result<(), Status> {
    let api = attributes.api;
    let policies = api.policies.of(api, Side::Mutating);
    if policies.is_empty() || is_exempt(attributes) {
        return Ok(());
    }
    let mut errors: Vec<(String, &'static str)> = Vec::new();
    let mut invocations = Vec::new();
    for bound in policies.iter() {
        let (policy, name) = (&bound.policy, bound.policy.object.name());
        let mut fail = |text: String| {
            if !policy.ignores_failures {
                errors.push((text, ""));
            }
        };
        let matched = match policy.matcher.matches(attributes, new) {
            Ok(None) => continue,
            Ok(Some(matched)) => matched,
            Err(status) => {
                fail(format!("policy \"{name}\" denied request: failed to configure policy: {}", status.message));
                continue;
            }
        };
        if let Err(why) = params::kind(api, policy) {
            fail(format!("policy \"{name}\" denied request: failed to configure policy: {why}"));
            continue;
        }
        for binding in &bound.bindings {
            let matches = match &binding.matcher {
                Some(matcher) => matcher.matches(attributes, new).map(|matched| matched.is_some()),
                None => Ok(true),
            };
            let params = match matches {
                Ok(false) => continue,
                Ok(true) => params::collect(api, policy, binding, attributes.target.namespace),
                Err(status) => Err(status.message),
            };
            match params {
                Ok(params) => invocations.extend(params.into_iter().map(|param| Invocation {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    matched: matched.clone(),
                    param,
                })),
                Err(why) => fail(format!(
                    "policy '{name}' with binding '{}' denied request: failed to configure binding: {why}",
                    binding.object.name()
                )),
            }
        }
    }
    if round.is_second && round.policies.last.as_ref().is_some_and(|last| last != new) {
        // Somebody else had another say in between.
        round.policies.changed();
    }
    for invocation in &invocations {
        if new.is_null() {
            break;
        }
        invoke(attributes, invocation, new, round, &mut errors).await?;
    }
    round.policies.last = round.should_reinvoke.then(|| new.clone());
    refuse(attributes, new, errors)
}

async fn invoke(
    attributes: &Attributes<'_, '_>,
    invocation: &Invocation,
    new: &mut Json,
    round: &mut Round,
    errors: &mut Vec<(String, &'static str)>,
) -> Result<(), Status> {
    let Invocation { policy, binding, matched, param } = invocation;
    let key = invocation.key();
    let mut fail = |why: String| {
        if !policy.ignores_failures {
            let (policy, binding) = (policy.object.name(), binding.object.name());
            errors.push((format!("policy '{policy}' with binding '{binding}' denied request: {why}"), "Invalid"));
        }
    };
    let mut object = versions::view(attributes, matched, new).await?.into_owned();
    let old = versions::view(attributes, matched, attributes.old).await?;
    super::name(&mut object, &matched.object);
    let holds = {
        let inputs = Inputs::new(attributes, matched, Cow::Borrowed(&object), Cow::Borrowed(&*old));
        conditions::hold(&policy.conditions, &inputs, param.as_ref())
    };
    match holds {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(error) => {
            fail(error);
            return Ok(());
        }
    }
    if round.is_second && !round.policies.again.contains(&key) {
        return Ok(());
    }
    let catalog = attributes.api.catalog();
    let kind = catalog.by_kind(&matched.object.group, &matched.object.version, &matched.object.kind);
    let Some(kind) = kind else {
        return Err(Status::unavailable(format!(
            "Resource kind {}/{}, Kind={} not found. There can be a delay between when CustomResourceDefinitions are created and when they are available.",
            matched.object.group, matched.object.version, matched.object.kind
        )));
    };
    let before = object.clone();
    for mutation in &policy.mutations {
        let changed = {
            let inputs = Inputs::new(attributes, matched, Cow::Borrowed(&object), Cow::Borrowed(&*old));
            change(policy, mutation, &inputs, param.as_ref(), kind)
        };
        match changed {
            Ok(mut changed) => {
                prune::clean(kind, &mut changed).map_err(Status::internal)?;
                defaults::apply(kind, &mut changed);
                super::name(&mut changed, &matched.object);
                object = changed;
            }
            Err(why) => fail(why),
        }
    }
    if object != before {
        round.policies.changed();
        round.should_reinvoke = true;
        let object = versions::back(attributes, matched, object).await?;
        *new = object;
    }
    if policy.reinvokes {
        round.policies.ran.insert(key);
    }
    Ok(())
}

/// The object after one mutation.
fn change(
    policy: &Policy,
    mutation: &Mutation,
    inputs: &Inputs<'_>,
    param: Option<&Json>,
    kind: &Kind,
) -> Result<Json, String> {
    let scope = Scope::new(inputs, param, true, &policy.variables).map_err(|error| error.to_string())?;
    let mut budget = Budget::new(RUNTIME_BUDGET);
    let (Mutation::Apply(expression) | Mutation::JsonPatch(expression)) = mutation;
    let value = scope.evaluate(expression, &mut budget).map_err(|failure| match failure {
        Failure::Evaluation(error) | Failure::OutOfBudget(error) => error,
    })?;
    match mutation {
        Mutation::Apply(_) => {
            check_names(&value, "Object").map_err(|error| format!("type mismatch: {error}"))?;
            let mut config = value.to_json().map_err(|error| error.to_string())?;
            for field in ["apiVersion", "kind"] {
                config[field] = inputs.object[field].clone();
            }
            lay_over(TypeRef::of(kind), &inputs.object, &config)
                .map_err(|error| format!("error applying patch: {error}"))
        }
        Mutation::JsonPatch(_) => {
            let mut object = inputs.object.clone().into_owned();
            for item in value.items().into_iter().flatten() {
                let item = item.map_err(|error| error.to_string())?;
                let operation = operation(&item)?;
                let text = |field: &str| operation[field].as_str().unwrap_or("").to_owned();
                let (kind, path) = (text("op"), text("path"));
                match patch::json(&mut object, &Json::Array(vec![operation].into())) {
                    Ok(()) => {}
                    // A test that fails says that there is nothing to do.
                    Err(_) if kind == "test" => return Ok(inputs.object.clone().into_owned()),
                    Err(_) => {
                        return Err(format!(
                            "JSON Patch: {kind} operation does not apply: doc is missing path: {path}: missing value"
                        ));
                    }
                }
            }
            Ok(object)
        }
    }
}

fn operation(item: &Value<'_>) -> Result<Json, String> {
    let Value::Object(built) = item else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into());
    };
    let mut operation = Map::new();
    for (name, value) in &built.fields {
        if **name == *"value" {
            if let Value::Object(inner) = value {
                check_names(value, inner.ty.name()).map_err(|error| format!("type mismatch: {error}"))?;
            }
            let json = value.to_json().map_err(|error| {
                format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
            })?;
            operation.insert("value".into(), json);
        } else {
            let text = value.as_str().unwrap_or("");
            if **name != *"from" || !text.is_empty() {
                operation.insert(name.to_string().into(), text.into());
            }
        }
    }
    Ok(operation.into())
}

/// `Object.spec{template: Object.spec.template{}}`: the name of each part says where it is.
fn check_names(value: &Value<'_>, expected: &str) -> Result<(), String> {
    match value {
        Value::Object(built) => {
            if built.ty.name() != expected {
                return Err(format!(
                    "unexpected type name \"{}\", expected \"{expected}\", which matches field name path from root Object type",
                    built.ty.name()
                ));
            }
            built.fields.iter().try_for_each(|(name, value)| check_names(value, &format!("{expected}.{name}")))
        }
        Value::List(items) => items.iter().try_for_each(|item| check_names(item, expected)),
        Value::Map(entries) => entries.iter().try_for_each(|(_, value)| check_names(value, expected)),
        Value::Optional(Some(inner)) => check_names(inner, expected),
        _ => Ok(()),
    }
}

fn refuse(attributes: &Attributes<'_, '_>, new: &Json, errors: Vec<(String, &'static str)>) -> Result<(), Status> {
    let Some((message, reason)) = errors.first() else { return Ok(()) };
    let mut status = attributes.forbidden(new, "admission request denied by policy");
    status.message = message.clone();
    if !reason.is_empty() {
        status.reason = reason;
    }
    let cause = |(message, _): &(String, &str)| Cause { reason: "", message: message.clone(), field: String::new() };
    status.causes.extend(errors.iter().map(cause));
    Err(status)
}
