//! CronJob: Jobs at the times of a schedule (pkg/controller/cronjob). One timer per CronJob, set to its next time.
//!
//! Without spec.timeZone times are UTC, as they are for a controller manager in its container.
mod schedule;

use crate::{
    amounts::{now, parse_time, remaining, rfc3339},
    job,
    owner::{self, controller_ref, gone_is_fine, is_controlled_by},
    pod, pod_control,
    session::Session,
    status::write,
};
use jiff::{Timestamp, tz::TimeZone};
use mote_api::{
    Change, Client, DeleteOptions, Kind, Object,
    driver::{BoxFuture, Error, Key, Next, Queue, Reconciler},
};
use mote_schema::Order as _;
use mote_schema::{Value, json};
use schedule::Schedule;
use std::{sync::Arc, time::Duration};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are worth a warning.
const TOO_MANY_MISSED: usize = 100;
const ZONES: &str = "/usr/share/zoneinfo";
/// The clock is read a little after the time it is to have passed.
const SLACK: Duration = Duration::from_millis(100);

struct Controller {
    session: Session,
    kind: Arc<Kind>,
    jobs: Arc<Kind>,
}

pub fn start(client: &Client) {
    let session = Session::new(client, "cronjob-controller");
    let (kind, jobs) = (session.kind("batch", "v1", "cronjobs"), session.kind("batch", "v1", "jobs"));
    session.clone().start(Controller { session, kind, jobs });
}

impl Reconciler for Controller {
    fn name(&self) -> &'static str {
        "cronjob"
    }

    fn watches(&self) -> &'static [(&'static str, &'static str, &'static str)] {
        &[("batch", "v1", "cronjobs"), ("batch", "v1", "jobs")]
    }

    fn workers(&self) -> usize {
        2
    }

    fn wake(&self, change: &Change, queue: &Queue) {
        let object = change.object();
        if &*change.kind.plural == "cronjobs" {
            return queue.add(Key::new(object.namespace(), object.name()));
        }
        change
            .old
            .iter()
            .chain(&change.new)
            .filter_map(|j| owner::controller_key(j, &self.kind))
            .for_each(|k| queue.add(k));
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Next, Error>> {
        Box::pin(async move {
            let cron = match self.session.get(&self.kind, &key.namespace, &key.name) {
                Ok(cron) => cron,
                Err(status) if status.is_not_found() => return Ok(Next::Done),
                Err(status) => return Err(status.into()),
            };
            match self.sync(cron).await {
                Err(Error::Api(status)) if pod_control::namespace_terminating(&status) => Ok(Next::Done),
                result => result,
            }
        })
    }
}

/// The zone by its name in the system's database; names with dots or a leading slash are none.
async fn zone(name: &str) -> Option<TimeZone> {
    if name.is_empty() || name == "UTC" || name == "Etc/UTC" {
        return Some(TimeZone::UTC);
    }
    if name.starts_with('/') || name.contains('.') {
        return None;
    }
    let (path, name) = (format!("{ZONES}/{name}"), name.to_owned());
    let bytes = mote_api::unblock(move || std::fs::read(path)).await.ok()?;
    TimeZone::tzif(&name, &bytes).ok()
}

impl Controller {
    async fn sync(&self, cron: Object) -> Result<Next, Error> {
        let mut jobs = self.session.list(&self.jobs, Some(cron.namespace()))?;
        jobs.retain(|j| is_controlled_by(j, &cron));
        let mut active = self.note_finished(&cron, &jobs);
        let last_success = jobs
            .iter()
            .filter(|j| job::finished(j).is_some_and(|c| c.get("type").str() == "Complete"))
            .filter_map(|j| j.root().at("status.completionTime").as_str())
            .chain(cron.root().at("status.lastSuccessfulTime").as_str())
            .max()
            .map(str::to_owned);
        self.clean_up(&cron, &jobs).await?;
        let mut last_schedule = cron.root().at("status.lastScheduleTime").as_str().map(str::to_owned);
        let result = if cron.is_deleting() || cron.root().at("spec.suspend").as_bool() == Some(true) {
            Ok(Next::Done)
        } else {
            self.run(&cron, &jobs, &mut active, &mut last_schedule).await
        };
        let mut status = json!({});
        if !active.is_empty() {
            status["active"] = active.into();
        }
        for (name, time) in [("lastScheduleTime", last_schedule), ("lastSuccessfulTime", last_success)] {
            if let Some(time) = time {
                status[name] = time.into();
            }
        }
        write(&self.session, &cron, status).await?;
        result
    }

    /// References to the Jobs that still run; says so of those that were running and are not.
    fn note_finished(&self, cron: &Object, jobs: &[Object]) -> Vec<Value> {
        let was_active =
            |uid: &str| cron.root().at("status.active").items().any(|reference| reference.get("uid").str() == uid);
        for job in jobs.iter().filter(|j| was_active(j.uid())) {
            if let Some(condition) = job::finished(job) {
                let message = format!("Saw completed job: {}, condition: {}", job.name(), condition.get("type").str());
                self.session.event(cron, "Normal", "SawCompletedJob", &message);
            }
        }
        for reference in cron.root().at("status.active").items() {
            if !jobs.iter().any(|j| j.uid() == reference.get("uid").str()) {
                let message = format!("Active job went missing: {}", reference.get("name").str());
                self.session.event(cron, "Normal", "MissingJob", &message);
            }
        }
        let (ours, others): (Vec<_>, Vec<_>) = jobs.iter().filter(|j| !job::is_finished(j)).partition(|j| is_ours(j));
        for job in others {
            let message = format!("Saw a job that the controller did not create or forgot: {}", job.name());
            self.session.event(cron, "Warning", "UnexpectedJob", &message);
        }
        ours.into_iter().map(reference).collect()
    }

    /// Deletes the oldest finished Jobs beyond the history limits.
    async fn clean_up(&self, cron: &Object, jobs: &[Object]) -> Result<(), Error> {
        for (ending, limit) in [("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")] {
            let Some(limit) = cron.root().get("spec").get(limit).as_i64() else { continue };
            let ended = |j: &&Object| job::finished(j).is_some_and(|c| c.get("type").str() == ending);
            let mut finished: Vec<&Object> = jobs.iter().filter(ended).collect();
            finished.order_by_key(|j| (pod::created(j).to_owned(), j.name().to_owned()));
            let surplus = finished.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for job in finished.into_iter().take(surplus) {
                self.delete(cron, job).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, cron: &Object, job: &Object) -> Result<(), Error> {
        let options = DeleteOptions { propagation: Some("Background".into()), ..DeleteOptions::default() };
        gone_is_fine(self.session.delete(job, options).await)?;
        self.session.event(cron, "Normal", "SuccessfulDelete", &format!("Deleted job {}", job.name()));
        Ok(())
    }

    /// Starts the Job whose time has come.
    async fn run(
        &self,
        cron: &Object,
        jobs: &[Object],
        active: &mut Vec<Value>,
        last_schedule: &mut Option<String>,
    ) -> Result<Next, Error> {
        let spec = cron.root().get("spec");
        let (text, zone_name) = (spec.get("schedule").str(), spec.get("timeZone").str());
        let Some(schedule) = Schedule::parse(text) else {
            let message = format!("unparseable schedule: {text:?}");
            self.session.event(cron, "Warning", "UnparseableSchedule", &message);
            return Ok(Next::Done);
        };
        let Some(zone) = zone(zone_name).await else {
            let message = format!("invalid timeZone: {zone_name:?}: unknown time zone {zone_name}");
            self.session.event(cron, "Warning", "UnknownTimeZone", &message);
            return Ok(Next::Done);
        };
        let now = now();
        let next = schedule
            .next(now, &zone)
            .map_or(Next::Done, |at| Next::After(remaining(at, Duration::ZERO, now).unwrap_or_default() + SLACK));
        let Some(due) = self.due(cron, &schedule, &zone, now) else { return Ok(next) };
        if let Some(deadline) = spec.get("startingDeadlineSeconds").as_i64()
            && remaining(due, Duration::from_secs(deadline.max(0).unsigned_abs()), now).is_none()
        {
            let message = format!("Missed scheduled time to start a job: {}", rfc3339(due));
            self.session.event(cron, "Warning", "MissSchedule", &message);
            return Ok(next);
        }
        let name = format!("{}-{}", cron.name(), due.as_second() / 60);
        if jobs.iter().any(|j| j.name() == name) {
            *last_schedule = Some(rfc3339(due));
            return Ok(next);
        }
        match spec.get("concurrencyPolicy").str() {
            "Forbid" if !active.is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.session.event(cron, "Normal", "JobAlreadyActive", message);
                return Ok(next);
            }
            "Replace" => {
                for job in jobs.iter().filter(|j| !job::is_finished(j) && is_ours(j)) {
                    self.delete(cron, job).await?;
                }
                active.clear();
            }
            _ => {}
        }
        match self.session.create(&self.jobs, cron.namespace(), job_for(cron, &name, due)).await {
            Ok(job) => {
                self.session.event(cron, "Normal", "SuccessfulCreate", &format!("Created job {}", job.name()));
                active.push(reference(&job));
            }
            Err(status) if status.is_already_exists() => {}
            Err(status) => {
                if !pod_control::namespace_terminating(&status) {
                    let message = format!("Error creating job: {}", status.message);
                    self.session.event(cron, "Warning", "FailedCreate", &message);
                }
                return Err(status.into());
            }
        }
        *last_schedule = Some(rfc3339(due));
        Ok(next)
    }

    /// The last time of the schedule that has passed and was not served.
    fn due(&self, cron: &Object, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
        let served = parse_time(cron.root().at("status.lastScheduleTime"));
        let mut earliest = served.or_else(|| parse_time(cron.meta().get("creationTimestamp")))?;
        if let Some(deadline) = cron.root().at("spec.startingDeadlineSeconds").as_i64() {
            let bound = Timestamp::from_second(now.as_second().saturating_sub(deadline.max(0))).ok()?;
            earliest = earliest.max(bound);
        }
        let due = schedule.last(now, zone).filter(|at| *at > earliest)?;
        let missed = std::iter::successors(Some(earliest), |at| schedule.next(*at, zone));
        if missed.skip(1).take_while(|at| *at <= now).take(TOO_MANY_MISSED + 1).count() > TOO_MANY_MISSED {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.session.event(cron, "Warning", "TooManyMissedTimes", message);
        }
        Some(due)
    }
}

/// Whether the schedule made it, and not `kubectl create job --from`. Upstream knows by status.active; a status may be lost
/// with the power, and this cannot.
fn is_ours(job: &Object) -> bool {
    job.meta().get("annotations").get(SCHEDULED_AT).exists()
}

fn reference(job: &Object) -> Value {
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "namespace": job.namespace(), "name": job.name(), "uid": job.uid(),
        "resourceVersion": job.revision.to_string(),
    })
}

fn job_for(cron: &Object, name: &str, due: Timestamp) -> Value {
    let template = cron.root().at("spec.jobTemplate");
    let map = |part: &str| {
        let value = template.get("metadata").get(part).to_value();
        if value.is_object() { value } else { json!({}) }
    };
    let mut annotations = map("annotations");
    annotations[SCHEDULED_AT] = rfc3339(due).into();
    json!({
        "metadata": {
            "name": name, "namespace": cron.namespace(), "labels": map("labels"), "annotations": annotations,
            "ownerReferences": [controller_ref(cron)],
        },
        "spec": template.get("spec").to_value(),
    })
}
