//! Webhook configurations, compiled once and kept while their revision stands. A request looks at the store's newest
//! root; where nothing is configured that costs one look into the map.
use super::{figures::Figures, matching::Matcher};
use crate::admission::policy::Conditions;
use crate::{feed, metrics::Text, server::Api};
use mote_schema::{Object, Ref};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// Upstream's default; the API defaults it too.
const DEFAULT_TIMEOUT_SECONDS: i64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Mutating,
    Validating,
}

impl Side {
    fn plural(self) -> &'static str {
        match self {
            Side::Mutating => "mutatingwebhookconfigurations",
            Side::Validating => "validatingwebhookconfigurations",
        }
    }
    /// As metrics name it.
    pub fn step(self) -> &'static str {
        match self {
            Side::Mutating => "admit",
            Side::Validating => "validating",
        }
    }
}

/// Of one side each.
#[derive(Default)]
pub(crate) struct Configurations {
    mutating: Mutex<Arc<[Configuration]>>,
    validating: Mutex<Arc<[Configuration]>>,
    pub(super) figures: Figures,
}

#[derive(Clone)]
pub(super) struct Configuration {
    pub object: Object,
    hooks: Arc<[Hook]>,
}

/// One webhook; what is read once a call stays in the configuration's Doc.
pub(super) struct Hook {
    pub name: String,
    /// Tells webhooks of all configurations apart, also when two have one name.
    pub uid: String,
    pub matcher: Matcher,
    pub conditions: Conditions,
    pub ignores_failures: bool,
    pub reinvokes: bool,
    pub has_side_effects: bool,
    pub timeout: Duration,
    at: usize,
}

impl Configuration {
    fn new(object: Object) -> Configuration {
        let hooks = object.root().get("webhooks").items().enumerate();
        let hooks = hooks.map(|(at, hook)| Hook::new(object.name(), at, hook)).collect();
        Configuration { object, hooks }
    }

    pub fn client_config(&self, hook: &Hook) -> Ref<'_> {
        self.of(hook).get("clientConfig")
    }
    pub fn review_versions(&self, hook: &Hook) -> Ref<'_> {
        self.of(hook).get("admissionReviewVersions")
    }
    fn of(&self, hook: &Hook) -> Ref<'_> {
        self.object.root().get("webhooks").index(hook.at)
    }
}

impl Hook {
    fn new(configuration: &str, at: usize, hook: Ref<'_>) -> Hook {
        let name = hook.get("name").str().to_owned();
        let seconds = hook.get("timeoutSeconds").as_i64().unwrap_or(DEFAULT_TIMEOUT_SECONDS).clamp(1, 30);
        Hook {
            uid: format!("{configuration}/{name}/{at}"),
            name,
            matcher: Matcher::new(hook),
            conditions: Conditions::compile(hook.get("matchConditions")),
            ignores_failures: hook.get("failurePolicy").str() == "Ignore",
            reinvokes: hook.get("reinvocationPolicy").str() == "IfNeeded",
            has_side_effects: !matches!(hook.get("sideEffects").str(), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(seconds.unsigned_abs()),
            at,
        }
    }
}

impl Configurations {
    /// For whoever reads the metrics.
    /// For whoever counts: a plugin in the tree ended.
    pub(crate) fn plugin(&self, plugin: super::figures::Plugin, is_rejected: bool, clock: &mut std::time::Instant) {
        self.figures.plugin(plugin, is_rejected, clock);
    }

    pub(crate) fn figures(&self, text: &mut Text) {
        self.figures.write(text);
    }

    /// In the order they are called: by name of the configuration.
    pub(super) fn of(&self, api: &Api, side: Side) -> Arc<[Configuration]> {
        let place = match side {
            Side::Mutating => &self.mutating,
            Side::Validating => &self.validating,
        };
        let catalog = api.catalog();
        let kind = catalog.by_resource("admissionregistration.k8s.io", "v1", side.plural());
        let Some(kind) = kind else { return Arc::default() };
        let snapshot = api.store.snapshot();
        let mut kept = place.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let is_same =
            snapshot.range(&kind.prefix, None).map(|entry| entry.modified).eq(kept.iter().map(|c| c.object.revision));
        if !is_same {
            let entries = snapshot.range(&kind.prefix, None).map(|entry| feed::object(kind, &entry));
            let compile = |object: Object| {
                let known =
                    kept.iter().find(|c| c.object.revision == object.revision && c.object.name() == object.name());
                known.cloned().unwrap_or_else(|| Configuration::new(object))
            };
            let fresh: Arc<[Configuration]> = entries.map(compile).collect();
            *kept = fresh;
        }
        kept.clone()
    }
}

/// Every webhook with its place among all.
pub(super) fn hooks(configurations: &[Configuration]) -> impl Iterator<Item = (usize, &Configuration, &Hook)> {
    configurations
        .iter()
        .flat_map(|c| c.hooks.iter().map(move |hook| (c, hook)))
        .enumerate()
        .map(|(i, (c, h))| (i, c, h))
}
