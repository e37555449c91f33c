//! PUT: an object's new state, whole or of one subresource.
use super::{Api, Beside, MAX_TRIES, MODIFIED, Target, meta, storage_error};
use crate::{Sub, admission, behavior, feed};
use mote_schema::{Cause, Object, Status, check, convert, defaults, prepare};
use mote_store::{Error, Precondition};
use serde_json::Value;

/// Metadata only the server writes; what a client sends for these is replaced by what is stored.
const SERVER_OWNED: &[&str] = &["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// Makes the new state of an object from the newest (null: there is none).
type Change<'c> = dyn FnMut(&Value, &mut Target<'_>) -> Result<Value, Status> + Send + 'c;

impl Api {
    pub(crate) async fn update(&self, target: &mut Target<'_>, value: Value) -> Result<Object, Status> {
        self.update_decoded(target, value, Vec::new()).await
    }

    pub(crate) async fn update_decoded(
        &self,
        target: &mut Target<'_>,
        mut value: Value,
        complaints: Vec<String>,
    ) -> Result<Object, Status> {
        target.decode(&mut value, complaints)?;
        let metadata = meta::metadata(&mut value)?;
        meta::settle_namespace(metadata, target.kind.namespaced, target.namespace)?;
        let name = meta::text(metadata, "name");
        if name.is_empty() && target.sub == Sub::Main {
            let q = &target.kind.kind;
            return Err(Status::bad_request(format!("name must be provided for {q}")));
        }
        if !name.is_empty() && name != target.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        metadata.insert("name".into(), Value::from(target.name));
        self.guaranteed_update(target, |_, _| Ok(value.clone())).await
    }

    /// Applies `change` to the newest state until it takes. A resourceVersion in the result must be the newest.
    pub(crate) async fn guaranteed_update(
        &self,
        target: &mut Target<'_>,
        mut change: impl FnMut(&Value, &mut Target<'_>) -> Result<Value, Status> + Send,
    ) -> Result<Object, Status> {
        if !convert::is_needed(target.kind) {
            return self.update_stored(target, &mut change).await;
        }
        let kind = self.stored_kind(target.kind);
        let mut stored = target.at(&kind, target.sub);
        let object = self
            .update_stored(&mut stored, &mut |old, _| {
                let mut view = old.clone();
                convert::from_stored(target.kind, &mut view);
                let mut new = change(&view, target)?;
                defaults::apply(target.kind, &mut new);
                convert::to_stored(target.kind, &mut new);
                Ok(new)
            })
            .await?;
        target.warnings.append(&mut stored.warnings);
        Ok(feed::view(target.kind, object))
    }

    async fn update_stored(&self, target: &mut Target<'_>, change: &mut Change<'_>) -> Result<Object, Status> {
        for _ in 0..MAX_TRIES {
            let current = match self.current(target.kind, target.namespace, target.name).await {
                Ok(current) => current,
                Err(_) if target.sub == Sub::Main && behavior::creates_on_update(target.kind) => {
                    let new = change(&Value::Null, target)?;
                    return self.create(target, new).await;
                }
                Err(status) => return Err(status),
            };
            // As upstream reads from storage: what was written before a default existed has it from now on.
            let mut old = current.to_value();
            defaults::apply(target.kind, &mut old);
            let new = change(&old, target)?;
            match self.try_update(target, &current, &old, new).await? {
                Some(object) => return Ok(object),
                None => continue,
            }
        }
        Err(target.conflict(MODIFIED))
    }

    /// `None`: somebody else was first, and the caller named no resourceVersion.
    async fn try_update(
        &self,
        target: &mut Target<'_>,
        current: &Object,
        old: &Value,
        mut new: Value,
    ) -> Result<Option<Object>, Status> {
        let metadata = meta::metadata(&mut new)?;
        let asked = match meta::text(metadata, "resourceVersion") {
            "" | "0" => None,
            text => Some(text.parse::<u64>().map_err(|_| {
                let cause = Cause::invalid(
                    "metadata.resourceVersion",
                    &Value::from(text),
                    &format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
                );
                Status::invalid(&target.kind.group, &target.kind.kind, target.name, vec![cause])
            })?),
        };
        let uid = meta::text(metadata, "uid");
        if !uid.is_empty() && uid != current.uid() {
            let detail =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", current.uid());
            return Err(target.conflict(&detail));
        }
        if asked.is_some_and(|revision| revision != current.revision) {
            return Err(target.conflict(MODIFIED));
        }
        metadata.insert("uid".into(), Value::from(current.uid()));
        metadata.remove("managedFields");
        for field in SERVER_OWNED {
            match old["metadata"].get(field) {
                Some(kept) => metadata.insert((*field).into(), kept.clone()),
                None => metadata.remove(*field),
            };
        }
        defaults::apply(target.kind, &mut new);
        admission::mutate(self, target, Some(old), &mut new).await?;
        defaults::apply(target.kind, &mut new);
        prepare::update(target.kind, target.sub.name(), old, &mut new);
        let mut beside = Beside::default();
        behavior::allocate(self, target, Some(old), &mut new, &mut beside)?;
        let mut causes = check::validate(target.kind, &new, Some(old), target.sub.name());
        crate::custom::check(target, &new, Some(old), &mut causes);
        causes.extend(admission::policy::check::causes(target.kind, &new, Some(old)));
        if !causes.is_empty() {
            return Err(Status::invalid(&target.kind.group, &target.kind.kind, target.name, causes));
        }
        if target.sub == Sub::Main {
            target.warnings.extend(crate::custom::warnings(target.kind, &new, Some(old)));
        }
        admission::validate(self, target, Some(old), &new, &mut beside).await?;
        let ends = behavior::ends_with_update(target.kind, &new);
        let encoded = self.encoded(target.kind, new).await?;
        if encoded.shown == current.doc && !ends && !self.store.is_stale(&target.key(target.name)) {
            return Ok(Some(current.clone()));
        }
        if target.options.dry_run {
            return Ok(Some(Object { kind: target.kind.clone(), doc: encoded.shown, revision: current.revision }));
        }
        let key = target.key(target.name);
        let condition = Precondition::Modified(current.revision);
        let result = if ends {
            behavior::release(self, target, old, &mut beside);
            let removed = self.remove(target, key.clone(), condition, beside).await;
            removed.map(|revision| Object { kind: target.kind.clone(), doc: encoded.shown, revision })
        } else {
            self.put(target, key.clone(), condition, encoded, beside).await
        };
        match result {
            Ok(object) => Ok(Some(object)),
            Err(Error::Precondition { key: which, found: None }) if which == key => Err(target.not_found()),
            Err(Error::Precondition { key: which, found: Some(found) }) if which == key => {
                let found = feed::object(target.kind, &found);
                if asked.is_some() || found.uid() != current.uid() { Err(target.conflict(MODIFIED)) } else { Ok(None) }
            }
            Err(other) => Err(storage_error(other)),
        }
    }
}

impl Api {
    /// The server's own change to any part of an object: no strategy, no admission, and `change` decides on errors.
    pub(crate) async fn system_update(
        &self,
        target: &mut Target<'_>,
        mut change: impl FnMut(&mut Value) -> Result<(), Status>,
    ) -> Result<Object, Status> {
        for _ in 0..MAX_TRIES {
            let current = self.current(target.kind, target.namespace, target.name).await?;
            let mut new = current.to_value();
            change(&mut new)?;
            let encoded = self.encoded(target.kind, new).await?;
            if encoded.shown == current.doc || target.options.dry_run {
                return Ok(current);
            }
            let condition = Precondition::Modified(current.revision);
            match self.put(target, target.key(target.name), condition, encoded, Beside::default()).await {
                Ok(object) => return Ok(object),
                Err(Error::Precondition { .. }) => continue,
                Err(other) => return Err(storage_error(other)),
            }
        }
        Err(target.conflict(MODIFIED))
    }
}
