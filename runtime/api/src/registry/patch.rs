//! PATCH: a change applied to the newest state.
use super::{
    Api, FieldValidation, Owners, Target, meta, owners,
    update::{check_name, check_revision},
};
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
                    fit_applied(target, config, &mut new, &complaints)?;
                    new
                }
                _ if old.is_null() => return Err(target.not_found()),
                _ => {
                    let mut new = patched(target, old, change, &complaints)?;
                    check_name(target, meta::text(meta::metadata(&mut new)?, "name"))?;
                    if !target.internal {
                        check_revision(target, &new)?;
                    }
                    new
                }
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
    let refuse = |target: &Target<'_>, error: &str| {
        // What is shown is the object as it would be, or the patch where upstream goes on from a tree.
        let shown = match change {
            Patch::Strategic(patch) => strategic::go(patch),
            _ => make(target)?.to_string(),
        };
        Err::<(), Status>(Status::invalid("", "", "", vec![Cause::invalid("patch", &shown.into(), error)]))
    };
    if let Some(error) = wrong_words(&new) {
        match change {
            Patch::Strategic(_) => refuse(target, &strategic::restored(&error)),
            _ => refuse(target, &format!("couldn't get version/kind; json parse error: {error}")),
        }?;
    }
    // Of a tree's apiVersion and kind nothing is asked.
    if !matches!(change, Patch::Strategic(_)) {
        if let Some(error) = other_kind(target, &new)? {
            refuse(target, &error)?;
        }
        // Without an apiVersion no field is known.
        if !target.kind.is_custom() && is_empty(&new["apiVersion"]) {
            let unknown = new
                .as_object()
                .into_iter()
                .flat_map(|map| map.keys())
                .filter(|name| !matches!(name.as_str(), "apiVersion" | "kind"));
            let unknown: Vec<String> = unknown.map(|name| format!("unknown field {:?}", name.as_str())).collect();
            match target.options.validation {
                FieldValidation::Strict if !unknown.is_empty() => {
                    refuse(target, &format!("strict decoding error: {}", unknown.join(", ")))?;
                }
                FieldValidation::Warn => target.warn(&unknown),
                _ => {}
            }
            check_name(target, "")?;
        }
    }
    let found = match change {
        Patch::Json(operations) => patch::operations(operations)?,
        _ => Vec::new(),
    };
    let complaints = complaints.iter().chain(&found).map(|complaint| match change {
        Patch::Json(_) => format!("json patch {complaint}"),
        _ => complaint.clone(),
    });
    let fitted = target.fit(target.kind, &mut new, complaints.collect(), Vec::new());
    fitted.or_else(|error| match change {
        Patch::Strategic(_) if !error.starts_with("strict ") => refuse(target, &strategic::restored(&error)),
        _ => refuse(target, &error),
    })?;
    Ok(new)
}

fn is_empty(text: &Value) -> bool {
    text.as_str().unwrap_or("").is_empty()
}

/// An apiVersion or kind that is no text.
fn wrong_words(new: &Value) -> Option<String> {
    let wrong = |name: &'static str| {
        Some((name, patch::go_type(&new[name]))).filter(|_| !new[name].is_null() && !new[name].is_string())
    };
    let (name, found) = wrong("apiVersion").or_else(|| wrong("kind"))?;
    Some(format!("json: cannot unmarshal {found} into Go struct field .{name} of type string"))
}

/// A patch may not make another kind of an object; what is said is what comes of decoding it as that.
fn other_kind(target: &Target<'_>, new: &Value) -> Result<Option<String>, Status> {
    let text = |field: &str| new[field].as_str().unwrap_or("");
    let (version, name, expected) = (text("apiVersion"), text("kind"), target.kind.api_version());
    if version == expected && name == target.kind.kind {
        return Ok(None);
    }
    let (group, number) = version.split_once('/').unwrap_or(("", version));
    if number.contains('/') {
        return Ok(Some(format!("unexpected GroupVersion string: {version}")));
    }
    if target.kind.is_custom() {
        let (field, given, wanted) = match (name, version) {
            ("", _) => return Ok(Some(format!("Object 'Kind' is missing in '{new}'"))),
            (_, "") => {
                return Err(Status::internal("Object 'apiVersion' is missing in 'object has no apiVersion field'"));
            }
            (name, _) if name != target.kind.kind => ("kind", name, &*target.kind.kind),
            _ => ("apiVersion", version, &*expected),
        };
        let cause = Cause::invalid(field, &given.into(), &format!("must be {wanted}"));
        return Err(Status::invalid(group, name, target.name, vec![cause]));
    }
    if version.is_empty() || name.is_empty() {
        return Ok(None);
    }
    let catalog = Catalog::builtin();
    if let Some(other) = catalog.by_kind(group, number, name).filter(|_| name != target.kind.kind)
        && let Err(error) = mote_schema::prune::clean(other, &mut new.clone())
    {
        return Ok(Some(error));
    }
    Ok(unregistered(&catalog, target.kind, group, number, name))
}

/// What comes of an apply has its types checked and may hold no unknown field; only the configuration's text can still
/// be complained of.
fn fit_applied(target: &mut Target<'_>, config: &Value, new: &mut Value, complaints: &[String]) -> Result<(), Status> {
    use super::FieldValidation::{Ignore, Strict, Warn};
    let asked = std::mem::replace(&mut target.options.validation, Ignore);
    let fitted = target.fit(target.kind, new, Vec::new(), Vec::new());
    target.options.validation = asked;
    fitted.map_err(|error| {
        let (kind, version) = (&target.kind.kind, target.kind.api_version());
        let slash = if target.kind.group.is_empty() { "/" } else { "" };
        let (what, error) = (format!("{slash}{version}, Kind={kind}"), strategic::restored(&error));
        let of = |field: &str| config["metadata"][field].as_str().unwrap_or("");
        let object = format!("{}/{}; {what}", of("namespace"), of("name"));
        let text = format!("failed to convert new object ({object}) to proper version: unable to convert unstructured object to {what}: {error}");
        Status::new(500, "", text)
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
