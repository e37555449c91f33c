//! ControllerRevisions: the numbered templates that DaemonSet and StatefulSet roll between, as `kubectl rollout history`
//! and `undo` read them (pkg/controller/history).
use crate::{
    hash,
    owner::{controller_ref, gone_is_fine, is_controlled_by},
    session::Session,
};
use mote_api::{DeleteOptions, Kind, Object, Ref, Sub, driver::Error};
use mote_schema::Order as _;
use mote_schema::{Value, json};
use std::sync::Arc;

/// The label on pods: the hash for a DaemonSet's, the revision's name for a StatefulSet's.
pub const HASH_LABEL: &str = "controller-revision-hash";
/// The label on a StatefulSet's revisions; a DaemonSet's have the same as its pods.
pub const REVISION_HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The owner's present template as a revision, and the older ones, oldest first.
pub struct History {
    pub current: Object,
    pub old: Vec<Object>,
}

pub fn number(revision: &Object) -> i64 {
    revision.root().get("revision").as_i64().unwrap_or(0)
}

pub fn hash_of(revision: &Object) -> &str {
    revision.meta().get("labels").get(HASH_LABEL).str()
}

/// A strategic merge patch that restores the template.
fn data(template: Ref<'_>) -> Value {
    let mut template = template.to_value();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// Finds or makes the revision of `owner`'s template; it always has the highest number.
pub async fn sync(
    session: &Session,
    revisions: &Arc<Kind>,
    owner: &Object,
    hash_label: &str,
) -> Result<History, Error> {
    let template = owner.root().at("spec.template");
    let data = data(template);
    let mut known = session.list(revisions, Some(owner.namespace()))?;
    known.retain(|r| is_controlled_by(r, owner));
    known.order_by_key(|r| (number(r), r.name().to_owned()));
    let next = known.last().map_or(0, number) + 1;
    if let Some(index) = known.iter().rposition(|r| r.root().get("data").to_value() == data) {
        let mut current = known.remove(index);
        if number(&current) + 1 < next {
            let mut value = current.to_value();
            value["revision"] = next.into();
            current = session.update(revisions, Sub::Main, value).await?;
        }
        return Ok(History { current, old: known });
    }
    let collisions = owner.root().at("status.collisionCount").as_i64();
    let hash = hash::of(&template.to_value(), collisions);
    let mut labels = template.at("metadata.labels").to_value();
    if !labels.is_object() {
        labels = json!({});
    }
    labels[hash_label] = hash.clone().into();
    let revision = json!({
        "metadata": {
            "name": format!("{}-{hash}", owner.name()), "namespace": owner.namespace(), "labels": labels,
            "annotations": owner.meta().get("annotations").to_value(), "ownerReferences": [controller_ref(owner)],
        },
        "data": data, "revision": next,
    });
    match session.create(revisions, owner.namespace(), revision).await {
        Ok(current) => Ok(History { current, old: known }),
        Err(status) if status.is_already_exists() => {
            // Another template with the same hash, or another owner's: hash differently next time.
            let mut value = owner.to_value();
            value["status"]["collisionCount"] = (collisions.unwrap_or(0) + 1).into();
            session.update(&owner.kind, Sub::Status, value).await?;
            Err(status.into())
        }
        Err(status) => Err(status.into()),
    }
}

/// Deletes the oldest revisions beyond spec.revisionHistoryLimit that no pod is of.
pub async fn clean_up(session: &Session, owner: &Object, history: &History, live: &[&str]) -> Result<(), Error> {
    let limit = owner.root().at("spec.revisionHistoryLimit").as_i64().unwrap_or(10);
    let unused = |r: &&Object| !live.contains(&hash_of(r)) && !live.contains(&r.name());
    let dead: Vec<&Object> = history.old.iter().filter(unused).collect();
    let surplus = dead.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    for revision in dead.into_iter().take(surplus) {
        gone_is_fine(session.delete(revision, DeleteOptions::default()).await)?;
    }
    Ok(())
}
