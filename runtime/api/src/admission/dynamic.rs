//! What people add to admission: policies in CEL and webhooks. Each takes its line here, at the place that upstream's
//! order gives it; a refusal of one ends the request.
use super::{Attributes, hooks, policy};
use mote_schema::Status;
use mote_schema::Value;

pub(super) use super::hooks::Round;

/// After the in-tree mutating plugins: MutatingAdmissionPolicy, then MutatingAdmissionWebhook. `new` is null for a DELETE.
/// `round` says whether it is the second time, after a webhook changed the object, and remembers between the two.
pub(super) async fn mutate(
    attributes: &mut Attributes<'_, '_>,
    new: &mut Value,
    round: &mut Round,
) -> Result<(), Status> {
    policy::mutate(attributes, new, round).await?;
    hooks::mutate(attributes, new, round).await
}

/// After the in-tree validating plugins and before ResourceQuota: ValidatingAdmissionPolicy, then
/// ValidatingAdmissionWebhook. `new` is null for a DELETE.
pub(super) async fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    policy::validate(attributes, new).await?;
    hooks::validate(attributes, new).await
}
