//! Admission: what is asked of a write besides being well-formed. Mutating plugins run in upstream's order before
//! validation, validating ones after it, just before the commit. Webhooks and policies take their place at the end
//! of each list, which is why both are async.
mod namespace_lifecycle;
mod pods;
mod rbac;
mod runtime_class;
mod service_account;
mod storage;

use crate::{Sub, registry::Target, server::Api};
use mote_schema::Status;
use serde_json::Value;

/// `old` is absent for a create.
pub(crate) async fn mutate(
    api: &Api,
    target: &mut Target<'_>,
    old: Option<&Value>,
    new: &mut Value,
) -> Result<(), Status> {
    namespace_lifecycle::check(api, target, old.is_none())?;
    if target.sub != Sub::Main {
        return Ok(());
    }
    match (target.kind.group.as_ref(), target.kind.plural.as_ref(), old.is_none()) {
        ("", "pods", true) => {
            service_account::mutate(api, target, new)?;
            pods::resolve_priority(api, new)?;
            runtime_class::mutate(api, new)?;
            pods::default_tolerations(new);
            pods::taint_by_condition(new);
            Ok(())
        }
        // An update that replaces the list gets them again, and so takes none away (defaulttolerationseconds).
        ("", "pods", false) => {
            pods::default_tolerations(new);
            Ok(())
        }
        ("", "nodes", true) => {
            pods::taint_new_node(new);
            Ok(())
        }
        ("", "persistentvolumeclaims", true) => {
            storage::default_class(api, new);
            storage::protect(new, "kubernetes.io/pvc-protection");
            Ok(())
        }
        ("", "persistentvolumes", true) => {
            storage::protect(new, "kubernetes.io/pv-protection");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The last word before the commit.
pub(crate) async fn validate(
    api: &Api,
    target: &mut Target<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<(), Status> {
    if let Some(new) = new {
        rbac::check_escalation(api, target, old, new)?;
    }
    Ok(())
}

pub(crate) async fn validate_delete(api: &Api, target: &mut Target<'_>, _old: &Value) -> Result<(), Status> {
    let _ = api;
    namespace_lifecycle::check_delete(target)
}
