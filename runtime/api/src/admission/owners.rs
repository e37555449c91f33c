//! OwnerReferencesPermissionEnforcement: who changes an object's owners must be allowed to delete it, and who makes it
//! block an owner's deletion must be allowed to keep that owner (plugin/pkg/admission/gc).
use super::{Attributes, references::items};
use crate::rbac;
use mote_schema::Status;
use mote_schema::Value;

pub(super) fn validate(attributes: &mut Attributes<'_, '_>, new: &Value) -> Result<(), Status> {
    let bound = attributes.is("", "pods") && matches!(attributes.subresource, "status" | "binding");
    if bound || !(attributes.is_create() || attributes.is_update()) {
        return Ok(());
    }
    let (before, after) = (&attributes.old["metadata"]["ownerReferences"], &new["metadata"]["ownerReferences"]);
    if items(before).eq(items(after)) {
        return Ok(());
    }
    let authorizer = attributes.api.security()?.authorizer.clone();
    let target = &attributes.target;
    let (user, kind) = (target.user, target.kind);
    if !attributes.is_create() {
        let asked = rbac::Attributes::of("delete", kind, attributes.subresource, target.namespace, target.name);
        let decision = authorizer.decide(user, &asked);
        if !decision.allowed {
            let detail = format!("cannot set an ownerRef on a resource you can't delete: {}, <nil>", decision.reason);
            return Err(attributes.forbidden(new, &detail));
        }
    }
    let blocks = |owner: &&Value| owner["blockOwnerDeletion"] == true;
    let newly = |owner: &&Value| !items(before).filter(blocks).any(|old| old["uid"] == owner["uid"]);
    let blocking: Vec<&Value> = items(after).filter(blocks).filter(newly).collect();
    let anything = rbac::Attributes {
        verb: "update",
        group: "*",
        version: "*",
        resource: "*",
        subresource: "finalizers",
        name: "*",
        is_resource: true,
        ..rbac::Attributes::default()
    };
    if blocking.is_empty() || authorizer.allows(user, &anything) {
        return Ok(());
    }
    let catalog = attributes.api.catalog();
    for owner in blocking {
        let text = |field: &str| owner[field].as_str().unwrap_or("");
        let (api_version, owner_kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let Some(found) = catalog.by_kind(group, version, owner_kind) else {
            let detail = format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {api_version} Kind {owner_kind}: no matches for kind {owner_kind:?} in version {api_version:?}"
            );
            return Err(attributes.forbidden(new, &detail));
        };
        let namespace = if found.namespaced { attributes.target.namespace } else { "" };
        let decision =
            authorizer.decide(user, &rbac::Attributes::of("update", found, "finalizers", namespace, text("name")));
        if !decision.allowed {
            let detail = format!(
                "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {}, <nil>",
                decision.reason
            );
            return Err(attributes.forbidden(new, &detail));
        }
    }
    Ok(())
}
