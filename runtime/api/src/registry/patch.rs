//! PATCH: a change applied to the newest state.
use super::{Api, Owners, Target, meta, owners};
use crate::{Patch, rest::unregistered};
use mote_schema::{Catalog, Cause, Object, Status, Value, patch, strategic};

impl Api {
    pub(crate) async fn patch(&self, target: &mut Target<'_>, change: &Patch) -> Result<Object, Status> {
        self.patch_decoded(target, change, Vec::new()).await
    }

    /// `complaints` are what parsing already had to say (duplicate fields).
    pub(crate) async fn patch_decoded(
        &self,
        target: &mut Target<'_>,
        change: &Patch,
        complaints: Vec<String>,
    ) -> Result<Object, Status> {
        let (owners, body) = match change {
            Patch::Apply { config, .. } => (Owners::Kept, config),
            Patch::Json(body) | Patch::Merge(body) | Patch::Strategic(body) => (Owners::Tracked, body),
        };
        crate::audit::request_object(body);
        self.write(target, owners, &mut |old, target| {
            let mut new = match change {
                Patch::Apply { config, force } => {
                    let mut new = owners::apply(self, target, old, config, *force)?;
                    fit_applied(target, &mut new, &complaints)?;
                    new
                }
                _ if old.is_null() => return Err(target.not_found()),
                _ => patched(target, old, change, &complaints)?,
            };
            // Without a resourceVersion of its own a patch is tried again on the newest state when it loses a race.
            let metadata = meta::metadata(&mut new)?;
            if metadata.get("resourceVersion") == old["metadata"].get("resourceVersion") {
                metadata.remove("resourceVersion");
            }
            meta::settle_namespace(metadata, target.kind.namespaced, target.namespace)?;
            check_name(target, meta::text(metadata, "name"))?;
            Ok(new)
        })
        .await
    }
}

/// rest.go, checkName
fn check_name(target: &Target<'_>, name: &str) -> Result<(), Status> {
    match name {
        name if name == target.name => Ok(()),
        "" => Err(Status::bad_request(format!("name must be provided for {}", target.kind.kind))),
        _ => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        ))),
    }
}

pub(crate) fn patched(
    target: &mut Target<'_>,
    old: &Value,
    change: &Patch,
    complaints: &[String],
) -> Result<Value, Status> {
    let make = |target: &Target<'_>| {
        let mut new = old.clone();
        match change {
            Patch::Json(operations) => patch::json(&mut new, operations)?,
            Patch::Merge(value) => patch::merge(&mut new, value)?,
            Patch::Strategic(value) => strategic::apply(target.kind, &mut new, value)?,
            Patch::Apply { .. } => {}
        }
        Ok::<Value, Status>(new)
    };
    let mut new = make(target)?;
    if let Some(name) = new["kind"].as_str().filter(|name| target.kind.is_custom() && *name != target.kind.kind) {
        let cause = Cause::invalid("kind", &name.into(), &format!("must be {}", target.kind.kind));
        return Err(Status::invalid(&target.kind.group, name, target.name, vec![cause]));
    }
    if let Some(error) = other_kind(target, &new) {
        let shown = make(target)?.to_string();
        return Err(Status::invalid("", "", "", vec![Cause::invalid("patch", &shown.into(), &error)]));
    }
    let complaints = complaints.iter().map(|complaint| match change {
        Patch::Json(_) => format!("json patch {complaint}"),
        _ => complaint.clone(),
    });
    if let Err(error) = target.fit(&mut new, complaints.collect()) {
        // What is shown is the object as it would be, or the patch where upstream goes on from a tree.
        let shown = match change {
            Patch::Strategic(patch) => strategic::go(patch),
            _ => make(target)?.to_string(),
        };
        return Err(Status::invalid("", "", "", vec![Cause::invalid("patch", &shown.into(), &error)]));
    }
    Ok(new)
}

/// A patch may not make another kind of an object; what is said is what comes of decoding it as that.
fn other_kind(target: &Target<'_>, new: &Value) -> Option<String> {
    let text = |field: &str| new[field].as_str().filter(|text| !text.is_empty());
    let (version, name) = (text("apiVersion")?, text("kind")?);
    if target.kind.is_custom() || version == target.kind.api_version() && name == target.kind.kind {
        return None;
    }
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    let catalog = Catalog::builtin();
    if let Some(other) = catalog.by_kind(group, number, name).filter(|_| name != target.kind.kind) {
        let error = mote_schema::prune::clean(other, &mut new.clone()).err();
        return error.or_else(|| unregistered(&catalog, target.kind, group, number, name));
    }
    unregistered(&catalog, target.kind, group, number, name)
}

/// What comes of an apply has its types checked and may hold no unknown field; only the configuration's text can still
/// be complained of.
fn fit_applied(target: &mut Target<'_>, new: &mut Value, complaints: &[String]) -> Result<(), Status> {
    use super::FieldValidation::{Ignore, Strict, Warn};
    let asked = std::mem::replace(&mut target.options.validation, Ignore);
    let fitted = target.fit(new, Vec::new());
    target.options.validation = asked;
    fitted.map_err(|error| {
        let (kind, version) = (&target.kind.kind, target.kind.api_version());
        Status::new(
            500,
            "",
            format!(
                "failed to convert new object ({}/{}; {}, Kind={kind}) to proper version: {error}",
                target.namespace,
                target.name,
                if target.kind.group.is_empty() { format!("/{version}") } else { version.clone() },
            ),
        )
    })?;
    match asked {
        Strict if !complaints.is_empty() => Err(Status::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: {}",
            complaints.join(", ")
        ))),
        Warn => {
            target.warn(complaints);
            Ok(())
        }
        _ => Ok(()),
    }
}
