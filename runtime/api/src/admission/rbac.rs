//! Nobody grants rights they do not have, in roles or through bindings. No plugin upstream: its storage asks
//! (pkg/registry/rbac), after admission as here.
use super::Attributes;
use crate::rbac;
use mote_schema::Status;
use mote_schema::Value;

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    let target = &attributes.target;
    if &*target.kind.group != rbac::GROUP || new.is_null() {
        return Ok(());
    }
    let old = Some(attributes.old).filter(|old| !old.is_null());
    let authorizer = &attributes.api.security()?.authorizer;
    rbac::check_write(authorizer, target.user, &target.kind.plural, target.namespace, old, new)
}
