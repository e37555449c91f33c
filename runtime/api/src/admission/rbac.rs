//! Nobody grants rights they do not have, in roles or through bindings.
use crate::{rbac, registry::Target, server::Api};
use mote_schema::Status;
use serde_json::Value;

pub(super) fn check_escalation(api: &Api, target: &Target<'_>, old: Option<&Value>, new: &Value) -> Result<(), Status> {
    if &*target.kind.group != rbac::GROUP {
        return Ok(());
    }
    let authorizer = &api.security()?.authorizer;
    rbac::check_write(authorizer, target.user, &target.kind.plural, target.namespace, old, new)
}
