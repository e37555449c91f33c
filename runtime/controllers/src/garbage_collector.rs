//! Garbage collection by ownerReferences: background, foreground and orphan deletion, for every kind there is.
//!
//! There is no graph. The store says whether an owner exists; what it cannot say quickly is who depends on a
//! UID. For that an index keeps, per owner, a count and a mask of the kinds its dependents are of: 24 bytes an owner,
//! however many dependents. To find them only those kinds are read, in the owner's namespace when it has one.
//! Behaviour of upstream's pkg/controller/garbagecollector.
use crate::{
    owner::{OwnerRef, gone_is_fine, group_of, owners, release, set_owners},
    session::Session,
};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::{Value, json};
use std::{
    collections::{HashMap, HashSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Objects remembered because the kind of an owner is not served (yet).
const UNKNOWN_LIMIT: usize = 1000;

struct Controller {
    session: Session,
    queue: OnceLock<Queue>,
    index: Mutex<Index>,
    /// Keys that wait for a kind to appear.
    unknown: Mutex<HashSet<Key>>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "generic-garbage-collector");
    let controller = Controller {
        session: session.clone(),
        queue: OnceLock::new(),
        index: Mutex::default(),
        unknown: Mutex::default(),
    };
    session.start(controller);
}

/// How many references there are to each owner's UID, and from which kinds.
#[derive(Default)]
struct Index(HashMap<u64, (u32, u64)>);

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// One bit of 64 for a kind; two kinds may share one, which costs a look at both.
fn kind_bit(kind: &Kind) -> u64 {
    1 << (hash(&kind.prefix) % 64)
}

impl Index {
    fn add(&mut self, uid: &str, kind: &Kind) {
        let (count, kinds) = self.0.entry(hash(uid)).or_default();
        *count += 1;
        *kinds |= kind_bit(kind);
    }

    fn remove(&mut self, uid: &str) {
        let uid = hash(uid);
        if let Some((count, _)) = self.0.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&uid);
            }
        }
    }

    /// The kinds in which dependents of `uid` may be found; 0 for none.
    fn kinds(&self, uid: &str) -> u64 {
        self.0.get(&hash(uid)).map_or(0, |(_, kinds)| *kinds)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A queue key that names one incarnation of one object of one kind.
fn key_of(object: &Object) -> Key {
    let kind = &object.kind;
    let place = format!("{}|{}|{}|{}|{}", kind.group, kind.version, kind.plural, object.namespace(), object.uid());
    Key::new(&place, object.name())
}

struct Place<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
    namespace: &'a str,
    uid: &'a str,
}

fn parse(key: &Key) -> Option<Place<'_>> {
    let mut parts = key.namespace.split('|');
    let place = Place {
        group: parts.next()?,
        version: parts.next()?,
        plural: parts.next()?,
        namespace: parts.next()?,
        uid: parts.next()?,
    };
    Some(place)
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.meta().get("finalizers").items().any(|f| f.str() == name)
}

/// Waits for its dependents to go first.
fn is_deleting_dependents(object: &Object) -> bool {
    object.is_deleting() && has_finalizer(object, FOREGROUND)
}

fn refers_to(object: &Object, uid: &str) -> bool {
    owners(object).any(|r| r.uid == uid)
}

/// What an owner reference points at now.
enum Found {
    Solid,
    Dangling,
    WaitingForDependents,
    UnknownKind,
    /// A cluster-scoped object may not refer to a namespaced owner; upstream leaves it alone.
    Invalid,
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    /// All kinds.
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[]
    }

    fn workers(&self) -> usize {
        8
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        self.queue.get_or_init(|| queue.clone());
        // Events have no owners and no dependents worth a look.
        if change.kind.plural == "events" {
            return;
        }
        if change.kind.plural == "customresourcedefinitions" {
            locked(&self.unknown).drain().for_each(|key| queue.add(key));
        }
        let references_changed = self.note(change);
        if let Some(object) = &change.new {
            let finalizing =
                object.is_deleting() && (has_finalizer(object, FOREGROUND) || has_finalizer(object, ORPHAN));
            if finalizing
                || references_changed && !owners(object).all(|r| matches!(self.find(&r, object), Found::Solid))
            {
                queue.add(key_of(object));
            }
        } else {
            let object = change.object();
            if locked(&self.index).kinds(object.uid()) != 0 {
                queue.add(key_of(object));
            }
        }
        // An owner in foreground deletion may have lost what it was waiting for.
        if references_changed && let Some(old) = &change.old {
            for reference in owners(old) {
                if let Some(owner) = self.owner(&reference, old).filter(is_deleting_dependents) {
                    queue.add(key_of(&owner));
                }
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let Some(place) = parse(key) else { return Ok(Next::Done) };
            let Some(kind) = self.session.find_kind(place.group, place.version, place.plural) else {
                return Ok(Next::Done);
            };
            match self.session.get(&kind, place.namespace, &key.name) {
                Ok(object) if object.uid() == place.uid => self.process(object, key).await?,
                Err(status) if !status.is_not_found() => return Err(status.into()),
                // Gone: whoever depended on it is looked at again.
                _ => self.queue_all(&self.dependents(place.uid, &kind, place.namespace)),
            }
            Ok(Next::Done)
        })
    }
}

impl Controller {
    /// Brings the index up to date; whether the ownerReferences differ between the two sides.
    fn note(&self, change: &Change) -> bool {
        let none = change.old.as_ref().is_none_or(|o| owners(o).next().is_none())
            && change.new.as_ref().is_none_or(|o| owners(o).next().is_none());
        if none {
            return false;
        }
        let list = |o: &Option<Object>| o.as_ref().map(|o| o.meta().get("ownerReferences").to_value());
        if list(&change.old) == list(&change.new) {
            return false;
        }
        let mut index = locked(&self.index);
        for reference in change.new.iter().flat_map(owners) {
            index.add(reference.uid, &change.kind);
        }
        for reference in change.old.iter().flat_map(owners) {
            index.remove(reference.uid);
        }
        true
    }

    fn queue_all(&self, objects: &[Object]) {
        if let Some(queue) = self.queue.get() {
            objects.iter().for_each(|object| queue.add(key_of(object)));
        }
    }

    fn owner_kind(&self, reference: &OwnerRef<'_>) -> Option<Arc<Kind>> {
        let (group, api_version) = (group_of(reference.api_version), reference.api_version);
        let version = api_version.rsplit_once('/').map_or(api_version, |(_, version)| version);
        self.session.catalog().by_kind(group, version, reference.kind).cloned()
    }

    /// The owner, if it is there and is the one that is meant.
    fn owner(&self, reference: &OwnerRef<'_>, dependent: &Object) -> Option<Object> {
        let kind = self.owner_kind(reference)?;
        let namespace = if kind.namespaced { dependent.namespace() } else { "" };
        self.session.get(&kind, namespace, reference.name).ok().filter(|o| o.uid() == reference.uid)
    }

    fn find(&self, reference: &OwnerRef<'_>, dependent: &Object) -> Found {
        let Some(kind) = self.owner_kind(reference) else { return Found::UnknownKind };
        if kind.namespaced && !dependent.kind.namespaced {
            return Found::Invalid;
        }
        match self.owner(reference, dependent) {
            None => Found::Dangling,
            Some(owner) if is_deleting_dependents(&owner) => Found::WaitingForDependents,
            Some(_) => Found::Solid,
        }
    }

    /// An owner that lives, but in another namespace, is none: whoever wrote the reference is told.
    fn report_elsewhere(&self, reference: &OwnerRef<'_>, object: &Object) {
        let Some(kind) = self.owner_kind(reference).filter(|kind| kind.namespaced) else { return };
        let all = self.session.list(&kind, None).unwrap_or_default();
        if !all.iter().any(|owner| owner.uid() == reference.uid && owner.namespace() != object.namespace()) {
            return;
        }
        let (namespace, OwnerRef { api_version, kind, name, uid, .. }) = (object.namespace(), reference);
        let text = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace {namespace:?}"
        );
        self.session.event(object, "Warning", "OwnerRefInvalidNamespace", &text);
    }

    /// Everything with an ownerReference to `uid`; a namespaced owner's dependents share its namespace.
    fn dependents(&self, uid: &str, owner_kind: &Kind, namespace: &str) -> Vec<Object> {
        let mask = locked(&self.index).kinds(uid);
        if mask == 0 {
            return Vec::new();
        }
        let mut found = Vec::new();
        let kinds = self.session.kinds().into_iter().filter(|k| mask & kind_bit(k) != 0);
        for kind in kinds.filter(|k| !owner_kind.namespaced || k.namespaced) {
            let within = owner_kind.namespaced.then_some(namespace);
            let objects = self.session.list(&kind, within).unwrap_or_default();
            found.extend(objects.into_iter().filter(|o| refers_to(o, uid)));
        }
        found
    }

    async fn process(&self, object: Object, key: &Key) -> Result<(), Error> {
        if object.is_deleting() {
            if has_finalizer(&object, ORPHAN) {
                return self.orphan(object).await;
            }
            if has_finalizer(&object, FOREGROUND) {
                return self.wait_for_dependents(object).await;
            }
            return Ok(());
        }
        let (mut solid, mut dangling, mut waiting) = (false, Vec::new(), Vec::new());
        for reference in owners(&object) {
            match self.find(&reference, &object) {
                Found::Solid => solid = true,
                Found::Dangling => {
                    self.report_elsewhere(&reference, &object);
                    dangling.push(reference.uid);
                }
                Found::WaitingForDependents => waiting.push(reference.uid),
                Found::Invalid => {
                    self.report_elsewhere(&reference, &object);
                    return Ok(());
                }
                Found::UnknownKind => {
                    let mut unknown = locked(&self.unknown);
                    if unknown.len() < UNKNOWN_LIMIT {
                        unknown.insert(key.clone());
                    }
                    return Ok(());
                }
            }
        }
        if solid {
            let stale = |r: &mote_api::Ref<'_>| {
                let uid = r.get("uid").str();
                dangling.contains(&uid) || waiting.contains(&uid)
            };
            let kept: Vec<Value> = references(&object).filter(|r| !stale(r)).map(|r| r.to_value()).collect();
            if !dangling.is_empty() || !waiting.is_empty() {
                gone_is_fine(set_owners(&self.session, &object, kept).await)?;
            }
            return Ok(());
        }
        if dangling.is_empty() && waiting.is_empty() {
            return Ok(());
        }
        let mut revision = object.revision;
        let propagation = if !waiting.is_empty() {
            let dependents = self.dependents(object.uid(), &object.kind, object.namespace());
            if dependents.iter().any(is_deleting_dependents) {
                // A possible circle of owners that wait for each other: stop blocking them.
                revision = set_owners(&self.session, &object, unblocked(&object)).await?.revision;
            }
            if dependents.is_empty() { "Background" } else { "Foreground" }
        } else if has_finalizer(&object, ORPHAN) {
            "Orphan"
        } else if has_finalizer(&object, FOREGROUND) {
            "Foreground"
        } else {
            "Background"
        };
        let options = DeleteOptions {
            resource_version: Some(revision),
            propagation: Some(propagation.into()),
            ..DeleteOptions::default()
        };
        gone_is_fine(self.session.delete(&object, options).await)?;
        Ok(())
    }

    async fn wait_for_dependents(&self, object: Object) -> Result<(), Error> {
        let uid = object.uid();
        let mut blocking = self.dependents(uid, &object.kind, object.namespace());
        blocking.retain(|d| owners(d).any(|r| r.uid == uid && r.block_owner_deletion));
        if blocking.is_empty() {
            return self.remove_finalizer(&object, FOREGROUND).await;
        }
        blocking.retain(|d| !is_deleting_dependents(d));
        self.queue_all(&blocking);
        Ok(())
    }

    async fn orphan(&self, object: Object) -> Result<(), Error> {
        for dependent in self.dependents(object.uid(), &object.kind, object.namespace()) {
            let references = release(&dependent, object.uid());
            gone_is_fine(set_owners(&self.session, &dependent, references).await)?;
        }
        self.remove_finalizer(&object, ORPHAN).await
    }

    async fn remove_finalizer(&self, object: &Object, name: &str) -> Result<(), Error> {
        let left: Vec<Value> =
            object.meta().get("finalizers").items().filter(|f| f.str() != name).map(|f| f.to_value()).collect();
        let left = if left.is_empty() { Value::Null } else { Value::Array(left.into()) };
        let patch = json!({"metadata": {"resourceVersion": object.revision.to_string(), "finalizers": left}});
        gone_is_fine(self.session.patch(object, Sub::Main, patch).await)?;
        Ok(())
    }
}

fn references(object: &Object) -> impl Iterator<Item = mote_api::Ref<'_>> {
    object.meta().get("ownerReferences").items()
}

fn unblocked(object: &Object) -> Vec<Value> {
    let unblock = |mut reference: Value| {
        if reference["blockOwnerDeletion"] == true {
            reference["blockOwnerDeletion"] = false.into();
        }
        reference
    };
    references(object).map(|r| unblock(r.to_value())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_one_incarnation() {
        let key = Key::new("apps|v1|replicasets|web|123", "front");
        let place = parse(&key).unwrap();
        assert_eq!((place.group, place.version, place.plural), ("apps", "v1", "replicasets"));
        assert_eq!((place.namespace, place.uid), ("web", "123"));
        assert!(parse(&Key::new("web", "front")).is_none());
    }

    #[test]
    fn index_counts() {
        let mut index = Index::default();
        let kind = mote_schema::Catalog::builtin().by_resource("", "v1", "pods").unwrap().clone();
        index.add("a", &kind);
        index.add("a", &kind);
        assert_eq!(index.kinds("a"), kind_bit(&kind));
        index.remove("a");
        assert_ne!(index.kinds("a"), 0);
        index.remove("a");
        assert_eq!(index.kinds("a"), 0);
        assert!(index.0.is_empty());
        index.remove("never added");
    }
}
