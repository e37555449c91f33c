//! Indexed Jobs: sets of indexes as text, spec.backoffLimitPerIndex and spec.successPolicy
//! (pkg/controller/job/{indexed_job_utils,backoff_utils,success_policy}.go). Pure.
//!
//! How often an index failed is written on the pods themselves: each carries the failures before it.
use super::{BACKOFF_FIRST, BACKOFF_LONGEST, MAX_INDEX, failure_policy::Action, index_of, int};
use crate::amounts::{parse_time, remaining};
use jiff::Timestamp;
use mote_api::Object;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What an index has behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tries {
    pub failures: i64,
    /// Those that the failure policy forgave.
    pub ignored: i64,
    last: Option<Timestamp>,
}

impl Tries {
    /// Until the next try; `None`: now.
    pub fn wait(&self, now: Timestamp) -> Option<Duration> {
        let before = u32::try_from(self.failures + self.ignored).ok()?.checked_sub(1)?;
        remaining(self.last?, BACKOFF_FIRST.saturating_mul(1 << before.min(10)).min(BACKOFF_LONGEST), now)
    }
}

fn noted(pod: &Object, annotation: &str) -> i64 {
    pod.meta().get("annotations").get(annotation).as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn finished_at(pod: &Object) -> Option<Timestamp> {
    let containers = pod.root().at("status.containerStatuses").items();
    let ends = containers.filter_map(|c| parse_time(c.at("state.terminated.finishedAt")));
    ends.max().or_else(|| parse_time(pod.meta().get("deletionTimestamp")))
}

/// Adds a failed pod to what its index has behind it.
pub fn add_try(tries: &mut BTreeMap<i64, Tries>, pod: &Object, action: &Action) {
    let Some(index) = index_of(pod) else { return };
    let ignored = *action == Action::Ignore;
    let new = Tries {
        failures: noted(pod, FAILURES) + i64::from(!ignored),
        ignored: noted(pod, IGNORED) + i64::from(ignored),
        last: finished_at(pod),
    };
    let entry = tries.entry(index).or_default();
    if new.failures + new.ignored > entry.failures + entry.ignored {
        *entry = new;
    }
}

/// The pod's failure is the last its index may have.
pub fn fails_index(job: &Object, pod: &Object, action: &Action) -> bool {
    let Some(limit) = int(job, "spec.backoffLimitPerIndex") else { return false };
    match action {
        Action::FailIndex => true,
        Action::Count => noted(pod, FAILURES) >= limit,
        Action::Ignore | Action::FailJob(_) => false,
    }
}

/// Why the failed indexes end the Job: (reason, message).
pub fn failure(job: &Object, failed: usize, completed: usize) -> Option<(&'static str, &'static str)> {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    if int(job, "spec.maxFailedIndexes").is_some_and(|max| count(failed) > max) {
        return Some(("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"));
    }
    let all_over =
        int(job, "spec.completions").is_some_and(|all| count(failed).saturating_add(count(completed)) >= all);
    (failed > 0 && all_over).then_some(("FailedIndexes", "Job has failed indexes"))
}

/// The message of the first rule of spec.successPolicy that the completed indexes meet.
pub fn success(job: &Object, completed: &BTreeSet<i64>) -> Option<String> {
    if completed.is_empty() {
        return None;
    }
    let completions = int(job, "spec.completions").unwrap_or(0);
    let rules = job.root().at("spec.successPolicy.rules");
    let met = rules.items().position(|rule| {
        let count = rule.get("succeededCount").as_i64().and_then(|count| usize::try_from(count).ok());
        match rule.get("succeededIndexes").as_str() {
            Some(text) => {
                let asked = parse(text, completions);
                let done = asked.intersection(completed).count();
                !asked.is_empty() && done >= count.unwrap_or(asked.len())
            }
            None => count.is_some_and(|count| completed.len() >= count),
        }
    });
    met.map(|index| format!("Matched rules at index {index}"))
}

/// "0,2-5" as a set, below `completions`.
pub fn parse(text: &str, completions: i64) -> BTreeSet<i64> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1).min(MAX_INDEX));
        }
    }
    indexes
}

pub fn format(indexes: &BTreeSet<i64>) -> String {
    let mut parts: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => parts.push((*index, *index)),
        }
    }
    let text = parts.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    text.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::{Catalog, Doc};
    use mote_schema::{Value, json};

    fn object(group: &str, plural: &str, value: Value) -> Object {
        let kind = Catalog::builtin().by_resource(group, "v1", plural).unwrap().clone();
        Object { kind, doc: Doc::encode(&value).unwrap(), revision: 1 }
    }

    #[test]
    fn indexes() {
        let check = |text: &str| assert_eq!(format(&parse(text, 100)), text);
        for text in ["", "0", "0,1", "0-2", "1,3-5,9", "3,4,6-8"] {
            check(text);
        }
        assert_eq!(format(&parse("5-200", 8)), "5-7");
        assert!(parse("x,1-y", 9).is_empty());
    }

    #[test]
    fn success_rules() {
        for (rules, completed, want) in [
            (json!([{"succeededIndexes": "0-2"}]), "0,1", None),
            (json!([{"succeededIndexes": "0-2"}]), "0-2", Some(0)),
            (json!([{"succeededIndexes": "0-2", "succeededCount": 1}]), "2,4", Some(0)),
            (json!([{"succeededIndexes": "5-9"}, {"succeededCount": 2}]), "0,1", Some(1)),
            (json!([{"succeededCount": 2}]), "", None),
            (json!(null), "0-4", None),
        ] {
            let job = object("batch", "jobs", json!({"spec": {"completions": 5, "successPolicy": {"rules": rules}}}));
            let want = want.map(|index: usize| format!("Matched rules at index {index}"));
            assert_eq!(success(&job, &parse(completed, 5)), want, "{rules} {completed}");
        }
    }

    #[test]
    fn tries_of_an_index() {
        let job = object(
            "batch",
            "jobs",
            json!({"spec": {"backoffLimitPerIndex": 1, "completions": 3, "maxFailedIndexes": 1}}),
        );
        let pod = |failures: &str| {
            let end = json!({"terminated": {"finishedAt": "2026-01-01T00:00:00Z"}});
            let annotations = json!({"batch.kubernetes.io/job-completion-index": "2", FAILURES: failures});
            object(
                "",
                "pods",
                json!({"metadata": {"annotations": annotations}, "status": {"containerStatuses": [{"state": end}]}}),
            )
        };
        let mut tries = BTreeMap::new();
        for failures in ["0", "1"] {
            add_try(&mut tries, &pod(failures), &Action::Count);
        }
        add_try(&mut tries, &pod("0"), &Action::Ignore);
        let found = tries[&2];
        assert_eq!((tries.len(), found.failures, found.ignored), (1, 2, 0));
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(found.wait(at("2026-01-01T00:00:05Z")), Some(Duration::from_secs(15)));
        assert_eq!(found.wait(at("2026-01-01T00:00:20Z")), None);
        assert_eq!(Tries::default().wait(at("2026-01-01T00:00:05Z")), None);
        for (failures, action, want) in [
            ("0", Action::Count, false),
            ("1", Action::Count, true),
            ("1", Action::Ignore, false),
            ("0", Action::FailIndex, true),
        ] {
            assert_eq!(fails_index(&job, &pod(failures), &action), want, "{failures} {action:?}");
        }
        let reason = |failed, completed| failure(&job, failed, completed).map(|(reason, _)| reason);
        assert_eq!(reason(1, 1), None);
        assert_eq!(reason(1, 2), Some("FailedIndexes"));
        assert_eq!(reason(2, 0), Some("MaxFailedIndexesExceeded"));
        assert_eq!(reason(0, 3), None);
    }
}
