//! PUT: an object's new state, whole or of one subresource.
use super::{Api, Beside, MAX_TRIES, MODIFIED, Owners, Target, meta, owners, storage_error};
use crate::{Sub, admission, behavior, feed, rbac::Attributes};
use mote_schema::{Cause, Object, Status, Value, check, convert, defaults, prepare};
use mote_store::{Error, Precondition};

/// Metadata only the server writes; who sends another value for what is about its deletion is told that it is immutable.
const SERVER_OWNED: &[&str] = &["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// Makes the new state of an object from the newest (null: there is none), at the target's version.
pub(super) type Change<'c> = dyn FnMut(&Value, &mut Target<'_>) -> Result<Value, Status> + Send + 'c;

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
        check_name(target, meta::text(metadata, "name"))?;
        target.warnings.extend(meta::dedup_owners(metadata, false));
        self.write(target, Owners::Tracked, &mut |old, target| {
            check_uid(target, old, &value)?;
            if !old.is_null() && !target.internal {
                check_revision(target, &value)?;
            }
            Ok(value.clone())
        })
        .await
    }

    /// Applies `change` to the newest state until it takes. A resourceVersion in the result must be the newest.
    /// The owners of fields are whom `change` leaves.
    pub(crate) async fn guaranteed_update(
        &self,
        target: &mut Target<'_>,
        mut change: impl FnMut(&Value, &mut Target<'_>) -> Result<Value, Status> + Send,
    ) -> Result<Object, Status> {
        self.write(target, Owners::Kept, &mut change).await
    }

    pub(super) async fn write(
        &self,
        target: &mut Target<'_>,
        owners: Owners,
        change: &mut Change<'_>,
    ) -> Result<Object, Status> {
        let kind = self.stored_kind(target.kind);
        let said = target.warnings.len();
        for _ in 0..MAX_TRIES {
            // Another try says the same once more.
            target.warnings.truncate(said);
            let current = match self.current(&kind, target.namespace, target.name).await {
                Ok(current) => current,
                Err(status) if !status.is_not_found() => return Err(status),
                Err(_) => match self.create_by_update(target, owners, change).await {
                    Err(status) if status.is_already_exists() => continue,
                    result => return result,
                },
            };
            // As upstream reads from storage: what was written before a default existed has it from now on.
            let mut old = current.to_value();
            defaults::apply(&kind, &mut old);
            let new = if convert::is_needed(target.kind) {
                let mut view = old.clone();
                convert::from_stored(target.kind, &mut view);
                let mut new = self.changed(target, owners, &view, change)?;
                convert::to_stored(target.kind, &mut new);
                new
            } else {
                self.changed(target, owners, &old, change)?
            };
            let mut stored = target.at(&kind, target.sub);
            let done = self.try_update(&mut stored, &current, &old, new).await;
            target.warnings.append(&mut stored.warnings);
            match done? {
                Some(object) => return Ok(feed::view(target.kind, object)),
                None => continue,
            }
        }
        Err(target.conflict(MODIFIED))
    }

    fn changed(
        &self,
        target: &mut Target<'_>,
        owners: Owners,
        old: &Value,
        change: &mut Change<'_>,
    ) -> Result<Value, Status> {
        let mut new = change(old, target)?;
        defaults::apply(target.kind, &mut new);
        if owners == Owners::Tracked {
            owners::track(self, target, old, &mut new);
        }
        Ok(new)
    }

    /// Upstream's create on update, for the few kinds that have it and for every apply: `change` refuses where it may not be.
    async fn create_by_update(
        &self,
        target: &mut Target<'_>,
        owners: Owners,
        change: &mut Change<'_>,
    ) -> Result<Object, Status> {
        if target.sub != Sub::Main || owners == Owners::Tracked && !behavior::creates_on_update(target.kind) {
            return Err(target.not_found());
        }
        let new = change(&Value::Null, target)?;
        let uid = new["metadata"]["uid"].as_str().unwrap_or("");
        if !uid.is_empty() {
            return Err(target.conflict(&match owners {
                Owners::Tracked => format!("Precondition failed: UID in precondition: {uid}, UID in object meta: "),
                Owners::Kept => {
                    format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found")
                }
            }));
        }
        if self.security().is_ok() {
            self.authorize(target.user, &Attributes::of("create", target.kind, "", target.namespace, target.name))?;
        }
        let object = self.create_owned(target, new, owners).await?;
        target.created = true;
        Ok(object)
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
        let asked =
            match meta::text(metadata, "resourceVersion") {
                "" | "0" => None,
                text => Some(text.parse::<u64>().map_err(|_| {
                    Status::new(500, "", format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
                })?),
            };
        let uid = meta::text(metadata, "uid");
        if !uid.is_empty() && uid != current.uid() {
            // Upstream's checks of any object and of the kind both say so; the parts of this process name an object by it.
            let cause = Cause::invalid("metadata.uid", &Value::from(uid), "field is immutable");
            let (group, kind) = (&target.kind.group, &target.kind.kind);
            return Err(match target.internal {
                true => uid_conflict(target, uid, current.uid()),
                false => Status::invalid(group, kind, target.name, vec![cause.clone(), cause]),
            });
        }
        if asked.is_some_and(|revision| revision != current.revision) {
            return Err(target.conflict(MODIFIED));
        }
        metadata.insert("uid".into(), Value::from(current.uid()));
        for field in SERVER_OWNED {
            if !matches!(*field, "generation" | "creationTimestamp") && metadata.contains_key(field) {
                continue;
            }
            match old["metadata"].get(field) {
                Some(kept) => metadata.insert((*field).into(), kept.clone()),
                None => metadata.remove(field),
            };
        }
        admission::mutate(self, target, Some(old), &mut new).await?;
        target.warnings.extend(meta::dedup_owners(meta::metadata(&mut new)?, true));
        defaults::apply(target.kind, &mut new);
        prepare::update(target.kind, target.sub.name(), old, &mut new);
        defaults::read_back(target.kind, &mut new);
        owners::keep_times(old, &mut new);
        let mut beside = Beside::default();
        behavior::allocate(self, target, Some(old), &mut new, &mut beside)?;
        let mut causes = check::validate(target.judged_as(), &new, Some(old), target.sub.name());
        crate::custom::check(target, &new, Some(old), &mut causes);
        causes.extend(admission::policy::check::causes(target.kind, &new, Some(old)));
        causes.extend(admission::policy::devices::causes(target.kind, &new, Some(old)));
        causes.extend(behavior::causes(target.kind, &new, Some(old)));
        if !causes.is_empty() {
            return Err(Status::invalid(&target.kind.group, &target.kind.kind, target.name, causes));
        }
        target.warnings.extend(check::warnings(target.kind, &new, Some(old), target.sub.name()));
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

/// rest.go, checkName
pub(crate) fn check_name(target: &Target<'_>, name: &str) -> Result<(), Status> {
    let asked = target.name;
    match name {
        name if name == asked => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({asked} based on URL) was undeterminable: name must be provided"
        ))),
        _ => Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({asked})"
        ))),
    }
}

/// A replacement's uid is a precondition.
pub(crate) fn check_uid(target: &Target<'_>, old: &Value, new: &Value) -> Result<(), Status> {
    let uid = |object: &'_ Value| object["metadata"]["uid"].as_str().unwrap_or("").to_owned();
    match (uid(old), uid(new)) {
        (found, asked) if !found.is_empty() && !asked.is_empty() && found != asked => {
            let place = behavior::storage_place(target.kind);
            let namespace = if target.namespace.is_empty() { "" } else { "/" };
            Err(target.conflict(&format!(
                "StorageError: invalid object, Code: 4, Key: /{place}{namespace}{}/{}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {asked}, UID in object meta: {found}",
                target.namespace, target.name
            )))
        }
        _ => Ok(()),
    }
}

/// registry/store.go, Update: kinds that let nobody replace what he has not read.
pub(super) fn check_revision(target: &Target<'_>, new: &Value) -> Result<(), Status> {
    let is_named = !matches!(new["metadata"]["resourceVersion"].as_str(), None | Some("" | "0"));
    if is_named || !behavior::pins_update(target.kind) {
        return Ok(());
    }
    let cause = Cause::invalid("metadata.resourceVersion", &Value::from(0), "must be specified for an update");
    Err(Status::invalid(&target.kind.group, &target.kind.plural, target.name, vec![cause]))
}

fn uid_conflict(target: &Target<'_>, asked: &str, found: &str) -> Status {
    target.conflict(&format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {found}"))
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
