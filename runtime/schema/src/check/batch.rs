//! Jobs and CronJobs (pkg/apis/batch/validation).
use super::{
    at::{At, Errors},
    meta, pod,
};
use crate::validate as format;
use serde_json::Value;

const MAX_INDEXED: i64 = 100_000;

fn job_spec(spec: &At<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.non_negative(&spec.get(field));
    }
    let (per_index, max_failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    if max_failed.is_set() && !per_index.is_set() {
        errors.required(&per_index, "when maxFailedIndexes is specified");
    }
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    if spec.get("completionMode").str() == "Indexed" {
        if !completions.is_set() {
            errors.required(&completions, "when completion mode is Indexed");
        }
        if parallelism.int().is_some_and(|n| n > MAX_INDEXED) {
            let detail = format!("must be less than or equal to {MAX_INDEXED} when completion mode is Indexed");
            errors.invalid(&parallelism, &detail);
        }
        if let (Some(failed), Some(all)) = (max_failed.int(), completions.int())
            && failed > all
        {
            errors.invalid(&max_failed, "must be less than or equal to completions");
        }
        if max_failed.int().is_some_and(|n| n > MAX_INDEXED) {
            errors.invalid(&max_failed, &format!("must be less than or equal to {MAX_INDEXED}"));
        }
    } else {
        for at in [per_index, max_failed, spec.get("successPolicy")] {
            if at.is_set() {
                errors.invalid(&at, "requires indexed completion mode");
            }
        }
    }
    pod::template(&spec.get("template"), errors);
    let policy = spec.at("template.spec.restartPolicy");
    match policy.str() {
        "" | "Always" => errors.required(&policy, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if spec.get("podFailurePolicy").is_set() => {
            errors.invalid(&policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        _ => errors.unsupported(&policy, &["OnFailure", "Never"]),
    }
}

pub(super) fn job(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    job_spec(&spec, errors);
    let selector = spec.get("selector");
    if selector.is_set() {
        meta::label_selector(&selector, errors);
    } else {
        errors.required(&selector, "");
    }
    let labels = spec.at("template.metadata.labels");
    if !meta::selects(&selector, &labels) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
    if spec.get("completionMode").str() == "Indexed"
        && let Some(count) = spec.get("completions").int().filter(|n| *n > 0)
    {
        let name = new.at("metadata.name");
        let hostname = format!("{}-{}", name.str(), count - 1);
        if !format::dns1123_label(&hostname).is_empty() {
            errors.invalid(&name, &format!("will not able to create pod with invalid DNS label: {hostname}"));
        }
    }
    if let Some(old) = old {
        update(&spec, &old.get("spec"), errors);
    }
}

fn update(spec: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let (completions, before) = (spec.get("completions"), old.get("completions"));
    // An indexed job may grow and shrink together with its parallelism.
    let elastic = spec.get("completionMode").str() == "Indexed" && completions.int() == spec.get("parallelism").int();
    if completions.value != before.value && !elastic {
        errors.invalid(&completions, "field is immutable");
    }
    let mut template = old.peek("template").clone();
    // A suspended job that never started may still be told where to run.
    if old.get("suspend").is_true() {
        for (part, field) in [
            ("metadata", "annotations"),
            ("metadata", "labels"),
            ("spec", "nodeSelector"),
            ("spec", "tolerations"),
            ("spec", "schedulingGates"),
        ] {
            let value = spec.at("template").get(part).peek(field).clone();
            if let Some(map) = template.get_mut(part).and_then(Value::as_object_mut) {
                if value.is_null() {
                    map.remove(field);
                } else {
                    map.insert(field.into(), value);
                }
            }
        }
    }
    if spec.peek("template") != &template {
        errors.invalid(&spec.get("template"), "field is immutable");
    }
    for field in
        ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        errors.immutable(&spec.get(field), &old.get(field));
    }
}

pub(super) fn cron_job(new: &At<'_>, errors: &mut Errors) {
    let spec = new.get("spec");
    let schedule = spec.get("schedule");
    if schedule.str().is_empty() {
        errors.required(&schedule, "");
    } else if let Err(detail) = schedule_format(schedule.str()) {
        errors.invalid(&schedule, &detail);
    }
    if schedule.str().contains("TZ") {
        errors.invalid(&schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    }
    let zone = spec.get("timeZone");
    if zone.is_set() && (zone.str().is_empty() || zone.str().eq_ignore_ascii_case("local")) {
        errors.invalid(&zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.non_negative(&spec.get(field));
    }
    let template = spec.get("jobTemplate");
    let job = template.get("spec");
    if job.get("manualSelector").is_true() {
        errors.unsupported(&job.get("manualSelector"), &["nil", "false"]);
    }
    job_spec(&job, errors);
}

/// Five fields or a descriptor, as robfig/cron's standard parser takes them.
fn schedule_format(text: &str) -> Result<(), String> {
    // A zone in front is refused in other words.
    let text = match text.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest.trim(),
        _ => text.trim(),
    };
    if let Some(descriptor) = text.strip_prefix('@') {
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
        let every = descriptor.strip_prefix("every ").is_some_and(|d| !d.is_empty());
        return if known.contains(&descriptor) || every {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {text}"))
        };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let bounds: [(u32, u32, &[&str], u32); 5] =
        [(0, 59, &[], 0), (0, 23, &[], 0), (1, 31, &[], 0), (1, 12, &months, 1), (0, 6, &days, 0)];
    for (field, (min, max, names, first)) in fields.iter().zip(bounds) {
        for part in field.split(',') {
            range(part, min, max, names, first)?;
        }
    }
    Ok(())
}

fn range(part: &str, min: u32, max: u32, names: &[&str], first: u32) -> Result<(), String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(at) = names.iter().position(|n| n.eq_ignore_ascii_case(text)) {
            return Ok(at as u32 + first);
        }
        text.parse()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (range, step) = match part.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {part}")),
        Some((range, step)) => (range, Some(number(step)?)),
        None => (part, None),
    };
    let (low, high) = match range.split_once('-') {
        _ if matches!(range, "*" | "?") => (min, max),
        Some((_, high)) if high.contains('-') => return Err(format!("too many hyphens: {part}")),
        Some((low, high)) => (number(low)?, number(high)?),
        None => {
            let low = number(range)?;
            (low, if step.is_some() { max } else { low })
        }
    };
    match () {
        () if low < min => Err(format!("beginning of range ({low}) below minimum ({min}): {part}")),
        () if high > max => Err(format!("end of range ({high}) above maximum ({max}): {part}")),
        () if low > high => Err(format!("beginning of range ({low}) beyond end of range ({high}): {part}")),
        () if step == Some(0) => Err(format!("step of range should be a positive number: {part}")),
        () => Ok(()),
    }
}
