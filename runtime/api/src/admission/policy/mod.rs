//! Admission policies in CEL: ValidatingAdmissionPolicy, MutatingAdmissionPolicy, and the match conditions they share with
//! webhooks. `definitions` keeps what is configured ready to use, `environment` says what expressions may name, `scope`
//! evaluates them over one request, `validating` and `mutating` are the two ways of asking, `check` refuses what does not
//! compile, `typecheck` warns of what cannot be right. The engine is `mote_cel`.
pub(crate) mod check;
mod conditions;
mod definitions;
pub(crate) mod devices;
mod environment;
mod mutating;
mod params;
mod scope;
mod typecheck;
mod validating;

pub(crate) use conditions::Conditions;
pub(crate) use definitions::Policies;
pub use typecheck::policy_warnings;

pub(crate) use mutating::{Reinvocation, mutate};
pub(crate) use validating::validate;

use super::ObjectKind;
use mote_schema::Value;

/// Writes apiVersion and kind into an object.
fn name(value: &mut Value, object: &ObjectKind<'_>) {
    let slash = if object.group.is_empty() { "" } else { "/" };
    value["kind"] = Value::from(&*object.kind);
    value["apiVersion"] = format!("{}{slash}{}", object.group, object.version).into();
}
