//! /livez, /readyz and /healthz with upstream's checks format (apiserver/pkg/server/healthz/healthz.go). The parts of
//! the node register their checks; a check is asked only when somebody asks.
use crate::http::{Query, Response};
use mote_schema::Order as _;
use std::{
    fmt::Write as _,
    sync::{Arc, RwLock},
};

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Which of the three endpoints a check counts for; /healthz has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Live,
    Ready,
    Both,
}

#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<(String, Scope, Check)>>,
}

impl Health {
    /// With the check that always passes, "ping".
    pub fn new() -> Health {
        let health = Health::default();
        health.register("ping", Scope::Both, || Ok(()));
        health
    }

    /// `check` is quick; its error is logged, not shown. A second check of a name replaces the first.
    pub fn register(&self, name: &str, scope: Scope, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        let Ok(mut checks) = self.checks.write() else { return };
        checks.retain(|(known, _, _)| known != name);
        checks.push((name.into(), scope, Arc::new(check)));
    }

    /// None when the path is not one of health's.
    pub fn answer(&self, path: &str, query: &Query) -> Option<Response> {
        let path = path.strip_prefix('/')?;
        let (endpoint, name) = path.split_once('/').unwrap_or((path, ""));
        let endpoint = ["livez", "readyz", "healthz"].into_iter().find(|known| *known == endpoint)?;
        let checks = self.of(endpoint);
        if name.is_empty() {
            return Some(all(endpoint, &checks, query));
        }
        let (_, check) = checks.into_iter().find(|(known, _)| known == name)?;
        Some(match check() {
            Ok(()) => Response::text(200, "ok"),
            Err(error) => Response::text(500, format!("internal server error: {error}\n")),
        })
    }

    /// Does every check that counts for "livez", "readyz" or "healthz" pass?
    pub fn passes(&self, endpoint: &str) -> bool {
        self.of(endpoint).iter().all(|(_, check)| check().is_ok())
    }

    fn of(&self, endpoint: &str) -> Vec<(String, Check)> {
        let counts = |scope: &Scope| match endpoint {
            "livez" => *scope != Scope::Ready,
            "readyz" => *scope != Scope::Live,
            _ => true,
        };
        let checks = self.checks.read().unwrap_or_else(|e| e.into_inner());
        checks.iter().filter(|(_, scope, _)| counts(scope)).map(|(n, _, c)| (n.clone(), c.clone())).collect()
    }
}

fn all(endpoint: &str, checks: &[(String, Check)], query: &Query) -> Response {
    let mut unknown: Vec<&str> = query.get_all("exclude").collect();
    unknown.order();
    unknown.dedup();
    let mut report = String::new();
    let mut failed = Vec::new();
    for (name, check) in checks {
        let line = if let Some(at) = unknown.iter().position(|excluded| excluded == name) {
            unknown.remove(at);
            writeln!(report, "[+]{name} excluded: ok")
        } else if let Err(error) = check() {
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
        check("/readyz/ping", 200, "ok");
        check("/readyz/store", 500, "internal server error: closed\n");
        check("/readyz/poststarthook/rbac/bootstrap-roles", 200, "ok");
        check("/livez?verbose", 200, "[+]ping ok\n[+]poststarthook/rbac/bootstrap-roles ok\nlivez check passed\n");
        check(
            "/readyz",
            500,
            "[+]ping ok\n[-]store failed: reason withheld\n[+]poststarthook/rbac/bootstrap-roles ok\nreadyz check failed\n",
        );
        check("/healthz?exclude=store", 200, "ok");
        check(
            "/readyz?exclude=store&exclude=x&verbose",
            200,
            "[+]ping ok\n[+]store excluded: ok\n[+]poststarthook/rbac/bootstrap-roles ok\n\
             warn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n",
        );
    }

    #[test]
    fn other_paths() {
        let query = Query::default();
        for path in ["/livez/nothing", "/health", "/", "/livezz"] {
            assert!(health().answer(path, &query).is_none(), "{path}");
        }
    }
}
