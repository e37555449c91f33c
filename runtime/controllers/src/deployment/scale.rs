//! Resizing ReplicaSets: surge and unavailability bounds, one resize with its event, proportional scaling.
use super::{
    Controller, Rollout, annotation, int, replicas,
    revision::{DESIRED, MAX, by_creation},
};
use crate::amounts::scaled;
use mote_api::{Object, Sub, driver::Error};
use mote_schema::Order as _;
use mote_schema::json;

pub fn is_rolling(deployment: &Object) -> bool {
    deployment.root().at("spec.strategy.type").str() != "Recreate"
}

/// (maxSurge, maxUnavailable) in pods: surge rounds up, unavailability down, and they are never both zero.
fn fenceposts(deployment: &Object) -> (i64, i64) {
    let strategy = deployment.root().at("spec.strategy.rollingUpdate");
    let total = replicas(deployment);
    let surge = scaled(strategy.get("maxSurge"), total, true).unwrap_or(0).max(0);
    let unavailable = scaled(strategy.get("maxUnavailable"), total, false).unwrap_or(0).max(0);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

pub fn max_surge(deployment: &Object) -> i64 {
    if is_rolling(deployment) { fenceposts(deployment).0 } else { 0 }
}

pub fn max_unavailable(deployment: &Object) -> i64 {
    let total = replicas(deployment);
    if !is_rolling(deployment) || total == 0 { 0 } else { fenceposts(deployment).1.min(total) }
}

fn number(set: &Object, name: &str) -> Option<i64> {
    annotation(set, name)?.parse::<i32>().ok().filter(|n| *n >= 0).map(i64::from)
}

/// spec.replicas was changed since the ReplicaSets were last sized.
pub fn is_scaling_event(rollout: &Rollout) -> bool {
    let wanted = replicas(&rollout.deployment);
    rollout.sets().filter(|set| replicas(set) > 0).any(|set| number(set, DESIRED).is_some_and(|n| n != wanted))
}

/// How large the new ReplicaSet may be now.
pub fn size_of_new(rollout: &Rollout) -> i64 {
    let wanted = replicas(&rollout.deployment);
    let size = rollout.new.as_ref().map_or(0, replicas);
    if !is_rolling(&rollout.deployment) {
        return wanted;
    }
    let current: i64 = rollout.sets().map(replicas).sum();
    let most = wanted + max_surge(&rollout.deployment);
    if current >= most { size } else { size + (most - current).min(wanted - size) }
}

fn is_saturated(deployment: &Object, set: &Object) -> bool {
    let wanted = replicas(deployment);
    number(set, DESIRED) == Some(wanted) && replicas(set) == wanted && int(set, "status.availableReplicas") == wanted
}

/// What `set` gains or loses when the whole deployment's bound moves, before the leftover is handed out.
fn fraction(set: &Object, deployment: &Object) -> i64 {
    let size = replicas(set);
    if replicas(deployment) == 0 {
        return -size;
    }
    let most = replicas(deployment) + max_surge(deployment);
    let before = number(set, MAX).filter(|n| *n > 0).unwrap_or_else(|| int(deployment, "status.replicas"));
    if before == 0 {
        return 0;
    }
    // Nearest, halves away from zero, as integer.RoundToInt32.
    (size * most * 2 + before) / (before * 2) - size
}

/// The new sizes of active `sets` (with their present order's index) when the deployment is resized mid-rollout.
/// The largest set takes what rounding leaves over.
pub fn proportional(sets: &mut [Object], deployment: &Object) -> Vec<i64> {
    let total: i64 = sets.iter().map(replicas).sum();
    let wanted = replicas(deployment);
    let allowed = if wanted > 0 { wanted + max_surge(deployment) } else { 0 };
    let to_add = allowed - total;
    // Scaling up favours newer sets among equals, scaling down removes from older ones.
    sets.order_by(|a, b| {
        let by_age = by_creation(a, b);
        replicas(b).cmp(&replicas(a)).then(if to_add > 0 { by_age.reverse() } else { by_age })
    });
    let mut added = 0;
    let mut sizes: Vec<i64> = sets
        .iter()
        .map(|set| {
            let size = replicas(set);
            if to_add == 0 || size == 0 || to_add == added {
                return size;
            }
            let share = fraction(set, deployment);
            let left = to_add - added;
            let share = if to_add > 0 { share.min(left) } else { share.max(left) };
            added += share;
            size + share
        })
        .collect();
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    sizes
}

impl Controller {
    /// Sets the size and the annotations that remember what it was derived from. The set as it is afterwards, and
    /// whether its size changed.
    pub(super) async fn resize(&self, deployment: &Object, set: &Object, size: i64) -> Result<(Object, bool), Error> {
        let old = replicas(set);
        let wanted = replicas(deployment);
        let most = wanted + max_surge(deployment);
        if old == size && number(set, DESIRED) == Some(wanted) && number(set, MAX) == Some(most) {
            return Ok((set.clone(), false));
        }
        let patch = json!({
            "metadata": {
                "resourceVersion": set.revision.to_string(),
                "annotations": {DESIRED: wanted.to_string(), MAX: most.to_string()},
            },
            "spec": {"replicas": size},
        });
        let updated = self.session.patch(set, Sub::Main, patch).await?;
        if old != size {
            let direction = if old < size { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {} from {old} to {size}", set.name());
            self.session.event(deployment, "Normal", "ScalingReplicaSet", &message);
        }
        Ok((updated, old != size))
    }

    /// Resizes one of the rollout's sets in place, by index into `old`, or the new one (None). Resizing to the size it
    /// has is nothing, unless `always`, which brings its annotations up to date.
    pub(super) async fn resize_in(
        &self,
        rollout: &mut Rollout,
        index: Option<usize>,
        size: i64,
    ) -> Result<bool, Error> {
        let set = match index {
            Some(index) => rollout.old.get(index),
            None => rollout.new.as_ref(),
        };
        let Some(set) = set.cloned() else { return Ok(false) };
        let (set, changed) = self.resize(&rollout.deployment, &set, size).await?;
        match index {
            Some(index) => rollout.old[index] = set,
            None => rollout.new = Some(set),
        }
        Ok(changed)
    }

    /// Follows a change of spec.replicas, or anything while paused.
    pub(super) async fn scale(&self, rollout: &mut Rollout) -> Result<(), Error> {
        let deployment = rollout.deployment.clone();
        let wanted = replicas(&deployment);
        rollout.old.order_by(|a, b| by_creation(b, a));
        let active: Vec<Option<usize>> = (0..rollout.old.len())
            .map(Some)
            .filter(|index| index.is_some_and(|i| replicas(&rollout.old[i]) > 0))
            .chain(rollout.new.as_ref().filter(|set| replicas(set) > 0).map(|_| None))
            .collect();
        match active.as_slice() {
            [] if rollout.new.is_some() => drop(self.resize_changed(rollout, None, wanted).await?),
            [] if !rollout.old.is_empty() => drop(self.resize_changed(rollout, Some(0), wanted).await?),
            [] => {}
            [one] => drop(self.resize_changed(rollout, *one, wanted).await?),
            _ if rollout.new.as_ref().is_some_and(|set| is_saturated(&deployment, set)) => {
                for index in active.into_iter().filter(Option::is_some) {
                    self.resize_changed(rollout, index, 0).await?;
                }
            }
            _ if is_rolling(&deployment) => {
                let mut sets: Vec<Object> = rollout.sets().filter(|set| replicas(set) > 0).cloned().collect();
                let sizes = proportional(&mut sets, &deployment);
                for (set, size) in sets.into_iter().zip(sizes) {
                    let index = rollout.old.iter().position(|old| old.uid() == set.uid());
                    self.resize_in(rollout, index, size).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Like `resize_in`, but a set that has the size already is left as it is, annotations included.
    pub(super) async fn resize_changed(
        &self,
        rollout: &mut Rollout,
        index: Option<usize>,
        size: i64,
    ) -> Result<bool, Error> {
        let set = index.map_or(rollout.new.as_ref(), |i| rollout.old.get(i));
        if set.is_none_or(|set| replicas(set) == size) {
            return Ok(false);
        }
        self.resize_in(rollout, index, size).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::Value;
    use mote_schema::{Catalog, Doc};

    fn object(plural: &str, value: Value) -> Object {
        let kind = Catalog::builtin().by_resource("apps", "v1", plural).unwrap().clone();
        Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }
    }

    fn deployment(replicas: i64, surge: Value, unavailable: Value) -> Object {
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        let spec = json!({"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}});
        object("deployments", json!({"spec": spec}))
    }

    fn set(name: &str, replicas: i64, max: i64) -> Object {
        object(
            "replicasets",
            json!({"metadata": {"name": name, "annotations": {MAX: max.to_string()}}, "spec": {"replicas": replicas}}),
        )
    }

    #[test]
    fn bounds() {
        let check = |replicas, surge, unavailable, want| {
            let deployment = deployment(replicas, surge, unavailable);
            assert_eq!((max_surge(&deployment), max_unavailable(&deployment)), want);
        };
        check(10, json!("25%"), json!("25%"), (3, 2));
        check(1, json!("25%"), json!("25%"), (1, 0));
        check(3, json!(0), json!("10%"), (0, 1));
        check(2, json!(0), json!(5), (0, 2));
        check(0, json!(1), json!(1), (1, 0));
    }

    #[test]
    fn the_new_set_grows_within_the_surge() {
        let check = |old: i64, new: i64, want: i64| {
            let rollout = Rollout {
                deployment: deployment(4, json!(1), json!(0)),
                new: Some(set("new", new, 5)),
                old: vec![set("old", old, 5)],
            };
            assert_eq!(size_of_new(&rollout), want, "{old} old, {new} new");
        };
        check(4, 0, 1);
        check(4, 1, 1);
        check(3, 1, 2);
        check(0, 1, 4);
    }

    #[test]
    fn sets_share_a_change_of_size() {
        // (new size of the deployment, sets, their new sizes), all with a surge of 0.
        let check = |replicas: i64, sizes: &[i64], before: i64, want: &[i64]| {
            let mut sets: Vec<Object> =
                sizes.iter().enumerate().map(|(n, size)| set(&format!("set-{n}"), *size, before)).collect();
            let deployment = deployment(replicas, json!(0), json!(1));
            assert_eq!(proportional(&mut sets, &deployment), want, "{sizes:?} to {replicas}");
        };
        check(20, &[5, 5], 10, &[10, 10]);
        check(10, &[10, 10], 20, &[5, 5]);
        check(0, &[3, 2], 5, &[0, 0]);
        // 3 of 5 and 2 of 5 become 4.2 and 2.8 of 7; nearest, and what is left over goes to the largest.
        check(7, &[3, 2], 5, &[4, 3]);
        check(11, &[6, 4], 10, &[7, 4]);
    }
}
