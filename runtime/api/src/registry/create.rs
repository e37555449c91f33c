//! POST: a new object.
use super::{Api, Beside, FieldValidation, Owners, Target, meta, owners, storage_error};
use crate::{admission, behavior, feed};
use mote_schema::{Object, Status, Value, check, convert, defaults, prepare};
use mote_store::{Error, Precondition, Write};

/// Tries for a free generated name, as upstream's RetryGenerateName.
const NAME_TRIES: usize = 8;

impl Api {
    pub(crate) async fn create(&self, target: &mut Target<'_>, value: Value) -> Result<Object, Status> {
        self.create_decoded(target, value, Vec::new()).await
    }

    /// `complaints` are what parsing already had to say (duplicate fields).
    pub(crate) async fn create_decoded(
        &self,
        target: &mut Target<'_>,
        mut value: Value,
        complaints: Vec<String>,
    ) -> Result<Object, Status> {
        target.decode(&mut value, complaints)?;
        target.sets_revision = !matches!(value["metadata"]["resourceVersion"].as_str(), None | Some("" | "0"));
        self.create_owned(target, value, Owners::Tracked).await
    }

    /// What has been decoded, at the version of the request.
    pub(super) async fn create_owned(
        &self,
        target: &mut Target<'_>,
        mut value: Value,
        owners: Owners,
    ) -> Result<Object, Status> {
        let metadata = meta::metadata(&mut value)?;
        meta::settle_namespace(metadata, target.kind.namespaced, target.namespace)?;
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
            metadata.remove(field);
        }
        target.warnings.extend(meta::dedup_owners(metadata, false));
        defaults::apply(target.kind, &mut value);
        if owners == Owners::Tracked {
            prepare::converted(target.kind, &mut value);
            owners::track(self, target, &Value::Null, &mut value);
        }
        if !convert::is_needed(target.kind) {
            return self.create_stored(target, value).await;
        }
        convert::to_stored(target.kind, &mut value);
        let kind = self.stored_kind(target.kind);
        let mut stored = target.at(&kind, target.sub);
        let object = self.create_stored(&mut stored, value).await?;
        target.warnings.append(&mut stored.warnings);
        Ok(feed::view(target.kind, object))
    }

    async fn create_stored(&self, target: &mut Target<'_>, mut value: Value) -> Result<Object, Status> {
        let metadata = meta::metadata(&mut value)?;
        let base = match meta::text(metadata, "name") {
            "" => meta::text(metadata, "generateName").to_owned(),
            _ => String::new(),
        };
        defaults::apply(target.kind, &mut value);
        crate::custom::before_create(target, &value)?;
        admission::mutate(self, target, None, &mut value).await?;
        target.warnings.extend(meta::dedup_owners(meta::metadata(&mut value)?, true));
        // What admission added has defaults of its own.
        defaults::apply(target.kind, &mut value);
        for attempt in 1.. {
            // Only a generated name is tried more than once.
            let mut object = if base.is_empty() { std::mem::take(&mut value) } else { value.clone() };
            let metadata = meta::metadata(&mut object)?;
            metadata.insert("uid".into(), Value::from(meta::new_uid()));
            metadata.insert("creationTimestamp".into(), Value::from(meta::format_time(meta::now())));
            if !base.is_empty() {
                metadata.insert("name".into(), Value::from(meta::generate_name(&base)));
            }
            match self.create_named(target, object).await {
                Err(status) if status.is_already_exists() && !base.is_empty() && attempt < NAME_TRIES => continue,
                Err(status) if status.is_already_exists() && !base.is_empty() => {
                    let mut status = status;
                    status.message =
                        format!("{}, the server was not able to generate a unique name for the object", status.message);
                    status.retry_after_seconds = Some(1);
                    return Err(status);
                }
                result => return result,
            }
        }
        Err(Status::internal("no name was tried"))
    }

    async fn create_named(&self, target: &mut Target<'_>, mut object: Value) -> Result<Object, Status> {
        prepare::create(target.kind, &mut object);
        let mut beside = Beside::default();
        behavior::allocate(self, target, None, &mut object, &mut beside)?;
        let name = meta::text(meta::metadata(&mut object)?, "name").to_owned();
        let mut causes = check::validate(target.judged_as(), &object, None, "");
        crate::custom::check(target, &object, None, &mut causes);
        causes.extend(admission::policy::check::causes(target.kind, &object, None));
        causes.extend(admission::policy::devices::causes(target.kind, &object, None));
        causes.extend(behavior::causes(target.kind, &object, None));
        if !causes.is_empty() {
            return Err(Status::invalid(&target.kind.group, &target.kind.kind, &name, causes));
        }
        defaults::read_back(target.kind, &mut object);
        target.warnings.extend(check::warnings(target.kind, &object, None, ""));
        target.warnings.extend(crate::custom::warnings(target.kind, &object, None));
        admission::validate(self, target, None, &object, &mut beside).await?;
        if target.sets_revision {
            return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        let encoded = self.encoded(target.kind, object).await?;
        let key = target.key(&name);
        if target.options.dry_run {
            if self.store.snapshot().get(&key).is_some() {
                return Err(self.already_exists(target, &name));
            }
            return Ok(Object { kind: target.kind.clone(), doc: encoded.shown, revision: 0 });
        }
        if target.kind.prefix == "events/" {
            beside.writes.extend(self.events.admit(&key).into_iter().map(|key| Write::Delete(key.into())));
        }
        self.put(target, key.clone(), Precondition::Absent, encoded, beside).await.map_err(|error| match error {
            Error::Precondition { key: which, .. } if which == key => self.already_exists(target, &name),
            other => storage_error(other),
        })
    }

    /// Clients wait for one that goes.
    fn already_exists(&self, target: &Target<'_>, name: &str) -> Status {
        let mut status = Status::already_exists(&target.kind.group, &target.kind.plural, name);
        let found = self.get(target.kind, target.namespace, name);
        if found.is_ok_and(|found| !found.meta().get("deletionTimestamp").str().is_empty()) {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    }
}

impl std::str::FromStr for FieldValidation {
    type Err = ();
    fn from_str(text: &str) -> Result<FieldValidation, ()> {
        match text {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            _ => Err(()),
        }
    }
}
