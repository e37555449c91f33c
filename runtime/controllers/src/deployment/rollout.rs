//! The two strategies: RollingUpdate moves pods over within its bounds, Recreate empties before it fills.
use super::{Controller, Rollout, int, progress, replicas, revision::by_creation, scale};
use mote_api::driver::{Error, Next};
use mote_schema::Order as _;

impl Controller {
    pub(super) async fn roll(&self, mut rollout: Rollout) -> Result<Next, Error> {
        self.ensure_new(&mut rollout).await?;
        if self.grow_new(&mut rollout).await? || self.shrink_old(&mut rollout).await? {
            return self.finish(&rollout).await;
        }
        if progress::is_complete(&rollout.deployment, &progress::Counts::stored(&rollout.deployment)) {
            self.clean_up(&rollout).await?;
        }
        self.finish(&rollout).await
    }

    pub(super) async fn recreate(&self, mut rollout: Rollout) -> Result<Next, Error> {
        let mut scaled_down = false;
        for index in 0..rollout.old.len() {
            scaled_down |= self.resize_changed(&mut rollout, Some(index), 0).await?;
        }
        if scaled_down || self.old_pods_running(&rollout)? {
            return self.finish(&rollout).await;
        }
        self.ensure_new(&mut rollout).await?;
        let wanted = replicas(&rollout.deployment);
        self.resize_changed(&mut rollout, None, wanted).await?;
        if progress::is_complete(&rollout.deployment, &progress::Counts::stored(&rollout.deployment)) {
            self.clean_up(&rollout).await?;
        }
        self.finish(&rollout).await
    }

    /// The new ReplicaSet to the size that the surge allows (or down to what is wanted).
    async fn grow_new(&self, rollout: &mut Rollout) -> Result<bool, Error> {
        let wanted = replicas(&rollout.deployment);
        let size = rollout.new.as_ref().map_or(wanted, replicas);
        let target = if size > wanted { wanted } else { scale::size_of_new(rollout) };
        self.resize_changed(rollout, None, target).await
    }

    /// Old ReplicaSets down as far as availability allows: pods that are unavailable anyway first.
    async fn shrink_old(&self, rollout: &mut Rollout) -> Result<bool, Error> {
        rollout.old.order_by(by_creation);
        if rollout.old.iter().map(replicas).sum::<i64>() == 0 {
            return Ok(false);
        }
        let total: i64 = rollout.sets().map(replicas).sum();
        let min_available = replicas(&rollout.deployment) - scale::max_unavailable(&rollout.deployment);
        let new_unavailable =
            rollout.new.as_ref().map_or(0, |set| replicas(set) - int(set, "status.availableReplicas"));
        let most = total - min_available - new_unavailable;
        if most <= 0 {
            return Ok(false);
        }
        let mut changed = false;
        let mut done = 0;
        for index in 0..rollout.old.len() {
            let size = replicas(&rollout.old[index]);
            let unhealthy = size - int(&rollout.old[index], "status.availableReplicas");
            let count = unhealthy.min(most - done);
            if size > 0 && count > 0 {
                changed |= self.resize_changed(rollout, Some(index), size - count).await?;
                done += count;
            }
        }
        let available: i64 = rollout.sets().map(|set| int(set, "status.availableReplicas")).sum();
        let mut left = available - min_available;
        for index in 0..rollout.old.len() {
            let size = replicas(&rollout.old[index]);
            let count = size.min(left);
            if count > 0 {
                changed |= self.resize_changed(rollout, Some(index), size - count).await?;
                left -= count;
            }
        }
        Ok(changed)
    }
}
