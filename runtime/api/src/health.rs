//! /livez, /readyz and /healthz with upstream's checks format (apiserver/pkg/server/healthz/healthz.go). The parts of
//! the node register their checks; a check is asked only when somebody asks.
use crate::{
    http::{Query, Response},
    metrics::Text,
};
use mote_schema::Order as _;
use std::{
    fmt::Write as _,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

type Answer = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Which of the three endpoints a check counts for; /healthz has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Live,
    Ready,
    Both,
    /// Shown by /readyz and /healthz, and counts for none: the node serves what it has.
    Told,
}

const ENDPOINTS: [&str; 3] = ["healthz", "livez", "readyz"];

struct Check {
    name: String,
    scope: Scope,
    answer: Answer,
    /// By endpoint: how it went the last time, and how often each way.
    passed: [AtomicBool; 3],
    passes: [AtomicUsize; 3],
    failures: [AtomicUsize; 3],
}

impl Check {
    /// Asked for the endpoint of that number.
    fn ask(&self, endpoint: usize) -> Result<(), String> {
        let answer = (self.answer)();
        self.passed[endpoint].store(answer.is_ok(), Ordering::Relaxed);
        let count = if answer.is_ok() { &self.passes } else { &self.failures };
        count[endpoint].fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn counts_for(&self, endpoint: usize) -> bool {
        match ENDPOINTS[endpoint] {
            "livez" => !matches!(self.scope, Scope::Ready | Scope::Told),
            "readyz" => self.scope != Scope::Live,
            _ => true,
        }
    }
}

#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Arc<Check>>>,
}

impl Health {
    /// With the checks that always pass: "ping", and "log", since no log is buffered here that could get stuck.
    pub fn new() -> Health {
        let health = Health::default();
        health.register("ping", Scope::Both, || Ok(()));
        health.register("log", Scope::Both, || Ok(()));
        health
    }

    /// `check` is quick; its error is logged, not shown. A second check of a name replaces the first.
    pub fn register(&self, name: &str, scope: Scope, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.add(name, scope, Box::new(check));
    }

    fn add(&self, name: &str, scope: Scope, answer: Answer) {
        let Ok(mut checks) = self.checks.write() else { return };
        checks.retain(|known| known.name != name);
        let (passed, passes, failures) = Default::default();
        checks.push(Arc::new(Check { name: name.into(), scope, answer, passed, passes, failures }));
    }

    /// None when the path is not one of health's.
    pub fn answer(&self, path: &str, query: &Query) -> Option<Response> {
        let path = path.strip_prefix('/')?;
        let (endpoint, name) = path.split_once('/').unwrap_or((path, ""));
        let endpoint = ENDPOINTS.into_iter().position(|known| known == endpoint)?;
        let checks = self.of(endpoint);
        if name.is_empty() {
            return Some(all(endpoint, &checks, query));
        }
        let check = checks.into_iter().find(|check| check.name == name)?;
        Some(match check.ask(endpoint) {
            Ok(()) => Response::text(200, "ok"),
            Err(error) => Response::text(500, format!("internal server error: {error}\n")),
        })
    }

    /// Does every check that counts for "livez", "readyz" or "healthz" pass?
    pub fn passes(&self, endpoint: &str) -> bool {
        let endpoint = ENDPOINTS.into_iter().position(|known| known == endpoint);
        endpoint.is_some_and(|endpoint| {
            self.of(endpoint).iter().all(|check| check.scope == Scope::Told || (check.answer)().is_ok())
        })
    }

    /// /metrics/slis: of the checks that somebody asked for (component-base/metrics/prometheus/slis).
    pub fn indicators(&self) -> String {
        let checks = self.checks.read().unwrap_or_else(|e| e.into_inner());
        let mut text = Text::default();
        let asked = |check: &Check, at: usize| {
            let (passes, failures) =
                (check.passes[at].load(Ordering::Relaxed), check.failures[at].load(Ordering::Relaxed));
            (passes + failures > 0).then_some([("success", passes), ("error", failures)])
        };
        text.family("kubernetes_healthcheck", "gauge", "1 while the check passes.");
        for check in checks.iter() {
            for (at, endpoint) in ENDPOINTS.iter().enumerate().filter(|(at, _)| asked(check, *at).is_some()) {
                let labels = format!("name={:?},type={endpoint:?}", check.name);
                text.sample("", &labels, f64::from(u8::from(check.passed[at].load(Ordering::Relaxed))));
            }
        }
        text.family("kubernetes_healthchecks_total", "counter", "How often the check was asked, by how it went.");
        for check in checks.iter() {
            for (at, endpoint) in ENDPOINTS.iter().enumerate() {
                for (status, count) in asked(check, at).into_iter().flatten().filter(|(_, count)| *count > 0) {
                    let labels = format!("name={:?},status={status:?},type={endpoint:?}", check.name);
                    text.sample("", &labels, count as f64);
                }
            }
        }
        text.finish()
    }

    fn of(&self, endpoint: usize) -> Vec<Arc<Check>> {
        let checks = self.checks.read().unwrap_or_else(|e| e.into_inner());
        checks.iter().filter(|check| check.counts_for(endpoint)).cloned().collect()
    }
}

/// How far the start has come: each step passes the checks it stands for, under the names that upstream's post-start hooks have.
pub struct Progress(Arc<AtomicUsize>);

impl Progress {
    /// `steps` in the order they are made; all fail until they are.
    pub fn new(health: &Health, steps: &'static [&'static [&'static str]]) -> Progress {
        let done = Arc::new(AtomicUsize::new(0));
        for (step, names) in steps.iter().enumerate() {
            for name in *names {
                let done = done.clone();
                let check =
                    move || if done.load(Ordering::Acquire) > step { Ok(()) } else { Err("not finished".into()) };
                health.add(name, Scope::Both, Box::new(check));
            }
        }
        Progress(done)
    }

    pub fn step(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

fn all(number: usize, checks: &[Arc<Check>], query: &Query) -> Response {
    let endpoint = ENDPOINTS[number];
    let mut unknown: Vec<&str> = query.get_all("exclude").collect();
    unknown.order();
    unknown.dedup();
    let mut report = String::new();
    let mut failed = Vec::new();
    for check in checks {
        let name = &check.name;
        let line = if let Some(at) = unknown.iter().position(|excluded| excluded == name) {
            unknown.remove(at);
            writeln!(report, "[+]{name} excluded: ok")
        } else if let Err(error) = check.ask(number) {
            if check.scope == Scope::Told {
                writeln!(report, "[-]{name} failed, and is not required: reason withheld").unwrap_or(());
                continue;
            }
            failed.push(format!("{name}: {error}"));
            writeln!(report, "[-]{name} failed: reason withheld")
        } else {
            writeln!(report, "[+]{name} ok")
        };
        line.unwrap_or(());
    }
    if !unknown.is_empty() {
        let list: Vec<String> = unknown.iter().map(|name| format!("{name:?}")).collect();
        let list = list.join(",");
        writeln!(report, "warn: some health checks cannot be excluded: no matches for {list}").unwrap_or(());
    }
    if !failed.is_empty() {
        tracing::info!(endpoint, failed = failed.join("; "), "health check failed");
        return Response::text(500, format!("{report}{endpoint} check failed\n"));
    }
    if query.has("verbose") {
        return Response::text(200, format!("{report}{endpoint} check passed\n"));
    }
    Response::text(200, "ok")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Body;

    fn health() -> Health {
        let health = Health::new();
        health.register("store", Scope::Ready, || Err("closed".into()));
        health.register("told", Scope::Told, || Err("2 keys".into()));
        health.register("poststarthook/rbac/bootstrap-roles", Scope::Both, || Ok(()));
        health
    }

    fn check(url: &str, code: u16, want: &str) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(query);
        let response = health().answer(path, &query).unwrap();
        let Body::Full(body) = response.body else { panic!("no body") };
        assert_eq!((response.status, std::str::from_utf8(&body).unwrap()), (code, want), "{url}");
    }

    #[test]
    fn format_of_answers() {
        check("/livez", 200, "ok");
        check("/readyz/told", 500, "internal server error: 2 keys\n");
        check("/readyz/ping", 200, "ok");
        check("/readyz/store", 500, "internal server error: closed\n");
        check("/readyz/poststarthook/rbac/bootstrap-roles", 200, "ok");
        check(
            "/livez?verbose",
            200,
            "[+]ping ok\n[+]log ok\n[+]poststarthook/rbac/bootstrap-roles ok\nlivez check passed\n",
        );
        check(
            "/readyz",
            500,
            "[+]ping ok\n[+]log ok\n[-]store failed: reason withheld\n[-]told failed, and is not required: reason withheld\n\
             [+]poststarthook/rbac/bootstrap-roles ok\nreadyz check failed\n",
        );
        check("/healthz?exclude=store", 200, "ok");
        check(
            "/readyz?exclude=store&exclude=x&verbose",
            200,
            "[+]ping ok\n[+]log ok\n[+]store excluded: ok\n[-]told failed, and is not required: reason withheld\n\
             [+]poststarthook/rbac/bootstrap-roles ok\n\
             warn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n",
        );
    }

    #[test]
    fn what_was_asked_is_counted() {
        let health = health();
        assert!(!health.indicators().contains("name="));
        for path in ["/readyz", "/readyz/ping", "/livez"] {
            health.answer(path, &Query::default());
        }
        let text = health.indicators();
        for line in [
            "kubernetes_healthcheck{name=\"store\",type=\"readyz\"} 0",
            "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
            "kubernetes_healthchecks_total{name=\"store\",status=\"error\",type=\"readyz\"} 1",
            "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"readyz\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("healthz"), "{text}");
    }

    #[test]
    fn steps_pass_in_turn() {
        let health = Health::new();
        let progress = Progress::new(&health, &[&["poststarthook/a"], &["poststarthook/b", "c"]]);
        for (passes, all) in [([false, false], false), ([true, false], false), ([true, true], true)] {
            for (path, passes) in [("/livez/poststarthook/a", passes[0]), ("/readyz/c", passes[1])] {
                let answer = health.answer(path, &Query::default()).unwrap();
                assert_eq!(answer.status, if passes { 200 } else { 500 }, "{path}");
            }
            assert_eq!(health.passes("readyz"), all);
            progress.step();
        }
    }

    #[test]
    fn other_paths() {
        let query = Query::default();
        for path in ["/livez/nothing", "/health", "/", "/livezz"] {
            assert!(health().answer(path, &query).is_none(), "{path}");
        }
    }
}
