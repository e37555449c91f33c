//! NamespaceLifecycle: nothing new in a namespace that is missing or going, and the built-in ones stay
//! (apiserver/pkg/admission/plugin/namespace/lifecycle).
use super::{Attributes, Operation};
use mote_schema::{Cause, Status, Value};

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) fn mutate(attributes: &mut Attributes<'_, '_>, new: &mut Value) -> Result<(), Status> {
    let target = &attributes.target;
    if attributes.is("", "namespaces") {
        let immortal = attributes.operation == Operation::Delete && IMMORTAL.contains(&target.name);
        return if immortal { Err(attributes.forbidden(new, "this namespace may not be deleted")) } else { Ok(()) };
    }
    // Reviews say nothing of namespaces: whether one exists is not everybody's to know.
    let asks = matches!(attributes.operation, Operation::Create | Operation::Update) && !target.kind.virtual_kind;
    if !asks || !target.kind.namespaced {
        return Ok(());
    }
    let catalog = attributes.api.catalog();
    let Some(kind) = catalog.by_resource("", "v1", "namespaces") else { return Ok(()) };
    let namespace = attributes.api.get(kind, "", target.namespace)?;
    if !attributes.is_create() || namespace.root().at("status.phase").str() != "Terminating" {
        return Ok(());
    }
    let name = target.namespace;
    let detail = format!("unable to create new content in namespace {name} because it is being terminated");
    let mut status = attributes.forbidden(new, &detail);
    status.causes = vec![Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".into(),
    }];
    Err(status)
}
