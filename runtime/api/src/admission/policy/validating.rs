//! ValidatingAdmissionPolicy (policy/validating/{dispatcher,validator}.go): every policy that matches is evaluated with every
//! binding and param; the first denial is the answer.
use super::{
    super::{
        Attributes,
        hooks::{Matched, is_exempt, versions},
    },
    conditions,
    definitions::{Binding, Policy, Side, Validation},
    params,
    scope::{Failure, Inputs, Scope},
};
use mote_cel::{Budget, RUNTIME_BUDGET, Value};
use mote_schema::{Cause, Status};
use mote_schema::{Value as Json, json};

/// The longest message an expression may make.
const MAX_MESSAGE_BYTES: usize = 5 * 1024;
const MAX_ANNOTATION_BYTES: usize = 10 * 1024;

/// A validation that did not hold, or could not be evaluated.
struct Denial {
    /// Of the validation in its policy.
    index: usize,
    reason: String,
    message: String,
}

/// What one evaluation of a policy came to.
#[derive(Default)]
struct Outcome {
    denials: Vec<Denial>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be computed: these deny whatever the binding's actions are.
    failures: Vec<String>,
}

/// `new` is null for a DELETE.
pub(crate) async fn validate(attributes: &mut Attributes<'_, '_>, new: &Json) -> Result<(), Status> {
    let api = attributes.api;
    let policies = api.policies.of(api, Side::Validating);
    if policies.is_empty() || is_exempt(attributes) {
        return Ok(());
    }
    let mut first: Option<(String, Denial)> = None;
    for bound in policies.iter() {
        let policy = &bound.policy;
        let name = policy.object.name();
        let by_policy = |message: String| {
            let denial = Denial { index: 0, reason: String::new(), message };
            (format!("ValidatingAdmissionPolicy '{name}'"), denial)
        };
        let matched = match policy.matcher.matches(attributes, new) {
            Ok(None) => continue,
            Ok(Some(matched)) => matched,
            Err(status) => {
                if !policy.ignores_failures {
                    first.get_or_insert(by_policy(format!("failed to configure policy: {}", status.message)));
                }
                continue;
            }
        };
        if let Err(why) = params::kind(api, policy) {
            if !policy.ignores_failures {
                first.get_or_insert(by_policy(format!("failed to configure policy: {why}")));
            }
            continue;
        }
        let mut annotations: Vec<(String, Vec<String>)> = Vec::new();
        for binding in &bound.bindings {
            let by = || format!("ValidatingAdmissionPolicy '{name}' with binding '{}'", binding.object.name());
            match evaluate(attributes, policy, binding, &matched, new).await {
                Ok(outcomes) => {
                    for outcome in outcomes {
                        for denial in outcome.denials {
                            if act(attributes, policy, binding, &denial) {
                                first.get_or_insert_with(|| (by(), denial));
                            }
                        }
                        for (key, value) in outcome.annotations {
                            add(&mut annotations, key, value);
                        }
                        for message in outcome.failures {
                            first.get_or_insert_with(|| (by(), Denial { index: 0, reason: String::new(), message }));
                        }
                    }
                }
                Err(_) if policy.ignores_failures => {}
                Err(why) => {
                    let message = format!("failed to configure binding: {why}");
                    first.get_or_insert_with(|| (by(), Denial { index: 0, reason: String::new(), message }));
                }
            }
        }
        for (key, values) in annotations {
            attributes.annotate(format!("{name}/{key}"), values.join(", "));
        }
    }
    first.map_or(Ok(()), |(by, denial)| Err(refusal(attributes, new, &by, denial)))
}

/// Several bindings may say the same: once is enough.
fn add(annotations: &mut Vec<(String, Vec<String>)>, key: String, value: String) {
    match annotations.iter_mut().find(|(known, _)| *known == key) {
        Some((_, values)) if values.contains(&value) => {}
        Some((_, values)) => values.push(value),
        None => annotations.push((key, vec![value])),
    }
}

/// Once for every param of a binding; none when it does not match. An error is one of configuration.
async fn evaluate(
    attributes: &Attributes<'_, '_>,
    policy: &Policy,
    binding: &Binding,
    matched: &Matched,
    new: &Json,
) -> Result<Vec<Outcome>, String> {
    if let Some(matcher) = &binding.matcher
        && matcher.matches(attributes, new).map_err(|status| status.message)?.is_none()
    {
        return Ok(Vec::new());
    }
    let params = params::collect(attributes.api, policy, binding, attributes.target.namespace)?;
    if params.is_empty() {
        return Ok(Vec::new());
    }
    let failed = |status: Status| format!("failed to convert object version: {}", status.message);
    let object = versions::view(attributes, matched, new).await.map_err(failed)?;
    let old = versions::view(attributes, matched, attributes.old).await.map_err(failed)?;
    let inputs = Inputs::new(attributes, matched, object, old);
    Ok(params.iter().map(|param| judge(policy, &inputs, param.as_ref())).collect())
}

fn judge(policy: &Policy, inputs: &Inputs<'_>, param: Option<&Json>) -> Outcome {
    let mut outcome = Outcome::default();
    let fails = !policy.ignores_failures;
    let failure = |index: usize, message: String| Denial { index, reason: String::new(), message };
    match conditions::hold(&policy.conditions, inputs, param) {
        Ok(true) => {}
        Ok(false) => return outcome,
        Err(error) => {
            outcome.denials.extend(fails.then(|| failure(0, error)));
            return outcome;
        }
    }
    let scopes = |authorizer| Scope::new(inputs, param, authorizer, &policy.variables);
    let (Ok(scope), Ok(unasked)) = (scopes(true), scopes(false)) else { return outcome };
    let mut budget = Budget::new(RUNTIME_BUDGET);
    let mut broken = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
        match scope.evaluate(&validation.rule, &mut budget) {
            Ok(value) if value.as_bool() == Some(true) => {}
            Ok(_) => broken.push((index, None)),
            Err(Failure::Evaluation(error)) => broken.push((index, Some(error))),
            Err(Failure::OutOfBudget(error)) => {
                outcome.denials.extend(fails.then(|| failure(0, error)));
                return outcome;
            }
        }
    }
    for (index, error) in broken {
        let Some(validation) = policy.validations.get(index) else { continue };
        match error {
            Some(error) => outcome.denials.extend(fails.then(|| failure(index, error))),
            None => match message(validation, &unasked, &mut budget) {
                Ok(message) => outcome.denials.push(Denial { index, reason: validation.reason.clone(), message }),
                Err(error) => {
                    let text = format!("failed messageExpression: {error}");
                    outcome.denials.extend(fails.then(|| failure(index, text)));
                }
            },
        }
    }
    annotate(policy, &scope, &mut outcome);
    outcome
}

/// The messageExpression's, if it makes one that is fit to be shown; else the message, else the rule.
fn message<'a>(validation: &'a Validation, scope: &Scope<'a>, budget: &mut Budget) -> Result<String, String> {
    if let Some(expression) = &validation.message_expression {
        match scope.evaluate(expression, budget) {
            Ok(value) => {
                let text = value.as_str().unwrap_or("").trim();
                if !text.is_empty() && text.len() <= MAX_MESSAGE_BYTES && !text.contains('\n') {
                    return Ok(text.to_owned());
                }
            }
            Err(Failure::OutOfBudget(error)) => return Err(error),
            Err(Failure::Evaluation(error)) => tracing::debug!(error, "a policy's messageExpression failed"),
        }
    }
    match validation.message.trim() {
        "" => Ok(format!("failed expression: {}", validation.rule.text.trim())),
        message => Ok(message.to_owned()),
    }
}

fn annotate<'a>(policy: &'a Policy, scope: &Scope<'a>, outcome: &mut Outcome) {
    let mut budget = Budget::new(RUNTIME_BUDGET);
    for (key, expression) in &policy.annotations {
        match scope.evaluate(expression, &mut budget) {
            Ok(Value::Null) => {}
            Ok(value) => match value.as_str().map(str::trim) {
                Some("") => {}
                Some(text) => {
                    let end = (0..=text.len().min(MAX_ANNOTATION_BYTES)).rev().find(|at| text.is_char_boundary(*at));
                    outcome.annotations.push((key.clone(), text[..end.unwrap_or(0)].to_owned()));
                }
                None => outcome.failures.push(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    expression.text,
                    value.type_of()
                )),
            },
            Err(_) if policy.ignores_failures => {}
            Err(Failure::Evaluation(error) | Failure::OutOfBudget(error)) => outcome.failures.push(error),
        }
    }
}

/// What the binding wants done; whether the request is refused.
fn act(attributes: &mut Attributes<'_, '_>, policy: &Policy, binding: &Binding, denial: &Denial) -> bool {
    let mut denies = false;
    let actions = binding.object.root().at("spec.validationActions");
    for action in actions.items().map(|action| action.str().to_owned()) {
        let (policy, name) = (policy.object.name(), binding.object.name());
        match action.as_str() {
            "Deny" => denies = true,
            "Warn" => attributes.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{name}': {}",
                denial.message
            )),
            _ => {
                let told = json!([{"message": denial.message, "policy": binding.policy_name(), "binding": name,
                    "expressionIndex": denial.index, "validationActions": actions.to_value()}]);
                attributes.annotate("validation.policy.admission.k8s.io/validation_failure", told.to_string());
            }
        }
    }
    denies
}

fn refusal(attributes: &Attributes<'_, '_>, new: &Json, by: &str, denial: Denial) -> Status {
    let message = format!("{by} denied request: {}", denial.message);
    let mut status = attributes.forbidden(new, &message);
    (status.code, status.reason) = match denial.reason.as_str() {
        "Unauthorized" => (401, "Unauthorized"),
        "Forbidden" => (403, "Forbidden"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    status.causes.push(Cause { reason: "", message, field: String::new() });
    status
}
