//! Levels and versions, and how a namespace's labels name them (pod-security-admission/api/helpers.go).
use mote_schema::Cause;
use mote_schema::Value;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// "restricted:latest"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub level: Level,
    /// The minor version; `None` is the latest.
    pub version: Option<u32>,
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Policy {
    pub enforce: Demand,
    pub audit: Demand,
    pub warn: Demand,
    /// Labels that name no level or version.
    pub errors: Vec<Cause>,
}

/// Where nothing is said, everything is allowed.
impl Default for Policy {
    fn default() -> Policy {
        let any = Demand { level: Level::Privileged, version: None };
        Policy { enforce: any, audit: any, warn: any, errors: Vec::new() }
    }
}

impl Policy {
    pub(super) fn of(labels: &Value) -> Policy {
        let mut policy = Policy::default();
        let label = |name: &str| labels[format!("{PREFIX}{name}")].as_str();
        // What cannot be read enforces the most, and warns and audits the least.
        let mut errors = Vec::new();
        let mut read = |mode: &str, demand: &mut Demand, fallback: Level| {
            let mut good = None;
            if let Some(text) = label(mode) {
                good = level(text);
                demand.level = good.unwrap_or(fallback);
                if good.is_none() {
                    errors.push(refuse(mode, text, "must be one of privileged, baseline, restricted"));
                }
            }
            let name = format!("{mode}-version");
            if let Some(text) = label(&name) {
                let version = version(text);
                demand.version = version.unwrap_or(None);
                if version.is_none() {
                    errors.push(refuse(&name, text, "must be \"latest\" or \"v1.x\""));
                }
            }
            good
        };
        let enforced = read("enforce", &mut policy.enforce, Level::Restricted);
        read("audit", &mut policy.audit, Level::Privileged);
        read("warn", &mut policy.warn, Level::Privileged);
        policy.errors = errors;
        // What is refused in pods is warned of in workloads, unless the labels say otherwise.
        if label("warn").is_none() && enforced.is_some() && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if label("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        policy
    }

    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|demand| demand.level == Level::Privileged)
    }
}

fn refuse(name: &str, value: &str, detail: &str) -> Cause {
    Cause::invalid(format!("metadata.labels[{PREFIX}{name}]"), &Value::from(value), detail)
}

fn level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// "latest" or "v1.30"
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor.len() == 1 || !minor.starts_with('0'));
    minor.parse().ok().filter(|_| plain).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mote_schema::json;

    #[test]
    fn labels_become_policies() {
        let check = |labels: Value, expected: [&str; 3], errors: usize| {
            let policy = Policy::of(&labels);
            let got = [policy.enforce, policy.audit, policy.warn].map(|demand| demand.to_string());
            assert_eq!((got.each_ref().map(String::as_str), policy.errors.len()), (expected, errors), "{labels}");
        };
        let p = |name: &str| format!("{PREFIX}{name}");
        check(Value::Null, ["privileged:latest"; 3], 0);
        check(
            json!({(p("enforce")): "baseline", (p("enforce-version")): "v1.22"}),
            ["baseline:v1.22", "privileged:latest", "baseline:v1.22"],
            0,
        );
        check(
            json!({(p("enforce")): "restricted", (p("warn")): "privileged", (p("audit")): "baseline"}),
            ["restricted:latest", "baseline:latest", "privileged:latest"],
            0,
        );
        check(
            json!({(p("enforce")): "strict", (p("warn-version")): "v1.05"}),
            ["restricted:latest", "privileged:latest", "privileged:latest"],
            2,
        );
        let cause = Policy::of(&json!({(p("audit")): "some"})).errors.remove(0);
        assert_eq!(cause.field, "metadata.labels[pod-security.kubernetes.io/audit]");
        assert_eq!(cause.message, "Invalid value: \"some\": must be one of privileged, baseline, restricted");
    }
}
