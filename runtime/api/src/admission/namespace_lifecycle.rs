//! NamespaceLifecycle: nothing new in a namespace that is missing or going, and the built-in ones stay
//! (plugin/pkg/admission/namespace/lifecycle).
use crate::{registry::Target, server::Api};
use mote_schema::{Cause, Status};

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) fn check(api: &Api, target: &Target<'_>, create: bool) -> Result<(), Status> {
    if !create || !target.kind.namespaced || target.kind.virtual_kind {
        return Ok(());
    }
    let catalog = api.catalog();
    let Some(kind) = catalog.by_resource("", "v1", "namespaces") else { return Ok(()) };
    let namespace = api.get(kind, "", target.namespace)?;
    if !namespace.is_deleting() {
        return Ok(());
    }
    let detail =
        format!("unable to create new content in namespace {} because it is being terminated", target.namespace);
    let mut status = Status::forbidden(&target.kind.group, &target.kind.plural, target.name, &detail);
    status.causes = vec![Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {} is being terminated", target.namespace),
        field: "metadata.namespace".into(),
    }];
    Err(status)
}

pub(super) fn check_delete(target: &Target<'_>) -> Result<(), Status> {
    let namespace = target.kind.group.is_empty() && target.kind.plural == "namespaces";
    if namespace && IMMORTAL.contains(&target.name) {
        return Err(Status::forbidden("", "namespaces", target.name, "this namespace may not be deleted"));
    }
    Ok(())
}
