//! DELETE: at once, after a grace period, or when the last finalizer is gone (registry/rest/delete.go,
//! registry/generic/registry/store.go).
use super::{Api, Beside, MAX_TRIES, MODIFIED, Target, format_time, meta, now, storage_error};
use crate::{DeleteOptions, admission, behavior, feed};
use jiff::{SignedDuration, Timestamp};
use mote_schema::{Object, Status, Value};
use mote_store::{Entry, Error, Precondition};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// How a delete ended.
pub(crate) enum Deleted {
    /// The object as it last was; it is gone.
    Gone(Object),
    /// It stays until a grace period or finalizers end.
    Pending(Object),
}

enum Step {
    /// As it is shown to whoever deleted it.
    Remove(Value),
    Mark(Value),
    /// Already on its way; nothing to write.
    Leave,
}

impl Api {
    pub(crate) async fn delete(&self, target: &mut Target<'_>, options: &DeleteOptions) -> Result<Deleted, Status> {
        let kind = self.stored_kind(target.kind);
        let mut stored = target.at(&kind, target.sub);
        let deleted = self.delete_stored(&mut stored, options).await;
        target.warnings.append(&mut stored.warnings);
        Ok(match deleted? {
            Deleted::Gone(object) => Deleted::Gone(feed::view(target.kind, object)),
            Deleted::Pending(object) => Deleted::Pending(feed::view(target.kind, object)),
        })
    }

    async fn delete_stored(&self, target: &mut Target<'_>, options: &DeleteOptions) -> Result<Deleted, Status> {
        for _ in 0..MAX_TRIES {
            let current = self.current(target.kind, target.namespace, target.name).await?;
            self.check_preconditions(target, &current, options)?;
            let old = current.to_value();
            admission::delete(self, target, &old, options).await?;
            if let Some(warning) = behavior::delete_warning(target.kind, options.propagation.as_deref())
                && !target.warnings.iter().any(|known| known == warning)
            {
                target.warnings.push(warning.into());
            }
            let step = plan(target, &old, options)?;
            if target.options.dry_run {
                return Ok(match step {
                    Step::Remove(value) => {
                        Deleted::Gone(Object { doc: self.encoded(target.kind, value).await?.shown, ..current })
                    }
                    Step::Leave => Deleted::Pending(current),
                    Step::Mark(value) => {
                        Deleted::Pending(Object { doc: self.encoded(target.kind, value).await?.shown, ..current })
                    }
                });
            }
            let key = target.key(target.name);
            let condition = Precondition::Modified(current.revision);
            let result = match step {
                Step::Leave => return Ok(Deleted::Pending(current)),
                Step::Remove(value) => {
                    let shown = match value == old {
                        true => current.doc.clone(),
                        false => self.encoded(target.kind, value).await?.shown,
                    };
                    let mut beside = Beside::default();
                    behavior::release(self, target, &old, &mut beside);
                    let done = self.remove(target, key, condition, beside).await;
                    done.map(|revision| Deleted::Gone(Object { revision, doc: shown, ..current.clone() }))
                }
                Step::Mark(value) => {
                    let encoded = self.encoded(target.kind, value).await?;
                    self.put(target, key, condition, encoded, Beside::default()).await.map(Deleted::Pending)
                }
            };
            match result {
                Ok(deleted) => return Ok(deleted),
                Err(Error::Precondition { found: None, .. }) => return Err(target.not_found()),
                Err(Error::Precondition { .. }) => continue,
                Err(other) => return Err(storage_error(other)),
            }
        }
        Err(target.conflict(MODIFIED))
    }

    fn check_preconditions(
        &self,
        target: &Target<'_>,
        current: &Object,
        options: &DeleteOptions,
    ) -> Result<(), Status> {
        // Upstream names the kind here, not the resource.
        let conflict =
            |detail: String| Err(Status::conflict(&target.kind.group, &target.kind.kind, target.name, &detail));
        if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != current.uid()) {
            let found = current.uid();
            return conflict(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({found}). The object might have been deleted and then recreated"
            ));
        }
        if let Some(revision) = options.resource_version.filter(|revision| *revision != current.revision) {
            let found = current.revision;
            return conflict(format!(
                "the ResourceVersion in the precondition ({revision}) does not match the ResourceVersion in record ({found}). The object might have been modified"
            ));
        }
        Ok(())
    }

    /// Deletes what was listed; one that is gone already is no error. Returns the objects as they were.
    pub(crate) async fn delete_collection(
        &self,
        target: &mut Target<'_>,
        options: &DeleteOptions,
        listed: &[Entry],
    ) -> Result<Vec<Object>, Status> {
        let mut deleted = Vec::with_capacity(listed.len());
        for entry in listed {
            let object = feed::object(target.kind, entry);
            let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
            let mut one = Target {
                options: target.options,
                internal: target.internal,
                ..Target::new(target.user, target.kind, &namespace, &name, target.sub)
            };
            let result = self.delete(&mut one, options).await;
            one.warnings.retain(|warning| !target.warnings.contains(warning));
            target.warnings.append(&mut one.warnings);
            match result {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => deleted.push(object),
            }
        }
        Ok(deleted)
    }
}

fn plan(target: &Target<'_>, old: &Value, options: &DeleteOptions) -> Result<Step, Status> {
    let mut new = old.clone();
    let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let supports_grace = behavior::grace_period(target.kind, old, asked);
    let deleting = old["metadata"].get("deletionTimestamp").is_some();
    let running_grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let mut grace = None;
    if deleting {
        // Emptying a namespace is its controller's.
        if behavior::is_held(target.kind, old) {
            return Ok(Step::Leave);
        }
        match (running_grace, asked, supports_grace) {
            // Only a shorter grace period is taken.
            (Some(running), Some(mut shorter), _) if shorter < running => {
                let since =
                    old["metadata"]["deletionTimestamp"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
                let start = since.and_then(|at| at.checked_sub(SignedDuration::from_secs(running)).ok());
                let at = start.unwrap_or_else(now).checked_add(SignedDuration::from_secs(shorter));
                let mut at = at.unwrap_or_else(|_| now());
                if shorter > 0 && at < now() {
                    // Over already: as short as a graceful one can be, and never in the past.
                    at = now();
                    shorter = shorter.min(1);
                }
                mark(&mut new, at, shorter)?;
                grace = Some(shorter);
            }
            (Some(running), _, _) if running > 0 => return Ok(Step::Leave),
            _ => {}
        }
    } else if let Some(seconds) = supports_grace {
        let at = now().checked_add(SignedDuration::from_secs(seconds)).unwrap_or_else(|_| now());
        mark(&mut new, at, seconds)?;
        grace = Some(seconds);
    }
    let finalizers = match behavior::cleanup_finalizer(target.kind).filter(|_| !deleting) {
        Some(finalizer) => finalizers_with(&new, finalizer),
        None => finalizers_for(&new, options, behavior::orphans(target.kind)),
    };
    let pending = !finalizers.is_empty() || behavior::is_held(target.kind, &new);
    let metadata = meta::metadata(&mut new)?;
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), Value::from(finalizers));
    }
    if grace.unwrap_or(0) == 0 {
        if !pending {
            return Ok(Step::Remove(new));
        }
        if !deleting {
            if behavior::is_emptied(target.kind) {
                meta::metadata(&mut new)?.insert("deletionTimestamp".into(), Value::from(format_time(now())));
            } else if grace.is_none() {
                mark(&mut new, now(), 0)?;
            }
            behavior::begin_deletion(target.kind, &mut new);
        } else if new == *old {
            return Ok(Step::Leave);
        }
    }
    Ok(Step::Mark(new))
}

fn mark(value: &mut Value, at: Timestamp, grace_seconds: i64) -> Result<(), Status> {
    let metadata = meta::metadata(value)?;
    let before = metadata.insert("deletionTimestamp".into(), Value::from(format_time(at)));
    metadata.insert("deletionGracePeriodSeconds".into(), Value::from(grace_seconds));
    // Only the first mark asks anything new of controllers.
    if let (None, Some(generation)) = (before, metadata.get("generation").and_then(Value::as_i64)) {
        metadata.insert("generation".into(), Value::from(generation + 1));
    }
    Ok(())
}

fn finalizers_with(value: &Value, finalizer: &str) -> Vec<String> {
    let mut finalizers = finalizers_for(value, &DeleteOptions::default(), false);
    if !finalizers.iter().any(|known| known == finalizer) {
        finalizers.push(finalizer.into());
    }
    finalizers
}

/// deletionFinalizersForGarbageCollection. What the options say counts most, then what is on the object, then what the
/// kind does by itself.
fn finalizers_for(value: &Value, options: &DeleteOptions, orphans: bool) -> Vec<String> {
    let existing = value["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut finalizers: Vec<String> = existing.map(str::to_owned).collect();
    let is_policy = |finalizer: &String| finalizer == ORPHAN || finalizer == FOREGROUND;
    let policy = match options.propagation.as_deref() {
        None if finalizers.iter().any(is_policy) => return finalizers,
        None => Some(ORPHAN).filter(|_| orphans),
        Some("Orphan") => Some(ORPHAN),
        Some("Foreground") => Some(FOREGROUND),
        Some(_) => None,
    };
    finalizers.retain(|finalizer| !is_policy(finalizer));
    finalizers.extend(policy.map(str::to_owned));
    finalizers
}
