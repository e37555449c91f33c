//! What is counted of webhooks and of the in-tree plugins (apiserver/pkg/admission/metrics). The labels are names from configurations, so their
//! number is bounded here.
use super::configurations::Side;
use crate::{admission::Operation, metrics::Text};
use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

const MAX_SERIES: usize = 256;
const SECONDS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 1.0, 10.0, 25.0];
/// Of the plugins in the tree, which wait for nobody.
const PLUGIN_SECONDS: [f64; 5] = [0.005, 0.025, 0.1, 0.5, 1.0];

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Allowed, or a failure that is ignored.
    Passed,
    Denied,
    /// No usable answer, and that counts.
    Failed,
    /// Something of ours.
    Internal,
}

#[derive(Default)]
pub(super) struct Figures(Mutex<Series>);

#[derive(Default)]
struct Series {
    /// name, type, operation, code, rejected
    calls: BTreeMap<String, u64>,
    /// name, type, operation, error_type, rejection_code
    rejections: BTreeMap<String, u64>,
    /// name, type
    opened: BTreeMap<String, u64>,
    /// name, type, operation, rejected
    durations: BTreeMap<String, ([u64; SECONDS.len() + 1], f64)>,
    /// Of plugins: name, type and operation, and whether they refused.
    plugins: BTreeMap<(Plugin, bool), ([u64; PLUGIN_SECONDS.len() + 1], f64)>,
}

/// A plugin's name, what it was asked (`admit` or `validate`), and the operation.
pub(crate) type Plugin = (&'static str, &'static str, &'static str);

fn count(series: &mut BTreeMap<String, u64>, labels: String) {
    if series.len() < MAX_SERIES || series.contains_key(&labels) {
        *series.entry(labels).or_default() += 1;
    }
}

impl Figures {
    pub(super) fn called(&self, (name, side, operation): (&str, Side, Operation), code: u16, end: End, took: Duration) {
        let Ok(mut series) = self.0.lock() else { return };
        let is_rejected = end != End::Passed;
        // Upstream counts codes above 600 as 600.
        let code = code.min(600);
        let what = format!("name={name:?},operation={:?}", operation.name());
        let step = side.step();
        count(&mut series.calls, format!("code=\"{code}\",{what},rejected=\"{is_rejected}\",type={step:?}"));
        let error = match end {
            End::Passed => None,
            End::Denied => Some("no_error"),
            End::Failed => Some("calling_webhook_error"),
            End::Internal => Some("apiserver_internal_error"),
        };
        if let Some(error) = error {
            let labels = format!("error_type={error:?},{what},rejection_code=\"{code}\",type={step:?}");
            count(&mut series.rejections, labels);
        }
        let labels = format!("{what},rejected=\"{is_rejected}\",type={step:?}");
        if series.durations.len() < MAX_SERIES || series.durations.contains_key(&labels) {
            let (buckets, sum) = series.durations.entry(labels).or_default();
            let seconds = took.as_secs_f64();
            *sum += seconds;
            let at = SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(SECONDS.len());
            buckets[at] += 1;
        }
    }

    /// A plugin ended that began at `clock`, which goes on to now.
    pub(super) fn plugin(&self, plugin: Plugin, is_rejected: bool, clock: &mut Instant) {
        let began = std::mem::replace(clock, Instant::now());
        let seconds = clock.duration_since(began).as_secs_f64();
        let Ok(mut series) = self.0.lock() else { return };
        let (buckets, sum) = series.plugins.entry((plugin, is_rejected)).or_default();
        *sum += seconds;
        buckets[PLUGIN_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(PLUGIN_SECONDS.len())] += 1;
    }

    pub(super) fn opened(&self, name: &str, side: Side) {
        let Ok(mut series) = self.0.lock() else { return };
        count(&mut series.opened, format!("name={name:?},type={:?}", side.step()));
    }

    pub(super) fn write(&self, text: &mut Text) {
        let Ok(series) = self.0.lock() else { return };
        for (name, help, counts) in [
            ("apiserver_admission_webhook_request_total", "Calls of webhooks, by how they ended.", &series.calls),
            ("apiserver_admission_webhook_rejection_count", "Requests that webhooks refused.", &series.rejections),
            ("apiserver_admission_webhook_fail_open_count", "Failures that were ignored.", &series.opened),
        ] {
            if counts.is_empty() {
                continue;
            }
            text.family(name, "counter", help);
            for (labels, value) in counts {
                text.sample("", labels, *value as f64);
            }
        }
        if !series.durations.is_empty() {
            text.family(
                "apiserver_admission_webhook_admission_duration_seconds",
                "histogram",
                "Time that webhooks took.",
            );
            for (labels, (buckets, sum)) in &series.durations {
                text.histogram(labels, &SECONDS, buckets, buckets.iter().sum(), *sum);
            }
        }
        text.family(
            "apiserver_admission_controller_admission_duration_seconds",
            "histogram",
            "Time that plugins in the tree took.",
        );
        for (((name, step, operation), is_rejected), (buckets, sum)) in &series.plugins {
            let labels = format!("name={name:?},operation={operation:?},rejected=\"{is_rejected}\",type={step:?}");
            text.histogram(&labels, &PLUGIN_SECONDS, buckets, buckets.iter().sum(), *sum);
        }
    }
}
