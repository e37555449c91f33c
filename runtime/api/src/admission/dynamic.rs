//! What people add to admission: policies in CEL and webhooks. Each takes its line here, at the place that upstream's
//! order gives it; a refusal of one ends the request.
use super::Attributes;
use mote_schema::Status;
use serde_json::Value;

/// After the in-tree mutating plugins: MutatingAdmissionPolicy, then MutatingAdmissionWebhook. `new` is null for a DELETE.
pub(super) async fn mutate(_attributes: &mut Attributes<'_, '_>, _new: &mut Value) -> Result<(), Status> {
    Ok(())
}

/// After the in-tree validating plugins and before ResourceQuota: ValidatingAdmissionPolicy, then
/// ValidatingAdmissionWebhook. `new` is null for a DELETE.
pub(super) async fn validate(_attributes: &mut Attributes<'_, '_>, _new: &Value) -> Result<(), Status> {
    Ok(())
}
