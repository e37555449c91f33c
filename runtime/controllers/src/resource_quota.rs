//! ResourceQuota: what is used of each quota, counted anew when something that was charged goes or changes, and when the
//! quota itself does (pkg/controller/resourcequota). Admission charges what is added; this only ever corrects.
//!
//! Nothing is counted on a clock: upstream's periodic recount is for pods whose deletion is overdue, and for those the
//! key comes back at that moment.
use crate::session::Session;
use jiff::Timestamp;
use mote_api::{
    Change, Client, Kind, Object, Ref, Sub,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
    quota::{self, Amounts, Life},
};
use mote_schema::Gather as _;
use mote_schema::json;
use std::{sync::Arc, time::Duration};

struct Controller {
    session: Session,
    quotas: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "resourcequota-controller");
    let quotas = session.kind("", "v1", "resourcequotas");
    session.start(Controller { session: session.clone(), quotas });
}

fn is_quota(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.plural == "resourcequotas"
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "resource-quota"
    }

    /// All kinds: any of them may be counted.
    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[]
    }

    fn workers(&self) -> usize {
        2
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let kind = &change.kind;
        if is_quota(kind)
            && let Some(quota) = &change.new
            && is_dirty(change.old.as_ref(), quota)
        {
            queue.add(Key::new(quota.namespace(), quota.name()));
        }
        if !quota::counts(kind) || !frees(change) {
            return;
        }
        let namespace = change.object().namespace();
        for quota in self.session.list(&self.quotas, Some(namespace)).unwrap_or_default() {
            if quota.root().at("status.hard").entries().any(|(name, _)| quota::matching(kind, name)) {
                queue.add(Key::new(namespace, quota.name()));
            }
        }
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            match self.session.get(&self.quotas, &key.namespace, &key.name) {
                Ok(quota) => self.recount(&quota).await,
                Err(status) if status.is_not_found() => Ok(Next::Done),
                Err(status) => Err(status.into()),
            }
        })
    }
}

impl Controller {
    async fn recount(&self, quota: &Object) -> Result<Next, Error> {
        let (spec, status) = (quota.root().get("spec"), quota.root().get("status"));
        let hard = Amounts::of(spec.get("hard"));
        let before = Amounts::of(status.get("used"));
        let mut used = before.only(|name| hard.get(name).is_some());
        let now = Timestamp::now();
        let mut overdue: Option<Timestamp> = None;
        for kind in self.session.kinds().iter().filter(|kind| quota::counts(kind)) {
            let names: Vec<&String> = hard.0.keys().filter(|name| quota::matching(kind, name)).collect();
            if names.is_empty() {
                continue;
            }
            let mut sum = Amounts::default();
            for object in self.session.list(kind, Some(quota.namespace()))? {
                if !quota::in_scope(quota.root(), kind, object.root()) {
                    continue;
                }
                sum.add(&quota::usage(kind, object.root(), now));
                if kind.plural == "pods"
                    && kind.group.is_empty()
                    && let Life::Until(at) = quota::life(object.root(), now)
                {
                    overdue = Some(overdue.map_or(at, |earlier| earlier.min(at)));
                }
            }
            for name in names {
                used.set(name.as_str(), sum.get(name).unwrap_or_default());
            }
        }
        let counted = status.get("used").exists() && status.get("hard").exists();
        if !counted || used != before || Amounts::of(status.get("hard")) != hard {
            let mut new = quota.to_value();
            new["status"] = json!({"hard": hard.to_value(), "used": used.to_value()});
            self.session.update(&self.quotas, Sub::Status, new).await?;
        }
        Ok(match overdue.and_then(|at| Duration::try_from(at.duration_since(now)).ok()) {
            Some(wait) => Next::After(wait + Duration::from_secs(1)),
            None => Next::Done,
        })
    }
}

/// New, not counted yet, or with other limits than its status has.
fn is_dirty(old: Option<&Object>, quota: &Object) -> bool {
    let list = |path: &str| Amounts::of(quota.root().at(path));
    old.is_none() || !quota.root().at("status.used").exists() || list("spec.hard") != list("status.hard")
}

/// What was charged may be less now. Creates are admission's (pkg/quota/v1/install/update_filter.go).
fn frees(change: &Change) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return change.new.is_none() };
    if !change.kind.group.is_empty() {
        return false;
    }
    let differs = |path: &str| !same(old.root().at(path), new.root().at(path));
    match &*change.kind.plural {
        "pods" => {
            let life = |pod: &Object| quota::life(pod.root(), Timestamp::now());
            differs("spec.activeDeadlineSeconds")
                || differs("spec.containers")
                || differs("status.containerStatuses") && resources(old) != resources(new)
                // It has ended, or its deletion has a deadline from now on.
                || life(old) != life(new)
        }
        "services" => differs("spec.type") || differs("spec.ports"),
        "persistentvolumeclaims" => {
            differs("status.allocatedResources")
                || differs("spec.volumeAttributesClassName")
                || differs("status.currentVolumeAttributesClassName")
                || differs("status.modifyVolumeStatus")
        }
        _ => false,
    }
}

fn same(a: Ref<'_>, b: Ref<'_>) -> bool {
    a.exists() == b.exists() && a.to_value() == b.to_value()
}

/// What each container holds, as the kubelet reports it.
fn resources(pod: &Object) -> Vec<(String, mote_schema::Value)> {
    let statuses = pod.root().at("status.containerStatuses").items();
    statuses.map(|status| (status.get("name").str().to_owned(), status.get("resources").to_value())).gather()
}
