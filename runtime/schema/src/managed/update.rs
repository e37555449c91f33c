//! Who owns what after a write, who is in the way of an apply, and what an apply removes (merge/update.go).
use super::{
    compare::{Comparison, compare, fields_of},
    entries::{Entries, Entry},
    merge::merge,
    reconcile::reconcile,
    remove::remove,
    reset::Filter,
    set::{Set, path_text},
    tracker::Versions,
    types::TypeRef,
};
use crate::Order as _;
use crate::{Cause, Kind, Status, Value};
use std::{collections::BTreeMap, sync::Arc};

/// What stands in the way of an apply: the manager, and the path of a field it owns.
pub(super) struct Conflict {
    /// Entries sort by it.
    pub id: String,
    pub manager: String,
    pub path: Vec<super::Element>,
}

pub(super) enum Failure {
    Conflicts(Vec<Conflict>),
    Status(Box<Status>),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Failure {
        Failure::Status(Box::new(status))
    }
}

/// An error that upstream never wrapped into a Status.
impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Status::new(500, "", message).into()
    }
}

/// A kind at one version, and an object seen through it.
pub(super) struct View {
    pub kind: Arc<Kind>,
    pub value: Value,
}

impl View {
    fn types(&self) -> TypeRef<'_> {
        TypeRef::of(&self.kind)
    }
}

pub(super) struct Updater<'a> {
    pub kind: &'a Arc<Kind>,
    pub version: String,
    pub filter: Filter,
    pub versions: &'a dyn Versions,
}

impl Updater<'_> {
    /// None: that version is not served any more.
    fn view(&self, kind: &Arc<Kind>, value: &Value, to: &str) -> Result<Option<View>, Failure> {
        if kind.api_version() == to {
            return Ok(Some(View { kind: kind.clone(), value: value.clone() }));
        }
        let view = self.versions.view(value, kind, to)?;
        Ok(view.map(|(kind, value)| View { kind, value }))
    }

    fn compare(&self, types: TypeRef<'_>, old: &Value, new: &Value) -> Result<Comparison, Failure> {
        let compared = compare(types, old, new).map_err(|error| format!("failed to compare objects: {error}"));
        let mut found = compared?;
        for set in [&mut found.removed, &mut found.modified, &mut found.added] {
            self.filter.apply(set);
        }
        Ok(found)
    }

    /// Takes from all managers but `id` what changed; without `force` that is a conflict when they own it.
    fn take_over(
        &self,
        old: &Value,
        new: &Value,
        entries: &mut Entries,
        id: &str,
        force: bool,
    ) -> Result<Comparison, Failure> {
        let mine = self.compare(TypeRef::of(self.kind), old, new)?;
        let mut others: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        for entry in entries.0.iter().filter(|entry| entry.id != id && entry.api_version != self.version) {
            if others.contains_key(&entry.api_version) {
                continue;
            }
            let views = self.view(self.kind, old, &entry.api_version)?;
            let views = match views {
                Some(old) => self.view(self.kind, new, &entry.api_version)?.map(|new| (old, new)),
                None => None,
            };
            let found = match views {
                Some((old, new)) => Some(self.compare(old.types(), &old.value, &new.value)?),
                None => None,
            };
            others.insert(entry.api_version.clone(), found);
        }
        let of = |entry: &Entry| match others.get(&entry.api_version) {
            Some(found) => found.as_ref(),
            None => Some(&mine),
        };
        entries.0.retain(|entry| entry.id == id || of(entry).is_some());
        let mut conflicts = Vec::new();
        for entry in entries.0.iter_mut().filter(|entry| entry.id != id) {
            let Some(found) = of(entry) else { continue };
            let taken = entry.set.intersection(&found.modified.union(&found.added));
            if !taken.is_empty() && !force {
                taken.each(&mut |path| {
                    conflicts.push(Conflict { id: entry.id.clone(), manager: entry.named(), path: path.to_vec() });
                });
            }
            if !taken.is_empty() || !found.removed.is_empty() {
                entry.set = entry.set.difference(&taken).difference(&found.removed);
            }
        }
        if !conflicts.is_empty() {
            conflicts.order_by(|a, b| a.id.cmp(&b.id));
            return Err(Failure::Conflicts(conflicts));
        }
        entries.0.retain(|entry| !entry.set.is_empty());
        Ok(mine)
    }

    /// `entry` is who writes; its set grows by what changed.
    pub(super) fn update(
        &self,
        old: &Value,
        new: &Value,
        entries: &mut Entries,
        mut entry: Entry,
    ) -> Result<(), Failure> {
        self.reconcile(entries)?;
        let found = self.take_over(old, new, entries, &entry.id, true)?;
        let before = entries.take(&entry.id).map(|entry| entry.set).unwrap_or_default();
        entry.set = before.difference(&found.removed).union(&found.modified).union(&found.added);
        self.filter.apply(&mut entry.set);
        if !entry.set.is_empty() {
            entries.put(entry);
        }
        Ok(())
    }

    /// The object with `config` merged in; None when that changes nothing.
    pub(super) fn apply(
        &self,
        old: &Value,
        config: &Value,
        entries: &mut Entries,
        mut entry: Entry,
        force: bool,
    ) -> Result<Option<Value>, Failure> {
        self.reconcile(entries)?;
        let types = TypeRef::of(self.kind);
        let merged = merge(types, old, config).map_err(|error| format!("failed to merge config: {error}"))?;
        let last = entries.take(&entry.id);
        entry.set = fields_of(types, config).map_err(|error| format!("failed to get field set: {error}"))?;
        self.filter.apply(&mut entry.set);
        let (id, set) = (entry.id.clone(), entry.set.clone());
        entry.time = last.as_ref().and_then(|last| last.time.clone());
        entries.put(entry);
        let merged = match last {
            // Nothing can go that is still applied.
            Some(last) if last.api_version != self.version || !last.set.is_within(&set) => {
                self.prune(merged, entries, &last)?
            }
            _ => merged,
        };
        self.take_over(old, &merged, entries, &id, force)?;
        Ok((merged != *old).then_some(merged))
    }

    /// Removes what the applier applied last time, does not apply now, and nobody else owns.
    fn prune(&self, merged: Value, entries: &Entries, last: &Entry) -> Result<Value, Failure> {
        if last.set.is_empty() {
            return Ok(merged);
        }
        let Some(whole) = self.view(self.kind, &merged, &last.api_version)? else { return Ok(merged) };
        let applied = last.set.with_named_fields(whole.types());
        let mut pruned = View { value: remove(whole.types(), &whole.value, &applied), kind: whole.kind.clone() };
        // What anybody owns comes back, first at the version that was pruned.
        let mut owned: BTreeMap<(bool, &str), Set> = BTreeMap::new();
        for entry in &entries.0 {
            let key = (entry.api_version != last.api_version, entry.api_version.as_str());
            let all = owned.entry(key).or_default();
            *all = all.union(&entry.set);
        }
        let mut current = View { kind: whole.kind.clone(), value: whole.value.clone() };
        for ((_, version), owned) in owned {
            let Some(next) = self.view(&current.kind, &current.value, version)? else { continue };
            let Some(left) = self.view(&pruned.kind, &pruned.value, version)? else { continue };
            let types = next.types();
            let gone =
                all_fields(&next, types)?.difference(&all_fields(&left, types)?.union(&owned.with_named_fields(types)));
            pruned = View { value: remove(types, &next.value, &gone), kind: next.kind.clone() };
            current = next;
        }
        // So does what the applier never applied.
        let Some(left) = self.view(&pruned.kind, &pruned.value, &last.api_version)? else { return Ok(merged) };
        let types = whole.types();
        let gone = all_fields(&whole, types)?.difference(&all_fields(&left, types)?).intersection(&applied);
        let value = remove(types, &whole.value, &gone);
        let back = self.view(&whole.kind, &value, &self.version)?;
        Ok(back.map_or(merged, |view| view.value))
    }

    fn reconcile(&self, entries: &mut Entries) -> Result<(), Failure> {
        for entry in &mut entries.0 {
            // Other versions are read with their own types when they come up; what is not served is dropped then.
            if entry.api_version == self.version
                && let Some(set) = reconcile(TypeRef::of(self.kind), &entry.set)
            {
                entry.set = set;
            }
        }
        Ok(())
    }
}

fn all_fields(view: &View, types: TypeRef<'_>) -> Result<Set, Failure> {
    let fields = fields_of(types, &view.value).map_err(|error| format!("failed to create field set: {error}"))?;
    Ok(fields.with_named_fields(types))
}

/// The Status of an apply that others' fields are in the way of (util/managedfields/internal/conflict.go).
pub(super) fn conflict_status(conflicts: &[Conflict]) -> Status {
    let causes = conflicts.iter().map(|conflict| Cause {
        reason: "FieldManagerConflict",
        message: format!("conflict with {}", conflict.manager),
        field: path_text(&conflict.path),
    });
    let message = match conflicts {
        [one] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, path_text(&one.path))
        }
        many => {
            let mut lines = Vec::new();
            for group in many.chunk_by(|a, b| a.id == b.id) {
                lines.extend(group.first().map(|first| format!("conflicts with {}:", first.manager)));
                lines.extend(group.iter().map(|conflict| format!("- {}", path_text(&conflict.path))));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    Status::apply_conflict(causes.collect(), message)
}
