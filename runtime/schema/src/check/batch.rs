//! Jobs and CronJobs (pkg/apis/batch/validation).
use super::{
    at::{At, Errors},
    meta, pod,
    rules::rules,
};
use crate::Value;
use crate::validate as format;

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
    let manager = spec.get("managedBy");
    if manager.is_set() {
        rules(spec, "managedBy!domain-path", errors);
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
        if completions.int().is_some_and(|n| n > MAX_INDEXED) && per_index.is_set() {
            if !max_failed.is_set() {
                let detail = format!("must be specified when completions is above {MAX_INDEXED}");
                errors.required(&max_failed, &detail);
            }
            for at in [&parallelism, &max_failed].into_iter().filter(|at| at.int().is_some_and(|n| n > 10_000)) {
                let detail = format!(
                    "must be less than or equal to 10000 when completions are above {MAX_INDEXED} and used with backoff limit per index"
                );
                errors.invalid(at, &detail);
            }
        }
    } else {
        for at in [per_index, max_failed] {
            if at.is_set() {
                errors.invalid(&at, "requires indexed completion mode");
            }
        }
    }
    pod_failure_policy(spec, errors);
    let success = spec.get("successPolicy");
    if success.is_set() && spec.get("completionMode").str() != "Indexed" {
        errors.invalid(&success, "requires indexed completion mode");
    } else if success.is_set() {
        success_policy(&success, completions.int().unwrap_or(0), errors);
    }
    let replacement = spec.get("podReplacementPolicy");
    if spec.get("podFailurePolicy").is_set() {
        rules(spec, "podReplacementPolicy?=Failed", errors);
    } else if replacement.is_set() {
        rules(spec, "podReplacementPolicy?=Failed|TerminatingOrFailed", errors);
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

/// ValidateJobSpec, where `job_spec` is what a CronJob's template is held to.
fn whole_spec(spec: &At<'_>, errors: &mut Errors) {
    job_spec(spec, errors);
    let selector = spec.get("selector");
    if selector.is_set() {
        meta::label_selector(&selector, errors);
    } else {
        errors.required(&selector, "");
    }
    let labels = spec.at("template.metadata.labels");
    if !meta::selects(&selector, &labels) {
        errors.invalid_null(&labels, "`selector` does not match template `labels`");
    }
}

pub(super) fn job(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.get("spec");
    if spec.get("selector").is_set() {
        generated_selector(new, &spec, errors);
    }
    whole_spec(&spec, errors);
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
        // Upstream looks at the spec of an update twice.
        whole_spec(&spec, errors);
        update(&spec, old, errors);
    }
}

/// validateGeneratedSelector
fn generated_selector(new: &At<'_>, spec: &At<'_>, errors: &mut Errors) {
    if spec.get("manualSelector").is_true() {
        return;
    }
    let (name, uid) = (new.at("metadata.name"), new.at("metadata.uid"));
    let expected = [
        ("controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
    ];
    let labels = spec.at("template.metadata.labels");
    for (label, value) in &expected {
        let at = labels.key(label);
        let detail = format!("must be '{}'", value.str());
        if !at.is_set() {
            errors.required(&at, &detail);
        } else if at.str() != value.str() {
            errors.invalid(&at, &detail);
        }
    }
    let wanted: crate::Map = expected.iter().map(|(label, value)| ((*label).to_owned(), value.value.clone())).collect();
    let wanted = Value::Object(wanted);
    let selector = spec.get("selector");
    if !meta::selects(&selector, &At::root(&wanted)) {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

fn update(spec: &At<'_>, job: &At<'_>, errors: &mut Errors) {
    let old = &job.get("spec");
    let (completions, before) = (spec.get("completions"), old.get("completions"));
    // An indexed job may grow and shrink together with its parallelism.
    if spec.get("completionMode").str() != "Indexed" {
        errors.immutable(&completions, &before);
    } else if completions.is_set()
        && completions.value != before.value
        && completions.int() != spec.get("parallelism").int()
    {
        errors.invalid(&completions, "can only be modified in tandem with spec.parallelism");
    }
    errors.immutable(&spec.get("selector"), &old.get("selector"));
    template_update(&spec.get("template"), job, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        errors.immutable(&spec.get(field), &old.get(field));
    }
}

/// validatePodTemplateUpdate: a suspended job of which nothing runs may still be told where to run and with how much.
fn template_update(template: &At<'_>, job: &At<'_>, errors: &mut Errors) {
    let (spec, status) = (job.get("spec"), job.get("status"));
    let mut before = spec.peek("template").clone();
    let is_suspended =
        |condition: At<'_>| condition.get("type").str() == "Suspended" && condition.get("status").str() == "True";
    let stopped = !status.get("startTime").is_set() || status.get("conditions").items().any(is_suspended);
    if !(spec.get("suspend").is_true() && stopped && status.get("active").int().unwrap_or(0) == 0) {
        if template.value != &before {
            errors.invalid(template, "field is immutable");
        }
        return;
    }
    for (part, field) in [
        ("metadata", "annotations"),
        ("metadata", "labels"),
        ("spec", "nodeSelector"),
        ("spec", "tolerations"),
        ("spec", "schedulingGates"),
    ] {
        take(template.get(part).peek(field), before.get_mut(part), field);
    }
    let (affinity, own) = (template.at("spec.affinity"), before.get_mut("spec"));
    if let Some(own) = own.and_then(Value::as_object_mut) {
        let mut kept = own.remove("affinity").unwrap_or_else(|| Value::Object(Default::default()));
        take(affinity.peek("nodeAffinity"), Some(&mut kept), "nodeAffinity");
        if affinity.is_set() || kept.as_object().is_some_and(|kept| !kept.is_empty()) {
            own.insert("affinity".into(), kept);
        }
    }
    for list in ["containers", "initContainers"] {
        let own = before.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
        for (own, new) in own.into_iter().flatten().zip(template.get("spec").get(list).items()) {
            if own.get("name") == new.value.get("name") {
                take(new.peek("resources"), Some(own), "resources");
            }
        }
    }
    if template.peek("spec") != before.get("spec").unwrap_or(&Value::Null) {
        errors.invalid(&template.get("spec"), "field is immutable");
    }
}

/// Sets a field to what it is now.
fn take(value: &Value, into: Option<&mut Value>, field: &str) {
    let Some(map) = into.and_then(Value::as_object_mut) else { return };
    if value.is_null() {
        map.remove(field);
    } else {
        map.insert(field.into(), value.clone());
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
    if zone.is_set() && zone.str().is_empty() {
        errors.invalid(&zone, "timeZone must be nil or non-empty string");
    } else if zone.str().eq_ignore_ascii_case("local") {
        errors.invalid(&zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
    } else if zone.is_set() && !is_zone_name(zone.str()) {
        errors.invalid(&zone, &format!("unknown time zone {}", zone.str()));
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.non_negative(&spec.get(field));
    }
    let template = spec.get("jobTemplate");
    let job = template.get("spec");
    job_spec(&job, errors);
    if job.get("selector").is_set() {
        errors.invalid(&job.get("selector"), "`selector` will be auto-generated");
    }
    if job.get("manualSelector").is_true() {
        errors.unsupported(&job.get("manualSelector"), &["nil", "false"]);
    }
}

/// What a zone's file may be called; whether there is one, the cronjob controller sees, which has them.
fn is_zone_name(text: &str) -> bool {
    text.split('/').all(|part| {
        !matches!(part, "." | "..")
            && !part.starts_with('-')
            && !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
    })
}

/// validatePodFailurePolicy
fn pod_failure_policy(spec: &At<'_>, errors: &mut Errors) {
    let list = spec.at("podFailurePolicy.rules");
    errors.too_many(&list, 20);
    let containers = ["containers", "initContainers"].map(|c| spec.at("template.spec").get(c));
    for rule in list.items() {
        let (action, codes, conditions) = (rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions"));
        match action.str() {
            "" => {
                errors.required(&action, r#"valid values: ["Count" "FailIndex" "FailJob" "Ignore"]"#);
            }
            "FailIndex" if !spec.get("backoffLimitPerIndex").is_set() => {
                errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
            }
            _ => rules(&rule, "action=Count|FailIndex|FailJob|Ignore", errors),
        }
        if codes.is_set() {
            match codes.get("operator").str() {
                "" => errors.required(&codes.get("operator"), r#"valid values: ["In" "NotIn"]"#),
                _ => rules(&codes, "operator=In|NotIn", errors),
            }
            let name = codes.get("containerName");
            let known = || containers.iter().flat_map(At::items).any(|c| c.get("name").str() == name.str());
            if name.is_set() && !known() {
                errors.invalid(&name, "must be one of the container or initContainer names in the pod template");
            }
            exit_codes(&codes, errors);
        }
        errors.too_many(&conditions, 20);
        for condition in conditions.items() {
            rules(&condition, "type!qualified", errors);
            match condition.get("status").str() {
                "" => errors.required(&condition.get("status"), r#"valid values: ["False" "True" "Unknown"]"#),
                _ => rules(&condition, "status=False|True|Unknown", errors),
            }
        }
        match (codes.is_set(), conditions.is_empty()) {
            (true, false) => {
                errors.invalid_unshown(&rule, "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => {
                errors.invalid_unshown(&rule, "specifying one of OnExitCodes and OnPodConditions is required");
            }
            _ => {}
        }
    }
}

fn exit_codes(at: &At<'_>, errors: &mut Errors) {
    let values = at.get("values");
    if values.is_empty() {
        errors.invalid_value(&values.path, &Value::Array(Default::default()), "at least one value is required");
    }
    errors.too_many(&values, 255);
    let mut seen: Vec<i64> = Vec::new();
    for value in values.items() {
        let code = value.int().unwrap_or(0);
        if code == 0 && at.get("operator").str() == "In" {
            errors.invalid(&value, "must not be 0 for the In operator");
        }
        if seen.contains(&code) {
            errors.duplicate(&value);
        }
        seen.push(code);
    }
    if !seen.is_sorted() {
        errors.invalid(&values, "must be ordered");
    }
}

/// validateSuccessPolicy
fn success_policy(at: &At<'_>, completions: i64, errors: &mut Errors) {
    let list = at.get("rules");
    if list.is_empty() {
        errors.required(&list, "at least one rules must be specified when the successPolicy is specified");
    }
    errors.too_many(&list, 20);
    for rule in list.items() {
        let (indexes, count) = (rule.get("succeededIndexes"), rule.get("succeededCount"));
        if !indexes.is_set() && !count.is_set() {
            errors.required(&rule, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if indexes.is_set() {
            match count_indexes(indexes.str(), completions) {
                Ok(counted) => total = counted,
                Err(error) => errors.invalid(&indexes, &format!("error parsing succeededIndexes: {error}")),
            }
        }
        let Some(wanted) = count.int() else { continue };
        errors.non_negative(&count);
        if wanted > completions {
            let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(&count, &detail);
        }
        if indexes.is_set() && wanted > total {
            errors.invalid(&count, &format!(
                "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            ));
        }
    }
}

/// How many "0-2,5" are (validateIndexesFormat).
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let parts: Vec<&str> = interval.split('-').collect();
        if parts.len() > 2 {
            return Err(format!(
                "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let mut bounds = Vec::new();
        for part in parts {
            let index: i64 =
                part.parse().map_err(|_| format!("cannot convert string to integer for index: {part:?}"))?;
            if index >= completions {
                return Err(format!("too large index: {part:?}"));
            }
            bounds.push(index);
        }
        let first = bounds.first().copied().unwrap_or(0);
        let end = bounds.last().copied().unwrap_or(0);
        if first > end {
            return Err(format!("non-increasing order, previous: {first}, current: {end}"));
        }
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// ValidateJobStatusUpdate
pub(super) fn job_status(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let (spec, status) = (new.get("spec"), new.get("status"));
    rules(&status, "active>=0 succeeded>=0 failed>=0 ready>=0 terminating>=0", errors);
    let uncounted = status.get("uncountedTerminatedPods");
    let mut seen: Vec<&str> = Vec::new();
    for uid in ["succeeded", "failed"].into_iter().flat_map(|list| uncounted.get(list).items()) {
        if uid.str().is_empty() {
            errors.invalid(&uid, "must not be empty");
        } else if seen.contains(&uid.str()) {
            errors.duplicate(&uid);
        }
        seen.push(uid.str());
    }
    let conditions = status.get("conditions");
    let holds = |status: &At<'_>, name: &str| {
        let mut list = status.get("conditions").items();
        list.any(|c| c.get("type").str() == name && c.get("status").str() == "True")
    };
    let has = |name: &str| holds(&status, name);
    let (complete, failed, met, target) =
        (has("Complete"), has("Failed"), has("SuccessCriteriaMet"), has("FailureTarget"));
    let (started, ended) = (status.get("startTime"), status.get("completionTime"));
    let indexed = spec.get("completionMode").str() == "Indexed";
    let refuse = |is: bool, detail: &str, errors: &mut Errors| {
        if is {
            errors.invalid_unshown(&conditions, detail);
        }
    };
    refuse(complete && failed, "cannot set Complete=True and Failed=true conditions", errors);
    refuse(complete && target, "cannot set Complete=True and FailureTarget=true conditions", errors);
    if ended.is_set() && !complete {
        errors.invalid(&ended, "cannot set completionTime when there is no Complete=True condition");
    }
    if !ended.is_set() && complete {
        errors.required(&ended, "completionTime is required for Complete jobs");
    }
    if started.is_set() && ended.is_set() && ended.str() < started.str() {
        errors.invalid(&ended, "must be equal to or after `startTime`");
    }
    let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
    refuse(failed && !target, detail, errors);
    let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
    refuse(complete && !met, detail, errors);
    let finished = complete || failed;
    for (field, detail) in [("active", "active>0 is invalid for finished job")] {
        if finished && status.get(field).int().unwrap_or(0) > 0 {
            errors.invalid(&status.get(field), detail);
        }
    }
    if finished && !started.is_set() {
        errors.required(&started, "startTime is required for finished job");
    }
    if finished && !seen.is_empty() {
        errors.invalid(&uncounted, "must be empty for finished job");
    }
    let completed = status.get("completedIndexes");
    if let Some(completions) = spec.get("completions").int() {
        for field in ["completedIndexes", "failedIndexes"] {
            let at = status.get(field);
            if let Err(error) = count_indexes(at.str(), completions) {
                errors.invalid(&at, &format!("error parsing {field}: {error}"));
            }
        }
    }
    if !completed.is_empty() && !indexed {
        errors.invalid(&completed, "cannot set non-empty completedIndexes when non-indexed completion mode");
    }
    let failed_indexes = status.get("failedIndexes");
    if failed_indexes.is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        errors.invalid(&failed_indexes, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
    }
    if finished && status.get("terminating").int().unwrap_or(0) > 0 {
        errors.invalid(&status.get("terminating"), "terminating>0 is invalid for finished job");
    }
    if status.get("ready").int().unwrap_or(0) > status.get("active").int().unwrap_or(0) {
        errors.invalid(&status.get("ready"), "cannot set more ready pods than active");
    }
    refuse(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions", errors);
    refuse(met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions", errors);
    let Some(old) = old.map(|old| old.get("status")) else { return };
    for name in ["Failed", "Complete", "FailureTarget"] {
        refuse(holds(&old, name) && !has(name), &format!("cannot disable the terminal {name}=True condition"), errors);
    }
    for field in ["failed", "succeeded"] {
        if status.get(field).int().unwrap_or(0) < old.get(field).int().unwrap_or(0) {
            let at = status.get(field);
            errors.invalid(&at, &format!("cannot decrease the {field} counter"));
        }
    }
    if ended.is_set() && old.get("completionTime").is_set() {
        errors.immutable(&ended, &old.get("completionTime"));
    }
    let before = old.get("startTime");
    if before.is_set() && before.value != started.value && !spec.get("suspend").is_true() {
        errors.invalid_null(&started, "field is immutable for unsuspended job once set");
    }
    refuse(holds(&old, "SuccessCriteriaMet") && !met, "cannot disable the SuccessCriteriaMet=True condition", errors);
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
        return match descriptor.strip_prefix("every ") {
            Some(every) if crate::prune::is_go_duration(every) => Ok(()),
            Some(every) => Err(format!("failed to parse duration {text}: time: invalid duration {every:?}")),
            None if known.contains(&descriptor) => Ok(()),
            None => Err(format!("unrecognized descriptor: {text}")),
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
