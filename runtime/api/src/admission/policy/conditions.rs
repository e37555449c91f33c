//! matchConditions, of webhooks and of policies (plugin/webhook/matchconditions/matcher.go): all must hold; one that does not
//! decides before errors of others count.
use super::{
    super::{Attributes, hooks::Matched},
    environment::{Expression, Options, environment},
    scope::{Failure, Inputs, Scope},
};
use mote_cel::{Budget, RUNTIME_BUDGET_MATCH_CONDITIONS, Type};
use mote_schema::Ref;
use mote_schema::Value;
use std::borrow::Cow;

/// Of one webhook.
pub(crate) struct Conditions(Vec<Expression>);

impl Conditions {
    /// `list`: a webhook's matchConditions.
    pub fn compile(list: Ref<'_>) -> Conditions {
        let options = Options { authorizer: true, ..Options::default() };
        let environment = environment(options, Type::Dyn, Type::Dyn);
        let compile =
            |condition: Ref<'_>| Expression::compile(&environment, condition.get("expression").str(), &[Type::Bool]);
        Conditions(list.items().map(compile).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `object` and `old` are in the version that matched. The error is for the failure policy to judge.
    pub fn matches(
        &self,
        attributes: &Attributes<'_, '_>,
        matched: &Matched,
        object: &Value,
        old: &Value,
    ) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let inputs = Inputs::new(attributes, matched, Cow::Borrowed(object), Cow::Borrowed(old));
        hold(&self.0, &inputs, None)
    }
}

pub(super) fn hold(conditions: &[Expression], inputs: &Inputs<'_>, param: Option<&Value>) -> Result<bool, String> {
    if conditions.is_empty() {
        return Ok(true);
    }
    let scope = Scope::new(inputs, param, true, &[]).map_err(|error| error.to_string())?;
    let mut budget = Budget::new(RUNTIME_BUDGET_MATCH_CONDITIONS);
    let mut errors: Vec<String> = Vec::new();
    let mut holds = true;
    for condition in conditions {
        match scope.evaluate(condition, &mut budget) {
            Ok(value) => holds &= value.as_bool() != Some(false),
            Err(Failure::Evaluation(error)) => errors.push(error),
            Err(Failure::OutOfBudget(error)) => return Err(error),
        }
    }
    match &errors[..] {
        _ if !holds => Ok(false),
        [] => Ok(true),
        [one] => Err(one.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}
