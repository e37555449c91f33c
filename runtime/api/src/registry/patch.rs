//! PATCH: a change applied to the newest state.
use super::{Api, Target};
use crate::Patch;
use mote_schema::{Object, Status, patch, strategic};
use serde_json::Value;

impl Api {
    pub(crate) async fn patch(&self, target: &mut Target<'_>, change: &Patch) -> Result<Object, Status> {
        self.patch_decoded(target, change, Vec::new()).await
    }

    pub(crate) async fn patch_decoded(
        &self,
        target: &mut Target<'_>,
        change: &Patch,
        complaints: Vec<String>,
    ) -> Result<Object, Status> {
        // Without a resourceVersion of its own a patch is tried again on the newest state when it loses a race.
        let pinned = match change {
            Patch::Json(_) => false,
            Patch::Merge(value) | Patch::Strategic(value) => value["metadata"].get("resourceVersion").is_some(),
        };
        self.guaranteed_update(target, |old, target| {
            if old.is_null() {
                return Err(target.not_found());
            }
            let mut new = old.clone();
            let before = old["metadata"]["resourceVersion"].clone();
            match change {
                Patch::Json(ops) => patch::json(&mut new, ops)?,
                Patch::Merge(value) => patch::merge(&mut new, value)?,
                Patch::Strategic(value) => {
                    strategic::apply(target.kind, &mut new, value).map_err(Status::bad_request)?;
                }
            }
            if !pinned && new["metadata"]["resourceVersion"] == before {
                unpin(&mut new);
            }
            let fixed = |field: &str| new["metadata"][field] == old["metadata"][field];
            if !fixed("name") || !fixed("namespace") {
                return Err(Status::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({})",
                    new["metadata"]["name"].as_str().unwrap_or(""),
                    target.name
                )));
            }
            target.decode(&mut new, complaints.clone())?;
            Ok(new)
        })
        .await
    }
}

fn unpin(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
}
